"""Any timm feature pyramid as a backbone."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor

from ..errors import WeightsError
from .base import Backbone


class TimmFeatures(Backbone):
    """(N, 3, H, W) in [0, 1] -> timm's ``features_only`` list; the model's own mean and std apply.

    Args:
        name: a timm model name, such as ``"resnet18"``.
        pretrained: load timm's weights (from its hub, or timm's cache).
        options: further arguments of ``timm.create_model``, such as ``out_indices``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, *, pretrained: bool = True, **options: Any) -> None:
        super().__init__()
        try:
            model: Any = timm.create_model(
                name, pretrained=pretrained, features_only=True, **options
            )
        except (RuntimeError, OSError, ValueError) as error:
            raise WeightsError(
                f"cannot create timm's {name!r} (pretrained={pretrained}): {error}"
            ) from error
        self.model = model
        self.channels = model.feature_info.channels()
        self.strides = model.feature_info.reduction()
        shape = (1, 3, 1, 1)
        config = model.pretrained_cfg or {}
        for key, default in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225))):
            value = torch.tensor(config.get(key, default)).view(shape)
            self.register_buffer(key, value, persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The feature maps, finest first."""
        features: list[Tensor] = self.model((x - self.mean) / self.std)
        return features
