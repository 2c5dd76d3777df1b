"""How a low-resolution image is made of a high-resolution one, in reflectance.

Every degradation is a frozen set of parameters that is called with an image (C, H, W) and a random
generator and returns (C, H / factor, W / factor). The outer edges of both images coincide: pixel
(i, j) of the result covers the block of factor x factor pixels from (i * factor, j * factor).
The same image, parameters and generator state give the same result.

>>> import numpy as np
>>> sensor = sentinel2(("B8A",), factor=2, hr_bands=("B08",), sun_zenith=45)
>>> sensor(np.full((1, 64, 64), 0.3), np.random.default_rng(0)).shape
(1, 32, 32)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

from .errors import DegradationError

Image = npt.NDArray[np.floating[Any]]

# Sentinel-2 MSI per band: GSD in m; MTF at the Nyquist frequency of that GSD; SNR at the reference
# radiance; reference radiance L_ref in W / (m2 sr um); solar irradiance E0 in W / (m2 um).
# MTF and SNR: as measured in orbit on S2A (ESA, Sentinel-2 MPC Data Quality Report, reference
# S2-PDGS-MPC-DQR, sections "Modulation Transfer Function" and "Noise"); these MTFs are also those
# that Ulfarsson et al. sharpen with (IEEE TGRS 57(9), 2019, doi:10.1109/TGRS.2019.2906048). B10 is
# not among them.
# L_ref: Drusch et al., Remote Sensing of Environment 120, 2012, doi:10.1016/j.rse.2011.11.026,
# table 1. The SNR that the mission requires there is lower: 72 for B8A, 174 for B08.
# E0: SOLAR_IRRADIANCE in the metadata of S2A products.
SENTINEL2: dict[str, tuple[float, float, float, float, float]] = {
    "B01": (60, 0.32, 1372, 129, 1884.69),
    "B02": (10, 0.26, 214, 128, 1959.66),
    "B03": (10, 0.28, 249, 128, 1823.24),
    "B04": (10, 0.24, 230, 108, 1512.06),
    "B05": (20, 0.38, 253, 74.5, 1424.64),
    "B06": (20, 0.34, 220, 68, 1287.61),
    "B07": (20, 0.34, 227, 67, 1162.08),
    "B08": (10, 0.26, 221, 103, 1041.63),
    "B8A": (20, 0.33, 161, 52.5, 955.32),
    "B09": (60, 0.26, 222, 9, 812.92),
    "B11": (20, 0.22, 159, 4, 245.59),
    "B12": (20, 0.23, 167, 1.5, 85.25),
}
# Share of the noise variance at L_ref that is shot noise. It differs from detector to detector;
# with this one, dark water is about as noisy as in B08 and B8A of the set `s2-b8`.
SHOT_SHARE = 0.9
# One DN of Sentinel-2's products: reflectance = DN / 10000 (ESA, SentiWiki "S2 Products").
QUANTUM = 1e-4
# A Gaussian is cut at this many standard deviations: what is left out is below 1e-6.
REACH = 5.0


class Degradation(Protocol):
    """Anything that makes a low-resolution image (C, h, w) of one `factor` times finer."""

    @property
    def factor(self) -> int:
        """LR GSD / HR GSD."""

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Degrade `image` (C, H, W), float reflectance, H and W multiples of `factor`."""


