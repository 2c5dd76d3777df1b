"""What can go wrong with `score`: one short message, an exit code, and nothing written."""

from __future__ import annotations

import numpy as np
import pytest

from lpips_sat import scoring

from .conftest import tree

BANDS = ("B04", "B03", "B02", "B08")


# --- each writes its files and gives (arguments, exit code, message)


def missing(pair, dn, put):
    return (pair[0].with_name("absent.tif"), pair[1]), 1, "absent.tif: no such file"


def missing_mask(pair, dn, put):
    return (*pair, "--mask", "absent.tif"), 1, "absent.tif: no such file"


def folder(pair, dn, put):
    return (pair[0].parent, pair[1]), 1, "is a folder"


def not_a_raster(pair, dn, put):
    pair[0].write_text("band,value\n4,0.1\n")
    return pair, 1, "pred.tif is not a raster"


def empty(pair, dn, put):
    pair[0].write_bytes(b"")
    return pair, 1, "pred.tif is not a raster"


def without_most_of_its_header(pair, dn, put):
    pair[0].write_bytes(pair[0].read_bytes()[:60])
    return pair, 1, "pred.tif"


def without_its_last_blocks(pair, dn, put):
    data = pair[0].read_bytes()
    pair[0].write_bytes(data[: len(data) * 2 // 3])
    return pair, 1, "cannot read rows 0 to 63 of"


def no_overlap(pair, dn, put):
    put(pair[0], dn[0], bands=BANDS, scale=1e-4, origin=(500_000.0, 4_180_000.0))
    return pair, 1, "do not overlap"


def half_a_pixel_off(pair, dn, put):
    put(pair[0], dn[0], bands=BANDS, scale=1e-4, origin=(435_005.0, 4_180_000.0))
    return pair, 1, "origin (off by"


def other_size(pair, dn, put):
    put(pair[0], dn[0][:, :60], bands=BANDS, scale=1e-4)
    return pair, 1, "size (72 x 60 / 72 x 64 px)"


def other_crs(pair, dn, put):
    put(pair[0], dn[0], bands=BANDS, scale=1e-4, crs="EPSG:32617")
    return pair, 1, "CRS (EPSG:32617 / EPSG:32618)"


def other_mask(pair, dn, put):
    mask = put(pair[0].with_name("mask.tif"), np.ones((1, 9, 9), dtype=np.uint8))
    return (*pair, "--mask", mask), 1, "size (9 x 9 / 72 x 64 px)"


def unknown_band(pair, dn, put):
    return (*pair, "--bands", "B04,B12"), 1, "band B12 is not in both"


def no_common_band(pair, dn, put):
    put(pair[0], dn[0][:1], bands=("B12",), scale=1e-4)
    return pair, 1, "no band in common"


def undeclared(pair, dn, put):
    put(pair[0], dn[0], bands=BANDS)
    return pair, 1, "uint16 numbers without a declared scale"


def dn_as_reflectance(pair, dn, put):
    put(pair[0], dn[0].astype(np.float32), bands=BANDS)
    return pair, 1, "reflectance outside [-0.5, 3]"


def all_nodata(pair, dn, put):
    put(pair[0], np.zeros_like(dn[0]), bands=BANDS, scale=1e-4, nodata=0)
    return pair, 1, "no pixel is valid in both images"


def ten_pixels(pair, dn, put):
    for path, image in zip(pair, dn, strict=True):
        put(path, image[:, :10, :10], bands=BANDS, scale=1e-4)
    return pair, 1, "LPIPS-Sat needs images of at least 32 x 32 px, got 10 x 10"


def bands_without_a_composite(pair, dn, put):
    return (*pair, "--bands", "B08,B03"), 1, "no composite for the bands B08, B03"


def map_of_something_else(pair, dn, put):
    return (*pair, "--metrics", "mae"), 1, "add lpips-sat to the metrics"


def unknown_metric(pair, dn, put):
    return (*pair, "--metrics", "lpips"), 2, "'lpips': choose from"


FAILURES = [
    *(missing, missing_mask, folder, not_a_raster, empty),
    *(without_most_of_its_header, without_its_last_blocks),
    *(no_overlap, half_a_pixel_off, other_size, other_crs, other_mask),
    *(unknown_band, no_common_band, undeclared, dn_as_reflectance, all_nodata, ten_pixels),
    *(bands_without_a_composite, map_of_something_else, unknown_metric),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("exists", [False, True], ids=["new map", "map exists"])
def test_a_failure_is_a_short_message_and_writes_nothing(
    run, pair, dn, put, tmp_path, monkeypatch, failure, exists
):
    monkeypatch.chdir(tmp_path)
    args, code, message = failure(pair, dn, put)
    given = ["--map", tmp_path / "map.tif"]
    if exists:
        (tmp_path / "map.tif").write_bytes(b"mine")
        given.append("--overwrite")
    before = tree(tmp_path)
    result = run("score", *args, *given)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) <= 4  # usage errors, and both grids of a mismatch
    assert "Error: " in result.stderr
    assert tree(tmp_path) == before


def test_a_map_cannot_go_to_a_folder_that_is_missing(run, pair, tmp_path):
    result = run("score", *pair, "--map", tmp_path / "absent" / "map.tif")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "absent is missing; create it" in result.stderr
    assert not (tmp_path / "absent").exists()


def test_verbose_shows_where_an_error_came_from(run, pair):
    args = ("score", pair[0].with_name("absent.tif"), pair[1])
    shown = run("--verbose", *args)
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert "Traceback (most recent call last)" in shown.stderr
    assert "RasterError" in shown.stderr
    assert run(*args).stderr.startswith("Error: ")


@pytest.fixture
def break_scoring(monkeypatch):
    """Make the scoring fail with an error once the map is begun."""

    def install(error):
        def fail(*_, **__):
            raise error

        monkeypatch.setattr(scoring, "score_pair", fail)

    return install


def test_an_unexpected_error_is_one_line_that_calls_it_a_bug(run, pair, tmp_path, break_scoring):
    break_scoring(ZeroDivisionError("first line\nsecond line"))
    before = tree(tmp_path)
    result = run("score", *pair, "--map", tmp_path / "map.tif")
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: unexpected ZeroDivisionError: first line second line")
    assert "bug" in line
    assert "--verbose" in line
    assert tree(tmp_path) == before
    assert "Traceback" in run("--verbose", "score", *pair).stderr


def test_an_interrupted_run_leaves_nothing_behind(run, pair, tmp_path, break_scoring):
    break_scoring(KeyboardInterrupt())
    before = tree(tmp_path)
    result = run("score", *pair, "--map", tmp_path / "map.tif")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Aborted!" in result.stderr
    assert tree(tmp_path) == before


def test_the_installed_command_fails_in_one_line(spawn, pair, tmp_path):
    without_its_last_blocks(pair, None, None)
    done = spawn("score", *pair, "--map", "map.tif", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: cannot read rows 0 to 63 of {pair[0]}")
    assert [p.name for p in tmp_path.iterdir()] == ["pair"]
