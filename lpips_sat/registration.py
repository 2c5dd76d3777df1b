"""The shift between two images in fractions of a pixel: how large it is, and how to undo it.

>>> shift = estimate_shift(pred, ref, valid=valid)  # doctest: +SKIP
>>> registered, still_valid = apply_shift(pred, -shift, valid)  # doctest: +SKIP
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter
from skimage.registration import phase_cross_correlation
from torch import Tensor

from .errors import MetricInputError
from .functional import psnr, ssim
from .functional._inputs import check_min_size, check_pair
from .validity import as_valid, combine, fill_invalid

Array = npt.NDArray[np.float64]

# The detail that is compared: between these two Gaussians (sigma in pixels). What is finer is what
# a prediction lacks or invents, what is coarser does not say where exactly it lies.
FINE, COARSE = 1.0, 2.0
# A mask that both images share draws the estimate towards 0; with the first estimate undone, that
# is where it belongs.
PASSES = 2
# Standard deviation of detail, in that of the reference, below which there is only rounding.
NO_DETAIL = 1e-9
# Half-width of the resampling kernel in pixels, sinc(x) sinc(x / 6), Lanczos' window: Duchon 1979,
# doi:10.1175/1520-0450(1979)018<1016:LFIOAT>2.0.CO;2. On detail up to the Nyquist frequency each
# pixel of reach from 3 to 6 brings about 1 dB, and costs one at every edge of a mask.
REACH = 6
MIN_SIZE = 16


@dataclass(frozen=True)
class Shift:
    """How far an image lies from another: dy rows down and dx columns right, in pixels.

    reliability: the correlation of the two images' detail once the shift is undone, in [0, 1]; 1 =
    the same detail, 0 = nothing in common or no detail at all. Below about 0.3 the shift of an
    image of a few hundred pixels a side can be chance.
    """

    dy: float
    dx: float
    reliability: float = 1.0

    def __neg__(self) -> Shift:
        """The way back."""
        return Shift(-self.dy, -self.dx, self.reliability)


def estimate_shift(
    pred: Tensor, ref: Tensor, *, valid: Tensor | None = None, upsample: int = 100
) -> Shift:
    """Estimate how far `pred` lies from `ref`: pred(y, x) = ref(y - dy, x - dx).

    The peak of the cross-correlation of the images' detail, found to 1 / upsample px by a matrix
    Fourier transform around it. The detail is a difference of two Gaussians (1 and 2 px) of the
    mean of all bands, each divided by the standard deviation of its detail in `ref`.
    The correlation is not whitened, as phase correlation in the strict sense is: where a
    prediction is smoother than its reference, whitening gives every frequency without signal a
    vote, and with noise the estimate errs by more than 0.1 px.

    Args:
        pred: Floating (1, C, H, W) with H, W >= 16: one image at a time.
        ref: Shaped like `pred`.
        valid: Boolean (1, 1, H, W), True = use the pixel in both; None = all. What lies under it
            changes nothing.
        upsample: Steps per pixel, 1 or more.

    Returns:
        The shift, and how far to trust it. Without any detail it is 0 with reliability 0.

    References:
        Guizar-Sicairos, Thurman & Fienup 2008, doi:10.1364/OL.33.000156, as
        `skimage.registration.phase_cross_correlation` computes it.
    """
    holds_data = _check(pred, ref, valid)
    if type(upsample) is not int or upsample < 1:  # a bool is an int too
        raise MetricInputError(f"`upsample` must be a whole number, 1 or more, got {upsample!r}.")
    found = Shift(0.0, 0.0)
    for _ in range(PASSES):
        moved, overlap = apply_shift(pred.detach(), -found, holds_data)
        moving, still = _detail(moved, ref, combine(overlap, holds_data))
        if min(moving.std(), still.std()) < NO_DETAIL:
            return Shift(0.0, 0.0, 0.0)
        window = np.outer(*(np.hanning(side + 2)[1:-1] for side in still.shape))
        dy, dx = phase_cross_correlation(
            moving * window, still * window, upsample_factor=upsample, normalization=None
        )[0]
        found = Shift(found.dy + float(dy), found.dx + float(dx))
    return Shift(found.dy, found.dx, _agreement(pred, ref, holds_data, found))


def apply_shift(image: Tensor, shift: Shift, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Move the content of an image by `shift.dy` rows down and `shift.dx` columns right.

    To undo an estimated shift, apply its negative: `apply_shift(pred, -shift, valid)`. Resampled
    once, by a 12 x 12 px windowed sinc; a whole number of pixels moves values as they are.

    Args:
        image: Floating (N, C, H, W).
        shift: In pixels.
        valid: Boolean (N, 1, H, W), True = holds data; None = all.

    Returns:
        The moved image, 0 where invalid, in the image's type; and boolean (N, 1, H, W), True where
        the whole kernel met valid pixels inside the image.
    """
    known = as_valid(valid, image)
    moved = fill_invalid(image, known).to(torch.float64)
    for axis, distance in ((-2, shift.dy), (-1, shift.dx)):
        moved, known = _move(moved, known, axis, distance)
    return fill_invalid(moved, known).to(image.dtype), known


