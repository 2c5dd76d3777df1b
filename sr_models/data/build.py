"""Two georeferenced rasters of two sensors in, a set of aligned pairs out (see sets.py).

The set appears whole or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lpips_sat.declared import RadiometryOptions
from lpips_sat.grid import Grid
from lpips_sat.outputs import StrPath, whole_folder
from lpips_sat.pair import Image, PairMask
from lpips_sat.radiometry import check_range, options_of
from lpips_sat.registration import MIN_SIZE
from lpips_sat.warp import grid_in, open_image, open_mask, read_values

from .errors import PairError
from .grids import common_grid, metres, nested
from .sets import COLUMNS, DATASET, finish_set, record_of, split_tiles, start_set, write_tile
from .tiles import Layout, Place

# Medians of one place differ by less than this; a scale that is the other's changes them by more.
APART = 5
LOOKED_AT = 64  # tiles, spread evenly, whose medians are compared


@dataclass(frozen=True)
class Source:
    """A raster, what its numbers mean, and its bands to use in this order (None: those of both).

    date: of the acquisition, ISO 8601; view: zenith angle of the view in degrees. Both are recorded
    for the audit; empty and NaN = not known.
    """

    path: StrPath
    radiometry: RadiometryOptions = field(default_factory=RadiometryOptions)
    bands: Sequence[str] | None = None
    date: str = ""
    view: float = math.nan

    def __post_init__(self) -> None:
        """Write a date in one way, and refuse what is none."""
        try:
            if self.date:
                object.__setattr__(self, "date", _iso(self.date))
        except ValueError as error:
            raise PairError(
                f"{self.date!r} is no date: expected one such as 2024-06-30 or 2024-06-30T10:10"
            ) from error

    @property
    def name(self) -> str:
        """Name the file without its folders."""
        return Path(self.path).name


def _iso(text: str) -> str:
    """A day, or a time with its T, in the extended form of ISO 8601; ValueError if neither."""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        return datetime.fromisoformat(text).isoformat()


@dataclass(frozen=True)
class _Scene:
    """Both images on their common grid, open for reading."""

    lr: Image
    hr: Image
    mask: PairMask | None
    factor: int


def build_pairs(
    lr: Source,
    hr: Source,
    out: StrPath,
    *,
    mask: StrPath | None = None,
    layout: Layout | None = None,
    sun_zenith: float | None = None,
    note: str = "",
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Cut two rasters of the same place into pairs; return what `dataset.json` says.

    The LR raster is never resampled. The HR raster is read on the LR grid divided by the whole
    factor next to LR GSD / HR GSD: as it stands where it lies so, else warped.

    Args:
        lr: the coarser raster.
        hr: the finer one; bands are paired by name, or by position where both name theirs.
        out: folder to make.
        mask: a raster of any grid, 0 = leave the pixel out (clouds); None = all count.
        layout: tiles, blocks, margin and split.
        sun_zenith: in degrees, recorded for the noise of synthetic LR images.
        note: licence or attribution, recorded.
        overwrite: replace an earlier set.
        progress: called with the tiles done and their number.

    Raises:
        PairError: no CRS, LR in degrees or not coarser than HR, no overlap, too few valid tiles,
            values of two units.
        RadiometryError: units or band names that are missing or contradict each other.
    """
    layout = layout or Layout()
    lr_bands, hr_bands = _paired_bands(lr, hr)
    with ExitStack() as stack:
        low = stack.enter_context(open_image(lr.path, radiometry=lr.radiometry, bands=lr_bands))
        native = stack.enter_context(open_image(hr.path, radiometry=hr.radiometry, bands=hr_bands))
        _check_kinds(low, native)
        grid, factor = common_grid(low.grid, native.grid, names=(lr.name, hr.name))
        layout.check(factor, least=MIN_SIZE)
        fine = grid.refine(factor)
        scene = _Scene(
            low,
            stack.enter_context(
                open_image(hr.path, radiometry=hr.radiometry, bands=hr_bands, like=fine)
            ),
            None if mask is None else stack.enter_context(open_mask(mask, like=fine)),
            factor,
        )
        folder = stack.enter_context(whole_folder(out, overwrite=overwrite, mark=DATASET))
        acquired = {"lr_date": lr.date, "hr_date": hr.date, "lr_view": lr.view, "hr_view": hr.view}
        table = _cut(scene, grid, folder, layout, progress, acquired)
        _check_units(folder, table, (lr, hr))
        split_tiles(table, layout)
        about = _describe(lr, hr, scene, native.grid, not nested(native.grid, fine), layout)
        about |= {"sun_zenith": sun_zenith, "mask": mask and Path(mask).name, "note": note}
        return finish_set(folder, table, about)


