"""What sets a real low-resolution image apart from a synthetic one, factor by factor.

Each factor is a frozen set of numbers, estimated on training pairs alone, that turns one difference
off: registration, radiometry, MTF, noise. They are estimated in this order, each with those before
corrected, so that none takes what is another's:

- **registration**: the median shift of the tiles;
- **radiometry**: a line per band, on low-passed images;
- **MTF**: a radial filter with gain 1 at frequency 0, from cross-spectra;
- **noise**: the part of what is left that is as strong where the image is flat as elsewhere.

The HR image enters through the synthetic LR images that the degradation makes of it, also of the
HR image moved to where the real one lies: both are then sampled at the same places, and what the
sampling folds over is the same in both. Several are drawn; their noises are independent of each
other and of the real image's, so products of two draws hold signal alone. Gains are ratios
cov(draw, other draw) / cov(real, draw), an estimate by instrumental variables (Wald 1940,
doi:10.1214/aoms/1177731868): unlike the least-squares line's, they do not shrink when the real
image is noisier. Spectra are those of the cosine transform (DCT-II): a filter that is real and
symmetric is a product there, and the border a mirror.

>>> factors = fit_factors(PairDataset("pairs/s2-b8", "train"))  # doctest: +SKIP
>>> views = factors.views(hr, degradation, "r00000_c00000")  # doctest: +SKIP
>>> factors.apply(lr, views, on={"radiometry", "mtf"}, rng=rng)  # doctest: +SKIP
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch.nn import functional as F

from lpips_sat.registration import MIN_SIZE, REACH, Shift, apply_shift, estimate_shift

from .degradation import Degradation
from .draws import DRAWS, Samples, draw_samples, draws
from .errors import PairError
from .pairs import PairDataset, as_degradation
from .spectra import (
    Array,
    cosines,
    filtered,
    frequencies,
    from_cosines,
    from_rings,
    radial_product,
)

FACTORS = ("registration", "radiometry", "mtf", "noise")

# Width in LR px of the Gaussian under which the line is fitted: what it lets through, MTFs of LR
# sensors hardly touch.
LOW_PASS = 3.0
# The filter's gain lies between 1 / LIMIT and LIMIT: what a sensor has lost beyond is not there.
LIMIT = 4.0
# Noise is sought above this frequency in cycles/px, in windows of this side.
HIGH_PASS, WINDOW = 0.25, 8
ROUNDS = 5  # of the weighted fit; its weights are stable after two or three


@dataclass(frozen=True)
class Views:
    """Noise-free synthetic LR images (C, h, w) of a tile, in two places.

    placed: where HR lies; moved: where the real LR image lies.
    """

    placed: Array
    moved: Array


@dataclass(frozen=True)
class Registration:
    """The real image lies `dy` rows below and `dx` columns right of the synthetic one, in LR px."""

    dy: float
    dx: float
    reliability: float

    @classmethod
    def fit(cls, samples: Samples) -> Registration:
        """The medians of the tiles' shifts, weighted by reliability; 0 if none is to be trusted."""
        if min(samples.real.shape[-2:]) < MIN_SIZE:
            raise PairError(
                f"registration needs LR tiles of {MIN_SIZE} px or more, got "
                f"{samples.real.shape[-2]} x {samples.real.shape[-1]}"
            )
        found = [
            estimate_shift(torch.from_numpy(x)[None], torch.from_numpy(y)[None])
            for x, y in zip(samples.real, samples.mean, strict=True)
        ]
        weights = np.array([shift.reliability for shift in found])
        if not weights.any():
            return cls(0.0, 0.0, 0.0)
        dy, dx, reliability = (
            _weighted_median(np.array([getattr(shift, name) for shift in found]), weights)
            for name in ("dy", "dx", "reliability")
        )
        return cls(dy, dx, reliability)

    def apply(self, lr: Array, expected: Views) -> Array:
        """Move a real image (C, h, w) back.

        expected: both views made real. What lr has beyond them is resampled, once; they themselves
        are exchanged, since a sampled image with aliasing cannot be moved as the scene can.
        """
        return expected.placed + self.move(lr - expected.moved, -1.0)

    def move(self, image: Array, times: float) -> Array:
        """Move an image (C, H, W) by the shift `times` a factor; mirrored at the border."""
        shift = Shift(times * self.dy, times * self.dx)
        reach = REACH + math.ceil(max(abs(shift.dy), abs(shift.dx)))
        batch = torch.from_numpy(np.ascontiguousarray(image))[None]
        moved, _ = apply_shift(F.pad(batch, (reach,) * 4, mode="reflect"), shift)
        return moved[0, :, reach:-reach, reach:-reach].numpy()


