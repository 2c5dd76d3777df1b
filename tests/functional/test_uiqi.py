import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view

from lpips_sat.errors import MetricInputError
from lpips_sat.functional import uiqi
from lpips_sat.functional.uiqi import uiqi_sums


def index(x, y):
    """The index of one window in float64, from its definition."""
    mx, my = x.mean(), y.mean()
    cov = ((x - mx) * (y - my)).mean()
    return 4 * cov * mx * my / ((x.var() + y.var()) * (mx**2 + my**2))


@pytest.mark.parametrize("level", [0.0, 0.2, 0.9])
def test_it_is_the_mean_of_the_definition_over_all_windows(level):
    rng = np.random.default_rng(1)
    ref = (level + 0.1 * rng.random((2, 13, 11))).astype(np.float32)
    pred = ref + (0.03 * rng.standard_normal(ref.shape)).astype(np.float32)
    windows = [sliding_window_view(x.astype(float), (8, 8), (1, 2)) for x in (pred, ref)]
    pairs = zip(*(w.reshape(-1, 8, 8) for w in windows), strict=True)
    score = uiqi(*(torch.from_numpy(x)[None] for x in (pred, ref)))
    assert score.item() == pytest.approx(np.mean([index(x, y) for x, y in pairs]), abs=1e-10)


def test_a_contrast_stretch_costs_what_the_formula_says():
    """Twice the contrast about one mean: 2 (2 s) s / (s^2 + 4 s^2) = 4 / 5."""
    wave = torch.tensor([-1.0, 1.0]).repeat(16, 8)[None, None]
    assert uiqi(0.5 + 0.2 * wave, 0.5 + 0.1 * wave).item() == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flat_windows_differ_by_luminance_only(dtype):
    pred, ref = (
        torch.full((1, 1, 9, 9), 0.1, dtype=dtype),
        torch.full((1, 1, 9, 9), 0.3, dtype=dtype),
    )
    assert uiqi(pred, ref).item() == pytest.approx(2 * 0.1 * 0.3 / (0.1**2 + 0.3**2), abs=1e-6)
    assert uiqi(0 * pred, 0 * ref).item() == 1


def test_one_invalid_pixel_takes_out_the_windows_that_contain_it():
    image = torch.rand(1, 1, 30, 20)
    valid = torch.ones(1, 1, 30, 20, dtype=torch.bool)
    valid[0, 0, 15, 10] = False
    assert uiqi_sums(image, image, valid=valid)[0, 1].item() == 23 * 13 - 64


def test_an_image_smaller_than_a_window_is_refused():
    with pytest.raises(MetricInputError, match="UIQI needs images of at least 8 x 8"):
        uiqi(torch.rand(1, 1, 7, 9), torch.rand(1, 1, 7, 9))
    assert uiqi_sums(torch.rand(1, 1, 7, 9), torch.rand(1, 1, 7, 9)).tolist() == [[0.0, 0.0]]
