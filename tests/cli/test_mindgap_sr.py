from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch

from sr_models.network import build_unet
from sr_models.pipeline import SRPipeline
from sr_models.scheduler import BridgeScheduler


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """An untrained pipeline for two bands."""
    folder = tmp_path_factory.mktemp("model")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = build_unet(2, widths=(16, 16), norm_num_groups=8)
        torch.nn.init.normal_(unet.conv_out.weight, std=0.02)
    scheduler = BridgeScheduler("resshift", 4, {"min_noise_level": 0.2, "kappa": 0.2})
    SRPipeline(unet, scheduler, bands=("B04", "B08"), steps=2).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def scene(put, textured, tmp_path_factory):
    """DN of two bands, with a hole."""
    dn = np.rint(textured(2, 40, 56) * 1e4).astype(np.uint16)
    dn[:, 10:14, 20:26] = 0
    path = tmp_path_factory.mktemp("scene") / "lr.tif"
    return put(path, dn, bands=("B04", "B08"), scale=1e-4, nodata=0)


def read(path):
    with rasterio.open(path) as src:
        return src.read(), SimpleNamespace(
            crs=src.crs, bounds=src.bounds, res=src.res, names=src.descriptions
        )


def test_a_scene_is_super_resolved_onto_the_finer_grid(mindgap, model, scene, tmp_path):
    out = tmp_path / "sr.tif"
    result = mindgap("sr", scene, out, "--model", model)
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert (printed["width"], printed["height"], printed["scale"]) == (112, 80, 2)
    assert printed["nfe"] == 2
    assert printed["seconds"] > 0
    values, src = read(out)
    _, lr = read(scene)
    assert src.crs == lr.crs
    assert src.bounds == lr.bounds
    assert src.res == (5, 5)
    assert src.names == ("B04", "B08")
    hole = np.zeros((80, 112), bool)
    hole[20:28, 40:52] = True
    np.testing.assert_array_equal(np.isnan(values[0]), hole)
    coarse = values.reshape(2, 40, 2, 56, 2).mean(axis=(2, 4))
    true = read(scene)[0] * 1e-4
    assert np.abs(coarse - true)[true > 0].mean() < 0.05


def test_samples_and_their_spread(mindgap, model, scene, tmp_path):
    out, spread = tmp_path / "mean.tif", tmp_path / "spread.tif"
    args = ("sr", scene, out, "--model", model, "--num-samples", 3, "--spread", spread)
    assert mindgap(*args).exit_code == 0
    mean, std = read(out)[0], read(spread)[0]
    assert np.nanmin(std) >= 0
    assert np.nanmean(std) > 1e-4
    one = tmp_path / "one.tif"
    mindgap("sr", scene, one, "--model", model)
    inside = np.abs(read(one)[0] - mean) <= 1.5 * std + 1e-6  # of three: at most sqrt(2) stds
    assert inside[~np.isnan(mean)].all()


