"""An image by tiles scores as the whole, and so does its map."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import rasterio
import torch
from rasterio.windows import Window
from scipy.ndimage import gaussian_filter

from lpips_sat import functional
from lpips_sat.lpips import LPIPSSat
from lpips_sat.raster import grid_of
from tests.scoring import BANDS, DATA_RANGE, FACTOR, NAMES, score

SIDE, TILE = 1024, 256


def read(path):
    with rasterio.open(path) as src:
        return src.read()


@pytest.fixture(scope="module")
def big(textured, put, tmp_path_factory):
    """A 1024 px pair in DN whose nodata patches lie across the borders of tiles."""
    folder = tmp_path_factory.mktemp("big")
    ref = textured(4, SIDE, SIDE, seed=1)
    rng = np.random.default_rng(2)
    pred = gaussian_filter(ref, (0, 1.2, 1.2)) + 0.003 * rng.standard_normal(ref.shape)
    ref, pred = (np.clip(np.rint(image * 1e4), 1, None).astype(np.uint16) for image in (ref, pred))
    pred[:, 200:300, 480:700] = 0
    pred[2, 511:513, 60:90] = 0  # a thin line, in one band only
    rows, cols = np.mgrid[:SIDE, :SIDE]
    ref[:, (rows - 760) ** 2 + (cols - 250) ** 2 < 70**2] = 0
    ref[:, :, 1019:] = 0
    return tuple(
        put(folder / f"{name}.tif", image, bands=BANDS, scale=1e-4, nodata=0)
        for name, image in (("pred", pred), ("ref", ref))
    )


@pytest.fixture(scope="module")
def arrays(big):
    """The big pair as whole tensors and its mask, read by rasterio alone."""
    pred, ref = (read(path) for path in big)
    valid = (pred != 0).all(axis=0) & (ref != 0).all(axis=0)
    images = [torch.from_numpy((dn * 1e-4).astype(np.float32))[None] for dn in (pred, ref)]
    return *images, torch.from_numpy(valid)[None, None]


@pytest.fixture(scope="module")
def by_tiles(big, tmp_path_factory):
    path = tmp_path_factory.mktemp("map") / "map.tif"
    return score(*big, tile=TILE, map_path=path), path


@pytest.fixture(scope="module")
def whole_map(arrays):
    """The map of the whole image as the module computes it: (H, W)."""
    with torch.inference_mode():
        return LPIPSSat(bands=BANDS, spatial=True)(*arrays)[0, 0].numpy()


# --- tiles


def test_tiles_score_as_one_tile_that_covers_everything(big, by_tiles):
    tiled, whole = by_tiles[0], score(*big, tile=SIDE)
    assert [item.name for item in tiled.scores] == NAMES
    assert tiled["LPIPS-Sat"] == pytest.approx(whole["LPIPS-Sat"], abs=1e-4, rel=0)
    for name in NAMES[1:]:
        assert tiled[name] == pytest.approx(whole[name], rel=1e-9)
    assert tiled.valid_share == whole.valid_share


def test_tiles_score_as_the_functions_on_the_whole_arrays(arrays, by_tiles, whole_map):
    pred, ref, valid = arrays
    lpips = np.nanmean(whole_map, dtype=np.float64)
    assert by_tiles[0]["LPIPS-Sat"] == pytest.approx(lpips, abs=1e-4, rel=0)
    assert lpips > 0.01
    parameters = {
        "mae": {},
        "rmse": {},
        "psnr": {"data_range": DATA_RANGE},
        "ssim": {"data_range": DATA_RANGE},
        "sam": {},
        "ergas": {"ratio": 1 / FACTOR},
    }
    for name, given in parameters.items():
        expected = getattr(functional, name)(pred, ref, valid=valid, **given)
        assert by_tiles[0][name.upper()] == pytest.approx(float(expected), rel=1e-9)


def test_mae_and_psnr_are_those_of_numpy_over_the_valid_pixels(arrays, by_tiles):
    pred, ref, valid = (part[0].numpy() for part in arrays)
    error = (pred.astype(np.float64) - ref)[:, valid[0]]
    assert by_tiles[0]["MAE"] == pytest.approx(np.abs(error).mean(), rel=1e-9)
    psnr = 10 * math.log10(DATA_RANGE**2 / np.mean(error**2))
    assert by_tiles[0]["PSNR"] == pytest.approx(psnr, rel=1e-9)


def test_the_result_says_what_was_scored(arrays, by_tiles):
    result = by_tiles[0]
    assert (result.bands, result.kind, result.pixels) == (BANDS, "reflectance", SIDE**2)
    assert result.valid_share == float(arrays[2].double().mean())
    units = ["", *["reflectance"] * 2, "dB", "", "degrees", ""]
    assert [item.unit for item in result.scores] == units
    better = {item.name for item in result.scores if item.higher_is_better}
    assert better == {"PSNR", "SSIM"}
    assert result.settings["data_range"] == DATA_RANGE
    assert result.settings["ratio"] == 1 / FACTOR
    assert result.settings["composite"] == ["B04", "B03", "B02"]
    assert "DN * 0.0001, nodata 0" in result.settings["pred_radiometry"]


# --- the map


def test_the_map_is_the_spatial_map_of_the_whole(by_tiles, whole_map):
    got = read(by_tiles[1])[0]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, whole_map, atol=1e-5, rtol=0, equal_nan=True)


def test_the_map_is_nan_exactly_where_invalid_and_averages_to_the_score(arrays, by_tiles):
    got, valid = read(by_tiles[1])[0], arrays[2][0, 0].numpy()
    np.testing.assert_array_equal(np.isnan(got), ~valid)
    mean = got[valid].astype(np.float64).mean()
    assert mean == pytest.approx(by_tiles[0]["LPIPS-Sat"], abs=1e-4, rel=0)


def test_the_map_lies_on_the_grid_of_the_reference(big, by_tiles):
    assert grid_of(by_tiles[1]) == grid_of(big[1])
    with rasterio.open(by_tiles[1]) as src:
        assert (src.count, src.dtypes, src.descriptions) == (1, ("float32",), ("distance",))
        assert math.isnan(src.nodata)


def near_borders(side, tile, reach=16):
    """Pixels within `reach` of a line between two tiles."""
    position = np.arange(side)
    inner = np.arange(tile, side, tile)
    near = (np.abs(position[:, None] + 0.5 - inner) < reach).any(axis=1)
    return near[:, None] | near[None, :]


def seam(got, whole, tile):
    """Mean difference near the borders of tiles, and elsewhere."""
    difference, near = np.abs(got - whole), near_borders(got.shape[0], tile)
    known = ~np.isnan(difference)
    return difference[near & known].mean(), difference[~near & known].mean()


def test_the_borders_of_tiles_leave_no_trace_in_the_map(by_tiles, whole_map):
    near, elsewhere = seam(read(by_tiles[1])[0], whole_map, TILE)
    # both are noise of float32 arithmetic; a seam would stand out by orders of magnitude
    assert near <= 1.5 * elsewhere + 1e-8
    assert near < 1e-6


def test_without_its_halo_the_map_would_show_seams(textured, put, tmp_path, monkeypatch):
    monkeypatch.setattr(LPIPSSat, "halo", 0)
    ref = textured(3, 512, 512, seed=6).astype(np.float32)
    pred = gaussian_filter(ref, (0, 1, 1))
    pair = [put(tmp_path / n, image, bands=BANDS[:3]) for n, image in (("p", pred), ("r", ref))]
    for name, tile in (("tiles", TILE), ("whole", 512)):
        score(*pair, tile=tile, map_path=tmp_path / name, metrics=["lpips-sat"])
    near, elsewhere = seam(*(read(tmp_path / name)[0] for name in ("tiles", "whole")), TILE)
    assert near > 1e-4
    assert near > 5 * elsewhere


@pytest.mark.parametrize("shape", [(65, 97), (64, 129), (100, 33)])
def test_cores_of_a_pixel_or_two_at_the_end_change_nothing(textured, put, tmp_path, shape):
    ref = textured(3, *shape, seed=5).astype(np.float32)
    pred = gaussian_filter(ref, (0, 1, 1))
    pair = [
        put(tmp_path / name, image, bands=BANDS[:3]) for name, image in (("p", pred), ("r", ref))
    ]
    metric = LPIPSSat(bands=BANDS[:3])
    tiled, whole = score(*pair, tile=metric.align), score(*pair, tile=16 * metric.align)
    direct = metric(*(torch.from_numpy(image)[None] for image in (pred, ref)))
    assert tiled["LPIPS-Sat"] == pytest.approx(float(direct), abs=1e-4, rel=0)
    for name in NAMES:
        assert tiled[name] == pytest.approx(whole[name], rel=1e-5)


# --- memory


MEASURE = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
sys.stderr.write(done.stderr)
print(json.dumps({"rc": done.returncode, "peak": peak, "out": done.stdout}))
"""


