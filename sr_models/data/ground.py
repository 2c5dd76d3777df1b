"""Which blocks of a set share ground, in whatever CRS they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rasterio.warp import transform_bounds

BOUNDS = ["left", "bottom", "right", "top"]  # in the order of rasterio
LONLAT = "EPSG:4326"


def blocks_on_ground(table: pd.DataFrame) -> pd.DataFrame:
    """Bounds and CRS of every block (one row each, by its name) of a table of tiles."""
    return table.groupby("block", sort=False).agg(
        left=("left", "min"),
        bottom=("bottom", "min"),
        right=("right", "max"),
        top=("top", "max"),
        crs=("crs", "first"),
    )


def overlapping(blocks: pd.DataFrame) -> list[tuple[int, int]]:
    """Pairs (i < j) of blocks whose ground overlaps; those without a CRS overlap with none.

    Blocks of one CRS are compared in it, others by their boxes in degrees, which are a little
    larger than the ground.
    """
    crs = blocks["crs"].to_numpy(str)
    native = blocks[BOUNDS].to_numpy(np.float64)
    degrees = native if len(set(crs) - {""}) < 2 else _in_degrees(native, crs)
    found = []
    for i in np.flatnonzero(crs != ""):
        later = np.arange(len(blocks)) > i
        alike = crs == crs[i]
        over = np.where(alike, _overlap(native[i], native), _overlap(degrees[i], degrees))
        found += [(int(i), int(j)) for j in np.flatnonzero(over & later & (crs != ""))]
    return found


def _in_degrees(bounds: NDArray[np.float64], crs: NDArray[Any]) -> NDArray[np.float64]:
    boxes = np.full_like(bounds, np.nan)
    for i in np.flatnonzero(crs != ""):
        boxes[i] = transform_bounds(crs[i], LONLAT, *bounds[i])
    return boxes


def _overlap(one: NDArray[np.float64], all_of: NDArray[np.float64]) -> NDArray[np.bool_]:
    left, bottom, right, top = all_of.T
    over: NDArray[np.bool_] = (left < one[2]) & (right > one[0])
    return over & (bottom < one[3]) & (top > one[1])
