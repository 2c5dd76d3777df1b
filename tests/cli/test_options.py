"""Options reach the function that does the work, which is replaced here."""

from __future__ import annotations

import importlib
import json
from contextlib import contextmanager, nullcontext
from inspect import signature
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace

import pytest

from lpips_sat import LpipsSatError
from lpips_sat.calibration import patches
from lpips_sat.calibration.annotate import scenes, serve, study
from lpips_sat.cli import options

NUMBERS = {
    0.5: "0.5000",
    0.01: "0.0100",
    0.0038: "0.00380",
    -12.3456789: "-12.3457",
    -1e-9: "0.0000",
}
MAKE = ("annotate", "make", "SCENES", "--out", "s", "--trials", 4)
STUDY = "lpips_sat.calibration.annotate.make:make_study"
ABOUT = {"licence": "not stated", "raters": "people"}


@pytest.fixture
def arguments(monkeypatch):
    """Replace the function MODULE:NAME by one that stops the command, and remembers the call."""

    def replace(place):
        module, name = place.split(":")
        owner, called = importlib.import_module(module), SimpleNamespace()
        wanted = signature(getattr(owner, name))

        def stop(*args, **options):
            vars(called).update(wanted.bind(*args, **options).arguments)
            raise LpipsSatError("stopped")

        monkeypatch.setattr(owner, name, stop)
        return called

    return replace


@pytest.mark.parametrize(
    ("program", "words", "worker", "expected"),
    [
        (
            "mindgap",
            ("evaluate", "--model", "sr3", "--data", "S", "--seeds", 3, "--profile", "paper"),
            "sr_models.experiment.evaluate:evaluate",
            {"asked.seeds": 3, "asked.profile": "paper", "asked.degradation": "physical"},
        ),
        (
            "mindgap",
            ("evaluate", "--model", "sr3", "--data", "S", "--degradation", "blind"),
            "sr_models.experiment.evaluate:evaluate",
            {"asked.seeds": 1, "asked.profile": "small", "asked.degradation": "blind"},
        ),
        (
            "mindgap",
            ("report", "R.parquet", "--html", "r.html", "--patches", 7),
            "sr_models.report:write_report",
            {"sources.patches": 7},
        ),
        (
            "mindgap",
            ("data", "sample", "pairs", "--overwrite"),
            "sr_models.data.sample_pairs:build_sample_pairs",
            {"out": Path("pairs"), "overwrite": True},
        ),
        (
            "run",
            ("score", "P.tif", "R.tif", "--metrics", "mae", "--dask", "tcp://there:8786"),
            "lpips_sat.sets:score_set",
            {"dask": "tcp://there:8786", "workers": 1},
        ),
        (
            "run",
            (*MAKE, "--jnd", 6, "--repeats", 0.25, "--checks", 0.5),
            STUDY,
            {"plan.trials": 4, "plan.jnd": 6, "plan.repeats": 0.25, "plan.checks": 0.5},
        ),
        ("run", (*MAKE, "--title", "Fields"), STUDY, {"title": "Fields", "about": ABOUT}),
        ("run", (*MAKE, "--who", "us"), STUDY, {"title": "s", "about": ABOUT | {"raters": "us"}}),
        ("run", (*MAKE, "--licence", "CC0"), STUDY, {"about": ABOUT | {"licence": "CC0"}}),
        (
            "run",
            ("annotate", "rebuild", "--out", "o", "--release", "v2", "--eurosat", "e.zip"),
            "lpips_sat.calibration.rebuild:rebuild",
            {"out": Path("o"), "release": "v2", "eurosat": Path("e.zip"), "download": False},
        ),
    ],
)
def test_what_is_said_is_what_the_worker_gets(
    program, words, worker, expected, arguments, request, monkeypatch
):
    monkeypatch.setattr(scenes, "find_rasters", list)
    monkeypatch.setattr(scenes, "cut", lambda rasters, **options: ([], {}))
    called = arguments(worker)
    result = request.getfixturevalue(program)(*words)
    assert (result.exit_code, result.stderr) == (1, "Error: stopped\n")
    assert {name: attrgetter(name)(called) for name in expected} == expected


def test_pretraining_gets_its_config_and_the_chips(run, arguments, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        patches,
        "read_eurosat",
        lambda path, download: asked.append((path, download)) or SimpleNamespace(images=None),
    )
    monkeypatch.setattr(patches, "read_scene", lambda: None)
    monkeypatch.setattr(patches, "PatchSource", lambda *parts: parts)
    (tmp_path / "c.toml").write_text("steps = 7\nscene_share = 0.25\n")
    called = arguments("lpips_sat.backbones.pretrain:pretrain")
    words = ("--out", "o", "--eurosat", "e.zip", "--device", "cuda")
    result = run("pretrain", tmp_path / "c.toml", *words)
    assert (result.exit_code, result.stderr) == (1, "Error: stopped\n")
    assert asked == [(Path("e.zip"), False)]
    assert (called.config.steps, called.sample) == (7, (None, None, 0.25))
    assert (called.out, called.device) == (Path("o"), "cuda")


@pytest.mark.parametrize(
    ("words", "address", "base"),
    [
        ((), ("127.0.0.1", 8765), "http://127.0.0.1:9999"),
        (("--host", "0.0.0.0", "--port", 80), ("0.0.0.0", 80), "http://0.0.0.0:9999"),
        (("--url", "https://rate.example/"), ("127.0.0.1", 8765), "https://rate.example"),
    ],
)
def test_links_begin_with_what_raters_reach(run, monkeypatch, words, address, base):
    asked = []
    store = SimpleNamespace(
        admin_token="secret", raters=lambda: [SimpleNamespace(name="ann", token="her")]
    )

    @contextmanager
    def listen(host, port):
        asked.append((host, port))
        yield SimpleNamespace(getsockname=lambda: (host, 9999))

    monkeypatch.setattr(
        study, "open_study", lambda path: SimpleNamespace(store=lambda: nullcontext(store))
    )
    monkeypatch.setattr(serve, "listen", listen)
    monkeypatch.setattr(serve, "serve_study", lambda *_: None)
    result = run("annotate", "serve", "STUDY", *words)
    assert asked == [address]
    links = {"organiser": f"{base}/admin/secret/", "raters": {"ann": f"{base}/r/her/"}}
    assert json.loads(result.stdout) == links


@pytest.mark.parametrize(("value", "shown"), NUMBERS.items())
def test_a_number_keeps_three_digits(value, shown):
    assert options.number(value) == shown
    assert options.number(value, "+").removeprefix("+") == shown


@pytest.mark.parametrize(("columns", "width"), [(None, options.PIPE), ("60", 60)])
def test_tables_in_a_pipe_fold_nothing_unless_columns_says_so(columns, width, monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    assert options.console().width == width
