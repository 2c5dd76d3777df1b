"""The audit of the set, summed up: pooled lines, quantiles, the relative MTF, pairs to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from lpips_sat.report import number

from ..data.audit import Audit
from .content import Figure, Section, Table, Text
from .figures import WIDTH

SHOWN = 10  # pairs beyond the limits that are named
LINES = ("gain", "offset", "correlation", "residual", "bias")


def audit_section(audit: Audit) -> Section:
    """What the audit says of the pairs themselves, before any model."""
    outside = audit.outside
    limits = ", ".join(f"{name} {value:g}" for name, value in asdict(audit.limits).items())
    return Section(
        "audit",
        "The pairs",
        about=f"How the two sensors of {audit.name} differ, before any model. Declared limits: "
        f"{limits}; {len(outside)} of {len(audit.table)} pairs lie beyond. Nothing is left out.",
        tables=[lines_table(audit), quantiles_table(audit)],
        figures=[_mtf_figure(audit)],
        more=[_outside_table(outside)] if outside else [],
        folded="Pairs beyond the limits",
    )


def lines_table(audit: Audit) -> Table:
    """LR as a line of HR, per band, over all pixels of textured pairs."""
    rows = [
        [Text(_bands(audit, str(row["band"]))), *(Text(number(float(row[name]))) for name in LINES)]
        for row in audit.pooled.to_dict("records")
    ]
    columns = [Text("LR of HR"), *(Text(name) for name in LINES)]
    return Table("One line for all pixels", columns, rows)


def quantiles_table(audit: Audit) -> Table:
    """Median and quartiles of every measure over the textured pairs."""
    found = audit.summary()
    rows = [
        [
            Text(str(row["measure"]).replace("_", " ")),
            Text(number(row["median"]), f"{number(row['q25'])} to {number(row['q75'])}"),
            Text(number(row["q05"])),
            Text(number(row["q95"])),
            Text(str(row["pairs"])),
        ]
        for row in found[found["textured"]].to_dict("records")
    ]
    heads = (Text("median", "quartiles"), Text("5 %"), Text("95 %"), Text("pairs"))
    return Table("Pair by pair", [Text("measure"), *heads], rows)


def _bands(audit: Audit, band: str) -> str:
    lr, hr = audit.bands
    return f"{band} of {hr[lr.index(band)]}"


def _outside_table(outside: Mapping[str, str]) -> Table:
    rows = [[Text(name), Text(reasons)] for name, reasons in list(outside.items())[:SHOWN]]
    more = len(outside) - SHOWN
    note = f"And {more} more, in outside.csv." if more > 0 else ""
    return Table("Pairs to look at", [Text("pair"), Text("beyond the limits")], rows, note)


def _mtf_figure(audit: Audit) -> Figure:
    textured = audit.table.loc[audit.table["textured"], "mtf"]
    curves = np.stack([np.asarray(curve, dtype=np.float64) for curve in textured])
    low, middle, high = np.nanquantile(curves, (0.25, 0.5, 0.75), axis=0)
    alt = f"Detail of HR over that of LR: {middle[-1]:.2f} at the Nyquist frequency of LR"
    draw = partial(_draw_mtf, frequencies=audit.frequencies, low=low, middle=middle, high=high)
    return Figure("audit-mtf", "Detail of HR over that of LR", alt, (WIDTH, 2.2), draw)


def _draw_mtf(
    axes: Any, colours: Mapping[str, str], *, frequencies: Any, low: Any, middle: Any, high: Any
) -> None:
    axes.axhline(1, color=colours["soft"], linewidth=1)
    axes.fill_between(frequencies, low, high, color=colours["m0"], alpha=0.25, linewidth=0)
    axes.plot(frequencies, middle, color=colours["m0"], linewidth=1.5)
    axes.set_ylim(0, max(1.2, 1.1 * float(np.nanmax(high))))
    axes.set_xlabel("cycles per LR pixel")
    axes.grid(axis="y")
    axes.tick_params(length=0)
