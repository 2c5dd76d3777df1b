from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio

from sr_models.data.build import Source, build_pairs
from sr_models.data.tiles import Layout


@pytest.fixture(scope="module")
def pairs(put, textured, tmp_path_factory):
    """A small set: LR is B8A at 20 m, HR is B08 at 10 m."""
    folder = tmp_path_factory.mktemp("set")
    hr = textured(1, 320, 320, seed=4).astype(np.float32)
    lr = hr.reshape(1, 160, 2, 160, 2).mean((2, 4))
    sources = [
        Source(put(folder / f"{band}.tif", image, bands=(band,), pixel=gsd), bands=(band,))
        for band, image, gsd in (("B8A", lr, 20), ("B08", hr, 10))
    ]
    layout = Layout(tile=32, block=1, margin=16, min_texture=1e-4)
    build_pairs(*sources, folder / "pairs", layout=layout, sun_zenith=40)
    return folder / "pairs"


@pytest.mark.parametrize("regime", ["real", "synthetic"])
def test_a_model_is_trained_and_used(mindgap, pairs, tmp_path, regime):
    run = tmp_path / "run"
    short = ["steps=2", "batch=2", "crop=16", "loss=l2", "looks=1"]
    args = ["train", "--model", "regression", "--data", pairs, "--regime", regime, "--out", run]
    args += [word for change in short for word in ("--set", change)]
    done = mindgap(*args)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"run": str(run), "pipeline": str(run / "pipeline")}
    assert "step 2/2" in done.stderr or "step 1/2" in done.stderr
    assert json.loads((run / "config.json").read_text())["train"]["loss"] == "l2"
    assert len((run / "validation.csv").read_text().splitlines()) == 2
    out = tmp_path / "sr.tif"
    used = mindgap("sr", pairs.parent / "B8A.tif", out, "--model", run)
    assert used.exit_code == 0, used.output
    with rasterio.open(out) as src:
        assert (src.shape, src.res, src.descriptions) == ((320, 320), (10, 10), ("B08",))
    other = mindgap(*args, "--set", "steps=3")
    assert other.exit_code == 1
    assert "another config" in other.stderr


def test_a_folder_with_something_else_in_it_is_left_alone(mindgap, pairs, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    args = ("--model", "regression", "--data", pairs, "--regime", "real", "--out", tmp_path)
    args += ("--set", "crop=32")
    refused = mindgap("train", *args)
    assert refused.exit_code == 1
    assert "is not empty and holds no run" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert (tmp_path / "notes.txt").read_text() == "mine"
    refused = mindgap("train", *args[:-4], "--out", tmp_path / "notes.txt", "--set", "crop=32")
    assert refused.exit_code == 1
    assert "cannot make the folder" in refused.stderr


@pytest.mark.parametrize(
    ("args", "message", "code"),
    [
        (("--model", "esrgan"), "unknown model 'esrgan': expected one of regression, sr3", 1),
        (("--model", "sr3", "--set", "steps"), "expected KEY=VALUE, got steps", 2),
        (("--model", "sr3", "--set", "stesp=3"), "no training option stesp", 1),
        (("--model", "sr3"), "holds no dataset.json", 1),
    ],
)
def test_what_cannot_be_trained_is_said(mindgap, tmp_path, args, message, code):
    (tmp_path / "data").mkdir()
    result = mindgap(
        "train", *args, "--data", tmp_path / "data", "--regime", "real", "--out", tmp_path / "run"
    )
    assert result.exit_code == code
    assert message in result.stderr
    assert not (tmp_path / "run").exists()
