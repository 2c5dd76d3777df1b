"""Universal image quality index."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..validity import combine, ratio_or_nan
from ._inputs import band_sums, check_min_size, prepare

# Wang & Bovik 2002, section III: windows of 8 x 8 px, moved pixel by pixel.
WINDOW = 8
# A window belongs to its fifth row and column, and reaches this far from there.
HALO = WINDOW // 2
# A window whose variance is this small a part of its power is flat: rounding in float64 makes up
# to 1e-14, one step of 16-bit data in one pixel of a window 4e-12.
FLAT = 1e-13


def uiqi(pred: Tensor, ref: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Mean universal image quality index over windows of 8 x 8 px and bands of each image.

    4 s_pr m_p m_r / ((s_p^2 + s_r^2)(m_p^2 + m_r^2)) with the plain moments of each window: SSIM
    without its two constants, and so without a data range.

    Args:
        pred: Floating (N, C, H, W) with H, W >= 8, normally reflectance.
        ref: The truth, shaped like `pred`.
        valid: Boolean (N, 1, H, W), True = use the pixel; None = all.

    Returns:
        float64 (N,) without unit, in [-1, 1], higher is better. Identical images give 1. A factor
        that is 0 / 0 counts as 1: variances where both windows are flat, means where both are 0.
        Only windows that lie whole in the image and in `valid` count, so invalid pixels change
        nothing; an image without such a window gives NaN (gradient 0).

    References:
        Wang & Bovik 2002, "A universal image quality index", doi:10.1109/97.995823.
    """
    sums = uiqi_sums(pred, ref, valid=valid)
    check_min_size(pred, WINDOW, "UIQI")
    return uiqi_from_sums(sums)


def uiqi_sums(
    pred: Tensor, ref: Tensor, *, valid: Tensor | None = None, core: Tensor | None = None
) -> Tensor:
    """Return (N, 2) float64: sum of the index over windows and bands, number of these.

    Adds up over disjoint cores when every tile carries 4 px around its core, where the image goes
    on. An array smaller than a window holds none and gives zeros.
    """
    pred, ref, holds_data, counts_here = prepare(pred, ref, valid, core)
    if min(pred.shape[-2:]) < WINDOW:
        return pred.new_zeros((pred.shape[0], 2))
    whole = F.max_pool2d((~holds_data).to(torch.float32), WINDOW, stride=1) == 0
    anchored = slice(HALO, 1 - HALO)
    counted = combine(whole, counts_here[..., anchored, anchored])
    sums = band_sums(_index(pred, ref), counted)
    return torch.stack([sums[:, :-1].sum(dim=1), sums[:, -1] * pred.shape[1]], dim=1)


def uiqi_from_sums(sums: Tensor) -> Tensor:
    """Return the scores (N,) of `uiqi_sums` (N, 2)."""
    return ratio_or_nan(sums[:, 0], sums[:, 1])


def _index(x: Tensor, y: Tensor) -> Tensor:
    """Return the index of each whole window of two (N, C, H, W): (N, C, H - 7, W - 7)."""
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    power, cross = _window_mean(x * x + y * y), _window_mean(2 * x * y)
    mean_power = mean_x * mean_x + mean_y * mean_y
    mean_cross = 2 * mean_x * mean_y
    variance = power - mean_power
    structure = _ratio_or_one(cross - mean_cross, variance, variance <= FLAT * power)
    return structure * _ratio_or_one(mean_cross, mean_power, mean_power == 0)


def _ratio_or_one(numerator: Tensor, denominator: Tensor, undefined: Tensor) -> Tensor:
    one = torch.ones_like(denominator)
    quotient = numerator / torch.where(undefined, one, denominator)
    return torch.where(undefined, one, quotient)


def _window_mean(x: Tensor) -> Tensor:
    """Mean over whole windows: sums of two, four and eight along each axis."""
    for axis in (-2, -1):
        for step in (1, 2, 4):
            count = x.shape[axis] - step
            x = x.narrow(axis, 0, count) + x.narrow(axis, step, count)
    return x / WINDOW**2
