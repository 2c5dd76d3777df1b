from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from lpips_sat.errors import ResultsError
from sr_models.data.factors import FACTORS, fit_factors
from sr_models.data.pairs import PairDataset, read_about
from sr_models.experiment.attribution import attribute, units_of
from sr_models.experiment.contenders import Plain
from sr_models.experiment.gap import REST, STATES, SUBSETS, attributions, gaps, shapley
from sr_models.experiment.results import CaseResults
from sr_models.experiment.scores import Scores
from sr_models.registry import Bicubic


def rng():
    return np.random.default_rng(9)


def shares_of(root, synthetic, metrics=("psnr",), seed=0):
    """Bicubic's gap on a set, attributed, by metric."""
    factors = fit_factors(PairDataset(root, "train"), synthetic)
    scores = Scores(read_about(root), 96, metrics)
    how = {"degradation": synthetic, "seed": seed}
    rows = attribute(Plain(Bicubic()), root, factors, scores, **how)
    table = CaseResults.from_rows([{"model": "bicubic", "seed": 0, **row} for row in rows], {})
    return attributions(table)


def test_shares_are_the_mean_over_all_orders():
    values = np.random.default_rng(0).normal(size=(3, 16))
    score = {frozenset(on): values[:, i] for i, on in enumerate(SUBSETS)}
    taken = {factor: [] for factor in FACTORS}
    for order in permutations(FACTORS):
        for place, factor in enumerate(order):
            before = frozenset(order[:place])
            taken[factor].append(score[before] - score[before | {factor}])
    expected = np.stack([np.mean(taken[factor], axis=0) for factor in FACTORS], axis=1)
    assert shapley(values) == pytest.approx(expected, abs=1e-12)


def test_a_factor_that_changes_nothing_has_no_share_and_equals_share_alike():
    gain = {"registration": 0.0, "radiometry": 1.0, "mtf": 1.0, "noise": 3.0}
    values = np.array([sum(gain[f] for f in on) ** 2 for on in SUBSETS])
    registration, radiometry, mtf, noise = shapley(values)
    assert registration == pytest.approx(0, abs=1e-12)
    assert radiometry == pytest.approx(mtf)
    assert radiometry + mtf + noise == pytest.approx(-25)


# What the real sensor does that the synthetic one does not, and what that is.
DIFFERENCES = {
    "registration": lambda sensor, moved: lambda x: sensor()(moved(x, 0.7, -0.5), rng()),
    "radiometry": lambda sensor, moved: lambda x: 1.08 * sensor()(x, rng()) + 0.003,
    "mtf": lambda sensor, moved: lambda x: sensor(mtf=0.15)(x, rng()),
    "noise": lambda sensor, moved: lambda x: sensor(snr=12)(x, rng()),
}


@pytest.mark.parametrize("factor", FACTORS)
def test_a_single_difference_gets_nine_tenths_of_the_gap(
    write_set, sensor, moved, hr, tmp_path, factor
):
    root = write_set(tmp_path / "set", hr, DIFFERENCES[factor](sensor, moved))
    for found in shares_of(root, sensor(), ("psnr", "rmse")):
        parts = {name: values.mean() / found.gap.mean() for name, values in found.shares.items()}
        assert abs(found.gap.mean()) > {"psnr": 0.4, "rmse": 1e-3}[found.metric]
        assert parts.pop(factor) >= 0.9
        assert all(abs(part) < 0.1 for part in parts.values()), parts


@pytest.mark.parametrize(
    ("factor", "synthetic"), [("noise", {"snr": 12}), ("mtf", {"mtf": 0.2})], ids=str
)
def test_a_sensor_better_than_the_synthetic_one_is_explained_too(
    write_set, sensor, hr, tmp_path, factor, synthetic
):
    root = write_set(tmp_path / "set", hr, lambda image: sensor()(image, rng()))
    (found,) = shares_of(root, sensor(**synthetic))
    assert found.gap.mean() > 0.3
    assert found.shares[factor].mean() / found.gap.mean() == pytest.approx(1, abs=0.1)


def test_without_a_difference_there_is_no_gap_and_no_share(write_set, sensor, hr, tmp_path):
    root = write_set(tmp_path / "set", hr, lambda image: sensor()(image, rng()))
    (found,) = shares_of(root, sensor())
    parts = {"gap": found.gap, **found.shares}
    assert {name for name, part in parts.items() if abs(part.mean()) > 0.02} == set()


def test_shares_add_up_to_the_gap_and_have_intervals(write_set, sensor, moved, hr, tmp_path):
    other = sensor(mtf=0.2, snr=40)
    root = write_set(tmp_path / "set", hr, lambda x: 1.1 * other(moved(x, 0.4, 0.2), rng()))
    metrics = ("psnr", "ssim", "mae")
    found = shares_of(root, sensor(), metrics)
    assert [a.metric for a in found] == list(metrics)
    for one in found:
        assert one.values.shape == (1, len(STATES), 12)
        assert np.isfinite(one.values).all()
        assert len(set(one.blocks)) == 3
        assert sum(one.shares.values()) == pytest.approx(one.gap, abs=1e-9)
        parts = one.intervals()
        assert sum(parts[f].mean for f in (*FACTORS, REST)) == pytest.approx(
            parts["gap"].mean, abs=1e-9
        )
        assert all(part.low <= part.mean <= part.high for part in parts.values())
    again, other_noise = shares_of(root, sensor()), shares_of(root, sensor(), seed=1)
    assert np.array_equal(again[0].values, found[0].values)
    assert np.array_equal(other_noise[0].gap, found[0].gap)


def test_a_table_without_some_state_is_refused():
    row = {"model": "m", "seed": 0, "estimate": "sample", "split": "test", "metric": "psnr"}
    rows = [
        {**row, "case": state, "patch": "a", "block": "0", "value": 1.0} for state in STATES[:-1]
    ]
    with pytest.raises(ResultsError, match="lacks states of m: expected what `mindgap gap"):
        attributions(CaseResults.from_rows(rows, {}))
    with pytest.raises(ResultsError, match="no model of the table was tested in the cases I and"):
        gaps(CaseResults.from_rows(rows, {"metrics": {"psnr": {}}}))


def test_the_first_trainings_alone_can_be_asked_for():
    def rows(seed):
        known = {"model": "sr3", "estimate": "sample", "split": "test", "patch": "p", "block": "b"}
        known |= {"seed": seed, "metric": "psnr", "value": 1.0}
        return [known | {"case": case} for case in ("I", "II")]

    table = CaseResults.from_rows([row for seed in range(3) for row in rows(seed)], {})
    assert units_of(table) == [("sr3", 0), ("sr3", 1), ("sr3", 2)]
    assert units_of(table, seeds=2) == [("sr3", 0), ("sr3", 1)]
