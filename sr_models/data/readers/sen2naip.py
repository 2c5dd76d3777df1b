"""SEN2NAIP, first version: Sentinel-2 at 10 m and NAIP at 2.5 m, a day apart at most.

Aybar et al., Scientific Data 11, 2024, doi:10.1038/s41597-024-04214-y; Hugging Face data set
isp-uv-es/SEN2NAIP. Of `cross-sensor.zip`, extracted: `cross-sensor/ROI_0000/lr.tif` (uint16, RGBN),
`hr.tif` (uint8, RGBN) and `metadata.json`. Neither the synthetic part nor SEN2NAIPv2, which comes
as `.taco` files, is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..errors import PairError
from .base import RGBN, SCALE, SENTINEL2_ID, Format, Published, Unit, date_in, need_file, read_image

# NAIP's quarter quads: m_4609633_se_14_060_20210812.
NAIP_ID = re.compile(r"m_\d{7}_[ns][ew]_\d\d_\w+?_(20\d{6})")
DISPLAY = 1 / 255


def _units(source: Path) -> list[Unit]:
    root = source / "cross-sensor" if (source / "cross-sensor").is_dir() else source
    folders = sorted(p for p in root.glob("ROI_*") if p.is_dir()) if root.is_dir() else []
    if not folders:
        raise PairError(
            f"{source}: unknown layout: expected the extracted cross-sensor.zip, with folders such "
            "as ROI_0000"
        )
    for folder in folders:
        for name in ("lr.tif", "hr.tif", "metadata.json"):
            need_file(folder / name)
    return [partial(_pair, folder) for folder in folders]


def _pair(folder: Path) -> Iterator[Published]:
    lr, valid, grid = read_image(folder / "lr.tif", RGBN, RGBN, SCALE)
    hr, *_ = read_image(folder / "hr.tif", RGBN, RGBN, DISPLAY)
    try:
        # the products' names say the dates, under whatever keys they stand
        names = json.dumps(json.loads((folder / "metadata.json").read_text(encoding="utf-8")))
    except ValueError as error:
        raise PairError(f"{folder / 'metadata.json'} is damaged: {error}") from error
    yield Published(
        id=folder.name,
        roi=folder.name,
        lr=lr,
        hr=hr,
        grid=grid,
        valid=valid,
        lr_date=date_in(SENTINEL2_ID, names),
        hr_date=date_in(NAIP_ID, names),
    )


CROSS_SENSOR = Format(
    title="SEN2NAIP version 1, cross-sensor",
    bands=(RGBN, RGBN),
    gsd=10.0,
    native_gsd=2.5,
    lr_values="surface reflectance = DN / 10000 (Sentinel-2 L2A)",
    hr_values="DN / 255 (NAIP, not calibrated to reflectance)",
    units=_units,
    licence="SEN2NAIP (isp-uv-es), CC BY 4.0; NAIP imagery: USDA, public domain",
)
