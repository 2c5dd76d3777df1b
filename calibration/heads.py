"""Fitting the linear heads: non-negative channel weights that predict the raters' choice.

With D_a, D_b the per-channel distances of the two sides, the probability that a rater finds B
closer to the reference is modelled as sigmoid(gamma (log w.D_a - log w.D_b)): what counts is the
*ratio* of two distances (Weber's law), so faint and strong distortions weigh alike, and the scale
of w is free for `anchor` to fix. LPIPS (Zhang et al. 2018) learns a small ranking network of
(d_a, d_b) for the same purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.features import channel_distances
from ..lpips import LPIPSSat
from .distances import Compare
from .distortions import distort
from .evaluate import agreement, pair_distances, to_batch
from .judgements import Judgements

TINY = 1e-6
# References whose round trips fix the scale.
ANCHORS = 512
# A line search may try any step: beyond this, exp would overflow and the search never return.
LARGEST = 50.0


@dataclass(frozen=True)
class HeadFit:
    """Weights (sum C,) with the choice that cross-validation made."""

    weights: Tensor
    strength: float
    cross_validated: float


def per_channel(
    metric: LPIPSSat, trials: Judgements, *, compare: Compare = channel_distances
) -> tuple[Tensor, Tensor]:
    """Per-channel distances (n, sum C) of both sides; the heads of ``metric`` play no part."""

    def distance(pred: Tensor, ref: Tensor) -> Tensor:
        features = metric.backbone(torch.cat([metric.to_input(pred), metric.to_input(ref)]))
        return torch.cat([compare(*f.chunk(2)) for f in features], dim=1)

    return pair_distances(distance, trials)


class Ratio(nn.Module):
    """gamma (log d_a - log d_b)."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Logits (n,) that B is preferred."""
        return _exp(self.gamma) * (torch.log(a + TINY) - torch.log(b + TINY))


class Difference(Ratio):
    """gamma (d_a - d_b)."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Logits (n,) that B is preferred."""
        return _exp(self.gamma) * (a - b)


class RankingNet(nn.Module):
    """The ranking network of LPIPS (Zhang et al. 2018, app. B): 5 inputs, two layers of 32."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                *(nn.Linear(5, 32), nn.LeakyReLU(), nn.Linear(32, 32), nn.LeakyReLU()),
                nn.Linear(32, 1),
            ).double()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Logits (n,) that B is preferred."""
        columns = [a, b, a - b, a / (b + 0.1), b / (a + 0.1)]
        logit: Tensor = self.layers(torch.stack(columns, dim=1))[:, 0]
        return logit


FORMS: dict[str, Callable[[], nn.Module]] = {
    "ratio": Ratio,
    "difference": Difference,
    "ranking-net": RankingNet,
}


def fit(
    of_a: Tensor,
    of_b: Tensor,
    share_b: Tensor,
    weight: Tensor,
    *,
    strength: float,
    form: str = "ratio",
) -> Tensor:
    """Non-negative weights (sum C,) by full-batch L-BFGS; deterministic.

    ``strength`` pulls the weights, in units of each channel's mean distance, towards equal ones.
    ``weight`` (n,) says how much each trial counts. ``form``: how two distances become a
    preference, one of `FORMS`.
    """
    scale = torch.cat([of_a, of_b]).mean(dim=0) + TINY
    a, b = (of_a / scale).double(), (of_b / scale).double()
    log_w = torch.zeros(a.shape[1], dtype=torch.float64, requires_grad=True)
    prefers_b = FORMS[form]()
    optimiser = torch.optim.LBFGS(
        [log_w, *prefers_b.parameters()],
        max_iter=300,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        w = _exp(log_w)
        logit = prefers_b(a @ w, b @ w)
        losses = F.binary_cross_entropy_with_logits(logit, share_b.double(), reduction="none")
        loss = (weight.double() * losses).mean() + strength * log_w.square().mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    return (_exp(log_w.detach()) / scale.double()).float()


def _exp(log: Tensor) -> Tensor:
    return log.clamp(-LARGEST, LARGEST).exp()


def left_out(
    of_a: Tensor,
    of_b: Tensor,
    trials: Judgements,
    groups: NDArray[Any],
    *,
    strength: float,
    form: str = "ratio",
    weight: NDArray[np.float64] | None = None,
    ladders: tuple[Tensor, Tensor] | None = None,
) -> NDArray[np.float64]:
    """Agreement on each trial (n,) by heads fitted to the trials of the other ``groups`` (n,).

    ``weight`` (n,): how much each trial counts, if not as ``trials`` say. ``ladders``: per-channel
    distances of pairs whose first side is known to be worse; they join every fit.
    """
    # float32 as in the shipped fit: the optimiser stops elsewhere for other last digits
    share = torch.tensor(trials.share_b)
    counts = torch.tensor(trials.weight if weight is None else weight).float()
    worse, better = ladders or (of_a[:0], of_b[:0])
    sure = torch.ones(len(worse))
    scores = np.zeros(len(trials))
    for group in sorted(set(groups)):
        out = torch.from_numpy(groups == group)
        w = fit(
            torch.cat([of_a[~out], worse]),
            torch.cat([of_b[~out], better]),
            torch.cat([share[~out], sure.to(share.dtype)]),
            torch.cat([counts[~out], sure]),
            strength=strength,
            form=form,
        )
        scores[groups == group] = agreement(of_a[out] @ w, of_b[out] @ w, share[out].numpy())
    return scores


def cross_validate(
    of_a: Tensor, of_b: Tensor, trials: Judgements, *, strength: float, folds: int = 5
) -> float:
    """Agreement on reference images that were left out of the fit."""
    return float(left_out(of_a, of_b, trials, trials.folds(folds), strength=strength).mean())


def choose(
    of_a: Tensor,
    of_b: Tensor,
    trials: Judgements,
    strengths: Sequence[float] = (0.1, 0.03, 0.01, 0.003, 0.001),
) -> HeadFit:
    """Pick the regularisation by cross-validation, then fit on all trials given."""
    found = [(cross_validate(of_a, of_b, trials, strength=s), s) for s in strengths]
    best, strength = max(found)
    share, weight = torch.tensor(trials.share_b), torch.tensor(trials.weight).float()
    return HeadFit(fit(of_a, of_b, share, weight, strength=strength), strength, best)


def set_heads(metric: LPIPSSat, weights: Tensor) -> None:
    """Give the metric its head weights (sum C,), in the order of its feature maps."""
    start = 0
    for head in metric.heads:
        head.data.copy_(weights[start : start + len(head)])
        start += len(head)


def anchor(metric: LPIPSSat, references: NDArray[np.uint8]) -> None:
    """Scale the heads so that a x2 bicubic round trip of ``references`` scores 1 on average.

    A distance then reads as multiples of the commonest loss in super-resolution. At most the first
    ``ANCHORS`` are used.
    """
    rng, references = np.random.default_rng(0), references[:ANCHORS]
    severity = (2.0 - 1.3) / 3.3  # factor 2 on the scale of distortions.bicubic
    trips = np.stack([distort(r / np.float32(255), "bicubic", severity, rng) for r in references])
    with torch.no_grad():
        score = metric(torch.from_numpy(trips).permute(0, 3, 1, 2), to_batch(references)).mean()
        for head in metric.heads:
            head.div_(score)
