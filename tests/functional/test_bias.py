import numpy as np
import pytest
import torch

from lpips_sat.functional import bias, bias_per_band


def test_it_is_the_signed_mean_in_the_units_of_the_input():
    rng = np.random.default_rng(0)
    ref, pred = rng.random((2, 3, 5, 6)), rng.random((2, 3, 5, 6))
    score = bias(torch.from_numpy(pred), torch.from_numpy(ref))
    np.testing.assert_allclose(score, (pred - ref).mean(axis=(1, 2, 3)), rtol=0, atol=1e-15)


def test_a_prediction_that_is_too_bright_is_above_0():
    ref = torch.rand(1, 2, 8, 8)
    assert bias(ref + 0.25, ref).item() == pytest.approx(0.25, abs=1e-7)


def test_bands_that_cancel_are_told_apart():
    ref = torch.zeros(1, 2, 4, 4, dtype=torch.float64)
    pred = torch.stack([torch.full((4, 4), 0.5), torch.full((4, 4), -0.5)])[None].double()
    assert bias(pred, ref).tolist() == [0.0]
    assert bias_per_band(pred, ref).tolist() == [[0.5, -0.5]]
