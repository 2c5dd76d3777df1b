"""A set is scored as its pairs are, survives bad files and kills, and wherever it is computed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio

from lpips_sat import open_pair, score_pair, sets, suite, work
from lpips_sat.errors import LpipsSatError, MetricInputError, ResultsError, UnknownMetricError
from lpips_sat.items import Item, items_of_folders
from lpips_sat.journal import Journal
from lpips_sat.results import read_results
from lpips_sat.sets import score_set
from lpips_sat.work import ScoreOptions, Task, score_part

BANDS = ("B04", "B03", "B02", "B08")
CHEAP = ScoreOptions(metrics=("mae", "psnr", "ssim"))


@pytest.fixture
def folders(tmp_path, textured, put):
    """Six pairs of 40 x 48 px, on a grid each."""
    rng = np.random.default_rng(5)
    for role in ("pred", "ref"):
        (tmp_path / role).mkdir()
    for i in range(6):
        ref = textured(4, 40, 48, seed=i)
        pred = ref + 0.01 * rng.standard_normal(ref.shape)
        for role, image in (("pred", pred), ("ref", ref)):
            dn = np.clip(np.rint(image * 1e4), 1, None).astype(np.uint16)
            path = tmp_path / role / f"{i:02}.tif"
            put(path, dn, bands=BANDS, scale=1e-4, nodata=0, origin=(4e5 + 1000 * i, 4e6))
    return tmp_path


@pytest.fixture
def items(folders):
    return items_of_folders({"pred": folders / "pred", "ref": folders / "ref"})[0]


@pytest.fixture
def scene(tmp_path, textured, put):
    """One pair of 300 x 140 px with an empty corner."""
    ref = textured(3, 300, 140, seed=9)
    pred = ref + 0.01 * np.random.default_rng(1).standard_normal(ref.shape)
    paths = []
    for name, image in (("pred", pred), ("ref", ref)):
        dn = np.clip(np.rint(image * 1e4), 1, None).astype(np.uint16)
        dn[:, :70, :70] = 0
        path = put(tmp_path / f"big-{name}.tif", dn, bands=BANDS[:3], scale=1e-4, nodata=0)
        paths.append(str(path))
    return Item("big", *paths, scene="big")


def same(first, second):
    """Equal in everything but the time it took."""
    pd.testing.assert_frame_equal(
        first.table.drop(columns="seconds"), second.table.drop(columns="seconds")
    )
    assert first.provenance == second.provenance


def whole(item, names, **options):
    with open_pair(item.pred, item.ref) as pair:
        metrics = suite(bands=pair.bands, radiometry=pair.kind)
        found = score_pair(pair, [m for m in metrics if m.name in names], **options)
    return {score.name: score.value for score in found.scores}


def test_references_are_known_by_their_pixels_not_by_their_paths(items, folders, tmp_path):
    known = score_set(items, CHEAP).provenance["references"]
    moved = shutil.copytree(folders / "ref", tmp_path / "elsewhere")
    with rasterio.open(moved / "03.tif") as src:
        pixels = src.read()
    elsewhere = [replace(item, ref=str(moved / Path(item.ref).name)) for item in items]
    assert score_set(elsewhere[::-1], CHEAP).provenance["references"] == known
    pixels[0, 20, 24] += 1
    with rasterio.open(moved / "03.tif", "r+") as dst:
        dst.write(pixels)
    assert score_set(elsewhere, CHEAP).provenance["references"] != known
    gone = [replace(item, ref="https://127.0.0.1:9/none.tif") for item in items[:1]]
    assert score_set(gone, CHEAP).provenance["references"] is None


# --- numbers


def test_every_row_is_the_score_of_its_pair(items):
    results = score_set(items, ScoreOptions())
    assert list(results.table["id"]) == [item.id for item in items]
    assert list(results.table["status"].unique()) == ["ok"]
    assert set(results.table["pixels"]) == {40 * 48}
    for item, row in zip(items, results.table.to_dict("records"), strict=True):
        for name, value in whole(item, list(results.metrics)).items():
            assert row[name] == pytest.approx(value, rel=1e-12)
    assert len(results.metrics) == 6
    assert results.metrics["MAE"]["unit"] == "reflectance"
    assert results.metrics["PSNR"]["settings"] == {"data_range": 1.0}
    assert len(results.metrics["LPIPS-Sat"]["settings"]["weights"]["sha256"]) == 64
    assert (results.provenance["pairs"], results.provenance["failed"]) == (6, 0)


def test_a_scene_in_parts_has_the_numbers_of_the_whole(scene, monkeypatch):
    names = ("lpips-sat", "mae", "psnr", "ssim", "sam")
    options = ScoreOptions(metrics=names, tile=64)
    monkeypatch.setattr(work, "PART_PIXELS", 64 * 140)  # a part is a row of tiles
    first = score_part(Task(scene, options))
    assert first.parts == 5
    results = score_set([scene], options)
    row = results.table.iloc[0]
    expected = whole(scene, ["LPIPS-Sat", "MAE", "PSNR", "SSIM", "SAM"], tile=64)
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, rel=1e-12)
    # cSSIM begins with a pass over the whole pair, which every part would repeat
    assert score_part(Task(scene, replace(options, metrics=("cssim",)))).parts == 1
    assert (row["pixels"], row["valid_share"]) == (300 * 140, pytest.approx(1 - 4900 / 42000))


def test_a_row_per_tile_is_the_score_of_that_tile(scene, tmp_path):
    options = replace(CHEAP, tiles=True, tile=64)
    out = tmp_path / "tiles.parquet"
    results = score_set([scene], options, out)
    rows = read_results(out).table
    assert len(rows) == 5 * 3
    assert (rows["height"] * rows["width"]).sum() == 300 * 140
    with open_pair(scene.pred, scene.ref) as pair:
        tile = list(pair.tiles(size=64))[4]
    error = (tile.pred - tile.ref).double()[:, :, tile.valid[0, 0]]
    row = rows[(rows["row"] == 64) & (rows["col"] == 64)].iloc[0]
    assert row["MAE"] == pytest.approx(float(error.abs().mean()), rel=1e-9)
    assert row["valid_share"] == float(tile.valid.double().mean())
    empty = rows[(rows["row"] == 0) & (rows["col"] == 0)].iloc[0]
    assert (empty["status"], empty["valid_share"]) == ("ok", 0)
    assert np.isnan(empty["MAE"])
    assert results.provenance["pairs"] == 1


# --- what goes wrong


def test_a_bad_file_is_a_row_with_its_reason_and_the_rest_goes_on(items, folders, put):
    good = score_set(items, CHEAP)
    (folders / "pred/01.tif").write_bytes((folders / "pred/01.tif").read_bytes()[:700])
    put(folders / "pred/02.tif", np.ones((4, 40, 48), np.uint16), bands=BANDS, scale=1e-4)
    put(folders / "ref/03.tif", np.zeros((4, 40, 48), np.uint16), bands=BANDS, scale=1e-4, nodata=0)
    (folders / "ref/04.tif").unlink()
    results = score_set(items, CHEAP)
    reasons = dict(zip(results.table["id"], results.table["reason"], strict=True))
    assert reasons["00"] == reasons["05"] == ""
    assert "01.tif" in reasons["01"]
    assert "pixel on pixel" in reasons["02"]
    assert "grid" in reasons["03"] or "pixel on pixel" in reasons["03"]
    assert "no such file" in reasons["04"]
    assert list(results.failed["id"]) == ["01", "02", "03", "04"]
    assert results.failed[["MAE", "valid_share"]].isna().all().all()
    kept = [0, 5]
    columns = ["MAE", "PSNR", "SSIM"]
    pd.testing.assert_frame_equal(results.table.loc[kept, columns], good.table.loc[kept, columns])
    assert results.provenance["failed"] == 4


def test_an_error_that_nobody_foresaw_is_a_row_too(items, monkeypatch):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("really\nnot expected")

    monkeypatch.setattr(work, "open_pair", broken)
    results = score_set(items[:2], CHEAP)
    assert list(results.table["status"]) == ["failed", "failed"]
    assert results.table["reason"][0] == "unexpected ZeroDivisionError: really not expected"
    assert list(results.metrics) == ["MAE", "PSNR", "SSIM"]


def test_pairs_of_other_bands_share_a_table(items, scene, put, tmp_path):
    one = put(
        tmp_path / "nir.tif", np.full((1, 40, 40), 900, np.uint16), bands=("B08",), scale=1e-4
    )
    nir = Item("nir", str(one), str(one), "nir")
    results = score_set([items[0], nir], ScoreOptions())
    assert np.isnan(results.table["SAM"][1])
    assert results.table["SAM"][0] > 0
    assert results.provenance["bands"] == [list(BANDS), ["B08"]]
    assert isinstance(results.metrics["LPIPS-Sat"]["settings"], list)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (ScoreOptions(metrics=("mea",)), UnknownMetricError),
        (ScoreOptions(metrics=("ergas",)), UnknownMetricError),
        (ScoreOptions(suite="best"), UnknownMetricError),
        (ScoreOptions(tile=100), MetricInputError),
    ],
)
def test_options_that_fit_no_image_end_the_run_before_it_begins(items, tmp_path, options, error):
    with pytest.raises(error):
        score_set(items, options, tmp_path / "out.csv")
    assert not list(tmp_path.glob("*out.csv*"))


def test_ids_must_differ(items):
    with pytest.raises(ResultsError, match="must differ"):
        score_set([items[0], items[0]])


# --- going on


def interrupt_after(monkeypatch, count):
    """Let `count` parts be scored, then fail as a full disk or Ctrl-C would."""
    scored = []

    def score(task):
        if len(scored) == count:
            raise KeyboardInterrupt
        scored.append(task.item.id)
        return score_part(task)

    monkeypatch.setattr("lpips_sat.executors.score_part", score)
    return scored


@pytest.mark.parametrize("suffix", ["parquet", "csv", "json"])
def test_an_interrupted_run_goes_on_without_scoring_anything_twice(
    items, tmp_path, monkeypatch, suffix
):
    out = tmp_path / f"out.{suffix}"
    with monkeypatch.context() as patch:
        first = interrupt_after(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            score_set(items, CHEAP, out)
    assert not out.exists()
    with monkeypatch.context() as patch:
        second = interrupt_after(patch, 99)
        results = score_set(items, CHEAP, out)
    assert first + second == [item.id for item in items]
    same(read_results(out), score_set(items, CHEAP))
    same(read_results(out), results)
    assert not list(tmp_path.glob(".out*"))


def test_a_scene_goes_on_at_the_part_where_it_was(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(work, "PART_PIXELS", 64 * 140)
    options = replace(CHEAP, tile=64)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            score_set([scene], options, tmp_path / "out.csv")
    with monkeypatch.context() as patch:
        rest = interrupt_after(patch, 99)
        results = score_set([scene], options, tmp_path / "out.csv")
    assert len(rest) == 2
    same(results, score_set([scene], options))


@pytest.fixture
def unfinished(items, tmp_path, monkeypatch):
    out = tmp_path / "out.csv"
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            score_set(items, CHEAP, out)
    return out


def test_other_options_or_pairs_are_refused_with_what_changed(items, unfinished, folders):
    with pytest.raises(ResultsError, match=r"options\.data_range was 1\.0, now 0\.5"):
        score_set(items, replace(CHEAP, data_range=0.5), unfinished)
    with pytest.raises(ResultsError, match="changed of 05\\. Finish"):
        score_set(items[:-1], CHEAP, unfinished)
    path = folders / "pred/00.tif"
    os.utime(path, (1, 1))  # as if the prediction had been made again
    with pytest.raises(ResultsError, match="changed of 00\\. Finish"):
        score_set(items, CHEAP, unfinished)
    results = score_set(items, CHEAP, unfinished, overwrite=True)
    assert len(results.table) == 6


@pytest.mark.parametrize("cut", [1, 5, 200])
def test_a_journal_cut_anywhere_is_gone_on_from(items, unfinished, cut):
    journal = unfinished.with_name(".out.csv.journal")
    data = journal.read_bytes()
    journal.write_bytes(data[:-cut])
    same(score_set(items, CHEAP, unfinished), score_set(items, CHEAP))
    assert not journal.exists()


def test_a_journal_says_nan_and_infinity_exactly(tmp_path):
    about = {"nodata": float("nan"), "bands": ("a", "b")}
    with Journal(tmp_path / "x.csv", about) as journal:
        journal.append({"sums": [0.1 + 0.2, float("inf"), 1e-300]})
    with Journal(tmp_path / "x.csv", about) as journal:
        assert journal.entries == [{"sums": [0.1 + 0.2, float("inf"), 1e-300]}]
        journal.remove()
    assert not list(tmp_path.iterdir())


KILLED = """
import sys
from lpips_sat.cli import main
main(["score", "pred", "ref", "--metrics", "mae,psnr,ssim", "--out", "out.parquet", *sys.argv[1:]])
"""


def kill_at(folder, count, *args):
    """Start the command; kill it dead when `count` pairs are in its journal. Its children's ids."""
    command = [sys.executable, "-c", KILLED, *args]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    journal = folder / ".out.parquet.journal"
    while not journal.exists() or journal.read_bytes().count(b"\n") <= count:
        assert process.poll() is None
        time.sleep(0.005)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "out.parquet").exists()
    return children


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="asks Linux for children")
@pytest.mark.parametrize(
    "args",
    [
        pytest.param((), id="one"),
        pytest.param(("--workers", "2"), id="two", marks=pytest.mark.slow),
    ],
)
def test_killed_in_the_middle_of_200_pairs_it_ends_with_the_same_table(folders, args, monkeypatch):
    for role in ("pred", "ref"):
        for i in range(6, 200):
            shutil.copy(folders / role / f"{i % 6:02}.tif", folders / role / f"{i:03}.tif")
    children = kill_at(folders, 60, *args)
    if args:
        assert len(children) >= 2
    subprocess.run(
        [sys.executable, "-c", KILLED, *args], cwd=folders, stdout=subprocess.DEVNULL, check=True
    )
    found = read_results(folders / "out.parquet")
    monkeypatch.chdir(folders)
    pairs, _ = items_of_folders({"pred": "pred", "ref": "ref"})
    same(found, score_set(pairs, CHEAP))
    assert len(found.table) == 200
    assert not any(map(alive, children))  # workers do not outlive who started them


