from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from lpips_sat.calibration.annotate.store import StudyError
from lpips_sat.calibration.annotate.study import REPEAT_GAP, deal
from lpips_sat.calibration.annotate.trials import (
    CHECK_KINDS,
    MAX_PSNR_GAP,
    Plan,
    _dealt,
    _psnr,
    balanced,
    build_trials,
    side,
)
from lpips_sat.calibration.distortions import KINDS

FEW = ("blur", "noise", "shift", "haze")


@pytest.fixture(scope="module")
def trials(patches):
    plan = Plan(60, jnd=20, repeats=0.1, checks=0.1, distortions=FEW)
    return build_trials(patches(plan.patches), plan)


def test_there_are_as_many_of_each_as_planned_with_ids_in_order(trials):
    assert [t.id for t in trials] == list(range(60 + 20 + 8 + 8))
    assert Counter((t.task, t.role) for t in trials if t.role != "repeat") == {
        ("2afc", "main"): 60,
        ("jnd", "main"): 20,
        ("2afc", "check"): 4,
        ("jnd", "check"): 4,
    }
    assert sum(t.role == "repeat" for t in trials) == 8


@pytest.mark.parametrize("count", [7, 60, 200])
def test_pairs_and_kinds_are_balanced(count):
    pairs = [pair for _, pair in balanced(list(combinations(FEW, 2)), count, 3, patches=count)]
    of_pairs = Counter(frozenset(pair) for pair in pairs)
    assert len(pairs) == count
    assert max(of_pairs.values()) - min(of_pairs.values() if count > 6 else [0]) <= 1
    of_kinds = Counter(name for pair in pairs for name in pair)
    assert max(of_kinds.values()) - min(of_kinds.values()) <= 1 + (count % 6 > 0)


def test_all_twenty_kinds_are_balanced_long_before_all_pairs_came():
    pairs = balanced(list(combinations(KINDS, 2)), 100, 0, patches=100)
    of_kinds = Counter(name for _, pair in pairs for name in pair)
    assert set(of_kinds.values()) == {10}


def test_each_kind_is_as_often_on_side_a_as_on_side_b():
    firsts = Counter(_dealt(("blur", "noise"), 1, number)[0] for number in range(2000))
    assert abs(firsts["blur"] - 1000) < 90  # four standard deviations


def test_psnr_alone_rarely_decides(trials):
    gaps = [
        abs(
            peak_signal_noise_ratio(t.ref, t.a, data_range=255)
            - peak_signal_noise_ratio(t.ref, t.b, data_range=255)
        )
        for t in trials
        if (t.task, t.role) == ("2afc", "main")
    ]
    assert np.mean(np.array(gaps) <= MAX_PSNR_GAP) > 0.8


def test_psnr_is_that_of_scikit_image_to_the_last_digits(trials):
    for t in (t for t in trials if (t.task, t.role) == ("2afc", "main")):
        expected = peak_signal_noise_ratio(t.ref, t.a[::-1], data_range=255)
        assert _psnr(t.a[::-1], t.ref) == pytest.approx(expected, rel=1e-14)
    assert _psnr(t.ref, t.ref) == np.inf


def test_checks_show_the_reference_itself_beside_a_wreck(trials):
    for t in (t for t in trials if t.role == "check"):
        if t.task == "2afc":
            right, wrong = (t.a, t.b) if t.answer == "A" else (t.b, t.a)
            np.testing.assert_array_equal(right, t.ref)
            assert {t.distortion_a, t.distortion_b} & set(CHECK_KINDS)
            assert peak_signal_noise_ratio(t.ref, wrong) < 35
        else:
            assert np.array_equal(t.a, t.ref) == (t.answer == "same")
    assert {t.answer for t in trials if t.role == "check"} >= {"A", "B"}


def test_an_image_can_be_made_again_from_its_row(trials, patches):
    patch = {p.crop: p for p in patches(88)}
    for t in trials[:5]:
        again = side(patch[t.crop], t.distortion_b, t.severity_b, (0, 4, t.id, 1))
        np.testing.assert_array_equal(again, t.b)


