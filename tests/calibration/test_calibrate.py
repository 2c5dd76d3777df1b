from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from skimage.metrics import peak_signal_noise_ratio

from lpips_sat import __version__
from lpips_sat.backbones import build_backbone
from lpips_sat.calibration import evaluate, heads
from lpips_sat.calibration.calibrate import (
    calibrate,
    leave_one_source_out,
    load_backbone,
    mean_of,
    save,
)
from lpips_sat.calibration.judgements import JudgementError, read_judgements
from lpips_sat.errors import OutputExistsError, WeightsError
from lpips_sat.lpips import LPIPSSat

CONFIG = {"widths": [4, 8], "depth": 1}
WRITTEN = ["README.md", "config.json", "model.safetensors"]
LABELS = ["LPIPS-Sat", "the same backbone, equal weights", "SSIM", "PSNR"]


def untrained():
    """A tiny backbone, the same at every call."""
    torch.manual_seed(11)
    return LPIPSSat("pyramid", radiometry="display", backbone_config=CONFIG)


@pytest.fixture(scope="module")
def judged(release, tmp_path_factory):
    """A release of 60 trials, 12 of which validate."""
    return release(tmp_path_factory.mktemp("judged") / "release")


@pytest.fixture(scope="module")
def made(judged, tmp_path_factory):
    """A calibrated folder, and the evidence that came with it."""
    out = tmp_path_factory.mktemp("made") / "new folder" / "mine"
    return out, calibrate(untrained(), read_judgements(judged), name="mine", out=out)


def score_of(distance, trials):
    """Mean agreement of a distance with the votes."""
    of_a, of_b = evaluate.pair_distances(distance, trials)
    return evaluate.agreement(of_a, of_b, trials.table["share_b"].to_numpy()).mean()


# --- what is written


def test_the_folder_loads_and_agrees_as_often_as_the_evidence_says(made, judged):
    out, table = made
    _, validation = read_judgements(judged).split()
    agreement = table.set_index("metric")["agreement"]
    assert table["metric"].tolist() == LABELS
    loaded = LPIPSSat.from_pretrained(out, radiometry="display")
    assert score_of(loaded, validation) == pytest.approx(agreement["LPIPS-Sat"], abs=1e-4)
    assert score_of(untrained(), validation) == pytest.approx(agreement[LABELS[1]], abs=1e-4)
    assert (table["trials"] == 12).all()
    assert (table["references"] == validation.table["cluster"].nunique()).all()
    assert (table["low"] <= table["agreement"]).all()
    assert (table["agreement"] <= table["high"]).all()


def test_the_agreement_of_psnr_is_that_of_scikit_image(made, judged):
    _, validation = read_judgements(judged).split()
    gain = [
        peak_signal_noise_ratio(r, b) - peak_signal_noise_ratio(r, a)
        for r, a, b in zip(validation.ref, validation.a, validation.b, strict=True)
    ]
    share = validation.table["share_b"].to_numpy()
    expected = np.where(np.array(gain) > 0, share, 1 - share).mean()
    found = made[1].set_index("metric")["agreement"]["PSNR"]
    assert found == pytest.approx(expected, abs=1e-4)


def test_calibration_helps_on_the_trials_that_it_saw(made, judged):
    training, _ = read_judgements(judged).split()
    before, after = (
        score_of(m, training)
        for m in (untrained(), LPIPSSat.from_pretrained(made[0], radiometry="display"))
    )
    assert after > before


def test_the_folder_holds_weights_and_cards_for_everybody_to_read(made):
    out, _ = made
    assert sorted(p.name for p in out.iterdir()) == WRITTEN
    assert [p.name for p in out.parent.iterdir()] == ["mine"]  # nothing is left beside it
    assert all(p.stat().st_mode & 0o777 == 0o644 for p in out.iterdir())
    assert out.stat().st_mode & 0o777 == 0o755


