"""Does a worse image score worse? Shares of monotone severity ladders, per kind of distortion.

A ladder (see `lpips_sat.calibration.ladders`) is one held-out chip under one kind of distortion at
rising severity. It is monotone if every step scores strictly more. A severer distortion is not
always a worse image: a coarser quantiser may hit a flat chip by chance. So each share comes twice:
of all ladders, and of those whose every step raises the squared error (`rising`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rivals import Rival, scores
from two_afc import numbers

from lpips_sat.calibration.distortions import KINDS
from lpips_sat.calibration.evaluate import to_batch
from lpips_sat.calibration.ladders import rises, severities, worse
from lpips_sat.functional import rmse
from lpips_sat.stats import bootstrap_mean

CHIPS = 100
# The share that the kinds below must reach.
TARGET = 0.95
MUST = ("blur", "bicubic", "noise", "jpeg", "texture", "shift", "warp")


def measure(distances: dict[str, Rival], chips: NDArray[np.uint8], cache: Path) -> dict[str, Any]:
    chips = chips[:CHIPS]
    kinds, rising = {}, {}
    for kind in KINDS:
        levels = severities(kind)
        pred = torch.cat([worse(chips, kind, severity) for severity in levels])
        ref = to_batch(chips).repeat(len(levels), 1, 1, 1)
        found = {
            name: monotone(scores(name, rival, pred, ref, cache), chips)
            for name, rival in distances.items()
        }
        kinds[kind] = {name: numbers(bootstrap_mean(v)) for name, v in found.items()}
        truly = monotone(rmse(pred, ref).double().numpy(), chips).astype(bool)
        rising[kind] = {
            "chips": int(truly.sum()),
            **{name: round(float(v[truly].mean()), 4) for name, v in found.items() if truly.any()},
        }
    failed = [kind for kind in MUST if kinds[kind]["LPIPS-Sat"]["mean"] < TARGET]
    return {
        "chips": len(chips),
        "target": TARGET,
        "must": MUST,
        "failed": failed,
        "kinds": kinds,
        "rising": rising,
    }


def monotone(values: NDArray[np.float64], chips: NDArray[np.uint8]) -> NDArray[np.float64]:
    """1 for each chip whose scores, severity after severity, rise strictly, else 0."""
    return rises(values, chips).all(axis=0).astype(float)
