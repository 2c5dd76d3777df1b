from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lpips_sat.calibration.judgements import JudgementError, Judgements, read_judgements
from lpips_sat.calibration.teacher import Teacher, cross_validate, fit_teacher, prefer_b

BOTH = pytest.mark.parametrize("networks", [0, 1], ids=["linear", "network"])


@pytest.fixture(scope="module")
def trials(release, tmp_path_factory) -> Judgements:
    return read_judgements(release(tmp_path_factory.mktemp("teach") / "release", side=64))


def noisy(trials: Judgements, teacher: Teacher, severity: float) -> np.ndarray:
    """The teacher's opinion of eight references with noise of a severity."""
    refs = trials.ref[:8]
    noise = np.random.default_rng(1).standard_normal(refs.shape)
    shown = np.clip(refs + 255 * 0.12 * severity * noise, 0, 255).astype(np.uint8)
    return teacher.disutility(["noise"] * 8, np.full(8, severity), refs, shown)


@BOTH
def test_it_learns_what_the_raters_mind_more(trials, networks):
    assert cross_validate(trials, networks=networks) > 0.8
    blank = trials.table.assign(share_b=np.random.default_rng(0).integers(2, size=len(trials)))
    assert cross_validate(replace(trials, table=blank), networks=networks) < 0.7


@BOTH
def test_it_finds_a_stronger_distortion_of_one_kind_worse(trials, networks):
    teacher = fit_teacher(trials, networks=networks)
    assert (noisy(trials, teacher, 1.0) > noisy(trials, teacher, 0.2)).all()


@BOTH
def test_it_has_no_opinion_on_a_kind_that_was_never_judged(trials, networks):
    teacher = fit_teacher(trials, networks=networks)
    told = teacher.disutility(["cloud", "blur"], np.array([0.5, 0.5]), trials.ref[:2], trials.a[:2])
    assert np.isnan(told[0])
    assert np.isfinite(told[1])


@BOTH
def test_a_trial_told_the_other_way_round_gives_the_opposite_opinion(trials, networks):
    teacher = fit_teacher(trials, networks=networks)
    sides = {"a": "b", "b": "a"}
    table = trials.table.rename(
        columns={
            f"{of}_{x}": f"{of}_{y}" for of in ("distortion", "severity") for x, y in sides.items()
        }
    )
    turned = replace(trials, table=table, a=trials.b, b=trials.a)
    of_a, of_b = prefer_b(teacher, trials)
    assert np.array_equal(prefer_b(teacher, turned), (of_b, of_a))


def test_networks_follow_from_the_votes_alone_and_leave_the_caller_its_random_numbers(trials):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    once = fit_teacher(trials, networks=2)
    assert torch.equal(torch.rand(1), expected)
    again = fit_teacher(trials, networks=2)
    assert np.array_equal(prefer_b(once, trials), prefer_b(again, trials))
    alone = fit_teacher(trials, networks=1)
    assert not np.array_equal(prefer_b(once, trials), prefer_b(alone, trials))


def test_trials_without_severities_have_no_teacher(trials):
    blank = replace(trials, table=trials.table.assign(severity_a=np.nan))
    with pytest.raises(JudgementError, match="a severity is not known: calibrate without --tune"):
        fit_teacher(blank)
