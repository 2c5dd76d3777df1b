"""A whole GeoTIFF through a model, tile by tile, onto the finer grid."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lpips_sat import LpipsSatError
from lpips_sat.declared import RadiometryOptions
from lpips_sat.pair import Image
from lpips_sat.raster import MapWriter
from lpips_sat.validity import soft_fill
from lpips_sat.warp import open_image

from .pipeline import Array, SRPipeline
from .registry import Model
from .tiling import blended_rows

CONTEXT = 8  # LR pixels that a model without tiles of its own sees around a tile
PLAIN_TILE = 256


@dataclass(frozen=True)
class SceneResult:
    """What a run over a scene cost. width, height: of the output; nfe: per tile and sample."""

    width: int
    height: int
    bands: tuple[str, ...]
    scale: int
    num_samples: int
    nfe: int
    seconds: float


def upscale_scene(
    source: Path,
    target: Path,
    model: Model,
    *,
    scale: int | None = None,
    radiometry: RadiometryOptions | None = None,
    bands: Sequence[str] | None = None,
    steps: int | None = None,
    seed: int = 0,
    num_samples: int = 1,
    spread: Path | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda pixels: None,
    began: Callable[[int], None] = lambda pixels: None,
) -> SceneResult:
    """Super-resolve a raster; the output holds float32 values on a grid `scale` times finer.

    With several samples the output is their mean, and `spread` their standard deviation. Pixels of
    the input without data stay without data (NaN). scale: needed by models that are not pipelines;
    bands: which of the file's to take (default: those the model was trained on), or their names;
    began: told how many LR pixels there are.
    """
    start = time.perf_counter()
    if spread is not None and spread.resolve() == target.resolve():
        raise LpipsSatError(f"{spread} is the output: the spread needs a file of its own")
    with ExitStack() as stack:
        factor = _factor(model, scale, num_samples, spread, steps)
        image = stack.enter_context(_open(source, model, radiometry, bands))
        grid = image.grid
        fine, scene = grid.refine(factor), _Scene(image)
        if isinstance(model, SRPipeline):
            names, nfe = tuple(model.config.bands), steps or model.config.steps
            chosen: dict[str, Any] = {"steps": steps, "seed": seed, "num_samples": num_samples}
            rows = model.rows(scene.read, grid.height, grid.width, progress=progress, **chosen)
        else:
            names, nfe = image.radiometry.bands, 0
            rows = _plain_rows(model, scene, factor, progress)
        tags = {"SCALE": str(factor), "SEED": str(seed), "NUM_SAMPLES": str(num_samples)}
        writers = [
            stack.enter_context(MapWriter(path, fine, bands=names, overwrite=overwrite, tags=tags))
            for path in (target, spread)
            if path is not None
        ]
        began(grid.height * grid.width)
        for top, samples in rows:
            here = scene.valid_rows(top, samples.shape[2], factor)
            results = (samples.mean(axis=0), samples.std(axis=0))
            for writer, result in zip(writers, results, strict=False):
                writer.write(top, 0, np.where(here, result, np.nan))
    seconds = time.perf_counter() - start
    return SceneResult(fine.width, fine.height, names, factor, num_samples, nfe, seconds)


class _Scene:
    """An open raster whose gaps are filled for the model, and remembered."""

    def __init__(self, image: Image) -> None:
        self.image, self.valid = image, np.ones((image.grid.height, image.grid.width), bool)

    def read(self, row: int, col: int, height: int, width: int) -> Array:
        """Values (C, height, width) without gaps."""
        values, here = self.image.read((row, col, height, width))
        self.valid[row : row + height, col : col + width] = here
        mask = torch.from_numpy(here)[None, None]
        return soft_fill(torch.from_numpy(values)[None], mask)[0].numpy()

    def valid_rows(self, top: int, count: int, scale: int) -> npt.NDArray[np.bool_]:
        """Rows top..top + count of the mask on the finer grid; they must have been read."""
        first, last = top // scale, math.ceil((top + count) / scale)
        larger = self.valid[first:last].repeat(scale, axis=0).repeat(scale, axis=1)
        return larger[top - first * scale :][:count]


def _factor(
    model: Model, scale: int | None, num_samples: int, spread: Path | None, steps: int | None
) -> int:
    """The factor; refuse what the model cannot do."""
    if spread is not None and num_samples < 2:
        raise LpipsSatError("the spread of one sample is 0: ask for more with --num-samples")
    if not isinstance(model, SRPipeline):
        if scale is None:
            raise LpipsSatError("this model has no factor of its own: give --factor")
        if num_samples > 1:
            raise LpipsSatError("this model gives one image only: leave --num-samples out")
        if steps is not None:
            raise LpipsSatError("this model takes no sampling steps: leave --steps out")
        return scale
    if scale not in (None, model.config.scale):
        raise LpipsSatError(
            f"this model was trained for a factor of {model.config.scale}, not {scale}"
        )
    return int(model.config.scale)


@contextmanager
def _open(
    source: Path, model: Model, radiometry: RadiometryOptions | None, bands: Sequence[str] | None
) -> Iterator[Image]:
    """Open the bands asked for, or else those the model was trained on."""
    if bands is None and isinstance(model, SRPipeline):
        with open_image(source, radiometry=radiometry) as image:
            found = image.radiometry.bands
        known = [model.config.lr_bands, model.config.bands]
        bands = next((names for names in known if set(names) <= set(found)), None)
        if bands is None:
            raise LpipsSatError(
                f"{source} holds the bands {', '.join(found)}, but the model was trained on "
                f"{', '.join(known[0])}: choose with --bands"
            )
    with open_image(source, radiometry=radiometry, bands=bands) as image:
        count = len(image.radiometry.bands)
        if isinstance(model, SRPipeline) and count != len(model.config.bands):
            raise LpipsSatError(
                f"expected {len(model.config.bands)} band(s) for this model, got {count}: choose "
                "with --bands"
            )
        yield image


def _plain_rows(
    model: Model, scene: _Scene, scale: int, progress: Callable[[int], None]
) -> Iterator[tuple[int, Array]]:
    """Tiles of a model that only has `upscale`."""
    height, width = scene.valid.shape

    def run(row: int, col: int, rows: int, cols: int) -> Array:
        top, left = max(row - CONTEXT, 0), max(col - CONTEXT, 0)
        bottom, right = min(row + rows + CONTEXT, height), min(col + cols + CONTEXT, width)
        done = model.upscale(scene.read(top, left, bottom - top, right - left), scale)
        wanted = (bottom - top) * scale, (right - left) * scale
        if done.shape[1:] != wanted:
            raise LpipsSatError(
                f"expected (C, {wanted[0]}, {wanted[1]}) of the model's upscale, got {done.shape}"
            )
        progress(rows * cols)
        first, start = (row - top) * scale, (col - left) * scale
        return done[:, first : first + rows * scale, start : start + cols * scale]

    tiles = blended_rows(run, height, width, tile=PLAIN_TILE, overlap=CONTEXT, scale=scale)
    for top, values in tiles:
        yield top, values[None]
