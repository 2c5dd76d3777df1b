"""cPSNR: PSNR that forgives a small shift and a constant offset of each band."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..errors import MetricInputError
from ..validity import combine, fill_invalid, ratio_or_nan
from ._inputs import check_min_size, count_values, prepare, strips
from .psnr import decibel

# The PROBA-V challenge tries -3 to 3 px for a factor of 3: Maertens et al. 2019, section 2.4.
MAX_SHIFT = 3
# A mean squared error this small a part of the squared offset is rounding in float64.
ROUNDING = 1e-14


def cpsnr(
    pred: Tensor,
    ref: Tensor,
    *,
    data_range: float,
    max_shift: int = MAX_SHIFT,
    valid: Tensor | None = None,
) -> Tensor:
    """The best PSNR over integer shifts of `ref` within +-s px, without the offset of each band.

    For each shift, the mean over valid pixels of ref - pred is taken out of each band before the
    squared error. The s outermost pixels of `pred` are left out, so that every shift scores the
    same part of it.

    Args:
        pred: Floating (N, C, H, W) with H, W > 2 s, normally reflectance.
        ref: The truth, shaped like `pred`.
        data_range: R, in the units of the input, see `psnr`.
        max_shift: s in pixels, 0 or more; a whole number.
        valid: Boolean (N, 1, H, W), True = use the pixel; None = all.

    Returns:
        float64 (N,) in dB, of any sign, higher is better. Images that are identical, or become so
        by a shift and an offset, give +inf (gradient 0). A pixel counts where it is valid in `pred`
        and, shifted, in `ref`, so invalid pixels change nothing; an image without such a pixel
        gives NaN (gradient 0).

    References:
        Maertens, Izzo, Krzic & Cox 2019, "Super-resolution of PROBA-V images using convolutional
        neural networks", doi:10.1007/s42064-019-0059-8 (one band, R = 1).
    """
    sums = cpsnr_sums(pred, ref, max_shift=max_shift, valid=valid)
    check_min_size(pred, 2 * max_shift + 1, "cPSNR")
    return cpsnr_from_sums(sums, data_range=data_range, max_shift=max_shift)


def cpsnr_sums(
    pred: Tensor,
    ref: Tensor,
    *,
    max_shift: int = MAX_SHIFT,
    valid: Tensor | None = None,
    core: Tensor | None = None,
) -> Tensor:
    """Return (N, (2 s + 1)^2 (2 C + 1)) float64 over the shifts, row by row.

    Of each shift: each band's sum of ref - pred, each band's sum of its square, the pixel count.
    Adds up over disjoint cores when every tile carries s px around its core, where the image goes
    on. An array of 2 s px or less gives zeros.
    """
    reach = check_max_shift(max_shift)
    pred, ref, holds_data, counts_here = prepare(pred, ref, valid, core)
    shifts, bands = (2 * reach + 1) ** 2, pred.shape[1]
    if min(pred.shape[-2:]) <= 2 * reach:
        return pred.new_zeros((pred.shape[0], shifts * (2 * bands + 1)))
    total = pred.new_zeros(())
    for rows in strips(pred.shape[-2], reach):
        strip = pred[rows], ref[rows], holds_data[rows], counts_here[rows]
        total = total + _strip_sums(*strip, reach)
    return total


def _strip_sums(pred: Tensor, ref: Tensor, valid: Tensor, core: Tensor, reach: int) -> Tensor:
    columns = []
    still, here = inner(pred, reach), combine(inner(valid, reach), inner(core, reach))
    for moved, there in zip(moves(ref, reach), moves(valid, reach), strict=True):
        counted = combine(here, there)
        error = fill_invalid(moved - still, counted).flatten(2)
        columns += [error.sum(dim=2), torch.linalg.vecdot(error, error)]
        columns.append(count_values(counted, 1)[:, None])
    return torch.cat(columns, dim=1)


def cpsnr_from_sums(sums: Tensor, *, data_range: float, max_shift: int = MAX_SHIFT) -> Tensor:
    """Return the scores (N,) in dB of `cpsnr_sums`."""
    per_shift = sums.unflatten(1, ((2 * check_max_shift(max_shift) + 1) ** 2, -1))
    offset = offsets(sums, max_shift=max_shift).square()
    power = ratio_or_nan(per_shift[..., offset.shape[-1] : -1], per_shift[..., -1:])
    error = power - offset
    error = torch.where(error <= ROUNDING * power, torch.zeros_like(error), error).mean(dim=-1)
    return best(decibel(error, data_range=data_range))


def offsets(sums: Tensor, *, max_shift: int) -> Tensor:
    """Return each band's mean of ref - pred at each shift (N, shifts, C) of `cpsnr_sums`."""
    per_shift = sums.unflatten(1, ((2 * max_shift + 1) ** 2, -1))
    bands = (per_shift.shape[-1] - 1) // 2
    return ratio_or_nan(per_shift[..., :bands], per_shift[..., -1:])


def best(scores: Tensor) -> Tensor:
    """Return the highest score (N,) over the shifts (N, shifts); NaN where no shift has one."""
    undefined = scores.isnan()
    highest = torch.where(undefined, torch.full_like(scores, -torch.inf), scores).amax(dim=1)
    nowhere = undefined.all(dim=1)
    return torch.where(nowhere, torch.full_like(highest, torch.nan), highest)


def moves(x: Tensor, reach: int) -> Iterator[Tensor]:
    """Cut (N, C, H, W) to (N, C, H - 2 s, W - 2 s) at every shift within +-s, row by row."""
    height, width = (side - 2 * reach for side in x.shape[-2:])
    for row in range(2 * reach + 1):
        for col in range(2 * reach + 1):
            yield x[..., row : row + height, col : col + width]


def inner(x: Tensor, margin: int) -> Tensor:
    """Cut `margin` px from every side of (N, C, H, W)."""
    height, width = x.shape[-2:]
    return x[..., margin : height - margin, margin : width - margin]


def check_max_shift(max_shift: int) -> int:
    """Return `max_shift`, or raise unless it is a whole number of pixels, 0 or more."""
    if type(max_shift) is not int or max_shift < 0:  # a bool is an int too
        raise MetricInputError(
            f"`max_shift` must be a whole number of pixels, 0 or more, got {max_shift!r}. The "
            f"PROBA-V challenge takes 3 for a factor of 3."
        )
    return max_shift
