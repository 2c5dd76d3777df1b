import copy
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from lpips_sat import LPIPSSat, radiometry
from lpips_sat.errors import MetricInputError, WeightsError
from lpips_sat.validity import FILL_REACH, soft_fill

RGB = ("B04", "B03", "B02")
JUNK = [math.nan, math.inf, -math.inf, 0.0, 1e9, -1e9]
TINY = {"widths": [6, 8, 10], "depth": 1}


def make_tiny(**kwargs: object) -> LPIPSSat:
    """A small untrained pyramid with random biases and non-negative heads, some of them 0."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        metric = LPIPSSat("pyramid", backbone_config=TINY, **kwargs)
        for name, parameter in metric.backbone.named_parameters():
            if name.endswith("bias"):  # 0 would leave positions without any response
                parameter.copy_(torch.rand(parameter.shape).mul(0.2))
        for head in metric.heads:
            head.copy_(torch.rand(len(head)).sub(0.2).clamp(min=0))
    return metric


@pytest.fixture(params=["default", "tiny"])
def metric(request: pytest.FixtureRequest) -> LPIPSSat:
    return LPIPSSat() if request.param == "default" else make_tiny()


@pytest.fixture
def tiny() -> LPIPSSat:
    return make_tiny()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network and nothing cached, whatever the machine holds."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty-cache"))


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def land(n: int = 2, height: int = 64, width: int = 64, *, bands: int = 3, seed: int = 0) -> Tensor:
    """Reflectance of soft blobs with fine texture, 0.02 to 0.3."""
    coarse = torch.rand(n, bands, height // 8 + 2, width // 8 + 2, generator=rng(seed))
    smooth = F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    fine = torch.rand(n, bands, height, width, generator=rng(seed + 1))
    return 0.02 + 0.2 * smooth + 0.08 * fine


def pair(
    n: int = 2, height: int = 64, width: int = 64, *, bands: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Land and a noisier copy: what super-resolution might deliver."""
    ref = land(n, height, width, bands=bands, seed=seed)
    noise = torch.randn(ref.shape, generator=rng(seed + 2))
    return (ref + 0.02 * noise).clamp(min=0), ref


def left_half(valid_from: int, like: Tensor) -> Tensor:
    """True from column `valid_from` on."""
    valid = torch.ones(like.shape[0], 1, *like.shape[2:], dtype=torch.bool)
    valid[..., :valid_from] = False
    return valid


# -- the definition -------------------------------------------------------------------------------