def test_workers_give_the_rows_of_one_process_in_the_same_order(items):
    same(score_set(items, CHEAP, workers=2), score_set(items, CHEAP))


def test_a_worker_that_dies_ends_the_run_in_words(items, tmp_path, monkeypatch):
    monkeypatch.setattr("lpips_sat.executors._begin_worker", os._exit)
    with pytest.raises(LpipsSatError, match="a worker process died"):
        score_set(items, CHEAP, tmp_path / "out.csv", workers=2)


def test_a_worker_of_another_version_is_refused(items, monkeypatch):
    monkeypatch.setattr(
        "lpips_sat.executors.score_part", lambda task: replace(score_part(task), version="9")
    )
    with pytest.raises(LpipsSatError, match=r"a worker runs lpips-sat 9"):
        score_set(items, CHEAP)


def test_the_progress_adds_up_to_the_number_of_pairs(items, scene, monkeypatch):
    monkeypatch.setattr(work, "PART_PIXELS", 64 * 140)
    shares = []
    bad = Item("bad", "none.tif", "none.tif", "bad")
    sets.score_set(
        [*items, scene, bad],
        replace(CHEAP, tile=64),
        progress=lambda share, failed: shares.append((share, failed)),
    )
    assert sum(share for share, _ in shares) == pytest.approx(8)
    assert sum(failed for _, failed in shares) == 1
    assert json.dumps(shares)
