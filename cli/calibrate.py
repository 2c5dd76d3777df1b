"""`lpips-sat calibrate`: from features and judgements to a metric."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..outputs import check_folder, check_output, whole_file
from ..weights import STATE_FILE
from . import options

if TYPE_CHECKING:
    from ..calibration.judgements import Judgements
    from ..lpips import LPIPSSat


@click.command()
@click.option(
    "--judgements",
    type=click.Path(path_type=Path),
    required=True,
    multiple=True,
    help="A release (images.npz, trials.csv, votes.csv), BAPPS 2AFC folders, or a CSV or Parquet "
    "table of pairs or of opinion scores. The first given validates, all train.",
)
@click.option(
    "--backbone",
    required=True,
    multiple=True,
    help="Folder of a pretraining run or of weights, or a name: default, timm:resnet18, ... Given "
    "several times: the mean of their weights.",
)
@click.option(
    "--checkpoint",
    help="Weights of an ssl4eo-s12-... backbone: a file as torchgeo publishes it, or `hub`.",
)
@click.option("--name", help="Name of the weights (default: the last part of --out).")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option(
    "--heads",
    type=click.Path(path_type=Path),
    help="Write the heads alone to this file too, for others who have the backbone.",
)
@click.option(
    "--tune",
    type=click.Path(path_type=Path),
    help="TOML file: train the backbone too, on votes and on a teacher's ladders.",
)
@options.eurosat(required=False)
@click.option("--device", default="cpu", show_default=True, help="Where --tune runs.")
@options.overwrite
def calibrate(
    judgements: tuple[Path, ...],
    backbone: tuple[str, ...],
    checkpoint: str | None,
    name: str | None,
    out: Path,
    heads: Path | None,
    tune: Path | None,
    eurosat: Path | None,
    download: bool,
    device: str,
    overwrite: bool,
) -> None:
    """Make a metric from a backbone and two-alternative judgements.

    By default linear heads are fitted on frozen features. With --tune the backbone learns too,
    from the votes and from synthetic patches; the run is kept in OUT.run and resumes when called
    again. Trials with id % 5 == 0 are never learned from; the agreement with those of the first
    --judgements is printed beside PSNR and SSIM. The folder written loads with
    LPIPSSat.from_pretrained.
    """
    if (tune is None) != (eurosat is None):
        raise click.UsageError("--tune and --eurosat go together: clean patches to distort")
    if tune is not None and checkpoint is not None:
        raise click.UsageError("--checkpoint fits heads on frozen features; leave out --tune")
    from ..calibration import calibrate as maker
    from ..calibration.judgements import Judgements
    from ..calibration.readers import read_choices

    check_folder(out, mark=STATE_FILE, overwrite=overwrite)
    if heads is not None:
        check_output(heads, overwrite=overwrite)
    first, *others = (read_choices(path) for path in judgements)
    trials = Judgements.join([first, *(other.split()[0] for other in others)])
    training, _ = maker.split(trials)
    metric = maker.mean_of([maker.load_backbone(source, checkpoint) for source in backbone])
    name = name or out.name
    if tune is None or eurosat is None:
        table = maker.calibrate(metric, trials, name=name, out=out, overwrite=overwrite)
    else:
        run = out.with_name(f"{out.name}.run")
        metric = _tune(metric, training, tune, run, eurosat, download=download, device=device)
        variant = "tune: backbone and heads trained on votes and a teacher's ladders"
        table = maker.publish(
            metric, trials, name=name, out=out, overwrite=overwrite, variant=variant
        )
    if heads is not None:
        with whole_file(heads, overwrite=overwrite) as part:
            metric.save_heads(part)
    click.echo(table.to_string(index=False))


def _tune(
    metric: LPIPSSat,
    training: Judgements,
    config: Path,
    run: Path,
    eurosat: Path,
    *,
    download: bool,
    device: str,
) -> LPIPSSat:
    """Tune ``metric`` in the folder ``run``."""
    from ..backbones.runs import read_config
    from ..calibration.material import TuneConfig
    from ..calibration.patches import PatchSource, read_eurosat, read_scene
    from ..calibration.tune import tune

    settings = read_config(TuneConfig, config)
    chips = read_eurosat(eurosat, download=download)
    source = PatchSource(chips.images, read_scene(), settings.scene_share)
    log = options.step_log(settings.steps)
    return tune(settings, metric, training, run, sample=source, device=device, report=log)
