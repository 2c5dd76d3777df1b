"""`lpips-sat validate`: how well weights agree with judgements."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.option(
    "--weights", default="default", show_default=True, help="Shipped weights by name, or a folder."
)
@click.option(
    "--judgements",
    type=click.Path(path_type=Path),
    required=True,
    help="A release, BAPPS folders, or a CSV or Parquet table of pairs or of opinion scores.",
)
@click.option(
    "--trials",
    type=click.Choice(["validation", "all"]),
    default="validation",
    show_default=True,
    help="Those that `calibrate` never fits, or all.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def validate(weights: str, judgements: Path, trials: str, as_json: bool) -> None:
    """Measure how well LPIPS-Sat agrees with judgements, beside SSIM, PSNR, SAM and MAE.

    Choices give the 2AFC score, same/different judgements the JND mAP, opinion scores SRCC and
    PLCC; all with 95 % intervals over reference images.
    """
    from ..calibration import validate as validation

    part: validation.Part = "all" if trials == "all" else "validation"
    table = validation.validate(validation.load_weights(weights), judgements, part=part)
    if as_json:
        rows = json.loads(table.to_json(orient="records"))
        click.echo(json.dumps({"weights": weights, "trials": trials, "scores": rows}, indent=2))
    else:
        click.echo(table.to_string(index=False))
