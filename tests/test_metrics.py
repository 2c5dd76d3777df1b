import pickle
from math import inf, nan

import pytest
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from lpips_sat import functional, tiled
from lpips_sat.errors import MetricInputError
from lpips_sat.metrics import (
    CPSNR,
    CSSIM,
    ERGAS,
    MAE,
    MSSSIM,
    PSNR,
    RMSE,
    SAM,
    SCC,
    SSIM,
    UIQI,
    Bias,
    ImageMetric,
    Q2n,
)

METRICS = {
    "mae": (MAE, {}),
    "rmse": (RMSE, {}),
    "psnr": (PSNR, {"data_range": 1.0}),
    "ssim": (SSIM, {"data_range": 1.0}),
    "sam": (SAM, {}),
    "ergas": (ERGAS, {"ratio": 0.25}),
    "bias": (Bias, {}),
    "ms_ssim": (MSSSIM, {"data_range": 1.0}),
    "cpsnr": (CPSNR, {"data_range": 1.0, "max_shift": 1}),
    "cssim": (CSSIM, {"data_range": 1.0, "max_shift": 1}),
    "uiqi": (UIQI, {}),
    "q2n": (Q2n, {}),
    "scc": (SCC, {}),
}
# What the smallest images of the tests would not be enough for.
SIZES = {"ms_ssim": (176, 177), "q2n": (32, 33)}
every_metric = pytest.mark.parametrize("metric", METRICS)


def make(metric: str, **kwargs: object) -> ImageMetric:
    cls, parameters = METRICS[metric]
    return cls(**parameters, **kwargs)


def score(metric: str, pred: Tensor, ref: Tensor, valid: Tensor | None = None) -> Tensor:
    return getattr(functional, metric)(pred, ref, valid=valid, **METRICS[metric][1])


def size_for(metric: str) -> tuple[int, int]:
    return SIZES.get(metric, (16, 15))


def pair(n: int, size: tuple[int, int] = (16, 15)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(10)
    ref = 0.02 + 0.28 * torch.rand(n, 3, *size, generator=generator)
    noise = torch.randn(ref.shape, generator=generator)
    return ref + torch.linspace(0.005, 0.05, n).view(n, 1, 1, 1) * noise, ref


def tile_sums(metric: ImageMetric, pred: Tensor, ref: Tensor, valid: Tensor, tile: int) -> Tensor:
    """Add up the sums of tiles with the halo that the metric asks for."""
    height, width = pred.shape[-2:]
    total = torch.zeros(())
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            core = torch.zeros_like(valid)
            core[..., top : top + tile, left : left + tile] = True
            rows = slice(max(top - metric.halo, 0), top + tile + metric.halo)
            columns = slice(max(left - metric.halo, 0), left + tile + metric.halo)
            window = (..., rows, columns)
            total = total + metric.sums(
                pred[window], ref[window], valid=valid[window], core=core[window]
            )
    return total


@pytest.mark.parametrize(
    ("metric", "name", "unit", "halo", "higher_is_better"),
    [
        ("mae", "MAE", "input units", 0, False),
        ("rmse", "RMSE", "input units", 0, False),
        ("psnr", "PSNR", "dB", 0, True),
        ("ssim", "SSIM", "", 5, True),
        ("sam", "SAM", "degrees", 0, False),
        ("ergas", "ERGAS", "", 0, False),
        ("bias", "bias", "input units", 0, None),
        ("ms_ssim", "MS-SSIM", "", 80, True),
        ("cpsnr", "cPSNR", "dB", 1, True),
        ("cssim", "cSSIM", "", 6, True),
        ("uiqi", "UIQI", "", 4, True),
        ("q2n", "Q2n", "", 0, True),
        ("scc", "sCC", "", 1, True),
    ],
)
def test_class_facts_are_attributes(metric, name, unit, halo, higher_is_better):
    made = make(metric)
    assert (made.name, made.unit, made.halo) == (name, unit, halo)
    assert made.higher_is_better is higher_is_better
    assert made.is_differentiable is True
    assert made.full_state_update is False


@every_metric
def test_sums_then_from_sums_is_the_functional_score(metric):
    pred, ref = pair(3, size_for(metric))
    made = make(metric)
    assert torch.equal(made.from_sums(made.sums(pred, ref)), score(metric, pred, ref))


# 43 = 2 * 20 + 3: the last tile and its halo are narrower than a window of SSIM.
@pytest.mark.parametrize("metric", sorted(set(METRICS) - {"ms_ssim", "q2n", "cssim"}))
@pytest.mark.parametrize(("size", "tile"), [((43, 37), 20), ((33, 30), 11), ((21, 43), 40)])
def test_sums_of_tiles_with_a_halo_are_the_sums_of_the_whole(metric, size, tile):
    pred, ref = pair(2, size)
    valid = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(11)) > 0.003
    pred[1, :, :9, :4] = 0  # pixels without a spectrum
    made = make(metric)
    whole = made.sums(pred, ref, valid=valid)
    assert (whole.abs().sum(dim=1) > 0).all()
    tiles = tile_sums(made, pred, ref, valid, tile)
    torch.testing.assert_close(tiles, whole, rtol=1e-9, atol=1e-12)