def layer_maps(metric: LPIPSSat, shown: list[Tensor], size: tuple[int, int]) -> np.ndarray:
    """Float64 (L, N, H, W) from what the network is shown, in numpy; pixel i is at i // stride."""
    with torch.no_grad():
        x, y = (metric.backbone(image) for image in shown)
    maps = []
    for a, b, head, stride in zip(x, y, metric.heads, metric.strides, strict=True):
        a, b = (f.double().numpy() for f in (a, b))
        a, b = (f / np.sqrt((f**2).sum(axis=1, keepdims=True) + 1e-8) for f in (a, b))
        distance = np.einsum("c,nchw->nhw", head.double().numpy(), (a - b) ** 2)
        grown = np.empty((len(distance), *size))
        for row, column in np.ndindex(size):
            at = (
                min(row // stride, distance.shape[1] - 1),
                min(column // stride, distance.shape[2] - 1),
            )
            grown[:, row, column] = distance[:, *at]
        maps.append(grown)
    return np.stack(maps)


def display(image: Tensor) -> Tensor:
    """Reflectance over 0.275; above white, 1 + log."""
    values = image.numpy().astype(np.float64) / 0.275
    shown = np.where(values > 1, 1 + np.log(np.maximum(values, 1)), values)
    return torch.from_numpy(shown.astype(np.float32))


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


# -- outputs --------------------------------------------------------------------------------------


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


# -- masks ----------------------------------------------------------------------------------------


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


# -- gradients ------------------------------------------------------------------------------------


def special(name: str) -> tuple[Tensor, Tensor]:
    pred, ref = pair(1, 48, 48)
    constant, black = torch.full_like(ref, 0.1), torch.zeros_like(ref)
    bright = 0.5 + 2 * torch.rand(ref.shape, generator=rng(12))
    return {
        "random": (pred, ref),
        "identical": (ref, ref),
        "constant": (constant, 2 * constant),
        "equal constants": (constant, constant),
        "black": (black, black),
        "black and land": (black, ref),
        "white": (torch.full_like(ref, 0.275), ref),
        "bright": (bright, ref),
        "both bright": (bright, bright.flip(-1)),
        "negative": (ref - 0.3, ref),
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        *("random", "identical", "constant", "equal constants", "black", "black and land"),
        *("white", "bright", "both bright", "negative"),
    ],
)
@pytest.mark.parametrize("spatial", [False, True])
def test_gradients_are_finite_for_both_arguments(metric, name, spatial):
    pred, ref = (image.clone().requires_grad_() for image in special(name))
    metric.spatial = spatial
    metric(pred, ref).mean().backward()
    for image in (pred, ref):
        assert image.grad.isfinite().all()
    if name in ("identical", "equal constants", "black"):
        assert (pred.grad == 0).all()  # a minimum
    else:
        assert (pred.grad != 0).any()
        assert (ref.grad != 0).any()


@pytest.mark.parametrize("junk", JUNK)
def test_masked_pixels_get_a_gradient_of_0_and_leave_the_others_alone(metric, junk):
    pred, ref = pair()
    valid = left_half(20, pred)

    def gradient(image: Tensor) -> Tensor:
        image = image.clone().requires_grad_()
        metric(image, ref, valid).sum().backward()
        return image.grad

    found = gradient(torch.where(valid, pred, junk))
    assert torch.equal(found, gradient(pred))
    assert (found[..., :20] == 0).all()
    assert (found[..., 20:] != 0).any()


def test_an_image_without_a_valid_pixel_gets_a_gradient_of_0(metric):
    pred, ref = pair()
    valid = torch.ones(2, 1, 64, 64, dtype=torch.bool)
    valid[1] = False
    pred.requires_grad_()
    metric(pred, ref, valid)[0].backward()
    assert (pred.grad[0] != 0).any()
    assert (pred.grad[1] == 0).all()


@pytest.mark.parametrize("argument", [0, 1])
def test_the_gradient_is_the_slope_along_random_directions(metric, argument):
    images = [image.double() for image in pair(1, 48, 48)]
    images[argument].requires_grad_()
    valid = torch.rand(1, 1, 48, 48, generator=rng(13)) > 0.2
    metric(*images, valid).backward()
    gradient = images[argument].grad
    step = 1e-3
    for seed in range(3):
        noise = torch.randn(gradient.shape, generator=rng(14 + seed)).double()
        # Leaning to the gradient, so that the slope is well above the rounding of float32.
        direction = noise / noise.norm() + gradient / gradient.norm()
        moved = []
        for sign in (1, -1):
            arguments = [image.detach() for image in images]
            arguments[argument] = arguments[argument] + sign * step * direction
            moved.append(metric(*arguments, valid).double())
        slope = (moved[0] - moved[1]) / (2 * step)
        expected = (gradient * direction).sum()
        torch.testing.assert_close(slope[0], expected, rtol=0.02, atol=0)


def test_twenty_steps_of_adam_on_an_image_lower_the_score():
    metric = LPIPSSat()
    pred, ref = pair(1)
    image = pred.clone().requires_grad_()
    optimiser = torch.optim.Adam([image], lr=2e-3)
    losses = []
    for _ in range(21):
        loss = metric(image, ref).mean()
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.5 * losses[0]


# -- frozen ---------------------------------------------------------------------------------------


class Parent(nn.Module):
    """A training loop's module that keeps its loss as a child."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.network = nn.Conv2d(3, 3, 1)
        self.loss = loss


class Unsteady(nn.Module):
    """A backbone whose training mode differs: dropout and batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.5)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.layers(x)]


