"""A pair of rasters in, scores out: tile by tile, with the numbers of the whole image.

Every metric adds up sums over disjoint cores (`sums`) and turns them into a score at the end
(`from_sums`), so memory depends on the tile and not on the scene.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor

from . import __version__
from .errors import LpipsSatError, MetricInputError, PluginError
from .lpips import LPIPSSat
from .pair import RasterPair, Tile
from .perceptual import NetworkMetric
from .radiometry import check_range
from .raster import MapWriter
from .tiled import INPUT_UNITS, TileMetric

# Side of a tile's core in pixels. With LPIPS-Sat's halo, 96 px after alignment, a tile has
# (960 / 768)^2 = 1.56 times the pixels of its core; a larger one saves work and takes memory.
TILE = 768

T = TypeVar("T")


@dataclass(frozen=True)
class Score:
    """One metric's value of one pair; NaN where it is not defined, such as SSIM of slivers.

    higher_is_better: None where neither is, and the best value is 0. per_band: the score of each
    band by its name, for metrics that are defined band by band.
    """

    name: str
    value: float
    unit: str
    higher_is_better: bool | None
    per_band: dict[str, float] | None = None


@dataclass(frozen=True)
class PairResult:
    """The scores of one pair with everything that they depend on.

    alignment: `shift`, the estimate in pixels, if one was made, and `applied`, what was done to the
    prediction; see `lpips_sat.align.align`.
    """

    scores: list[Score]
    bands: tuple[str, ...]
    kind: str
    pixels: int
    valid_share: float
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)
    version: str = __version__
    alignment: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> float:
        """The value of a metric by its name."""
        return {score.name: score.value for score in self.scores}[name]


def score_pair(
    pair: RasterPair,
    metrics: Sequence[TileMetric],
    *,
    tile: int = TILE,
    map_writer: MapWriter | None = None,
    progress: Callable[[int], None] = lambda pixels: None,
) -> PairResult:
    """Score an open pair with every metric in one pass over its tiles (cSSIM: two).

    Args:
        pair: from `lpips_sat.open_pair`.
        metrics: what to compute, such as those of `lpips_sat.suite`.
        tile: side of a tile's core in pixels, a multiple of every metric's ``align``.
        map_writer: an open writer on the pair's grid for LPIPS-Sat's per-pixel distance.
        progress: called with the number of pixels done after each tile.

    Raises:
        MetricInputError: the image is too small, or a map is asked for without LPIPS-Sat.
        RadiometryError: more than 1 % of a tile's pixels are outside the declared range.
        LpipsSatError: not a single pixel is valid in both images.
    """
    began = time.perf_counter()

    def counted() -> Iterator[TileSums]:
        for piece in pieces:
            yield piece
            progress(piece.height * piece.width)

    with closing(tile_sums(pair, metrics, tile=tile, map_writer=map_writer)) as pieces:
        valid_pixels, sums = add_up(counted())
    scores = finish(metrics, valid_pixels, sums, pair.kind, pair.bands)
    pixels = pair.grid.width * pair.grid.height
    return PairResult(
        scores,
        pair.bands,
        pair.kind,
        pixels,
        valid_pixels / pixels,
        time.perf_counter() - began,
        _settings(pair, metrics),
        alignment=pair.alignment.describe(),
    )


@dataclass(frozen=True)
class TileSums:
    """What a tile adds: its core, how many of its pixels count, and each metric's sums.

    There are no sums where no pixel counts.
    """

    row: int
    col: int
    height: int
    width: int
    valid: int
    sums: tuple[Tensor, ...]


def tile_sums(
    pair: RasterPair,
    metrics: Sequence[TileMetric],
    *,
    tile: int = TILE,
    rows: slice = slice(None),
    map_writer: MapWriter | None = None,
) -> Generator[TileSums]:
    """Compute tile after tile, reading the next one meanwhile; see `score_pair`.

    rows: which rows of tiles, counted in tiles. Close it before the pair is closed.
    """
    _check_fit(pair, metrics, map_writer)
    check_tile(tile, metrics)
    known = _known_before(pair, metrics, tile)
    halo = max((_halo(m) for m in metrics), default=0)
    with closing(read_ahead(pair.tiles(size=tile, halo=halo, rows=rows))) as pieces:
        for piece in pieces:
            _check_ranges(pair, piece)
            here = int((piece.valid & piece.core).sum())
            sums: tuple[Tensor, ...] = ()
            if here:  # an empty tile adds nothing, and the map is NaN where nothing is written
                with torch.inference_mode():
                    sums = _all_sums(metrics, piece, map_writer, known)
            yield TileSums(piece.row, piece.col, piece.height, piece.width, here, sums)


def add_up(pieces: Iterable[TileSums]) -> tuple[int, tuple[Tensor, ...]]:
    """Pixels that count in all pieces, and each metric's sums over them (none if none counts)."""
    valid = 0
    totals: tuple[Tensor, ...] = ()
    for piece in pieces:
        valid += piece.valid
        if piece.sums and totals:
            totals = tuple(a + b for a, b in zip(totals, piece.sums, strict=True))
        else:
            totals = totals or piece.sums
    return valid, totals


