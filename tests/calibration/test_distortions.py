"""The laws of the distortions: what satellite-2afc's severities mean, each by an oracle."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from lpips_sat.calibration.distortions import AIRLIGHT, KINDS, distort
from lpips_sat.errors import MetricInputError

SEVERITIES = (0.0, 0.35, 0.7, 1.0)
# These ignore `rng`: the image and the severity decide everything.
FIXED = {
    *("blur", "bicubic", "nearest", "jpeg", "ringing", "haze", "oversmooth", "jpeg2000"),
}
STEPPED = {"nearest", "oversmooth"}  # three sizes: from 2/3 on nothing changes any more
every_kind = pytest.mark.parametrize("kind", KINDS)
every_severity = pytest.mark.parametrize("severity", SEVERITIES)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def image(textured):
    """A textured patch (96, 96, 3) that stays away from 0 and 1."""
    found = textured(3, 96, 96, seed=30, low=0.3, high=0.7).transpose(1, 2, 0)
    return np.ascontiguousarray(found, dtype=np.float32)


def flat(side=256, bands=3, value=0.5):
    return np.full((side, side, bands), value, dtype=np.float32)


def inner(array, edge=12):
    return array[edge:-edge, edge:-edge]


# --- what holds for all


def test_the_kinds_are_those_of_the_judgements_and_four_sensors():
    judged = "blur bicubic nearest noise stripes jpeg ringing checker shift colour gamma haze"
    judged = [*judged.split(), "texture", "warp", "gan", "oversmooth"]
    assert list(KINDS) == [*judged, "sensor", "misregister", "jpeg2000", "cloud"]


@every_kind
@pytest.mark.parametrize(
    "shape", [(64, 64, 3), (48, 80, 3), (33, 47, 3), (64, 64, 1), (40, 40, 13)]
)
def test_shape_type_and_range_are_kept_for_any_number_of_bands(kind, shape):
    image = rng(1).uniform(0, 1, shape)  # float64, and touches both ends
    before = image.copy()
    for severity in (0.0, 1.0):
        result = distort(image, kind, severity, rng())
        assert (result.shape, result.dtype) == (shape, np.float32)
        assert result.min() >= 0
        assert result.max() <= 1
        assert np.abs(result - image).mean() > 1e-3  # even severity 0 is a distortion
    np.testing.assert_array_equal(image, before)


@every_kind
def test_the_state_of_the_generator_decides_and_nothing_else(kind, image):
    first, again, other = (distort(image, kind, 0.6, rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.array_equal(first, other) == (kind in FIXED)


@every_kind
def test_a_higher_severity_is_further_from_the_image(kind, image):
    severities = SEVERITIES[:3] if kind in STEPPED else SEVERITIES
    for seed in range(3):
        error = [np.abs(distort(image, kind, s, rng(seed)) - image).mean() for s in severities]
        assert np.all(np.diff(error) > 0), error


def test_an_unknown_kind_is_refused_with_the_known_ones(image):
    with pytest.raises(MetricInputError, match=r"unknown distortion 'blurr'; choose from: blur, "):
        distort(image, "blurr", 0.5, rng())


@pytest.mark.parametrize("severity", [-0.01, 1.01, np.nan])
def test_a_severity_outside_0_to_1_is_refused(image, severity):
    with pytest.raises(MetricInputError, match=r"severity must lie in \[0, 1\], got"):
        distort(image, "blur", severity, rng())


# --- the laws, one by one


@every_severity
def test_blur_is_a_gaussian_of_04_to_22_px(image, severity):
    sigma = 0.4 + 1.8 * severity
    expected = [ndimage.gaussian_filter(image[..., c], sigma) for c in range(3)]
    got = distort(image, "blur", severity, rng())
    np.testing.assert_allclose(got, np.stack(expected, axis=2), atol=1e-6)


def down_up(plane, factor, down, up):
    """A round trip of one band through a smaller image, by Pillow."""
    side = plane.shape[0]
    picture = Image.fromarray(plane).resize((round(side / factor),) * 2, down)
    return np.asarray(picture.resize((side, side), up))


@every_severity
def test_bicubic_restores_what_was_reduced_by_13_to_46(image, severity):
    down, up = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
    expected = [
        down_up(np.ascontiguousarray(image[..., c]), 1.3 + 3.3 * severity, down, up)
        for c in range(3)
    ]
    got = distort(image, "bicubic", severity, rng())
    np.testing.assert_allclose(got, np.stack(expected, axis=2), atol=1e-6)


@pytest.mark.parametrize(
    ("severity", "side"), [(0.0, 2), (0.33, 2), (0.34, 3), (0.66, 3), (0.67, 4), (1.0, 4)]
)
def test_nearest_makes_blocks_of_their_mean(image, severity, side):
    got = distort(image, "nearest", severity, rng())
    n = 96 // side
    means = image.reshape(n, side, n, side, 3).mean(axis=(1, 3))
    expected = means.repeat(side, axis=0).repeat(side, axis=1)
    np.testing.assert_allclose(got, expected, atol=1e-6)


@every_severity
def test_noise_is_white_gaussian_and_independent_per_band(severity):
    noise = distort(flat(), "noise", severity, rng()) - 0.5
    assert noise.std() == pytest.approx(0.016 + 0.088 * severity, rel=0.01)
    assert abs(noise.mean()) < 1e-3
    between = np.corrcoef(noise.reshape(-1, 3).T)[np.triu_indices(3, 1)]
    beside = np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]
    assert np.abs([*between, beside]).max() < 0.02


@every_severity
def test_stripes_are_one_offset_per_column_in_all_bands(severity):
    stripes = distort(flat(1024, 2)[:8], "stripes", severity, rng()) - 0.5
    np.testing.assert_array_equal(stripes, np.broadcast_to(stripes[:1, :, :1], stripes.shape))
    assert stripes[0, :, 0].std() == pytest.approx(0.010 + 0.061 * severity, rel=0.05)


def coded(array, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, **options)
    return np.asarray(Image.open(buffer), dtype=np.float32) / 255


@pytest.mark.parametrize(("severity", "quality"), [(0.0, 60), (0.25, 47), (0.5, 34), (1.0, 8)])
def test_jpeg_is_pillows_of_quality_60_to_8(image, severity, quality):
    eight_bit = np.round(image * 255).astype(np.uint8)
    expected = coded(eight_bit, format="JPEG", quality=quality, subsampling="4:2:0")
    np.testing.assert_allclose(distort(image, "jpeg", severity, rng()), expected, atol=1e-6)
    grey = coded(eight_bit[..., 1], format="JPEG", quality=quality)
    got = distort(image[..., [1, 2]], "jpeg", severity, rng())[..., 0]
    np.testing.assert_allclose(got, grey, atol=1e-6)


@every_severity
def test_jpeg2000_is_pillows_at_a_rate_of_8_to_40(image, severity):
    eight_bit = np.round(image * 255).astype(np.uint8)
    rate = [8 * 5**severity]
    expected = coded(eight_bit, format="JPEG2000", quality_mode="rates", quality_layers=rate)
    np.testing.assert_allclose(distort(image, "jpeg2000", severity, rng()), expected, atol=1e-6)


@every_severity
def test_ringing_is_an_unsharp_mask(image, severity):
    amount = 0.5 + 3.0 * severity
    smooth = ndimage.gaussian_filter(image, (1.2, 1.2, 0))
    expected = np.clip(image + amount * (image - smooth), 0, 1)
    np.testing.assert_allclose(distort(image, "ringing", severity, rng()), expected, atol=1e-5)


@every_severity
def test_checker_is_a_board_of_period_2_with_a_smooth_amplitude(severity):
    error = distort(flat(), "checker", severity, rng()) - 0.5
    assert error.std() == pytest.approx(0.0065 + 0.027 * severity, rel=0.02)
    np.testing.assert_array_equal(error, np.repeat(error[..., :1], 3, axis=2))
    rows, cols = np.indices((256, 256))
    amplitude = error[..., 0] * np.where((rows + cols) % 2, 1, -1)
    steps = np.diff(amplitude, axis=0).std()
    assert steps < 0.2 * amplitude.std()  # white noise would have 1.4


@every_severity
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_shift_has_a_length_of_03_to_35_px_in_any_direction(image, severity, seed):
    got = distort(image, "shift", severity, rng(seed))
    moved, _, _ = phase_cross_correlation(
        inner(image)[..., 0], inner(got)[..., 0], upsample_factor=50
    )
    assert np.hypot(*moved) == pytest.approx(0.3 + 3.2 * severity, abs=0.12)


def test_shifts_go_everywhere(image):
    ramps = np.stack(np.indices((40, 40)), axis=2).astype(np.float32) / 64
    moves = [inner(distort(ramps, "shift", 0.5, rng(s)) - ramps).mean((0, 1)) for s in range(60)]
    directions = np.arctan2(*np.transpose(moves))
    assert np.histogram(directions, bins=4, range=(-np.pi, np.pi))[0].min() >= 5


@every_severity
def test_colour_is_a_gain_and_an_offset_per_band_within_their_limits(image, severity):
    gains, offsets = [], []
    for seed in range(20):
        got = distort(image, "colour", severity, rng(seed))
        for c in range(3):
            unclipped = (got[..., c] > 0) & (got[..., c] < 1)
            x, y = image[..., c][unclipped], got[..., c][unclipped]
            gain, offset = np.polyfit(x, y, 1)
            np.testing.assert_allclose(y, gain * x + offset, atol=1e-5)
            gains.append(abs(gain - 1))
            offsets.append(abs(offset))
    limit = 0.05 + 0.25 * severity
    assert 0.85 * limit < max(gains) <= limit + 1e-4
    limit = 0.012 + 0.07 * severity
    assert 0.85 * limit < max(offsets) <= limit + 1e-4


@every_severity
def test_gamma_is_a_power_or_its_inverse(image, severity):
    power = 2 ** (0.15 + 0.9 * severity)
    seen = set()
    for seed in range(12):
        got = distort(image, "gamma", severity, rng(seed))
        expected = image**power if got.mean() < image.mean() else image ** (1 / power)
        np.testing.assert_allclose(got, expected, atol=1e-5)
        seen.add(bool(got.mean() < image.mean()))
    assert seen == {True, False}


@every_severity
def test_haze_mixes_in_airlight(image, severity):
    share = 0.06 + 0.5 * severity
    expected = image + share * (np.array([0.62, 0.66, 0.72]) - image)
    np.testing.assert_allclose(distort(image, "haze", severity, rng()), expected, atol=1e-6)
    grey = image[..., 0] + share * (2 / 3 - image[..., 0])
    got = distort(image[..., :1], "haze", severity, rng())[..., 0]
    np.testing.assert_allclose(got, grey, atol=1e-6)
    assert AIRLIGHT == (0.62, 0.66, 0.72)


@every_severity
def test_texture_is_a_band_of_frequencies_and_stronger_where_texture_is(severity):
    error = distort(flat(), "texture", severity, rng())[..., 0] - 0.5
    assert error.std() == pytest.approx(0.028 + 0.045 * severity, rel=0.01)
    power = np.abs(np.fft.fft2(error)) ** 2
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(256)] * 2))
    band = (frequency > 0.05) & (frequency < 0.32)
    assert power[band].sum() > 0.9 * power.sum()
    half = flat()
    half[:, 128:] += 0.1 * rng(5).standard_normal((256, 128, 1)).astype(np.float32)
    error = distort(half, "texture", severity, rng())[..., 0] - half[..., 0]
    assert error[:, 140:].std() > 1.5 * error[:, :116].std()


def displacement(kind, severity, seed, side=128):
    """How far (dy, dx) every pixel was moved, seen on a ramp along either axis."""
    ramps = np.stack(np.indices((side, side)), axis=2).astype(np.float32)
    got = distort(0.1 + ramps / (2 * side), kind, severity, rng(seed))
    return inner((got - 0.1) * (2 * side) - ramps)


@every_severity
def test_warp_moves_smoothly_by_an_rms_of_02_to_15_px(severity):
    moved = np.stack([displacement("warp", severity, seed) for seed in range(4)])
    rms = np.sqrt((moved**2).sum(axis=3).mean())
    assert rms == pytest.approx(0.2 + 1.3 * severity, rel=0.08)
    assert np.diff(moved, axis=1).std() < 0.25 * moved.std()
    assert abs(np.corrcoef(moved[..., 0].ravel(), moved[..., 1].ravel())[0, 1]) < 0.3


@every_severity
def test_misregister_moves_each_band_by_its_own_constant(severity):
    reach, found = 0.2 + 1.5 * severity, []
    for seed in range(15):
        moved = displacement("misregister", severity, seed, side=48)
        np.testing.assert_allclose(moved - moved.mean((0, 1)), 0, atol=1e-3)
        found.append(moved.mean((0, 1)))
    assert 0.8 * reach < np.abs(found).max() <= reach + 1e-3
    # in a picture whose bands are equal, the bands part
    grey = np.repeat(rng(3).uniform(0.2, 0.8, (48, 48, 1)), 3, axis=2)
    got = distort(grey, "misregister", severity, rng())
    assert np.abs(got[..., 0] - got[..., 2]).max() > 0.01


@pytest.mark.parametrize(("severity", "size"), [(0.0, 3), (0.34, 5), (0.67, 7), (1.0, 7)])
def test_oversmooth_is_a_median_filter(image, severity, size):
    expected = [ndimage.median_filter(image[..., c], size) for c in range(3)]
    got = distort(image, "oversmooth", severity, rng())
    np.testing.assert_allclose(got, np.stack(expected, axis=2), atol=1e-6)


@every_severity
def test_gan_loses_detail_and_paints_its_own(image, severity):
    first, second = (distort(image, "gan", severity, rng(seed)) for seed in (1, 2))
    lost = ((first + second) / 2 - image).std()
    painted = (first - second).std() / np.sqrt(2)
    # two band-pass fields of rms 0.03 to 0.06 under an envelope of mean 1
    assert painted == pytest.approx(0.03 + 0.03 * severity, rel=0.1)
    assert lost > 0


@every_severity
@pytest.mark.parametrize("side", [96, 128])
def test_sensor_is_not_shifted(severity, side):
    moved = [displacement("sensor", severity, seed, side).mean((0, 1)) for seed in range(16)]
    assert np.abs(np.mean(moved, axis=0)).max() < 0.12  # half a pixel is the usual mistake


def test_sensor_has_the_blur_of_its_mtf_and_grows_noisier(image):
    noise = [
        (distort(image, "sensor", s, rng(1)) - distort(image, "sensor", s, rng(2))).std()
        for s in SEVERITIES
    ]
    assert np.all(np.diff(noise) > 0)
    assert noise[0] < 0.006
    smooth = ndimage.gaussian_filter(image, (0.6, 0.6, 0))
    close = np.abs(inner(distort(image, "sensor", 0, rng()) - smooth)).mean()
    assert close < np.abs(inner(distort(image, "sensor", 1, rng()) - smooth)).mean() / 2


@every_severity
def test_cloud_covers_a_part_with_its_own_brightness(severity):
    image = rng(4).uniform(0.1, 0.6, (128, 128, 2)).astype(np.float32)
    got = distort(image, "cloud", severity, rng())
    cover = (got - image) / (0.9 - image)
    np.testing.assert_allclose(cover[..., 0], cover[..., 1], atol=1e-5)
    limit = 0.15 + 0.75 * severity
    assert cover.min() >= -1e-6
    assert 0.5 * limit < cover.max() <= limit
    assert np.median(cover) < 0.4 * limit
    assert np.diff(cover[..., 0], axis=0).std() < 0.25 * cover.std()
