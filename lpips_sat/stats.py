"""Averages and differences with intervals that respect clusters.

Tiles of one scene are not independent, scenes are: clusters count as a whole, never their rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import inf, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit  # Student's quantiles

from .errors import MetricInputError

# Random numbers drawn at a time, so that memory does not grow with the number of clusters.
CHUNK = 2**21
# Clusters up to which all their signs are tried: 2048 ways, as many as are drawn of more.
FEW = 11


@dataclass(frozen=True)
class Interval:
    """A mean with its interval and the numbers it rests on; NaN where there is none.

    trainings: more than 1 where the interval is over trainings, too; see `crossed_mean`.
    """

    mean: float
    low: float
    high: float
    count: int
    clusters: int
    trainings: int = 1

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def rounded(value: float, digits: int = 4) -> float | None:
    """A number as JSON keeps it; None for NaN, such as an end of an interval that has none."""
    return None if np.isnan(value) else round(value, digits)


def bootstrap_mean(
    values: Sequence[float] | NDArray[Any],
    clusters: Sequence[Any] | NDArray[Any] | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of ``values`` (n,) with an interval that resamples whole ``clusters`` (n,).

    Percentile bootstrap (Efron & Tibshirani 1993, ch. 13). Without clusters every value is its
    own. NaN is an error, not silently dropped. One cluster says nothing of others: its interval is
    NaN.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not len(data) or np.isnan(data).any():
        raise MetricInputError(
            f"expected a non-empty list of numbers without NaN, got shape {data.shape} with "
            f"{int(np.isnan(data).sum())} NaN"
        )
    index = _cluster_index(clusters, len(data))
    sums, counts = np.bincount(index, weights=data), np.bincount(index)
    if len(sums) < 2:
        return Interval(float(data.mean()), nan, nan, len(data), len(sums))
    draws = _draws(len(sums), resamples, seed)
    means = np.concatenate([sums[d].sum(axis=1) / counts[d].sum(axis=1) for d in draws])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(data.mean()), float(low), float(high), len(data), len(sums))


def bootstrap(
    statistic: Callable[[NDArray[np.intp]], float],
    clusters: Sequence[Any] | NDArray[Any],
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Any ``statistic`` of rows (their indices) with an interval that resamples whole ``clusters``.

    For means `bootstrap_mean` is faster. Resamples whose statistic is undefined (NaN, such as
    the correlation of a constant) do not count. The interval of one cluster is NaN.
    """
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    value = float(statistic(np.arange(len(index))))
    if len(names) < 2:
        return Interval(value, nan, nan, len(index), len(names))
    members = [np.flatnonzero(index == i) for i in range(len(names))]
    draws = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    values = [statistic(np.concatenate([members[i] for i in draw])) for draw in draws]
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), len(index), len(names))


