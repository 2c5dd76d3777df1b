"""Consistency, synthesis and correctness of super-resolution, as ESA's opensr-test defines them.

They compare three images: the low-resolution input, its super-resolution and the high-resolution
truth. Equal to opensr-test 1.3.3 with its default settings (Aybar et al. 2024,
doi:10.1109/LGRS.2024.3401394). Histogram matching, alignment and thresholds belong to a whole
image, so these scores are no sums over pixels; `lpips_sat.opensr` scores large rasters in blocks.
All is computed in float64 on the CPU, without gradients. 16 px along every side are left out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from skimage.exposure import match_histograms
from skimage.registration import phase_cross_correlation
from torch import Tensor
from torch.nn import functional as F

from ..errors import MetricInputError
from ..validity import as_valid, masked_sum, ratio_or_nan
from ._inputs import check_min_size, check_pair
from .mae import mae
from .sam import sam

# The defaults of opensr-test 1.3.3 (config.py, main.py) and of satalign 0.1.17 (pcc.py).
BORDER = 16  # px of the HR grid
UPSAMPLING = 50  # shifts are found to 1/50 px
MAX_SHIFT = 5.0  # px; a longer shift is taken for a failure
QUANTILE = 0.75  # of the distances LR - HR: where no distance exceeds it, nothing is judged
SHARPNESS = 0.05  # lambda of improvement, omission and hallucination
TEMPERATURE = 0.25  # of the softmin over the three
EPSILON = 1e-8  # in the relative difference; what differs by less differs by rounding alone
MIN_SIZE = 64
# A filter over the mask gives 1, up to rounding, where all that it looks at is valid.
WHOLE = 1 - 1e-9

Array = npt.NDArray[np.float64]


class Consistency(NamedTuple):
    """How far the super-resolution is from its input, each float64 (N,); 0 = not at all."""

    reflectance: Tensor
    spectral: Tensor
    spatial: Tensor


class Correctness(NamedTuple):
    """Shares in [0, 1] that add up to 1, each float64 (N,)."""

    improvement: Tensor
    omission: Tensor
    hallucination: Tensor


def consistency(pred: Tensor, lr: Tensor, *, valid: Tensor | None = None) -> Consistency:
    """Compare the super-resolution, brought to the low-resolution grid, with the input.

    `pred` is reduced by bilinear interpolation with antialiasing (a triangle 2 LR pixels wide).

    Args:
        pred: Floating (N, C, H, W) with H, W >= 64, normally reflectance: the super-resolution.
        lr: Floating (N, C, H / f, W / f) with an integer f: the input.
        valid: Boolean (N, 1, H, W), True = use the pixel, of `lr` too; None = all.

    Returns:
        Float64 (N,) each, lower is better; 0 where `pred` reduces to `lr`:
        reflectance, the mean absolute difference in the units of the input; spectral, the mean
        angle between spectra in degrees (NaN for one band); spatial, the length in LR pixels of
        the shift that phase correlation finds between the means of the first three bands (of
        fewer than three: the first), NaN beyond 5 px.
        Only LR pixels that look at valid pixels alone count; for the shift the others take the
        mean of their band. An image without any gives NaN.
    """
    image = _prepare(pred, lr, None, valid)
    reduced = _resize(image.pred, 1 / image.factor)
    counted = image.lr_valid & (_resize(image.valid.double(), 1 / image.factor) > WHOLE)
    bands = slice(3 if lr.shape[1] >= 3 else 1)
    spatial = [
        np.hypot(*shift) if some.any() and (shift := _shift(x, y)) is not None else np.nan
        for x, y, some in zip(
            image.lr[:, bands].numpy(), reduced[:, bands].numpy(), counted, strict=True
        )
    ]
    nothing = torch.full((len(pred),), torch.nan, dtype=torch.float64)
    return Consistency(
        mae(reduced, image.lr, valid=counted),
        sam(reduced, image.lr, valid=counted) if lr.shape[1] > 1 else nothing,
        torch.tensor(spatial, dtype=torch.float64),
    )


def synthesis(pred: Tensor, ref: Tensor, lr: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Mean absolute difference between the harmonised super-resolution and the enlarged input.

    How much the super-resolution adds, right or wrong. Harmonised: the histogram of each band is
    matched to that of `ref`, then the shift to `ref` (by phase correlation of the mean of all
    bands, to 1/50 px; none beyond 5 px) is undone by bilinear interpolation.

    Args:
        pred: Floating (N, C, H, W) with H, W >= 64, normally reflectance: the super-resolution.
        ref: The truth, shaped like `pred`.
        lr: Floating (N, C, H / f, W / f) with an integer f: the input, enlarged bilinearly.
        valid: Boolean (N, 1, H, W), True = use the pixel, of `lr` too; None = all.

    Returns:
        Float64 (N,) in the units of the input, 0 or more; neither high nor low is better.
        Only pixels whose interpolation looks at valid pixels alone count. An image without any
        gives NaN.
    """
    image = _prepare(pred, lr, ref, valid)
    harmonised, counted = _harmonise(image)
    enlarged, lr_counted = _enlarge(image)
    return mae(harmonised, enlarged, valid=counted & lr_counted)


