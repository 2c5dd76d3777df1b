from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints, version
from types import SimpleNamespace

import click
import pytest

from lpips_sat import LpipsSatError, cli

COMMANDS = [
    *("annotate", "calibrate", "compare", "info", "pretrain", "report", "sample", "score"),
    *("study", "validate"),
]


@pytest.fixture
def install(monkeypatch):
    """Add entry points to the group, as an installed package would."""
    real = cli.entry_points

    def add(**targets):
        points = [EntryPoint(name, value, cli.GROUP) for name, value in targets.items()]

        def found(**wanted):
            return EntryPoints([*real(group=cli.GROUP), *points]).select(**wanted)

        monkeypatch.setattr(cli, "entry_points", found)

    return add


@pytest.fixture
def third_party(monkeypatch):
    """A module with commands, as another package would bring it."""

    @click.command()
    @click.argument("word")
    def hello(word):
        """Say a word."""
        if word == "refuse":
            raise LpipsSatError("refused: say another word")
        click.echo(f"hello {word}")

    module = SimpleNamespace(hello=hello, number=3)
    monkeypatch.setitem(sys.modules, "another_package", module)
    return "another_package"


@pytest.mark.parametrize("program", ["lpips_sat.cli", "lpips_sat.cli.mindgap"])
def test_help_and_the_package_do_not_wait_for_heavy_packages(program):
    code = f"""
import sys, lpips_sat
from {program} import main
try:
    main(["--help"])
except SystemExit as done:
    assert not done.code
heavy = {{"torch", "pandas", "scipy", "rasterio", "skimage", "timm", "diffusers", "torchmetrics"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_scoring_does_not_load_what_its_metrics_do_not_need():
    """torchmetrics alone takes seconds and a quarter of a gigabyte."""
    code = """
import sys
from lpips_sat import suite
import lpips_sat.sets
suite("default", bands=("B04", "B03", "B02"))
heavy = {"timm", "diffusers", "torchmetrics", "torchvision", "matplotlib"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_every_command(run, flag):
    result = run(flag)
    assert result.exit_code == 0
    listed = result.stdout.split("Commands:")[1].splitlines()
    assert [line.split()[0] for line in listed if line.startswith("  ")] == COMMANDS
    assert result.stderr == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(run, name):
    result = run(name, "--help")
    assert result.exit_code == 0
    assert f"Usage: lpips-sat {name} [OPTIONS]" in result.stdout


def test_no_command_at_all_shows_the_help(run):
    result = run()
    assert result.exit_code == (2 if result.stderr else 0)  # click before 8.2: on stdout, with 0
    assert all(name in result.output for name in COMMANDS)


@pytest.mark.parametrize("args", [("scoer",), ("score", "--metircs", "mae", "a", "b"), ("--jsno",)])
def test_a_typo_is_a_usage_error(run, args):
    result = run(*args)
    assert result.exit_code == 2
    assert "No such" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_the_version_is_that_of_the_package(run):
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"lpips-sat, version {version('lpips-sat')}\n")


@pytest.mark.parametrize("args", [["--help"], ["score", "--help"], ["--version"]])
def test_help_does_not_wait_for_torch(command, args):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(command), *args],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"click", "lpips_sat.cli"} <= imported  # importtime did report
    assert not {"torch", "torchvision", "timm", "rasterio", "pandas"} & imported


def test_a_command_of_another_package_is_listed_and_runs(run, install, third_party):
    assert "hello" not in run("--help").stdout
    install(hello=f"{third_party}:hello")
    assert "hello      Say a word." in run("--help").stdout
    result = run("hello", "world")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "hello world\n", "")


def test_its_errors_are_shown_like_our_own(run, install, third_party):
    install(hello=f"{third_party}:hello")
    result = run("hello", "refuse")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: refused: say another word\n"


def test_an_entry_point_that_is_no_command_is_none(run, install, third_party):
    install(number=f"{third_party}:number")
    result = run("number")
    assert result.exit_code == 2
    assert "No such command 'number'" in result.stderr


def test_a_command_that_cannot_be_imported_breaks_itself_only(run, install):
    install(broken="a_module_that_is_not_there:main")
    help_text = run("--help")
    assert help_text.exit_code == 0
    assert "broken" in help_text.stdout
    assert all(name in help_text.stdout for name in COMMANDS)
    result = run("broken", "--any", "thing")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "a_module_that_is_not_there" in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" in run("--verbose", "broken").stderr
