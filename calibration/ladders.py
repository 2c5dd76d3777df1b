"""Severity ladders: a worse image must score worse.

A ladder is one clean patch under one kind of distortion at rising severity, from the same random
numbers (the same direction of shift, the same noise field). ``tune`` learns from random ones
(`build_ladders`); the evidence counts fixed ones (`worse`, `monotone`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..errors import WeightsError
from .distortions import KINDS, distort
from .patches import SIDE
from .teacher import STEPPED

Images = NDArray[np.uint8]
SEVERITIES = (0.0, 0.25, 0.5, 0.75, 1.0)
THREE_LEVELS = (0.0, 0.5, 1.0)  # of the kinds whose severity has only three
RUNGS = 3
# Kinds that are hard to order are drawn so many times as often as the others, unless a run says
# otherwise.
OFTEN = {"shift": 6, "jpeg": 4, "warp": 4, "nearest": 2, "gan": 2, "jpeg2000": 2}
# How sharply the hinge of the loss bends, in units of log d.
BEND = 0.02


def severities(kind: str) -> tuple[float, ...]:
    """The severities at which ladders of ``kind`` are counted."""
    return THREE_LEVELS if kind in STEPPED else SEVERITIES


def worse(chips: Images, kind: str, severity: float) -> Tensor:
    """(n, H, W, 3) -> float32 (n, 3, H, W); chip i has the same random numbers at any severity."""
    code = list(KINDS).index(kind)
    images = [
        distort(chip / np.float32(255), kind, severity, np.random.default_rng([0, code, i]))
        for i, chip in enumerate(chips)
    ]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def rises(values: NDArray[np.float64], chips: Images) -> NDArray[np.bool_]:
    """(severities x chips,) scores -> (severities - 1, chips): does each step score more?"""
    return np.diff(values.reshape(-1, len(chips)), axis=0) > 0


@dataclass(frozen=True)
class Ladders:
    """Clean patches with ``RUNGS`` copies, the gentlest first: uint8 (n, 1 + RUNGS, H, W, 3).

    ``rising`` (n, RUNGS - 1): whether a step also raises the squared error. Where it does not, the
    severer copy is no worse image (a coarser quantiser may hit a flat patch by chance).
    """

    images: Images
    kind: NDArray[np.int64]
    rising: NDArray[np.bool_]


def build_ladders(
    count: int,
    draw: Callable[[np.random.Generator], NDArray[np.floating[Any]]],
    seed: int,
    often: Mapping[str, float] = OFTEN,
) -> Ladders:
    """Random ladders of clean patches that ``draw`` gives; ladder i has its own seed."""
    names = list(KINDS)
    if unknown := sorted(set(often) - set(names)):
        raise WeightsError(
            f"ladder_often names {', '.join(unknown)}; the kinds are {', '.join(names)}"
        )
    odds = np.array([often.get(name, 1) for name in names], np.float64)
    images = np.empty((count, 1 + RUNGS, SIDE, SIDE, 3), np.uint8)
    kinds, rising = np.empty(count, np.int64), np.empty((count, RUNGS - 1), bool)
    for i in range(count):
        rng = np.random.default_rng([seed, 5, i])
        images[i, 0] = np.round(255 * draw(rng))
        clean = images[i, 0] / np.float32(255)
        kinds[i] = rng.choice(len(names), p=odds / odds.sum())
        kind = names[kinds[i]]
        for j, severity in enumerate(_climb(kind, rng)):
            copy = distort(clean, kind, severity, np.random.default_rng([seed, 6, i]))
            images[i, 1 + j] = np.round(255 * copy)
        squared = np.square(images[i, 1:] / np.float32(255) - clean).mean(axis=(1, 2, 3))
        rising[i] = np.diff(squared) > 0
    return Ladders(images, kinds, rising)


def _climb(kind: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Severities of one ladder, rising by 0.15 to 0.3."""
    if kind in STEPPED:
        return np.array(THREE_LEVELS)
    step = rng.uniform(0.15, 0.3)
    lowest: float = rng.choice([0, rng.uniform(0, 1 - 2 * step), 1 - 2 * step])
    return np.asarray(lowest + step * np.arange(RUNGS), np.float64)


def ladder_loss(log_distance: Tensor, rising: Tensor, margin: float) -> Tensor:
    """Log distances (n, RUNGS) and what counts (n, RUNGS - 1) -> a soft hinge, in units of log d.

    Nothing is lost where every step raises the distance by ``margin`` (relative) or more.
    """
    short = margin - log_distance.diff(dim=1)
    return (BEND * F.softplus(short / BEND) * rising).mean()
