import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.measure import block_reduce
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from lpips_sat.errors import MetricInputError
from lpips_sat.functional import ms_ssim
from lpips_sat.functional.ms_ssim import ms_ssim_sums

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def images(textured, height, width, bands=2):
    """Two float32 images (1, bands, height, width): detail, and the same blurred with noise."""
    ref = textured(bands, height, width, seed=5)
    grain = 0.01 * np.random.default_rng(6).standard_normal(ref.shape)
    pred = gaussian_filter(ref, (0, 1.5, 1.5)) + grain
    return tuple(torch.from_numpy(x.astype(np.float32))[None] for x in (pred, ref))


def by_hand(x, y, data_range):
    """MS-SSIM of one band in float64, from Wang's formulas with scipy and scikit-image."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    score = 1.0
    for scale, weight in enumerate(WEIGHTS):
        if scale:
            x, y = (
                block_reduce(z[: z.shape[0] // 2 * 2, : z.shape[1] // 2 * 2], 2, np.mean)
                for z in (x, y)
            )
        mean = lambda z: gaussian_filter(z, 1.5, truncate=3.5)[5:-5, 5:-5]  # noqa: E731
        mx, my = mean(x), mean(y)
        cov, var = mean(x * y) - mx * my, mean(x * x) - mx**2 + mean(y * y) - my**2
        cs = (2 * cov + c2) / (var + c2)
        if scale == 4:
            cs = cs * (2 * mx * my + c1) / (mx**2 + my**2 + c1)
        score *= cs.mean() ** weight
    return score


@pytest.mark.parametrize("size", [(176, 176), (201, 190)])
def test_it_is_the_mean_over_bands_of_wangs_formula(textured, size):
    pred, ref = images(textured, *size)
    expected = [by_hand(*(x[0, b].double().numpy() for x in (pred, ref)), 0.4) for b in (0, 1)]
    assert abs(expected[0] - expected[1]) > 1e-4
    score = ms_ssim(pred, ref, data_range=0.4).item()
    assert score == pytest.approx(np.mean(expected), abs=1e-10)


def test_one_band_scores_as_in_torchmetrics_but_for_the_border_that_it_mirrors(textured):
    pred, ref = (x.double() for x in images(textured, 192, 200, bands=1))
    theirs = multiscale_structural_similarity_index_measure(pred, ref, data_range=1.0)
    assert ms_ssim(pred, ref, data_range=1.0).item() == pytest.approx(theirs.item(), abs=5e-5)


def test_an_image_and_its_negative_score_0_and_have_a_finite_gradient(textured):
    ref = images(textured, 176, 176)[1]
    pred = (0.4 - ref).requires_grad_()
    score = ms_ssim(pred, ref, data_range=1.0)
    score.backward()
    assert score.item() == 0
    assert pred.grad.isfinite().all()


def test_one_invalid_pixel_takes_out_the_windows_above_it_at_every_scale(textured):
    pred, ref = images(textured, 208, 192, bands=1)
    valid = torch.ones(1, 1, 208, 192, dtype=torch.bool)
    windows = [(208 // 2**s - 10) * (192 // 2**s - 10) for s in range(5)]
    assert ms_ssim_sums(pred, ref, data_range=1.0)[0, 1::2].tolist() == windows
    valid[..., 100, 90] = False  # cell 6, 5 of 13 x 12 at the last scale: in every window
    left = ms_ssim_sums(pred, ref, data_range=1.0, valid=valid)[0, 1::2].tolist()
    assert left[:2] == [windows[0] - 121, windows[1] - 121]
    assert left[4] == 0
    assert ms_ssim(pred, ref, data_range=1.0, valid=valid).isnan().all()


def test_an_undefined_score_has_no_gradient_and_leaves_the_others_alone(textured):
    """A hole that takes all windows of the last scale, and none of the first."""
    pair = [images(textured, 192, 192), [x.flip(2) for x in images(textured, 192, 192)]]
    pred, ref = (torch.cat(side).double() for side in zip(*pair, strict=True))
    valid = torch.ones(2, 1, 192, 192, dtype=torch.bool)
    valid[0, :, 90:100, 90:100] = False
    pred.requires_grad_()
    scores = ms_ssim(pred, ref, data_range=1.0, valid=valid)
    assert scores.isnan().tolist() == [True, False]
    scores.nansum().backward()
    alone = pred.detach()[1:].requires_grad_()
    ms_ssim(alone, ref[1:], data_range=1.0).sum().backward()
    assert torch.equal(pred.grad[0], torch.zeros_like(pred.grad[0]))
    torch.testing.assert_close(pred.grad[1:], alone.grad, rtol=1e-12, atol=0)
    assert alone.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", [(0, 2, 192, 192), (2, 0, 192, 192)])
def test_nothing_has_no_score(shape):
    nothing = torch.zeros(shape)
    assert ms_ssim(nothing, nothing, data_range=1.0).isnan().tolist() == [True] * shape[0]


def test_an_image_without_a_window_at_the_last_scale_is_refused():
    small = torch.rand(1, 1, 175, 300)
    with pytest.raises(MetricInputError, match="176 x 176 pixels, got 175 x 300"):
        ms_ssim(small, small, data_range=1.0)


@pytest.mark.parametrize("shape", [(1, 200), (12, 12)])
def test_a_tile_smaller_than_a_window_adds_nothing_at_that_scale(shape):
    small = torch.rand(1, 1, *shape)
    assert ms_ssim_sums(small, small, data_range=1.0)[0, 2:].tolist() == [0.0] * 8
