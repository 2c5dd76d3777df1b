"""`lpips-sat score` for many pairs: two folders, or a manifest."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import UnknownMetricError
from . import options

if TYPE_CHECKING:
    from ..items import Item
    from ..results import Results
    from ..work import ScoreOptions

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
                type=click.Path(path_type=Path),
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
                "--allow-missing", is_flag=True, help="Leave out images that have no counterpart."
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
    from ..sets import score_set

    items = _items(pred, ref, {"mask": mask, "lr": lr}, allow_missing=how.allow_missing)
    failures = 0
    with options.progress() as bar:
        task = bar.add_task(f"{len(items)} pairs", total=len(items))

        def advance(share: float, failed: bool) -> None:
            nonlocal failures
            failures += failed
            text = f"{len(items)} pairs" + (f", {failures} failed" if failures else "")
            bar.update(task, advance=share, description=text)

        try:
            results = score_set(
                items,
                scoring,
                how.out,
                workers=how.workers,
                dask=how.dask,
                overwrite=overwrite,
                progress=advance,
            )
        except UnknownMetricError as error:
            raise click.UsageError(str(error)) from error
    if as_json:
        click.echo(json.dumps(options.plain(_summary(results)), indent=2))
    else:
        Console(highlight=False, emoji=False).print(_table(results))
    _tell(results, how.out)
    if len(results.failed):
        raise click.exceptions.Exit(1)


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
    if not (Path(pred).is_dir() or Path(ref).is_dir()):
        name = Path(pred).stem
        return [Item(id=name, pred=pred, ref=ref, scene=name, **others)]
    given = {role: path for role, path in others.items() if path is not None}
    folders = {"pred": pred, "ref": ref, **given}
    items, unmatched = items_of_folders(folders, allow_missing=allow_missing)
    if unmatched:
        click.echo(f"left out, without a counterpart: {listed(unmatched)}", err=True)
    return items


def _summary(results: Results) -> dict[str, Any]:
    from ..stats import summarise

    rows = results.scored
    found = {
        name: {**facts, **asdict(summarise(rows[name].to_numpy(), rows["scene"].to_numpy()))}
        for name, facts in results.metrics.items()
    }
    failed = results.failed[["id", "reason"]].to_dict("records")
    return {**results.provenance, "metrics": found, "failures": failed}


def _table(results: Results) -> Table:
    pairs, failed = results.provenance["pairs"], results.provenance["failed"]
    what = "tiles" if results.tiled else "images"
    table = Table(
        title=f"{pairs - failed} of {pairs} pairs scored, {len(results.scored)} {what}",
        caption="intervals resample scenes",
        title_style="bold",
    )
    table.add_column("metric")
    for name in ("mean", "95 % interval", "median"):
        table.add_column(name, justify="right")
    table.add_column("unit")
    table.add_column("better")
    better = {True: "higher", False: "lower", None: "near 0"}
    for name, found in _summary(results)["metrics"].items():
        mean = found["mean"]
        table.add_row(
            escape(name),
            f"{mean['mean']:.4f}" if mean["count"] else "undefined",
            options.interval(mean["low"], mean["high"]),
            f"{found['median']:.4f}" if mean["count"] else "-",
            found["unit"],
            better[found["higher_is_better"]],
        )
    return table


def _tell(results: Results, out: Path | None) -> None:
    """What went wrong and where the table is, on stderr."""
    for key in ("bands", "kind"):
        several = results.provenance[key]
        if len(several) > 1:
            shown = "; ".join(v if isinstance(v, str) else ",".join(v) for v in several)
            click.echo(f"warning: means mix pairs of several {key}: {shown}", err=True)
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
