from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch

from lpips_sat import LpipsSatError
from lpips_sat.errors import OutputExistsError
from sr_models import cards
from sr_models.experiment.curves import rows_of
from sr_models.experiment.weights import Weights
from sr_models.pipeline import SRPipeline
from sr_models.registry import load_model
from sr_models.training import train

LR = np.random.default_rng(0).random((1, 16, 16)).astype(np.float32)


def test_a_run_ends_with_a_card_of_what_it_learned_from_and_how(tiny, toy, tmp_path):
    profile = tiny("flow", steps=4, looks=2, seed=5)
    folder = train(
        profile, toy, tmp_path, bands=["B08"], validation=toy, device="cpu", about={"set": "toy"}
    )
    card = cards.read_card(folder)
    assert (card["set"], card["model"], card["profile"]) == ("toy", "flow", "small")
    assert (card["train"]["steps"], card["train"]["seed"]) == (4, 5)
    assert [row[0] for row in card["curve"]] == [1, 4]
    assert card["pairs"] == json.loads((tmp_path / "config.json").read_text())["start"]["pairs"]
    assert SRPipeline.from_pretrained(folder).config.card["set"] == "toy"


def test_a_run_and_its_card_tell_the_same_curve(tiny, toy, tmp_path):
    """Nothing but the place may differ: a checkpoint has the card alone."""
    profile = tiny("flow", steps=4, looks=2)
    folder = train(profile, toy, tmp_path, bands=["B08"], validation=toy, device="cpu")
    of_run = rows_of(Weights(folder, "run", {}))
    of_card = rows_of(Weights(folder, "checkpoint", cards.read_card(folder)))
    assert [row[0] for row in of_run] == [0, 3]  # steps are numbered from 0
    assert of_card == of_run


def test_a_published_model_knows_its_hash_and_is_half_as_large(pipeline, tmp_path):
    whole = pipeline()
    whole.save_pretrained(tmp_path / "whole")
    card = cards.publish(whole, tmp_path / "small", {"set": "toy"})
    weights = (tmp_path / "small" / cards.WEIGHTS).read_bytes()
    assert card == {"set": "toy", "sha256": hashlib.sha256(weights).hexdigest()}
    assert cards.read_card(tmp_path / "small") == card
    assert len(weights) < 0.6 * (tmp_path / "whole" / cards.WEIGHTS).stat().st_size
    loaded = load_model(tmp_path / "small")
    assert {w.dtype for w in loaded.unet.parameters()} == {torch.float32}
    np.testing.assert_allclose(loaded.upscale(LR, 2), whole.upscale(LR, 2), atol=2e-2)


def test_changed_weights_are_refused(pipeline, tmp_path):
    cards.publish(pipeline(), tmp_path / "it", {})
    path = tmp_path / "it" / cards.WEIGHTS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(LpipsSatError, match=r"not those of their card .* get it again"):
        load_model(tmp_path / "it")


def test_a_card_can_be_replaced_without_touching_the_rest(pipeline, tmp_path):
    card = cards.publish(pipeline(), tmp_path / "it", {"set": "toy"})
    want = load_model(tmp_path / "it").upscale(LR, 2)
    cards.write_card(tmp_path / "it", {**card, "results": {"I": 1.5}})
    assert cards.read_card(tmp_path / "it")["results"] == {"I": 1.5}
    np.testing.assert_array_equal(load_model(tmp_path / "it").upscale(LR, 2), want)


def test_nothing_is_overwritten_unasked(pipeline, tmp_path):
    cards.publish(pipeline(), tmp_path / "it", {"n": 1})
    with pytest.raises(OutputExistsError):
        cards.publish(pipeline(), tmp_path / "it", {"n": 2})
    assert cards.read_card(tmp_path / "it")["n"] == 1
