"""The table of the experiment in numbers: means and gaps, with intervals over blocks and seeds.

Every interval is over the blocks of the test images and over the trainings: it says what other
blocks and other trainings would change, see `lpips_sat.stats.crossed_mean`. With one training it
speaks of blocks alone (`over` says which), with one block there is none (NaN).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lpips_sat.errors import ResultsError
from lpips_sat.stats import Interval, crossed_mean
from lpips_sat.suites import METRICS

from .results import CaseResults

TEST = "test"
LEVEL = 0.95
CELL = ["model", "case", "estimate", "split", "metric"]  # what one interval is of


@dataclass(frozen=True)
class Cell:
    """One number of the experiment: a metric's mean over patches and `seeds` trainings."""

    model: str
    case: str
    estimate: str
    split: str
    metric: str
    seeds: int
    interval: Interval


def summarise(results: CaseResults) -> list[Cell]:
    """Every number that the table holds, in its order."""
    found = []
    for key, rows in results.table.groupby(CELL, sort=False):
        model, case, estimate, split, metric = map(str, key)
        cell = (model, case, estimate, split, metric)
        found.append(Cell(*cell, rows["seed"].nunique(), interval_of(grid_of(rows), rows)))
    return found


def mean_of(
    results: CaseResults,
    model: str,
    case: str,
    metric: str,
    *,
    estimate: str = "sample",
    split: str = TEST,
) -> Interval:
    """The mean of a metric over patches and seeds.

    Raises:
        ResultsError: the table has no such rows, and what it has.
    """
    rows = _rows(results, model, case, metric, estimate, split)
    return interval_of(grid_of(rows), rows)


def gap_of(
    results: CaseResults,
    model: str,
    metric: str,
    *,
    cases: tuple[str, str] = ("II", "I"),
    estimate: str = "sample",
    split: str = TEST,
) -> Interval:
    """What real images cost: case II - case I (or other `cases`), paired by patch and seed.

    Seeds and patches that only one of both has do not count.

    Raises:
        ResultsError: the table lacks one of the cases, or they share no seed.
    """
    rows = [_rows(results, model, case, metric, estimate, split) for case in cases]
    one, two = (grid_of(part) for part in rows)
    if one.index.intersection(two.index).empty:
        raise ResultsError(
            f"{model}: cases {' and '.join(cases)} have no seed in common (seeds "
            f"{', '.join(map(str, one.index))} and {', '.join(map(str, two.index))}): evaluate "
            "both with the same seeds"
        )
    return interval_of(paired(one, two), rows[0])


def paired(one: pd.DataFrame, two: pd.DataFrame) -> pd.DataFrame:
    """Subtract grids (seeds x patches) where both have values; equal infinities differ by 0."""
    shared, patches = one.index.intersection(two.index), one.columns.intersection(two.columns)
    first, second = (grid.loc[shared, patches] for grid in (one, two))
    with np.errstate(invalid="ignore"):
        return (first - second).mask(first == second, 0.0)


def interval_of(values: pd.DataFrame, rows: pd.DataFrame) -> Interval:
    """The mean of values (seeds x patches) with its interval; `rows` tell each patch's block.

    Patches without a value (NaN) under some seed count nowhere; infinite values have no interval.
    """
    values = values.dropna(axis="columns")
    blocks = rows.drop_duplicates("patch").set_index("patch")["block"]
    return crossed_interval(values.to_numpy(np.float64), blocks[values.columns].to_numpy())


def crossed_interval(
    values: npt.NDArray[np.float64],
    blocks: Sequence[str] | npt.NDArray[Any],
    *,
    level: float = LEVEL,
) -> Interval:
    """The mean of values (S trainings, n patches) of n blocks with its interval, where it has one.

    NaN stands for an interval of fewer than two blocks or of infinite values.
    """
    count = len(set(blocks))
    if count > 1 and np.isfinite(values).all():
        return crossed_mean(values, blocks, level=level)
    mean = float(values.mean()) if values.size else nan
    return Interval(mean, nan, nan, values.size, count, len(values))


def told_apart(difference: Interval) -> bool:
    """Whether an interval leaves out 0."""
    return difference.low > 0 or difference.high < 0


def times(trainings: Iterable[int]) -> str:
    """How often models were trained: "1 training", "3 trainings", "2 to 3 trainings"."""
    counts = sorted(trainings) or [1]
    many = " to ".join(dict.fromkeys(map(str, (counts[0], counts[-1]))))
    return f"{many} training{'s' if counts[-1] > 1 else ''}"


def over(trainings: Iterable[int]) -> str:
    """What intervals are over, given how often models were trained."""
    counts = list(trainings)
    what = "blocks and trainings" if max(counts, default=1) > 1 else "blocks alone"
    return f"over {what}, {times(counts)} of each model"


def means_the_same(metric: str) -> bool:
    """Whether a metric is comparable between cases: not if it looks at the LR image."""
    return metric not in METRICS or "lr" not in METRICS[metric].needs


def _rows(results: CaseResults, *wanted: str) -> pd.DataFrame:
    """The rows of one cell, all seeds; wanted: model, case, metric, estimate, split."""
    table = results.table
    names = ("model", "case", "metric", "estimate", "split")
    chosen = table
    for name, value in zip(names, wanted, strict=True):
        have = ", ".join(map(str, chosen[name].unique()))
        chosen = chosen[chosen[name] == value]
        if chosen.empty:
            raise ResultsError(
                f"the table has no {name} {value!r} for {' '.join(wanted[:2])}, only "
                f"{have or 'nothing'}: run `mindgap evaluate` for it"
            )
    return chosen


def grid_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Values of one cell (seeds x patches); NaN where there is none."""
    return rows.pivot(index="seed", columns="patch", values="value")