def correctness(
    pred: Tensor, ref: Tensor, lr: Tensor, *, valid: Tensor | None = None
) -> Correctness:
    """Tell what the super-resolution adds: improvement, omission or hallucination.

    With the harmonised super-resolution s (see `synthesis`), the truth h, the enlarged input l and
    d(a, b) = mean over bands of |a - b| / |a + b|: i = d(s, h) / d(l, h) and o = d(s, l) / d(l, h)
    give with t = i + o - 1 and lambda = 0.05

        improvement   i + o (1 - exp(-lambda t))
        omission      o + i (1 - exp(-lambda t))
        hallucination exp(-lambda i o)

    as distances to the three classes; a softmin of temperature 0.25 makes shares of them. Pixels
    in which no d exceeds the 0.75 quantile of d(l, h) are not judged.

    Args:
        pred: Floating (N, C, H, W) with H, W >= 64, normally reflectance: the super-resolution.
        ref: The truth, shaped like `pred`.
        lr: Floating (N, C, H / f, W / f) with an integer f: the input.
        valid: Boolean (N, 1, H, W), True = use the pixel, of `lr` too; None = all.

    Returns:
        Float64 (N,) each: the mean shares over the pixels judged. Improvement is better high, the
        others low. `pred` equal to `ref` does not give 1, for the softmin is soft.
        Only pixels whose interpolation looks at valid pixels alone count. An image without any,
        or in which nothing differs, gives NaN.
    """
    image = _prepare(pred, lr, ref, valid)
    harmonised, counted = _harmonise(image)
    enlarged, lr_counted = _enlarge(image)
    pairs = ((enlarged, image.ref), (harmonised, image.ref), (harmonised, enlarged))
    reference, to_truth, to_input = (_difference(a, b) for a, b in pairs)
    judged = counted & lr_counted
    for i, keep in enumerate(judged):
        if keep.any():
            order = max(1, int(QUANTILE * int(keep.sum())))
            threshold = reference[i][keep].kthvalue(order).values.clamp(min=EPSILON)
            largest = torch.stack([reference[i], to_truth[i], to_input[i]]).amax(dim=0)
            judged[i] = keep & (largest > threshold)
    shares = _shares(to_truth / reference, to_input / reference)
    judged &= torch.isfinite(shares).all(dim=1, keepdim=True)
    number = judged.sum(dim=(1, 2, 3), dtype=torch.float64)[:, None]
    return Correctness(*ratio_or_nan(masked_sum(shares, judged), number).unbind(dim=1))


class _Image(NamedTuple):
    """What is left of a batch within the border: float64, invalid pixels at their band's mean."""

    pred: Tensor
    ref: Tensor
    lr: Tensor
    valid: Tensor
    lr_valid: Tensor
    factor: int


