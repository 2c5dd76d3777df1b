"""Intervals that respect clusters: tiles of one scene are not independent, scenes are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import MetricInputError


@dataclass(frozen=True)
class Interval:
    """A mean with its percentile bootstrap interval and the numbers it rests on."""

    mean: float
    low: float
    high: float
    count: int
    clusters: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


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
    own. NaN is an error, not silently dropped.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not len(data) or np.isnan(data).any():
        raise MetricInputError(
            f"expected a non-empty list of numbers without NaN, got shape {data.shape} with "
            f"{int(np.isnan(data).sum())} NaN"
        )
    names = np.arange(len(data)) if clusters is None else np.asarray(clusters)
    if len(names) != len(data):
        raise MetricInputError(f"{len(data)} values, but {len(names)} cluster names")
    _, index = np.unique(names, return_inverse=True)
    sums, counts = np.bincount(index, weights=data), np.bincount(index)
    draws = np.random.default_rng(seed).integers(len(sums), size=(resamples, len(sums)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
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

    For means :func:`bootstrap_mean` is faster. Resamples whose statistic is undefined (NaN, such as
    the correlation of a constant) do not count.
    """
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    members = [np.flatnonzero(index == i) for i in range(len(names))]
    draws = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    values = [statistic(np.concatenate([members[i] for i in draw])) for draw in draws]
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    value = statistic(np.arange(len(index)))
    return Interval(float(value), float(low), float(high), len(index), len(names))
