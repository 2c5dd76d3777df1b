"""How a prediction lies on its reference, and what was done to put it there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .harmonize import Fit
from .registration import Shift

# Pixels of shift above which a pair is warned of.
NOTABLE_SHIFT = 0.5
# Below this reliability the estimate can be chance, see `Shift`: neither warned of nor undone.
RELIABLE = 0.3


@dataclass(frozen=True)
class Alignment:
    """What is known of a pair's alignment, and what was done to the prediction; plain values.

    shift: estimated before anything but `reproject`, None where the image is too small; registered:
    whether it was undone; reproject: how the prediction was resampled to the reference's grid, None
    if it lay there already; harmonize: "linear" or "histogram"; bands: per band its coefficients,
    `gain` and `offset` or `source` and `target` values, fitted on `pixels` valid pixels.
    """

    shift: Shift | None = None
    registered: bool = False
    reproject: str | None = None
    harmonize: Fit | None = None
    bands: dict[str, dict[str, Any]] = field(default_factory=dict)
    pixels: int = 0

    @property
    def applied(self) -> dict[str, Any]:
        """What was done to the prediction; empty if nothing was."""
        done: dict[str, Any] = {}
        if self.reproject:
            done["reproject"] = self.reproject
        if self.registered and self.shift is not None:
            done["register"] = {"dy": 0.0 - self.shift.dy, "dx": 0.0 - self.shift.dx}
        if self.harmonize:
            fit = {"fit": self.harmonize, "pixels": self.pixels, "bands": self.bands}
            done["harmonize"] = fit
        return done

    def warning(self, *, register: bool) -> str:
        """What a user must know, or nothing; register: whether a shift was to be undone."""
        if self.shift is None or self.registered:
            return ""
        size = math.hypot(self.shift.dy, self.shift.dx)
        if register and self.shift.reliability < RELIABLE:
            return (
                f"not registered: the estimated shift is not reliable "
                f"({self.shift.reliability:.2f}, at least {RELIABLE} is needed)"
            )
        if size <= NOTABLE_SHIFT or self.shift.reliability < RELIABLE:
            return ""
        return (
            f"the prediction lies {self.shift.dy:+.2f} px down and {self.shift.dx:+.2f} px right "
            f"of the reference (reliability {self.shift.reliability:.2f}); --register undoes it"
        )

    def describe(self) -> dict[str, Any]:
        """For JSON: the estimate, and what was done."""
        shift = None if self.shift is None else asdict(self.shift)
        return {"shift": shift, "applied": self.applied}

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> Alignment:
        """Undo `describe`."""
        shift, applied = described["shift"], described["applied"]
        fit = applied.get("harmonize", {})
        return cls(
            shift=None if shift is None else Shift(**shift),
            registered="register" in applied,
            reproject=applied.get("reproject"),
            harmonize=fit.get("fit"),
            bands=fit.get("bands", {}),
            pixels=fit.get("pixels", 0),
        )
