from math import log, nan, pi

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from lpips_sat.errors import MetricInputError
from lpips_sat.functional.mtf import (
    HALO,
    STEP,
    effective_gsd,
    mtf,
    mtf_from_sums,
    mtf_sums,
    ring_frequencies,
    spectral_energy,
)
from lpips_sat.metrics import MTF


@pytest.fixture(scope="module")
def scene(textured) -> Tensor:
    return torch.from_numpy(textured(3, 224, 200))[None]


def blurred(image: Tensor, sigma: float) -> Tensor:
    return torch.from_numpy(gaussian_filter(image.numpy(), (0, 0, sigma, sigma), mode="wrap"))


@pytest.mark.parametrize("sigma", [0.7, 1.0, 1.5, 2.5])
def test_a_gaussian_blur_has_its_known_transfer_function(scene, sigma):
    pred = blurred(scene, sigma)
    frequency = ring_frequencies()
    expected = torch.exp(-4 * (pi * sigma * frequency) ** 2)  # of energy: the MTF squared
    ratio = spectral_energy(pred, scene)[0]
    seen = expected > 0.05  # below, what leaks from neighbouring rings shows
    torch.testing.assert_close(ratio[seen], expected[seen], rtol=0.08, atol=0.01)
    half = log(2) ** 0.5 / (2 * pi * sigma)
    assert mtf(pred, scene).item() == pytest.approx(half, rel=0.03)
    assert effective_gsd(mtf(pred, scene), gsd=10.0).item() == pytest.approx(5 / half, rel=0.03)


def test_one_window_is_the_periodogram_by_hand(scene):
    pred, ref = (x[..., :64, :64] for x in (blurred(scene, 1.0), scene))
    window = np.hanning(65)[:64]
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64))
    ring = np.rint(64 * frequency)
    energy = []
    for image in (pred, ref):
        bands = image[0].numpy() - image[0].numpy().mean(axis=(1, 2), keepdims=True)
        power = np.abs(np.fft.fft2(bands * window[:, None] * window)) ** 2
        energy.append([power[:, ring == k].sum() for k in range(1, 33)])
    expected = np.array(energy[0]) / np.array(energy[1])
    np.testing.assert_allclose(spectral_energy(pred, ref)[0], expected, rtol=1e-9)


def test_identical_images_resolve_all_with_gradient_zero(scene):
    pred = scene.clone().requires_grad_()
    assert spectral_energy(scene, scene).tolist() == [[1.0] * 32]
    score = mtf(pred, scene)
    score.sum().backward()
    assert score.item() == 0.5
    assert effective_gsd(score, gsd=2.5).item() == 2.5
    assert (pred.grad == 0).all()


def test_noise_counts_as_energy(scene):
    noise = 0.02 * torch.randn(scene.shape, generator=torch.Generator().manual_seed(0)).double()
    assert spectral_energy(scene + noise, scene)[0, -1] > 1.2
    assert mtf(scene + noise, scene).item() == 0.5


@pytest.mark.parametrize("junk", [nan, 1e9])
def test_windows_with_an_invalid_pixel_are_left_out(scene, junk):
    pred = blurred(scene, 1.0)
    valid = torch.ones(1, 1, *scene.shape[-2:], dtype=torch.bool)
    valid[..., 130, 10] = False
    valid[..., :64, 150:] = False
    clean = mtf_sums(pred, scene, valid=valid)
    dirty = [x.masked_fill(~valid, junk).requires_grad_() for x in (pred, scene)]
    spoiled = mtf_sums(*dirty, valid=valid)
    assert torch.equal(clean, spoiled)
    mtf_from_sums(spoiled).sum().backward()
    assert all(x.grad.isfinite().all() for x in dirty)
    assert mtf_from_sums(clean) != mtf(pred, scene)
    assert mtf_from_sums(clean).item() == pytest.approx(mtf(pred, scene).item(), rel=0.05)


