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

from .functional._inputs import band_means, check_data_range
from .functional.bias import bias_from_sums, bias_sums
from .functional.cpsnr import MAX_SHIFT, check_max_shift, cpsnr_from_sums, cpsnr_sums
from .functional.cssim import cssim_from_sums, cssim_sums
from .functional.ergas import check_ratio, ergas_from_sums, ergas_sums
from .functional.mae import mae_from_sums, mae_sums
from .functional.ms_ssim import ALIGN, MIN_SIZE, ms_ssim_from_sums, ms_ssim_sums
from .functional.ms_ssim import HALO as MS_SSIM_HALO
from .functional.mtf import HALO as MTF_HALO
from .functional.mtf import STEP as MTF_STEP
from .functional.mtf import WINDOW as MTF_WINDOW
from .functional.mtf import effective_gsd_from_sums, mtf_from_sums, mtf_sums
from .functional.psnr import psnr_bands_from_sums, psnr_from_sums, psnr_sums
from .functional.q2n import BLOCK, q2n_from_sums, q2n_sums
from .functional.rmse import rmse_bands_from_sums, rmse_from_sums, rmse_sums
from .functional.sam import sam_from_sums, sam_sums
from .functional.scc import HALO as SCC_HALO
from .functional.scc import WINDOW as SCC_WINDOW
from .functional.scc import scc_from_sums, scc_sums
from .functional.ssim import HALO, WINDOW, ssim_from_sums, ssim_sums
from .functional.uiqi import HALO as UIQI_HALO
from .functional.uiqi import WINDOW as UIQI_WINDOW
from .functional.uiqi import uiqi_from_sums, uiqi_sums

# The unit of a metric that is in the units of its images, whatever these are.
INPUT_UNITS = "input units"


class TileMetric(Protocol):
    """What scoring needs of a metric.

    Optional, as attributes:

    - `align`: see `RasterPair.tiles`;
    - `min_size`: the least side of an image in pixels, by default 2 halo + 1;
    - `settings`: a mapping that reports show;
    - `per_band`: float64 (N, K) -> the scores of the bands (N, C);
    - `known_sums`: sums like `sums` that have to be known of the whole image before; `sums` then
      takes them as `known=`;
    - `needs_lr`: `sums` is also given `lr`, the low-resolution image under the core, NaN where
      invalid.
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
    per_band: Callable[[Tensor], Tensor] | None = None
    known_sums: Callable[..., Tensor] | None = None
    needs_lr: bool = False


def mae() -> Tiled:
    """Mean absolute error, see `functional.mae`."""
    return Tiled("MAE", INPUT_UNITS, False, mae_sums, mae_from_sums, per_band=band_means)


def rmse() -> Tiled:
    """Root mean squared error, see `functional.rmse`."""
    sums = (rmse_sums, rmse_from_sums)
    return Tiled("RMSE", INPUT_UNITS, False, *sums, per_band=rmse_bands_from_sums)


def bias() -> Tiled:
    """Mean signed error, see `functional.bias`."""
    return Tiled("bias", INPUT_UNITS, None, bias_sums, bias_from_sums, per_band=band_means)


def psnr(*, data_range: float) -> Tiled:
    """Peak signal-to-noise ratio, see `functional.psnr`."""
    given: dict[str, Any] = {"data_range": check_data_range(data_range)}
    from_sums, bands = (partial(f, **given) for f in (psnr_from_sums, psnr_bands_from_sums))
    return Tiled("PSNR", "dB", True, psnr_sums, from_sums, settings=given, per_band=bands)


def ssim(*, data_range: float) -> Tiled:
    """Structural similarity, see `functional.ssim`."""
    given: dict[str, Any] = {"data_range": check_data_range(data_range)}
    sums = partial(ssim_sums, **given)
    size: dict[str, Any] = {"halo": HALO, "min_size": WINDOW}
    return Tiled("SSIM", "", True, sums, ssim_from_sums, settings=given, **size)


def ms_ssim(*, data_range: float) -> Tiled:
    """Multi-scale structural similarity, see `functional.ms_ssim`."""
    given: dict[str, Any] = {"data_range": check_data_range(data_range)}
    sums = partial(ms_ssim_sums, **given)
    size: dict[str, Any] = {"halo": MS_SSIM_HALO, "align": ALIGN, "min_size": MIN_SIZE}
    return Tiled("MS-SSIM", "", True, sums, ms_ssim_from_sums, settings=given, **size)


def cpsnr(*, data_range: float, max_shift: int = MAX_SHIFT) -> Tiled:
    """PSNR that forgives a shift and an offset, see `functional.cpsnr`."""
    reach: dict[str, Any] = {"max_shift": check_max_shift(max_shift)}
    given: dict[str, Any] = {"data_range": check_data_range(data_range), **reach}
    sums, from_sums = partial(cpsnr_sums, **reach), partial(cpsnr_from_sums, **given)
    size: dict[str, Any] = {"halo": max_shift, "min_size": 2 * max_shift + 1}
    return Tiled("cPSNR", "dB", True, sums, from_sums, settings=given, **size)


def cssim(*, data_range: float, max_shift: int = MAX_SHIFT) -> Tiled:
    """SSIM that forgives a shift and an offset, see `functional.cssim`. Two passes."""
    reach: dict[str, Any] = {"max_shift": check_max_shift(max_shift)}
    given: dict[str, Any] = {"data_range": check_data_range(data_range), **reach}
    sums, from_sums = partial(cssim_sums, **given), partial(cssim_from_sums, **reach)
    size: dict[str, Any] = {"halo": max_shift + HALO, "min_size": 2 * max_shift + WINDOW}
    first = partial(cpsnr_sums, **reach)
    return Tiled("cSSIM", "", True, sums, from_sums, settings=given, known_sums=first, **size)


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


def uiqi() -> Tiled:
    """Universal image quality index, see `functional.uiqi`."""
    size: dict[str, Any] = {"halo": UIQI_HALO, "min_size": UIQI_WINDOW}
    return Tiled("UIQI", "", True, uiqi_sums, uiqi_from_sums, **size)


def q2n() -> Tiled:
    """Hypercomplex quality index of all bands, see `functional.q2n`."""
    size = {"align": BLOCK, "min_size": BLOCK}
    return Tiled("Q2n", "", True, q2n_sums, q2n_from_sums, **size)


def scc() -> Tiled:
    """Correlation of fine detail, see `functional.scc`."""
    size: dict[str, Any] = {"halo": SCC_HALO, "min_size": SCC_WINDOW}
    return Tiled("sCC", "", True, scc_sums, scc_from_sums, **size)
