"""The adversarial part of SupResDiffGAN: a discriminator of noised pairs, with its own noise level.

Kopec et al. 2025, "SupResDiffGAN". The estimate x0h and the truth x0 are noised to one level with
independent noise and shown side by side; the discriminator says which comes first. The level rises
with its accuracy. In the public code the pair is decoded without gradient, so that the generator
never learns from it; here the gradient flows through the noising into x0h.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from .scheduler import BridgeScheduler

MEMORY = 0.97  # share of the old accuracy in the running mean (SupResDiffGAN's code)


class Discriminator(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Pairs (N, 2 C, H, W) -> one logit each: is the truth in the second place?

    bands: C; widths: channels per level, each at half the resolution of the one before.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, bands: int, widths: Sequence[int] = (64, 128, 256, 512)) -> None:
        super().__init__()
        first = widths[0]
        layers: list[nn.Module] = [nn.Conv2d(2 * bands, first, 3, padding=1), nn.LeakyReLU(0.2)]
        layers += _block(first, first, stride=2)
        for before, width in pairwise(widths):
            layers += [*_block(before, width), *_block(width, width, stride=2)]
        last = widths[-1]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Conv2d(last, 2 * last, 1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(2 * last, 1, 1), nn.Flatten(0))

    def forward(self, pairs: Tensor) -> Tensor:
        """Logits (N,)."""
        logits: Tensor = self.layers(pairs)
        return logits


def _block(inner: int, outer: int, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(outer), nn.LeakyReLU(0.2)]


def noise_step(accuracy: float, steps: int) -> int:
    """The index 0..T-1 of the noise level at a running accuracy; 0 while it is below a half."""
    return int(min(max((accuracy - 0.5) * 2 * steps, 0), steps - 1))


class Adversary:
    """The discriminator in training: its losses, its optimiser and its running accuracy."""

    def __init__(
        self, discriminator: nn.Module, optimiser: torch.optim.Optimizer, scheduler: BridgeScheduler
    ) -> None:
        self.discriminator, self.optimiser, self.scheduler = discriminator, optimiser, scheduler
        self.accuracy = 0.5

    def generator_loss(
        self, x0h: Tensor, x0: Tensor, y: Tensor, generator: torch.Generator
    ) -> Tensor:
        """How badly the discriminator is fooled; its gradient reaches x0h, and only x0h."""
        self.discriminator.requires_grad_(False)
        loss = self._loss(x0h, x0, y, generator, fool=True)
        self.discriminator.requires_grad_(True)
        return loss

    def discriminator_loss(
        self, x0h: Tensor, x0: Tensor, y: Tensor, generator: torch.Generator
    ) -> Tensor:
        """How badly it tells the two apart."""
        return self._loss(x0h.detach(), x0, y, generator, fool=False)

    def _loss(
        self, x0h: Tensor, x0: Tensor, y: Tensor, generator: torch.Generator, *, fool: bool
    ) -> Tensor:
        node = noise_step(self.accuracy, self.scheduler.nodes) + 1
        noises = torch.randn(2, *x0.shape, generator=generator).to(x0)
        second = torch.randint(2, (len(x0),), generator=generator).to(x0)  # 1: the truth is second
        pair = [
            self.scheduler.add_noise(x, y, z, node) for x, z in zip((x0, x0h), noises, strict=True)
        ]
        swap = second.view(-1, 1, 1, 1) == 1
        ordered = [torch.where(swap, pair[1], pair[0]), torch.where(swap, pair[0], pair[1])]
        logits = self.discriminator(torch.cat(ordered, dim=1))
        correct = ((logits > 0) == (second == 1)).float().mean().item()
        self.accuracy = MEMORY * self.accuracy + (1 - MEMORY) * correct
        return F.binary_cross_entropy_with_logits(logits, 1 - second if fool else second)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "accuracy": self.accuracy,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.accuracy = state["accuracy"]
