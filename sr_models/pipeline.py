"""`SRPipeline`: a network, a scheduler and a normalisation that turn LR images into HR images.

Images of any size go through overlapping tiles. The noise is a function of the place and the seed,
so that neighbouring tiles draw the same detail where they overlap.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DiffusionPipeline, UNet2DModel
from diffusers.utils import logging
from torch import Tensor
from torch.nn import functional as F

from lpips_sat import LpipsSatError

from .network import denoise, side_multiple
from .noise import NoiseField
from .scheduler import BridgeScheduler
from .solvers import DPMSolver
from .tiling import blended_rows

Array = npt.NDArray[np.float32]
ARGUMENTS = ("scale", "bands", "low", "high", "steps", "lr_bands", "card")  # saved beside the parts
TILE, OVERLAP = 128, 16  # LR pixels; a tile of 128 at scale 2 takes some 100 MB


@dataclass(frozen=True)
class SROutput:
    """Super-resolved images with their cost.

    samples: float32 (K, N, C, scale H, scale W), in the units of the input; nfe: how often the
    network was asked for each sample; seconds: wall-clock time of all of them.
    """

    samples: Tensor
    nfe: int
    seconds: float

    @property
    def mean(self) -> Tensor:
        """The mean of the samples (N, C, scale H, scale W)."""
        return self.samples.mean(dim=0)

    @property
    def spread(self) -> Tensor:
        """The standard deviation of the samples at every pixel; 0 for one sample."""
        return self.samples.std(dim=0, correction=0)


class SRPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Super-resolution by a trained network; see `sr_models.registry.load_model`.

    Args:
        unet: the network, see `network.build_unet`.
        scheduler: the process and how it is sampled.
        scale: how many HR pixels lie along a side of an LR pixel.
        bands: names of the bands of the HR image, in order.
        lr_bands: those of the other sensor's LR image, if they have other names.
        low: the value, per band or for all, that becomes -1 for the network.
        high: the one that becomes 1.
        steps: sampling steps unless asked otherwise.
        card: what is known about the weights.

    Attribute ``fast``: take the steps of DPM-Solver++ instead of the scheduler's own (SR3 and
    SupResDiffGAN), see `sr_models.solvers`.

    ``SRPipeline.from_pretrained(folder)`` loads what ``save_pretrained(folder)`` wrote; the
    generic ``DiffusionPipeline.from_pretrained`` does not know this class.
    """

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: BridgeScheduler,
        scale: int = 2,
        bands: list[str] | tuple[str, ...] = ("B08",),
        low: float | Sequence[float] = 0.0,
        high: float | Sequence[float] = 0.6,
        steps: int = 10,
        lr_bands: list[str] | tuple[str, ...] | None = None,
        card: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        self.fast = False
        count = len(bands)
        if lr_bands is not None and len(lr_bands) != count:
            raise LpipsSatError(f"expected {count} lr_bands, as many as bands, got {len(lr_bands)}")
        self.register_to_config(
            scale=scale,
            bands=list(bands),
            low=_per_band(low, count),
            high=_per_band(high, count),
            steps=steps,
            lr_bands=list(lr_bands or bands),
            card=dict(card or {}),
        )
        self.set_progress_bar_config(disable=True)

    def save_pretrained(self, folder: str | Path, half: bool = False, **options: Any) -> None:
        """Write the folder that ``from_pretrained`` reads; `half` stores float16 weights."""
        saved = self
        if half:
            kept = {key: self.config[key] for key in ARGUMENTS}
            saved = type(self)(copy.deepcopy(self.unet).half(), self.scheduler, **kept)
        super(SRPipeline, saved).save_pretrained(folder, **options)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> SRPipeline:
        """Load what ``save_pretrained`` wrote; results are bit-identical to those before.

        Safetensors only: nothing is unpickled.
        """
        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()  # over two small files
        try:
            loaded: SRPipeline = super().from_pretrained(
                str(folder), use_safetensors=True, **options
            )
        finally:
            if shown:
                logging.enable_progress_bar()
        for weights in loaded.unet.parameters():
            # as mapped from the file they may lie so that the CPU adds in another order
            weights.data = weights.data.clone()
        return loaded

    # -- images ---------------------------------------------------------------------------------

    @torch.no_grad()
    def __call__(
        self,
        lr: Tensor,
        num_inference_steps: int | None = None,
        seed: int = 0,
        num_samples: int = 1,
        origin: tuple[int, int] = (0, 0),
    ) -> SROutput:
        """Super-resolve LR images (N, C, H, W) in one piece.

        lr: in the units that `low` and `high` are given in, such as reflectance; seed: of the
        noise; origin: where the images lie in a larger one (row, column in LR pixels), which
        decides the noise they see.
        """
        began, bands = time.perf_counter(), len(self.config.bands)
        if lr.ndim != 4 or lr.shape[1] != bands:
            raise LpipsSatError(
                f"expected LR images (N, {bands}, H, W) of the bands "
                f"{', '.join(self.config.bands)}, got {tuple(lr.shape)}"
            )
        height, width = (side * self.config.scale for side in lr.shape[2:])
        y = self.upsample(lr.to(self.device, self.unet.dtype))
        multiple = side_multiple(self.unet, bands)
        y = F.pad(y, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        row, col = (edge * self.config.scale for edge in origin)
        bridge, solver = self._solver(num_inference_steps or self.config.steps)
        samples = []
        for sample in range(num_samples):
            field = NoiseField(seed, sample)

            def noise(draw: int, field: NoiseField = field) -> Tensor:
                drawn = field(draw, bands, row, col, y.shape[2], y.shape[3])
                return drawn.to(y).expand_as(y)

            x0 = self._sample(bridge, solver, y, noise)[:, :, :height, :width]
            samples.append(self.to_values(x0).float().cpu())
        return SROutput(torch.stack(samples), len(solver.timesteps), time.perf_counter() - began)

    def _solver(self, steps: int) -> tuple[BridgeScheduler, BridgeScheduler | DPMSolver]:
        """A scheduler of its own for one run, and whose steps are taken."""
        bridge: BridgeScheduler = BridgeScheduler.from_config(self.scheduler.config)
        if self.fast:
            return bridge, DPMSolver(bridge, steps)
        bridge.set_timesteps(steps)
        return bridge, bridge

    def _sample(
        self,
        bridge: BridgeScheduler,
        solver: BridgeScheduler | DPMSolver,
        y: Tensor,
        noise: Callable[[int], Tensor],
    ) -> Tensor:
        """The reverse process from the prior to the clean node; noise(k) is draw number k."""
        x = bridge.prior(y, noise=noise(0))
        noisy = bridge.config.mode == "sde" and not self.fast
        for draw, t in enumerate(solver.timesteps.tolist(), start=1):
            output = denoise(self.unet, bridge, x, y, t)
            x = solver.step(output, t, x, y, noise=noise(draw) if noisy else None).prev_sample
        return x

    def upsample(self, lr: Tensor) -> Tensor:
        """Normalised, bicubically up-sampled LR images: what the network is conditioned on."""
        return F.interpolate(
            self.normalise(lr), scale_factor=self.config.scale, mode="bicubic", align_corners=False
        )

    def normalise(self, values: Tensor) -> Tensor:
        """Map each band's low..high to -1..1."""
        low, high = self._range(values)
        return (values - low) / (high - low) * 2 - 1

    def to_values(self, x: Tensor) -> Tensor:
        """Undo `normalise`."""
        low, high = self._range(x)
        return (x + 1) / 2 * (high - low) + low

    def _range(self, like: Tensor) -> tuple[Tensor, Tensor]:
        low, high = (like.new_tensor(self.config[key]).view(-1, 1, 1) for key in ("low", "high"))
        return low, high

    # -- images of any size ---------------------------------------------------------------------

    def upscale(self, lr: Array, scale: int) -> Array:
        """One sample (C, scale H, scale W) of an LR image (C, H, W) of any size."""
        if scale != self.config.scale:
            raise LpipsSatError(
                f"this model was trained for a factor of {self.config.scale}, not {scale}"
            )

        return self.by_tiles(lr)[0]

    def by_tiles(self, lr: Array, **how: Any) -> Array:
        """Samples (K, C, scale H, scale W) of an LR image (C, H, W); how: see `rows`."""

        def read(row: int, col: int, height: int, width: int) -> Array:
            return lr[:, row : row + height, col : col + width]

        rows = self.rows(read, lr.shape[1], lr.shape[2], **how)
        return np.concatenate([samples for _, samples in rows], axis=2)

    def rows(
        self,
        read: Callable[[int, int, int, int], Array],
        height: int,
        width: int,
        *,
        steps: int | None = None,
        seed: int = 0,
        num_samples: int = 1,
        tile: int = TILE,
        overlap: int = OVERLAP,
        progress: Callable[[int], None] = lambda pixels: None,
    ) -> Iterator[tuple[int, Array]]:
        """Super-resolve an image of height x width LR pixels by tiles, from top to bottom.

        read(row, col, height, width) gives LR values (C, height, width); tile, overlap: in LR
        pixels; progress: told the LR pixels that each tile has added. Yields (first HR row,
        samples (K, C, rows, scale * width)).
        """

        def run(row: int, col: int, rows: int, cols: int) -> Array:
            lr = torch.from_numpy(np.ascontiguousarray(read(row, col, rows, cols)))[None]
            done = self(lr, steps, seed, num_samples, (row, col))
            progress(rows * cols)
            return done.samples[:, 0].flatten(0, 1).numpy()

        for top, values in blended_rows(
            run, height, width, tile=tile, overlap=overlap, scale=self.config.scale
        ):
            yield top, values.reshape(num_samples, -1, *values.shape[1:])


def _per_band(value: float | Sequence[float], count: int) -> list[float]:
    values = [float(v) for v in value] if isinstance(value, Sequence) else [float(value)] * count
    if len(values) != count:
        raise LpipsSatError(f"expected one value per band ({count}), got {values}")
    return values
