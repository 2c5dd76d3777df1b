"""Multi-scale structural similarity."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..validity import ratio_or_nan
from ._inputs import check_data_range, check_min_size, prepare
from .ssim import HALO as WINDOW_HALO
from .ssim import WINDOW, window_sums

# The exponents of the five scales, fine to coarse: Wang, Simoncelli & Bovik 2003, section 4.
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# Pixels of the image in one of the coarsest scale: a tile must begin at a multiple.
ALIGN = 2 ** (len(WEIGHTS) - 1)
HALO = WINDOW_HALO * ALIGN
MIN_SIZE = WINDOW * ALIGN


def ms_ssim(pred: Tensor, ref: Tensor, *, data_range: float, valid: Tensor | None = None) -> Tensor:
    """Structural similarity at five scales: the mean over bands of prod_s mean(cs_s)^w_s.

    cs_s is SSIM's factor of contrast and structure at scale s, at the coarsest scale times the
    factor of luminance. Each scale is the mean of 2 x 2 px of the one before; a last odd row or
    column is dropped. The exponents are Wang's: 0.0448, 0.2856, 0.3001, 0.2363, 0.1333.

    Args:
        pred: Floating (N, C, H, W) with H, W >= 176, normally reflectance.
        ref: The truth, shaped like `pred`.
        data_range: R, in the units of the input, see `ssim`.
        valid: Boolean (N, 1, H, W), True = use the pixel; None = all.

    Returns:
        float64 (N,) without unit, in [0, 1], higher is better. Identical images give 1. A mean
        below 0 (anti-correlated images) counts as 0, since it has no real power. At every scale
        only windows count that lie whole in the image and have no invalid pixel below them; an
        image without such a window at some scale gives NaN (gradient 0).

    References:
        Wang, Simoncelli & Bovik 2003, "Multiscale structural similarity for image quality
        assessment", doi:10.1109/ACSSC.2003.1292216.
    """
    sums = ms_ssim_sums(pred, ref, data_range=data_range, valid=valid)
    check_min_size(pred, MIN_SIZE, "MS-SSIM")
    return ms_ssim_from_sums(sums)


def ms_ssim_sums(
    pred: Tensor,
    ref: Tensor,
    *,
    data_range: float,
    valid: Tensor | None = None,
    core: Tensor | None = None,
) -> Tensor:
    """Return (N, 5 (C + 1)) float64: of each scale each band's sum, and the number of windows.

    Adds up over disjoint cores when every tile begins at a multiple of 16 px and carries 80 px
    around its core, where the image goes on. An array smaller than a window at some scale holds
    none there and gives zeros.
    """
    scale = check_data_range(data_range)
    pred, ref, holds_data, counts_here = prepare(pred, ref, valid, core)
    if not pred.numel():
        return pred.new_zeros((len(pred), len(WEIGHTS) * (pred.shape[1] + 1)))
    columns = []
    for level in range(len(WEIGHTS)):
        if level > 0 and min(pred.shape[-2:]) > 1:
            pred, ref = F.avg_pool2d(pred, 2), F.avg_pool2d(ref, 2)
            holds_data, counts_here = _halve(holds_data, counts_here)
        last = level == len(WEIGHTS) - 1
        columns.append(
            window_sums(pred, ref, holds_data, counts_here, data_range=scale, luminance=last)
        )
    return torch.cat(columns, dim=1)


def ms_ssim_from_sums(sums: Tensor) -> Tensor:
    """Return the scores (N,) of `ms_ssim_sums` (N, 5 (C + 1))."""
    scales = sums.unflatten(1, (len(WEIGHTS), -1))
    means = ratio_or_nan(scales[..., :-1], scales[..., -1:])
    exponents = torch.tensor(WEIGHTS, dtype=means.dtype, device=means.device)[:, None]
    undefined = means.isnan().any(dim=1, keepdim=True)  # at some scale, of a band
    negative = means <= 0
    # What is not defined, or has no power, is replaced before, so that no gradient passes there.
    powers = torch.where(negative | undefined, torch.ones_like(means), means) ** exponents
    of_bands = torch.where(negative, torch.zeros_like(powers), powers).prod(dim=1)
    return torch.where(undefined[:, 0], torch.nan, of_bands).mean(dim=1)


def _halve(valid: Tensor, core: Tensor) -> tuple[Tensor, Tensor]:
    """The masks of the next scale: valid where all four pixels are, in the core where the first."""
    height, width = (side // 2 * 2 for side in valid.shape[-2:])
    whole = valid[..., :height, :width].unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2))
    return whole.all(dim=-1).all(dim=-2), core[..., :height:2, :width:2]
