from __future__ import annotations

import pytest
from affine import Affine

from lpips_sat.raster import Grid
from lpips_sat.warp import grid_in

from .conftest import UTM17, UTM18


@pytest.mark.parametrize("turned", [0, 45, 90])
def test_pixels_in_another_crs_are_as_large_however_the_grid_is_turned(turned):
    place = Affine(10, 0, 435730, 0, -10, 4179460) @ Affine.rotation(turned)
    found = grid_in(Grid(UTM18, place, 60, 40), UTM17)
    size = found.transform.a
    assert size == pytest.approx(10, rel=0.01)  # the scale of UTM, far from its middle
    assert found.transform[:6] == pytest.approx(
        (size, 0, found.transform.c, 0, -size, found.transform.f)
    )
