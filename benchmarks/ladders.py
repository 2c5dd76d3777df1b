"""Does a worse image score worse? Shares of monotone severity ladders, per kind of distortion.

A ladder is one held-out chip under one kind of distortion at rising severity, from the same random
numbers (the same direction of shift, the same noise field). It is monotone if every step scores
strictly more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rivals import Rival, scores
from two_afc import numbers

from lpips_sat.calibration.distortions import KINDS, distort
from lpips_sat.calibration.evaluate import to_batch
from lpips_sat.calibration.teacher import STEPPED
from lpips_sat.stats import bootstrap_mean

CHIPS = 100
SEVERITIES = (0.0, 0.25, 0.5, 0.75, 1.0)
THREE_LEVELS = (0.0, 0.5, 1.0)  # of the kinds whose severity has only three
# The share that the kinds below must reach.
TARGET = 0.95
MUST = ("blur", "bicubic", "noise", "jpeg", "texture", "shift", "warp")


def measure(distances: dict[str, Rival], chips: NDArray[np.uint8], cache: Path) -> dict[str, Any]:
    chips = chips[:CHIPS]
    kinds = {}
    for code, kind in enumerate(KINDS):
        severities = THREE_LEVELS if kind in STEPPED else SEVERITIES
        pred = torch.cat([worse(chips, kind, code, severity) for severity in severities])
        ref = to_batch(chips).repeat(len(severities), 1, 1, 1)
        kinds[kind] = {
            name: numbers(bootstrap_mean(monotone(scores(name, rival, pred, ref, cache), chips)))
            for name, rival in distances.items()
        }
    failed = [kind for kind in MUST if kinds[kind]["LPIPS-Sat"]["mean"] < TARGET]
    return {"chips": len(chips), "target": TARGET, "must": MUST, "failed": failed, "kinds": kinds}


def worse(chips: NDArray[np.uint8], kind: str, code: int, severity: float) -> torch.Tensor:
    images = [
        distort(chip / np.float32(255), kind, severity, np.random.default_rng([0, code, i]))
        for i, chip in enumerate(chips)
    ]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def monotone(values: NDArray[np.float64], chips: NDArray[np.uint8]) -> NDArray[np.float64]:
    """1 for each chip whose scores, severity after severity, rise strictly, else 0."""
    steps = np.diff(values.reshape(-1, len(chips)), axis=0)
    return (steps > 0).all(axis=0).astype(float)
