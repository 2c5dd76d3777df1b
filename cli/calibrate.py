"""`lpips-sat calibrate`: from features and judgements to a metric."""

from __future__ import annotations

from pathlib import Path

import click

from . import options


@click.command()
@click.option(
    "--judgements",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder with images.npz, trials.csv, votes.csv.",
)
@click.option(
    "--backbone",
    required=True,
    help="Folder of a pretraining run, or a name such as timm:resnet18.",
)
@click.option("--name", help="Name of the weights (default: the last part of --out).")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@options.overwrite
def calibrate(
    judgements: Path, backbone: str, name: str | None, out: Path, overwrite: bool
) -> None:
    """Fit linear heads on a frozen backbone to two-alternative judgements.

    Trials with id % 5 == 0 are never fitted; the agreement with them is printed beside PSNR and
    SSIM. The folder written loads with LPIPSSat.from_pretrained.
    """
    from ..calibration.calibrate import calibrate as run
    from ..calibration.calibrate import check_folder, load_backbone
    from ..calibration.judgements import read_judgements

    check_folder(out, overwrite=overwrite)
    metric = load_backbone(backbone)
    table = run(metric, read_judgements(judgements), name=name or out.name, out=out)
    click.echo(table.to_string(index=False))
