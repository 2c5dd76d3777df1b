"""The teacher: what the raters think of a distortion whose kind and severity are known.

A trial shows two distortions of one reference, and for the training trials their kinds and
severities are recorded. A logistic model (Bradley & Terry 1952) gives every side a *disutility* u,
so that a rater prefers B with probability sigmoid(u_a - u_b). It is linear in

- a curve of the severity per kind (1, s, sqrt s, s^2; levels where the severity has three steps),
- per kind, how large the error is and how busy the reference is, and
- image statistics shared by all kinds (`statistics`).

A network cannot be told the kind, so this is no metric; but with ``distortions`` it puts a number
on as many synthetic patches as one likes, from which the metric then learns (``tune``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .distortions import KINDS
from .evaluate import to_batch
from .judgements import JudgementError, Judgements

Floats = NDArray[np.float64]
# Kinds whose severity has only three levels (distortions.nearest, distortions.oversmooth).
STEPPED = ("nearest", "oversmooth")
# The curve's columns are larger than the statistics', so that the penalty hardly binds them.
CURVE_SCALE = np.array([1.0, 3.0, 3.0, 3.0])
# The first so many statistics act per kind, all of them on all kinds alike.
PER_KIND = 3


@dataclass(frozen=True)
class Teacher:
    """A fitted model: the kinds it knows and its numbers."""

    kinds: tuple[str, ...]
    mean: Floats
    std: Floats
    coefficients: Floats

    def disutility(
        self,
        kinds: Sequence[str],
        severity: Floats,
        ref: NDArray[np.uint8],
        side: NDArray[np.uint8],
    ) -> Floats:
        """How bad each ``side`` (n, H, W, 3) of ``ref`` is: (n,), NaN for kinds it never saw."""
        design = _design(self.kinds, kinds, severity, _standard(self, statistics(ref, side)))
        known = np.isin(np.asarray(kinds), self.kinds)
        return np.where(known, design @ self.coefficients, np.nan)


def fit_teacher(trials: Judgements, *, strength: float = 3.0) -> Teacher:
    """Fit to the votes on ``trials``; ``strength`` is the ridge penalty. Deterministic."""
    table = trials.table
    raw = [statistics(trials.ref, side) for side in (trials.a, trials.b)]
    both = np.concatenate(raw)
    kinds = tuple(sorted({*table["distortion_a"], *table["distortion_b"]}))
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or table[["severity_a", "severity_b"]].isna().any(axis=None):
        raise JudgementError(
            "a teacher needs trials between known distortions with their severities, but "
            f"{', '.join(unknown) or 'a severity'} is not known: calibrate without --tune"
        )
    blank = Teacher(kinds, both.mean(axis=0), both.std(axis=0), np.zeros(0))
    of_a, of_b = (
        _design(
            kinds,
            table[f"distortion_{side}"].tolist(),
            table[f"severity_{side}"].to_numpy(np.float64),
            _standard(blank, values),
        )
        for side, values in zip("ab", raw, strict=True)
    )
    coefficients = _logistic(of_a - of_b, trials.share_b, trials.weight, strength)
    return Teacher(kinds, blank.mean, blank.std, coefficients)


def prefer_b(teacher: Teacher, trials: Judgements) -> tuple[Floats, Floats]:
    """Disutilities (u_a, u_b) of the sides of ``trials``; u_a > u_b: B looks closer."""
    table = trials.table
    of_a, of_b = (
        teacher.disutility(
            table[f"distortion_{side}"].tolist(),
            table[f"severity_{side}"].to_numpy(np.float64),
            trials.ref,
            images,
        )
        for side, images in zip("ab", (trials.a, trials.b), strict=True)
    )
    return of_a, of_b


def cross_validate(trials: Judgements, *, strength: float = 3.0, folds: int = 5) -> float:
    """Agreement with the votes on reference images that were left out of the fit."""
    fold, scores = trials.folds(folds), []
    for k in range(folds):
        left_out = trials.where(fold == k)
        of_a, of_b = prefer_b(fit_teacher(trials.where(fold != k), strength=strength), left_out)
        scores.append(np.where(of_a > of_b, left_out.share_b, 1 - left_out.share_b))
    return float(np.concatenate(scores).mean())


def _standard(teacher: Teacher, values: Floats) -> Floats:
    return (values - teacher.mean) / teacher.std


def _design(known: Sequence[str], kinds: Sequence[str], severity: Floats, stats: Floats) -> Floats:
    """Columns of the linear model (n, p); the row of an unknown kind has no entry for its kind."""
    names, s = np.asarray(kinds), np.asarray(severity, dtype=np.float64)
    one_hot = (names[:, None] == np.asarray(known)).astype(np.float64)
    curve = np.stack([np.ones_like(s), s, np.sqrt(s), s**2], axis=1) * CURVE_SCALE
    level = np.minimum(np.floor(3 * s), 2)
    steps = np.stack([np.where(names == kind, level, 0.0) for kind in STEPPED], axis=1)
    columns = [_outer(one_hot, curve), steps, _outer(one_hot, stats[:, :PER_KIND]), stats]
    return np.concatenate(columns, axis=1)


def _outer(left: Floats, right: Floats) -> Floats:
    product: Floats = left[:, :, None] * right[:, None, :]
    return product.reshape(len(left), -1)


def _logistic(x: Floats, y: Floats, weight: Floats, strength: float) -> Floats:
    """Ridge-penalised logistic regression without intercept, by Newton's method."""
    beta = np.zeros(x.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-x @ beta))
        gradient = x.T @ (weight * (p - y)) + strength * beta
        hessian = (x * (weight * p * (1 - p))[:, None]).T @ x + strength * np.eye(len(beta))
        step = np.linalg.solve(hessian, gradient)
        beta = beta - step
        if np.abs(step).max() < 1e-8:
            break
    return beta


