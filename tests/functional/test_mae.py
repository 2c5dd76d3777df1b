import numpy as np
import pytest
import torch

from lpips_sat.functional import mae
from lpips_sat.functional.mae import mae_sums


def test_a_worked_example():
    pred = torch.tensor([[[[0.1, 0.2]], [[0.3, 0.4]]]])
    ref = torch.tensor([[[[0.2, 0.2]], [[0.0, 0.6]]]])
    assert mae(pred, ref).tolist() == [pytest.approx((0.1 + 0.0 + 0.3 + 0.2) / 4, rel=1e-6)]


def test_it_is_the_mean_over_valid_pixels_and_all_bands_of_each_image():
    rng = np.random.default_rng(0)
    pred, ref = rng.random((2, 3, 4, 7, 5))
    valid = rng.random((3, 1, 7, 5)) < 0.7
    by_hand = [np.abs(p - r)[:, v[0]].mean() for p, r, v in zip(pred, ref, valid, strict=True)]
    score = mae(torch.tensor(pred), torch.tensor(ref), valid=torch.tensor(valid))
    np.testing.assert_allclose(score, by_hand, rtol=1e-13)


def test_the_sums_hold_the_error_of_each_band_and_the_number_of_pixels():
    pred, ref = torch.full((1, 3, 2, 2), 0.75), torch.full((1, 3, 2, 2), 0.5)
    core = torch.tensor([[[[True, True], [True, False]]]])
    assert mae_sums(pred, ref, core=core).tolist() == [[0.75, 0.75, 0.75, 3.0]]
