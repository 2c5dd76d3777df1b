"""Weights + judgements -> how well they agree, beside the classic metrics."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import OptimizeWarning, curve_fit
from scipy.special import expit
from scipy.stats import rankdata

from ..lpips import LPIPSSat
from ..stats import Interval, bootstrap
from ..weights import shipped
from . import evaluate
from .evaluate import Distance
from .judgements import VALIDATION_STEP, JudgementError, Judgements
from .readers import (
    Opinions,
    SameDifferent,
    format_of,
    read_choices,
    read_opinions,
    read_same_different,
)

Part = Literal["validation", "all"]
Floats = NDArray[np.float64]
Scores = Callable[[Distance], Iterator[tuple[str, Interval]]]
NOTHING = Interval(math.nan, math.nan, math.nan, count=0, clusters=0)


def load_weights(source: str) -> LPIPSSat:
    """A metric for display images: shipped weights by name, or a folder or repository."""
    if source in shipped():
        return LPIPSSat(source, radiometry="display")
    return LPIPSSat.from_pretrained(source, radiometry="display")


def validate(metric: LPIPSSat, path: Path, *, part: Part = "validation") -> pd.DataFrame:
    """One row per score and distance, with 95 % intervals over reference images.

    Columns: score, metric, value, low, high; judged and references, the numbers it rests on.
    Judgements of images for which a distance is NaN (SAM: a black one) do not count in its rows.

    - choices: ``2AFC``, the mean share of votes on the side that the distance prefers;
    - same or different: ``JND mAP``, average precision, meaned over the groups of the set;
    - opinion scores: ``SRCC`` (Spearman) and ``PLCC`` (Pearson, after a logistic fit).

    ``part`` "validation" keeps to the references that no calibration is fitted to; same/different
    judgements are never fitted and always used whole.
    """
    distances: dict[str, Distance] = {"LPIPS-Sat": metric, **evaluate.CLASSIC}
    rows = []
    for scores in _judged(path, part):
        for name, distance in distances.items():
            for score, interval in scores(distance):
                rows.append(
                    {
                        "score": score,
                        "metric": name,
                        "value": round(interval.mean, 4),
                        "low": round(interval.low, 4),
                        "high": round(interval.high, 4),
                        "judged": interval.count,
                        "references": interval.clusters,
                    }
                )
    return pd.DataFrame(rows).sort_values("score", kind="stable", ignore_index=True)


def _judged(path: Path, part: Part) -> Iterator[Scores]:
    """The judgements in ``path``, each kind as a function that scores a distance."""
    found = format_of(path)
    if found == "mos":
        opinions = read_opinions(path)
        keep = opinions.table["held_out"].to_numpy() | (part == "all")
        yield lambda distance: _score_opinions(distance, opinions.where(_some(keep)))
    elif found == "bapps-jnd":
        alone = read_same_different(path)
        yield lambda distance: _score_same(distance, alone)
    else:
        trials = read_choices(path)
        held = (trials.table["id"] % VALIDATION_STEP == 0).to_numpy()
        chosen = trials.where(_some(held | (part == "all")))
        yield lambda distance: _score_choices(distance, chosen)
    if found == "release" and (path / "jnd").is_dir():
        beside = read_same_different(path / "jnd")
        yield lambda distance: _score_same(distance, beside)


def _some(keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if not keep.any():
        raise JudgementError("too few judgements for a validation part: pass --trials all")
    return keep


def _score_choices(distance: Distance, trials: Judgements) -> Iterator[tuple[str, Interval]]:
    of_a, of_b = evaluate.pair_distances(distance, trials)
    known = ~(of_a.isnan() | of_b.isnan())
    trials = trials.where(known.numpy())
    scores = evaluate.agreement(of_a[known], of_b[known], trials.share_b)
    yield "2AFC", evaluate.summarise(scores, trials) if len(trials) else NOTHING


def _score_same(distance: Distance, pairs: SameDifferent) -> Iterator[tuple[str, Interval]]:
    of = evaluate.distances(distance, pairs.image, pairs.ref).double().numpy()
    known = ~np.isnan(of)
    of, same, group = of[known], pairs.same[known], pairs.group[known]

    def mean_precision(rows: NDArray[np.intp]) -> float:
        of_groups = [
            evaluate.average_precision(of[part], same[part])
            for part in (rows[group[rows] == name] for name in np.unique(group[rows]))
        ]
        return float(np.mean(of_groups))

    of_reference = [image.tobytes() for image in pairs.ref[known]]
    _, clusters = np.unique(of_reference, return_inverse=True)
    yield "JND mAP", bootstrap(mean_precision, clusters) if len(of) else NOTHING


def _score_opinions(distance: Distance, opinions: Opinions) -> Iterator[tuple[str, Interval]]:
    of = evaluate.distances(distance, opinions.image, opinions.ref).double().numpy()
    known = ~np.isnan(of)
    if not known.any():
        yield from (("SRCC", NOTHING), ("PLCC", NOTHING))
        return
    of, opinions = of[known], opinions.where(known)
    of = np.clip(of, *_ends(of))  # the PSNR of an image that equals its reference is infinite
    mos, clusters = opinions.table["mos"].to_numpy(), opinions.table["cluster"].to_numpy()
    mapped = logistic_fit(of, mos)
    yield (
        "SRCC",
        bootstrap(lambda rows: correlation(rankdata(-of[rows]), rankdata(mos[rows])), clusters),
    )
    yield "PLCC", bootstrap(lambda rows: correlation(mapped[rows], mos[rows]), clusters)


def _ends(values: Floats) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)


def correlation(x: Floats, y: Floats) -> float:
    """Pearson's correlation (of ranks: Spearman's); NaN if either is constant."""
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return float((x * y).sum()) / scale if scale > 0 else float("nan")


def logistic_fit(distance: Floats, mos: Floats) -> Floats:
    """The scores that a monotone logistic of the distance predicts (n,).

    Four parameters, as the Video Quality Experts Group asks before a linear correlation (final
    report of FR-TV phase I, 2000). Where no fit is found, a straight line is the mapping.
    """
    spread = float(distance.std()) or 1.0
    z = (distance - float(np.median(distance))) / spread

    def curve(z: Floats, high: float, low: float, middle: float, slope: float) -> Floats:
        return low + (high - low) * expit(-np.exp(slope) * (z - middle))

    start = (float(mos.max()), float(mos.min()), 0.0, 0.0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", OptimizeWarning)
            fitted, _ = curve_fit(curve, z, mos, p0=start, maxfev=5000)
    except (RuntimeError, OptimizeWarning, TypeError):
        return -z
    return curve(z, *fitted)
