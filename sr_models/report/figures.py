"""The charts of the report: how they are drawn, and how they become pictures."""

from __future__ import annotations

import base64
import io
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lpips_sat.report import palette
from lpips_sat.stats import Interval

from ..experiment.curves import Curve
from .content import Figure, difference_text, in_words, title_of
from .findings import GAP, LABELS, Parts
from .numbers import Numbers

WIDTH = 3.2  # inches, of a chart: a column of the page
ROW = 0.23  # inches, of a line in a chart of lines
TITLE_PAD, LEGEND_HEIGHT = 6, 13  # points, between a chart and its title
LEARNED = {"synthetic": "I: synthetic", "real": "III: real"}
SETTINGS: Any = {  # of matplotlib
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 8,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "svg.hashsalt": "mindgap",  # the same chart is the same file
}


@dataclass(frozen=True)
class Mark:
    """A dot with its interval in one of the rows of a chart; series: 0 full, 1 hollow."""

    row: str
    series: int
    value: Interval


def gap_figure(numbers: Numbers, metric: str) -> Figure | None:
    """II - I of every model, and III - I, what training on real pairs leaves of it."""
    marks = [
        Mark(model, series, found)
        for model in numbers.models
        for series, cases in enumerate((("II", "I"), ("III", "I")))
        if (series == 0 or model in numbers.trained)
        and (found := numbers.gap(model, metric, cases)) is not None
    ]
    if not marks:
        return None
    rows = list(dict.fromkeys(mark.row for mark in marks))
    said = [
        f"{mark.row} {in_words(difference_text(mark.value, numbers.digits(metric)))}"
        for mark in marks
        if mark.series == 0
    ]
    legend = ["II \N{MINUS SIGN} I", "III \N{MINUS SIGN} I"][: 1 + max(m.series for m in marks)]
    return Figure(
        slug(f"gap-{metric}"),
        _with_unit(numbers, metric),
        f"Gap II minus I in {title_of(metric)}: {'; '.join(said)}",
        (WIDTH, 0.75 + ROW * len(rows)),
        partial(_draw_marks, marks=marks, rows=rows, legend=legend),
    )


def share_figures(numbers: Numbers, metric: str, found: Mapping[str, Parts]) -> list[Figure]:
    """What each factor takes of the gap of each model, on one axis."""
    chosen = {m: {k: x for k, x in parts.items() if k != GAP} for m, parts in found.items()}
    ends = [e for parts in chosen.values() for x in parts.values() for e in (x.low, x.high, x.mean)]
    known = [0.0, *(end for end in ends if math.isfinite(end))]
    reach = (1.08 * min(known), 1.08 * max(known))
    figures = []
    for model, parts in chosen.items():
        named = {LABELS.get(name, name): value for name, value in parts.items()}
        texts = {n: in_words(difference_text(x, numbers.digits(metric))) for n, x in named.items()}
        said = "; ".join(f"{name} {text}" for name, text in texts.items())
        figures.append(
            Figure(
                slug(f"shares-{metric}-{model}"),
                f"{model}: {_with_unit(numbers, metric)}",
                f"Shares of the gap of {model} in {title_of(metric)}: {said}",
                (WIDTH, 0.4 + ROW * len(named)),
                partial(_draw_bars, shares=named, reach=reach),
            )
        )
    return figures


def curves_figure(model: str, curves: Sequence[Curve]) -> Figure:
    """PSNR on the validation blocks while a model is trained, in both regimes."""
    said = "; ".join(
        f"{curve.regime}, seed {curve.seed}: {curve.last:+.2f} dB to bicubic at the end"
        for curve in curves
    )
    return Figure(
        slug(f"curves-{model}"),
        f"{model}: dB against steps",
        f"PSNR while {model} is trained: {said}",
        (WIDTH, 2.2),
        partial(_draw_curves, curves=curves),
    )


def slug(name: str) -> str:
    """A name for a file: models may be called by their path."""
    plain = re.sub(r"[^\w.-]+", "-", name)
    return plain if plain == name else f"{plain}-{zlib.crc32(name.encode()):08x}"


def svg(figure: Figure) -> str:
    """A chart as a data URI: an SVG that follows the page into the dark."""
    light, dark = palette(dark=False), palette(dark=True)
    text = _save(figure, light, format="svg", transparent=True).decode()
    names = {colour: name for name, colour in light.items()}
    text = re.sub("|".join(names), lambda found: f"var(--{names[found[0]]})", text)
    day, night = (";".join(f"--{n}:{c}" for n, c in p.items()) for p in (light, dark))
    style = f"<style>:root{{{day}}}@media (prefers-color-scheme: dark){{:root{{{night}}}}}</style>"
    text = text.replace("<defs>", f"{style}<defs>", 1)
    return f"data:image/svg+xml;base64,{base64.b64encode(text.encode()).decode()}"


