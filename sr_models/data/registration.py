"""How far one image is shifted against another, in parts of a pixel, and how sure that is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.registration import phase_cross_correlation

UPSAMPLE = 50  # the shift is found to 1/50 px


def tile_shift(
    reference: npt.NDArray[np.floating[Any]], moving: npt.NDArray[np.floating[Any]]
) -> tuple[tuple[float, float], float]:
    """Find where the content of `moving` (H, W) lies in relation to that of `reference`.

    Cross-correlation, refined by a matrix Fourier transform around its peak (Guizar-Sicairos et
    al. 2008, doi:10.1364/OL.33.000156), of the images without mean under a Hann window.

    Returns:
        ((y, x), reliability): the shift in pixels, positive = down and right; reliability in [0,
        1] is the correlation at that shift. Images without texture give ((NaN, NaN), 0).
    """
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in reference.shape))
    a, b = ((image - image.mean()) * window for image in (reference, moving))
    if not (a.any() and b.any()):
        return (math.nan, math.nan), 0.0
    shift, error, _ = phase_cross_correlation(
        a, b, upsample_factor=UPSAMPLE, normalization=None
    )  # the shift that brings `moving` back onto `reference`
    return (-float(shift[0]), -float(shift[1])), math.sqrt(max(0.0, 1 - float(error) ** 2))
