from __future__ import annotations

import numpy as np
import pytest
import torch

from lpips_sat.calibration.distances import DISTANCES, pooled, shift_tolerant, statistics


def maps(seed, shape=(2, 3, 9, 11)):
    return torch.from_numpy(np.random.default_rng(seed).uniform(0.1, 1, shape)).double()


@pytest.mark.parametrize("name", DISTANCES)
def test_equal_maps_are_at_distance_0_and_others_are_not(name):
    compare = DISTANCES[name]
    torch.testing.assert_close(
        compare(maps(0), maps(0)), torch.zeros_like(compare(maps(0), maps(0))), atol=1e-12, rtol=0
    )
    assert (compare(maps(0), maps(1)) > 0).all()


@pytest.mark.parametrize("name", DISTANCES)
def test_maps_of_a_single_position_can_be_compared(name):
    assert DISTANCES[name](maps(0, (2, 3, 1, 1)), maps(1, (2, 3, 1, 1))).isfinite().all()


@pytest.mark.parametrize("name", DISTANCES)
def test_the_two_sides_are_alike_and_images_do_not_mix(name):
    compare = DISTANCES[name]
    x, y = maps(0), maps(1)
    torch.testing.assert_close(compare(x, y), compare(y, x))
    torch.testing.assert_close(compare(x, y)[:1], compare(x[:1], y[:1]))


def test_a_shift_by_one_position_costs_the_tolerant_distance_only_the_border():
    x = maps(0, (1, 3, 32, 32))
    y = x.roll(1, dims=3)
    assert shift_tolerant(x, y).sum() < 0.1 * DISTANCES["points"](x, y).sum()


def test_pooling_forgives_swapped_neighbours_more_than_points_do():
    x = maps(0, (1, 3, 32, 32))
    y = x.unflatten(3, (16, 2)).flip(4).flatten(3)
    assert pooled(x, y).sum() < 0.5 * DISTANCES["points"](x, y).sum()


def test_statistics_are_the_two_terms_of_dists_in_every_window():
    x, y = maps(0, (1, 2, 5, 5)), maps(1, (1, 2, 5, 5))  # one window
    unit_x, unit_y = (f / torch.sqrt((f**2).sum(1, keepdim=True) + 1e-8) for f in (x, y))
    a, b = unit_x[0].flatten(1).numpy(), unit_y[0].flatten(1).numpy()
    texture = 1 - (2 * a.mean(1) * b.mean(1) + 1e-6) / (a.mean(1) ** 2 + b.mean(1) ** 2 + 1e-6)
    covariance = (a * b).mean(1) - a.mean(1) * b.mean(1)
    structure = 1 - (2 * covariance + 1e-6) / (a.var(1) + b.var(1) + 1e-6)
    np.testing.assert_allclose(statistics(x, y)[0], np.concatenate([texture, structure]), rtol=1e-9)
