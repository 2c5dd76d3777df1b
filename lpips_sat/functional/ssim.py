"""Structural similarity."""

from __future__ import annotations

import torch
from torch import Tensor

from ..validity import combine, erode, ratio_or_nan
from ._inputs import band_sums, check_data_range, check_min_size, prepare, strips

# Wang, Bovik, Sheikh & Simoncelli 2004, sections III-B and III-C.
WINDOW = 11
SIGMA = 1.5
K1 = 0.01
K2 = 0.03
# How far a window reaches beyond its centre: the halo that a tile needs.
HALO = WINDOW // 2


def ssim(pred: Tensor, ref: Tensor, *, data_range: float, valid: Tensor | None = None) -> Tensor:
    """Mean structural similarity over the windows and bands of each image.

    (2 m_p m_r + C1)(2 s_pr + C2) / ((m_p^2 + m_r^2 + C1)(s_p^2 + s_r^2 + C2)) with the moments
    under an 11 x 11 Gaussian window of sigma 1.5 px (biased: divided by the sum of its weights),
    C1 = (0.01 R)^2, C2 = (0.03 R)^2.

    Args:
        pred: Floating (N, C, H, W) with H, W >= 11, normally reflectance.
        ref: The truth, shaped like `pred`.
        data_range: R, in the units of the input; 1.0 is usual for reflectance. Never
            guessed: it decides how much of a dark scene counts as flat.
        valid: Boolean (N, 1, H, W), True = use the pixel; None = all.

    Returns:
        float64 (N,) without unit, in [-1, 1], higher is better. Identical images give 1.
        Only windows that lie whole in the image and in `valid` count, so invalid pixels change
        nothing; an image without such a window gives NaN (gradient 0).

    Note:
        The moments are taken in float64: in float32 the cancellation in E[x^2] - E[x]^2 moves
        single windows of a reflectance image by up to 0.0005 (R = 1), and TF32 far more.

    References:
        Wang, Bovik, Sheikh & Simoncelli 2004, doi:10.1109/TIP.2003.819861. Equals
        `skimage.metrics.structural_similarity` with `gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False`.
    """
    sums = ssim_sums(pred, ref, data_range=data_range, valid=valid)
    check_min_size(pred, WINDOW, "SSIM")
    return ssim_from_sums(sums)


def ssim_sums(
    pred: Tensor,
    ref: Tensor,
    *,
    data_range: float,
    valid: Tensor | None = None,
    core: Tensor | None = None,
) -> Tensor:
    """Return (N, 2) float64: sum of the SSIM map, number of windows times bands.

    A window counts if it lies whole in the given array, is valid throughout and has its centre in
    `core`. Adds up over disjoint cores when every tile carries 5 px around its core, where the
    image goes on. An array smaller than a window holds none and gives zeros.
    """
    scale = check_data_range(data_range)
    pred, ref, holds_data, counts_here = prepare(pred, ref, valid, core)
    sums = window_sums(pred, ref, holds_data, counts_here, data_range=scale)
    return torch.stack([sums[:, :-1].sum(dim=1), sums[:, -1] * pred.shape[1]], dim=1)


def ssim_from_sums(sums: Tensor) -> Tensor:
    """Return the scores (N,) of `ssim_sums` (N, 2)."""
    return ratio_or_nan(sums[:, 0], sums[:, 1])


def window_sums(
    x: Tensor,
    y: Tensor,
    valid: Tensor,
    core: Tensor,
    *,
    data_range: float,
    luminance: bool = True,
) -> Tensor:
    """Return (N, C + 1) float64: each band's sum of the SSIM map, the number of windows.

    Takes what `prepare` returns. Without `luminance` only the factor of contrast and structure.
    """
    if min(x.shape[-2:]) < WINDOW:
        return x.new_zeros((x.shape[0], x.shape[1] + 1))
    inside = (..., slice(HALO, -HALO), slice(HALO, -HALO))
    counted = combine(erode(valid, HALO)[inside], core[inside])
    scores = [
        _ssim_strip(x[rows], y[rows], data_range, luminance) for rows in strips(x.shape[-2], HALO)
    ]
    return band_sums(torch.cat(scores, dim=-2), counted)


def _ssim_strip(x: Tensor, y: Tensor, data_range: float, luminance: bool) -> Tensor:
    """Return SSIM at each whole window of two (N, C, H, W): (N, C, H - 10, W - 10)."""
    stacked = torch.cat([x, y, x * x + y * y, 2 * x * y], dim=1)
    mean_x, mean_y, power, cross = blur(stacked).chunk(4, dim=1)
    return similarity(mean_x, mean_y, power, cross, data_range, luminance)


def similarity(
    mean_x: Tensor,
    mean_y: Tensor,
    power: Tensor,
    cross: Tensor,
    data_range: float,
    luminance: bool = True,
) -> Tensor:
    """Return SSIM from the means of x, y, x^2 + y^2 and 2 x y under the window."""
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    mean_power = mean_x * mean_x + mean_y * mean_y
    mean_cross = 2 * mean_x * mean_y
    structure = (cross - mean_cross + c2) / (power - mean_power + c2)
    if not luminance:
        return structure
    return structure * (mean_cross + c1) / (mean_power + c1)


def blur(x: Tensor) -> Tensor:
    """Gaussian mean over whole windows of (N, C, H, W), one axis after the other.

    Sums of moved copies: measured 2.4 times as fast as `conv2d`, which has no fast float64 path.
    """
    offset = torch.arange(HALO + 1, dtype=torch.float64)
    weight = torch.exp(-(offset**2) / (2 * SIGMA**2))
    weights = (weight / (2 * weight.sum() - weight[0])).tolist()
    for axis in (-1, -2):
        whole = x.shape[axis] - 2 * HALO
        total = weights[0] * x.narrow(axis, HALO, whole)
        for distance in range(1, HALO + 1):
            before, after = (x.narrow(axis, HALO + d, whole) for d in (-distance, distance))
            total = torch.add(total, before + after, alpha=weights[distance])
        x = total
    return x