@dataclass(frozen=True)
class Radiometry:
    """Per band, the line from real to synthetic values."""

    gain: tuple[float, ...]
    offset: tuple[float, ...]

    @classmethod
    def fit(cls, samples: Samples) -> Radiometry:
        """From low-passed images of all tiles together; a band that is constant keeps its gain."""
        low = np.exp(-2 * (np.pi * LOW_PASS * frequencies(*samples.real.shape[-2:])) ** 2)
        images = [filtered(x, low) for x in (samples.real, samples.first, samples.second)]
        x, first, second = (
            np.moveaxis(image, 1, 0).reshape(image.shape[1], -1) for image in images
        )
        gains = [_ratio(*bands) for bands in zip(x, first, second, strict=True)]
        offsets = (first + second).mean(1) / 2 - np.array(gains) * x.mean(1)
        return cls(tuple(gains), tuple(offsets.tolist()))

    def apply(self, lr: Array) -> Array:
        """Map images (..., C, h, w) to the synthetic image's values."""
        return _column(self.gain) * lr + _column(self.offset)

    def undo(self, lr: Array) -> Array:
        """Map images to the real image's values."""
        return (lr - _column(self.offset)) / _column(self.gain)


@dataclass(frozen=True)
class Mtf:
    """Per band, the gain of each ring of frequencies that makes the real image as sharp."""

    rings: tuple[tuple[float, ...], ...]

    @classmethod
    def fit(cls, samples: Samples, real: Array) -> Mtf:
        """Ratios of radial cross-spectra, kept within 1 / LIMIT and LIMIT.

        A ring's gain counts as far as it differs from 1 by more than its standard error over the
        tiles; logarithms of gains are smoothed over three rings.
        """
        synthetic = radial_product(samples.first, samples.second)  # (N, C, RINGS)
        known = radial_product(real, samples.mean)
        signal, shared = synthetic.mean(0), known.mean(0)
        apart = signal - shared
        error = (synthetic - known).std(0, ddof=1) / math.sqrt(len(real))
        with np.errstate(divide="ignore", invalid="ignore"):
            sure = np.clip(1 - (error / apart) ** 2, 0, 1)
            gain = 1 + sure * np.where(shared > 0, apart / shared, LIMIT - 1)
        log = np.log(np.clip(np.nan_to_num(gain, nan=1.0), 1 / LIMIT, LIMIT))
        log[:, 0] = 0
        wide = np.pad(log, ((0, 0), (1, 1)), mode="edge")
        smooth = (wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]) / 4
        smooth[:, 0] = 0
        return cls(tuple(map(tuple, np.exp(smooth).tolist())))

    def transfer(self, height: int, width: int) -> Array:
        """Gain (C, h, w) at every frequency of the cosine transform."""
        return np.exp(from_rings(np.log(self.rings), height, width))

    def apply(self, lr: Array) -> Array:
        """Filter images (..., C, h, w)."""
        return filtered(lr, self.transfer(*lr.shape[-2:]))

    def undo(self, lr: Array) -> Array:
        """Filter images back."""
        return filtered(lr, 1 / self.transfer(*lr.shape[-2:]))


