"""Shifts made in the Fourier domain are found and undone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from lpips_sat.errors import MetricInputError
from lpips_sat.functional import psnr, ssim
from lpips_sat.raster import grid_of, read_on
from lpips_sat.registration import (
    REACH,
    Shift,
    apply_shift,
    estimate_shift,
    register,
    registered_psnr,
    registered_ssim,
)
from lpips_sat.sample import scene_file

DY, DX = 0.7, -1.3
EDGE, SIDE = 24, 192
BANDS = ("B04", "B08")


def fourier_shift(image, dy, dx):
    """Move (C, H, W) by an exact phase ramp; beyond its edges the image is mirrored."""
    whole = image.shape[-2:]
    image = np.pad(image, [(0, 0), (0, whole[0]), (0, whole[1])], mode="symmetric")
    height, width = image.shape[-2:]
    rows, cols = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    ramp = np.exp(-2j * np.pi * (rows * dy + cols * dx))
    moved = np.fft.irfft2(np.fft.rfft2(image) * ramp, s=(height, width))
    return moved[..., : whole[0], : whole[1]]


def inner(image):
    return torch.from_numpy(image[..., EDGE:-EDGE, EDGE:-EDGE].copy())[None]


@pytest.fixture(scope="module")
def real():
    """Reflectance (2, 240, 240) of fields and villages in the Sentinel-2 scene of the sample."""
    size = SIDE + 2 * EDGE
    images = []
    for band in BANDS:
        path = scene_file(band)
        images.append(read_on(path, grid_of(path).window(300, 300, size, size))[0] * 1e-4)
    return np.stack(images)


@pytest.fixture(scope="module", params=["real", "textured"])
def scene(request, real, textured):
    return real if request.param == "real" else textured(2, SIDE + 2 * EDGE, SIDE + 2 * EDGE)


@pytest.fixture(scope="module")
def cloud():
    """Two clouds over a third of the image: boolean (1, 1, 192, 192)."""
    rows, cols = np.mgrid[:SIDE, :SIDE]
    clear = (rows - 70) ** 2 + (cols - 110) ** 2 > 50**2
    clear &= (rows - 160) ** 2 + (cols - 30) ** 2 > 38**2
    return torch.from_numpy(clear)[None, None]


def super_resolved(scene, shift, *, blur=1.0, noise=0.003):
    """A prediction of the scene: smoother, with noise, and moved."""
    made = gaussian_filter(fourier_shift(scene, *shift), (0, blur, blur))
    return inner(made + noise * np.random.default_rng(5).standard_normal(scene.shape))


@pytest.mark.parametrize("shift", [(DY, DX), (0.0, 0.0), (-0.25, 0.4), (6.3, -4.8), (17.6, 9.2)])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_shift_is_found_to_a_tenth_of_a_pixel(scene, shift, noise):
    found = estimate_shift(super_resolved(scene, shift, noise=noise), inner(scene))
    assert (found.dy, found.dx) == pytest.approx(shift, abs=0.05)
    assert found.reliability > 0.5


@pytest.mark.parametrize("shift", [(DY, DX), (6.3, -4.8)])
def test_a_shift_is_found_beside_clouds_and_whatever_lies_under_them(scene, cloud, shift):
    pred, ref = super_resolved(scene, shift), inner(scene)
    found = estimate_shift(pred, ref, valid=cloud)
    assert (found.dy, found.dx) == pytest.approx(shift, abs=0.1)
    for junk in (np.nan, 1e9):
        dirty = pred.masked_fill(~cloud, junk), ref.masked_fill(~cloud, -junk)
        assert estimate_shift(*dirty, valid=cloud) == found


def test_the_estimate_follows_the_numbers_of_steps_per_pixel(real):
    found = estimate_shift(super_resolved(real, (DY, DX)), inner(real), upsample=2)
    assert (found.dy, found.dx) == (0.5, -1.5)


def test_a_band_of_large_numbers_does_not_drown_the_others(real):
    pred, ref = super_resolved(real, (DY, DX)), inner(real)
    generator = torch.Generator().manual_seed(6)
    noise = [1e4 * torch.rand(x[:, :1].shape, generator=generator).double() for x in (pred, ref)]
    found = estimate_shift(*(torch.cat(x, 1) for x in zip((pred, ref), noise, strict=True)))
    assert (found.dy, found.dx) == pytest.approx((DY, DX), abs=0.1)


def test_reliability_falls_from_identity_to_nothing_in_common(real):
    ref = inner(real)
    noise = [super_resolved(real, (DY, DX), noise=n) for n in (0.0, 0.01, 0.03, 0.1)]
    falling = [estimate_shift(pred, ref).reliability for pred in noise]
    assert falling == sorted(falling, reverse=True)
    assert estimate_shift(ref, ref) == Shift(0.0, 0.0, pytest.approx(1.0))
    elsewhere = inner(real[:, ::-1, ::-1].copy())
    assert estimate_shift(elsewhere, ref).reliability < 0.3


@pytest.mark.parametrize("level", [0.0, 0.2])
def test_without_detail_there_is_no_shift_to_trust(real, level):
    flat = torch.full((1, 2, SIDE, SIDE), level, dtype=torch.float64)
    nowhere = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.bool)
    assert estimate_shift(flat, inner(real)) == Shift(0.0, 0.0, 0.0)
    assert estimate_shift(inner(real), flat) == Shift(0.0, 0.0, 0.0)
    assert estimate_shift(inner(real), inner(real), valid=nowhere) == Shift(0.0, 0.0, 0.0)


def test_what_cannot_be_compared_is_refused():
    image = torch.rand(2, 1, 40, 40)
    with pytest.raises(MetricInputError, match=r"one pair \(1, C, H, W\) at a time.*`register`"):
        estimate_shift(image, image)
    with pytest.raises(MetricInputError, match="16 x 16 pixels, got 15 x 40"):
        estimate_shift(image[:1, :, :15], image[:1, :, :15])
    with pytest.raises(MetricInputError, match="`upsample` must be a whole number"):
        estimate_shift(image[:1], image[:1], upsample=0)


# --- resampling


@pytest.mark.parametrize("shift", [(3, -2), (0, 0), (-1, 5)])
def test_whole_pixels_move_values_as_they_are(shift):
    image = torch.rand(2, 3, 20, 24)
    moved, valid = apply_shift(image, Shift(*shift))
    expected = np.roll(image.numpy(), shift, (-2, -1))
    kept = np.zeros((20, 24), dtype=bool)
    kept[max(0, shift[0]) : 20 + min(0, shift[0]), max(0, shift[1]) : 24 + min(0, shift[1])] = True
    np.testing.assert_array_equal(valid, np.broadcast_to(kept, (2, 1, 20, 24)))
    np.testing.assert_array_equal(moved, np.where(kept, expected, 0))


def test_parts_of_a_pixel_move_as_in_the_fourier_domain(real):
    smooth = gaussian_filter(real, (0, 1.5, 1.5))
    moved, valid = apply_shift(inner(smooth), Shift(DY, DX))
    expected = inner(fourier_shift(smooth, DY, DX))
    error = (moved - expected)[valid.expand_as(moved)]
    assert error.abs().max() < 5e-4
    assert moved.dtype == torch.float64
    assert apply_shift(inner(smooth).float(), Shift(DY, DX))[0].dtype == torch.float32


def test_a_pixel_is_valid_where_the_whole_kernel_met_valid_pixels(cloud, real):
    image = inner(real)
    clean, valid = apply_shift(image, Shift(0.5, 0), cloud)
    dirty, _ = apply_shift(image.masked_fill(~cloud, torch.nan), Shift(0.5, 0), cloud)
    assert torch.equal(clean, dirty)
    assert not valid[..., :REACH, :].any()
    one = torch.ones(1, 1, 40, 40, dtype=torch.bool)
    one[..., 20, 20] = False
    lost = ~apply_shift(torch.rand(1, 1, 40, 40), Shift(0.5, 0), one)[1][0, 0, REACH:-REACH]
    assert lost.nonzero().tolist() == [[i, 20] for i in range(20 - 2 * REACH + 1, 21)]


def test_a_shift_beyond_the_image_leaves_nothing(real):
    moved, valid = apply_shift(inner(real), Shift(SIDE + 3.5, 0))
    assert not valid.any()
    assert not moved.any()


def test_resampling_has_a_gradient():
    image = torch.rand(1, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: apply_shift(x, Shift(0.3, -0.6))[0], image, fast_mode=True
    )


# --- the registered variants


@pytest.mark.parametrize("clouded", [False, True])
def test_registering_recovers_the_score_of_the_pair_that_was_not_shifted(real, cloud, clouded):
    valid = cloud if clouded else torch.ones_like(cloud)
    ref, aligned = inner(real), super_resolved(real, (0, 0))
    pred = super_resolved(real, (DY, DX))
    given = {"data_range": 1.0, "valid": valid}
    before, after = psnr(aligned, ref, **given), registered_psnr(pred, ref, **given)
    assert psnr(pred, ref, **given) < before - 1.5
    torch.testing.assert_close(after, before, atol=1, rtol=0)
    before, after = ssim(aligned, ref, **given), registered_ssim(pred, ref, **given)
    assert ssim(pred, ref, **given) < before - 0.01
    torch.testing.assert_close(after, before, atol=0.01, rtol=0)


def test_each_image_of_a_batch_is_registered_by_its_own_shift(real):
    shifts = [(DY, DX), (-2.2, 0.5)]
    pred = torch.cat([super_resolved(real, shift) for shift in shifts])
    ref = inner(real).expand(2, -1, -1, -1)
    moved, valid, found = register(pred, ref)
    assert [(s.dy, s.dx) for s in found] == [pytest.approx(shift, abs=0.05) for shift in shifts]
    alone = torch.cat([registered_psnr(pred[[i]], ref[[i]], data_range=1.0) for i in (0, 1)])
    assert torch.equal(psnr(moved, ref, data_range=1.0, valid=valid), alone)
