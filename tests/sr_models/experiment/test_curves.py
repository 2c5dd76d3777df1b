from __future__ import annotations

from types import SimpleNamespace

import sr_models.training
from sr_models.experiment import curves
from sr_models.experiment.curves import Curve, Fit, fit_of


def test_how_a_training_fits_is_how_far_it_is_ahead_of_bicubic(monkeypatch):
    of_split = {"train": (30.0, 28.0), "test": (27.5, 28.0)}  # dB of the model and of bicubic
    monkeypatch.setattr(curves, "load_pipeline", lambda folder, device: None)
    monkeypatch.setattr(curves, "PairDataset", lambda root, split, regime, **kwargs: split)
    monkeypatch.setattr(sr_models.training, "validate", lambda pipeline, split: of_split[split])
    found = SimpleNamespace(folder="weights")
    trainings = SimpleNamespace(
        find=lambda model, regime, seed: found, device=None, root="set", degradation="physical"
    )
    assert fit_of(trainings, Curve("sr3", "real", 0, ())) == Fit(2.0, -0.5)
