"""Names of bands: Sentinel-2's, whatever a file calls them."""

from __future__ import annotations

import re

# Common names of the bands as the STAC "eo" extension and Earth Search give them to Sentinel-2.
BAND_ALIASES = {
    "coastal": "B01",
    "blue": "B02",
    "green": "B03",
    "red": "B04",
    "rededge1": "B05",
    "rededge2": "B06",
    "rededge3": "B07",
    "nir": "B08",
    "nir08": "B8A",
    "nir09": "B09",
    "cirrus": "B10",
    "swir16": "B11",
    "swir22": "B12",
}


def canonical_band(name: str) -> str:
    """Sentinel-2's name of a band: `red`, `b4`, `B4` -> `B04`; `nir08`, `B08A` -> `B8A`.

    Case and surrounding blanks do not matter. A name that is not in the table comes back in lower
    case. Names are read as Sentinel-2's: name another sensor's bands by colour (`red`), since
    the B5 of a Landsat is not Sentinel-2's.
    """
    key = name.strip().lower()
    if key in BAND_ALIASES:
        return BAND_ALIASES[key]
    number = re.fullmatch(r"b0?(\d{1,2})(a?)(, central wavelength \d+ nm)?", key)  # GDAL's, of SAFE
    if number is None:
        return key
    digits, narrow = number.group(1, 2)
    return f"B{digits}A" if narrow else f"B{int(digits):02d}"
