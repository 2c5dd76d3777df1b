"""The chapters of the report, each from the numbers that it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..experiment.curves import Curve
from ..experiment.summary import over, times
from .content import NONE, Answer, Section, Table, Text, difference_text, signed, title_of
from .figures import curves_figure, gap_figure, share_figures
from .findings import GAP, LABELS, Shares, answers, limits
from .numbers import Numbers
from .ranks import (
    FIDELITY,
    PERCEPTION,
    Agreement,
    agreement_table,
    contradiction_table,
    rank_table,
)
from .tables import UNTEXTURED, cases_table, cost_table, gap_table, metric_title

MAIN = (FIDELITY, PERCEPTION)  # metrics that are shown first
CONTROLS = {
    "bicubic": "bicubic learned nothing",
    "regression": "regression is the same network without diffusion",
    "ceiling": "ceiling is the truth itself, averaged to the LR grid and interpolated back",
}


def in_short(numbers: Numbers, shares: Shares, agreements: Sequence[Agreement]) -> Section:
    """The questions of the experiment, answered."""
    found = answers(numbers, main_metrics(numbers), shares, agreements)
    missing = "" if found else no_gap(numbers)
    return Section("short", "In short", answers=found, missing=missing)


def cases(numbers: Numbers) -> Section:
    """Means of the 2 x 2 design."""
    main = main_metrics(numbers)
    more = [cases_table(numbers, metric) for metric in others(numbers)]
    apart = [cases_table(numbers, metric, UNTEXTURED) for metric in main]
    more += [replace(t, title=f"Patches without texture: {t.title}") for t in apart if t.rows]
    cost = cost_table(numbers)
    return Section(
        "cases",
        "Cases I to IV",
        about="Columns say what a model learned from and what it is tested on. "
        f"{_controls(numbers)}{intervals(numbers)}",
        tables=[cases_table(numbers, metric) for metric in main],
        more=[*more, *([cost] if cost else [])],
        folded="Other metrics, patches without texture, cost",
    )


def no_gap(numbers: Numbers) -> str:
    """Why the table has no gap of trained models, and the command that makes one."""
    what = "Cases I and II are not in the table"
    if {"I", "II"} <= set(numbers.cases):
        what = "No model of the table was trained for it"
    return f"{what}: mindgap evaluate --model all --case all"


def _controls(numbers: Numbers) -> str:
    """Say what the controls of the table are."""
    said = [text for name, text in CONTROLS.items() if name in numbers.models]
    joined = f"{', '.join(said[:-1])}, and {said[-1]}" if len(said) > 1 else "".join(said)
    return f"{joined}. " if said else ""


def gap(numbers: Numbers) -> Section:
    """Differences between the cases."""
    if not {"I", "II"} <= set(numbers.cases):
        return Section("gap", "The gap", missing=no_gap(numbers))
    main = main_metrics(numbers)
    rest = [metric for metric in others(numbers) if metric in numbers.between_cases]
    charts = [gap_figure(numbers, metric) for metric in (*main, *rest)]
    return Section(
        "gap",
        "The gap",
        about="Differences between cases, paired by patch and training; bold: the interval leaves "
        "out 0. The effect is the mean gap over its standard deviation between patches. "
        f"{intervals(numbers)}",
        tables=[gap_table(numbers, metric) for metric in main],
        figures=[chart for chart in charts if chart is not None],
        more=[gap_table(numbers, metric) for metric in rest],
        folded="Other metrics",
    )


def attribution(numbers: Numbers, shares: Shares) -> Section:
    """Why the gap is there."""
    title = "Why the gap is there"
    if not shares:
        missing = "Not given: mindgap gap RESULTS --attribute makes it, --gap FILE shows it here."
        return Section("why", title, missing=missing)
    metrics = list(dict.fromkeys(metric for _, metric in shares))
    shown = [m for m in MAIN if m in metrics] or metrics[:1]
    by_metric = {
        metric: {m: shares[m, metric] for m in numbers.models if (m, metric) in shares}
        for metric in metrics
    }
    return Section(
        "why",
        title,
        about="Each factor is turned off in the real test images by a transformation fitted to "
        "training pairs. Its share is its Shapley value, the mean of what that takes away over all "
        "orders of turning factors off; shares and rest add up to the gap, patch by patch. A share "
        "of the other sign is a difference that helped. Bold: the interval leaves out 0. Intervals "
        f"of 95 % {over(_trainings(shares))}.{_resting(numbers, shares)}",
        tables=[share_table(numbers, metric, shares) for metric in shown],
        figures=[f for m in shown for f in share_figures(numbers, m, by_metric[m])],
        more=[share_table(numbers, m, shares) for m in metrics if m not in shown],
        folded="Other metrics",
    )


def _resting(numbers: Numbers, shares: Shares) -> str:
    """Say on how many trainings the shares rest, if these are not all."""
    made_of = max(_trainings(shares))
    if made_of >= max(numbers.trainings, default=0):
        return ""
    which = "the first training" if made_of == 1 else f"the first {made_of} trainings"
    return f" The shares are those of {which} of each model, the gap above is that of all."


def _trainings(shares: Shares, metric: str | None = None) -> list[int]:
    """How many trainings each attribution is of, under one metric or all."""
    return [parts[GAP].trainings for (_, m), parts in shares.items() if metric in (None, m)]


def share_table(numbers: Numbers, metric: str, shares: Shares) -> Table:
    """The attribution: a row per model, a column per factor, and the gap that they add up to."""
    models = [model for model in numbers.models if (model, metric) in shares]
    parts = [name for name in shares[models[0], metric] if name != GAP] + [GAP]
    digits = numbers.digits(metric)
    rows = [
        [Text(m), *(difference_text(shares[m, metric][part], digits) for part in parts)]
        for m in models
    ]
    columns = [Text("model"), *(Text(LABELS.get(part, part)) for part in parts)]
    title = f"{metric_title(numbers, metric)}, {times(_trainings(shares, metric))} of each model"
    return Table(title, columns, rows)


def ranking(numbers: Numbers, agreements: Sequence[Agreement]) -> Section:
    """Does LPIPS-Sat rank the models differently from PSNR?"""
    against = contradiction_table(numbers, agreements)
    tables = [
        agreement_table(agreements) if agreements else None,
        rank_table(numbers, main_metrics(numbers)),
    ]
    more = [rank_table(numbers, [metric]) for metric in others(numbers)]
    return Section(
        "ranks",
        f"Does {title_of(PERCEPTION)} rank differently?",
        about="A place such as 1\N{EN DASH}3 says that the data cannot tell these places apart: "
        "the intervals of the paired differences contain 0. They are "
        f"{over(numbers.trainings)}, and hold for all models of a case and metric at once "
        "(Bonferroni), so that they are wider than those of single means: a shared place says that "
        "this test cannot separate two models, not that they are equal. The mean stands in "
        "brackets. The pairs that both metrics tell apart are counted at a level that holds for "
        "all pairs of all cases at once; Kendall's τ has no interval.",
        tables=[table for table in tables if table is not None],
        more=[*([against] if against else []), *more],
        folded="Contradictions, and places under the other metrics",
    )


def intervals(numbers: Numbers) -> str:
    """Say what the intervals of means and gaps are over."""
    counts = numbers.trainings
    text = f"Intervals of 95 % {over(counts)}"
    alone = "; those of models without training are over blocks alone"
    return f"{text}{alone if max(counts, default=1) > 1 else ''}."


def training(curves: Sequence[Curve]) -> Section:
    """How hard it is to learn from real pairs."""
    if not curves:
        missing = (
            "No curves were found: --data SET and --runs FOLDER of mindgap evaluate give them."
        )
        return Section("training", "Training", missing=missing)
    models = list(dict.fromkeys(curve.model for curve in curves))
    return Section(
        "training",
        "Training",
        about="PSNR of one sample on the validation blocks while a model is trained: on synthetic "
        "images and watched on them (Case I), on real ones and watched on those (Case III). "
        "Dotted: bicubic on the same images. A line is one training. Validation is looked at a few "
        "times only: the steps to bicubic are those of the first look that finds a model level.",
        tables=[curves_table(curves)],
        figures=[curves_figure(m, [c for c in curves if c.model == m]) for m in models],
    )


def curves_table(curves: Sequence[Curve]) -> Table:
    """How fast a model passes bicubic, and how far it gets: a row per model, means of trainings."""
    rows = []
    for model in dict.fromkeys(curve.model for curve in curves):
        row = [Text(model)]
        for regime in ("synthetic", "real"):
            chosen = [c for c in curves if c.model == model and c.regime == regime]
            row += _course(chosen) if chosen else [NONE, NONE]
        rows.append(row)
    heads = [
        Text(name, f"{case}: {regime}")
        for case, regime in (("I", "synthetic"), ("III", "real"))
        for name in ("steps to bicubic", "dB over bicubic")
    ]
    return Table("Optimisation", [Text("model"), *heads], rows)


def cannot_say(numbers: Numbers, shares: Shares) -> Section:
    """What the experiment cannot say."""
    said = limits(numbers, shared=bool(shares))
    return Section("limits", "What this cannot say", answers=[Answer("", said)])


def main_metrics(numbers: Numbers) -> list[str]:
    """The metrics that are shown first."""
    return [m for m in MAIN if m in numbers.metrics] or numbers.metrics[:1]


def others(numbers: Numbers) -> list[str]:
    """The metrics that are not."""
    return [metric for metric in numbers.metrics if metric not in main_metrics(numbers)]


def _course(curves: Sequence[Curve]) -> list[Text]:
    steps = [curve.steps_to_bicubic for curve in curves]
    shown = sorted({"never" if step is None else str(step) for step in steps})
    ahead = [curve.last for curve in curves]
    ends = f"{signed(min(ahead), 2)} to {signed(max(ahead), 2)}" if len(ahead) > 1 else ""
    return [Text(", ".join(shown)), Text(signed(sum(ahead) / len(ahead), 2), ends)]