def register(
    pred: Tensor, ref: Tensor, *, valid: Tensor | None = None, upsample: int = 100
) -> tuple[Tensor, Tensor, list[Shift]]:
    """Estimate the shift of each image of a batch and undo it.

    Returns:
        `pred` resampled onto `ref` (N, C, H, W), where both are valid then (N, 1, H, W), and the
        shifts that were undone.
    """
    check_pair(pred, ref)
    holds_data = as_valid(valid, pred)
    images, masks, shifts = [], [], []
    for i in range(pred.shape[0]):
        one = slice(i, i + 1)
        shift = estimate_shift(pred[one], ref[one], valid=holds_data[one], upsample=upsample)
        image, mask = apply_shift(pred[one], -shift, holds_data[one])
        images.append(image)
        masks.append(combine(mask, holds_data[one]))
        shifts.append(shift)
    return torch.cat(images), torch.cat(masks), shifts


def registered_psnr(
    pred: Tensor, ref: Tensor, *, data_range: float, valid: Tensor | None = None
) -> Tensor:
    """PSNR of the overlap after the shift of each image is undone, see `register` and `psnr`."""
    moved, overlap, _ = register(pred, ref, valid=valid)
    return psnr(moved, ref, data_range=data_range, valid=overlap)


def registered_ssim(
    pred: Tensor, ref: Tensor, *, data_range: float, valid: Tensor | None = None
) -> Tensor:
    """SSIM of the overlap after the shift of each image is undone, see `register` and `ssim`."""
    moved, overlap, _ = register(pred, ref, valid=valid)
    return ssim(moved, ref, data_range=data_range, valid=overlap)


def _check(pred: Tensor, ref: Tensor, valid: Tensor | None) -> Tensor:
    check_pair(pred, ref)
    check_min_size(pred, MIN_SIZE, "A shift")
    if pred.shape[0] != 1:
        raise MetricInputError(
            f"`estimate_shift` takes one pair (1, C, H, W) at a time, got {tuple(pred.shape)}. "
            f"Use `register` for a batch."
        )
    return as_valid(valid, pred)


def _detail(pred: Tensor, ref: Tensor, valid: Tensor) -> tuple[Array, Array]:
    """The detail (H, W) of both images, all bands in one; 0 where invalid."""
    mask = valid[0, 0].cpu().numpy()
    shares = [np.maximum(gaussian_filter(mask.astype(np.float64), s), 1e-9) for s in (FINE, COARSE)]
    total = [np.zeros(mask.shape), np.zeros(mask.shape)]
    images = [
        fill_invalid(x.detach(), valid)[0].to(torch.float64).cpu().numpy() for x in (pred, ref)
    ]
    for bands in zip(*images, strict=True):
        smooth = [
            [gaussian_filter(x, s) / w for s, w in zip((FINE, COARSE), shares, strict=True)]
            for x in bands
        ]
        parts = [np.where(mask, fine - coarse, 0) for fine, coarse in smooth]
        spread = parts[1][mask].std() if mask.any() else 0.0
        if spread > 1e-12 * np.abs(bands[1]).max():  # else rounding, and no detail
            for whole, part in zip(total, parts, strict=True):
                whole += part / spread
    return total[0], total[1]


def _agreement(pred: Tensor, ref: Tensor, valid: Tensor, shift: Shift) -> float:
    """The correlation of the detail of two images once `shift` is undone, at least 0."""
    moved, known = apply_shift(pred.detach(), -shift, valid)
    overlap = combine(known, valid)
    x, y = (detail[overlap[0, 0].cpu().numpy()] for detail in _detail(moved, ref, overlap))
    if not x.size or min(x.std(), y.std()) < NO_DETAIL:
        return 0.0
    return float(np.clip(np.corrcoef(x, y)[0, 1], 0, 1))


def _move(image: Tensor, valid: Tensor, axis: int, distance: float) -> tuple[Tensor, Tensor]:
    """Move (N, C, H, W) along one axis; valid is where the whole kernel met valid pixels."""
    whole = math.floor(distance)
    taps = _taps(distance - whole)
    moved, known = torch.zeros_like(image), torch.ones_like(valid)
    for offset, weight in taps.items():
        step = whole + offset
        moved = moved + weight * _rolled(image, axis, step)
        known = combine(known, _rolled(valid, axis, step))
    return moved, known


def _taps(part: float) -> dict[int, float]:
    """Weights of the kernel for a move by `part` of a pixel in [0, 1), by whole pixels moved."""
    if part == 0:
        return {0: 1.0}
    offsets = np.arange(1 - REACH, REACH + 1)
    weights = np.sinc(offsets - part) * np.sinc((offsets - part) / REACH)
    return dict(zip(offsets.tolist(), (weights / weights.sum()).tolist(), strict=True))


def _rolled(x: Tensor, axis: int, step: int) -> Tensor:
    """Move by whole pixels; what comes in from outside is 0 (False)."""
    size = x.shape[axis]
    if abs(step) >= size:
        return torch.zeros_like(x)
    kept = x.narrow(axis, max(0, -step), size - abs(step))
    result = torch.zeros_like(x)
    result.narrow(axis, max(0, step), size - abs(step)).copy_(kept)
    return result