def test_the_same_words_give_the_same_file(mindgap, model, scene, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        mindgap("sr", scene, tmp_path / f"{name}.tif", "--model", model, "--seed", seed)
    a, b, c = (read(tmp_path / f"{name}.tif")[0] for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert np.nanmax(np.abs(a - c)) > 0


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_fast_takes_other_steps_and_as_many(mindgap, model, scene, tmp_path):
    unet = SRPipeline.from_pretrained(model).unet
    scheduler = BridgeScheduler("sr3", 4, {"end": 0.5})
    SRPipeline(unet, scheduler, bands=("B04", "B08"), steps=3).save_pretrained(tmp_path / "sr3")
    for name, words in (("slow", ()), ("fast", ("--fast",))):
        args = (scene, tmp_path / f"{name}.tif", "--model", tmp_path / "sr3", *words)
        done = mindgap("sr", *args)
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["nfe"] == 3
    slow, fast = (read(tmp_path / f"{name}.tif")[0] for name in ("slow", "fast"))
    assert np.nanmax(np.abs(fast - slow)) > 0.01
    out = tmp_path / "more.tif"
    refused = mindgap("sr", scene, out, "--model", tmp_path / "sr3", "--fast", "--steps", 5)
    assert (refused.exit_code, out.exists()) == (1, False)
    assert "expected 1 to 4 sampling steps, got 5" in refused.stderr


def test_bicubic_needs_a_factor(mindgap, scene, tmp_path):
    out = tmp_path / "bicubic.tif"
    refused = mindgap("sr", scene, out, "--model", "bicubic")
    assert refused.exit_code == 1
    assert "give --factor" in refused.stderr
    assert not out.exists()
    assert mindgap("sr", scene, out, "--model", "bicubic", "--factor", 3).exit_code == 0
    assert read(out)[0].shape == (2, 120, 168)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--model", "nothing"), "no model 'nothing'"),
        (("--model", "MODEL", "--factor", "4"), "trained for a factor of 2, not 4"),
        (("--model", "MODEL", "--spread", "SPREAD"), "ask for more with --num-samples"),
        (("--model", "MODEL", "--steps", "9"), "expected 1 to 4 sampling steps, got 9"),
        (("--model", "MODEL", "--fast"), "not for resshift"),
        (
            ("--model", "MODEL", "--num-samples", "2", "--spread", "OUT"),
            "the spread needs a file of its own",
        ),
        (("--model", "MODEL", "--bands", "B8A"), "not B8A"),
        (("--model", "bicubic", "--factor", "2", "--num-samples", "2"), "one image only"),
        (("--model", "bicubic", "--factor", "2", "--steps", "2"), "leave --steps out"),
        (("--model", "bicubic", "--factor", "2", "--fast"), "leave --fast out"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    mindgap, model, scene, tmp_path, args, message
):
    out = tmp_path / "out.tif"
    again = tmp_path / ".." / tmp_path.name / "out.tif"
    places = {"MODEL": str(model), "SPREAD": str(tmp_path / "spread.tif"), "OUT": str(again)}
    result = mindgap("sr", scene, out, *(places.get(a, a) for a in args))
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [(), ("--overwrite",)])
def test_the_spread_never_replaces_the_input(mindgap, model, scene, tmp_path, words):
    before = scene.read_bytes()
    args = ("--model", model, "--num-samples", 2, "--spread", scene, *words)
    refused = mindgap("sr", scene, tmp_path / "out.tif", *args)
    assert (refused.exit_code, scene.read_bytes() == before) == (1, True)
    assert f"{scene} is an input" in refused.stderr
    assert list(tmp_path.glob("out*")) == []


def test_the_models_bands_are_found_in_the_file(mindgap, model, put, textured, tmp_path):
    dn = np.rint(textured(3, 16, 16) * 1e4).astype(np.uint16)
    mixed = put(tmp_path / "mixed.tif", dn, bands=("B08", "B02", "B04"), scale=1e-4)
    plain = put(tmp_path / "plain.tif", dn[[2, 0]], bands=("B04", "B08"), scale=1e-4)
    for path in (mixed, plain):
        done = mindgap("sr", path, path.with_suffix(".sr.tif"), "--model", model, "--steps", 1)
        assert done.exit_code == 0, done.output
    a, b = (read(tmp_path / f"{name}.sr.tif")[0] for name in ("mixed", "plain"))
    np.testing.assert_array_equal(a, b)


def test_other_bands_are_refused_unless_chosen(mindgap, model, put, textured, tmp_path):
    dn = np.rint(textured(2, 16, 16) * 1e4).astype(np.uint16)
    path = put(tmp_path / "lr.tif", dn, bands=("B03", "B04"), scale=1e-4)
    args = ("sr", path, tmp_path / "out.tif", "--model", model, "--steps", 1)
    refused = mindgap(*args)
    assert refused.exit_code == 1
    assert "holds the bands B03, B04, but the model was trained on B04, B08" in refused.stderr
    assert "expected 2 band(s)" in mindgap(*args, "--bands", "B03").stderr
    assert mindgap(*args, "--bands", "B03,B04").exit_code == 0


def test_a_model_takes_the_other_sensors_bands_and_names_its_own(
    mindgap, model, put, textured, tmp_path
):
    pipeline = SRPipeline.from_pretrained(model)
    scheduler = pipeline.scheduler
    other = SRPipeline(pipeline.unet, scheduler, bands=("B04", "B08"), lr_bands=("B04", "B8A"))
    other.save_pretrained(tmp_path / "model")
    dn = np.rint(textured(2, 16, 16) * 1e4).astype(np.uint16)
    path = put(tmp_path / "lr.tif", dn, bands=("B04", "B8A"), scale=1e-4)
    out = tmp_path / "out.tif"
    done = mindgap("sr", path, out, "--model", tmp_path / "model", "--steps", 1)
    assert done.exit_code == 0, done.output
    assert read(out)[1].names == ("B04", "B08")


def test_units_are_not_guessed(mindgap, model, put, textured, tmp_path):
    dn = np.rint(textured(2, 16, 16) * 1e4).astype(np.uint16)
    path = put(tmp_path / "lr.tif", dn, bands=("B04", "B08"))
    args = ("sr", path, tmp_path / "out.tif", "--model", model)
    refused = mindgap(*args)
    assert refused.exit_code == 1
    assert "without a declared scale" in refused.stderr
    assert mindgap(*args, "--radiometry", "s2-l2a-harmonized").exit_code == 0


def test_nothing_is_replaced_without_being_told(mindgap, model, scene, tmp_path):
    out = tmp_path / "out.tif"
    out.write_text("mine")
    args = ("sr", scene, out, "--model", model)
    assert "exists" in mindgap(*args).stderr
    assert out.read_text() == "mine"
    assert mindgap(*args, "--overwrite").exit_code == 0
    assert "is an input" in mindgap("sr", out, out, "--model", model, "--overwrite").stderr


def test_models_lists_what_there_is(mindgap):
    listed = json.loads(mindgap("models", "--json").stdout)
    assert "unidb" in listed["train"]["small"]
    assert listed["run"]["bicubic"] == "control"
    assert "bicubic  (control)" in mindgap("models").stdout
