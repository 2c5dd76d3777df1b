"""A pair of images on one grid, iterated in tiles with a halo. `raster.open_pair` makes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from .alignment import Alignment
from .bands import canonical_band
from .errors import MetricInputError, RadiometryError
from .grid import Grid
from .radiometry import Kind, Radiometry

Mask = npt.NDArray[np.bool_]
# A window of an image: first row, first column, height, width.
Window = tuple[int, int, int, int]


class Side(Protocol):
    """One image, read by windows."""

    @property
    def path(self) -> str:
        """Name it for people."""

    @property
    def radiometry(self) -> Radiometry:
        """Tell what its numbers mean, for the bands that `read` gives."""

    def read(self, window: Window) -> tuple[npt.NDArray[np.float32], Mask]:
        """Read values (C, h, w) and which pixels (h, w) count."""

    def select(self, bands: Sequence[str]) -> Side:
        """Keep some bands, in the order asked for."""


class Image(Side, Protocol):
    """One raster, read by windows of its grid."""

    @property
    def grid(self) -> Grid:
        """Tell where its pixels lie."""


class PairMask(Protocol):
    """Which pixels of a pair count, read by windows."""

    def read(self, window: Window) -> Mask:
        """Read which pixels (h, w) count."""


@dataclass(frozen=True)
class Tile:
    """A piece of a pair: a core of height x width px at (row, col), and a halo around it.

    pred, ref: float32 (1, C, h, w) with the halo, cut at the image's border, 0 where invalid;
    valid, core: bool (1, 1, h, w); core_slices: the core's rows and columns in these arrays;
    lr: the low-resolution image under the core, float32 (1, C, ...), NaN where invalid, or None.
    """

    row: int
    col: int
    height: int
    width: int
    pred: torch.Tensor
    ref: torch.Tensor
    valid: torch.Tensor
    core: torch.Tensor
    core_slices: tuple[slice, slice]
    lr: torch.Tensor | None = None

    def cut(self, halo: int) -> Tile:
        """The same core with at most `halo` px around it."""
        tops = [max(0, inner.start - halo) for inner in self.core_slices]
        rows, cols = (
            slice(top, inner.stop + halo) for top, inner in zip(tops, self.core_slices, strict=True)
        )
        inner_rows, inner_cols = (
            slice(inner.start - top, inner.stop - top)
            for top, inner in zip(tops, self.core_slices, strict=True)
        )
        return replace(
            self,
            pred=self.pred[..., rows, cols],
            ref=self.ref[..., rows, cols],
            valid=self.valid[..., rows, cols],
            core=self.core[..., rows, cols],
            core_slices=(inner_rows, inner_cols),
        )


@dataclass(frozen=True)
class RasterPair:
    """Two rasters on one grid with their common bands; made by `open_pair`.

    lr_factor: by how much the grid is finer than that of the low-resolution image, if there is one;
    alignment: how the prediction came to lie where it does, see `lpips_sat.align.align`.
    """

    grid: Grid
    bands: tuple[str, ...]
    dtype: str
    _pred: Side
    _ref: Side
    _mask: PairMask | None
    _lr: Side | None = None
    lr_factor: int | None = None
    alignment: Alignment = field(default_factory=Alignment)

    @property
    def pred_path(self) -> str:
        """The prediction's name."""
        return self._pred.path

    @property
    def ref_path(self) -> str:
        """The reference's name."""
        return self._ref.path

    @property
    def lr_path(self) -> str:
        """The low-resolution image's name, empty if there is none."""
        return "" if self._lr is None else self._lr.path

    @property
    def lr_radiometry(self) -> Radiometry | None:
        """How the low-resolution image is read, for `bands`."""
        return None if self._lr is None else self._lr.radiometry

    @property
    def pred_radiometry(self) -> Radiometry:
        """How the prediction is read, for `bands`."""
        return self._pred.radiometry

    @property
    def ref_radiometry(self) -> Radiometry:
        """How the reference is read, for `bands`."""
        return self._ref.radiometry

    @property
    def facts(self) -> tuple[tuple[str, ...], Kind, int | None, float | None]:
        """What metrics are built from: bands, kind, lr_factor, and the GSD in metres if known."""
        return self.bands, self.kind, self.lr_factor, self.grid.gsd

    @property
    def kind(self) -> Kind:
        """What the values are, the same for both: "reflectance" or "display"."""
        return self._ref.radiometry.kind

    def tiles(
        self, size: int = 512, halo: int = 0, align: int = 1, rows: slice = slice(None)
    ) -> Iterator[Tile]:
        """Iterate the image in cores of `size` px, row by row, each with `halo` px around it.

        The halo is rounded up to a multiple of `align` and `size` must be one, so that every
        array starts at a multiple of `align`: a network of that stride sees the same phase in a
        tile as in the whole image. Cores partition the image; those at its end may be small.
        `rows` picks rows of tiles, the first being row 0.
        """
        if size < 1 or align < 1 or halo < 0 or size % align:
            raise MetricInputError(
                f"expected size a positive multiple of align, and halo >= 0; got size={size}, "
                f"halo={halo}, align={align}"
            )
        margin = -(-halo // align) * align
        for row in range(0, self.grid.height, size)[rows]:
            for col in range(0, self.grid.width, size):
                yield self.window(row, col, size, size, halo=margin)

    def window(self, row: int, col: int, height: int, width: int, *, halo: int = 0) -> Tile:
        """Read one piece: a core of height x width px at (row, col), cut at the image's border."""
        height, width = min(height, self.grid.height - row), min(width, self.grid.width - col)
        top, left = max(0, row - halo), max(0, col - halo)
        bottom = min(self.grid.height, row + height + halo)
        right = min(self.grid.width, col + width + halo)
        window = (top, left, bottom - top, right - left)
        pred, valid = self._pred.read(window)
        ref, ref_valid = self._ref.read(window)
        valid &= ref_valid
        if self._mask is not None:
            valid &= self._mask.read(window)
        pred[:, ~valid] = 0
        ref[:, ~valid] = 0
        inner = (slice(row - top, row - top + height), slice(col - left, col - left + width))
        core = torch.zeros(1, 1, *valid.shape, dtype=torch.bool)
        core[(..., *inner)] = True
        return Tile(
            row,
            col,
            height,
            width,
            pred=torch.from_numpy(pred)[None],
            ref=torch.from_numpy(ref)[None],
            valid=torch.from_numpy(valid)[None, None],
            core=core,
            core_slices=inner,
            lr=self._low_resolution((row, col, height, width)),
        )

    def _low_resolution(self, window: Window) -> torch.Tensor | None:
        """Read the low-resolution image under a window, whose corners must be corners of its."""
        if self._lr is None or self.lr_factor is None:
            return None
        if any(place % self.lr_factor for place in window):
            return None  # no metric that needs it asks for such tiles
        row, col, height, width = (place // self.lr_factor for place in window)
        values, valid = self._lr.read((row, col, height, width))
        values[:, ~valid] = np.nan
        return torch.from_numpy(values)[None]


def common_bands(pred: Side, ref: Side, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Choose the bands to compare: those `wanted`, else those in both in the reference's order."""
    ours, theirs = pred.radiometry.bands, ref.radiometry.bands
    have = f"{pred.path} has {','.join(ours)}; {ref.path} has {','.join(theirs)}"
    shared = tuple(b for b in theirs if b in ours)
    if wanted is not None:
        asked = tuple(canonical_band(b) for b in wanted)
        missing = [b for b in asked if b not in shared]
        if missing or not asked:
            raise RadiometryError(f"band {','.join(missing) or '(none)'} is not in both: {have}")
        return asked
    if not shared:
        raise RadiometryError(f"no band in common: {have}; name the bands alike with --bands")
    return shared
