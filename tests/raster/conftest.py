"""What the tests of reading and writing rasters share."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

from lpips_sat.raster import (
    Grid,
    open_pair,
    write_raster,
)

UTM18, UTM17 = CRS.from_epsg(32618), CRS.from_epsg(32617)
HEIGHT, WIDTH = 61, 83


def grid(
    x: float = 435730.0,
    y: float = 4179460.0,
    step: float = 10.0,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    crs: CRS | None = UTM18,
) -> Grid:
    return Grid(crs, Affine(step, 0, x, 0, -step, y), size[1], size[0])


def numbers(bands: int = 2, seed: int = 0, dtype: str = "uint16") -> npt.NDArray[Any]:
    generator = np.random.default_rng(seed)
    return generator.integers(1, 200, (bands, HEIGHT, WIDTH)).astype(dtype)


def put(
    path: Path,
    array: npt.NDArray[Any],
    *,
    bands: tuple[str, ...] = ("B04", "B03"),
    where: Grid | None = None,
    scale: float = 1e-4,
    nodata: float | None = None,
) -> Path:
    write_raster(
        path,
        array,
        where or grid(size=array.shape[1:]),
        bands=bands,
        scale=scale,
        offset=0.0,
        nodata=nodata,
        description="test",
        tags={},
    )
    return path


def plain(path: Path, array: npt.NDArray[Any], driver: str = "PNG", **tags: Any) -> Path:
    """Write an image without georeference and without a declared radiometry."""
    count, height, width = array.shape
    shape = {"count": count, "height": height, "width": width, "dtype": array.dtype.name}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver=driver, **shape) as dst:
            for name, value in tags.items():
                setattr(dst, name, value)
            if "colorinterp" in tags and ColorInterp.palette in tags["colorinterp"]:
                dst.write_colormap(1, {0: (1, 2, 3, 255)})
            dst.write(array)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return put(tmp_path / "pred.tif", numbers(seed=1)), put(tmp_path / "ref.tif", numbers(seed=2))


def valid_of(pred: Path, ref: Path, **options: Any) -> npt.NDArray[np.bool_]:
    """The validity mask (H, W) of a pair, put together from small tiles."""
    with open_pair(pred, ref, **options) as both:
        whole = np.zeros((both.grid.height, both.grid.width), dtype=bool)
        for tile in both.tiles(16, halo=3):
            core = tile.valid[0, 0][tile.core_slices].numpy()
            whole[tile.row : tile.row + tile.height, tile.col : tile.col + tile.width] = core
            assert torch.isfinite(tile.pred).all()
            assert not tile.pred[:, :, ~tile.valid[0, 0]].any()
            assert not tile.ref[:, :, ~tile.valid[0, 0]].any()
    return whole
