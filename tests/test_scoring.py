"""What scores depend on, and what is refused."""

from __future__ import annotations

import math
from math import inf, nan

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from lpips_sat.errors import LpipsSatError, MetricInputError, RadiometryError
from lpips_sat.raster import open_pair
from lpips_sat.scoring import score_pair
from lpips_sat.suites import suite
from tests.scoring import BANDS, NAMES, score


def values(result):
    return {item.name: item.value for item in result.scores}


@pytest.fixture(scope="module")
def small(textured):
    """Reflectance (4, 80, 100) of a prediction and its reference, float32."""
    ref = textured(4, 80, 100, seed=3)
    rng = np.random.default_rng(4)
    pred = gaussian_filter(ref, (0, 1, 1)) + 0.004 * rng.standard_normal(ref.shape)
    return pred.astype(np.float32), ref.astype(np.float32)


@pytest.fixture
def files(small, put, tmp_path):
    """The small pair as float32 files that declare their bands."""
    return tuple(
        put(tmp_path / f"{name}.tif", image, bands=BANDS)
        for name, image in zip(("pred", "ref"), small, strict=True)
    )


def test_the_progress_adds_up_to_the_image(files):
    done = []
    with open_pair(*files) as pair:
        score_pair(pair, suite("spectral", bands=pair.bands), tile=64, progress=done.append)
    assert len(done) == 4
    assert sum(done) == 80 * 100


# --- what the scores may depend on


def test_identical_rasters_score_perfectly(files):
    got = values(score(files[1], files[1], tile=64))
    assert (got["LPIPS-Sat"], got["MAE"], got["RMSE"], got["ERGAS"]) == (0, 0, 0, 0)
    assert got["PSNR"] == inf
    assert got["SSIM"] == pytest.approx(1, abs=1e-12)
    assert got["SAM"] == pytest.approx(0, abs=1e-5)


@pytest.fixture(scope="module")
def holes():
    """Pixels of the small pair that do not count: a patch, a line, a lone pixel, a corner."""
    invalid = np.zeros((80, 100), dtype=bool)
    invalid[20:40, 30:55] = invalid[50, :60] = invalid[70, 90] = invalid[:6, :6] = True
    return invalid


def with_holes(image, invalid, value):
    changed = image.copy()
    changed[:, invalid] = value
    return changed


@pytest.fixture(scope="module")
def masked_score(small, holes, put, tmp_path_factory):
    """Score the small pair under a mask, with these values in the file where the mask is 0."""
    folder = tmp_path_factory.mktemp("masked")
    mask = put(folder / "mask.tif", (~holes)[None].astype(np.uint8))

    def measure(in_pred, in_ref):
        pair = [
            put(folder / name, with_holes(image, holes, value), bands=BANDS)
            for name, image, value in zip(("p", "r"), small, (in_pred, in_ref), strict=True)
        ]
        return values(score(*pair, mask_path=mask))

    return measure


@pytest.mark.parametrize(
    ("in_pred", "in_ref"), [(nan, 0), (0, nan), (1e9, 1e9), (0, -1e9), (nan, nan), (1e9, inf)]
)
def test_what_lies_under_the_mask_changes_nothing(masked_score, in_pred, in_ref):
    base, changed = masked_score(0.1, 0.2), masked_score(in_pred, in_ref)
    assert not any(math.isnan(value) for value in base.values())
    assert changed == base


@pytest.mark.parametrize("nodata", [nan, 0.0, 1e9, -9999.0])
@pytest.mark.parametrize("sides", [("pred",), ("ref",), ("pred", "ref")])
def test_declared_nodata_is_left_out_whatever_its_value(
    masked_score, small, holes, put, tmp_path, nodata, sides
):
    pair = []
    for name, image in zip(("pred", "ref"), small, strict=True):
        shown = with_holes(image, holes, nodata) if name in sides else image
        declared = nodata if name in sides else None
        pair.append(put(tmp_path / name, shown, bands=BANDS, nodata=declared))
    assert values(score(*pair)) == masked_score(0.1, 0.2)