def _cut(
    scene: _Scene,
    grid: Grid,
    folder: Path,
    layout: Layout,
    progress: Callable[[int, int], None],
    acquired: dict[str, Any],
) -> pd.DataFrame:
    """Write every valid tile; return one row per tile without its split."""
    f = scene.factor
    height, width = grid.height * f, grid.width * f
    places = layout.places(height, width)
    if not places:
        raise PairError(
            f"no tile of {layout.tile} px fits into the {height} x {width} HR pixels that both "
            "images cover: take smaller ones (--tile)"
        )
    start_set(folder)
    rows = []
    for done, place in enumerate(places, start=1):
        rows.append(_cut_tile(scene, grid, folder, layout.tile, place, acquired))
        progress(done, len(places))
    return pd.DataFrame(rows, columns=[*COLUMNS])


def _cut_tile(
    scene: _Scene, grid: Grid, folder: Path, tile: int, place: Place, acquired: dict[str, Any]
) -> dict[str, Any]:
    """Write one tile if it is wholly valid; return its row of the manifest."""
    f = scene.factor
    size = tile // f
    part = grid.window(place.row // f, place.col // f, size, size)
    row, col = (round(v) for v in scene.lr.grid.locate(part))
    lr, lr_valid = scene.lr.read((row, col, size, size))
    window = (place.row, place.col, tile, tile)
    hr, valid = scene.hr.read(window)
    valid &= lr_valid.repeat(f, 0).repeat(f, 1)
    if scene.mask is not None:
        valid &= scene.mask.read(window)
    record = record_of(place, part, float(valid.mean()), **acquired)
    if not valid.all():
        return record
    for values, image, prefix in ((lr, scene.lr, ""), (hr, scene.hr, "hr-")):
        advice = f"Say what its numbers are: {options_of(prefix)}"
        whole = np.ones(values.shape[1:], bool)
        check_range(values, whole, image.radiometry, source=image.path, advice=advice)
    bands = (scene.lr.radiometry.bands, scene.hr.radiometry.bands)
    return write_tile(folder, record, part, lr, hr, bands=bands)


def _check_units(folder: Path, table: pd.DataFrame, sources: tuple[Source, Source]) -> None:
    """Refuse numbers that cannot be of one place in one unit: one side's scale is the other's."""
    written = table[table["lr"] != ""]
    some = written.iloc[np.linspace(0, len(written) - 1, min(len(written), LOOKED_AT)).astype(int)]
    if some.empty:
        return
    low, high = (
        float(np.median(np.concatenate([read_values(folder / f).ravel() for f in some[side]])))
        for side in ("lr", "hr")
    )
    if max(low, high) > 0 and max(low, high) > APART * min(low, high):
        raise PairError(
            f"the median of {sources[0].name} is {low:.3g}, that of {sources[1].name} {high:.3g}: "
            f"expected values of one place within a factor of {APART}. What --scale and --offset "
            "(or --radiometry) say holds for both; say what is HR's own with --hr-scale and "
            "--hr-offset (1 and 0 leave its numbers as they are)"
        )


def _describe(
    lr: Source, hr: Source, scene: _Scene, native: Grid, resampled: bool, layout: Layout
) -> dict[str, Any]:
    def side(source: Source, image: Image) -> dict[str, Any]:
        radiometry = image.radiometry
        about = {"file": source.name, "bands": list(radiometry.bands), "gsd": metres(image.grid)}
        return about | {"radiometry": radiometry.describe(), "date": source.date}

    own = metres(native) or metres(grid_in(native, scene.lr.grid.crs))  # HR may be in degrees
    return {
        "factor": scene.factor,
        "kind": scene.hr.radiometry.kind,
        "crs": scene.lr.grid.crs.to_string(),
        "lr": side(lr, scene.lr),
        "hr": side(hr, scene.hr) | {"native_gsd": own, "resampled": resampled},
        "layout": asdict(layout) | {"shares": list(layout.shares)},
    }


def _paired_bands(lr: Source, hr: Source) -> tuple[Sequence[str] | None, Sequence[str] | None]:
    """Settle which bands to read; where a side names none, those that both have, as in HR."""
    if lr.bands is not None and hr.bands is not None:
        if len(lr.bands) != len(hr.bands):
            raise PairError(
                f"{len(lr.bands)} LR bands ({','.join(lr.bands)}) for {len(hr.bands)} HR bands "
                f"({','.join(hr.bands)}): they are paired by position, name as many of each"
            )
        return lr.bands, hr.bands
    wanted = lr.bands if hr.bands is None else hr.bands
    if wanted is not None:
        return wanted, wanted
    with (
        open_image(lr.path, radiometry=lr.radiometry) as low,
        open_image(hr.path, radiometry=hr.radiometry) as high,
    ):
        shared = [b for b in high.radiometry.bands if b in low.radiometry.bands]
        if not shared:
            raise PairError(
                f"no band in common: {lr.name} has {','.join(low.radiometry.bands)}, {hr.name} "
                f"has {','.join(high.radiometry.bands)}; pair them with --bands (LR) and --hr-bands"
            )
        return shared, shared


def _check_kinds(lr: Image, hr: Image) -> None:
    if lr.radiometry.kind != hr.radiometry.kind:
        raise PairError(
            f"{lr.path} holds {lr.radiometry.kind} values, {hr.path} {hr.radiometry.kind} values: "
            "expected the same kind; say what they are with --radiometry and --hr-radiometry"
        )
