"""Two-alternative trials whose images can be made again: reference, two distortions, a seed.

A row of a trials table names the reference (``source``, ``crop``), what each side shows
(``distortion_a``, ``severity_a``, ``distortion_b``, ``severity_b``), and the ``seed`` and number of
the ``draw`` that decide the randomness in them. With the reference images at hand, :func:`render`
gives the very pixels the raters saw.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .distortions import distort

Images = NDArray[np.uint8]
# As in satellite-2afc v1: most pairs that PSNR tells apart by more than this many dB are dropped.
EASY_DB = 6.0
EASY_KEPT = 0.25


def draw(references: list[tuple[str, str]], kinds: dict[str, float], *, seed: int) -> pd.DataFrame:
    """A table with one trial per ``(source, crop)``.

    Kinds are drawn with the weights ``kinds``, severities uniformly.
    """
    names, weight = list(kinds), np.array(list(kinds.values()), dtype=np.float64)
    rows = []
    for i, (source, crop) in enumerate(references):
        rng = np.random.default_rng([seed, i])
        sides = rng.choice(len(names), 2, p=weight / weight.sum())
        severity = rng.uniform(size=2).round(4)
        rows.append(
            (i, source, crop, names[sides[0]], severity[0], names[sides[1]], severity[1], seed, i)
        )
    columns = ["id", "source", "crop", "distortion_a", "severity_a", "distortion_b", "severity_b"]
    return pd.DataFrame(rows, columns=[*columns, "seed", "draw"])


def render(trials: pd.DataFrame, ref: Images) -> tuple[Images, Images, Images]:
    """The images (ref, a, b) of ``trials``, each uint8 (n, H, W, 3). Deterministic.

    ref: the reference patches (n, H, W, 3), cut where ``source`` and ``crop`` say.
    """
    sides: list[list[Images]] = [[], []]
    for clean, row in zip(ref, trials.itertuples(index=False), strict=True):
        shown = [(row.distortion_a, row.severity_a), (row.distortion_b, row.severity_b)]
        for number, (kind, severity) in enumerate(shown, start=1):
            rng = np.random.default_rng([row.seed, row.draw, number])
            sides[number - 1].append(_side(clean, kind, severity, rng))
    return ref, np.stack(sides[0]), np.stack(sides[1])


def _side(clean: Images, kind: str, severity: float, rng: np.random.Generator) -> Images:
    return np.round(255 * distort(clean / np.float32(255), kind, severity, rng)).astype(np.uint8)


def hard_for_psnr(ref: Images, a: Images, b: Images, *, seed: int) -> NDArray[np.bool_]:
    """Which trials (n,) to keep so that PSNR alone decides little."""
    error_a, error_b = (
        np.square(side.astype(np.float32) - ref).mean(axis=(1, 2, 3)) + 1e-3 for side in (a, b)
    )
    gap: NDArray[np.float64] = np.abs(10 * np.log10(error_a / error_b))
    lucky = np.random.default_rng([seed, 99]).uniform(size=len(ref)) < EASY_KEPT
    keep: NDArray[np.bool_] = (gap <= EASY_DB) | lucky
    return keep
