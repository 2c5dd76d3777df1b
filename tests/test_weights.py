import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lpips_sat import LPIPSSat, weights
from lpips_sat.errors import WeightsError
from lpips_sat.weights import WEIGHTS, cards, shipped

ROOT = Path(__file__).parents[1]

MEGABYTE = 1_000_000
every_folder = pytest.mark.parametrize("name", shipped())


def test_there_is_a_default():
    assert "default" in shipped()
    assert set(cards()) == set(shipped())


def test_everything_shipped_together_is_at_most_20_megabytes():
    sizes = [path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()]
    assert sum(sizes) < 20 * MEGABYTE


def test_nothing_shipped_needs_unpickling():
    suffixes = {path.suffix for path in WEIGHTS.glob("*/*")}
    assert suffixes <= {".safetensors", ".json", ".md"}


def ancestry(card: dict) -> list[dict]:
    """A card and those of the weights that these were made from."""
    before = [*card.get("mean_of", []), *([card["backbone"]] if "backbone" in card else [])]
    return [card, *(older for made_from in before for older in ancestry(made_from))]


@every_folder
def test_a_card_says_what_the_weights_are_and_what_they_were_made_from(name):
    card = cards()[name]
    assert card["name"] == name
    for field in ("input", "licence", "variant", "judgements", "unit", "validation"):
        assert card[field]
    assert any("pretraining" in made_from for made_from in ancestry(card))
    assert card["heads" if card["variant"].startswith("lin") else "tuning"]
    for source in ("EuroSAT", "PlanetScope", "NAIP", "Copernicus Sentinel"):
        assert source in card["licence"]


@every_folder
def test_a_card_says_that_the_raters_are_not_people(name):
    assert "not people" in cards()[name]["raters"]


@every_folder
def test_a_card_holds_the_digest_of_its_weights(name):
    content = (WEIGHTS / name / "model.safetensors").read_bytes()
    assert cards()[name]["sha256"] == hashlib.sha256(content).hexdigest()


def test_the_bill_of_materials_lists_every_file_of_weights_with_its_digest():
    bill = json.loads((ROOT / "docs" / "weights.cdx.json").read_text())
    listed = {
        next(p["value"] for p in component["properties"] if p["name"] == "file"): component
        for component in bill["components"]
    }
    folders = (ROOT / "lpips_sat" / "weights", ROOT / "sr_models" / "checkpoints")
    files = [file for folder in folders for file in folder.rglob("*.safetensors")]
    assert set(listed) == {str(file.relative_to(ROOT)) for file in files}
    for name, component in listed.items():
        digest = hashlib.sha256((ROOT / name).read_bytes()).hexdigest()
        assert component["hashes"] == [{"alg": "SHA-256", "content": digest}], name


def test_changed_weights_are_refused_on_loading(tmp_path, monkeypatch):
    shutil.copytree(WEIGHTS / "default", tmp_path / "default")
    monkeypatch.setattr(weights, "WEIGHTS", tmp_path)
    weights.check_shipped("default")
    path = tmp_path / "default" / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(WeightsError, match=r"not those of their card .* install the package again"):
        LPIPSSat()


@every_folder
def test_the_evidence_puts_lpips_sat_above_ssim_with_intervals(name):
    rows = {row["metric"]: row for row in cards()[name]["evidence"]}
    for row in rows.values():
        assert 0 <= row["low"] <= row["agreement"] <= row["high"] <= 1
        assert 0 < row["references"] <= row["trials"]
    assert rows["LPIPS-Sat"]["agreement"] > rows["SSIM"]["agreement"]
    assert rows["LPIPS-Sat"]["trials"] == rows["SSIM"]["trials"]


@every_folder
def test_heads_are_finite_and_non_negative_and_some_channel_counts(name):
    heads = torch.cat(list(LPIPSSat(name).heads))
    assert heads.isfinite().all()
    assert (heads >= 0).all()
    assert (heads > 0).any()


@every_folder
def test_a_shipped_name_and_its_folder_are_the_same_metric(name):
    by_name = LPIPSSat(name)
    by_folder = LPIPSSat.from_pretrained(WEIGHTS / name, radiometry="reflectance")
    pred, ref = 0.3 * torch.rand(2, 2, 3, 40, 36, generator=torch.Generator().manual_seed(0))
    assert torch.equal(by_name(pred, ref), by_folder(pred, ref))
    assert by_name.card == by_folder.card == cards()[name]


@every_folder
def test_no_path_of_the_machine_that_trained_is_shipped(name):
    text = json.dumps(json.loads((WEIGHTS / name / "config.json").read_text()))
    assert not any(mark in text for mark in ("/home/", "/tmp/", "/root/", "../"))


@every_folder
def test_a_round_trip_through_half_the_resolution_scores_about_the_unit_of_the_card(name):
    assert "x2 bicubic round trip" in cards()[name]["unit"]
    rng = np.random.default_rng(1)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(96), np.fft.fftfreq(96)))
    spectrum = np.fft.fft2(rng.standard_normal((8, 1, 96, 96))) / np.maximum(frequency, 1 / 96)
    land = np.fft.ifft2(spectrum).real  # amplitude 1/f, as natural images have
    land = 0.12 + 0.03 * land / land.std(axis=(2, 3), keepdims=True)
    ref = torch.from_numpy(land.clip(0.01).astype(np.float32)).expand(-1, 3, -1, -1)
    small = F.interpolate(ref, scale_factor=0.5, mode="bicubic", antialias=True)
    pred = F.interpolate(small, scale_factor=2, mode="bicubic")
    assert 0.1 < LPIPSSat(name)(pred, ref).mean() < 10
