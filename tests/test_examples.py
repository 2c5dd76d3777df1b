"""The examples of the docs run as they are, in small form."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "docs" / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_prints_finite_numbers(path, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("STEPS", "3")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    numbers = re.findall(r"(?<![\w.])-?(?:\d+\.\d+|nan|inf)\b", capsys.readouterr().out)
    assert numbers
    assert np.isfinite(np.array(numbers, float)).all()