@dataclass(frozen=True)
class Bicubic:
    """Antialiased bicubic down-sampling (Keys' kernel, a = -0.5), the usual benchmark's LR."""

    factor: int

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Down-sample; nothing is random."""
        height, width = _coarse_shape(image, self.factor)
        batch = torch.from_numpy(np.ascontiguousarray(image))[None]
        small = interpolate(batch, size=(height, width), mode="bicubic", antialias=True)
        return cast(Image, small[0].numpy())


@dataclass(frozen=True)
class Physical:
    """What a sensor does: MTF, sampling, shot and read noise, quantisation.

    Args:
        factor: LR GSD / HR GSD.
        mtf: per band, the MTF of the LR sensor at its own Nyquist frequency, in (0, 1).
        snr: per band, signal-to-noise ratio at `reference`; infinite = no noise.
        reference: per band, the reflectance at which `snr` holds, > 0.
        hr_mtf: per band, the MTF that the HR image already has at *its* Nyquist frequency; only
            the missing blur is added. 1 = taken as perfectly sharp (the default).
        shot_share: share of the noise variance at `reference` that is shot noise (grows with the
            signal); the rest is read noise (constant).
        quantum: step of the stored numbers in reflectance; 0 = none.

    A Gaussian of standard deviation s pixels has the MTF exp(-2 (pi s f)^2), so s = sqrt(-2 ln MTF)
    / pi where f = 1/2, and the variances of blurs in sequence add. The Gaussian is sampled at HR
    pixels around the LR pixel's centre: the MTF is met within 1 % if `sigma` is 0.7 px or more.
    """

    factor: int
    mtf: tuple[float, ...]
    snr: tuple[float, ...]
    reference: tuple[float, ...]
    hr_mtf: tuple[float, ...] | None = None
    shot_share: float = SHOT_SHARE
    quantum: float = QUANTUM

    def __post_init__(self) -> None:
        """Refuse numbers without meaning, and an HR image blurrier than the LR sensor."""
        hr = self.hr_mtf or (1.0,) * len(self.mtf)
        if not len(self.mtf) == len(self.snr) == len(self.reference) == len(hr):
            raise DegradationError("give one MTF, SNR and reference reflectance for each band")
        fine = all(0 < m < 1 for m in self.mtf) and all(0 < m <= 1 for m in hr)
        fine &= min(*self.snr, *self.reference) > 0 and self.quantum >= 0
        if not (fine and 0 <= self.shot_share <= 1):
            raise DegradationError(
                "expected MTF in (0, 1), SNR and reference > 0, shot_share in [0, 1] and "
                f"quantum >= 0, got {self}"
            )
        if any(math.isnan(s) for s in self.sigma):
            raise DegradationError(
                f"the HR image (MTF {hr} at its Nyquist frequency) is blurrier than the LR sensor "
                f"(MTF {self.mtf}) at a factor of {self.factor}: blur cannot be taken away"
            )

    @property
    def sigma(self) -> tuple[float, ...]:
        """Per band, the standard deviation in HR pixels of the blur to add; NaN if impossible."""
        hr = self.hr_mtf or (1.0,) * len(self.mtf)
        variances = [
            (self.factor * gaussian_sigma(low)) ** 2 - gaussian_sigma(high) ** 2
            for low, high in zip(self.mtf, hr, strict=True)
        ]
        return tuple(math.sqrt(v) if v >= 0 else math.nan for v in variances)

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Blur and sample, add noise, quantise."""
        _check_bands(image, len(self.mtf))
        sampled = np.stack(
            [
                _blur_and_sample(band, sigma, sigma, self.factor)
                for band, sigma in zip(image, self.sigma, strict=True)
            ]
        )
        noisy = sampled + self._noise(sampled, rng)
        return noisy if self.quantum == 0 else np.rint(noisy / self.quantum) * self.quantum

    def _noise(self, signal: Image, rng: np.random.Generator) -> Image:
        """Draw noise of variance (reference / snr)^2 * (shot * signal / reference + read)."""
        snr, reference = (np.asarray(v)[:, None, None] for v in (self.snr, self.reference))
        relative = self.shot_share * np.maximum(signal, 0) / reference + (1 - self.shot_share)
        return reference / snr * np.sqrt(relative) * rng.standard_normal(signal.shape)


