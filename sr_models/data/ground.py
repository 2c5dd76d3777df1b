"""Which blocks of a set share ground, in whatever CRS they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

BOUNDS = ["left", "bottom", "right", "top"]  # in the order of rasterio
LONLAT = "EPSG:4326"
# A box may be told on either side of the date line.
TURNS = np.array([[0, 0, 0, 0], [360, 0, 360, 0], [-360, 0, -360, 0]])


def blocks_on_ground(table: pd.DataFrame) -> pd.DataFrame:
    """Bounds of every block of a table of tiles: a row per block and CRS, with these columns."""
    return table.groupby(["block", "crs"], sort=False, as_index=False).agg(
        left=("left", "min"), bottom=("bottom", "min"), right=("right", "max"), top=("top", "max")
    )


def overlapping(blocks: pd.DataFrame) -> list[tuple[int, int]]:
    """Pairs (i < j) of rows of `blocks_on_ground` whose ground overlaps.

    Those of one CRS are compared in it, others by their boxes in degrees, which are a little larger
    than the ground. Without a CRS, or with one that has no place on the earth, none overlaps.
    """
    crs = blocks["crs"].to_numpy(str)
    native = blocks[BOUNDS].to_numpy(np.float64)
    degrees = native if len(set(crs) - {""}) < 2 else _in_degrees(native, crs)
    found = []
    for i in np.flatnonzero(crs != ""):
        later = np.arange(len(blocks)) > i
        alike = crs == crs[i]
        around = [overlap(degrees[i] + turn, degrees) for turn in TURNS]
        over = np.where(alike, overlap(native[i], native), np.any(around, axis=0))
        found += [(int(i), int(j)) for j in np.flatnonzero(over & later & (crs != ""))]
    return found


def _in_degrees(bounds: NDArray[np.float64], crs: NDArray[Any]) -> NDArray[np.float64]:
    boxes = np.full_like(bounds, np.nan)
    for i in np.flatnonzero(crs != ""):
        known = CRS.from_user_input(crs[i])
        if known.is_projected or known.is_geographic:  # not local
            west, south, east, north = transform_bounds(known, LONLAT, *bounds[i])
            boxes[i] = west, south, east + 360 * (east < west), north  # over the date line
    return boxes


def overlap(one: NDArray[np.float64], all_of: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which boxes (n, 4) overlap one (4,), all with the columns `BOUNDS`; to touch is not to."""
    left, bottom, right, top = all_of.T
    over: NDArray[np.bool_] = (left < one[2]) & (right > one[0])
    return over & (bottom < one[3]) & (top > one[1])
