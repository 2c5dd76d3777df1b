"""Where the tiles of a scene lie, and which of them train and test: geography, no pixels.

Tiles stand in square blocks, and a strip without tiles surrounds every block. A block belongs to
one split as a whole, so no test pixel is closer to a training pixel than that strip is wide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .errors import PairError

SPLITS = ("train", "val", "test")
# Tiles of the test blocks without texture, such as open water: reported apart.
TEST_UNTEXTURED = "test_untextured"


@dataclass(frozen=True)
class Layout:
    """How a scene is cut; lengths in HR pixels.

    Args:
        tile: side of a tile, a multiple of the factor.
        block: tiles along a side of a block.
        margin: width of the empty strip between blocks, a multiple of the factor.
        shares: of the textured tiles, for train, val and test.
        min_texture: RMS of the detail finer than an LR pixel, in the units of the values, below
            which a tile is untextured. The default lies in the gap between open water (0.001 to
            0.003) and land (0.005 to 0.03) of a Sentinel-2 near-infrared scene.
        seed: decides which block goes where.
    """

    tile: int = 128
    block: int = 2
    margin: int = 64
    shares: tuple[float, float, float] = (0.6, 0.15, 0.25)
    min_texture: float = 0.004
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse sizes and shares without meaning."""
        sizes = self.tile > 0 and self.block > 0 and self.margin >= 0 and self.min_texture >= 0
        if not (sizes and min(self.shares) > 0 and abs(sum(self.shares) - 1) < 1e-6):
            raise PairError(
                "expected tile and block > 0, margin and min_texture >= 0, and three shares > 0 "
                f"that add up to 1, got {self}"
            )

    def check(self, factor: int, *, least: int) -> None:
        """Refuse a tile or margin that does not end with an LR pixel, and one too small.

        least: LR pixels that the side of a tile must have.
        """
        if self.tile % factor or self.margin % factor or self.tile < least * factor:
            raise PairError(
                f"tile {self.tile} and margin {self.margin} (HR px) must be multiples of the "
                f"factor {factor}, and a tile {least * factor} px or more: take e.g. --tile "
                f"{64 * factor} --margin {32 * factor}"
            )

    def places(self, height: int, width: int) -> list[Place]:
        """List the tiles wholly inside `height` x `width` HR pixels, row by row of blocks."""
        stride = self.block * self.tile + self.margin
        return [
            Place(row, col, f"{top // stride}-{left // stride}")
            for top in range(0, height, stride)
            for left in range(0, width, stride)
            for row in range(
                top, min(top + stride - self.margin, height - self.tile + 1), self.tile
            )
            for col in range(
                left, min(left + stride - self.margin, width - self.tile + 1), self.tile
            )
        ]


@dataclass(frozen=True)
class Place:
    """A tile's first row and column in HR pixels of the common grid, and its block."""

    row: int
    col: int
    block: str

    @property
    def id(self) -> str:
        """Name the tile: `r00128_c00000`."""
        return f"r{self.row:05d}_c{self.col:05d}"


def assign_blocks(tiles: Mapping[str, int], layout: Layout) -> dict[str, str]:
    """Give every block a split, so that the shares of tiles come close to `layout.shares`.

    tiles: textured tiles per block. Blocks in random order go where most is missing; blocks
    without a textured tile are for the test, which reports their tiles apart.

    Raises:
        PairError: too few blocks for three splits.
    """
    blocks = sorted(block for block, count in tiles.items() if count)
    if len(blocks) < len(SPLITS):
        raise PairError(
            f"textured, valid tiles lie in {len(blocks)} of the blocks of {layout.block} x "
            f"{layout.block} tiles: at least 3 are needed for train, val and test; take smaller "
            "ones (--tile, --block, --margin), a lower --min-texture, or a larger scene"
        )
    total = sum(tiles.values())
    missing = {split: share * total for split, share in zip(SPLITS, layout.shares, strict=True)}
    split_of = dict.fromkeys(tiles, "test")
    for i, index in enumerate(np.random.default_rng(layout.seed).permutation(len(blocks))):
        block = blocks[index]
        # the first three go to one split each, so that none stays empty
        split = SPLITS[i] if i < len(SPLITS) else max(missing, key=missing.__getitem__)
        split_of[block] = split
        missing[split] -= tiles[block]
    return split_of


def gap(a: Place, b: Place, tile: int) -> int:
    """Pixels between two tiles along the axis on which they are farther apart; 0 = they touch."""
    return max(abs(a.row - b.row), abs(a.col - b.col)) - tile
