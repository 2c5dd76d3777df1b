"""What a report is made of, before it is HTML or Markdown: texts, tables, figures, sections."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lpips_sat.report import Panel, number
from lpips_sat.stats import Interval

from ..experiment.summary import told_apart

# How metrics are called in print; others by the names that users type.
TITLES = {"lpips-sat": "LPIPS-Sat", "dists": "DISTS", "lpips-alex": "LPIPS (AlexNet)"} | {
    name: name.upper()
    for name in ("psnr", "ssim", "mae", "rmse", "sam", "ergas", "ms-ssim", "mtf", "uiqi")
}


@dataclass(frozen=True)
class Text:
    """What a cell of a table says; small: what goes with it, such as an interval."""

    value: str
    small: str = ""
    strong: bool = False


NONE = Text("\N{EN DASH}")


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows."""

    title: str
    columns: list[Text]
    rows: list[list[Text]]
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A small chart.

    name: of its file; alt: what it says to those who do not see it; size: inches; draw: paints
    matplotlib axes with colours by name, see `lpips_sat.report.palette`.
    """

    name: str
    title: str
    alt: str
    size: tuple[float, float]
    draw: Callable[[Any, Mapping[str, str]], None]


@dataclass(frozen=True)
class Column:
    """Pictures of one image below each other, with what it is called and how it scores."""

    name: str
    score: str
    panels: list[Panel]


@dataclass(frozen=True)
class Plate:
    """A patch in one case, as the truth and every model show it; name: of its anchor and file."""

    name: str
    title: str
    columns: list[Column]

    @property
    def titled(self) -> tuple[str, str]:
        """Anchor and title."""
        return self.name, self.title


@dataclass(frozen=True)
class Answer:
    """A question, and what the numbers say to it, paragraph by paragraph."""

    question: str
    said: list[str]


@dataclass(frozen=True)
class Section:
    """A chapter of the report.

    about: how to read it; missing: the command that makes a part which was not given; more: tables
    that a page folds away under the words `folded`.
    """

    name: str
    title: str
    about: str = ""
    answers: list[Answer] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    more: list[Table] = field(default_factory=list)
    folded: str = "More"
    plates: list[Plate] = field(default_factory=list)
    missing: str = ""


@dataclass(frozen=True)
class Report:
    """All of it; provenance: by the name of the table that it came with."""

    title: str
    about: str
    sections: list[Section]
    provenance: dict[str, Any]


def title_of(metric: str) -> str:
    """A metric's name in print."""
    return TITLES.get(metric, metric)


def decimals(largest: float) -> int:
    """How many decimals give numbers up to `largest` three significant digits."""
    return int(min(6, max(0, 2 - math.floor(math.log10(largest))))) if largest else 2


def fixed(value: float, digits: int) -> str:
    """Write a number with so many decimals; 0 has no sign."""
    if not math.isfinite(value):
        return number(value)
    text = f"{value:.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def signed(value: float, digits: int) -> str:
    """Write a difference: `fixed` with its sign."""
    text = fixed(value, digits)
    return f"+{text}" if value > 0 and text.strip("0.") else text


def mean_text(found: Interval | None, digits: int) -> Text:
    """A mean with its interval; a dash for none."""
    if found is None:
        return NONE
    return Text(fixed(found.mean, digits), span(found.low, found.high, digits, fixed))


def difference_text(found: Interval | None, digits: int) -> Text:
    """A difference with its interval, strong if that leaves out 0; a dash for none."""
    if found is None:
        return NONE
    small = span(found.low, found.high, digits, signed)
    return Text(signed(found.mean, digits), small, told_apart(found))


def span(low: float, high: float, digits: int, write: Callable[[float, int], str]) -> str:
    """The ends of an interval, or nothing where there is none."""
    known = math.isfinite(low) and math.isfinite(high)
    return f"{write(low, digits)} to {write(high, digits)}" if known else ""


def in_words(text: Text) -> str:
    """A number with its interval in a sentence."""
    return f"{text.value} ({text.small})" if text.small else text.value


def markdown(table: Table) -> str:
    """A table in Markdown, without its title."""
    lines = [
        [in_words(column) for column in table.columns],
        ["---", *["---:"] * (len(table.columns) - 1)],
        *([_cell(cell) for cell in row] for row in table.rows),
    ]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{text}\n\n{table.note}" if table.note else text


def _cell(text: Text) -> str:
    value = f"**{text.value}**" if text.strong else text.value
    return escaped(in_words(Text(value, text.small))).replace("|", "\\|")


def escaped(text: str) -> str:
    """Keep names from being HTML in Markdown."""
    return text.replace("<", "&lt;")
