import pytest
import torch

from lpips_sat.errors import MetricInputError
from lpips_sat.validity import (
    as_valid,
    combine,
    erode,
    fill_invalid,
    masked_sum,
    ratio_or_nan,
    safe_sqrt,
    soft_fill,
)


def image(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def mask(*shape: int, share: float = 0.8, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


def test_no_mask_means_that_every_pixel_is_valid():
    valid = as_valid(None, image(2, 3, 4, 5))
    assert valid.dtype == torch.bool
    assert valid.shape == (2, 1, 4, 5)
    assert valid.all()


def test_a_fitting_mask_comes_back_as_it_is():
    valid = mask(2, 1, 4, 5)
    assert as_valid(valid, image(2, 3, 4, 5)) is valid


@pytest.mark.parametrize("wrong", [torch.ones(2, 1, 4, 5), torch.ones(2, 1, 4, 5).byte(), "all"])
def test_a_mask_that_is_not_boolean_is_refused_with_its_type_and_a_way_out(wrong):
    with pytest.raises(MetricInputError, match=r"boolean.*got (torch\.|str).*mask != nodata"):
        as_valid(wrong, image(2, 3, 4, 5))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 4, 5), (1, 1, 4, 5), (2, 1, 5, 4)])
def test_a_mask_of_another_shape_is_refused_with_both_shapes(shape):
    with pytest.raises(MetricInputError) as raised:
        as_valid(mask(*shape), image(2, 3, 4, 5), name="core")
    for part in ("`core`", "(2, 1, 4, 5)", str(shape)):
        assert part in str(raised.value)


def test_a_mask_on_another_device_is_refused():
    with pytest.raises(MetricInputError, match=r"device of the images, meta, got cpu"):
        as_valid(mask(2, 1, 4, 5), image(2, 3, 4, 5).to("meta"))


def test_combining_masks_keeps_what_is_valid_in_all():
    first, second, third = (mask(1, 1, 9, 9, seed=seed) for seed in range(3))
    combined = combine(first, second, third)
    assert torch.equal(combined, first & second & third)
    assert torch.equal(combine(first), first)


def test_combining_nothing_is_refused():
    with pytest.raises(MetricInputError, match="at least one mask"):
        combine()


@pytest.mark.parametrize("radius", [0, 1, 2, 5])
def test_erosion_keeps_a_pixel_only_if_its_whole_window_inside_the_image_is_valid(radius):
    valid = mask(2, 1, 12, 9, share=0.97)
    eroded = erode(valid, radius)
    for n, row, column in torch.cartesian_prod(torch.arange(2), torch.arange(12), torch.arange(9)):
        rows = slice(max(row - radius, 0), row + radius + 1)
        columns = slice(max(column - radius, 0), column + radius + 1)
        assert eroded[n, 0, row, column] == valid[n, 0, rows, columns].all()


def test_erosion_leaves_a_valid_image_valid_up_to_its_border():
    assert erode(torch.ones(1, 1, 6, 7, dtype=torch.bool), 20).all()


def test_erosion_by_a_negative_radius_is_refused():
    with pytest.raises(MetricInputError, match="-1"):
        erode(mask(1, 1, 4, 4), -1)


@pytest.mark.parametrize("value", [0.0, -3.5])
def test_filling_replaces_masked_values_in_every_band_and_keeps_the_dtype(value):
    x = image(2, 3, 4, 5).to(torch.bfloat16)
    valid = mask(2, 1, 4, 5, share=0.5)
    filled = fill_invalid(x, valid, value)
    everywhere = valid.expand_as(x)
    assert filled.dtype == torch.bfloat16
    assert torch.equal(filled[everywhere], x[everywhere])
    assert (filled[~everywhere] == value).all()


def test_a_masked_sum_is_the_sum_per_image_and_band_in_float64():
    x = image(2, 3, 8, 9)
    valid = mask(2, 1, 8, 9)
    by_hand = (x.double().numpy() * valid.numpy()).sum(axis=(2, 3))
    total = masked_sum(x, valid)
    assert total.dtype == torch.float64
    torch.testing.assert_close(total, torch.from_numpy(by_hand), rtol=1e-14, atol=0)


@pytest.mark.parametrize("junk", [float("nan"), float("inf"), float("-inf"), 1e9, 0.0])
def test_values_under_the_mask_change_neither_a_masked_sum_nor_its_gradient(junk):
    x = image(2, 3, 8, 9)
    valid = mask(2, 1, 8, 9)
    dirty = x.masked_fill(~valid, junk).requires_grad_()
    total = masked_sum(dirty, valid)
    total.sum().backward()
    assert torch.equal(total, masked_sum(x, valid))
    assert torch.equal(dirty.grad, valid.expand_as(x).float())


def test_filling_before_the_maths_keeps_gradients_finite_where_filling_after_does_not():
    valid = torch.tensor([True, False]).reshape(1, 1, 1, 2)
    before = torch.tensor([4.0, -1.0]).reshape(1, 1, 1, 2).requires_grad_()
    masked_sum(fill_invalid(before, valid, 1.0).sqrt(), valid).sum().backward()
    after = before.detach().clone().requires_grad_()
    masked_sum(after.sqrt(), valid).sum().backward()
    assert before.grad.flatten().tolist() == [0.25, 0.0]
    assert after.grad.isnan().any()


def test_the_safe_root_is_the_root_and_has_a_zero_gradient_at_zero():
    x = torch.tensor([0.0, 4.0, 1e-300], dtype=torch.float64, requires_grad=True)
    root = safe_sqrt(x)
    root.sum().backward()
    assert root.tolist() == [0.0, 2.0, pytest.approx(1e-150)]
    assert x.grad.tolist() == [0.0, 0.25, pytest.approx(0.5e150)]


def test_the_safe_root_does_not_hide_nan_or_negative_values():
    assert safe_sqrt(torch.tensor([float("nan"), -1.0])).isnan().all()


def test_a_ratio_over_zero_is_nan_with_a_zero_gradient_and_leaves_its_neighbours_alone():
    numerator = torch.tensor([3.0, 0.0, 5.0], requires_grad=True)
    ratio = ratio_or_nan(numerator, torch.tensor([2.0, 0.0, 0.0]))
    ratio.sum().backward()
    assert ratio[0] == 1.5
    assert ratio[1:].isnan().all()
    assert numerator.grad.tolist() == [0.5, 0.0, 0.0]


def test_masked_pixels_become_the_mean_of_their_valid_neighbours():
    x, valid = image(1, 2, 40, 48), mask(1, 1, 40, 48, share=0.3)
    valid[..., 20:, :] = False
    filled = soft_fill(x, valid)
    assert torch.equal(filled.masked_select(valid), x.masked_select(valid))
    for row, col, radius in ((21, 30, 4), (34, 20, 16)):
        window = (slice(row - radius, row + radius + 1), slice(col - radius, col + radius + 1))
        near = valid[0, 0][window]
        means = x[0][:, *window][:, near].double().mean(dim=1)
        torch.testing.assert_close(filled[0, :, row, col].double(), means, rtol=1e-5, atol=1e-6)
    assert torch.equal(soft_fill(x, torch.zeros_like(valid)).unique(), torch.tensor([0.4]))
