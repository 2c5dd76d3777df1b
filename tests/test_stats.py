from math import inf, nan, sqrt

import numpy as np
import pytest
from scipy import stats

from lpips_sat.errors import MetricInputError
from lpips_sat.stats import (
    bootstrap,
    bootstrap_mean,
    crossed_mean,
    least_clusters,
    paired_differences,
    summarise,
)


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


# --- summaries and paired differences


def test_undefined_scores_are_counted_and_left_out_of_the_mean():
    found = summarise([1.0, nan, 3.0, 8.0], ["a", "a", "b", "b"])
    assert (found.mean.mean, found.median, found.undefined) == (4.0, 3.0, 1)
    assert (found.mean.count, found.mean.clusters) == (3, 2)
    assert found.mean.low < 4 < found.mean.high
    nothing = summarise([nan, nan])
    assert nothing.undefined == 2
    assert np.isnan([nothing.mean.mean, nothing.mean.low, nothing.median]).all()


def test_one_scene_or_an_infinite_score_has_a_mean_and_no_interval():
    for found in (summarise([1.0, 2.0], ["a", "a"]), summarise([1.0, inf], ["a", "b"])):
        assert found.mean.mean in (1.5, inf)
        assert np.isnan([found.mean.low, found.mean.high]).all()


def false_alarms(clusters: int, methods: int, level: float = 0.95) -> float:
    """Share of 200 studies of equal methods in which any two are told apart."""
    found = 0
    for study in range(200):
        rng = np.random.default_rng(study)
        scenes = np.repeat(np.arange(clusters), 3)
        shared = rng.normal(0, 1, (clusters, methods))[scenes]
        values = shared + rng.normal(0, 0.5, shared.shape)
        duels = paired_differences(values, scenes, resamples=300, seed=study, level=level)
        found += any(duel.told_apart for duel in duels.values())
    return found / 200


def test_equal_methods_are_told_apart_in_at_most_5_studies_of_100_whatever_their_number():
    # 200 studies: standard error 1.5 %; three clusters cannot tell anything apart
    assert false_alarms(clusters=20, methods=2) <= 0.08
    assert 0.01 <= false_alarms(clusters=6, methods=8) <= 0.08  # few, and yet not too careful
    assert 0.0 < false_alarms(clusters=20, methods=5, level=0.8) <= 0.26
    assert false_alarms(clusters=3, methods=5) <= 0.05


def test_the_interval_of_two_methods_is_students_when_clusters_are_many_and_equal():
    rng = np.random.default_rng(1)
    values = rng.normal([3.0, 2.0], 1.0, (500, 2))
    delta = values[:, 0] - values[:, 1]
    half = 1.96 * delta.std(ddof=1) / sqrt(500)
    found = paired_differences(values, resamples=4000)[0, 1]
    assert found.mean == pytest.approx(delta.mean())
    assert found.high - found.mean == pytest.approx(half, rel=0.06)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    assert found.told_apart


def test_pairing_finds_a_difference_far_below_the_spread_of_the_images():
    rng = np.random.default_rng(2)
    image = rng.normal(30, 5, 60)
    values = np.stack([image + 0.2 + rng.normal(0, 0.1, 60), image + rng.normal(0, 0.1, 60)], 1)
    found = paired_differences(values)[0, 1]
    assert found.told_apart
    assert found.low > 0.1


