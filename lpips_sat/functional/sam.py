"""Spectral angle mapper."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import MetricInputError
from ..validity import combine, fill_invalid, masked_sum, ratio_or_nan, safe_sqrt
from ._inputs import prepare_pixels


def sam(pred: Tensor, ref: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Mean angle between the spectra of `pred` and `ref` over the valid pixels of each image.

    The angle of a pixel is arccos(<p, r> / (|p| |r|)), computed in the form
    2 atan2(|p/|p| - r/|r||, |p/|p| + r/|r||), which is exact for tiny angles too.

    Args:
        pred: Floating (N, C, H, W) with C >= 2, normally reflectance.
        ref: The truth, shaped like `pred`.
        valid: Boolean (N, 1, H, W), True = use the pixel; None = all.

    Returns:
        float64 (N,) in degrees, in [0, 180] (at most 90 without negative values), lower is better.
        Identical and proportional spectra give 0 (gradient 0 where identical). A pixel that is
        zero in every band of either image has no angle and is left out; `sam_sums` says how many
        were. Invalid pixels change nothing; an image with no pixel left gives NaN (gradient 0).

    References:
        Kruse et al. 1993, doi:10.1016/0034-4257(93)90013-N. The atan2 form: Kahan 2006, "How Futile
        are Mindless Assessments of Roundoff in Floating-Point Computation?", section 12.
    """
    return sam_from_sums(sam_sums(pred, ref, valid=valid))


def sam_sums(
    pred: Tensor, ref: Tensor, *, valid: Tensor | None = None, core: Tensor | None = None
) -> Tensor:
    """Return (N, 3) float64: sum of the angles in degrees, number of angles, pixels left out.

    Left out are counted pixels with a zero spectrum. Adds up over disjoint cores.
    """
    pred, ref, counted = prepare_pixels(pred, ref, valid, core)
    if pred.shape[1] < 2:
        raise MetricInputError(
            f"SAM needs at least 2 bands, got {pred.shape[1]}: one band has no spectral angle. "
            f"Pass multi-band images, or leave SAM out."
        )
    has_angle = combine(counted, _has_spectrum(pred), _has_spectrum(ref))
    angle = _angle(fill_invalid(pred, has_angle, 1.0), fill_invalid(ref, has_angle, 1.0))
    total = masked_sum(torch.rad2deg(angle), has_angle).sum(dim=1)
    used = has_angle.sum(dim=(1, 2, 3), dtype=torch.float64)
    left_out = counted.sum(dim=(1, 2, 3), dtype=torch.float64) - used
    return torch.stack([total, used, left_out], dim=1)


def sam_from_sums(sums: Tensor) -> Tensor:
    """Return the scores (N,) in degrees of `sam_sums` (N, 3)."""
    return ratio_or_nan(sums[:, 0], sums[:, 1])


def _has_spectrum(x: Tensor) -> Tensor:
    return x.square().sum(dim=1, keepdim=True) != 0  # True for NaN, which must not go unseen


def _angle(a: Tensor, b: Tensor) -> Tensor:
    """Return the angle in radians (N, 1, H, W) between non-zero spectra (N, C, H, W)."""
    unit_a = a / _norm(a)
    unit_b = b / _norm(b)
    return 2 * torch.atan2(_norm(unit_a - unit_b), _norm(unit_a + unit_b))


def _norm(x: Tensor) -> Tensor:
    return safe_sqrt(x.square().sum(dim=1, keepdim=True))
