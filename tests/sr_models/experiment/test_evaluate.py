"""The table that grows: its rows, their definition, what is done once, what is refused."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pandas as pd
import pytest

from lpips_sat import LpipsSatError
from lpips_sat.errors import ResultsError, UnknownMetricError
from sr_models.data.pairs import PairDataset
from sr_models.experiment.evaluate import Asked, Watch, chosen
from sr_models.experiment.results import read_case_results
from sr_models.experiment.summary import gap_of, mean_of

from .conftest import SHORT, bicubic, psnr, values_of, without_cost


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


def test_a_folder_is_one_model_however_its_name_ends():
    asked = Asked(("runs/x/", "runs/x", "./bicubic/", "sr3/", "sr3"), ("II",))
    assert asked.all_models == ["runs/x", "./bicubic", "sr3/", "sr3"]
    assert [unit.trained for unit in asked.units] == [None, None, None, "synthetic"]


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
    manifest = tmp_path / "copy.parquet"
    shutil.copy(brighter / "manifest.parquet", manifest)
    with pytest.raises(ResultsError, match="is not replaced"):
        run("bicubic", out=manifest, overwrite=True, **asked)
    more = 20 * math.log10(1 / 0.6)
    old = mean_of(run("bicubic", out=tmp_path / "o.parquet", **asked), "bicubic", "II", "psnr")
    assert mean_of(results, "bicubic", "II", "psnr").mean == pytest.approx(old.mean + more)


def test_two_runs_do_not_write_one_table(run, tmp_path):
    refused, path = [], tmp_path / "results" / "r.parquet"

    @contextmanager
    def meanwhile(unit, patches):
        with pytest.raises(ResultsError, match="is being written by process") as caught:
            run("ceiling", cases=("I",))
        refused.append(str(caught.value))
        run("ceiling", cases=("I",), out=tmp_path / "results" / "other.parquet")
        yield lambda count: None

    run("bicubic", cases=("I",), watch=Watch(testing=meanwhile))
    assert refused == [
        f"{path} is being written by process {os.getpid()}: wait until it has ended, or choose "
        "another --out"
    ]
    both = run("ceiling", cases=("I",))
    assert set(both.table["model"]) == {"bicubic", "ceiling"}
    assert sorted(p.name for p in path.parent.iterdir()) == ["other.parquet", "r.parquet"]


def test_a_writer_that_was_killed_holds_nobody_up(run, tmp_path):
    out = tmp_path / "results" / "r.parquet"
    dies = (
        "import os, sys; from pathlib import Path; from sr_models.experiment.lock import "
        "sole_writer\nwith sole_writer(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", dies, out], check=False).returncode == -9
    assert (out.parent / ".r.parquet.lock").is_file()
    run("bicubic", cases=("I",))
    assert [p.name for p in out.parent.iterdir()] == ["r.parquet"]


def test_a_set_that_was_built_again_with_another_sun_is_refused(truth, run, tmp_path):
    shutil.copytree(truth, tmp_path / "toy")
    about = json.loads((tmp_path / "toy" / "dataset.json").read_text())
    asked = {"root": tmp_path / "toy", "cases": ("I",)}
    dim = run("bicubic", **asked)
    made = dim.provenance["synthetic"]
    assert (made["name"], made["factor"], made["mtf"]) == ("physical", 2, [0.33])
    written = about | {"sun_zenith": 80}
    (tmp_path / "toy" / "dataset.json").write_text(json.dumps(written))
    with pytest.raises(ResultsError, match=r"synthetic\.reference was \[0\.2.*, now \[0\.9"):
        run("bicubic", "ceiling", **asked)
    # a set without a sun can be tested on real images all the same
    (tmp_path / "toy" / "dataset.json").write_text(json.dumps(about | {"sun_zenith": None}))
    real = run("bicubic", out=tmp_path / "o.parquet", **asked | {"cases": ("III",)})
    assert real.provenance["synthetic"] is None


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
