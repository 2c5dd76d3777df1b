"""Mean signed error."""

from __future__ import annotations

from torch import Tensor

from ._inputs import band_means, band_sums, prepare_pixels


def bias(pred: Tensor, ref: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Mean of pred - ref over the valid pixels and all bands of each image.

    Bands can cancel each other: `bias_per_band` keeps them apart.

    Args:
        pred: Floating (N, C, H, W), normally reflectance.
        ref: The truth, shaped like `pred`.
        valid: Boolean (N, 1, H, W), True = use the pixel; None = all.

    Returns:
        float64 (N,) in the units of the input, of any sign, best at 0; above 0 the prediction is
        too bright. Identical images give 0. Invalid pixels change nothing; an image without a valid
        pixel gives NaN (gradient 0).

    References:
        The definition.
    """
    return bias_from_sums(bias_sums(pred, ref, valid=valid))


def bias_per_band(pred: Tensor, ref: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """`bias` of each band apart: float64 (N, C)."""
    return band_means(bias_sums(pred, ref, valid=valid))


def bias_sums(
    pred: Tensor, ref: Tensor, *, valid: Tensor | None = None, core: Tensor | None = None
) -> Tensor:
    """Return (N, C + 1) float64: each band's sum of pred - ref, the pixel count.

    Adds up over disjoint cores.
    """
    pred, ref, counted = prepare_pixels(pred, ref, valid, core)
    return band_sums(pred - ref, counted)


def bias_from_sums(sums: Tensor) -> Tensor:
    """Return the scores (N,) of `bias_sums` (N, C + 1)."""
    return band_means(sums).mean(dim=1)
