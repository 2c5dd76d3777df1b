from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image as PILImage
from scipy.special import erf

from sr_models.data.degradation import (
    SENTINEL2,
    Bicubic,
    Blind,
    Physical,
    gaussian_sigma,
    sentinel2,
)
from sr_models.data.errors import DegradationError

NOISELESS = {"snr": (math.inf,), "reference": (0.2,), "quantum": 0.0}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def every(factor: int):
    """One of each kind, without noise where there is a choice."""
    return [
        Bicubic(factor),
        Physical(factor, mtf=(0.3,), **NOISELESS),
        Blind(factor, noise=(1e-12, 1e-12), quantum=0),
    ]


def amplitude(line, frequency: float) -> float:
    """Amplitude of a sine of `frequency` (cycles per px) in a line, by least squares."""
    x = np.arange(len(line))
    basis = np.stack(
        [np.cos(2 * np.pi * frequency * x), np.sin(2 * np.pi * frequency * x), np.ones_like(x)],
        axis=1,
    )
    return float(np.hypot(*np.linalg.lstsq(basis, line, rcond=None)[0][:2]))


# --- MTF


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("mtf", [0.15, 0.33])
def test_a_sine_near_nyquist_loses_contrast_as_the_mtf_says(factor, mtf):
    frequency = 0.45  # cycles per LR pixel; at 0.5 itself the phase decides what is sampled
    x = (np.arange(128 * factor) + 0.5) / factor
    image = 0.3 + 0.1 * np.broadcast_to(np.sin(2 * np.pi * frequency * x), (1, 4 * factor, len(x)))
    low = Physical(factor, mtf=(mtf,), **NOISELESS)(image, rng())
    expected = mtf ** ((frequency / 0.5) ** 2)  # a Gaussian's, by its value at 0.5
    assert amplitude(low[0, 2, 16:-16], frequency) / 0.1 == pytest.approx(expected, rel=0.01)


def test_a_sharp_edge_spreads_as_the_gaussian_of_that_mtf():
    # the edge spread function of a Gaussian is an error function; a slanted edge samples it at
    # all phases (ISO 12233)
    factor, mtf, oversample = 2, 0.33, 8
    sigma = math.sqrt(-2 * math.log(mtf)) / math.pi  # LR px
    size, slope = 64, 0.1
    fine = (np.arange(size * factor * oversample) + 0.5) / (factor * oversample)
    edge = size / 2 + slope * (fine - size / 2)
    steps = np.clip((fine[None, :] - edge[:, None]) * factor * oversample + 0.5, 0, 1)
    image = steps.reshape(size * factor, oversample, size * factor, oversample).mean((1, 3))
    low = Physical(factor, mtf=(mtf,), **NOISELESS)(image[None], rng())[0]
    centres = np.arange(size) + 0.5
    distance = centres[None, :] - (size / 2 + slope * (centres[:, None] - size / 2))
    # the finer pixel's own aperture, 1/2 LR px wide, adds its variance 1/12 / 4
    width = math.sqrt(sigma**2 + (1 / factor) ** 2 / 12)
    expected = 0.5 * (1 + erf(distance / math.sqrt(1 + slope**2) / width / math.sqrt(2)))
    inner = (slice(8, -8),) * 2
    np.testing.assert_allclose(low[inner], expected[inner], atol=0.015)  # the aperture is a box


def test_only_the_blur_that_the_fine_image_lacks_is_added():
    scene = sentinel2(("B8A",), factor=2, hr_bands=("B08",), sun_zenith=40)
    # by hand: sigma = sqrt(-2 ln .33) / pi = .4740 LR px = .9480 HR px; B08 has .5225 of it
    assert scene.sigma[0] == pytest.approx(math.sqrt(0.9480**2 - 0.5225**2), abs=2e-4)
    assert sentinel2(("B8A",), factor=2, sun_zenith=40).sigma[0] == pytest.approx(0.948, abs=2e-4)


def test_bicubic_is_pillows():
    image = rng().uniform(0, 1, (1, 48, 60)).astype(np.float32)
    oracle = PILImage.fromarray(image[0]).resize((30, 24), PILImage.Resampling.BICUBIC)
    np.testing.assert_allclose(Bicubic(2)(image, rng())[0], np.asarray(oracle), atol=2e-6)


# --- geometry and radiometry


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("which", range(3))
def test_nothing_moves(factor, which):
    y, x = np.mgrid[0 : 32 * factor, 0 : 40 * factor] + 0.5
    at_y, at_x = 15.3 * factor, 21.8 * factor
    spot = np.exp(-((y - at_y) ** 2 + (x - at_x) ** 2) / 2 / (2.5 * factor) ** 2)[None]
    low = every(factor)[which](spot, rng())[0]
    rows, columns = (np.arange(n) + 0.5 for n in low.shape)
    assert low.sum(1) @ rows / low.sum() == pytest.approx(15.3, abs=1e-3)
    assert low.sum(0) @ columns / low.sum() == pytest.approx(21.8, abs=1e-3)


@pytest.mark.parametrize("which", range(3))
def test_a_constant_stays_constant_up_to_the_border(which):
    low = every(4)[which](np.full((1, 32, 32), 0.25), rng())
    np.testing.assert_allclose(low, 0.25, atol=1e-9)


