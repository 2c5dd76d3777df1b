"""`lpips-sat annotate`: collect judgements on one's own scenes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from . import options


@click.group()
def annotate() -> None:
    """Collect perceptual judgements on your own scenes, with a page for your raters."""


@annotate.command()
@options.path_argument("scenes", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make.")
@options.count("--trials", 200, "Which of two is closer?")
@options.count("--jnd", 0, "Same or different?")
@options.count("--raters", 5, "Personal links to make.")
@click.option(
    "--per-rater", type=click.IntRange(1), help="Trials that each rater is asked (default: all)."
)
@click.option(
    "--method",
    "methods",
    type=options.Named("NAME=FOLDER", item=Path),
    multiple=True,
    help="Compare predictions: FOLDER holds one per scene, same name, same grid. Repeat it.",
)
@click.option("--distortions", type=options.NAMES, help="Kinds to compare (default: all of them).")
@click.option("--repeats", default=0.1, show_default=True, help="Share asked twice, hidden.")
@click.option("--checks", default=0.05, show_default=True, help="Share with a known answer.")
@click.option(
    "--size", type=click.IntRange(32, 512), default=64, show_default=True, help="Patch side in px."
)
@options.count("--break-every", 50, "Trials between breaks, 0 for none.")
@options.seed("Everything follows from it.")
@click.option("--title", help="What raters read on top (default: the name of --out).")
@click.option("--licence", default="not stated", help="Of the scenes; goes into the cards.")
@click.option("--who", default="people", show_default=True, help="Who the raters are.")
@options.radiometry_with("Bands to take, such as B04,B03,B02; names those of files without names.")
@click.option(
    "--composite",
    type=options.NAMES,
    help="Three bands to show (default: true colour, else the first composite of `lpips-sat info` "
    "that fits; a single band as grey).",
)
@click.option(
    "--black", type=options.NUMBERS, default=(0.0,), help="Values shown black (default: 0)."
)
@click.option(
    "--white", type=options.NUMBERS, help="Values shown white (default: those of the metric)."
)
def make(
    scenes: tuple[Path, ...],
    out: Path,
    methods: tuple[tuple[str, Path], ...],
    distortions: tuple[str, ...] | None,
    raters: int,
    size: int,
    bands: tuple[str, ...] | None,
    composite: tuple[str, ...] | None,
    black: tuple[float, ...],
    white: tuple[float, ...] | None,
    **said: Any,
) -> None:
    """Cut trials out of SCENES, rasters or folders of them.

    Textured patches are cut at random, and pairs of distorted copies (or of two methods'
    predictions) become trials, with hidden repeats and checks whose answer is known. SCENES are of
    any band set and dtype; units and bands are read from the files or said by the options.
    """
    from ..calibration.annotate import make as maker
    from ..calibration.annotate.scenes import DisplayOptions, cut, find_rasters
    from ..calibration.annotate.trials import Plan
    from ..outputs import check_absent

    check_absent(out)
    asked = {name: said.pop(name) for name in ("trials", "jnd", "repeats", "checks", "seed")}
    if distortions is not None:
        asked["distortions"] = distortions
    plan = Plan(**asked)
    about = {"licence": said.pop("licence"), "raters": said.pop("who")}
    shape = {name: said.pop(name) for name in ("per_rater", "break_every")}
    title = said.pop("title") or out.name
    patches, shown = cut(
        find_rasters(scenes),
        source=out.name,
        count=plan.patches,
        size=size,
        seed=plan.seed,
        radiometry=options.radiometry_options(**said),
        bands=bands,
        display=DisplayOptions(composite, black, white),
        methods=dict(methods),
    )
    names = [f"rater {number + 1}" for number in range(raters)]
    study = maker.make_study(
        patches, plan, out, raters=names, title=title, about={**shown, **about}, **shape
    )
    options.stderr.print(
        f"{len(patches)} patches, {len(study.trials)} trials, {raters} raters", soft_wrap=True
    )
    click.echo(out)


@annotate.command()
@options.path_argument("study")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@options.count("--port", 8765, "0 picks a free one.", most=65535)
@click.option(
    "--url", help="What the links begin with, if raters reach this machine by another name."
)
def serve(study: Path, host: str, port: int, url: str | None) -> None:
    """Serve STUDY until Ctrl-C; prints the links of the raters and of the organiser as JSON.

    It listens on this machine only, unless --host says otherwise. Links are secret: whoever has one
    can vote as that rater. For raters elsewhere put a proxy with HTTPS in front.
    """
    from ..calibration.annotate.serve import listen, serve_study
    from ..calibration.annotate.study import open_study

    opened = open_study(study)
    with opened.store() as store, listen(host, port) as socket:
        base = (url or f"http://{host}:{socket.getsockname()[1]}").rstrip("/")
        links = {rater.name: f"{base}/r/{rater.token}/" for rater in store.raters()}
        click.echo(json.dumps({"organiser": f"{base}/admin/{store.admin_token}/", "raters": links}))
        serve_study(opened, store, socket)


@annotate.command()
@options.path_argument("study")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder to write (default: judgements/ in STUDY).",
)
@options.overwrite
def export(study: Path, out: Path | None, overwrite: bool) -> None:
    """Write the judgements of STUDY with their dataset card.

    2AFC votes as `lpips-sat calibrate` reads them, same/different votes in the layout of BAPPS,
    every answer as CSV and Parquet. Prints how far the raters agree, as JSON.
    """
    from ..calibration.annotate.export import export_study
    from ..calibration.annotate.study import open_study

    target = out or study / "judgements"
    card = export_study(open_study(study), target, overwrite=overwrite)
    shown = {key: card[key] for key in ("answers", "agreement", "per_rater")}
    click.echo(json.dumps({"out": str(target), **shown}, indent=2))


@annotate.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option(
    "--release",
    type=click.Choice(["v1", "v2", "v3", "v4"]),
    default="v1",
    show_default=True,
    help="Which one.",
)
@options.eurosat(required=False)
@click.option(
    "--scenes",
    type=click.Path(path_type=Path),
    help="Folder with the PlanetScope and NAIP files that the shipped trials.csv names.",
)
@options.overwrite
def rebuild(
    out: Path,
    release: str,
    eurosat: Path | None,
    download: bool,
    scenes: Path | None,
    overwrite: bool,
) -> None:
    """Make the images of satellite-2afc again, as far as its sources are there.

    Its trials and votes are part of the package, its images are not. References come out exactly,
    or it fails. So do the sides of v2 to v4; in those of v1 noise falls elsewhere than the raters
    saw. Prints what was made.
    """
    from ..calibration.rebuild import rebuild as remake

    report = remake(
        out,
        release=release,
        eurosat=eurosat,
        scenes=scenes,
        download=download,
        overwrite=overwrite,
    )
    click.echo(json.dumps({"out": str(out), **report}, indent=2))
