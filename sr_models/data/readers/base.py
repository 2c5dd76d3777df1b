"""What the readers of public sets have in common."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lpips_sat.declared import RadiometryOptions
from lpips_sat.grid import Grid
from lpips_sat.warp import open_image

from ..errors import PairError

Array = npt.NDArray[Any]

# The bands of a Sentinel-2 L2A image as Sentinel Hub and Earth Engine hand them out.
L2A_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
RGBN = ("B04", "B03", "B02", "B08")
# Reflectance = DN / 10000 in every set here (without the offset of newer Sentinel-2 products).
SCALE = 1e-4
# Sentinel-2's products as Earth Engine names them begin with the time they were taken.
SENTINEL2_ID = re.compile(r"(20\d{6})T(\d{6})_20\d{6}T\d{6}_T\d\d[A-Z]{3}")


@dataclass(frozen=True)
class Published:
    """A pair as its set publishes it.

    Attributes:
        id: unique in the set, fit for a file name.
        roi: the place that is split as a whole.
        lr: float32 values (C, h, w).
        hr: float32 values (C, h f, w f) of the same ground.
        grid: of LR.
        valid: LR pixels that count (h, w); None = all.
        split: train, val or test, where the set publishes one; else empty.
        lr_date, hr_date: ISO 8601; empty = not known.
        lr_view, hr_view: zenith angle of the view in degrees; NaN = not known.
    """

    id: str
    roi: str
    lr: Array
    hr: Array
    grid: Grid
    valid: Array | None = None
    split: str = ""
    lr_date: str = ""
    hr_date: str = ""
    lr_view: float = math.nan
    hr_view: float = math.nan


# Reads some pairs of a set, when it is called.
Unit = Callable[[], Iterator[Published]]


@dataclass(frozen=True)
class Format:
    """A public set: what of it is read, and what its numbers mean.

    Attributes:
        title: the set and the published version whose layout is followed.
        bands: of LR and of HR, paired by position.
        gsd: of LR in metres; native_gsd: of the HR images as they are published.
        lr_values, hr_values: how numbers become values, in words.
        units: checks the layout of a folder and lists what is to be read, reading no image.
        tile: HR pixels of the side that images are cut into; None = whole images.
        resampled: whether the reader resamples HR.
        licence: recorded with the set.
    """

    title: str
    bands: tuple[Sequence[str], Sequence[str]]
    gsd: float
    native_gsd: float
    lr_values: str
    hr_values: str
    units: Callable[[Path], list[Unit]]
    tile: int | None = None
    resampled: bool = False
    licence: str = ""


def read_image(
    path: Path, bands: Sequence[str], wanted: Sequence[str], scale: float | None
) -> tuple[Array, Array, Grid]:
    """Read the values of `wanted` of an image whose bands are `bands`, what is valid, its grid.

    scale: of integer DN; None = they are values already, in floating point.
    """
    said = RadiometryOptions(bands=bands, scale=scale, offset=None if scale is None else 0.0)
    with open_image(path, radiometry=said, bands=wanted) as image:
        values, valid = image.read((0, 0, image.grid.height, image.grid.width))
        return values, valid, image.grid


def read_rows(path: Path, columns: Sequence[str], *, delimiter: str = ",") -> list[dict[str, str]]:
    """Read a table of the set; it must have these columns, and a cell of each in every row."""
    need_file(path)
    try:
        return _rows(path, columns, delimiter)
    except (UnicodeDecodeError, csv.Error) as error:
        raise PairError(f"{path} is no table in UTF-8 ({error}); the file is damaged") from error


def number(row: Mapping[str, str], column: str, source: Path) -> float:
    """Read the number in a cell of the table `source`; NaN where it is empty or there is none."""
    try:
        return float(row.get(column) or math.nan)
    except ValueError as error:
        cells = ", ".join(row.values())
        raise PairError(
            f"{source}: {column} is {row[column]!r}, expected a number, in: {cells}"
        ) from error


def _rows(path: Path, columns: Sequence[str], delimiter: str) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter)
        missing = [c for c in columns if c not in (reader.fieldnames or ())]
        if missing:
            raise PairError(
                f"{path}: unknown layout: no column {', '.join(missing)}; it has "
                f"{', '.join(reader.fieldnames or ('none',))}"
            )
        rows = []
        for row in reader:
            if None in row or None in row.values():
                count = len(reader.fieldnames or ())
                raise PairError(f"{path}, line {reader.line_num}: expected {count} cells")
            rows.append(row)
        return rows


def need_file(path: Path) -> Path:
    """Return a path that must be a file."""
    if not path.is_file():
        raise PairError(f"{path}: no such file; the set is incomplete or of another layout")
    return path


def need_folders(source: Path, inside: Mapping[str, str]) -> None:
    """Refuse a source that lacks one of these folders; `inside`: name -> what it holds."""
    if not source.is_dir():
        raise PairError(f"{source}: no such folder; expected the extracted set")
    for name, what in inside.items():
        if not (source / name).is_dir():
            raise PairError(f"{source}: unknown layout: expected the folder {name} with {what}")


def check_shape(what: str, array: Array, dimensions: int, bands: int, axis: int) -> None:
    """Refuse an array of another number of dimensions or bands."""
    if array.ndim != dimensions or array.shape[axis] != bands:
        raise PairError(
            f"{what}: unknown layout: expected {dimensions} dimensions with {bands} bands in "
            f"number {axis + 1}, got shape {array.shape}"
        )


def date_in(pattern: re.Pattern[str], text: str) -> str:
    """Find the date, or date and time, of a product's name: ISO 8601, or empty.

    pattern: its groups are YYYYMMDD and, if there is a second, HHMMSS.
    """
    found = pattern.search(text)
    if found is None:
        return ""
    form = "%Y%m%d%H%M%S" if len(found.groups()) > 1 else "%Y%m%d"
    moment = datetime.strptime("".join(found.groups()), form)
    return moment.isoformat() if len(found.groups()) > 1 else moment.date().isoformat()


def as_reflectance(dn: Array) -> Array:
    """Turn integer DN into reflectance, float32."""
    return (dn.astype(np.float64) * SCALE).astype(np.float32)
