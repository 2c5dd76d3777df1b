"""From a folder of three rasters to calibrated weights in the five commands of docs/annotate.md."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from lpips_sat.lpips import LPIPSSat

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(put, textured, tmp_path, monkeypatch):
    """Three georeferenced rasters in scenes/, which is in the working directory."""
    (tmp_path / "scenes").mkdir()
    for i in range(3):
        dn = np.rint(1e4 * textured(4, 160, 160, seed=40 + i)).astype(np.uint16)
        bands = ("B04", "B03", "B02", "B08")
        put(tmp_path / "scenes" / f"{i}.tif", dn, bands=bands, scale=1e-4, nodata=0)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands():
    """The block of five commands, as lists of arguments."""
    text = (ROOT / "docs" / "annotate.md").read_text(encoding="utf-8")
    block = re.search(r"```sh\n(lpips-sat annotate make.*?)```", text, re.S)[1]
    lines = [shlex.split(line, comments=True) for line in block.strip().split("\n")]
    assert len(lines) == 5
    assert {line[0] for line in lines} == {"lpips-sat"}
    return [line[1:] for line in lines]


def rate(folder, monkeypatch):
    """Stand in for `serve` until everybody has answered: the votes of two raters, then Ctrl-C."""
    from lpips_sat.calibration.annotate import serve
    from lpips_sat.calibration.annotate.store import Vote

    def answer(study, store, opened):
        for rater in store.raters()[:2]:
            for position in range(store.progress(rater)[1]):
                item = store.item(rater, position)
                trial = study.trials.loc[item.trial]
                better = trial["answer"]
                if not isinstance(better, str):
                    better = "A" if trial["severity_a"] < trial["severity_b"] else "B"
                side = "left" if (better == "A") != item.swapped else "right"
                store.vote(rater, Vote(position, side, 3, 1.0, f"{position:016d}"))

    monkeypatch.setattr(serve, "serve_study", answer)


@pytest.mark.parametrize(
    "words",
    [
        ("make", ".", "--out", "s", "--raters", -2),
        ("make", ".", "--out", "s", "--seed", -1),
        ("make", ".", "--out", "s", "--break-every", -5),
        ("serve", "s", "--port", 99999),
    ],
)
def test_numbers_that_mean_nothing_are_usage_errors(run, words):
    assert run("annotate", *words).exit_code == 2


def test_five_commands_lead_from_rasters_to_weights(folder, run, monkeypatch):
    make, serve, export, calibrate, validate = commands()
    few = ["--trials", "40", "--size", "32", "--raters", "2"]
    made = run(*make, *few)
    assert (made.exit_code, made.stdout) == (0, "study\n"), made.stderr
    rate(folder, monkeypatch)
    served = run(*serve, "--port", "0")
    assert served.exit_code == 0, served.stderr
    links = json.loads(served.stdout)
    assert set(links["raters"]) == {"rater 1", "rater 2"}
    assert links["organiser"].startswith("http://127.0.0.1:")
    exported = run(*export)
    assert exported.exit_code == 0, exported.stderr
    found = json.loads(exported.stdout)
    assert found["answers"]["counted"] == {"2afc": 80}
    assert found["agreement"]["2afc"]["krippendorff_alpha"] == 1
    calibrated = run(*calibrate)
    assert calibrated.exit_code == 0, calibrated.stderr
    validated = run(*validate, "--json")
    assert validated.exit_code == 0, validated.stderr
    assert json.loads(validated.stdout)["scores"][0]["metric"] == "LPIPS-Sat"
    (weights,) = [word for word in validate if word.startswith("weights")]
    card = LPIPSSat.from_pretrained(folder / weights).card
    assert card["raters"] == "people"
    assert card["licence"].startswith("not stated")
    assert card["backbone"]["name"] == "default"
    assert card["judgements"]["validation"] == 8


def test_what_cannot_be_made_is_told_in_one_line(folder, run):
    for words, message in (
        (["scenes", "--out", "scenes"], "scenes exists: choose another name"),
        (["absent.tif", "--out", "s"], "absent.tif: no such file"),
        (["scenes", "--out", "s", "--distortions", "blur,fog"], "unknown distortion 'fog'"),
        (["scenes", "--out", "s", "--per-rater", "900"], "can be asked 1 to 200"),
        (["scenes", "--out", "s", "--white", "1,2"], "one per shown band"),
    ):
        result = run("annotate", "make", *words)
        assert (result.exit_code, result.stdout) == (1, "")
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert sorted(p.name for p in folder.iterdir()) == ["scenes"]
    for words in (("annotate", "serve"), ("annotate", "export")):
        result = run(*words, "scenes")
        assert result.exit_code == 1
        assert "scenes is no study" in result.stderr
    assert run("annotate", "make", "scenes", "--out", "s", "--method", "x").exit_code == 2


def test_methods_keep_the_case_of_their_names(folder, run):
    for name in ("Mine", "other"):
        shutil.copytree(folder / "scenes", folder / name)
    methods = [f"--method={name}={name}" for name in ("Mine", "other")]
    result = run("annotate", "make", "scenes", "--out", "s", "--trials", 4, *methods)
    assert result.exit_code == 0, result.stderr
    assert "method:Mine" in (folder / "s" / "trials.csv").read_text()


def test_a_port_in_use_is_told(folder, run):
    import socket

    assert run("annotate", "make", "scenes", "--out", "study", "--trials", "4").exit_code == 0
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        result = run("annotate", "serve", "study", "--port", other.getsockname()[1])
    assert result.exit_code == 1
    assert "try another --port" in result.stderr
