"""Backbones by name. A backbone maps network input (N, C, H, W) to a list of feature maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..errors import WeightsError
from ..weights import shipped
from .base import Backbone
from .pyramid import Pyramid
from .ssl4eo import PUBLISHED, Ssl4eoFeatures

BACKBONES: dict[str, Callable[..., Backbone]] = {
    "pyramid": Pyramid,
    **{name: partial(Ssl4eoFeatures, name) for name in PUBLISHED},
}

TIMM_PREFIX = "timm:"


def build_backbone(name: str, config: Mapping[str, Any] | None = None) -> Backbone:
    """A backbone by name; ``config`` are its constructor's arguments.

    ``"timm:NAME"`` is any feature pyramid of timm, with its pretrained weights unless ``config``
    says ``pretrained=False``; ``"ssl4eo-s12-..."`` takes its weights from ``checkpoint``;
    ``"pyramid"`` is untrained. An unknown name is a ``WeightsError``.
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


def saved_config(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` as it is saved beside the weights: whoever loads it must not ask for others."""
    if name.startswith(TIMM_PREFIX) or name in PUBLISHED:
        return {**{k: v for k, v in config.items() if k != "checkpoint"}, "pretrained": False}
    return dict(config)
