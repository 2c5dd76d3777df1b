"""`lpips-sat pretrain`: self-supervision of a small backbone."""

from __future__ import annotations

from pathlib import Path

import click

from . import options


@click.command()
@options.path_argument("config")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@options.eurosat(required=True)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, mps ...")
def pretrain(config: Path, out: Path, eurosat: Path, download: bool, device: str) -> None:
    """Pretrain a backbone as the TOML file CONFIG says; call again to resume.

    Needs no labels: the pretext is to tell what happened to a patch (see
    lpips_sat/backbones/pretrain.py). The run folder then goes to `lpips-sat calibrate`.
    """
    from ..backbones.pretrain import PretrainConfig
    from ..backbones.pretrain import pretrain as run
    from ..backbones.runs import read_config
    from ..calibration.distortions import KINDS, distort
    from ..calibration.patches import PatchSource, read_eurosat, read_scene

    settings = read_config(PretrainConfig, config)
    chips = read_eurosat(eurosat, download=download)
    source = PatchSource(chips.images, read_scene(), settings.scene_share)

    weights = run(
        settings,
        out,
        kinds=list(KINDS),
        sample=source,
        distort=distort,
        device=device,
        report=options.step_log(settings.steps),
    )
    click.echo(weights)
