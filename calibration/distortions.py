"""The distortion engine: what can go wrong with a super-resolved image, by kind and severity.

The first sixteen kinds are those of the satellite-2afc judgements; their severity scales were
recovered from the released image pairs (``tests/calibration/test_distortions.py`` states the
laws). The last four imitate sensors. Every kind is a pure function of ``(image, severity, rng)``:

- ``image``: float array (H, W, C), display values in [0, 1], any number of bands;
- ``severity``: 0 (barely visible) to 1 (obvious); 0 is *not* the identity;
- ``rng``: ``numpy.random.Generator``; the same state gives the same result.

The result has the input's shape and dtype float32, clipped to [0, 1].
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from ..errors import MetricInputError

Array = NDArray[np.floating[Any]]
Distortion = Callable[[Array, float, np.random.Generator], Array]

# Colour of the scattered light of thin haze (R, G, B), as in satellite-2afc.
AIRLIGHT = (0.62, 0.66, 0.72)


def _blur(image: Array, sigma: float) -> Array:
    blurred: Array = ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="reflect")
    return blurred


def _resize(image: Array, height: int, width: int, resample: Image.Resampling) -> Array:
    """Antialiased resize of every band with pixel centres aligned (Pillow, float32)."""
    bands = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(image[..., c])).resize((width, height), resample)
        )
        for c in range(image.shape[2])
    ]
    return np.stack(bands, axis=2)


def _down_up(image: Array, factor: float, down: Image.Resampling, up: Image.Resampling) -> Array:
    height, width = image.shape[:2]
    small = _resize(image, max(1, round(height / factor)), max(1, round(width / factor)), down)
    return _resize(small, height, width, up)


def _smooth_field(shape: tuple[int, int], sigma: float, rng: np.random.Generator) -> Array:
    """A Gaussian random field of correlation length sigma px, zero mean, unit variance."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap")
    return ((field - field.mean()) / (field.std() + 1e-8)).astype(np.float32)


