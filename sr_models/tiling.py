"""Images of any size from a function on tiles: overlapping tiles, blended, in rows as they end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
# (row, col, height, width) of a tile -> its result (bands, scale * height, scale * width)
TileFunction = Callable[[int, int, int, int], Array]


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin: every tile - overlap pixels, the last one at the end of the image."""
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def blended_rows(
    run: TileFunction, height: int, width: int, *, tile: int, overlap: int, scale: int
) -> Iterator[tuple[int, Array]]:
    """Run all tiles of an image of height x width; yield (first row, rows) from top to bottom.

    Rows are (bands, n, scale * width); only one row of tiles is in memory. Where tiles overlap
    their weights fall linearly towards their edges.
    """
    tops, lefts = starts(height, tile, overlap), starts(width, tile, overlap)
    rows, cols = min(tile, height), min(tile, width)
    ramp_y, ramp_x = _ramp(rows * scale, overlap * scale), _ramp(cols * scale, overlap * scale)
    weight = ramp_y[:, None] * ramp_x[None]
    carry: tuple[Array, Array] | None = None
    for top, below in zip(tops, [*tops[1:], height], strict=True):
        total, weights = None, np.zeros((rows * scale, width * scale), np.float32)
        for left in lefts:
            result = run(top, left, rows, cols) * weight
            if total is None:
                total = np.zeros((len(result), *weights.shape), np.float32)
            across = slice(left * scale, (left + cols) * scale)
            total[:, :, across] += result
            weights[:, across] += weight
        assert total is not None
        if carry is not None:
            total[:, : carry[0].shape[1]] += carry[0]
            weights[: len(carry[1])] += carry[1]
        done = (below - top) * scale
        yield top * scale, total[:, :done] / weights[:done]
        carry = total[:, done:], weights[done:]


def _ramp(length: int, overlap: int) -> Array:
    """1 inside, falling linearly over `overlap` pixels to both ends, never 0."""
    from_edge = np.minimum(np.arange(length), np.arange(length)[::-1]) + 1
    return np.minimum(from_edge / (overlap + 1), 1).astype(np.float32)