def test_noise_is_as_strong_as_the_snr_and_without_bias():
    sensor = Physical(2, mtf=(0.3, 0.3), snr=(100.0, 50.0), reference=(0.2, 0.1), quantum=0)
    image = np.stack([np.full((400, 400), 0.2), np.full((400, 400), 0.1)])
    low = sensor(image, rng())
    for band, mean, noise in zip(low, (0.2, 0.1), (0.002, 0.002), strict=True):
        assert band.std() == pytest.approx(noise, rel=0.02)
        assert band.mean() == pytest.approx(mean, abs=4 * noise / 200)


@pytest.mark.parametrize(("share", "ratio"), [(0.0, 1.0), (1.0, 2.0), (0.5, math.sqrt(2.5))])
def test_shot_noise_grows_with_the_root_of_the_signal(share, ratio):
    sensor = Physical(1, mtf=(0.3,), snr=(50.0,), reference=(0.1,), shot_share=share, quantum=0)
    bright = sensor(np.full((1, 200, 200), 0.4), rng()).std()
    assert bright / (0.1 / 50) == pytest.approx(ratio, rel=0.02)


def test_results_are_whole_steps_of_the_quantum():
    image = rng(3).uniform(0.1, 0.4, (1, 32, 32))
    low = Physical(2, mtf=(0.3,), snr=(80.0,), reference=(0.2,), quantum=1e-3)(image, rng())
    np.testing.assert_allclose(low / 1e-3, np.rint(low / 1e-3), atol=1e-9)
    exact = Physical(2, mtf=(0.3,), snr=(80.0,), reference=(0.2,), quantum=0)(image, rng())
    assert 0 < np.abs(low - exact).max() <= 0.5e-3 + 1e-12


def test_the_reference_reflectance_follows_from_radiance_and_sun():
    low, high = (sentinel2(("B8A",), factor=2, sun_zenith=z).reference[0] for z in (0, 60))
    assert low == pytest.approx(math.pi * 52.5 / 955.32)
    assert high == pytest.approx(2 * low)


def test_every_band_of_the_table_makes_a_sensor():
    for band, (gsd, mtf, *_) in SENTINEL2.items():
        assert gsd in (10, 20, 60)
        sensor = sentinel2((band,), factor=2, sun_zenith=30)
        assert 0.03 < sensor.reference[0] < 0.4, band  # a plausible reflectance of land
        assert math.exp(-2 * (math.pi * gaussian_sigma(mtf) / 2) ** 2) == pytest.approx(mtf)


# --- chance


@pytest.mark.parametrize("kind", ["physical", "blind"])
def test_the_seed_decides(kind):
    image = rng(5).uniform(0, 0.5, (2, 32, 48))
    sensor = Blind(2) if kind == "blind" else sentinel2(("B04", "B08"), factor=2, sun_zenith=30)
    before = image.copy()
    first, again, other = (sensor(image, rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-4
    np.testing.assert_array_equal(image, before)
    assert first.shape == (2, 16, 24)


def test_blind_draws_within_its_ranges_for_both_directions():
    # how much wider a Gaussian spot becomes tells the blur: for each draw both directions lie in
    # the range, and they differ
    along = np.arange(64) - 31.5
    line = np.exp(-(along**2) / 2 / 3**2)
    kind = Blind(2, mtf=(0.2, 0.4), noise=(1e-12, 1e-12), quantum=0)
    blurs = []
    for seed in range(20):
        low = kind(np.outer(line, line)[None], rng(seed))[0]
        blurs.append(
            [low.sum(axis) @ along[16:48] ** 2 / low.sum() - (3 / 2) ** 2 for axis in (1, 0)]
        )
    sigmas = np.sqrt(blurs)  # LR px
    low, high = gaussian_sigma(0.4), gaussian_sigma(0.2)
    assert (sigmas > 0.98 * low).all()
    assert (sigmas < 1.02 * high).all()
    assert np.abs(np.diff(sigmas, axis=1)).max() > 0.05 * low


# --- what is refused


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: sentinel2(("pan",), factor=2, sun_zenith=30), "no published MTF and SNR of band"),
        (lambda: sentinel2(("B04",), factor=2, sun_zenith=95), r"sun_zenith must be in \[0, 90\)"),
        (lambda: Physical(2, mtf=(1.2,), **NOISELESS), r"expected MTF in \(0, 1\)"),
        (lambda: Physical(2, mtf=(0.3, 0.3), **NOISELESS), "for each band"),
        (lambda: Physical(2, mtf=(0.3,), shot_share=1.5, **NOISELESS), "shot_share in"),
        (lambda: Physical(2, mtf=(0.3,), shot_share=-0.1, **NOISELESS), "shot_share in"),
        (lambda: Physical(1, mtf=(0.3,), hr_mtf=(0.1,), **NOISELESS), "blurrier than"),
        (lambda: Blind(2, mtf=(0.5, 0.1)), "low <= high"),
        (lambda: Bicubic(2)(np.zeros((1, 5, 4)), rng()), "multiples of the factor"),
        (lambda: Bicubic(2)(np.zeros((1, 4, 4), dtype=int), rng()), "floating point"),
        (lambda: every(2)[1](np.zeros((2, 4, 4)), rng()), "of 1 bands"),
    ],
)
def test_what_makes_no_sense_is_refused(build, message):
    with pytest.raises(DegradationError, match=message):
        build()
