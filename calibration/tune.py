"""Tuning end to end: backbone and heads learn the raters' preferences together.

Two thousand votes are too few for a network that must tell sixteen distortions apart. So it
learns from two sides at once, in the form that ``heads`` fits, P(B preferred) = sigmoid(gamma
(log d_a - log d_b)):

1. the votes on the training trials, and
2. a teacher (see ``teacher``) that says how disturbing each of several distorted copies of a clean
   patch is: all pairs of copies are compared, as a soft vote and as a difference (Hinton et al.
   2015, "Distilling the knowledge in a neural network").

Kinds the teacher does not know (the sensor kinds) come as two severities of one kind, which must be
ordered. Patches are chips, the scene, and references of training trials, half of them re-stretched.
One step is a pure function of (weights, optimiser, seed, step): a resumed run equals an
uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones import runs
from ..backbones.features import channel_distances
from ..backbones.pretrain import jitter
from ..backbones.runs import Sampler
from ..errors import WeightsError
from ..lpips import LPIPSSat
from .distortions import KINDS, distort
from .evaluate import to_batch
from .heads import anchor, set_heads
from .judgements import Judgements
from .teacher import Teacher, fit_teacher, prefer_b

Images = NDArray[np.uint8]
SIDE = 64
TINY = 1e-5


@dataclasses.dataclass(frozen=True)
class TuneConfig:
    """Everything that decides a tuning run; read from a TOML file."""

    seed: int = 0
    steps: int = 3000
    trials: int = 12  # training trials per step
    patches: int = 20  # clean patches per step, each with its copies
    copies: int = 4
    pool: int = 14000  # clean patches in all; steps draw from them, turned and flipped
    scene_share: float = 0.25  # of the patches that are no references: share from the scene
    reference_share: float = 0.4  # share of patches that are references of training trials
    stretched_share: float = 0.5  # share of patches that are re-stretched
    same_kind_share: float = 0.2  # share of patches whose first two copies are of one kind
    ladder_share: float = 0.15  # share of patches with two copies of a kind unknown to the teacher
    learning_rate: float = 4e-3
    head_rate: float = 2e-2
    weight_decay: float = 1e-4
    warmup: int = 50
    teacher_strength: float = 3.0
    trial_teacher_weight: float = 0.5
    difference_weight: float = 0.5
    level_weight: float = 0.05
    checkpoint_every: int = 250


@dataclasses.dataclass(frozen=True)
class Pool:
    """Clean patches (n, 1 + copies, H, W, 3), the first clean, and what is known of the copies.

    ``disutility`` (n, copies) is the teacher's, NaN for kinds it does not know; ``kind`` and
    ``severity`` have the same shape.
    """

    images: Images
    kind: NDArray[np.int64]
    severity: NDArray[np.float64]
    disutility: NDArray[np.float64]


def build_pool(config: TuneConfig, teacher: Teacher, references: Images, sample: Sampler) -> Pool:
    """Distorted copies of clean patches with the teacher's opinion; patch i has its own seed."""
    images = np.empty((config.pool, 1 + config.copies, SIDE, SIDE, 3), np.uint8)
    kind = np.empty((config.pool, config.copies), np.int64)
    severity = np.empty((config.pool, config.copies))
    names = list(KINDS)
    known = [names.index(name) for name in teacher.kinds]
    if len(known) < config.copies:
        raise WeightsError(
            f"copies = {config.copies}, but the judgements show only {len(known)} kinds of "
            "distortion; lower copies"
        )
    unknown = sorted(set(range(len(names))) - set(known))
    for i in range(config.pool):
        rng = np.random.default_rng([config.seed, 1, i])
        clean = _clean(config, references, sample, rng)
        images[i, 0] = np.round(255 * clean)
        kind[i] = rng.permutation(known)[: config.copies]
        if rng.uniform() < config.same_kind_share:
            kind[i, 1] = kind[i, 0]
        if unknown and rng.uniform() < config.ladder_share:
            kind[i, -2:] = rng.choice(unknown)
        severity[i] = rng.uniform(size=config.copies)
        for j in range(config.copies):
            copy = distort(images[i, 0] / np.float32(255), names[kind[i, j]], severity[i, j], rng)
            images[i, 1 + j] = np.round(255 * copy)
    columns = [
        teacher.disutility(
            [names[k] for k in kind[:, j]], severity[:, j], images[:, 0], images[:, 1 + j]
        )
        for j in range(config.copies)
    ]
    return Pool(images, kind, severity, np.stack(columns, axis=1))


