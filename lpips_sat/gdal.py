"""One raster, through GDAL: opened, read by windows, its errors in one line.

raster.py, writing.py and warp.py build on it; no other file imports rasterio.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.windows
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from .bands import canonical_band
from .declared import DeclaredRadiometry, RadiometryOptions, resolve
from .errors import RadiometryError, RasterError
from .grid import Grid
from .items import is_remote
from .outputs import StrPath
from .pair import Mask, Window
from .radiometry import PRESETS, Radiometry

# Decoded blocks that GDAL may keep (its default is 5 % of the machine's memory): with one tile of
# each image, this is what bounds the memory of a scene of any size. It holds one row of 512-px
# tiles of two 4-band uint16 images 8,000 px wide, so that no block is decoded twice. In bytes:
# rasterio hands the number to GDALSetCacheMax64, where GDAL's own option would read 64 as MB.
CACHE_BYTES = 64 * 2**20
# A server that stops answering must not stop us for ever, as it would by GDAL's defaults. Seconds,
# and bytes per second; the environment variables of these names win.
HTTP_LIMITS = {
    "GDAL_HTTP_CONNECTTIMEOUT": 15,
    "GDAL_HTTP_LOW_SPEED_TIME": 30,
    "GDAL_HTTP_LOW_SPEED_LIMIT": 1,
    "GDAL_HTTP_MAX_RETRY": 3,
}


@dataclass(frozen=True)
class FileSide:
    """One opened image of a pair."""

    path: str
    src: Any
    indexes: list[int]  # GDAL's numbers (from 1) of the bands of `radiometry`
    radiometry: Radiometry
    alpha: list[int]

    @property
    def grid(self) -> Grid:
        """Tell where its pixels lie."""
        return grid_of_dataset(self.src)

    def select(self, bands: Sequence[str]) -> FileSide:
        """Keep some bands, in the order asked for."""
        own = self.radiometry.bands
        if missing := [band for band in bands if band not in own]:
            raise RadiometryError(
                f"{self.path} holds the bands {', '.join(own)}, but not {', '.join(missing)}"
            )
        index = [self.indexes[own.index(band)] for band in bands]
        return replace(self, indexes=index, radiometry=self.radiometry.select(bands))

    def read(self, window: Window) -> tuple[npt.NDArray[np.float32], Mask]:
        """Read values (C, h, w) and which pixels (h, w) count."""
        dn = read_window(self.src, self.path, self.indexes, window)
        values = self.radiometry.to_values(dn)
        valid = self.radiometry.valid(dn) & np.isfinite(values).all(axis=0)
        if self.alpha:
            valid &= (read_window(self.src, self.path, self.alpha, window) != 0).all(axis=0)
        flags = self.src.mask_flag_enums[self.indexes[0] - 1]
        if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:  # internal or .msk
            valid &= read_window(self.src, self.path, self.indexes[0], window, mask=True) != 0
        return values, valid


@dataclass(frozen=True)
class FileMask:
    """A raster that says which pixels of a pair count."""

    path: str
    src: Any

    def read(self, window: Window) -> Mask:
        """Read the mask (h, w): valid where not 0, not NaN and not the mask's own nodata."""
        values = read_window(self.src, self.path, 1, window)
        own = read_window(self.src, self.path, 1, window, mask=True)
        valid: Mask = (values != 0) & ~np.isnan(values) & (own != 0)
        return valid


@contextmanager
def environment() -> Iterator[None]:
    """Bound GDAL's cache and its patience with servers."""
    limits = {name: value for name, value in HTTP_LIMITS.items() if name not in os.environ}
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES, **limits):
        yield


@contextmanager
def plain_is_fine() -> Iterator[None]:
    """Hush rasterio's warning that an image has no georeference."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextmanager
def clear_errors(path: str, doing: str) -> Iterator[None]:
    """Turn rasterio's exceptions into RasterError, in one line."""
    try:
        yield
    except RasterioError as error:
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split())
        raise RasterError(f"cannot {doing} {path}: {reason}") from error


