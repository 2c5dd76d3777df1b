"""What tells two images of one place apart: shift, radiometry, sharpness, noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import convolve, gaussian_filter

from lpips_sat.functional import sam, spectral_energy
from lpips_sat.functional.mtf import WINDOW, ring_frequencies
from lpips_sat.registration import Shift, apply_shift, estimate_shift

from .sets import box_mean

Array = npt.NDArray[Any]

# Reliability from which a shift is believed, see lpips_sat.registration.Shift.
MIN_RELIABILITY = 0.9
# Standard deviation in LR pixels of the Gaussian under which two sensors see the same detail: the
# MTF of a sensor at half the Nyquist frequency is 0.7 or more, that of this Gaussian 0.01.
SMOOTH_PX = 2.0
# Variance, relative to the mean square, that is rounding and not detail.
FLAT = 1e-12
# Second differences along both axes: planes and edges along an axis give 0, white noise 6 times its
# standard deviation (Immerkaer 1996, doi:10.1006/cviu.1996.0060).
NOISE_MASK = np.outer((1.0, -2.0, 1.0), (1.0, -2.0, 1.0))
NOISE_GAIN = 6.0
# Median of |x| of a standard normal x; the median is hardly moved by the few pixels on edges
# (Donoho & Johnstone 1994, doi:10.1093/biomet/81.3.425).
NORMAL_MEDIAN = 0.6745


def measure(lr: Array, hr: Array, bands: Sequence[str]) -> dict[str, Any]:
    """Compare LR (C, h, w) with the means of HR (C, h f, w f) over its pixels, band by band.

    Returns:
        `shift_y`, `shift_x` of LR in LR px, `shift` their length, `reliability` in [0, 1]; what
        `compare` finds of every band B once a reliable shift is undone: `gain_B`, `offset_B`,
        `bias_B`, `residual_B`, `correlation_B`; `spectral_angle` in degrees (NaN for one band);
        `lr_noise_B` and `hr_noise_B`, standard deviations at their own pixels; `mtf`, see
        `relative_mtf`.
    """
    factor = hr.shape[1] // lr.shape[1]
    low, high = (x.astype(np.float64) for x in (lr, hr))
    down = box_mean(high, factor)
    shift = estimate_shift(*(torch.from_numpy(x)[None] for x in (low, down)))
    found: dict[str, Any] = {"shift_y": shift.dy, "shift_x": shift.dx}
    found |= {"shift": math.hypot(shift.dy, shift.dx), "reliability": shift.reliability}
    moved, still = _undo(low, down, shift) if shift.reliability >= MIN_RELIABILITY else (low, down)
    lines = [compare(line_sums(x, y)) for x, y in zip(still, moved, strict=True)]
    for band, line in zip(bands, lines, strict=True):
        found |= {f"{name}_{band}": value for name, value in line.items()}
    for side, image in (("lr", low), ("hr", high)):
        found |= {f"{side}_noise_{b}": noise_level(x) for b, x in zip(bands, image, strict=True)}
    pair = (torch.from_numpy(x)[None] for x in (moved, still))
    angle = sam(*pair) if len(bands) > 1 else math.nan
    gains = np.array([line["gain"] for line in lines])[:, None, None]
    mtf = relative_mtf(low, gains * down)
    return found | {"spectral_angle": float(angle), "mtf": mtf.tolist()}


def line_sums(x: Array, y: Array) -> Array:
    """Return (10,) float64, what `compare` needs of two images (h, w) of one band.

    Their number of pixels and the sums of x, y, x^2, x y, y^2; the sums of x, y, x^2, x y of both
    smoothed by a Gaussian of 2 px. Adds up over pairs.
    """
    u, v = (gaussian_filter(image, SMOOTH_PX) for image in (x, y))
    products = (x, y, x * x, x * y, y * y, u, v, u * u, u * v)
    return np.array([x.size, *(product.sum() for product in products)])


def compare(sums: Array) -> dict[str, float]:
    """Describe y as a line of x, from `line_sums`.

    `gain` and `offset` are the least-squares line of the smoothed images: detail that only one of
    them resolves, and noise, would draw the gain towards 0. `residual` is the RMS from that line
    and `correlation` Pearson's, both pixel by pixel as they are; NaN if an image has no detail at
    all. `bias` is the mean of y - x.
    """
    x, y, xx, xy, yy, u, v, uu, uv = (float(value) for value in sums[1:] / sums[0])
    spread = uu - u * u
    gain = (uv - u * v) / spread if spread > FLAT * uu else 1.0
    offset = v - gain * u
    square = yy + gain**2 * xx + offset**2 - 2 * gain * xy - 2 * offset * y + 2 * gain * offset * x
    var_x, var_y = xx - x * x, yy - y * y
    flat = var_x <= FLAT * xx or var_y <= FLAT * yy
    return {
        "gain": gain,
        "offset": offset,
        "bias": y - x,
        "residual": math.sqrt(max(square, 0.0)),
        "correlation": math.nan if flat else (xy - x * y) / math.sqrt(var_x * var_y),
    }


def relative_mtf(lr: Array, hr: Array) -> Array:
    """Amplitude of HR, averaged and scaled to LR (C, h, w), over that of LR, per frequency.

    Above 1 the HR image is the sharper one, or LR the less noisy one: noise counts as detail. The
    frequencies are those of `frequencies`; NaN where LR is empty.
    """
    window = _window(min(lr.shape[1:]))
    energy = spectral_energy(*(torch.from_numpy(x)[None] for x in (hr, lr)), window=window)
    ratio: Array = energy[0].sqrt().numpy()
    return ratio


def frequencies(side: int) -> Array:
    """Frequencies in cycles per LR pixel, up to Nyquist, for images of `side` LR pixels."""
    return ring_frequencies(_window(side)).numpy()


def noise_level(image: Array) -> float:
    """Standard deviation of white noise in (H, W), in its units; fine texture counts too."""
    detail = convolve(image, NOISE_MASK)[1:-1, 1:-1]
    return float(np.median(np.abs(detail)) / NORMAL_MEDIAN / NOISE_GAIN)


def _undo(lr: Array, hr: Array, shift: Shift) -> tuple[Array, Array]:
    """LR moved back onto HR, both (C, h, w), cut to where it is known; as they are if nowhere."""
    moved, valid = apply_shift(torch.from_numpy(lr)[None], -shift)
    known = valid[0, 0].numpy()
    if not known.any():
        return lr, hr
    rows, columns = known.any(axis=1), known.any(axis=0)  # a rectangle
    return moved[0].numpy()[:, rows][:, :, columns], hr[:, rows][:, :, columns]


def _window(side: int) -> int:
    """The largest power of two that fits, at most that of the MTF of an image."""
    return min(WINDOW, 2 ** int(math.log2(side)))