def test_without_its_halo_a_tile_of_ssim_would_lose_windows():
    pred, ref = pair(1, (40, 40))
    valid = torch.ones(1, 1, 40, 40, dtype=torch.bool)
    made = make("ssim")
    made.halo = 4
    assert tile_sums(made, pred, ref, valid, 20)[0, 1] < made.sums(pred, ref)[0, 1]


@every_metric
def test_the_result_is_the_mean_over_images_and_not_over_batches(metric):
    pred, ref = pair(5, size_for(metric))
    per_image = score(metric, pred, ref)
    made = make(metric)
    made.update(pred[:1], ref[:1])
    made.update(pred[1:], ref[1:])
    result = made.compute()
    batch_means = torch.stack([per_image[0], per_image[1:].mean()]).mean()
    assert result.dtype == torch.float64
    torch.testing.assert_close(result, per_image.mean(), rtol=1e-12, atol=0)
    assert (result - batch_means).abs() > 0.05 * per_image.std()


@every_metric
def test_images_without_a_valid_pixel_are_left_out_and_counted(metric):
    pred, ref = pair(4, size_for(metric))
    valid = torch.ones(4, 1, *size_for(metric), dtype=torch.bool)
    valid[[0, 2]] = False
    pred[0] = nan
    made = make(metric)
    made.update(pred, ref, valid)
    expected = score(metric, pred[[1, 3]], ref[[1, 3]]).mean()
    torch.testing.assert_close(made.compute(), expected, rtol=1e-12, atol=0)
    assert (made.count.item(), made.undefined.item()) == (2, 2)


@every_metric
def test_no_scored_image_at_all_is_nan(metric):
    pred, ref = pair(2, size_for(metric))
    made = make(metric)
    made.update(pred, ref, torch.zeros(2, 1, *size_for(metric), dtype=torch.bool))
    assert made.compute().isnan()


@every_metric
@pytest.mark.parametrize("junk", [nan, inf])
def test_broken_values_in_valid_pixels_are_an_error_and_not_an_omission(metric, junk):
    pred, ref = pair(4, size_for(metric))
    pred[1, 0, 8, 8] = ref[3, 2, 7, 7] = junk
    made = make(metric)
    with pytest.raises(MetricInputError, match=r"image\(s\) \[1, 3\] of the batch.*`valid`"):
        made.update(pred, ref)
    assert made.count == made.undefined == 0


