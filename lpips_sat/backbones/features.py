"""Comparing feature maps: the one place where LPIPS-Sat's arithmetic on features lives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..validity import sum_dtype

# Added under the square root, so that an all-zero feature vector has a finite gradient.
EPSILON = 1e-8
# Numbers of each side that are compared at a time: few enough to stay in a processor's cache.
STRIP = 2**18


def unit_vectors(features: Tensor) -> Tensor:
    """(N, C, h, w) -> the same, every position a unit vector over C (0 stays 0)."""
    return features * torch.rsqrt(features.square().sum(dim=1, keepdim=True) + EPSILON)


def channel_distances(x: Tensor, y: Tensor) -> Tensor:
    """(N, C, h, w) twice -> (N, C): mean over positions of squared unit-feature differences."""
    return (unit_vectors(x) - unit_vectors(y)).square().mean(dim=(2, 3))


def weighted_distance(features: Tensor, head: Tensor) -> Tensor:
    """Features of pred and ref (2N, C, h, w) -> (N, 1, h, w), always in float32.

    Strip by strip of rows: large maps would otherwise pass through memory at every operation.
    """
    pred, ref = features.float().chunk(2)
    images, channels, _, width = pred.shape
    rows = max(1, STRIP // max(1, images * channels * width))
    with torch.autocast(features.device.type, enabled=False):
        weights = head.float()[None, :, None, None]
        strips = [
            F.conv2d((unit_vectors(x) - unit_vectors(y)).square(), weights)
            for x, y in zip(pred.split(rows, dim=2), ref.split(rows, dim=2), strict=True)
        ]
        return torch.cat(strips, dim=2)


def cell_share(counted: Tensor, stride: int, maps: Tensor) -> Tensor:
    """How much of the cell of each position counts, in [0, 1]: float64 (N, 1, h, w)."""
    share = F.avg_pool2d(counted.to(sum_dtype(counted)), stride, ceil_mode=True)
    return share[..., : maps.shape[-2], : maps.shape[-1]]
