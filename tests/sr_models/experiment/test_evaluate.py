from __future__ import annotations

import hashlib
import json
import math
import shutil
import sys
from contextlib import contextmanager
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
from torch.nn import functional as F

from lpips_sat import LpipsSatError
from lpips_sat.cli.mindgap import main
from lpips_sat.errors import ResultsError, UnknownMetricError
from sr_models import cards, registry, training
from sr_models.data.build import Source, build_pairs
from sr_models.data.pairs import PairDataset
from sr_models.data.tiles import Layout
from sr_models.experiment import evaluate as module
from sr_models.experiment import exam, foreign
from sr_models.experiment.evaluate import Asked, Watch, chosen, evaluate
from sr_models.experiment.results import read_case_results
from sr_models.experiment.summary import gap_of, mean_of
from tests.cli_runner import cli_runner

SHORT = {"steps": 2, "batch": 2, "crop": 16, "warmup": 1}
PLACE = ["model", "case", "seed", "estimate", "split", "patch", "metric"]


@pytest.fixture(scope="module")
def truth(put, textured, tmp_path_factory):
    """A set whose LR images are made of HR by the degradation itself, with noise of their own."""
    folder = tmp_path_factory.mktemp("set")
    hr = textured(1, 320, 320, seed=4).astype(np.float32)
    hr[:, 240:, 240:] = 0.1  # water
    sources = [
        Source(put(folder / f"{band}.tif", image, bands=(band,), pixel=gsd), bands=(band,))
        for band, image, gsd in (("B8A", hr[:, ::2, ::2], 20), ("B08", hr, 10))
    ]
    layout = Layout(tile=64, block=1, margin=16, min_texture=1e-4, shares=(0.4, 0.2, 0.4))
    build_pairs(*sources, folder / "toy", layout=layout, sun_zenith=40)
    for split in ("train", "val", "test", "test_untextured"):
        for item in PairDataset(folder / "toy", split, "synthetic", seed=1):
            rewrite(folder / "toy" / "lr" / f"{item['id']}.tif", item["lr"].numpy())
    return folder / "toy"


@pytest.fixture(scope="module")
def brighter(truth, tmp_path_factory):
    """The same, but the other sensor sees everything 10 % brighter."""
    folder = tmp_path_factory.mktemp("brighter") / "toy"
    shutil.copytree(truth, folder)
    for item in PairDataset(truth, "test"):
        rewrite(folder / "lr" / f"{item['id']}.tif", 1.1 * item["lr"].numpy())
    return folder


@pytest.fixture
def run(truth, tmp_path):
    """Evaluate in a folder of this test's own."""

    def call(*models, root=truth, out=None, watch=None, overwrite=False, **asked):
        known = {"metrics": ("psnr",), "changes": SHORT, "runs": tmp_path / "runs", "device": "cpu"}
        asked = Asked(models, **{**known, **asked})
        target = out or tmp_path / "results" / "r.parquet"
        return evaluate(root, target, asked, watch=watch, overwrite=overwrite)

    return call


@pytest.fixture
def untrainable(monkeypatch):
    """From here on nothing may be trained."""

    def fail(*_, **__):
        raise AssertionError("trained")

    return lambda: monkeypatch.setattr(training, "train", fail)


def rewrite(path, values):
    with rasterio.open(path, "r+") as dst:
        dst.write(values)


def values_of(results, **wanted):
    """Values by patch of the rows that are wanted."""
    table = results.table
    for name, value in ({"split": "test", "estimate": "sample", "metric": "psnr"} | wanted).items():
        table = table[table[name] == value]
    return table.set_index("patch")["value"]


def without_cost(results):
    table = results.table[results.table["metric"] != "seconds"]
    return table.sort_values(PLACE).reset_index(drop=True)


def psnr(image, hr):
    """In dB, for a peak of 0.6 reflectance."""
    return 10 * math.log10(0.36 / float(((image.double() - hr.double()) ** 2).mean()))


