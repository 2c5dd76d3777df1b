"""`lpips-sat score` for many pairs, as a user calls it."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
from rich.console import Console

from lpips_sat.cli import options
from lpips_sat.results import read_results
from lpips_sat.work import ScoreOptions

CHEAP = ("--metrics", "mae,psnr")


@pytest.fixture
def folders(pair, tmp_path):
    """Three copies of the pair, in two folders."""
    for path, role in zip(pair, ("pred", "ref"), strict=True):
        (tmp_path / role).mkdir()
        for name in ("a", "b", "c"):
            shutil.copy(path, tmp_path / role / f"{name}.tif")
    return tmp_path / "pred", tmp_path / "ref"


def alone(run, pair):
    found = json.loads(run("score", *pair, "--json", *CHEAP).stdout)
    return {item["name"]: item["value"] for item in found["scores"]}


def test_two_folders_become_a_summary_and_a_table(run, folders, pair, tmp_path):
    out = tmp_path / "out.parquet"
    result = run("score", *folders, *CHEAP, "--out", out)
    assert (result.exit_code, result.stderr) == (0, f"table: {out}\n")
    assert "3 of 3 pairs scored, 3 images" in result.stdout
    found = read_results(out)
    assert list(found.table["id"]) == ["a", "b", "c"]
    for name, value in alone(run, pair).items():
        assert found.table[name].tolist() == pytest.approx([value] * 3, rel=1e-12)
        assert f"{value:.4f}" in result.stdout
    again = run("score", *folders, *CHEAP, "--out", out)
    assert again.exit_code == 1
    assert "--overwrite" in again.stderr
    assert run("score", *folders, *CHEAP, "--out", out, "--overwrite").exit_code == 0


def test_json_is_the_summary_with_provenance(run, folders, pair):
    result = run("score", *folders, *CHEAP, "--json", "--data-range", 0.5)
    found = json.loads(result.stdout)
    assert (found["pairs"], found["failed"], found["failures"]) == (3, 0, [])
    psnr = found["metrics"]["PSNR"]
    assert psnr["settings"] == {"data_range": 0.5}
    assert (psnr["mean"]["count"], psnr["mean"]["clusters"]) == (3, 3)
    assert psnr["mean"]["low"] == pytest.approx(psnr["mean"]["mean"])
    assert found["pred_radiometry"] == found["ref_radiometry"]


def test_the_manifest_is_never_replaced_by_the_table(run, folders):
    manifest = folders[0].parent / "pairs.csv"
    manifest.write_text("pred,ref\npred/a.tif,ref/a.tif\n")
    before = manifest.read_bytes()
    refused = run("score", manifest, *CHEAP, "--out", manifest, "--overwrite")
    assert refused.exit_code == 1
    assert "is an input" in refused.stderr
    assert manifest.read_bytes() == before


def test_tables_of_other_masks_are_not_compared(run, folders, put, dn, tmp_path):
    """Halves of the same size: nothing but their pixels tells them apart."""
    valid = np.zeros_like(dn[0][:1], dtype=np.uint8)
    valid[..., : valid.shape[2] // 2] = 1
    for name, mask in (("left", valid), ("right", valid[..., ::-1])):
        (tmp_path / name).mkdir()
        for i in "abc":
            put(tmp_path / name / f"{i}.tif", np.ascontiguousarray(mask))
        words = ("--mask", tmp_path / name, "--out", tmp_path / f"{name}.csv")
        assert run("score", *folders, *CHEAP, *words).exit_code == 0
    (tmp_path / "bytes").mkdir()
    for i in "abc":  # the left half again, as 0 and 255
        put(tmp_path / "bytes" / f"{i}.tif", (255 * valid).astype(np.uint16))
    words = ("--mask", tmp_path / "bytes", "--out", tmp_path / "bytes.csv")
    assert run("score", *folders, *CHEAP, *words).exit_code == 0
    assert run("compare", tmp_path / "left.csv", tmp_path / "bytes.csv").exit_code == 0
    refused = run("compare", tmp_path / "left.csv", tmp_path / "right.csv")
    assert refused.exit_code == 1
    assert "left/a.tif ... with other pixels / " in " ".join(refused.stderr.split())


def test_nodata_that_is_nan_survives_the_provenance(run, folders, tmp_path):
    out = tmp_path / "out.csv"
    assert run("score", *folders, *CHEAP, "--nodata", "nan", "--out", out).exit_code == 0
    said = ScoreOptions.from_json(read_results(out).provenance["options"]).radiometry
    assert math.isnan(said.nodata)


def test_a_bad_pair_is_told_and_the_exit_code_is_1(run, folders, tmp_path):
    (folders[0] / "b.tif").write_text("not a raster")
    result = run("score", *folders, *CHEAP, "--out", tmp_path / "out.csv")
    assert result.exit_code == 1
    assert "2 of 3 pairs scored" in result.stdout
    assert "failed: b: " in result.stderr
    assert list(read_results(tmp_path / "out.csv").table["status"]) == ["ok", "failed", "ok"]


def test_a_missing_counterpart_ends_it_unless_allowed(run, folders, tmp_path):
    (folders[1] / "b.tif").unlink()
    out = tmp_path / "out.csv"
    result = run("score", *folders, *CHEAP, "--out", out)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "b.tif" in result.stderr
    assert not out.exists()
    result = run("score", *folders, *CHEAP, "--out", out, "--allow-missing")
    assert result.exit_code == 0
    assert "left out, without a counterpart" in result.stderr
    assert list(read_results(out).table["id"]) == ["a", "c"]


@pytest.mark.parametrize("args", [("PRED", "REF"), ("pairs.csv",), ("PRED", "REF", "--tiles")])
def test_missing_images_are_only_allowed_in_folders(run, pair, args):
    files = {"PRED": pair[0], "REF": pair[1]}
    result = run("score", *(files.get(arg, arg) for arg in args), "--allow-missing")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--allow-missing is for two folders" in result.stderr


def test_what_a_suite_leaves_out_is_told_of_sets_as_of_pairs(run, folders, pair, tmp_path):
    said = "left out of spectral: ergas needs --factor\n"
    manifest = tmp_path / "pairs.csv"
    manifest.write_text("pred,ref\npred/a.tif,ref/a.tif\n")
    for given in (pair, folders, [manifest], [*pair, "--tiles"]):
        result = run("score", *given, "--suite", "spectral")
        assert (result.exit_code, result.stderr) == (0, said)
    one_band = run("score", *folders, "--suite", "default", "--bands", "B08", "--factor", 4)
    assert one_band.stderr == "left out of default: sam needs two bands or more\n"
    nothing = run("score", *folders, "--suite", "spectral", "--factor", 4)
    assert (nothing.exit_code, nothing.stderr) == (0, "")


def test_a_manifest_with_scenes_and_masks(run, folders, put, dn, tmp_path):
    mask = dn[0][:1] * 0 + 1
    mask[:, :, :36] = 0
    put(tmp_path / "mask.tif", mask)
    manifest = tmp_path / "pairs.csv"
    rows = ["pred,ref,mask,scene", "pred/a.tif,ref/a.tif,mask.tif,T1", "pred/b.tif,ref/b.tif,,T1"]
    manifest.write_text("\n".join(rows))
    result = run("score", manifest, *CHEAP, "--out", tmp_path / "out.json")
    assert result.exit_code == 0, result.stderr
    table = read_results(tmp_path / "out.json").table
    assert table["valid_share"].tolist() == [0.5, 1.0]
    assert table["scene"].tolist() == ["T1", "T1"]
    assert " - " in result.stdout  # one scene has no interval


def test_pixels_that_predictions_lack_are_told(run, folders, dn, put, tmp_path):
    whole = run("score", *folders, *CHEAP)
    assert "3 images, 100.0% valid" in whole.stdout
    assert "warning" not in whole.stderr
    holes = dn[0].copy()
    holes[:, :, :36] = 0
    put(folders[0] / "b.tif", holes, bands=("B04", "B03", "B02", "B08"), scale=1e-4, nodata=0)
    result = run("score", *folders, *CHEAP)
    assert "3 images, 83.3% valid" in result.stdout
    assert "in 1 of 3 rows more than 10% of the pixels do not count (in b 50.0%)" in result.stderr
    assert json.loads(run("score", *folders, *CHEAP, "--json").stdout)["valid_share"] == 5 / 6


def test_one_pair_with_a_table_is_a_set_of_one(run, pair, tmp_path):
    args = ("score", *pair, *CHEAP, "--tiles", "--tile-size", 32)
    result = run(*args, "--out", tmp_path / "out.csv")
    assert result.exit_code == 0, result.stderr
    assert "1 of 1 pairs scored, 6 tiles" in result.stdout
    assert len(read_results(tmp_path / "out.csv").table) == 2 * 3


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("pred.tif",), "Missing argument 'REF'"),
        (("pairs.csv", "--mask", "m.tif"), "column mask"),
        (("DIR", "DIR", "--map", "map.tif"), "--map draws one pair"),
        (("DIR", "DIR", "--metrics", "mea"), "'mea': choose from"),
        (("DIR", "DIR", "--metrics", "ergas"), "ergas needs --factor"),
        (("DIR", "DIR", "--workers", "0"), "--workers"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(run, folders, args, said):
    result = run("score", *(folders[0] if arg == "DIR" else arg for arg in args))
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_the_kind_of_the_table_is_checked_before_the_work(run, folders, tmp_path):
    result = run("score", *folders, "--out", tmp_path / "out.xlsx")
    assert result.exit_code == 2
    assert "ends in .parquet, .csv, .json" in result.stderr


def test_progress_on_a_terminal_counts_failures(run, folders, monkeypatch):
    monkeypatch.setattr(options, "stderr", Console(stderr=True, force_terminal=True, width=80))
    (folders[0] / "b.tif").write_text("not a raster")
    result = run("score", *folders, *CHEAP)
    assert "3 pairs, 1 failed" in result.stderr
