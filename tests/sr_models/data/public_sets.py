"""Miniatures of public sets, in the layouts and number types in which they are published."""

from __future__ import annotations

import csv
import json
import sqlite3
import struct
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import torch
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning

Array = npt.NDArray[Any]
Textured = Callable[..., Array]


def means(image: Array, factor: int) -> Array:
    bands, height, width = image.shape
    return image.reshape(bands, height // factor, factor, width // factor, factor).mean((2, 4))


def put_tiff(path: Path, array: Array, transform: Affine | None, crs: str | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = array.shape
    size = {"count": count, "height": height, "width": width, "dtype": array.dtype.name}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **size) as dst:
            dst.write(array)


# --- SEN2VENuS

VENUS_SITES = {"ALSACE": 0, "NARYN_C_": 300_000, "SUDOUE-4": 600_000, "SUDOUE-5": 600_160}


def sen2venus(folder: Path, textured: Textured) -> dict[str, Array]:
    """Four sites, the last two on the same ground; return the HR patches of every file."""
    made = {}
    for k, (site, east) in enumerate(VENUS_SITES.items()):
        (folder / site).mkdir(parents=True)
        rows = []
        for day in ("2018-02-14", "2019-06-30")[: 2 if k == 0 else 1]:
            name = f"{site}_32ULU_{day}"
            row = {
                "venus_product_id": f"VENUS-XS_{day.replace('-', '')}-103000-000_L2A_{site}_D_V2-2",
                "sentinel2_product_id": f"SENTINEL2B_{day.replace('-', '')}-104500-968_L2A_T32ULU",
                "s2_tile": "32ULU",
                "vns_site": site,
                "date": day,
                "venus_zenith_angle": 17.5,
                "patches_gpkg": f"{name}_patches.gpkg",
                "nb_patches": 2,
            }
            for column, gsd, factor, bands in (
                ("b2b3b4b8", "10m", 2, "b2b3b4b8"),
                ("b5b6b7b8a", "20m", 4, "b4b5b6b8a"),  # as they are published: other names
            ):
                hr = np.stack([textured(4, 64, 64, seed=10 * k + i) for i in range(2)]) * 1e4
                lr = np.stack([1.05 * means(x, factor) for x in hr])
                for what, values in (("05m", hr), (gsd, lr)):
                    file = f"{name}_{what}_{bands}.pt"
                    made[file] = values.round().astype(np.int16)
                    torch.save(torch.from_numpy(made[file]), folder / site / file)
                    row[f"tensor_{what}_{column}"] = file
            corners = [(500_000 + east + 320 * i, 4_200_000.0) for i in range(2)]
            put_gpkg(folder / site / row["patches_gpkg"], corners, 320.0)
            rows.append(row)
        with (folder / site / "index.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0]], delimiter="\t")
            writer.writeheader()
            writer.writerows(rows)
    return made


def put_gpkg(path: Path, corners: list[tuple[float, float]], side: float) -> None:
    """Squares of EPSG:32632 as a GeoPackage (OGC 12-128r18), with the tables that matter."""
    with closing(sqlite3.connect(path)) as base:
        base.executescript(
            """CREATE TABLE gpkg_spatial_ref_sys (srs_name TEXT, srs_id INTEGER PRIMARY KEY,
                 organization TEXT, organization_coordsys_id INTEGER, definition TEXT);
               INSERT INTO gpkg_spatial_ref_sys VALUES ('UTM 32N', 32632, 'EPSG', 32632, '');
               CREATE TABLE gpkg_geometry_columns (table_name TEXT, column_name TEXT,
                 geometry_type_name TEXT, srs_id INTEGER, z TINYINT, m TINYINT);
               INSERT INTO gpkg_geometry_columns VALUES ('patches', 'geom', 'POLYGON', 32632, 0, 0);
               CREATE TABLE patches (fid INTEGER PRIMARY KEY AUTOINCREMENT, geom BLOB);"""
        )
        for x, y in corners:
            ring = [(x, y), (x + side, y), (x + side, y - side), (x, y - side), (x, y)]
            head = struct.pack("<2sBBi4d", b"GP", 0, 0b11, 32632, x, x + side, y - side, y)
            body = struct.pack("<BIII", 1, 3, 1, len(ring)) + b"".join(
                struct.pack("<2d", *p) for p in ring
            )
            base.execute("INSERT INTO patches (geom) VALUES (?)", (head + body,))
        base.commit()


# --- SEN2NAIP


def sen2naip(folder: Path, textured: Textured, count: int = 5) -> Path:
    for i in range(count):
        hr = textured(4, 128, 128, seed=i)
        roi = folder / "cross-sensor" / f"ROI_{i:04d}"
        at = (500_000 + 5000 * i, 4_200_000)
        lr = (means(hr, 4) * 1e4).round().astype(np.uint16)
        put_tiff(roi / "lr.tif", lr, Affine(10, 0, at[0], 0, -10, at[1]), "EPSG:32614")
        hr8 = (hr * 255).round().astype(np.uint8)
        put_tiff(roi / "hr.tif", hr8, Affine(2.5, 0, at[0], 0, -2.5, at[1]), "EPSG:32614")
        known = {
            "s2": {"id": "COPERNICUS/S2_SR/20210813T172901_20210813T173849_T14TPS"},
            "naip": {"id": "USDA/NAIP/DOQQ/m_4609633_se_14_060_20210812"},
        }
        (roi / "metadata.json").write_text(json.dumps(known))
    return folder


# --- opensr-test


def opensr_test(folder: Path, textured: Textured) -> Path:
    rows = []
    products = (
        ("20210917T182021_20210917T182233_T11TQK", "m_4411338_ne_12_060_20210917"),
        ("20170128T081201_20170128T081953_T36QXG", "IMG_SPOT6_MS_201702050755046_ORT_ff6f_R1C1"),
    )
    for i, (low, high) in enumerate(products):
        roi = f"ROI_{i:05d}"
        hr = textured(4, 128, 128, seed=i)
        lr = textured(12, 32, 32, seed=i)
        lr[[3, 2, 1, 7]] = means(hr, 4)
        at = Affine(10, 0, 500_000, 0, -10, 4_200_000)
        fine = Affine(2.5, 0, 500_000, 0, -2.5, 4_200_000)
        names = (f"{roi}__{low}", f"HR__{roi}__{high}")
        lr, hr = ((x * 1e4).round().astype(np.uint16) for x in (lr, hr))
        put_tiff(folder / "L2A" / f"{names[0]}.tif", lr, at, "EPSG:32611")
        put_tiff(folder / "hr_harmonized" / f"{names[1]}.tif", hr, fine, "EPSG:32611")
        rows.append({"lr_file": names[0], "hr_file": names[1], "roi": roi, "lr_gee_id": low})
    with (folder / "naip_metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    (folder / "naip.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")  # must not be touched
    return folder


# --- WorldStrat

WORLD = {
    "Landcover-773616": "train",
    "UNHCR-GHAs003590": "val",
    "Amnesty POI-20-2-2": "test",
}


def worldstrat(folder: Path, textured: Textured, *, inside: str = "12bit") -> Path:
    """Three areas of 36 x 34 LR pixels; of each visit 1 is near but cloudy, 3 is clear."""
    rows = []
    for k, area in enumerate(WORLD):
        # 1.5 m pixels of the same ground: 6.7 in an LR pixel
        hr = textured(4, 36 * 20 // 3, 34 * 20 // 3, seed=k)
        home = folder / "hr_dataset" / inside / area
        put_tiff(home / f"{area}_ps.tiff", (hr * 1e4).round().astype(np.uint16), None, "EPSG:4326")
        small = torch.nn.functional.interpolate(
            torch.from_numpy(hr)[None], size=(36, 34), mode="bicubic", antialias=True
        )[0].numpy()
        for n, day in ((1, "2021-01-02"), (2, "2021-03-01"), (3, "2021-01-11")):
            lr = np.repeat(small[:1], 12, axis=0) + 0.001 * n
            lr[[3, 2, 1, 7]] = small + 0.001 * n
            at = Affine(9.55e-5, 0, 10 * k + 1.0, 0, -9.1e-5, 20.8)
            stem = folder / "lr_dataset" / area / "L2A" / f"{area}-{n}-"
            put_tiff(Path(f"{stem}L2A_data.tiff"), lr.astype(np.float32), at, "EPSG:4326")
            cloud = np.zeros((1, 36, 34), np.uint8)
            cloud[0, :3, :3] = n == 1
            put_tiff(Path(f"{stem}CLM.tiff"), cloud, at, "EPSG:4326")
            known = {"n": n, "lowres_date": day, "highres_date": "2021-01-01", "cloud_cover": 2.5}
            rows.append({"": len(rows), "tile": area, **known, "lon": 1.0, "lat": 20.8})
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    text = "".join(f"{i},{area},{split}\n" for i, (area, split) in enumerate(WORLD.items()))
    (folder / "stratified_train_val_test_split.csv").write_text(",tile,split\n" + text)
    return folder
