"""The tables of the experiment: means of the 2 x 2 design, gaps, cost."""

from __future__ import annotations

import numpy as np

from lpips_sat.report import number
from lpips_sat.stats import Interval

from ..cases import CASES
from ..summary import TEST
from .content import Table, Text, difference_text, mean_text, signed, title_of
from .numbers import COST, Numbers

NONE = Text("\N{EN DASH}")
BETTER = {True: "higher is better", False: "lower is better", None: "best at 0"}
UNTEXTURED = "test_untextured"
# Differences between cases, with what they say.
STEPS = {
    ("II", "I"): "the gap",
    ("III", "II"): "what real training changes",
    ("III", "I"): "what is left of the gap",
    ("IV", "I"): "its price on synthetic images",
}


def cases_table(numbers: Numbers, metric: str, split: str = TEST) -> Table:
    """Means of a metric: a row per model and estimate, a column per case."""
    rows = []
    for model in numbers.models:
        for estimate in ("sample", "mean"):
            found = [numbers.mean(model, case, metric, estimate, split) for case in numbers.cases]
            if any(found):
                label = model if estimate == "sample" else f"{model}, mean of samples"
                rows.append([Text(label), *(NONE if x is None else mean_text(x) for x in found)])
    columns = [Text(case, f"{CASES[case].trained} → {CASES[case].tested}") for case in numbers.cases]
    return Table(metric_title(numbers, metric), [Text("model"), *columns], rows)


def gap_table(numbers: Numbers, metric: str) -> Table:
    """Differences between cases paired by patch: a row per model."""
    steps = [step for step in STEPS if set(step) <= set(numbers.cases)]
    rows = []
    for model in numbers.models:
        found = [numbers.gap(model, metric, step) for step in steps]
        if any(found):
            row = [NONE if x is None else difference_text(x) for x in found]
            rows.append([Text(model), *row, Text(signed(numbers.effect(model, metric)))])
    heads = [Text(f"{a} \N{MINUS SIGN} {b}", STEPS[a, b]) for a, b in steps]
    effect = Text("effect", "gap / SD of patches")
    return Table(metric_title(numbers, metric), [Text("model"), *heads, effect], rows)


def cost_table(numbers: Numbers) -> Table | None:
    """Network evaluations and seconds per sample, if they were measured."""
    having = [name for name in COST if name in set(numbers.table["metric"])]
    rows = []
    for model in numbers.models:
        found = [_cost(numbers, model, metric) for metric in having]
        if any(np.isfinite(found)):
            seeds = Text(str(numbers.seeds(model)) if model in numbers.trained else "")
            rows.append([Text(model), *(Text(number(value)) for value in found), seeds])
    heads = {"nfe": Text("NFE", "network evaluations"), "seconds": Text("seconds", "per patch")}
    columns = [Text("model"), *(heads[name] for name in having), Text("trainings")]
    return Table("Cost", columns, rows) if rows else None


def metric_title(numbers: Numbers, metric: str) -> str:
    """A metric's name, unit and direction."""
    facts = [numbers.unit(metric), BETTER[numbers.higher_is_better(metric)]]
    return f"{title_of(metric)} ({', '.join(filter(None, facts))})"


def worse(numbers: Numbers, metric: str, change: Interval) -> bool | None:
    """Whether a change is for the worse; None if the interval does not tell, or no direction is."""
    better = numbers.higher_is_better(metric)
    if better is None or not (change.low > 0 or change.high < 0):
        return None
    return (change.mean < 0) == better


def _cost(numbers: Numbers, model: str, metric: str) -> float:
    found = [numbers.mean(model, case, metric) for case in numbers.cases]
    values = [x.mean for x in found if x is not None]
    return float(np.mean(values)) if values else np.nan
