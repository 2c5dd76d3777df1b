"""Two georeferenced rasters of two sensors in, a set of aligned pairs out.

The set is a folder: `lr/ID.tif` and `hr/ID.tif` (float32 values, georeferenced), `manifest.parquet`
(one row per tile, those left out too), `dataset.json` (what was made of what, how) and
`preview.png`. It appears whole or not at all.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from lpips_sat.grid import Grid
from lpips_sat.outputs import StrPath, whole_folder
from lpips_sat.pair import Image, PairMask
from lpips_sat.radiometry import RadiometryOptions, check_range
from lpips_sat.raster import write_raster
from lpips_sat.registration import MIN_SIZE, estimate_shift
from lpips_sat.warp import open_image, open_mask

from .errors import PairError
from .grids import common_grid, gsd, nested
from .preview import write_preview
from .tiles import TEST_UNTEXTURED, Layout, Place, assign_blocks

MANIFEST = "manifest.parquet"
DATASET = "dataset.json"
PREVIEW = "preview.png"
COLUMNS = (
    "id",  # r00128_c00000: its first row and column
    "split",  # train, val, test, test_untextured; empty = left out
    "left_out",  # why: invalid (nodata, clouds) or untextured
    "block",  # the tiles that are split together, and resampled together in a bootstrap
    *("row", "col"),  # in HR pixels of the common grid
    *("left", "bottom", "right", "top", "crs"),  # bounds in units of the CRS
    "valid",  # share of pixels valid in both images and the mask; 1 in every split
    "texture",  # see `texture`; NaN where the tile is not wholly valid, as what follows
    *("shift_y", "shift_x"),  # of LR against HR, in LR pixels
    "reliability",  # of the shift, in [0, 1]
    *("lr", "hr"),  # files, relative to the set
)


@dataclass(frozen=True)
class Source:
    """A raster, what its numbers mean, and its bands to use in this order (None: those of both)."""

    path: StrPath
    radiometry: RadiometryOptions = field(default_factory=RadiometryOptions)
    bands: Sequence[str] | None = None

    @property
    def name(self) -> str:
        """Name the file without its folders."""
        return Path(self.path).name


@dataclass(frozen=True)
class _Scene:
    """Both images on their common grid, open for reading."""

    lr: Image
    hr: Image
    mask: PairMask | None
    factor: int


def build_pairs(
    lr: Source,
    hr: Source,
    out: StrPath,
    *,
    mask: StrPath | None = None,
    layout: Layout | None = None,
    sun_zenith: float | None = None,
    note: str = "",
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Cut two rasters of the same place into pairs; return what `dataset.json` says.

    The LR raster is never resampled. The HR raster is read on the LR grid divided by the whole
    factor next to LR GSD / HR GSD: as it stands where it lies so, else warped.

    Args:
        lr: the coarser raster.
        hr: the finer one; bands are paired by name, or by position where both name theirs.
        out: folder to make.
        mask: a raster of any grid, 0 = leave the pixel out (clouds); None = all count.
        layout: tiles, blocks, margin and split.
        sun_zenith: in degrees, recorded for the noise of synthetic LR images.
        note: licence or attribution, recorded.
        overwrite: replace an earlier set.
        progress: called with the tiles done and their number.

    Raises:
        PairError: no CRS, no overlap, LR not coarser than HR, too few valid tiles.
        RadiometryError: units or band names that are missing or contradict each other.
    """
    layout = layout or Layout()
    lr_bands, hr_bands = _paired_bands(lr, hr)
    with ExitStack() as stack:
        low = stack.enter_context(open_image(lr.path, radiometry=lr.radiometry, bands=lr_bands))
        native = stack.enter_context(open_image(hr.path, radiometry=hr.radiometry, bands=hr_bands))
        _check_kinds(low, native)
        grid, factor = common_grid(low.grid, native.grid, names=(lr.name, hr.name))
        layout.check(factor, least=MIN_SIZE)
        fine = grid.refine(factor)
        scene = _Scene(
            low,
            stack.enter_context(
                open_image(hr.path, radiometry=hr.radiometry, bands=hr_bands, like=fine)
            ),
            None if mask is None else stack.enter_context(open_mask(mask, like=fine)),
            factor,
        )
        folder = stack.enter_context(whole_folder(out, overwrite=overwrite, mark=DATASET))
        table = _cut(scene, grid, folder, layout, progress)
        split_tiles(table, layout)
        _forget_unused(folder, table)
        table.to_parquet(folder / MANIFEST, index=False)
        resampled = not nested(native.grid, fine)
        about = _describe(lr, hr, scene, native.grid, resampled, layout, table)
        about |= {"sun_zenith": sun_zenith, "mask": mask and Path(mask).name, "note": note}
        (folder / DATASET).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        write_preview(folder / PREVIEW, folder, table, about)
    return about


