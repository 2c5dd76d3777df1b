"""Pretexts for self-supervision, to be compared: what a network is asked while it has no votes.

Each is a module made from a backbone; called with a `Batch` it gives a loss and its parts.
``degradations`` made the shipped backbone. The contrastive ones use only augmentations that keep
detail (turns, flips, re-stretching, crops): the usual recipe's blur and noise would teach the
network to overlook what a metric must see.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import Backbone
from .features import channel_distances

Loss = tuple[Tensor, dict[str, Tensor]]
EMBEDDING = 64
TEMPERATURE = 0.1
# Weights of invariance and variance; covariance has 1 (Bardes et al. 2022, sec. 4.2).
VICREG_WEIGHT = 25.0


@dataclass(frozen=True)
class Batch:
    """Patches (R, 3, H, W), another view of each, and distorted copies (R * copies, 3, H, W).

    ``kinds`` and ``severities`` (R * copies,) say what was done to the copies.
    """

    clean: Tensor
    view: Tensor
    copies: Tensor
    kinds: Tensor
    severities: Tensor

    def to(self, device: str) -> Batch:
        """The same on another device."""
        return Batch(**{name: value.to(device) for name, value in vars(self).items()})

    @property
    def rows(self) -> Tensor:
        """Which clean patch each copy belongs to (R * copies,)."""
        each = len(self.copies) // len(self.clean)
        return torch.arange(len(self.clean), device=self.clean.device).repeat_interleave(each)


class Degradations(nn.Module):
    """Tell which degradation a copy shows, and how severe, from the metric's own distances.

    From nothing but the squared differences of unit-normalised features three readouts say the
    kind and severity; for every kind its severity *through a non-negative linear head* (zero for
    all other kinds), so that channels specialise and stay calibratable; and from the deepest
    features, which clean patch of the batch the copy belongs to, so that content is kept.
    """

    identity_weight = 0.2

    def __init__(self, backbone: Backbone, kinds: int) -> None:
        super().__init__()
        total = sum(backbone.channels)
        self.trunk = nn.Sequential(nn.Linear(total, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU())
        self.kind = nn.Linear(128, kinds)
        self.severity = nn.Linear(128, 1)
        self.readout = nn.Parameter(torch.full((total, kinds), -4.0))
        self.project = nn.Linear(backbone.channels[-1], EMBEDDING)

    def forward(self, backbone: nn.Module, batch: Batch) -> Loss:
        """Cross-entropy, L1, smooth L1 and InfoNCE."""
        features = backbone(torch.cat([batch.clean, batch.copies]))
        count, rows = len(batch.clean), batch.rows
        distances = torch.cat(
            [channel_distances(f[:count][rows], f[count:]) for f in features], dim=1
        )
        hidden = self.trunk(torch.log(distances + 1e-5) + 6.0)
        readout = torch.sqrt(distances @ F.softplus(self.readout) + 1e-6)
        logits = self.kind(hidden)
        target = F.one_hot(batch.kinds, logits.shape[1]) * (0.2 + 0.8 * batch.severities[:, None])
        embedding = F.normalize(self.project(features[-1].mean((2, 3))), dim=1)
        similarity = embedding[count:] @ embedding[:count].T / TEMPERATURE
        parts = {
            "kind": F.cross_entropy(logits, batch.kinds),
            "severity": F.l1_loss(self.severity(hidden)[:, 0], batch.severities),
            "readout": F.smooth_l1_loss(readout, target, beta=0.1, reduction="none").sum(1).mean(),
            "identity": F.cross_entropy(similarity, rows),
        }
        loss = parts["kind"] + parts["severity"] + parts["readout"]
        accuracy = (logits.argmax(1) == batch.kinds).float().mean()
        return loss + self.identity_weight * parts["identity"], {**parts, "accuracy": accuracy}


class Contrastive(nn.Module):
    """Two views of a patch are alike, those of others are not: InfoNCE (Chen et al. 2020)."""

    def __init__(self, backbone: Backbone, kinds: int) -> None:
        super().__init__()
        self.project = _projector(backbone)

    def forward(self, backbone: nn.Module, batch: Batch) -> Loss:
        """Cross-entropy of matching views, both ways."""
        x, y = _embed(self.project, backbone, batch)
        logits = F.normalize(x, dim=1) @ F.normalize(y, dim=1).T / TEMPERATURE
        labels = torch.arange(len(logits), device=logits.device)
        loss = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
        return loss, {"match": loss}


class VICReg(nn.Module):
    """Variance, invariance, covariance of two views' embeddings (Bardes et al. 2022, eq. 6)."""

    def __init__(self, backbone: Backbone, kinds: int) -> None:
        super().__init__()
        self.project = _projector(backbone)

    def forward(self, backbone: nn.Module, batch: Batch) -> Loss:
        """The three terms with the paper's weights."""
        x, y = _embed(self.project, backbone, batch)
        spread, covariance = _spread(x) + _spread(y), _covariance(x) + _covariance(y)
        parts = {"invariance": F.mse_loss(x, y), "variance": spread, "covariance": covariance}
        return VICREG_WEIGHT * (parts["invariance"] + spread) + covariance, parts


class Restore(nn.Module):
    """Give the clean patch back from a degraded copy's features (a denoising autoencoder)."""

    width = 32

    def __init__(self, backbone: Backbone, kinds: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, self.width, 1) for c in backbone.channels)
        self.decode = nn.Sequential(
            nn.Conv2d(self.width, self.width, 3, padding=1), nn.ReLU(), nn.Conv2d(self.width, 3, 1)
        )

    def forward(self, backbone: nn.Module, batch: Batch) -> Loss:
        """L1 against the clean patch."""
        size = batch.copies.shape[-2:]
        laterals = [
            F.interpolate(layer(f), size=size, mode="bilinear", align_corners=False)
            for layer, f in zip(self.lateral, backbone(batch.copies), strict=True)
        ]
        loss = F.l1_loss(self.decode(torch.stack(laterals).sum(dim=0)), batch.clean[batch.rows])
        return loss, {"restored": loss}


def _projector(backbone: Backbone) -> nn.Module:
    width = sum(backbone.channels)
    return nn.Sequential(nn.Linear(width, 256), nn.ReLU(), nn.Linear(256, EMBEDDING))


def _embed(project: nn.Module, backbone: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    features = backbone(torch.cat([batch.clean, batch.view]))
    pooled = torch.cat([f.mean((2, 3)) for f in features], dim=1)
    x, y = project(pooled).chunk(2)
    return x, y


def _spread(x: Tensor) -> Tensor:
    return F.relu(1 - torch.sqrt(x.var(dim=0) + 1e-4)).mean()


def _covariance(x: Tensor) -> Tensor:
    centred = x - x.mean(dim=0)
    covariance = centred.T @ centred / (len(x) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / x.shape[1]


PRETEXTS: dict[str, Callable[[Backbone, int], nn.Module]] = {
    "degradations": Degradations,
    "contrastive": Contrastive,
    "vicreg": VICReg,
    "restore": Restore,
}