def finish(
    metrics: Sequence[TileMetric],
    valid: int,
    sums: Sequence[Tensor],
    kind: str,
    bands: Sequence[str],
) -> list[Score]:
    """Turn sums into scores; LpipsSatError if not a single pixel counted."""
    if not valid:
        raise LpipsSatError(
            "no pixel is valid in both images (nodata, NaN, alpha and mask together leave nothing)"
        )
    return [_score(m, total, kind, bands) for m, total in zip(metrics, sums, strict=True)]


def _score(metric: TileMetric, total: Tensor, kind: str, bands: Sequence[str]) -> Score:
    unit = kind if metric.unit == INPUT_UNITS else metric.unit
    per_band = getattr(metric, "per_band", None)
    of_bands = None
    if per_band is not None and len(bands) > 1:
        of_bands = dict(zip(bands, per_band(total)[0].tolist(), strict=True))
    value = metric.from_sums(total)
    if value.numel() != 1:
        raise PluginError(
            f"{metric.name}: from_sums must give one number for each image, shape (1,), but gave "
            f"{tuple(value.shape)}"
        )
    return Score(metric.name, value.item(), unit, metric.higher_is_better, of_bands)


def _known_before(
    pair: RasterPair, metrics: Sequence[TileMetric], size: int
) -> dict[Callable[..., Tensor], Tensor]:
    """A first pass for the metrics whose `sums` have to know sums of the whole image."""
    asking = [m for m in metrics if getattr(m, "known_sums", None) is not None]
    known: dict[Callable[..., Tensor], Tensor] = {}
    halo = max((_halo(m) for m in asking), default=0)
    for piece in pair.tiles(size=size, halo=halo) if asking else ():
        with torch.inference_mode():
            for metric in asking:
                part = piece.cut(_halo(metric))
                first: Callable[..., Tensor] = metric.known_sums  # type: ignore[attr-defined]
                sums = first(part.pred, part.ref, valid=part.valid, core=part.core)
                known[metric.sums] = known.get(metric.sums, 0) + sums
    return known


