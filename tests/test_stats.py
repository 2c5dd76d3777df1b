from math import nan, sqrt

import numpy as np
import pytest

from lpips_sat.errors import MetricInputError
from lpips_sat.stats import bootstrap_mean


def clustered(
    rng: np.random.Generator, clusters: int, size: int, between: float, within: float
) -> tuple[np.ndarray, np.ndarray]:
    """Values around 0 that share a random offset within each cluster, and the cluster names."""
    offsets = np.repeat(rng.normal(0, between, clusters), size)
    names = np.repeat(np.arange(clusters), size)
    return offsets + rng.normal(0, within, clusters * size), names


def coverage(*, with_clusters: bool) -> float:
    """Share of 300 simulated studies whose 95 % interval holds the true mean, 0."""
    rng = np.random.default_rng(1)
    hits = 0
    for study in range(300):
        values, names = clustered(rng, 40, 6, between=1.0, within=0.5)
        found = bootstrap_mean(values, names if with_clusters else None, resamples=400, seed=study)
        hits += found.low <= 0 <= found.high
    return hits / 300


def test_a_95_percent_interval_of_clustered_data_holds_the_truth_about_95_times_in_100():
    # binomial standard error 1.3 %; percentile intervals of 40 clusters are a little too narrow
    assert 0.90 <= coverage(with_clusters=True) <= 0.985


def test_without_the_clusters_the_interval_would_promise_too_much():
    assert coverage(with_clusters=False) < 0.75


def test_perfectly_correlated_clusters_widen_the_interval_by_the_root_of_their_size():
    values, names = clustered(np.random.default_rng(2), 200, 9, between=1.0, within=0.0)
    whole, apart = bootstrap_mean(values, names), bootstrap_mean(values)
    ratio = (whole.high - whole.low) / (apart.high - apart.low)
    assert ratio == pytest.approx(sqrt(9), rel=0.1)


def test_the_interval_is_that_of_the_central_limit_theorem_when_many_clusters_are_equal():
    values, names = clustered(np.random.default_rng(3), 400, 5, between=1.0, within=1.0)
    of_cluster = values.reshape(400, 5).mean(axis=1)
    half = 1.96 * of_cluster.std(ddof=1) / sqrt(400)
    found = bootstrap_mean(values, names, resamples=4000)
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_clusters_of_unequal_size_weigh_by_their_number_of_values():
    found = bootstrap_mean([0.0] * 9 + [1.0], ["large"] * 9 + ["small"])
    assert found.mean == pytest.approx(0.1)
    assert (found.low, found.high) == (0.0, 1.0)  # a resample may draw one cluster twice
    assert (found.count, found.clusters) == (10, 2)


def test_the_interval_lies_around_the_mean_of_values_and_not_of_cluster_means():
    sizes = np.tile([9, 1], 200)  # large clusters of 0, small ones of 1
    found = bootstrap_mean(np.tile([0.0, 1.0], 200).repeat(sizes), np.arange(400).repeat(sizes))
    assert found.mean == pytest.approx(0.1)
    assert 0.07 < found.low < 0.1 < found.high < 0.13


def test_neither_the_names_nor_the_order_of_clusters_matter():
    values, names = clustered(np.random.default_rng(4), 30, 4, between=1.0, within=1.0)
    letters = [f"scene {name:02d}" for name in names]
    mixed = np.random.default_rng(5).permutation(len(values))
    found, renamed = bootstrap_mean(values, names), bootstrap_mean(values, letters)
    shuffled = bootstrap_mean(values[mixed], names[mixed])
    assert found == renamed
    for field in ("mean", "low", "high"):
        assert getattr(shuffled, field) == pytest.approx(getattr(found, field), abs=1e-12)


def test_the_seed_decides_the_interval_and_not_the_mean():
    values = np.random.default_rng(6).normal(size=50)
    first, again, other = (bootstrap_mean(values, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.mean == other.mean == pytest.approx(values.mean())
    assert (first.low, first.high) != (other.low, other.high)


def test_the_global_random_state_is_neither_used_nor_changed():
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - it must stay as it is
    bootstrap_mean([1.0, 2.0, 3.0])
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_a_higher_level_is_a_wider_interval_around_the_same_mean():
    values = np.random.default_rng(7).normal(size=60)
    narrow, wide = bootstrap_mean(values, level=0.5), bootstrap_mean(values, level=0.99)
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_equal_values_have_an_interval_without_width():
    found = bootstrap_mean([0.25] * 12)
    assert (found.mean, found.low, found.high) == (0.25, 0.25, 0.25)


def test_an_interval_prints_as_mean_and_bounds():
    assert str(bootstrap_mean([0.5, 0.5])) == "0.500 [0.500, 0.500]"


@pytest.mark.parametrize(
    ("values", "said"),
    [([1.0, nan, nan], r"shape \(3,\) with 2 NaN"), ([], r"\(0,\)"), ([[1.0, 2.0]], r"\(1, 2\)")],
)
def test_nan_nothing_and_tables_are_errors_and_not_dropped(values, said):
    with pytest.raises(MetricInputError, match=said):
        bootstrap_mean(values)


def test_each_value_needs_a_cluster():
    with pytest.raises(MetricInputError, match="3 values, but 2 cluster names"):
        bootstrap_mean([1.0, 2.0, 3.0], ["a", "b"])
