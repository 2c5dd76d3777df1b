"""Pairs of rasters opened for reading, and rasters read on a grid.

Nothing is read whole: a pair is iterated in tiles with a halo. Two rasters are compared pixel by
pixel only if they lie on the same grid; nothing is resampled unless it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .alignment import Alignment
from .declared import RadiometryOptions
from .errors import GridMismatchError, RadiometryError
from .gdal import (
    FileMask,
    FileSide,
    environment,
    grid_of_dataset,
    open_dataset,
    open_file_mask,
    open_side,
    read_window,
)
from .grid import Grid, check_refinement, check_same_grid
from .outputs import StrPath, check_output
from .pair import RasterPair, Tile, common_bands
from .warp import reprojected
from .writing import MapWriter, write_raster

__all__ = [
    "Grid",
    "MapWriter",
    "RasterPair",
    "Tile",
    "check_output",
    "check_same_grid",
    "files_of",
    "fingerprint",
    "grid_of",
    "is_store",
    "open_pair",
    "read_on",
    "write_raster",
]

Resampling = Literal["nearest", "bilinear", "cubic"]  # as GDAL's warper does them
# Files at the top of a Zarr store: format 3, and arrays or groups of format 2.
ZARR_MARKS = ("zarr.json", ".zarray", ".zgroup")
# Side in pixels of what a fingerprint looks at: one block or a few, however large the raster.
FINGERPRINT = 256


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

    radiometry: what the user says of both files, but `floating_dn` of the prediction alone;
    pred_radiometry, ref_radiometry: of one, instead.
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
        stack.enter_context(environment())
        pred = open_side(stack, pred_path, pred_radiometry or both, bands)
        others = replace(both, floating_dn=False)
        ref = open_side(stack, ref_path, ref_radiometry or others, bands)
        if pred_radiometry is None and ref_radiometry is None:
            _check_one_law(both, pred, ref)
        grid = ref.grid
        resampled = reproject if pred.grid.difference(grid) else None
        if resampled is not None:
            pred = reprojected(stack, pred, grid, resampled)
        check_same_grid(pred.grid, grid, pred_name=pred.path, ref_name=ref.path)
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
            lr, factor = _open_lr(stack, lr_path, lr_radiometry or others, ref, grid)
        done = Alignment(reproject=resampled)
        yield RasterPair(grid, common, dtype, pred, ref, mask, lr, factor, done)


def _open_lr(
    stack: ExitStack, path: StrPath, options: RadiometryOptions, ref: FileSide, grid: Grid
) -> tuple[FileSide, int]:
    """Open the low-resolution image of a pair for the bands of `ref`; its factor too."""
    wanted = ref.radiometry.bands
    lr = open_side(stack, path, options, wanted)
    factor = check_refinement(lr.grid, grid, lr_name=lr.path, hr_name=ref.path)
    if lr.radiometry.kind != ref.radiometry.kind:
        raise RadiometryError(
            f"{lr.path} holds {lr.radiometry.kind} values, {ref.path} {ref.radiometry.kind} values"
        )
    return lr.select(common_bands(lr, ref, wanted)), factor


def _check_one_law(both: RadiometryOptions, pred: FileSide, ref: FileSide) -> None:
    """Refuse one scale or offset for numbers of two kinds, such as reflectance and DN."""
    said = [f"--{name}" for name in ("scale", "offset") if getattr(both, name) is not None]
    types = [np.result_type(*side.src.dtypes) for side in (pred, ref)]
    values = [np.issubdtype(dtype, np.floating) for dtype in types]
    if not said or (values[0] and not both.floating_dn) == values[1]:
        return
    also = ", or add --pred-dn if its numbers are DN too" if values[0] and not values[1] else ""
    raise RadiometryError(
        f"one {' and '.join(said)} cannot be right for both {pred.path} ({types[0]}) and "
        f"{ref.path} ({types[1]}): name the product with --radiometry, which leaves floating "
        f"values as they are{also}, or write the scale into the file (gdal_edit.py -scale)"
    )


def is_store(path: StrPath) -> bool:
    """Whether a folder is a Zarr store: to GDAL one raster, not a folder of them."""
    return any((Path(path) / mark).is_file() for mark in ZARR_MARKS)


def fingerprint(path: StrPath, *, mask: bool = False) -> str:
    """SHA-256 of a raster's size and the DN in its middle, whatever its name and compression.

    mask: of what is not 0, whatever the dtype.
    """
    with ExitStack() as stack:
        stack.enter_context(environment())
        src = open_dataset(stack, path)
        height, width = min(src.height, FINGERPRINT), min(src.width, FINGERPRINT)
        window = ((src.height - height) // 2, (src.width - width) // 2, height, width)
        kind = "mask" if mask else src.dtypes
        digest = sha256(f"{src.count} {src.height} {src.width} {kind}".encode())
        values = read_window(src, str(path), None, window)
        digest.update((values != 0 if mask else values).tobytes())
        return digest.hexdigest()


def files_of(path: StrPath) -> list[str]:
    """Name the files that a raster is read from: of a VRT its sources, too, and theirs."""
    found = [str(path)]
    for name in found:  # it grows on the way
        if name == str(path) or name.lower().endswith(".vrt"):
            with ExitStack() as stack:
                stack.enter_context(environment())
                found += [file for file in open_dataset(stack, name).files if file not in found]
    return found


def grid_of(path: StrPath) -> Grid:
    """Read the grid of a raster."""
    with ExitStack() as stack:
        return grid_of_dataset(open_dataset(stack, path))


def read_on(path: StrPath, grid: Grid) -> npt.NDArray[Any]:
    """Read the DN (C, H, W) of all bands exactly on `grid`, which must be a part of the raster's.

    Nothing is resampled: another resolution, or a shift by part of a pixel, is an error.
    """
    with ExitStack() as stack:
        src = open_dataset(stack, path)
        whole = grid_of_dataset(src)
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
        return read_window(src, str(path), None, (row, col, grid.height, grid.width))


def _open_mask(stack: ExitStack, path: StrPath, grid: Grid, ref_name: str) -> FileMask:
    mask = open_file_mask(stack, path)
    found = grid_of_dataset(mask.src)
    check_same_grid(found, grid, pred_name=mask.path, ref_name=ref_name, mask=True)
    return mask
