"""Do two metrics rank the models alike? Ranks that admit ties, and a count of contradictions.

Two models are told apart if the interval of their paired difference, over blocks and trainings,
leaves out 0. Its level is such that all that is said at once holds with 95 %: all places in a
column, or the answer to the question above from all pairs of models in all cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lpips_sat.stats import Interval

from ..experiment.summary import LEVEL, told_apart
from .content import NONE, Table, Text, difference_text, fixed, mean_text, title_of
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
    fidelity: Interval
    perception: Interval


@dataclass(frozen=True)
class Agreement:
    """How PSNR and LPIPS-Sat rank the models in one case.

    tau: Kendall's rank correlation (tau-a) of the means; alike: pairs of models that both metrics
    tell apart in the same order; contradictions: in opposite orders; pairs: all.
    """

    case: str
    tau: float
    alike: int
    contradictions: list[Contradiction]
    pairs: int


def ranks(numbers: Numbers, case: str, metric: str) -> dict[str, tuple[int, int]]:
    """The best and the worst place that each model may hold; empty if nothing can be compared."""
    better, grids = numbers.higher_is_better(metric), numbers.grids(case, metric)
    if len(grids) < 2 or better is None:
        return {}
    places = {model: [1, len(grids)] for model in grids}
    for pair, difference in numbers.differences(grids, level=LEVEL).items():
        if told_apart(difference):
            ahead, behind = pair if (difference.mean > 0) == better else pair[::-1]
            places[behind][0] += 1
            places[ahead][1] -= 1
    return {name: (low, high) for name, (low, high) in places.items()}


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


def agreements(numbers: Numbers) -> list[Agreement]:
    """Compare the two metrics in every case that has both.

    A pair of models counts if both metrics tell it apart. With so many comparisons in all, one that
    counts wrongly has at most a probability of 5 %.
    """
    level = 1 - (1 - LEVEL) / max(len(numbers.cases), 1)
    found = [_agreement(numbers, case, level) for case in numbers.cases]
    return [one for one in found if one is not None]


def _agreement(numbers: Numbers, case: str, level: float) -> Agreement | None:
    """Compare them on one case; None if the table lacks one of them. level: of all pairs."""
    grids = [numbers.grids(case, metric) for metric in (FIDELITY, PERCEPTION)]
    names = [name for name in grids[0] if name in grids[1]]
    if len(names) < 2:
        return None
    one, two = ({name: each[name] for name in names} for each in grids)
    signs = [1 if numbers.higher_is_better(m) else -1 for m in (FIDELITY, PERCEPTION)]
    fidelity, perception = (numbers.differences(each, level=level) for each in (one, two))
    alike, against = 0, []
    for pair, first in fidelity.items():
        second = perception[pair]
        if told_apart(first) and told_apart(second):
            if (first.mean * signs[0] > 0) == (second.mean * signs[1] > 0):
                alike += 1
            else:
                against.append(Contradiction(*pair, first, second))
    means = [
        sign * np.array([float(np.nanmean(each[name].to_numpy())) for name in names])
        for sign, each in zip(signs, (one, two), strict=True)
    ]
    return Agreement(case, kendall(*means), alike, against, len(fidelity))


def agreement_table(found: Sequence[Agreement]) -> Table:
    """What `agreement` found, a row per case."""
    rows = [
        [
            Text(f"Case {one.case}"),
            Text(fixed(one.tau, 2)),
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


def _place(
    numbers: Numbers, model: str, case: str, metric: str, places: dict[str, tuple[int, int]]
) -> Text:
    if model not in places:
        return NONE
    low, high = places[model]
    mean = mean_text(numbers.mean(model, case, metric), numbers.digits(metric)).value
    return Text(f"{low}" if low == high else f"{low}\N{EN DASH}{high}", mean)
