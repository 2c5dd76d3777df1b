"""`lpips-sat study`: try an idea for the metric and keep its row."""

from __future__ import annotations

from pathlib import Path

import click

from . import options


@click.command()
@options.path_argument("config")
@click.option(
    "--judgements",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder with images.npz, trials.csv, votes.csv.",
)
@options.eurosat(required=False)
@click.option(
    "--table",
    type=click.Path(path_type=Path),
    default=Path("calibration/study.csv"),
    show_default=True,
    help="CSV file that the row is added to.",
)
@click.option(
    "--runs",
    type=click.Path(path_type=Path),
    default=Path("runs/study"),
    show_default=True,
    help="Where pretrainings are kept, to resume.",
)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change CONFIG's KEY.")
@click.option("--name", help="Name of the row (default: CONFIG's, with the changes).")
def study(
    config: Path,
    judgements: Path,
    eurosat: Path | None,
    download: bool,
    table: Path,
    runs: Path,
    changes: tuple[str, ...],
    name: str | None,
) -> None:
    """Carry out the experiment that the TOML file CONFIG describes and add its row to a table.

    An experiment is a backbone (trained on a pretext first, if asked), a way to compare features
    and a way to fit heads (see calibration/study.py). Its yardstick is cross-validation inside the
    training trials; the validation trials are not looked at.
    """
    from ..calibration import study as lab
    from ..calibration.judgements import read_judgements
    from ..calibration.patches import PatchSource, read_eurosat, read_scene

    experiment = lab.read_experiment(config, changes)
    name = name or "-".join([config.stem, *changes])
    sample = None
    if eurosat is not None:
        chips = read_eurosat(eurosat, download=download)
        sample = PatchSource(chips.images, read_scene(), scene_share=0.3)
    row = lab.run(
        experiment,
        read_judgements(judgements),
        name=name,
        folder=runs / name,
        sample=sample,
        report=options.step_log(experiment.steps),
    )
    lab.append(table, row)
    click.echo("  ".join(f"{key} {value}" for key, value in row.items() if key != "experiment"))
