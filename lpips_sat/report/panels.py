"""Pictures of a pair: reference, prediction, absolute error and LPIPS-Sat, as small PNG files."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ..composites import NetworkInput
from ..errors import LpipsSatError, MetricInputError
from ..lpips import LPIPSSat
from ..pair import RasterPair, Window
from ..work import ScoreOptions, build_metrics
from .tables import number

Array = npt.NDArray[np.float32]

PANEL = 384  # side of a picture in pixels; what is larger is cut, never resampled
COLOURS = "magma"  # matplotlib's, perceptually uniform
# Errors above this share of all of them have the last colour.
SATURATED = 0.99
NOTHING = 255  # the index that stands for "invalid", and is transparent


@dataclass(frozen=True)
class Seen:
    """What was read of a pair: shown colours (H, W, 3) in [0, 1], maps and validity (H, W).

    distance: LPIPS-Sat per pixel, or why there is none; unit: of the error; about: what is shown.
    """

    pred: Array
    ref: Array
    valid: npt.NDArray[np.bool_]
    error: Array
    distance: Array | str
    unit: str
    about: str


@dataclass(frozen=True)
class Panel:
    """One picture as a data URI, with its size in pixels; without one, the caption says why."""

    name: str
    caption: str = ""
    uri: str = ""
    width: int = 0
    height: int = 0
    scale: bool = False  # whether the caption is the range of a colour scale


@dataclass(frozen=True)
class Drawn:
    """The panels of one method's result, or why there are none."""

    panels: list[Panel] = field(default_factory=list)
    about: str = ""
    problem: str = ""


def see(pair: RasterPair, options: ScoreOptions, place: Window | None = None) -> Seen:
    """Read the centre of a pair, or of the tile at ``place``, at full resolution."""
    metric = _lpips_sat(pair, options)
    align = 1 if isinstance(metric, str) else metric.align
    halo = 0 if isinstance(metric, str) else -(-metric.halo // align) * align
    row, col, height, width = place or (0, 0, pair.grid.height, pair.grid.width)
    top, high = _centre(row, height, align)
    left, wide = _centre(col, width, align)
    tile = pair.window(top, left, high, wide, halo=halo)
    inner = (0, slice(None), *tile.core_slices)
    show = _display(pair, options, tile.ref[tile.valid.expand_as(tile.ref)])
    distance: Array | str
    try:
        if isinstance(metric, str):
            raise MetricInputError(metric)
        with torch.inference_mode():
            found = metric.map_and_sums(tile.pred, tile.ref, valid=tile.valid, core=tile.core)[0]
        distance = found[inner][0].numpy()
    except MetricInputError as error:
        distance = str(error)
    cut = (high, wide) != (pair.grid.height, pair.grid.width)
    part = f"rows {top} to {top + high - 1}, columns {left} to {left + wide - 1} of " if cut else ""
    return Seen(
        pred=_colours(show(tile.pred)[inner]),
        ref=_colours(show(tile.ref)[inner]),
        valid=tile.valid[inner][0].numpy(),
        error=(tile.pred - tile.ref)[inner].abs().mean(dim=0).numpy(),
        distance=distance,
        unit=pair.kind,
        about=f"{part}{pair.grid.height} x {pair.grid.width} px",
    )


def picture(seen: Seen, together: Sequence[Seen]) -> Drawn:
    """Draw what was seen; the colours mean the same in all that are shown ``together``."""
    top = max(colour_top(other.error, other.valid) for other in together)
    panels = [
        rgb_panel("Reference", seen.ref, seen.valid),
        rgb_panel("Prediction", seen.pred, seen.valid),
        map_panel("Absolute error", seen.error, seen.valid, top, seen.unit),
    ]
    if isinstance(seen.distance, str):
        panels.append(Panel("LPIPS-Sat", seen.distance))
    else:
        maps = [(o.distance, o.valid) for o in together if not isinstance(o.distance, str)]
        top = max(colour_top(distance, valid) for distance, valid in maps)
        panels.append(map_panel("LPIPS-Sat", seen.distance, seen.valid, top, ""))
    return Drawn(panels, seen.about)


def _lpips_sat(pair: RasterPair, options: ScoreOptions) -> LPIPSSat | str:
    """The metric as the table was made with it, or why it does not apply."""
    only = replace(options, suite=None, metrics=("lpips-sat",))
    try:
        (metric,) = build_metrics(only, *pair.facts)
    except LpipsSatError as error:
        return str(error)
    assert isinstance(metric, LPIPSSat)
    return metric


def _centre(start: int, size: int, align: int) -> tuple[int, int]:
    """Where to cut `PANEL` px out of the middle, beginning at a multiple of ``align``."""
    if size <= PANEL:
        return start, size
    return start + (size - PANEL) // 2 // align * align, PANEL


def _display(
    pair: RasterPair, options: ScoreOptions, ref: torch.Tensor
) -> Callable[[torch.Tensor], torch.Tensor]:
    """How values are shown: as LPIPS-Sat sees them, else by the reference's range."""
    try:
        return NetworkInput(pair.bands, pair.kind, options.composite)
    except MetricInputError:
        low, high = np.quantile(ref.numpy(), [0.02, 0.98]) if ref.numel() else (0.0, 1.0)
        index = [0, 1, 2] if len(pair.bands) > 2 else [0, 0, 0]
        return lambda image: (image[:, index] - low) / max(high - low, 1e-9)


def _colours(shown: torch.Tensor) -> Array:
    colours: Array = shown.clamp(0, 1).permute(1, 2, 0).numpy()
    return colours


def colour_top(values: Array, valid: npt.NDArray[np.bool_]) -> float:
    """The value of a map (H, W) that gets the last colour; 0 if nothing is known."""
    known = values[valid & np.isfinite(values)]
    return float(np.quantile(known, SATURATED)) if known.size else 0.0


def rgb_panel(name: str, colours: Array, valid: npt.NDArray[np.bool_]) -> Panel:
    """Show colours (H, W, 3) in [0, 1]; what is not ``valid`` (H, W) is transparent."""
    image = np.rint(255 * colours).astype(np.uint8)
    if not valid.all():
        image = np.dstack([image, np.where(valid, 255, 0).astype(np.uint8)])
    return _panel(name, "", Image.fromarray(image))


def map_panel(
    name: str, values: Array, valid: npt.NDArray[np.bool_], top: float, unit: str
) -> Panel:
    """Show values (H, W) from 0 to ``top`` in `COLOURS`; what is not ``valid`` is transparent."""
    from matplotlib import colormaps

    known = valid & np.isfinite(values)
    share = np.where(known, values, 0) / (top or 1.0)
    index = np.rint((NOTHING - 1) * np.clip(share, 0, 1))
    image = Image.fromarray(np.where(known, index, NOTHING).astype(np.uint8))
    colours = colormaps[COLOURS](np.linspace(0, 1, NOTHING))[:, :3]
    image.putpalette([*np.rint(255 * colours).astype(np.uint8).ravel().tolist(), 0, 0, 0])
    return _panel(name, f"{number(top)} {unit}".strip(), image, transparency=NOTHING)


def _panel(name: str, caption: str, image: Image.Image, transparency: int | None = None) -> Panel:
    memory = io.BytesIO()
    clear = {} if transparency is None else {"transparency": transparency}
    image.save(memory, "PNG", **clear)
    uri = f"data:image/png;base64,{base64.b64encode(memory.getvalue()).decode()}"
    return Panel(name, caption, uri, *image.size, scale=transparency is not None)
