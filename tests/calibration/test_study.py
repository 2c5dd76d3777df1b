from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from lpips_sat.calibration import study
from lpips_sat.calibration.judgements import read_judgements
from lpips_sat.calibration.ladders import build_ladders
from lpips_sat.errors import WeightsError

TINY = {"backbone": "pyramid", "backbone_config": {"widths": [4, 8], "depth": 1}}


def sample(rng: np.random.Generator) -> np.ndarray:
    """A patch of soft blocks, each with its own colour."""
    blocks = rng.uniform(0.2, 0.8, (8, 8, 3)).astype(np.float32)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)


@pytest.fixture(scope="module")
def folder(release, tmp_path_factory):
    return release(tmp_path_factory.mktemp("judged") / "release")


@pytest.fixture(scope="module")
def trials(folder):
    return read_judgements(folder)


def test_a_row_tells_what_was_done_and_found(trials, tmp_path):
    experiment = study.Experiment(**TINY, distance="statistics", form="difference")
    row = study.run(experiment, trials, name="try", folder=tmp_path)
    assert row["trials"] == 48  # the 12 validation trials of 60 are not looked at
    assert row["channels"] == 2 * (4 + 4 + 8 + 8)
    assert row["low"] <= row["references left out"] <= row["high"]
    assert row["references left out"] > 0.7  # raters mind blur twice as much as noise
    assert json.loads(row["experiment"])["form"] == "difference"
    assert study.run(experiment, trials, name="try", folder=tmp_path)["low"] == row["low"]


def test_the_validation_trials_change_nothing(trials, tmp_path):
    held = (trials.table["id"] % 5 == 0).to_numpy()
    table = trials.table.assign(share_b=np.where(held, 1 - trials.share_b, trials.share_b))
    other = type(trials)(table, trials.ref, trials.a, trials.b)
    rows = [
        study.run(study.Experiment(**TINY), given, name="x", folder=tmp_path)
        for given in (trials, other)
    ]
    for key in ("equal weights", "references left out", "sources left out"):
        assert rows[0][key] == rows[1][key]


def test_a_pretext_is_trained_first_and_ladders_join_the_fit(trials, tmp_path):
    experiment = study.Experiment(**TINY, pretext="restore", steps=2, ladders=6)
    seen = []
    study.run(
        experiment,
        trials,
        name="x",
        folder=tmp_path / "run",
        sample=sample,
        report=lambda step, logs: seen.append(logs),
    )
    assert [set(logs) for logs in seen] == [{"restored"}] * 2
    assert (tmp_path / "run" / "backbone.safetensors").is_file()


def test_both_sides_of_a_ladder_have_the_same_random_numbers(monkeypatch, tmp_path):
    from lpips_sat.calibration import heads

    shown = {}
    monkeypatch.setattr(
        heads, "per_channel", lambda metric, pairs, compare: shown.update(vars(pairs))
    )
    study._ladders(study.Experiment(**TINY, ladders=12, seed=3), None, sample)
    built = build_ladders(12, sample, seed=3, often={})
    for side, rung in (("ref", 0), ("b", 1), ("a", -1)):  # the second side is the gentler
        np.testing.assert_array_equal(shown[side], built.images[:, rung])


@pytest.mark.parametrize("settings", [{"pretext": "restore", "steps": 1}, {"ladders": 3}])
def test_what_needs_clean_patches_says_so(trials, tmp_path, settings):
    with pytest.raises(WeightsError, match="--eurosat"):
        study.run(study.Experiment(**TINY, **settings), trials, name="x", folder=tmp_path / "run")


def test_rows_are_added_and_a_table_with_other_columns_is_left_alone(tmp_path):
    path = tmp_path / "table.csv"
    study.append(path, {"name": "a", "low": 0.5})
    study.append(path, {"name": "b", "low": 0.25})
    with path.open() as file:
        assert list(csv.DictReader(file)) == [
            {"name": "a", "low": "0.5"},
            {"name": "b", "low": "0.25"},
        ]
    with pytest.raises(WeightsError, match="other columns"):
        study.append(path, {"name": "c", "high": 1})
    assert len(path.read_text().splitlines()) == 3


def test_an_experiment_is_a_file_and_changes(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text('backbone = "pyramid"\nladders = 5\n')
    changes = ["distance=pooled", "confidence=false", "backbone_config={depth = 1}"]
    assert study.read_experiment(path, changes) == study.Experiment(
        backbone="pyramid",
        ladders=5,
        distance="pooled",
        confidence=False,
        backbone_config={"depth": 1},
    )


def test_changes_are_made_together(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text("")
    changes = ["backbone_config={depth = 1}", "backbone=pyramid", "strength=1"]
    changed = study.Experiment(
        backbone="pyramid", backbone_config={"depth": 1}, strength=1, pretext="restore", steps=3
    )
    assert study.read_experiment(path, [*changes, "pretext=restore", "steps=3"]) == changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("form=log", "unknown form 'log'; choose from: ratio, difference, ranking-net"),
        ("distance=l2", "unknown distance 'l2'"),
        ("pretext=restore", "pretext and steps go together"),
        ("steps=many", "cannot set 'steps=many'"),
        ("steps='many'", "steps must be int"),
        ("steps=true", "steps must be int"),
        ("backbone_config={depth = 1}", "'default' are weights with a config of their own"),
        ("sede=1", "cannot set 'sede=1': pass KEY=VALUE with a key of backbone,"),
        ("seed", "cannot set 'seed'"),
    ],
)
def test_a_change_that_means_nothing_is_refused(tmp_path, change, message):
    path = tmp_path / "x.toml"
    path.write_text("")
    with pytest.raises(WeightsError, match=message):
        study.read_experiment(path, [change])


def test_the_command_adds_a_row_under_the_name_of_config_and_changes(folder, tmp_path, run):
    path, table = tmp_path / "tiny.toml", tmp_path / "table.csv"
    path.write_text('backbone = "pyramid"\nbackbone_config = { widths = [4, 8], depth = 1 }\n')
    options = ["--judgements", folder, "--table", table, "--set", "form=ranking-net"]
    result = run("study", path, *options)
    assert result.exit_code == 0, result.stderr
    with table.open() as file:
        (row,) = csv.DictReader(file)
    assert row["name"] == "tiny-form=ranking-net"
    assert f"references left out {row['references left out']}" in result.stdout
