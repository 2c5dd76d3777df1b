"""Self-supervision for small backbones: learn to *see* what happened to an image.

The usual contrastive recipe teaches a network to ignore blur, noise and detail - exactly what a
perceptual metric must notice. Here the pretext is the opposite, and needs no labels: a clean
patch and a distorted copy pass through the network, and from nothing but the squared differences
of its unit-normalised features - the very numbers a linear metric head sees later - three small
readouts must say

1. which distortion it was and how severe (cross-entropy + L1),
2. for every kind its own severity *through a non-negative linear head* (zero for all other
   kinds), so that channels specialise and stay calibratable, and
3. from the deepest features, which clean patch of the batch the copy belongs to (InfoNCE), so
   that content is kept and not only the distortion.

One step is a pure function of (weights, optimiser, seed, step): a resumed run equals an
uninterrupted one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from . import build_backbone, runs
from .features import channel_distances

Patch = NDArray[np.floating[Any]]
Distort = Callable[[Patch, str, float, np.random.Generator], Patch]
Sampler = Callable[[np.random.Generator], Patch]


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """Everything that decides a pretraining run; read from a TOML file."""

    backbone: str = "pyramid"
    backbone_config: dict[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0
    steps: int = 4000
    references: int = 24  # clean patches per step
    copies: int = 2  # distorted copies of each
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warmup: int = 200
    identity_weight: float = 0.2
    readout_weight: float = 1.0
    scene_share: float = 0.3  # share of patches from the scene, the rest are chips
    checkpoint_every: int = 500


class PairPretext(nn.Module):
    """Readouts of the per-channel distances of a pair: kind, severity, identity."""

    def __init__(self, channels: Sequence[int], kinds: int) -> None:
        super().__init__()
        total = sum(channels)
        self.trunk = nn.Sequential(nn.Linear(total, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU())
        self.kind = nn.Linear(128, kinds)
        self.severity = nn.Linear(128, 1)
        self.readout = nn.Parameter(torch.full((total, kinds), -4.0))
        self.project = nn.Linear(channels[-1], 64)

    def forward(self, distances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(M, sum C) mean squared feature differences -> kind logits, severity, readouts."""
        hidden = self.trunk(torch.log(distances + 1e-5) + 6.0)
        readout = torch.sqrt(distances @ F.softplus(self.readout) + 1e-6)
        return self.kind(hidden), self.severity(hidden)[:, 0], readout


def make_batch(
    config: PretrainConfig, kinds: Sequence[str], sample: Sampler, distort: Distort, step: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Clean patches (R, 3, H, W), copies (R * copies, 3, H, W), their kinds and severities."""
    rng = np.random.default_rng([config.seed, step])
    clean, copies, labels, severities = [], [], [], []
    for _ in range(config.references):
        patch = jitter(sample(rng), rng)
        clean.append(patch)
        for _ in range(config.copies):
            label, severity = int(rng.integers(len(kinds))), float(rng.uniform())
            copies.append(distort(patch, kinds[label], severity, rng))
            labels.append(label)
            severities.append(severity)
    return (
        torch.from_numpy(np.stack(clean)).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(np.stack(copies)).permute(0, 3, 1, 2).contiguous(),
        torch.tensor(labels),
        torch.tensor(severities, dtype=torch.float32),
    )


def jitter(patch: Patch, rng: np.random.Generator) -> Patch:
    """Flip, turn and re-stretch a patch: other sensors, seasons and display stretches."""
    patch = np.rot90(patch, int(rng.integers(4)))
    if rng.integers(2):
        patch = patch[:, ::-1]
    centre = patch.mean(axis=(0, 1), keepdims=True)
    contrast, gain = np.exp(rng.uniform(-0.3, 0.7)), np.exp(rng.uniform(-0.4, 0.4, (1, 1, 3)))
    moved = (patch - centre) * contrast + centre * gain + rng.uniform(-0.1, 0.15)
    return np.clip(moved, 0, 1).astype(np.float32)


def pretext_loss(
    config: PretrainConfig,
    backbone: nn.Module,
    pretext: PairPretext,
    batch: tuple[Tensor, Tensor, Tensor, Tensor],
) -> tuple[Tensor, dict[str, float]]:
    """The loss of one batch, and its parts for the log."""
    clean, copies, labels, severities = batch
    features = backbone(torch.cat([clean, copies]))
    rows = torch.arange(len(clean), device=clean.device).repeat_interleave(config.copies)
    distances = torch.cat(
        [channel_distances(f[: len(clean)][rows], f[len(clean) :]) for f in features], dim=1
    )
    logits, severity, readout = pretext(distances)
    target = F.one_hot(labels, logits.shape[1]) * (0.2 + 0.8 * severities[:, None])
    parts = {
        "kind": F.cross_entropy(logits, labels),
        "severity": F.l1_loss(severity, severities),
        "readout": F.smooth_l1_loss(readout, target, beta=0.1, reduction="none").sum(1).mean(),
    }
    embedding = F.normalize(pretext.project(features[-1].mean((2, 3))), dim=1)
    similarity = embedding[len(clean) :] @ embedding[: len(clean)].T / 0.1
    parts["identity"] = F.cross_entropy(similarity, rows)
    loss = (
        parts["kind"]
        + parts["severity"]
        + config.readout_weight * parts["readout"]
        + config.identity_weight * parts["identity"]
    )
    logs = {name: float(value.detach()) for name, value in parts.items()}
    logs["accuracy"] = float((logits.argmax(1) == labels).float().mean())
    return loss, logs


def pretrain(
    config: PretrainConfig,
    out: Path,
    *,
    kinds: Sequence[str],
    sample: Sampler,
    distort: Distort,
    device: str = "cpu",
    report: Callable[[int, dict[str, float]], None] = lambda step, logs: None,
) -> Path:
    """Run (or resume) a pretraining in the folder ``out``; returns the backbone's weights file.

    ``out`` holds ``config.json``, ``log.csv``, ``state.pt`` (to resume) and, at the end,
    ``backbone.safetensors``. A folder begun with another config or other patches is refused.
    """
    runs.claim(out, config, {"patches": runs.fingerprint_of(sample)})
    with torch.random.fork_rng():  # the caller's random state stays as it is
        torch.manual_seed(config.seed)
        backbone = build_backbone(config.backbone, config.backbone_config)
        pretext = PairPretext(backbone.channels, len(kinds))
    backbone, pretext = backbone.to(device), pretext.to(device)
    optimiser = torch.optim.AdamW(
        [
            {
                "params": [*backbone.parameters(), *pretext.parameters()],
                "rate": config.learning_rate,
                "weight_decay": config.weight_decay,
            }
        ]
    )

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        batch = make_batch(config, kinds, sample, distort, step)
        clean, copies, labels, severities = (item.to(device) for item in batch)
        return pretext_loss(config, backbone, pretext, (clean, copies, labels, severities))

    runs.train(out, config, [backbone, pretext], optimiser, loss_of, report)
    weights = out / "backbone.safetensors"
    save_file({k: v.detach().cpu().contiguous() for k, v in backbone.state_dict().items()}, weights)
    return weights
