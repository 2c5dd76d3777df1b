from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from lpips_sat.calibration.distortions import KINDS, distort
from lpips_sat.calibration.ladders import (
    RUNGS,
    build_ladders,
    ladder_loss,
    rises,
    severities,
    worse,
)
from lpips_sat.errors import WeightsError


def sample(rng: np.random.Generator) -> np.ndarray:
    blocks = rng.uniform(0.2, 0.8, (8, 8, 3)).astype(np.float32)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)


def chips(count: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    return np.stack([np.round(255 * sample(rng)) for _ in range(count)]).astype(np.uint8)


def test_a_ladder_of_noise_is_one_noise_field_at_rising_strength():
    clean = 0.5 * np.ones((1, 64, 64, 3))  # far from 0 and 1, where nothing is cut off
    grey = np.round(255 * clean).astype(np.uint8)
    gentle, severe = (worse(grey, "noise", s).numpy() - 128 / 255 for s in (0.25, 0.5))
    ratio = (0.016 + 0.088 * 0.5) / (0.016 + 0.088 * 0.25)
    inside = np.abs(severe) < 0.45
    np.testing.assert_allclose(severe[inside], ratio * gentle[inside], atol=1e-5)


def test_kinds_with_three_levels_are_counted_at_three_that_differ():
    assert {kind for kind in KINDS if len(severities(kind)) == 3} == {"nearest", "oversmooth"}
    images = [distort(chips(1)[0] / 255, "nearest", s, None) for s in severities("nearest")]
    assert not any(np.array_equal(a, b) for a, b in itertools.pairwise(images))


def test_every_step_of_every_chip_is_told_apart():
    values = np.array([[1.0, 1, 1], [2, 1, 2], [3, 2, 1]])  # severity by chip
    assert rises(values.ravel(), chips(3)).tolist() == [[True, False, True], [True, True, False]]


def test_built_ladders_start_clean_repeat_and_say_where_the_squared_error_rises():
    built, again = (build_ladders(30, sample, seed=4) for _ in range(2))
    assert built.images.shape == (30, 1 + RUNGS, 64, 64, 3)
    assert np.array_equal(built.images, again.images)
    assert not np.array_equal(built.images, build_ladders(30, sample, seed=5).images)
    assert len(set(built.kind)) > 5
    error = ((built.images[:, 1:] / 255.0 - built.images[:, :1] / 255.0) ** 2).mean((2, 3, 4))
    np.testing.assert_array_equal(built.rising, np.diff(error, axis=1) > 0)
    assert built.rising.mean() > 0.9


def test_kinds_are_drawn_as_often_as_asked():
    others = dict.fromkeys(KINDS, 0.0)
    ladders = build_ladders(40, sample, seed=1, often={**others, "shift": 3, "jpeg": 1})
    names = [list(KINDS)[kind] for kind in ladders.kind]
    assert set(names) == {"shift", "jpeg"}
    assert 20 < names.count("shift") < 40  # of 40, 30 are expected


def test_an_unknown_kind_is_refused_by_name():
    with pytest.raises(WeightsError, match="ladder_often names shfit; the kinds are blur, "):
        build_ladders(1, sample, seed=1, often={"shfit": 3})


def test_the_loss_is_0_beyond_the_margin_and_grows_with_what_is_missing():
    rising = torch.ones(1, RUNGS - 1)
    well, flat, down = (
        float(ladder_loss(torch.tensor([[0.0, step, 2 * step]]), rising, margin=0.1))
        for step in (0.5, 0.0, -0.3)
    )
    assert well < 1e-6
    assert abs(flat - 0.1) < 0.002
    assert abs(down - 0.4) < 0.002
    uncounted = torch.zeros(1, RUNGS - 1)
    assert float(ladder_loss(torch.tensor([[0.0, -1.0, -2.0]]), uncounted, margin=0.1)) == 0