def crossed_mean(
    values: NDArray[Any], clusters: Sequence[Any] | NDArray[Any], *, level: float = 0.95
) -> Interval:
    """Mean of ``values`` (S, n), n images under S trainings, with an interval over both.

    Clusters (n,) of images and trainings are two crossed random factors. Let v_c and v_t be the
    variance of the mean as the means of clusters and of trainings show it, and v_e that of what
    neither explains, which both count: the variance is v = v_c + v_t - v_e, at least max(v_c, v_t).
    The interval is the mean +- the largest of t sqrt(v), t sqrt(v_c) and t sqrt(v_t), so never
    narrower than that of clusters or of trainings alone. t is Student's; the degrees of freedom of
    v are Satterthwaite's (1946, doi:10.2307/3002019), at least the fewer of both factors'.

    Clusters weigh by their images: their deviations are those of a linearised ratio, and the
    degrees of freedom those of its variance when all clusters vary alike.

    With one training there is no v_t: the interval is over clusters alone, as
    `Interval.trainings` says, and tells nothing of other trainings.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 2 or not data.size or np.isnan(data).any():
        raise MetricInputError(f"expected scores (S, n) without NaN, got shape {data.shape}")
    index = _cluster_index(clusters, data.shape[1])
    counts = np.bincount(index)
    if len(counts) < 2:
        raise MetricInputError("an interval needs two clusters or more, got one")
    cells = np.stack([np.bincount(index, weights=row) for row in data]) / counts
    parts = _crossed_variances(cells, counts / counts.sum())
    reach = max(float(stdtrit(free, (1 + level) / 2)) * math.sqrt(v) for v, free in parts)
    mean = float(data.mean())
    return Interval(mean, mean - reach, mean + reach, data.size, len(counts), len(data))


def _crossed_variances(
    cells: NDArray[np.float64], weights: NDArray[np.float64]
) -> list[tuple[float, float]]:
    """Variances of the mean of cells (S, C), each with its degrees of freedom: v_c, v_t, v.

    weights (C,) of the clusters add up to 1. v is left out where it is not above both others.
    """
    rows, mean = cells @ weights, float((cells @ weights).mean())
    of_cluster = cells.mean(axis=0) - mean
    # sum(w^2 d^2) of deviations d from the weighted mean is a form x'Ax: its trace, that of A^2
    squares, cross = weights**2, np.eye(len(weights)) - weights - weights[:, None]
    cross += squares.sum()
    trace, of_square = squares @ cross.diagonal(), squares @ cross**2 @ squares
    scale, free = squares.sum() / trace, float(trace**2 / of_square)
    v_c = float(scale * (squares * of_cluster**2).sum())
    count = len(rows)
    if count == 1:
        return [(v_c, free)]
    more = count * (count - 1)
    v_t = float(((rows - mean) ** 2).sum()) / more
    left = cells - of_cluster - rows[:, None]
    v_e = float(scale * (squares * left**2).sum()) / more
    parts = [(v_c, free), (v_t, count - 1.0)]
    v = v_c + v_t - v_e
    if v > max(v_c, v_t):
        errors = v_c**2 / free + v_t**2 / (count - 1) + v_e**2 / (free * (count - 1))
        parts.append((v, max(v**2 / errors, min(free, count - 1))))
    return parts


@dataclass(frozen=True)
class Summary:
    """What a column of scores amounts to.

    mean: with its interval, which needs two clusters and finite scores; median; undefined: how
    many scores are NaN and count nowhere.
    """

    mean: Interval
    median: float
    undefined: int


def summarise(
    values: Sequence[float] | NDArray[Any],
    clusters: Sequence[Any] | NDArray[Any] | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Summary:
    """Mean, interval and median of scores (n,), among which may be NaN and infinities.

    An infinite score (PSNR of identical images) makes the mean infinite.
    """
    data = np.asarray(values, dtype=np.float64)
    index = _cluster_index(clusters, len(data))
    defined = ~np.isnan(data)
    data, index = data[defined], index[defined]
    undefined = int((~defined).sum())
    if not len(data):
        return Summary(Interval(nan, nan, nan, 0, 0), nan, undefined)
    scenes = len(np.unique(index))
    if np.isfinite(data).all():
        mean = bootstrap_mean(data, index, level=level, seed=seed)
    else:
        mean = Interval(float(data.mean()), nan, nan, len(data), scenes)
    return Summary(mean, float(np.median(data)), undefined)


@dataclass(frozen=True)
class Difference:
    """A mean paired difference, first - second, and its simultaneous interval.

    An interval without 0 inside tells the two apart. It is unbounded where the data cannot bound
    it: too few clusters, or infinite scores.
    """

    mean: float
    low: float
    high: float

    @property
    def told_apart(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def paired_differences(
    values: NDArray[Any],
    clusters: Sequence[Any] | NDArray[Any] | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[tuple[int, int], Difference]:
    """Compare the K columns of scores (n, K) of the same n images, every two of them.

    All intervals hold together with probability ``level``: each is mean +- c * its standard
    error, where c is the quantile of the largest |t| over all K (K - 1) / 2 differences when whole
    clusters change sign, as they might if no two columns differed: the wild cluster bootstrap
    with the null imposed (Cameron, Gelbach & Miller 2008, doi:10.1162/rest.90.3.414) of the
    maximum (Romano & Wolf 2005, doi:10.1198/016214504000000539, single step). Unlike Bonferroni's
    it knows that the differences are correlated. Up to 11 clusters all signs are tried; so few that
    95 % cannot be reached, 5 or fewer, bound nothing.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 2 or not len(data) or np.isnan(data).any():
        raise MetricInputError(f"expected scores (n, K) without NaN, got shape {data.shape}")
    pairs = list(combinations(range(data.shape[1]), 2))
    with np.errstate(invalid="ignore"):
        columns = [np.where(data[:, i] == data[:, j], 0, data[:, i] - data[:, j]) for i, j in pairs]
        found = {
            pair: Difference(float(column.mean()), -inf, inf)
            for pair, column in zip(pairs, columns, strict=True)
        }
    finite = [k for k, column in enumerate(columns) if np.isfinite(column).all()]
    index = _cluster_index(clusters, len(data))
    if not finite or index.max() + 1 < least_clusters(level):
        return found
    counts = np.bincount(index).astype(np.float64)
    by_pair = [np.bincount(index, weights=columns[k]) for k in finite]
    sums = np.stack(by_pair, axis=1).astype(np.float64)
    (center,), (error,) = _mean_and_error(np.ones((1, len(counts))), sums, counts)
    largest = []
    for signs in _signs(len(counts), resamples, seed):
        mean, spread = _mean_and_error(signs, sums, counts)
        largest.append(_ratio(np.abs(mean), spread).max(axis=1))
    # "higher": where a difference is the same in all clusters it has no spread and an infinite t
    critical = np.quantile(np.concatenate(largest), level, method="higher")
    critical *= 1 + 1e-9  # the data's own t, if it is this one, must not pass it by rounding
    for k, mean, spread in zip(finite, center, error, strict=True):
        reach = critical * spread if spread > 0 else 0.0
        found[pairs[k]] = Difference(float(mean), float(mean - reach), float(mean + reach))
    return found


