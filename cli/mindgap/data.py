"""`mindgap data`: build sets of low- and high-resolution pairs, and check them."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from .. import options

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_models.data.build import Source


@click.group()
def data() -> None:
    """Build sets of low- and high-resolution pairs, and check them."""


@data.command()
@options.path_argument("out")
@options.overwrite
def sample(out: Path, overwrite: bool) -> None:
    """Build the two real cross-sensor sets in folder OUT.

    s2-b8: Sentinel-2, B08 (10 m) and B8A (20 m). l8-pan: Landsat 8, panchromatic (15 m) and visible
    (30 m). Needs `pip install 'lpips-sat[sample]'`.
    """
    from sr_models.data.sample_pairs import build_sample_pairs

    with tile_progress() as report:
        about = build_sample_pairs(out, overwrite=overwrite, progress=report)
    click.echo(
        json.dumps({str(out / name): _brief(what) for name, what in about.items()}, indent=2)
    )


@data.command()
@click.option("--lr", "lr_path", required=True, help="The coarser raster.")
@click.option("--hr", "hr_path", required=True, help="The finer raster, of any CRS.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder of the set to make."
)
@options.radiometry_with(
    "Bands to pair by name, or those of LR, paired with --hr-bands by position; names those of "
    "files without names.  [default: those of both]"
)
@options.radiometry_of(
    "hr", "the HR raster, where it differs", "its bands, paired with --bands by position."
)
@click.option("--mask", help="Raster of any grid: 0 = leave the pixel out, such as a cloud.")
@click.option(
    "--sun-zenith",
    type=options.FiniteRange(0, 90, max_open=True),
    help="In degrees; synthetic Sentinel-2 images need it for their noise.",
)
@click.option("--tile", type=click.IntRange(1), help="Side of a tile in HR px.  [default: 128]")
@click.option("--block", type=click.IntRange(1), help="Tiles along a block's side.  [default: 2]")
@click.option(
    "--margin", type=click.IntRange(0), help="HR px without tiles between blocks.  [default: 64]"
)
@click.option(
    "--min-texture",
    type=options.FiniteRange(0),
    help="Least RMS of detail finer than an LR pixel.  [default: 0.004]",
)
@click.option("--seed", type=click.IntRange(0), help="Which block goes where.  [default: 0]")
@click.option(
    "--lr-date", default="", help="When LR was taken, such as 2024-06-30 or 2024-06-30T10:10."
)
@click.option("--hr-date", default="", help="When HR was taken.")
@click.option(
    "--lr-view", type=options.FiniteRange(0, 90), help="Zenith angle of LR's view in degrees."
)
@click.option("--hr-view", type=options.FiniteRange(0, 90), help="The same for HR.")
@click.option("--note", default="", help="Licence or attribution, to keep with the set.")
@options.overwrite
def build(
    lr_path: str,
    hr_path: str,
    out: Path,
    mask: str | None,
    sun_zenith: float | None,
    note: str,
    overwrite: bool,
    **said: Any,
) -> None:
    """Cut two rasters of the same place into aligned pairs, split by geography.

    The LR raster stays as it is; the HR raster is warped to its grid divided by a whole factor.
    Bands are paired by name (as in HR), or by position where --bands names those of LR and
    --hr-bands those of HR. What --hr-... leaves open holds for both.
    """
    from sr_models.data.build import build_pairs
    from sr_models.data.tiles import Layout

    names = ("tile", "block", "margin", "min_texture", "seed")
    layout = Layout(**{k: v for k in names if (v := said.pop(k)) is not None})
    seen = {k: said.pop(k) for k in ("lr_date", "hr_date", "lr_view", "hr_view")}
    low, high = (
        replace(source, date=seen[f"{side}_date"], view=_known(seen[f"{side}_view"]))
        for side, source in zip(("lr", "hr"), _sources(lr_path, hr_path, said), strict=True)
    )
    known: dict[str, Any] = {"mask": mask, "layout": layout, "sun_zenith": sun_zenith}
    with tile_progress() as report:
        about = build_pairs(
            low, high, out, note=note, overwrite=overwrite, progress=report, **known
        )
    click.echo(json.dumps({str(out): _brief(about)}, indent=2))


@data.command(name="import")
@click.option(
    "--format",
    "name",
    required=True,
    type=click.Choice(["sen2venus", "sen2venus-20m", "worldstrat", "opensr-test", "sen2naip"]),
    help="The published layout.",
)
@options.path_argument("source")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder of the set to make."
)
@click.option(
    "--tile",
    type=click.IntRange(1),
    help="Cut images into squares of so many HR px.  [default: 384 for worldstrat, else whole "
    "images]",
)
@click.option(
    "--min-texture",
    type=options.FiniteRange(0),
    default=0.001,
    show_default=True,
    help="Least RMS of detail finer than an LR pixel.",
)
@options.seed("Which place goes where.")
@click.option(
    "--sun-zenith",
    type=options.FiniteRange(0, 90, max_open=True),
    help="In degrees; synthetic Sentinel-2 images need it for their noise.",
)
@options.overwrite
def import_(name: str, source: Path, out: Path, **settings: Any) -> None:
    """Make a set of pairs of the public set in folder SOURCE, extracted as published.

    Its own split is kept, else places are divided as a whole. docs/pairs.md says which version of
    each layout is read, and what is not.
    """
    from sr_models.data.imports import import_pairs

    with tile_progress() as report:
        about = import_pairs(name, source, out, progress=report, **settings)
    click.echo(json.dumps({str(out): _brief(about)}, indent=2))


@data.command()
@options.path_argument("root")
def check(root: Path) -> None:
    """Read every pair of the set in ROOT; exit with 1 if anything is wrong."""
    from sr_models.data.check import check_pairs

    found = check_pairs(root)
    click.echo(json.dumps(found, indent=2))
    for problem in found["problems"]:
        options.stderr.print(problem, soft_wrap=True, markup=False, highlight=False)
    if found["problems"]:
        sys.exit(1)


def _sources(lr_path: str, hr_path: str, said: dict[str, Any]) -> tuple[Source, Source]:
    """Both rasters with what the user said of them."""
    from sr_models.data.build import Source

    of_hr = {k.removeprefix("hr_"): said.pop(k) for k in list(said) if k.startswith("hr_")}
    if any(of_hr[k] is not None for k in ("preset", "scale", "offset")):
        both = {"nodata": said["nodata"]}  # a law of its own replaces the common one whole
    else:
        both = {k: v for k, v in said.items() if k != "bands"}
    high = both | {k: v for k, v in of_hr.items() if v is not None}
    bands, hr_bands = said.pop("bands"), high.pop("bands", None)
    empty = dict.fromkeys(("preset", "scale", "offset", "nodata"))
    return (
        Source(lr_path, options.radiometry_options(**said), bands),
        Source(hr_path, options.radiometry_options(**{**empty, **high}), hr_bands),
    )


def _known(number: float | None) -> float:
    """The number, or NaN where it was not said."""
    return math.nan if number is None else number


def _brief(about: dict[str, Any]) -> dict[str, Any]:
    """The part of `dataset.json` that answers: did it work?"""
    keys = ("factor", "tiles", "left_out", "median_shift_lr_px")
    return {key: about[key] for key in keys} | {"hr_resampled": about["hr"]["resampled"]}


@contextmanager
def tile_progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, where that is a terminal."""
    columns = (TextColumn("tiles"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, console=options.stderr, transient=True, disable=not options.stderr.is_terminal
    ) as bar:
        task = bar.add_task("tiles", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