def split_tiles(table: pd.DataFrame, layout: Layout) -> None:
    """Fill in `split` and `left_out` of a manifest from its validity, texture and blocks."""
    if not (table["valid"] == 1).any():
        best = f"; the best has {table['valid'].max():.1%}" if len(table) else ""
        raise PairError(
            f"none of {len(table)} tiles of {layout.tile} px is valid in both images and the mask "
            f"(nodata, clouds){best}: take smaller tiles (--tile) or another scene"
        )
    usable = table["valid"] == 1
    textured = usable & (table["texture"] >= layout.min_texture)
    per_block = textured.groupby(table["block"]).sum()
    counts = {str(block): int(count) for block, count in per_block.items()}
    split_of = table["block"].map(assign_blocks(counts, layout))
    table["split"] = split_of.where(textured, "")
    table.loc[usable & ~textured & (split_of == "test"), "split"] = TEST_UNTEXTURED
    table["left_out"] = np.where(
        table["split"] != "", "", np.where(usable, "untextured", "invalid")
    )


def texture(hr: npt.NDArray[np.floating[Any]], factor: int) -> float:
    """RMS of the detail of (C, H, W) finer than factor x factor pixels, over all bands."""
    mean = _box(hr, factor)
    return float(np.sqrt(np.mean((hr - mean.repeat(factor, 1).repeat(factor, 2)) ** 2)))


def _cut(
    scene: _Scene,
    grid: Grid,
    folder: Path,
    layout: Layout,
    progress: Callable[[int, int], None],
) -> pd.DataFrame:
    """Write every valid tile; return one row per tile without its split."""
    f = scene.factor
    places = layout.places(grid.height * f, grid.width * f)
    for name in ("lr", "hr"):
        (folder / name).mkdir()
    rows = []
    for done, place in enumerate(places, start=1):
        rows.append(_cut_tile(scene, grid, folder, layout.tile, place))
        progress(done, len(places))
    return pd.DataFrame(rows, columns=[*COLUMNS])