def test_saving_replaces_only_weights_and_only_when_told_to(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("mine")
    save(untrained(), tmp_path / "weights")
    for name, overwrite in (("thesis", False), ("thesis", True), ("weights", False)):
        with pytest.raises(OutputExistsError):
            save(untrained(), tmp_path / name, overwrite=overwrite)
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["thesis.txt"]
    save(untrained(), tmp_path / "weights", overwrite=True)
    assert sorted(p.name for p in (tmp_path / "weights").iterdir()) == WRITTEN


def test_saving_that_fails_leaves_the_old_weights(tmp_path, monkeypatch):
    save(untrained(), tmp_path / "weights")
    before = {p.name: p.read_bytes() for p in (tmp_path / "weights").iterdir()}
    rename = type(tmp_path).replace

    def interrupted(path, target):
        if target == tmp_path / "weights" and path.name != "old":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(type(tmp_path), "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(untrained(), tmp_path / "weights", overwrite=True)
    assert {p.name: p.read_bytes() for p in (tmp_path / "weights").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["weights"]


def test_the_heads_are_not_negative_and_anchored(made, judged):
    loaded = LPIPSSat.from_pretrained(made[0], radiometry="display")
    assert all((head >= 0).all() for head in loaded.heads)
    assert sum(float(head.sum()) for head in loaded.heads) > 0
    training, _ = read_judgements(judged).split()
    before = [head.clone() for head in loaded.heads]
    heads.anchor(loaded, training.ref)  # is so already: nothing changes
    for head, same in zip(loaded.heads, before, strict=True):
        torch.testing.assert_close(head.data, same, rtol=1e-4, atol=0)


def test_the_card_is_complete(made):
    out, table = made
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    card = config["card"]
    assert (config["backbone"], config["backbone_config"]) == ("pyramid", CONFIG)
    assert (card["name"], card["version"]) == ("mine", __version__)
    assert card["judgements"] == {"training": 48, "validation": 12}
    assert card["evidence"] == table.to_dict(orient="records")
    assert {"strength", "cross_validated_agreement"} < set(card["heads"])
    assert set(card["heads"]["leave_one_source_out"]) == {"alpha", "beta", "gamma"}
    for name in ("input", "unit", "raters", "licence", "validation"):
        assert len(card[name]) > 10
    weights = (out / "model.safetensors").read_bytes()
    assert card["sha256"] == hashlib.sha256(weights).hexdigest()
    assert card["sha256"] in (out / "README.md").read_text(encoding="utf-8")
    assert LPIPSSat.from_pretrained(out, radiometry="display").card == card


# --- what may not leak


def test_patches_of_one_scene_give_no_interval(judged, tmp_path):
    for name in ("votes.csv", "images.npz"):
        shutil.copy(judged / name, tmp_path / name)
    trials = pd.read_csv(judged / "trials.csv")
    trials = trials.assign(source="alpha", crop=[f"one.png:{i}:0" for i in trials["id"]])
    trials.to_csv(tmp_path / "trials.csv", index=False)
    out = tmp_path / "out"
    calibrate(untrained(), read_judgements(tmp_path), name="mine", out=out)
    text = (out / "config.json").read_text()
    card = json.loads(text, parse_constant=pytest.fail)["card"]  # JSON has no NaN
    for row in card["evidence"]:
        assert (row["references"], row["low"], row["high"]) == (1, None, None)
        assert 0 <= row["agreement"] <= 1


def test_the_validation_trials_change_no_weight(made, judged, tmp_path):
    for file in judged.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    votes = pd.read_csv(tmp_path / "votes.csv")
    held = votes["id"] % 5 == 0
    votes.loc[held, "choice"] = votes.loc[held, "choice"].map({"A": "B", "B": "A"})
    votes.loc[held, "confidence"] = 1
    votes.to_csv(tmp_path / "votes.csv", index=False)
    with np.load(judged / "images.npz") as images:
        changed = {name: images[name].copy() for name in images.files}
    for stack in changed.values():
        stack[::5] = 255 - stack[::5]
    np.savez(tmp_path / "images.npz", **changed)
    out, table = made
    again = calibrate(untrained(), read_judgements(tmp_path), name="mine", out=tmp_path / "out")
    first, second = (load_file(f / "model.safetensors") for f in (out, tmp_path / "out"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    cards = [json.loads((f / "config.json").read_text())["card"] for f in (out, tmp_path / "out")]
    assert cards[0]["heads"] == cards[1]["heads"]
    psnr, flipped = (t.set_index("metric")["agreement"]["PSNR"] for t in (table, again))
    assert flipped == pytest.approx(1 - psnr, abs=1e-3)  # the change did reach the evidence


def test_the_training_votes_do_change_the_weights(made, judged, tmp_path):
    for file in judged.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    votes = pd.read_csv(tmp_path / "votes.csv")
    seen = votes["id"] % 5 == 1
    votes.loc[seen, "choice"] = votes.loc[seen, "choice"].map({"A": "B", "B": "A"})
    votes.to_csv(tmp_path / "votes.csv", index=False)
    calibrate(untrained(), read_judgements(tmp_path), name="mine", out=tmp_path / "out")
    first, second = (load_file(f / "model.safetensors") for f in (made[0], tmp_path / "out"))
    assert any(not torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("keep", "got"),
    [
        (lambda table: table["id"] % 5 != 0, "got 48 and 0"),
        (lambda table: table["id"] % 5 == 0, "got 0 and 12"),
        (lambda table: (table["id"] % 5 == 0) | (table["id"] == 1), "got 1 and 12"),
    ],
)
def test_a_part_that_is_too_small_is_told_before_anything_is_fitted(
    judged, tmp_path, monkeypatch, keep, got
):
    trials = read_judgements(judged)
    monkeypatch.setattr(heads, "per_channel", None)  # a call would be a TypeError
    few = trials.where(keep(trials.table).to_numpy())
    with pytest.raises(JudgementError, match=f"two references or more to fit.* {got}: add"):
        calibrate(untrained(), few, name="mine", out=tmp_path / "out")


def test_leaving_a_source_out_fits_on_the_others_only(judged, monkeypatch):
    training, _ = read_judgements(judged).split()
    source = training.table["source"].to_numpy()
    codes = torch.from_numpy(pd.factorize(source, sort=True)[0]).float()[:, None]
    fitted_on = []

    def record(a, b, share, confidence, *, strength, form):
        assert strength == 0.01
        assert len(a) == len(b) == len(share) == len(confidence)
        fitted_on.append(set(a[:, 0].int().tolist()))
        return torch.ones(1)

    monkeypatch.setattr(heads, "fit", record)
    found = leave_one_source_out(codes, codes, training, 0.01)
    assert fitted_on == [{1, 2}, {0, 2}, {0, 1}]
    assert found == {"alpha": 0.5, "beta": 0.5, "gamma": 0.5}  # all ties


# --- backbones


@pytest.fixture
def pretrained(tmp_path):
    """The folder of a finished pretraining."""
    folder = tmp_path / "pretrained"
    folder.mkdir()
    torch.manual_seed(12)
    backbone = build_backbone("pyramid", CONFIG)
    save_file(backbone.state_dict(), folder / "backbone.safetensors")
    config = {"backbone": "pyramid", "backbone_config": CONFIG, "seed": 5}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_pretrained_backbone_is_loaded_with_its_history(pretrained):
    metric = load_backbone(str(pretrained))
    saved = load_file(pretrained / "backbone.safetensors")
    assert metric.backbone.state_dict().keys() == saved.keys()
    for name, value in metric.backbone.state_dict().items():
        torch.testing.assert_close(value, saved[name], rtol=0, atol=0)
    assert metric.card["pretraining"]["seed"] == 5
    assert all((head == 1).all() for head in metric.heads)


def test_an_unfinished_pretraining_is_refused(pretrained):
    (pretrained / "backbone.safetensors").unlink()
    with pytest.raises(WeightsError, match="no finished pretraining run"):
        load_backbone(str(pretrained))


def test_an_unknown_backbone_is_refused():
    with pytest.raises(WeightsError, match="unknown backbone 'resnet'"):
        load_backbone("resnet")


def test_the_mean_of_weights_names_what_it_is_of(made, pretrained):
    metrics = [load_backbone(str(folder)) for folder in (made[0], made[0], pretrained)]
    states = [{k: v.clone() for k, v in metric.state_dict().items()} for metric in metrics]
    mean = mean_of(metrics)
    for name, value in mean.state_dict().items():
        expected = (2 * states[0][name].double() + states[2][name].double()) / 3
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-7)
    assert [part.get("name") for part in mean.card["backbone"]["mean_of"]] == ["mine", "mine", None]


def test_weights_of_two_networks_have_no_mean(made):
    with pytest.raises(WeightsError, match="only weights of one network have a mean"):
        mean_of([load_backbone(str(made[0])), load_backbone("default")])


# --- the command


@pytest.fixture
def command(run, judged, pretrained, tmp_path):
    def call(*args):
        given = ["--judgements", judged, "--backbone", pretrained, "--out", tmp_path / "mine"]
        return run("calibrate", *given, *args)

    return call


def test_the_command_prints_the_evidence_and_replaces_nothing_unasked(command, tmp_path):
    result = command()
    assert (result.exit_code, result.stderr) == (0, "")
    assert all(label in result.stdout for label in LABELS)
    out = tmp_path / "mine"
    assert LPIPSSat.from_pretrained(out, radiometry="display").card["name"] == "mine"
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    refused = command("--name", "other")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == f"Error: {out} exists: choose another name or pass --overwrite\n"
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert command("--name", "other", "--overwrite").exit_code == 0
    assert sorted(p.name for p in out.iterdir()) == WRITTEN
    assert LPIPSSat.from_pretrained(out, radiometry="display").card["name"] == "other"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "pretrained"]


def test_the_command_never_replaces_a_folder_of_something_else(command, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    result = command("--overwrite")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "is not replaced" in result.stderr
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "mine"


def test_the_command_counts_the_trials_before_it_loads_a_backbone(run, judged, tmp_path):
    for name in ("trials.csv", "images.npz"):
        (tmp_path / name).write_bytes((judged / name).read_bytes())
    votes = pd.read_csv(judged / "votes.csv")
    votes[votes["id"] % 5 != 0].to_csv(tmp_path / "votes.csv", index=False)
    given = ["--judgements", tmp_path, "--backbone", "absent", "--out", tmp_path / "out"]
    result = run("calibrate", *given)
    assert result.exit_code == 1
    assert "one trial or more to validate (id % 5 == 0), got 48 and 0" in result.stderr


def test_a_download_without_its_folder_is_a_usage_error(command, run, tmp_path):
    for result in (
        command("--download"),
        run("annotate", "rebuild", "--out", tmp_path / "new", "--download"),
        run("study", "x.toml", "--judgements", tmp_path, "--download"),
    ):
        assert (result.exit_code, result.stdout) == (2, "")
        assert "--download needs --eurosat" in result.stderr
    for order in (["--download", "--eurosat"], ["--eurosat"]):
        tail = [tmp_path / "chips"] if order[-1] == "--eurosat" else []
        assert "--tune and --eurosat go together" in command(*order, *tail).stderr


def test_the_command_says_what_is_missing(run, pretrained, judged, tmp_path):
    def call(judgements, backbone):
        given = ["--judgements", judgements, "--backbone", backbone, "--out", tmp_path / "out"]
        return run("calibrate", *given)

    for result, message in (
        (call(tmp_path / "absent", pretrained), "holds no judgements"),
        (call(judged, "resnet"), "unknown backbone 'resnet'"),
        (call(judged, judged), "no finished pretraining run"),
    ):
        assert (result.exit_code, result.stdout) == (1, "")
        assert len(result.stderr.splitlines()) == 1
        assert message in result.stderr
    assert not (tmp_path / "out").exists()
