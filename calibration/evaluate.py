"""How often a distance agrees with raters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..stats import Interval, bootstrap_mean
from .judgements import Judgements

Distance = Callable[[Tensor, Tensor], Tensor]


def to_batch(images: NDArray[np.uint8]) -> Tensor:
    """uint8 (n, H, W, C) -> float32 (n, C, H, W) in [0, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def pair_distances(
    distance: Distance, trials: Judgements, *, batch: int = 128
) -> tuple[Tensor, Tensor]:
    """``distance(side, ref)`` of both sides of every trial; smaller = closer to the reference."""
    sides: list[list[Tensor]] = [[], []]
    with torch.no_grad():
        for start in range(0, len(trials), batch):
            rows = slice(start, start + batch)
            ref = to_batch(trials.ref[rows])
            for out, side in zip(sides, (trials.a, trials.b), strict=True):
                out.append(distance(to_batch(side[rows]), ref))
    return torch.cat(sides[0]), torch.cat(sides[1])


def agreement(of_a: Tensor, of_b: Tensor, share_b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Per trial, the share of votes on the side that the distance prefers; a tie gives 0.5.

    The 2AFC score of Zhang et al. 2018, sec. 3.1.
    """
    a, b = of_a.double().numpy(), of_b.double().numpy()
    return np.where(a > b, share_b, np.where(a < b, 1 - share_b, 0.5))


def summarise(scores: NDArray[np.float64], trials: Judgements, *, seed: int = 0) -> Interval:
    """Mean agreement; the interval resamples reference images."""
    return bootstrap_mean(scores, trials.table["cluster"].to_numpy(), seed=seed)


def by_group(scores: NDArray[np.float64], trials: Judgements) -> pd.DataFrame:
    """Agreement per source and per distortion (a trial counts for the kinds of both sides)."""
    table = trials.table
    rows = [("source", name, scores[table["source"] == name]) for name in _names(table["source"])]
    for kind in _names(pd.concat([table["distortion_a"], table["distortion_b"]])):
        shown = (table["distortion_a"] == kind) | (table["distortion_b"] == kind)
        rows.append(("distortion", kind, scores[shown]))
    return pd.DataFrame(
        [(group, name, values.mean(), len(values)) for group, name, values in rows],
        columns=["group", "name", "agreement", "trials"],
    )


def _names(column: pd.Series) -> list[str]:
    return sorted(column.unique())
