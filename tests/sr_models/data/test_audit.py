from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine
from PIL import Image

from lpips_sat.errors import OutputExistsError
from sr_models.data.audit import Limits, audit_pairs, read_audit, write_audit
from sr_models.data.build import Source, build_pairs
from sr_models.data.errors import PairError
from tests.sr_models.data.conftest import SMALL

LR_AT, HR_AT = Affine(20, 0, 500_000, 0, -20, 4_200_020), Affine(10, 0, 500_010, 0, -10, 4_200_000)


@pytest.fixture(scope="module")
def root(tmp_path_factory, scene, raster):
    """A set whose LR is 1.1 times HR's means plus 0.02; the last rows are open water."""
    folder = tmp_path_factory.mktemp("set")
    low, high, lr, hr = scene(folder)
    hr[:, 80:] = 0.03 + 1e-5 * np.arange(180)
    lr[:, 41:] = 0.03
    raster(low, 1.1 * lr + 0.02, LR_AT)
    raster(high, hr, HR_AT)
    sources = (
        Source(low, date="2024-06-30T10:10", view=3.0),
        Source(high, date="2024-06-28T22:10", view=20.0),
    )
    build_pairs(*sources, folder / "pairs", layout=SMALL)
    return folder / "pairs"


@pytest.fixture(scope="module")
def audit(root):
    return audit_pairs(root)


def test_every_pair_is_a_row_and_the_line_between_the_sensors_is_found(root, audit):
    manifest = pd.read_parquet(root / "manifest.parquet")
    used = manifest[manifest["split"] != ""]
    assert list(audit.table["id"]) == list(used["id"])
    textured = audit.table[audit.table["textured"]]
    assert set(audit.table["split"][~audit.table["textured"]]) == {"test_untextured"}
    np.testing.assert_allclose(textured["gain_B08"], 1.1, rtol=5e-3)
    np.testing.assert_allclose(textured["offset_B08"], 0.02, atol=1e-3)
    assert textured["shift"].max() < 0.05
    assert audit.pooled.loc[0, "gain"] == pytest.approx(1.1, rel=1e-4)
    assert audit.pooled.loc[0, "correlation"] == pytest.approx(1)
    summary = audit.summary().set_index(["measure", "textured"])
    assert summary.loc[("gain_B08", True), "median"] == textured["gain_B08"].median()
    assert summary.loc[("gain_B08", True), "pairs"] == len(textured)
    assert summary.loc[("mtf_0.5", True), "median"] == pytest.approx(1, abs=0.01)
    assert ("spectral_angle", True) not in summary.index  # one band has none


def test_days_and_views_come_from_the_manifest(audit):
    assert (audit.table["days"] == 1.5).all()
    assert (audit.table["view"] == -17).all()
    assert set(audit.outside.values()) == {"views 17 degrees apart"}


def test_a_set_without_dates_is_audited_too(root, tmp_path):
    table = pd.read_parquet(root / "manifest.parquet")
    for name in ("lr", "hr", "dataset.json"):
        (tmp_path / name).symlink_to(root / name)
    columns = ["lr_date", "hr_date", "lr_view", "hr_view"]
    table.drop(columns=columns).to_parquet(tmp_path / "manifest.parquet")
    audit = audit_pairs(tmp_path)
    assert audit.table[["days", "view"]].isna().all().all()
    assert audit.outside == {}


@pytest.fixture
def spoiled(root, tmp_path):
    """The set with one LR image a pixel to the right, one too bright, one without a likeness."""
    table = pd.read_parquet(root / "manifest.parquet")
    names = table.loc[table["split"].isin(["train", "val", "test"]), "id"].tolist()[:3]
    water = table.loc[table["split"] == "test_untextured", "id"].iloc[0]
    (tmp_path / "lr").mkdir()
    changes = {
        names[0]: lambda x: np.roll(x, 1, axis=2),
        names[1]: lambda x: 1.5 * x,
        names[2]: lambda x: x.transpose(0, 2, 1),
        water: lambda x: x + 0.2,
    }
    for path in (root / "lr").iterdir():
        with rasterio.open(path) as src:
            values, profile = src.read(), src.profile
        with rasterio.open(tmp_path / "lr" / path.name, "w", **profile) as dst:
            dst.descriptions = ("B08",)
            dst.write(changes.get(path.stem, lambda x: x)(values))
    for name in ("hr", "dataset.json", "manifest.parquet"):
        (tmp_path / name).symlink_to(root / name)
    return tmp_path, [*names, water]


