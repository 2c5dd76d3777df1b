from math import inf, nan

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter
from torch import Tensor

from lpips_sat.distributions import FID, KID, PooledFeatures
from lpips_sat.errors import MetricInputError


@pytest.fixture(scope="module")
def patches(textured) -> Tensor:
    """48 different patches of reflectance."""
    scene = textured(3, 8 * 40, 6 * 40)
    cut = scene.reshape(3, 8, 40, 6, 40).transpose(1, 3, 0, 2, 4).reshape(48, 3, 40, 40)
    return torch.from_numpy(cut).float()


@pytest.fixture(scope="module")
def features() -> PooledFeatures:
    return PooledFeatures()


def blurred(images: Tensor, sigma: float) -> Tensor:
    return torch.from_numpy(gaussian_filter(images.numpy(), (0, 0, sigma, sigma)))


def score(metric: FID | KID, real: Tensor, fake: Tensor) -> Tensor:
    metric.reset()
    for part in real.chunk(2):
        metric.update(part, real=True)
    for part in fake.chunk(3):
        metric.update(part, real=False)
    return metric.compute()


def test_fid_is_the_distance_of_two_gaussians(patches, features):
    other = blurred(patches, 1.0)
    x, y = (features(part).double().numpy() for part in (patches, other))
    ridge = 1e-12 * np.eye(x.shape[1])  # scipy's root wants matrices of full rank
    root = sqrtm((np.cov(x.T) + ridge) @ (np.cov(y.T) + ridge)).real
    trace = np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    expected = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum() + trace
    assert score(FID(), patches, other).item() == pytest.approx(expected, rel=1e-3)


def test_kid_is_the_unbiased_discrepancy_under_a_cubic_kernel(patches, features):
    other = blurred(patches, 1.0)
    x, y = (features(part).double().numpy() for part in (patches, other))
    n, width = x.shape
    xx, yy, xy = ((a @ b.T / width + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    within = sum((k.sum() - np.trace(k)) / (n * (n - 1)) for k in (xx, yy))
    mean, spread = score(KID(subset_size=48, subsets=3), patches, other)
    assert mean.item() == pytest.approx(within - 2 * xy.mean(), rel=1e-3)
    assert spread.item() == pytest.approx(0, abs=1e-3 * mean.item())


def test_equal_sets_are_close_and_blur_drives_sets_apart(patches):
    fid, kid = FID(), KID(subset_size=24, subsets=8)
    distances = [
        (score(fid, patches, fake).item(), score(kid, patches, fake)[0].item())
        for fake in (patches.flip(0), blurred(patches, 0.5), blurred(patches, 1.5))
    ]
    for same, near, far in zip(*distances, strict=True):
        assert abs(same) < 0.3 * near < near < far
    assert distances[0][0] == pytest.approx(0, abs=1e-9)


def test_subsets_are_drawn_by_the_seed_alone(patches):
    metrics = [KID(subset_size=10, subsets=4, seed=seed) for seed in (1, 1, 2)]
    before = torch.get_rng_state()
    first, again, other = (score(m, patches, blurred(patches, 1.0))[0] for m in metrics)
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)


def test_the_name_says_which_features_are_compared():
    assert FID().name == "FID (LPIPS-Sat default)"
    assert KID("lin").name == "KID (LPIPS-Sat lin)"


def test_invalid_pixels_are_left_out(patches, features):
    marked = patches[:2].clone()
    marked[1, 0, 8:20, 8:20] = nan  # invalid in one band is invalid
    found = features(marked)
    hidden = marked.clone()
    hidden[1, :, 8:20, 8:20] = nan
    assert torch.equal(features(hidden), found)
    torch.testing.assert_close(found[:1], features(patches[:1]))
    near, far = ((found[1] - features(patches[[i]])[0]).norm() for i in (1, 2))
    assert 0 < near < 0.6 * far


def test_sets_that_cannot_be_compared_are_refused(patches, features):
    broken = patches[:3].clone()
    broken[1], broken[2, 0, 5, 5] = nan, inf
    with pytest.raises(MetricInputError, match=r"image\(s\) \[1, 2\] of the batch"):
        features(broken)
    with pytest.raises(MetricInputError, match="32 x 32"):
        features(patches[..., :31])
    with pytest.raises(MetricInputError, match=r"subsets of 100 images.*only 48 true ones"):
        score(KID(subset_size=100), patches, patches)
    with pytest.raises(MetricInputError, match="two images or more in each set, got 1"):
        score(FID(), patches[:1], patches[:1])
