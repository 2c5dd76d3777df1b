"""From georeferenced rasters to the patches that raters see.

A raster of any band set and dtype is read by windows under its declared radiometry. Three of its
bands are shown with one declared stretch, the same for every patch of a study.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ...bands import canonical_band
from ...composites import WHITE, choose_composite
from ...declared import RadiometryOptions
from ...grid import Grid, check_same_grid
from ...pair import Side
from ...radiometry import check_range, options_of
from ...warp import open_image
from .store import StudyError

Image = NDArray[np.uint8]
ADVICE = f"Say what the numbers are: {options_of()}"
RASTERS = (".tif", ".tiff", ".jp2", ".vrt", ".img", ".png")
# Standard deviation of the high-pass grey (display units) below which a patch is too flat to judge:
# 2.5 of 255 grey levels, about what open water of a 10 m scene has.
MIN_TEXTURE = 0.01
# Share of pixels that the stretch may clip; beyond, a patch shows blots instead of ground.
MAX_CLIPPED = 0.2
# Windows looked at per patch wanted, so that a flat scene of any size is given up in time.
LOOKS = 20


@dataclass(frozen=True)
class Display:
    """Which three bands are shown, and how: (value - black) / (white - black), clipped to [0, 1].

    ``black`` and ``white`` are values (reflectance, or display units), one per shown band.
    """

    composite: tuple[str, str, str]
    black: tuple[float, float, float]
    white: tuple[float, float, float]

    def __call__(self, values: NDArray[np.floating[Any]]) -> Image:
        """Values (3, h, w) of the composite -> uint8 (h, w, 3)."""
        black, white = (np.asarray(v)[:, None, None] for v in (self.black, self.white))
        shown = np.clip((values - black) / (white - black), 0, 1)
        return np.floor(255 * shown + 0.5).astype(np.uint8).transpose(1, 2, 0)


@dataclass(frozen=True)
class DisplayOptions:
    """What the user says of the display; None = not said. One number stands for three bands."""

    composite: Sequence[str] | None = None
    black: Sequence[float] = (0.0,)
    white: Sequence[float] | None = None

    def resolve(self, bands: Sequence[str], kind: str) -> Display:
        """The display of images with these ``bands``: true colours over the metric's own whites."""
        chosen = self.composite if self.composite is not None else choose_composite(bands)
        names = tuple(canonical_band(band) for band in chosen)
        if len(names) != 3 or not set(names) <= set(bands):
            raise StudyError(
                f"--composite must name three of the bands {', '.join(bands)}, got "
                f"{', '.join(names)}"
            )
        white = self.white
        if white is None and kind == "display":
            white = (1.0,)
        if white is None:
            if unknown := [b for b in names if b not in WHITE]:
                raise StudyError(
                    f"no display stretch is known for the reflectance of {', '.join(unknown)}: say "
                    "which value is shown as white, e.g. --white 0.3"
                )
            white = tuple(WHITE[b] for b in names)
        low, high = _three(self.black, "--black"), _three(white, "--white")
        if not all(a < b for a, b in zip(low, high, strict=True)):
            raise StudyError(f"--white must lie above --black, got {high} and {low}")
        return Display((names[0], names[1], names[2]), low, high)


@dataclass(frozen=True)
class Patch:
    """A clean patch (h, w, 3) as it is shown, its place, and what each method made of it."""

    source: str
    crop: str
    image: Image
    versions: Mapping[str, Image] = field(default_factory=dict)

    @property
    def place(self) -> tuple[str, str]:
        """``source`` and ``crop``, as the table of trials keeps them."""
        return self.source, self.crop