def bicubic(lr):
    return F.interpolate(lr[None], scale_factor=2, mode="bicubic")[0]


def test_controls_have_their_rows_in_every_case_and_their_definition(truth, run):
    results = run("bicubic", "ceiling")
    for kind, cases in (("synthetic", ("I", "IV")), ("real", ("II", "III"))):
        for item in PairDataset(truth, "test", kind):
            hr, box = item["hr"], item["hr"].reshape(1, 32, 2, 32, 2).mean((2, 4))
            for case in cases:
                found = (
                    values_of(results, model=m, case=case)[item["id"]]
                    for m in ("bicubic", "ceiling")
                )
                want = psnr(bicubic(item["lr"]), hr), psnr(bicubic(box), hr)
                assert list(found) == pytest.approx(want, abs=1e-3)
    assert set(values_of(results, model="bicubic", metric="nfe")) == {0}
    blocks = results.table.groupby("patch")["block"].nunique()
    assert (blocks == 1).all()
    # what has no texture is apart
    apart = values_of(results, model="bicubic", case="I", split="test_untextured")
    assert set(apart.index) == set(PairDataset(truth, "test_untextured").ids)


def test_where_both_sensors_are_one_there_is_no_gap_and_elsewhere_there_is(run, brighter, tmp_path):
    for model in ("bicubic", "regression"):
        gap = gap_of(run("bicubic", "regression", cases=("I", "II")), model, "psnr")
        assert gap.low <= 0 <= gap.high
        assert abs(gap.mean) < 0.05
    other = run("bicubic", cases=("I", "II"), root=brighter, out=tmp_path / "other.parquet")
    gap = gap_of(other, "bicubic", "psnr")
    assert gap.high < -0.5


def test_every_training_has_its_rows_and_is_told_with_its_hash(truth, run, tmp_path):
    said = []
    results = run("regression", cases=("III", "IV"), seeds=2, watch=Watch(said.append))
    patches = sum(len(PairDataset(truth, split)) for split in ("test", "test_untextured"))
    assert len(results.table) == 2 * 2 * patches * 3  # psnr, nfe, seconds
    assert set(results.table["estimate"]) == {"sample"}
    weights = results.provenance["weights"]
    assert list(weights) == ["regression real 0", "regression real 1"]
    folder = tmp_path / "runs" / "toy-regression-real-small-1"
    state = folder / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors"
    about = weights["regression real 1"]
    assert about["sha256"] == hashlib.sha256(state.read_bytes()).hexdigest()
    assert about["about"] == json.loads((folder / "config.json").read_text())
    assert about["about"]["train"]["steps"] == 2
    assert results.provenance["set"]["tiles"]["test"] == len(PairDataset(truth, "test"))
    assert said[0] == "trainings to do: 2 (regression real 0, regression real 1)"
    assert not values_of(results, seed=0, case="III").equals(values_of(results, seed=1, case="III"))
    back = read_case_results(tmp_path / "results" / "r.parquet")
    pd.testing.assert_frame_equal(back.table, results.table)
    assert back.provenance == results.provenance


def test_what_is_there_is_not_done_again_and_more_is_added(run, untrainable, tmp_path):
    first = run("regression", cases=("I",))
    untrainable()
    path = tmp_path / "results" / "r.parquet"
    before = path.read_bytes()
    run("regression", cases=("I",))
    assert path.read_bytes() == before
    shutil.rmtree(tmp_path / "runs")  # rows outlive their weights
    run("regression", cases=("I",))
    assert path.read_bytes() == before
    more = run("regression", "bicubic", cases=("I",))
    pd.testing.assert_frame_equal(more.table[: len(first.table)], first.table)
    assert set(more.table["model"]) == {"regression", "bicubic"}
    picked = chosen(more, Asked(("bicubic", "regression"), cases=("I",))).table["model"]
    assert list(dict.fromkeys(picked)) == ["bicubic", "regression"]


