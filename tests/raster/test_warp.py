from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from lpips_sat.errors import GridMismatchError
from lpips_sat.raster import Grid, open_pair
from lpips_sat.warp import grid_in

from .conftest import UTM17, UTM18, grid, put


@pytest.mark.parametrize("turned", [0, 45, 90])
def test_pixels_in_another_crs_are_as_large_however_the_grid_is_turned(turned):
    place = Affine(10, 0, 435730, 0, -10, 4179460) @ Affine.rotation(turned)
    found = grid_in(Grid(UTM18, place, 60, 40), UTM17)
    size = found.transform.a
    assert size == pytest.approx(10, rel=0.01)  # the scale of UTM, far from its middle
    assert found.transform[:6] == pytest.approx(
        (size, 0, found.transform.c, 0, -size, found.transform.f)
    )


def test_an_image_of_the_whole_earth_overlaps_every_other_one(tmp_path):
    """Also one west of the middle of its UTM zone, where the bounds of the earth end."""
    earth = Grid(CRS.from_epsg(4326), Affine(1, 0, -180, 0, -1, 90), 360, 180)
    ones = np.ones((1, 180, 360), "uint16")
    pred = put(tmp_path / "earth.tif", ones, bands=("B04",), where=earth)
    ref = put(tmp_path / "ref.tif", ones[:, :40, :40], bands=("B04",))
    with open_pair(pred, ref, reproject="cubic") as pair:
        assert all(piece.valid.all() for piece in pair.tiles())


@pytest.mark.parametrize("crs", [UTM17, UTM18])
def test_images_that_do_not_overlap_are_refused_in_every_crs(tmp_path, crs):
    ones = np.ones((1, 40, 40), "uint16")
    away = grid(y=1179460.0, size=(40, 40), crs=crs)
    pred = put(tmp_path / "pred.tif", ones, bands=("B04",), where=away)
    ref = put(tmp_path / "ref.tif", ones, bands=("B04",))
    refused = pytest.raises(GridMismatchError, match=r"pred\.tif does not overlap")
    with refused, open_pair(pred, ref, reproject="cubic"):
        pass
