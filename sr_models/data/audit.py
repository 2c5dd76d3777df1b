"""The audit of a set: how its two sensors and their acquisitions differ, before any model.

>>> audit = audit_pairs("pairs/s2-b8")  # doctest: +SKIP
>>> audit.outside  # pairs beyond the declared limits, with the reasons  # doctest: +SKIP
>>> write_audit(audit, "audit")  # table, summary, figures  # doctest: +SKIP
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lpips_sat.errors import one_line
from lpips_sat.outputs import StrPath, check_folder, whole_folder
from lpips_sat.warp import read_values

from .errors import PairError
from .measures import MIN_RELIABILITY, compare, frequencies, line_sums, measure
from .pairs import read_about, read_manifest, test_sha256
from .sets import box_mean

TABLE = "audit.parquet"
SUMMARY = "summary.csv"
OUTSIDE = "outside.csv"
KEY = "mindgap.audit"  # of the provenance in the table's metadata
# Cycles per LR pixel at which the relative MTF has a column; the last is the Nyquist frequency.
AT = (0.125, 0.25, 0.375, 0.5)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Limits:
    """What a pair may differ by before it is listed: conventions to declare, not laws of nature.

    Args:
        shift: LR pixels; half a pixel is the usual mistake of a grid. Only a shift of reliability
            0.9 or more counts.
        correlation: least, of every band, over the LR pixels.
        gain: of every band, this factor or its inverse.
        bias: of every band, either way, in the units of the values.
        angle: mean spectral angle in degrees.
        days: between the two acquisitions.
        view: difference of the zenith angles of the two views in degrees.

    Where an image is untextured (see `Layout.min_texture`), correlation, gain and shift mean
    nothing and are not judged.
    """

    shift: float = 0.5
    correlation: float = 0.9
    gain: float = 1.25
    bias: float = 0.05
    angle: float = 5.0
    days: float = 3.0
    view: float = 15.0

    def __post_init__(self) -> None:
        """Refuse limits without meaning."""
        positive = min(self.shift, self.bias, self.angle, self.days, self.view) >= 0
        if not (positive and -1 <= self.correlation <= 1 and self.gain >= 1):
            raise PairError(
                "expected limits of 0 or more, a correlation in [-1, 1] and a gain of at least 1, "
                f"got {self}"
            )


@dataclass(frozen=True)
class Audit:
    """What was measured.

    Attributes:
        name: of the set.
        test_sha256: of its test patches, as tables of the experiment have it.
        bands: of LR; those of HR with which they are paired.
        table: one row per pair: `id`, `split`, `block`, `textured`, the measures of
            `measures.measure`, with `mtf` at all `frequencies` and `mtf_0.125` and so on, `days`
            from HR to LR, `lr_view`, `hr_view`, `view` their difference, and `outside`, the
            reasons why it is beyond the limits, empty if it is not.
        pooled: one row per LR band: the line over all pixels of all textured pairs, as they are.
        frequencies: of `mtf`, in cycles per LR pixel.
        limits: those of `outside`.
    """

    name: str
    test_sha256: str
    bands: tuple[tuple[str, ...], tuple[str, ...]]
    table: pd.DataFrame
    pooled: pd.DataFrame
    frequencies: list[float]
    limits: Limits

    @property
    def outside(self) -> dict[str, str]:
        """Pairs beyond the limits: id -> reasons."""
        beyond = self.table[self.table["outside"] != ""]
        return dict(zip(beyond["id"], beyond["outside"], strict=True))

    def measures(self) -> list[str]:
        """Name the columns that are measures and known for at least one pair."""
        text = ("id", "split", "block", "textured", "outside", "mtf")
        return [c for c in map(str, self.table) if c not in text and self.table[c].notna().any()]

    def summary(self) -> pd.DataFrame:
        """Quantiles of every measure over textured and untextured pairs, and their number."""
        rows = []
        for textured, part in self.table.groupby("textured", sort=False):
            for name in self.measures():
                values = part[name].dropna()
                if len(values):
                    found = dict(zip(_quantile_names(), values.quantile(QUANTILES), strict=True))
                    rows.append(
                        {"measure": name, "textured": textured, "pairs": len(values), **found}
                    )
        return pd.DataFrame(rows, columns=["measure", "textured", "pairs", *_quantile_names()])


def audit_pairs(
    root: StrPath,
    *,
    limits: Limits | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Audit:
    """Measure every pair of every split of a set.

    Raises:
        PairError: the folder is no set, or holds no pair.
        RasterError: a file that is missing or damaged.
    """
    limits = limits or Limits()
    about, manifest = read_about(root), read_manifest(root)
    used = manifest[manifest["split"] != ""].reset_index(drop=True)
    if used.empty:
        raise PairError(f"{root} holds no pair in any split: build the set again")
    bands = tuple(tuple(about[side]["bands"]) for side in ("lr", "hr"))
    least = float(about["layout"]["min_texture"])
    rows: list[dict[str, Any]] = []
    totals = np.zeros((len(bands[0]), 10))
    for done, (_, tile) in enumerate(used.iterrows(), start=1):
        lr, hr = (read_values(Path(root) / tile[side]) for side in ("lr", "hr"))
        textured = bool(tile["texture"] >= least)
        known = {"id": tile["id"], "split": tile["split"], "block": tile["block"]}
        measured = measure(lr, hr, bands[0])
        rows.append({**known, "textured": textured, **measured, **_acquisition(tile)})
        if textured:
            down = box_mean(hr, int(about["factor"]))
            totals += [
                line_sums(*xy) for xy in zip(down.astype(float), lr.astype(float), strict=True)
            ]
        progress(done, len(used))
    at = frequencies(int(about["layout"]["tile"]) // int(about["factor"]))
    table = _judged(pd.DataFrame(rows), at, bands[0], limits)
    pooled = pd.DataFrame(
        {"band": band, **compare(sums)}
        for band, sums in zip(bands[0], totals, strict=True)
        if sums[0]
    )
    name = Path(root).resolve().name
    hashed = test_sha256(root)
    return Audit(name, hashed, (bands[0], bands[1]), table, pooled, at.tolist(), limits)


def check_audit_output(out: StrPath, *, figures: bool, overwrite: bool) -> None:
    """Refuse an output that cannot be written, before the work is done; see `write_audit`."""
    check_folder(out, mark=TABLE, overwrite=overwrite)
    if figures:
        from . import audit_figures  # noqa: F401  its import says what is missing


def write_audit(
    audit: Audit, out: StrPath, *, figures: bool = True, overwrite: bool = False
) -> None:
    """Write `audit.parquet`, `summary.csv`, `outside.csv` and the figures to a folder.

    Raises:
        MissingDependencyError: figures without matplotlib.
        OutputExistsError: the folder is there already, and `overwrite` is not set.
    """
    import pyarrow as pa
    from pyarrow import parquet

    if figures:
        from .audit_figures import draw_figures
    with whole_folder(out, mark=TABLE, overwrite=overwrite) as folder:
        rows = pa.Table.from_pandas(audit.table, preserve_index=False)
        kept = {KEY: json.dumps(provenance(audit))}
        parquet.write_table(rows.replace_schema_metadata(kept), folder / TABLE)
        audit.summary().to_csv(folder / SUMMARY, index=False)
        beyond = pd.DataFrame(audit.outside.items(), columns=["id", "reasons"])
        beyond.to_csv(folder / OUTSIDE, index=False)
        if figures:
            draw_figures(audit, folder)


def read_audit(folder: StrPath) -> Audit:
    """Read what `write_audit` wrote.

    Raises:
        PairError: no audit there, or a damaged one.
    """
    import pyarrow as pa
    from pyarrow import parquet

    path = Path(folder) / TABLE
    if not path.is_file():
        raise PairError(f"{folder} holds no {TABLE}: expected what `mindgap audit --out` writes")
    try:
        rows = parquet.read_table(path)
        known = json.loads((rows.schema.metadata or {})[KEY.encode()])
        pooled = pd.DataFrame(known["pooled"])
        bands = (tuple(known["lr_bands"]), tuple(known["hr_bands"]))
        name, hashed = known["set"], known["test_sha256"]
        limits = Limits(**known["limits"])
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        reason = one_line(error)
        raise PairError(
            f"{path} is damaged, or of an earlier version ({reason}): make the audit again"
        ) from error
    return Audit(name, hashed, bands, rows.to_pandas(), pooled, known["frequencies"], limits)


def provenance(audit: Audit) -> dict[str, Any]:
    """What the numbers of an audit depend on, and the pooled lines."""
    return {
        "set": audit.name,
        "test_sha256": audit.test_sha256,
        "lr_bands": list(audit.bands[0]),
        "hr_bands": list(audit.bands[1]),
        "limits": asdict(audit.limits),
        "pooled": audit.pooled.to_dict("records"),
        "frequencies": audit.frequencies,
        "versions": {name: version(name) for name in ("lpips-sat", "numpy", "rasterio")},
    }


def _acquisition(tile: pd.Series) -> dict[str, float]:
    """What differs by when and whence the two images were taken; NaN where it is not known."""
    dates = [str(tile.get(side) or "") for side in ("lr_date", "hr_date")]
    if not all("T" in date for date in dates):  # a day without its time is compared as a day
        dates = [date[:10] for date in dates]
    days = math.nan
    if all(dates):
        lr, hr = (pd.Timestamp(pd.to_datetime(date, utc=True)) for date in dates)
        days = (lr - hr).total_seconds() / 86400
    views = {side: float(tile.get(side, math.nan)) for side in ("lr_view", "hr_view")}
    return {"days": days, **views, "view": views["lr_view"] - views["hr_view"]}


def _judged(table: pd.DataFrame, at: Any, bands: tuple[str, ...], limits: Limits) -> pd.DataFrame:
    """Add the relative MTF at some of its frequencies, and what is beyond the limits."""
    curves = np.stack(list(table["mtf"]))
    for wanted in AT:
        table[f"mtf_{wanted:g}"] = curves[:, int(np.argmin(np.abs(at - wanted)))]
    table["outside"] = [_reasons(row, bands, limits) for _, row in table.iterrows()]
    return table


def _reasons(row: pd.Series, bands: tuple[str, ...], limits: Limits) -> str:
    """Say what of a pair is beyond the limits; NaN never is."""
    found = []
    if row["textured"]:
        if row["shift"] > limits.shift and row["reliability"] >= MIN_RELIABILITY:
            found.append(f"shift {row['shift']:.2f} LR px")
        for band in bands:
            if row[f"correlation_{band}"] < limits.correlation:
                found.append(f"correlation {row[f'correlation_{band}']:.2f} of {band}")
            if not 1 / limits.gain <= row[f"gain_{band}"] <= limits.gain:
                found.append(f"gain {row[f'gain_{band}']:.2f} of {band}")
    found += [
        f"bias {row[f'bias_{band}']:.3f} of {band}"
        for band in bands
        if abs(row[f"bias_{band}"]) > limits.bias
    ]
    if row["spectral_angle"] > limits.angle:
        found.append(f"spectral angle {row['spectral_angle']:.1f} degrees")
    if abs(row["days"]) > limits.days:
        found.append(f"{abs(row['days']):.1f} days apart")
    if abs(row["view"]) > limits.view:
        found.append(f"views {abs(row['view']):.0f} degrees apart")
    return "; ".join(found)


def _quantile_names() -> list[str]:
    return ["median" if q == 0.5 else f"q{round(100 * q):02d}" for q in QUANTILES]
