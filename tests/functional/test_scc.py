import numpy as np
import pytest
import torch
from scipy.ndimage import convolve

from lpips_sat.errors import MetricInputError
from lpips_sat.functional import scc
from lpips_sat.functional.scc import scc_sums

LAPLACE = np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], dtype=float)


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    ref = torch.rand(1, 3, 20, 17, generator=generator)
    return ref + 0.3 * torch.randn(ref.shape, generator=generator), ref


def test_it_is_the_correlation_of_the_filtered_bands():
    pred, ref = pair()
    bands = [
        np.corrcoef(
            *(convolve(x[0, b].double().numpy(), LAPLACE)[1:-1, 1:-1].ravel() for x in (pred, ref))
        )[0, 1]
        for b in range(3)
    ]
    assert scc(pred, ref).item() == pytest.approx(np.mean(bands), abs=1e-12)


def test_brightness_and_contrast_do_not_matter_and_sign_does():
    _, ref = pair()
    assert scc(0.1 + 3 * ref, ref).item() == pytest.approx(1, abs=1e-6)
    assert scc(-ref, ref).item() == pytest.approx(-1, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_band_without_detail_has_no_correlation(dtype):
    pred, ref = (x.to(dtype) for x in pair())
    pred[:, 1] = 0.2
    assert scc(pred, ref).isnan().all()


def test_a_pixel_counts_where_its_neighbours_are_valid():
    image = torch.rand(1, 1, 10, 9)
    valid = torch.ones(1, 1, 10, 9, dtype=torch.bool)
    valid[0, 0, 5, 5] = False
    assert scc_sums(image, image, valid=valid)[0, -1].item() == 8 * 7 - 9


def test_an_image_smaller_than_the_filter_is_refused():
    with pytest.raises(MetricInputError, match="sCC needs images of at least 3 x 3"):
        scc(torch.rand(1, 1, 2, 9), torch.rand(1, 1, 2, 9))
    assert scc_sums(torch.rand(1, 1, 2, 9), torch.rand(1, 1, 2, 9)).tolist() == [[0.0] * 6]
