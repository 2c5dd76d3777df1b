"""The chapters of the report, each from the numbers that it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lpips_sat.stats import Interval

from . import findings
from .content import Section, Table, Text, difference_text, title_of
from .figures import Line, curves_figure, gap_figure, share_figure
from .numbers import Numbers
from .ranks import (
    FIDELITY,
    PERCEPTION,
    agreement,
    agreement_table,
    contradiction_table,
    rank_table,
)
from .tables import UNTEXTURED, cases_table, cost_table, gap_table

MAIN = (FIDELITY, PERCEPTION)  # metrics that are shown first
BOOTSTRAP = "Intervals are a 95 % bootstrap of blocks, then trainings"


def in_short(numbers: Numbers, shares: findings.Shares) -> Section:
    """The questions of the experiment, answered."""
    metrics = main_metrics(numbers)
    answers = [
        *(findings.losses(numbers, metric) for metric in metrics),
        *(findings.reasons(numbers, metric, shares) for metric in metrics),
        *(findings.closing(numbers, metric) for metric in metrics),
        findings.ranking(_agreements(numbers)),
    ]
    return Section("short", "In short", answers=[answer for answer in answers if answer])


def cases(numbers: Numbers) -> Section:
    """Means of the 2 x 2 design."""
    main = main_metrics(numbers)
    more = [cases_table(numbers, m) for m in numbers.metrics if m not in main]
    apart = [cases_table(numbers, m, UNTEXTURED) for m in main]
    more += [Table(f"Without texture: {t.title}", t.columns, t.rows) for t in apart if t.rows]
    cost = cost_table(numbers)
    return Section(
        "cases",
        "Cases I to IV",
        about="Columns say what a model learned from and what it is tested on. bicubic learned "
        "nothing, regression is the same network without diffusion, and ceiling is the truth itself, "
        f"averaged to the LR grid and interpolated back. {BOOTSTRAP}.",
        tables=[cases_table(numbers, metric) for metric in main],
        more=[*more, *([cost] if cost else [])],
        folded="Other metrics, patches without texture, cost",
    )


def gap(numbers: Numbers) -> Section:
    """Differences between the cases."""
    main = main_metrics(numbers)
    if not {"I", "II"} <= set(numbers.cases):
        missing = "Cases I and II are not in the table: mindgap evaluate --model all --case all"
        return Section("gap", "The gap", missing=missing)
    charts = [gap_figure(numbers, metric) for metric in [*main, *_others(numbers)]]
    return Section(
        "gap",
        "The gap",
        about="Differences between cases, paired by patch and training; bold: the interval leaves "
        f"out 0. The effect is the mean of the gap over its standard deviation between patches. "
        f"{BOOTSTRAP}.",
        tables=[gap_table(numbers, metric) for metric in main],
        figures=[chart for chart in charts if chart is not None],
        more=[gap_table(numbers, metric) for metric in _others(numbers)],
        folded="Other metrics",
    )


def attribution(numbers: Numbers, shares: findings.Shares) -> Section:
    """Why the gap is there."""
    title = "Why the gap is there"
    if not shares:
        missing = "Not given: mindgap gap writes the attribution, and --gap FILE shows it here."
        return Section("why", title, missing=missing)
    metrics = list(dict.fromkeys(metric for _, metric in shares))
    shown = [m for m in metrics if m in MAIN] or metrics[:1]
    return Section(
        "why",
        title,
        about="Each factor is switched off on the real test images by a transformation fitted to "
        "training pairs; its share is the Shapley value over all orders of switching off. Shares and "
        "the rest add up to the gap.",
        tables=[share_table(numbers, metric, shares) for metric in shown],
        figures=[chart for metric in shown for chart in _share_figures(numbers, metric, shares)],
        more=[share_table(numbers, m, shares) for m in metrics if m not in shown],
        folded="Other metrics",
    )


def share_table(numbers: Numbers, metric: str, shares: findings.Shares) -> Table:
    """The attribution: a row per model, a column per factor."""
    models = [model for model in numbers.models if (model, metric) in shares]
    factors = list(shares[models[0], metric])
    rows = []
    for model in models:
        gap_, found = numbers.gap(model, metric), shares[model, metric]
        total = difference_text(gap_) if gap_ else Text("\N{EN DASH}")
        rows.append([Text(model), *(difference_text(found[f]) for f in factors), total])
    title = ", ".join(filter(None, (title_of(metric), numbers.unit(metric))))
    columns = [Text("model"), *(Text(factor) for factor in factors), Text("gap", "II - I")]
    return Table(title, columns, rows)


def ranking(numbers: Numbers) -> Section:
    """Does LPIPS-Sat rank the models differently from PSNR?"""
    found = _agreements(numbers)
    listed = [rank_table(numbers, case, main_metrics(numbers)) for case in numbers.cases]
    full = [rank_table(numbers, case, numbers.metrics) for case in numbers.cases]
    against = contradiction_table(found)
    tables = [agreement_table(found)] if found else []
    return Section(
        "ranks",
        f"Does {title_of(PERCEPTION)} rank differently?",
        about="A place such as 1\N{EN DASH}3 says that the data cannot tell these places apart: "
        "the intervals of the paired differences, which hold for all models of a case and metric at "
        "once, contain 0. Blocks are resampled, trainings averaged; the mean stands beside the place.",
        tables=[*tables, *([against] if against else []), *(t for t in listed if t)],
        more=[table for table in full if table],
        folded="Places under every metric",
    )


def training(lines: Mapping[str, list[Line]]) -> Section:
    """How hard it is to learn from real pairs."""
    title = "Training"
    if not lines:
        missing = "No runs were given: --runs FOLDER reads what mindgap evaluate trained there."
        return Section("training", title, missing=missing)
    return Section(
        "training",
        title,
        about="PSNR of one sample on the validation blocks while a model is trained: on synthetic "
        "images and watched on them (Case I), on real ones and watched on those (Case III). Dotted: "
        "bicubic on the same images. A line is one training.",
        figures=[curves_figure(model, found) for model, found in lines.items()],
    )


def cannot_say(numbers: Numbers) -> Section:
    """What the experiment cannot say."""
    return Section("limits", "What this cannot say", answers=findings.limits(numbers))


def main_metrics(numbers: Numbers) -> list[str]:
    """The metrics that are shown first."""
    return [m for m in MAIN if m in numbers.metrics] or numbers.metrics[:1]


def _others(numbers: Numbers) -> list[str]:
    return [metric for metric in numbers.metrics if metric not in main_metrics(numbers)]


def _agreements(numbers: Numbers) -> list[findings.Agreement]:
    found = [agreement(numbers, case) for case in numbers.cases]
    return [one for one in found if one is not None]


def _share_figures(
    numbers: Numbers, metric: str, shares: findings.Shares
) -> Sequence[findings.Figure]:
    chosen: dict[str, Mapping[str, Interval]] = {
        model: shares[model, metric] for model in numbers.models if (model, metric) in shares
    }
    ends = [end for found in chosen.values() for x in found.values() for end in (x.low, x.high, x.mean)]
    known = [end for end in ends if end == end]
    reach = (min(0.0, *known) * 1.08, max(0.0, *known) * 1.08)
    unit = numbers.unit(metric)
    return [share_figure(model, metric, unit, found, reach) for model, found in chosen.items()]