def _prepare(pred: Tensor, lr: Tensor, ref: Tensor | None, valid: Tensor | None) -> _Image:
    truth = pred if ref is None else ref
    check_pair(pred, truth)
    check_min_size(pred, MIN_SIZE, "opensr")
    factor = check_factor(pred, lr)
    holds_data = as_valid(valid, pred).cpu()
    whole_cells = F.avg_pool2d(holds_data.double(), factor) > WHOLE
    few = BORDER // factor  # opensr-test crops the LR image by this many
    many = few * factor
    inside, fine = ((..., slice(n, -n or None), slice(n, -n or None)) for n in (few, many))
    holds_data, whole_cells = holds_data[fine], whole_cells[inside]
    return _Image(
        _mean_fill(pred.detach().cpu()[fine], holds_data),
        _mean_fill(truth.detach().cpu()[fine], holds_data),
        _mean_fill(lr.detach().cpu()[inside], whole_cells),
        holds_data,
        whole_cells,
        factor,
    )


def check_factor(pred: Tensor, lr: Tensor) -> int:
    """Return by how much the grid of `pred` is finer than that of `lr`, or raise."""
    check_pair(lr, lr)
    factor = pred.shape[-1] // max(1, lr.shape[-1])
    wanted = (*lr.shape[:2], *(n * factor for n in lr.shape[-2:]))
    if factor < 1 or tuple(pred.shape) != wanted:
        raise MetricInputError(
            f"`pred` must be an integer number of times as large as `lr`, with the same images and "
            f"bands; got {tuple(pred.shape)} and {tuple(lr.shape)}. Crop both to the same ground."
        )
    return factor


def _mean_fill(x: Tensor, valid: Tensor) -> Tensor:
    """Float64, with the mean of the band's valid pixels where `valid` is False."""
    x = x.double()
    number = valid.sum(dim=(1, 2, 3), dtype=torch.float64)[:, None].clamp(min=1)
    mean = masked_sum(x, valid) / number
    return torch.where(valid, x, mean[..., None, None])


def _resize(x: Tensor, scale: float) -> Tensor:
    return F.interpolate(x, scale_factor=scale, mode="bilinear", antialias=True)


def _enlarge(image: _Image) -> tuple[Tensor, Tensor]:
    """The input on the HR grid, and where it looks at valid pixels alone."""
    share = _resize(image.lr_valid.double(), image.factor)
    return _resize(image.lr, image.factor), share > WHOLE


def _harmonise(image: _Image) -> tuple[Tensor, Tensor]:
    """The super-resolution in the truth's histogram and place, and where that is known."""
    moved, known = [], []
    for pred, ref, valid in zip(image.pred, image.ref, image.valid[:, 0], strict=True):
        matched = pred.numpy().copy()
        mask = valid.numpy()
        if mask.any():
            for band, truth in zip(matched, ref.numpy(), strict=True):
                band[mask] = match_histograms(band[mask], truth[mask])
                band[~mask] = band[mask].mean()
        dy, dx = _shift(matched, ref.numpy()) or (0.0, 0.0)
        moved.append(ndimage.shift(matched, (0, dy, dx), order=1, mode="nearest"))
        share = ndimage.shift(mask.astype(np.float64), (dy, dx), order=1, mode="nearest")
        known.append(share > WHOLE)
    return torch.from_numpy(np.stack(moved)), torch.from_numpy(np.stack(known))[:, None]


def _shift(moving: Array, fixed: Array) -> tuple[float, float] | None:
    """(dy, dx) that brings the band mean of `moving` onto that of `fixed`; None beyond 5 px."""
    grey = fixed.mean(axis=0), moving.mean(axis=0)
    if not all(x.any() for x in grey):
        return 0.0, 0.0  # nothing but black, which scikit-image warns of
    found, _, _ = phase_cross_correlation(*grey, upsample_factor=UPSAMPLING)
    dy, dx = float(found[0]), float(found[1])
    return (dy, dx) if np.hypot(dy, dx) <= MAX_SHIFT else None


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """Mean over bands of the relative difference: (N, 1, H, W)."""
    return ((a - b).abs() / (a + b + EPSILON).abs()).mean(dim=1, keepdim=True)


def _shares(truth: Tensor, given: Tensor) -> Tensor:
    """Relative distances to truth and input -> shares (N, 3, H, W) of the three classes."""
    damp = 1 - torch.exp(-SHARPNESS * (truth + given - 1))
    improvement, omission = truth + given * damp, given + truth * damp
    hallucination = torch.exp(-SHARPNESS * truth * given)
    return torch.softmax(
        -torch.cat([improvement, omission, hallucination], dim=1) / TEMPERATURE, dim=1
    )
