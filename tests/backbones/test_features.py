import numpy as np
import pytest
import torch

from lpips_sat.backbones import features
from lpips_sat.backbones.features import weighted_distance

# Of 11: a strip a row, uneven strips, one strip.
ROWS_AT_A_TIME = [1, 5, 6, 11]


def by_hand(maps: np.ndarray, head: np.ndarray) -> np.ndarray:
    """(N, 1, h, w) in float64."""
    norm = np.sqrt((maps**2).sum(axis=1, keepdims=True) + features.EPSILON)
    pred, ref = np.split(maps / norm, 2)
    return ((pred - ref) ** 2 * head[None, :, None, None]).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("rows", ROWS_AT_A_TIME)
def test_the_weighted_distance_is_that_of_whole_maps(rows, monkeypatch):
    monkeypatch.setattr(features, "STRIP", rows * 2 * 3 * 7)
    rng = np.random.default_rng(0)
    maps, head = rng.normal(size=(4, 3, 11, 7)), rng.uniform(size=3)
    maps[0, :, 2, 3] = 0
    got = weighted_distance(torch.tensor(maps), torch.tensor(head))
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), by_hand(maps, head), rtol=2e-5, atol=1e-6)


def test_its_gradient_does_not_depend_on_the_strips(monkeypatch):
    maps = torch.randn(2, 3, 11, 7, generator=torch.Generator().manual_seed(0))
    gradients = []
    for rows in ROWS_AT_A_TIME:
        monkeypatch.setattr(features, "STRIP", rows * 3 * 7)
        leaf = maps.clone().requires_grad_()
        weighted_distance(leaf, torch.ones(3)).square().sum().backward()
        gradients.append(leaf.grad)
    assert gradients[0].abs().max() > 0
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0])


def test_a_batch_of_no_images_has_no_distances():
    assert weighted_distance(torch.zeros(0, 3, 11, 7), torch.ones(3)).shape == (0, 1, 11, 7)