def test_a_parents_train_does_not_thaw_it():
    metric = LPIPSSat(Unsteady().train())
    pred, ref = pair()
    expected = metric(pred, ref)
    state = {name: value.clone() for name, value in metric.state_dict().items()}
    parent = Parent(metric).train()
    assert parent.network.training
    assert not any(module.training for module in metric.modules())
    assert torch.equal(metric(pred, ref), expected)
    assert not any(module.training for module in metric.train(True).modules())
    assert all(torch.equal(value, state[name]) for name, value in metric.state_dict().items())


def test_no_parameter_is_trainable_and_a_parents_optimiser_changes_none(metric):
    parent = Parent(metric).train()
    assert not any(parameter.requires_grad for parameter in metric.parameters())
    trainable = [name for name, p in parent.named_parameters() if p.requires_grad]
    assert trainable == ["network.weight", "network.bias"]
    before = {name: value.clone() for name, value in parent.state_dict().items()}
    optimiser = torch.optim.AdamW(parent.parameters(), lr=0.1, weight_decay=0.1)
    pred, ref = pair()
    parent.loss(parent.network(pred), ref).mean().backward()
    optimiser.step()
    for name, value in parent.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("loss.")


def test_it_saves_and_loads_as_part_of_a_parents_state(tiny):
    parent, other = Parent(tiny), Parent(LPIPSSat("pyramid", backbone_config=TINY))
    pred, ref = pair()
    assert not torch.equal(other.loss(pred, ref), parent.loss(pred, ref))
    other.load_state_dict(parent.state_dict())
    assert torch.equal(other.loss(pred, ref), parent.loss(pred, ref))


@pytest.mark.parametrize(
    "clone",
    [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))],  # noqa: S301 - our own bytes
    ids=["deepcopy", "pickle"],
)
def test_a_copy_is_the_same_metric(metric, clone):
    pred, ref = pair()
    copied = clone(metric)
    assert torch.equal(copied(pred, ref), metric(pred, ref))
    assert copied.card == metric.card
    assert not any(parameter.requires_grad for parameter in copied.parameters())


# -- precision and compilation --------------------------------------------------------------------


def test_bfloat16_is_within_5_percent_of_float32():
    metric = LPIPSSat()
    pred, ref = pair(4)
    expected = metric(pred, ref)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = metric(pred, ref)
    of_images = metric(pred.bfloat16(), ref.bfloat16())
    lowered = metric.bfloat16()
    for found in (mixed, lowered(pred, ref), lowered(pred.bfloat16(), ref.bfloat16()), of_images):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0)
    assert not torch.equal(mixed, expected)  # autocast was at work


def test_identical_images_score_exactly_0_in_bfloat16(metric):
    image = land()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(metric(image, image.clone()), torch.zeros(2))
    assert torch.equal(metric.bfloat16()(image, image.clone()), torch.zeros(2))


def test_gradients_under_autocast_point_the_same_way():
    metric = LPIPSSat()
    pred, ref = pair()
    gradients = []
    for enabled in (False, True):
        image = pred.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            metric(image, ref).sum().backward()
        gradients.append(image.grad.flatten())
    assert gradients[1].isfinite().all()
    assert F.cosine_similarity(*gradients, dim=0) > 0.95


def test_float64_images_are_taken_and_get_float64_gradients(metric):
    pred, ref = pair()
    image = pred.double().requires_grad_()
    score = metric(image, ref.double())
    assert score.dtype == torch.float32
    torch.testing.assert_close(score.detach(), metric(pred, ref), rtol=1e-5, atol=0)
    score.sum().backward()
    assert image.grad.dtype == torch.float64


@pytest.mark.slow  # torch.compile calls a C++ compiler
def test_compiled_as_one_graph_it_gives_the_same_scores_and_gradients(tiny):
    results = []
    pred, ref = pair()
    for made in (tiny, torch.compile(tiny, fullgraph=True)):
        image = pred.clone().requires_grad_()
        score = made(image, ref)
        score.sum().backward()
        results.append((score.detach(), image.grad))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max())


