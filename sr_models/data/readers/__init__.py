"""Public sets in their published layouts, one module each, read as pairs."""

from __future__ import annotations

from .base import Format, Published
from .opensr_test import RELEASE_100
from .sen2naip import CROSS_SENSOR
from .sen2venus import X2, X4
from .worldstrat import RELEASE_1

__all__ = ["FORMATS", "Format", "Published"]

FORMATS: dict[str, Format] = {
    "sen2venus": X2,
    "sen2venus-20m": X4,
    "worldstrat": RELEASE_1,
    "opensr-test": RELEASE_100,
    "sen2naip": CROSS_SENSOR,
}
