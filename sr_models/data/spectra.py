"""Images (..., h, w) in the frequencies of the cosine transform (DCT-II).

A filter that is real and symmetric is a product there, and the border a mirror. Radial means are
taken over rings of RING cycles/px, from 0 to the corner of the spectrum at 0.707.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.fft import dctn, idctn

Array = npt.NDArray[np.float64]

RING = 1 / 32
RINGS = math.ceil(math.sqrt(0.5) / RING)


def frequencies(height: int, width: int) -> Array:
    """Distance (h, w) of each coefficient from frequency 0, in cycles/px."""
    y, x = (np.arange(side) / (2 * side) for side in (height, width))
    return np.hypot(y[:, None], x)


def cosines(image: Array) -> Array:
    """The orthonormal transform: white noise stays white, with its variance."""
    return dctn(image, axes=(-2, -1), norm="ortho")


def from_cosines(coefficients: Array) -> Array:
    """Undo `cosines`."""
    return idctn(coefficients, axes=(-2, -1), norm="ortho")


def filtered(image: Array, gain: Array) -> Array:
    """Multiply the coefficients by `gain` (..., h, w)."""
    return from_cosines(cosines(image) * gain)


def radial_product(x: Array, y: Array) -> Array:
    """Cross-spectrum (N, C, RINGS) of images (N, C, h, w); 0 in a ring without a frequency."""
    ring = np.minimum(frequencies(*x.shape[-2:]) / RING, RINGS - 1).astype(int).ravel()
    power = (cosines(x) * cosines(y)).reshape(*x.shape[:2], -1)
    means = np.zeros((*x.shape[:2], RINGS))
    for number in np.unique(ring):
        means[..., number] = power[..., ring == number].mean(-1)
    return means


def from_rings(rings: Sequence[Sequence[float]] | Array, height: int, width: int) -> Array:
    """Values per band and ring (C, RINGS) at every coefficient (C, h, w), interpolated."""
    at, centres = frequencies(height, width), RING * (np.arange(RINGS) + 0.5)
    return np.stack([np.interp(at, centres, band) for band in rings])