def save_png(figure: Figure, path: Path) -> None:
    """Write a chart for a white page, with its title."""
    path.write_bytes(_save(figure, palette(dark=False), format="png", dpi=150, title=True))


def _save(figure: Figure, colours: Mapping[str, str], *, title: bool = False, **how: Any) -> bytes:
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Canvas

    own: Any = dict.fromkeys(("xtick.color", "axes.labelcolor", "axes.edgecolor"), colours["soft"])
    own |= {
        "text.color": colours["ink"],
        "ytick.color": colours["ink"],
        "grid.color": colours["line"],
    }
    memory = io.BytesIO()
    with rc_context({**SETTINGS, **own}):
        canvas = Canvas(figsize=figure.size, layout="constrained")
        axes = canvas.subplots()
        figure.draw(axes, colours)
        if title:
            above = TITLE_PAD + (LEGEND_HEIGHT if axes.get_legend() else 0)
            axes.set_title(figure.title, loc="left", fontsize=9, fontweight="bold", pad=above)
        # without a date the same chart is the same file
        canvas.savefig(memory, **how, metadata={"Date": None} if how["format"] == "svg" else None)
    return memory.getvalue()


def _with_unit(numbers: Numbers, metric: str) -> str:
    return ", ".join(filter(None, (title_of(metric), numbers.unit(metric))))


def _draw_marks(
    axes: Any,
    colours: Mapping[str, str],
    *,
    marks: Sequence[Mark],
    rows: Sequence[str],
    legend: Sequence[str],
) -> None:
    styles = [
        {"color": colours["m0"], "marker": "o", "markersize": 5},
        {"color": colours["m1"], "marker": "o", "markersize": 5, "fillstyle": "none"},
    ]
    apart = 0.17 if len(legend) > 1 else 0.0
    for mark in marks:
        place = rows.index(mark.row) + apart * (2 * mark.series - 1)
        style = styles[mark.series]
        if math.isfinite(mark.value.low):
            ends = (mark.value.low, mark.value.high)
            axes.plot(ends, (place, place), color=style["color"], linewidth=1.5)
        axes.plot(mark.value.mean, place, **style)
    _rows(axes, colours, rows)
    handles = [axes.plot([], [], linewidth=1.5, **styles[i])[0] for i in range(len(legend))]
    _legend(axes, handles, list(legend))


def _draw_bars(
    axes: Any,
    colours: Mapping[str, str],
    *,
    shares: Mapping[str, Interval],
    reach: tuple[float, float],
) -> None:
    for place, value in enumerate(shares.values()):
        colour = colours["m5" if place == len(shares) - 1 else "m0"]
        axes.barh(place, value.mean, height=0.6, color=colour, alpha=0.75)
        if math.isfinite(value.low):
            axes.plot((value.low, value.high), (place, place), color=colours["ink"], linewidth=1.2)
    axes.set_xlim(*reach)
    _rows(axes, colours, list(shares))


def _draw_curves(axes: Any, colours: Mapping[str, str], *, curves: Sequence[Curve]) -> None:
    for place, regime in enumerate(LEARNED):
        chosen = [curve for curve in curves if curve.regime == regime]
        for number, curve in enumerate(chosen):
            steps, psnr, bicubic = zip(*curve.rows, strict=True)
            label = None if number else LEARNED[regime]
            axes.plot(steps, psnr, color=colours[f"m{place}"], linewidth=1.3, label=label)
            if not number:
                axes.plot(steps, bicubic, color=colours[f"m{place}"], linewidth=1, dashes=(2, 2))
    axes.plot([], [], color=colours["soft"], linewidth=1, dashes=(2, 2), label="bicubic")
    axes.grid(axis="y")
    axes.tick_params(length=0)
    _legend(axes, *axes.get_legend_handles_labels())


def _legend(axes: Any, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """In one line above the chart."""
    axes.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(-0.02, 1),
        ncols=len(labels),
        frameon=False,
        borderaxespad=0,
        handlelength=1.4,
        handletextpad=0.4,
        columnspacing=1.2,
    )


def _rows(axes: Any, colours: Mapping[str, str], rows: Sequence[str]) -> None:
    """A line of the chart for every row, from top to bottom, around a line at 0."""
    axes.axvline(0, color=colours["soft"], linewidth=1)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.tick_params(length=0)