def least_clusters(level: float = 0.95) -> int:
    """How many clusters `paired_differences` needs to tell anything apart.

    The signs that C clusters have and their opposite are 2 of 2^C ways.
    """
    return 1 + math.ceil(math.log2(1 / (1 - level)) - 1e-9)


def _mean_and_error(
    signs: NDArray[np.float64], sums: NDArray[np.float64], counts: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means (R, P) when clusters change sign, and their standard errors (linearised ratio).

    signs: 1 or -1 of each of C clusters (R, C); sums (C, P) over each cluster; counts (C,).
    """
    total, whole = counts.sum(), (sums**2).sum(axis=0)
    mean = signs @ sums / total
    squares = whole - 2 * mean * (signs @ (sums * counts[:, None])) + mean**2 * (counts**2).sum()
    tiny = 1e-12 * whole  # what rounding leaves of equal differences
    return mean, np.sqrt(np.where(squares > tiny, squares, 0)) / total


def _ratio(value: NDArray[np.float64], error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Value / error; 0 / 0 is 0, anything else / 0 infinite."""
    size = 1e-9 * np.abs(value).max(initial=0)
    apart = np.where(value > size, inf, 0.0)
    return np.divide(value, error, out=apart, where=error > 0)


def _cluster_index(clusters: Sequence[Any] | NDArray[Any] | None, count: int) -> NDArray[np.intp]:
    """Number the clusters (n,) from 0."""
    names = np.arange(count) if clusters is None else np.asarray(clusters)
    if len(names) != count:
        raise MetricInputError(f"{count} values, but {len(names)} cluster names")
    index: NDArray[np.intp] = np.unique(names, return_inverse=True)[1]
    return index


def _draws(clusters: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Draw clusters with replacement, (R', clusters) at a time, ``resamples`` in all."""
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK // clusters)
    for start in range(0, resamples, rows):
        yield rng.integers(clusters, size=(min(rows, resamples - start), clusters))


def _signs(clusters: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """All ways to give the clusters signs, (R, clusters), if they are few, else random ones."""
    if clusters <= FEW:
        yield np.array(list(product((1.0, -1.0), repeat=clusters)))
        return
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK // clusters)
    for start in range(0, resamples, rows):
        yield rng.choice((1.0, -1.0), size=(min(rows, resamples - start), clusters))
