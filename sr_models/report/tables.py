"""The tables of the experiment: means of the 2 x 2 design, gaps, cost."""

from __future__ import annotations

import numpy as np

from lpips_sat.stats import Interval

from ..experiment.cases import CASES
from ..experiment.summary import TEST, told_apart
from .content import NONE, Table, Text, difference_text, fixed, mean_text, signed, title_of
from .numbers import COST, Numbers

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
    rows, digits = [], numbers.digits(metric)
    for model in numbers.models:
        for estimate in ("sample", "mean"):
            found = [numbers.mean(model, case, metric, estimate, split) for case in numbers.cases]
            if any(found):
                label = model if estimate == "sample" else f"{model}, {_several(numbers)}"
                rows.append([Text(label), *(mean_text(x, digits) for x in found)])
    columns = [
        Text(case, f"{CASES[case].trained} → {CASES[case].tested}") for case in numbers.cases
    ]
    return Table(metric_title(numbers, metric), [Text("model"), *columns], rows)


def gap_table(numbers: Numbers, metric: str) -> Table:
    """Differences between cases paired by patch: a row per model."""
    steps = [step for step in STEPS if set(step) <= set(numbers.cases)]
    rows, digits = [], numbers.digits(metric)
    for model in numbers.models:
        found = [numbers.gap(model, metric, step) for step in steps]
        if any(found):
            effect = Text(signed(numbers.effect(model, metric), 1))
            rows.append([Text(model), *(difference_text(x, digits) for x in found), effect])
    heads = [Text(f"{a} \N{MINUS SIGN} {b}", STEPS[a, b]) for a, b in steps]
    heads.append(Text("effect", "gap / SD of patches"))
    return Table(metric_title(numbers, metric), [Text("model"), *heads], rows)


def cost_table(numbers: Numbers) -> Table | None:
    """Network evaluations and seconds of one sample, if they were measured, and the trainings."""
    heads = {
        "nfe": (Text("NFE", "network evaluations"), 0),
        "seconds": (Text("seconds", "per patch"), 2),
    }
    costs = {name: {m: _cost(numbers, m, name) for m in numbers.models} for name in COST}
    known = [name for name in COST if np.isfinite(list(costs[name].values())).any()]
    rows = []
    for model in numbers.models:
        values = [Text(fixed(costs[name][model], heads[name][1])) for name in known]
        seeds = Text(str(numbers.seeds(model))) if model in numbers.trained else NONE
        rows.append([Text(model), *values, seeds])
    columns = [Text("model"), *(heads[name][0] for name in known), Text("trainings")]
    return Table("Cost of one sample", columns, rows) if known else None


def metric_title(numbers: Numbers, metric: str) -> str:
    """A metric's name, unit, peak and direction."""
    peak = numbers.settings(metric).get("data_range")
    facts = [
        numbers.unit(metric),
        f"peak {peak:g}" if peak else "",
        BETTER[numbers.higher_is_better(metric)],
    ]
    return f"{title_of(metric)} ({', '.join(filter(None, facts))})"


def worse(numbers: Numbers, metric: str, change: Interval) -> bool | None:
    """Whether a change is for the worse; None if the interval does not tell, or no direction is."""
    better = numbers.higher_is_better(metric)
    if better is None or not told_apart(change):
        return None
    return (change.mean < 0) == better


def _several(numbers: Numbers) -> str:
    return f"mean of {numbers.results.provenance.get('num_samples', 'several')}"


def _cost(numbers: Numbers, model: str, metric: str) -> float:
    found = [numbers.mean(model, case, metric) for case in numbers.cases]
    values = [x.mean for x in found if x is not None]
    return float(np.mean(values)) if values else np.nan
