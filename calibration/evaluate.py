"""How well a distance agrees with raters: choices, same or different, opinion scores."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..functional import mae, psnr, sam, ssim
from ..stats import Interval, bootstrap_mean
from .judgements import JudgementError, Judgements

Distance = Callable[[Tensor, Tensor], Tensor]


def _negative(similarity: Callable[..., Tensor], pred: Tensor, ref: Tensor) -> Tensor:
    return -similarity(pred, ref, data_range=1.0)


# What a new metric is shown beside; smaller = closer, on display values in [0, 1].
CLASSIC: dict[str, Distance] = {
    "SSIM": partial(_negative, ssim),
    "PSNR": partial(_negative, psnr),
    "SAM": sam,
    "MAE": mae,
}


def to_batch(images: NDArray[np.uint8]) -> Tensor:
    """uint8 (n, H, W, C) -> float32 (n, C, H, W) in [0, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def distances(
    distance: Distance, images: NDArray[np.uint8], ref: NDArray[np.uint8], *, batch: int = 128
) -> Tensor:
    """``distance(image, ref)`` of every pair (n, H, W, C); smaller = closer to the reference."""
    with torch.no_grad():
        return torch.cat(
            [
                distance(to_batch(images[i : i + batch]), to_batch(ref[i : i + batch]))
                for i in range(0, len(images), batch)
            ]
        )


def pair_distances(
    distance: Distance, trials: Judgements, *, batch: int = 128
) -> tuple[Tensor, Tensor]:
    """``distance(side, ref)`` of both sides of every trial; smaller = closer to the reference."""
    of_a, of_b = (
        distances(distance, side, trials.ref, batch=batch) for side in (trials.a, trials.b)
    )
    return of_a, of_b


def agreement(of_a: Tensor, of_b: Tensor, share_b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Per trial, the share of votes on the side that the distance prefers; a tie gives 0.5.

    The 2AFC score of Zhang et al. 2018, sec. 3.1. Raises JudgementError if a distance is NaN.
    """
    a, b = of_a.double().numpy(), of_b.double().numpy()
    if undefined := int(np.isnan(a).sum() + np.isnan(b).sum()):
        raise JudgementError(
            f"expected numbers, but {undefined} of {2 * len(a)} distances are NaN: leave out the "
            "trials for which the distance is not defined"
        )
    return np.where(a > b, share_b, np.where(a < b, 1 - share_b, 0.5))


def summarise(scores: NDArray[np.float64], trials: Judgements, *, seed: int = 0) -> Interval:
    """Mean agreement; the interval resamples reference images."""
    return bootstrap_mean(scores, trials.table["cluster"].to_numpy(), seed=seed)


def average_precision(distance: NDArray[np.float64], same: NDArray[np.float64]) -> float:
    """Area under the precision-recall curve of "same" (n,), shares of votes, by small distance.

    Precision at a recall is the best at that recall or above, as in the JND score of Zhang et al.
    2018, sec. 3.2. 1 = every pair that looks the same is closer than every other. Ties count in the
    order that is worst, so that a constant earns nothing by it. NaN if no vote says "same".
    """
    order = np.lexsort((same, distance))
    hits = np.cumsum(same[order])
    if hits[-1] == 0:
        return float("nan")
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(same[order] * best) / hits[-1])


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
