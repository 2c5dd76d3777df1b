"""WorldStrat 1.0: several Sentinel-2 visits at 10 m, one SPOT 6/7 image at 1.5 m.

Cornebise et al., NeurIPS 2022, arXiv:2207.06418; Zenodo record 6810792, and Kaggle. A folder an
area: `hr_dataset/12bit/AREA/AREA_ps.tiff` (pansharpened, uint16; also without `12bit`) and
`lr_dataset/AREA/L2A/AREA-N-L2A_data.tiff` (12 bands, floating reflectance) with its cloud mask
`AREA-N-CLM.tiff`; `metadata.csv` and `stratified_train_val_test_split.csv`. The other HR variants
and L1C are not read.

The HR files carry no georeference, but cover the ground of their LR images. Per area the visit
nearest in time whose mask is clear is taken, else the nearest; cloudy tiles are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate

from ..errors import PairError
from .base import (
    L2A_BANDS,
    RGBN,
    SCALE,
    Array,
    Format,
    Published,
    Unit,
    need_file,
    need_folders,
    read_image,
    read_rows,
)

FOLDERS = {"hr_dataset": "HR images", "lr_dataset": "Sentinel-2 images"}
SPLIT = "stratified_train_val_test_split.csv"
COLUMNS = ("tile", "n", "lowres_date", "highres_date")
SPLITS = ("train", "val", "test")
# 10 m / 1.5 m = 6.7: the next whole factor below, so that HR is resampled to 1.67 m and no pixel
# is invented.
FACTOR = 6


def _units(source: Path) -> list[Unit]:
    need_folders(source, FOLDERS)
    split_of = {row["tile"]: row["split"] for row in read_rows(source / SPLIT, ("tile", "split"))}
    visits: dict[str, list[dict[str, str]]] = {}
    for row in read_rows(source / "metadata.csv", COLUMNS):
        visits.setdefault(row["tile"], []).append(row)
    units: list[Unit] = []
    for area in sorted(p.name for p in (source / "lr_dataset").iterdir() if p.is_dir()):
        if area not in visits or split_of.get(area) not in SPLITS:
            raise PairError(
                f"{source}: area {area!r} is missing in metadata.csv or has no split in {SPLIT}"
            )
        hr = source / "hr_dataset" / "12bit" / area / f"{area}_ps.tiff"
        hr = need_file(hr if hr.parents[1].is_dir() else hr.parents[2] / area / hr.name)
        listed = [_visit(source, area, row) for row in visits[area]]
        units.append(partial(_pair, area, split_of[area], hr, listed))
    return units


def _visit(source: Path, area: str, row: dict[str, str]) -> tuple[Path, Path, str, str]:
    """Name a visit's image and cloud mask, and the dates of LR and HR."""
    folder = source / "lr_dataset" / area / "L2A"
    image = need_file(folder / f"{area}-{row['n']}-L2A_data.tiff")
    mask = need_file(folder / f"{area}-{row['n']}-CLM.tiff")
    try:  # some are times of day; days are compared
        days = [date.fromisoformat(row[c][:10]).isoformat() for c in COLUMNS[2:]]
    except ValueError as error:
        raise PairError(f"{source / 'metadata.csv'}: {area}: {error}: expected dates") from error
    return image, mask, days[0], days[1]


def _pair(
    area: str, split: str, high: Path, visits: list[tuple[Path, Path, str, str]]
) -> Iterator[Published]:
    clear, low, lr_date, hr_date = _best(visits)
    lr, valid, grid = read_image(low, L2A_BANDS, RGBN, None)
    values, *_ = read_image(high, RGBN, RGBN, SCALE)
    if clear.shape != valid.shape:
        raise PairError(f"{low}: its cloud mask has another size: {clear.shape}, not {valid.shape}")
    size = (grid.height * FACTOR, grid.width * FACTOR)
    hr = interpolate(torch.from_numpy(values)[None], size=size, mode="bicubic", antialias=True)
    name = re.sub(r"[^\w-]", "_", area)
    yield Published(
        id=name,
        roi=name,
        lr=lr,
        hr=hr[0].numpy(),
        grid=grid,
        valid=valid & clear,
        split=split,
        lr_date=lr_date,
        hr_date=hr_date,
    )


def _best(visits: list[tuple[Path, Path, str, str]]) -> tuple[Array, Path, str, str]:
    """Find the nearest visit in time that is clear, else the nearest; where it is clear (h, w)."""

    def days(visit: tuple[Path, Path, str, str]) -> int:
        return abs((date.fromisoformat(visit[2]) - date.fromisoformat(visit[3])).days)

    nearest: tuple[Array, Path, str, str] | None = None
    for image, mask, *dates in sorted(visits, key=days):
        cloud, *_ = read_image(mask, ("clm",), ("clm",), 1.0)  # 0 = clear, 1 = cloud, 255 = no data
        clear = cloud[0] == 0
        found = (clear, image, dates[0], dates[1])
        if np.all(clear):
            return found
        nearest = nearest or found
    if nearest is None:
        raise PairError("an area without a visit: the set is incomplete")
    return nearest


RELEASE_1 = Format(
    title="WorldStrat 1.0, nearest clear Sentinel-2 L2A and pansharpened SPOT 6/7",
    bands=(RGBN, RGBN),
    gsd=10.0,
    native_gsd=1.5,
    lr_values="surface reflectance as stored (Sentinel-2 L2A)",
    hr_values="reflectance = DN / 10000 (SPOT 6/7, as the set's own code scales it)",
    units=_units,
    tile=64 * FACTOR,
    resampled=True,
    licence="WorldStrat (Zenodo 6810792): HR CC BY-NC 4.0 (Airbus), Sentinel-2 CC BY 4.0",
)
