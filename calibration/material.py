"""What a tuning run learns from: votes, a pool of distorted patches that a teacher judged, ladders.

Kinds the teacher does not know (the sensor kinds, if no release shows them) come as two severities
of one kind, which must be ordered. Patches are chips, the scene, and references of training trials,
half of them re-stretched.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..backbones.pretrain import jitter
from ..backbones.runs import Sampler
from ..errors import WeightsError
from .distortions import KINDS, distort
from .judgements import Judgements
from .ladders import OFTEN, Ladders, build_ladders
from .patches import SIDE
from .teacher import Teacher, fit_teacher, prefer_b

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class TuneConfig:
    """Everything that decides a tuning run; read from a TOML file."""

    seed: int = 0
    widths: list[int] = field(default_factory=list)  # of a pyramid that grows, see `grow`
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
    ladder_often: Mapping[str, float] = field(default_factory=lambda: dict(OFTEN))
    ladder_margin: float = 0.06  # by how much, relatively, a step shall raise the distance
    ladder_all: bool = False  # count also the steps that do not raise the squared error
    permuted_share: float = 0.0  # of groups of patches that are shown with their bands permuted
    same_kind_share: float = 0.2  # share of patches whose first two copies are of one kind
    ladder_share: float = 0.15  # share of patches with two copies of a kind unknown to the teacher
    learning_rate: float = 4e-3
    head_rate: float = 2e-2
    weight_decay: float = 1e-4
    warmup: int = 50
    teacher_strength: float = 3.0  # ridge penalty of the linear teacher
    teacher_networks: int = 0  # so many networks instead, see the module teacher
    trial_teacher_weight: float = 0.5
    difference_weight: float = 0.5
    ladder_weight: float = 10.0
    level_weight: float = 0.05
    checkpoint_every: int = 250
    polish: int = 0  # steps of the heads alone at the end, see tune.polish


@dataclass(frozen=True)
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


class Rows(NamedTuple):
    """Which trials, patches of the pool and ladders a loss is of."""

    trials: NDArray[np.intp]
    pool: NDArray[np.intp]
    ladders: NDArray[np.intp]


@dataclass(frozen=True)
class Material:
    """What a run learns from: trials with the teacher's disutilities (n, 2), pool, ladders."""

    trials: Judgements
    disutility: NDArray[np.float64]
    pool: Pool
    ladders: Ladders | None

    def sides(self, trial: int) -> Images:
        """The reference of a trial and its two sides (3, H, W, 3)."""
        return np.stack([self.trials.ref[trial], self.trials.a[trial], self.trials.b[trial]])

    def draw(self, config: TuneConfig, step: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows of trials and of the pool that ``step`` uses."""
        rng = np.random.default_rng([config.seed, 2, step])
        return (
            rng.choice(len(self.trials), config.trials, replace=False),
            rng.choice(len(self.pool.images), config.patches, replace=False),
        )

    def everything(self) -> Rows:
        """All trials, patches and ladders."""
        ladders = 0 if self.ladders is None else len(self.ladders.images)
        return Rows(*(np.arange(n) for n in (len(self.trials), len(self.pool.images), ladders)))


def gather(config: TuneConfig, training: Judgements, sample: Sampler) -> Material:
    """Fit the teacher, build the pool and the ladders; deterministic."""
    teacher = fit_teacher(
        training, strength=config.teacher_strength, networks=config.teacher_networks
    )
    told = np.stack(prefer_b(teacher, training), axis=1)
    pool = build_pool(config, teacher, training.ref, sample)
    ladders = None
    if config.ladders:
        draw = functools.partial(_clean, config, training.ref, sample)
        ladders = build_ladders(config.ladder_pool, draw, config.seed, config.ladder_often)
        if config.ladder_all:
            ladders = replace(ladders, rising=np.ones_like(ladders.rising))
    return Material(training, told, pool, ladders)
