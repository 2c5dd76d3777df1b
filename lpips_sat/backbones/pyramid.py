"""The shipped backbone: a small plain pyramid that sees detail and texture.

Three stages at strides 2, 4 and 8. The stem mixes all pixel phases before it decimates, and
later stages are preceded by overlapping average pooling, so that a shift of a fraction of a pixel
moves features smoothly (Zhang 2019, "Making convolutional networks shift-invariant again"). Each
stage also yields its *texture energy*, the local root mean square of its responses, which
forgets where inside a window a texture lies (the idea behind DISTS, Ding et al. 2020).

No normalisation layers: a result cannot depend on the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import Backbone

# Texture energy is pooled over 8 x 8 feature positions, every 4: windows of 16, 32, 64 px.
ENERGY_WINDOW, ENERGY_STRIDE = 8, 4


class Pyramid(Backbone):
    """(N, 3, H, W) network input -> responses and texture energies of every stage.

    Args:
        widths: channels of the stages; each next runs at twice the stride.
        depth: 3 x 3 convolutions per stage (the stem counts as the first of stage 1).
        stem_stride: stride of the first stage, 1 or 2.
    """

    def __init__(
        self, widths: Sequence[int] = (32, 64, 128), depth: int = 2, stem_stride: int = 2
    ) -> None:
        super().__init__()
        stages, channels, stride, radius = [], 3, stem_stride, stem_stride  # reach of the stem
        self.channels, self.strides = [], []
        for index, width in enumerate(widths):
            layers: list[nn.Module] = []
            if index:
                layers.append(nn.AvgPool2d(4, stride=2, padding=1, count_include_pad=False))
                radius, stride = radius + 2 * stride, 2 * stride
            for step in range(depth):
                stem = index == 0 and step == 0
                layers.append(_convolution(channels, width, stem_stride if stem else 0))
                layers.append(nn.ReLU(inplace=True))
                channels = width
            radius += stride * (depth - (index == 0))
            stages.append(nn.Sequential(*layers))
            self.channels += [width, width]
            self.strides += [stride, stride * ENERGY_STRIDE]
        self.stages = nn.ModuleList(stages)
        self.radius = radius + stride * ENERGY_WINDOW // 2
        self.apply(_initialise)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Responses and energies, stage by stage."""
        features = []
        for stage in self.stages:
            x = stage(x)
            features += [x, texture_energy(x)]
        return features


def _convolution(channels: int, width: int, stem_stride: int) -> nn.Conv2d:
    if stem_stride == 2:  # an even kernel, so that all phases count alike
        return nn.Conv2d(channels, width, 4, stride=2, padding=1)
    return nn.Conv2d(channels, width, 3, padding=1)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def texture_energy(x: Tensor) -> Tensor:
    """Local root mean square of each channel; the epsilon keeps the gradient at 0 finite."""
    margin = (ENERGY_WINDOW - ENERGY_STRIDE) // 2
    pooled = F.avg_pool2d(
        x * x, ENERGY_WINDOW, stride=ENERGY_STRIDE, padding=margin, count_include_pad=False
    )
    return torch.sqrt(pooled + 1e-8)
