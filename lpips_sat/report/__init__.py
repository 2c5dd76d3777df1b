"""One self-contained HTML page from tables of results: numbers, pictures, warnings, provenance.

The page loads nothing from elsewhere and says so in its content security policy: its style and
script are inline and named by hash, its pictures are data URIs.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from .. import __version__
from ..errors import MetricInputError, MissingDependencyError, ResultsError
from ..outputs import StrPath, check_output, whole_file
from ..results import Results
from .cases import Case, best_and_worst, choose, draw
from .charts import charts
from .notes import notes
from .tables import MetricSummary, summaries

__all__ = ["write_report"]

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
    text = _page(
        tables=tables,
        metrics=found,
        charts=charts(tables),
        extremes=extremes,
        cases=shown,
        anchors={case.key: f"case-{number}" for number, case in enumerate(shown, start=1)},
        notes=notes(tables),
        totals=_totals(tables, found),
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


def _page(**given: Any) -> str:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingDependencyError(
            "a report needs jinja2 and matplotlib: pip install 'lpips-sat[report]'"
        ) from error
    folder = files(__package__)
    style, script = ((folder / f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    env = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src {_hash(style)}; script-src {_hash(script)}"
    )
    page = env.get_template("page.html")
    return page.render(
        **given,
        style=style,
        script=script,
        policy=policy,
        version=__version__,
        colours=METHOD_COLOURS,
    )


def _hash(text: str) -> str:
    """What the content security policy calls an inline element by."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
