"""Spatial correlation coefficient."""

from __future__ import annotations

import torch
from torch import Tensor

from ..validity import combine, erode, masked_sum, safe_sqrt
from ._inputs import check_min_size, count_values, prepare

# The filter is 3 x 3 px.
HALO = 1
WINDOW = 2 * HALO + 1
# A band whose variance is this small a part of its power holds no detail, only rounding.
FLAT = 1e-13


def scc(pred: Tensor, ref: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Correlation of the fine detail of `pred` and `ref`, the mean over the bands of each image.

    The detail of a pixel is eight times its value less its eight neighbours; the correlation is
    Pearson's, over all pixels of a band whose neighbours are there and valid.

    Args:
        pred: Floating (N, C, H, W) with H, W >= 3, normally reflectance.
        ref: The truth, shaped like `pred`.
        valid: Boolean (N, 1, H, W), True = use the pixel; None = all.

    Returns:
        float64 (N,) without unit, in [-1, 1], higher is better. Identical images give 1; brightness
        and contrast do not matter. Invalid pixels change nothing. An image with a band that has no
        detail in `pred` or in `ref`, or without a pixel to score, gives NaN (gradient 0).

    Note:
        Other tools take Sobel's filter, or the mean over windows of 8 x 8 px: other numbers.

    References:
        Zhou, Civco & Silander 1998, "A wavelet transform method to merge Landsat TM and SPOT
        panchromatic data", doi:10.1080/014311698215973.
    """
    sums = scc_sums(pred, ref, valid=valid)
    check_min_size(pred, WINDOW, "sCC")
    return scc_from_sums(sums)


def scc_sums(
    pred: Tensor, ref: Tensor, *, valid: Tensor | None = None, core: Tensor | None = None
) -> Tensor:
    """Return (N, 5 C + 1) float64: each band's sums of p, r, p^2, r^2, p r; the pixel count.

    p and r are the details. Adds up over disjoint cores when every tile carries 1 px around its
    core, where the image goes on. An array smaller than the filter gives zeros.
    """
    pred, ref, holds_data, counts_here = prepare(pred, ref, valid, core)
    if min(pred.shape[-2:]) < WINDOW:
        return pred.new_zeros((pred.shape[0], 5 * pred.shape[1] + 1))
    inside = (..., slice(HALO, -HALO), slice(HALO, -HALO))
    counted = combine(erode(holds_data, HALO)[inside], counts_here[inside])
    p, r = _detail(pred), _detail(ref)
    sums = [masked_sum(x, counted) for x in (p, r, p * p, r * r, p * r)]
    return torch.cat([*sums, count_values(counted, 1)[:, None]], dim=1)


def scc_from_sums(sums: Tensor) -> Tensor:
    """Return the scores (N,) of `scc_sums` (N, 5 C + 1)."""
    p, r, pp, rr, pr = sums[:, :-1].chunk(5, dim=1)
    count = sums[:, -1:].clamp(min=1)  # without a pixel all sums are 0, which is flat
    var_p, var_r = pp - p * p / count, rr - r * r / count
    flat = (var_p <= FLAT * pp) | (var_r <= FLAT * rr)
    scale = safe_sqrt(torch.where(flat, torch.ones_like(var_p), var_p * var_r))
    score = ((pr - p * r / count) / scale).mean(dim=1)
    return torch.where(flat.any(dim=1), torch.full_like(score, torch.nan), score)


def _detail(x: Tensor) -> Tensor:
    """Return 8 x - its neighbours of (N, C, H, W): (N, C, H - 2, W - 2).

    In opposite pairs of neighbours, so that a constant gives exactly 0.
    """
    height, width = x.shape[-2] - 2, x.shape[-1] - 2

    def moved(rows: int, cols: int) -> Tensor:
        return x[..., 1 + rows : 1 + rows + height, 1 + cols : 1 + cols + width]

    twice = 2 * moved(0, 0)
    pairs = [(0, 1), (1, 0), (1, 1), (1, -1)]
    return sum((twice - (moved(a, b) + moved(-a, -b)) for a, b in pairs), torch.zeros_like(twice))