def test_the_seed_decides_everything(patches):
    def built(seed):
        return build_trials(patches(6), Plan(6, distortions=FEW, seed=seed))

    one, same, other = built(1), built(1), built(2)
    assert [t.severity_a for t in one] == [t.severity_a for t in same]
    assert all(np.array_equal(x.b, y.b) for x, y in zip(one, same, strict=True))
    assert [t.severity_a for t in one] != [t.severity_a for t in other]


def test_methods_are_compared_as_they_came(patches):
    cut = patches(6, versions=("gan", "cnn", "bicubic"))
    trials = build_trials(cut, Plan(6, repeats=0, checks=0))
    for t, patch in zip(trials, cut, strict=True):
        for name, image in ((t.distortion_a, t.a), (t.distortion_b, t.b)):
            np.testing.assert_array_equal(image, patch.versions[name.removeprefix("method:")])
        assert t.severity_a is None
        assert t.severity_b is None
    counts = Counter(frozenset((t.distortion_a, t.distortion_b)) for t in trials)
    assert set(counts.values()) == {2}


def test_no_question_between_methods_is_asked_twice(patches):
    cut = patches(4, versions=("gan", "cnn", "bicubic"))
    trials = build_trials(cut, Plan(12, repeats=0, checks=0))
    asked = Counter((t.crop, frozenset((t.distortion_a, t.distortion_b))) for t in trials)
    assert len(asked) == 12  # each of four patches with each of three pairs
    with pytest.raises(StudyError, match=r"make 12 different trials \(--trials\), but 13 are"):
        build_trials(cut, Plan(13, repeats=0, checks=0))
    alone = build_trials(cut, Plan(2, jnd=12, repeats=0, checks=0))[2:]
    assert len({(t.crop, t.distortion_a) for t in alone}) == 12
    with pytest.raises(StudyError, match=r"make 12 different .* \(--jnd\), but 13 are"):
        build_trials(cut, Plan(2, jnd=13, repeats=0, checks=0))
    distortions = build_trials(patches(2), Plan(12, repeats=0, checks=0, distortions=FEW))
    asked = Counter((t.crop, frozenset((t.distortion_a, t.distortion_b))) for t in distortions)
    assert len(asked) == 12


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"trials": 0}, "at least one trial"),
        ({"trials": 5, "distortions": ("blur", "fog")}, "unknown distortion 'fog'"),
        ({"trials": 5, "repeats": 1.5}, "shares in"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(plan, message):
    with pytest.raises(StudyError, match=message):
        Plan(**plan)


def test_one_kind_alone_cannot_be_compared(patches):
    with pytest.raises(StudyError, match="compares two"):
        build_trials(patches(2), Plan(2, distortions=("blur",)))


# --- who sees what in which order


def test_every_rater_has_an_order_and_swaps_of_their_own(make):
    study = make(30, raters=0)
    plans = [deal(study, rater, Counter()) for rater in range(3)]
    for plan in plans:
        assert sorted(trial for trial, _ in plan) == list(range(30))
        assert sum(swapped for _, swapped in plan) == 15
    assert plans[0] != plans[1] != plans[2]
    assert plans[0] == deal(study, 0, Counter())


def test_repeats_come_later_with_their_sides_swapped(make):
    study = make(60, raters=0, repeats=0.2)
    plan = deal(study, 4, Counter())
    at = {trial: i for i, (trial, _) in enumerate(plan)}
    repeats = study.trials[study.trials["role"] == "repeat"]
    assert len(repeats) == 12
    for trial, of in zip(repeats["id"], repeats["repeat_of"], strict=True):
        room = len(plan) - 1 - at[of]
        assert at[trial] - at[of] >= min(REPEAT_GAP, room) - len(repeats)
        assert at[trial] > at[of]
        assert plan[at[trial]][1] != plan[at[of]][1]


def test_raters_with_fewer_trials_share_them_evenly(make):
    study = make(12, raters=3, per_rater=4)
    with study.store() as store:
        assert set(store.times_dealt().values()) == {1}
        assert len(store.times_dealt()) == 12
