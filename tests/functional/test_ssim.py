import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from lpips_sat.errors import MetricInputError
from lpips_sat.functional import ssim
from lpips_sat.functional.ssim import ssim_sums


def smooth_pair(low: float, high: float, bands: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Two float32 images with values around low..high, smooth as reflectance is."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(2, bands, 25, 7, generator=generator)
    ref = torch.nn.functional.interpolate(coarse, size=(148, 41), mode="bilinear")
    noise = torch.randn(ref.shape, generator=generator) * torch.tensor([0.01, 0.2]).view(2, 1, 1, 1)
    return low + (high - low) * (ref + noise), low + (high - low) * ref


def wang(pred: torch.Tensor, ref: torch.Tensor, data_range: float) -> list[float]:
    """SSIM with Wang's settings as scikit-image computes it in float64, per image."""
    return [
        structural_similarity(
            p.double().numpy(),
            r.double().numpy(),
            data_range=data_range,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for p, r in zip(pred, ref, strict=True)
    ]


@pytest.mark.parametrize("bands", [1, 4])
@pytest.mark.parametrize(
    ("low", "high", "data_range"),
    [
        pytest.param(0.02, 0.3, 1.0, id="reflectance"),
        pytest.param(0.9, 1.0, 1.0, id="snow"),
        pytest.param(0.25, 0.3, 0.3, id="small range"),
        pytest.param(200.0, 3000.0, 10000.0, id="digital numbers"),
    ],
)
def test_float32_images_score_as_scikit_image_scores_them_in_float64(bands, low, high, data_range):
    pred, ref = smooth_pair(low, high, bands)
    score = ssim(pred, ref, data_range=data_range)
    np.testing.assert_allclose(score, wang(pred, ref, data_range), rtol=0, atol=1e-12)


@pytest.mark.parametrize("height", [73, 74, 75, 84, 85])
def test_the_seams_of_the_strips_do_not_show(height):
    pred, ref = (x[:, :, :height] for x in smooth_pair(0.02, 0.3))
    np.testing.assert_allclose(ssim(pred, ref, data_range=1.0), wang(pred, ref, 1.0), atol=1e-12)


def test_the_two_images_of_the_oracle_differ_clearly():
    score = ssim(*smooth_pair(0.0, 1.0), data_range=1.0)
    assert score[1] + 0.1 < score[0] < 1


def test_it_equals_the_map_of_torchmetrics_without_the_border_that_it_pads():
    pred, ref = (x.double() for x in smooth_pair(0.02, 0.3))
    _, padded = structural_similarity_index_measure(
        pred, ref, data_range=1.0, reduction="none", return_full_image=True
    )
    expected = padded[..., 5:-5, 5:-5].mean(dim=(1, 2, 3))
    torch.testing.assert_close(ssim(pred, ref, data_range=1.0), expected, rtol=0, atol=1e-7)


def test_two_flat_images_differ_by_luminance_only():
    pred, ref = torch.full((1, 1, 11, 11), 0.2), torch.full((1, 1, 11, 11), 0.4)
    c1 = 0.01**2
    expected = (2 * 0.2 * 0.4 + c1) / (0.2**2 + 0.4**2 + c1)
    assert ssim(pred, ref, data_range=1.0).item() == pytest.approx(expected, rel=1e-6)


def test_an_image_and_its_negative_are_anticorrelated():
    ref = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert ssim(1 - ref, ref, data_range=1.0).item() < -0.8


def test_an_image_of_one_window_has_one_score_per_band():
    pred, ref = (x[:, :, :11, :11] for x in smooth_pair(0.02, 0.3))
    assert ssim_sums(pred, ref, data_range=1.0)[:, 1].tolist() == [4.0, 4.0]


def test_one_invalid_pixel_takes_out_the_windows_that_contain_it():
    pred, ref = smooth_pair(0.02, 0.3, bands=1)
    valid = torch.ones(2, 1, 148, 41, dtype=torch.bool)
    valid[0, 0, 20, 20] = False
    windows = ssim_sums(pred, ref, data_range=1.0, valid=valid)[:, 1]
    assert windows.tolist() == [138 * 31 - 11 * 11, 138 * 31]


@pytest.mark.parametrize("shape", [(1, 1, 10, 40), (1, 1, 40, 10)])
def test_an_image_smaller_than_a_window_is_refused(shape):
    small = torch.rand(shape)
    with pytest.raises(MetricInputError, match=rf"11 x 11 pixels, got {shape[2]} x {shape[3]}"):
        ssim(small, small, data_range=1.0)


def test_a_tile_smaller_than_a_window_adds_nothing():
    small = torch.rand(2, 1, 8, 40)
    assert ssim_sums(small, small, data_range=1.0).tolist() == [[0.0, 0.0], [0.0, 0.0]]
