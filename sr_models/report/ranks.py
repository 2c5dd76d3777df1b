"""Do two metrics rank the models alike? Ranks that admit ties, and a count of contradictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from lpips_sat.stats import Difference, Interval, bootstrap, paired_differences

from .content import NONE, Table, Text, difference_text, mean_text, title_of
from .numbers import Numbers

Array = npt.NDArray[np.float64]
FIDELITY, PERCEPTION = "psnr", "lpips-sat"  # the two that are compared


@dataclass(frozen=True)
class Contradiction:
    """Two models of which one metric surely prefers the first, the other the second.

    fidelity, perception: first - second.
    """

    first: str
    second: str
    fidelity: Difference
    perception: Difference


@dataclass(frozen=True)
class Agreement:
    """How PSNR and LPIPS-Sat rank the models in one case.

    tau: Kendall's rank correlation (tau-a), with an interval over blocks; alike: pairs of models
    that both metrics tell apart in the same order; contradictions: in opposite orders; pairs: all.
    """

    case: str
    tau: Interval
    alike: int
    contradictions: list[Contradiction]
    pairs: int


def ranks(numbers: Numbers, case: str, metric: str) -> dict[str, tuple[int, int]]:
    """The best and the worst place that each model may hold; empty if nothing can be compared.

    A place is certain as far as the simultaneous intervals of the paired differences
    (`lpips_sat.stats.paired_differences`, blocks resampled, trainings averaged) leave out 0.
    """
    better = numbers.higher_is_better(metric)
    grid = numbers.per_patch(case, metric, _having(numbers, case, metric))
    if grid.empty or grid.shape[1] < 2 or better is None:
        return {}
    values = grid.to_numpy() * (1 if better else -1)
    found = paired_differences(values, numbers.blocks(list(grid.index)))
    places = {i: [1, values.shape[1]] for i in range(values.shape[1])}
    for (i, j), difference in found.items():
        if difference.told_apart:
            ahead, behind = (i, j) if difference.mean > 0 else (j, i)
            places[behind][0] += 1
            places[ahead][1] -= 1
    return {
        name: (low, high) for name, (low, high) in zip(grid.columns, places.values(), strict=True)
    }


def rank_table(numbers: Numbers, metrics: list[str]) -> Table:
    """Places and means of the models: a row per model, a column per case and metric."""
    found = {
        (case, metric): places
        for case in numbers.cases
        for metric in metrics
        if (places := ranks(numbers, case, metric))
    }
    rows = [
        [Text(model), *(_place(numbers, model, *key, places) for key, places in found.items())]
        for model in numbers.rivals
    ]
    columns = [Text("model"), *(Text(title_of(metric), f"Case {case}") for case, metric in found)]
    of = f" by {title_of(metrics[0])}" if len(metrics) == 1 else ""
    return Table(f"Places of the models{of}", columns, rows)


def agreement(numbers: Numbers, case: str) -> Agreement | None:
    """Compare the two metrics on one case; None if the table lacks one of them."""
    second = _having(numbers, case, PERCEPTION)
    names = [name for name in _having(numbers, case, FIDELITY) if name in second]
    grids = [numbers.per_patch(case, metric, names) for metric in (FIDELITY, PERCEPTION)]
    patches = grids[0].index.intersection(grids[1].index)
    if len(names) < 2 or patches.empty:
        return None
    blocks = numbers.blocks(list(patches))
    fidelity, perception = (grid.loc[patches].to_numpy() for grid in grids)
    signs = [1 if numbers.higher_is_better(m) else -1 for m in (FIDELITY, PERCEPTION)]

    def statistic(rows: npt.NDArray[np.intp]) -> float:
        return kendall(signs[0] * fidelity[rows].mean(0), signs[1] * perception[rows].mean(0))

    differences = [paired_differences(values, blocks) for values in (fidelity, perception)]
    alike, contradictions = 0, []
    for i, j in combinations(range(len(names)), 2):
        one, two = (found[i, j] for found in differences)
        if one.told_apart and two.told_apart:
            if (one.mean * signs[0] > 0) == (two.mean * signs[1] > 0):
                alike += 1
            else:
                contradictions.append(Contradiction(names[i], names[j], one, two))
    pairs = len(names) * (len(names) - 1) // 2
    return Agreement(case, bootstrap(statistic, blocks), alike, contradictions, pairs)


def agreement_table(found: Sequence[Agreement]) -> Table:
    """What `agreement` found, a row per case."""
    rows = [
        [
            Text(f"Case {one.case}"),
            mean_text(one.tau, 2),
            Text(str(one.pairs)),
            Text(str(one.alike)),
            Text(str(len(one.contradictions))),
        ]
        for one in found
    ]
    columns = [
        Text("case"),
        Text("Kendall's τ", "of the mean scores"),
        Text("pairs of models"),
        Text("both tell apart, same order"),
        Text("opposite order"),
    ]
    return Table(f"{title_of(PERCEPTION)} beside {title_of(FIDELITY)}", columns, rows)


def contradiction_table(numbers: Numbers, found: Sequence[Agreement]) -> Table | None:
    """Every pair of models that the two metrics surely order in opposite ways."""
    rows = [
        [
            Text(f"{one.first} \N{MINUS SIGN} {one.second}", f"Case {case.case}"),
            difference_text(one.fidelity, numbers.digits(FIDELITY)),
            difference_text(one.perception, numbers.digits(PERCEPTION)),
        ]
        for case in found
        for one in case.contradictions
    ]
    columns = [Text("models"), Text(title_of(FIDELITY)), Text(title_of(PERCEPTION))]
    return Table("Where they contradict each other", columns, rows) if rows else None


def kendall(a: Array, b: Array) -> float:
    """Kendall's tau-a of two vectors (n,)."""
    i, j = np.triu_indices(len(a), 1)
    return float((np.sign(a[i] - a[j]) * np.sign(b[i] - b[j])).mean())


def _having(numbers: Numbers, case: str, metric: str) -> list[str]:
    return [model for model in numbers.rivals if numbers.mean(model, case, metric) is not None]


def _place(
    numbers: Numbers, model: str, case: str, metric: str, places: dict[str, tuple[int, int]]
) -> Text:
    if model not in places:
        return NONE
    low, high = places[model]
    mean = mean_text(numbers.mean(model, case, metric), numbers.digits(metric)).value
    return Text(f"{low}" if low == high else f"{low}\N{EN DASH}{high}", mean)
