"""How the grids of two sensors fit: what they share, and by which factor one is finer."""

from __future__ import annotations

import math
import shlex

from rasterio.errors import CRSError
from rasterio.warp import transform

from lpips_sat.grid import Grid
from lpips_sat.warp import grid_in

from .errors import PairError

# Parts of an LR pixel by which the HR image may begin too late: rounded coordinates.
TOLERANCE_PX = 1e-3


def common_grid(lr: Grid, hr: Grid, *, names: tuple[str, str] = ("LR", "HR")) -> tuple[Grid, int]:
    """Find the LR pixels that the HR image covers wholly, and the factor LR GSD / HR GSD.

    Raises:
        PairError: no CRS, an LR image in degrees or not coarser, or no overlap.
    """
    for grid, name in zip((lr, hr), names, strict=True):
        if grid.crs is None:
            raise PairError(
                f"{name} has no CRS: expected a georeferenced raster; set the one it was made in, "
                f"rio edit-info {name} --crs EPSG:CODE"
            )
    if metres(lr) is None:
        raise PairError(
            f"{names[0]} is in {lr.crs.to_string()}, which is not in metres: expected a projected "
            f"CRS, since pixel sizes and split are in metres on the ground; warp it: rio warp "
            f"{shlex.quote(names[0])} projected.tif --dst-crs {_utm(lr)} --resampling cubic"
        )
    there = grid_in(hr, lr.crs)
    factor = _factor(lr, there, names)
    columns, rows = zip(*(lr.colrow(*point) for point in there.corners()), strict=True)
    top, left = (max(0, math.ceil(min(v) - TOLERANCE_PX)) for v in (rows, columns))
    bottom = min(lr.height, math.floor(max(rows) + TOLERANCE_PX))
    right = min(lr.width, math.floor(max(columns) + TOLERANCE_PX))
    if bottom <= top or right <= left:
        raise PairError(
            f"{names[0]} and {names[1]} do not overlap: {lr}; {hr}. Expected two images of the "
            "same place"
        )
    return lr.window(top, left, bottom - top, right - left), factor


def _factor(lr: Grid, hr: Grid, names: tuple[str, str]) -> int:
    ratio = gsd(lr) / gsd(hr)
    if ratio < 1 / 1.5:
        raise PairError(
            f"{names[0]} has finer pixels ({gsd(lr):g}) than {names[1]} ({gsd(hr):g}): swap --lr "
            "and --hr"
        )
    if ratio < 1.5:
        raise PairError(
            f"{names[0]} and {names[1]} have about the same pixel size ({gsd(lr):g} and "
            f"{gsd(hr):g}): expected an LR image at least 1.5 times coarser"
        )
    return round(ratio)


def gsd(grid: Grid) -> float:
    """Side of a square as large as a pixel, in units of the CRS."""
    return round(math.sqrt(abs(grid.transform.determinant)), 9)


def metres(grid: Grid) -> float | None:
    """GSD in metres; None where the CRS is not projected, such as one in degrees."""
    try:
        _, unit = grid.crs.linear_units_factor
    except CRSError:
        return None
    return round(gsd(grid) * unit, 9)


def _utm(grid: Grid) -> str:
    """The UTM zone in which the middle of a grid lies."""
    xs, ys = zip(*grid.corners(), strict=True)
    middle = ([sum(xs) / len(xs)], [sum(ys) / len(ys)])
    (longitude,), (latitude,) = transform(grid.crs, "EPSG:4326", *middle)
    return f"EPSG:{(32600 if latitude >= 0 else 32700) + int((longitude + 180) // 6) % 60 + 1}"


def nested(hr: Grid, fine: Grid) -> bool:
    """Whether `fine` is a window of the pixels of `hr`."""
    if hr.crs != fine.crs:
        return False
    row, col = (round(v) for v in hr.locate(fine))
    return hr.window(row, col, fine.height, fine.width).difference(fine) is None