def read_ahead(items: Iterator[T]) -> Generator[T]:
    """Give items one by one while a thread makes the next; only that thread touches the source."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = reader.submit(list, islice(items, 1))
        while box := coming.result():
            coming = reader.submit(list, islice(items, 1))
            yield box.pop()  # nothing here holds it while the one after next is read


def check_tile(tile: int, metrics: Sequence[TileMetric]) -> None:
    """Refuse a side of tiles that is no multiple of what the metrics are aligned to."""
    align = math.lcm(*(getattr(metric, "align", 1) for metric in metrics))
    if tile < 1 or tile % align:
        raise MetricInputError(
            f"the side of a tile must be a multiple of {align} px, got {tile}: pass --tile-size"
        )


def _halo(metric: TileMetric) -> int:
    """A metric's halo, enlarged so that its array begins where the metric is aligned."""
    align = getattr(metric, "align", 1)
    return int(-(-metric.halo // align) * align)


def _all_sums(
    metrics: Sequence[TileMetric],
    tile: Tile,
    map_writer: MapWriter | None,
    known: Mapping[Callable[..., Tensor], Tensor],
) -> tuple[Tensor, ...]:
    """Every metric's sums; metrics made from the same sums share the work."""
    done: dict[Callable[..., Tensor], Tensor] = {}
    for metric in metrics:
        if metric.sums not in done:
            done[metric.sums] = _tile_sums(metric, tile, map_writer, known.get(metric.sums))
    return tuple(done[metric.sums] for metric in metrics)


def _tile_sums(
    metric: TileMetric, tile: Tile, map_writer: MapWriter | None, known: Tensor | None
) -> Tensor:
    """One metric on one tile, cut to the halo it needs; writes the map on the way."""
    part = tile.cut(_halo(metric))
    given = {"valid": part.valid, "core": part.core}
    if known is not None:
        given["known"] = known
    if getattr(metric, "needs_lr", False):
        return metric.sums(part.pred, part.ref, lr=part.lr, **given)
    if map_writer is None or not isinstance(metric, LPIPSSat):
        return metric.sums(part.pred, part.ref, **given)
    distance, sums = metric.map_and_sums(part.pred, part.ref, **given)
    map_writer.write(tile.row, tile.col, distance[0, 0][part.core_slices])
    return sums


def _check_ranges(pair: RasterPair, piece: Tile) -> None:
    """Refuse values that no sensor delivers, in the words of the file that holds them."""
    check_range(
        piece.pred, piece.valid, pair.pred_radiometry, source=f"the prediction {pair.pred_path}"
    )
    check_range(
        piece.ref, piece.valid, pair.ref_radiometry, source=f"the reference {pair.ref_path}"
    )
    if piece.lr is not None and pair.lr_radiometry is not None:
        seen = piece.lr.isfinite().all(dim=1, keepdim=True)
        lr = piece.lr.nan_to_num(0)
        check_range(lr, seen, pair.lr_radiometry, source=f"the low-resolution image {pair.lr_path}")


def _check_fit(
    pair: RasterPair, metrics: Sequence[TileMetric], map_writer: MapWriter | None
) -> None:
    """Refuse metrics made for other images, images too small, and a map of nothing."""
    for metric in metrics:
        if isinstance(metric, LPIPSSat | NetworkMetric) and (
            metric.to_input.bands != pair.bands or metric.to_input.kind != pair.kind
        ):
            made, has = metric.to_input, f"{', '.join(pair.bands)} as {pair.kind}"
            raise MetricInputError(
                f"{metric.name} was made for {', '.join(made.bands)} as {made.kind}, the pair "
                f"holds {has}: use {type(metric).__name__}(bands=pair.bands, radiometry=pair.kind)"
            )
    side = min(pair.grid.width, pair.grid.height)
    for metric in metrics:
        if getattr(metric, "needs_lr", False) and pair.lr_factor is None:
            raise MetricInputError(
                f"{metric.name} needs the low-resolution image: --lr FILE, in Python "
                "open_pair(..., lr_path=FILE)"
            )
        needed = getattr(metric, "min_size", 2 * metric.halo + 1)
        if side < needed:
            raise MetricInputError(
                f"{metric.name} needs images of at least {needed} x {needed} px, got "
                f"{pair.grid.width} x {pair.grid.height}; leave it out with --metrics"
            )
    if map_writer is not None and not any(isinstance(m, LPIPSSat) for m in metrics):
        raise MetricInputError("a map shows LPIPS-Sat: add lpips-sat to the metrics")


def _settings(pair: RasterPair, metrics: Sequence[TileMetric]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "pred_radiometry": pair.pred_radiometry.describe(),
        "ref_radiometry": pair.ref_radiometry.describe(),
    }
    for metric in metrics:
        found.update(metric_settings(metric))
    return found


def metric_settings(metric: TileMetric) -> dict[str, Any]:
    """What a metric's values depend on, besides the images."""
    found = dict(getattr(metric, "settings", {}))
    if isinstance(metric, LPIPSSat):
        found["composite"] = list(metric.to_input.composite)
        found["weights"] = {k: metric.card.get(k) for k in ("name", "version", "sha256")}
        if "sha256" not in metric.card:  # uncalibrated: the network is all there is to tell it by
            found["weights"]["backbone"] = metric.config["backbone"]
    return found
