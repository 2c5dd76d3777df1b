"""Q2n, the quality index of hypercomplex numbers for any number of bands."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from ..validity import ratio_or_nan, safe_sqrt
from ._inputs import check_min_size, prepare

# Garzelli & Nencini 2009 use blocks of 32 x 32 px that do not overlap.
BLOCK = 32
# A block whose variance is this small a part of its power is flat, see `uiqi.FLAT`.
FLAT = 1e-13


def q2n(pred: Tensor, ref: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Mean over blocks of 32 x 32 px of the quality index Q2n of each image.

    The C bands of a pixel are the components of one hypercomplex number z, padded with zeros to a
    power of two (Q4 for up to four bands, Q8 for up to eight, ...). In each block

        |s_pr| / (s_p s_r)  *  2 s_p s_r / (s_p^2 + s_r^2)  *  2 |m_p| |m_r| / (|m_p|^2 + |m_r|^2)

    with the means m, the variances s^2 = E|z - m|^2 and the covariance
    s_pr = E[(z_p - m_p)(z_r - m_r)*] of the numbers. Before, every band of both images is mapped by
    x -> (x - mean) / std + 1 with the mean and the sample standard deviation of the reference's
    band in the block, as its authors' implementation does, so that each band weighs alike.

    Args:
        pred: Floating (N, C, H, W) with H, W >= 32, normally reflectance.
        ref: The truth, shaped like `pred`.
        valid: Boolean (N, 1, H, W), True = use the pixel; None = all.

    Returns:
        float64 (N,) without unit, in [0, 1], higher is better. Identical images give 1. The order
        of the bands matters, since products of hypercomplex numbers do not commute. Where a band of
        the reference is flat in a block it is not divided; a block that is flat in both images has
        only the third factor. Only whole blocks from the upper left corner on without an invalid
        pixel count; an image without one gives NaN (gradient 0).

    References:
        Garzelli & Nencini 2009, "Hypercomplex quality assessment of multi/hyperspectral images",
        doi:10.1109/LGRS.2009.2022650.
    """
    sums = q2n_sums(pred, ref, valid=valid)
    check_min_size(pred, BLOCK, "Q2n")
    return q2n_from_sums(sums)


def q2n_sums(
    pred: Tensor, ref: Tensor, *, valid: Tensor | None = None, core: Tensor | None = None
) -> Tensor:
    """Return (N, 2) float64: sum of the index over blocks, number of blocks.

    A block counts if its upper left pixel is in `core`. Adds up over disjoint cores when every tile
    begins at a multiple of 32 px.
    """
    pred, ref, holds_data, counts_here = prepare(pred, ref, valid, core)
    counted = _blocks(holds_data).all(dim=-1)[:, 0] & _blocks(counts_here)[:, 0, :, 0]
    index = _index(_blocks(pred), _blocks(ref))
    total = torch.where(counted, index, torch.zeros_like(index)).sum(dim=1)
    return torch.stack([total, counted.sum(dim=1, dtype=torch.float64)], dim=1)


def q2n_from_sums(sums: Tensor) -> Tensor:
    """Return the scores (N,) of `q2n_sums` (N, 2)."""
    return ratio_or_nan(sums[:, 0], sums[:, 1])


def _blocks(x: Tensor) -> Tensor:
    """Cut (N, C, H, W) into its whole blocks: (N, C, blocks, pixels)."""
    height, width = (side // BLOCK * BLOCK for side in x.shape[-2:])
    rows = x[..., :height, :width].unflatten(-1, (-1, BLOCK)).unflatten(-3, (-1, BLOCK))
    return rows.transpose(-3, -2).flatten(-4, -3).flatten(-2)


def _index(pred: Tensor, ref: Tensor) -> Tensor:
    """Return Q2n of each block of two (N, C, blocks, pixels): (N, blocks)."""
    pixels = BLOCK * BLOCK
    mean_p, mean_r = pred.mean(dim=-1, keepdim=True), ref.mean(dim=-1, keepdim=True)
    p, r = pred - mean_p, ref - mean_r
    spread = r.square().sum(dim=-1, keepdim=True) / (pixels - 1)
    flat_band = spread <= FLAT * mean_r.square()
    std = safe_sqrt(torch.where(flat_band, torch.ones_like(spread), spread))
    p, r = p / std, r / std
    mean_p = (mean_p - mean_r) / std + 1  # that of the reference is 1 in each band
    covariance = torch.einsum("nibp,njbp->nbij", p, r) / pixels
    variance = (p.square() + r.square()).sum(dim=(1, 3)) / pixels
    level_p = mean_p.square().sum(dim=(1, 3))
    level_r = torch.full_like(level_p, pred.shape[1])
    luminance = 2 * safe_sqrt(level_p * level_r) / (level_p + level_r)
    flat = variance <= FLAT * (level_p + level_r)
    structure = 2 * _modulus(covariance) / torch.where(flat, torch.ones_like(variance), variance)
    return torch.where(flat, luminance, luminance * structure)


def _modulus(covariance: Tensor) -> Tensor:
    """Return |sum_ij S_ij e_i e_j*| of matrices S (..., C, C) over hypercomplex units e: (...)."""
    bands = covariance.shape[-1]
    size = 1 << (bands - 1).bit_length()
    components = covariance.new_zeros((*covariance.shape[:-2], size))
    for i in range(bands):
        signs = [_sign(i, j, size) * (1 if j == 0 else -1) for j in range(bands)]
        row = covariance[..., i, :] * covariance.new_tensor(signs)
        index = torch.tensor([i ^ j for j in range(bands)], device=covariance.device)
        components = components.index_add(-1, index, row)
    return safe_sqrt(components.square().sum(dim=-1))


@cache
def _sign(i: int, j: int, size: int) -> int:
    """The sign in e_i e_j = +- e_(i xor j): (a, b)(c, d) = (a c - d* b, d a + b c*)."""
    if size == 1:
        return 1
    half = size // 2
    if i < half and j < half:
        return _sign(i, j, half)
    if i < half:
        return _sign(j - half, i, half)
    conjugate = 1 if j % half == 0 else -1
    if j < half:
        return conjugate * _sign(i - half, j, half)
    return -conjugate * _sign(j - half, i - half, half)
