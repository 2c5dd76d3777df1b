"""One self-contained HTML page from tables of results: numbers, pictures, warnings, provenance.

`render` and its neighbours make other pages of the same look.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import MetricInputError, ResultsError
from ..outputs import StrPath, check_output, whole_file
from ..results import Results
from .cases import Case, best_and_worst, choose, draw
from .charts import charts
from .document import palette, render
from .notes import notes
from .panels import Panel, colour_top, map_panel, rgb_panel
from .tables import MetricSummary, number, summaries

__all__ = [
    "Panel",
    "colour_top",
    "map_panel",
    "number",
    "palette",
    "render",
    "rgb_panel",
    "write_report",
]

METHOD_COLOURS = 6  # as many as page.css defines; further methods begin again


def write_report(
    tables: Mapping[str, Results], path: StrPath, *, cases: int = 12, overwrite: bool = False
) -> list[Case]:
    """Write the report of one or several methods to an HTML file.

    Args:
        tables: tables of results by the name of their method. The rasters that they name are read
            again for the pictures, where they can be.
        path: of the page.
        cases: show so many images: the worst and the best of each metric in turn.
        overwrite: replace ``path`` if it exists.

    Returns:
        What was shown; a picture that could not be made says why in `Drawn.problem`.

    Raises:
        ResultsError: no table, or tables of images beside tables of tiles.
        MissingDependencyError: the extra ``report`` is not installed.
    """
    if not tables:
        raise ResultsError("expected one table of results or more, got none")
    if len({table.tiled for table in tables.values()}) > 1:
        raise ResultsError("some tables have a row per tile, others per image: report them apart")
    if cases < 0:
        raise MetricInputError(f"the number of cases must be 0 or more, got {cases}")
    check_output(path, overwrite=overwrite)
    extremes = best_and_worst(tables)
    shown = [draw(key, tables) for key in choose(extremes, cases)]
    found = summaries(tables)
    anchors = {case.key: f"case-{place}" for place, case in enumerate(shown, start=1)}
    text = render(
        "page.html",
        tables=tables,
        metrics=found,
        charts=charts(tables),
        extremes=extremes,
        cases=shown,
        anchors=anchors,
        titles=[(anchor, str(key)) for key, anchor in anchors.items()],
        notes=notes(tables),
        totals=_totals(tables, found),
        colours=METHOD_COLOURS,
    )
    with whole_file(path, overwrite=overwrite) as part:
        part.write_text(text, encoding="utf-8")
    return shown


def _totals(tables: Mapping[str, Results], metrics: list[MetricSummary]) -> dict[str, int]:
    return {
        "methods": len(tables),
        "metrics": len(metrics),
        "rows": sum(len(table.scored) for table in tables.values()),
        "failed": sum(len(table.failed) for table in tables.values()),
    }
