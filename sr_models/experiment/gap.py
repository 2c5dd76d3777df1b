"""Why the gap is there: II - I shared among registration, radiometry, MTF and noise, and a rest.

Let v(U) be a patch's score when the factors U are turned off in the real LR image, and v(I) that of
the synthetic one. The share of factor i is its Shapley value (1953), the mean over all orders of
turning the factors off of what turning off i takes away:

    share(i) = sum over U without i of |U|! (3 - |U|)! / 4! (v(U) - v(U and i))

The rest, v(all) - v(I), is what no factor explains: other spectral responses, other light. Shares
and rest add up to the gap v(none) - v(I) = II - I, patch by patch, and have its sign.

The scores are kept as a table of the experiment, in which "II" and "I" are the cases and
"II-registration-mtf" is II with these two turned off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt
import pandas as pd

from lpips_sat.errors import ResultsError
from lpips_sat.stats import Interval

from ..data.factors import FACTORS
from .results import CaseResults
from .summary import crossed_interval, gap_of, means_the_same

Array = npt.NDArray[np.float64]
REST = "rest"
# What is turned off: nothing first, all four last.
SUBSETS = tuple(on for size in range(len(FACTORS) + 1) for on in combinations(FACTORS, size))
STATES = (*("-".join(("II", *on)) for on in SUBSETS), "I")


def shapley(values: Array) -> Array:
    """Shares of the factors (..., 4) in v(none) - v(all), of scores (..., 16) of `SUBSETS`."""
    return values @ _weights()


def _weights() -> Array:
    """With which weight each subset's score counts in each factor's share: (16, 4)."""
    count = len(FACTORS)
    weights = np.zeros((len(SUBSETS), count))
    for row, on in enumerate(SUBSETS):
        for column, factor in enumerate(FACTORS):
            size = len(on) - (factor in on)  # of the subset without the factor
            sign = -1 if factor in on else 1
            weights[row, column] = sign / (count * comb(count - 1, size))
    return weights


@dataclass(frozen=True)
class Attribution:
    """A model's gap in one metric, shared out.

    values: scores (S, 17, n) of S trainings in the `STATES`, on n patches; seeds (S,), patches and
    blocks (n,) name them.
    """

    model: str
    metric: str
    seeds: tuple[int, ...]
    patches: tuple[str, ...]
    blocks: tuple[str, ...]
    values: Array

    @property
    def gap(self) -> Array:
        """II - I per training and patch (S, n)."""
        return self.values[:, 0] - self.values[:, -1]

    @property
    def shares(self) -> dict[str, Array]:
        """Each factor's share, and the rest, per training and patch (S, n)."""
        each = shapley(np.moveaxis(self.values[:, :-1], 1, -1))
        found = {factor: each[..., i] for i, factor in enumerate(FACTORS)}
        return {**found, REST: self.values[:, -2] - self.values[:, -1]}

    def intervals(self) -> dict[str, Interval]:
        """Means of "gap", of the shares and of the rest, over blocks and trainings."""
        parts = {"gap": self.gap, **self.shares}
        return {name: crossed_interval(values, self.blocks) for name, values in parts.items()}


def gaps(
    results: CaseResults, models: Sequence[str] = (), metrics: Sequence[str] = ()
) -> dict[tuple[str, str], Interval]:
    """II - I by model and metric, paired by patch and training; none named = all that compare.

    Raises:
        ResultsError: the table lacks the cases I and II, or a model or metric that is named.
    """
    table = results.table
    cases = table.groupby("model", sort=False)["case"].agg(set)
    named = models or [str(model) for model, have in cases.items() if {"I", "II"} <= have]
    if not named:
        raise ResultsError(
            "no model of the table was tested in the cases I and II: run `mindgap evaluate --case "
            "I --case II`"
        )
    known = metrics or comparable(results)
    return {(model, metric): gap_of(results, model, metric) for model in named for metric in known}


def comparable(results: CaseResults) -> list[str]:
    """The table's metrics that mean the same in I and II."""
    return [name for name in results.provenance["metrics"] if means_the_same(name)]


def attributions(results: CaseResults) -> list[Attribution]:
    """What a table of `attribute`'s rows amounts to, by model and metric in its order.

    Patches whose score is undefined in some state or training count nowhere.

    Raises:
        ResultsError: it lacks one of the `STATES`.
    """
    found = []
    for key, rows in results.table.groupby(["model", "metric"], sort=False):
        model, metric = map(str, key)
        grid = rows.pivot(index=["seed", "case"], columns="patch", values="value")
        grid = grid.dropna(axis="columns")
        seeds = tuple(int(s) for s in grid.index.unique("seed"))
        wanted = pd.MultiIndex.from_product([seeds, STATES])
        if not wanted.isin(grid.index).all():
            raise ResultsError(
                f"the table lacks states of {model}: expected what `mindgap gap --attribute` writes"
            )
        block = rows.drop_duplicates("patch").set_index("patch")["block"]
        patches = tuple(map(str, grid.columns))
        values = grid.loc[wanted].to_numpy(np.float64).reshape(len(seeds), len(STATES), -1)
        blocks = tuple(str(block[patch]) for patch in patches)
        found.append(Attribution(model, metric, seeds, patches, blocks, values))
    return found
