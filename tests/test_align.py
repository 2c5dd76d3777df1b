"""A prediction is put onto its reference on request, and a shift is told without being asked."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import rasterio
import rasterio.warp
from affine import Affine
from scipy.ndimage import fourier_shift, gaussian_filter

from lpips_sat import open_pair
from lpips_sat.align import align, pair_shift
from lpips_sat.alignment import Alignment
from lpips_sat.errors import GridMismatchError, MetricInputError
from lpips_sat.harmonize import apply_curve, fit_curve
from lpips_sat.items import Item
from lpips_sat.registration import Shift
from lpips_sat.results import read_results
from lpips_sat.sets import score_set
from lpips_sat.work import ScoreOptions

BANDS = ("B04", "B03", "B02")
TRUE = (0.7, -1.3)


def moved(image, shift=TRUE):
    """Shift by the Fourier theorem, an oracle that shares no code with `registration`."""
    return np.stack([np.fft.ifftn(fourier_shift(np.fft.fftn(b), shift)).real for b in image])


@pytest.fixture(scope="module")
def truth(textured):
    return gaussian_filter(textured(3, 192, 200, seed=3), (0, 1.2, 1.2))


@pytest.fixture(scope="module")
def clean(truth):
    """What a model might give: some noise, aligned."""
    return truth + 0.001 * np.random.default_rng(2).standard_normal(truth.shape)


@pytest.fixture
def rasters(tmp_path, put, truth):
    """Write a prediction beside the truth; return both paths."""
    folder = tmp_path / "in"
    folder.mkdir()

    def write(pred, ref=truth, name="pred", nodata=None):
        paths = []
        for file, image in ((f"{name}.tif", pred), ("ref.tif", ref)):
            values = image.astype(np.float32)
            paths.append(put(folder / file, values, bands=BANDS, nodata=nodata))
        return paths

    return write


def inner_psnr(pred, ref, edge=20):
    part = (slice(None), slice(edge, -edge), slice(edge, -edge))
    return -10 * math.log10(np.mean((pred[part] - ref[part]) ** 2))


# --- shift


def test_a_shifted_pair_is_warned_of_within_a_tenth_of_a_pixel(rasters, clean, run):
    pred, ref = rasters(moved(clean))
    result = run("score", pred, ref, "--metrics", "psnr", "--json")
    found = json.loads(result.stdout)
    assert found["alignment"]["shift"]["dy"] == pytest.approx(TRUE[0], abs=0.1)
    assert found["alignment"]["shift"]["dx"] == pytest.approx(TRUE[1], abs=0.1)
    assert found["alignment"]["shift"]["reliability"] > 0.8
    assert found["alignment"]["applied"] == {}
    assert len(found["warnings"]) == 1
    assert f"warning: {found['warnings'][0]}" in result.stderr
    assert "--register" in result.stderr


def test_register_recovers_the_psnr_of_the_unshifted_pair(rasters, clean, truth, run):
    pred, ref = rasters(moved(clean))
    args = ("score", pred, ref, "--metrics", "psnr", "--json")
    as_it_is, registered = (json.loads(run(*args, *o).stdout) for o in ((), ("--register",)))
    unshifted = inner_psnr(clean, truth)
    assert as_it_is["scores"][0]["value"] < unshifted - 10
    assert registered["scores"][0]["value"] == pytest.approx(unshifted, abs=1)
    undone = registered["alignment"]["applied"]["register"]
    assert (undone["dy"], undone["dx"]) == pytest.approx((-TRUE[0], -TRUE[1]), abs=0.1)
    assert registered["warnings"] == []
    assert registered["valid_share"] < 1  # at the border there is nothing to resample from


def test_an_aligned_pair_and_a_shift_below_half_a_pixel_are_not_warned_of(rasters, clean, run):
    for image in (clean, moved(clean, (0.3, 0.2))):
        found = json.loads(run("score", *rasters(image), "--metrics", "mae", "--json").stdout)
        assert found["warnings"] == []


@pytest.mark.parametrize(
    ("dx", "reliability", "register", "said"),
    [
        (0.400, 0.300, False, ""),  # with dy = 0.3: exactly half a pixel
        (0.401, 0.300, False, "the prediction lies"),
        (-0.401, 0.299, False, ""),
        (0.401, 0.299, True, "not registered"),
        (0.401, 0.300, True, "the prediction lies"),
    ],
)
def test_a_warning_needs_half_a_pixel_and_a_reliability_of_three_tenths(
    dx, reliability, register, said
):
    warning = Alignment(Shift(0.3, dx, reliability)).warning(register=register)
    assert warning.startswith(said)
    assert bool(warning) == bool(said)


@pytest.mark.parametrize(("reliability", "done"), [(0.299, False), (0.300, True)])
def test_a_shift_is_undone_from_a_reliability_of_three_tenths(
    reliability, done, rasters, clean, monkeypatch
):
    monkeypatch.setattr("lpips_sat.align.pair_shift", lambda pair: Shift(1.0, 0.0, reliability))
    with open_pair(*rasters(clean)) as pair:
        assert align(pair, register=True).alignment.registered is done


def test_images_that_share_nothing_are_neither_warned_of_nor_moved(rasters, textured, truth):
    other = textured(3, 192, 200, seed=77)
    with open_pair(*rasters(other)) as pair:
        found = align(pair, register=True)
        assert not found.alignment.registered
        assert "not reliable" in found.alignment.warning(register=True)
        assert found.alignment.warning(register=False) == ""
        before, after = pair.window(0, 0, 64, 64), found.window(0, 0, 64, 64)
    assert before.pred.equal(after.pred)


def test_windows_of_a_large_scene_outvote_those_that_moved_otherwise(
    tmp_path, put, textured, monkeypatch
):
    monkeypatch.setattr("lpips_sat.align.WINDOW", 96)
    side = 3 * 96
    ref = gaussian_filter(textured(1, side, side, seed=8), (0, 1, 1))
    pred = moved(ref)
    pred[:, 96:192] = moved(ref, (-2.0, 3.0))[:, 96:192]  # three of nine, the middle one too
    pred[:, -75:, -75:] = np.nan
    paths = [
        put(tmp_path / f"{name}.tif", image.astype(np.float32), bands=("B04",))
        for name, image in (("pred", pred), ("ref", ref))
    ]
    with open_pair(*paths) as pair:
        shift = pair_shift(pair)
    assert (shift.dy, shift.dx) == pytest.approx(TRUE, abs=0.1)


def test_a_band_without_detail_does_not_drown_the_others(rasters, clean, truth):
    level = np.full_like(truth[:1], 0.123)
    pred = np.concatenate([level, moved(clean)[1:]])
    with open_pair(*rasters(pred, np.concatenate([level, truth[1:]]))) as pair:
        shift = pair_shift(pair)
    assert (shift.dy, shift.dx) == pytest.approx(TRUE, abs=0.1)


def test_a_tiny_image_has_no_shift(tmp_path, put, textured):
    small = textured(3, 12, 40, seed=1).astype(np.float32)
    paths = [put(tmp_path / f"{name}.tif", small, bands=BANDS) for name in ("pred", "ref")]
    with open_pair(*paths) as pair:
        assert align(pair).alignment.shift is None


def test_a_registered_tile_is_a_part_of_the_registered_whole(rasters, clean):
    holed = moved(clean)
    holed[:, 50:60, 70:75] = np.nan
    with open_pair(*rasters(holed)) as pair:
        found = align(pair, register=True, harmonize="linear")
        whole = found.window(0, 0, 192, 200)
        for row, col in ((0, 0), (40, 60), (150, 170)):
            part = found.window(row, col, 33, 27)
            at = (..., slice(row, row + 33), slice(col, col + 27))
            assert part.valid.equal(whole.valid[at])
            assert part.pred.numpy() == pytest.approx(whole.pred[at].numpy(), abs=1e-6)
    assert not whole.valid[0, 0, 50:60, 70:75].any()


# --- reproject


def test_reproject_puts_a_prediction_onto_the_grid_of_its_reference(tmp_path, put, truth, run):
    ref = put(tmp_path / "ref.tif", truth.astype(np.float32), bands=BANDS)
    pred = tmp_path / "pred.tif"
    wide = np.pad(truth, ((0, 0), (4, 4), (4, 4)), constant_values=-1).astype(np.float32)
    wide[:, 30:34, 40:44] = -1
    with rasterio.open(ref) as src:
        place = {"crs": src.crs, "transform": src.transform @ Affine.translation(-4, -4)}
    kind = {"count": 3, "height": 200, "width": 208, "dtype": "float32", "nodata": -1}
    with rasterio.open(pred, "w", driver="GTiff", **kind, **place) as dst:
        dst.descriptions = BANDS
        dst.write(wide)
    args = ("score", pred, ref, "--metrics", "mae", "--json")
    assert run(*args).exit_code == 1  # another grid, and nothing is resampled unasked
    found = json.loads(run(*args, "--reproject", "nearest").stdout)
    assert found["scores"][0]["value"] == 0  # whole pixels of difference: the same numbers
    assert found["valid_share"] == 1 - 16 / truth[0].size
    assert found["alignment"]["applied"] == {"reproject": "nearest"}
    smooth = json.loads(run(*args, "--reproject", "cubic").stdout)
    assert smooth["scores"][0]["value"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic"])
def test_nan_is_nodata_to_reproject_whether_it_is_tagged_or_not(tmp_path, put, truth, resampling):
    ref = put(tmp_path / "ref.tif", truth.astype(np.float32), bands=BANDS)
    holed, seen = truth.astype(np.float32), []
    holed[:, 60:80, 60:80] = np.nan
    for nodata in (None, np.nan):
        pred = put(tmp_path / f"{nodata}.tif", holed, bands=BANDS, nodata=nodata)
        with rasterio.open(pred, "r+") as dst:
            dst.transform = dst.transform @ Affine.translation(0.5, 0.5)
        with open_pair(pred, ref, reproject=resampling) as pair:
            seen.append(pair.window(0, 0, 192, 200))
    assert np.array_equal(seen[0].valid, seen[1].valid)
    assert not seen[0].valid.all()
    np.testing.assert_array_equal(*(np.where(t.valid, t.pred, 0) for t in seen))


def test_reproject_crosses_coordinate_systems_and_honours_masks(tmp_path, put, truth):
    ref = put(tmp_path / "ref.tif", truth.astype(np.float32), bands=BANDS)
    pred = tmp_path / "pred.tif"
    with rasterio.open(ref) as src:
        west, south, east, north = rasterio.warp.transform_bounds(src.crs, "EPSG:4326", *src.bounds)
    place = Affine((east - west) / 400, 0, west, 0, (south - north) / 400, north)
    fine = np.zeros((3, 400, 400), np.float32)
    with rasterio.open(ref) as src:
        rasterio.warp.reproject(
            rasterio.band(src, (1, 2, 3)), fine, dst_transform=place, dst_crs="EPSG:4326",
            resampling=rasterio.enums.Resampling.cubic,
        )  # fmt: skip
    kind = {"count": 3, "height": 400, "width": 400, "dtype": "float32", "crs": "EPSG:4326"}
    mask = np.full((400, 400), 255, np.uint8)
    mask[:, :100] = 0
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(pred, "w", driver="GTiff", transform=place, **kind) as dst,
    ):
        dst.descriptions = BANDS
        dst.write(fine)
        dst.write_mask(mask)
    with open_pair(pred, ref, reproject="cubic") as pair:
        tile = pair.window(0, 0, 192, 200)
    part = (..., slice(20, -20), slice(70, -20))
    assert tile.valid[part].all()
    assert not tile.valid[..., :40].any()
    assert (tile.pred - tile.ref)[part].abs().mean() < 0.002


def test_what_has_no_place_cannot_be_reprojected(tmp_path, put, truth):
    image = truth.astype(np.float32)
    ref = put(tmp_path / "ref.tif", image, bands=BANDS)
    pred = put(tmp_path / "pred.tif", image[:, :100], bands=BANDS, crs=None)
    with (
        pytest.raises(GridMismatchError, match="need a CRS"),
        open_pair(pred, ref, reproject="cubic"),
    ):
        pass


# --- harmonize


def test_a_line_is_found_and_stated(rasters, clean, truth, run):
    scale, offset = np.array([1.5, 0.8, 2.0]), np.array([0.02, -0.01, 0.1])
    pred, ref = rasters(truth * scale[:, None, None] + offset[:, None, None])
    args = ("score", pred, ref, "--metrics", "mae", "--json", "--harmonize", "linear")
    found = json.loads(run(*args).stdout)
    assert found["scores"][0]["value"] == pytest.approx(0, abs=1e-6)
    fit = found["alignment"]["applied"]["harmonize"]
    assert fit["fit"] == "linear"
    assert fit["pixels"] == truth[0].size
    for band, a, b in zip(BANDS, scale, offset, strict=True):
        assert fit["bands"][band]["gain"] == pytest.approx(1 / a, rel=1e-4)
        assert fit["bands"][band]["offset"] == pytest.approx(-b / a, abs=1e-5)


def test_a_histogram_undoes_any_rising_curve(rasters, truth, run):
    pred, ref = rasters(truth**2)
    args = ("score", pred, ref, "--metrics", "mae", "--json")
    before, after = (
        json.loads(run(*args, *more).stdout)["scores"][0]["value"]
        for more in ((), ("--harmonize", "histogram"))
    )
    assert before > 0.05
    assert after < 5e-4


def test_invalid_pixels_do_not_move_the_fit(rasters, truth):
    spoilt = truth * 2
    spoilt[:, :50] = np.nan
    with open_pair(*rasters(spoilt)) as pair:
        found = align(pair, harmonize="linear").alignment
    assert found.pixels == truth[0, 50:].size
    assert all(curve["gain"] == pytest.approx(0.5, rel=1e-4) for curve in found.bands.values())


def test_curves_hold_at_their_ends_and_refuse_what_does_not_rise():
    x = np.array([0.0, 1, 2, 2, 3])
    curve = fit_curve(x, 10 + x, "histogram")
    assert apply_curve(curve, np.array([-5.0, 9])).tolist() == [10, 13]
    assert fit_curve(np.ones(4), np.array([1.0, 2, 3, 4]), "linear") == {"gain": 1, "offset": 1.5}
    with pytest.raises(MetricInputError, match="does not rise"):
        fit_curve(x, -x, "linear")
    with pytest.raises(MetricInputError, match="too few"):
        fit_curve(x[:1], x[:1], "linear")


# --- sets


def test_rows_carry_shift_warning_and_what_was_done(rasters, clean, tmp_path):
    pred, ref = (str(p) for p in rasters(moved(clean)))
    item = Item("a", pred, ref, "a")
    plain = score_set([item], ScoreOptions(metrics=("psnr",)))
    row = plain.table.iloc[0]
    assert (row["shift_dy"], row["shift_dx"]) == pytest.approx(TRUE, abs=0.1)
    assert "--register" in row["warning"]
    assert row["alignment"] == ""
    asked = ScoreOptions(metrics=("psnr",), register=True, harmonize="linear")
    done = score_set([item], asked, tmp_path / "out.csv")
    row = read_results(tmp_path / "out.csv").table.iloc[0]
    assert row["warning"] == ""
    assert row["PSNR"] > plain.table.iloc[0]["PSNR"] + 10
    said = json.loads(row["alignment"])
    assert list(said) == ["register", "harmonize"]
    assert said["harmonize"]["bands"].keys() == set(BANDS)
    assert done.provenance["options"]["register"] is True


def test_the_parts_of_a_scene_share_one_alignment(rasters, clean, monkeypatch):
    item = Item("a", *map(str, rasters(moved(clean))), scene="a")
    asked = ScoreOptions(metrics=("mae",), register=True, harmonize="histogram", tile=64)
    whole = score_set([item], asked).table.iloc[0]
    monkeypatch.setattr("lpips_sat.work.PART_PIXELS", 1)
    calls = []
    monkeypatch.setattr(
        "lpips_sat.align.pair_shift", lambda pair: calls.append(1) or pair_shift(pair)
    )
    parts = score_set([item], asked).table.iloc[0]
    assert calls == [1]
    assert parts["MAE"] == pytest.approx(whole["MAE"], rel=1e-12)


def test_the_warning_of_a_set_goes_to_stderr(rasters, clean, tmp_path, run):
    pred, ref = rasters(moved(clean))
    result = run("score", pred, ref, "--metrics", "mae", "--out", tmp_path / "o.parquet")
    assert "warning: ref: the prediction lies +0.7" in result.stderr


def test_what_an_alignment_says_can_be_read_back():
    known = Alignment(Shift(0.7, -1.3, 0.9), True, "cubic", "linear", {"B04": {"gain": 2.0}}, 9)
    assert Alignment.from_json(json.loads(json.dumps(known.describe()))) == known
    assert Alignment.from_json(Alignment().describe()) == Alignment()


def test_options_survive_json():
    options = ScoreOptions(metrics=("mae",), weights=(("dists", "x"),), register=True)
    plain = json.loads(json.dumps({**vars(options), "radiometry": vars(options.radiometry)}))
    assert ScoreOptions.from_json(plain) == options