@pytest.mark.slow
def test_compiled_as_one_graph_it_keeps_masks(tiny):
    pred, ref = pair()
    valid = torch.rand(2, 1, 64, 64, generator=rng(15)) > 0.3
    pred = torch.where(valid, pred, torch.nan)
    with torch.no_grad():
        found = torch.compile(tiny, fullgraph=True)(pred, ref, valid)
    torch.testing.assert_close(found, tiny(pred, ref, valid), rtol=1e-4, atol=0)


# -- radiometry and bands -------------------------------------------------------------------------


def test_digital_numbers_with_their_declared_scale_score_as_reflectance_does(metric):
    dn = np.random.default_rng(0).integers(1100, 4200, (2, 2, 3, 40, 40)).astype(np.uint16)
    declared = radiometry.preset("s2-l2a", bands=RGB)
    of_dn = [torch.from_numpy(np.stack([declared.to_values(i) for i in side])) for side in dn]
    reflectance = torch.from_numpy(((dn.astype(np.float64) - 1000) / 10000).astype(np.float32))
    torch.testing.assert_close(metric(*of_dn), metric(*reflectance), rtol=1e-6, atol=0)


def test_display_values_are_reflectance_over_white():
    pred, ref = pair()
    pred[0] *= 2  # above white, both are compressed alike
    of_display = LPIPSSat(radiometry="display")(pred / 0.275, ref / 0.275)
    torch.testing.assert_close(of_display, LPIPSSat()(pred, ref), rtol=1e-6, atol=0)
    assert not torch.allclose(LPIPSSat(radiometry="display")(pred, ref), of_display, rtol=0.1)


def test_bands_in_another_order_with_their_names_score_the_same():
    pred, ref = pair(bands=4)
    names = ("red", "green", "blue", "nir")
    expected = LPIPSSat(bands=names)(pred, ref)
    for order in ([3, 1, 0, 2], [2, 1, 0, 3]):
        permuted = LPIPSSat(bands=[names[i] for i in order])
        assert torch.equal(permuted(pred[:, order], ref[:, order]), expected)
    wrong = LPIPSSat(bands=("blue", "green", "red", "nir"))
    assert not torch.equal(wrong(pred, ref), expected)


def test_of_red_green_blue_and_infrared_the_colours_are_looked_at():
    pred, ref = pair(bands=4)
    metric = LPIPSSat(bands=(*RGB, "B08"))
    assert torch.equal(metric(pred, ref), LPIPSSat()(pred[:, :3], ref[:, :3]))
    pred[:, 3] = 0
    assert torch.equal(metric(pred, ref), LPIPSSat()(pred[:, :3], ref[:, :3]))


def test_near_infrared_alone_is_looked_at_as_grey_over_its_own_white():
    pred, ref = (2 * image for image in pair(bands=1))
    grey = [(image / 0.55).expand(-1, 3, -1, -1) for image in (pred, ref)]
    found = LPIPSSat(bands=("B08",))(pred, ref)
    torch.testing.assert_close(found, LPIPSSat(radiometry="display")(*grey), rtol=1e-6, atol=0)


def test_a_composite_can_be_chosen():
    pred, ref = pair(bands=4)
    chosen = LPIPSSat(bands=(*RGB, "B08"), composite=("nir", "red", "green"), radiometry="display")
    plain = LPIPSSat(radiometry="display")
    order = [3, 0, 1]
    assert torch.equal(chosen(pred, ref), plain(pred[:, order], ref[:, order]))


def test_a_band_set_without_a_composite_is_refused_with_the_known_ones():
    with pytest.raises(MetricInputError, match=r"for the bands B05, B06\. Known: true colour"):
        LPIPSSat(bands=("B05", "B06"))


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(31, 64), (64, 31), (10, 10)])
def test_images_below_32_pixels_are_refused(tiny, size):
    image = torch.zeros(1, 3, *size)
    with pytest.raises(
        MetricInputError, match=rf"LPIPS-Sat needs.*32 x 32 pixels, got {size[0]} x {size[1]}"
    ):
        tiny(image, image)


def test_32_pixels_are_enough(metric):
    pred, ref = pair(1, 32, 32)
    assert metric(pred, ref).item() > 0


