"""A set of pairs on disk: how a tile is measured and written, and how a set is finished.

The set is a folder: `lr/ID.tif` and `hr/ID.tif` (float32 values, georeferenced), `manifest.parquet`
(one row per tile, those left out too), `dataset.json` (what was made of what, how) and
`preview.png`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from lpips_sat.grid import Grid
from lpips_sat.raster import write_raster
from lpips_sat.registration import estimate_shift

from .errors import PairError
from .preview import write_preview
from .tiles import TEST_UNTEXTURED, Layout, Place, assign_blocks

MANIFEST = "manifest.parquet"
DATASET = "dataset.json"
PREVIEW = "preview.png"
COLUMNS = (
    "id",  # r00128_c00000: its first row and column; of a public set: the image's own name
    "split",  # train, val, test, test_untextured; empty = left out
    "left_out",  # why: invalid (nodata, clouds) or untextured
    "block",  # the tiles that are split together, and resampled together in a bootstrap
    *("row", "col"),  # in HR pixels of the common grid; of a public set: of its own image
    *("left", "bottom", "right", "top", "crs"),  # bounds in units of the CRS
    "valid",  # share of pixels valid in both images and the mask; 1 in every split
    "texture",  # see `texture`; NaN where the tile is not wholly valid, as what follows
    *("shift_y", "shift_x"),  # of LR against HR, in LR pixels
    "reliability",  # of the shift, in [0, 1]
    *("lr_date", "hr_date"),  # ISO 8601; empty = not known
    *("lr_view", "hr_view"),  # zenith angle of the view in degrees; NaN = not known
    *("lr", "hr"),  # files, relative to the set
)

Array = npt.NDArray[np.floating[Any]]


def start_set(folder: Path) -> None:
    """Make the folders of the images of a set."""
    for name in ("lr", "hr"):
        (folder / name).mkdir()


def record_of(place: Place, part: Grid, valid: float, **known: Any) -> dict[str, Any]:
    """What is known of a tile without its values; `part`: its place in the LR grid."""
    xs, ys = zip(*part.corners(), strict=True)
    bounds = {"left": min(xs), "right": max(xs), "bottom": min(ys), "top": max(ys)}
    texts = ("split", "left_out", "lr_date", "hr_date", "lr", "hr")
    empty = dict.fromkeys(COLUMNS, math.nan) | dict.fromkeys(texts, "")
    named = {"id": place.id, "block": place.block, "row": place.row, "col": place.col}
    crs = "" if part.crs is None else part.crs.to_string()
    return empty | named | bounds | {"crs": crs, "valid": valid} | known


def write_tile(
    folder: Path,
    record: Mapping[str, Any],
    part: Grid,
    lr: Array,
    hr: Array,
    *,
    bands: tuple[Sequence[str], Sequence[str]],
) -> dict[str, Any]:
    """Write a tile, LR (C, h, w) and HR (C, h f, w f), and return its record with its measures."""
    factor = hr.shape[1] // lr.shape[1]
    files = {side: f"{side}/{record['id']}.tif" for side in ("lr", "hr")}
    known: dict[str, Any] = {"scale": 1.0, "offset": 0.0, "nodata": math.nan, "tags": {}}
    for side, values, grid, names in zip(
        files, (lr, hr), (part, part.refine(factor)), bands, strict=True
    ):
        path = folder / files[side]
        write_raster(path, values.astype(np.float32), grid, bands=names, description="", **known)
    shift = estimate_shift(*(torch.from_numpy(x)[None] for x in (lr, box_mean(hr, factor))))
    measured = {"texture": texture(hr, factor), "reliability": shift.reliability}
    return {**record, **files, **measured, "shift_y": shift.dy, "shift_x": shift.dx}


def split_tiles(
    table: pd.DataFrame, layout: Layout, published: Mapping[str, str] | None = None
) -> None:
    """Fill in `split` and `left_out` of a manifest from its validity, texture and blocks.

    published: the split of every block, where it is not to be drawn.
    """
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
    split_of = table["block"].map(published or assign_blocks(counts, layout))
    table["split"] = split_of.where(textured, "")
    table.loc[usable & ~textured & (split_of == "test"), "split"] = TEST_UNTEXTURED
    table["left_out"] = np.where(
        table["split"] != "", "", np.where(usable, "untextured", "invalid")
    )


def finish_set(folder: Path, table: pd.DataFrame, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write manifest, description and preview of split tiles; return what `dataset.json` says."""
    _forget_unused(folder, table)
    table.to_parquet(folder / MANIFEST, index=False)
    usable = table[table["split"] != ""]
    shift = pd.Series(np.hypot(usable["shift_x"], usable["shift_y"]))
    whole = {
        **about,
        "tiles": dict(Counter(usable["split"])),
        "left_out": dict(Counter(v for v in table["left_out"] if v)),
        "median_shift_lr_px": round(float(shift.median()), 3),
        "versions": {name: version(name) for name in ("lpips-sat", "numpy", "rasterio")},
    }
    (folder / DATASET).write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    write_preview(folder / PREVIEW, folder, table, whole)
    return whole


def texture(hr: Array, factor: int) -> float:
    """RMS of the detail of (C, H, W) finer than factor x factor pixels, over all bands."""
    mean = box_mean(hr, factor)
    return float(np.sqrt(np.mean((hr - mean.repeat(factor, 1).repeat(factor, 2)) ** 2)))


def box_mean(image: Array, factor: int) -> Array:
    """Mean of (C, H, W) over factor x factor pixels: (C, H / factor, W / factor)."""
    bands, height, width = image.shape
    blocks = image.reshape(bands, height // factor, factor, width // factor, factor)
    mean: Array = blocks.mean((2, 4))
    return mean


def _forget_unused(folder: Path, table: pd.DataFrame) -> None:
    """Delete the files of tiles that no split holds."""
    unused = (table["split"] == "") & (table["lr"] != "")
    for name in ("lr", "hr"):
        for file in table.loc[unused, name]:
            (folder / file).unlink()
        table.loc[unused, name] = ""
