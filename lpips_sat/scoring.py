"""A pair of rasters in, scores out: tile by tile, with the numbers of the whole image.

Every metric adds up sums over disjoint cores (`sums`) and turns them into a score at the end
(`from_sums`), so memory depends on the tile and not on the scene.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from . import __version__
from .errors import LpipsSatError, MetricInputError
from .lpips import LPIPSSat
from .pair import RasterPair, Tile
from .radiometry import check_range
from .raster import MapWriter
from .tiled import INPUT_UNITS, TileMetric

# Side of a tile's core in pixels. With LPIPS-Sat's halo, 96 px after alignment, a tile has
# (960 / 768)^2 = 1.56 times the pixels of its core; a larger one saves work and takes memory.
TILE = 768


@dataclass(frozen=True)
class Score:
    """One metric's value of one pair; NaN where it is not defined, such as SSIM of slivers.

    higher_is_better: None where neither is, and the best value is 0.
    """

    name: str
    value: float
    unit: str
    higher_is_better: bool | None


@dataclass(frozen=True)
class PairResult:
    """The scores of one pair with everything that they depend on."""

    scores: list[Score]
    bands: tuple[str, ...]
    kind: str
    pixels: int
    valid_share: float
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)
    version: str = __version__

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
    """Score an open pair with every metric in one pass over its tiles.

    Args:
        pair: from :func:`lpips_sat.open_pair`.
        metrics: what to compute, such as those of :func:`lpips_sat.suite`.
        tile: side of a tile's core in pixels, a multiple of every metric's ``align``.
        map_writer: an open writer on the pair's grid for LPIPS-Sat's per-pixel distance.
        progress: called with the number of pixels done after each tile.

    Raises:
        MetricInputError: the image is too small, or a map is asked for without LPIPS-Sat.
        RadiometryError: more than 1 % of a tile's pixels are outside the declared range.
        LpipsSatError: not a single pixel is valid in both images.
    """
    _check_fit(pair, metrics, map_writer)
    began, valid_pixels = time.perf_counter(), 0
    totals: list[Tensor | int] = [0] * len(metrics)
    halo = max((m.halo for m in metrics), default=0)
    align = math.lcm(*(getattr(m, "align", 1) for m in metrics))
    for piece in pair.tiles(size=tile, halo=halo, align=align):
        check_range(piece.pred, piece.valid, pair.pred_radiometry, source="the prediction")
        check_range(piece.ref, piece.valid, pair.ref_radiometry, source="the reference")
        here = int((piece.valid & piece.core).sum())
        if here:  # an empty tile adds nothing, and the map is NaN where nothing is written
            with torch.inference_mode():
                for i, metric in enumerate(metrics):
                    totals[i] = totals[i] + _tile_sums(metric, piece, map_writer)
        valid_pixels += here
        progress(piece.height * piece.width)
    if not valid_pixels:
        raise LpipsSatError(
            "no pixel is valid in both images (nodata, NaN, alpha and mask together leave nothing)"
        )
    scores = [
        Score(
            m.name,
            float(m.from_sums(total)),
            pair.kind if m.unit == INPUT_UNITS else m.unit,
            m.higher_is_better,
        )
        for m, total in zip(metrics, totals, strict=True)
        if isinstance(total, Tensor)
    ]
    pixels = pair.grid.width * pair.grid.height
    return PairResult(
        scores,
        pair.bands,
        pair.kind,
        pixels,
        valid_pixels / pixels,
        time.perf_counter() - began,
        _settings(pair, metrics),
    )


def _tile_sums(metric: TileMetric, tile: Tile, map_writer: MapWriter | None) -> Tensor:
    """One metric on one tile, cut to the halo it needs; writes the map on the way."""
    align = getattr(metric, "align", 1)
    part = tile.cut(-(-metric.halo // align) * align)
    given = {"valid": part.valid, "core": part.core}
    if map_writer is None or not isinstance(metric, LPIPSSat):
        return metric.sums(part.pred, part.ref, **given)
    distance, sums = metric.map_and_sums(part.pred, part.ref, **given)
    map_writer.write(tile.row, tile.col, distance[0, 0][part.core_slices])
    return sums


def _check_fit(
    pair: RasterPair, metrics: Sequence[TileMetric], map_writer: MapWriter | None
) -> None:
    """Refuse metrics made for other images, images too small, and a map of nothing."""
    for metric in metrics:
        if isinstance(metric, LPIPSSat) and (
            metric.to_input.bands != pair.bands or metric.to_input.kind != pair.kind
        ):
            made, has = metric.to_input, f"{', '.join(pair.bands)} as {pair.kind}"
            raise MetricInputError(
                f"LPIPSSat was made for {', '.join(made.bands)} as {made.kind}, the pair holds "
                f"{has}: use LPIPSSat(bands=pair.bands, radiometry=pair.kind)"
            )
    side = min(pair.grid.width, pair.grid.height)
    for metric in metrics:
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
        found.update(getattr(metric, "settings", {}))
        if isinstance(metric, LPIPSSat):
            found["composite"] = list(metric.to_input.composite)
            found["weights"] = {k: metric.card.get(k) for k in ("name", "version", "sha256")}
    return found
