from __future__ import annotations

import json
import os

import numpy as np
import pandas as pd
import pytest

from lpips_sat.cli.mindgap import main
from sr_models.data.degradation import sentinel2
from sr_models.experiment.gap import STATES
from sr_models.experiment.lock import sole_writer
from sr_models.experiment.results import (
    ATTRIBUTION,
    CaseResults,
    read_case_results,
    write_case_results,
)
from tests.cli_runner import cli_runner

SHORT = ("steps=4", "batch=2", "crop=16", "looks=2", "checkpoint_every=4")


def mindgap(*args):
    return cli_runner().invoke(main, [str(a) for a in args], prog_name="mindgap")


@pytest.fixture(scope="module")
def made(write_set, hr, tmp_path_factory):
    """A set whose real sensor differs by a line, and a table of two models on it."""
    folder = tmp_path_factory.mktemp("made")
    sensor = sentinel2(("B8A",), factor=2, sun_zenith=45, hr_bands=("B08",))
    rng = np.random.default_rng(0)
    root = write_set(folder / "set", hr, lambda image: 1.1 * sensor(image, rng))
    args = ["--data", root, "--runs", folder / "runs", "--metrics", "psnr"]
    for case in ("I", "II", "III"):
        args += ["--case", case]
    changes = [word for change in SHORT for word in ("--set", change)]
    models = ["--model", "bicubic", "--model", "ceiling", "--model", "regression"]
    done = mindgap("evaluate", *models, *args, *changes, "--out", folder / "r.parquet")
    assert done.exit_code == 0, done.output
    return folder


