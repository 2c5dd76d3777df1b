"""The teacher: what the raters think of a distortion whose kind and severity are known.

A trial shows two distortions of one reference, and for the training trials their kinds and
severities are recorded. The teacher (Bradley & Terry 1952) gives every side a *disutility* u, so
that a rater prefers B with probability sigmoid(u_a - u_b). There are two:

- `LinearTeacher`, logistic regression, for a few thousand votes: a curve of the severity per kind
  (1, s, sqrt s, s^2; levels where the severity has three steps), how large the error is and how
  busy the reference is per kind, and image statistics shared by all kinds (`pair_statistics`);
- `NetworkTeacher`, the mean of small networks of kind, severity and statistics, for more.

A metric is never told the kind, so neither is one; but with ``distortions`` they put a
number on as many synthetic patches as one likes, from which the metric then learns (``tune``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from .distortions import KINDS
from .judgements import JudgementError, Judgements
from .pair_statistics import PER_KIND, statistics

Images = NDArray[np.uint8]
Floats = NDArray[np.float64]
# Kinds whose severity has only three levels (distortions.nearest, distortions.oversmooth).
STEPPED = ("nearest", "oversmooth")
# The curve's columns are larger than the statistics', so that the penalty hardly binds them.
CURVE_SCALE = np.array([1.0, 3.0, 3.0, 3.0])
# The networks: width, share of units dropped, learning rate, weight decay, batch and epochs.
WIDTH, DROPPED, RATE, DECAY, BATCH, EPOCHS = 32, 0.1, 3e-3, 0.1, 128, 80


class Scale(NamedTuple):
    """Mean and standard deviation of the statistics of the sides that a teacher learnt from."""

    mean: Floats
    std: Floats

    def __call__(self, values: Floats) -> Floats:
        """Values in units of the deviation from the mean."""
        return (values - self.mean) / self.std


@dataclass(frozen=True)
class Teacher(ABC):
    """A fitted model: the kinds it knows, and how it scales statistics."""

    kinds: tuple[str, ...]
    scale: Scale

    @abstractmethod
    def of_statistics(self, kinds: Sequence[str], severity: Floats, stats: Floats) -> Floats:
        """Disutilities (n,) from scaled statistics (n, 18); any number for kinds it never saw."""

    def disutility(
        self, kinds: Sequence[str], severity: Floats, ref: Images, side: Images
    ) -> Floats:
        """How bad each ``side`` (n, H, W, 3) of ``ref`` is: (n,), NaN for kinds it never saw."""
        told = self.of_statistics(kinds, severity, self.scale(statistics(ref, side)))
        return np.where(np.isin(np.asarray(kinds), self.kinds), told, np.nan)


@dataclass(frozen=True)
class LinearTeacher(Teacher):
    """Linear in what `_design` makes of kind, severity and statistics."""

    coefficients: Floats

    def of_statistics(self, kinds: Sequence[str], severity: Floats, stats: Floats) -> Floats:
        """As `Teacher.of_statistics`."""
        told: Floats = _design(self.kinds, kinds, severity, stats) @ self.coefficients
        return told


@dataclass(frozen=True)
class NetworkTeacher(Teacher):
    """The mean of several `_Network` of `_inputs`, each fitted from its own seed."""

    networks: tuple[nn.Module, ...]

    @torch.no_grad()
    def of_statistics(self, kinds: Sequence[str], severity: Floats, stats: Floats) -> Floats:
        """As `Teacher.of_statistics`."""
        x = torch.from_numpy(_inputs(self.kinds, kinds, severity, stats)).float()
        told: Floats = torch.stack([net(x) for net in self.networks]).mean(dim=0).double().numpy()
        return told


def fit_teacher(trials: Judgements, *, strength: float = 3.0, networks: int = 0) -> Teacher:
    """Fit to the votes on ``trials``. Deterministic.

    ``networks``: how many to take the mean of; 0 gives the linear teacher, whose ridge penalty is
    ``strength``.
    """
    table = trials.table
    kinds = tuple(sorted({*table["distortion_a"], *table["distortion_b"]}))
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or table[["severity_a", "severity_b"]].isna().any(axis=None):
        raise JudgementError(
            "a teacher needs trials between known distortions with their severities, but "
            f"{', '.join(unknown) or 'a severity'} is not known: calibrate without --tune"
        )
    raw = [statistics(trials.ref, side) for side in (trials.a, trials.b)]
    both = np.concatenate(raw)
    scale = Scale(both.mean(axis=0), both.std(axis=0))
    describe = _inputs if networks else _design
    of_a, of_b = (
        describe(
            kinds,
            table[f"distortion_{side}"].tolist(),
            table[f"severity_{side}"].to_numpy(np.float64),
            scale(values),
        )
        for side, values in zip("ab", raw, strict=True)
    )
    if networks:
        fitted = [_fit_network(of_a, of_b, trials, seed) for seed in range(networks)]
        return NetworkTeacher(kinds, scale, tuple(fitted))
    coefficients = _logistic(of_a - of_b, trials.share_b, trials.weight, strength)
    return LinearTeacher(kinds, scale, coefficients)


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


def cross_validate(
    trials: Judgements, *, strength: float = 3.0, networks: int = 0, folds: int = 5
) -> float:
    """Agreement with the votes on reference images that were left out of the fit.

    Trials that show a kind which no other fold shows are left out.
    """
    fold, scores = trials.folds(folds), []
    for k in range(folds):
        left_out = trials.where(fold == k)
        teacher = fit_teacher(trials.where(fold != k), strength=strength, networks=networks)
        of_a, of_b = prefer_b(teacher, left_out)
        won = np.where(of_a > of_b, left_out.share_b, 1 - left_out.share_b)
        scores.append(won[np.isfinite(of_a - of_b)])
    return float(np.concatenate(scores).mean())


def _one_hot(known: Sequence[str], kinds: Sequence[str]) -> Floats:
    return (np.asarray(kinds)[:, None] == np.asarray(known)).astype(np.float64)


def _design(known: Sequence[str], kinds: Sequence[str], severity: Floats, stats: Floats) -> Floats:
    """Columns of the linear model (n, p); the row of an unknown kind has no entry for its kind."""
    s, one_hot = np.asarray(severity, dtype=np.float64), _one_hot(known, kinds)
    curve = np.stack([np.ones_like(s), s, np.sqrt(s), s**2], axis=1) * CURVE_SCALE
    level, names = np.minimum(np.floor(3 * s), 2), np.asarray(kinds)
    steps = np.stack([np.where(names == kind, level, 0.0) for kind in STEPPED], axis=1)
    columns = [_outer(one_hot, curve), steps, _outer(one_hot, stats[:, :PER_KIND]), stats]
    return np.concatenate(columns, axis=1)


def _inputs(known: Sequence[str], kinds: Sequence[str], severity: Floats, stats: Floats) -> Floats:
    """Columns that the networks see (n, q): the kind, its severity in its place, statistics."""
    one_hot = _one_hot(known, kinds)
    return np.concatenate([one_hot, one_hot * np.asarray(severity)[:, None], stats], axis=1)


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


class _Network(nn.Module):
    """Two tanh layers beside a straight line: (n, q) -> disutilities (n,)."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.bent = nn.Sequential(
            nn.Linear(columns, WIDTH),
            nn.Tanh(),
            nn.Dropout(DROPPED),
            nn.Linear(WIDTH, WIDTH),
            nn.Tanh(),
            nn.Linear(WIDTH, 1),
        )
        self.straight = nn.Linear(columns, 1)

    def forward(self, x: Tensor) -> Tensor:
        disutility: Tensor = (self.bent(x) + self.straight(x)).squeeze(1)
        return disutility


def _fit_network(of_a: Floats, of_b: Floats, trials: Judgements, seed: int) -> _Network:
    """Fit one network to the votes; what is random follows from ``seed`` alone."""
    a, b, votes, weight = (
        torch.tensor(v).float() for v in (of_a, of_b, trials.share_b, trials.weight)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _Network(a.shape[1])
        optimiser = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
        steps = -(-EPOCHS * len(a) // BATCH)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(steps):
            rows = torch.randint(len(a), (BATCH,))
            logit = net(a[rows]) - net(b[rows])
            loss = F.binary_cross_entropy_with_logits(logit, votes[rows], weight=weight[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            falling.step()
    return net.eval()
