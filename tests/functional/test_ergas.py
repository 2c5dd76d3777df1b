import numpy as np
import pytest
import torch
from torchmetrics.functional.image import error_relative_global_dimensionless_synthesis

from lpips_sat.errors import MetricInputError
from lpips_sat.functional import ergas


def random_pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(6)
    ref = rng.uniform(0.02, 0.3, (3, 4, 7, 5)) * np.array([1, 2, 3, 0.5]).reshape(4, 1, 1)
    return ref + 0.02 * rng.standard_normal(ref.shape), ref


def wald(pred: np.ndarray, ref: np.ndarray, ratio: float) -> float:
    """Wald's definition for spectra (C, pixels)."""
    relative = []
    for p, r in zip(pred, ref, strict=True):
        relative.append(np.sqrt(np.mean((p - r) ** 2)) / np.mean(r))
    return 100 * ratio * np.sqrt(np.mean(np.square(relative)))


def test_a_worked_example():
    # Band 1: mean 0.1, RMSE 0.01, relative 0.1. Band 2: mean 0.2, RMSE 0.04, relative 0.2.
    # 100 * 0.25 * sqrt((0.01 + 0.04) / 2) = 25 * 0.158114 = 3.952847
    ref = torch.tensor([[0.1, 0.1], [0.1, 0.3]], dtype=torch.float64).reshape(1, 2, 1, 2)
    error = torch.tensor([[0.01, -0.01], [0.04, 0.04]], dtype=torch.float64).reshape(1, 2, 1, 2)
    assert ergas(ref + error, ref, ratio=0.25).item() == pytest.approx(3.952847, abs=1e-6)


def test_it_follows_walds_definition_over_valid_pixels():
    pred, ref = random_pair()
    valid = np.random.default_rng(7).random((3, 1, 7, 5)) < 0.7
    expected = [wald(p[:, v[0]], r[:, v[0]], 0.5) for p, r, v in zip(pred, ref, valid, strict=True)]
    score = ergas(torch.tensor(pred), torch.tensor(ref), ratio=0.5, valid=torch.tensor(valid))
    np.testing.assert_allclose(score, expected, rtol=1e-12)


def test_it_equals_torchmetrics_which_takes_the_inverse_ratio():
    pred, ref = (torch.tensor(x) for x in random_pair())
    expected = error_relative_global_dimensionless_synthesis(pred, ref, ratio=4, reduction="none")
    torch.testing.assert_close(ergas(pred, ref, ratio=0.25), expected, rtol=1e-12, atol=0)


def test_the_reference_is_the_second_argument():
    pred, ref = (torch.tensor(x) for x in random_pair())
    swapped = ergas(2 * ref, pred, ratio=0.25)
    assert (swapped - ergas(pred, 2 * ref, ratio=0.25)).abs().min() > 1


def test_the_unit_of_the_input_does_not_matter():
    pred, ref = (torch.tensor(x) for x in random_pair())
    in_dn = ergas(10000 * pred, 10000 * ref, ratio=0.25)
    torch.testing.assert_close(in_dn, ergas(pred, ref, ratio=0.25), rtol=1e-12, atol=0)


def test_a_band_whose_reference_mean_is_zero_leaves_the_image_without_a_score():
    pred, ref = (torch.tensor(x) for x in random_pair())
    ref[1, 2] = 0
    score = ergas(pred, ref, ratio=0.25)
    assert score.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("ratio", [4, 0, -0.25, float("nan"), float("inf"), True, "x4", None])
def test_a_wrong_ratio_is_refused_with_both_conventions(ratio):
    image = torch.rand(1, 2, 4, 4)
    with pytest.raises(MetricInputError) as raised:
        ergas(image, image, ratio=ratio)
    for part in (f"got {ratio!r}", "(0, 1]", "0.25 for x4", "l/h, 4 for x4"):
        assert part in str(raised.value)


def test_a_ratio_of_one_is_accepted():
    image = torch.rand(1, 2, 4, 4)
    assert ergas(image, image, ratio=1).item() == 0
