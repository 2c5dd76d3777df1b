"""A raster through a model that only has `upscale`, tile by tile."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from lpips_sat import LpipsSatError
from sr_models import scene
from sr_models.registry import Bicubic
from sr_models.scene import upscale_scene

BANDS = ("B04", "B08")


@pytest.fixture
def image(textured):
    """Reflectance (2, 40, 56), float32."""
    return textured(2, 40, 56, seed=5).astype(np.float32)


@pytest.fixture
def source(image, put, tmp_path):
    return put(tmp_path / "lr.tif", image, bands=BANDS)


@pytest.mark.parametrize("factor", [2, 3])
def test_tiles_of_a_plain_model_are_the_image_in_one_piece(
    factor, image, source, tmp_path, monkeypatch
):
    monkeypatch.setattr(scene, "PLAIN_TILE", 24)
    upscale_scene(source, tmp_path / "sr.tif", Bicubic(), scale=factor)
    with rasterio.open(tmp_path / "sr.tif") as src:
        np.testing.assert_allclose(src.read(), Bicubic().upscale(image, factor), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "upscale",
    [
        lambda lr, scale: lr,
        lambda lr, scale: lr.repeat(scale, 1),
        lambda lr, scale: lr[0].repeat(scale, 0).repeat(scale, 1),
        lambda lr, scale: lr[:1].repeat(scale, 1).repeat(scale, 2),
    ],
    ids=["not larger", "not wider", "no bands", "one band of two"],
)
def test_a_plain_model_that_gives_another_shape_is_refused(upscale, source, tmp_path):
    class Plugin:
        pass

    Plugin.upscale = staticmethod(upscale)
    with pytest.raises(LpipsSatError, match=r"expected .* 80\D+112.*, got"):
        upscale_scene(source, tmp_path / "sr.tif", Plugin(), scale=2)
    assert not (tmp_path / "sr.tif").exists()
