from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lpips_sat.calibration.distortions import distort
from lpips_sat.calibration.render import render

ROWS = [
    ("blur", 0.4, "noise", 0.7),
    ("noise", 0.2, "noise", 0.2),
    ("haze", 0.9, "jpeg", 0.1),
    ("noise", 0.9, "blur", 0.6),
]


@pytest.fixture
def ref(textured) -> np.ndarray:
    made = [textured(3, 32, 32, seed=i, low=0.1, high=0.9).transpose(1, 2, 0) for i in range(4)]
    return np.round(255 * np.stack(made)).astype(np.uint8)


@pytest.fixture
def trials() -> pd.DataFrame:
    sides = ["distortion_a", "severity_a", "distortion_b", "severity_b"]
    return pd.DataFrame(ROWS, columns=sides).assign(id=range(4), seed=5, draw=[10, 11, 12, 13])


def test_the_images_of_a_table_can_be_made_again_from_it_alone(ref, trials):
    first, again = render(trials, ref), render(trials, ref)
    for images, same in zip(first, again, strict=True):
        assert images.shape == (4, 32, 32, 3)
        assert np.array_equal(images, same)
    some = render(trials[2:], ref[2:])  # a row does not depend on the others
    assert np.array_equal(some[0], first[0][2:])


@pytest.mark.parametrize("recorded", [True, False])
def test_a_side_is_the_distortion_that_its_row_names(ref, trials, recorded):
    table = trials if recorded else trials.drop(columns=["seed", "draw"])
    for number, (side, images) in enumerate(zip("ab", render(table, ref), strict=True)):
        for i, row in trials.iterrows():
            rng = np.random.default_rng([5, 10 + i, 1 + number] if recorded else [i, number])
            kind, severity = row[f"distortion_{side}"], row[f"severity_{side}"]
            expected = distort(ref[i] / np.float32(255), kind, severity, rng)
            assert np.abs(images[i] - 255 * expected).max() <= 0.5 + 1e-4


def test_two_sides_with_the_same_distortion_differ_in_their_noise(ref, trials):
    a, b = render(trials, ref)
    assert not np.array_equal(a[1], b[1])
