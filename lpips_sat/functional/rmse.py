"""Root mean squared error."""

from __future__ import annotations

import torch
from torch import Tensor

from ..validity import masked_sum, ratio_or_nan, safe_sqrt
from ._inputs import count_values, prepare_pixels


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


def rmse_sums(
    pred: Tensor, ref: Tensor, *, valid: Tensor | None = None, core: Tensor | None = None
) -> Tensor:
    """Return (N, 2) float64: squared error, number of values. Adds up over disjoint cores."""
    pred, ref, counted = prepare_pixels(pred, ref, valid, core)
    error = masked_sum((pred - ref).square(), counted).sum(dim=1)
    return torch.stack([error, count_values(counted, pred.shape[1])], dim=1)


def mse_from_sums(sums: Tensor) -> Tensor:
    """Return the mean squared errors (N,) of `rmse_sums` (N, 2), in squared input units."""
    return ratio_or_nan(sums[:, 0], sums[:, 1])


def rmse_from_sums(sums: Tensor) -> Tensor:
    """Return the scores (N,) of `rmse_sums` (N, 2)."""
    return safe_sqrt(mse_from_sums(sums))