def test_images_of_unequal_shape_are_refused(tiny):
    with pytest.raises(MetricInputError, match=r"same shape, got \(2, 3, 64, 64\) and \(1, 3, 64"):
        tiny(torch.zeros(2, 3, 64, 64), torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize("channels", [1, 4])
def test_another_number_of_channels_than_bands_is_refused(tiny, channels):
    image = torch.zeros(1, channels, 64, 64)
    with pytest.raises(MetricInputError, match=r"expected 3 channels \(B04, B03, B02\), got shape"):
        tiny(image, image)


def test_digital_numbers_are_refused(tiny):
    image = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    with pytest.raises(MetricInputError, match=r"floating point tensor, got torch\.uint8"):
        tiny(image, image)


def test_a_mask_that_is_not_boolean_or_of_another_shape_is_refused(tiny):
    image = torch.zeros(1, 3, 64, 64)
    with pytest.raises(MetricInputError, match="`valid` must be a boolean tensor"):
        tiny(image, image, torch.ones(1, 1, 64, 64))
    with pytest.raises(MetricInputError, match="`valid` must have shape"):
        tiny(image, image, torch.ones(1, 3, 64, 64, dtype=torch.bool))


# -- backbones ------------------------------------------------------------------------------------


class Unpadded(nn.Module):
    """Strides 4 and 8 without padding, as AlexNet has: fewer positions than pixels / stride."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 5, 11, stride=4, padding=2)
        self.second = nn.Conv2d(5, 7, 3, stride=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        first = self.first(x).relu()
        return [first, self.second(first)]


def test_any_module_that_returns_a_list_of_maps_is_a_backbone():
    metric = LPIPSSat(Unpadded())
    assert metric.channels == [5, 7]
    assert metric.strides == [4, 8]
    size = (64, 71)
    pred, ref = pair(2, *size)
    expected = layer_maps(metric, [display(pred), display(ref)], size).mean(axis=(2, 3)).sum(axis=0)
    torch.testing.assert_close(
        metric(pred, ref).double(), torch.from_numpy(expected), rtol=1e-5, atol=0
    )


class Returns(nn.Module):
    """A module that is no backbone."""

    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> object:
        return self.output


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        (torch.zeros(1, 3, 128, 128), "Tensor"),
        ({"map": torch.zeros(1, 3, 8, 8)}, "dict"),
        ([torch.zeros(1, 10)], "list"),
        (["map"], "list"),
        ([], "list"),
        (None, "NoneType"),
    ],
)
def test_a_module_that_returns_anything_else_is_refused(output, kind):
    with pytest.raises(WeightsError, match=rf"a list of feature maps .*got {kind}"):
        LPIPSSat(Returns(output))


def test_feature_maps_that_do_not_grow_with_the_image_are_refused():
    with pytest.raises(WeightsError, match=r"must grow with the image.*grew by \[0\]"):
        LPIPSSat(Returns([torch.zeros(1, 3, 8, 8)]))


@pytest.fixture(scope="module")
def resnet() -> LPIPSSat:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LPIPSSat("timm:resnet18", backbone_config={"pretrained": False})


@pytest.mark.parametrize("size", [(64, 64), (33, 71)])
def test_a_feature_pyramid_of_timm_is_a_backbone(resnet, size):
    assert resnet.strides == [2, 4, 8, 16, 32]
    pred, ref = pair(2, *size)
    assert (resnet(pred, ref) > 0).all()
    assert torch.equal(resnet(ref, ref.clone()), torch.zeros(2))
    assert not any(module.training for module in resnet.modules())


def test_a_saved_timm_backbone_is_loaded_without_asking_timm_for_weights(
    tmp_path, monkeypatch, resnet
):
    asked, create = [], timm.create_model

    def record(name: str, *, pretrained: bool, **options: object) -> nn.Module:
        asked.append(pretrained)
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", record)
    LPIPSSat("timm:resnet18").save_pretrained(tmp_path)
    assert asked == [True]
    LPIPSSat.from_pretrained(tmp_path)
    assert asked == [True, False]


@pytest.mark.parametrize("name", ["vgg16", "Default", "timm:no_such_network"])
def test_an_unknown_backbone_is_an_error_that_names_it(name):
    with pytest.raises(WeightsError, match=name.removeprefix("timm:")):
        LPIPSSat(name, backbone_config={"pretrained": False})


def test_a_bare_backbone_weighs_every_channel_alike():
    metric = LPIPSSat("pyramid", backbone_config=TINY)
    assert all(torch.equal(head, torch.ones_like(head)) for head in metric.heads)
    assert metric.card == {}


# -- tiles ----------------------------------------------------------------------------------------


def scene() -> tuple[Tensor, Tensor, Tensor]:
    """320 x 384 px with a masked wedge, wider than what fills it, and scattered holes."""
    pred, ref = pair(1, 320, 384, seed=20)
    valid = torch.rand(1, 1, 320, 384, generator=rng(21)) > 0.01
    valid[..., :150, :90] = False
    valid[..., 200:, 250:270] = False
    return pred, ref, valid


def tile_sums(
    metric: LPIPSSat, pred: Tensor, ref: Tensor, valid: Tensor, tile: int, margin: int
) -> tuple[Tensor, Tensor]:
    """Sums and the map put together from cores of `tile` px with `margin` px around them."""
    height, width = pred.shape[-2:]
    total, pixels = torch.zeros(()), torch.zeros_like(valid, dtype=torch.float32)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            first_row, first_column = max(top - margin, 0), max(left - margin, 0)
            rows, columns = (
                slice(first_row, top + tile + margin),
                slice(first_column, left + tile + margin),
            )
            core = torch.zeros_like(valid)
            core[..., top : top + tile, left : left + tile] = True
            window = (..., rows, columns)
            of_tile, sums = metric.map_and_sums(
                pred[window], ref[window], valid=valid[window], core=core[window]
            )
            total = total + sums
            pixels[core] = of_tile[core[window]]
    return total, pixels


def aligned(metric: LPIPSSat) -> int:
    """The halo, up to the next multiple of `align`."""
    return math.ceil(metric.halo / metric.align) * metric.align


@pytest.mark.parametrize("tile_in_strides", [3, 4])
def test_tiles_with_a_halo_add_up_to_the_whole(metric, tile_in_strides):
    pred, ref, valid = scene()
    tile = tile_in_strides * metric.align
    sums, pixels = tile_sums(metric, pred, ref, valid, tile, aligned(metric))
    whole_map, whole = metric.map_and_sums(pred, ref, valid=valid)
    torch.testing.assert_close(sums, whole, rtol=1e-5, atol=0)
    torch.testing.assert_close(pixels, whole_map, rtol=1e-4, atol=1e-5, equal_nan=True)
    score = metric(pred, ref, valid)
    torch.testing.assert_close(metric.from_sums(sums).float(), score, rtol=1e-5, atol=0)
    assert torch.equal(metric.sums(pred, ref, valid=valid), whole)


def test_without_their_halo_tiles_would_not_add_up(metric):
    pred, ref, valid = scene()
    sums, _ = tile_sums(metric, pred, ref, valid, 3 * metric.align, 0)
    scores = metric.from_sums(sums), metric.from_sums(metric.sums(pred, ref, valid=valid))
    assert (scores[0] / scores[1] - 1).abs() > 1e-3


def test_the_last_column_of_sums_counts_the_valid_pixels_of_the_core(tiny):
    pred, ref, valid = scene()
    core = torch.zeros_like(valid)
    core[..., 100:200, 50:300] = True
    assert tiny.sums(pred, ref, valid=valid, core=core)[0, -1] == (valid & core).sum()


def test_sums_without_a_valid_pixel_give_nan(tiny):
    pred, ref = pair(1)
    sums = tiny.sums(pred, ref, valid=torch.zeros(1, 1, 64, 64, dtype=torch.bool))
    assert torch.equal(sums, torch.zeros_like(sums))
    assert tiny.from_sums(sums).isnan().all()


# -- saving and loading ---------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with a tiny metric for the infrared of two bands."""
    card = {"name": "tiny", "evidence": [{"metric": "LPIPS-Sat", "agreement": 0.5}]}
    metric = make_tiny(
        bands=("B08", "B04", "B03"),
        radiometry="display",
        composite=("B08", "B08", "B04"),
        card=card,
    )
    metric.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_saved_and_loaded_it_is_the_same_metric_bit_for_bit(saved, offline, capfd):
    loaded = LPIPSSat.from_pretrained(saved)
    expected = make_tiny(
        bands=("B08", "B04", "B03"), radiometry="display", composite=("B08", "B08", "B04")
    )
    pred, ref = pair()
    assert torch.equal(loaded(pred, ref), expected(pred, ref))
    assert loaded.to_input.bands == ("B08", "B04", "B03")
    assert loaded.to_input.composite == ("B08", "B08", "B04")
    assert loaded.card == {
        "name": "tiny",
        "evidence": [{"metric": "LPIPS-Sat", "agreement": 0.5}],
    }
    for name, value in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not any(module.training for module in loaded.modules())
    assert capfd.readouterr().out == ""


def test_saved_again_the_weights_are_the_same_file(saved, tmp_path):
    LPIPSSat.from_pretrained(saved).save_pretrained(tmp_path / "again")
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / file).read_bytes() == (saved / file).read_bytes()


