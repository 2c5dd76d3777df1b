"""`lpips-sat score`: one pair of rasters, all metrics."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from .. import __version__
from ..errors import UnknownMetricError
from ..outputs import check_no_input, check_output
from . import options
from .score_alignment import alignment_options
from .score_set import SetRun, is_folder, score_pairs, set_options, tell_left_out

if TYPE_CHECKING:
    from ..harmonize import Fit
    from ..raster import Resampling
    from ..scoring import PairResult
    from ..tiled import TileMetric
    from ..work import ScoreOptions


@click.command()
@click.argument("pred")
@click.argument("ref", required=False)
@click.option(
    "--suite",
    metavar="NAME",
    help="A group of metrics: default, fidelity, perceptual, spectral or opensr.",
)
@click.option(
    "--metrics",
    type=options.NAMES,
    multiple=True,
    help="Metrics by name (see `lpips-sat info`), alone or beside a --suite.",
)
@click.option(
    "--weights",
    type=options.NAMED,
    multiple=True,
    metavar="METRIC=PATH",
    help="Weights of a metric: lpips-sat=NAME or a folder of `calibrate`; lpips-alex=FILE.",
)
@click.option(
    "--composite",
    type=options.NAMES,
    help="Three bands for LPIPS-Sat, LPIPS and DISTS to look at (default: true colour, else the "
    "first composite of `lpips-sat info` that fits; a single band as grey).",
)
@options.radiometry
@click.option("--mask", help="Raster on the same grid: 0 = leave the pixel out.")
@click.option("--lr", help="The low-resolution input of PRED, which opensr's metrics need.")
@click.option(
    "--data-range",
    type=options.FiniteRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Range R of PSNR and SSIM, in the units of the values.",
)
@click.option(
    "--factor",
    type=options.FiniteRange(min=1),
    help="Super-resolution factor (LR GSD / HR GSD); ERGAS needs it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option(
    "--map",
    "map_path",
    type=options.RASTER,
    help="Write LPIPS-Sat per pixel to this GeoTIFF: squares are cells of coarse features.",
)
@alignment_options
@set_options
@options.overwrite
def score(
    pred: str,
    ref: str | None,
    mask: str | None,
    lr: str | None,
    as_json: bool,
    map_path: Path | None,
    overwrite: bool,
    **said: Any,
) -> None:
    """Score the super-resolved raster PRED against the true raster REF, or whole sets of them.

    PRED and REF are two rasters on the same grid, or two folders whose images are paired by name.
    Alone, PRED is a manifest: a CSV or Parquet table with the columns pred, ref and any of mask,
    lr, scene, id. Units, nodata and band names are read from the files, or taken from the options;
    they are never guessed.
    """
    how = SetRun(**{name: said.pop(name) for name in SetRun.__annotations__})
    scoring = _options(**said, tiles=how.tiles, tile=how.tile_size)
    folders = is_folder(pred) and is_folder(ref)
    if how.allow_missing and not folders:
        raise click.UsageError("--allow-missing is for two folders: leave it out")
    try:
        if how.asked_for or ref is None or folders:
            if map_path is not None:
                raise click.UsageError(
                    "--map draws one pair of rasters: it does not go with sets and their options "
                    "(--out, --tiles, --workers, --dask)"
                )
            score_pairs(pred, ref, mask, lr, scoring, how, as_json=as_json, overwrite=overwrite)
        else:
            _score_one(pred, ref, mask, lr, scoring, as_json, map_path, overwrite)
    except UnknownMetricError as error:
        raise click.UsageError(str(error)) from error


def _options(
    suite: str | None,
    metrics: tuple[tuple[str, ...], ...],
    weights: tuple[tuple[str, str], ...],
    composite: tuple[str, ...] | None,
    bands: tuple[str, ...] | None,
    data_range: float,
    factor: float | None,
    tiles: bool,
    tile: int,
    reproject: Resampling | None,
    register: bool,
    harmonize: Fit | None,
    **said: Any,
) -> ScoreOptions:
    from ..work import ScoreOptions

    return ScoreOptions(
        suite=suite,
        metrics=tuple(chain.from_iterable(metrics)),
        weights=weights,
        composite=composite,
        bands=bands,
        radiometry=options.radiometry_options(**said),
        data_range=data_range,
        factor=factor,
        tiles=tiles,
        tile=tile,
        reproject=reproject,
        register=register,
        harmonize=harmonize,
    )


def _score_one(
    pred: str,
    ref: str,
    mask: str | None,
    lr: str | None,
    how: ScoreOptions,
    as_json: bool,
    map_path: Path | None,
    overwrite: bool,
) -> None:
    from ..items import Item
    from ..raster import MapWriter, files_of
    from ..scoring import score_pair
    from ..work import build_metrics, open_item

    if map_path is not None:
        for path in (pred, ref, mask, lr):
            if path is not None:
                check_no_input(map_path, files_of(path))
        check_output(map_path, overwrite=overwrite)
    with ExitStack() as stack:
        item = Item(id=pred, pred=pred, ref=ref, scene=pred, mask=mask, lr=lr)
        pair = stack.enter_context(open_item(item, how))
        chosen = build_metrics(how, *pair.facts)
        tell_left_out(how, [pair.facts])
        writer = None
        if map_path is not None:
            tags = {"PRED": pred, "REF": ref, **_provenance(chosen)}
            writer = stack.enter_context(
                MapWriter(
                    map_path, pair.grid, overwrite=overwrite, description="LPIPS-Sat", tags=tags
                )
            )
        bar = stack.enter_context(options.progress())
        task = bar.add_task("scoring", total=pair.grid.width * pair.grid.height)
        result = score_pair(
            pair,
            chosen,
            tile=how.tile,
            map_writer=writer,
            progress=lambda pixels: bar.advance(task, pixels),
        )
    warning = pair.alignment.warning(register=how.register)
    warnings = [warning] if warning else []
    if as_json:
        named = {"pred": pred, "ref": ref, "mask": mask, "lr": lr}
        found = {**named, **dataclasses.asdict(result), "warnings": warnings}
        click.echo(json.dumps(options.plain(found), indent=2))
    else:
        options.console().print(_table(result))
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    if map_path is not None:
        click.echo(f"map: {map_path}", err=True)


def _provenance(metrics: Sequence[TileMetric]) -> dict[str, str]:
    """Tags of a map: which version and which weights drew it."""
    cards = [metric.card for metric in metrics if hasattr(metric, "card")]
    weights = {
        f"WEIGHTS_{key.upper()}": str(c.get(key)) for c in cards for key in ("name", "sha256")
    }
    return {"LPIPS_SAT_VERSION": __version__, **weights}


def _table(result: PairResult) -> Table:
    bands = escape(", ".join(result.bands))
    table = Table(
        title=f"{bands} - {result.pixels / 1e6:.2f} Mpx, {result.valid_share:.1%} valid",
        caption=f"{result.kind}; {result.seconds:.1f} s, "
        f"{result.pixels / 1e6 / result.seconds:.2f} Mpx/s",
        title_style="bold",
        min_width=44,
    )
    table.add_column("metric")
    table.add_column("score", justify="right")
    table.add_column("unit")
    table.add_column("better")
    for item in result.scores:
        shown = "undefined" if math.isnan(item.value) else options.number(item.value)
        table.add_row(item.name, shown, item.unit, options.BETTER[item.higher_is_better])
    return table
