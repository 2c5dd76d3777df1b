from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from lpips_sat.calibration.evaluate import (
    agreement,
    by_group,
    pair_distances,
    summarise,
    to_batch,
)
from lpips_sat.calibration.judgements import JudgementError, Judgements

SOURCES = ["naip", "naip", "eurosat", "eurosat", "eurosat"]
KINDS_A = ["blur", "noise", "blur", "haze", "noise"]
KINDS_B = ["noise", "blur", "haze", "haze", "haze"]


@pytest.fixture
def trials():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (5, 4, 6, 3)).astype(np.uint8) for _ in range(3)]
    table = pd.DataFrame(
        {
            "id": range(5),
            "source": SOURCES,
            "distortion_a": KINDS_A,
            "distortion_b": KINDS_B,
            "cluster": ["x", "x", "y", "z", "z"],
        }
    )
    return Judgements(table, *images)


def mean_error(pred, ref):
    return (pred - ref).abs().mean(dim=(1, 2, 3))


def test_agreement_is_the_share_of_votes_on_the_nearer_side():
    of_a = torch.tensor([0.2, 0.2, 0.9, 0.9, 0.5, 0.0])
    of_b = torch.tensor([0.9, 0.9, 0.2, 0.2, 0.5, 0.0])
    share_b = np.array([0.0, 0.25, 1.0, 0.4, 1.0, 0.1])
    # A is nearer (1 - share), twice; B is nearer (share), twice; two ties count half
    expected = [1.0, 0.75, 1.0, 0.4, 0.5, 0.5]
    np.testing.assert_allclose(agreement(of_a, of_b, share_b), expected)
    np.testing.assert_allclose(agreement(of_b, of_a, 1 - share_b), expected)


def test_a_distance_that_is_no_number_is_no_tie():
    of_a, of_b = torch.tensor([0.1, torch.nan, torch.nan]), torch.tensor([0.2, 0.1, torch.nan])
    with pytest.raises(JudgementError, match="3 of 6 distances are NaN"):
        agreement(of_a, of_b, np.array([0.0, 1.0, 1.0]))
    infinite = torch.tensor([torch.inf])
    assert agreement(infinite, infinite, np.array([1.0])).tolist() == [0.5]


def test_distances_that_differ_in_the_last_digit_are_no_tie():
    near = torch.tensor([0.5], dtype=torch.float64)
    assert agreement(near, near + 1e-15, np.array([1.0])).tolist() == [0.0]


def test_a_batch_has_channels_first_and_values_up_to_1():
    image = np.zeros((1, 2, 3, 3), np.uint8)
    image[0, 1, 2] = (255, 51, 0)
    batch = to_batch(image)
    assert (batch.shape, batch.dtype) == ((1, 3, 2, 3), torch.float32)
    torch.testing.assert_close(batch[0, :, 1, 2], torch.tensor([1.0, 0.2, 0.0]))
    assert batch.sum() == pytest.approx(1.2)


@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_both_sides_are_compared_with_their_own_reference(trials, batch):
    of_a, of_b = pair_distances(mean_error, trials, batch=batch)
    for got, side in ((of_a, trials.a), (of_b, trials.b)):
        error = np.abs(side.astype(float) - trials.ref).mean(axis=(1, 2, 3)) / 255
        np.testing.assert_allclose(got.numpy(), error, rtol=1e-5)


def test_no_gradient_is_kept(trials):
    weight = torch.ones((), requires_grad=True)
    of_a, _ = pair_distances(lambda p, r: weight * mean_error(p, r), trials)
    assert not of_a.requires_grad


def test_the_summary_is_the_mean_with_an_interval_over_clusters(trials):
    found = summarise(np.array([1.0, 0.0, 0.5, 0.75, 0.25]), trials)
    assert (found.mean, found.count, found.clusters) == (0.5, 5, 3)
    # the mean of every cluster is 0.5: whichever are drawn, the mean stays
    assert (found.low, found.high) == (0.5, 0.5)
    spread = summarise(np.array([1.0, 1.0, 0.5, 0.0, 0.0]), trials)
    assert (spread.mean, spread.low, spread.high) == (0.5, 0.0, 1.0)


def test_groups_are_sources_and_the_distortions_of_either_side(trials):
    scores = np.array([1.0, 0.5, 0.5, 0.75, 0.25])
    rows = by_group(scores, trials).set_index(["group", "name"])
    expected = {
        ("source", "eurosat"): (0.5, 3),
        ("source", "naip"): (0.75, 2),
        ("distortion", "blur"): (pytest.approx(2 / 3), 3),  # 1, 0.5, 0.5
        ("distortion", "haze"): (0.5, 3),  # 0.5, 0.75, 0.25: haze against haze counts once
        ("distortion", "noise"): (pytest.approx(1.75 / 3), 3),  # 1, 0.5, 0.25
    }
    found = {key: (row["agreement"], row["trials"]) for key, row in rows.iterrows()}
    assert found == expected
