"""ERGAS, Wald's relative dimensionless global error in synthesis."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import MetricInputError
from ..validity import masked_sum, safe_sqrt
from ._inputs import as_number, count_values, prepare_pixels


def ergas(pred: Tensor, ref: Tensor, *, ratio: float, valid: Tensor | None = None) -> Tensor:
    """100 (h/l) sqrt(mean over bands of (RMSE_b / mean(ref_b))^2) of each image.

    Args:
        pred: Floating (N, C, H, W), normally reflectance.
        ref: The truth, shaped like `pred`. Its band means are taken over the valid pixels.
        ratio: h/l, the ground sampling distance of the high-resolution image over that of the
            low-resolution one, in (0, 1]: 0.25 for x4 super-resolution.
        valid: Boolean (N, 1, H, W), True = use the pixel; None = all.

    Returns:
        float64 (N,) without unit, 0 or more, lower is better. Identical images give 0
        (gradient 0). Invalid pixels change nothing. An image without a valid pixel, or with a band
        whose reference mean is 0, has no ERGAS and gives NaN (gradient 0).

    Note:
        Libraries that ask for the inverse, l/h, divide by it (torchmetrics: `ratio=4` for x4).

    References:
        Wald 2000, "Quality of high resolution synthesised images: Is there a simple criterion?",
        https://hal.science/hal-00395027.
    """
    return ergas_from_sums(ergas_sums(pred, ref, valid=valid), ratio=ratio)


def ergas_sums(
    pred: Tensor, ref: Tensor, *, valid: Tensor | None = None, core: Tensor | None = None
) -> Tensor:
    """Return (N, 2 C + 1) float64: each band's squared error, each band's sum of ref, pixel count.

    Adds up over disjoint cores.
    """
    pred, ref, counted = prepare_pixels(pred, ref, valid, core)
    error = masked_sum((pred - ref).square(), counted)
    level = masked_sum(ref, counted)
    return torch.cat([error, level, count_values(counted, 1)[:, None]], dim=1)


def ergas_from_sums(sums: Tensor, *, ratio: float) -> Tensor:
    """Return the scores (N,) of `ergas_sums` (N, 2 C + 1)."""
    bands = (sums.shape[1] - 1) // 2
    error, level, count = sums[:, :bands], sums[:, bands:-1], sums[:, -1:]
    # (RMSE_b / mean_b)^2 = (error / n) / (level / n)^2 = n error / level^2
    undefined = (level == 0).any(dim=1, keepdim=True)  # so too without a valid pixel
    relative = count * error / torch.where(undefined, torch.ones_like(level), level).square()
    score = 100 * check_ratio(ratio) * safe_sqrt(relative.mean(dim=1))
    return torch.where(undefined[:, 0], torch.full_like(score, torch.nan), score)


def check_ratio(ratio: float) -> float:
    """Return `ratio` as a float, or raise unless it is h/l in (0, 1]."""
    number = as_number(ratio)
    if not 0 < number <= 1:
        raise MetricInputError(
            f"`ratio` must be h/l = high-resolution GSD / low-resolution GSD in (0, 1], got "
            f"{ratio!r}. This is Wald's convention: 0.25 for x4 super-resolution. Some libraries "
            f"take the inverse l/h, 4 for x4; if you have that, pass 1 / (l/h)."
        )
    return number
