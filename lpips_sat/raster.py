"""Rasters in, maps out: with warp.py, which resamples, the only file that imports rasterio.

Nothing is read whole: a pair is iterated in tiles with a halo. Two rasters are compared pixel by
pixel only if they lie on the same grid; nothing is resampled unless it is asked for.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.windows
import torch
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.enums import Resampling as WarpResampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT

from .alignment import Alignment
from .errors import GridMismatchError, MetricInputError, RadiometryError, RasterError
from .grid import Grid, check_refinement, check_same_grid
from .outputs import StrPath, check_output, whole_file
from .pair import Mask, RasterPair, Side, Tile, Window, common_bands
from .radiometry import (
    PRESETS,
    DeclaredRadiometry,
    Radiometry,
    RadiometryOptions,
    canonical_band,
    resolve,
)

__all__ = [
    "Grid",
    "MapWriter",
    "RasterPair",
    "Tile",
    "check_output",
    "check_same_grid",
    "grid_of",
    "open_image",
    "open_pair",
    "read_on",
    "write_raster",
]

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
Resampling = Literal["nearest", "bilinear", "cubic"]  # as GDAL's warper does them
BLOCK_PX = 256  # the side of a block in what is written


@dataclass(frozen=True)
class _Side:
    """One opened image of a pair."""

    path: str
    src: Any
    indexes: list[int]  # GDAL's numbers (from 1) of the bands of `radiometry`
    radiometry: Radiometry
    alpha: list[int]

    @property
    def grid(self) -> Grid:
        return _grid(self.src)

    def select(self, bands: Sequence[str]) -> _Side:
        index = [self.indexes[self.radiometry.bands.index(b)] for b in bands]
        return replace(self, indexes=index, radiometry=self.radiometry.select(bands))

    def read(self, window: Window) -> tuple[npt.NDArray[np.float32], Mask]:
        """Read values (C, h, w) and which pixels (h, w) count."""
        dn = _read(self.src, self.path, self.indexes, window)
        values = self.radiometry.to_values(dn)
        valid = self.radiometry.valid(dn) & np.isfinite(values).all(axis=0)
        if self.alpha:
            valid &= (_read(self.src, self.path, self.alpha, window) != 0).all(axis=0)
        flags = self.src.mask_flag_enums[self.indexes[0] - 1]
        if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:  # internal or .msk
            valid &= _read(self.src, self.path, self.indexes[0], window, mask=True) != 0
        return values, valid


@dataclass(frozen=True)
class _MaskFile:
    """A raster that says which pixels of a pair count."""

    path: str
    src: Any

    def read(self, window: Window) -> Mask:
        """Read the mask (h, w): valid where not 0, not NaN and not the mask's own nodata."""
        values = _read(self.src, self.path, 1, window)
        own = _read(self.src, self.path, 1, window, mask=True)
        valid: Mask = (values != 0) & ~np.isnan(values) & (own != 0)
        return valid


