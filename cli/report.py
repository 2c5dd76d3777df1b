"""`lpips-sat report`: a page that shows what tables of results hold."""

from __future__ import annotations

from pathlib import Path

import click

from . import options


@click.command()
@options.path_argument("tables", nargs=-1, required=True, metavar="RESULTS...")
@click.option(
    "--html",
    "out",
    type=click.Path(path_type=Path),
    required=True,
    help="Write the page to this file; it needs no other.",
)
@options.count("--cases", 12, "Show so many images: the worst and best of each metric in turn.")
@options.overwrite
def report(tables: tuple[Path, ...], out: Path, cases: int, overwrite: bool) -> None:
    """Show the tables that `score --out` wrote for one or several methods as one HTML page.

    Summary with intervals, warnings, distributions, worst and best images beside their references
    with error maps, and provenance. A method is named by its file. The rasters are read again, as
    the table names them, from the folder in which `score` ran.
    """
    from ..report import write_report
    from ..results import read_results

    names = options.method_names(tables)
    read = {name: read_results(path) for name, path in zip(names, tables, strict=True)}
    shown = write_report(read, out, cases=cases, overwrite=overwrite)
    lost = [one.drawn.problem for case in shown for one in case.shown if one.drawn.problem]
    if lost:
        first = lost[0].splitlines()[0]
        click.echo(f"warning: {len(lost)} results without pictures, first: {first}", err=True)
    click.echo(f"report: {out}, {len(shown)} images, {options.size_of(out)}", err=True)
