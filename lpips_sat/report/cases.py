"""Which images a report shows, and what it shows of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np

from ..errors import LpipsSatError
from ..items import Item
from ..results import Results
from ..work import ScoreOptions, open_item
from .panels import Drawn, Seen, picture, see
from .tables import metric_facts, number, values_of

EXTREMES = 3  # worst and best rows listed per metric and method


class Key(NamedTuple):
    """What a row shows: an image, or a tile of one at (row, col)."""

    id: str
    row: int = -1
    col: int = -1

    def __str__(self) -> str:
        return self.id if self.row < 0 else f"{self.id}, row {self.row}, column {self.col}"


@dataclass(frozen=True)
class Extreme:
    """The rows of one method that one metric finds worst and best, with their scores."""

    metric: str
    method: str
    worst: list[tuple[Key, str]]
    best: list[tuple[Key, str]]


@dataclass(frozen=True)
class Shown:
    """One method's result on an image: its scores as text and its pictures."""

    method: str
    scores: list[tuple[str, str]]
    drawn: Drawn


@dataclass(frozen=True)
class Case:
    """An image with the results of every method that scored it."""

    key: Key
    shown: list[Shown]


def best_and_worst(tables: Mapping[str, Results]) -> list[Extreme]:
    """The extreme rows of every metric and method; undefined scores are neither."""
    return [
        _extreme(metric, facts["higher_is_better"], method, table)
        for metric, facts in metric_facts(tables).items()
        for method, table in tables.items()
        if metric in table.metrics
    ]


def choose(extremes: list[Extreme], cases: int) -> list[Key]:
    """The first ``cases`` images: the worst of every metric in turn, then the best, and so on."""
    ranked = zip_longest(
        *(
            [entry for pair in zip_longest(e.worst, e.best) for entry in pair if entry]
            for e in extremes
        )
    )
    found: dict[Key, None] = {}
    for entries in ranked:
        found.update((entry[0], None) for entry in entries if entry is not None)
    return list(found)[:cases]


def draw(key: Key, tables: Mapping[str, Results]) -> Case:
    """Read an image again for every method and draw it; a raster that cannot be read says why."""
    seen: dict[str, tuple[list[tuple[str, str]], Seen | str]] = {}
    for method, table in tables.items():
        for row in _rows(table, key):
            scores = [(name, number(float(row[name]))) for name in table.metrics]
            seen[method] = (scores, _see(row, table))
    pictures = [found for _, found in seen.values() if isinstance(found, Seen)]
    return Case(
        key,
        [
            Shown(
                method,
                scores,
                Drawn(problem=found) if isinstance(found, str) else picture(found, pictures),
            )
            for method, (scores, found) in seen.items()
        ],
    )


def _see(row: Mapping[str, Any], table: Results) -> Seen | str:
    item = Item(row["id"], row["pred"], row["ref"], row["scene"], mask=row["mask"] or None)
    options = ScoreOptions.from_json(table.provenance["options"])
    place = None
    if table.tiled:
        place = (row["row"], row["col"], row["height"], row["width"])
    try:
        with open_item(item, options, _alignment(row)) as pair:
            return see(pair, options, place)
    except LpipsSatError as error:
        return str(error)


def _alignment(row: Mapping[str, Any]) -> dict[str, Any]:
    """What was done to the prediction, to be done again without estimating it again."""
    names = ("dy", "dx", "reliability")
    shift = {name: float(row[f"shift_{name}"]) for name in names}
    known = np.isfinite(shift["dy"])
    return {"shift": shift if known else None, "applied": json.loads(row["alignment"] or "{}")}


def _rows(table: Results, key: Key) -> Iterator[dict[str, Any]]:
    rows = table.scored
    rows = rows[rows["id"] == key.id]
    if table.tiled:
        rows = rows[(rows["row"] == key.row) & (rows["col"] == key.col)]
    for row in rows.to_dict("records"):
        yield {str(name): value for name, value in row.items()}


def _extreme(metric: str, higher: bool | None, method: str, table: Results) -> Extreme:
    values = values_of(table, metric)
    badness = np.abs(values) if higher is None else -values if higher else values
    order = [int(i) for i in np.argsort(badness, kind="stable") if not np.isnan(values[i])]
    half = min(EXTREMES, max(1, len(order) // 2))  # no row is both, unless it is the only one
    places = [table.scored[name].tolist() for name in (("row", "col") if table.tiled else ())]
    keys = [Key(*parts) for parts in zip(table.scored["id"].tolist(), *places, strict=True)]

    def named(rows: list[int]) -> list[tuple[Key, str]]:
        return [(keys[i], number(float(values[i]))) for i in rows]

    return Extreme(metric, method, named(order[::-1][:half]), named(order[:half]))
