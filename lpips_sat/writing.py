"""Rasters written with their radiometry, and maps written piece by piece; whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.windows
import torch

from .errors import MetricInputError, RasterError
from .gdal import clear_errors, environment, plain_is_fine
from .grid import Grid
from .outputs import StrPath, whole_file

BLOCK_PX = 256  # the side of a block in what is written


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
        with clear_errors(str(self.path), "write"):
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
        with clear_errors(os.fspath(path), "write"):
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
    with whole_file(path, overwrite=overwrite) as part, environment():
        with clear_errors(name, "write"), plain_is_fine():
            dst = rasterio.open(part, "w", **layout, **profile)
        try:
            yield dst
        finally:
            with clear_errors(name, "write"):
                dst.close()