def test_arguments_replace_what_was_saved(saved):
    pred, ref = pair(bands=1)
    loaded = LPIPSSat.from_pretrained(
        saved, bands=("B08",), radiometry="reflectance", spatial=True, per_layer=True
    )
    assert loaded(pred, ref).shape == (2, 6, 64, 64)
    loaded.spatial = loaded.per_layer = False
    assert torch.equal(loaded(pred, ref), make_tiny(bands=("B08",))(pred, ref))


@pytest.mark.parametrize("name", ["no-such-weights", "nobody/no-such-weights", "/no such/folder"])
def test_weights_that_are_nowhere_are_one_line_that_names_them(offline, name):
    with pytest.raises(WeightsError, match=f"cannot load '{name}'.*save_pretrained") as caught:
        LPIPSSat.from_pretrained(name)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_config_is_refused(saved, caplog):
    (saved / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"has no config\.json"):
        LPIPSSat.from_pretrained(saved)


@pytest.mark.parametrize(
    "config",
    ["{broken", "[]", '{"backbone": "pyramid", "backbone_config": {"colour": 1}}'],
)
def test_a_damaged_config_is_one_line_that_names_the_folder(saved, config):
    (saved / "config.json").write_text(config)
    with pytest.raises(WeightsError, match=r"cannot load '.*saved'") as caught:
        LPIPSSat.from_pretrained(saved)
    assert "\n" not in str(caught.value)


