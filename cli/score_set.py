"""`lpips-sat score` for many pairs: two folders, or a manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.markup import escape
from rich.table import Table

from . import options

if TYPE_CHECKING:
    from ..items import Item
    from ..radiometry import Kind
    from ..results import Results
    from ..work import ScoreOptions

    # As `RasterPair.facts` gives them: bands, kind, lr_factor, gsd.
    Facts = tuple[tuple[str, ...], Kind, int | None, float | None]

F = TypeVar("F", bound=Callable[..., Any])
MANIFESTS = (".csv", ".parquet")
SHOWN = 10  # failures listed before the rest is counted


@dataclass(frozen=True)
class SetRun:
    """What the options of a set say; the names are click's."""

    out: Path | None
    tiles: bool
    tile_size: int
    allow_missing: bool
    workers: int
    dask: str | None

    @property
    def asked_for(self) -> bool:
        """Whether an option makes a set of a single pair."""
        return self.out is not None or self.tiles or self.workers > 1 or self.dask is not None


def set_options(command: F) -> F:
    """Add the options of a set."""
    for option in reversed(
        [
            click.option(
                "--out",
                type=options.TABLE,
                help="Write a row per image to this .parquet, .csv or .json; a run that was "
                "killed goes on when repeated.",
            ),
            click.option("--tiles", is_flag=True, help="A row per tile instead of per image."),
            click.option(
                "--tile-size",
                type=click.IntRange(min=1),
                default=768,
                show_default=True,
                help="Side of a tile in pixels; a smaller one takes less memory and more time.",
            ),
            click.option(
                "--allow-missing",
                is_flag=True,
                help="Leave out images of a folder that have no counterpart in the other.",
            ),
            click.option(
                "--workers",
                type=click.IntRange(min=1),
                default=1,
                show_default=True,
                help="Score in so many processes.",
            ),
            click.option("--dask", metavar="ADDRESS", help="Score on this dask cluster."),
        ]
    ):
        command = option(command)
    return command


def score_pairs(
    pred: str,
    ref: str | None,
    mask: str | None,
    lr: str | None,
    scoring: ScoreOptions,
    how: SetRun,
    *,
    as_json: bool,
    overwrite: bool,
) -> None:
    """Score a set, print its summary, and exit with 1 if a pair failed."""
    from ..outputs import check_no_input
    from ..results import table_files
    from ..sets import score_set

    items = _items(pred, ref, {"mask": mask, "lr": lr}, allow_missing=how.allow_missing)
    if how.out is not None:
        for target in table_files(how.out):
            check_no_input(target, [pred])
    failures = 0
    with options.progress() as bar:
        task = bar.add_task(f"{len(items)} pairs", total=len(items))

        def advance(share: float, failed: bool) -> None:
            nonlocal failures
            failures += failed
            text = f"{len(items)} pairs" + (f", {failures} failed" if failures else "")
            bar.update(task, advance=share, description=text)

        results = score_set(
            items,
            scoring,
            how.out,
            workers=how.workers,
            dask=how.dask,
            overwrite=overwrite,
            progress=advance,
        )
    if as_json:
        click.echo(json.dumps(options.plain(_summary(results)), indent=2))
    else:
        options.console().print(_table(results))
    lr_factor = int(scoring.factor or 4) if any(item.lr for item in items) else None
    bands = map(tuple, results.provenance["bands"])
    tell_left_out(scoring, ((names, "reflectance", lr_factor, None) for names in bands))
    _tell(results, how.out)
    if len(results.failed):
        raise click.exceptions.Exit(1)


def tell_left_out(scoring: ScoreOptions, found: Iterable[Facts]) -> None:
    """Say on stderr which metrics of --suite do not apply to images with these facts, and why."""
    from ..suites import left_out

    if scoring.suite is not None:
        reasons = [left_out(scoring.suite, scoring.settings(*facts)) for facts in found]
        for reason in dict.fromkeys(chain.from_iterable(reasons)):
            click.echo(f"left out of {scoring.suite}: {reason}", err=True)


def is_folder(name: str | None) -> bool:
    """Whether a name is a folder of images, not a raster that is kept in a folder."""
    from ..raster import is_store

    return name is not None and Path(name).is_dir() and not is_store(name)