def test_a_run_cut_short_at_any_time_ends_with_the_table_of_one_that_was_not(run, tmp_path):
    asked = {"cases": ("I", "II"), "seeds": 2}
    whole = run("regression", "bicubic", out=tmp_path / "whole.parquet", **asked)

    @contextmanager
    def dies(unit, patches):
        def advance(count):
            if unit == "regression, case II, seed 1":
                raise KeyboardInterrupt

        yield advance

    with pytest.raises(KeyboardInterrupt):
        run("regression", "bicubic", watch=Watch(testing=dies), **asked)
    there = read_case_results(tmp_path / "results" / "r.parquet")
    assert len(there.table) == len(whole.table[whole.table["model"] == "regression"]) * 3 / 4
    resumed = run("regression", "bicubic", **asked)
    pd.testing.assert_frame_equal(without_cost(resumed), without_cost(whole))
    assert resumed.provenance == whole.provenance


def test_the_size_of_a_batch_changes_nothing(run, pipeline, tmp_path, monkeypatch):
    pipeline("resshift", steps=3, lr_bands=("B8A",)).save_pretrained(tmp_path / "mine")
    asked = {"cases": ("III",), "num_samples": 2, "metrics": ("psnr", "ssim", "lpips-sat")}
    many = run(str(tmp_path / "mine"), out=tmp_path / "many.parquet", **asked)
    monkeypatch.setattr(exam, "BATCH_PIXELS", 1)
    one = run(str(tmp_path / "mine"), out=tmp_path / "one.parquet", **asked)
    pd.testing.assert_frame_equal(without_cost(one), without_cost(many), rtol=1e-4)


def test_the_mean_of_samples_is_tested_beside_one(truth, run, pipeline, tmp_path):
    loaded = pipeline("resshift", steps=3)
    loaded.save_pretrained(tmp_path / "mine")
    results = run(str(tmp_path / "mine"), "bicubic", cases=("II",), num_samples=3)
    item = PairDataset(truth, "test")[0]
    samples = loaded(item["lr"][None], num_samples=3).samples[:, 0]
    for estimate, image, runs in (("sample", samples[0], 1), ("mean", samples.mean(0), 3)):
        known = {"model": str(tmp_path / "mine"), "estimate": estimate}
        assert values_of(results, **known)[item["id"]] == pytest.approx(
            psnr(image, item["hr"]), abs=1e-3
        )
        assert set(values_of(results, metric="nfe", **known)) == {3 * runs}
    assert set(results.table.query("model == 'bicubic'")["estimate"]) == {"sample"}


@pytest.mark.parametrize("suffix", [".npy", ".tif"])
def test_predictions_on_disk_score_as_the_pipeline_that_made_them(
    suffix, truth, run, pipeline, tmp_path
):
    loaded, mine = pipeline("sr3", steps=2), tmp_path / "mine"
    loaded.save_pretrained(tmp_path / "pipeline")
    for kind in ("real", "synthetic"):
        (mine / kind).mkdir(parents=True)
        for split in ("test", "test_untextured"):
            for item in PairDataset(truth, split, kind):
                image = loaded.upscale(item["lr"].numpy(), 2)
                path = mine / kind / f"{item['id']}{suffix}"
                if suffix == ".npy":
                    np.save(path, image)
                else:
                    shutil.copy(truth / "hr" / path.name, path)
                    rewrite(path, image)
    results = run(str(mine), str(tmp_path / "pipeline"), metrics=("psnr", "opensr-improvement"))
    for case in ("I", "II", "III", "IV"):
        for metric in ("psnr", "opensr-improvement"):
            ours, theirs = (
                values_of(results, model=str(model), case=case, metric=metric)
                for model in (mine, tmp_path / "pipeline")
            )
            pd.testing.assert_series_equal(ours, theirs, rtol=1e-4)
    shutil.rmtree(mine / "synthetic")
    with pytest.raises(LpipsSatError, match="put those made of each into real/ and synthetic/"):
        run(str(mine), out=tmp_path / "o.parquet")
    run(str(mine), cases=("II",), out=tmp_path / "o.parquet")
    # other images under the same name are noticed
    next((mine / "real").iterdir()).write_bytes(next((mine / "real").iterdir()).read_bytes() + b"0")
    with pytest.raises(ResultsError, match="mine on real with other weights or images"):
        run(str(mine), cases=("II",), out=tmp_path / "o.parquet")