def test_a_folder_without_weights_is_refused(saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"cannot read the weights .*model\.safetensors"):
        LPIPSSat.from_pretrained(saved)


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_a_truncated_weights_file_is_refused(saved, kept):
    path = saved / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(WeightsError, match="cannot read the weights"):
        LPIPSSat.from_pretrained(saved)


def test_a_pickle_in_place_of_safetensors_is_not_opened(saved):
    torch.save(make_tiny().state_dict(), saved / "model.safetensors")
    with pytest.raises(WeightsError, match="cannot read the weights"):
        LPIPSSat.from_pretrained(saved)


@pytest.mark.parametrize("change", ["narrower", "missing", "surplus"])
def test_weights_of_another_network_are_refused_in_one_line(saved, change):
    path = saved / "model.safetensors"
    state = load_file(path)
    if change == "narrower":
        state["heads.0"] = state["heads.0"][:-1].clone()
    elif change == "missing":
        del state["heads.0"]
    else:
        state["heads.6"] = torch.ones(3)
    save_file(state, path)
    with pytest.raises(WeightsError, match=r"weights of another network.*heads\.[06]") as caught:
        LPIPSSat.from_pretrained(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [-1e-3, math.nan, math.inf])
def test_negative_or_non_finite_heads_are_refused(saved, value):
    path = saved / "model.safetensors"
    state = load_file(path)
    state["heads.2"][1] = value
    save_file(state, path)
    with pytest.raises(WeightsError, match=r"negative or non-finite head weights; it is no metric"):
        LPIPSSat.from_pretrained(saved)
