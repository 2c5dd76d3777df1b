"""What the wheel contains, and that the list of packages is the tree's."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# What the project ships stays below 20 MB; code and metadata are small beside the weights.
MAX_WHEEL_BYTES = 20_000_000 + 500_000
# Folders that hold packages; all others (tests, docs, benchmarks) stay out of the wheel.
FOLDERS = ("lpips_sat", "cli", "calibration", "sr_models")
INSTALLED_AS = {"cli": "lpips_sat/cli", "calibration": "lpips_sat/calibration"}
TOP_LEVEL = {"lpips_sat"} | ({"sr_models"} if (ROOT / "sr_models").is_dir() else set())


def _installed(source: Path) -> str:
    """Path inside the wheel of a file of the tree."""
    first, *rest = source.relative_to(ROOT).parts
    return "/".join([INSTALLED_AS.get(first, first), *rest])


def _sources(pattern: str) -> set[str]:
    return {
        _installed(path)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob(pattern)
        if "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def config() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that the tree stays as it was."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for folder in (*FOLDERS, "tests", "docs", "benchmarks"):
        if (ROOT / folder).is_dir():
            shutil.copytree(
                ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__")
            )
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_every_package_of_the_tree_is_listed_in_pyproject(config):
    listed = set(config["tool"]["setuptools"]["packages"])
    in_tree = {
        name.removesuffix("/__init__.py").replace("/", ".") for name in _sources("__init__.py")
    }
    assert listed == in_tree


def test_every_command_module_is_an_entry_point(config):
    homes = {"lpips_sat.commands": "lpips_sat.cli.", "mindgap.commands": "lpips_sat.cli.mindgap."}
    for group, home in homes.items():
        for name, target in config["project"]["entry-points"][group].items():
            module, _, attribute = target.partition(":")
            assert module.startswith(home)
            assert attribute
            path = module.removeprefix("lpips_sat.").replace(".", "/")
            assert (ROOT / f"{path}.py").is_file(), name


def test_the_citation_names_the_version_of_the_package(config):
    version = config["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_wheel_puts_only_its_own_names_into_site_packages(names):
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == TOP_LEVEL


def test_the_wheel_holds_every_module(names):
    assert _sources("*.py") == {name for name in names if name.endswith(".py")}


def test_the_wheel_holds_typing_marker_weights_and_cards(names):
    assert "lpips_sat/py.typed" in names
    weights = {w for w in _sources("*.safetensors") if w.startswith("lpips_sat/weights/")}
    assert weights
    assert weights | _sources("weights/**/*.json") <= names


def test_the_wheel_leaves_the_checkpoints_in_the_repository(names):
    assert any((ROOT / "sr_models" / "checkpoints").iterdir())
    assert not [name for name in names if "checkpoints/" in name]


def test_the_wheel_is_small(wheel):
    assert wheel.stat().st_size < MAX_WHEEL_BYTES
