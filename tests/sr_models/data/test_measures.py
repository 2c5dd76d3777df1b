from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from sr_models.data.measures import compare, frequencies, line_sums, measure, noise_level


def boxed(image, factor=2):
    """An independent mean over factor x factor pixels."""
    return sum(image[:, i::factor, j::factor] for i in range(factor) for j in range(factor)) / (
        factor**2
    )


@pytest.fixture(scope="module")
def hr(textured):
    return textured(1, 256, 256, seed=3)


def test_equal_sensors_differ_in_nothing(hr):
    found = measure(boxed(hr), hr, ("B08",))
    assert (found["shift"], found["gain_B08"]) == (0, pytest.approx(1))
    assert found["reliability"] == pytest.approx(1)
    assert found["correlation_B08"] == pytest.approx(1)
    for name in ("offset", "bias", "residual"):
        assert found[f"{name}_B08"] == pytest.approx(0, abs=1e-7)
    np.testing.assert_allclose(found["mtf"], 1)
    assert math.isnan(found["spectral_angle"])


def test_a_gain_and_an_offset_are_recovered_band_by_band(textured):
    hr = textured(2, 128, 128)
    lr = boxed(hr, 4) * np.array([1.2, 0.9])[:, None, None] + np.array([0.03, -0.01])[:, None, None]
    found = measure(lr, hr, ("red", "nir"))
    assert [found[f"gain_{b}"] for b in ("red", "nir")] == pytest.approx([1.2, 0.9], rel=2e-3)
    assert [found[f"offset_{b}"] for b in ("red", "nir")] == pytest.approx([0.03, -0.01], abs=5e-4)
    assert found["bias_red"] == pytest.approx(0.2 * boxed(hr, 4)[0].mean() + 0.03, abs=1e-3)
    assert found["residual_nir"] < 1e-3
    np.testing.assert_allclose(found["mtf"], 1, rtol=2e-3)  # a gain is no sharpness
    down = boxed(hr, 4)
    cosine = (lr * down).sum(0) / np.sqrt((lr**2).sum(0) * (down**2).sum(0))
    assert found["spectral_angle"] == pytest.approx(np.degrees(np.arccos(cosine)).mean(), rel=0.01)


@pytest.mark.parametrize(("down", "right"), [(0, 1), (1, -1), (-3, 2)])
def test_a_shift_is_recovered_and_spoils_no_other_measure(textured, down, right):
    whole = gaussian_filter(textured(1, 300, 300, seed=5), (0, 2, 2))  # nothing to alias
    hr = whole[:, 20:276, 20:276]
    lr = 1.1 * boxed(whole[:, 20 - down : 276 - down, 20 - right : 276 - right]) + 0.02
    found = measure(lr, hr, ("B08",))
    # of LR against HR, in LR pixels of 2 x 2 HR pixels
    assert found["shift_y"] == pytest.approx(down / 2, abs=0.03)
    assert found["shift_x"] == pytest.approx(right / 2, abs=0.03)
    assert found["reliability"] > 0.95
    assert found["gain_B08"] == pytest.approx(1.1, rel=5e-3)
    assert found["offset_B08"] == pytest.approx(0.02, abs=1e-3)
    assert found["correlation_B08"] > 0.999


def test_a_blur_is_no_gain(hr):
    found = measure(gaussian_filter(boxed(hr), (0, 0.7, 0.7)), hr, ("B08",))
    assert found["gain_B08"] == pytest.approx(1, abs=0.04)
    # a line through the pixels as they are would say otherwise
    x, y = boxed(hr).ravel(), gaussian_filter(boxed(hr), (0, 0.7, 0.7)).ravel()
    assert np.polyfit(x, y, 1)[0] < 0.75


@pytest.mark.parametrize("sigma", [0.4, 0.7])
def test_a_blur_of_lr_shows_as_its_transfer_function(hr, sigma):
    lr = gaussian_filter(boxed(hr), (0, sigma, sigma), mode="wrap")
    found = measure(lr, hr, ("B08",))
    at = frequencies(128)
    assert at[-1] == 0.5
    kernel = gaussian_filter(
        np.eye(1, 65, 32)[0], sigma
    )  # as it is sampled, not the continuous one
    response = np.abs([(kernel * np.exp(-2j * np.pi * f * np.arange(65))).sum() for f in at])
    seen = (at > 0.05) & (at < 0.4)
    np.testing.assert_allclose(np.asarray(found["mtf"])[seen], 1 / response[seen], rtol=0.12)
    assert found["mtf"][-1] > found["mtf"][4] > 1


def test_noise_is_recovered_whatever_the_ground_is_like():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:128, :128]
    ground = 0.2 + 0.001 * y + 0.05 * np.sin(x / 9) + 0.1 * (y > 64)
    for sigma in (0.001, 0.01):
        noisy = ground + sigma * rng.standard_normal(ground.shape)
        assert noise_level(noisy) == pytest.approx(sigma, rel=0.05)
    assert noise_level(ground) < 2e-4


def test_noise_of_either_image_is_told_apart(textured):
    rng = np.random.default_rng(1)
    hr = gaussian_filter(textured(1, 256, 256), (0, 6, 6))
    lr = boxed(hr) + 0.004 * rng.standard_normal((1, 128, 128))
    found = measure(lr, hr, ("B08",))
    assert found["lr_noise_B08"] == pytest.approx(0.004, rel=0.05)
    assert found["hr_noise_B08"] < 1e-4
    assert found["residual_B08"] == pytest.approx(0.004, rel=0.05)


def test_flat_images_have_no_correlation_and_break_nothing():
    found = measure(np.full((1, 32, 32), 0.3), np.full((1, 64, 64), 0.1), ("B08",))
    assert math.isnan(found["correlation_B08"])
    assert found["bias_B08"] == pytest.approx(0.2)
    assert np.isnan(found["mtf"]).all()


def test_a_line_may_fall(textured):
    x = textured(1, 40, 40)[0]
    line = compare(line_sums(x, 1 - 2 * x))
    assert (line["gain"], line["offset"]) == pytest.approx((-2, 1))
    assert line["correlation"] == pytest.approx(-1)


def test_sums_add_up_over_pairs(textured):
    x = textured(2, 64, 64)
    y = np.stack([1.2 * x[0] + 0.01, 0.9 * x[1] - 0.02])
    both = compare(line_sums(x[0], y[0]) + line_sums(x[1], y[1]))
    assert both["correlation"] == pytest.approx(np.corrcoef(x.ravel(), y.ravel())[0, 1])
    assert both["bias"] == pytest.approx((y - x).mean())
    residual = y - both["gain"] * x - both["offset"]
    assert both["residual"] == pytest.approx(np.sqrt((residual**2).mean()))
