"""The pages say what the result files say, and their Python snippets run."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sr_models.experiment.results import read_case_results
from sr_models.report import findings, tables

ROOT = Path(__file__).resolve().parent.parent
SNIPPETS = [
    pytest.param(code, id=f"{page.name}-{number}")
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.S))
]


@pytest.fixture(scope="module")
def report() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))  # where the script finds its neighbours
    spec = importlib.util.spec_from_file_location("report", ROOT / "benchmarks" / "report.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.pop(0)
    return module


@pytest.mark.parametrize(
    ("page", "block"),
    [
        ("README.md", "agreement"),
        ("docs/lpips-sat.md", "agreement"),
        ("docs/scoring.md", "scene"),
        ("docs/evidence.md", "votes"),
        ("docs/annotate.md", "raters"),
        ("docs/annotate.md", "rebuild"),
        ("docs/robustness.md", "faults"),
    ],
)
def test_tables_are_those_of_the_result_files(report, page, block):
    text = (ROOT / page).read_text()
    assert f"<!-- {block} -->" in text
    assert report.fill(text) == text, "run `python benchmarks/report.py`"


def test_the_findings_are_those_of_the_result_files():
    page = (ROOT / "docs" / "findings.md").read_text()
    results, why = (
        read_case_results(ROOT / "benchmarks" / "results" / f"study{kind}.parquet")
        for kind in ("", "-gap")
    )
    assert findings(results, why) in page
    for name, table in tables(results, why).items():
        for part in table.split("\n\n"):
            assert part.startswith("#") or part in page, f"{name}: python benchmarks/study.py page"


def test_a_number_changed_by_hand_would_be_noticed(report):
    text = (ROOT / "README.md").read_text()
    edited = re.sub(r"(\| LPIPS-Sat \| 0\.)\d", r"\g<1>0", text)
    assert edited != text
    assert report.fill(edited) == text


@pytest.mark.parametrize("code", SNIPPETS)
def test_python_snippets_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "snippet", "exec"), {})


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")))
def test_no_formatter_broke_an_include(page):
    assert "8 < --" not in page.read_text(), "write the fence as ```{.py}"


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
def test_local_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target
