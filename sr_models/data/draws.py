"""Synthetic LR images drawn several times, so that their noise can be told from their signal."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .degradation import Degradation
from .errors import PairError
from .pairs import PairDataset
from .spectra import Array

# Tiles that are looked at, spread evenly over the split, and synthetic images drawn of each.
TILES, DRAWS = 128, 8


@dataclass(frozen=True)
class Samples:
    """Pairs of real and synthetic LR images of the same tiles: arrays (N, C, h, w).

    real: of the other sensor; first, second: means of DRAWS / 2 synthetic images each, with
    independent noise; noise: what one synthetic image has beyond their mean, with its variance.
    """

    real: Array
    first: Array
    second: Array
    noise: Array

    @property
    def mean(self) -> Array:
        """The mean of all draws."""
        return (self.first + self.second) / 2


def draw_samples(
    pairs: PairDataset,
    degradation: Degradation,
    seed: int,
    change: Callable[[Array], Array] = lambda hr: hr,
) -> Samples:
    """Up to TILES pairs of a real set; change: what is done to HR (C, H, W) first.

    Raises:
        PairError: fewer than two tiles, or tiles of different sizes.
    """
    count = min(len(pairs), TILES)
    if count < 2:
        raise PairError("the factors of the gap need two training tiles or more")
    real, halves, noise = [], [], []
    for index in np.linspace(0, len(pairs) - 1, count).round().astype(int).tolist():
        item = pairs[index]
        drawn = draws(change(item["hr"].numpy().astype(np.float64)), degradation, item["id"], seed)
        real.append(item["lr"].numpy().astype(np.float64))
        halves.append(drawn.reshape(2, -1, *drawn.shape[1:]).mean(1))
        noise.append((drawn[0] - drawn.mean(0)) * math.sqrt(DRAWS / (DRAWS - 1)))
    if len({x.shape for x in real}) > 1:
        raise PairError("the factors of the gap need tiles of one size")
    first, second = np.stack(halves, axis=1)
    return Samples(np.stack(real), first, second, np.stack(noise))


def draws(hr: Array, degradation: Degradation, name: str, seed: int) -> Array:
    """Synthetic images (DRAWS, C, h, w) of the HR tile `name`, none of them PairDataset's own."""
    key = zlib.crc32(name.encode())
    drawn = [degradation(hr, np.random.default_rng([seed, draw, key, 2])) for draw in range(DRAWS)]
    return np.stack(drawn).astype(np.float64)