def _cut_tile(scene: _Scene, grid: Grid, folder: Path, tile: int, place: Place) -> dict[str, Any]:
    """Write one tile if it is wholly valid; return its row of the manifest."""
    f = scene.factor
    size = tile // f
    part = grid.window(place.row // f, place.col // f, size, size)
    row, col = (round(v) for v in scene.lr.grid.locate(part))
    lr, lr_valid = scene.lr.read((row, col, size, size))
    window = (place.row, place.col, tile, tile)
    hr, valid = scene.hr.read(window)
    valid &= lr_valid.repeat(f, 0).repeat(f, 1)
    if scene.mask is not None:
        valid &= scene.mask.read(window)
    record = dict.fromkeys(COLUMNS, math.nan) | _where(place, part)
    record["valid"] = float(valid.mean())
    if not valid.all():
        return record
    for name, values, image in (("lr", lr, scene.lr), ("hr", hr, scene.hr)):
        check_range(values, np.ones(values.shape[1:], bool), image.radiometry, source=image.path)
        record[name] = f"{name}/{place.id}.tif"
        here = part if name == "lr" else part.refine(f)
        _write_tile(folder / record[name], values, here, image.radiometry.bands)
    shift = estimate_shift(*(torch.from_numpy(x)[None] for x in (lr, _box(hr, f))))
    record |= {"texture": texture(hr, f), "reliability": shift.reliability}
    return record | {"shift_y": shift.dy, "shift_x": shift.dx}


def _where(place: Place, part: Grid) -> dict[str, Any]:
    """What is known of a tile before any pixel is read; `part`: its place in the LR grid."""
    xs, ys = zip(*part.corners(), strict=True)
    bounds = {"left": min(xs), "right": max(xs), "bottom": min(ys), "top": max(ys)}
    empty = dict.fromkeys(("split", "left_out", "lr", "hr"), "")
    named = {"id": place.id, "block": place.block, "row": place.row, "col": place.col}
    return named | bounds | empty | {"crs": part.crs.to_string()}


def _write_tile(path: Path, values: npt.NDArray[Any], grid: Grid, bands: Sequence[str]) -> None:
    known: dict[str, Any] = {"scale": 1.0, "offset": 0.0, "nodata": math.nan, "tags": {}}
    write_raster(path, values.astype(np.float32), grid, bands=bands, description="", **known)


def _forget_unused(folder: Path, table: pd.DataFrame) -> None:
    """Delete the files of tiles that no split holds."""
    unused = (table["split"] == "") & (table["lr"] != "")
    for name in ("lr", "hr"):
        for file in table.loc[unused, name]:
            (folder / file).unlink()
        table.loc[unused, name] = ""


def _describe(
    lr: Source,
    hr: Source,
    scene: _Scene,
    native: Grid,
    resampled: bool,
    layout: Layout,
    table: pd.DataFrame,
) -> dict[str, Any]:
    def side(source: Source, image: Image) -> dict[str, Any]:
        radiometry = image.radiometry
        about = {"file": source.name, "bands": list(radiometry.bands), "gsd": gsd(image.grid)}
        return about | {"radiometry": radiometry.describe()}

    usable = table[table["split"] != ""]
    shift = pd.Series(np.hypot(usable["shift_x"], usable["shift_y"]))
    return {
        "factor": scene.factor,
        "kind": scene.hr.radiometry.kind,
        "crs": scene.lr.grid.crs.to_string(),
        "lr": side(lr, scene.lr),
        "hr": side(hr, scene.hr) | {"native_gsd": gsd(native), "resampled": resampled},
        "layout": asdict(layout) | {"shares": list(layout.shares)},
        "tiles": dict(Counter(usable["split"])),
        "left_out": dict(Counter(v for v in table["left_out"] if v)),
        "median_shift_lr_px": round(float(shift.median()), 3),
        "versions": {name: version(name) for name in ("lpips-sat", "numpy", "rasterio")},
    }


def _paired_bands(lr: Source, hr: Source) -> tuple[Sequence[str] | None, Sequence[str] | None]:
    """Settle which bands to read; where a side names none, those that both have, as in HR."""
    if lr.bands is not None and hr.bands is not None:
        if len(lr.bands) != len(hr.bands):
            raise PairError(
                f"{len(lr.bands)} LR bands ({','.join(lr.bands)}) for {len(hr.bands)} HR bands "
                f"({','.join(hr.bands)}): they are paired by position, name as many of each"
            )
        return lr.bands, hr.bands
    wanted = lr.bands if hr.bands is None else hr.bands
    if wanted is not None:
        return wanted, wanted
    with (
        open_image(lr.path, radiometry=lr.radiometry) as low,
        open_image(hr.path, radiometry=hr.radiometry) as high,
    ):
        shared = [b for b in high.radiometry.bands if b in low.radiometry.bands]
        if not shared:
            raise PairError(
                f"no band in common: {lr.name} has {','.join(low.radiometry.bands)}, {hr.name} "
                f"has {','.join(high.radiometry.bands)}; pair them with --bands (LR) and --hr-bands"
            )
        return shared, shared


def _check_kinds(lr: Image, hr: Image) -> None:
    if lr.radiometry.kind != hr.radiometry.kind:
        raise PairError(
            f"{lr.path} holds {lr.radiometry.kind} values, {hr.path} {hr.radiometry.kind} values: "
            "expected the same kind; say what they are with --radiometry and --hr-radiometry"
        )


def _box(image: npt.NDArray[Any], factor: int) -> npt.NDArray[Any]:
    """Mean of (C, H, W) over factor x factor pixels."""
    bands, height, width = image.shape
    return image.reshape(bands, height // factor, factor, width // factor, factor).mean((2, 4))
