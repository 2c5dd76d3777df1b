"""A pyramid with further stages, which begins as the metric that it was made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..backbones.pyramid import Pyramid
from ..errors import WeightsError
from ..lpips import LPIPSSat

# What a head of a new stage weighs at first, in means of the old ones: enough for it to learn.
SHARE = 0.1


def grow(metric: LPIPSSat, widths: Sequence[int], seed: int) -> LPIPSSat:
    """``metric`` on a pyramid of ``widths``, whose first stages are those of its own.

    New stages begin with random weights, which ``seed`` decides, and weigh little.
    """
    backbone = metric.backbone
    own = backbone.widths if isinstance(backbone, Pyramid) else []
    if not own or list(widths[: len(own)]) != own:
        raise WeightsError(
            f"widths = {list(widths)} must begin with the widths of a pyramid, but the backbone is "
            f"{metric.config['backbone']} {own or ''}".rstrip()
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        larger = LPIPSSat(
            "pyramid",
            metric.config["radiometry"],
            metric.config["bands"],
            composite=metric.config["composite"],
            backbone_config={**metric.config["backbone_config"], "widths": list(widths)},
            card=metric.card,
        )
    share = SHARE * torch.cat([*metric.heads]).mean()
    for head in larger.heads:
        head.fill_(share)
    larger.load_state_dict({**larger.state_dict(), **metric.state_dict()})
    return larger
