from __future__ import annotations

import json

import pytest

from lpips_sat import __version__, suites
from lpips_sat.cli import info
from lpips_sat.radiometry import PRESETS
from lpips_sat.weights import WEIGHTS, shipped


@pytest.fixture(scope="module")
def found(run):
    result = run("info", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def words(text):
    return " ".join(text.split())


def test_json_lists_metrics_presets_composites_and_backbones(found):
    assert found["lpips-sat"] == __version__
    assert list(found["metrics"]) == list(suites.METRICS)
    assert found["metrics"]["ergas"].endswith("lower is better; needs --factor")
    assert found["suites"]["default"].startswith("lpips-sat, mae, ")
    assert list(found["radiometry"]) == list(PRESETS)
    assert found["radiometry"]["s2-l2a"].startswith("reflectance = DN * 0.0001")
    assert found["composites"]["true colour"] == "B04, B03, B02"
    assert {"pyramid", "timm:NAME"} <= set(found["backbones"])


def test_json_has_the_card_of_all_weights(found):
    assert "default" in found["weights"]
    assert sorted(found["weights"]) == shipped()
    for name, card in found["weights"].items():
        config = json.loads((WEIGHTS / name / "config.json").read_text(encoding="utf-8"))
        assert card == config["card"]
        assert {"name", "licence", "evidence", "sha256"} <= set(card)


def test_the_text_shows_everything_that_json_has(run, found):
    result = run("info")
    assert (result.exit_code, result.stderr) == (0, "")
    shown = words(result.stdout)

    def check(value):
        if isinstance(value, dict):
            for key, item in value.items():
                assert key in shown
                check(item)
        elif isinstance(value, list):
            for item in value:
                check(item)
        else:
            assert words(str(value)) in shown

    check(found)


def test_brackets_and_colons_in_a_card_are_shown_as_they_are(run, monkeypatch):
    text = "agreement [red, blue] of [bold]all[/bold] :rocket: [/]"
    monkeypatch.setattr(info, "cards", lambda: {"mine[1]": {"evidence [x]": text, "list": [text]}})
    result = run("info")
    assert result.exit_code == 0
    assert "mine[1]" in result.stdout
    assert f"evidence [x]: {text}" in result.stdout
    assert f"list: {text}" in result.stdout
