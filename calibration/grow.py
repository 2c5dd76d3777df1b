"""A pyramid with wider or further stages, which begins almost as the metric that it was made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..backbones.pyramid import Pyramid
from ..errors import WeightsError
from ..lpips import LPIPSSat

# What the head of a new channel weighs at first, in means of the old ones: enough for it to learn.
SHARE = 0.1


def grow(metric: LPIPSSat, widths: Sequence[int], seed: int) -> LPIPSSat:
    """``metric`` on a pyramid of ``widths``, at least as many and as wide as its own.

    New channels begin with random weights, which ``seed`` decides. Old ones do not look at them, so
    that their responses stay; only their unit vectors shrink where a stage becomes wider.
    """
    backbone = metric.backbone
    own = backbone.widths if isinstance(backbone, Pyramid) else []
    shrinks = any(new < old for new, old in zip(widths, own, strict=False))
    if not own or len(widths) < len(own) or shrinks:
        raise WeightsError(
            f"widths = {list(widths)} must be no fewer and no smaller than those of a pyramid, but "
            f"the backbone is {metric.config['backbone']} {own or ''}".rstrip()
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
    state = larger.state_dict()
    for name, value in metric.state_dict().items():
        _put(value, state[name])
    return larger


def _put(old: Tensor, new: Tensor) -> None:
    """Write the weights of old channels into ``new``, and cut what they would see of new ones."""
    rows = new[: len(old)]
    if old.ndim > 1:
        rows[:, old.shape[1] :] = 0
        rows = rows[:, : old.shape[1]]
    rows.copy_(old)
