from math import inf

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from lpips_sat.errors import MetricInputError
from lpips_sat.functional import cpsnr, cssim, psnr, ssim
from lpips_sat.functional.cpsnr import cpsnr_sums
from lpips_sat.functional.cssim import cssim_sums


def scene(textured, bands=2, height=40, width=36):
    """A reference, and a prediction from it: moved by (2, -1) px, brighter and with noise."""
    big = textured(bands, height + 8, width + 8, seed=9)
    ref, pred = big[:, 4:-4, 4:-4], big[:, 2:-6, 5:-3]  # pred[y, x] = ref[y - 2, x + 1]
    offset = np.array([0.02, -0.01]).reshape(2, 1, 1)[:bands]
    grain = 0.003 * np.random.default_rng(10).standard_normal(ref.shape)
    return pred + offset + grain, ref


def batch(*images):
    return [torch.from_numpy(np.ascontiguousarray(x))[None] for x in images]


def shifted(ref, s):
    height, width = (side - 2 * s for side in ref.shape[-2:])
    for u in range(2 * s + 1):
        for v in range(2 * s + 1):
            yield ref[..., u : u + height, v : v + width]


def probav(pred, ref, valid, s):
    """cPSNR with R = 1 from the challenge's definition, in float64 numpy; masked in both."""
    scores = []
    still, seen = pred[:, s:-s, s:-s], valid[s:-s, s:-s]
    for moved, clear in zip(shifted(ref, s), shifted(valid, s), strict=True):
        error = (moved - still)[:, clear & seen]
        error = error - error.mean(axis=1, keepdims=True)
        scores.append(-10 * np.log10((error**2).mean()))
    return max(scores)


@pytest.mark.parametrize("s", [2, 3])
def test_it_is_the_best_of_the_shifts_after_the_offset_of_each_band(textured, s):
    pred, ref = scene(textured)
    valid = np.random.default_rng(11).random(ref.shape[1:]) > 0.1
    score = cpsnr(*batch(pred, ref), data_range=1.0, max_shift=s, valid=batch(valid[None])[0])
    assert score.item() == pytest.approx(probav(pred, ref, valid, s), abs=1e-9)


def test_a_shift_and_an_offset_within_reach_cost_nothing(textured):
    pred, ref = scene(textured)
    images = batch(pred, ref)
    noise_only = -20 * np.log10(0.003)
    assert psnr(*images, data_range=1.0).item() < 30
    assert cpsnr(*images, data_range=1.0).item() == pytest.approx(noise_only, abs=0.5)
    assert cpsnr(*images, data_range=1.0, max_shift=1).item() < 35


@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_an_exact_shift_and_offset_are_infinitely_good(textured, offset):
    big = textured(2, 30, 30, seed=12).astype(np.float32).astype(np.float64)
    pred, ref = batch(big[:, 2:-2, 2:-2], big[:, 1:-3, 3:-1] + offset)
    assert cpsnr(pred, ref, data_range=1.0).item() == inf


def test_a_data_range_of_ten_adds_twenty_decibel(textured):
    images = batch(*scene(textured))
    one, ten = (cpsnr(*images, data_range=r).item() for r in (1.0, 10.0))
    assert ten - one == pytest.approx(20, abs=1e-9)


def test_cssim_is_the_best_ssim_of_scikit_image_over_the_shifts(textured):
    pred, ref = scene(textured, height=24, width=26)
    s, scores = 2, []
    still = pred[:, s:-s, s:-s]
    for moved in shifted(ref, s):
        raised = still + (moved - still).mean(axis=(1, 2), keepdims=True)
        given = {"data_range": 0.5, "channel_axis": 0, "gaussian_weights": True, "sigma": 1.5}
        scores.append(structural_similarity(raised, moved, use_sample_covariance=False, **given))
    score = cssim(*batch(pred, ref), data_range=0.5, max_shift=s)
    assert score.item() == pytest.approx(max(scores), abs=1e-10)
    assert score.item() > ssim(*batch(pred, ref), data_range=0.5).item() + 0.1


def test_without_a_shift_cssim_counts_the_windows_of_ssim(textured):
    pred, ref = batch(*scene(textured))
    raised = pred + (ref - pred).mean(dim=(2, 3), keepdim=True)
    expected = ssim(raised, ref, data_range=0.4)
    torch.testing.assert_close(cssim(pred, ref, data_range=0.4, max_shift=0), expected)


def test_windows_are_valid_in_both_images_at_each_shift():
    image = torch.rand(1, 1, 40, 40)
    valid = torch.ones(1, 1, 40, 40, dtype=torch.bool)
    valid[..., 20, 20] = False
    windows = cssim_sums(image, image, data_range=1.0, max_shift=1, valid=valid)[0, 1::2]
    whole, hole, moved_by_one, moved_by_both = 28 * 28, 121, 132, 142
    assert windows[4].item() == whole - hole
    assert windows[[1, 3, 5, 7]].tolist() == [whole - moved_by_one] * 4
    assert windows[[0, 2, 6, 8]].tolist() == [whole - moved_by_both] * 4


@pytest.mark.parametrize("max_shift", [-1, 1.5, True, None, "3"])
@pytest.mark.parametrize("score", [cpsnr, cssim])
def test_a_shift_that_is_no_number_of_pixels_is_refused(score, max_shift):
    image = torch.rand(1, 1, 20, 20)
    with pytest.raises(MetricInputError, match="`max_shift` must be a whole number of pixels"):
        score(image, image, data_range=1.0, max_shift=max_shift)


def test_images_too_small_for_the_shifts_are_refused():
    small = torch.rand(1, 1, 6, 20)
    with pytest.raises(MetricInputError, match="cPSNR needs images of at least 7 x 7"):
        cpsnr(small, small, data_range=1.0)
    with pytest.raises(MetricInputError, match="cSSIM needs images of at least 17 x 17"):
        cssim(small, small, data_range=1.0)
    assert (cpsnr_sums(small, small) == 0).all()
    assert (cssim_sums(small, small, data_range=1.0) == 0).all()
