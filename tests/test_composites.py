import math

import pytest
import torch

from lpips_sat.composites import COMPOSITES, WHITE, NetworkInput, choose_composite
from lpips_sat.errors import MetricInputError

SENTINEL_2 = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")


def one_pixel(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)


@pytest.mark.parametrize(
    ("bands", "composite"),
    [
        (("B02", "B03", "B04"), ("B04", "B03", "B02")),
        (("red", "green", "blue", "nir"), ("B04", "B03", "B02")),
        (SENTINEL_2, ("B04", "B03", "B02")),
        (("B03", "B04", "B08"), ("B08", "B04", "B03")),
        (("B8A", "B03", "B04"), ("B8A", "B04", "B03")),
        (("B08", "B8A", "B03", "B04"), ("B08", "B04", "B03")),
        (("B04", "B12", "B8A"), ("B12", "B8A", "B04")),
        (("B04", "B12", "B08"), ("B12", "B08", "B04")),
        (("nir",), ("B08", "B08", "B08")),
        (("pan",), ("pan", "pan", "pan")),
    ],
)
def test_a_band_set_is_seen_as_its_first_known_composite_or_as_grey(bands, composite):
    assert choose_composite(bands) == composite


def test_a_band_set_without_a_composite_is_an_error_that_lists_the_known_ones():
    with pytest.raises(MetricInputError, match=r"for the bands B05, B06\. Known: ") as caught:
        choose_composite(("B5", "rededge2"))
    for name, bands in COMPOSITES.items():
        assert f"{name} ({', '.join(bands)})" in str(caught.value)
    assert "composite=(" in str(caught.value)
    with pytest.raises(MetricInputError, match="for the bands none"):
        choose_composite(())


def test_every_documented_composite_has_a_stretch_for_reflectance():
    for bands in COMPOSITES.values():
        assert NetworkInput(bands, "reflectance").composite == bands


def test_reflectance_is_divided_by_the_white_of_its_own_band():
    look = NetworkInput(("B03", "B04", "B08"), "reflectance")
    seen = look(one_pixel(0.055, 0.11, 0.22))  # green, red, near infrared
    expected = one_pixel(0.22 / 0.55, 0.11 / 0.275, 0.055 / 0.275)
    torch.testing.assert_close(seen, expected, rtol=1e-12, atol=0)


def test_vegetation_is_stretched_to_twice_the_range_beyond_the_red_edge():
    assert {WHITE[band] for band in ("B02", "B03", "B04")} == {0.275}
    assert {WHITE[band] for band in ("B05", "B08", "B8A", "B11", "B12")} == {0.55}


def test_display_values_are_taken_as_they_are_in_the_order_of_the_composite():
    look = NetworkInput(("blue", "green", "red"), "display")
    assert torch.equal(look(one_pixel(0.1, 0.5, 1.0)), one_pixel(1.0, 0.5, 0.1))


def test_a_single_band_is_shown_as_grey():
    seen = NetworkInput(("B08",), "reflectance")(one_pixel(0.11))
    torch.testing.assert_close(seen, one_pixel(0.2, 0.2, 0.2), rtol=1e-12, atol=0)


def test_above_white_there_is_a_logarithmic_shoulder_and_below_it_nothing_changes():
    look = NetworkInput(("B04", "B03", "B02"), "display")
    assert torch.equal(look(one_pixel(-0.1, 0.0, 1.0)), one_pixel(-0.1, 0.0, 1.0))
    expected = one_pixel(1 + math.log(2), 2.0, 1 + math.log(10))
    torch.testing.assert_close(look(one_pixel(2, math.e, 10)), expected, rtol=1e-12, atol=0)


def test_the_shoulder_is_continuous_with_a_continuous_slope_and_never_saturates():
    look = NetworkInput(("B04", "B03", "B02"), "display")
    x = one_pixel(1 - 1e-9, 1 + 1e-9, 3.0).requires_grad_()
    seen = look(x)
    seen.sum().backward()
    torch.testing.assert_close(seen[0, :2].detach(), torch.ones(2, 1, 1).double())
    torch.testing.assert_close(x.grad, one_pixel(1, 1, 1 / 3))


def test_nothing_is_fitted_to_the_image_at_hand():
    look = NetworkInput(("B04", "B03", "B02"), "reflectance")
    image = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(look(image)[:1, :, :3], look(image[:1, :, :3]))


def test_any_three_bands_can_be_chosen_and_their_aliases_are_understood():
    look = NetworkInput(SENTINEL_2, "display", composite=("b11", "nir", "B2"))
    assert look.composite == ("B11", "B08", "B02")
    seen = look(one_pixel(*range(10)) / 10)
    assert seen.flatten().tolist() == pytest.approx([0.8, 0.6, 0.0])


@pytest.mark.parametrize(
    "composite", [("B04", "B03"), ("B04", "B03", "B12"), ("B04", "B03", "B02", "B08")]
)
def test_a_composite_of_other_than_three_of_the_bands_is_refused(composite):
    with pytest.raises(MetricInputError, match="three of the bands B04, B03, B02, B08"):
        NetworkInput(("B04", "B03", "B02", "B08"), "display", composite)


def test_the_kind_of_the_values_must_be_one_of_two():
    with pytest.raises(MetricInputError, match=r"'reflectance' or 'display'.*got 'dn'"):
        NetworkInput(("B04", "B03", "B02"), "dn")


def test_reflectance_of_a_band_without_a_stretch_is_refused_but_its_display_is_not():
    with pytest.raises(MetricInputError, match=r"reflectance of thermal.*radiometry='display'"):
        NetworkInput(("thermal",), "reflectance", ("thermal", "thermal", "thermal"))
    assert NetworkInput(("thermal",), "display")(one_pixel(0.5)).flatten().tolist() == [0.5] * 3


def test_another_number_of_channels_than_bands_is_refused():
    with pytest.raises(MetricInputError, match=r"3 channels \(B04, B03, B02\), got.*bands="):
        NetworkInput(("B04", "B03", "B02"), "display")(torch.zeros(1, 4, 8, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_dtype_of_the_image_is_kept(dtype):
    assert NetworkInput(("B08",), "reflectance")(torch.rand(1, 1, 4, 4).to(dtype)).dtype == dtype


@pytest.mark.parametrize("names", [{"bands": "B04,B03,B02"}, {"composite": "B04,B03,B02"}])
def test_names_in_one_string_are_refused(names):
    given = {"bands": ("B04", "B03", "B02"), "composite": None, **names}
    with pytest.raises(MetricInputError, match=r"sequence of names, such as \('B04', "):
        NetworkInput(given["bands"], "reflectance", given["composite"])
