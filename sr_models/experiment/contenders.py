"""Who can be evaluated: trained pipelines, controls and models of other packages.

A contender turns a batch of test pairs into super-resolved images. What it gives for a patch does
not depend on the other patches of the batch, up to rounding. `predictions` adds images that were
made elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lpips_sat import LpipsSatError

from ..pipeline import TILE, SRPipeline
from ..registry import Model

PROBE = 16  # LR pixels of a side on which a pipeline is asked whether its samples differ


@dataclass(frozen=True)
class Batch:
    """Test pairs: names of the patches, lr (N, C, h, w) and hr (N, C, H, W), float32."""

    ids: Sequence[str]
    lr: Tensor
    hr: Tensor

    @property
    def factor(self) -> int:
        """How many HR pixels lie along a side of an LR pixel."""
        return int(self.hr.shape[-1] // self.lr.shape[-1])


@dataclass(frozen=True)
class Guess:
    """Super-resolved images and what one sample of one patch cost; None = not known.

    samples: (K, N, C, H, W), K = 1 where all samples would be equal.
    """

    samples: Tensor
    nfe: float | None
    seconds: float | None


class Contender(Protocol):
    """What is tested."""

    def guess(self, batch: Batch, num_samples: int) -> Guess:
        """Super-resolve a batch, `num_samples` times where it draws samples."""


class Sampler:
    """A trained pipeline; `seed` is that of its noise."""

    def __init__(self, pipeline: SRPipeline, seed: int = 0) -> None:
        self.pipeline, self.seed = pipeline, seed

    def guess(self, batch: Batch, num_samples: int) -> Guess:
        """See `Contender`. All patches see the same noise, as if each were an image of its own."""
        count = num_samples if num_samples > 1 and self._draws(batch.lr) else 1
        began = time.perf_counter()
        if max(batch.lr.shape[2:]) <= TILE:
            samples = self.pipeline(batch.lr, seed=self.seed, num_samples=count).samples
        else:
            how = {"seed": self.seed, "num_samples": count}
            tiled = [self.pipeline.by_tiles(lr.numpy(), **how) for lr in batch.lr]
            samples = torch.from_numpy(np.stack(tiled, axis=1))
        seconds = (time.perf_counter() - began) / (count * len(batch.ids))
        return Guess(samples, float(self.pipeline.config.steps), seconds)

    def _draws(self, lr: Tensor) -> bool:
        """Whether two samples differ at all."""
        few = self.pipeline(lr[:1, :, :PROBE, :PROBE], seed=self.seed, num_samples=2).samples
        return not torch.equal(few[0], few[1])


class Plain:
    """A model with `upscale` alone; `nfe` is what is known of its cost."""

    def __init__(self, model: Model, nfe: float | None = None) -> None:
        self.model, self.nfe = model, nfe

    def guess(self, batch: Batch, num_samples: int) -> Guess:
        """See `Contender`."""
        began = time.perf_counter()
        done = [np.asarray(self.model.upscale(lr.numpy(), batch.factor)) for lr in batch.lr]
        seconds = (time.perf_counter() - began) / len(batch.ids)
        for values, patch in zip(done, batch.ids, strict=True):
            if values.shape != tuple(batch.hr.shape[1:]):
                raise LpipsSatError(
                    f"expected an image {tuple(batch.hr.shape[1:])} of patch {patch} from the "
                    f"model, got {values.shape}"
                )
        samples = torch.from_numpy(np.stack(done).astype(np.float32))[None]
        return Guess(samples, self.nfe, seconds)


class Ceiling:
    """The control that knows HR: its box average on the LR grid, interpolated bicubically back.

    It is what interpolation reaches where LR differs from HR by sampling alone.
    """

    def guess(self, batch: Batch, num_samples: int) -> Guess:
        """See `Contender`."""
        small = F.avg_pool2d(batch.hr, batch.factor)
        back = F.interpolate(small, size=batch.hr.shape[2:], mode="bicubic", align_corners=False)
        return Guess(back[None], 0.0, None)
