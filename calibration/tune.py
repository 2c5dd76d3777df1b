"""Tuning end to end: backbone and heads learn the raters' preferences together.

Two thousand votes are too few for a network that must tell sixteen distortions apart. So it
learns from two sides at once, in the form that ``heads`` fits, P(B preferred) = sigmoid(gamma
(log d_a - log d_b)):

1. the votes on the training trials, and
2. a teacher (see ``teacher``) that says how disturbing each of several distorted copies of a clean
   patch is: all pairs of copies are compared, as a soft vote and as a difference (Hinton et al.
   2015, "Distilling the knowledge in a neural network").

If asked to, it also climbs ladders of all kinds (see ``ladders``), whose steps must each raise the
distance, and at the end it fits the heads alone, on everything at once (`polish`). One step is a
pure function of (weights, optimiser, seed, step): a resumed run equals an uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones import runs
from ..backbones.features import unit_vectors
from ..backbones.runs import Sampler
from ..lpips import LPIPSSat
from .evaluate import to_batch
from .grow import grow
from .heads import anchor, set_heads
from .judgements import Judgements
from .ladders import ladder_loss
from .material import Material, Pool, Rows, TuneConfig, gather

Images = NDArray[np.uint8]
TINY = 1e-5


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
    def of_heads(self) -> list[nn.Parameter]:
        """What is not the backbone's: the weights, gamma, and the common level."""
        return [self.log_weight, self.log_gamma, self.offset]

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

    def forward(self, groups: Tensor) -> Tensor:
        """Log distances of every copy (n, k)."""
        return self.weighted(self.distances(groups))

    def weighted(self, distances: Tensor) -> Tensor:
        """(n, k, sum C) -> log distances (n, k)."""
        return torch.log(distances @ self.weights + TINY)


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
    trials, picks = material.draw(config, step)
    rng = np.random.default_rng([config.seed, 3, step])
    permuted, climbed = config.permuted_share, picks[:0]
    seen = [student(_turned([material.sides(i) for i in trials], rng).to(device))]
    shown = [_cropped(material.pool.images[i], config.crop, rng) for i in picks]
    seen.append(student(_turned(shown, rng, permuted).to(device)))
    if material.ladders is not None:
        climbed = rng.choice(len(material.ladders.images), config.ladders, replace=False)
        shown = [material.ladders.images[i] for i in climbed]
        seen.append(student(_turned(shown, rng, permuted).to(device)))
    return loss_of(config, student, material, Rows(trials, picks, climbed), seen)


def loss_of(
    config: TuneConfig,
    student: Student,
    material: Material,
    rows: Rows,
    seen: Sequence[Tensor],
) -> tuple[Tensor, dict[str, float]]:
    """The loss and its parts, from the log distances of sides, copies and rungs of ``rows``."""
    trials, device = material.trials, seen[0].device

    def tensor(values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.asarray(values)).float().to(device)

    of_sides, of_copies = (student.log_gamma.exp() * log for log in seen[:2])
    logit = of_sides[:, 0] - of_sides[:, 1]
    of_a, of_b = material.disutility[rows.trials].T
    told = tensor(of_a - of_b)
    weight, votes = tensor(trials.weight[rows.trials]), tensor(trials.share_b[rows.trials])
    parts = {
        "votes": F.binary_cross_entropy_with_logits(logit, votes, weight=weight),
        "trials": config.trial_teacher_weight
        * F.binary_cross_entropy_with_logits(logit, told.sigmoid()),
        **_pool_loss(config, student, material.pool, rows.pool, of_copies, tensor),
    }
    if material.ladders is not None:
        rising = tensor(material.ladders.rising[rows.ladders])
        climbing = ladder_loss(seen[2], rising, config.ladder_margin)
        parts["ladders"] = config.ladder_weight * climbing
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
    if config.widths:
        metric = grow(metric, config.widths, config.seed)
    runs.claim(out, config, _start(metric, training, sample))
    material = gather(config, training, sample)
    student = Student(metric.backbone, sum(metric.channels)).requires_grad_(True).to(device)
    earlier = metric.card.get("backbone", {})
    began = any("tuning" in part for part in earlier.get("mean_of", [earlier]))
    tuned = torch.cat([*metric.heads]) if began else None
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
    polish(config, student, material, device)
    return finish(config, metric, student, training)


def polish(config: TuneConfig, student: Student, material: Material, device: str) -> None:
    """``config.polish`` steps of the heads alone, each on everything at once.

    A step of a run sees a few dozen images, and the heads follow that noise; here they settle. The
    features stay, so that the distances per channel are the same in every step.
    """
    if not config.polish:
        return
    rows = material.everything()
    shown = [np.stack([material.sides(i) for i in rows.trials]), material.pool.images]
    shown += [] if material.ladders is None else [material.ladders.images]
    with torch.no_grad():
        distances = [
            torch.cat([student.distances(to_batch(group)[None].to(device)) for group in groups])
            for groups in shown
        ]
    optimiser = torch.optim.Adam(student.of_heads, lr=config.head_rate)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.polish)
    for _ in range(config.polish):
        seen = [student.weighted(columns) for columns in distances]
        loss, _ = loss_of(config, student, material, rows, seen)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        falling.step()


def _start(metric: LPIPSSat, training: Judgements, sample: Sampler) -> dict[str, str]:
    """Fingerprints of what a run starts from."""
    state = [*metric.backbone.state_dict().values(), *(head.detach() for head in metric.heads)]
    return {
        "backbone": runs.fingerprint(value.numpy().tobytes() for value in state),
        "votes": runs.fingerprint([training.table.to_csv().encode()]),
        "patches": runs.fingerprint_of(sample),
    }


def _optimiser(config: TuneConfig, student: Student) -> torch.optim.Optimizer:
    """AdamW; the few numbers of the heads move faster and do not decay."""
    return torch.optim.AdamW(
        [
            {
                "params": list(student.backbone.parameters()),
                "rate": config.learning_rate,
                "weight_decay": config.weight_decay,
            },
            {"params": student.of_heads, "rate": config.head_rate, "weight_decay": 0.0},
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
