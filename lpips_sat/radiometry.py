"""What the numbers in a file mean: value = DN * scale + offset, in which bands, of which kind.

Values of kind "reflectance" are surface or top-of-atmosphere reflectance (1.0 = a perfect white
diffuser); values of kind "display" are pictures in [0, 1] without a physical unit. Bands carry
Sentinel-2's names (B04 is red), see `canonical_band`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .bands import canonical_band
from .errors import RadiometryError

__all__ = [
    "MAX_OUTSIDE",
    "PLAUSIBLE",
    "PRESETS",
    "Kind",
    "Preset",
    "Radiometry",
    "canonical_band",
    "check_range",
    "preset",
]

Kind = Literal["reflectance", "display"]

# Share of valid pixels that may lie outside the plausible range: glint, bright cloud, ringing.
MAX_OUTSIDE = 0.01
# What any sensor can plausibly deliver per kind of value. Reflectance is slightly negative after
# atmospheric correction and above 1 on glint and snow in low sun; DN taken as reflectance are far
# outside. A display image may overshoot [0, 1] by what a network or a bicubic kernel does.
PLAUSIBLE: dict[Kind, tuple[float, float]] = {"reflectance": (-0.5, 3.0), "display": (-0.5, 1.5)}


@dataclass(frozen=True)
class Radiometry:
    """How the DN of each band become values: value = DN * scale + offset (GDAL's convention).

    bands: one name per band; scale, offset: one number per band; nodata: the DN that means
    "nothing here" (may be NaN), or None; kind: what the values are.
    """

    bands: tuple[str, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    nodata: float | None = None
    kind: Kind = "reflectance"

    def __post_init__(self) -> None:
        """Refuse what cannot be applied: unequal lengths, a band twice, a scale of zero."""
        if not self.bands or not len(self.bands) == len(self.scale) == len(self.offset):
            raise RadiometryError(
                f"expected one scale and one offset for each of {len(self.bands)} bands (at least "
                f"one band), got {len(self.scale)} scales and {len(self.offset)} offsets"
            )
        if len(set(self.bands)) != len(self.bands):
            raise RadiometryError(
                f"a band is named twice in {_names(self.bands)}: give each band its own name, "
                "e.g. --bands B04,B03,B02"
            )
        if not all(math.isfinite(v) for v in (*self.scale, *self.offset)) or 0 in self.scale:
            raise RadiometryError(
                f"scales must be finite and not 0, offsets finite; got {self.scale}, {self.offset}"
            )
        if self.kind not in PLAUSIBLE:
            raise RadiometryError(f"kind must be one of {tuple(PLAUSIBLE)}, got {self.kind!r}")

    def to_values(self, dn: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """DN (C, H, W) of any real dtype -> values (C, H, W), computed in float64."""
        self._check_shape(dn)
        scale = np.asarray(self.scale, dtype=np.float64)[:, None, None]
        offset = np.asarray(self.offset, dtype=np.float64)[:, None, None]
        with np.errstate(over="ignore", invalid="ignore"):  # invalid pixels may hold anything
            return (dn.astype(np.float64) * scale + offset).astype(np.float32)

    def valid(self, dn: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Which pixels (H, W) of DN (C, H, W) count: nodata or a non-finite in ANY band do not."""
        self._check_shape(dn)
        good: npt.NDArray[np.bool_] = np.isfinite(dn).all(axis=0)
        if self.nodata is None or math.isnan(self.nodata):
            return good
        if np.issubdtype(dn.dtype, np.floating):
            with np.errstate(over="ignore"):  # a float64 nodata beyond float32 becomes inf
                marker: Any = np.asarray(self.nodata).astype(dn.dtype)  # as the file holds it
        else:
            marker = int(self.nodata) if float(self.nodata).is_integer() else self.nodata
        good &= (dn != marker).all(axis=0)
        return good

    def select(self, bands: Sequence[str]) -> Radiometry:
        """Keep some bands, in the order asked for."""
        missing = [b for b in bands if b not in self.bands]
        if missing:
            raise RadiometryError(f"no band {_names(missing)}: there are {_names(self.bands)}")
        index = [self.bands.index(b) for b in bands]
        return replace(
            self,
            bands=tuple(bands),
            scale=tuple(self.scale[i] for i in index),
            offset=tuple(self.offset[i] for i in index),
        )

    def describe(self) -> str:
        """One line for people: `B04,B03: reflectance = DN * 0.0001 - 0.1, nodata 0`."""
        law = describe_law(self.scale, self.offset)
        nodata = "no nodata" if self.nodata is None else f"nodata {self.nodata:g}"
        return f"{_names(self.bands)}: {self.kind} = {law}, {nodata}"

    def _check_shape(self, dn: npt.NDArray[Any]) -> None:
        if dn.ndim != 3 or dn.shape[0] != len(self.bands):
            raise RadiometryError(
                f"expected DN of shape ({len(self.bands)}, H, W) for bands {_names(self.bands)}, "
                f"got {dn.shape}"
            )


@dataclass(frozen=True)
class Preset:
    """One product's radiometry, the same for all its bands; `bands` only where fixed by it."""

    scale: float
    offset: float
    nodata: float | None
    kind: Kind
    about: str
    bands: tuple[str, ...] | None = None


# Sentinel-2: reflectance = (DN + ADD_OFFSET) / QUANTIFICATION_VALUE with 10000, DN 0 = NO_DATA;
# ADD_OFFSET (RADIO_ for L1C, BOA_ for L2A) is -1000 from processing baseline 04.00 (2022-01-25)
# and 0 before. ESA, SentiWiki "S2 Products"; Products Specification Document 14.9.
# PlanetScope: ortho_analytic_*_sr is reflectance * 10000, 0 = nodata. Planet, PSScene.
# NAIP: uint8 digital photographs without calibration, bands red, green, blue, near infrared. USDA.
PRESETS: dict[str, Preset] = {
    "s2-l1c": Preset(1e-4, 0.0, 0.0, "reflectance", "Sentinel-2 L1C before baseline 04.00"),
    "s2-l1c-n0400": Preset(1e-4, -0.1, 0.0, "reflectance", "Sentinel-2 L1C, baseline >= 04.00"),
    "s2-l2a": Preset(1e-4, -0.1, 0.0, "reflectance", "Sentinel-2 L2A, baseline >= 04.00 (+1000)"),
    "s2-l2a-harmonized": Preset(
        1e-4, 0.0, 0.0, "reflectance", "Sentinel-2 L2A without +1000: old baseline, or removed"
    ),
    "planetscope-sr": Preset(1e-4, 0.0, 0.0, "reflectance", "PlanetScope surface reflectance"),
    "naip": Preset(1 / 255, 0.0, None, "display", "NAIP, RGBN", ("B04", "B03", "B02", "B08")),
    "uint8": Preset(1 / 255, 0.0, None, "display", "any 8-bit picture"),
}


def preset(name: str, *, bands: Sequence[str] | None = None) -> Radiometry:
    """Build a product's radiometry (see `PRESETS`) for the bands named, in the file's order."""
    chosen = find_preset(name)
    names = bands if bands is not None else chosen.bands
    if names is None:
        raise RadiometryError(
            f"preset {name!r} does not know which bands a file holds: name them, "
            "e.g. --bands B04,B03,B02"
        )
    n = len(names)
    return Radiometry(
        tuple(canonical_band(b) for b in names),
        (chosen.scale,) * n,
        (chosen.offset,) * n,
        chosen.nodata,
        chosen.kind,
    )


def check_range(
    values: npt.ArrayLike,
    valid: npt.ArrayLike,
    radiometry: Radiometry,
    *,
    source: str = "this image",
    advice: str = "",
) -> None:
    """Raise RadiometryError if over 1 % of the valid pixels lie outside what `kind` can hold.

    values: (..., C, H, W) after `to_values`; valid: booleans (..., H, W) or (..., 1, H, W).
    Reflectance must lie in [-0.5, 3], display values in [-0.5, 1.5], in every band. Without a
    valid pixel there is nothing to judge. advice: what to do, if not as for `lpips-sat score`.
    """
    found = implausible(values, valid, radiometry.kind)
    if found:
        advice = advice or (
            f"Say what the numbers are: {options_of(presets=' ' + '|'.join(PRESETS))}"
            f"{_unscaled(radiometry)}"
        )
        raise RadiometryError(f"{source}: {found}, read as {radiometry.describe()}. {advice}")


def options_of(prefix: str = "", presets: str = "") -> str:
    """The options of a command that say what numbers are, in words; prefix: "hr-" for HR alone."""
    return (
        f"--{prefix}radiometry{presets}, or --{prefix}scale and --{prefix}offset, and "
        f"--{prefix}nodata if a fill value was counted"
    )


def implausible(values: npt.ArrayLike, valid: npt.ArrayLike, kind: Kind) -> str:
    """What `check_range` complains of, in words; empty if nothing."""
    array = np.asarray(values)
    mask = np.asarray(valid, dtype=bool).reshape(*array.shape[:-3], *array.shape[-2:])
    pixels = np.moveaxis(array, -3, -1)[mask]
    low, high = PLAUSIBLE[kind]
    outside = ~((pixels >= low) & (pixels <= high)).all(axis=-1)
    if outside.size == 0 or outside.mean() <= MAX_OUTSIDE:
        return ""
    return (
        f"{kind} outside [{low:g}, {high:g}] in {outside.mean():.1%} of the valid pixels (min "
        f"{pixels.min():.4g}, median {np.median(pixels):.4g}, max {pixels.max():.4g})"
    )


def _unscaled(radiometry: Radiometry) -> str:
    """Why a preset may have done nothing, and the way out, where numbers were taken as they are."""
    if set(radiometry.scale) != {1} or set(radiometry.offset) != {0}:
        return ""
    return (
        ". Floating numbers without a scale in the file are taken for values, and --radiometry "
        "leaves them as they are: if those of a prediction are DN, score it with --pred-dn as well"
    )


def find_preset(name: str) -> Preset:
    if name not in PRESETS:
        raise RadiometryError(f"unknown radiometry {name!r}: expected one of {_names(PRESETS)}")
    return PRESETS[name]


def describe_law(scale: Sequence[float], offset: Sequence[float]) -> str:
    pairs = zip(scale, offset, strict=True)
    laws = [f"DN * {s:.6g} {'-' if o < 0 else '+'} {abs(o):.6g}" for s, o in pairs]
    laws = [law.removesuffix(" + 0") for law in laws]
    return laws[0] if len(set(laws)) == 1 else "(" + "; ".join(laws) + ")"


def _names(names: Sequence[str] | dict[str, Any]) -> str:
    return ",".join(names)
