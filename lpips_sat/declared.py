"""How a file's header, a product's preset and the user's words settle its radiometry.

Declared and never guessed: what none of the three says is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from .bands import canonical_band
from .errors import RadiometryError
from .radiometry import PRESETS, Kind, Preset, Radiometry, describe_law, find_preset

__all__ = ["DeclaredRadiometry", "RadiometryOptions", "resolve"]


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
    chosen = None if preset is None else find_preset(preset)
    kind: Kind = "reflectance" if chosen is None else chosen.kind
    names = _resolve_bands(declared, chosen, bands)
    scales = _resolve_factor(declared, chosen, preset, "scale", scale)
    offsets = _resolve_factor(declared, chosen, preset, "offset", offset)
    if nodata is None:
        nodata = _declared_nodata(declared)
    if nodata is None and chosen is not None and not declared.holds_values:
        nodata = chosen.nodata
    return Radiometry(names, scales, offsets, nodata, kind)


def _resolve_bands(
    declared: DeclaredRadiometry, chosen: Preset | None, bands: Sequence[str] | None
) -> tuple[str, ...]:
    count = len(declared.bands)
    if bands is not None:
        if len(bands) != count:
            raise RadiometryError(
                f"{declared.source}: {len(bands)} names given ({','.join(bands)}) for {count} "
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
        found = describe_law(declared.scales, declared.offsets)
        meant = describe_law((chosen.scale,), (chosen.offset,))
        raise RadiometryError(
            f"{declared.source} declares value = {found}, but --radiometry {preset_name} means "
            f"{meant}: leave --radiometry out to follow the file, or pass --scale and --offset to "
            "overrule it"
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
            f"{declared.source}: its bands declare different nodata values ({','.join(found)}): "
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
