"""Gradients, frozen parameters, precision and compilation."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lpips_sat import LPIPSSat

from .conftest import JUNK, TINY, land, left_half, pair, rng

# --- gradients


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


# --- frozen


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


# --- precision and compilation


half = pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])


@half
def test_half_precision_is_within_5_percent_of_float32(half):
    metric = LPIPSSat()
    pred, ref = pair(4)
    expected = metric(pred, ref)
    with torch.autocast("cpu", half):
        mixed = metric(pred, ref)
    of_images = metric(pred.to(half), ref.to(half))
    lowered = metric.to(half)
    for found in (mixed, lowered(pred, ref), lowered(pred.to(half), ref.to(half)), of_images):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0)
    assert not torch.equal(mixed, expected)  # autocast was at work


@half
def test_identical_images_score_exactly_0_in_half_precision(metric, half):
    image = land()
    with torch.autocast("cpu", half):
        assert torch.equal(metric(image, image.clone()), torch.zeros(2))
    assert torch.equal(metric.to(half)(image, image.clone()), torch.zeros(2))


@half
def test_gradients_under_autocast_point_the_same_way(half):
    metric = LPIPSSat()
    pred, ref = pair()
    gradients = []
    for enabled in (False, True):
        image = pred.clone().requires_grad_()
        with torch.autocast("cpu", half, enabled=enabled):
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