def _clean(
    config: TuneConfig, references: Images, sample: Sampler, rng: np.random.Generator
) -> NDArray[np.floating[Any]]:
    if rng.uniform() < config.reference_share:
        patch: NDArray[np.floating[Any]] = references[rng.integers(len(references))] / np.float32(
            255
        )
    else:
        patch = sample(rng)
    return jitter(patch, rng) if rng.uniform() < config.stretched_share else patch


class Student(nn.Module):
    """A backbone with positive head weights and the raters' gamma; all of it learns."""

    scale: Tensor

    def __init__(self, backbone: nn.Module, channels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.log_weight = nn.Parameter(torch.zeros(channels))
        self.log_gamma = nn.Parameter(torch.ones(()))
        self.offset = nn.Parameter(torch.zeros(()))
        self.register_buffer("scale", torch.ones(channels))

    @property
    def weights(self) -> Tensor:
        """Head weights (sum C,)."""
        return self.log_weight.exp() * self.scale

    def distances(self, groups: Tensor) -> Tensor:
        """(n, 1 + k, 3, H, W), a reference and its k copies -> (n, k, sum C)."""
        n, members = groups.shape[:2]
        columns = []
        for f in self.backbone(groups.flatten(0, 1)):
            f = f.unflatten(0, (n, members))
            ref = f[:, :1].expand(-1, members - 1, -1, -1, -1).flatten(0, 1)
            columns.append(channel_distances(f[:, 1:].flatten(0, 1), ref))
        return torch.cat(columns, dim=1).unflatten(0, (n, members - 1))

    def forward(self, groups: Tensor) -> Tensor:
        """The scores gamma log d of every copy (n, k)."""
        return self.log_gamma.exp() * torch.log(self.distances(groups) @ self.weights + TINY)


@dataclasses.dataclass(frozen=True)
class Material:
    """What a run learns from: trials with the teacher's disutilities (n, 2), and the pool."""

    trials: Judgements
    disutility: NDArray[np.float64]
    pool: Pool

    def draw(self, config: TuneConfig, step: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows of trials and of the pool that ``step`` uses."""
        rng = np.random.default_rng([config.seed, 2, step])
        return (
            rng.choice(len(self.trials), config.trials, replace=False),
            rng.choice(len(self.pool.images), config.patches, replace=False),
        )


def _turned(groups: list[Images], rng: np.random.Generator) -> Tensor:
    """Stack groups (1 + k, H, W, 3), each turned and flipped as a whole -> (n, 1 + k, 3, H, W)."""
    turned = []
    for group in groups:
        batch = torch.rot90(to_batch(group), int(rng.integers(4)), (2, 3))
        turned.append(batch.flip(3) if rng.integers(2) else batch)
    return torch.stack(turned)


def tune_loss(
    config: TuneConfig, student: Student, material: Material, step: int, device: str
) -> tuple[Tensor, dict[str, float]]:
    """The loss of one step, and its parts for the log."""
    rows, picks = material.draw(config, step)
    rng = np.random.default_rng([config.seed, 3, step])
    trials, pool = material.trials, material.pool
    sides = [np.stack([trials.ref[i], trials.a[i], trials.b[i]]) for i in rows]
    of_sides = student(_turned(sides, rng).to(device))
    of_copies = student(_turned([pool.images[i] for i in picks], rng).to(device))

    def tensor(values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.asarray(values)).float().to(device)

    logit = of_sides[:, 0] - of_sides[:, 1]
    told = tensor(material.disutility[rows, 0] - material.disutility[rows, 1])
    weight = tensor(trials.weight[rows])
    votes = tensor(trials.share_b[rows])
    parts = {
        "votes": F.binary_cross_entropy_with_logits(logit, votes, weight=weight),
        "trials": config.trial_teacher_weight
        * F.binary_cross_entropy_with_logits(logit, told.sigmoid()),
        **_pool_loss(config, student, pool, picks, of_copies, tensor),
    }
    loss = torch.stack(list(parts.values())).sum()
    return loss, {name: float(value.detach()) for name, value in parts.items()}


def _pool_loss(
    config: TuneConfig,
    student: Student,
    pool: Pool,
    picks: NDArray[np.intp],
    scores: Tensor,
    tensor: Callable[[NDArray[Any]], Tensor],
) -> dict[str, Tensor]:
    """Distillation on all pairs of copies: soft votes, differences, order, common level."""
    first, second = np.array(list(itertools.combinations(range(config.copies), 2))).T
    logit = scores[:, first] - scores[:, second]
    told_all = pool.disutility[picks]
    told = told_all[:, first] - told_all[:, second]
    ladder = np.isnan(told) & (pool.kind[picks][:, first] == pool.kind[picks][:, second])
    harder = pool.severity[picks][:, first] > pool.severity[picks][:, second]
    target = np.where(ladder, harder, 1 / (1 + np.exp(-np.nan_to_num(told))))
    counted = ladder | ~np.isnan(told)
    soft = F.binary_cross_entropy_with_logits(logit, tensor(target), reduction="none")
    difference = F.smooth_l1_loss(logit, tensor(np.nan_to_num(told)), reduction="none")
    level = F.smooth_l1_loss(
        scores + student.offset, tensor(np.nan_to_num(told_all)), reduction="none"
    )
    return {
        "pairs": (soft * tensor(counted)).mean(),
        "difference": config.difference_weight * (difference * tensor(~np.isnan(told))).mean(),
        "level": config.level_weight * (level * tensor(~np.isnan(told_all))).mean(),
    }


def tune(
    config: TuneConfig,
    metric: LPIPSSat,
    training: Judgements,
    out: Path,
    *,
    sample: Sampler,
    device: str = "cpu",
    report: Callable[[int, dict[str, float]], None] = lambda step, logs: None,
) -> LPIPSSat:
    """Run (or resume) a tuning of ``metric`` in the folder ``out``; returns the tuned metric.

    ``training`` are the trials to learn from; pass none that shall validate. ``sample`` draws clean
    patches. ``out`` holds ``config.json``, ``log.csv`` and ``state.pt`` (to resume). A folder begun
    with another config, backbone, votes or patches is refused.
    """
    runs.claim(out, config, _start(metric, training, sample))
    material = gather(config, training, sample)
    student = Student(metric.backbone, sum(metric.channels)).requires_grad_(True).to(device)
    student.to(memory_format=torch.contiguous_format)
    earlier = metric.card.get("backbone", {}).get("tuning")
    tuned = torch.cat([*metric.heads]) if earlier else None
    _start_heads(config, student, material, device, tuned)
    optimiser = _optimiser(config, student)
    runs.train(
        out,
        config,
        [student],
        optimiser,
        lambda step: tune_loss(config, student, material, step, device),
        report,
    )
    return finish(config, metric, student, training)


def _start(metric: LPIPSSat, training: Judgements, sample: Sampler) -> dict[str, str]:
    """Fingerprints of what a run starts from."""
    state = [*metric.backbone.state_dict().values(), *(head.detach() for head in metric.heads)]
    return {
        "backbone": runs.fingerprint(value.numpy().tobytes() for value in state),
        "votes": runs.fingerprint([training.table.to_csv().encode()]),
        "patches": runs.fingerprint_of(sample),
    }


def gather(config: TuneConfig, training: Judgements, sample: Sampler) -> Material:
    """Fit the teacher, build the pool; deterministic."""
    teacher = fit_teacher(training, strength=config.teacher_strength)
    told = np.stack(prefer_b(teacher, training), axis=1)
    return Material(training, told, build_pool(config, teacher, training.ref, sample))


def _optimiser(config: TuneConfig, student: Student) -> torch.optim.Optimizer:
    """AdamW; the few numbers of the heads move faster and do not decay."""
    heads = [student.log_weight, student.log_gamma, student.offset]
    return torch.optim.AdamW(
        [
            {
                "params": list(student.backbone.parameters()),
                "rate": config.learning_rate,
                "weight_decay": config.weight_decay,
            },
            {"params": heads, "rate": config.head_rate, "weight_decay": 0.0},
        ]
    )


def _start_heads(
    config: TuneConfig, student: Student, material: Material, device: str, heads: Tensor | None
) -> None:
    """Start with heads to which every channel contributes alike; a tuned metric keeps its own."""
    if heads is not None:
        student.scale.copy_(heads.to(device))
        return
    rng = np.random.default_rng([config.seed, 4])
    groups = _turned([material.pool.images[i] for i in range(min(60, config.pool))], rng)
    with torch.no_grad():
        mean = student.distances(groups.to(device)).mean(dim=(0, 1))
        student.scale.copy_(1 / (mean + 1e-4) / len(mean))


def finish(
    config: TuneConfig, metric: LPIPSSat, student: Student, training: Judgements
) -> LPIPSSat:
    """Put the student's heads on the tuned backbone, frozen again, in the metric's unit."""
    set_heads(metric, student.weights.detach().cpu())
    metric.requires_grad_(False).to("cpu")
    metric.to(memory_format=torch.channels_last)
    anchor(metric, training.ref)
    metric.card["tuning"] = dataclasses.asdict(config)
    return metric