def statistics(ref: NDArray[np.uint8], side: NDArray[np.uint8], *, batch: int = 256) -> Floats:
    """What a pair looks like (n, 18): size of the error, contrast, gradients, structure, colour."""
    rows = [
        _statistics(to_batch(ref[i : i + batch]), to_batch(side[i : i + batch]))
        for i in range(0, len(ref), batch)
    ]
    return torch.cat(rows).double().numpy()


def _statistics(x: Tensor, y: Tensor) -> Tensor:
    low_x, low_y = _blur(x, 2.0), _blur(y, 2.0)
    mean_x, mean_y = x.mean(dim=(2, 3)), y.mean(dim=(2, 3))
    error = _log((x - y).square().mean(dim=(1, 2, 3)))
    gradient_x, gradient_y = _gradient(x), _gradient(y)
    busy, std = _busy(gradient_x), torch.log(x.std(dim=(2, 3)).mean(dim=1) + 1e-3)
    busier = _busy(gradient_y) - busy
    contrast = torch.log(y.std(dim=(2, 3)).mean(dim=1) + 1e-3) - std
    clipped = ((y <= 0.002) | (y >= 0.998)).float().mean(dim=(1, 2, 3))
    columns = [
        *(error, busy, std),  # these three act per kind
        *(mean_x.mean(dim=1), busier, contrast, busier.abs(), contrast.abs()),
        _gradient_deviation(gradient_x, gradient_y),
        _log((low_x - low_y).square().mean(dim=(1, 2, 3))),
        _log((x - low_x - y + low_y).square().mean(dim=(1, 2, 3))),
        _log((mean_x - mean_y).square().mean(dim=1)),
        _log((mean_x - mean_y).var(dim=1)),
        *_structure(x.mean(dim=1, keepdim=True), y.mean(dim=1, keepdim=True)),
        error - 2 * busy,
        (mean_y - mean_x).mean(dim=1),
        torch.log(clipped + 1e-2),
    ]
    return torch.stack(columns, dim=1)


def _log(value: Tensor) -> Tensor:
    return torch.log(value + 1e-6)


def _gradient(x: Tensor) -> Tensor:
    """Gradient magnitude of the mean band."""
    grey = x.mean(dim=1, keepdim=True)
    corner = grey[..., :-1, :-1]
    down, right = grey[..., 1:, :-1] - corner, grey[..., :-1, 1:] - corner
    return torch.sqrt(down.square() + right.square() + 1e-8)


def _busy(gradient: Tensor) -> Tensor:
    return torch.log(gradient.mean(dim=(1, 2, 3)) + 1e-3)


def _gradient_deviation(x: Tensor, y: Tensor) -> Tensor:
    """Log of the gradient magnitude similarity deviation (Xue et al. 2014)."""
    similarity = (2 * x * y + 2e-4) / (x.square() + y.square() + 2e-4)
    return torch.log((1 - similarity).std(dim=(1, 2, 3)) + 1e-3)


def _structure(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Log of 1 - structure and of 1 - contrast similarity (the second factor of SSIM)."""
    mean_x, mean_y = _blur(x, 1.5), _blur(y, 1.5)
    var_x, var_y = _blur(x * x, 1.5) - mean_x**2, _blur(y * y, 1.5) - mean_y**2
    both = _blur(x * y, 1.5) - mean_x * mean_y
    stds = torch.sqrt(var_x.clamp(min=0) + 1e-8) * torch.sqrt(var_y.clamp(min=0) + 1e-8)
    found = []
    for numerator in (both, stds):
        similarity = (2 * numerator + 9e-4) / (var_x + var_y + 9e-4)
        found.append(torch.log((1 - similarity).mean(dim=(1, 2, 3)).clamp(min=0) + 1e-3))
    return found[0], found[1]


def _blur(x: Tensor, sigma: float) -> Tensor:
    radius, channels = int(3 * sigma + 0.5), x.shape[1]
    taps = torch.exp(-torch.arange(-radius, radius + 1).float().square() / (2 * sigma**2))
    kernel = (taps / taps.sum())[None, None, None].expand(channels, 1, 1, -1)
    x = F.conv2d(F.pad(x, (radius, radius, 0, 0), mode="reflect"), kernel, groups=channels)
    x = F.pad(x, (0, 0, radius, radius), mode="reflect")
    return F.conv2d(x, kernel.transpose(2, 3), groups=channels)
