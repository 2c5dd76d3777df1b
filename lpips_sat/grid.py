"""Where pixels lie on the ground, and whether two images lie pixel on pixel. No file is touched."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

from affine import Affine

from .errors import GridMismatchError

# Pixels by which two grids may differ and still be the same one (rounded coordinates).
TOLERANCE_PX = 1e-3


@dataclass(frozen=True)
class Grid:
    """Where the pixels of an image lie: CRS (or None), affine transform of the corners, size."""

    crs: Any
    transform: Affine
    width: int
    height: int

    def __str__(self) -> str:
        t = self.transform
        turned = f", rotated ({t.b:g}, {t.d:g})" if t.b or t.d else ""
        return (
            f"{_crs_name(self.crs)}, origin ({t.c:.10g}, {t.f:.10g}), pixel {t.a:.10g} x "
            f"{t.e:.10g}{turned}, {self.width} x {self.height} px (width x height)"
        )

    @property
    def placed(self) -> bool:
        """Whether it is georeferenced at all (a plain PNG is not)."""
        return self.crs is not None or self.transform != Affine.identity()

    def difference(self, other: Grid) -> str | None:
        """Name the property in which two grids differ by over 1e-3 px, or None if they are one.

        CRS, then "do not overlap", resolution (over the full extent), origin, size. Two images
        without CRS, of which one has no georeference at all, need only the same size.
        """
        if self.crs != other.crs:
            return f"CRS ({_crs_name(self.crs)} / {_crs_name(other.crs)})"
        if self.crs is not None or (self.placed and other.placed):
            placement = self._placement(other)
            if placement is not None:
                return placement
        if (self.width, self.height) != (other.width, other.height):
            return f"size ({self.width} x {self.height} / {other.width} x {other.height} px)"
        return None

    def _placement(self, other: Grid) -> str | None:
        w, h = other.width, other.height
        inverse = ~self.transform
        corners = [
            _at(inverse, *_at(other.transform, *p)) for p in ((0, 0), (w, 0), (0, h), (w, h))
        ]
        columns, rows = zip(*corners, strict=True)
        if min(columns) >= self.width or max(columns) <= 0:
            return "extent (they do not overlap)"
        if min(rows) >= self.height or max(rows) <= 0:
            return "extent (they do not overlap)"
        dx, dy = corners[0]
        stretch = (
            corners[1][0] - dx - w,
            corners[1][1] - dy,
            corners[2][0] - dx,
            corners[2][1] - dy - h,
        )
        if max(map(abs, stretch)) > TOLERANCE_PX:
            a, b = self.transform, other.transform
            return f"resolution ({a.a:.10g} x {a.e:.10g} / {b.a:.10g} x {b.e:.10g})"
        if max(abs(dx), abs(dy)) > TOLERANCE_PX:
            return f"origin (off by {dx:.4g} px in x, {dy:.4g} px in y)"
        return None

    def xy(self, col: float, row: float) -> tuple[float, float]:
        """Find the place in the CRS of a point in pixels; (0, 0) is the first pixel's corner."""
        return _at(self.transform, col, row)

    def colrow(self, x: float, y: float) -> tuple[float, float]:
        """Find the point in pixels of a place in the CRS: the inverse of `xy`."""
        return _at(~self.transform, x, y)

    def corners(self) -> list[tuple[float, float]]:
        """List the four corners (x, y) in the CRS."""
        return [self.xy(col, row) for col in (0, self.width) for row in (0, self.height)]

    def locate(self, other: Grid) -> tuple[float, float]:
        """Find the row and column, in own pixels, at which another grid of this CRS begins."""
        col, row = _at(~self.transform, other.transform.c, other.transform.f)
        return row, col

    def window(self, row: int, col: int, height: int, width: int) -> Grid:
        """Cut a part out: `height` x `width` pixels from (row, col)."""
        t = self.transform
        x, y = _at(t, col, row)
        return Grid(self.crs, Affine(t.a, t.b, x, t.d, t.e, y), width, height)

    @property
    def gsd(self) -> float | None:
        """Side of a pixel in metres, if its CRS counts in metres and its pixels are square."""
        t = self.transform
        if self.crs is None or not self.crs.is_projected or t.b or t.d or abs(t.a) != abs(t.e):
            return None
        return float(abs(t.a) * self.crs.linear_units_factor[1])

    def refine(self, factor: int) -> Grid:
        """Divide every pixel into factor x factor; the outer edges stay where they are."""
        t = self.transform
        fine = Affine(t.a / factor, t.b / factor, t.c, t.d / factor, t.e / factor, t.f)
        return Grid(self.crs, fine, self.width * factor, self.height * factor)


def check_same_grid(
    pred: Grid,
    ref: Grid,
    *,
    pred_name: str = "prediction",
    ref_name: str = "reference",
    mask: bool = False,
) -> None:
    """Raise GridMismatchError, with both grids and the way out, unless they are one grid.

    mask: `pred` is a mask, which --reproject does not resample.
    """
    problem = pred.difference(ref)
    if problem is None:
        return
    ours, theirs = shlex.quote(pred_name), shlex.quote(ref_name)
    if not pred.placed and (pred.width, pred.height) == (ref.width, ref.height):
        advice = (
            "If they show the same pixels, copy the georeference: "
            f"rio edit-info {ours} --like {theirs} --crs like --transform like"
        )
    elif (pred.crs is None) != (ref.crs is None):
        bare, quoted = (pred_name, ours) if pred.crs is None else (ref_name, theirs)
        advice = f"Set the CRS that {bare} was made in: rio edit-info {quoted} --crs EPSG:CODE"
    elif "overlap" in problem:
        advice = "They show different places: check that the two files belong together"
    elif mask:
        advice = f"Resample it: rio warp {ours} mask.tif --like {theirs} --resampling nearest"
    else:
        advice = "Pass --reproject cubic to resample the prediction to the reference's grid"
    raise GridMismatchError(
        f"{pred_name} and {ref_name} must lie pixel on pixel, but differ in {problem}\n"
        f"  {pred_name}: {pred}\n  {ref_name}: {ref}\n{advice}"
    )


def check_refinement(lr: Grid, hr: Grid, *, lr_name: str, hr_name: str) -> int:
    """Return by how much `hr` is finer than `lr`; GridMismatchError unless its pixels divide it."""
    factor = round(hr.width / lr.width)
    if factor == 1 and hr.difference(lr) is None:
        raise GridMismatchError(
            f"{lr_name} is as fine as {hr_name}: expected the coarser image that was super-resolved"
            f"\n  {lr_name}: {lr}"
        )
    problem = "factor" if factor < 1 else hr.difference(lr.refine(factor))
    if problem is None:
        return factor
    raise GridMismatchError(
        f"every pixel of {lr_name} must be divided into the same whole number of pixels of "
        f"{hr_name}, but divided by {factor} they differ in {problem}\n"
        f"  {lr_name}: {lr}\n  {hr_name}: {hr}\n"
        "Crop one to the other's ground first, keeping the names and scales of its bands, e.g. "
        "with gdal_translate -projwin"
    )


def _at(t: Affine, x: float, y: float) -> tuple[float, float]:
    """Apply a transform to a point, alike in affine 2 (operator *) and 3 (operator @)."""
    return t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f


def _crs_name(crs: Any) -> str:
    if crs is None:
        return "no CRS"
    name: str = crs.to_string()
    return name if len(name) <= 60 else name[:57] + "..."  # a CRS without a code comes as long WKT
