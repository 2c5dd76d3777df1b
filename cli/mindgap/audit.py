"""`mindgap audit`: how the two sensors of a set differ, before any model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import options
from .data import tile_progress

if TYPE_CHECKING:
    from sr_models.data.audit import Audit

LIMITS = {
    "shift": "LR pixels, if reliable.  [default: 0.5]",
    "correlation": "Least, of every band.  [default: 0.9]",
    "gain": "Of every band, this factor or its inverse.  [default: 1.25]",
    "bias": "Mean of LR - HR of every band, either way.  [default: 0.05]",
    "angle": "Mean spectral angle in degrees.  [default: 5]",
    "days": "Between the two acquisitions.  [default: 3]",
    "view": "Between the zenith angles of the two views, in degrees.  [default: 15]",
}


def _limits(command: Any) -> Any:
    for name, text in reversed(LIMITS.items()):
        least = "min" if name == "correlation" else "max"
        command = click.option(f"--{least}-{name}", name, type=options.FiniteRange(), help=text)(
            command
        )
    return command


@click.command()
@options.path_argument("root")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the table (audit.parquet), the summary, the pairs outside, the figures.",
)
@click.option(
    "--figures/--no-figures", default=True, show_default=True, help="Draw figures into --out."
)
@_limits
@click.option("--strict", is_flag=True, help="Exit with 1 if a pair is outside the limits.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@options.overwrite
def audit(
    root: Path,
    out: Path | None,
    figures: bool,
    strict: bool,
    as_json: bool,
    overwrite: bool,
    **limits: float | None,
) -> None:
    """Measure every pair of the set in ROOT: what differs between its sensors, before any model.

    Shift and its reliability, the line from HR (averaged over LR pixels) to LR in every band,
    correlation, spectral angle, relative MTF, noise, and dates and view angles where the set has
    them. Pairs outside the limits are listed; none is dropped.
    """
    from sr_models.data.audit import (
        Limits,
        audit_pairs,
        check_audit_output,
        provenance,
        write_audit,
    )

    declared = Limits(**{name: v for name, v in limits.items() if v is not None})
    if out is not None:
        check_audit_output(out, figures=figures, overwrite=overwrite)
    with tile_progress() as report:
        found = audit_pairs(root, limits=declared, progress=report)
    if out is not None:
        write_audit(found, out, figures=figures, overwrite=overwrite)
    if as_json:
        summary = found.summary().to_dict("records")
        known = provenance(found) | {"pairs": len(found.table), "summary": summary}
        click.echo(json.dumps(options.plain(known | {"outside": found.outside}), indent=2))
    else:
        _show(found)
    if strict and found.outside:
        sys.exit(1)


def _show(found: Audit) -> None:
    """Print the pooled lines, the quantiles and the pairs outside."""
    table = found.table
    textured = int(table["textured"].sum())
    click.echo(f"{found.name}: {len(table)} pairs, {textured} textured")
    for row, hr in zip(found.pooled.to_dict("records"), found.bands[1], strict=False):
        click.echo(
            f"{row['band']} = {row['gain']:.3f} x {hr} {row['offset']:+.4f} over all textured "
            f"pixels: correlation {row['correlation']:.3f}, residual {row['residual']:.4f}"
        )
    summary = found.summary()
    for kind, part in summary.groupby("textured", sort=False):
        click.echo(f"\n{'textured' if kind else 'untextured'} pairs")
        click.echo(
            part.drop(columns="textured").to_string(index=False, float_format="{:.4f}".format)
        )
    click.echo(f"\noutside the limits: {len(found.outside)} pairs")
    for name, reasons in found.outside.items():
        click.echo(f"  {name}: {reasons}")
