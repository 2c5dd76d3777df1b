from __future__ import annotations

import json
import math

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy
from rich.console import Console

from lpips_sat.cli import options

from .conftest import BANDS, parsed, refuse_constant, scores

NAMES = ["LPIPS-Sat", "MAE", "RMSE", "PSNR", "SSIM", "SAM"]
KEYS = ["pred", "ref", "mask", "lr", "scores", "bands", "kind", "pixels", "valid_share", "seconds"]
KEYS += ["settings", "version", "alignment", "warnings"]


def error(dn, scale=1e-4):
    """pred - ref in reflectance, in float64."""
    pred, ref = (image.astype(np.float64) * scale for image in dn)
    return pred - ref


# --- what is printed


def test_a_table_goes_to_stdout_and_nothing_to_stderr(run, pair):
    result = run("score", *pair)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert "B04, B03, B02, B08 - 0.00 Mpx, 100.0% valid" in lines[0]
    rows = [line.strip("│ ").split("│") for line in lines if line.startswith("│")]
    cells = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    assert list(cells) == NAMES
    assert {name: row[2] for name, row in cells.items()} == {
        **dict.fromkeys(NAMES, "lower"),
        "PSNR": "higher",
        "SSIM": "higher",
    }
    assert [cells[name][1] for name in ("MAE", "PSNR", "SAM")] == ["reflectance", "dB", "degrees"]
    in_json = scores(run("score", *pair, "--json"))
    assert {name: float(row[0]) for name, row in cells.items()} == pytest.approx(in_json, abs=1e-4)


def test_json_is_whole_and_the_scores_are_those_of_numpy(run, pair, dn):
    found = parsed(run("score", *pair, "--json", "--factor", 4))
    assert list(found) == KEYS
    assert [item["name"] for item in found["scores"]] == [*NAMES, "ERGAS"]
    assert {tuple(item) for item in found["scores"]} == {
        ("name", "value", "unit", "higher_is_better", "per_band")
    }
    assert (found["pred"], found["ref"]) == tuple(map(str, pair))
    assert (found["bands"], found["kind"]) == (list(BANDS), "reflectance")
    assert (found["pixels"], found["valid_share"]) == (64 * 72, 1.0)
    assert found["seconds"] > 0
    value, e = {item["name"]: item["value"] for item in found["scores"]}, error(dn)
    assert value["LPIPS-Sat"] > 0
    assert value["MAE"] == pytest.approx(np.abs(e).mean(), rel=1e-6)
    assert value["RMSE"] == pytest.approx(math.sqrt((e**2).mean()), rel=1e-6)
    assert value["PSNR"] == pytest.approx(-10 * math.log10((e**2).mean()), rel=1e-6)
    ref = dn[1].astype(np.float64) * 1e-4
    relative = (e**2).mean(axis=(1, 2)) / ref.mean(axis=(1, 2)) ** 2
    assert value["ERGAS"] == pytest.approx(100 / 4 * math.sqrt(relative.mean()), rel=1e-6)


def test_json_says_what_the_scores_depend_on(run, pair):
    settings = parsed(run("score", *pair, "--json", "--factor", 4, "--data-range", 0.5))["settings"]
    assert settings["pred_radiometry"] == settings["ref_radiometry"]
    assert settings["pred_radiometry"].endswith("reflectance = DN * 0.0001, nodata 0")
    assert (settings["data_range"], settings["ratio"]) == (0.5, 0.25)
    assert settings["composite"] == ["B04", "B03", "B02"]
    assert set(settings["weights"]) == {"name", "version", "sha256"}
    assert len(settings["weights"]["sha256"]) == 64


def test_identical_rasters_have_an_infinite_psnr_in_words(run, pair):
    assert scores(run("score", pair[1], pair[1], "--json")) == {
        **dict.fromkeys(NAMES, 0.0),
        "PSNR": "inf",
        "SSIM": 1.0,
    }
    assert "inf" in run("score", pair[1], pair[1]).stdout


