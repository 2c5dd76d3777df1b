"""`mindgap gap`: what real images cost, and why."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from .. import options
from .evaluate import COARSE, numbers, say, testing, watch

if TYPE_CHECKING:
    from lpips_sat.stats import Interval
    from sr_models.experiment.curves import Curve, Fit
    from sr_models.experiment.gap import Attribution
    from sr_models.experiment.results import CaseResults


@click.command()
@options.path_argument("results", metavar="RESULTS.parquet")
@click.option("--model", "models", multiple=True, help="One of the table's. May be repeated.")
@click.option(
    "--metrics",
    type=options.NAMES,
    multiple=True,
    help="Some of the table's.  [default: those not relative to LR]",
)
@click.option(
    "--attribute",
    "attributed",
    is_flag=True,
    help="Share the gap out: 17 runs of each model on each test patch.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    help="Share out the gap of so many trainings of each model.  [default: all]",
)
@click.option("--curves", "curved", is_flag=True, help="Show how cases I and III were trained.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="The set of the table.  [default: the sample s2-b8 in --runs]",
)
@click.option(
    "--runs",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Where trainings are.",
)
@click.option(
    "--out",
    type=options.PARQUET,
    help="Table of the attribution, to write or go on with.  [default: RESULTS-gap.parquet]",
)
@click.option(
    "--weights",
    type=options.NAMED,
    multiple=True,
    metavar="METRIC=PATH",
    help="Weights of a metric, as for `mindgap evaluate`.",
)
@click.option("--device", help="cpu or cuda.  [default: the GPU where there is one]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@options.overwrite
def gap(
    results: Path,
    models: tuple[str, ...],
    metrics: tuple[tuple[str, ...], ...],
    attributed: bool,
    curved: bool,
    as_json: bool,
    **said: Any,
) -> None:
    """What real images cost each model: II - I, paired by patch, with 95 % intervals.

    They are over spatial blocks and, where a model was trained several times, over trainings.

    RESULTS.parquet is a table of `mindgap evaluate` with the cases I and II. --attribute shares the
    gap among registration, radiometry, MTF and noise by Shapley values; shares and rest add up to
    it. What it finds is written to --out, model by model; the same command goes on where it was cut
    short.
    """
    from sr_models.experiment.gap import attributions, gaps
    from sr_models.experiment.results import named, read_case_results

    models = tuple(map(named, models))
    table = read_case_results(results)
    names = tuple(chain.from_iterable(metrics))
    found: dict[str, Any] = {"gaps": gaps(table, models, names)}
    if attributed:
        why = _attribute(results, table, models, names, **said)
        kept = [a for a in attributions(why) if not models or a.model in models]
        found["attributions"] = [a for a in kept if not names or a.metric in names]
    if curved:
        found["curves"] = _curves(table, models, **said)
    if as_json:
        click.echo(json.dumps(options.plain(_plain(found)), indent=2))
        return
    console = options.console()
    console.print(_gap_table(table, found["gaps"]))
    if attributed:
        console.print(_share_table(table, found["attributions"]))
    if curved:
        console.print(_curve_table(found["curves"]))


def _attribute(
    results: Path,
    table: CaseResults,
    models: tuple[str, ...],
    names: tuple[str, ...],
    *,
    data: Path | None,
    runs: Path,
    out: Path | None,
    weights: tuple[tuple[str, str], ...],
    device: str | None,
    seeds: int | None,
    overwrite: bool,
) -> CaseResults:
    from sr_models.experiment.attribution import Asked, attribute_results

    path = out or results.with_name(f"{results.stem}-gap.parquet")
    why = attribute_results(
        table,
        data or _sample(runs),
        path,
        Asked(models, names, dict(weights), runs, device, seeds),
        testing=testing,
        overwrite=overwrite,
    )
    say(f"table: {path}")
    return why


def _curves(
    table: CaseResults,
    models: tuple[str, ...],
    *,
    data: Path | None,
    runs: Path,
    device: str | None,
    **said: Any,
) -> list[tuple[Curve, Fit]]:
    from sr_models.experiment.curves import curves_of, fit_of, trainings_of
    from sr_models.experiment.exam import check_set

    root = data or _sample(runs)
    check_set(table.provenance, root)
    trainings = trainings_of(table, root, runs, device=device)
    return [(c, fit_of(trainings, c)) for c in curves_of(table, trainings, models)]


def _sample(runs: Path) -> Path:
    from sr_models.experiment.evaluate import sample_set

    return sample_set(runs, watch())


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    """What was found as JSON has it."""
    plain: dict[str, Any] = {
        "gaps": [
            {"model": model, "metric": metric, **numbers(interval)}
            for (model, metric), interval in found["gaps"].items()
        ]
    }
    if "attributions" in found:
        plain["attributions"] = [
            {
                "model": a.model,
                "metric": a.metric,
                "seeds": list(a.seeds),
                "patches": len(a.patches),
                "parts": {name: numbers(part) for name, part in a.intervals().items()},
            }
            for a in found["attributions"]
        ]
    if "curves" in found:
        plain["curves"] = [
            {
                **{key: getattr(c, key) for key in ("model", "regime", "seed", "rows")},
                "steps_to_bicubic": c.steps_to_bicubic,
                "train_test_gap": fit.gap,
            }
            for c, fit in found["curves"]
        ]
    return plain


def _gap_table(results: CaseResults, gaps: dict[tuple[str, str], Interval]) -> Table:
    """One line per model, one column per metric."""
    table = _table("The gap II - I", _caption(gaps.values()))
    table.add_column("model")
    metrics = list(dict.fromkeys(metric for _, metric in gaps))
    for metric in metrics:
        table.add_column(_heading(results, metric), justify="right")
    for model in dict.fromkeys(model for model, _ in gaps):
        shown = [_cell(gaps.get((model, metric)), metric) for metric in metrics]
        table.add_row(escape(model), *shown)
    return table


def _share_table(results: CaseResults, found: list[Attribution]) -> Table:
    """One line per part of a model's gap in a metric."""
    title = "The gap shared out: the parts add up to it"
    table = _table(title, _caption(one.intervals()["gap"] for one in found))
    table.show_lines = False
    for name in ("model", "metric", "part"):
        table.add_column(name, overflow="fold")
    for name in ("mean", "interval", "of gap"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        parts = one.intervals()
        whole = parts["gap"].mean
        for name, part in parts.items():
            mean, _, interval = _cell(part, one.metric).partition("\n")
            share = f"{part.mean / whole:z.0%}" if whole and math.isfinite(whole) else ""
            head = (escape(one.model), _heading(results, one.metric)) if name == "gap" else ("", "")
            table.add_row(*head, name, mean, interval, share)
        table.add_section()
    return table


def _curve_table(found: list[tuple[Curve, Fit]]) -> Table:
    """One line per training."""
    caption = "level: steps to bicubic; then PSNR of a sample over that of bicubic, dB, at the end"
    table = _table("How cases I and III were trained", caption)
    for name in ("model", "on", "seed", "level", "val", "train", "test", "train - test"):
        table.add_column(name, overflow="fold")
    for curve, fit in found:
        reached = "never" if curve.steps_to_bicubic is None else str(curve.steps_to_bicubic)
        ends = (curve.last, fit.train, fit.test, fit.gap)
        shown = [f"{value:+.2f}" for value in ends]
        table.add_row(escape(curve.model), curve.regime, str(curve.seed), reached, *shown)
    return table


def _caption(found: Iterable[Interval]) -> str:
    """What a cell holds, and what its interval is over."""
    from sr_models.experiment.summary import over

    return f"mean [95 % interval {over(interval.trainings for interval in found)}]"


def _table(title: str, caption: str) -> Table:
    style: dict[str, Any] = {"title_style": "bold", "title_justify": "left", "show_lines": True}
    return Table(title=title, caption=caption, **style)


def _heading(results: CaseResults, metric: str) -> str:
    """A metric with its unit."""
    unit = results.provenance["metrics"].get(metric, {}).get("unit")
    return escape(f"{metric}, {unit}" if unit else metric)


def _cell(interval: Interval | None, metric: str) -> str:
    """The mean, and its interval below it."""
    if interval is None:
        return ""
    if math.isnan(interval.mean):
        return "undefined"
    form = "{:+.2f}".format if metric in COARSE else functools.partial(options.number, sign="+")
    mean = form(interval.mean)
    if not math.isfinite(interval.low):
        return mean
    return f"{mean}\n{options.interval(interval.low, interval.high, form)}"