def _band_pass(shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Unit-variance noise between about 0.08 and 0.3 cycles/px: what a GAN paints as texture."""
    noise = rng.standard_normal(shape)
    field = ndimage.gaussian_filter(noise, 0.9) - ndimage.gaussian_filter(noise, 2.0)
    return (field / (field.std() + 1e-8)).astype(np.float32)


def _texture_envelope(image: Array) -> Array:
    """Where texture hides: local standard deviation of the mean band, mean 1 over the patch."""
    grey = image.mean(axis=2)
    mean = ndimage.gaussian_filter(grey, 2.0)
    std = np.sqrt(np.maximum(ndimage.gaussian_filter(grey**2, 2.0) - mean**2, 0.0)) + 0.02
    envelope: Array = 0.5 + 0.5 * std / std.mean()
    return envelope


def _sharpen(image: Array, amount: float) -> Array:
    return image + amount * (image - _blur(image, 1.2))


def _sample_at(image: Array, dy: Array | float, dx: Array | float) -> Array:
    rows, cols = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    at = np.stack([rows + dy, cols + dx])
    bands = [
        ndimage.map_coordinates(image[..., c], at, order=3, mode="reflect")
        for c in range(image.shape[2])
    ]
    return np.stack(bands, axis=2)


def blur(image: Array, severity: float, rng: np.random.Generator) -> Array:
    """Gaussian blur, sigma 0.4 to 2.2 px."""
    return _blur(image, 0.4 + 1.8 * severity)


def bicubic(image: Array, severity: float, rng: np.random.Generator) -> Array:
    """Down-sampled by 1.3 to 4.6 and bicubically restored."""
    factor = 1.3 + 3.3 * severity
    return _down_up(image, factor, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)


def nearest(image: Array, severity: float, rng: np.random.Generator) -> Array:
    """Blocks of 2, 3 or 4 px."""
    factor = 2 + min(int(3 * severity), 2)
    return _down_up(image, factor, Image.Resampling.BOX, Image.Resampling.NEAREST)


def noise(image: Array, severity: float, rng: np.random.Generator) -> Array:
    """White Gaussian noise, independent per band, sigma 0.016 to 0.104."""
    sigma = 0.016 + 0.088 * severity
    return image + sigma * rng.standard_normal(image.shape).astype(np.float32)


def stripes(image: Array, severity: float, rng: np.random.Generator) -> Array:
    """A random offset per column (push-broom detector gain), sigma 0.01 to 0.07."""
    columns = rng.standard_normal((1, image.shape[1], 1)).astype(np.float32)
    return image + (0.010 + 0.061 * severity) * columns


def _coded(image: Array, **options: object) -> Array:
    """A round trip through an 8-bit Pillow codec; band sets other than RGB go band by band."""

    def trip(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
        buffer = io.BytesIO()
        Image.fromarray(plane).save(buffer, **options)  # type: ignore[arg-type]
        return np.asarray(Image.open(buffer))

    coded = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    if coded.shape[2] == 3:
        restored = trip(coded)
    else:
        restored = np.stack([trip(coded[..., c]) for c in range(coded.shape[2])], axis=2)
    return restored.astype(np.float32) / 255


def jpeg(image: Array, severity: float, rng: np.random.Generator) -> Array:
    """JPEG of quality 60 to 8."""
    return _coded(image, format="JPEG", quality=int(60 - 52 * severity), subsampling=2)


def ringing(image: Array, severity: float, rng: np.random.Generator) -> Array:
    """Over-sharpening: unsharp mask of sigma 1.2 px, amount 0.5 to 3.5."""
    return _sharpen(image, 0.5 + 3.0 * severity)


def checker(image: Array, severity: float, rng: np.random.Generator) -> Array:
    """The period-2 checkerboard of transposed convolutions, slowly modulated, rms 0.006 to 0.03."""
    rows, cols = np.mgrid[: image.shape[0], : image.shape[1]]
    board = ((rows + cols) % 2) * 2 - 1
    field = board * _smooth_field(image.shape[:2], 8.0, rng)
    return image + (0.0065 + 0.027 * severity) * field[..., None].astype(np.float32)


def shift(image: Array, severity: float, rng: np.random.Generator) -> Array:
    """A translation of 0.3 to 3.5 px in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    length = 0.3 + 3.2 * severity
    return _sample_at(image, length * np.sin(angle), length * np.cos(angle))


def colour(image: Array, severity: float, rng: np.random.Generator) -> Array:
    """Per-band gain (up to 5 to 30 %) and offset (up to 0.01 to 0.08)."""
    bands = image.shape[2]
    gain = 1 + (0.05 + 0.25 * severity) * rng.uniform(-1, 1, bands)
    offset = (0.012 + 0.07 * severity) * rng.uniform(-1, 1, bands)
    return (image * gain + offset).astype(np.float32)


def gamma(image: Array, severity: float, rng: np.random.Generator) -> Array:
    """A tone curve with exponent 2^(0.15 to 1.05) or its inverse."""
    exponent = 2.0 ** (rng.choice([-1, 1]) * (0.15 + 0.9 * severity))
    return (np.clip(image, 0, 1) ** exponent).astype(np.float32)


def haze(image: Array, severity: float, rng: np.random.Generator) -> Array:
    """Thin haze: 6 to 56 % of the signal replaced by airlight."""
    share = 0.06 + 0.5 * severity
    light = np.array(AIRLIGHT if image.shape[2] == 3 else np.mean(AIRLIGHT), dtype=np.float32)
    return (1 - share) * image + share * light


def texture(image: Array, severity: float, rng: np.random.Generator) -> Array:
    """Hallucinated texture, strongest where there is texture already, rms about 0.03 to 0.07."""
    field = _band_pass(image.shape[:2], rng) * _texture_envelope(image)
    return image + (0.028 + 0.045 * severity) * field[..., None]


def warp(image: Array, severity: float, rng: np.random.Generator) -> Array:
    """A smooth local displacement, rms 0.2 to 1.5 px."""
    rms = (0.2 + 1.3 * severity) / np.sqrt(2)
    fields = [rms * _smooth_field(image.shape[:2], 6.0, rng) for _ in range(2)]
    return _sample_at(image, fields[0], fields[1])


def gan(image: Array, severity: float, rng: np.random.Generator) -> Array:
    """What a GAN restores: down-up sampling by 2 to 4, sharpened, with invented texture."""
    restored = _down_up(
        image, 2 + 2 * severity, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
    )
    field = _band_pass(image.shape[:2], rng) * _texture_envelope(image)
    return _sharpen(restored, 1.0) + (0.03 + 0.03 * severity) * field[..., None]


def oversmooth(image: Array, severity: float, rng: np.random.Generator) -> Array:
    """A median filter of 3, 5 or 7 px: flat areas with sharp edges."""
    size = 3 + 2 * min(int(3 * severity), 2)
    filtered: Array = ndimage.median_filter(image, (size, size, 1))
    return filtered


def sensor(image: Array, severity: float, rng: np.random.Generator) -> Array:
    """A coarser sensor: MTF blur, decimation by 2, noise; brought back bicubically."""
    height, width = image.shape[:2]
    seen = _blur(image, 0.6 + 0.9 * severity)[::2, ::2]
    seen = seen + (0.004 + 0.03 * severity) * rng.standard_normal(seen.shape).astype(np.float32)
    restored = _resize(seen, 2 * seen.shape[0], 2 * seen.shape[1], Image.Resampling.BICUBIC)
    # [::2] keeps even pixels: the coarse grid's centres lie half a fine pixel up and left.
    return _sample_at(restored, 0.5, 0.5)[:height, :width]


def misregister(image: Array, severity: float, rng: np.random.Generator) -> Array:
    """Bands moved against each other by up to 0.2 to 1.7 px (single bands: a shift)."""
    reach = 0.2 + 1.5 * severity
    moves = rng.uniform(-reach, reach, (image.shape[2], 2))
    bands = [_sample_at(image[..., c : c + 1], dy, dx) for c, (dy, dx) in enumerate(moves)]
    return np.concatenate(bands, axis=2)


def jpeg2000(image: Array, severity: float, rng: np.random.Generator) -> Array:
    """JPEG 2000 (Sentinel-2's own codec) at a compression ratio of 8 to 40."""
    ratio = 8 * 5**severity
    return _coded(image, format="JPEG2000", quality_mode="rates", quality_layers=[ratio])


def cloud(image: Array, severity: float, rng: np.random.Generator) -> Array:
    """The soft edge of a bright cloud over part of the patch."""
    field = _smooth_field(image.shape[:2], min(image.shape[:2]) / 6, rng)
    cover = (0.15 + 0.75 * severity) / (1 + np.exp(-3 * (field - 1.0)))
    return image + cover[..., None].astype(np.float32) * (0.9 - image)


KINDS: dict[str, Distortion] = {
    function.__name__: function
    for function in (
        *(blur, bicubic, nearest, noise, stripes, jpeg, ringing, checker),
        *(shift, colour, gamma, haze, texture, warp, gan, oversmooth),
        *(sensor, misregister, jpeg2000, cloud),
    )
}


def distort(image: Array, kind: str, severity: float, rng: np.random.Generator) -> Array:
    """Apply one distortion to ``image`` (H, W, C) in [0, 1]; see `KINDS`.

    Raises ``MetricInputError`` for an unknown kind or a severity outside [0, 1].
    """
    if kind not in KINDS:
        raise MetricInputError(f"unknown distortion {kind!r}; choose from: {', '.join(KINDS)}")
    if not 0 <= severity <= 1:
        raise MetricInputError(f"severity must lie in [0, 1], got {severity}")
    result = KINDS[kind](image.astype(np.float32), severity, rng)
    return np.clip(result, 0, 1).astype(np.float32)
