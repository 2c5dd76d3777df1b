"""Noise as a function of the place: tiles that overlap see the same noise where they do."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

BLOCK = 64  # pixels of a side that are drawn at once


class NoiseField:
    """Standard normal noise over an unbounded image, for one sample of one image.

    seed, sample: non-negative numbers that choose the field.
    """

    def __init__(self, seed: int, sample: int = 0) -> None:
        self.key = (seed, sample)

    def __call__(
        self, draw: int, bands: int, row: int, col: int, height: int, width: int
    ) -> Tensor:
        """Draw number `draw`, float32 (bands, height, width), from (row, col) >= 0 on."""
        top, left = row // BLOCK, col // BLOCK
        blocks = [
            [self._block(draw, bands, i, j) for j in range(left, -(-(col + width) // BLOCK))]
            for i in range(top, -(-(row + height) // BLOCK))
        ]
        whole = np.concatenate([np.concatenate(line, axis=2) for line in blocks], axis=1)
        row, col = row - top * BLOCK, col - left * BLOCK
        return torch.from_numpy(whole[:, row : row + height, col : col + width].copy())

    def _block(
        self, draw: int, bands: int, i: int, j: int
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        rng = np.random.default_rng([*self.key, draw, i, j])
        return rng.standard_normal((bands, BLOCK, BLOCK), dtype=np.float32)
