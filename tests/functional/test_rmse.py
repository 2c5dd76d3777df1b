import numpy as np
import pytest
import torch
from skimage.metrics import mean_squared_error

from lpips_sat.functional import rmse


def test_a_worked_example():
    pred = torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]]])
    assert rmse(pred, torch.zeros_like(pred)).tolist() == [2.5]


def test_it_is_the_root_over_valid_pixels_and_all_bands_of_each_image():
    rng = np.random.default_rng(1)
    pred, ref = rng.random((2, 3, 4, 7, 5))
    valid = rng.random((3, 1, 7, 5)) < 0.7
    by_hand = [
        mean_squared_error(p[:, v[0]], r[:, v[0]]) ** 0.5
        for p, r, v in zip(pred, ref, valid, strict=True)
    ]
    score = rmse(torch.tensor(pred), torch.tensor(ref), valid=torch.tensor(valid))
    np.testing.assert_allclose(score, by_hand, rtol=1e-13)


def test_an_error_too_small_for_a_float32_square_is_not_lost():
    pred, ref = torch.full((1, 1, 2, 2), 1e-30), torch.zeros(1, 1, 2, 2)
    assert rmse(pred, ref).item() == pytest.approx(1e-30, rel=1e-6)