def test_six_clusters_tell_apart_what_all_of_them_say_and_five_never_do():
    def told_apart(differences: list[float]) -> bool:
        values = np.stack([np.array(differences), np.zeros(len(differences))], axis=1)
        return paired_differences(values)[0, 1].told_apart

    # of 64 ways to give six signs, 2 are as far from 0 as equal signs: 3 %; with one against, 6 %
    assert told_apart([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert not told_apart([-0.1, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert not told_apart([1.0, 1.1, 0.9, 1.0, 1.0])
    assert [least_clusters(level) for level in (0.5, 0.8, 0.9375, 0.95, 0.99)] == [2, 4, 5, 6, 8]


def test_more_methods_widen_the_intervals():
    values = np.random.default_rng(3).normal(0, 1, (80, 6))
    two, six = paired_differences(values[:, :2])[0, 1], paired_differences(values)[0, 1]
    assert two.mean == pytest.approx(six.mean)
    assert 1.2 < (six.high - six.low) / (two.high - two.low) < 2


def test_what_cannot_be_bounded_is_not_told_apart():
    far = np.array([[1.0, 9.0], [1.1, 9.3], [0.9, 9.1]])
    for clusters in (["a"] * 3, ["a", "a", "b"]):
        found = paired_differences(far, clusters)[0, 1]
        assert found.mean == pytest.approx(-8.133, abs=1e-3)
        assert (found.low, found.high, found.told_apart) == (-inf, inf, False)
    endless = paired_differences(np.array([[inf, 1.0, 1.0], [3.0, 2.0, 1.5], [4.0, 4.5, 3.0]]))
    assert (endless[0, 1].mean, endless[0, 1].told_apart) == (inf, False)
    assert np.isfinite(endless[1, 2].mean)


def test_equal_scores_infinite_ones_too_differ_by_exactly_0():
    column = np.array([inf, 2.0, 3.0, 4.0, 5.0, 6.0])
    found = paired_differences(np.stack([column, column], axis=1))[0, 1]
    assert (found.mean, found.low, found.high, found.told_apart) == (0, 0, 0, False)


def test_differences_of_nothing_or_with_nan_are_errors():
    for values in (np.empty((0, 2)), np.array([[1.0, nan]]), np.ones(3)):
        with pytest.raises(MetricInputError, match="scores"):
            paired_differences(values)


# --- means over clusters and trainings


def test_one_training_has_students_interval_of_the_cluster_means():
    rng = np.random.default_rng(0)
    values, clusters = rng.normal(size=60), np.repeat(np.arange(12), 5)
    found = crossed_mean(values[None], clusters)
    known = stats.ttest_1samp(values.reshape(12, 5).mean(1), 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=1e-12)
    assert (found.mean, found.count) == (pytest.approx(values.mean()), 60)
    assert (found.clusters, found.trainings) == (12, 1)


def test_trainings_that_differ_alone_have_students_interval_of_their_means():
    rows = np.array([-1.0, 0.0, 2.0])[:, None] + np.zeros((3, 30))
    found = crossed_mean(rows, np.repeat(np.arange(10), 3))
    known = stats.ttest_1samp([-1.0, 0.0, 2.0], 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=1e-12)
    assert found.trainings == 3


def test_the_variance_is_that_of_the_two_way_table_and_its_freedom_satterthwaites():
    """By mean squares (Searle, Casella & McCulloch 1992): (MSB + MST - MSE) / (B S)."""
    blocks, trainings = 8, 4
    rng = np.random.default_rng(8)
    values = rng.normal(size=blocks) + rng.normal(size=(trainings, 1))
    values = values + 0.5 * rng.normal(size=(trainings, blocks))
    rows, columns = values.mean(1), values.mean(0)
    left = values - rows[:, None] - columns + values.mean()
    free = blocks - 1, trainings - 1, (blocks - 1) * (trainings - 1)
    squares = (
        trainings * columns.var() * blocks / free[0],
        blocks * rows.var() * trainings / free[1],
        (left**2).sum() / free[2],
    )
    whole = squares[0] + squares[1] - squares[2]
    freedom = whole**2 / sum(s**2 / f for s, f in zip(squares, free, strict=True))
    half = stats.t.ppf(0.975, freedom) * sqrt(whole / values.size)
    least = stats.t.ppf(0.975, free[1]) * sqrt(squares[1] / values.size)
    found = crossed_mean(values, np.arange(blocks))
    assert found.high - found.mean == pytest.approx(max(half, least))
    assert found.mean - found.low == pytest.approx(max(half, least))


def crossed_coverage(sizes, trainings, block, training, noise, *, studies=1000):
    """Share of studies whose interval holds the true mean, 0; spreads of the three effects."""
    rng, hits, clusters = np.random.default_rng(1), 0, np.repeat(np.arange(len(sizes)), sizes)
    for _ in range(studies):
        effects = rng.normal(0, block, len(sizes))[clusters]
        values = effects + rng.normal(0, training, (trainings, 1))
        values = values + rng.normal(0, noise, (trainings, len(clusters)))
        found = crossed_mean(values, clusters)
        hits += found.low <= 0 <= found.high
    return hits / studies


STUDY = (4, 4, 4, 4, 4, 2)  # test patches of the blocks of `s2-b8`


@pytest.mark.parametrize(
    ("sizes", "trainings", "block", "training"),
    [
        pytest.param(STUDY, 3, 1.0, 0.0, id="6x3 blocks"),
        pytest.param(STUDY, 3, 1.0, 0.2, id="6x3 blocks, a little training"),
        pytest.param(STUDY, 3, 1.0, 0.5, id="6x3 both"),
        pytest.param(STUDY, 3, 0.2, 1.0, id="6x3 trainings"),
        pytest.param(STUDY, 3, 0.0, 0.0, id="6x3 neither"),
        pytest.param(STUDY, 1, 1.0, 0.0, id="6x1 blocks"),
        pytest.param((9, 1, 4, 4, 2, 2), 3, 1.0, 0.2, id="6x3 unequal"),
        pytest.param((4,) * 20, 3, 1.0, 0.5, id="20x3 both"),
        pytest.param((4,) * 20, 3, 0.2, 1.0, id="20x3 trainings"),
    ],
)
def test_the_interval_of_few_blocks_and_trainings_holds_its_level(
    sizes, trainings, block, training
):
    # 1000 studies: standard error 0.7 %; resampling blocks and trainings gave 0.77 to 0.88
    assert crossed_coverage(sizes, trainings, block, training, 0.3) >= 0.93


def test_the_interval_is_not_wider_than_it_must_be():
    assert crossed_coverage(STUDY, 3, 1.0, 0.0, 0.3) <= 0.97
    assert crossed_coverage(STUDY, 1, 1.0, 0.0, 0.3) <= 0.97
    assert crossed_coverage(STUDY, 3, 0.2, 1.0, 0.3) <= 0.97


def test_one_training_says_nothing_of_others():
    assert crossed_coverage(STUDY, 1, 0.2, 1.0, 0.3) < 0.4


def test_a_higher_level_reaches_farther_and_equal_scores_nowhere():
    values = np.random.default_rng(0).normal(size=(3, 12))
    clusters = np.repeat(np.arange(6), 2)
    narrow, wide = (crossed_mean(values, clusters, level=level) for level in (0.95, 0.999))
    assert wide.low < narrow.low < narrow.mean == wide.mean
    same = crossed_mean(np.full((3, 12), 0.3), clusters)
    assert (same.low, same.high) == pytest.approx((0.3, 0.3), abs=1e-12)


def test_a_crossed_mean_refuses_a_row_one_cluster_and_nan():
    with pytest.raises(MetricInputError, match=r"expected scores \(S, n\)"):
        crossed_mean(np.zeros(3), [0, 1, 2])
    with pytest.raises(MetricInputError, match="without NaN"):
        crossed_mean(np.full((1, 3), np.nan), [0, 1, 2])
    with pytest.raises(MetricInputError, match="two clusters or more, got one"):
        crossed_mean(np.zeros((2, 3)), [0, 0, 0])


def test_one_cluster_says_nothing_of_others():
    found = bootstrap_mean([0.2, 0.4], ["a", "a"])
    assert (found.mean, found.count, found.clusters) == (pytest.approx(0.3), 2, 1)
    assert np.isnan([found.low, found.high]).all()
    found = bootstrap(lambda rows: float(len(rows)), ["a", "a", "a"])
    assert (found.mean, found.count, found.clusters) == (3, 3, 1)
    assert np.isnan([found.low, found.high]).all()
