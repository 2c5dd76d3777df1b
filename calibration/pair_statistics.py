"""What a pair of patches looks like, in a few numbers a teacher is told beside the kind."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .evaluate import to_batch

# The first so many statistics act per kind in the linear teacher, all of them on all kinds alike.
PER_KIND = 3


def statistics(
    ref: NDArray[np.uint8], side: NDArray[np.uint8], *, batch: int = 256
) -> NDArray[np.float64]:
    """What a pair looks like (n, 18): size of the error, contrast, gradients, structure, colour."""
    rows = [
        _statistics(to_batch(ref[i : i + batch]), to_batch(side[i : i + batch]))
        for i in range(0, len(ref), batch)
    ]
    return torch.cat(rows).double().numpy()


def _statistics(x: Tensor, y: Tensor) -> Tensor:
    low_x, low_y = _blur(x, 2.0), _blur(y, 2.0)
    mean_x, mean_y = x.mean(dim=(2, 3)), y.mean(dim=(2, 3))
    error = _log((x - y).square().mean(dim=(1, 2, 3)))
    gradient_x, gradient_y = _gradient(x), _gradient(y)
    busy, std = _busy(gradient_x), torch.log(x.std(dim=(2, 3)).mean(dim=1) + 1e-3)
    busier = _busy(gradient_y) - busy
    contrast = torch.log(y.std(dim=(2, 3)).mean(dim=1) + 1e-3) - std
    clipped = ((y <= 0.002) | (y >= 0.998)).float().mean(dim=(1, 2, 3))
    columns = [
        *(error, busy, std),  # these three act per kind
        *(mean_x.mean(dim=1), busier, contrast, busier.abs(), contrast.abs()),
        _gradient_deviation(gradient_x, gradient_y),
        _log((low_x - low_y).square().mean(dim=(1, 2, 3))),
        _log((x - low_x - y + low_y).square().mean(dim=(1, 2, 3))),
        _log((mean_x - mean_y).square().mean(dim=1)),
        _log((mean_x - mean_y).var(dim=1)),
        *_structure(x.mean(dim=1, keepdim=True), y.mean(dim=1, keepdim=True)),
        error - 2 * busy,
        (mean_y - mean_x).mean(dim=1),
        torch.log(clipped + 1e-2),
    ]
    return torch.stack(columns, dim=1)


def _log(value: Tensor) -> Tensor:
    return torch.log(value + 1e-6)


def _gradient(x: Tensor) -> Tensor:
    """Gradient magnitude of the mean band."""
    grey = x.mean(dim=1, keepdim=True)
    corner = grey[..., :-1, :-1]
    down, right = grey[..., 1:, :-1] - corner, grey[..., :-1, 1:] - corner
    return torch.sqrt(down.square() + right.square() + 1e-8)


def _busy(gradient: Tensor) -> Tensor:
    return torch.log(gradient.mean(dim=(1, 2, 3)) + 1e-3)


def _gradient_deviation(x: Tensor, y: Tensor) -> Tensor:
    """Log of the gradient magnitude similarity deviation (Xue et al. 2014)."""
    similarity = (2 * x * y + 2e-4) / (x.square() + y.square() + 2e-4)
    return torch.log((1 - similarity).std(dim=(1, 2, 3)) + 1e-3)


def _structure(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Log of 1 - structure and of 1 - contrast similarity (the second factor of SSIM)."""
    mean_x, mean_y = _blur(x, 1.5), _blur(y, 1.5)
    var_x, var_y = _blur(x * x, 1.5) - mean_x**2, _blur(y * y, 1.5) - mean_y**2
    both = _blur(x * y, 1.5) - mean_x * mean_y
    stds = torch.sqrt(var_x.clamp(min=0) + 1e-8) * torch.sqrt(var_y.clamp(min=0) + 1e-8)
    found = []
    for numerator in (both, stds):
        similarity = (2 * numerator + 9e-4) / (var_x + var_y + 9e-4)
        found.append(torch.log((1 - similarity).mean(dim=(1, 2, 3)).clamp(min=0) + 1e-3))
    return found[0], found[1]


def _blur(x: Tensor, sigma: float) -> Tensor:
    radius, channels = int(3 * sigma + 0.5), x.shape[1]
    taps = torch.exp(-torch.arange(-radius, radius + 1).float().square() / (2 * sigma**2))
    kernel = (taps / taps.sum())[None, None, None].expand(channels, 1, 1, -1)
    x = F.conv2d(F.pad(x, (radius, radius, 0, 0), mode="reflect"), kernel, groups=channels)
    x = F.pad(x, (0, 0, radius, radius), mode="reflect")
    return F.conv2d(x, kernel.transpose(2, 3), groups=channels)
