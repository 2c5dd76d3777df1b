"""`lpips-sat compare`: tables of several methods on the same images."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from . import options

if TYPE_CHECKING:
    from ..compare import Duel, MetricComparison

BETTER = {
    True: "higher is better",
    False: "lower is better",
    None: "absolute values, lower is better",
}


@click.command()
@options.path_argument("tables", nargs=-1, required=True, metavar="A.parquet B.parquet...")
@click.option("--common", is_flag=True, help="Compare on the images that all tables scored.")
@click.option(
    "--level",
    type=options.FiniteRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Probability that all intervals of a metric hold together.",
)
@options.seed("Of the bootstrap.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def compare(tables: tuple[Path, ...], common: bool, level: float, seed: int, as_json: bool) -> None:
    """Compare methods by the tables that `score --out` wrote for them, on the same images.

    A method is named by its file. A rank such as 1-2 says that two places cannot be told apart:
    the intervals of the paired differences, which hold for all pairs of methods at once, contain 0.
    """
    from ..compare import compare as compare_tables
    from ..compare import remarks
    from ..results import read_results
    from ..stats import least_clusters

    if len(tables) < 2:
        raise click.UsageError("give two tables or more")
    names = options.method_names(tables)
    read = {name: read_results(path) for name, path in zip(names, tables, strict=True)}
    found = compare_tables(read, common=common, level=level, seed=seed)
    warnings = remarks(read)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        facts = {"level": level, "seed": seed, "simultaneous": "max |t|, per metric"}
        listed = [dataclasses.asdict(metric) for metric in found]
        whole = {**facts, "warnings": warnings, "metrics": listed}
        click.echo(json.dumps(options.plain(whole), indent=2))
        return
    console = options.console()
    for metric in found:
        console.print(Group(_standings(metric, level), _duels(metric, level), ""))
    least, most = least_clusters(level), max((metric.clusters for metric in found), default=0)
    if most < least:
        console.print(f"{100 * level:g} % needs {least} scenes or more to tell anything apart.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _standings(metric: MetricComparison, level: float) -> Table:
    unit = f", {metric.unit}" if metric.unit else ""
    table = Table(
        title=f"{escape(metric.metric)}{unit} - {BETTER[metric.higher_is_better]}; "
        f"{_count(metric.images, 'row')} of {_count(metric.clusters, 'scene')}",
        title_style="bold",
        title_justify="left",
    )
    table.add_column("rank")
    table.add_column("method", overflow="fold")
    for name in ("mean", f"{100 * level:g} % interval", "median"):
        table.add_column(name, justify="right")
    for line in metric.standings:
        low, high = line.rank
        mean = line.summary.mean
        table.add_row(
            str(low) if low == high else f"{low}-{high}",
            escape(line.method),
            options.number(mean.mean),
            options.interval(mean.low, mean.high),
            options.number(line.summary.median),
        )
    return table


def _duels(metric: MetricComparison, level: float) -> Table:
    table = Table()
    table.add_column("first - second", overflow="fold")
    table.add_column("mean", justify="right")
    table.add_column(f"{100 * level:g} % interval", justify="right", no_wrap=True)
    table.add_column("wins", justify="right")
    table.add_column("verdict", overflow="fold")
    for duel in metric.duels:
        difference = duel.difference
        table.add_row(
            f"{escape(duel.first)} - {escape(duel.second)}",
            options.number(difference.mean, "+"),
            options.interval(difference.low, difference.high),
            f"{duel.wins.mean:.0%}",
            _verdict(metric, duel),
        )
    return table


def _verdict(metric: MetricComparison, duel: Duel) -> str:
    if not duel.difference.told_apart:
        return "not told apart"
    first = (duel.difference.mean > 0) == bool(metric.higher_is_better)
    return f"{escape(duel.first if first else duel.second)} is better"
