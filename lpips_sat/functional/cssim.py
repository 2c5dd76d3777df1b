"""cSSIM: SSIM that forgives a small shift and a constant offset of each band."""

from __future__ import annotations

import torch
from torch import Tensor

from ..validity import combine, erode, ratio_or_nan
from ._inputs import band_sums, check_data_range, check_min_size, prepare, strips
from .cpsnr import MAX_SHIFT, best, check_max_shift, cpsnr_sums, inner, moves, offsets
from .ssim import HALO, WINDOW, blur, similarity


def cssim(
    pred: Tensor,
    ref: Tensor,
    *,
    data_range: float,
    max_shift: int = MAX_SHIFT,
    valid: Tensor | None = None,
) -> Tensor:
    """The best SSIM over integer shifts of `ref` within +-s px, without the offset of each band.

    Shifts, offsets and the part of `pred` that is scored are those of `cpsnr`, the windows those of
    `ssim`. It costs a pass of SSIM for each of the (2 s + 1)^2 shifts.

    Args:
        pred: Floating (N, C, H, W) with H, W >= 11 + 2 s, normally reflectance.
        ref: The truth, shaped like `pred`.
        data_range: R, in the units of the input, see `ssim`.
        max_shift: s in pixels, 0 or more; a whole number.
        valid: Boolean (N, 1, H, W), True = use the pixel; None = all.

    Returns:
        float64 (N,) without unit, in [-1, 1], higher is better. Images that are identical, or
        become so by a shift and an offset, give 1. Only windows count that lie whole in `pred`
        without its s outermost pixels and are valid throughout in both, so invalid pixels change
        nothing; an image without such a window gives NaN (gradient 0).

    References:
        The PROBA-V challenge's treatment of PSNR, applied to SSIM: see `cpsnr` and `ssim`.
    """
    sums = cssim_sums(pred, ref, data_range=data_range, max_shift=max_shift, valid=valid)
    check_min_size(pred, WINDOW + 2 * max_shift, "cSSIM")
    return cssim_from_sums(sums, max_shift=max_shift)


def cssim_sums(
    pred: Tensor,
    ref: Tensor,
    *,
    data_range: float,
    max_shift: int = MAX_SHIFT,
    valid: Tensor | None = None,
    core: Tensor | None = None,
    known: Tensor | None = None,
) -> Tensor:
    """Return (N, (2 s + 1)^2 (C + 1)) float64: of each shift each band's sum, the window count.

    `known` are the `cpsnr_sums` of the whole image, whose offsets are taken out; None = these
    arrays are the whole. Adds up over disjoint cores when every tile carries s + 5 px around its
    core, where the image goes on. An array too small for a window gives zeros.
    """
    scale, reach = check_data_range(data_range), check_max_shift(max_shift)
    if known is None:
        known = cpsnr_sums(pred, ref, max_shift=reach, valid=valid)
    pred, ref, holds_data, counts_here = prepare(pred, ref, valid, core)
    if min(pred.shape[-2:]) < WINDOW + 2 * reach:
        return pred.new_zeros((pred.shape[0], (2 * reach + 1) ** 2 * (pred.shape[1] + 1)))
    total = pred.new_zeros(())
    taken_out = offsets(known, max_shift=reach).nan_to_num()  # NaN: no pixel, and so no window
    for rows in strips(pred.shape[-2], reach + HALO):
        strip = pred[rows], ref[rows], holds_data[rows], counts_here[rows]
        total = total + _strip_sums(*strip, taken_out, reach, scale)
    return total


def _strip_sums(
    pred: Tensor,
    ref: Tensor,
    valid: Tensor,
    core: Tensor,
    taken_out: Tensor,
    reach: int,
    data_range: float,
) -> Tensor:
    """The moments of either image are taken once; only their product changes with the shift."""
    whole = inner(erode(valid, HALO), HALO)
    counted = combine(inner(whole, reach), inner(core, reach + HALO))
    still = inner(pred, reach)
    mean_p, power_p = blur(still), blur(still.square())
    parts = [moves(x, reach) for x in (ref, blur(ref), blur(ref.square()), whole)]
    columns = []
    for offset, moved, mean_r, power_r, there in zip(taken_out.unbind(1), *parts, strict=True):
        b = offset[..., None, None]
        power = power_p + b * (2 * mean_p + b) + power_r
        cross = 2 * (blur(still * moved) + b * mean_r)
        score = similarity(mean_p + b, mean_r, power, cross, data_range)
        columns.append(band_sums(score, combine(counted, there)))
    return torch.cat(columns, dim=1)


def cssim_from_sums(sums: Tensor, *, max_shift: int = MAX_SHIFT) -> Tensor:
    """Return the scores (N,) of `cssim_sums`."""
    per_shift = sums.unflatten(1, ((2 * check_max_shift(max_shift) + 1) ** 2, -1))
    return best(ratio_or_nan(per_shift[..., :-1], per_shift[..., -1:]).mean(dim=-1))
