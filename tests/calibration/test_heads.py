from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from lpips_sat.calibration import heads
from lpips_sat.calibration.evaluate import agreement, to_batch
from lpips_sat.calibration.judgements import Judgements
from lpips_sat.lpips import LPIPSSat

# What the synthetic raters look at: three channels of twelve, in units of each channel's SCALE,
# and the scales differ by 10,000.
TRUE = torch.tensor([0.0, 3.0, 0, 0, 0, 1.0, 0, 0, 2.0, 0, 0, 0])
SCALE = 10 ** torch.tensor([-3.0, -1, 1, 0, -2, -3, 1, 0, 0.5, -1, -2, 0])
SEEN = TRUE > 0


def distances(count, seed):
    """Per-channel distances of both sides (count, 12)."""
    generator = torch.Generator().manual_seed(seed)
    of_a, of_b = torch.randn(2, count, 12, generator=generator).exp() * SCALE
    return of_a, of_b


def synthetic(count, seed):
    """Trials whose raters choose B with probability sigmoid(4 log(w.a / w.b))."""
    of_a, of_b = distances(count, seed)
    w = TRUE / SCALE
    p = torch.sigmoid(4 * torch.log((of_a @ w) / (of_b @ w))).double().numpy()
    share = np.random.default_rng(seed).binomial(1, p)
    table = pd.DataFrame(
        {
            "share_b": share.astype(float),
            "confidence": np.full(count, 3.0),
            "cluster": [f"image {i // 3}" for i in range(count)],
        }
    )
    images = np.zeros((count, 1, 1, 3), np.uint8)
    return of_a, of_b, Judgements(table, images, images, images)


def fit(of_a, of_b, trials, strength):
    share, weight = torch.tensor(trials.share_b), torch.tensor(trials.weight)
    return heads.fit(of_a, of_b, share, weight, strength=strength)


def truth_agreement(weights):
    """How often, on fresh trials, weights prefer the side that the true weights prefer."""
    of_a, of_b = distances(2000, seed=2)
    w = TRUE / SCALE
    share_b = (of_a @ w > of_b @ w).double().numpy()
    return agreement(of_a @ weights, of_b @ weights, share_b).mean()


@pytest.fixture(scope="module")
def training():
    return synthetic(1200, seed=1)


@pytest.fixture(scope="module")
def fitted(training):
    return fit(*training, strength=0.003)


# --- the fit


def test_the_fit_finds_the_channels_that_raters_look_at(fitted):
    assert truth_agreement(fitted) > 0.9
    assert truth_agreement(1 / SCALE) < 0.8  # else the channels that nobody looks at decide
    importance = fitted * SCALE
    assert importance[SEEN].min() > 3 * importance[~SEEN].max()
    assert importance.argmax() == TRUE.argmax()


def test_weights_are_positive_finite_and_one_per_channel(fitted):
    assert fitted.shape == (12,)
    assert fitted.dtype == torch.float32
    assert torch.isfinite(fitted).all()
    assert (fitted >= 0).all()


def test_the_fit_is_deterministic(training, fitted):
    torch.manual_seed(99)
    assert torch.equal(fit(*training, strength=0.003), fitted)


def test_the_sides_are_alike(training, fitted):
    of_a, of_b, trials = training
    swapped = trials.table.assign(share_b=1 - trials.table["share_b"])
    again = fit(of_b, of_a, Judgements(swapped, *[trials.ref] * 3), strength=0.003)
    torch.testing.assert_close(again, fitted, rtol=1e-3, atol=0)


def test_a_large_strength_gives_every_channel_the_same_say(training):
    of_a, of_b, _ = training
    say = fit(*training, strength=1e4) * torch.cat([of_a, of_b]).mean(0)
    torch.testing.assert_close(say, torch.ones(12), rtol=0.01, atol=0)


def test_a_guess_weighs_half(training):
    of_a, of_b, trials = training
    guesses = trials.table.assign(confidence=1.0)
    # all at half weight under half the pull: the same minimum
    half = fit(of_a, of_b, Judgements(guesses, *[trials.ref] * 3), strength=0.006)
    torch.testing.assert_close(half, fit(*training, strength=0.01), rtol=1e-3, atol=0)


def test_a_channel_that_is_always_zero_does_no_harm(training):
    of_a, of_b, trials = training
    dead = torch.zeros(len(of_a), 1)
    w = fit(torch.cat([of_a, dead], 1), torch.cat([of_b, dead], 1), trials, strength=0.003)
    assert torch.isfinite(w).all()
    assert truth_agreement(w[:12]) > 0.9


# --- cross-validation


def test_folds_keep_the_trials_of_one_reference_together(training, monkeypatch):
    of_a, of_b, trials = training
    number = torch.arange(len(of_a), dtype=of_a.dtype)  # known again by its first channel
    of_a = torch.cat([number[:, None], of_a], dim=1)
    of_b = torch.cat([number[:, None], of_b], dim=1)
    cluster = trials.table["cluster"].to_numpy()
    fitted_on = []

    def record(a, b, share, confidence, *, strength, form):
        assert torch.equal(a[:, 0], b[:, 0])
        rows = a[:, 0].int().numpy()
        np.testing.assert_array_equal(share, trials.table["share_b"].to_numpy()[rows])
        fitted_on.append(rows)
        return torch.ones(a.shape[1])

    monkeypatch.setattr(heads, "fit", record)
    heads.cross_validate(of_a, of_b, trials, strength=0.01)
    assert len(fitted_on) == 5
    left_out = [np.setdiff1d(np.arange(len(of_a)), rows) for rows in fitted_on]
    np.testing.assert_array_equal(np.sort(np.concatenate(left_out)), np.arange(len(of_a)))
    for rows, out in zip(fitted_on, left_out, strict=True):
        assert not set(cluster[rows]) & set(cluster[out])
        assert 0.1 * len(of_a) < len(out) < 0.3 * len(of_a)


