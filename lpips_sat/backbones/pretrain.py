"""Self-supervision for small backbones, without labels, on clean patches and degraded copies.

What the network is asked is a pretext of ``pretexts``. One step is a pure function of (weights,
optimiser, seed, step): a resumed run equals an uninterrupted one.
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
from torch import Tensor

from ..errors import WeightsError
from . import build_backbone, runs
from .pretexts import PRETEXTS, Batch
from .runs import Sampler

Patch = NDArray[np.floating[Any]]
Distort = Callable[[Patch, str, float, np.random.Generator], Patch]


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """Everything that decides a pretraining run; read from a TOML file."""

    pretext: str = "degradations"
    backbone: str = "pyramid"
    backbone_config: dict[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0
    steps: int = 4000
    references: int = 24  # clean patches per step
    copies: int = 2  # distorted copies of each
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warmup: int = 200
    scene_share: float = 0.3  # share of patches from the scene, the rest are chips
    checkpoint_every: int = 500


def make_batch(
    config: PretrainConfig, kinds: Sequence[str], sample: Sampler, distort: Distort, step: int
) -> Batch:
    """The patches of one step."""
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
    again = np.random.default_rng([config.seed, step, 1])
    return Batch(
        clean=_stack(clean),
        view=_stack([jitter(patch, again) for patch in clean]),
        copies=_stack(copies),
        kinds=torch.tensor(labels),
        severities=torch.tensor(severities, dtype=torch.float32),
    )


def _stack(patches: Sequence[Patch]) -> Tensor:
    return torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).contiguous()


def jitter(patch: Patch, rng: np.random.Generator) -> Patch:
    """Flip, turn and re-stretch a patch: other sensors, seasons and display stretches."""
    patch = np.rot90(patch, int(rng.integers(4)))
    if rng.integers(2):
        patch = patch[:, ::-1]
    centre = patch.mean(axis=(0, 1), keepdims=True)
    contrast, gain = np.exp(rng.uniform(-0.3, 0.7)), np.exp(rng.uniform(-0.4, 0.4, (1, 1, 3)))
    moved = (patch - centre) * contrast + centre * gain + rng.uniform(-0.1, 0.15)
    return np.clip(moved, 0, 1).astype(np.float32)


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
    if config.pretext not in PRETEXTS:
        raise WeightsError(
            f"unknown pretext {config.pretext!r}; choose from: {', '.join(PRETEXTS)}"
        )
    runs.claim(out, config, {"patches": runs.fingerprint_of(sample)})
    with torch.random.fork_rng():  # the caller's random state stays as it is
        torch.manual_seed(config.seed)
        backbone = build_backbone(config.backbone, config.backbone_config)
        pretext = PRETEXTS[config.pretext](backbone, len(kinds))
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
        loss, parts = pretext(backbone, batch.to(device))
        return loss, {name: float(value.detach()) for name, value in parts.items()}

    runs.train(out, config, [backbone, pretext], optimiser, loss_of, report)
    weights = out / "backbone.safetensors"
    save_file({k: v.detach().cpu().contiguous() for k, v in backbone.state_dict().items()}, weights)
    return weights