def find_rasters(scenes: Sequence[Path]) -> list[Path]:
    """The files named, and the rasters in the folders named, sorted by name."""
    found: list[Path] = []
    for path in scenes:
        inside = [path]
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in RASTERS)
            if not inside:
                raise StudyError(f"{path} holds no rasters ({', '.join(RASTERS)})")
        found += inside
    names = [path.name for path in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise StudyError(f"two scenes are called {twice[0]}: a trial names its scene by file name")
    return found


def texture(image: Image) -> float:
    """Standard deviation of the high-pass grey, in display units; 0 for a flat patch."""
    grey = image.mean(axis=2) / 255
    return float((grey - ndimage.gaussian_filter(grey, 2.0)).std())


def clipped(image: Image) -> float:
    """Share of pixels with a band at black or at white."""
    return float(((image == 0) | (image == 255)).any(axis=2).mean())


def cut(
    scenes: Sequence[Path],
    *,
    source: str,
    count: int,
    size: int,
    seed: int,
    radiometry: RadiometryOptions | None = None,
    bands: Sequence[str] | None = None,
    display: DisplayOptions | None = None,
    methods: Mapping[str, Path] | None = None,
) -> tuple[list[Patch], dict[str, Any]]:
    """Up to ``count`` textured patches of ``size`` px, as many from each scene as it allows.

    methods: name -> folder with that method's prediction of each scene, under the scene's name and
    on its grid. Returns the patches and what is to be told of them (bands, display, scenes).

    Raises ``StudyError`` if no patch is textured and valid, or if the scenes differ in their bands.
    """
    options, methods = display or DisplayOptions(), methods or {}
    patches: list[Patch] = []
    about: dict[str, Any] = {"source": source, "scenes": []}
    for number, scene in enumerate(scenes):
        share = (count - len(patches)) // (len(scenes) - number)
        with ExitStack() as stack:
            side = stack.enter_context(open_image(scene, radiometry=radiometry, bands=bands))
            shown = options.resolve(side.radiometry.bands, side.radiometry.kind)
            facts = {"composite": shown.composite, "black": shown.black, "white": shown.white}
            if about.setdefault("display", facts) != facts:
                raise StudyError(
                    f"{scene} would be shown as {facts}, the scenes before as {about['display']}: "
                    "make one study per sensor, or say --composite, --black and --white"
                )
            chosen = tuple(dict.fromkeys(shown.composite))  # grey is one band
            sides = {"": side.select(chosen)}
            for name, folder in methods.items():
                other = stack.enter_context(
                    open_image(folder / scene.name, radiometry=radiometry, bands=bands)
                )
                check_same_grid(other.grid, side.grid, pred_name=other.path, ref_name=side.path)
                sides[name] = other.select(chosen)
            rng = np.random.default_rng([seed, 0, number])
            found = list(_patches(scene, source, side.grid, sides, shown, share, size, rng))
        patches += found
        described = side.radiometry.describe()
        about["scenes"].append({"name": scene.name, "radiometry": described, "patches": len(found)})
    if not patches:
        raise StudyError(
            f"no patch of {size} px is valid, textured and mostly unclipped in "
            f"{', '.join(s.name for s in scenes)}: check the stretch (--black, --white), or take "
            "other scenes or a smaller --size"
        )
    return patches, about


def _patches(
    scene: Path,
    source: str,
    grid: Grid,
    sides: Mapping[str, Side],
    shown: Display,
    count: int,
    size: int,
    rng: np.random.Generator,
) -> Iterator[Patch]:
    """Patches on a lattice with a random origin, in random order; they never overlap."""
    if min(grid.height, grid.width) < size:
        raise StudyError(f"{scene} ({grid.width} x {grid.height} px) is smaller than {size} px")
    top, left = (int(rng.integers(n % size + 1)) for n in (grid.height, grid.width))
    rows, cols = (
        range(first, n - size + 1, size) for first, n in ((top, grid.height), (left, grid.width))
    )
    cells = [(row, col) for row in rows for col in cols]
    taken = 0
    for index in rng.permutation(len(cells))[: LOOKS * count]:
        if taken == count:
            return
        row, col = cells[index]
        images = _read(sides, (row, col, size, size), shown)
        if images is None or not _worth_showing(images[""]):
            continue
        taken += 1
        yield Patch(source, f"{scene.name}:{row}:{col}", images.pop(""), images)


def _read(
    sides: Mapping[str, Side], window: tuple[int, int, int, int], shown: Display
) -> dict[str, Image] | None:
    """The window of every side as it is shown; None if a pixel of one does not count."""
    images = {}
    for name, side in sides.items():
        values, valid = side.read(window)
        if not valid.all():
            return None
        check_range(values, valid, side.radiometry, source=side.path, advice=ADVICE)
        order = [side.radiometry.bands.index(band) for band in shown.composite]
        images[name] = shown(values[order])
    return images


def _worth_showing(image: Image) -> bool:
    return texture(image) >= MIN_TEXTURE and clipped(image) <= MAX_CLIPPED


def _three(values: Sequence[float], name: str) -> tuple[float, float, float]:
    if len(values) not in (1, 3):
        raise StudyError(f"{name} takes one number, or one per shown band; got {len(values)}")
    low, middle, high = values if len(values) == 3 else tuple(values) * 3
    return low, middle, high
