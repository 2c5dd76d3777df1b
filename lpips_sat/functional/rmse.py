"""Root mean squared error."""

from __future__ import annotations

from torch import Tensor

from ..validity import safe_sqrt
from ._inputs import band_means, band_sums, prepare_pixels


def rmse(pred: Tensor, ref: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Square root of the mean of (pred - ref)^2 over the valid pixels and all bands of each image.

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
    return rmse_from_sums(rmse_sums(pred, ref, valid=valid))


def rmse_per_band(pred: Tensor, ref: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """`rmse` of each band apart: float64 (N, C)."""
    return rmse_bands_from_sums(rmse_sums(pred, ref, valid=valid))


def rmse_sums(
    pred: Tensor, ref: Tensor, *, valid: Tensor | None = None, core: Tensor | None = None
) -> Tensor:
    """Return (N, C + 1) float64: each band's squared error, the pixel count.

    Adds up over disjoint cores.
    """
    pred, ref, counted = prepare_pixels(pred, ref, valid, core)
    return band_sums((pred - ref).square(), counted)


def rmse_from_sums(sums: Tensor) -> Tensor:
    """Return the scores (N,) of `rmse_sums` (N, C + 1)."""
    return safe_sqrt(band_means(sums).mean(dim=1))


def rmse_bands_from_sums(sums: Tensor) -> Tensor:
    """Return the scores (N, C) of the bands of `rmse_sums` (N, C + 1)."""
    return safe_sqrt(band_means(sums))