def open_dataset(stack: ExitStack, path: StrPath) -> Any:
    """Open a raster with real numbers until the stack is left; RasterError if it is none."""
    name = os.fspath(path)
    try:
        with plain_is_fine():
            src = stack.enter_context(rasterio.open(name))
    except RasterioError as error:
        raise RasterError(_why_not_opened(name, error)) from error
    if src.count == 0:
        inside = f": name one of {', '.join(src.subdatasets)}" if src.subdatasets else ""
        raise RasterError(f"{name} has no bands of its own{inside}")
    if any("complex" in dtype for dtype in src.dtypes):
        raise RasterError(f"{name} holds {src.dtypes[0]} numbers: expected real ones")
    if ColorInterp.palette in src.colorinterp:
        raise RasterError(
            f"{name} holds palette indices, not colours: expand them first, "
            "gdal_translate -expand rgb"
        )
    return src


def _why_not_opened(name: str, error: Exception) -> str:
    path = Path(name)
    if not is_remote(name):
        if not path.exists():
            return f"{name}: no such file"
        if path.is_dir():
            return f"{name} is a folder: expected a raster file"
    return (
        f"{name} is not a raster that GDAL can open, or it is damaged: expected e.g. a GeoTIFF "
        f"({' '.join(str(error).split())})"
    )


def open_side(
    stack: ExitStack, path: StrPath, options: RadiometryOptions, wanted: Sequence[str] | None
) -> FileSide:
    """Open a raster with its radiometry settled; RadiometryError if something is open.

    options: what the user says of it; wanted: names for a file that does not name its bands, which
    has to have as many (a picture may have more: its bands go by position).
    """
    src, name = open_dataset(stack, path), os.fspath(path)
    chosen = PRESETS.get(options.preset or "")
    default = None if chosen is None else chosen.bands
    named = options.bands or default or ()
    # GDAL flags a fourth uint8 band as alpha by default: names given for all bands overrule it
    alpha = [] if len(named) == src.count else [i for i in src.indexes if _is_alpha(src, i)]
    indexes = [i for i in src.indexes if i not in alpha]
    if not indexes:
        raise RasterError(f"{name} holds an alpha band only: expected at least one data band")
    picked = [i - 1 for i in indexes]
    declared = DeclaredRadiometry(
        bands=tuple(src.descriptions[i] for i in picked),
        scales=tuple(src.scales[i] for i in picked),
        offsets=tuple(src.offsets[i] for i in picked),
        nodata=tuple(src.nodatavals[i] for i in picked),
        dtype=np.result_type(*(src.dtypes[i] for i in picked)).name,
        colors=tuple(src.colorinterp[i].name for i in picked),
        source=name,
    )
    unnamed = not named and declared.band_names() is None
    picture = chosen is not None and chosen.kind == "display"  # bands by position, to pick from
    if unnamed and wanted is not None and len(wanted) == len(indexes):
        options = replace(options, bands=wanted)
    elif unnamed and wanted is not None and not picture:
        raise RadiometryError(
            f"{name}: {len(indexes)} band(s) without names, but {','.join(wanted)} are wanted: "
            "name every band of the file, in its order (--bands, or the bands' descriptions)"
        )
    return FileSide(name, src, indexes, resolve(declared, **asdict(options)), alpha)


def _is_alpha(src: Any, index: int) -> bool:
    """Whether a band is flagged as alpha and not described as a spectral one."""
    described = canonical_band(src.descriptions[index - 1] or "")
    return src.colorinterp[index - 1] == ColorInterp.alpha and not described.startswith("B")


def open_file_mask(stack: ExitStack, path: StrPath) -> FileMask:
    """Open a raster as a mask; RasterError unless it has one band."""
    src = open_dataset(stack, path)
    if src.count != 1:
        raise RasterError(f"mask {path} has {src.count} bands: expected one, 0 = invalid")
    return FileMask(os.fspath(path), src)


def read_window(
    src: Any, path: str, indexes: list[int] | int | None, window: Window, *, mask: bool = False
) -> npt.NDArray[Any]:
    """Read the DN of a window, of all bands with `indexes` None; mask: GDAL's masks (0 or 255)."""
    row, col, height, width = window
    with clear_errors(path, f"read rows {row} to {row + height - 1} of"):
        part = rasterio.windows.Window(col, row, width, height)
        array: npt.NDArray[Any] = (src.read_masks if mask else src.read)(indexes, window=part)
        return array


def grid_of_dataset(src: Any) -> Grid:
    """Tell where the pixels of an opened raster lie."""
    return Grid(src.crs, src.transform, src.width, src.height)
