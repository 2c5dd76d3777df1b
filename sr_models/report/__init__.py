"""The report of the experiment: one self-contained HTML page, and the same as Markdown.

Both are made of one `content.Report`; `tables` gives the Markdown of its main tables alone.
"""

from __future__ import annotations

from pathlib import Path

from lpips_sat.outputs import StrPath, check_output, whole_file

from .content import Report

__all__ = ["write_report"]


def write_html(report: Report, path: Path, *, overwrite: bool) -> None:
    """Write the page."""
    from importlib.resources import files

    from lpips_sat.report import render

    from .figures import svg

    style = (files(__package__) / "experiment.css").read_text("utf-8")
    text = render("experiment.html", package=__package__, style=style, report=report, svg=svg)
    with whole_file(path, overwrite=overwrite) as part:
        part.write_text(text, encoding="utf-8")