@dataclass(frozen=True)
class Noise:
    """Per band, the noise's standard deviation in the real and in the synthetic image.

    share: of each ring of the residual's energy, what is noise and not another difference.
    """

    real: tuple[float, ...]
    synthetic: tuple[float, ...]
    share: tuple[tuple[float, ...], ...]

    @classmethod
    def fit(cls, samples: Samples, radiometry: Radiometry, mtf: Mtf) -> Noise:
        """From the residual between the real image and the synthetic one made real.

        The residual's variance in small windows is fitted by read noise, shot noise in proportion
        to the signal, and a share of the image's own variance: what grows with texture is a
        difference of detail and no noise. What synthetic images differ in among each other is
        treated alike, for some are drawn from sensors of different MTFs.
        """
        expected = radiometry.undo(mtf.undo(samples.mean))
        residual = samples.real - expected
        energy = radial_product(residual, residual).mean(0)
        synthetic = _floors(samples.noise, samples.mean)
        drawn = synthetic / DRAWS * _amplified(radiometry, mtf, samples.real.shape)
        floors = np.maximum(_floors(residual, expected) - drawn, 0)
        share = np.zeros_like(energy)
        np.divide(floors[:, None], energy, out=share, where=energy > 0)
        return cls(
            tuple(np.sqrt(floors).tolist()),
            tuple(np.sqrt(synthetic).tolist()),
            tuple(map(tuple, np.clip(share, 0, 1).tolist())),
        )

    def apply(self, lr: Array, expected: Array, transfer: Array, rng: np.random.Generator) -> Array:
        """Give a real image (C, h, w) the noise that is the synthetic one's after `transfer`.

        Excess noise is taken away as the noise that it is: the share of lr - expected. A Wiener
        filter that sees `lr` alone would take detail with it. What lacks is drawn from `rng`.

        expected: the moved view made real; transfer: the gain (C, h, w) of what is still to be
        applied.
        """
        share = from_rings(self.share, *lr.shape[-2:])
        now, target = _column(self.real) ** 2, (_column(self.synthetic) / transfer) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            kept = np.where(now > target, np.sqrt(target / now), 1.0)
        fresh = rng.standard_normal(lr.shape) * np.sqrt(np.maximum(target - now, 0))
        change = fresh - (1 - kept) * share * cosines(lr - expected)
        return lr + from_cosines(change)


@dataclass(frozen=True)
class Factors:
    """The four factors of a set; see `fit_factors`."""

    registration: Registration
    radiometry: Radiometry
    mtf: Mtf
    noise: Noise

    def apply(
        self, lr: Array, views: Views, *, on: Collection[str], rng: np.random.Generator
    ) -> Array:
        """Turn differences of a real LR image (C, h, w) off.

        Noise comes first, in the raw image where it is white; its level is such that what follows
        of `on` (a gain, a filter) ends at the synthetic image's. Then registration, radiometry and
        MTF.

        Args:
            lr: the real image, in the set's units.
            views: of the same tile, see `views`.
            on: which to turn off, names out of `FACTORS`; none leaves the image as it is.
            rng: of the noise that is added.
        """
        if unknown := set(on) - set(FACTORS):
            raise PairError(
                f"no factor {', '.join(sorted(unknown))}: expected some of {', '.join(FACTORS)}"
            )
        expected = Views(self._made_real(views.placed), self._made_real(views.moved))
        if "noise" in on:
            lr = self.noise.apply(lr, expected.moved, self._transfer(lr.shape, on), rng)
        if "registration" in on:
            lr = self.registration.apply(lr, expected)
        if "radiometry" in on:
            lr = self.radiometry.apply(lr)
        return self.mtf.apply(lr) if "mtf" in on else lr

    def views(self, hr: Array, degradation: Degradation, name: str, *, seed: int = 0) -> Views:
        """Synthetic LR images of the HR tile `name` (C, H, W), as means of several draws."""
        placed, moved = (
            draws(image, degradation, name, seed).mean(0)
            for image in (hr, self.registration.move(hr, degradation.factor))
        )
        return Views(placed, moved)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, to be kept with results."""
        return asdict(self)

    def _made_real(self, synthetic: Array) -> Array:
        """Give a synthetic image the real one's MTF and values."""
        return self.radiometry.undo(self.mtf.undo(synthetic))

    def _transfer(self, shape: tuple[int, ...], on: Collection[str]) -> Array:
        """The gain (C, h, w) of radiometry and MTF, as far as they are on."""
        gain = np.ones(shape)
        if "radiometry" in on:
            gain = gain * np.abs(_column(self.radiometry.gain))
        return gain * self.mtf.transfer(*shape[-2:]) if "mtf" in on else gain


