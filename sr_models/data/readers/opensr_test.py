"""opensr-test 1.0.0: small sets for tests only, Sentinel-2 and a sharper sensor.

Aybar et al., IEEE GRSL 21, 2024, doi:10.1109/LGRS.2024.3401394; Hugging Face data set
isp-uv-es/opensr-test, release `100`. One folder a set (naip, spot, venus, spain_crops, spain_urban)
with GeoTIFF in `L2A` (12 bands, DN / 10000) and `hr_harmonized` (RGBN, DN / 10000), and a table
`NAME_metadata.csv`. What is read is the harmonised HR image, whose values and position its authors
fitted to the LR image; `hr` and `L1C` are not read, and neither are the `.pkl` files (nothing
unpickles) nor release `020`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..errors import PairError
from .base import (
    L2A_BANDS,
    RGBN,
    SCALE,
    SENTINEL2_ID,
    Format,
    Published,
    Unit,
    date_in,
    need_folders,
    number,
    read_image,
    read_rows,
)
from .sen2naip import NAIP_ID

FOLDERS = {"L2A": "Sentinel-2 images", "hr_harmonized": "harmonised HR images"}
# ROI_0034.tif, ROI_0074__20200528T105619_....tif, HR__ROI_00006__m_4411338_ne_12_060_20210917.tif
ROI = re.compile(r"(?:HR__)?(ROI_\d+)(?:__.*)?\.tiff?")
# IMG_SPOT6_MS_201702050755046_ORT_..., VENUS-XS_20191219-115657-000_L2A_...
SPOT_ID = re.compile(r"IMG_SPOT\d_\w+?_(20\d{6})(\d{6})\d_")
VENUS_ID = re.compile(r"VENUS-XS_(20\d{6})-(\d{6})")
MAJA_ID = re.compile(r"SENTINEL2[A-C]_(20\d{6})-(\d{6})")


def _units(source: Path) -> list[Unit]:
    need_folders(source, FOLDERS)
    tables = sorted(source.glob("*metadata.csv"))
    if len(tables) != 1:
        raise PairError(
            f"{source}: unknown layout: expected one NAME_metadata.csv, got {len(tables)}"
        )
    files = {name: _by_roi(source / name) for name in FOLDERS}
    units: list[Unit] = []
    for row in read_rows(tables[0], ("roi",)):
        for name, found in files.items():
            if row["roi"] not in found:
                raise PairError(f"{source / name}: no image of {row['roi']}; the set is incomplete")
        units.append(
            partial(_pair, tables[0], row, *(found[row["roi"]] for found in files.values()))
        )
    return units


def _by_roi(folder: Path) -> dict[str, Path]:
    named = ((ROI.fullmatch(p.name), p) for p in sorted(folder.iterdir()))
    return {match[1]: path for match, path in named if match is not None}


def _pair(table: Path, row: dict[str, str], low: Path, high: Path) -> Iterator[Published]:
    lr, valid, grid = read_image(low, L2A_BANDS, RGBN, SCALE)
    hr, *_ = read_image(high, RGBN, RGBN, SCALE)
    names = " ".join([*row.values(), low.name, high.name])
    found = (date_in(pattern, names) for pattern in (NAIP_ID, SPOT_ID, VENUS_ID))
    yield Published(
        id=row["roi"],
        roi=row["roi"],
        lr=lr,
        hr=hr,
        grid=grid,
        valid=valid,
        split="test",
        lr_date=date_in(SENTINEL2_ID, names) or date_in(MAJA_ID, names),
        hr_date=next((date for date in found if date), ""),
        hr_view=number(row, "venus_zenith_angle", table),
    )


RELEASE_100 = Format(
    title="opensr-test 1.0.0 (release 100), harmonised HR",
    bands=(RGBN, RGBN),
    gsd=10.0,
    native_gsd=2.5,
    lr_values="surface reflectance = DN / 10000 (Sentinel-2 L2A)",
    hr_values="reflectance = DN / 10000, fitted to LR by the authors",
    units=_units,
    licence="opensr-test (isp-uv-es), MIT; the images under the terms of their sources",
)