@pytest.mark.parametrize("tile", [32, 96])
def test_sums_of_tiles_with_a_halo_are_the_sums_of_the_whole(scene, tile):
    pred = blurred(scene, 1.0)
    valid = torch.ones(1, 1, *scene.shape[-2:], dtype=torch.bool)
    valid[..., 100, 60] = False
    total: Tensor | int = 0
    for top in range(0, 224, tile):
        for left in range(0, 200, tile):
            core = torch.zeros_like(valid)
            core[..., top : top + tile, left : left + tile] = True
            rows, columns = (slice(max(0, at - HALO), at + tile + HALO) for at in (top, left))
            at = (..., rows, columns)
            total = total + mtf_sums(pred[at], scene[at], valid=valid[at], core=core[at])
    assert HALO % STEP == 0
    torch.testing.assert_close(total, mtf_sums(pred, scene, valid=valid), rtol=1e-9, atol=0)


def test_a_score_does_not_depend_on_the_rest_of_the_batch(scene):
    ref = torch.cat([scene, scene.flip(-1)])
    pred = torch.cat([blurred(scene, 1.0), blurred(scene.flip(-1), 2.0)])
    alone = torch.cat([mtf(pred[[i]], ref[[i]]) for i in range(2)])
    torch.testing.assert_close(mtf(pred, ref), alone, rtol=1e-12, atol=0)
    assert alone[0] > 1.5 * alone[1]


def test_what_has_no_detail_to_compare_has_no_score(scene):
    valid = torch.zeros(1, 1, *scene.shape[-2:], dtype=torch.bool)
    assert mtf(scene, scene, valid=valid).isnan()
    flat = torch.full_like(scene, 0.1)
    assert mtf(scene, flat).isnan()
    assert mtf(flat, scene).item() < 1 / 64


def test_the_torchmetrics_class_is_the_mean_over_images(scene):
    metric = MTF()
    for sigma in (1.0, 2.0):
        metric.update(blurred(scene, sigma), scene)
    each = torch.cat([mtf(blurred(scene, sigma), scene) for sigma in (1.0, 2.0)])
    torch.testing.assert_close(metric.compute(), each.mean())


@pytest.mark.parametrize("shape", [(0, 2, 64, 64), (2, 0, 64, 64)])
def test_nothing_has_no_frequency(shape):
    nothing = torch.zeros(shape)
    assert spectral_energy(nothing, nothing).isnan().all()
    assert len(mtf(nothing, nothing)) == shape[0]


@pytest.mark.parametrize("window", [0, -2, 7, 63, 64.0])
def test_windows_are_an_even_number_of_pixels(scene, window):
    with pytest.raises(
        MetricInputError, match=f"window must be an even whole number.* got {window}"
    ):
        spectral_energy(scene, scene, window=window)


def test_small_images_are_refused_and_small_tiles_add_nothing(scene):
    small = scene[..., :63]
    with pytest.raises(MetricInputError, match=r"MTF needs.*64 x 64 pixels, got 224 x 63"):
        mtf(small, small)
    assert mtf_sums(small, small).tolist() == [[0.0] * 65]


@pytest.mark.parametrize("window", [16, 32])
def test_small_images_are_seen_through_smaller_windows(scene, window):
    pred, ref = (x[..., :window, :window] for x in (blurred(scene, 0.7), scene))
    ratio = spectral_energy(pred, ref, window=window)
    assert ratio.shape == (1, window // 2)
    with pytest.raises(MetricInputError, match="64"):
        spectral_energy(pred, ref)
    frequency = ring_frequencies(window)
    assert frequency[-1] == 0.5
    whole = spectral_energy(blurred(scene, 0.7), scene, window=window)[0]
    expected = torch.exp(-4 * (pi * 0.7 * frequency) ** 2)
    seen = (expected > 0.1) & (frequency > 2 / window)  # the first rings see the window's own width
    torch.testing.assert_close(whole[seen], expected[seen], rtol=0.12, atol=0.01)
