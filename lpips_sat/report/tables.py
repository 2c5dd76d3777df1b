"""The summary table of a report, and how its numbers are written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..results import Results
from ..stats import Summary, summarise

NONE = "\N{EN DASH}"
BETTER = {True: "higher is better", False: "lower is better", None: "best at 0"}


@dataclass(frozen=True)
class Line:
    """One method under one metric, as text; failed: rows without scores."""

    method: str
    mean: str
    interval: str
    median: str
    count: int
    undefined: int
    failed: int


@dataclass(frozen=True)
class MetricSummary:
    """One metric over all methods that were scored with it."""

    name: str
    unit: str
    better: str
    lines: list[Line]


def metric_facts(tables: Mapping[str, Results]) -> dict[str, dict[str, Any]]:
    """Every metric of any table, with what the first table that has it says of it."""
    found: dict[str, dict[str, Any]] = {}
    for table in tables.values():
        for name, facts in table.metrics.items():
            found.setdefault(name, facts)
    return found


def values_of(table: Results, metric: str) -> NDArray[np.float64]:
    """The scores (n,) of a metric in the rows that did not fail, NaN where not defined."""
    return table.scored[metric].to_numpy(dtype=np.float64, na_value=np.nan)


def summaries(tables: Mapping[str, Results]) -> list[MetricSummary]:
    """Mean, clustered interval, median and numbers of rows per metric and method."""
    return [
        MetricSummary(
            name,
            facts["unit"],
            BETTER[facts["higher_is_better"]],
            [
                _line(method, table, name)
                for method, table in tables.items()
                if name in table.metrics
            ],
        )
        for name, facts in metric_facts(tables).items()
    ]


def summary_of(table: Results, metric: str) -> Summary:
    """What a metric amounts to in a table, resampling scenes."""
    return summarise(values_of(table, metric), table.scored["scene"].to_numpy())


def _line(method: str, table: Results, metric: str) -> Line:
    found = summary_of(table, metric)
    mean = found.mean
    interval = (
        f"{number(mean.low)} to {number(mean.high)}" if math.isfinite(mean.low) else "\N{EN DASH}"
    )
    return Line(
        method,
        number(mean.mean),
        interval,
        number(found.median),
        mean.count,
        found.undefined,
        len(table.failed),
    )


def number(value: float) -> str:
    """Four significant digits, with a true minus sign and words for what is no number."""
    if math.isnan(value):
        return NONE
    if math.isinf(value):
        return "∞" if value > 0 else "\N{MINUS SIGN}∞"
    if 0 < abs(value) < 1e-4:
        return f"{value:.2e}".replace("-", "\N{MINUS SIGN}")
    digits = 4 if not value else max(0, min(6, 3 - math.floor(math.log10(abs(value)))))
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")