@contextmanager
def open_pair(
    pred_path: StrPath,
    ref_path: StrPath,
    *,
    radiometry: RadiometryOptions | None = None,
    pred_radiometry: RadiometryOptions | None = None,
    ref_radiometry: RadiometryOptions | None = None,
    bands: Sequence[str] | None = None,
    mask_path: StrPath | None = None,
    lr_path: StrPath | None = None,
    lr_radiometry: RadiometryOptions | None = None,
    reproject: Resampling | None = None,
) -> Iterator[RasterPair]:
    """Open two rasters for reading tile by tile; everything but the pixels is checked here.

    radiometry: what the user says of both files; pred_radiometry, ref_radiometry: of one, instead.
    bands: the bands to compare (default: those in both, in the reference's order); for a file that
    does not name its bands and has as many, they are also its names, in the file's order.
    mask_path: a one-band raster on the same grid, as GDAL's masks are: 0 = invalid, others valid.
    lr_path: the low-resolution image that the prediction was made from, with the same bands, whose
    pixels the grid divides into a whole number; lr_radiometry: what the user says of it.
    reproject: resample a prediction on another grid to the reference's: "nearest", "bilinear" or
    "cubic" (default: such a pair is an error).

    A pixel counts if it is finite and not nodata in every compared band of both files, not
    transparent in an alpha band (never a data band), and valid in the files' own masks.
    """
    both = radiometry or RadiometryOptions()
    with ExitStack() as stack:
        limits = {name: value for name, value in HTTP_LIMITS.items() if name not in os.environ}
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES, **limits))
        pred = _open_side(stack, pred_path, pred_radiometry or both, bands)
        ref = _open_side(stack, ref_path, ref_radiometry or both, bands)
        if both.scale is not None and pred_radiometry is None and ref_radiometry is None:
            _check_one_scale(pred, ref)
        grid = _grid(ref.src)
        resampled = reproject if _grid(pred.src).difference(grid) else None
        if resampled is not None:
            pred = replace(pred, src=_warp(stack, pred, grid, resampled))
        check_same_grid(_grid(pred.src), grid, pred_name=pred.path, ref_name=ref.path)
        common = common_bands(pred, ref, bands)
        if pred.radiometry.kind != ref.radiometry.kind:
            raise RadiometryError(
                f"{pred.path} holds {pred.radiometry.kind} values, {ref.path} "
                f"{ref.radiometry.kind} values: they cannot be compared; give both the same kind "
                "with --radiometry"
            )
        mask = None if mask_path is None else _open_mask(stack, mask_path, grid, ref.path)
        pred, ref = pred.select(common), ref.select(common)
        dtype = str(ref.src.dtypes[ref.indexes[0] - 1])
        lr, factor = None, None
        if lr_path is not None:
            lr, factor = _open_lr(stack, lr_path, lr_radiometry or both, ref, grid)
        done = Alignment(reproject=resampled)
        yield RasterPair(grid, common, dtype, pred, ref, mask, lr, factor, done)


def _warp(stack: ExitStack, side: _Side, grid: Grid, resampling: Resampling) -> Any:
    """See an image on another grid: floating, NaN where it holds nothing."""
    own = _grid(side.src)
    if own.crs is None or grid.crs is None:
        raise GridMismatchError(
            f"{side.path} cannot be reprojected: both images need a CRS\n  {own}\n  {grid}"
        )
    with _clear_errors(side.path, "reproject"):
        return stack.enter_context(
            WarpedVRT(
                side.src,
                crs=grid.crs,
                transform=grid.transform,
                width=grid.width,
                height=grid.height,
                resampling=WarpResampling[resampling],
                src_nodata=side.radiometry.nodata,
                nodata=math.nan,
                dtype="float64",
            )
        )


def _open_lr(
    stack: ExitStack, path: StrPath, options: RadiometryOptions, ref: _Side, grid: Grid
) -> tuple[_Side, int]:
    """Open the low-resolution image of a pair for the bands of `ref`; its factor too."""
    wanted = ref.radiometry.bands
    lr = _open_side(stack, path, options, wanted)
    factor = check_refinement(_grid(lr.src), grid, lr_name=lr.path, hr_name=ref.path)
    if lr.radiometry.kind != ref.radiometry.kind:
        raise RadiometryError(
            f"{lr.path} holds {lr.radiometry.kind} values, {ref.path} {ref.radiometry.kind} values"
        )
    return lr.select(common_bands(lr, ref, wanted)), factor


@contextmanager
def open_image(
    path: StrPath,
    *,
    radiometry: RadiometryOptions | None = None,
    bands: Sequence[str] | None = None,
) -> Iterator[tuple[Grid, Side]]:
    """Open one raster for reading by windows: its grid, and what `read` and `select` bands.

    radiometry: what the user says of the file; bands: names for a file that does not name its own,
    in the file's order.
    """
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES))
        side = _open_side(stack, path, radiometry or RadiometryOptions(), bands)
        yield _grid(side.src), side


def _check_one_scale(pred: _Side, ref: _Side) -> None:
    """Refuse one scale for numbers of two kinds, such as reflectance and DN."""
    types = [np.result_type(*side.src.dtypes) for side in (pred, ref)]
    if np.issubdtype(types[0], np.floating) != np.issubdtype(types[1], np.floating):
        raise RadiometryError(
            f"one --scale cannot be right for both {pred.path} ({types[0]}) and {ref.path} "
            f"({types[1]}): name the product with --radiometry, which leaves floating values as "
            "they are, or write the scale into the file (gdal_edit.py -scale)"
        )


