"""The classic metrics as objects that score a raster tile by tile.

`sums` and `from_sums` are the contract: with `halo` pixels around each tile, where the image goes
on, the sums of disjoint cores add up to those of the whole. `LPIPSSat` keeps it too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from .functional._inputs import check_data_range
from .functional.ergas import check_ratio, ergas_from_sums, ergas_sums
from .functional.mae import mae_from_sums, mae_sums
from .functional.mtf import HALO as MTF_HALO
from .functional.mtf import STEP as MTF_STEP
from .functional.mtf import WINDOW as MTF_WINDOW
from .functional.mtf import effective_gsd_from_sums, mtf_from_sums, mtf_sums
from .functional.psnr import psnr_from_sums, psnr_sums
from .functional.rmse import rmse_from_sums, rmse_sums
from .functional.sam import sam_from_sums, sam_sums
from .functional.ssim import HALO, WINDOW, ssim_from_sums, ssim_sums

# The unit of a metric that is in the units of its images, whatever these are.
INPUT_UNITS = "input units"


class TileMetric(Protocol):
    """What scoring needs of a metric.

    Optional: `align` (see `RasterPair.tiles`), `min_size` (the least side of an image in pixels, by
    default 2 halo + 1), `settings` (a mapping that reports show) and `needs_lr` (`sums` is also
    given `lr`, the low-resolution image under the core, NaN where invalid).
    """

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def unit(self) -> str:
        """Its unit; empty = none."""

    @property
    def halo(self) -> int:
        """Pixels that a tile needs around its core."""

    @property
    def higher_is_better(self) -> bool | None:
        """Which way is up; None = neither, the best is 0."""

    @property
    def sums(self) -> Callable[..., Tensor]:
        """(pred, ref, valid=, core=) -> float64 (N, K) that add up over disjoint cores."""

    @property
    def from_sums(self) -> Callable[[Tensor], Tensor]:
        """Float64 (N, K) -> the scores (N,); NaN where there is none."""


@dataclass(frozen=True)
class Tiled:
    """One metric with its parameters bound; see `TileMetric` for the fields."""

    name: str
    unit: str
    higher_is_better: bool | None
    sums: Callable[..., Tensor]
    from_sums: Callable[[Tensor], Tensor]
    halo: int = 0
    align: int = 1
    min_size: int = 1
    settings: Mapping[str, float] = field(default_factory=dict)
    needs_lr: bool = False


def mae() -> Tiled:
    """Mean absolute error, see `functional.mae`."""
    return Tiled("MAE", INPUT_UNITS, False, mae_sums, mae_from_sums)


def rmse() -> Tiled:
    """Root mean squared error, see `functional.rmse`."""
    return Tiled("RMSE", INPUT_UNITS, False, rmse_sums, rmse_from_sums)


def psnr(*, data_range: float) -> Tiled:
    """Peak signal-to-noise ratio, see `functional.psnr`."""
    given: dict[str, Any] = {"data_range": check_data_range(data_range)}
    return Tiled("PSNR", "dB", True, psnr_sums, partial(psnr_from_sums, **given), settings=given)


def ssim(*, data_range: float) -> Tiled:
    """Structural similarity, see `functional.ssim`."""
    given: dict[str, Any] = {"data_range": check_data_range(data_range)}
    sums = partial(ssim_sums, **given)
    return Tiled("SSIM", "", True, sums, ssim_from_sums, halo=HALO, min_size=WINDOW, settings=given)


def mtf() -> Tiled:
    """Frequency up to which an image resolves, see `functional.mtf`."""
    return Tiled(
        "MTF",
        "cycles/px",
        True,
        mtf_sums,
        mtf_from_sums,
        halo=MTF_HALO,
        align=MTF_STEP,
        min_size=MTF_WINDOW,
    )


def effective_gsd(*, gsd: float) -> Tiled:
    """The pixel size in metres that would suffice, see `functional.effective_gsd`."""
    given: dict[str, Any] = {"gsd": gsd}
    from_sums = partial(effective_gsd_from_sums, **given)
    named = replace(mtf(), name="effective-GSD", unit="m", higher_is_better=False)
    return replace(named, from_sums=from_sums, settings=given)


def sam() -> Tiled:
    """Spectral angle, see `functional.sam`."""
    return Tiled("SAM", "degrees", False, sam_sums, sam_from_sums)


def ergas(*, ratio: float) -> Tiled:
    """Wald's relative global error, see `functional.ergas`."""
    given: dict[str, Any] = {"ratio": check_ratio(ratio)}
    return Tiled("ERGAS", "", False, ergas_sums, partial(ergas_from_sums, **given), settings=given)
