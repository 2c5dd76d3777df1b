"""What the table of the experiment holds, and its numbers by model, case and metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lpips_sat.errors import ResultsError
from lpips_sat.stats import Interval

from ..experiment.cases import CASES
from ..experiment.results import CaseResults, untrained
from ..experiment.summary import (
    TEST,
    Cell,
    crossed_interval,
    gap_of,
    grid_of,
    means_the_same,
    paired,
    summarise,
)
from .content import decimals

FIRST, LAST = ("bicubic", "regression"), "ceiling"  # where controls stand among the models
CONTROLS = ("bicubic", LAST)
COST = ("nfe", "seconds")
SAMPLE = "sample"
OUTLYING = 100  # times the median: a mean that does not decide how the others are written


class Numbers:
    """The numbers of one table; means and gaps have the intervals of `experiment.summary`."""

    def __init__(self, results: CaseResults) -> None:
        self.results, self.table = results, results.table
        self._gaps: dict[tuple[str, str, tuple[str, str]], Interval | None] = {}

    @cached_property
    def models(self) -> list[str]:
        """Controls without training, trained models in the order of the table, the ceiling."""
        found = list(map(str, self.table["model"].unique()))
        first = [name for name in FIRST if name in found]
        rest = [name for name in found if name not in (*first, LAST)]
        return [*first, *rest, *([LAST] if LAST in found else [])]

    @property
    def rivals(self) -> list[str]:
        """The models without the ceiling, which knows the truth."""
        return [name for name in self.models if name != LAST]

    @property
    def foreign(self) -> list[str]:
        """The models that were tested as they came."""
        known: dict[str, Any] = self.results.provenance.get("weights", {})
        kinds = ("real", "synthetic")
        return [m for m in self.models if {untrained(m, kind) for kind in kinds} & set(known)]

    @property
    def trained(self) -> list[str]:
        """The models that were trained for the table, in both regimes or in one."""
        return [name for name in self.models if name not in CONTROLS and name not in self.foreign]

    @cached_property
    def cases(self) -> list[str]:
        """The cases that the table has."""
        found = set(self.table["case"])
        return [name for name in CASES if name in found]

    @cached_property
    def metrics(self) -> list[str]:
        """The metrics of quality, in the order of the provenance."""
        found = list(map(str, self.table["metric"].unique()))
        ordered = [*self.results.provenance.get("metrics", {}), *found]
        return [name for name in dict.fromkeys(ordered) if name in found and name not in COST]

    @property
    def between_cases(self) -> list[str]:
        """The metrics that mean the same in all cases: those that do not look at LR."""
        return [metric for metric in self.metrics if means_the_same(metric)]

    def unit(self, metric: str) -> str:
        """The unit, or nothing."""
        return str(self._facts(metric).get("unit") or "")

    def higher_is_better(self, metric: str) -> bool | None:
        """None: best at 0, or not known."""
        return self._facts(metric).get("higher_is_better")

    def settings(self, metric: str) -> dict[str, Any]:
        """How it was computed."""
        return dict(self._facts(metric).get("settings") or {})

    def digits(self, metric: str) -> int:
        """Decimals to write: two of dB, else three significant digits of the largest mean.

        Of the median where the largest is far out, as that of a training that diverged.
        """
        if self.unit(metric) == "dB":
            return 2
        means = [abs(c.interval.mean) for key, c in self._cells.items() if key[2] == metric]
        sizes = [mean for mean in means if np.isfinite(mean) and mean > 0] or [0.0]
        middle, largest = float(np.median(sizes)), max(sizes)
        return decimals(largest if largest < OUTLYING * middle else middle)

    def seeds(self, model: str) -> int:
        """How many trainings the table has of a model."""
        return int(self.table.loc[self.table["model"] == model, "seed"].nunique())

    def size(self, split: str = TEST) -> tuple[int, int]:
        """Numbers of patches and of blocks."""
        rows = self.table[self.table["split"] == split]
        return int(rows["patch"].nunique()), int(rows["block"].nunique())

    @cached_property
    def _cells(self) -> dict[tuple[str, ...], Cell]:
        cells = summarise(self.results)
        return {(c.model, c.case, c.metric, c.estimate, c.split): c for c in cells}

    def mean(
        self, model: str, case: str, metric: str, estimate: str = SAMPLE, split: str = TEST
    ) -> Interval | None:
        """A mean, if the table has it."""
        cell = self._cells.get((model, case, metric, estimate, split))
        return None if cell is None else cell.interval

    def gap(self, model: str, metric: str, cases: tuple[str, str] = ("II", "I")) -> Interval | None:
        """A difference between two cases paired by patch, if the table has both."""
        key = (model, metric, cases)
        if key not in self._gaps:
            try:
                self._gaps[key] = gap_of(self.results, model, metric, cases=cases)
            except ResultsError:
                self._gaps[key] = None
        return self._gaps[key]

    def value(self, model: str, case: str, metric: str, patch: str) -> float | None:
        """The value of one patch under the first training, if the table has it."""
        rows = self._rows(case, metric)
        rows = rows[(rows["model"] == model) & (rows["patch"] == patch)]
        return None if rows.empty else float(rows.sort_values("seed")["value"].iloc[0])

    def differences(
        self, grids: Mapping[str, pd.DataFrame], *, level: float
    ) -> dict[tuple[str, str], Interval]:
        """Every two models of `grids` (seeds x patches), first - second, paired by both.

        All intervals hold together with probability `level` (Bonferroni). One of a model that was
        not trained here is compared with every training of the other.
        """
        pairs = list(combinations(grids, 2))
        each = 1 - (1 - level) / max(len(pairs), 1)
        found = {}
        for one, two in pairs:
            first, second = grids[one], grids[two]
            if one not in self.trained:
                first = first.iloc[[0] * len(second)].set_index(second.index)
            if two not in self.trained:
                second = second.iloc[[0] * len(first)].set_index(first.index)
            values = paired(first, second).dropna(axis="columns")
            blocks = self.blocks(list(values.columns))
            found[one, two] = crossed_interval(values.to_numpy(np.float64), blocks, level=each)
        return found

    def grids(self, case: str, metric: str) -> dict[str, pd.DataFrame]:
        """Values (seeds x patches) of every rival that the table has in a case."""
        rows = self._rows(case, metric)
        models = [model for model in self.rivals if (rows["model"] == model).any()]
        return {model: grid_of(rows[rows["model"] == model]) for model in models}

    def gap_grids(self, metric: str) -> dict[str, pd.DataFrame]:
        """II - I (seeds x patches) of every trained model that has both."""
        one, two = (self.grids(case, metric) for case in ("II", "I"))
        both = [model for model in self.trained if model in one and model in two]
        return {model: paired(one[model], two[model]) for model in both}

    @property
    def trainings(self) -> list[int]:
        """How often each of `trained` was trained."""
        return [self.seeds(model) for model in self.trained]

    def per_patch(self, case: str, metric: str, model: str) -> pd.Series[float]:
        """The mean over trainings of every patch that has a value."""
        rows = self._rows(case, metric)
        return rows[rows["model"] == model].groupby("patch")["value"].mean().dropna()

    def blocks(self, patches: Sequence[str]) -> npt.NDArray[Any]:
        """The block of every patch."""
        return self._blocks.loc[list(patches)].to_numpy()

    @cached_property
    def _blocks(self) -> pd.Series[str]:
        return self.table.drop_duplicates("patch").set_index("patch")["block"]

    def patch_gap(self, model: str, metric: str) -> pd.Series[float]:
        """II - I of every patch, trainings averaged; empty if the table lacks one."""
        two, one = (self.per_patch(case, metric, model) for case in ("II", "I"))
        return (two - one).dropna()

    def effect(self, model: str, metric: str) -> float:
        """The gap II - I over its standard deviation between patches."""
        gaps = self.patch_gap(model, metric)
        mean, spread = float(gaps.mean()), float(gaps.std(ddof=1))
        return mean / spread if spread > 1e-9 * abs(mean) else np.nan  # else all are one number

    def _facts(self, metric: str) -> dict[str, Any]:
        known: dict[str, Any] = self.results.provenance.get("metrics", {})
        return dict(known.get(metric, {}))

    def _rows(self, case: str, metric: str) -> pd.DataFrame:
        table = self.table
        return table[
            (table["case"] == case)
            & (table["metric"] == metric)
            & (table["estimate"] == SAMPLE)
            & (table["split"] == TEST)
        ]