def grid_of(path: StrPath) -> Grid:
    """Read the grid of a raster."""
    with ExitStack() as stack:
        return _grid(_open(stack, path))


def read_on(path: StrPath, grid: Grid) -> npt.NDArray[Any]:
    """Read the DN (C, H, W) of all bands exactly on `grid`, which must be a part of the raster's.

    Nothing is resampled: another resolution, or a shift by part of a pixel, is an error.
    """
    with ExitStack() as stack:
        src = _open(stack, path)
        whole = _grid(src)
        row, col = (round(v) for v in whole.locate(grid))
        part = whole.window(row, col, grid.height, grid.width)
        inside = row >= 0 and col >= 0
        inside &= row + grid.height <= whole.height and col + grid.width <= whole.width
        if not inside or part.difference(grid) is not None:
            problem = part.difference(grid) or "extent (it reaches beyond the raster)"
            raise GridMismatchError(
                f"{path}: expected a window of its pixels, but it differs in {problem}\n"
                f"  raster: {whole}\n  wanted: {grid}"
            )
        return _read(src, str(path), None, (row, col, grid.height, grid.width))


class MapWriter:
    """A float32 GeoTIFF, written piece by piece; NaN where nothing is written.

    A context manager: the file appears under its name when the block ends without an error, and
    not at all otherwise. path: where; grid: of the map; description: of its one band, or bands: of
    each of several; tags: free metadata.
    """

    def __init__(
        self,
        path: StrPath,
        grid: Grid,
        *,
        overwrite: bool = False,
        description: str = "",
        bands: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.grid = grid
        self.bands = tuple(bands) or (description,)
        self._overwrite = overwrite
        self._tags = dict(tags or {})
        self._stack = ExitStack()
        self._dst: Any = None

    def __enter__(self) -> MapWriter:
        profile = {"dtype": "float32", "nodata": float("nan"), "predictor": 3}
        profile["count"] = len(self.bands)
        with ExitStack() as stack:
            self._dst = stack.enter_context(
                _create(self.path, self.grid, profile, overwrite=self._overwrite)
            )
            self._dst.descriptions = self.bands
            self._dst.update_tags(**self._tags)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._dst = None
        self._stack.__exit__(*error)

    def write(self, row: int, col: int, array: torch.Tensor | npt.NDArray[Any]) -> None:
        """Write a piece (h, w) of a one-band map, or (bands, h, w), from pixel (row, col) on."""
        if self._dst is None:
            raise RasterError(f"{self.path}: write inside the writer's `with` block")
        piece = np.asarray(array, dtype=np.float32)
        piece = piece[None] if piece.ndim == 2 else piece
        inside = piece.ndim == 3 and len(piece) == len(self.bands) and row >= 0 and col >= 0
        if not inside or not (
            row + piece.shape[1] <= self.grid.height and col + piece.shape[2] <= self.grid.width
        ):
            raise MetricInputError(
                f"expected a piece of {len(self.bands)} band(s) inside {self.grid.height} x "
                f"{self.grid.width} px, got shape {piece.shape} at row {row}, column {col}"
            )
        window = rasterio.windows.Window(col, row, piece.shape[2], piece.shape[1])
        with _clear_errors(str(self.path), "write"):
            self._dst.write(piece, window=window)


def write_raster(
    path: StrPath,
    array: npt.NDArray[Any],
    grid: Grid,
    *,
    bands: Sequence[str],
    scale: float,
    offset: float,
    nodata: float | None,
    description: str,
    tags: Mapping[str, str],
    overwrite: bool = False,
) -> None:
    """Write DN (C, H, W) with their radiometry in the header: value = DN * scale + offset.

    bands: one description per band; description: of the whole image; tags: free metadata.
    """
    if array.shape != (len(bands), grid.height, grid.width):
        raise MetricInputError(
            f"expected an array of shape ({len(bands)}, {grid.height}, {grid.width}) for bands "
            f"{','.join(bands)} on the grid {grid}, got {array.shape}"
        )
    predictor = 3 if np.issubdtype(array.dtype, np.floating) else 2
    profile = {"count": len(bands), "dtype": array.dtype.name, "nodata": nodata}
    profile["predictor"] = predictor
    with _create(path, grid, profile, overwrite=overwrite) as dst:
        dst.descriptions = tuple(bands)
        dst.scales = (scale,) * len(bands)
        dst.offsets = (offset,) * len(bands)
        dst.update_tags(TIFFTAG_IMAGEDESCRIPTION=description, **tags)
        with _clear_errors(os.fspath(path), "write"):
            dst.write(array)


@contextmanager
def _create(
    path: StrPath, grid: Grid, profile: Mapping[str, Any], *, overwrite: bool
) -> Iterator[Any]:
    layout = {
        "driver": "GTiff",
        "width": grid.width,
        "height": grid.height,
        "crs": grid.crs,
        "transform": grid.transform,
        "tiled": True,
        "blockxsize": BLOCK_PX,
        "blockysize": BLOCK_PX,
        "compress": "deflate",
        "photometric": "MINISBLACK",  # else GDAL makes an alpha band of a fourth uint8 band
        "BIGTIFF": "IF_SAFER",
    }
    name = os.fspath(path)
    env = rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES)
    with whole_file(path, overwrite=overwrite) as part, env:
        with _clear_errors(name, "write"), _plain_is_fine():
            dst = rasterio.open(part, "w", **layout, **profile)
        try:
            yield dst
        finally:
            with _clear_errors(name, "write"):
                dst.close()


