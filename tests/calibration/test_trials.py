from __future__ import annotations

import numpy as np
import pytest

from lpips_sat.calibration.distortions import distort
from lpips_sat.calibration.trials import draw, hard_for_psnr, render

REFERENCES = [("alpha", f"image_{i}.png:0:0") for i in range(6)]
KINDS = {"blur": 3.0, "noise": 1.0}


@pytest.fixture
def ref(textured) -> np.ndarray:
    made = [textured(3, 32, 32, seed=i, low=0.1, high=0.9).transpose(1, 2, 0) for i in range(6)]
    return np.round(255 * np.stack(made)).astype(np.uint8)


def test_the_images_of_a_table_can_be_made_again_from_it_alone(ref):
    trials = draw(REFERENCES, KINDS, seed=5)
    first, again = render(trials, ref), render(draw(REFERENCES, KINDS, seed=5), ref)
    for images, same in zip(first, again, strict=True):
        assert images.shape == (6, 32, 32, 3)
        assert np.array_equal(images, same)
    some = render(trials[2:4], ref[2:4])  # a row does not depend on the others
    assert np.array_equal(some[1], first[1][2:4])


def test_a_side_is_the_distortion_that_its_row_names(ref):
    trials = draw(REFERENCES, KINDS, seed=5)
    _, a, b = render(trials, ref)
    row = trials.iloc[1]
    for side, images, number in (("a", a, 1), ("b", b, 2)):
        rng = np.random.default_rng([5, 1, number])
        kind, severity = row[f"distortion_{side}"], row[f"severity_{side}"]
        expected = distort(ref[1] / np.float32(255), kind, severity, rng)
        assert np.abs(images[1] - 255 * expected).max() <= 0.5 + 1e-4


def test_kinds_come_as_often_as_their_weights_say():
    trials = draw([("alpha", "x:0:0")] * 400, KINDS, seed=0)
    sides = [*trials["distortion_a"], *trials["distortion_b"]]
    assert sides.count("blur") == pytest.approx(600, abs=60)
    assert trials["severity_a"].between(0, 1).all()


def test_pairs_that_psnr_tells_apart_are_mostly_dropped():
    ref = np.zeros((400, 8, 8, 3), np.uint8)
    near, far = ref + np.uint8(10), ref + np.uint8(19)  # 5.6 dB apart
    assert hard_for_psnr(ref, near, far, seed=0).all()
    farther = ref + np.uint8(21)  # 6.4 dB apart
    kept = hard_for_psnr(ref, near, farther, seed=0)
    assert kept.mean() == pytest.approx(0.25, abs=0.08)
