"""What a reader of the numbers must know: failures, shifts, invalid pixels, mixed radiometry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..compare import differences, remarks
from ..results import MAX_INVALID, Results

SHOWN = 20  # lines of detail per note


@dataclass(frozen=True)
class Note:
    """A warning about a method's table, with some lines of detail."""

    method: str
    text: str
    details: list[str]


def notes(tables: Mapping[str, Results]) -> list[Note]:
    """Warnings of all tables, the gravest kind first."""
    kinds = (_failures, _warnings, _invalid, _mixed)
    return [
        *_unlike(tables),
        *(
            Note(method, text, _capped(details))
            for kind in kinds
            for method, table in tables.items()
            for text, details in kind(table)
        ),
    ]


def _unlike(tables: Mapping[str, Results]) -> Iterator[Note]:
    """What stands in the way of a comparison with the first table."""
    (first, table), *others = tables.items()
    for method, other in others:
        if found := differences(table, other):
            text = f"not scored as {first} was, so that their numbers do not compare"
            yield Note(method, text, _capped(found))
        if doubts := remarks({method: other, first: table}):
            yield Note(method, f"may not be scored on the same pixels as {first}", _capped(doubts))


def _failures(table: Results) -> Iterator[tuple[str, list[str]]]:
    failed = table.failed
    if len(failed):
        details = [f"{row.id}: {row.reason}" for row in failed.itertuples()]
        yield f"{len(failed)} of {table.provenance['pairs']} pairs failed", details


def _warnings(table: Results) -> Iterator[tuple[str, list[str]]]:
    """What scoring warned of, such as a shift; once a pair, not once a tile."""
    rows = table.scored.drop_duplicates("id")
    rows = rows[rows["warning"] != ""]
    if len(rows):
        details = [f"{row.id}: {row.warning}" for row in rows.itertuples()]
        yield f"{len(rows)} of {table.provenance['pairs']} pairs may not be aligned", details


def _invalid(table: Results) -> Iterator[tuple[str, list[str]]]:
    rows = table.lacking
    if len(rows):
        what = ("tile" if table.tiled else "image") + ("s" if len(rows) > 1 else "")
        details = [
            f"{row.id}: {row.valid_share:.1%} of the pixels count" for row in rows.itertuples()
        ]
        yield (
            f"in {len(rows)} {what} more than {MAX_INVALID:.0%} of the pixels do not count",
            details,
        )


def _mixed(table: Results) -> Iterator[tuple[str, list[str]]]:
    for key, what in (
        ("kind", "kinds of values"),
        ("bands", "sets of bands"),
        ("pred_radiometry", "radiometries of predictions"),
        ("ref_radiometry", "radiometries of references"),
    ):
        several = table.provenance.get(key, [])
        if len(several) > 1:
            shown = [v if isinstance(v, str) else ", ".join(v) for v in several]
            yield f"the pairs are of {len(several)} {what}, which the means mix", shown


def _capped(details: list[str]) -> list[str]:
    more = len(details) - SHOWN
    return [*details[:SHOWN], *([f"and {more} more"] if more > 0 else [])]
