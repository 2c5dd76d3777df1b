"""Grids: what differs, by how much, and what to do."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from lpips_sat.errors import (
    GridMismatchError,
)
from lpips_sat.raster import (
    Grid,
    check_same_grid,
    grid_of,
    read_on,
)

from .conftest import HEIGHT, UTM17, UTM18, WIDTH, grid, numbers, put

# --- grids


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (grid(), None),
        (grid(x=435730.0 + 0.009), None),  # 0.0009 px
        (grid(x=435730.0 + 0.011), r"origin \(off by 0.0011 px in x, 0 px in y\)"),
        (grid(y=4179460.0 - 5), r"origin \(off by 0 px in x, 0.5 px in y\)"),
        (grid(crs=UTM17), r"CRS \(EPSG:32618 / EPSG:32617\)"),
        (grid(crs=None), r"CRS \(EPSG:32618 / no CRS\)"),
        (grid(step=20.0), r"resolution \(10 x -10 / 20 x -20\)"),
        (grid(step=10.0 + 1e-4), None),  # 8e-4 px over 83 px
        (grid(step=10.0 + 2e-4), "resolution"),  # 1.7e-3 px over 83 px
        (grid(size=(HEIGHT, WIDTH + 1)), r"size \(83 x 61 / 84 x 61 px\)"),
        (grid(x=435730.0 + 10 * WIDTH), "do not overlap"),
        (grid(y=4179460.0 + 10 * HEIGHT), "do not overlap"),
    ],
)
def test_a_difference_names_the_property_beyond_a_thousandth_of_a_pixel(
    other: Grid, expected: str | None
) -> None:
    found = grid().difference(other)
    assert found is None if expected is None else re.search(expected, found or "None")


def test_a_rotated_grid_differs_in_resolution() -> None:
    turned = Grid(UTM18, grid().transform @ Affine.rotation(0.1), WIDTH, HEIGHT)
    assert "resolution" in (grid().difference(turned) or "")
    assert turned.difference(turned) is None
    assert "rotated" in str(turned)


def test_plain_images_need_only_the_same_size() -> None:
    bare = Grid(None, Affine.identity(), WIDTH, HEIGHT)
    assert bare.difference(bare) is None
    assert bare.difference(grid(crs=None)) is None  # one has a world file
    assert "size" in (bare.difference(Grid(None, Affine.identity(), 5, HEIGHT)) or "")
    assert "origin" in (grid(crs=None).difference(grid(x=435735.0, crs=None)) or "")


@pytest.mark.parametrize(
    ("pred", "advice"),
    [
        (grid(crs=UTM17), "Pass --reproject cubic to resample the prediction"),
        (grid(x=0.0), "different places"),
        (Grid(None, Affine.identity(), WIDTH, HEIGHT), "rio edit-info p.tif --like r.tif"),
        (grid(crs=None), "rio edit-info p.tif --crs"),
    ],
)
def test_a_grid_mismatch_prints_both_grids_and_the_way_out(pred: Grid, advice: str) -> None:
    with pytest.raises(GridMismatchError) as caught:
        check_same_grid(pred, grid(), pred_name="p.tif", ref_name="r.tif")
    text = str(caught.value)
    assert f"p.tif: {pred}" in text
    assert "r.tif: EPSG:32618, origin (435730, 4179460), pixel 10 x -10, 83 x 61 px" in text
    assert advice in text


def test_advice_can_be_pasted_into_a_shell() -> None:
    with pytest.raises(GridMismatchError, match=r"rio edit-info 'my pred.tif' --crs EPSG:CODE"):
        check_same_grid(grid(crs=None), grid(), pred_name="my pred.tif")
    bare = Grid(None, Affine.identity(), WIDTH, HEIGHT)
    with pytest.raises(GridMismatchError, match=r"edit-info 'a b.tif' --like 'r f.tif' --crs"):
        check_same_grid(bare, grid(), pred_name="a b.tif", ref_name="r f.tif")


def test_a_mask_is_not_what_reproject_resamples() -> None:
    with pytest.raises(GridMismatchError) as caught:
        check_same_grid(grid(step=20.0), grid(), pred_name="m 1.tif", ref_name="r.tif", mask=True)
    assert "rio warp 'm 1.tif' mask.tif --like r.tif --resampling nearest" in str(caught.value)
    assert "--reproject" not in str(caught.value)


def test_refining_and_cutting_keep_the_corner_where_it_is() -> None:
    fine = grid().refine(2)
    assert (fine.transform.a, fine.transform.e) == (5.0, -5.0)
    assert (fine.transform.c, fine.transform.f) == (435730.0, 4179460.0)
    assert (fine.width, fine.height) == (166, 122)
    part = grid().window(2, 3, 5, 7)
    assert (part.transform.c, part.transform.f) == (435760.0, 4179440.0)
    assert (part.height, part.width) == (5, 7)
    assert grid().locate(part) == (2.0, 3.0)


# --- reading on a grid


def test_a_window_is_read_where_it_lies(tmp_path: Path) -> None:
    path = put(tmp_path / "a.tif", numbers())
    assert grid_of(path) == grid()
    part = grid().window(7, 11, 20, 30)
    np.testing.assert_array_equal(read_on(path, part), numbers()[:, 7:27, 11:41])


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (grid(x=435735.0, size=(9, 9)), "origin"),
        (grid(step=5.0, size=(9, 9)), "resolution"),
        (grid(crs=UTM17, size=(9, 9)), "CRS"),
        (grid(x=435720.0, size=(9, 9)), "reaches beyond"),
        (grid(size=(HEIGHT + 1, 9)), "reaches beyond"),
    ],
)
def test_nothing_is_resampled_to_read_a_window(tmp_path: Path, wanted: Grid, text: str) -> None:
    path = put(tmp_path / "a.tif", numbers())
    with pytest.raises(GridMismatchError, match=text):
        read_on(path, wanted)
