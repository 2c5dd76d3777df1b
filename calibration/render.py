"""The images of recorded trials, made again from their rows.

A row of a release's table names the reference (``source``, ``crop``) and what each side shows
(``distortion_a``, ``severity_a``, ``distortion_b``, ``severity_b``). Trials are drawn in
`.annotate.trials`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .distortions import distort

Images = NDArray[np.uint8]


def distorted(clean: Images, kind: str, severity: float, seed: Sequence[int]) -> Images:
    """A side of a trial: a patch (H, W, 3) with one distortion; ``seed`` decides what is random."""
    made = distort(clean / np.float32(255), kind, severity, np.random.default_rng(seed))
    return np.round(255 * made).astype(np.uint8)


def render(trials: pd.DataFrame, ref: Images) -> tuple[Images, Images]:
    """Sides A and B of ``trials`` whose references are ``ref``, each uint8 (n, H, W, 3).

    Where the columns ``seed`` and ``draw`` record the random states (satellite-2afc since v2),
    these are the very pixels that the raters saw; elsewhere the ids stand in for them.
    """
    recorded = "draw" in trials
    states = trials[["seed", "draw"] if recorded else ["id"]].to_numpy(np.int64)
    a, b = np.empty_like(ref), np.empty_like(ref)
    for number, (images, side) in enumerate(((a, "a"), (b, "b")), start=int(recorded)):
        kinds, severities = trials[f"distortion_{side}"], trials[f"severity_{side}"]
        for i, (kind, severity) in enumerate(zip(kinds, severities, strict=True)):
            images[i] = distorted(ref[i], kind, severity, [*states[i], number])
    return a, b