@pytest.mark.slow
def test_a_scene_of_4000_px_is_scored_within_1500_mb(textured, tmp_path):
    side = 4000
    patch = np.rint(textured(4, 1000, 1000, seed=8) * 1e4).astype(np.uint16)
    rng = np.random.default_rng(9)
    profile = {"driver": "GTiff", "dtype": "uint16", "count": 4, "width": side, "height": side}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "nodata": 0}
    profile |= {"crs": "EPSG:32618", "transform": rasterio.Affine(10, 0, 4e5, 0, -10, 4e6)}
    for name, noise in (("pred.tif", 40), ("ref.tif", 0)):
        with rasterio.open(tmp_path / name, "w", **profile) as dst:
            dst.descriptions, dst.scales = BANDS, (1e-4,) * 4
            for top in range(0, side, 1000):
                for left in range(0, side, 1000):
                    grain = np.rint(noise * rng.standard_normal(patch.shape))
                    dn = np.clip(patch + grain, 1, None).astype(np.uint16)
                    dn[:, 400:500, 300:420] = 0  # every tile has pixels to fill
                    dst.write(dn, window=Window(left, top, 1000, 1000))
    # Peak memory of a child's child: a process inherits, on Linux, the peak of the one it was
    # forked from, and this one has read whole images.
    command = [sys.executable, "-c", MEASURE, sys.executable]
    command += ["-c", "from lpips_sat.cli import main; main()", "score"]
    command += [str(tmp_path / "pred.tif"), str(tmp_path / "ref.tif"), "--factor", "4", "--json"]
    command += ["--map", str(tmp_path / "map.tif")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert report["rc"] == 0, done.stderr
    scored = json.loads(report["out"])
    assert scored["pixels"] == side**2
    peak = report["peak"] * (1 if sys.platform == "darwin" else 1024)  # bytes / KiB
    speed = scored["pixels"] / 1e6 / scored["seconds"]
    print(f"peak {peak / 1e6:.0f} MB, {scored['seconds']:.1f} s, {speed:.2f} Mpx/s")  # noqa: T201
    assert peak < 1.5e9
