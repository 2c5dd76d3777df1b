import numpy as np
import pytest
from scipy.fft import dctn

from sr_models.data.spectra import RING, RINGS, filtered, frequencies, from_rings, radial_product


def test_the_finest_pattern_has_half_a_cycle_per_pixel_along_either_axis():
    found = frequencies(8, 16)
    assert found[0, 0] == 0
    assert found[7, 0] == pytest.approx(7 / 16)
    assert found[4, 8] == pytest.approx(np.hypot(0.25, 0.25))


def test_the_cross_spectrum_is_the_mean_product_of_each_ring():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 1, 1, 48, 48))
    found = radial_product(x, y)[0, 0]
    product = dctn(x[0, 0], norm="ortho") * dctn(y[0, 0], norm="ortho")
    rings: dict[int, list[float]] = {}
    for row in range(48):
        for col in range(48):
            frequency = np.hypot(row, col) / 96
            rings.setdefault(min(int(frequency / RING), RINGS - 1), []).append(product[row, col])
    assert max(rings) == RINGS - 1
    for number in range(RINGS):
        assert found[number] == pytest.approx(np.mean(rings.get(number, [0.0])))


def test_a_filter_of_one_changes_nothing_and_a_band_is_stopped():
    image = np.cos(np.pi * (np.arange(32) + 0.5) * 8 / 32)[None, None].repeat(32, axis=1)
    np.testing.assert_allclose(filtered(image, np.ones((1, 32, 32))), image, atol=1e-12)
    gain = np.ones((1, RINGS))
    gain[0, int(8 / 64 / RING) - 1 : int(8 / 64 / RING) + 3] = 0
    np.testing.assert_allclose(filtered(image, from_rings(gain, 32, 32)), 0, atol=1e-12)
