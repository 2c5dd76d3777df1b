"""The pages say what the result files say, and their Python snippets run."""

import importlib.util
import re
import sys
from itertools import chain
from pathlib import Path
from types import ModuleType

import pytest

from lpips_sat.calibration.distortions import KINDS
from sr_models.experiment.results import ATTRIBUTION, EVALUATION, read_case_results
from sr_models.report import findings, tables

ROOT = Path(__file__).resolve().parent.parent
SNIPPETS = [
    pytest.param(code, id=f"{page.name}-{number}")
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.S))
]


def _report() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))  # where the script finds its neighbours
    spec = importlib.util.spec_from_file_location("report", ROOT / "benchmarks" / "report.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.pop(0)
    return module


REPORT = _report()
BLOCKS = {  # the generated blocks of every page
    page: re.findall(r"<!-- ([\w-]+) -->\n", (ROOT / page).read_text()) for page in REPORT.PAGES
}


@pytest.mark.parametrize("page", BLOCKS)
def test_tables_are_those_of_the_result_files(page):
    text = (ROOT / page).read_text()
    assert BLOCKS[page]
    for block in BLOCKS[page]:
        assert f"<!-- /{block} -->" in text
    assert REPORT.fill(text) == text, "run `python benchmarks/report.py`"


def test_every_generated_block_stands_on_a_page():
    assert set(chain.from_iterable(BLOCKS.values())) == set(REPORT.BLOCKS)


def test_the_findings_are_those_of_the_result_files():
    page = (ROOT / "docs" / "findings.md").read_text()
    results, why = (
        read_case_results(ROOT / "benchmarks" / "results" / f"study{name}.parquet", kind)
        for name, kind in (("", EVALUATION), ("-gap", ATTRIBUTION))
    )
    assert findings(results, why) in page
    for name, table in tables(results, why).items():
        for part in table.split("\n\n"):
            assert part.startswith("#") or part in page, f"{name}: python benchmarks/study.py page"


def test_the_glossary_names_every_kind_of_distortion():
    page = (ROOT / "docs" / "glossary.md").read_text()
    part = page.split("## Kinds of distortion")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", part, flags=re.M) == list(KINDS)


def test_a_number_changed_by_hand_would_be_noticed():
    text = (ROOT / "README.md").read_text()
    edited = re.sub(r"(\| LPIPS-Sat \| 0\.)\d", r"\g<1>0", text)
    assert edited != text
    assert REPORT.fill(edited) == text


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
