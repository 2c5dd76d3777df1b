"""Ways to compare two feature maps channel by channel: what a head may weigh.

Each takes two maps (N, C, h, w) and gives (N, K) non-negative numbers, 0 for equal maps; K is C or
a multiple of it. ``points`` is LPIPS' own and what `lpips_sat.LPIPSSat` computes; the
others are there to be compared with it (``study``).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backbones.features import channel_distances, unit_vectors

Compare = Callable[[Tensor, Tensor], Tensor]
# Stabilisers of the two DISTS terms (Ding et al. 2020, eq. 5).
DISTS_C = 1e-6
WINDOW = 5
REACH = 1  # positions that "shift" looks around


def pooled(x: Tensor, y: Tensor) -> Tensor:
    """Point-wise after overlapping L2 pooling (Hénaff & Simoncelli 2016, sec. 2.2), 3 x 3."""
    window = min(3, *x.shape[-2:])
    x, y = unit_vectors(x), unit_vectors(y)
    roots = [torch.sqrt(F.avg_pool2d(f * f, window, stride=1) + 1e-8) for f in (x, y)]
    return (roots[0] - roots[1]).square().mean(dim=(2, 3))


def statistics(x: Tensor, y: Tensor) -> Tensor:
    """Local means and local (co)variances of each channel, as DISTS compares global ones: 2 C."""
    window = min(WINDOW, *x.shape[-2:])

    def mean(f: Tensor) -> Tensor:
        return F.avg_pool2d(f, window, stride=1)

    x, y = unit_vectors(x), unit_vectors(y)
    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = (mean(x * x) - mean_x**2).clamp(min=0), (mean(y * y) - mean_y**2).clamp(min=0)
    both = mean(x * y) - mean_x * mean_y
    texture = 1 - (2 * mean_x * mean_y + DISTS_C) / (mean_x**2 + mean_y**2 + DISTS_C)
    structure = 1 - (2 * both + DISTS_C) / (var_x + var_y + DISTS_C)
    return torch.cat([texture, structure], dim=1).mean(dim=(2, 3)).clamp(min=0)


def shift_tolerant(x: Tensor, y: Tensor) -> Tensor:
    """Point-wise against the best match among the 3 x 3 neighbours, in both directions."""
    x, y = unit_vectors(x), unit_vectors(y)
    return (_matched(x, y) + _matched(y, x)) / 2


def _matched(x: Tensor, y: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    around = F.pad(y, (REACH,) * 4, mode="replicate")
    moved = [
        around[..., i : i + height, j : j + width]
        for i in range(2 * REACH + 1)
        for j in range(2 * REACH + 1)
    ]
    squared = torch.stack([(x - other).square() for other in moved])  # (9, N, C, h, w)
    best = squared.sum(dim=2, keepdim=True).argmin(dim=0, keepdim=True)
    chosen = squared.gather(0, best.expand(1, *squared.shape[1:]))[0]
    return chosen.mean(dim=(2, 3))


DISTANCES: dict[str, Compare] = {
    "points": channel_distances,
    "pooled": pooled,
    "statistics": statistics,
    "shift-tolerant": shift_tolerant,
}
