"""A public set in its published layout in, a set of pairs out (see sets.py).

The set appears whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lpips_sat.outputs import StrPath, whole_folder
from lpips_sat.radiometry import Radiometry, check_range
from lpips_sat.registration import MIN_SIZE

from .errors import PairError
from .ground import blocks_on_ground, overlapping
from .readers import FORMATS, Format, Published
from .sets import COLUMNS, DATASET, finish_set, record_of, split_tiles, start_set, write_tile
from .tiles import SPLITS, Layout, Place

# Visible bands have less texture than the near infrared of `Layout`'s default.
MIN_TEXTURE = 0.001


def import_pairs(
    name: str,
    source: StrPath,
    out: StrPath,
    *,
    tile: int | None = None,
    min_texture: float = MIN_TEXTURE,
    seed: int = 0,
    sun_zenith: float | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Turn a public set into a set of pairs; return what `dataset.json` says.

    Pixels stay as published. Where the set publishes a split it is kept, else places (its ROIs,
    those whose ground overlaps as one) are divided as `Layout.shares` says.

    Args:
        name: of the format, one of `FORMATS`.
        source: folder of the extracted set.
        out: folder to make.
        tile: side in HR pixels to cut images into; None = the format's own, or whole images.
        min_texture: see `Layout`.
        seed: decides which place goes where.
        sun_zenith: in degrees, recorded for the noise of synthetic LR images.
        overwrite: replace an earlier set.
        progress: called with the parts of the set done and their number.

    Raises:
        PairError: an unknown format or layout, a missing file, too few places or pairs.
    """
    if name not in FORMATS:
        raise PairError(f"unknown format {name!r}: expected one of {', '.join(FORMATS)}")
    form = FORMATS[name]
    units = form.units(Path(source))
    with whole_folder(out, overwrite=overwrite, mark=DATASET) as folder:
        start_set(folder)
        rows: list[dict[str, Any]] = []
        published, cutter = {}, _Cutter(form, tile or form.tile)
        for done, unit in enumerate(units, start=1):
            for pair in unit():
                rows += cutter.cut(folder, pair)
                published[pair.roi] = pair.split
            progress(done, len(units))
        table = pd.DataFrame(rows, columns=[*COLUMNS])
        if table["id"].duplicated().any():
            twice = table["id"][table["id"].duplicated()].iloc[0]
            raise PairError(f"{source}: {twice} is there twice: expected every image once")
        layout = cutter.layout(min_texture, seed)
        _split(table, layout, published, str(source))
        about = cutter.about(name, table, layout)
        about |= {"sun_zenith": sun_zenith, "note": form.licence}
        return finish_set(folder, table, about)


