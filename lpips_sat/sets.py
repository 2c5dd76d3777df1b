"""A set of pairs in, a table of results out; a run that was killed goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import asdict, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import __version__
from .alignment import Alignment
from .errors import LpipsSatError, RasterError, ResultsError
from .executors import run_tasks
from .items import Item, is_local, is_remote
from .journal import Journal, plain_json
from .outputs import StrPath
from .raster import fingerprint
from .results import CONTENTS, FAILED, OK, Results, check_results_output, write_results
from .scoring import metric_settings
from .tiled import INPUT_UNITS, TileMetric
from .work import Outcome, ScoreOptions, Task, build_metrics, check_options, facts_of, scores_of

# Versions of these decide what a number is.
PACKAGES = ("torch", "numpy", "rasterio", "timm")
Outcomes = dict[int, Outcome]  # by the number of the part


def score_set(
    items: Sequence[Item],
    options: ScoreOptions | None = None,
    out: StrPath | None = None,
    *,
    workers: int = 1,
    dask: str | None = None,
    overwrite: bool = False,
    progress: Callable[[float, bool], None] = lambda share, failed: None,
) -> Results:
    """Score pairs; a bad one becomes a row with the reason, and the rest goes on.

    Args:
        items: the pairs, from `items_of_folders` or `items_of_manifest`; ids must differ.
        options: how every pair is scored.
        out: the table to write, by its suffix as Parquet, CSV or JSON. Until it is whole, what is
            done is kept in a journal beside it, from which the same call goes on after a kill.
        workers: processes on this machine.
        dask: address of a dask scheduler to score on, instead.
        overwrite: replace ``out`` if it exists, and the journal of another run.
        progress: called with the share of a pair that was done, and whether it failed.

    Raises:
        ResultsError: an id occurs twice, or an unfinished run of other pairs or options is there.
        LpipsSatError: options that fit no image, or lost workers.
    """
    options = options or ScoreOptions()
    if len({item.id for item in items}) < len(items):
        raise ResultsError("the ids of the pairs must differ")
    usual = check_options(options, lr=any(item.lr for item in items))
    if out is not None:
        check_results_output(out, overwrite=overwrite)
    pairs = {item.id: _fingerprint(item) for item in items}
    about = {"version": __version__, "options": asdict(options), "pairs": pairs}
    keep = nullcontext() if out is None else Journal(out, about, overwrite=overwrite)
    with keep as journal:
        done = {item.id: Outcomes() for item in items}
        for entry in [] if journal is None else journal.entries:
            outcome = Outcome(**entry["outcome"])
            done[entry["id"]][entry["part"]] = outcome
            progress(1 / outcome.parts, bool(outcome.reason))
        tasks = _missing(items, done, options, absolute=dask is not None)
        with closing(run_tasks(tasks, _rest, workers=workers, dask=dask)) as coming:
            for task, outcome in coming:
                _check_version(outcome)
                done[task.item.id][task.part] = outcome
                if journal is not None:
                    entry = {"id": task.item.id, "part": task.part, "outcome": asdict(outcome)}
                    journal.append(entry)
                progress(1 / outcome.parts, bool(outcome.reason))
        results = _results(items, done, options, usual)
        if out is not None and journal is not None:
            write_results(results, out, overwrite=overwrite)
            journal.remove()
    return results


def _missing(
    items: Iterable[Item], done: Mapping[str, Outcomes], options: ScoreOptions, *, absolute: bool
) -> Iterator[Task]:
    """What an earlier run left to do."""
    for item in items:
        task = Task(_absolute(item) if absolute else item, options)
        there = done[item.id]
        if 0 not in there:
            yield task
            continue
        for rest in _rest(task, there[0]):
            if rest.part not in there:
                yield rest


def _rest(task: Task, outcome: Outcome) -> list[Task]:
    """The other parts of a pair: their number and the alignment are known from the first."""
    others = range(1, outcome.parts) if task.part == 0 else ()
    known = outcome.facts.get("alignment")
    return [replace(task, part=part, alignment=known) for part in others]


def _absolute(item: Item) -> Item:
    """Its paths as a process in another folder finds them."""

    def path(name: str | None) -> str | None:
        return str(Path(name).absolute()) if name and is_local(name) else name

    return replace(
        item,
        pred=path(item.pred) or "",
        ref=path(item.ref) or "",
        mask=path(item.mask),
        lr=path(item.lr),
    )


def _check_version(outcome: Outcome) -> None:
    if outcome.version != __version__:
        raise LpipsSatError(
            f"a worker runs lpips-sat {outcome.version}, this is {__version__}: install one "
            "version everywhere"
        )


def _fingerprint(item: Item) -> str:
    """Digest of a pair, with size and time of its files where these are local."""
    digest = sha256(json.dumps(asdict(item)).encode())
    for path in map(Path, filter(is_local, item.files)):
        if path.exists():
            stat = path.stat()
            digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _contents(items: Iterable[Item], role: str) -> str | None:
    """SHA-256 of size and middle of the files in a role, whatever their paths.

    "none" where no pair has such a file, None if none can be read here.
    """
    files = {item.id: path for item in items if (path := getattr(item, role))}
    if not files:
        return "none"
    found = {}
    for name, path in files.items():
        if not is_remote(path):
            with suppress(RasterError):
                found[name] = fingerprint(path, mask=role == "mask")
    return sha256(json.dumps(sorted(found.items())).encode()).hexdigest() if found else None


def _results(
    items: Sequence[Item],
    done: Mapping[str, Outcomes],
    options: ScoreOptions,
    usual: Sequence[TileMetric],
) -> Results:
    rows, good = [], []
    for item in items:
        outcomes = [outcome for _, outcome in sorted(done[item.id].items())]
        found = _rows(item, outcomes, options)
        rows += found
        if found[0]["status"] == OK:
            good.append(outcomes[0].facts)
    provenance = {
        "version": __version__,
        "packages": {name: version(name) for name in PACKAGES},
        "options": asdict(options),
        "pairs": len(items),
        "failed": len(items) - len(good),
        **{key: _contents(items, role) for key, role in CONTENTS.items()},
        **{
            key: _distinct(facts[key] for facts in good)
            for key in ("bands", "kind", "pred_radiometry", "ref_radiometry")
        },
        "metrics": _metric_facts(good, options, usual),
    }
    return Results.from_rows(rows, plain_json(provenance), tiles=options.tiles)


def _rows(item: Item, outcomes: Sequence[Outcome], options: ScoreOptions) -> list[dict[str, Any]]:
    """A pair's rows: one, or one per tile; a single failed one if any part failed."""
    reason = next((outcome.reason for outcome in outcomes if outcome.reason), "")
    scored = []
    if not reason:
        try:
            scored = scores_of(outcomes, options)
        except LpipsSatError as error:
            reason = str(error)
    names = {"id": item.id, "pred": item.pred, "ref": item.ref, "scene": item.scene}
    names["mask"] = item.mask or ""
    seconds = sum(outcome.seconds for outcome in outcomes)
    if reason:
        place = dict.fromkeys(("row", "col", "height", "width"), 0) if options.tiles else {}
        failed = {
            "status": FAILED,
            "reason": " ".join(reason.split()),
            "pixels": 0,
            "seconds": seconds,
        }
        return [{**names, **failed, **place}]
    rows, aligned = [], _alignment_cells(outcomes[0], options)
    for tile, scores in scored:
        pixels = tile.height * tile.width
        place = {"row": tile.row, "col": tile.col, "height": tile.height, "width": tile.width}
        rows.append(
            {
                **names,
                "status": OK,
                "reason": "",
                "pixels": pixels,
                "valid_share": tile.valid / pixels,
                "seconds": seconds / len(scored),
                **aligned,
                **(place if options.tiles else {}),
                **{score.name: score.value for score in scores},
            }
        )
    return rows


