"""SEN2VENuS 1.0.0: Sentinel-2 at 10 or 20 m, VENuS at 5 m of the same day.

Michel et al., Data 7(7), 2022, doi:10.3390/data7070096; Zenodo record 6514159. One folder a site:
`index.csv` (tab-separated, one row a pair of acquisitions), for each of them the patches as tensors
(n, bands, h, w) of int16, and `..._patches.gpkg`, where the n patches lie. Version 2.0.0, which
holds GeoTIFF in zip files, is not read.
"""

from __future__ import annotations

import re
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from pickle import UnpicklingError  # what torch raises at anything but tensors
from typing import Any

import torch
from affine import Affine

from lpips_sat.grid import Grid
from lpips_sat.warp import crs_of

from ..errors import PairError
from .base import (
    Array,
    Format,
    Published,
    Unit,
    as_reflectance,
    check_shape,
    need_file,
    number,
    read_rows,
)

BANDS_10M = ("B02", "B03", "B04", "B08")
# The files of these bands are named b4b5b6b8a; the columns that name the files, b5b6b7b8a.
BANDS_20M = ("B05", "B06", "B07", "B8A")
COLUMNS_10M = ("tensor_10m_b2b3b4b8", "tensor_05m_b2b3b4b8")
COLUMNS_20M = ("tensor_20m_b5b6b7b8a", "tensor_05m_b5b6b7b8a")
COMMON = ("vns_site", "date", "nb_patches", "patches_gpkg")
LICENCE = "SEN2VENuS (Zenodo 6514159): see the file LICENCE of every site"
# VENUS-XS_20191219-115657-000_L2A_..., SENTINEL2B_20191219-114717-968_L2A_...
TAKEN = re.compile(r"_(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)-")


def _units(source: Path, *, columns: tuple[str, str]) -> list[Unit]:
    if not source.is_dir():
        raise PairError(f"{source}: no such folder; expected the extracted set")
    indexes = sorted(source.glob("**/index.csv"))
    if not indexes:
        raise PairError(
            f"{source}: unknown layout: expected a folder for every site, with index.csv in it"
        )
    units: list[Unit] = []
    for index in indexes:
        for row in read_rows(index, (*COMMON, *columns), delimiter="\t"):
            files = [need_file(index.parent / row[c]) for c in (*columns, "patches_gpkg")]
            units.append(partial(_patches, index, row, *files))
    return units


def _patches(
    index: Path, row: dict[str, str], low: Path, high: Path, places: Path
) -> Iterator[Published]:
    lr, hr = _tensor(low), _tensor(high)
    grids = list(_places(places, lr.shape[2:]))
    if not len(lr) == len(hr) == len(grids) == number(row, "nb_patches", index):
        raise PairError(
            f"{low.parent}: {row['nb_patches']} patches of {row['date']} in index.csv, {len(lr)} "
            f"in {low.name}, {len(hr)} in {high.name}, {len(grids)} in {places.name}: expected the "
            "same number"
        )
    name = places.name.removesuffix("_patches.gpkg")
    lr_date, hr_date = (
        _taken(row.get(c, "")) or row["date"] for c in ("sentinel2_product_id", "venus_product_id")
    )
    for i, grid in enumerate(grids):
        yield Published(
            id=f"{name}_{i:04d}",
            roi=row["vns_site"],
            lr=as_reflectance(lr[i]),
            hr=as_reflectance(hr[i]),
            grid=grid,
            lr_date=lr_date,
            hr_date=hr_date,
            hr_view=number(row, "venus_zenith_angle", index),
        )


def _tensor(path: Path) -> Array:
    """Read a tensor (n, 4, h, w) of int16; nothing else is unpickled."""
    try:
        tensor: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise PairError(f"{path} is damaged, or holds more than a tensor: not read") from error
    if not isinstance(tensor, torch.Tensor) or tensor.is_floating_point():
        raise PairError(f"{path}: unknown layout: expected one tensor of integers")
    array: Array = tensor.numpy()
    check_shape(str(path), array, 4, 4, 1)
    return array


def _places(path: Path, size: tuple[int, ...]) -> Iterator[Grid]:
    """Read where patches of size (h, w) lie: the envelopes of a GeoPackage's geometries."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as base:
            table, column, srs = base.execute(
                "SELECT table_name, column_name, srs_id FROM gpkg_geometry_columns"
            ).fetchone()
            (code,) = base.execute(
                "SELECT organization_coordsys_id FROM gpkg_spatial_ref_sys WHERE srs_id = ?", (srs,)
            ).fetchone()
            # the names are the file's own, so they are quoted
            rows = base.execute(f'SELECT "{column}" FROM "{table}" ORDER BY rowid').fetchall()
        boxes = [_envelope(blob) for (blob,) in rows]
    except (sqlite3.Error, struct.error, TypeError, ValueError) as error:
        raise PairError(f"{path} is damaged, or not a GeoPackage of patches ({error})") from error
    crs = crs_of(f"EPSG:{code}")
    height, width = size
    for left, right, bottom, top in boxes:
        pixel = Affine((right - left) / width, 0, left, 0, (bottom - top) / height, top)
        yield Grid(crs, pixel, width, height)


def _envelope(blob: bytes) -> tuple[float, ...]:
    """Read min x, max x, min y, max y of a geometry (OGC 12-128r18, clause 2.1.3.1.1)."""
    order = "<" if blob[3] & 1 else ">"
    if blob[:2] != b"GP" or not (blob[3] >> 1) & 7:
        raise ValueError("a geometry without an envelope")
    return struct.unpack_from(f"{order}4d", blob, 8)


def _taken(product: str) -> str:
    found = TAKEN.search(product)
    return "" if found is None else "{}-{}-{}T{}:{}:{}".format(*found.groups())


def _format(title: str, bands: tuple[str, ...], columns: tuple[str, str], gsd: float) -> Format:
    return Format(
        title=f"SEN2VENuS 1.0.0, {title}",
        bands=(bands, bands),
        gsd=gsd,
        native_gsd=5.0,
        lr_values="surface reflectance = DN / 10000 (Sentinel-2, MAJA)",
        hr_values="surface reflectance = DN / 10000 (VENuS, MAJA, adjusted by the authors)",
        units=partial(_units, columns=columns),
        licence=LICENCE,
    )


X2 = _format("10 m bands", BANDS_10M, COLUMNS_10M, 10.0)
X4 = _format("20 m bands", BANDS_20M, COLUMNS_20M, 20.0)