def fit_factors(
    pairs: PairDataset, degradation: str | Degradation = "physical", *, seed: int = 0
) -> Factors:
    """Estimate the factors of a set on whole tiles of `pairs`, its training split.

    Args:
        pairs: real pairs, whole tiles.
        degradation: what makes the synthetic LR images, see `PairDataset`.
        seed: of their noise.

    Raises:
        PairError: fewer than two tiles, tiles too small, or pairs that have nothing in common.
    """
    sensor = as_degradation(degradation, pairs.about)
    registration = Registration.fit(draw_samples(pairs, sensor, seed))
    samples = draw_samples(pairs, sensor, seed, lambda hr: registration.move(hr, sensor.factor))
    radiometry = Radiometry.fit(samples)
    mtf = Mtf.fit(samples, radiometry.apply(samples.real))
    return Factors(registration, radiometry, mtf, Noise.fit(samples, radiometry, mtf))


def _ratio(x: Array, first: Array, second: Array) -> float:
    """The gain from x (n,) to the signal of two noisy images of it."""
    mean = (first + second) / 2
    shared = float(np.mean((x - x.mean()) * (mean - mean.mean())))
    signal = float(np.mean((first - first.mean()) * (second - second.mean())))
    if signal <= 1e-12 * float(np.mean(mean**2)):
        return 1.0
    if shared <= 0:
        raise PairError(
            "the real LR images do not rise with the HR images: are these pairs of one place?"
        )
    return signal / shared


def _floors(residual: Array, image: Array) -> Array:
    """Mean variance (C,) of the noise in residuals (N, C, h, w), net of what grows with detail."""
    bands = range(residual.shape[1])
    return np.array([_floor(residual[:, band], image[:, band]) for band in bands])


def _floor(residual: Array, image: Array) -> float:
    """The same of one band (N, h, w)."""
    signal = np.maximum(_windows(image), 0)
    ours, texture = (_local_variance(x) for x in (residual, image))
    design = np.stack([np.ones_like(ours), signal, texture], axis=1)
    size = np.maximum(design.mean(0), 1e-30)  # columns of one size, so that rounding is the same
    weight, found = np.ones_like(ours), np.zeros(3)
    for _ in range(ROUNDS):
        found = nnls(design / size * weight[:, None], ours * weight)[0] / size
        fitted = design @ found
        # a variance's standard error is in proportion to it
        weight = 1 / np.maximum(fitted, 1e-6 * fitted.max() + 1e-30)
        weight /= weight.max()
    return float(found[0] + found[1] * signal.mean())


def _amplified(radiometry: Radiometry, mtf: Mtf, shape: tuple[int, ...]) -> Array:
    """By how much (C,) making an image real amplifies the variance of noise above HIGH_PASS."""
    gain = mtf.transfer(*shape[-2:]) * np.abs(_column(radiometry.gain))
    high = frequencies(*shape[-2:]) > HIGH_PASS
    return np.array([(1 / band[high] ** 2).mean() for band in gain])


def _local_variance(images: Array) -> Array:
    """Variance per pixel of the high-passed images (N, h, w), in windows: (windows,)."""
    high = (frequencies(*images.shape[-2:]) > HIGH_PASS).astype(np.float64)
    return _windows(filtered(images, high) ** 2 / high.mean())


def _windows(images: Array) -> Array:
    """Means of images (N, h, w) in whole windows: (windows,).

    Not of those at the border, where mirrored images err, unless there are no others.
    """
    edge = WINDOW if min(images.shape[-2:]) >= 3 * WINDOW else 0
    rows, cols = ((side - 2 * edge) // WINDOW for side in images.shape[-2:])
    cut = images[:, edge : edge + rows * WINDOW, edge : edge + cols * WINDOW]
    return cut.reshape(len(images), rows, WINDOW, cols, WINDOW).mean((2, 4)).ravel()


def _column(values: Collection[float]) -> Array:
    """Numbers per band, to be multiplied with images (..., C, h, w)."""
    return np.asarray(values, dtype=np.float64)[:, None, None]


def _weighted_median(values: Array, weights: Array) -> float:
    order = np.argsort(values)
    values, weights = values[order], weights[order]
    return float(np.interp(weights.sum() / 2, np.cumsum(weights) - weights / 2, values))
