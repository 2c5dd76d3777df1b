"""Peak signal-to-noise ratio."""

from __future__ import annotations

import torch
from torch import Tensor

from ._inputs import band_means, check_data_range
from .rmse import rmse_sums


def psnr(pred: Tensor, ref: Tensor, *, data_range: float, valid: Tensor | None = None) -> Tensor:
    """10 log10(R^2 / MSE), with one MSE over the valid pixels and all bands of each image.

    Args:
        pred: Floating (N, C, H, W), normally reflectance.
        ref: The truth, shaped like `pred`.
        data_range: R, in the units of the input; 1.0 is usual for reflectance. Never
            guessed: doubling it adds 6 dB.
        valid: Boolean (N, 1, H, W), True = use the pixel; None = all.

    Returns:
        float64 (N,) in dB, of any sign, higher is better. Identical images give +inf (gradient 0).
        Invalid pixels change nothing; an image without a valid pixel gives NaN (gradient 0).

    References:
        The definition. Equals `skimage.metrics.peak_signal_noise_ratio`.
    """
    return psnr_from_sums(psnr_sums(pred, ref, valid=valid), data_range=data_range)


def psnr_per_band(
    pred: Tensor, ref: Tensor, *, data_range: float, valid: Tensor | None = None
) -> Tensor:
    """`psnr` of each band apart: float64 (N, C). Their mean is not the PSNR of all bands."""
    return psnr_bands_from_sums(psnr_sums(pred, ref, valid=valid), data_range=data_range)


def psnr_sums(
    pred: Tensor, ref: Tensor, *, valid: Tensor | None = None, core: Tensor | None = None
) -> Tensor:
    """Return (N, C + 1) float64: each band's squared error, the pixel count.

    Adds up over disjoint cores.
    """
    return rmse_sums(pred, ref, valid=valid, core=core)


def psnr_from_sums(sums: Tensor, *, data_range: float) -> Tensor:
    """Return the scores (N,) in dB of `psnr_sums` (N, C + 1)."""
    return decibel(band_means(sums).mean(dim=1), data_range=data_range)


def psnr_bands_from_sums(sums: Tensor, *, data_range: float) -> Tensor:
    """Return the scores (N, C) in dB of the bands of `psnr_sums` (N, C + 1)."""
    return decibel(band_means(sums), data_range=data_range)


def decibel(mse: Tensor, *, data_range: float) -> Tensor:
    """10 log10(data_range^2 / mse) of any shape: +inf (gradient 0) where `mse` is 0."""
    peak = check_data_range(data_range) ** 2
    identical = mse == 0
    ratio = 10 * torch.log10(peak / torch.where(identical, torch.ones_like(mse), mse))
    return torch.where(identical, torch.full_like(ratio, torch.inf), ratio)
