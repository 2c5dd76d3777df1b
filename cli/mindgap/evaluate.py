"""`mindgap evaluate`: test models in the cases of the experiment."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from .. import options
from .train import assignments, progress

if TYPE_CHECKING:
    from lpips_sat.stats import Interval
    from sr_models.experiment.evaluate import Asked, Watch
    from sr_models.experiment.results import CaseResults
    from sr_models.experiment.summary import Cell

# Metrics shown with two decimals; the others have four.
COARSE = ("psnr", "cpsnr", "sam", "ergas")


@click.command()
@click.option(
    "--model",
    "models",
    multiple=True,
    required=True,
    help="A model of `mindgap train`, bicubic, ceiling, all of these as `all`; or a pipeline, a "
    "run, a folder of predictions, a plugin. May be repeated.",
)
@click.option(
    "--case",
    "cases",
    multiple=True,
    default=("all",),
    show_default=True,
    help="I, II, III, IV or all. May be repeated.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="A set of `mindgap data`.  [default: the sample s2-b8, built in --runs if missing]",
)
@options.count("--seeds", 1, "Trainings of each model and regime, from seed 0 on.", least=1)
@click.option(
    "--out",
    type=options.PARQUET,
    help="Table to write or go on with.  [default: results/SET.parquet]",
)
@options.count("--num-samples", 1, "Test the mean of so many samples too.", least=1)
@click.option(
    "--metrics",
    type=options.NAMES,
    multiple=True,
    help="Metrics by name (see `lpips-sat info`), in place of the usual ones.",
)
@click.option(
    "--weights",
    type=options.NAMED,
    multiple=True,
    metavar="METRIC=PATH",
    help="Weights of a metric, as for `lpips-sat score`.",
)
@click.option(
    "--data-range",
    type=options.FiniteRange(0, min_open=True),
    help="Range R of PSNR and SSIM.  [default: 0.6 for reflectance, else 1]",
)
@click.option(
    "--degradation",
    type=click.Choice(["physical", "bicubic", "blind"]),
    default="physical",
    show_default=True,
    help="How synthetic LR is made, to train on and to test on.",
)
@click.option(
    "--profile",
    type=click.Choice(["small", "paper"]),
    default="small",
    show_default=True,
    help="Size of the trainings, see `mindgap train`.",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Replace a training option, such as steps=5000.",
)
@click.option(
    "--runs",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Where trainings are, and are made.",
)
@click.option("--no-train", is_flag=True, help="Refuse what is not trained yet.")
@click.option("--device", help="cpu or cuda.  [default: the GPU where there is one]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@options.overwrite
def evaluate(
    data: Path | None, out: Path | None, as_json: bool, overwrite: bool, **said: Any
) -> None:
    """Test models in Cases I to IV, and train what is missing.

    I trains and tests on synthetic LR images, II tests the same on the other sensor's, III trains
    and tests on those, IV trains on them and tests on synthetic ones. Weights come from the shipped
    checkpoints, from --runs, or are trained there. Every patch gets its rows in --out; the same
    command goes on where it was cut short. Prints means with 95 % intervals over spatial blocks and
    trainings; over blocks alone where seeds is 1.
    """
    from sr_models.experiment.evaluate import chosen, sample_set
    from sr_models.experiment.evaluate import evaluate as run
    from sr_models.experiment.summary import summarise
    from sr_models.experiment.weights import set_name

    asked, told = _asked(**said), watch()
    root = data or sample_set(asked.runs, told)
    path = out or Path("results") / f"{set_name(root)}.parquet"
    results = chosen(run(root, path, asked, watch=told, overwrite=overwrite), asked)
    cells = summarise(results)
    if as_json:
        found = {"results": str(path), "cells": [_plain(cell) for cell in cells]}
        about = {"provenance": results.provenance}
        click.echo(json.dumps(options.plain({**found, **about}), indent=2))
        return
    console = options.console()
    for split in dict.fromkeys(cell.split for cell in cells):
        console.print(_table(results, [cell for cell in cells if cell.split == split], split))
    say(f"table: {path}")


def _asked(
    metrics: tuple[tuple[str, ...], ...],
    weights: tuple[tuple[str, str], ...],
    changes: tuple[str, ...],
    no_train: bool,
    **said: Any,
) -> Asked:
    from sr_models.experiment.evaluate import Asked

    return Asked(
        metrics=tuple(chain.from_iterable(metrics)),
        metric_weights=dict(weights),
        changes=assignments(changes),
        train=not no_train,
        **said,
    )


def watch() -> Watch:
    """Everything that happens, on stderr."""
    from sr_models.experiment.evaluate import Watch

    return Watch(say, progress, testing)


def say(text: str) -> None:
    """A line on stderr, as it is."""
    options.stderr.print(text, soft_wrap=True, markup=False, highlight=False)


@contextmanager
def testing(unit: str, patches: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, else a line."""
    if not options.stderr.is_terminal:
        say(f"testing {unit}: {patches} patches")
    with options.progress() as bar:
        task = bar.add_task(escape(unit), total=patches)
        yield lambda count: bar.advance(task, count)


def numbers(interval: Interval) -> dict[str, float]:
    """A mean with its interval, as JSON has it."""
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}


def _plain(cell: Cell) -> dict[str, Any]:
    known = {key: getattr(cell, key) for key in ("model", "case", "estimate", "split", "metric")}
    blocks = cell.interval.clusters
    return {**known, "seeds": cell.seeds, **numbers(cell.interval), "blocks": blocks}


def _table(results: CaseResults, cells: list[Cell], split: str) -> Table:
    """One line per metric, grouped by model, case and estimate."""
    rows = results.table[results.table["split"] == split]
    patches, blocks = rows["patch"].nunique(), rows["block"].nunique()
    table = Table(
        title=f"{results.provenance['set']['name']}, {split}: {patches} patches in {blocks} blocks",
        title_style="bold",
        title_justify="left",
    )
    for name in ("model", "case", "seeds", "metric"):
        table.add_column(name, overflow="fold")
    for name in ("mean", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.model, cell.case, cell.estimate), []).append(cell)
    for (model, case, estimate), group in groups.items():
        count = results.provenance["num_samples"]
        named = model if estimate == "sample" else f"{model}, mean of {count}"
        start = (escape(named), case, str(group[0].seeds))
        for cell in group:
            metric = escape(_metric(results, cell.metric))
            table.add_row(*start, metric, *_shown(cell))
            start = ("", "", "")
        table.add_section()
    return table


def _metric(results: CaseResults, name: str) -> str:
    """A metric with its unit, and an arrow to what is better."""
    known = results.provenance["metrics"].get(name, {"unit": "", "higher_is_better": None})
    arrow = {True: " \u2191", False: " \u2193", None: ""}[known["higher_is_better"]]
    return name + (f", {known['unit']}" if known["unit"] else "") + arrow


def _shown(cell: Cell) -> tuple[str, str]:
    """The mean and its interval; a dash where there is none."""
    found = cell.interval
    form = "{:.2f}".format if cell.metric in (*COARSE, "nfe") else options.number
    return form(found.mean), options.interval(found.low, found.high, form)
