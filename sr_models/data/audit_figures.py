"""The figures of an audit: distributions over the pairs of a set, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lpips_sat.errors import MissingDependencyError

from .measures import MIN_RELIABILITY
from .preview import COLORS

if TYPE_CHECKING:
    from .audit import Audit

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
except ImportError as error:
    raise MissingDependencyError(
        "figures need matplotlib: pip install 'lpips-sat[report]', or pass --no-figures"
    ) from error

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelcolor": "#444444",
    "axes.edgecolor": "#888888",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "figure.dpi": 150,
    "figure.constrained_layout.use": True,
}
INK, LIMIT = "#222222", "#888888"
DASHED: dict[str, Any] = {"color": LIMIT, "lw": 1, "ls": "--"}
PLAIN: dict[str, Any] = {"frameon": False, "fontsize": 8}
WORDS = {"gain": "gain", "offset": "offset", "correlation": "correlation", "bias": "bias, LR - HR"}
WORDS |= {"residual": "residual, RMS", "lr_noise": "LR noise", "hr_noise": "HR noise"}


def draw_figures(audit: Audit, folder: Path) -> None:
    """Write the figures whose measures are known: shift, radiometry, sharpness, noise, dates."""
    figures = {
        "shift": _shift,
        "radiometry": _radiometry,
        "sharpness": _sharpness,
        "noise": _noise,
        "acquisition": _acquisition,
    }
    with mpl.rc_context(STYLE):
        for name, draw in figures.items():
            figure = draw(audit)
            if figure is not None:
                figure.savefig(folder / f"{name}.png")


def _shift(audit: Audit) -> Figure:
    """Where LR lies against HR, one dot a pair; hollow = not reliable."""
    figure = Figure(figsize=(4.6, 5.0))
    axes = figure.subplots()
    table, limit = audit.table, audit.limits.shift
    reliable = table["reliability"] >= MIN_RELIABILITY
    for split, color in COLORS.items():
        part = table[(table["split"] == split) & reliable]
        if len(part):
            axes.scatter(part["shift_x"], part["shift_y"], s=16, c=color, alpha=0.7, lw=0)
            axes.scatter([], [], s=16, c=color, label=f"{split} ({len(part)})")
    unsure = table[~reliable]
    if len(unsure):
        known: dict[str, Any] = {"s": 14, "facecolors": "none", "edgecolors": LIMIT, "lw": 0.7}
        label = f"not reliable ({len(unsure)})"
        axes.scatter(unsure["shift_x"], unsure["shift_y"], label=label, **known)
    turn = np.linspace(0, 2 * np.pi, 181)
    axes.plot(limit * np.cos(turn), limit * np.sin(turn), **DASHED, label=f"limit {limit:g} px")
    reach = max(1.25 * limit, 1.1 * table[["shift_x", "shift_y"]].abs().to_numpy().max())
    axes.set(xlim=(-reach, reach), ylim=(reach, -reach), aspect="equal")
    axes.axhline(0, color=LIMIT, lw=0.5, zorder=0)
    axes.axvline(0, color=LIMIT, lw=0.5, zorder=0)
    axes.set(xlabel="right, LR pixels", ylabel="down, LR pixels")
    median = table.loc[table["textured"], "shift"].median()
    axes.set_title(f"{audit.name}: LR against HR, median shift {median:.2f} LR px")
    figure.legend(loc="outside lower center", ncols=3, **PLAIN)
    return figure


def _radiometry(audit: Audit) -> Figure:
    """The line from HR to LR of every band, and how well it fits."""
    limits = audit.limits
    marks = {
        "gain": (1 / limits.gain, limits.gain),
        "correlation": (limits.correlation,),
        "bias": (-limits.bias, limits.bias),
    }
    names = ["gain", "offset", "correlation", "residual", "bias"]
    several = len(audit.bands[0]) > 1
    return _strips(
        audit,
        names,
        f"{audit.name}: LR as a line of HR, averaged over LR pixels",
        marks | {"spectral_angle": (limits.angle,)},
        single="spectral_angle" if several else None,
    )


def _noise(audit: Audit) -> Figure:
    """The noise of both images, each at its own pixels."""
    title = f"{audit.name}: noise at own pixels, in the units of the values"
    return _strips(audit, ["lr_noise", "hr_noise"], title, {})


def _sharpness(audit: Audit) -> Figure:
    """Amplitude of HR over that of LR against frequency: quantiles over textured pairs."""
    figure = Figure(figsize=(5.4, 3.6))
    axes = figure.subplots()
    curves = np.stack(list(audit.table.loc[audit.table["textured"], "mtf"]))
    low, lower, middle, upper, high = np.nanquantile(curves, (0.05, 0.25, 0.5, 0.75, 0.95), axis=0)
    blue = COLORS["train"]
    at = audit.frequencies
    axes.fill_between(at, low, high, color=blue, alpha=0.15, lw=0, label="5 to 95 %")
    axes.fill_between(at, lower, upper, color=blue, alpha=0.3, lw=0, label="25 to 75 %")
    axes.plot(at, middle, color=blue, lw=1.8, label="median")
    axes.axhline(1, **DASHED)
    axes.annotate(
        f"{middle[-1]:.2f}", (at[-1], middle[-1]), (-3, 5), textcoords="offset points", ha="right"
    )
    axes.set(xlim=(0, 0.505), ylim=(0, 1.1 * float(high.max())))
    axes.set(xlabel="cycles per LR pixel (0.5 = Nyquist)", ylabel="amplitude, HR / LR")
    axes.set_title(f"{audit.name}: above 1, HR averaged to LR pixels is sharper than LR")
    axes.legend(loc="upper left", **PLAIN)
    return figure


def _acquisition(audit: Audit) -> Figure | None:
    """Days and view angles between the two images, where they are known."""
    known = [c for c in ("days", "view") if audit.table[c].notna().any()]
    if not known:
        return None
    labels = {"days": "days, LR - HR", "view": "view zenith angle, LR - HR, degrees"}
    limits = {"days": audit.limits.days, "view": audit.limits.view}
    figure = Figure(figsize=(3.6 * len(known), 2.8))
    for axes, column in zip(np.atleast_1d(figure.subplots(1, len(known))), known, strict=True):
        values = audit.table[column].dropna()
        reach = max(1.15 * limits[column], 1.05 * float(values.abs().max()))
        axes.hist(values, bins=np.linspace(-reach, reach, 41), color=COLORS["train"])
        for side in (-1, 1):
            axes.axvline(side * limits[column], **DASHED)
        axes.set(xlabel=labels[column], ylabel="pairs")
    figure.suptitle(f"{audit.name}: what differs between the acquisitions", fontsize=10)
    return figure


def _strips(
    audit: Audit,
    names: Sequence[str],
    title: str,
    marks: dict[str, tuple[float, ...]],
    *,
    single: str | None = None,
) -> Figure:
    """A panel a measure with a row a band: a dot a pair, textured above untextured; quartiles."""
    bands = audit.bands[0]
    panels: list[tuple[str, list[str]]] = [(n, [f"{n}_{b}" for b in bands]) for n in names]
    if single is not None:
        panels.append((single, [single]))
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    height = 1.0 + lines * (0.75 + 0.42 * len(bands))
    figure = Figure(figsize=(3.1 * columns, height))
    grid = np.ravel(figure.subplots(lines, columns, squeeze=False))
    for axes, (name, wanted) in zip(grid, panels, strict=False):
        _panel(axes, audit.table, wanted)
        for mark in marks.get(name, ()):
            axes.axvline(mark, **DASHED, zorder=0)
        axes.set_yticks(range(len(wanted)), bands if len(wanted) == len(bands) else [""])
        axes.set_title(WORDS.get(name, "spectral angle, degrees"))
    for axes in grid[len(panels) :]:
        axes.axis("off")
    _key(figure, audit, bool(marks))
    figure.suptitle(title, fontsize=11)
    return figure


def _panel(axes: Any, table: pd.DataFrame, columns: Sequence[str]) -> None:
    """Dots and quartiles of some columns, one row each, from above."""
    rng = np.random.default_rng(0)
    apart = 0.18 if table["textured"].nunique() > 1 else 0.0
    kinds = ((True, COLORS["train"], -apart), (False, COLORS["val"], apart))
    for row, column in enumerate(columns):
        for textured, color, place in kinds:
            values = table.loc[table["textured"] == textured, column].dropna().to_numpy()
            if not len(values):
                continue
            jitter = row + place + rng.uniform(-0.1, 0.1, len(values))
            axes.scatter(values, jitter, s=7, color=color, alpha=0.45, linewidths=0)
            lower, middle, upper = np.quantile(values, (0.25, 0.5, 0.75))
            axes.plot([lower, upper], [row + place] * 2, color=INK, lw=2.2, alpha=0.75)
            axes.plot(middle, row + place, "o", color="white", mec=INK, ms=4.5, mew=1.2)
    axes.set_ylim(len(columns) - 0.5, -0.5)
    axes.margins(x=0.08)
    axes.locator_params(axis="x", nbins=4)


def _key(figure: Figure, audit: Audit, limited: bool) -> None:
    """Say below the panels what colours and marks mean."""
    from matplotlib.lines import Line2D

    counts = audit.table["textured"].value_counts()
    entries = [
        Line2D([], [], color=color, marker="o", ls="", ms=4, label=f"{name} ({counts[kind]})")
        for kind, color, name in (
            (True, COLORS["train"], "textured"),
            (False, COLORS["val"], "untextured"),
        )
        if kind in counts
    ]
    line: dict[str, Any] = {"color": INK, "lw": 2.2, "marker": "o", "mfc": "white", "ms": 4.5}
    entries.append(Line2D([], [], label="median, quartiles", **line))
    if limited:
        entries.append(Line2D([], [], **DASHED, label="limit"))
    figure.legend(handles=entries, loc="outside lower center", ncols=len(entries), **PLAIN)