@dataclass(frozen=True)
class Blind:
    """A sensor drawn anew at every call, for training that must not rely on one.

    The idea of Real-ESRGAN (Wang et al. 2021, doi:10.1109/ICCVW54120.2021.00217) with a satellite's
    ranges: a Gaussian of its own width along and across track, noise, quantisation; neither JPEG
    nor a second round. All bands get the same sensor.

    Args:
        factor: LR GSD / HR GSD.
        mtf: range of the MTF at the LR's Nyquist frequency, drawn uniformly for each direction.
        noise: range of the noise's standard deviation at a reflectance of `reference`, drawn
            log-uniformly. The default spans Sentinel-2 in orbit and its requirement, in all bands.
        reference: reflectance at which `noise` holds.
        quantum: step of the stored numbers in reflectance; 0 = none.
    """

    factor: int
    mtf: tuple[float, float] = (0.1, 0.5)
    noise: tuple[float, float] = (3e-4, 5e-3)
    reference: float = 0.2
    quantum: float = QUANTUM

    def __post_init__(self) -> None:
        """Refuse ranges that are empty or outside what a sensor can have."""
        if not (0 < self.mtf[0] <= self.mtf[1] < 1 and 0 < self.noise[0] <= self.noise[1]):
            raise DegradationError(f"expected ranges 0 < low <= high (MTF < 1), got {self}")

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Draw a sensor, then blur and sample, add noise, quantise."""
        sigma_y, sigma_x = (self.factor * gaussian_sigma(rng.uniform(*self.mtf)) for _ in range(2))
        noise = float(np.exp(rng.uniform(*np.log(self.noise))))
        sampled = np.stack([_blur_and_sample(b, sigma_y, sigma_x, self.factor) for b in image])
        n = len(image)
        detector = Physical(
            1,  # blurred and sampled already: hr_mtf = mtf adds no blur
            mtf=(0.5,) * n,
            hr_mtf=(0.5,) * n,
            snr=(self.reference / noise,) * n,
            reference=(self.reference,) * n,
            shot_share=rng.uniform(),
            quantum=self.quantum,
        )
        return detector(sampled, rng)


def sentinel2(
    bands: Sequence[str],
    *,
    factor: int,
    sun_zenith: float,
    hr_bands: Sequence[str | None] | None = None,
) -> Physical:
    """Build the degradation of Sentinel-2 `bands` (see `SENTINEL2`) from an HR image.

    Args:
        bands: LR bands, canonical names such as "B8A".
        factor: LR GSD / HR GSD.
        sun_zenith: in degrees; turns the reference radiance into a reflectance,
            pi L_ref / (E0 cos(zenith)), at the mean distance of the sun.
        hr_bands: per band, the Sentinel-2 band that the HR image is made of at its native GSD, so
            that its own MTF is accounted for; None = another, sharper sensor.

    Raises:
        DegradationError: a band without published numbers.
    """
    missing = [b for b in (*bands, *(hr_bands or ())) if b is not None and b not in SENTINEL2]
    if missing or not bands:
        raise DegradationError(
            f"no published MTF and SNR of band {', '.join(missing) or '(none)'}: Sentinel-2 has "
            f"{', '.join(SENTINEL2)}; for another sensor use Physical with its numbers"
        )
    if not 0 <= sun_zenith < 90:
        raise DegradationError(f"sun_zenith must be in [0, 90) degrees, got {sun_zenith}")
    cosine = math.cos(math.radians(sun_zenith))
    rows = [SENTINEL2[b] for b in bands]
    sources = hr_bands or (None,) * len(rows)
    return Physical(
        factor,
        mtf=tuple(row[1] for row in rows),
        snr=tuple(row[2] for row in rows),
        reference=tuple(math.pi * row[3] / (row[4] * cosine) for row in rows),
        hr_mtf=tuple(1.0 if b is None else SENTINEL2[b][1] for b in sources),
    )


def describe(degradation: Degradation) -> dict[str, Any]:
    """Name one of the classes above with its parameters, to tell whether two are the same."""
    known = asdict(cast(Any, degradation))
    return {"name": type(degradation).__name__.lower()} | {k: _known(v) for k, v in known.items()}


def _known(value: Any) -> Any:
    """A parameter as JSON has it, without what the last digits owe to the machine."""
    if isinstance(value, tuple):
        return [_known(part) for part in value]
    return float(f"{value:.12g}") if isinstance(value, float) else value


def gaussian_sigma(mtf: float) -> float:
    """Width in pixels of the Gaussian whose MTF at the Nyquist frequency (1/2 per px) is `mtf`."""
    return math.sqrt(-2 * math.log(mtf)) / math.pi


def _blur_and_sample(band: Image, sigma_y: float, sigma_x: float, factor: int) -> Image:
    """Weigh `band` (H, W) by a Gaussian around the centre of every coarse pixel."""
    height, width = _coarse_shape(band[None], factor)
    rows, columns = _weights(height, sigma_y, factor), _weights(width, sigma_x, factor)
    return cast(Image, rows @ band @ columns.T)


@functools.lru_cache(maxsize=64)  # the same few sizes and sensors come again and again
def _weights(size: int, sigma: float, factor: int) -> npt.NDArray[np.float64]:
    """Build the matrix (size, size * factor) of one axis; its rows add up to 1.

    Beyond the border the image counts as mirrored, so that a constant stays constant there.
    """
    if sigma == 0 and factor == 1:
        return np.eye(size)
    reach = math.ceil(REACH * sigma + factor / 2)
    centre = (factor - 1) / 2  # of the first coarse pixel, in fine pixels
    offsets = np.arange(-reach, reach + factor)
    kernel = np.exp(-0.5 * ((offsets - centre) / sigma) ** 2)
    kernel /= kernel.sum()
    fine = size * factor
    matrix = np.zeros((size, fine))
    for i in range(size):
        at = (i * factor + offsets) % (2 * fine)
        np.add.at(matrix[i], np.where(at < fine, at, 2 * fine - 1 - at), kernel)
    matrix.setflags(write=False)
    return matrix


def _coarse_shape(image: Image, factor: int) -> tuple[int, int]:
    """Check the image; return the height and width of the result."""
    _check_bands(image, image.shape[0] if image.ndim == 3 else 0)
    height, width = image.shape[1:]
    if factor < 1 or height % factor or width % factor or not height or not width:
        raise DegradationError(
            f"expected an image whose sides are multiples of the factor, got {height} x {width} "
            f"px for a factor of {factor}"
        )
    return height // factor, width // factor


def _check_bands(image: Image, bands: int) -> None:
    if image.ndim != 3 or len(image) != bands or not np.issubdtype(image.dtype, np.floating):
        raise DegradationError(
            f"expected reflectance (C, H, W) of {bands or 'some'} bands in floating point, got "
            f"{image.dtype} of shape {image.shape}"
        )