def _alignment_cells(outcome: Outcome, options: ScoreOptions) -> dict[str, Any]:
    """What a row says of the alignment of its pair."""
    found = Alignment.from_json(outcome.facts["alignment"])
    cells: dict[str, Any] = {"warning": found.warning(register=options.register)}
    if found.shift is not None:
        shift = found.shift
        cells |= {"shift_dy": shift.dy, "shift_dx": shift.dx}
        cells["shift_reliability"] = shift.reliability
    if found.applied:
        cells["alignment"] = json.dumps(found.applied)
    return cells


def _metric_facts(
    facts: Sequence[Mapping[str, Any]], options: ScoreOptions, usual: Sequence[TileMetric]
) -> dict[str, dict[str, Any]]:
    """Unit, direction and settings of every metric; what differs between pairs is a list."""
    kinds = list(dict.fromkeys(facts_of(fact) for fact in facts))
    built: list[tuple[Sequence[TileMetric], str]] = [
        (build_metrics(options, *key), key[1]) for key in kinds
    ]
    metrics: dict[str, list[tuple[TileMetric, str]]] = {}
    for group, kind in built or [(usual, "")]:
        for metric in group:
            metrics.setdefault(metric.name, []).append((metric, kind))
    found = {}
    for name, same in metrics.items():
        units = [kind if metric.unit == INPUT_UNITS else metric.unit for metric, kind in same]
        settings = [metric_settings(metric) for metric, _ in same]
        found[name] = {
            "unit": " / ".join(dict.fromkeys(units)),
            "higher_is_better": same[0][0].higher_is_better,
            "settings": settings[0] if settings.count(settings[0]) == len(settings) else settings,
        }
    return found


def _distinct(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found
