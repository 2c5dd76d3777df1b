"""`mindgap sr`: super-resolve a raster."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from ...errors import LpipsSatError
from ...outputs import check_no_input, check_output
from .. import options


@click.command()
@options.path_argument("source", metavar="IN.tif")
@click.argument("target", metavar="OUT.tif", type=options.RASTER)
@click.option("--model", required=True, help="A name (`mindgap models`), a pipeline or a run.")
@click.option(
    "--factor", type=click.IntRange(min=2), help="LR GSD / HR GSD, for models without their own."
)
@click.option("--steps", type=click.IntRange(min=1), help="Sampling steps (default: the model's).")
@click.option("--fast", is_flag=True, help="Take steps of DPM-Solver++ (SR3, SupResDiffGAN).")
@options.seed("Decides the noise.")
@options.count("--num-samples", 1, "Write the mean of this many samples.", least=1)
@click.option(
    "--spread",
    type=options.RASTER,
    help="Write the samples' standard deviation to this GeoTIFF.",
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, mps ...")
@options.radiometry_with(
    "Bands to take, such as B8A; names those of a file without names.  [default: the model's]"
)
@options.overwrite
def sr(
    source: Path,
    target: Path,
    model: str,
    factor: int | None,
    steps: int | None,
    fast: bool,
    seed: int,
    num_samples: int,
    spread: Path | None,
    device: str,
    overwrite: bool,
    bands: tuple[str, ...] | None,
    **said: Any,
) -> None:
    """Super-resolve the raster IN.tif into OUT.tif, float32 values on the finer grid.

    Units, nodata and band names are read from the file or taken from the options, never guessed.
    Prints what it cost as JSON: nfe is how often the network was asked for each tile and sample.
    """
    from lpips_sat.raster import files_of
    from sr_models.pipeline import SRPipeline
    from sr_models.registry import load_model
    from sr_models.scene import upscale_scene

    inputs = files_of(source)
    for path in (target, spread):
        if path is not None:
            check_no_input(path, inputs)
            check_output(path, overwrite=overwrite)
    loaded = load_model(model, device=device)
    if fast:
        if not isinstance(loaded, SRPipeline):
            raise LpipsSatError(f"model {model!r} takes no sampling steps: leave --fast out")
        loaded.fast = True
    with options.progress() as bar:
        task = bar.add_task("super-resolving", total=None)
        result = upscale_scene(
            source,
            target,
            loaded,
            scale=factor,
            radiometry=options.radiometry_options(**said),
            bands=bands,
            steps=steps,
            seed=seed,
            num_samples=num_samples,
            spread=spread,
            overwrite=overwrite,
            began=lambda pixels: bar.update(task, total=pixels),
            progress=lambda pixels: bar.advance(task, pixels),
        )
    named = {"source": str(source), "output": str(target), "model": model}
    click.echo(json.dumps({**named, **dataclasses.asdict(result)}, indent=2))
