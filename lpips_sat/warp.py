"""Rasters read on another grid than their own, resampled window by window.

For judging nothing is resampled unless it is asked for (see raster.py); for training pairs of two
sensors something must be.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.coords import disjoint_bounds
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import CRSError
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform, transform_bounds

from .bands import canonical_band
from .declared import RadiometryOptions
from .errors import GridMismatchError, RasterError
from .gdal import FileSide, clear_errors, environment, open_file_mask, open_side
from .grid import Grid
from .outputs import StrPath
from .pair import Image, PairMask

__all__ = ["crs_of", "grid_in", "open_image", "open_mask", "read_values", "reprojected"]

# Pixels by which GDAL may miss the exact place where it interpolates (its default is 0.125).
TOLERANCE_PX = 0.01


@contextmanager
def open_image(
    path: StrPath,
    *,
    radiometry: RadiometryOptions | None = None,
    bands: Sequence[str] | None = None,
    like: Grid | None = None,
) -> Iterator[Image]:
    """Open one raster for reading by windows; `radiometry` and `bands` as in `open_pair`.

    like: the grid to read it on. Where that is not its own, values are resampled by GDAL's cubic
    convolution, which averages where `like` is coarser; what lies outside the raster is invalid.
    """
    with ExitStack() as stack:
        stack.enter_context(environment())
        side = open_side(stack, path, radiometry or RadiometryOptions(), bands)
        if bands is not None:
            side = side.select([canonical_band(b) for b in bands])
        yield side if like is None else _resampled(stack, side, like)


def read_values(path: StrPath) -> npt.NDArray[np.float32]:
    """Read all values (C, H, W) of a raster that says itself what they mean."""
    with open_image(path) as image:
        values, _ = image.read((0, 0, image.grid.height, image.grid.width))
    return values


@contextmanager
def open_mask(path: StrPath, *, like: Grid) -> Iterator[PairMask]:
    """Open a one-band raster of any grid as a mask on `like`: 0, NaN and outside are invalid."""
    with ExitStack() as stack:
        mask = open_file_mask(stack, path)
        yield replace(mask, src=_warp(stack, mask.src, like, Resampling.nearest))


def reprojected(stack: ExitStack, side: FileSide, grid: Grid, resampling: str) -> FileSide:
    """See an image on another grid, as `open_pair` compares it: floating, NaN where it ends.

    resampling: "nearest", "bilinear" or "cubic". GridMismatchError where there is no CRS, or
    nothing of the image on the grid.
    """
    if side.grid.crs is None or grid.crs is None:
        raise GridMismatchError(
            f"{side.path} cannot be reprojected: both images need a CRS\n  {side.grid}\n  {grid}"
        )
    # in both: the bounds of a large image mean little in the CRS of a small one
    if all(
        disjoint_bounds(_bounds_in(side.grid, crs), _bounds_in(grid, crs))
        for crs in (side.grid.crs, grid.crs)
    ):
        raise GridMismatchError(
            f"{side.path} does not overlap the grid it is put on\n  {side.grid}\n  {grid}"
        )
    nodata, plain = side.radiometry.nodata, [MaskFlags.all_valid]
    unmasked = all(flags == plain for flags in side.src.mask_flag_enums)
    if nodata is None and unmasked and np.issubdtype(np.dtype(side.src.dtypes[0]), np.floating):
        nodata = math.nan  # else what is interpolated near a NaN would be one, too
    known = {"src_nodata": nodata, "nodata": math.nan, "dtype": "float64"}
    return replace(side, src=_warp(stack, side.src, grid, Resampling[resampling], **known))


def crs_of(code: str) -> Any:
    """Find a CRS by its code, such as EPSG:32631."""
    try:
        return CRS.from_string(code)
    except CRSError as error:
        raise RasterError(f"{code!r} is no CRS: expected a code such as EPSG:32631") from error


def grid_in(grid: Grid, crs: Any) -> Grid:
    """Find the north-up grid in another CRS that covers `grid` with square pixels as large.

    The size is that of the pixel in the middle.
    """
    if grid.crs == crs:
        return grid
    col, row = grid.width / 2, grid.height / 2
    pixel = [grid.xy(*p) for p in ((col, row), (col + 1, row), (col, row + 1))]
    left, bottom, right, top = _bounds_in(grid, crs)
    with clear_errors(str(grid), "project"):
        px, py = transform(grid.crs, crs, *zip(*pixel, strict=True))
    area = (px[1] - px[0]) * (py[2] - py[0]) - (px[2] - px[0]) * (py[1] - py[0])
    size = math.sqrt(abs(area))
    width, height = math.ceil((right - left) / size), math.ceil((top - bottom) / size)
    return Grid(crs, Affine(size, 0, left, 0, -size, top), width, height)


def _bounds_in(grid: Grid, crs: Any) -> tuple[float, float, float, float]:
    """Left, bottom, right and top of `grid` in another CRS."""
    xs, ys = zip(*grid.corners(), strict=True)
    with clear_errors(str(grid), "project"):
        bounds = transform_bounds(grid.crs, crs, min(xs), min(ys), max(xs), max(ys))
    return tuple(bounds)


def _resampled(stack: ExitStack, side: FileSide, grid: Grid) -> FileSide:
    if side.grid.difference(grid) is None:
        return side
    nodata = side.radiometry.nodata
    known: dict[str, Any] = {"src_nodata": nodata, "nodata": nodata}
    if nodata is None:  # an alpha band, the file's own or a new one, then tells what is outside
        known = {} if side.alpha else {"add_alpha": True}
    vrt = _warp(stack, side.src, grid, Resampling.cubic, **known)
    alpha = [i for i in vrt.indexes if vrt.colorinterp[i - 1] == ColorInterp.alpha]
    return replace(side, src=vrt, alpha=[i for i in alpha if i not in side.indexes])


def _warp(stack: ExitStack, src: Any, grid: Grid, resampling: Resampling, **known: Any) -> Any:
    size = {"width": grid.width, "height": grid.height}
    placed = {"crs": grid.crs, "transform": grid.transform, "tolerance": TOLERANCE_PX}
    with clear_errors(src.name, "warp"):
        vrt = WarpedVRT(src, **placed, **size, resampling=resampling, **known)
    return stack.enter_context(vrt)
