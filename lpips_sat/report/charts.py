"""How the scores of each metric are distributed, as the geometry of small histograms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..results import Results
from .tables import metric_facts, number, summary_of, values_of

BINS = 32
WIDTH, HEIGHT = 100.0, 30.0  # of a histogram, in its own units


@dataclass(frozen=True)
class Strip:
    """One method's histogram: bars (x, y, width, height); interval: x of its mean's, if any."""

    method: str
    bars: list[tuple[float, float, float, float]]
    mean: float
    interval: tuple[float, float] | None
    left_out: int


@dataclass(frozen=True)
class Chart:
    """One metric's histograms on one axis from `low` to `high`."""

    metric: str
    unit: str
    low: str
    high: str
    strips: list[Strip]


def charts(tables: Mapping[str, Results]) -> list[Chart]:
    """A chart of every metric that has finite scores."""
    made = (
        _chart(name, str(facts["unit"]), tables) for name, facts in metric_facts(tables).items()
    )
    return [chart for chart in made if chart is not None]


def _chart(metric: str, unit: str, tables: Mapping[str, Results]) -> Chart | None:
    having = {method: table for method, table in tables.items() if metric in table.metrics}
    columns = {method: values_of(table, metric) for method, table in having.items()}
    finite = np.concatenate([v[np.isfinite(v)] for v in columns.values()])
    if not finite.size:
        return None
    low, high = float(finite.min()), float(finite.max())
    if low == high:  # a single value lies in the middle
        low, high = low - (abs(low) or 1.0) / 10, high + (abs(high) or 1.0) / 10
    counts = {
        method: np.histogram(v[np.isfinite(v)], bins=BINS, range=(low, high))[0]
        for method, v in columns.items()
    }
    top = max(int(c.max()) for c in counts.values())

    def at(value: float) -> float:
        return round(WIDTH * (value - low) / (high - low), 2)

    strips = []
    for method, table in having.items():
        found = summary_of(table, metric)
        known = math.isfinite(found.mean.low)
        strips.append(
            Strip(
                method,
                [
                    (
                        round(WIDTH * i / BINS, 2),
                        round(HEIGHT * (1 - n / top), 2),
                        round(0.92 * WIDTH / BINS, 2),
                        round(HEIGHT * n / top, 2),
                    )
                    for i, n in enumerate(counts[method].tolist())
                    if n
                ],
                at(found.mean.mean) if math.isfinite(found.mean.mean) else -1.0,
                (at(found.mean.low), at(found.mean.high)) if known else None,
                int((~np.isfinite(columns[method])).sum()),
            )
        )
    return Chart(metric, unit, number(low), number(high), strips)
