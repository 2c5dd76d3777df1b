"""Several methods on the same images: paired differences, win rates, and ranks that say "tied"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .errors import ResultsError
from .items import listed
from .results import CONTENTS, Results
from .stats import Difference, Interval, Summary, bootstrap_mean, paired_differences, summarise

# What `score` may do to a prediction, and what the pairs of a table hold: both by their names in
# its provenance. The options of a metric are among its settings.
TREATMENTS = ("reproject", "register", "harmonize")
HOLDS = ("bands", "kind", "ref_radiometry")


@dataclass(frozen=True)
class Standing:
    """One method under one metric; rank: the best and the worst place it may hold."""

    method: str
    summary: Summary
    rank: tuple[int, int]


@dataclass(frozen=True)
class Duel:
    """Two methods under one metric.

    difference: first - second (of absolute values where neither direction is better); wins: share
    of images on which the first is better, a tie being half a win.
    """

    first: str
    second: str
    difference: Difference
    wins: Interval


@dataclass(frozen=True)
class MetricComparison:
    """All methods under one metric, best mean first; images: those scored by every method."""

    metric: str
    unit: str
    higher_is_better: bool | None
    images: int
    clusters: int
    standings: list[Standing]
    duels: list[Duel]


def compare(
    tables: Mapping[str, Results], *, common: bool = False, level: float = 0.95, seed: int = 0
) -> list[MetricComparison]:
    """Compare methods under every metric that all their tables hold.

    Rows are matched by id (and tile); clusters are the scenes. Differences have simultaneous
    intervals (`lpips_sat.stats.paired_differences`) over all pairs of methods, within one
    metric; a method's rank runs from 1 + the number of methods certainly better to K - the number
    certainly worse. An image whose score is not defined for every method is left out.

    Args:
        tables: by the name of the method, two or more.
        common: compare on what all tables scored, instead of refusing tables that differ.
        level: probability that all differences of a metric lie in their intervals.
        seed: of the bootstrap.

    Raises:
        ResultsError: fewer than two tables, other images, tiles beside images, or tables that
            were not scored alike, see `differences`.
    """
    if len(tables) < 2:
        raise ResultsError(f"expected two tables or more to compare, got {len(tables)}")
    _check_alike(tables)
    rows = {name: _indexed(name, table) for name, table in tables.items()}
    shared = _shared(tables, rows, common=common)
    scenes = _scenes(rows, shared)
    first, *others = tables.values()
    metrics = [name for name in first.metrics if all(name in other.metrics for other in others)]
    if not metrics:
        raise ResultsError("the tables have no metric in common")
    return [
        _metric(
            metric,
            first.metrics[metric],
            {name: frame.loc[shared, metric].to_numpy() for name, frame in rows.items()},
            scenes,
            level,
            seed,
        )
        for metric in metrics
    ]


def _metric(
    metric: str,
    facts: Mapping[str, Any],
    columns: Mapping[str, NDArray[np.float64]],
    scenes: NDArray[Any],
    level: float,
    seed: int,
) -> MetricComparison:
    values = np.stack(list(columns.values()), axis=1)
    defined = ~np.isnan(values).any(axis=1)
    values, scenes = values[defined], scenes[defined]
    better: bool | None = facts["higher_is_better"]
    if better is None:
        values = np.abs(values)
    names = list(columns)
    duels = _duels(names, values, scenes, better, level, seed) if len(values) else []
    summaries = {
        name: summarise(column, scenes, level=level, seed=seed)
        for name, column in zip(names, values.T, strict=True)
    }
    standings = [Standing(n, s, _rank(n, duels, better, len(names))) for n, s in summaries.items()]
    sign = -1 if better else 1
    standings.sort(key=lambda s: (np.isnan(s.summary.mean.mean), sign * s.summary.mean.mean))
    count = len(np.unique(scenes))
    return MetricComparison(metric, facts["unit"], better, len(values), count, standings, duels)


def _duels(
    names: list[str],
    values: NDArray[np.float64],
    scenes: NDArray[Any],
    better: bool | None,
    level: float,
    seed: int,
) -> list[Duel]:
    paired = paired_differences(values, scenes, level=level, seed=seed)
    found = []
    for i, j in combinations(range(len(names)), 2):
        a, b = (values[:, i], values[:, j]) if better else (values[:, j], values[:, i])
        wins = bootstrap_mean((a > b) + 0.5 * (a == b), scenes, level=level, seed=seed)
        found.append(Duel(names[i], names[j], paired[i, j], wins))
    return found


def _rank(name: str, duels: list[Duel], better: bool | None, methods: int) -> tuple[int, int]:
    ahead = behind = 0
    for duel in duels:
        if name not in (duel.first, duel.second) or not duel.difference.told_apart:
            continue
        first_wins = (duel.difference.mean > 0) == bool(better)
        if first_wins == (name == duel.first):
            behind += 1
        else:
            ahead += 1
    return 1 + ahead, methods - behind


def differences(first: Results, second: Results) -> list[str]:
    """What makes the numbers of two tables differ besides the predictions: "NAME: THIS / THAT"."""
    ours, theirs = first.provenance, second.provenance
    found = []
    for name in TREATMENTS:
        found += _versus(name, *(side.get("options", {}).get(name) for side in (ours, theirs)))
    for name in HOLDS:
        found += _versus(name, *(sorted(side.get(name, [])) for side in (ours, theirs)))
    for metric in first.metrics:
        if metric in second.metrics:
            one, other = (_flat(table.metrics[metric]) for table in (first, second))
            for key in sorted(one.keys() | other.keys()):
                found += _versus(f"{key} of {metric}", one.get(key), other.get(key))
    if first.tiled and second.tiled:
        found += _versus("tile", *(side.get("options", {}).get("tile") for side in (ours, theirs)))
    reads_lr = any(name.startswith("opensr-") for name in first.metrics if name in second.metrics)
    for key, column in CONTENTS.items():
        if _same_contents(first, second, key) is False and (key != "lr_images" or reads_lr):
            found.append(f"{key}: {_other_files(first, column)} / {_other_files(second, column)}")
    return found


def _other_files(table: Results, column: str) -> str:
    """Name files that hold other pixels than those of another table, by the first of them."""
    if column not in table.table:
        return "other pixels"
    first = next(filter(None, table.table[column]), None)
    return f"{first} ... with other pixels" if first else "none"


def remarks(tables: Mapping[str, Results]) -> list[str]:
    """What a reader of a comparison must know: other pixels count, other files are references."""
    shares, refs = (_side_by_side(tables, column) for column in ("valid_share", "ref"))
    first, *others = tables.values()
    what = "tile" if first.tiled else "image"
    found = []
    if len(uneven := shares[shares.nunique(axis=1) > 1]):
        means = ", ".join(f"{name} {100 * mean:.4g} %" for name, mean in uneven.mean().items())
        count = f"{len(uneven)} {what}{'s' if len(uneven) > 1 else ''}"
        found.append(f"valid pixels differ on {count} ({means}): scores are of different pixels")
    moved = refs[refs.nunique(axis=1) > 1]
    if len(moved) and any(_same_contents(first, o, "references") is None for o in others):
        paths = ", ".join(f"{name} {path}" for name, path in moved.iloc[0].items())
        found.append(f"references have other paths ({paths}): make sure that they are the same")
    return found


def _same_contents(first: Results, second: Results, key: str) -> bool | None:
    """Whether the files of a key of CONTENTS hold the same pixels; None where that is not known."""
    known = [table.provenance.get(key) for table in (first, second)]
    if None in known or set(first.table["id"]) != set(second.table["id"]):
        return None
    return known[0] == known[1]


def _side_by_side(tables: Mapping[str, Results], column: str) -> pd.DataFrame:
    """A column of every table, in the rows that all of them scored."""
    columns = {}
    for name, table in tables.items():
        keys = _keys(table)
        columns[name] = table.scored.drop_duplicates(keys).set_index(keys)[column]
    return pd.DataFrame(columns).dropna()


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    settings = facts["settings"]  # a list where the pairs differ in them
    rest = {key: value for key, value in facts.items() if key != "settings"}
    return rest | (settings if isinstance(settings, dict) else {"settings": settings})


def _versus(name: str, one: Any, other: Any) -> list[str]:
    return [] if one == other else [f"{name}: {_said(one)} / {_said(other)}"]


def _said(value: Any) -> str:
    if isinstance(value, list):
        several = any(isinstance(item, list) for item in value)
        return (" and " if several else ",").join(map(_said, value))
    return {"None": "none", "True": "yes", "False": "no"}.get(str(value), str(value))


def _check_alike(tables: Mapping[str, Results]) -> None:
    """Refuse tables of other kinds of rows, and numbers that mean something else."""
    (first, table), *others = tables.items()
    for name, other in others:
        if other.tiled != table.tiled:
            raise ResultsError(f"{first} and {name}: one has a row per tile, the other per image")
        if found := differences(table, other):
            raise ResultsError(
                f"{first} and {name} were not scored alike, so nothing says which is better:\n  "
                + "\n  ".join(found)
                + "\nScore both with the same options, against the same references"
            )


def _keys(results: Results) -> list[str]:
    """The columns that tell a row from the others."""
    return ["id", "row", "col"] if results.tiled else ["id"]


def _indexed(name: str, results: Results) -> pd.DataFrame:
    frame = results.scored.set_index(_keys(results))
    if not frame.index.is_unique:
        twice = frame.index[frame.index.duplicated()].unique()
        raise ResultsError(f"{name}: an id occurs more than once: {listed(twice)}")
    return frame


def _shared(
    tables: Mapping[str, Results], rows: Mapping[str, pd.DataFrame], *, common: bool
) -> pd.Index:
    """The ids that every table scored, in the first one's order."""
    shared, *others = [frame.index for frame in rows.values()]
    for index in others:
        shared = shared[shared.isin(index)]
    lines = []
    for name, frame in rows.items():
        anywhere = set().union(*(other.index for other in rows.values()))
        absent = sorted(anywhere - set(frame.index), key=str)
        failed = set(tables[name].failed["id"])
        marked = [
            f"{key} (failed)" if (key[0] if isinstance(key, tuple) else key) in failed else key
            for key in absent
        ]
        if absent:
            lines.append(f"  {name} lacks {len(absent)}: {listed(marked)}")
    if lines and not common:
        raise ResultsError(
            "the tables do not hold the same images:\n"
            + "\n".join(lines)
            + "\n--common compares the images that all of them scored"
        )
    if not len(shared):
        raise ResultsError("no image was scored in all tables: are these the same images?")
    return shared


def _scenes(rows: Mapping[str, pd.DataFrame], shared: pd.Index) -> NDArray[Any]:
    """The scene of every shared row, on which the tables must agree."""
    columns = {name: frame.loc[shared, "scene"].to_numpy() for name, frame in rows.items()}
    (first, scenes), *others = columns.items()
    for name, other in others:
        if (scenes != other).any():
            row = int((scenes != other).argmax())
            raise ResultsError(
                f"{shared[row]} belongs to scene {scenes[row]} in {first}, to {other[row]} in "
                f"{name}: give both manifests the same column scene"
            )
    return scenes
