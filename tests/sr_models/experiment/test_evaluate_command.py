"""`mindgap evaluate` on the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lpips_sat.cli.mindgap import main
from sr_models.data.pairs import PairDataset
from sr_models.experiment import evaluate as module
from sr_models.experiment.results import read_case_results
from sr_models.experiment.summary import mean_of
from tests.cli_runner import cli_runner

from .conftest import SHORT


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