def test_the_gap_is_printed_from_the_table_alone(made):
    done = mindgap("gap", made / "r.parquet", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert list(found) == ["gaps"]
    by_model = {row["model"]: row for row in found["gaps"]}
    assert list(by_model) == ["bicubic", "ceiling", "regression"]
    table = read_case_results(made / "r.parquet").table
    table = table[(table["split"] == "test") & (table["metric"] == "psnr")]
    for model, row in by_model.items():
        mean = table[table["model"] == model].groupby("case")["value"].mean()
        assert row["mean"] == pytest.approx(mean["II"] - mean["I"], abs=1e-9)
        assert row["low"] <= row["mean"] <= row["high"]
    shown = mindgap("gap", made / "r.parquet", "--model", "bicubic")
    assert shown.exit_code == 0
    assert "II - I" in shown.stdout
    assert f"{by_model['bicubic']['mean']:+.2f}" in shown.stdout
    assert "regression" not in shown.stdout


def test_the_gap_is_attributed_model_by_model_and_goes_on_where_it_stopped(made):
    args = ("gap", made / "r.parquet", "--data", made / "set", "--runs", made / "runs")
    first = mindgap(*args, "--attribute", "--model", "bicubic", "--json")
    assert first.exit_code == 0, first.output
    out = made / "r-gap.parquet"
    alone = read_case_results(out, ATTRIBUTION)
    assert set(alone.table["model"]) == {"bicubic"}
    done = mindgap(*args, "--attribute", "--curves", "--json")
    assert done.exit_code == 0, done.output
    assert "bicubic, seed 0, 17 states" not in done.stderr  # it is there already
    assert "testing regression, seed 0, 17 states" in done.stderr
    both = read_case_results(out, ATTRIBUTION).table
    pd.testing.assert_frame_equal(both[both["model"] == "bicubic"], alone.table)
    assert set(both["case"]) == set(STATES)
    evaluated = read_case_results(made / "r.parquet").table
    keys = ["model", "case", "seed", "patch", "metric"]
    same = both.merge(evaluated, on=keys, suffixes=("", "_evaluated"))
    assert len(same) == 2 * 2 * 12  # II and I of both models are those of the table
    assert same["value"].to_numpy() == pytest.approx(same["value_evaluated"].to_numpy(), abs=1e-4)
    found = json.loads(done.stdout)
    assert [a["model"] for a in found["attributions"]] == ["bicubic", "regression"]
    parts = found["attributions"][0]["parts"]
    assert parts["radiometry"]["mean"] / parts["gap"]["mean"] > 0.9
    assert [(c["model"], c["regime"]) for c in found["curves"]] == [
        ("regression", "synthetic"),
        ("regression", "real"),
    ]
    assert [row[0] for row in found["curves"][0]["rows"]] == [0, 3]
    assert np.isfinite(found["curves"][1]["train_test_gap"])
    shown = mindgap(*args, "--attribute", "--curves")
    assert shown.exit_code == 0, shown.output
    for text in ("registration", "add up to it", "100%", "synthetic"):
        assert text in shown.stdout
    said = " ".join(shown.stdout.split())
    assert said.count("over blocks alone, 1 training of each model") == 2
    assert "and trainings" not in said


def test_what_does_not_fit_the_table_is_refused(made, write_set, hr, tmp_path):
    args = ("gap", made / "r.parquet", "--attribute", "--out", tmp_path / "o.parquet")
    other = write_set(tmp_path / "set", 0.9 * hr, lambda image: image[:, ::2, ::2])
    curves, page = ("gap", args[1], "--curves"), ("report", args[1], "--html", tmp_path / "r.html")
    for command in (args, curves, page):
        said = mindgap(*command, "--data", other, "--runs", made / "runs")
        assert said.exit_code == 1
        assert "it is of the set 'set', with other test patches" in said.stderr
        assert "Give the set that `mindgap evaluate` tested on" in said.stderr
    own = ("--data", made / "set")
    said = mindgap(*args, *own, "--runs", tmp_path, "--model", "regression")
    assert said.exit_code == 1
    assert "mindgap train --model regression" in said.stderr
    said = mindgap(*args, *own, "--model", "ceiling")
    assert said.exit_code == 1
    assert "no gap of ceiling to attribute" in said.stderr
    assert not (tmp_path / "o.parquet").exists()
    table = read_case_results(made / "r.parquet")
    only = CaseResults(table.table[table.table["case"] == "I"], table.provenance)
    write_case_results(only, tmp_path / "i.parquet")
    said = mindgap("gap", tmp_path / "i.parquet")
    assert said.exit_code == 1
    assert "tested in the cases I and II" in said.stderr
    assert mindgap("gap", tmp_path / "none.parquet").exit_code == 1


def test_the_two_kinds_of_table_are_not_taken_for_each_other(made, tmp_path):
    results, out = made / "r.parquet", tmp_path / "gap.parquet"
    own = ("--data", made / "set", "--runs", made / "runs", "--model", "bicubic")
    attribute = ("gap", results, "--attribute", *own, "--out")
    assert mindgap(*attribute, out).exit_code == 0
    evaluate = ("evaluate", *own, "--metrics", "psnr", "--out", out)
    page = ("--html", tmp_path / "r.html")
    before = out.read_bytes(), results.read_bytes()
    for args, expected in (
        (("gap", out), "expected one of `mindgap evaluate`"),
        (("report", out, *page), "expected one of `mindgap evaluate`"),
        (evaluate, "expected one of `mindgap evaluate`"),
        (("report", results, "--gap", results, *page), "expected one of `mindgap gap --attribute`"),
        ((*attribute, results), "expected one of `mindgap gap --attribute`"),
    ):
        said = mindgap(*args)
        assert said.exit_code == 1
        assert expected in said.stderr
        assert said.stderr.count("\n") == 1
    assert (out.read_bytes(), results.read_bytes()) == before


def test_an_attribution_that_is_being_written_is_left_alone(made, tmp_path):
    own = ("--data", made / "set", "--runs", made / "runs", "--model", "bicubic")
    args = ("gap", made / "r.parquet", "--attribute", *own, "--out", tmp_path / "gap.parquet")
    with sole_writer(tmp_path / "gap.parquet"):
        said = mindgap(*args)
    assert said.exit_code == 1
    assert f"is being written by process {os.getpid()}" in said.stderr
    assert mindgap(*args).exit_code == 0


def test_the_gap_is_not_attributed_with_another_light(made, tmp_path):
    """The noise of synthetic images depends on the sun, and no file of the test patches does."""
    about = made / "set" / "dataset.json"
    before = about.read_text()
    about.write_text(json.dumps(json.loads(before) | {"sun_zenith": 85.0}))
    try:
        args = ("--attribute", "--data", made / "set", "--runs", made / "runs")
        said = mindgap("gap", made / "r.parquet", *args, "--out", tmp_path / "o.parquet")
    finally:
        about.write_text(before)
    assert said.exit_code == 1
    assert "synthetic.reference was [" in said.stderr
    assert not (tmp_path / "o.parquet").exists()
