"""Which pixels hold data: boolean masks (N, 1, H, W), True = use this pixel.

One rule holds for every metric: what lies under the mask never reaches the maths. Masked values
are replaced *before* anything is computed from them, because a gradient of NaN * 0 is still NaN
when the result is replaced afterwards.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import MetricInputError


def as_valid(valid: Tensor | None, image: Tensor, *, name: str = "valid") -> Tensor:
    """Return the mask of `image` (N, C, H, W) as boolean (N, 1, H, W); None means all True.

    `name` is what the mask is called in the error if its type, shape or device does not fit.
    """
    shape = (image.shape[0], 1, *image.shape[2:])
    if valid is None:
        return torch.ones(shape, dtype=torch.bool, device=image.device)
    if kind_of(valid) != str(torch.bool):
        raise MetricInputError(
            f"`{name}` must be a boolean tensor (True = use the pixel), got {kind_of(valid)}. "
            f"Convert it explicitly, for example `mask > 0` or `mask != nodata`."
        )
    if tuple(valid.shape) != shape:
        raise MetricInputError(
            f"`{name}` must have shape (N, 1, H, W) = {shape} for images of shape "
            f"{tuple(image.shape)}, got {tuple(valid.shape)}. Combine a mask per band into one, "
            f"for example `mask.all(dim=1, keepdim=True)`."
        )
    if valid.device != image.device:
        raise MetricInputError(
            f"`{name}` must be on the device of the images, {image.device}, got {valid.device}. "
            f"Move it with `.to({str(image.device)!r})`."
        )
    return valid


def kind_of(x: object) -> str:
    """Name the dtype of a tensor or the type of anything else, for errors."""
    return str(x.dtype) if isinstance(x, Tensor) else type(x).__name__


def combine(*masks: Tensor) -> Tensor:
    """Return where all of the masks (N, 1, H, W) are True."""
    if not masks:
        raise MetricInputError("`combine` needs at least one mask, got none. Pass the masks.")
    combined = masks[0]
    for mask in masks[1:]:
        combined = combined & mask
    return combined


def erode(valid: Tensor, radius: int) -> Tensor:
    """Keep a pixel of `valid` (N, 1, H, W) only if its whole (2 * radius + 1)^2 window is True.

    `radius` is in pixels, >= 0. The part of a window outside the image counts as True: a metric
    that cannot use such windows crops the border itself.
    """
    if radius < 0:
        raise MetricInputError(f"`radius` must be 0 or more pixels, got {radius}. Pass >= 0.")
    if radius == 0:
        return valid
    size = 2 * radius + 1
    # max_pool2d pads with -inf, so outside the image nothing is invalid.
    invalid = (~valid).to(torch.float32)
    invalid = F.max_pool2d(invalid, (size, 1), stride=1, padding=(radius, 0))
    invalid = F.max_pool2d(invalid, (1, size), stride=1, padding=(0, radius))
    return invalid == 0


def fill_invalid(x: Tensor, valid: Tensor, value: float = 0.0) -> Tensor:
    """Return `x` (N, C, H, W) with `value` where `valid` (N, 1, H, W) is False.

    Whatever is replaced, NaN and inf included, gets a gradient of exactly 0.
    """
    return torch.where(valid, x, torch.full((), value, dtype=x.dtype, device=x.device))


def masked_sum(x: Tensor, valid: Tensor) -> Tensor:
    """Sum `x` (N, C, H, W) over the pixels where `valid` (N, 1, H, W): float64 (N, C).

    Values under the mask change neither the sum nor, being replaced first, its gradient with
    respect to `x`. If `x` was computed from masked pixels, `fill_invalid` those before computing.
    """
    return fill_invalid(x, valid).sum(dim=(-2, -1), dtype=torch.float64)


def sum_dtype(x: Tensor) -> torch.dtype:
    """Sums over a whole raster are float64, but on MPS, which has none."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def ratio_or_nan(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide; where `denominator` is 0 the value is NaN and the gradient exactly 0."""
    empty = denominator == 0
    quotient = numerator / torch.where(empty, torch.ones_like(denominator), denominator)
    return torch.where(empty, torch.full_like(quotient, torch.nan), quotient)


def safe_sqrt(x: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0 instead of infinite; NaN stays NaN."""
    zero = x == 0
    root = torch.sqrt(torch.where(zero, torch.ones_like(x), x))
    return torch.where(zero, torch.zeros_like(x), root)


# How far `soft_fill` looks for valid neighbours, in pixels: near ones first.
_FILL_RADII = (4, 16)
FILL_REACH = max(_FILL_RADII)
# Given to pixels without any valid neighbour within reach: mid-grey of a display image.
_FILL_FAR = 0.4


def soft_fill(x: Tensor, valid: Tensor) -> Tensor:
    """Replace invalid pixels of `x` (N, C, H, W) by the mean of their valid neighbours.

    Normalised convolution (Knutsson & Westin 1993, doi:10.1109/CVPR.1993.341081) with a box of
    9 x 9 px, then 33 x 33 px where that is empty, then a constant. So a network sees no artificial
    edge along a mask, and nothing of what lies under it. Depends on at most `FILL_REACH` pixels.
    """
    # A shortcut only: a compiled graph would break at a branch on data.
    if not torch.compiler.is_compiling() and valid.all():
        return x
    known = fill_invalid(x, valid)
    weight = valid.to(x.dtype)
    filled = torch.full_like(x, _FILL_FAR)
    for radius in reversed(_FILL_RADII):
        total, share = _box_mean(known, radius), _box_mean(weight, radius)
        found = share > 0.5 / (2 * radius + 1) ** 2  # at least one valid pixel
        filled = torch.where(found, total / torch.where(found, share, 1), filled)
    return torch.where(valid, known, filled)


def _box_mean(x: Tensor, radius: int) -> Tensor:
    """Mean over windows of 2 * radius + 1 px, 0 outside the image; rows, then columns: faster."""
    size = 2 * radius + 1
    rows = F.avg_pool2d(x, (size, 1), stride=1, padding=(radius, 0))
    return F.avg_pool2d(rows, (1, size), stride=1, padding=(0, radius))
