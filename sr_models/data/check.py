"""Is a set of pairs whole, aligned and free of leaks between its splits?"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lpips_sat import LpipsSatError
from lpips_sat.outputs import StrPath
from lpips_sat.radiometry import check_range
from lpips_sat.warp import open_image

from .ground import BOUNDS, blocks_on_ground, overlap, overlapping
from .measures import MIN_RELIABILITY
from .pairs import read_about, read_manifest
from .tiles import TEST_UNTEXTURED, Place, gap

# Shift of a tile, in LR pixels, above which it is listed: half of one is the usual mistake of a
# grid.
MAX_SHIFT_PX = 0.5
# Parts of a tile's side by which bounds may overlap that touch: rounded coordinates.
SLACK = 1e-6
INWARDS = np.array([1, 1, -1, -1])  # of the four bounds


def check_pairs(root: StrPath) -> dict[str, Any]:
    """Read every tile of a set; return a summary with its `problems`, an empty list if none.

    Checked are: files that are missing or do not open; the two grids of every pair; values that
    are not finite or implausible; names given twice; blocks in two splits; tiles closer to a
    training tile than the margin, or, of a public set, on its ground. Listed as `shifted` are
    pairs whose images are over 0.5 LR px apart, with certainty.

    Raises:
        PairError: the folder is no set at all.
    """
    about, table = read_about(root), read_manifest(root)
    used = table[table["split"] != ""]
    problems = [f"{name}: named twice" for name in table["id"][table["id"].duplicated()]]
    problems += _torn(used)
    if "format" in about:
        problems += _overlaps(used)
    else:
        problems += _leaks(used, int(about["layout"]["tile"]), int(about["layout"]["margin"]))
    for tile in used.itertuples():
        try:
            problem = _pair_problem(Path(root), str(tile.lr), str(tile.hr), int(about["factor"]))
        except LpipsSatError as error:
            problem = str(error)
        if problem:
            problems.append(f"{tile.id}: {problem}")
    far = np.hypot(used["shift_x"], used["shift_y"]) > MAX_SHIFT_PX
    shifted = used.loc[far & (used["reliability"] >= MIN_RELIABILITY), "id"]
    return {
        "pairs": len(used),
        "splits": dict(Counter(used["split"])),
        "left_out": dict(Counter(v for v in table["left_out"] if v)),
        "shifted": list(shifted),
        "problems": problems,
    }


def _torn(used: pd.DataFrame) -> list[str]:
    """Name the blocks that do not belong to one split as a whole."""
    textured = used[used["split"] != TEST_UNTEXTURED]
    return [
        f"block {block}: in {' and '.join(sorted(set(splits)))}, expected one split"
        for block, splits in textured.groupby("block")["split"]
        if splits.nunique() > 1
    ]


def _overlaps(used: pd.DataFrame) -> list[str]:
    """Name the tiles of other splits that share ground with a training tile."""
    found = []
    for _, part in used[used["crs"] != ""].groupby("crs"):
        training = part[part["split"] == "train"]
        others = part[~part["split"].isin(["train", TEST_UNTEXTURED])]
        boxes = others[BOUNDS].to_numpy(np.float64)
        for name, box in zip(others["id"], boxes, strict=True):
            slack = SLACK * (box[2] - box[0])
            over = overlap(box + slack * INWARDS, training[BOUNDS].to_numpy(np.float64))
            if over.any():
                other = training["id"].iloc[int(np.argmax(over))]
                found.append(f"{name}: shares ground with the training tile {other}")
    return found + _overlaps_across(used[used["split"] != TEST_UNTEXTURED])


def _overlaps_across(used: pd.DataFrame) -> list[str]:
    """Name the blocks that share ground with one of another CRS, where one of both trains."""
    blocks = blocks_on_ground(used)
    splits = used.groupby("block")["split"].agg(set)
    found = []
    for i, j in overlapping(blocks):
        one, other = blocks["block"].iloc[[i, j]]
        both = splits[one] | splits[other]
        across = one != other and blocks["crs"].iloc[i] != blocks["crs"].iloc[j]
        if across and len(both) > 1 and "train" in both:
            found.append(f"block {one}: shares ground with block {other} in another CRS")
    return found


def _leaks(used: pd.DataFrame, tile: int, margin: int) -> list[str]:
    """Name the tiles of other splits that are too near to a training tile."""
    training = [_place(row) for row in used[used["split"] == "train"].itertuples()]
    others = used[~used["split"].isin(["train", TEST_UNTEXTURED])]
    found = []
    for row in others.itertuples():
        nearest = min((gap(_place(row), place, tile) for place in training), default=margin)
        if nearest < margin:
            found.append(f"{row.id}: {nearest} px from a training tile, expected at least {margin}")
    return found


def _place(row: Any) -> Place:
    return Place(int(row.row), int(row.col), str(row.block))


def _pair_problem(root: Path, lr: str, hr: str, factor: int) -> str | None:
    with open_image(root / lr) as low, open_image(root / hr) as high:
        difference = low.grid.refine(factor).difference(high.grid)
        if difference is not None:
            return f"LR and HR differ in {difference}"
        for image in (low, high):
            values, valid = image.read((0, 0, image.grid.height, image.grid.width))
            if not valid.all():
                return f"{image.path} has invalid pixels"
            check_range(
                values, valid, image.radiometry, source=image.path, advice="Make the set again"
            )
    return None