def test_the_mask_matters(files, masked_score):
    assert all(value != masked_score(0, 0)[name] for name, value in values(score(*files)).items())


def test_dn_with_a_scale_score_as_reflectance(small, files, put, tmp_path):
    scale, offset = 1e-4, -0.1
    pair, reflectance = [], []
    for name, image in zip(("p", "r"), small, strict=True):
        dn = np.rint((image - offset) / scale).astype(np.uint16)
        pair.append(put(tmp_path / f"{name}_dn", dn, bands=BANDS, scale=scale, offset=offset))
        same = (dn * scale + offset).astype(np.float32)
        reflectance.append(put(tmp_path / f"{name}_float", same, bands=BANDS))
    in_dn, in_units = score(*pair), score(*reflectance)
    assert in_dn.kind == in_units.kind == "reflectance"
    for name in NAMES:
        assert in_dn[name] == pytest.approx(in_units[name], abs=1e-6, rel=1e-6)
    mixed = score(pair[0], reflectance[1])
    assert values(mixed) == pytest.approx(values(in_units), abs=1e-6, rel=1e-6)


def test_one_band_is_scored_without_an_angle(textured, put, tmp_path):
    ref = textured(1, 64, 64).astype(np.float32)
    pair = [put(tmp_path / n, ref + e, bands=("B08",)) for n, e in (("p", 0.01), ("r", 0))]
    result = score(*pair)
    assert [item.name for item in result.scores] == [n for n in NAMES if n != "SAM"]
    assert result["MAE"] == pytest.approx(0.01, rel=1e-5)
    assert result.settings["composite"] == ["B08"] * 3


def test_windows_that_never_fit_leave_ssim_undefined_and_the_rest_defined(files, put, tmp_path):
    mask = np.zeros((1, 80, 100), dtype=np.uint8)
    mask[0, ::8] = 1  # lines of one pixel
    result = score(*files, mask_path=put(tmp_path / "mask.tif", mask))
    assert math.isnan(result["SSIM"])
    assert all(math.isfinite(result[name]) for name in NAMES if name != "SSIM")
    assert result.valid_share == 1 / 8


# --- what is refused


def test_a_map_without_lpips_sat_is_refused(files, tmp_path):
    with pytest.raises(MetricInputError, match="add lpips-sat"):
        score(*files, metrics=["mae"], map_path=tmp_path / "map.tif")
    assert not (tmp_path / "map.tif").exists()


def test_rasters_without_a_common_valid_pixel_are_refused(small, put, tmp_path):
    pred, ref = (image.copy() for image in small)
    pred[:, :40] = ref[:, 40:] = 0
    pair = [put(tmp_path / n, i, bands=BANDS, nodata=0) for n, i in (("p", pred), ("r", ref))]
    with pytest.raises(LpipsSatError, match="no pixel is valid in both images"):
        score(*pair)


@pytest.mark.parametrize(("side", "metric", "needed"), [(31, "lpips-sat", 32), (10, "ssim", 11)])
def test_images_that_are_too_small_are_refused_with_the_size_needed(
    small, put, tmp_path, side, metric, needed
):
    pair = [
        put(tmp_path / n, i[:, :side, :50], bands=BANDS)
        for n, i in zip(("p", "r"), small, strict=True)
    ]
    with pytest.raises(
        MetricInputError, match=rf"at least {needed} x {needed} px, got 50 x {side}"
    ):
        score(*pair, metrics=[metric])
    assert score(*pair, metrics=["mae", "rmse", "psnr", "sam", "ergas"])["MAE"] > 0


@pytest.mark.parametrize("which", ["prediction", "reference"])
def test_dn_taken_as_reflectance_are_refused_with_what_to_pass(small, files, put, tmp_path, which):
    side = ("prediction", "reference").index(which)
    dn = put(tmp_path / "dn.tif", np.rint(small[side] * 1e4).astype(np.float32), bands=BANDS)
    pair = (dn, files[1]) if side == 0 else (files[0], dn)
    with pytest.raises(RadiometryError, match=rf"the {which}.*--radiometry .*--scale"):
        score(*pair)
