"""What every metric checks and prepares before its maths."""

from __future__ import annotations

import math
from collections.abc import Iterator
from numbers import Real
from types import EllipsisType

import torch
from torch import Tensor

from ..errors import MetricInputError
from ..validity import as_valid, combine, fill_invalid, kind_of, masked_sum, ratio_or_nan

# Rows of a map computed at a time: keeps moments in the CPU cache. SSIM was measured 7 times as
# fast as the whole at 1024 x 1024 x 4 bands.
STRIP = 64


def check_pair(pred: Tensor, ref: Tensor) -> None:
    """Raise unless both are floating (N, C, H, W) tensors of one shape on one device."""
    images: dict[str, object] = {"pred": pred, "ref": ref}
    for name, image in images.items():
        if not isinstance(image, Tensor) or not image.is_floating_point():
            raise MetricInputError(
                f"`{name}` must be a floating point tensor, got {kind_of(image)}. "
                + (
                    "Convert digital numbers to reflectance with their declared scale and offset "
                    "first."
                    if isinstance(image, Tensor)
                    else "Make one with `torch.from_numpy`."
                )
            )
        if image.ndim != 4:
            raise MetricInputError(
                f"`{name}` must have shape (N, C, H, W), got {tuple(image.shape)}. "
                f"Add a batch dimension to a single image with `image[None]`."
            )
    if pred.shape != ref.shape:
        raise MetricInputError(
            f"`pred` and `ref` must have the same shape, got {tuple(pred.shape)} and "
            f"{tuple(ref.shape)}. Bring both to one grid first: nothing is resized or cropped here."
        )
    if pred.device != ref.device:
        raise MetricInputError(
            f"`pred` and `ref` must be on one device, got {pred.device} and {ref.device}. "
            f"Move one with `.to(...)`."
        )


def check_min_size(image: Tensor, size: int, metric: str) -> None:
    """Raise if `image` (N, C, H, W) is lower or narrower than `size` pixels."""
    height, width = image.shape[-2:]
    if min(height, width) < size:
        raise MetricInputError(
            f"{metric} needs images of at least {size} x {size} pixels, got {height} x {width}. "
            f"Pass larger images: padding them would change the score."
        )


def as_number(value: object) -> float:
    """Return `value` as a float; NaN, which fails every comparison, if it is not a real number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return math.nan
    return float(value)


def check_data_range(data_range: float) -> float:
    """Return `data_range` as a float, or raise unless it is a finite number above 0."""
    number = as_number(data_range)
    if not 0 < number < math.inf:
        raise MetricInputError(
            f"`data_range` must be a finite number above 0, got {data_range!r}. Pass the width of "
            f"the range that the values can take, 1.0 for reflectance; it is never guessed."
        )
    return number


def prepare(
    pred: Tensor, ref: Tensor, valid: Tensor | None, core: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Check the arguments of a `*_sums` function and return what its maths starts from.

    Returns `pred` and `ref` in float64 with 0 at invalid pixels, then `valid` and `core`, both
    boolean (N, 1, H, W). float64 because sums over a whole raster, and the variances in SSIM,
    lose their digits in float32; it is also exempt from autocast and TF32.
    """
    check_pair(pred, ref)
    holds_data = as_valid(valid, pred)
    counts_here = as_valid(core, pred, name="core")
    filled_pred = fill_invalid(pred, holds_data).to(torch.float64)
    filled_ref = fill_invalid(ref, holds_data).to(torch.float64)
    return filled_pred, filled_ref, holds_data, counts_here


def prepare_pixels(
    pred: Tensor, ref: Tensor, valid: Tensor | None, core: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Like `prepare` for metrics of single pixels: the two masks become one."""
    filled_pred, filled_ref, holds_data, counts_here = prepare(pred, ref, valid, core)
    return filled_pred, filled_ref, combine(holds_data, counts_here)


def count_values(counted: Tensor, bands: int) -> Tensor:
    """Return how many values (pixels times bands) a mask (N, 1, H, W) selects: float64 (N,)."""
    return counted.sum(dim=(1, 2, 3), dtype=torch.float64) * bands


def band_sums(values: Tensor, counted: Tensor) -> Tensor:
    """Return (N, C + 1) float64: each band's sum of `values` where `counted`, the pixel count."""
    return torch.cat([masked_sum(values, counted), count_values(counted, 1)[:, None]], dim=1)


def band_means(sums: Tensor) -> Tensor:
    """Return the mean of each band (N, C) of `band_sums` (N, C + 1); NaN without a pixel."""
    return ratio_or_nan(sums[:, :-1], sums[:, -1:])


def strips(height: int, margin: int) -> Iterator[tuple[EllipsisType, slice, slice]]:
    """Yield indexes of strips of rows that overlap by `margin` px on either side of each."""
    for top in range(0, height - 2 * margin, STRIP):
        yield ..., slice(top, top + STRIP + 2 * margin), slice(None)
