import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import spectral_angle_mapper

from lpips_sat.errors import MetricInputError
from lpips_sat.functional import sam
from lpips_sat.functional.sam import sam_sums


def spectra(*pixels: tuple[float, ...]) -> torch.Tensor:
    """One image (1, C, 1, W) with a spectrum per pixel."""
    return torch.tensor(pixels).T[None, :, None, :]


def random_pair(bands: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    ref = rng.uniform(0.02, 0.3, (2, bands, 9, 8))
    return ref + rng.uniform(0, 0.1, ref.shape), ref


@pytest.mark.parametrize(
    ("a", "b", "degrees"),
    [
        ((1.0, 0.0), (0.0, 2.0), 90),
        ((1.0, 0.0), (3.0, 3.0), 45),
        ((1.0, 1.0, 0.0), (1.0, 0.0, 1.0), 60),
        ((1.0, 2.0), (-1.0, -2.0), 180),
    ],
)
def test_known_angles(a, b, degrees):
    assert sam(spectra(a), spectra(b)).item() == pytest.approx(degrees, rel=1e-7)


@pytest.mark.parametrize("bands", [2, 4, 13])
def test_it_is_the_mean_arccos_over_valid_pixels(bands):
    pred, ref = random_pair(bands)
    valid = np.random.default_rng(5).random((2, 1, 9, 8)) < 0.7
    cosine = (pred * ref).sum(1) / np.sqrt((pred**2).sum(1) * (ref**2).sum(1))
    angles = np.degrees(np.arccos(cosine))
    expected = [a[v[0]].mean() for a, v in zip(angles, valid, strict=True)]
    score = sam(torch.tensor(pred), torch.tensor(ref), valid=torch.tensor(valid))
    np.testing.assert_allclose(score, expected, rtol=1e-9)


def test_it_equals_torchmetrics_in_degrees():
    pred, ref = (torch.tensor(x) for x in random_pair(4))
    expected = spectral_angle_mapper(pred, ref, reduction="none").rad2deg().mean(dim=(1, 2))
    torch.testing.assert_close(sam(pred, ref), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("step", [1e-2, 1e-4, 1e-6])
def test_tiny_angles_of_float32_spectra_are_exact(step):
    pred, ref = spectra((1.0, 1.0 + step)), spectra((1.0, 1.0))
    exact = math.degrees(math.atan(pred[0, 1].item()) - math.atan(1.0))
    assert sam(pred, ref).item() == pytest.approx(exact, rel=1e-8)


def test_brightness_does_not_matter():
    pred, ref = (torch.tensor(x) for x in random_pair(4))
    brightness = torch.rand(2, 1, 9, 8, generator=torch.Generator().manual_seed(0)) + 0.1
    torch.testing.assert_close(sam(pred * brightness, ref), sam(pred, ref), rtol=1e-9, atol=0)


@pytest.mark.parametrize("black", ["pred", "ref", "both"])
def test_pixels_without_a_spectrum_are_left_out_and_counted(black):
    pred, ref = spectra((1.0, 0.0), (1.0, 1.0)), spectra((1.0, 1.0), (1.0, 1.0))
    for name, image in (("pred", pred), ("ref", ref)):
        if black in (name, "both"):
            image[..., 1] = 0
    assert sam(pred, ref).item() == pytest.approx(45)
    assert sam_sums(pred, ref)[:, 1:].tolist() == [[1.0, 1.0]]


def test_invalid_pixels_do_not_count_as_pixels_without_a_spectrum():
    pred = spectra((1.0, 0.0), (0.0, 0.0), (0.0, 0.0))
    valid = torch.tensor([True, True, False]).reshape(1, 1, 1, 3)
    assert sam_sums(pred, pred, valid=valid).tolist() == [[0.0, 1.0, 1.0]]


def test_an_image_that_is_all_black_has_no_angle():
    black = torch.zeros(1, 3, 4, 4)
    assert sam(black, black + 0.1).isnan().all()


def test_a_single_band_is_refused():
    gray = torch.rand(1, 1, 4, 4)
    with pytest.raises(MetricInputError, match="at least 2 bands, got 1"):
        sam(gray, gray)