def test_a_score_that_is_not_defined_is_null(run, pair, put, tmp_path):
    lines = np.zeros((1, 64, 72), dtype=np.uint8)
    lines[0, ::8] = 1  # no window of SSIM fits
    args = ("score", *pair, "--mask", put(tmp_path / "mask.tif", lines))
    found = scores(run(*args, "--json"))
    assert found["SSIM"] is None
    assert all(math.isfinite(value) for name, value in found.items() if name != "SSIM")
    assert "undefined" in run(*args).stdout


def test_progress_on_a_terminal_goes_to_stderr_only(run, pair, monkeypatch):
    monkeypatch.setattr(options, "stderr", Console(stderr=True, force_terminal=True, width=80))
    result = run("score", *pair, "--json", "--metrics", "mae")
    assert scores(result).keys() == {"MAE"}
    assert "scoring" in result.stderr


# --- options


def test_some_metrics_in_the_order_asked_for_each_once(run, pair):
    result = run("score", *pair, "--json", "--metrics", "SSIM, mae,ssim")
    assert list(scores(result)) == ["SSIM", "MAE"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--metrics", "mea"), "'mea': choose from lpips-sat, mae, rmse, "),
        (("--suite", "mine"), "'mine': choose from default, fidelity, "),
        (("--weights", "lpips-sat"), "expected NAME=VALUE, got 'lpips-sat'"),
        (("--metrics", "mae,ergas"), "'ergas': ergas needs --factor"),
        (("--metrics", ","), "expected a comma-separated list, got ','"),
        (("--factor", "0.5"), "--factor"),
        (("--data-range", "0"), "--data-range"),
        (("--data-range", "nan"), "nan is not a finite number"),
        (("--factor", "inf"), "inf is not a finite number"),
        (("--data-range", "wide"), "--data-range"),
        (("--radiometry", "s2"), "'s2' is not one of"),
        (("--scale", "a,b"), "expected a comma-separated list, got 'a,b'"),
        (("--nodata", "none"), "--nodata"),
        (("third.tif",), "unexpected extra argument"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_is_right(run, pair, args, message):
    result = run("score", *pair, *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_an_argument_that_is_missing_exits_with_2(run, pair):
    result = run("score", pair[0])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Missing argument 'REF'" in result.stderr


def test_one_band_has_no_spectral_angle(run, pair):
    assert "SAM" not in scores(run("score", *pair, "--json", "--bands", "nir"))
    result = run("score", *pair, "--json", "--bands", "nir", "--metrics", "sam")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "sam needs two bands or more" in result.stderr


def test_bands_choose_from_named_bands(run, pair, dn):
    found = parsed(run("score", *pair, "--json", "--metrics", "mae", "--bands", "red,B8"))
    assert found["bands"] == ["B04", "B08"]
    assert found["scores"][0]["value"] == pytest.approx(np.abs(error(dn)[[0, 3]]).mean(), rel=1e-6)


@pytest.fixture
def bare(dn, put, tmp_path):
    """The pair as GeoTIFFs that declare nothing."""
    return tuple(put(tmp_path / f"bare_{n}.tif", image) for n, image in zip("pr", dn, strict=True))


def test_bands_name_those_of_files_without_names(run, bare, dn):
    args = ("--json", "--metrics", "mae", "--radiometry", "s2-l2a-harmonized")
    found = parsed(run("score", *bare, *args, "--bands", "B04,B03,B02,B08"))
    assert found["bands"] == list(BANDS)
    assert found["scores"][0]["value"] == pytest.approx(np.abs(error(dn)).mean(), rel=1e-6)
    assert run("score", *bare, *args).exit_code == 1  # and without names it is refused


def test_scale_offset_and_nodata_are_applied(run, dn, put, tmp_path):
    images = [image.copy() for image in dn]
    images[0][1, :9] = images[1][3, :, :5] = 7
    files = [put(tmp_path / n, i, bands=BANDS) for n, i in zip("pr", images, strict=True)]
    valid = np.logical_and.reduce([(image != 7).all(axis=0) for image in images])
    args = ("--json", "--scale", "2e-4", "--offset", "-0.1", "--nodata", "7")
    found = parsed(run("score", *files, *args))
    assert found["valid_share"] == pytest.approx(valid.mean())
    mae = found["scores"][1]["value"]
    assert mae == pytest.approx(np.abs(error(images, 2e-4)[:, valid]).mean(), rel=1e-6)
    ref = images[1] * 2e-4 - 0.1
    relative = (error(images, 2e-4)[:, valid] ** 2).mean(axis=1) / ref[:, valid].mean(axis=1) ** 2
    ergas = scores(run("score", *files, *args, "--metrics", "ergas", "--factor", 2))["ERGAS"]
    assert ergas == pytest.approx(50 * math.sqrt(relative.mean()), rel=1e-5)


def test_a_scale_per_band_is_applied_in_the_order_of_the_file(run, bare, dn):
    args = ("--json", "--metrics", "mae", "--bands", ",".join(BANDS), "--offset", "0")
    found = scores(run("score", *bare, *args, "--scale", "1e-4,2e-4,3e-4,4e-4"))
    per_band = np.abs(error(dn)).mean(axis=(1, 2)) * [1, 2, 3, 4]
    assert found["MAE"] == pytest.approx(per_band.mean(), rel=1e-6)


@pytest.mark.parametrize(("driver", "suffix"), [("PNG", ".png"), ("GTiff", ".tif")])
def test_plain_pictures_are_scored_as_display_values(run, dn, put, tmp_path, driver, suffix):
    pictures = [np.minimum(image[:3] // 12, 255).astype(np.uint8) for image in dn]
    files = [
        put(tmp_path / f"{n}{suffix}", image, driver=driver, crs=None)
        for n, image in zip("pr", pictures, strict=True)
    ]
    args = ("--json", "--radiometry", "uint8", "--bands", "red,green,blue")
    found = parsed(run("score", *files, *args))
    assert (found["kind"], found["bands"]) == ("display", ["B04", "B03", "B02"])
    mae = np.abs(error(pictures, 1 / 255)).mean()
    assert found["scores"][1]["value"] == pytest.approx(mae, rel=1e-6)
    assert found["scores"][1]["unit"] == "display"
    undeclared = run("score", *files, "--bands", "red,green,blue")
    assert undeclared.exit_code == 1
    assert "--radiometry uint8" in undeclared.stderr


def test_the_mask_leaves_pixels_out(run, pair, dn, put, tmp_path):
    keep = np.ones((1, 64, 72), dtype=np.uint8)
    keep[0, 10:40, 20:] = 0
    mask = put(tmp_path / "mask.tif", keep)
    found = parsed(run("score", *pair, "--json", "--mask", mask))
    counted = np.abs(error(dn))[:, keep[0] == 1]
    assert found["scores"][1]["value"] == pytest.approx(counted.mean(), rel=1e-6)
    assert found["valid_share"] == pytest.approx(keep.mean())


def test_the_data_range_moves_psnr_and_ssim_only(run, pair):
    one, two = (scores(run("score", *pair, "--json", "--data-range", r)) for r in (1, 2))
    assert two["PSNR"] - one["PSNR"] == pytest.approx(20 * math.log10(2))
    assert two["SSIM"] > one["SSIM"]
    assert all(one[name] == two[name] for name in NAMES if name not in ("PSNR", "SSIM"))


def test_values_out_of_range_name_their_file(run, pair, put, dn, tmp_path):
    wrong = put(tmp_path / "wrong.tif", dn[0].astype(np.float32), bands=BANDS)
    refused = run("score", wrong, pair[1])
    assert refused.exit_code == 1
    assert f"the prediction {wrong}: reflectance outside [-0.5, 3]" in refused.stderr


# --- the installed command


def test_the_installed_command_scores_and_writes_the_map(spawn, run, pair, tmp_path):
    done = spawn("score", *pair, "--json", "--map", "map.tif", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == "map: map.tif\n"
    found = json.loads(done.stdout, parse_constant=refuse_constant)
    here = scores(run("score", *pair, "--json"))
    assert {i["name"]: i["value"] for i in found["scores"]} == pytest.approx(here, rel=1e-5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.tif", "pair"]


def test_a_floating_prediction_is_compared_with_a_reference_in_dn(run, tmp_path, put, textured):
    dn = np.round(textured(3, 64, 64) * 10_000 + 1000).astype(np.uint16)
    values = ((dn.astype(np.float64) - 1000) / 10_000 + 0.01).astype(np.float32)
    names = ["B04", "B03", "B02"]
    ref = put(tmp_path / "ref.tif", dn, bands=names)
    pred = put(tmp_path / "pred.tif", values, bands=names)
    found = parsed(run("score", pred, ref, "--radiometry", "s2-l2a", "--json"))
    mae = next(s["value"] for s in found["scores"] if s["name"] == "MAE")
    assert mae == pytest.approx(0.01, abs=1e-6)
    refused = run("score", pred, ref, "--scale", "1e-4", "--offset", "-0.1")
    assert refused.exit_code == 1
    assert "one --scale and --offset cannot be right for both" in refused.stderr
    refused = run("score", pred, ref, "--radiometry", "s2-l2a-harmonized", "--offset", "-0.1")
    assert refused.exit_code == 1
    assert "one --offset cannot be right for both" in refused.stderr


@pytest.mark.parametrize(
    "law", [("--radiometry", "s2-l2a"), ("--scale", "1e-4", "--offset", "-0.1", "--nodata", "0")]
)
def test_a_floating_prediction_in_dn_is_read_as_its_reference_is(run, tmp_path, put, textured, law):
    dn = np.round(textured(3, 64, 64) * 10_000 + 1000).astype(np.uint16)
    names = ["B04", "B03", "B02"]
    ref = put(tmp_path / "ref.tif", dn, bands=names)
    floating = put(tmp_path / "float.tif", (dn + 100).astype(np.float32), bands=names)
    refused = run("score", floating, ref, *law)
    assert refused.exit_code == 1
    assert "--pred-dn" in refused.stderr
    found = parsed(run("score", floating, ref, *law, "--pred-dn", "--json"))
    assert found["settings"]["pred_radiometry"] == found["settings"]["ref_radiometry"]
    assert {s["name"]: s["value"] for s in found["scores"]}["MAE"] == pytest.approx(0.01, abs=1e-6)


def test_what_is_said_of_floating_dn_is_not_said_of_the_reference(run, tmp_path, put, textured):
    values = textured(3, 64, 64).astype(np.float32)
    names = ["B04", "B03", "B02"]
    ref = put(tmp_path / "ref.tif", values, bands=names)
    pred = put(tmp_path / "pred.tif", values * 10_000, bands=names)
    found = run("score", pred, ref, "--radiometry", "s2-l2a-harmonized", "--pred-dn", "--json")
    settings = parsed(found)["settings"]
    assert "DN * 0.0001," in settings["pred_radiometry"]
    assert "DN * 1," in settings["ref_radiometry"]
    refused = run("score", pred, ref, "--scale", "1e-4", "--offset", "0", "--pred-dn")
    assert refused.exit_code == 1
    assert "cannot be right for both" in refused.stderr


@pytest.mark.parametrize("extra", [(), ("--out", "out.json")])
def test_two_zarr_stores_are_two_rasters(run, tmp_path, put, textured, monkeypatch, extra):
    with rasterio.Env() as env:
        if "Zarr" not in env.drivers():
            pytest.skip("this GDAL reads no Zarr")
    monkeypatch.chdir(tmp_path)
    values = textured(3, 64, 64).astype(np.float32)
    for name in ("pred.zarr", "ref.zarr"):
        source = put(tmp_path / "one.tif", values)
        copy(source, tmp_path / name, driver="Zarr")
    result = run("score", "pred.zarr", "ref.zarr", "--bands", "B04,B03,B02", "--json", *extra)
    assert result.exit_code == 0, result.stderr
    if extra:
        assert json.loads(result.stdout)["pairs"] == 1


def test_a_composite_can_be_named_and_metrics_given_twice(run, tmp_path, put, textured):
    values = textured(3, 64, 64).astype(np.float32)
    ref = put(tmp_path / "ref.tif", values, bands=["B11", "B05", "B06"])
    failed = run("score", ref, ref)
    assert failed.exit_code == 1
    assert "--composite" in failed.stderr
    named = run("score", ref, ref, "--composite", "B11,B06,B05", "--json")
    assert parsed(named)["settings"]["composite"] == ["B11", "B06", "B05"]
    twice = parsed(run("score", ref, ref, "--metrics", "mae", "--metrics", "psnr", "--json"))
    assert [s["name"] for s in twice["scores"]] == ["MAE", "PSNR"]
