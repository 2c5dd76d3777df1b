import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lpips_sat.backbones import build_backbone
from lpips_sat.backbones.pyramid import Pyramid, texture_energy
from lpips_sat.errors import WeightsError

CONFIGS = [((4, 6, 8, 10), 2), ((4, 6, 8), 2), ((4, 6, 8), 1), ((4, 6), 3), ((4,), 2)]
every_config = pytest.mark.parametrize(("widths", "depth"), CONFIGS)


def make(widths: tuple[int, ...], depth: int, *, seed: int = 0) -> Pyramid:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Pyramid(widths, depth).eval()


def open_everywhere(backbone: Pyramid) -> Pyramid:
    """Positive weights: no ReLU is shut on positive images, so gradients show the whole field."""
    for parameter in backbone.parameters():
        nn.init.constant_(parameter, 0.01)
    return backbone


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def reach(backbone: Pyramid, layer: int, position: int, size: int) -> tuple[int, int]:
    """First and last row of the image on which a row of a feature map depends, by gradients."""
    image = rand(1, 3, size, 64).requires_grad_()
    backbone(image)[layer][:, :, position].sum().backward()
    rows = image.grad.abs().sum(dim=(0, 1, 3)).nonzero()
    return int(rows.min()), int(rows.max())


@every_config
@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 95), (127, 71)])
def test_channels_and_strides_are_those_of_the_feature_maps(widths, depth, height, width):
    backbone = make(widths, depth)
    features = backbone(torch.zeros(2, 3, height, width))
    assert [f.shape[1] for f in features] == backbone.channels
    shapes = [(height // s, width // s) for s in backbone.strides]
    assert [tuple(f.shape[2:]) for f in features] == shapes
    assert {len(f) for f in features} == {2}


def test_the_stages_halve_the_resolution_from_stride_2_and_three_give_their_energy():
    assert make((4, 6, 8, 10), 2).strides == [2, 8, 4, 16, 8, 32, 16]
    assert make((4, 6, 8, 10), 2).channels == [4, 4, 6, 6, 8, 8, 10]


def test_the_smallest_image_reaches_the_fourth_stage():
    assert make((4, 6, 8, 10), 2)(rand(1, 3, 32, 32))[-1].shape == (1, 10, 2, 2)


@every_config
def test_the_radius_is_the_farthest_pixel_that_a_position_depends_on(widths, depth):
    backbone = open_everywhere(make(widths, depth))
    farthest = 0
    for layer, stride in enumerate(backbone.strides):
        position = -(-backbone.radius // stride)  # its field does not touch the border
        first, last = reach(backbone, layer, position, (2 * position + 1) * stride + 1)
        before, after = position * stride - first, last - ((position + 1) * stride - 1)
        assert 0 <= before <= backbone.radius
        assert 0 <= after <= backbone.radius
        farthest = max(farthest, before, after)
    assert farthest == backbone.radius


def test_a_change_beyond_the_radius_leaves_a_position_bit_for_bit_and_one_inside_does_not():
    backbone = make((4, 6, 8), 2)
    image, position = rand(1, 3, 320, 64), 4
    stride, radius = backbone.strides[-1], backbone.radius
    beyond, inside = image.clone(), image.clone()
    beyond[:, :, position * stride - radius - 1] = 1e3
    inside[:, :, position * stride - radius // 2] = 1e3

    def seen(image: Tensor) -> list[Tensor]:
        maps = zip(backbone(image), backbone.strides, strict=True)
        return [f[:, :, position * stride // s] for f, s in maps]

    assert all(map(torch.equal, seen(image), seen(beyond)))
    assert not all(map(torch.equal, seen(image), seen(inside)))


def test_an_image_moved_by_the_largest_stride_moves_its_features():
    backbone = make((4, 6, 8), 2)
    step, radius = max(backbone.strides), backbone.radius
    image = rand(1, 3, 288, 288, seed=3)
    whole, moved = backbone(image), backbone(image[:, :, step:, step:])
    for a, b, stride in zip(whole, moved, backbone.strides, strict=True):
        hop, edge = step // stride, -(-radius // stride)  # the new border is felt up to here
        a, b = a[:, :, hop:, hop:][..., edge:, edge:], b[..., edge:, edge:]
        assert a.numel() > 0
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_an_image_does_not_see_the_others_of_its_batch():
    backbone = make((4, 6), 2)
    images = rand(3, 3, 64, 48)
    for one, many in zip(backbone(images[1:2]), backbone(images), strict=True):
        torch.testing.assert_close(one, many[1:2], rtol=1e-5, atol=1e-6)


def test_training_mode_changes_nothing():
    backbone, image = make((4, 6), 2), rand(1, 3, 64, 64)
    assert all(map(torch.equal, backbone.eval()(image), backbone.train()(image)))


def test_down_sampling_moves_features_less_than_decimation_would():
    """Anti-aliasing is why it is here: against the same network that keeps every other position."""
    smooth, sharp = make((8, 8), 2), make((8, 8), 2)
    sharp.stages[1][0] = nn.MaxPool2d(1, stride=2)

    def moved(backbone: Pyramid) -> float:
        image = rand(1, 3, 96, 97, seed=5)
        a, b = (backbone(image[..., i : i + 96])[2] for i in (0, 1))
        return ((a - b).square().mean() / a.var()).item()

    assert moved(smooth) < 0.8 * moved(sharp)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (19, 30)])
def test_texture_energy_is_the_root_mean_square_over_overlapping_windows(height, width):
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1)).double()
    values = x.numpy()
    expected = np.empty((2, 3, height // 4, width // 4))
    for row, column in np.ndindex(expected.shape[2:]):
        rows = slice(max(4 * row - 2, 0), 4 * row + 6)
        columns = slice(max(4 * column - 2, 0), 4 * column + 6)
        expected[:, :, row, column] = np.sqrt((values[:, :, rows, columns] ** 2).mean(axis=(2, 3)))
    np.testing.assert_allclose(texture_energy(x).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("level", [0.5, -3.0])
def test_the_energy_of_a_constant_map_is_its_magnitude_up_to_the_border(level):
    energy = texture_energy(torch.full((1, 2, 16, 20), level))
    torch.testing.assert_close(energy, torch.full((1, 2, 4, 5), abs(level)))


def test_energy_forgets_where_a_texture_lies():
    rows, columns = np.mgrid[:24, :25]
    board = torch.from_numpy(((rows + columns) % 2).astype(np.float32))[None, None]
    a, b = texture_energy(board[..., :24]), texture_energy(board[..., 1:])
    inner = (..., slice(1, -1), slice(1, -1))
    assert torch.equal(a[inner], b[inner])
    torch.testing.assert_close(a, torch.full_like(a, 0.5**0.5), rtol=1e-6, atol=0)


def test_the_gradient_of_the_energy_of_nothing_is_finite():
    x = torch.zeros(1, 1, 8, 8, requires_grad=True)
    texture_energy(x).sum().backward()
    assert x.grad.isfinite().all()


def test_other_strides_of_the_stem_are_refused():
    with pytest.raises(WeightsError, match="stem_stride must be 1 or 2, got 4"):
        Pyramid(stem_stride=4)


def test_a_pyramid_is_built_by_name_with_its_arguments():
    backbone = build_backbone("pyramid", {"widths": [3, 5], "depth": 1})
    assert isinstance(backbone, Pyramid)
    assert backbone.channels == [3, 3, 5, 5]
    assert build_backbone("pyramid").channels == Pyramid().channels


def test_an_unknown_backbone_is_an_error_that_lists_what_there_is():
    with pytest.raises(
        WeightsError, match=r"unknown backbone 'vgg'.*default, .*pyramid, .*timm:NAME"
    ):
        build_backbone("vgg")