def _items(
    pred: str, ref: str | None, others: dict[str, str | None], *, allow_missing: bool
) -> list[Item]:
    """The pairs that the arguments name; others: what --mask and --lr say."""
    from ..items import Item, items_of_folders, items_of_manifest, listed

    if ref is None:
        if Path(pred).suffix.lower() not in MANIFESTS:
            raise click.UsageError("Missing argument 'REF'. Alone, PRED is a .csv or .parquet.")
        for role in [role for role, path in others.items() if path is not None]:
            raise click.UsageError(f"a manifest names them in its column {role}, without --{role}")
        return items_of_manifest(pred)
    if not (is_folder(pred) or is_folder(ref)):
        name = Path(ref).stem  # as in a manifest: methods differ in pred
        return [Item(id=name, pred=pred, ref=ref, scene=name, **others)]
    given = {role: path for role, path in others.items() if path is not None}
    folders = {"pred": pred, "ref": ref, **given}
    items, unmatched = items_of_folders(folders, allow_missing=allow_missing)
    if unmatched:
        click.echo(f"left out, without a counterpart: {listed(unmatched)}", err=True)
    return items


def _summary(results: Results) -> dict[str, Any]:
    import numpy as np

    from ..stats import summarise

    rows = results.scored
    found = {
        name: {**facts, **asdict(summarise(rows[name].to_numpy(), rows["scene"].to_numpy()))}
        for name, facts in results.metrics.items()
    }
    failed = results.failed[["id", "reason"]].to_dict("records")
    shares, pixels = rows["valid_share"].to_numpy(), rows["pixels"].to_numpy()
    share = float(np.average(shares, weights=pixels)) if len(rows) else 0.0
    return {**results.provenance, "valid_share": share, "metrics": found, "failures": failed}


def _table(results: Results) -> Table:
    summary = _summary(results)
    pairs, failed = summary["pairs"], summary["failed"]
    what = "tiles" if results.tiled else "images"
    table = Table(
        title=f"{pairs - failed} of {pairs} pairs scored, {len(results.scored)} {what}, "
        f"{summary['valid_share']:.1%} valid",
        caption="intervals resample scenes",
        title_style="bold",
    )
    table.add_column("metric")
    for name in ("mean", "95 % interval", "median"):
        table.add_column(name, justify="right")
    table.add_column("unit")
    table.add_column("better")
    for name, found in summary["metrics"].items():
        mean = found["mean"]
        table.add_row(
            escape(name),
            options.number(mean["mean"]) if mean["count"] else "undefined",
            options.interval(mean["low"], mean["high"]),
            options.number(found["median"]) if mean["count"] else "-",
            found["unit"],
            options.BETTER[found["higher_is_better"]],
        )
    return table


def _tell(results: Results, out: Path | None) -> None:
    """What went wrong and where the table is, on stderr."""
    from ..results import MAX_INVALID

    for key in ("bands", "kind"):
        several = results.provenance[key]
        if len(several) > 1:
            shown = "; ".join(v if isinstance(v, str) else ",".join(v) for v in several)
            click.echo(f"warning: means mix pairs of several {key}: {shown}", err=True)
    lacking = results.lacking
    if len(lacking):
        worst = lacking.iloc[0]
        click.echo(
            f"warning: in {len(lacking)} of {len(results.scored)} rows more than {MAX_INVALID:.0%} "
            f"of the pixels do not count (in {worst['id']} {1 - worst['valid_share']:.1%}): scores "
            "compare only with those of predictions that lack the same",
            err=True,
        )
    doubtful = results.scored.drop_duplicates("id")
    doubtful = doubtful[doubtful["warning"] != ""]
    for row in doubtful.head(SHOWN).itertuples():
        click.echo(f"warning: {row.id}: {row.warning}", err=True)
    if len(doubtful) > SHOWN:
        click.echo(f"warning: {len(doubtful) - SHOWN} more, see the column warning", err=True)
    failed = results.failed
    for row in failed.head(SHOWN).itertuples():
        click.echo(f"failed: {row.id}: {str(row.reason).splitlines()[0]}", err=True)
    if len(failed) > SHOWN:
        click.echo(f"failed: {len(failed) - SHOWN} more, see the column reason", err=True)
    if out is not None:
        click.echo(f"table: {out}", err=True)
