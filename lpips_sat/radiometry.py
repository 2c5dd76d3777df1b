"""What the numbers in a file mean: value = DN * scale + offset, declared and never guessed.

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
    "DeclaredRadiometry",
    "Kind",
    "Preset",
    "Radiometry",
    "RadiometryOptions",
    "canonical_band",
    "check_range",
    "preset",
    "resolve",
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
        law = _law(self.scale, self.offset)
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


@dataclass(frozen=True)
class DeclaredRadiometry:
    """What a file's header says of its data bands (alpha left out), one entry per band.

    bands: descriptions; scales, offsets: GDAL's, 1 and 0 where not set; nodata: GDAL's; dtype:
    numpy's name; colors: GDAL's colour interpretation in lower case; source: the file, for
    messages; floating_dn: the user's word that floating numbers without a scale are DN too.
    """

    bands: tuple[str | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    nodata: tuple[float | None, ...]
    dtype: str
    colors: tuple[str, ...]
    source: str = "this image"
    floating_dn: bool = False

    @property
    def scaled(self) -> bool:
        """Whether the header sets a scale or an offset."""
        return any(s != 1 for s in self.scales) or any(o != 0 for o in self.offsets)

    @property
    def holds_values(self) -> bool:
        """Whether the numbers are values as they stand: floating, without a scale."""
        return self.in_units and not self.scaled

    @property
    def in_units(self) -> bool:
        """Whether the header tells how to reach values: a scale is set, or they are floating."""
        floating = np.issubdtype(np.dtype(self.dtype), np.floating)
        return self.scaled or (floating and not self.floating_dn)

    def band_names(self) -> tuple[str, ...] | None:
        """Canonical names from descriptions, else from red/green/blue; None if any is missing."""
        if all(name and name.strip() for name in self.bands):
            return tuple(canonical_band(name) for name in self.bands if name)
        if set(self.colors) <= {"red", "green", "blue"}:
            return tuple(canonical_band(color) for color in self.colors)
        return None


@dataclass(frozen=True)
class RadiometryOptions:
    """What the user says of one file; None = not said.

    bands: names all its bands in order; floating_dn: floating numbers without a scale in the file
    are DN, as those of integer files are, and no values yet.
    """

    preset: str | None = None
    bands: Sequence[str] | None = None
    scale: float | Sequence[float] | None = None
    offset: float | Sequence[float] | None = None
    nodata: float | None = None
    floating_dn: bool = False


def preset(name: str, *, bands: Sequence[str] | None = None) -> Radiometry:
    """Build a product's radiometry (see `PRESETS`) for the bands named, in the file's order."""
    chosen = _preset(name)
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


def resolve(
    declared: DeclaredRadiometry,
    *,
    preset: str | None = None,
    bands: Sequence[str] | None = None,
    scale: float | Sequence[float] | None = None,
    offset: float | Sequence[float] | None = None,
    nodata: float | None = None,
    floating_dn: bool = False,
) -> Radiometry:
    """One radiometry from the header and the user's words; RadiometryError if anything is open.

    Names, scale, offset: an option wins over the header, the header over a preset; a preset that
    contradicts the header in scale or offset is an error unless options settle it. Floating
    numbers without a declared scale are values already (scale 1, offset 0), with a preset too,
    unless `floating_dn` calls them DN; DN without one need a preset, or both `scale` and `offset`.
    nodata: option, header, preset.
    """
    declared = replace(declared, floating_dn=floating_dn)
    chosen = None if preset is None else _preset(preset)
    kind: Kind = "reflectance" if chosen is None else chosen.kind
    names = _resolve_bands(declared, chosen, bands)
    scales = _resolve_factor(declared, chosen, preset, "scale", scale)
    offsets = _resolve_factor(declared, chosen, preset, "offset", offset)
    if nodata is None:
        nodata = _declared_nodata(declared)
    if nodata is None and chosen is not None and not declared.holds_values:
        nodata = chosen.nodata
    return Radiometry(names, scales, offsets, nodata, kind)


def check_range(
    values: npt.ArrayLike,
    valid: npt.ArrayLike,
    radiometry: Radiometry,
    *,
    source: str = "this image",
) -> None:
    """Raise RadiometryError if over 1 % of the valid pixels lie outside what `kind` can hold.

    values: (..., C, H, W) after `to_values`; valid: booleans (..., H, W) or (..., 1, H, W).
    Reflectance must lie in [-0.5, 3], display values in [-0.5, 1.5], in every band. Without a
    valid pixel there is nothing to judge.
    """
    array = np.asarray(values)
    mask = np.asarray(valid, dtype=bool).reshape(*array.shape[:-3], *array.shape[-2:])
    pixels = np.moveaxis(array, -3, -1)[mask]
    low, high = PLAUSIBLE[radiometry.kind]
    outside = ~((pixels >= low) & (pixels <= high)).all(axis=-1)
    if outside.size == 0 or outside.mean() <= MAX_OUTSIDE:
        return
    raise RadiometryError(
        f"{source}: {radiometry.kind} outside [{low:g}, {high:g}] in {outside.mean():.1%} of the "
        f"valid pixels (min {pixels.min():.4g}, median {np.median(pixels):.4g}, max "
        f"{pixels.max():.4g}), read as {radiometry.describe()}. Say what the numbers are: "
        f"--radiometry {'|'.join(PRESETS)}, or --scale and --offset, and --nodata if a fill value "
        f"was counted{_unscaled(radiometry)}"
    )


def _unscaled(radiometry: Radiometry) -> str:
    """Why a preset may have done nothing, and the way out, where numbers were taken as they are."""
    if set(radiometry.scale) != {1} or set(radiometry.offset) != {0}:
        return ""
    return (
        ". Floating numbers without a scale in the file are taken for values, and --radiometry "
        "leaves them as they are: if those of a prediction are DN, score it with --pred-dn as well"
    )


def _preset(name: str) -> Preset:
    if name not in PRESETS:
        raise RadiometryError(f"unknown radiometry {name!r}: expected one of {_names(PRESETS)}")
    return PRESETS[name]


def _resolve_bands(
    declared: DeclaredRadiometry, chosen: Preset | None, bands: Sequence[str] | None
) -> tuple[str, ...]:
    count = len(declared.bands)
    if bands is not None:
        if len(bands) != count:
            raise RadiometryError(
                f"{declared.source}: {len(bands)} names given ({_names(bands)}) for {count} "
                "bands: name every band of the file, in its order"
            )
        return tuple(canonical_band(b) for b in bands)
    names = declared.band_names()
    if names is not None:
        return names
    if chosen is not None and chosen.bands is not None and len(chosen.bands) == count:
        return chosen.bands
    if chosen is not None and chosen.kind == "display":
        return tuple(f"band{i + 1}" for i in range(count))  # a picture: by position
    known = ", ".join(repr(b) for b in declared.bands)
    raise RadiometryError(
        f"{declared.source}: {count} band(s) without complete names (descriptions: {known}): name "
        "them in the file's order, e.g. --bands B04,B03,B02, or set the bands' descriptions"
    )


def _resolve_factor(
    declared: DeclaredRadiometry,
    chosen: Preset | None,
    preset_name: str | None,
    which: Literal["scale", "offset"],
    given: float | Sequence[float] | None,
) -> tuple[float, ...]:
    """Take the scale or the offset of each band: option, else header (a preset must agree)."""
    count = len(declared.bands)
    header = declared.scales if which == "scale" else declared.offsets
    if given is not None:
        return _per_band(given, count, which, declared.source)
    if chosen is None and not declared.in_units:
        raise _undeclared(declared, which)
    if chosen is None or declared.holds_values:
        return tuple(header)  # a preset is about DN
    wanted = (chosen.scale if which == "scale" else chosen.offset,) * count
    # 1e-6 relative (1e-9 absolute): a header keeps a scale as text or as float32
    if declared.scaled and not np.allclose(wanted, header, rtol=1e-6, atol=1e-9):
        law = _law(declared.scales, declared.offsets)
        raise RadiometryError(
            f"{declared.source} declares value = {law}, but --radiometry {preset_name} means "
            f"{_law((chosen.scale,), (chosen.offset,))}: leave --radiometry out to follow the "
            "file, or pass --scale and --offset to overrule it"
        )
    return wanted


def _undeclared(declared: DeclaredRadiometry, which: str) -> RadiometryError:
    hint = "--radiometry uint8" if declared.dtype == "uint8" else "--radiometry s2-l2a"
    return RadiometryError(
        f"{declared.source}: {declared.dtype} numbers without a declared {which}, so their unit "
        f"and range are unknown. Say what they are: {hint} (one of {', '.join(PRESETS)}), or "
        "--scale and --offset (value = DN * scale + offset; 0 where there is no offset)"
    )


def _declared_nodata(declared: DeclaredRadiometry) -> float | None:
    found = {str(v): v for v in declared.nodata if v is not None}  # str: NaN equals NaN
    if len(found) > 1:
        raise RadiometryError(
            f"{declared.source}: its bands declare different nodata values ({_names(found)}): "
            "say which one counts, --nodata VALUE"
        )
    return next(iter(found.values()), None)


def _per_band(
    given: float | Sequence[float], count: int, which: str, source: str
) -> tuple[float, ...]:
    if not isinstance(given, Sequence):
        return (float(given),) * count
    if len(given) != count:
        raise RadiometryError(
            f"{source}: {len(given)} values of --{which} for {count} bands: give one for all, or "
            "one per band in the file's order"
        )
    return tuple(float(v) for v in given)


def _law(scale: Sequence[float], offset: Sequence[float]) -> str:
    pairs = zip(scale, offset, strict=True)
    laws = [f"DN * {s:.6g} {'-' if o < 0 else '+'} {abs(o):.6g}" for s, o in pairs]
    laws = [law.removesuffix(" + 0") for law in laws]
    return laws[0] if len(set(laws)) == 1 else "(" + "; ".join(laws) + ")"


def _names(names: Sequence[str] | dict[str, Any]) -> str:
    return ",".join(names)
