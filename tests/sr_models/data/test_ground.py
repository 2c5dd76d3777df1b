"""Ground is shared across CRS, the date line included."""

from __future__ import annotations

import pandas as pd
import pytest
from rasterio.warp import transform_bounds

from sr_models.data.ground import blocks_on_ground, overlapping

LOCAL = 'LOCAL_CS["site",UNIT["metre",1]]'
SIDE = 2000


def square(block, crs, left, bottom):
    return {
        "block": block,
        "crs": crs,
        "left": left,
        "bottom": bottom,
        "right": left + SIDE,
        "top": bottom + SIDE,
    }


def seen_from(crs, other, left, bottom):
    """The corner of the same ground in another zone."""
    west, south, *_ = transform_bounds(crs, other, left, bottom, left + SIDE, bottom + SIDE)
    return west, south


@pytest.mark.parametrize(
    ("crs", "other", "left"),
    [("EPSG:32632", "EPSG:32633", 716_000), ("EPSG:32660", "EPSG:32601", 833_000)],
)
def test_the_same_ground_in_two_zones_overlaps(crs, other, left):
    corner = seen_from(crs, other, left, 5_000)
    rows = [square("a", crs, left, 5_000), square("b", other, *corner)]
    far = square("c", other, corner[0], corner[1] + 50_000)
    blocks = blocks_on_ground(pd.DataFrame([*rows, far]))
    assert overlapping(blocks) == [(0, 1)]


def test_a_block_in_two_zones_is_two_places_and_no_box_around_both():
    corner = seen_from("EPSG:32632", "EPSG:32633", 716_000, 5_000_000)
    rows = [
        square("a", "EPSG:32632", 716_000, 5_000_000),
        square("a", "EPSG:32633", *corner),
        square("b", "EPSG:32632", 500_000, 5_000_000),  # between both, if they were numbers only
    ]
    assert overlapping(blocks_on_ground(pd.DataFrame(rows))) == [(0, 1)]


@pytest.mark.parametrize("crs", ["", LOCAL])
def test_what_has_no_place_on_the_earth_overlaps_with_none_elsewhere(crs):
    rows = [square("a", crs, 0, 0), square("b", "EPSG:32632", 0, 0)]
    assert overlapping(blocks_on_ground(pd.DataFrame(rows))) == []
