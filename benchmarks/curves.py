"""What a distance tolerates: shift, global gain and haze, in units of a x2 bicubic round trip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rivals import Rival, scores
from scipy import ndimage

from lpips_sat.calibration.distortions import AIRLIGHT, distort

CHIPS = 24
# Cut off all round, so that no pixel is judged that a shift had to invent.
MARGIN = 6
SHIFTS = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)  # px
GAINS = (0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.3)
HAZES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)  # share of the signal replaced by airlight
# The severity at which `distortions.bicubic` reduces by 2.
ROUND_TRIP = (2.0 - 1.3) / 3.3

Images = NDArray[np.floating[Any]]


def measure(distances: dict[str, Rival], chips: NDArray[np.uint8], cache: Path) -> dict[str, Any]:
    clean = chips[:CHIPS] / np.float32(255)
    made = {
        "shift": (SHIFTS, [shifted(clean, length) for length in SHIFTS]),
        "gain": (GAINS, [np.clip(clean * gain, 0, 1) for gain in GAINS]),
        "haze": (HAZES, [(1 - s) * clean + s * np.float32(AIRLIGHT) for s in HAZES]),
    }
    rng = np.random.default_rng(0)
    trip = np.stack([distort(chip, "bicubic", ROUND_TRIP, rng) for chip in clean])
    found: dict[str, Any] = {"chips": len(clean), "curves": {}}
    units = {name: mean_scores(name, r, [trip], clean, cache)[0] for name, r in distances.items()}
    for kind, (levels, images) in made.items():
        found["curves"][kind] = {"levels": levels} | {
            name: [
                round(value / units[name], 4)
                for value in mean_scores(name, rival, images, clean, cache)
            ]
            for name, rival in distances.items()
        }
    return found


def mean_scores(
    name: str, rival: Rival, images: list[Images], clean: Images, cache: Path
) -> list[float]:
    """The mean score of every set of images against the clean ones."""
    pred = torch.cat([inner(image) for image in images])
    ref = inner(clean).repeat(len(images), 1, 1, 1)
    values = scores(name, rival, pred, ref, cache)
    return [float(v) for v in values.reshape(len(images), -1).mean(axis=1)]


def shifted(clean: Images, length: float) -> Images:
    """Every chip moved by `length` px in a direction of its own (cubic splines)."""
    angles = np.random.default_rng(1).uniform(0, 2 * np.pi, len(clean))
    moves = [(length * np.sin(angle), length * np.cos(angle), 0) for angle in angles]
    moved = [
        ndimage.shift(chip, move, order=3, mode="reflect")
        for chip, move in zip(clean, moves, strict=True)
    ]
    return np.clip(np.stack(moved), 0, 1).astype(np.float32)


def inner(images: Images) -> torch.Tensor:
    """(n, H, W, 3) -> (n, 3, H - 2 MARGIN, W - 2 MARGIN)."""
    cut = images[:, MARGIN:-MARGIN, MARGIN:-MARGIN].astype(np.float32)
    return torch.from_numpy(cut).permute(0, 3, 1, 2).contiguous()