def test_predictions_that_do_not_fit_are_one_clear_line(truth, run, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    ids = [*PairDataset(truth, "test").ids, *PairDataset(truth, "test_untextured").ids]
    for patch in ids[1:]:
        np.save(mine / f"{patch}.npy", np.full((64, 64), 0.1, np.float32))
    with pytest.raises(LpipsSatError, match=f"lacks 1 of {len(ids)} test patches: {ids[0]};"):
        run(str(mine), cases=("II",))
    np.save(mine / f"{ids[0]}.npy", np.zeros((32, 32), np.float32))
    with pytest.raises(LpipsSatError, match=r"expected an image \(1, 64, 64\), got \(1, 32, 32\)"):
        run(str(mine), cases=("II",))
    np.save(mine / f"{ids[0]}.npy", np.full((64, 64), np.nan, np.float32))
    with pytest.raises(LpipsSatError, match=f"no numbers in the image of patch {ids[0]}"):
        run(str(mine), cases=("II",))
    (mine / f"{ids[0]}.npy").unlink()
    shutil.copy(truth / "hr" / f"{ids[1]}.tif", mine / f"{ids[0]}.tif")
    with pytest.raises(LpipsSatError, match="is not on the grid of the HR image"):
        run(str(mine), cases=("II",))
    assert not (tmp_path / "results" / "r.parquet").exists()


def test_a_model_of_another_package_takes_part(truth, run, monkeypatch):
    class Nearest:
        def upscale(self, lr, scale):
            return lr.repeat(scale, 1).repeat(scale, 2)

    class Small:
        def upscale(self, lr, scale):
            return lr

    plugins = SimpleNamespace(nearest=Nearest, small=Small)
    monkeypatch.setitem(sys.modules, "another_package", plugins)
    points = EntryPoints(
        EntryPoint(name, f"another_package:{name}", registry.GROUP) for name in vars(plugins)
    )
    for place in (registry, foreign):
        monkeypatch.setattr(place, "entry_points", lambda **wanted: points.select(**wanted))
    results = run("nearest", cases=("III",))
    item = PairDataset(truth, "test")[0]
    want = psnr(item["lr"].repeat_interleave(2, 1).repeat_interleave(2, 2), item["hr"])
    assert values_of(results)[item["id"]] == pytest.approx(want, abs=1e-3)
    assert set(results.table["metric"]) == {"psnr", "seconds"}
    assert results.provenance["weights"]["nearest on real"]["name"] == "another_package:nearest"
    with pytest.raises(LpipsSatError, match=r"expected an image \(1, 64, 64\) of patch r"):
        run("small", cases=("III",))


def test_shipped_weights_are_taken_where_they_were_trained_on_this_set(
    truth, brighter, run, pipeline, untrainable, tmp_path, monkeypatch
):
    monkeypatch.setattr(registry, "CHECKPOINTS", tmp_path / "checkpoints")
    untrainable()
    made = training.fingerprint(PairDataset(truth, "train", "real"))
    shipped = tmp_path / "checkpoints" / "toy-resshift-real"
    card = {"pairs": made, "seed": 0, "steps": 7}
    pipeline("resshift", steps=2, card=card).save_pretrained(shipped)
    asked = {"cases": ("III",), "changes": {}}
    results = run("resshift", **asked)
    about = results.provenance["weights"]["resshift real 0"]
    assert (about["origin"], about["name"]) == ("checkpoint", "toy-resshift-real")
    assert about["about"]["steps"] == 7
    assert cards.read_card(shipped) == card
    for other in ({"seeds": 2}, {"cases": ("II",)}, {"changes": SHORT}, {"profile": "paper"}):
        with pytest.raises(LpipsSatError, match="not trained yet: resshift"):
            run("resshift", train=False, out=tmp_path / "o.parquet", **{**asked, **other})
    pipeline("resshift", card=card | {"pairs": "0" * 16}).save_pretrained(shipped)
    with pytest.raises(LpipsSatError, match="not trained yet: resshift real 0"):
        run("resshift", train=False, out=tmp_path / "o.parquet", **asked)


def test_what_cannot_be_had_is_refused_before_the_work_begins(truth, run, pipeline, tmp_path):
    def refused(message, *models, error=LpipsSatError, **asked):
        with pytest.raises(error, match=message) as caught:
            run(*models, **asked)
        assert "\n" not in str(caught.value)

    command = f"mindgap train --model regression --data {truth} --regime synthetic --seed 0"
    refused(f"Run: {command} .*--set steps=2", "bicubic", "regression", train=False)
    refused("no model 'swinir': expected one of bicubic, ceiling, regression", "swinir")
    refused("no case V: expected one of I, II", "bicubic", cases=("V",))
    refused("holds neither a pipeline nor predictions", str(truth))
    refused("'sam': sam needs two bands", "bicubic", metrics=("sam",), error=UnknownMetricError)
    refused("at least 176 px", "bicubic", metrics=("ms-ssim",), error=UnknownMetricError)
    refused(r"ends in \.parquet", "bicubic", out=tmp_path / "r.csv", error=ResultsError)
    refused("unknown degradation 'best'", "bicubic", degradation="best")
    for name, options in (("x4", {"scale": 4}), ("rgb", {"bands": ("B04", "B03", "B02")})):
        pipeline(**options).save_pretrained(tmp_path / name)
        refused("but the set has B08 and a factor of 2", str(tmp_path / name))
    assert not (tmp_path / "runs").exists()
    assert not list(tmp_path.glob("results/*"))


def test_a_table_of_something_else_is_refused_with_what_differs(run, brighter, tmp_path):
    asked = {"cases": ("II",)}
    run("bicubic", **asked)
    for known, message in (
        ({"num_samples": 2}, "num_samples was 1, now 2"),
        ({"data_range": 1.0}, "data_range was 0.6, now 1.0"),
        ({"metrics": ("psnr", "mae")}, "metrics.mae was None, now there"),
        ({"root": brighter}, "set.test_sha256 was"),
        ({"degradation": "bicubic"}, "degradation was physical, now bicubic"),
    ):
        with pytest.raises(ResultsError, match=f"{message}.*--overwrite"):
            run("bicubic", **{**asked, **known})
    results = run("bicubic", data_range=1.0, overwrite=True, **asked)
    assert results.provenance["data_range"] == 1.0
    more = 20 * math.log10(1 / 0.6)
    old = mean_of(run("bicubic", out=tmp_path / "o.parquet", **asked), "bicubic", "II", "psnr")
    assert mean_of(results, "bicubic", "II", "psnr").mean == pytest.approx(old.mean + more)


def test_other_weights_under_the_same_name_are_refused(run, tmp_path):
    run("regression", cases=("III",))
    folder = tmp_path / "runs" / "toy-regression-real-small-0"
    state = folder / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors"
    state.write_bytes(state.read_bytes()[:-1] + b"0")
    with pytest.raises(ResultsError, match="holds regression real 0 with other weights"):
        run("regression", cases=("III",))
    with pytest.raises(LpipsSatError, match="holds a run of another config"):
        run("regression", cases=("III",), changes=SHORT | {"steps": 3}, out=tmp_path / "o.parquet")


def test_the_usual_metrics_are_those_that_apply(truth, run):
    results = run("bicubic", cases=("I",), metrics=())
    names = ["psnr", "ssim", "lpips-sat", "improvement", "omission", "hallucination"]
    names[3:] = [f"opensr-{name}" for name in names[3:]]
    assert list(results.provenance["metrics"]) == names
    assert list(dict.fromkeys(results.table["metric"])) == [*names, "nfe", "seconds"]
    assert results.provenance["metrics"]["psnr"]["settings"] == {"data_range": 0.6}
    assert results.provenance["metrics"]["lpips-sat"]["settings"]["weights"]["sha256"]
    shares = sum(values_of(results, metric=name) for name in names[3:])
    assert shares.to_numpy() == pytest.approx(1)


def test_a_patch_too_large_for_one_piece_goes_through_tiles(pipeline):
    from sr_models.experiment.contenders import Batch, Sampler

    loaded = pipeline("resshift", steps=2)
    lr = 0.3 * torch.rand(1, 1, 140, 16, generator=torch.Generator().manual_seed(0))
    batch = Batch(["a"], lr, torch.zeros(1, 1, 280, 32))
    guess = Sampler(loaded, 5).guess(batch, 2)
    assert guess.samples.shape == (2, 1, 1, 280, 32)
    rows = loaded.rows(lambda r, c, h, w: lr[0, :, r : r + h, c : c + w].numpy(), 140, 16, seed=5)
    want = np.concatenate([values[0] for _, values in rows], axis=1)
    np.testing.assert_array_equal(guess.samples[0, 0], want)


@pytest.fixture
def mindgap(truth, tmp_path, monkeypatch):
    """Run `mindgap evaluate ARGS` in a folder of this test's own."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        words = ["evaluate", *map(str, args)]
        return cli_runner().invoke(main, words, prog_name="mindgap")

    return call


def test_the_command_prints_a_table_and_json(mindgap, truth):
    train = [word for key, value in SHORT.items() for word in ("--set", f"{key}={value}")]
    args = ["--model", "regression", "--case", "III", "--metrics", "psnr", "--data", truth, *train]
    done = mindgap(*args)
    assert done.exit_code == 0, done.output
    assert "training regression real 0 in runs/toy-regression-real-small-0: 2 steps" in done.stderr
    assert "testing regression, case III, seed 0" in done.stderr
    blocks = PairDataset(truth, "test").tiles["block"].nunique()
    assert f"toy, test: {blocks} patches in {blocks} blocks" in done.stdout
    assert "toy, test_untextured:" in done.stdout
    line = next(line for line in done.stdout.splitlines() if "psnr, dB ↑" in line)
    interval = mean_of(read_case_results("results/toy.parquet"), "regression", "III", "psnr")
    assert f"{interval.mean:.2f}" in line
    assert f"[{interval.low:.2f}, {interval.high:.2f}]" in line
    again = mindgap(*args, "--json", "--no-train")
    found = json.loads(again.stdout)
    assert found["results"] == "results/toy.parquet"
    cell = found["cells"][0]
    assert (cell["model"], cell["case"], cell["metric"], cell["seeds"]) == (
        *("regression", "III", "psnr"),
        1,
    )
    assert [cell[key] for key in ("mean", "low", "high")] == pytest.approx(
        [interval.mean, interval.low, interval.high]
    )
    assert found["provenance"]["changes"] == SHORT
    refused = mindgap(*args, "--num-samples", 2)
    assert refused.exit_code == 1
    assert refused.stderr.startswith("Error: results/toy.parquet was made otherwise: num_samples")
    assert mindgap(*args, "--set", "steps").exit_code == 2


def test_without_data_the_sample_is_built_once(mindgap, truth, monkeypatch):
    monkeypatch.setattr(module, "build_s2", lambda out: shutil.copytree(truth, out))
    args = ("--model", "bicubic", "--metrics", "psnr")
    done = mindgap(*args)
    assert done.exit_code == 0, done.output
    assert "building the sample set s2-b8 in runs/pairs/s2-b8" in done.stderr
    assert Path("results/s2-b8.parquet").is_file()
    again = mindgap(*args)
    assert "building" not in again.stderr
    assert again.stdout == done.stdout
