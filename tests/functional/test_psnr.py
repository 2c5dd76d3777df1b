import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from torchmetrics.functional.image import peak_signal_noise_ratio as torchmetrics_psnr

from lpips_sat.functional import psnr


def reflectance_pair(bands: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(2)
    ref = rng.uniform(0.02, 0.3, (3, bands, 16, 13))
    noise = np.array([0.001, 0.01, 0.05]).reshape(3, 1, 1, 1)
    return torch.tensor(ref + noise * rng.standard_normal(ref.shape)), torch.tensor(ref)


def test_an_error_of_a_tenth_of_the_range_is_20_db():
    ref = torch.zeros(1, 2, 3, 3)
    assert psnr(ref + 0.1, ref, data_range=1.0).item() == pytest.approx(20, abs=1e-6)
    assert psnr(ref + 1000, ref, data_range=10000).item() == pytest.approx(20, abs=1e-6)


def test_an_error_above_the_range_is_negative():
    ref = torch.zeros(1, 1, 2, 2)
    assert psnr(ref + 10, ref, data_range=1.0).item() == pytest.approx(-20)


@pytest.mark.parametrize("bands", [1, 4])
@pytest.mark.parametrize("data_range", [1.0, 0.3, 2])
def test_it_equals_scikit_image(bands, data_range):
    pred, ref = reflectance_pair(bands)
    expected = [
        peak_signal_noise_ratio(r.numpy(), p.numpy(), data_range=data_range)
        for p, r in zip(pred, ref, strict=True)
    ]
    np.testing.assert_allclose(psnr(pred, ref, data_range=data_range), expected, rtol=1e-13)


def test_it_equals_torchmetrics_per_image():
    pred, ref = reflectance_pair()
    expected = torchmetrics_psnr(pred, ref, data_range=1.0, dim=(1, 2, 3), reduction="none")
    torch.testing.assert_close(psnr(pred, ref, data_range=1.0), expected)


def test_data_range_may_be_a_numpy_scalar():
    pred, ref = reflectance_pair()
    score = psnr(pred, ref, data_range=np.float32(2))
    assert torch.equal(score, psnr(pred, ref, data_range=2.0))