@pytest.mark.parametrize(("on_fitted", "on_left_out"), [(1.0, -1.0), (-1.0, 1.0)])
def test_cross_validation_scores_trials_that_were_not_fitted(monkeypatch, on_fitted, on_left_out):
    of_a, of_b = torch.eye(30), torch.zeros(30, 30)  # channel i is about trial i alone
    table = pd.DataFrame({"share_b": 1.0, "confidence": 3.0, "cluster": np.arange(30) // 3})
    trials = Judgements(table, *[np.zeros((30, 1, 1, 3), np.uint8)] * 3)

    def know(a, *_, strength, form):
        return torch.where(a.sum(dim=0) > 0, on_fitted, on_left_out)

    monkeypatch.setattr(heads, "fit", know)
    expected = 1.0 if on_left_out > 0 else 0.0
    assert heads.cross_validate(of_a, of_b, trials, strength=0.01) == expected


def test_the_strength_is_that_of_the_best_cross_validation(training, monkeypatch):
    of_a, of_b, trials = training
    found = {0.1: 0.70, 0.01: 0.80, 0.001: 0.75}
    monkeypatch.setattr(heads, "cross_validate", lambda *_, strength: found[strength])
    chosen = heads.choose(of_a, of_b, trials, strengths=list(found))
    assert (chosen.strength, chosen.cross_validated) == (0.01, 0.80)
    monkeypatch.undo()
    assert torch.equal(chosen.weights, fit(of_a, of_b, trials, strength=0.01))


# --- the heads of a metric


@pytest.fixture
def metric():
    torch.manual_seed(3)
    config = {"widths": [4, 8], "depth": 1}
    return LPIPSSat("pyramid", radiometry="display", backbone_config=config)


@pytest.fixture(scope="module")
def pictures(textured):
    """References (6, 32, 32, 3) and two worse versions of each, uint8."""
    rng = np.random.default_rng(6)
    ref = np.stack([textured(3, 32, 32, seed=40 + i, low=0.1, high=0.9) for i in range(6)])
    sides = [ref, ref + 0.05 * rng.standard_normal(ref.shape), 0.8 * ref]
    return [np.rint(np.clip(s, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1) for s in sides]


def test_per_channel_distances_weighted_by_the_heads_are_the_score(metric, pictures):
    trials = Judgements(pd.DataFrame({"id": range(6)}), *pictures)
    of_a, of_b = heads.per_channel(metric, trials)
    weights = torch.rand(24, generator=torch.Generator().manual_seed(7))
    heads.set_heads(metric, weights)
    assert of_a.shape == (6, sum(metric.channels)) == (6, 24)
    ref, a, b = map(to_batch, pictures)
    torch.testing.assert_close(of_a @ weights, metric(a, ref), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(of_b @ weights, metric(b, ref), rtol=1e-4, atol=1e-6)


def test_heads_take_their_part_of_the_weights_in_order(metric):
    heads.set_heads(metric, torch.arange(24.0))
    assert [head.tolist() for head in metric.heads] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        list(range(8, 16)),
        list(range(16, 24)),
    ]
    assert not any(head.requires_grad for head in metric.heads)


def test_anchored_heads_score_1_for_a_bicubic_round_trip(metric, pictures):
    weights = torch.rand(24, generator=torch.Generator().manual_seed(8))
    heads.set_heads(metric, weights)
    heads.anchor(metric, pictures[0])

    def trip(image):
        bands = [
            np.asarray(
                Image.fromarray(np.ascontiguousarray(image[..., c], dtype=np.float32) / 255)
                .resize((16, 16), Image.Resampling.BILINEAR)
                .resize((32, 32), Image.Resampling.BICUBIC)
            )
            for c in range(3)
        ]
        return np.clip(np.stack(bands), 0, 1)

    restored = torch.from_numpy(np.stack([trip(image) for image in pictures[0]]))
    scores = metric(restored, to_batch(pictures[0]))
    assert scores.mean().item() == pytest.approx(1, abs=1e-4)
    assert scores.std() > 0.01
    flat = torch.cat(list(metric.heads))
    torch.testing.assert_close(flat / flat.sum(), weights / weights.sum())


@pytest.mark.parametrize("form", [heads.Ratio, heads.Difference])
@pytest.mark.parametrize("tried", [1e4, -1e4])
def test_the_wildest_step_of_a_line_search_has_a_finite_loss(form, tried):
    prefers_b = form()
    prefers_b.gamma.data.fill_(tried)
    of_a, of_b = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 1.0, 0.5])
    assert torch.isfinite(prefers_b(of_a.double(), of_b.double())).all()
