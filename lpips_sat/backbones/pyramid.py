"""The shipped backbone: a small plain pyramid that sees detail and texture.

Four stages at strides 2, 4, 8 and 16. The stem mixes all pixel phases before it decimates, and
later stages are preceded by overlapping average pooling, so that a shift of a fraction of a pixel
moves features smoothly (Zhang 2019, "Making convolutional networks shift-invariant again"). The
first three also yield their *texture energy*, the local root mean square of their responses, which
forgets where inside a window a texture lies (the idea behind DISTS, Ding et al. 2020).

No normalisation layers: a result cannot depend on the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ..errors import WeightsError
from .base import Backbone

# Texture energy is pooled over 8 x 8 feature positions, every 4: windows of 16, 32, 64 px. Those of
# a fourth stage would be wider than the smallest image.
ENERGY_WINDOW, ENERGY_STRIDE, ENERGY_STAGES = 8, 4, 3
ENERGY_MARGIN = (ENERGY_WINDOW - ENERGY_STRIDE) // 2
# From this stage on responses may pass 65504, where float16 ends.
LARGE_FROM = 2


class Pyramid(Backbone):
    """(N, 3, H, W) network input -> responses of every stage, and texture energies of three.

    Args:
        widths: channels of the stages; each next runs at twice the stride.
        depth: 3 x 3 convolutions per stage (the stem counts as the first of stage 1).
        stem_stride: stride of the first stage, 1 or 2.
    """

    def __init__(
        self, widths: Sequence[int] = (32, 64, 128), depth: int = 2, stem_stride: int = 2
    ) -> None:
        super().__init__()
        if stem_stride not in (1, 2):
            raise WeightsError(f"stem_stride must be 1 or 2, got {stem_stride}")
        stages, channels, stride, radius = [], 3, stem_stride, 1  # the stem sees 1 px around a cell
        self.widths = list(widths)
        self.channels, self.strides, self.radius = [], [], 0
        for index, width in enumerate(widths):
            layers: list[nn.Module] = []
            if index:
                layers.append(nn.AvgPool2d(4, stride=2, padding=1, count_include_pad=False))
                radius, stride = radius + stride, 2 * stride
            for step in range(depth):
                stem = index == 0 and step == 0
                layers.append(_convolution(channels, width, stem_stride if stem else 0))
                layers.append(nn.ReLU(inplace=True))
                channels = width
            radius += stride * (depth - (index == 0))
            stages.append(nn.Sequential(*layers))
            energies = int(index < ENERGY_STAGES)
            self.channels += [width] * (1 + energies)
            self.strides += [stride, stride * ENERGY_STRIDE][: 1 + energies]
            self.radius = max(self.radius, radius + energies * stride * ENERGY_MARGIN)
        self.stages = nn.ModuleList(stages)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Responses and energies, stage by stage."""
        features, beyond_float16 = [], False
        for index, stage in enumerate(self.stages):
            beyond_float16 |= index >= LARGE_FROM and x.dtype == torch.float16
            x = _in_float32(stage, x) if beyond_float16 else stage(x)
            features += [x, texture_energy(x)] if index < ENERGY_STAGES else [x]
        return features


def _in_float32(stage: nn.Module, x: Tensor) -> Tensor:
    """A stage in float32, whatever the dtype of its weights and of autocast."""
    weights = {name: weight.float() for name, weight in stage.named_parameters()}
    with torch.autocast(x.device.type, enabled=False):
        response: Tensor = functional_call(stage, weights, (x.float(),))
    return response


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
    """Local root mean square of each channel; the epsilon keeps the gradient at 0 finite.

    In float32 at least: half precision has no room for the squares.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    pooled = F.avg_pool2d(
        x * x, ENERGY_WINDOW, stride=ENERGY_STRIDE, padding=ENERGY_MARGIN, count_include_pad=False
    )
    return torch.sqrt(pooled + 1e-8)
