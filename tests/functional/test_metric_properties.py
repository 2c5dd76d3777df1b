"""What holds for every metric alike."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf, nan

import pytest
import torch
from torch import Tensor

from lpips_sat.errors import MetricInputError
from lpips_sat.functional import (
    bias,
    cpsnr,
    cssim,
    ergas,
    mae,
    ms_ssim,
    psnr,
    q2n,
    rmse,
    sam,
    scc,
    ssim,
    uiqi,
)


@dataclass(frozen=True)
class Case:
    """A metric with its parameters, the score of identical images, better = higher.

    size: of the images of the tests; crop: a part of them that scores alone as under a mask, which
    begins where the metric's grid of cells or blocks allows; None = the metric looks past a mask.
    """

    function: Callable[..., Tensor]
    identity: float
    higher_is_better: bool | None
    size: tuple[int, int] = (24, 19)
    bands: int = 4
    crop: tuple[slice, slice] | None = (slice(4, 21), slice(2, 16))

    def __call__(self, *args: Tensor, **kwargs: object) -> Tensor:
        return self.function(*args, **kwargs)


METRICS = {
    "mae": Case(mae, 0.0, False),
    "rmse": Case(rmse, 0.0, False),
    "bias": Case(bias, 0.0, None),
    "psnr": Case(partial(psnr, data_range=1.0), inf, True),
    "ssim": Case(partial(ssim, data_range=1.0), 1.0, True),
    "ms-ssim": Case(
        partial(ms_ssim, data_range=1.0),
        *(1.0, True, (192, 192), 1, (slice(16, 192), slice(16, 192))),
    ),
    "cpsnr": Case(partial(cpsnr, data_range=1.0, max_shift=2), inf, True, crop=None),
    "cssim": Case(partial(cssim, data_range=1.0, max_shift=1), 1.0, True, crop=None),
    "sam": Case(sam, 0.0, False),
    "ergas": Case(partial(ergas, ratio=0.25), 0.0, False),
    "uiqi": Case(uiqi, 1.0, True),
    "q2n": Case(q2n, 1.0, True, (64, 96), 4, (slice(32, 64), slice(32, 96))),
    "scc": Case(scc, 1.0, True),
}
every_metric = pytest.mark.parametrize("score", [pytest.param(METRICS[m], id=m) for m in METRICS])


def pair(n: int = 3, size: tuple[int, int] = (24, 19), bands: int = 4) -> tuple[Tensor, Tensor]:
    """Reflectance-like float32 images (n, bands, *size), each with its own noise."""
    generator = torch.Generator().manual_seed(8)
    ref = 0.02 + 0.28 * torch.rand(n, bands, *size, generator=generator)
    noise = torch.randn(ref.shape, generator=generator)
    return ref + torch.linspace(0.005, 0.05, n).view(n, 1, 1, 1) * noise, ref


def holes(n: int = 3, size: tuple[int, int] = (24, 19)) -> Tensor:
    """A mask with a few scattered invalid pixels in one corner, so that SSIM keeps windows."""
    valid = torch.ones(n, 1, *size, dtype=torch.bool)
    invalid = torch.rand(n, 1, 7, 6, generator=torch.Generator().manual_seed(9)) < 0.5
    valid[:, :, :7, :6] = ~invalid
    return valid


def same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@every_metric
def test_identical_images_give_the_documented_value(score):
    ref = pair(3, score.size, score.bands)[1]
    assert score(ref, ref.clone()).tolist() == pytest.approx([score.identity] * 3, abs=1e-14)


@every_metric
def test_more_noise_scores_worse(score):
    steps = score(*pair(3, score.size, score.bands)).diff()
    assert score.higher_is_better is None or ((steps < 0) == score.higher_is_better).all()


@every_metric
def test_a_score_does_not_depend_on_the_rest_of_the_batch(score):
    pred, ref = pair(3, score.size, score.bands)
    valid = holes(size=score.size)
    alone = [score(pred[[i]], ref[[i]], valid=valid[[i]]) for i in range(3)]
    same(score(pred, ref, valid=valid), torch.cat(alone))


@every_metric
@pytest.mark.parametrize("where", ["pred", "ref", "both"])
@pytest.mark.parametrize("junk", [nan, inf, -inf, 0.0, 1e9])
def test_what_lies_under_the_mask_changes_no_bit_of_score_and_gradient(score, junk, where):
    valid = holes(size=score.size)
    clean_pred, clean_ref = (x.clone().requires_grad_() for x in pair(3, score.size, score.bands))
    clean = score(clean_pred, clean_ref, valid=valid)
    clean.sum().backward()
    pred = (
        pair(3, score.size, score.bands)[0]
        .masked_fill(~valid & (where != "ref"), junk)
        .requires_grad_()
    )
    ref = (
        pair(3, score.size, score.bands)[1]
        .masked_fill(~valid & (where != "pred"), junk)
        .requires_grad_()
    )
    dirty = score(pred, ref, valid=valid)
    dirty.sum().backward()
    assert dirty.isfinite().all()
    assert torch.equal(dirty, clean)
    for image, same_image in ((pred, clean_pred), (ref, clean_ref)):
        assert torch.equal(image.grad, same_image.grad)
        assert (image.grad[~valid.expand_as(image)] == 0).all()


@every_metric
def test_the_mask_matters(score):
    pred, ref = pair(3, score.size, score.bands)
    assert (score(pred, ref, valid=holes(size=score.size)) != score(pred, ref)).all()


@every_metric
def test_a_mask_that_keeps_a_rectangle_scores_as_the_crop(score):
    pred, ref = pair(3, score.size, score.bands)
    if score.crop is None:
        pytest.skip("a shift of the reference reaches past the mask of the prediction")
    valid = torch.zeros(3, 1, *score.size, dtype=torch.bool)
    crop = (..., *score.crop)
    valid[crop] = True
    same(score(pred, ref, valid=valid), score(pred[crop], ref[crop]))


@every_metric
def test_an_image_without_a_valid_pixel_has_no_score_and_disturbs_no_other(score):
    pred, ref = pair(3, score.size, score.bands)
    pred.requires_grad_()
    valid = torch.ones(3, 1, *score.size, dtype=torch.bool)
    valid[1] = False
    scores = score(pred, ref, valid=valid)
    scores[[0, 2]].sum().backward(retain_graph=True)
    others = pred.grad.clone()
    scores[1].backward()
    assert scores.isnan().tolist() == [False, True, False]
    same(scores[[0, 2]], score(pred, ref)[[0, 2]])
    assert torch.equal(pred.grad, others)
    assert (others[[0, 2]] != 0).any()


@every_metric
@pytest.mark.parametrize("transform", ["flip rows", "flip columns", "transpose", "permute bands"])
def test_orientation_and_band_order_do_not_matter(score, transform):
    def moved(x: Tensor) -> Tensor:
        match transform:
            case "flip rows":
                return x.flip(-2)
            case "flip columns":
                return x.flip(-1)
            case "transpose":
                return x.transpose(-1, -2)
        return x[:, [2, 0, 3, 1]] if x.shape[1] == 4 else x

    if (score.function, transform) == (q2n, "permute bands"):
        pytest.skip("products of hypercomplex numbers do not commute")
    pred, ref = pair(3, score.size, score.bands)
    valid = holes(size=score.size)
    same(score(moved(pred), moved(ref), valid=moved(valid)), score(pred, ref, valid=valid))


@every_metric
@pytest.mark.parametrize(
    ("pred_value", "ref_value"),
    [(0.0, 0.0), (0.2, 0.2), (0.0, 0.2), (0.2, 0.0), (0.3, 0.2)],
    ids=["both black", "identical flat", "pred black", "ref black", "two flat"],
)
def test_gradients_are_finite_on_flat_and_black_patches(score, pred_value, ref_value):
    pred = torch.full((1, 3, *score.size), pred_value, requires_grad=True)
    ref = torch.full((1, 3, *score.size), ref_value, requires_grad=True)
    score(pred, ref).sum().backward()
    assert pred.grad.isfinite().all()
    assert ref.grad.isfinite().all()


@every_metric
def test_gradients_are_finite_on_identical_images_and_partly_black_ones(score):
    images = pair(3, score.size, score.bands)[1]
    images[:, :, :5] = 0
    images[0] = images[1]
    pred, ref = images.clone().requires_grad_(), images.clone().requires_grad_()
    score(pred, ref).sum().backward()
    assert pred.grad.isfinite().all()
    assert ref.grad.isfinite().all()


@every_metric
def test_the_gradient_is_the_derivative(score):
    pred, ref = (x.double()[:, :2].requires_grad_() for x in pair(1, score.size, score.bands))
    valid = torch.ones(1, 1, *score.size, dtype=torch.bool)
    valid[..., 0, :4] = False
    assert torch.autograd.gradcheck(partial(score, valid=valid), (pred, ref), fast_mode=True)


@every_metric
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_float_type_is_scored_in_float64(score, dtype):
    pred, ref = (x.to(dtype) for x in pair(3, score.size, score.bands))
    scores = score(pred, ref)
    assert scores.dtype == torch.float64
    assert torch.equal(scores, score(pred.double(), ref.double()))


@every_metric
def test_autocast_does_not_change_a_score(score):
    pred, ref = pair(3, score.size, score.bands)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = score(pred, ref)
    assert torch.equal(cast, score(pred, ref))


@every_metric
def test_inputs_are_not_written_to(score):
    pred, ref = pair(3, score.size, score.bands)
    before = pred.clone(), ref.clone()
    score(pred, ref, valid=holes(size=score.size))
    assert torch.equal(pred, before[0])
    assert torch.equal(ref, before[1])


@every_metric
@pytest.mark.parametrize("shape", [(3, 4, 24, 18), (3, 3, 24, 19), (1, 4, 24, 19)])
def test_images_of_different_shapes_are_refused_with_both_shapes(score, shape):
    pred = pair()[0]
    with pytest.raises(MetricInputError) as raised:
        score(pred, torch.rand(shape))
    for part in (str(tuple(pred.shape)), str(shape), "nothing is resized"):
        assert part in str(raised.value)


@every_metric
@pytest.mark.parametrize(
    ("wrong", "came"),
    [
        (torch.ones(3, 4, 24, 19, dtype=torch.uint8), "torch.uint8"),
        (torch.ones(3, 4, 24, 19, dtype=torch.int16), "torch.int16"),
        (torch.ones(3, 4, 24, 19).numpy(), "ndarray"),
    ],
)
def test_what_is_not_a_float_tensor_is_refused_by_name(score, wrong, came):
    ref = pair(3, score.size, score.bands)[1]
    came += r"\. Make one with `torch\.from_numpy`" if came == "ndarray" else r"\. Convert digital"
    with pytest.raises(MetricInputError, match=f"`pred` must be a floating point.*got {came}"):
        score(wrong, ref)
    with pytest.raises(MetricInputError, match=f"`ref` must be a floating point.*got {came}"):
        score(ref, wrong)


@every_metric
def test_an_image_without_batch_dimension_is_refused_with_the_remedy(score):
    pred, ref = pair()
    with pytest.raises(MetricInputError, match=r"\(N, C, H, W\), got \(4, 24, 19\).*image\[None\]"):
        score(pred[0], ref[0])


@every_metric
def test_images_on_two_devices_are_refused(score):
    pred, ref = pair(3, score.size, score.bands)
    with pytest.raises(MetricInputError, match="one device, got cpu and meta"):
        score(pred, ref.to("meta"))


@every_metric
def test_a_mask_of_the_wrong_type_or_shape_is_refused(score):
    pred, ref = pair()
    with pytest.raises(MetricInputError, match=r"`valid` must be a boolean"):
        score(pred, ref, valid=holes().float())
    with pytest.raises(MetricInputError, match=r"`valid` must have shape"):
        score(pred, ref, valid=holes().expand(3, 4, 24, 19))


@pytest.mark.parametrize("score", [psnr, ssim, ms_ssim, cpsnr, cssim, ergas])
def test_physical_parameters_have_no_default_and_no_position(score):
    pred, ref = pair()
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument"):
        score(pred, ref)
    with pytest.raises(TypeError, match="positional"):
        score(pred, ref, 1.0)


@pytest.mark.parametrize("score", [psnr, ssim, ms_ssim, cpsnr, cssim])
@pytest.mark.parametrize("data_range", [0, -1.0, inf, nan, True, None, "1"])
def test_a_wrong_data_range_is_refused_with_what_came(score, data_range):
    pred, ref = pair()
    with pytest.raises(MetricInputError) as raised:
        score(pred, ref, data_range=data_range)
    assert f"got {data_range!r}" in str(raised.value)
    assert "1.0 for reflectance" in str(raised.value)
