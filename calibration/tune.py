"""Tuning end to end: backbone and heads learn the raters' preferences together.

Two thousand votes are too few for a network that must tell sixteen distortions apart. So it
learns from two sides at once, in the form that ``heads`` fits, P(B preferred) = sigmoid(gamma
(log d_a - log d_b)):

1. the votes on the training trials, and
2. a teacher (see ``teacher``) that says how disturbing each of several distorted copies of a clean
   patch is: all pairs of copies are compared, as a soft vote and as a difference (Hinton et al.
   2015, "Distilling the knowledge in a neural network").

Kinds the teacher does not know (the sensor kinds) come as two severities of one kind, which must be
ordered. If asked to, it also climbs ladders of all kinds (see ``ladders``), whose steps must each
raise the distance. Patches are chips, the scene, and references of training trials, half of them
re-stretched. One step is a pure function of (weights, optimiser, seed, step): a resumed run equals
an uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones import runs
from ..backbones.features import unit_vectors
from ..backbones.pretrain import jitter
from ..backbones.runs import Sampler
from ..errors import WeightsError
from ..lpips import LPIPSSat
from .distortions import KINDS, distort
from .evaluate import to_batch
from .heads import anchor, set_heads
from .judgements import Judgements
from .ladders import OFTEN, Ladders, build_ladders, ladder_loss
from .patches import SIDE
from .teacher import Teacher, fit_teacher, prefer_b

Images = NDArray[np.uint8]
TINY = 1e-5


@dataclasses.dataclass(frozen=True)
class TuneConfig:
    """Everything that decides a tuning run; read from a TOML file."""

    seed: int = 0
    steps: int = 3000
    trials: int = 12  # training trials per step
    patches: int = 20  # clean patches per step, each with its copies
    copies: int = 4
    crop: int = SIDE  # side of the part that is shown of the patches of the pool
    pool: int = 14000  # clean patches in all; steps draw from them, turned and flipped
    scene_share: float = 0.25  # of the patches that are no references: share from the scene
    reference_share: float = 0.4  # share of patches that are references of training trials
    stretched_share: float = 0.5  # share of patches that are re-stretched
    ladders: int = 0  # ladders per step, see the module of that name
    ladder_pool: int = 12000  # ladders in all
    ladder_often: Mapping[str, float] = dataclasses.field(default_factory=lambda: dict(OFTEN))
    ladder_margin: float = 0.06  # by how much, relatively, a step shall raise the distance
    permuted_share: float = 0.0  # of groups of patches that are shown with their bands permuted
    same_kind_share: float = 0.2  # share of patches whose first two copies are of one kind
    ladder_share: float = 0.15  # share of patches with two copies of a kind unknown to the teacher
    learning_rate: float = 4e-3
    head_rate: float = 2e-2
    weight_decay: float = 1e-4
    warmup: int = 50
    teacher_strength: float = 3.0
    trial_teacher_weight: float = 0.5
    difference_weight: float = 0.5
    ladder_weight: float = 10.0
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
            unit = unit_vectors(f).unflatten(0, (n, members))
            columns.append((unit[:, 1:] - unit[:, :1]).square().mean(dim=(3, 4)))
        return torch.cat(columns, dim=2)

    def log_distances(self, groups: Tensor) -> Tensor:
        """Log distances of every copy (n, k)."""
        return torch.log(self.distances(groups) @ self.weights + TINY)

    def forward(self, groups: Tensor) -> Tensor:
        """The scores gamma log d of every copy (n, k)."""
        return self.log_gamma.exp() * self.log_distances(groups)


@dataclasses.dataclass(frozen=True)
class Material:
    """What a run learns from: trials with the teacher's disutilities (n, 2), pool, ladders."""

    trials: Judgements
    disutility: NDArray[np.float64]
    pool: Pool
    ladders: Ladders | None

    def draw(self, config: TuneConfig, step: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows of trials and of the pool that ``step`` uses."""
        rng = np.random.default_rng([config.seed, 2, step])
        return (
            rng.choice(len(self.trials), config.trials, replace=False),
            rng.choice(len(self.pool.images), config.patches, replace=False),
        )


def _turned(groups: Sequence[Images], rng: np.random.Generator, permuted: float = 0.0) -> Tensor:
    """Stack groups (1 + k, H, W, 3), each turned and flipped as a whole -> (n, 1 + k, 3, H, W).

    A share ``permuted`` of the groups has its bands in another order.
    """
    turned = []
    for group in groups:
        batch = torch.rot90(to_batch(group), int(rng.integers(4)), (2, 3))
        batch = batch.flip(3) if rng.integers(2) else batch
        if permuted and rng.uniform() < permuted:
            batch = batch[:, rng.permutation(3)]
        turned.append(batch)
    return torch.stack(turned)


def _cropped(group: Images, side: int, rng: np.random.Generator) -> Images:
    """The same random part of every image of a group (1 + k, H, W, 3)."""
    if side >= group.shape[1]:
        return group
    row, col = rng.integers(group.shape[1] - side + 1, size=2)
    return group[:, row : row + side, col : col + side]


def tune_loss(
    config: TuneConfig, student: Student, material: Material, step: int, device: str
) -> tuple[Tensor, dict[str, float]]:
    """The loss of one step, and its parts for the log."""
    rows, picks = material.draw(config, step)
    rng = np.random.default_rng([config.seed, 3, step])
    trials, pool = material.trials, material.pool
    sides = [np.stack([trials.ref[i], trials.a[i], trials.b[i]]) for i in rows]
    of_sides = student(_turned(sides, rng).to(device))
    shown = [_cropped(pool.images[i], config.crop, rng) for i in picks]
    of_copies = student(_turned(shown, rng, config.permuted_share).to(device))

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
    if material.ladders is not None:
        climbed = rng.choice(len(material.ladders.images), config.ladders, replace=False)
        shown = [material.ladders.images[i] for i in climbed]
        climbing = _turned(shown, rng, config.permuted_share).to(device)
        parts["ladders"] = config.ladder_weight * ladder_loss(
            student.log_distances(climbing),
            tensor(material.ladders.rising[climbed]),
            config.ladder_margin,
        )
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
    pool = build_pool(config, teacher, training.ref, sample)
    ladders = None
    if config.ladders:
        draw = functools.partial(_clean, config, training.ref, sample)
        ladders = build_ladders(config.ladder_pool, draw, config.seed, config.ladder_often)
    return Material(training, told, pool, ladders)


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
