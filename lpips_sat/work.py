"""The unit of work of a set: a part of a pair in, sums out, in any process on any machine.

A large pair is cut into parts of whole rows of tiles, always in the same way, so that several
workers share a scene, a killed run loses one part at most, and the numbers depend on neither.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch

from . import __version__, suites
from .align import align
from .alignment import Alignment
from .declared import RadiometryOptions
from .errors import LpipsSatError, MetricInputError
from .harmonize import Fit
from .items import Item
from .pair import RasterPair
from .radiometry import PRESETS, Kind
from .raster import Resampling, open_pair
from .scoring import TILE, Score, TileSums, add_up, check_tile, finish, tile_sums
from .tiled import TileMetric

# A part has at least this many pixels, seconds of work: opening a file again costs little beside.
PART_PIXELS = 2**23
FACTS = ("bands", "kind", "lr_factor", "gsd")
# Row, col, height, width, number of pixels that count, each metric's sums.
Packed = tuple[int, int, int, int, int, list[list[float]]]


@dataclass(frozen=True)
class ScoreOptions:
    """How pairs are scored; plain values, since they travel and are compared.

    suite, metrics: names, see `lpips_sat.suites`; weights: (metric, name or path); tiles: whether
    a row is a tile; tile: side of a tile's core in pixels; reproject, register, harmonize: how the
    prediction is aligned, see `open_pair` and `align`. The others as `open_pair` and
    `lpips_sat.suites.Settings` take them, sequences as tuples.
    """

    suite: str | None = None
    metrics: tuple[str, ...] = ()
    weights: tuple[tuple[str, str], ...] = ()
    composite: tuple[str, ...] | None = None
    bands: tuple[str, ...] | None = None
    radiometry: RadiometryOptions = field(default_factory=RadiometryOptions)
    data_range: float = 1.0
    factor: float | None = None
    tiles: bool = False
    tile: int = TILE
    reproject: Resampling | None = None
    register: bool = False
    harmonize: Fit | None = None

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> ScoreOptions:
        """Undo `dataclasses.asdict` and JSON, which made lists of tuples."""
        given = {name: _tuples(value) for name, value in plain.items()}
        said = {name: _tuples(value) for name, value in plain["radiometry"].items()}
        if isinstance(said.get("nodata"), str):  # JSON has no NaN
            said["nodata"] = float(said["nodata"])
        given["radiometry"] = RadiometryOptions(**said)
        return cls(**given)

    def settings(
        self, bands: Sequence[str], kind: Kind, lr_factor: int | None, gsd: float | None
    ) -> suites.Settings:
        """What metrics are built with, for images with these bands."""
        if None not in (self.factor, lr_factor) and self.factor != lr_factor:
            raise MetricInputError(
                f"--factor is {self.factor:g}, but the image of --lr is {lr_factor} times coarser"
            )
        return suites.Settings(
            tuple(bands),
            kind,
            self.data_range,
            self.factor or lr_factor,
            self.composite,
            weights=dict(self.weights),
            lr_factor=lr_factor,
            gsd=gsd,
        )


@dataclass(frozen=True)
class Task:
    """Part number `part`, from 0, of a pair; alignment: what part 0 found, as plain values."""

    item: Item
    options: ScoreOptions
    part: int = 0
    alignment: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Outcome:
    """What a part came to; plain values, since it travels and is kept in a journal.

    parts: of the whole pair; reason: why it failed, empty if it did not; facts: what the pair
    holds; tiles: one entry per tile, or one for all of the part.
    """

    parts: int = 1
    reason: str = ""
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    tiles: list[Packed] = field(default_factory=list)
    version: str = __version__


def score_part(task: Task) -> Outcome:
    """Score a part of a pair; whatever goes wrong with it is a reason, not an exception."""
    began = time.perf_counter()
    options, item = task.options, task.item
    try:
        with open_item(item, options, task.alignment) as pair:
            metrics = build_metrics(options, *pair.facts)
            parts, rows = _cut(pair, metrics, options.tile, task.part)
            with closing(tile_sums(pair, metrics, tile=options.tile, rows=rows)) as pieces:
                tiles = list(pieces) if options.tiles else [_in_one(pieces)]
            facts = {
                **dict(zip(FACTS, pair.facts, strict=True)),
                "bands": list(pair.bands),  # as it comes back from a journal
                "pred_radiometry": pair.pred_radiometry.describe(),
                "ref_radiometry": pair.ref_radiometry.describe(),
                "alignment": pair.alignment.describe(),
            }
    except LpipsSatError as error:
        reason = str(error)
    except Exception as error:  # one bad file must not end a run of thousands
        reason = f"unexpected {type(error).__name__}: {' '.join(str(error).split())}"
    else:
        return Outcome(parts, "", time.perf_counter() - began, facts, [_pack(t) for t in tiles])
    return Outcome(reason=reason or "no reason given", seconds=time.perf_counter() - began)


@contextmanager
def open_item(
    item: Item, options: ScoreOptions, known: Mapping[str, Any] | None = None
) -> Iterator[RasterPair]:
    """Open a pair and align it as these options say; known: the alignment, if it was found."""
    with open_pair(
        item.pred,
        item.ref,
        radiometry=options.radiometry,
        bands=options.bands,
        mask_path=item.mask,
        lr_path=item.lr,
        reproject=options.reproject,
    ) as pair:
        yield align(
            pair,
            register=options.register,
            harmonize=options.harmonize,
            known=None if known is None else Alignment.from_json(known),
        )


def scores_of(
    outcomes: Iterable[Outcome], options: ScoreOptions
) -> list[tuple[TileSums, list[Score]]]:
    """Scores of a pair, or of each of its tiles, from the outcomes of all its parts in order.

    A tile in which no pixel counts has no scores; a pair without one is an LpipsSatError.
    """
    outcomes = list(outcomes)
    facts = outcomes[0].facts
    metrics = build_metrics(options, *facts_of(facts))
    tiles = [_unpack(tile) for outcome in outcomes for tile in outcome.tiles]
    valid, sums = add_up(tiles)
    kind, bands = facts["kind"], facts["bands"]
    whole = finish(metrics, valid, sums, kind, bands)
    if not options.tiles:
        height, width = sum(tile.height for tile in tiles), tiles[0].width
        return [(TileSums(0, 0, height, width, valid, sums), whole)]
    return [(t, finish(metrics, t.valid, t.sums, kind, bands) if t.valid else []) for t in tiles]


def facts_of(facts: Mapping[str, Any]) -> tuple[tuple[str, ...], Kind, int | None, float | None]:
    """What metrics are built from, out of the facts of an outcome; see `RasterPair.facts`."""
    bands, *others = (facts[name] for name in FACTS)
    return (tuple(bands), *others)


@lru_cache(maxsize=8)  # loading weights takes as long as scoring a small image
def build_metrics(
    options: ScoreOptions,
    bands: tuple[str, ...],
    kind: Kind,
    lr_factor: int | None,
    gsd: float | None,
) -> tuple[TileMetric, ...]:
    """Build the metrics for images with these bands."""
    settings = options.settings(bands, kind, lr_factor, gsd)
    default = None if options.metrics else "default"
    suite = options.suite or default
    group = [] if suite is None else suites.members(suite, settings)
    return tuple(suites.build([*group, *options.metrics], settings))


def check_options(options: ScoreOptions, *, lr: bool) -> tuple[TileMetric, ...]:
    """Build the metrics for a typical image, so that a mistake ends the run before it begins.

    lr: whether pairs come with a low-resolution image; how much coarser is not known yet.
    """
    preset = PRESETS.get(options.radiometry.preset or "")
    kind: Kind = "reflectance" if preset is None else preset.kind
    bands = options.bands or options.composite or ("B04", "B03", "B02")
    factor = int(options.factor or 4) if lr else None
    metrics = build_metrics(options, tuple(bands), kind, factor, 10.0)
    check_tile(options.tile, metrics)
    return metrics


def _cut(
    pair: RasterPair, metrics: Sequence[TileMetric], tile: int, part: int
) -> tuple[int, slice]:
    """How many parts the pair has, and which rows of tiles belong to this one."""
    if any(getattr(metric, "known_sums", None) for metric in metrics):
        return 1, slice(None)  # every part would begin with a pass over the whole pair
    per_part = math.ceil(PART_PIXELS / (tile * pair.grid.width))
    rows = math.ceil(pair.grid.height / tile)
    if rows <= per_part:
        return 1, slice(None)
    parts = 1 + math.ceil((rows - 1) / per_part)
    if part == 0:  # a single row: the other parts wait for what it finds
        return parts, slice(1)
    begin = 1 + (part - 1) * per_part
    return parts, slice(begin, begin + per_part)


def _in_one(pieces: Iterable[TileSums]) -> TileSums:
    """All tiles of a part as one."""
    tiles: list[TileSums] = []

    def noted() -> Iterable[TileSums]:
        for piece in pieces:
            tiles.append(piece)
            yield piece

    valid, sums = add_up(noted())
    height = tiles[-1].row + tiles[-1].height - tiles[0].row
    return TileSums(tiles[0].row, 0, height, tiles[-1].col + tiles[-1].width, valid, sums)


def _pack(tile: TileSums) -> Packed:
    sums = [total[0].tolist() for total in tile.sums]  # N = 1
    return (tile.row, tile.col, tile.height, tile.width, tile.valid, sums)


def _unpack(packed: Packed) -> TileSums:
    row, col, height, width, valid, sums = packed
    totals = tuple(torch.tensor([total], dtype=torch.float64) for total in sums)
    return TileSums(row, col, height, width, valid, totals)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
