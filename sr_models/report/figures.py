"""The charts of the report: how they are drawn, and how they become pictures."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lpips_sat.report import palette
from lpips_sat.stats import Interval

from .content import Figure, in_words, mean_text, title_of
from .numbers import Numbers

WIDTH = 3.7  # inches, of a chart: a column of the page
ROW = 0.23  # inches, of a line in a chart of lines
LEARNED = {"synthetic": "I: synthetic", "real": "III: real"}
SETTINGS = {
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


@dataclass(frozen=True)
class Line:
    """One training: PSNR on the validation blocks (dB) at steps, and bicubic's there."""

    regime: str
    seed: int
    steps: Sequence[float]
    psnr: Sequence[float]
    bicubic: float


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
    said = [f"{m.row} {in_words(mean_text(m.value))}" for m in marks if m.series == 0]
    legend = ["II \N{MINUS SIGN} I", "III \N{MINUS SIGN} I"][: 1 + max(m.series for m in marks)]
    return Figure(
        f"gap-{metric}",
        _with_unit(numbers, metric),
        f"Gap II minus I in {title_of(metric)}: {'; '.join(said)}",
        (WIDTH, 0.75 + ROW * len(rows)),
        partial(_draw_marks, marks=marks, rows=rows, legend=legend),
    )


def share_figure(
    model: str, metric: str, unit: str, shares: Mapping[str, Interval], reach: tuple[float, float]
) -> Figure:
    """What each factor takes of a model's gap; reach: the ends of the axis, alike for all models."""
    said = "; ".join(f"{name} {in_words(mean_text(value))}" for name, value in shares.items())
    return Figure(
        f"shares-{metric}-{model}",
        ", ".join(filter(None, (f"{model}: {title_of(metric)}", unit))),
        f"Shares of the gap of {model} in {title_of(metric)}: {said}",
        (WIDTH, 0.4 + ROW * len(shares)),
        partial(_draw_bars, shares=shares, reach=reach),
    )


def curves_figure(model: str, lines: list[Line]) -> Figure:
    """PSNR on the validation blocks while a model is trained, in both regimes."""
    said = "; ".join(
        f"{line.regime}, seed {line.seed}: {line.psnr[-1]:.2f} dB at step {line.steps[-1]:.0f}, "
        f"bicubic {line.bicubic:.2f} dB"
        for line in lines
    )
    return Figure(
        f"curves-{model}",
        model,
        f"PSNR while {model} is trained: {said}",
        (WIDTH, 2.4),
        partial(_draw_curves, lines=lines),
    )


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

    own = {key: colours["soft"] for key in ("xtick.color", "axes.labelcolor", "axes.edgecolor")}
    own |= {"text.color": colours["ink"], "ytick.color": colours["ink"], "grid.color": colours["line"]}
    memory = io.BytesIO()
    with rc_context({**SETTINGS, **own}):
        canvas = Canvas(figsize=figure.size, layout="constrained")
        axes = canvas.subplots()
        figure.draw(axes, colours)
        if title:
            axes.set_title(figure.title, loc="left", fontsize=9, fontweight="bold")
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


def _draw_curves(axes: Any, colours: Mapping[str, str], *, lines: Sequence[Line]) -> None:
    regimes = list(dict.fromkeys(line.regime for line in lines))
    for place, regime in enumerate(regimes):
        colour = colours[f"m{place}"]
        chosen = [line for line in lines if line.regime == regime]
        for number, line in enumerate(chosen):
            label = None if number else LEARNED[regime]
            axes.plot(line.steps, line.psnr, color=colour, linewidth=1.5, label=label)
        axes.axhline(chosen[0].bicubic, color=colour, linewidth=1, linestyle=(0, (2, 2)))
    axes.plot([], [], color=colours["soft"], linewidth=1, linestyle=(0, (2, 2)), label="bicubic")
    axes.set_xlabel("step")
    axes.set_ylabel("dB")
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
