"""Put a prediction onto its reference: explicit, on request, and said in every result.

Three steps, in this order: `reproject` (to the reference's grid, `lpips_sat.raster.open_pair`),
`register` (undo an estimated shift), `harmonize` (fit the values band by band). Without them a pair
is scored as it is; the shift is estimated all the same, and a clear one is warned of.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .alignment import RELIABLE, Alignment
from .errors import MetricInputError
from .harmonize import Fit, apply_curve, fit_curve
from .pair import Mask, RasterPair, Side, Window
from .radiometry import Radiometry
from .registration import MIN_SIZE, REACH, Shift, apply_shift, estimate_shift

Array = npt.NDArray[np.float64]

# The shift of an image is estimated in up to 3 x 3 windows of this side, spread evenly: together
# about a second of work for a scene of any size.
WINDOW = 256
# A curve is fitted to at most about so many pixels, on an even lattice over the image.
FIT_PIXELS = 2**20


def align(
    pair: RasterPair,
    *,
    register: bool = False,
    harmonize: Fit | None = None,
    known: Alignment | None = None,
) -> RasterPair:
    """Find out how a pair is aligned, and do what is asked for; `pair.alignment` says what.

    Args:
        pair: open, as `open_pair` gives it.
        register: undo the estimated shift, if it is reliable. The prediction is resampled once, by
            a windowed sinc whose 12 x 12 px must all be valid.
        harmonize: map the values of each band of the prediction: "linear" by the least-squares line
            to the reference, "histogram" so that its percentiles are the reference's.
        known: what was found out before, instead of finding it out again.
    """
    if known is None:
        shift = pair_shift(pair)
        steady = register and shift is not None and shift.reliability >= RELIABLE
        known = replace(pair.alignment, shift=shift, registered=steady)
        if harmonize is not None:
            bands, pixels = _fit(_registered(pair, known), harmonize)
            known = replace(known, harmonize=harmonize, bands=bands, pixels=pixels)
    moved = _registered(pair, known)
    if known.harmonize is None:
        return moved
    curves = tuple(known.bands[band] for band in pair.bands)
    return replace(moved, _pred=_Mapped(moved._pred, curves))


def pair_shift(pair: RasterPair) -> Shift | None:
    """Estimate how far the prediction lies from the reference; None if the image is too small.

    The medians of what windows spread over the image say, weighted by their reliability.
    """
    found = [_window_shift(pair, *corner) for corner in _windows(pair)]
    weights = np.array([shift.reliability for shift in found])
    if not found:
        return None
    if not weights.any():
        return Shift(0.0, 0.0, 0.0)
    return Shift(
        *(
            _weighted_median(np.array([getattr(shift, name) for shift in found]), weights)
            for name in ("dy", "dx", "reliability")
        )
    )


def _windows(pair: RasterPair) -> Iterator[tuple[int, int]]:
    """The first row and column of each window."""
    height, width = pair.grid.height, pair.grid.width
    if min(height, width) < MIN_SIZE:
        return
    for row in _spread(height):
        for col in _spread(width):
            yield row, col


def _spread(size: int) -> list[int]:
    """Where 1 to 3 windows begin along a side; two do not overlap by more than half."""
    count = min(3, max(1, round(size / WINDOW)))
    room = max(0, size - WINDOW)
    return [room // 2] if count == 1 else [room * i // (count - 1) for i in range(count)]


def _window_shift(pair: RasterPair, row: int, col: int) -> Shift:
    """The shift in one window, seen in the sum of all bands: one band is as precise, and faster."""
    tile = pair.window(row, col, WINDOW, WINDOW)
    known = tile.ref[tile.valid.expand_as(tile.ref)].view(len(pair.bands), -1)
    if known.shape[1] < MIN_SIZE**2:
        return Shift(0.0, 0.0, 0.0)
    spread = known.std(dim=1)
    flat = spread <= 1e-6 * known.abs().amax(dim=1)  # nothing but rounding
    weight = torch.where(flat, 0, 1 / spread)
    grey = [
        (image * weight[:, None, None]).sum(dim=1, keepdim=True) for image in (tile.pred, tile.ref)
    ]
    if not all(image[tile.valid].isfinite().all() for image in grey):
        return Shift(0.0, 0.0, 0.0)  # values too large to compare
    return estimate_shift(*grey, valid=tile.valid)


def _weighted_median(values: Array, weights: Array) -> float:
    order = np.argsort(values)
    values, weights = values[order], weights[order]
    middle = np.cumsum(weights) - weights / 2
    return float(np.interp(weights.sum() / 2, middle, values))


@dataclass(frozen=True)
class _Changed:
    """An image that is read through a change of its pixels or values."""

    side: Side

    @property
    def path(self) -> str:
        return self.side.path

    @property
    def radiometry(self) -> Radiometry:
        return self.side.radiometry


# --- registered


@dataclass(frozen=True)
class _Moved(_Changed):
    """An image moved by `shift`, read by windows: the same pixels whatever the windows are."""

    shift: Shift
    height: int
    width: int

    def read(self, window: Window) -> tuple[npt.NDArray[np.float32], Mask]:
        row, col, height, width = window
        reach = [REACH + math.ceil(abs(d)) for d in (self.shift.dy, self.shift.dx)]
        top, left = max(0, row - reach[0]), max(0, col - reach[1])
        bottom = min(self.height, row + height + reach[0])
        right = min(self.width, col + width + reach[1])
        values, valid = self.side.read((top, left, bottom - top, right - left))
        moved, known = apply_shift(
            torch.from_numpy(values)[None], self.shift, torch.from_numpy(valid)[None, None]
        )
        inner = (..., slice(row - top, row - top + height), slice(col - left, col - left + width))
        return moved[inner][0].numpy(), known[inner][0, 0].numpy()

    def select(self, bands: Sequence[str]) -> _Moved:
        return replace(self, side=self.side.select(bands))


def _registered(pair: RasterPair, known: Alignment) -> RasterPair:
    pair = replace(pair, alignment=known)
    if not known.registered or known.shift is None:
        return pair
    moved = _Moved(pair._pred, -known.shift, pair.grid.height, pair.grid.width)
    return replace(pair, _pred=moved)


# --- harmonized


@dataclass(frozen=True)
class _Mapped(_Changed):
    """An image whose values are mapped band by band; curves: see `Alignment.bands`."""

    curves: tuple[Mapping[str, Any], ...]

    def read(self, window: Window) -> tuple[npt.NDArray[np.float32], Mask]:
        values, valid = self.side.read(window)
        mapped = [apply_curve(curve, band) for curve, band in zip(self.curves, values, strict=True)]
        return np.stack(mapped).astype(np.float32), valid

    def select(self, bands: Sequence[str]) -> _Mapped:
        index = [self.radiometry.bands.index(band) for band in bands]
        return _Mapped(self.side.select(bands), tuple(self.curves[i] for i in index))


def _fit(pair: RasterPair, how: Fit) -> tuple[dict[str, dict[str, Any]], int]:
    """Coefficients per band, and the number of pixels they are fitted on."""
    pred, ref = _sample(pair)
    found = {}
    for band, x, y in zip(pair.bands, pred.numpy(), ref.numpy(), strict=True):
        try:
            found[band] = fit_curve(x, y, how)
        except MetricInputError as error:
            raise MetricInputError(f"band {band}: {error}") from error
    return found, int(pred.shape[1])


def _sample(pair: RasterPair) -> tuple[Tensor, Tensor]:
    """Valid pixels (C, n) of both images on a lattice over the whole of them."""
    step = max(1, math.ceil(math.sqrt(pair.grid.height * pair.grid.width / FIT_PIXELS)))
    preds, refs = [], []
    for tile in pair.tiles():
        lattice = (..., slice(-tile.row % step, None, step), slice(-tile.col % step, None, step))
        counts = tile.valid[lattice][0, 0]
        preds.append(tile.pred[lattice][0][:, counts])
        refs.append(tile.ref[lattice][0][:, counts])
    return torch.cat(preds, dim=1), torch.cat(refs, dim=1)
