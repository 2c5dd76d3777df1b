"""opensr's scores on rasters: blocks, the low-resolution file, the command line."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from affine import Affine

from lpips_sat import open_pair, opensr, score_pair, suite, suites
from lpips_sat.errors import GridMismatchError, MetricInputError
from lpips_sat.functional import consistency, correctness, mtf, synthesis
from lpips_sat.metrics import OpenSR

RGB = ("B04", "B03", "B02")
NAMES = ("reflectance", "spectral", "spatial", "synthesis")
NAMES += ("improvement", "omission", "hallucination")


@pytest.fixture(scope="module")
def arrays(textured):
    """Super-resolution, truth and input, 3 bands, factor 4, as float32."""
    hr = textured(3, 256, 192)
    lr = hr.reshape(3, 64, 4, 48, 4).mean(axis=(2, 4))
    smooth = np.kron(lr, np.ones((1, 4, 4)))
    sr = 0.4 * smooth + 0.6 * hr + 0.01 * textured(3, 256, 192, seed=5)
    return tuple(x.astype(np.float32) for x in (sr, hr, lr))


@pytest.fixture
def files(put, tmp_path, arrays):
    """The three as rasters of 2.5 m and 10 m."""
    paths = [tmp_path / f"{name}.tif" for name in ("sr", "hr", "lr")]
    for path, array in zip(paths, arrays, strict=True):
        put(path, array, bands=RGB)
        regrid(path, 2.5 if path.stem != "lr" else 10.0)
    return paths


def regrid(path, gsd, *, shift=0.0):
    import rasterio

    with rasterio.open(path, "r+") as dst:
        dst.transform = Affine(gsd, 0, 435_000.0 + shift, 0, -gsd, 4_180_000.0)


def expected(sr, hr, lr, valid=None):
    sr, hr, lr = (torch.as_tensor(x)[None] for x in (sr, hr, lr))
    scores = [
        *consistency(sr, lr, valid=valid),
        synthesis(sr, hr, lr, valid=valid),
        *correctness(sr, hr, lr, valid=valid),
    ]
    return dict(zip(NAMES, (score.item() for score in scores), strict=True))


def by_name(result):
    assert result.exit_code == 0, result.stderr
    return {item["name"]: item["value"] for item in json.loads(result.stdout)["scores"]}


def test_the_command_scores_a_small_raster_as_the_functions_do(run, files, arrays):
    sr, hr, lr = files
    found = by_name(run("score", sr, hr, "--lr", lr, "--suite", "opensr", "--json"))
    wanted = {f"opensr-{name}": value for name, value in expected(*arrays).items()}
    assert found == pytest.approx(wanted, abs=1e-9)


def test_the_factor_is_known_from_the_low_resolution_file(run, files):
    sr, hr, lr = files
    with_lr = by_name(run("score", sr, hr, "--lr", lr, "--metrics", "ergas", "--json"))
    told = by_name(run("score", sr, hr, "--factor", 4, "--metrics", "ergas", "--json"))
    assert with_lr == told
    result = run("score", sr, hr, "--lr", lr, "--factor", 2)
    assert result.exit_code != 0
    assert "--factor is 2, but the image of --lr is 4 times coarser" in result.stderr


def test_without_the_low_resolution_file_they_do_not_apply(run, files):
    sr, hr, _ = files
    result = run("score", sr, hr, "--metrics", "opensr-spectral")
    assert result.exit_code == 2
    assert "opensr-spectral needs --lr" in result.stderr
    with open_pair(sr, hr) as pair, pytest.raises(MetricInputError, match="lr_path=FILE"):
        score_pair(pair, suite("opensr", bands=RGB, lr_factor=4))


def test_invalid_pixels_of_the_input_are_left_out(put, files, arrays):
    sr, hr, lr = files
    holed = arrays[2].copy()
    holed[1, 20:26, 10:17] = -9999
    put(lr, holed, bands=RGB, nodata=-9999)
    regrid(lr, 10.0)
    valid = torch.ones(1, 1, 256, 192, dtype=torch.bool)
    valid[..., 80:104, 40:68] = False
    with open_pair(sr, hr, lr_path=lr) as pair:
        result = score_pair(pair, suite("opensr", bands=RGB, lr_factor=pair.lr_factor))
    wanted = expected(*arrays, valid=valid)
    assert {name: result[f"opensr-{name}"] for name in NAMES} == pytest.approx(wanted, abs=1e-9)


def test_a_large_raster_is_the_mean_over_blocks_by_their_valid_pixels(monkeypatch, files, arrays):
    monkeypatch.setattr(opensr, "BLOCK", 128)
    mask = torch.ones(1, 1, 256, 192, dtype=torch.bool)
    blocks, weights = [], []
    for top in (0, 128):
        for left, width in ((0, 128), (128, 64)):
            fine = (slice(None), slice(top, top + 128), slice(left, left + width))
            few = (slice(None), *(slice(s.start // 4, s.stop // 4) for s in fine[1:]))
            valid = mask[(0, *fine)][None]
            blocks.append(expected(arrays[0][fine], arrays[1][fine], arrays[2][few], valid))
            weights.append(128 * width)
    sr, hr, lr = files
    with open_pair(sr, hr, lr_path=lr) as pair:
        metrics = suite("opensr", bands=RGB, lr_factor=4)
        result = score_pair(pair, metrics, tile=256)
        tiled = score_pair(pair, metrics, tile=128)
        with pytest.raises(MetricInputError, match="multiple of 128 px, got 64: pass --tile-size"):
            score_pair(pair, metrics, tile=64)
    for name in NAMES:
        mean = np.average([block[name] for block in blocks], weights=weights)
        assert result[f"opensr-{name}"] == pytest.approx(mean, abs=1e-9)
        assert tiled[f"opensr-{name}"] == pytest.approx(mean, abs=1e-9)


def test_a_score_that_a_block_does_not_have_counts_no_pixel():
    def score(sr, hr, lr, mask):
        return torch.tensor([[1.0, torch.nan]], dtype=torch.float64)

    x = torch.rand(1, 1, 64, 64)
    sums = opensr._sums(score, 2, x, x, lr=torch.rand(1, 1, 16, 16))
    assert sums.tolist() == [[64 * 64, 0, 64 * 64, 0]]


def test_a_tile_too_thin_to_score_has_no_score(files, run, tmp_path):
    sr, hr, lr = files
    out = tmp_path / "rows.csv"
    given = ("--lr", lr, "--metrics", "opensr-omission,mae", "--tiles", "--out", out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opensr, "BLOCK", 64)
        done = run("score", sr, hr, *given, "--tile-size", 192)
    assert done.exit_code == 0, done.stderr
    rows = pd.read_csv(out)
    assert rows["opensr-omission"].notna().tolist() == [True, True]
    thin = torch.zeros(1, 3, 40, 192)
    (metric,) = suites.build(["opensr-omission"], suites.Settings(RGB, lr_factor=4))
    sums = metric.sums(thin, thin, lr=thin[..., ::4, ::4])
    assert metric.from_sums(sums).isnan().all()


@pytest.mark.parametrize(
    ("factor", "side"), [(2, 768), (3, 768), (4, 768), (5, 640), (8, 768), (13, 832)]
)
def test_blocks_are_whole_low_resolution_pixels(factor, side):
    assert opensr.block_side(factor) == side


def test_networks_may_be_scored_beside_them(files):
    sr, hr, lr = files
    with open_pair(sr, hr, lr_path=lr) as pair:
        together = score_pair(pair, [*suite(bands=RGB), *suite("opensr", bands=RGB, lr_factor=4)])
        alone = score_pair(pair, suite(bands=RGB))
    assert together["LPIPS-Sat"] == alone["LPIPS-Sat"]


@pytest.mark.parametrize(
    ("gsd", "shift", "problem"),
    [(10.0, 2.5, "origin"), (9.9, 0.0, "resolution"), (10.0, 1e6, "extent")],
)
def test_another_grid_is_an_error_that_shows_both(run, files, gsd, shift, problem):
    sr, hr, lr = files
    regrid(lr, gsd, shift=shift)
    result = run("score", sr, hr, "--lr", lr, "--suite", "opensr")
    assert result.exit_code == 1
    assert problem in result.stderr
    assert "2.5 x -2.5" in result.stderr
    assert f"{gsd:g} x -{gsd:g}" in result.stderr
    with pytest.raises(GridMismatchError, match="divided by 4"), open_pair(sr, hr, lr_path=lr):
        pass


def test_an_input_as_fine_as_the_reference_is_none(files):
    sr, hr, _ = files
    with (
        pytest.raises(GridMismatchError, match=r"is as fine as .* expected the coarser image"),
        open_pair(sr, hr, lr_path=hr),
    ):
        pass


def test_sets_take_a_folder_or_a_column_of_low_resolution_files(run, files, tmp_path):
    folders = []
    for path in files:
        folder = tmp_path / path.stem
        folder.mkdir()
        path.rename(folder / "a.tif")
        folders.append(folder)
    sr, hr, lr = folders
    one = run("score", sr, hr, "--lr", lr, "--metrics", "opensr-synthesis", "--json")
    manifest = tmp_path / "pairs.csv"
    manifest.write_text("pred,ref,lr\nsr/a.tif,hr/a.tif,lr/a.tif\n")
    two = run("score", manifest, "--metrics", "opensr-synthesis", "--json")
    assert one.exit_code == two.exit_code == 0, one.stderr + two.stderr
    means = [
        json.loads(x.stdout)["metrics"]["opensr-synthesis"]["mean"]["mean"] for x in (one, two)
    ]
    assert means[0] == means[1] > 0
    both = run("score", manifest, "--lr", lr)
    assert both.exit_code == 2
    assert "without --lr" in both.stderr


def test_the_torchmetrics_class_is_the_mean_over_images(arrays):
    sr, hr, lr = (torch.from_numpy(x)[None] for x in arrays)
    far = torch.roll(sr, 40, dims=3)
    metric = OpenSR()
    metric.update(sr, hr, lr)
    metric.update(torch.cat([sr, far]), torch.cat([hr, hr]), torch.cat([lr, lr]))
    one, other = expected(*arrays), expected(far[0], hr[0], lr[0])
    assert np.isnan(other["spatial"])
    other["spatial"] = one["spatial"]  # left out of the mean
    wanted = {name: (2 * one[name] + other[name]) / 3 for name in NAMES}
    assert {name: x.item() for name, x in metric.compute().items()} == pytest.approx(wanted)


def test_the_resolved_frequency_is_told_in_metres_too(run, files, arrays):
    sr, hr, _ = files
    found = by_name(run("score", sr, hr, "--metrics", "mtf,effective-gsd", "--json"))
    frequency = mtf(*(torch.from_numpy(x)[None] for x in arrays[:2])).item()
    assert found == pytest.approx({"MTF": frequency, "effective-GSD": 1.25 / frequency})


def test_metres_need_a_grid_in_metres(run, put, tmp_path, arrays):
    paths = [
        put(tmp_path / f"{name}.tif", array, bands=RGB, crs=None)
        for name, array in zip("ab", arrays[:2], strict=True)
    ]
    result = run("score", *paths, "--metrics", "effective-gsd")
    assert result.exit_code == 2
    assert "needs square pixels in metres" in result.stderr
