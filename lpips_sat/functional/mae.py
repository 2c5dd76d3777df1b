"""Mean absolute error."""

from __future__ import annotations

from torch import Tensor

from ._inputs import band_means, band_sums, prepare_pixels


def mae(pred: Tensor, ref: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Mean of |pred - ref| over the valid pixels and all bands of each image.

    Args:
        pred: Floating (N, C, H, W), normally reflectance.
        ref: The truth, shaped like `pred`.
        valid: Boolean (N, 1, H, W), True = use the pixel; None = all.

    Returns:
        float64 (N,) in the units of the input, 0 or more, lower is better. Identical images give 0
        (gradient 0). Invalid pixels change nothing; an image without a valid pixel gives NaN
        (gradient 0).

    References:
        The definition.
    """
    return mae_from_sums(mae_sums(pred, ref, valid=valid))


def mae_per_band(pred: Tensor, ref: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """`mae` of each band apart: float64 (N, C)."""
    return band_means(mae_sums(pred, ref, valid=valid))


def mae_sums(
    pred: Tensor, ref: Tensor, *, valid: Tensor | None = None, core: Tensor | None = None
) -> Tensor:
    """Return (N, C + 1) float64: each band's sum of |pred - ref|, the pixel count.

    Adds up over disjoint cores.
    """
    pred, ref, counted = prepare_pixels(pred, ref, valid, core)
    return band_sums((pred - ref).abs(), counted)


def mae_from_sums(sums: Tensor) -> Tensor:
    """Return the scores (N,) of `mae_sums` (N, C + 1)."""
    return band_means(sums).mean(dim=1)
