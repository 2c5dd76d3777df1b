"""Small scenes of two sensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine

from sr_models.data.tiles import Layout

Array = npt.NDArray[Any]
SMALL = Layout(tile=32, block=1, margin=8, min_texture=1e-4)


@pytest.fixture(scope="session")
def raster() -> Callable[..., Path]:
    """Write an array (C, H, W) with any transform; return its path."""

    def write(
        path: Path,
        array: Array,
        transform: Affine,
        *,
        bands: tuple[str, ...] = ("B08",),
        crs: str | None = "EPSG:32618",
        nodata: float | None = None,
    ) -> Path:
        count, height, width = array.shape
        size = {"count": count, "height": height, "width": width, "dtype": array.dtype.name}
        with rasterio.open(
            path, "w", driver="GTiff", crs=crs, transform=transform, nodata=nodata, **size
        ) as dst:
            dst.descriptions = bands
            dst.write(array)
        return path

    return write


@pytest.fixture(scope="session")
def scene(raster, textured) -> Callable[..., tuple[Path, Path, Array, Array]]:
    """Write an LR raster and an HR raster that begins half an LR pixel inside it.

    HR: 180 x 180 px of 10 m from (500010, 4200000); LR: 92 x 92 px of 20 m from (500000, 4200020),
    the means of the HR pixels where there are some. So LR pixels [1:91, 1:90] are covered.
    """

    def make(
        folder: Path, *, bands: tuple[str, ...] = ("B08",), hr_bands: tuple[str, ...] | None = None
    ) -> tuple[Path, Path, Array, Array]:
        hr_bands = hr_bands or bands
        hr = textured(len(hr_bands), 180, 180, seed=4).astype(np.float32)
        lr = np.full((len(bands), 92, 92), 0.2, dtype=np.float32)
        order = [hr_bands.index(b) if b in hr_bands else 0 for b in bands]
        lr[:, 1:91, 1:90] = hr[order, :, 1:179].reshape(-1, 90, 2, 89, 2).mean((2, 4))
        low = Affine(20, 0, 500_000, 0, -20, 4_200_020)
        high = Affine(10, 0, 500_010, 0, -10, 4_200_000)
        return (
            raster(folder / "lr.tif", lr, low, bands=bands),
            raster(folder / "hr.tif", hr, high, bands=hr_bands),
            lr,
            hr,
        )

    return make
