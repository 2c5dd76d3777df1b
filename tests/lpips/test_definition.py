"""The distance by its definition, its outputs, and masks."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lpips_sat import LPIPSSat
from lpips_sat.validity import FILL_REACH, soft_fill

from .conftest import JUNK, display, land, layer_maps, left_half, pair, rng

# --- the definition


@pytest.mark.parametrize("size", [(64, 64), (32, 47), (71, 50), (33, 95)])
def test_the_score_is_the_mean_of_weighted_squared_differences_of_unit_features(metric, size):
    pred, ref = pair(2, *size)
    pred[0, :, :9] *= 3  # above white
    expected = layer_maps(metric, [display(pred), display(ref)], size).mean(axis=(2, 3)).sum(axis=0)
    torch.testing.assert_close(
        metric(pred, ref).double(), torch.from_numpy(expected), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("size", [(64, 64), (71, 50)])
def test_only_valid_pixels_are_averaged_and_each_counts_once(tiny, size):
    pred, ref = pair(2, *size)
    valid = torch.rand(2, 1, *size, generator=rng(3)) > 0.4
    shown = []

    def keep(module: nn.Module, args: tuple[Tensor]) -> None:
        shown.extend(args[0].chunk(2))

    handle = tiny.backbone.register_forward_pre_hook(keep)
    score = tiny(pred, ref, valid)
    handle.remove()
    inside = valid.expand_as(pred)
    torch.testing.assert_close(shown[0][inside], display(pred)[inside])
    torch.testing.assert_close(shown[1][inside], display(ref)[inside])
    pixels = layer_maps(tiny, shown, size).sum(axis=0)
    expected = [pixels[i][valid[i, 0].numpy()].mean() for i in range(2)]
    torch.testing.assert_close(score.double(), torch.tensor(expected).double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("size", [(64, 64), (33, 47), (128, 32)])
def test_identical_images_score_exactly_0(metric, size):
    image = land(3, *size)
    assert torch.equal(metric(image, image.clone()), torch.zeros(3))
    valid = torch.rand(3, 1, *size, generator=rng(4)) > 0.3
    assert torch.equal(metric(image, image.clone(), valid), torch.zeros(3))


def test_images_that_differ_only_under_the_mask_score_exactly_0(metric):
    image = land()
    other = image.clone()
    other[..., :20] = 0.9
    assert torch.equal(metric(image, other, left_half(20, image)), torch.zeros(2))


def test_the_distance_is_symmetric(metric):
    pred, ref = pair()
    valid = torch.rand(2, 1, 64, 64, generator=rng(5)) > 0.3
    torch.testing.assert_close(metric(pred, ref), metric(ref, pred), rtol=1e-6, atol=0)
    torch.testing.assert_close(
        metric(pred, ref, valid), metric(ref, pred, valid), rtol=1e-6, atol=0
    )


def test_the_distance_of_different_images_is_positive_everywhere(metric):
    pred, ref = 0.5 * torch.rand(2, 8, 3, 40, 40, generator=rng(6))
    assert (metric(pred, ref) > 0).all()
    metric.spatial = metric.per_layer = True
    assert (metric(pred, ref) >= 0).all()


def test_stronger_noise_scores_worse():
    metric = LPIPSSat()
    ref = land(4)
    noise = torch.randn(ref.shape, generator=rng(7))
    scores = torch.stack([metric(ref + sigma * noise, ref) for sigma in (0.002, 0.01, 0.05)])
    assert (scores.diff(dim=0) > 0).all()


def test_an_image_scores_the_same_alone_and_in_a_batch(metric):
    pred, ref = pair(5, 40, 56)
    valid = torch.ones(5, 1, 40, 56, dtype=torch.bool)
    valid[1, :, :11] = valid[3, :, :, 30:] = False
    together, masked = metric(pred, ref), metric(pred, ref, valid)
    for i in range(5):
        one = slice(i, i + 1)
        torch.testing.assert_close(metric(pred[one], ref[one]), together[one], rtol=1e-6, atol=0)
        alone = metric(pred[one], ref[one], valid[one])
        torch.testing.assert_close(alone, masked[one], rtol=1e-6, atol=0)


# --- outputs


@pytest.mark.parametrize("size", [(64, 64), (71, 50)])
def test_the_mean_of_the_map_over_valid_pixels_is_the_score(metric, size):
    pred, ref = pair(2, *size)
    valid = torch.rand(2, 1, *size, generator=rng(8)) > 0.3
    score = metric(pred, ref, valid)
    metric.spatial = True
    pixels = metric(pred, ref, valid)
    assert pixels.shape == (2, 1, *size)
    assert pixels.dtype == torch.float32
    means = pixels.double().nanmean(dim=(1, 2, 3)).float()
    torch.testing.assert_close(means, score, rtol=1e-6, atol=0)


def test_the_layers_sum_to_the_score(metric):
    pred, ref = pair()
    score = metric(pred, ref, left_half(10, pred))
    metric.per_layer = True
    layers = metric(pred, ref, left_half(10, pred))
    assert layers.shape == (2, len(metric.heads))
    torch.testing.assert_close(layers.sum(dim=1), score, rtol=1e-6, atol=0)


def test_maps_of_the_layers_sum_to_the_map_and_have_the_layers_as_means(metric):
    pred, ref = pair(2, 40, 52)
    metric.spatial = True
    whole = metric(pred, ref)
    metric.per_layer = True
    maps = metric(pred, ref)
    assert maps.shape == (2, len(metric.heads), 40, 52)
    torch.testing.assert_close(maps.sum(dim=1, keepdim=True), whole, rtol=1e-5, atol=0)
    metric.spatial = False
    means = maps.double().mean(dim=(2, 3)).float()
    torch.testing.assert_close(means, metric(pred, ref), rtol=1e-6, atol=0)


def test_the_map_is_nan_exactly_at_invalid_pixels(metric):
    pred, ref = pair(2, 40, 52)
    valid = torch.rand(2, 1, 40, 52, generator=rng(9)) > 0.5
    pred = torch.where(valid, pred, torch.nan)
    metric.spatial = True
    assert torch.equal(metric(pred, ref, valid).isnan(), ~valid)
    metric.per_layer = True
    maps = metric(pred, ref, valid)
    assert torch.equal(maps.isnan(), (~valid).expand_as(maps))


def test_the_map_shows_where_the_images_differ():
    ref = land(1, 128, 128)
    pred = ref.clone()
    pred[..., 96:, 96:] += 0.05 * torch.randn(1, 3, 32, 32, generator=rng(10))
    pixels = LPIPSSat(spatial=True)(pred, ref)
    assert pixels[..., 100:, 100:].mean() > 10 * pixels[..., :64, :64].mean()


# --- masks


@pytest.mark.parametrize("junk", JUNK)
def test_what_lies_under_the_mask_changes_nothing_bit_for_bit(metric, junk):
    pred, ref = pair()
    valid = torch.rand(2, 1, 64, 64, generator=rng(11)) > 0.3
    valid[..., :40, :40] = False  # wider than any neighbourhood that fills it
    expected = metric(pred, ref, valid)
    assert expected.isfinite().all()
    pred, ref = (torch.where(valid, image, junk) for image in (pred, ref))
    assert torch.equal(metric(pred, ref, valid), expected)
    metric.spatial = True
    assert metric(pred, ref, valid)[valid].isfinite().all()


def test_a_mask_of_one_image_does_not_change_the_others(metric):
    pred, ref = pair(3)
    valid = torch.ones(3, 1, 64, 64, dtype=torch.bool)
    valid[1, :, 20:] = False
    masked, whole = metric(pred, ref, valid), metric(pred, ref)
    assert torch.equal(masked[[0, 2]], whole[[0, 2]])
    assert masked[1] != whole[1]


def test_a_mask_of_nothing_is_no_mask(metric):
    pred, ref = pair()
    assert torch.equal(metric(pred, ref, left_half(0, pred)), metric(pred, ref))


def test_an_image_without_a_valid_pixel_is_nan_and_does_not_touch_the_others(metric):
    pred, ref = pair(3)
    valid = torch.ones(3, 1, 64, 64, dtype=torch.bool)
    valid[1] = False
    pred[1] = torch.nan
    assert metric(pred, ref, valid).isnan().tolist() == [False, True, False]
    metric.per_layer = True
    assert metric(pred, ref, valid)[1].isnan().all()
    metric.spatial = True
    assert metric(pred, ref, valid)[1].isnan().all()


def test_masked_pixels_are_shown_as_the_mean_of_their_valid_neighbours_the_near_ones_first():
    image = torch.rand(1, 2, 60, 70, generator=rng(16)).double()
    valid = torch.rand(1, 1, 60, 70, generator=rng(17)) > 0.3
    valid[..., :45, :50] = False  # beyond 16 px of any valid pixel at its corner
    values, holds = image[0].numpy(), valid[0, 0].numpy()
    expected = values.copy()
    for row, column in np.argwhere(~holds):
        expected[:, row, column] = 0.4
        for radius in (16, 4):
            window = np.s_[
                max(row - radius, 0) : row + radius + 1,
                max(column - radius, 0) : column + radius + 1,
            ]
            if holds[window].any():
                expected[:, row, column] = values[:, *window][:, holds[window]].mean(axis=1)
    found = soft_fill(torch.where(valid, image, torch.nan), valid)
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-9)
    assert (expected[:, 0, 0] == 0.4).all()
    assert FILL_REACH == 16


def relative_errors(pred: Tensor, ref: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """How far masked scores lie from the unmasked map: ours, and with zeros under the mask."""
    metric = LPIPSSat()
    masked = metric(pred, ref, valid)
    metric.spatial = True
    truth, zeroed = (
        torch.where(valid, pixels, torch.nan).nanmean(dim=(1, 2, 3))
        for pixels in (metric(pred, ref), metric(pred * valid, ref * valid))
    )
    return (masked / truth - 1).abs(), (zeroed / truth - 1).abs()


def test_a_masked_half_hardly_changes_the_score_of_the_other_half():
    pred, ref = pair(8, 192, 192)  # halves wider than what a position sees beyond its own
    ours, zeros = relative_errors(pred, ref, left_half(96, pred))
    assert ours.max() < 0.15
    assert ours.mean() < zeros.mean()


def test_scattered_holes_hardly_change_the_score_but_zeros_in_them_would():
    pred, ref = pair(6, 96, 96)
    ours, zeros = relative_errors(pred, ref, torch.rand(6, 1, 96, 96, generator=rng(12)) > 0.05)
    assert ours.max() < 0.15
    assert ours.mean() < 0.5 * zeros.mean()
