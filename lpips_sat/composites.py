"""What the network sees: from any declared band set to what it was trained on.

`NetworkInput` shows three bands with a fixed display stretch; `BandInput` gives a
multi-band network its own bands as reflectance. The mapping is part of the metric: the same
reflectance always gives the same network input, in every image, tile and data set. Nothing is
fitted to the image at hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .bands import canonical_band
from .errors import MetricInputError
from .radiometry import Kind

# Reflectance shown as white. 0.275 (DN 2750) is about the stretch of the EuroSAT RGB chips (Helber
# et al. 2019): the published mean DN of the multispectral chips over the mean of the RGB chips
# gives 2740 to 2780 in the three bands. Vegetation and soil are about twice as bright beyond the
# red edge.
VISIBLE_WHITE, INFRARED_WHITE = 0.275, 0.55
WHITE = {
    **dict.fromkeys(("B01", "B02", "B03", "B04", "pan"), VISIBLE_WHITE),
    **dict.fromkeys(("B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"), INFRARED_WHITE),
}
# Tried in this order; the first whose bands are all there is used.
COMPOSITES: dict[str, tuple[str, str, str]] = {
    "true colour": ("B04", "B03", "B02"),
    "colour infrared": ("B08", "B04", "B03"),
    "colour infrared, narrow": ("B8A", "B04", "B03"),
    "short-wave infrared": ("B12", "B8A", "B04"),
    "short-wave infrared, 10 m": ("B12", "B08", "B04"),
}


def choose_composite(bands: Sequence[str]) -> tuple[str, str, str]:
    """The three bands that stand for ``bands``: a known composite, or a single band as grey.

    Raises ``MetricInputError`` for other sets: name three of the bands as ``composite=``.
    """
    names = tuple(canonical_band(band) for band in bands)
    if len(names) == 1:
        return (names[0],) * 3
    for composite in COMPOSITES.values():
        if set(composite) <= set(names):
            return composite
    known = "; ".join(f"{name} ({', '.join(c)})" for name, c in COMPOSITES.items())
    raise MetricInputError(
        f"no composite for the bands {', '.join(names) or 'none'}. Known: {known}; or one band "
        "alone as grey. Choose three of your bands yourself: composite=(..., ..., ...), or "
        "--composite on the command line; or leave LPIPS-Sat out with --metrics."
    )


class NetworkInput:
    """Images (N, C, H, W) with named bands -> (N, 3, H, W), 0 black to 1 white.

    ``kind`` "reflectance" divides each band by its white (`WHITE`); "display" takes values
    as they are. Above white a logarithmic shoulder, 1 + log(value), keeps clouds and snow apart
    and gradients alive; at and below white nothing changes.
    """

    about = (
        "true colours B04, B03, B02 (or a documented composite) over 0.275 reflectance, "
        "0.55 beyond the red edge; see lpips_sat/composites.py"
    )

    def __init__(
        self, bands: Sequence[str], kind: Kind, composite: Sequence[str] | None = None
    ) -> None:
        self.bands = _canonical("bands", bands)
        self.kind = kind
        chosen = choose_composite(self.bands) if composite is None else composite
        self.composite = _canonical("composite", chosen)
        if len(self.composite) != 3 or not set(self.composite) <= set(self.bands):
            raise MetricInputError(
                f"composite must name three of the bands {', '.join(self.bands)}, "
                f"got {', '.join(self.composite)}"
            )
        _check_kind(kind)
        unknown = dict.fromkeys(b for b in self.composite if b not in WHITE)
        if kind == "reflectance" and unknown:
            raise MetricInputError(
                f"no display stretch is defined for the reflectance of {', '.join(unknown)}; "
                f"known bands: {', '.join(WHITE)}. Stretch to [0, 1] yourself and use "
                "radiometry='display'."
            )
        self.index = [self.bands.index(band) for band in self.composite]
        self.white = [WHITE[b] if kind == "reflectance" else 1.0 for b in self.composite]

    def __call__(self, image: Tensor) -> Tensor:
        """Map images; the number of channels must be that of the bands."""
        _check_channels(image, self.bands)
        white = torch.tensor(self.white, dtype=image.dtype, device=image.device)
        shown = image[:, self.index] / white[:, None, None]
        return torch.where(shown > 1, 1 + torch.log(shown.clamp(min=1)), shown)


# The cirrus band sees no ground; Level-2A products do not carry it.
CIRRUS = "B10"


class BandInput:
    """Images (N, C, H, W) with named bands -> (N, len(wanted), H, W) reflectance.

    ``wanted`` maps the bands of the network, in its order, to the reflectance that stands for a
    missing one, alike in all images. Of "reflectance" only the cirrus band B10 may be missing,
    which Level-2A lacks; of "display", which is a picture and is taken for reflectance over white
    (`WHITE`), any. ``composite`` holds the wanted bands, ``filled`` the missing ones.
    """

    def __init__(self, bands: Sequence[str], kind: Kind, wanted: Mapping[str, float]) -> None:
        self.bands = _canonical("bands", bands)
        self.kind = kind
        self.composite = tuple(wanted)
        self.filled = tuple(band for band in wanted if band not in self.bands)
        _check_kind(kind)
        lacking = [b for b in self.filled if b != CIRRUS] if kind == "reflectance" else []
        if lacking or len(self.filled) == len(wanted):
            raise MetricInputError(
                f"this network looks at {', '.join(wanted)}; of these {', '.join(self.filled)} are "
                f"not among the bands named, {', '.join(self.bands) or 'none'}. Name the bands of "
                f"your images with bands=(...); only {CIRRUS} may be missing, as it is in Level-2A."
            )
        self.constants = dict(wanted)
        self.white = {b: WHITE.get(b, 1.0) if kind == "display" else 1.0 for b in wanted}

    @property
    def about(self) -> str:
        """What a card says of the mapping."""
        text = f"reflectance of {', '.join(self.composite)}"
        constants = ", ".join(f"{band} = {self.constants[band]:g}" for band in self.filled)
        return f"{text}; in calibration {constants} in all images" if constants else text

    def __call__(self, image: Tensor) -> Tensor:
        """Map images; the number of channels must be that of the bands."""
        _check_channels(image, self.bands)
        planes = [
            torch.full_like(image[:, 0], self.constants[band])
            if band in self.filled
            else image[:, self.bands.index(band)] * self.white[band]
            for band in self.composite
        ]
        return torch.stack(planes, dim=1)


def input_for(
    backbone: nn.Module, bands: Sequence[str], kind: Kind, composite: Sequence[str] | None
) -> NetworkInput | BandInput:
    """How images with these bands are shown to ``backbone``."""
    wanted = getattr(backbone, "bands", None)
    if wanted is None:
        return NetworkInput(bands, kind, composite)
    if composite is not None:
        raise MetricInputError(
            f"composite does not apply: this network looks at {', '.join(wanted)} itself"
        )
    return BandInput(bands, kind, wanted)


def _canonical(which: str, bands: Sequence[str]) -> tuple[str, ...]:
    if isinstance(bands, str):
        raise MetricInputError(
            f"{which} must be a sequence of names, such as {tuple(bands.split(','))}, got the "
            f"string {bands!r}"
        )
    return tuple(canonical_band(band) for band in bands)


def _check_kind(kind: str) -> None:
    if kind not in ("reflectance", "display"):
        raise MetricInputError(
            f"radiometry must be 'reflectance' or 'display' (stretched to [0, 1]), got {kind!r}"
        )


def _check_channels(image: Tensor, bands: Sequence[str]) -> None:
    if image.shape[1] != len(bands):
        raise MetricInputError(
            f"expected {len(bands)} channels ({', '.join(bands)}), got shape "
            f"{tuple(image.shape)}. Name the bands of your images with bands=(...)."
        )
