"""What it takes: radiometry, bands, refusals, backbones."""

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lpips_sat import LPIPSSat, radiometry
from lpips_sat.errors import MetricInputError, WeightsError

from .conftest import RGB, TINY, display, layer_maps, pair

# --- radiometry and bands


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


# --- refusals


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


# --- backbones


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


def test_tiles_begin_where_every_map_of_a_backbone_has_a_position():
    class FourAndSix(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            return [F.avg_pool2d(x, 4), F.avg_pool2d(x, 6)]

    assert LPIPSSat(FourAndSix()).align == 12


def test_a_float64_module_is_a_backbone():
    metric = LPIPSSat(Unpadded().double())
    assert metric(*pair()).isfinite().all()


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
