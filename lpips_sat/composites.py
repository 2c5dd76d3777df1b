"""What the network sees: from any declared band set to three bands with a fixed display stretch.

The stretch is part of the metric: the same reflectance always gives the same network input, in
every image, tile and data set. Nothing is fitted to the image at hand.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import MetricInputError
from .radiometry import Kind, canonical_band

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

    ``kind`` "reflectance" divides each band by its white (:data:`WHITE`); "display" takes values
    as they are. Above white a logarithmic shoulder, 1 + log(value), keeps clouds and snow apart
    and gradients alive; at and below white nothing changes.
    """

    def __init__(
        self, bands: Sequence[str], kind: Kind, composite: Sequence[str] | None = None
    ) -> None:
        self.bands = tuple(canonical_band(band) for band in bands)
        self.kind = kind
        chosen = choose_composite(self.bands) if composite is None else composite
        self.composite = tuple(canonical_band(band) for band in chosen)
        if len(self.composite) != 3 or not set(self.composite) <= set(self.bands):
            raise MetricInputError(
                f"composite must name three of the bands {', '.join(self.bands)}, "
                f"got {', '.join(self.composite)}"
            )
        if kind not in ("reflectance", "display"):
            raise MetricInputError(
                f"radiometry must be 'reflectance' or 'display' (stretched to [0, 1]), got {kind!r}"
            )
        unknown = [b for b in self.composite if b not in WHITE]
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
        if image.shape[1] != len(self.bands):
            raise MetricInputError(
                f"expected {len(self.bands)} channels ({', '.join(self.bands)}), got shape "
                f"{tuple(image.shape)}. Name the bands of your images with bands=(...)."
            )
        white = torch.tensor(self.white, dtype=image.dtype, device=image.device)
        shown = image[:, self.index] / white[:, None, None]
        return torch.where(shown > 1, 1 + torch.log(shown.clamp(min=1)), shown)
