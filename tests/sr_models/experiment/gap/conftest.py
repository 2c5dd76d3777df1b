"""Sets of pairs whose real sensor is known: what a scene looks like to it, cut into tiles."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import rasterio
from affine import Affine

from sr_models.data.degradation import Physical

Array = npt.NDArray[Any]
TILE = 96  # HR px
COUNT = 6  # tiles along a side of the scene, 2 x 2 of them a block


@pytest.fixture(scope="session")
def sensor() -> Callable[..., Physical]:
    """A sensor like Sentinel-2's B8A at twice the GSD of an image like B08."""

    def make(*, mtf: float = 0.33, snr: float = 160.0, bands: int = 1) -> Physical:
        each: dict[str, Any] = {"mtf": mtf, "snr": snr, "reference": 0.2, "hr_mtf": 0.26}
        return Physical(2, **{key: (value,) * bands for key, value in each.items()}, quantum=0)

    return make


@pytest.fixture(scope="session")
def hr(textured) -> Array:
    """A scene, seamless at its borders."""
    return textured(1, COUNT * TILE, COUNT * TILE, seed=3)


@pytest.fixture(scope="session")
def moved() -> Callable[[Array, float, float], Array]:
    """Move a periodic image by a fraction of a pixel, exactly."""

    def move(image: Array, dy: float, dx: float) -> Array:
        y, x = np.fft.fftfreq(image.shape[-2])[:, None], np.fft.rfftfreq(image.shape[-1])
        turned = np.fft.rfft2(image) * np.exp(-2j * np.pi * (y * dy + x * dx))
        return np.fft.irfft2(turned, s=image.shape[-2:])

    return move


@pytest.fixture(scope="session")
def write_set() -> Callable[..., Path]:
    return _write_set


def _write_set(
    folder: Path, hr: Array, real: Callable[[Array], Array], *, bands: Sequence[str] = ("B08",)
) -> Path:
    """Cut a scene (C, 576, 576) and what the real sensor makes of it into tiles."""
    lr, rows = real(hr), []
    for name in ("lr", "hr"):
        (folder / name).mkdir(parents=True)
    for row in range(COUNT):
        for col in range(COUNT):
            tile = {"id": f"r{row}_c{col}", "block": f"{row // 2}-{col // 2}"}
            tile["split"] = "test" if row // 2 == 2 else "train" if row // 2 == 1 else "val"
            if tile["block"] == "0-0":
                tile["split"] = "train"
            for name, image, side in (("lr", lr, TILE // 2), ("hr", hr, TILE)):
                cut = image[:, row * side : (row + 1) * side, col * side : (col + 1) * side]
                tile[name] = f"{name}/{tile['id']}.tif"
                at = Affine(960 / side, 0, 960 * col, 0, -960 / side, -960 * row)
                size = {"count": len(cut), "height": side, "width": side, "dtype": "float32"}
                size |= {"crs": "EPSG:32618", "transform": at}
                with rasterio.open(folder / tile[name], "w", **size) as dst:
                    dst.descriptions = tuple(bands)
                    dst.write(cut.astype("float32"))
            rows.append(tile)
    pd.DataFrame(rows).to_parquet(folder / "manifest.parquet")
    lr_bands = ["B8A"] if len(bands) == 1 else list(bands)
    about = {
        "factor": 2,
        "kind": "reflectance",
        "lr": {"bands": lr_bands, "gsd": 20.0},
        "hr": {"bands": list(bands), "gsd": 10.0, "native_gsd": 10.0},
        "layout": {"tile": TILE},
        "sun_zenith": 45.0,
    }
    (folder / "dataset.json").write_text(json.dumps(about))
    return folder
