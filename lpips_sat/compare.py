"""Several methods on the same images: paired differences, win rates, and ranks that say "tied"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .errors import ResultsError
from .items import listed
from .results import Results
from .stats import Difference, Interval, Summary, bootstrap_mean, paired_differences, summarise


@dataclass(frozen=True)
class Standing:
    """One method under one metric; rank: the best and the worst place it may hold."""

    method: str
    summary: Summary
    rank: tuple[int, int]


@dataclass(frozen=True)
class Duel:
    """Two methods under one metric.

    difference: first - second (of absolute values where neither direction is better); wins: share
    of images on which the first is better, a tie being half a win.
    """

    first: str
    second: str
    difference: Difference
    wins: Interval


@dataclass(frozen=True)
class MetricComparison:
    """All methods under one metric, best mean first; images: those scored by every method."""

    metric: str
    unit: str
    higher_is_better: bool | None
    images: int
    clusters: int
    standings: list[Standing]
    duels: list[Duel]


def compare(
    tables: Mapping[str, Results], *, common: bool = False, level: float = 0.95, seed: int = 0
) -> list[MetricComparison]:
    """Compare methods under every metric that all their tables hold.

    Rows are matched by id (and tile); clusters are the scenes. Differences have simultaneous
    intervals (`lpips_sat.stats.paired_differences`) over all pairs of methods, within one
    metric; a method's rank runs from 1 + the number of methods certainly better to K - the number
    certainly worse. An image whose score is not defined for every method is left out.

    Args:
        tables: by the name of the method, two or more.
        common: compare on what all tables scored, instead of refusing tables that differ.
        level: probability that all differences of a metric lie in their intervals.
        seed: of the bootstrap.

    Raises:
        ResultsError: fewer than two tables, other images, other settings of a metric, or tiles
            beside images.
    """
    if len(tables) < 2:
        raise ResultsError(f"expected two tables or more to compare, got {len(tables)}")
    _check_alike(tables)
    rows = {name: _indexed(name, table) for name, table in tables.items()}
    shared = _shared(tables, rows, common=common)
    scenes = _scenes(rows, shared)
    first, *others = tables.values()
    metrics = [name for name in first.metrics if all(name in other.metrics for other in others)]
    if not metrics:
        raise ResultsError("the tables have no metric in common")
    return [
        _metric(
            metric,
            first.metrics[metric],
            {name: frame.loc[shared, metric].to_numpy() for name, frame in rows.items()},
            scenes,
            level,
            seed,
        )
        for metric in metrics
    ]


def _metric(
    metric: str,
    facts: Mapping[str, Any],
    columns: Mapping[str, NDArray[np.float64]],
    scenes: NDArray[Any],
    level: float,
    seed: int,
) -> MetricComparison:
    values = np.stack(list(columns.values()), axis=1)
    defined = ~np.isnan(values).any(axis=1)
    values, scenes = values[defined], scenes[defined]
    better: bool | None = facts["higher_is_better"]
    if better is None:
        values = np.abs(values)
    names = list(columns)
    duels = _duels(names, values, scenes, better, level, seed) if len(values) else []
    summaries = {
        name: summarise(column, scenes, level=level, seed=seed)
        for name, column in zip(names, values.T, strict=True)
    }
    standings = [Standing(n, s, _rank(n, duels, better, len(names))) for n, s in summaries.items()]
    sign = -1 if better else 1
    standings.sort(key=lambda s: (np.isnan(s.summary.mean.mean), sign * s.summary.mean.mean))
    count = len(np.unique(scenes))
    return MetricComparison(metric, facts["unit"], better, len(values), count, standings, duels)


def _duels(
    names: list[str],
    values: NDArray[np.float64],
    scenes: NDArray[Any],
    better: bool | None,
    level: float,
    seed: int,
) -> list[Duel]:
    differences = paired_differences(values, scenes, level=level, seed=seed)
    found = []
    for i, j in combinations(range(len(names)), 2):
        a, b = (values[:, i], values[:, j]) if better else (values[:, j], values[:, i])
        wins = bootstrap_mean((a > b) + 0.5 * (a == b), scenes, level=level, seed=seed)
        found.append(Duel(names[i], names[j], differences[i, j], wins))
    return found


def _rank(name: str, duels: list[Duel], better: bool | None, methods: int) -> tuple[int, int]:
    ahead = behind = 0
    for duel in duels:
        if name not in (duel.first, duel.second) or not duel.difference.told_apart:
            continue
        first_wins = (duel.difference.mean > 0) == bool(better)
        if first_wins == (name == duel.first):
            behind += 1
        else:
            ahead += 1
    return 1 + ahead, methods - behind


def _check_alike(tables: Mapping[str, Results]) -> None:
    """Refuse tables of other kinds of rows, and metrics that mean something else."""
    (first, table), *others = tables.items()
    for name, other in others:
        if other.tiled != table.tiled:
            raise ResultsError(f"{first} and {name}: one has a row per tile, the other per image")
        for metric in table.metrics.keys() & other.metrics.keys():
            if table.metrics[metric] != other.metrics[metric]:
                raise ResultsError(
                    f"{metric} is not the same in {first} ({table.metrics[metric]}) and {name} "
                    f"({other.metrics[metric]}): score both with the same options"
                )


def _indexed(name: str, results: Results) -> pd.DataFrame:
    keys = ["id", "row", "col"] if results.tiled else ["id"]
    frame = results.scored.set_index(keys)
    if not frame.index.is_unique:
        twice = frame.index[frame.index.duplicated()].unique()
        raise ResultsError(f"{name}: an id occurs more than once: {listed(twice)}")
    return frame


def _shared(
    tables: Mapping[str, Results], rows: Mapping[str, pd.DataFrame], *, common: bool
) -> pd.Index:
    """The ids that every table scored, in the first one's order."""
    shared, *others = [frame.index for frame in rows.values()]
    for index in others:
        shared = shared[shared.isin(index)]
    lines = []
    for name, frame in rows.items():
        anywhere = set().union(*(other.index for other in rows.values()))
        absent = sorted(anywhere - set(frame.index), key=str)
        failed = set(tables[name].failed["id"])
        marked = [
            f"{key} (failed)" if (key[0] if isinstance(key, tuple) else key) in failed else key
            for key in absent
        ]
        if absent:
            lines.append(f"  {name} lacks {len(absent)}: {listed(marked)}")
    if lines and not common:
        raise ResultsError(
            "the tables do not hold the same images:\n"
            + "\n".join(lines)
            + "\n--common compares the images that all of them scored"
        )
    if not len(shared):
        raise ResultsError("no image was scored in all tables: are these the same images?")
    return shared


def _scenes(rows: Mapping[str, pd.DataFrame], shared: pd.Index) -> NDArray[Any]:
    """The scene of every shared row, on which the tables must agree."""
    columns = {name: frame.loc[shared, "scene"].to_numpy() for name, frame in rows.items()}
    (first, scenes), *others = columns.items()
    for name, other in others:
        if (scenes != other).any():
            row = int((scenes != other).argmax())
            raise ResultsError(
                f"{shared[row]} belongs to scene {scenes[row]} in {first}, to {other[row]} in "
                f"{name}: give both manifests the same column scene"
            )
    return scenes