@every_metric
def test_forward_returns_the_batch_and_accumulates_the_whole(metric):
    pred, ref = pair(5, size_for(metric))
    per_image = score(metric, pred, ref)
    made = make(metric)
    first, second = made(pred[:2], ref[:2]), made(pred[2:], ref[2:])
    torch.testing.assert_close(first, per_image[:2].mean(), rtol=1e-12, atol=0)
    torch.testing.assert_close(second, per_image[2:].mean(), rtol=1e-12, atol=0)
    torch.testing.assert_close(made.compute(), per_image.mean(), rtol=1e-12, atol=0)
    made.reset()
    assert made.total == made.count == made.undefined == 0


@every_metric
def test_forward_is_differentiable_and_keeps_no_graph(metric):
    pred, ref = pair(2, size_for(metric))
    pred.requires_grad_()
    made = make(metric)
    for _ in range(2):
        made(pred, ref).backward()
    assert pred.grad.isfinite().all()
    assert (pred.grad != 0).any()
    assert not made.total.requires_grad


@every_metric
def test_states_of_several_processes_are_added(metric):
    pred, ref = pair(3, size_for(metric))

    def from_two_processes(state: Tensor, group: object) -> list[Tensor]:
        return [state, state]

    made = make(metric, dist_sync_fn=from_two_processes, distributed_available_fn=lambda: True)
    made.update(pred, ref)
    with made.sync_context(dist_sync_fn=from_two_processes):
        assert made.count == 6
        torch.testing.assert_close(made.total, 2 * score(metric, pred, ref).sum())
    torch.testing.assert_close(made.compute(), score(metric, pred, ref).mean())


@every_metric
def test_a_pickled_metric_goes_on_where_it_was(metric):
    pred, ref = pair(2, size_for(metric))
    made = make(metric)
    made.update(pred[:1], ref[:1])
    copy = pickle.loads(pickle.dumps(made))  # noqa: S301 - our own bytes
    copy.update(pred[1:], ref[1:])
    torch.testing.assert_close(copy.compute(), score(metric, pred, ref).mean())


def test_the_metrics_work_as_a_torchmetrics_collection():
    pred, ref = pair(3)
    chosen = sorted(set(METRICS) - set(SIZES))
    collection = MetricCollection({metric: make(metric) for metric in chosen})
    for batch in range(3):
        collection.update(pred[[batch]], ref[[batch]])
    for metric, value in collection.compute().items():
        torch.testing.assert_close(value, score(metric, pred, ref).mean())


def test_the_states_are_float64_from_the_start_and_stay_it():
    made = make("mae").half()
    assert {state.dtype for state in made.metric_state.values()} == {torch.float64}
    made.update(*pair(2))
    assert made.compute().dtype == torch.float64


def test_ssim_refuses_images_smaller_than_its_window():
    with pytest.raises(MetricInputError, match=r"SSIM needs.*11 x 11 pixels, got 10 x 15"):
        make("ssim").update(*pair(1, (10, 15)))


def test_a_class_is_scored_by_tiles_as_the_metric_it_was_made_from():
    psnr = PSNR(data_range=0.6)
    assert psnr.settings == tiled.psnr(data_range=0.6).settings
    assert psnr.per_band(psnr.sums(*pair(2))).shape == (2, 3)
    pred, ref = pair(1)
    cssim = CSSIM(data_range=1.0, max_shift=1)
    known = cssim.known_sums(pred, ref)  # of the whole image, before any tile
    whole = cssim.from_sums(cssim.sums(pred, ref))
    torch.testing.assert_close(cssim.from_sums(cssim.sums(pred, ref, known=known)), whole)


@pytest.mark.parametrize("cls", [PSNR, SSIM, MSSSIM, CPSNR, CSSIM, ERGAS])
def test_physical_parameters_are_required_by_keyword(cls):
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument"):
        cls()
    with pytest.raises(TypeError, match="positional"):
        cls(1.0)


def test_wrong_parameters_are_refused_at_construction():
    with pytest.raises(MetricInputError, match="data_range"):
        PSNR(data_range=0)
    with pytest.raises(MetricInputError, match="data_range"):
        SSIM(data_range=nan)
    with pytest.raises(MetricInputError, match="ratio"):
        ERGAS(ratio=4)
