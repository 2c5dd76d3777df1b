"""The one trainer of all models.

A step is a pure function of (weights, optimiser, averages, seed, step): batches, nodes and noise
are drawn from the seed and the step's number, so that a resumed run equals an uninterrupted one.
A run is a folder with `config.json`, `log.csv`, `validation.csv`, TensorBoard's `events.*`,
`state.pt` (to resume) and, at the end, `pipeline/` with the averaged weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from lpips_sat import LPIPSSat, LpipsSatError
from lpips_sat.backbones import runs

from .cards import training_card
from .gan import Adversary, Discriminator
from .log import Log
from .network import build_unet, denoise, side_multiple
from .pipeline import SRPipeline
from .profiles import Profile, TrainConfig

VALIDATION_ITEMS = 8  # first pairs of the validation set that a run is watched on
Item = Mapping[str, Any]
Report = Callable[[int, dict[str, float]], None]


class Pairs(Protocol):
    """A set of pairs: items with lr (C, h, w) and hr (C, H, W), float32, in the same units.

    If it has `set_epoch`, that is called with the step's number before its items are read, so that
    a synthetic degradation may differ every time.
    """

    def __len__(self) -> int:
        """Count the pairs."""

    def __getitem__(self, index: int) -> Item:
        """Give one pair."""


class Batches(Dataset[dict[str, Tensor]]):
    """Batch number `step` of a run: random pairs, crops, flips and turns, from seed and step."""

    def __init__(self, pairs: Pairs, config: TrainConfig, scale: int, rank: int = 0) -> None:
        self.pairs, self.config, self.scale, self.rank = pairs, config, scale, rank

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        """Lr (N, C, crop / scale, ...) and hr (N, C, crop, crop)."""
        rng = np.random.default_rng([self.config.seed, step, self.rank])
        if hasattr(self.pairs, "set_epoch"):
            self.pairs.set_epoch(step)
        chosen = rng.integers(len(self.pairs), size=self.config.batch)
        items = [self._crop(self.pairs[int(index)], rng) for index in chosen]
        return {key: torch.stack([item[key] for item in items]) for key in ("lr", "hr")}

    def _crop(self, item: Item, rng: np.random.Generator) -> dict[str, Tensor]:
        side = self.config.crop // self.scale
        height, width = item["lr"].shape[-2:]
        if min(height, width) < side:
            raise LpipsSatError(
                f"a crop of {self.config.crop} HR pixels does not fit into a pair of "
                f"{height * self.scale} x {width * self.scale}: choose a smaller crop"
            )
        row, col = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        result = {}
        for key, factor in (("lr", 1), ("hr", self.scale)):
            rows = slice(row * factor, (row + side) * factor)
            cols = slice(col * factor, (col + side) * factor)
            turned = torch.rot90(torch.as_tensor(item[key])[:, rows, cols], turns, (1, 2))
            result[key] = turned.flip(2) if flip else turned
        return result


def scale_of(pairs: Pairs) -> int:
    """The factor between the grids of a set, from its first pair."""
    if len(pairs) == 0:
        raise LpipsSatError("the training set holds no pair")
    lr, hr = (tuple(pairs[0][key].shape) for key in ("lr", "hr"))
    scale: int = hr[-1] // lr[-1]
    if hr != (lr[0], lr[1] * scale, lr[2] * scale):
        raise LpipsSatError(f"expected hr (C, s h, s w) for lr (C, h, w), got {hr} for {lr}")
    return scale


class Trainer:
    """A network, its averages and what moves them; see `train`."""

    def __init__(
        self,
        profile: Profile,
        bands: Sequence[str],
        lr_bands: Sequence[str],
        scale: int,
        accelerator: Accelerator,
    ) -> None:
        self.profile, self.config, self.accelerator = profile, profile.train, accelerator
        self.scheduler = profile.make_scheduler()
        with torch.random.fork_rng():  # the caller's random state stays as it is
            torch.manual_seed(self.config.seed)
            unet = build_unet(len(bands), **profile.network)
            rival = Discriminator(len(bands), tuple(self.config.discriminator))
        self.pipeline = SRPipeline(
            unet,
            self.scheduler,
            scale,
            tuple(bands),
            profile.low,
            profile.high,
            profile.steps,
            tuple(lr_bands),
        ).to(accelerator.device)
        self.optimiser = self._adam(unet)
        self.average = EMAModel(
            unet.parameters(), decay=self.config.ema_decay, use_ema_warmup=True, power=0.75
        )
        self.average.to(accelerator.device)
        self.unet, self.optimiser = accelerator.prepare(unet, self.optimiser)
        self.adversary = self._adversary(rival) if self.config.adversarial else None
        self.perceptual = None
        if self.config.loss == "lpips-sat":
            self.perceptual = LPIPSSat(bands=tuple(bands)).to(accelerator.device)

    def _adam(self, module: nn.Module) -> torch.optim.Optimizer:
        rate, decay = self.config.learning_rate, self.config.weight_decay
        return torch.optim.AdamW(module.parameters(), rate, weight_decay=decay)

    def _adversary(self, rival: Discriminator) -> Adversary:
        discriminator, optimiser = self.accelerator.prepare(
            rival.to(self.accelerator.device), self._adam(rival)
        )
        return Adversary(discriminator, optimiser, self.scheduler)

    @property
    def parts(self) -> list[runs.Part]:
        """What a checkpoint holds."""
        unet = self.accelerator.unwrap_model(self.unet)
        parts: list[runs.Part] = [unet, self.optimiser, self.average]
        return parts if self.adversary is None else [*parts, self.adversary]

    def step(self, step: int, batch: dict[str, Tensor]) -> dict[str, float]:
        """One update, of the network or (with an adversary, at odd steps) of the discriminator."""
        generator = torch.Generator().manual_seed(self._seed(step))
        x0 = self.pipeline.normalise(batch["hr"])
        y = self.pipeline.upsample(batch["lr"])
        t = self.scheduler.training_timesteps(len(x0), generator)
        noise = torch.randn(x0.shape, generator=generator).to(x0)
        x_t = self.scheduler.add_noise(x0, y, noise, t)
        judge = self.adversary is not None and step % 2 == 1
        with self.accelerator.autocast(), torch.set_grad_enabled(not judge):
            output = denoise(self.unet, self.scheduler, x_t, y, t).float()
        if judge:
            assert self.adversary is not None
            x0h = self.scheduler.pred_x0(output, x_t, y, t)
            loss = self.adversary.discriminator_loss(x0h, x0, y, generator)
            self._update(self.adversary.discriminator, self.adversary.optimiser, loss, step)
            return {"loss": math.nan, "discriminator": loss.item()}
        loss = self._loss(output, x0, y, noise, x_t, t)
        logs = {"loss": loss.item()}
        if self.adversary is not None:
            x0h = self.scheduler.pred_x0(output, x_t, y, t)
            fooled = self.adversary.generator_loss(x0h, x0, y, generator)
            loss = loss + self.config.adversarial * fooled
            logs["discriminator"] = math.nan  # its turn comes at the next step
        self._update(self.unet, self.optimiser, loss, step)
        self.average.step(self.accelerator.unwrap_model(self.unet).parameters())
        return logs

    def _seed(self, step: int) -> int:
        key = [self.config.seed, step, self.accelerator.process_index, 1]
        return int(np.random.SeedSequence(key).generate_state(1)[0])

    def _loss(
        self, output: Tensor, x0: Tensor, y: Tensor, noise: Tensor, x_t: Tensor, t: Tensor
    ) -> Tensor:
        if self.config.loss == "matching":
            target, weight = self.scheduler.euler_target(x0, y, x_t, t)
            return (weight * (output - target).abs()).mean()
        if self.perceptual is not None:
            x0h = self.scheduler.pred_x0(output, x_t, y, t)
            looks = self.perceptual(self.pipeline.to_values(x0h), self.pipeline.to_values(x0))
            return F.l1_loss(x0h, x0) + looks.mean()
        target = self.scheduler.target(x0, y, noise, x_t, t)
        return (F.l1_loss if self.config.loss == "l1" else F.mse_loss)(output, target)

    def _update(
        self, module: nn.Module, optimiser: torch.optim.Optimizer, loss: Tensor, step: int
    ) -> None:
        """Move the weights, unless loss or gradient are no numbers."""
        for group in optimiser.param_groups:
            group["lr"] = self.config.learning_rate * self._rate(step)
        optimiser.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(module.parameters(), self.config.clip)
        whole = self.accelerator.reduce(loss.detach() + norm, "sum")
        if not torch.isfinite(whole):
            raise NotANumberError(loss.item())
        optimiser.step()

    def _rate(self, step: int) -> float:
        """The learning rate as a share of its peak."""
        config = self.config
        decays = sum(step >= at for at in config.rate_decay_at)
        decays += step // config.rate_decay_every if config.rate_decay_every else 0
        if config.schedule == "cosine":
            share = runs.schedule(step, steps=config.steps, warmup=config.warmup)
        else:
            share = min(1.0, (step + 1) / max(config.warmup, 1))
        return share * float(config.rate_decay**decays)

    @contextmanager
    def averaged(self) -> Any:
        """The pipeline with the averaged weights, for as long as the block lasts."""
        parameters = list(self.pipeline.unet.parameters())
        self.average.store(parameters)
        self.average.copy_to(parameters)
        try:
            yield self.pipeline
        finally:
            self.average.restore(parameters)


class NotANumberError(Exception):
    """A loss or a gradient that is no number; the weights have not been touched."""


def train(
    profile: Profile,
    pairs: Pairs,
    out: Path,
    *,
    bands: Sequence[str],
    lr_bands: Sequence[str] | None = None,
    validation: Pairs | None = None,
    device: str | None = None,
    about: Mapping[str, Any] | None = None,
    report: Report = lambda step, logs: None,
) -> Path:
    """Train a model in the folder `out`, or go on with what it holds; returns `out/pipeline`.

    pairs: what is learned from, see `Pairs`; bands: names of the channels of HR; lr_bands: of LR,
    if they differ; validation: pairs on which the averaged network is watched by PSNR; device:
    "cpu" or None, which takes what `accelerate launch` or the machine offers; about: what the
    model's card shall say of the pairs, such as the name of the set and the regime. A folder begun
    with another profile or other pairs (see `fingerprint`) is refused. A loss that is no number
    stops the run with the last good state kept.
    """
    config, scale = profile.train, scale_of(pairs)
    accelerator = Accelerator(mixed_precision=config.precision, cpu=device == "cpu")
    trainer = Trainer(profile, bands, lr_bands or bands, scale, accelerator)
    multiple = math.lcm(scale, side_multiple(trainer.pipeline.unet, len(bands)))
    if config.crop % multiple:
        raise LpipsSatError(f"crop must be a multiple of {multiple}, got {config.crop}")
    batches = Batches(pairs, config, scale, accelerator.process_index)
    batches[0]  # a crop that does not fit is refused before the folder is taken
    if accelerator.is_main_process:
        runs.claim(out, profile, {"pairs": fingerprint(pairs), "bands": ",".join(bands)})
    accelerator.wait_for_everyone()
    start = runs.resume(out, *trainer.parts)
    trainer.average.to(accelerator.device)
    log = Log(out, start) if accelerator.is_main_process else None
    steps = range(start, config.steps)
    with clear_memory_errors(config), nullcontext() if log is None else closing(log):
        loader = DataLoader(
            batches,
            batch_size=None,
            sampler=steps,
            num_workers=config.workers,
            generator=torch.Generator(),  # else it draws from the global state
        )
        for step, batch in zip(steps, loader, strict=True):
            moved = {key: value.to(accelerator.device) for key, value in batch.items()}
            try:
                logs = trainer.step(step, moved)
            except NotANumberError as error:
                if log is not None:
                    runs.checkpoint(out, step, *trainer.parts)
                raise LpipsSatError(
                    f"the loss or its gradient is no number at step {step} (loss {error}): start "
                    "again in another folder (--out) with a lower rate (--set learning_rate=...). "
                    f"The state before it is kept in {out / 'state.pt'}"
                ) from None
            if log is not None:
                log.step(step, logs)
                report(step, logs)
                _at_intervals(trainer, out, step, validation, log)
    if accelerator.is_main_process:
        with trainer.averaged() as pipeline:
            pipeline.register_to_config(card=training_card(out, about or {}))
            pipeline.save_pretrained(out / "pipeline")
    accelerator.wait_for_everyone()
    return out / "pipeline"


def _at_intervals(
    trainer: Trainer, out: Path, step: int, validation: Pairs | None, log: Log
) -> None:
    """Look at the validation set, and write a checkpoint, whenever it is time."""
    config = trainer.config
    last = step + 1 == config.steps
    if validation is not None and step + 1 in look_steps(config.steps, config.looks):
        with trainer.averaged() as pipeline:
            log.validation(step, *validate(pipeline, validation))
    if (step + 1) % config.checkpoint_every == 0 or last:
        runs.checkpoint(out, step + 1, *trainer.parts)


def look_steps(steps: int, looks: int) -> list[int]:
    """After how many steps the validation set is looked at: the squares of even parts of a run."""
    return sorted({math.ceil(steps * (k / looks) ** 2) for k in range(1, looks + 1)})


def validate(pipeline: SRPipeline, pairs: Pairs) -> tuple[float, float]:
    """Mean PSNR (dB, peak = high - low) of one sample, and of the bicubic image.

    Over the pairs that neither reproduces exactly; NaN if there is none.
    """
    peak = float(np.mean(np.subtract(pipeline.config.high, pipeline.config.low)))
    scores = []
    for index in range(min(len(pairs), VALIDATION_ITEMS)):
        lr, hr = (torch.as_tensor(pairs[index][key])[None] for key in ("lr", "hr"))
        bicubic = pipeline.to_values(pipeline.upsample(lr.to(pipeline.device))).cpu()
        guesses = (pipeline(lr, seed=index).samples[0], bicubic)
        errors = [F.mse_loss(x, hr).item() for x in guesses]
        if all(errors):
            scores.append(10 * np.log10(peak**2 / np.array(errors)))
    ours, theirs = np.mean(scores, axis=0) if scores else (math.nan, math.nan)
    return float(ours), float(theirs)


def fingerprint(pairs: Pairs) -> str:
    """A short hash of a set: its length and its first pairs."""
    if hasattr(pairs, "set_epoch"):
        pairs.set_epoch(0)
    first = [pairs[i] for i in range(min(len(pairs), 8))]
    arrays = [np.ascontiguousarray(item[key]) for item in first for key in ("lr", "hr")]
    return runs.fingerprint([str(len(pairs)).encode(), *(array.tobytes() for array in arrays)])


@contextmanager
def clear_memory_errors(config: TrainConfig) -> Any:
    """Say in one line that memory ran out, and what to change."""
    try:
        yield
    except RuntimeError as error:
        cpu = "DefaultCPUAllocator" in str(error)
        if not cpu and not isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        raise LpipsSatError(
            f"out of memory on the {'CPU' if cpu else 'GPU'} with batch {config.batch} and crop "
            f"{config.crop}: lower one of them (--set batch={max(config.batch // 2, 1)}), or use "
            "precision bf16"
        ) from error