def test_pairs_outside_the_limits_are_listed_with_reasons_and_stay_in_the_table(spoiled, audit):
    folder, (shifted, bright, strange, water) = spoiled
    found = audit_pairs(folder, limits=Limits(view=20))
    assert list(found.table["id"]) == list(audit.table["id"])
    assert set(found.outside) == {shifted, bright, strange, water}
    assert re.match(r"shift (0\.9|1\.0)\d LR px", found.outside[shifted])
    assert found.outside[bright].startswith("gain 1.65 of B08; bias")
    assert found.outside[strange].startswith("correlation")
    assert found.outside[water].startswith("bias 0.2")  # and no word of its correlation
    lenient = Limits(view=20, shift=2, gain=2, correlation=-1, bias=0.3)
    assert audit_pairs(folder, limits=lenient).outside == {}


def test_what_is_written_is_what_was_found(audit, tmp_path):
    write_audit(audit, tmp_path / "audit")
    again = read_audit(tmp_path / "audit")
    pd.testing.assert_frame_equal(again.summary(), audit.summary())
    assert (again.outside, again.limits, again.name) == (audit.outside, audit.limits, "pairs")
    pd.testing.assert_frame_equal(again.pooled, audit.pooled)
    summary = pd.read_csv(tmp_path / "audit" / "summary.csv")
    assert list(summary["measure"]) == list(audit.summary()["measure"])
    assert dict(pd.read_csv(tmp_path / "audit" / "outside.csv").values) == audit.outside
    for name in ("shift", "radiometry", "sharpness", "noise", "acquisition"):
        with Image.open(tmp_path / "audit" / f"{name}.png") as image:
            assert image.width > 300
            assert len(image.convert("RGB").getcolors(2**24)) > 20  # something is drawn
    with pytest.raises(OutputExistsError):
        write_audit(audit, tmp_path / "audit")


def test_an_audit_that_is_none_is_refused(tmp_path):
    with pytest.raises(PairError, match="mindgap audit --out"):
        read_audit(tmp_path)
    (tmp_path / "audit.parquet").write_bytes(b"no")
    with pytest.raises(PairError, match="is damaged"):
        read_audit(tmp_path)


@pytest.mark.parametrize("wrong", [{"shift": -1}, {"correlation": 2}, {"gain": 0.9}])
def test_limits_without_meaning_are_refused(wrong):
    with pytest.raises(PairError, match="expected limits"):
        Limits(**wrong)


def test_the_command_lists_pairs_outside_and_fails_only_when_asked(root, mindgap, tmp_path):
    out = tmp_path / "audit"
    plain = mindgap("audit", root, "--out", out, "--no-figures")
    assert plain.exit_code == 0, plain.output
    assert "B08 = 1.100 x B08 +0.0200" in plain.stdout
    assert "views 17 degrees apart" in plain.stdout
    assert sorted(p.name for p in out.iterdir()) == ["audit.parquet", "outside.csv", "summary.csv"]
    strict = mindgap("audit", root, "--strict", "--json")
    assert strict.exit_code == 1
    found = json.loads(strict.stdout)
    assert len(found["outside"]) == found["pairs"] == 16
    assert found["limits"]["view"] == 15
    passed = mindgap("audit", root, "--strict", "--max-view", 20)
    assert passed.exit_code == 0, passed.output
    assert "outside the limits: 0 pairs" in passed.stdout
    again = mindgap("audit", root, "--out", out)
    assert again.exit_code == 1
    assert "--overwrite" in again.stderr
    assert "None" not in mindgap("audit", "--help").stdout


def test_an_audit_of_another_folder_is_one_line(tmp_path, mindgap):
    result = mindgap("audit", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "holds no dataset.json" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_dates_are_said_to_build(tmp_path, scene, mindgap):
    low, high, *_ = scene(tmp_path)
    small = ("--tile", 32, "--block", 1, "--margin", 8, "--min-texture", 1e-4)
    args = ("data", "build", "--lr", low, "--hr", high, *small, "--lr-date")
    out = tmp_path / "pairs"
    made = mindgap(*args, "2024-06-30", "--hr-date", "2024-06-29", "--hr-view", 12, "--out", out)
    assert made.exit_code == 0, made.output
    row = pd.read_parquet(out / "manifest.parquet").iloc[0]
    assert (row["lr_date"], row["hr_date"], row["hr_view"]) == ("2024-06-30", "2024-06-29", 12)
    assert np.isnan(row["lr_view"])
    wrong = mindgap(*args, "June", "--out", tmp_path / "other")
    assert wrong.exit_code == 1
    assert "'June' is no date" in wrong.stderr
    assert not (tmp_path / "other").exists()