class _Cutter:
    """Cuts the pairs of one format into tiles of one size, and writes them."""

    def __init__(self, form: Format, tile: int | None) -> None:
        self.form, self.tile, self.factor = form, tile, 0

    def cut(self, folder: Path, pair: Published) -> Iterator[dict[str, Any]]:
        """Write the valid tiles of a pair; yield the records of all."""
        self._check(pair)
        tile, f = self.tile or 0, self.factor
        rows, columns = (n // tile for n in pair.hr.shape[1:])
        known = {c: getattr(pair, c) for c in ("lr_date", "hr_date", "lr_view", "hr_view")}
        for row, col in np.ndindex(rows, columns):
            top, left, size = row * tile // f, col * tile // f, tile // f
            window = slice(top, top + size), slice(left, left + size)
            part = pair.grid.window(top, left, size, size)
            valid = 1.0 if pair.valid is None else float(pair.valid[window].mean())
            record = record_of(Place(top * f, left * f, pair.roi), part, valid, **known)
            record["id"] = pair.id if rows * columns == 1 else f"{pair.id}_r{row}_c{col}"
            if valid < 1:
                yield record
                continue
            lr = np.ascontiguousarray(pair.lr[:, *window])
            window = slice(top * f, top * f + tile), slice(left * f, left * f + tile)
            hr = np.ascontiguousarray(pair.hr[:, *window])
            for values, bands in zip((lr, hr), self.form.bands, strict=True):
                _check_values(values, tuple(bands), pair.id)
            yield write_tile(folder, record, part, lr, hr, bands=self.form.bands)

    def layout(self, min_texture: float, seed: int) -> Layout:
        """Say how the set is cut and split: a block is a place, without margins."""
        return Layout(tile=self.tile or 1, block=1, margin=0, min_texture=min_texture, seed=seed)

    def about(self, name: str, table: pd.DataFrame, layout: Layout) -> dict[str, Any]:
        """What `dataset.json` says of the set."""
        form = self.form
        crs = sorted(set(table["crs"]))
        hr = {"gsd": form.gsd / self.factor, "native_gsd": form.native_gsd}
        return {
            "format": name,
            "title": form.title,
            "factor": self.factor,
            "kind": "reflectance",
            "crs": crs[0] if len(crs) == 1 else f"{len(crs)} of them, see the manifest",
            "lr": {"bands": list(form.bands[0]), "gsd": form.gsd, "radiometry": form.lr_values},
            "hr": {"bands": list(form.bands[1]), **hr, "radiometry": form.hr_values}
            | {"resampled": form.resampled},
            "layout": asdict(layout) | {"shares": list(layout.shares)},
        }

    def _check(self, pair: Published) -> None:
        """Settle the factor and the tile with the first pair; refuse a pair that does not fit."""
        (height, width), (tall, wide) = pair.lr.shape[1:], pair.hr.shape[1:]
        factor = tall // height
        if factor < 2 or (tall, wide) != (height * factor, width * factor):
            raise PairError(
                f"{pair.id}: LR of {height} x {width} px and HR of {tall} x {wide} px: expected an "
                "HR image a whole number of times finer"
            )
        self.factor = self.factor or factor
        if factor != self.factor:
            raise PairError(f"{pair.id}: {factor} times finer, other pairs {self.factor} times")
        if self.tile is None:
            self.tile = tall
        if self.tile % factor or self.tile < MIN_SIZE * factor or self.tile > min(tall, wide):
            raise PairError(
                f"{pair.id}: tiles of {self.tile} px do not fit HR images of {tall} x {wide} px at "
                f"a factor of {factor}: take a multiple of it of at least {MIN_SIZE * factor} "
                "(--tile)"
            )


def _check_values(values: Any, bands: tuple[str, ...], source: str) -> None:
    ones = (1.0,) * len(bands)
    radiometry = Radiometry(bands, ones, (0.0,) * len(bands))
    advice = "Expected what the format documents: the files may be of another version"
    valid = np.ones(values.shape[1:], bool)
    check_range(values, valid, radiometry, source=source, advice=advice)


def _split(table: pd.DataFrame, layout: Layout, published: dict[str, str], source: str) -> None:
    """Take the published split, or draw one of the places."""
    if any(published.values()):
        split_tiles(table, layout, published)
        return
    table["block"] = _joined(table)
    usable = table[(table["valid"] == 1) & (table["texture"] >= layout.min_texture)]
    if usable["block"].nunique() < len(SPLITS):
        raise PairError(
            f"{source} holds {usable['block'].nunique()} places with textured, valid pairs that do "
            "not overlap: at least 3 are needed, since a place trains, validates or tests as a "
            "whole; add more of the set, or lower --min-texture"
        )
    split_tiles(table, layout)


def _joined(table: pd.DataFrame) -> pd.Series:
    """Name the blocks anew: those whose ground overlaps share the first one's name."""
    ground = blocks_on_ground(table)
    same = ground.groupby("block").indices.values()  # one block in several CRS
    pairs = [*overlapping(ground), *((rows[0], row) for rows in same for row in rows[1:])]
    first, second = np.array(pairs, int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(first)), (first, second)), (len(ground), len(ground)))
    _, group = connected_components(graph, directed=False)
    names = ground["block"].groupby(group).transform("first")
    renamed: pd.Series = table["block"].map(dict(zip(ground["block"], names, strict=True)))
    return renamed
