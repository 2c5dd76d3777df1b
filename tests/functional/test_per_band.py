from functools import partial

import numpy as np
import pytest
import torch

from lpips_sat.functional import (
    bias_per_band,
    mae,
    mae_per_band,
    psnr,
    psnr_per_band,
    rmse,
    rmse_per_band,
)

RANGE = {"data_range": 0.5}
# Per band, over valid pixels: the error of shape (C, valid pixels) -> (C,).
ORACLES = {
    mae_per_band: lambda e: np.abs(e).mean(axis=1),
    rmse_per_band: lambda e: np.sqrt((e**2).mean(axis=1)),
    bias_per_band: lambda e: e.mean(axis=1),
    partial(psnr_per_band, **RANGE): lambda e: 10 * np.log10(0.25 / (e**2).mean(axis=1)),
}
every_form = pytest.mark.parametrize("form", ORACLES, ids=["mae", "rmse", "bias", "psnr"])


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ref = torch.rand(2, 3, 9, 7, generator=generator, dtype=torch.float64)
    grain = torch.randn(ref.shape, generator=generator, dtype=torch.float64)
    return ref + torch.tensor([0.01, 0.02, 0.05]).view(3, 1, 1) * grain, ref


@every_form
def test_each_band_is_scored_over_the_valid_pixels(form):
    pred, ref = pair()
    valid = torch.rand(2, 1, 9, 7, generator=torch.Generator().manual_seed(2)) > 0.3
    scores = form(pred.masked_fill(~valid, torch.nan), ref, valid=valid)
    assert scores.shape == (2, 3)
    for i in range(2):
        error = (pred - ref)[i].numpy()[:, valid[i, 0].numpy()]
        np.testing.assert_allclose(scores[i], ORACLES[form](error), rtol=1e-12)


@every_form
def test_an_image_without_a_valid_pixel_has_no_score_in_any_band(form):
    pred, ref = pair()
    assert form(pred, ref, valid=torch.zeros(2, 1, 9, 7, dtype=torch.bool)).isnan().all()


def test_the_score_of_all_bands_is_that_of_their_pooled_errors():
    pred, ref = pair()
    torch.testing.assert_close(mae(pred, ref), mae_per_band(pred, ref).mean(dim=1))
    torch.testing.assert_close(rmse(pred, ref) ** 2, (rmse_per_band(pred, ref) ** 2).mean(dim=1))
    assert (psnr(pred, ref, **RANGE) < psnr_per_band(pred, ref, **RANGE).mean(dim=1)).all()
