"""`mindgap report`: the experiment as a page and as Markdown."""

from __future__ import annotations

from pathlib import Path

import click

from .. import options

FILE = click.Path(path_type=Path)


@click.command()
@options.path_argument("results", metavar="RESULTS.parquet")
@click.option("--html", type=FILE, help="Write the page to this file; it needs no other.")
@click.option(
    "--markdown", type=FILE, help="Write Markdown, with pictures in NAME_files beside it."
)
@click.option("--gap", type=FILE, help="The table of `mindgap gap --attribute`.")
@click.option("--audit", type=FILE, help="The folder of `mindgap audit`.")
@click.option("--data", type=FILE, help="The set of the table, for training curves and pictures.")
@click.option(
    "--runs", type=FILE, default=Path("runs"), show_default=True, help="Where trainings are."
)
@options.count(
    "--patches",
    3,
    "Show so many test patches: a typical gap, and the worst of PSNR and of LPIPS-Sat.",
)
@click.option("--device", help="cpu or cuda.  [default: the GPU where there is one]")
@options.overwrite
def report(
    results: Path,
    html: Path | None,
    markdown: Path | None,
    gap: Path | None,
    audit: Path | None,
    data: Path | None,
    runs: Path,
    patches: int,
    device: str | None,
    overwrite: bool,
) -> None:
    """Show a table of `mindgap evaluate` as one HTML page, as Markdown, or as both.

    Means of the four cases, the gap and why it is there, whether LPIPS-Sat ranks the models
    differently, training curves, test patches in pictures, the audit of the pairs, provenance. What
    is not given is left out, with the command that makes it.
    """
    from sr_models.report import Sources, write_report

    if html is None and markdown is None:
        raise click.UsageError("give --html FILE, --markdown FILE, or both")
    sources = Sources(results, gap, audit, data, runs, patches, device)
    write_report(sources, html=html, markdown=markdown, overwrite=overwrite)
    for path in filter(None, (html, markdown)):
        click.echo(f"report: {path}, {options.size_of(path)}", err=True)