@contextmanager
def _plain_is_fine() -> Iterator[None]:
    """Hush rasterio's warning that an image has no georeference."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextmanager
def _clear_errors(path: str, doing: str) -> Iterator[None]:
    """Turn rasterio's exceptions into RasterError, in one line."""
    try:
        yield
    except RasterioError as error:
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split())
        raise RasterError(f"cannot {doing} {path}: {reason}") from error


def _open(stack: ExitStack, path: StrPath) -> Any:
    name = os.fspath(path)
    try:
        with _plain_is_fine():
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
    if "://" not in name and not name.startswith("/vsi"):
        if not path.exists():
            return f"{name}: no such file"
        if path.is_dir():
            return f"{name} is a folder: expected a raster file"
    return (
        f"{name} is not a raster that GDAL can open, or it is damaged: expected e.g. a GeoTIFF "
        f"({' '.join(str(error).split())})"
    )


def _open_side(
    stack: ExitStack, path: StrPath, options: RadiometryOptions, wanted: Sequence[str] | None
) -> _Side:
    src, name = _open(stack, path), os.fspath(path)
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
    if unnamed and wanted is not None and len(wanted) == len(indexes):
        options = replace(options, bands=wanted)
    return _Side(name, src, indexes, resolve(declared, **asdict(options)), alpha)


def _is_alpha(src: Any, index: int) -> bool:
    """Whether a band is flagged as alpha and not described as a spectral one."""
    described = canonical_band(src.descriptions[index - 1] or "")
    return src.colorinterp[index - 1] == ColorInterp.alpha and not described.startswith("B")


def _open_mask(stack: ExitStack, path: StrPath, grid: Grid, ref_name: str) -> _MaskFile:
    src = _open(stack, path)
    if src.count != 1:
        raise RasterError(f"mask {path} has {src.count} bands: expected one, 0 = invalid")
    check_same_grid(_grid(src), grid, pred_name=os.fspath(path), ref_name=ref_name)
    return _MaskFile(os.fspath(path), src)


def _read(
    src: Any, path: str, indexes: list[int] | int | None, window: Window, *, mask: bool = False
) -> npt.NDArray[Any]:
    row, col, height, width = window
    with _clear_errors(path, f"read rows {row} to {row + height - 1} of"):
        part = rasterio.windows.Window(col, row, width, height)
        array: npt.NDArray[Any] = (src.read_masks if mask else src.read)(indexes, window=part)
        return array


def _grid(src: Any) -> Grid:
    return Grid(src.crs, src.transform, src.width, src.height)
