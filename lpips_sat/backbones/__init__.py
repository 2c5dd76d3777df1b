"""Backbones by name. A backbone maps (N, 3, H, W) network input to a list of feature maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import WeightsError
from ..weights import shipped
from .base import Backbone
from .pyramid import Pyramid

BACKBONES: dict[str, Callable[..., Backbone]] = {"pyramid": Pyramid}


TIMM_PREFIX = "timm:"


def build_backbone(name: str, config: Mapping[str, Any] | None = None) -> Backbone:
    """A backbone by name; ``config`` are its constructor's arguments.

    ``"timm:NAME"`` is any feature pyramid of timm, with its pretrained weights unless ``config``
    says ``pretrained=False``; the others are untrained. An unknown name is a ``WeightsError``.
    """
    if name.startswith(TIMM_PREFIX):
        from .timm_adapter import TimmFeatures

        return TimmFeatures(name.removeprefix(TIMM_PREFIX), **(config or {}))
    if name not in BACKBONES:
        raise WeightsError(
            f"unknown backbone {name!r}; choose from: {', '.join([*shipped(), *BACKBONES])}, "
            f"{TIMM_PREFIX}NAME for any feature pyramid of timm, or pass a module"
        )
    return BACKBONES[name](**(config or {}))
