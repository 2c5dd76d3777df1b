from __future__ import annotations

import json

import pandas as pd
import pytest
from affine import Affine

SMALL = ("--tile", 32, "--block", 1, "--margin", 8, "--min-texture", 1e-4)


@pytest.fixture
def made(tmp_path, scene, mindgap):
    low, high, *_ = scene(tmp_path)
    out = tmp_path / "pairs"
    result = mindgap("data", "build", "--lr", low, "--hr", high, "--out", out, *SMALL)
    assert result.exit_code == 0, result.output
    return out, json.loads(result.stdout)[str(out)]


def test_build_prints_what_it_made_and_check_finds_nothing_wrong(made, mindgap):
    out, about = made
    assert about["factor"] == 2
    assert sum(about["tiles"].values()) == 16
    checked = mindgap("data", "check", out)
    assert checked.exit_code == 0, checked.output
    found = json.loads(checked.stdout)
    assert found["pairs"] == 16
    assert found["problems"] == []


def test_dn_of_two_products_are_declared_apart(tmp_path, scene, raster, mindgap):
    low, high, lr, hr = scene(tmp_path)
    raster(low, ((lr + 0.1) * 1e4).astype("uint16"), Affine(20, 0, 500_000, 0, -20, 4_200_020))
    at = Affine(10, 0, 500_010, 0, -10, 4_200_000)
    raster(high, (hr * 1e4).astype("uint16"), at, bands=(None,))
    out = tmp_path / "pairs"
    args = ("data", "build", "--lr", low, "--hr", high, "--out", out, "--radiometry", "s2-l2a")
    result = mindgap(*args, "--hr-radiometry", "planetscope-sr", "--hr-bands", "B08", *SMALL)
    assert result.exit_code == 0, result.output
    about = json.loads((out / "dataset.json").read_text())
    assert about["lr"]["radiometry"] == "B08: reflectance = DN * 0.0001 - 0.1, nodata 0"
    assert about["hr"]["radiometry"] == "B08: reflectance = DN * 0.0001, nodata 0"


def test_what_cannot_be_built_is_one_line_and_exit_code_1(tmp_path, scene, mindgap):
    low, high, *_ = scene(tmp_path)
    swapped = ("--lr", high, "--hr", low, "--out", tmp_path / "pairs")
    result = mindgap("data", "build", *swapped, *SMALL)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: hr.tif has finer pixels (10) than lr.tif (20): swap")
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "pairs").exists()


def test_check_names_every_fault(made, raster, mindgap):
    out, _ = made
    path = out / "manifest.parquet"
    table = pd.read_parquet(path)
    train, test = (table.index[table["split"] == s] for s in ("train", "test"))
    (out / table.loc[train[0], "hr"]).unlink()
    raster(  # half an LR pixel to the east
        out / table.loc[train[1], "lr"],
        table.index.to_numpy(float)[None, :16, None].repeat(16, 2).astype("float32") / 20,
        Affine(20, 0, table.loc[train[1], "left"] + 10, 0, -20, table.loc[train[1], "top"]),
    )
    table.loc[test[0], ["row", "col"]] = table.loc[train[2], ["row", "col"]] + [36, 0]
    table.loc[test[0], ["shift_x", "reliability"]] = 0.8, 0.95
    table.to_parquet(path)
    result = mindgap("data", "check", out)
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert len(found["problems"]) == len(result.stderr.splitlines()) == 3
    leak, *rest = found["problems"]
    assert leak.startswith(f"{table.loc[test[0], 'id']}: 4 px from a training tile")
    assert any("no such file" in p for p in rest)
    assert any("differ in origin" in p for p in rest)
    assert found["shifted"] == [table.loc[test[0], "id"]]


def test_check_of_another_folder_is_refused(tmp_path, mindgap):
    result = mindgap("data", "check", tmp_path)
    assert result.exit_code == 1
    assert "holds no dataset.json" in result.stderr
