"""The report of the experiment: one self-contained HTML page, and the same as Markdown.

Both are made of one `content.Report`. `tables` gives single tables as Markdown, for documents that
are made of result files.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from lpips_sat.errors import ResultsError
from lpips_sat.outputs import StrPath, check_output, whole_file
from lpips_sat.report import render

from ..data.audit import read_audit
from ..experiment.attribution import check_made_of
from ..experiment.curves import curves_of
from ..experiment.gap import attributions
from ..experiment.results import ATTRIBUTION, CaseResults, read_case_results
from . import sections
from .audit import audit_section
from .content import Report, Section, Table
from .figures import svg
from .findings import Shares
from .gallery import choose, plates
from .markdown import answered, check_pictures, pictures_of, titled, write_markdown
from .numbers import Numbers
from .provenance import provenance_section
from .ranks import agreement_table, agreements, contradiction_table, rank_table
from .tables import cases_table, cost_table, gap_table
from .views import Views

__all__ = ["Sources", "findings", "make_report", "tables", "write_report"]


@dataclass(frozen=True)
class Sources:
    """What a report is made of.

    results: a table of `mindgap evaluate`; gap: one of `mindgap gap --attribute`; audit: a folder
    of `mindgap audit`; data: the set of pairs, for curves and pictures; runs: where trainings are;
    patches: how many are shown; device: that makes the pictures, None = the GPU where there is one.
    """

    results: Path
    gap: Path | None = None
    audit: Path | None = None
    data: Path | None = None
    runs: Path = Path("runs")
    patches: int = 3
    device: str | None = None


def write_report(
    sources: Sources,
    *,
    html: StrPath | None = None,
    markdown: StrPath | None = None,
    overwrite: bool = False,
) -> Report:
    """Make a report and write it as a page, as Markdown with a folder of pictures, or as both.

    Raises:
        ResultsError: a table that is damaged, or sources of different sets, settings or weights.
        OutputExistsError: an output is there already, and `overwrite` is not set.
        MissingDependencyError: the extra ``report`` is not installed.
    """
    outputs = [Path(path) for path in (html, markdown) if path is not None]
    for path in outputs:  # what cannot be written is said before the work begins
        check_output(path, overwrite=overwrite)
    if markdown is not None:
        check_pictures(pictures_of(Path(markdown)), overwrite=overwrite)
    report = make_report(sources)
    if html is not None:
        style = (files(__package__) / "experiment.css").read_text("utf-8")
        page = render("experiment.html", package=__package__, style=style, report=report, svg=svg)
        with whole_file(html, overwrite=overwrite) as part:
            part.write_text(page, encoding="utf-8")
    if markdown is not None:
        write_markdown(report, Path(markdown), overwrite=overwrite)
    return report


def make_report(sources: Sources) -> Report:
    """Read the sources and say what they hold."""
    results = read_case_results(sources.results)
    numbers, provenance = Numbers(results), {"Results": results.provenance}
    shares: Shares = {}
    if sources.gap is not None:
        why = read_case_results(sources.gap, ATTRIBUTION)
        check_made_of(results, why, sources.gap)
        shares = shares_of(why)
        provenance["Attribution"] = why.provenance
    pairs = _audit(numbers, sources)
    of_set = _of_set(numbers, sources)
    agreed = agreements(numbers)
    found = [
        sections.in_short(numbers, shares, agreed),
        sections.cases(numbers),
        sections.gap(numbers),
        sections.attribution(numbers, shares),
        sections.ranking(numbers, agreed),
        *of_set,
        pairs,
        sections.cannot_say(numbers, shares),
        provenance_section(numbers),
    ]
    patches, blocks = numbers.size()
    about = f"{len(numbers.models)} models and controls, {patches} test patches in {blocks} blocks."
    title = f"{_name(numbers)}: what synthetic training costs on real images"
    return Report(title, about, found, provenance)


def tables(results: CaseResults, attribution: CaseResults | None = None) -> dict[str, str]:
    """The main tables as Markdown, each under its title: "cases", "gap", "shares", "ranks", ...

    "agreement" counts where LPIPS-Sat and PSNR order the models alike, "contradictions" (if there
    are any) lists where they do not; "shares" needs the table of `mindgap gap --attribute`.
    """
    numbers = Numbers(results)
    main, agreed = sections.main_metrics(numbers), agreements(numbers)
    found: dict[str, list[Table | None]] = {
        "cases": [cases_table(numbers, metric) for metric in main],
        "gap": [gap_table(numbers, metric) for metric in main],
        "ranks": [rank_table(numbers, main)],
        "agreement": [agreement_table(agreed)] if agreed else [],
        "contradictions": [contradiction_table(numbers, agreed)],
        "cost": [cost_table(numbers)],
    }
    if attribution is not None:
        shares = shares_of(attribution)
        metrics = [m for m in main if any(metric == m for _, metric in shares)]
        found["shares"] = [sections.share_table(numbers, metric, shares) for metric in metrics]
    return {
        name: "\n\n".join(line for table in listed if table for line in titled(table))
        for name, listed in found.items()
        if any(listed)
    }


def findings(results: CaseResults, attribution: CaseResults | None = None) -> str:
    """The questions of the experiment and their answers as Markdown."""
    numbers = Numbers(results)
    shares = {} if attribution is None else shares_of(attribution)
    section = sections.in_short(numbers, shares, agreements(numbers))
    return "\n\n".join(line for answer in section.answers for line in answered(answer))


def shares_of(attribution: CaseResults) -> Shares:
    """The gap, its shares and the rest by model and metric, with intervals."""
    return {(one.model, one.metric): one.intervals() for one in attributions(attribution)}


def _of_set(numbers: Numbers, sources: Sources) -> list[Section]:
    """Training curves and pictures, which need the set and the trainings."""
    if sources.data is None:
        missing = (
            "Not given: --data SET --runs FOLDER, as for mindgap evaluate, shows test patches."
        )
        curves, images = [], [Section("images", "Images", missing=missing)]
    else:
        views = Views(numbers.results, sources.data, sources.runs, device=sources.device)
        curves = curves_of(numbers.results, views.trainings)
        images = _images(numbers, views, sources.patches) if sources.patches else []
    return [*([sections.training(curves)] if numbers.trained else []), *images]


def _images(numbers: Numbers, views: Views, patches: int) -> list[Section]:
    """Test patches in pictures, or why there are none."""
    if not (chosen := views.patches(choose(numbers, patches))):
        why = sections.no_gap(numbers)
        missing = f"No patches: they are chosen by the gap of trained models. {why}"
        return [Section("images", "Images", missing=missing)]
    shown = plates(
        numbers, chosen, views.guess, views.exam.about["hr"]["bands"], views.exam.scores.kind
    )
    about = (
        "Test patches of the first training. Rows: the image, its absolute error, LPIPS-Sat per "
        "pixel; the first column holds the HR image above the LR image. Numbers: PSNR and "
        "LPIPS-Sat. All pictures of a patch are stretched alike, by its HR image; an error's or a "
        "distance's colour means the same in all cases of a patch."
    )
    if views.absent:
        about += f" Without pictures: {'; '.join(views.absent)}."
    return [Section("images", "Images", about=about, plates=shown)]


def _audit(numbers: Numbers, sources: Sources) -> Section:
    if sources.audit is None:
        missing = (
            "Not given: mindgap audit SET --out FOLDER makes it, --audit FOLDER shows it here."
        )
        return Section("audit", "The pairs", missing=missing)
    audit = read_audit(sources.audit)
    if audit.name != _name(numbers):
        raise ResultsError(
            f"{sources.audit} is the audit of {audit.name}, but the results are of {_name(numbers)}"
        )
    if audit.test_sha256 != numbers.results.provenance.get("set", {}).get("test_sha256"):
        raise ResultsError(
            f"{sources.audit} is the audit of other test patches than those of the results, though "
            f"both sets are called {audit.name}: make it again with `mindgap audit`"
        )
    return audit_section(audit)


def _name(numbers: Numbers) -> str:
    return str(numbers.results.provenance.get("set", {}).get("name", "a set"))
