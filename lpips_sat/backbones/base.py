"""What LPIPS-Sat needs to know of a backbone."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn


class Backbone(nn.Module):
    """A module that maps (N, 3, H, W) in [0, 1] to a list of feature maps (N, C_l, h_l, w_l).

    channels: C_l of each map; strides: pixels between its positions; radius: how many pixels a
    position depends on beyond its own, at most (what a tile needs around it); bands: None, or, for
    a network that takes (N, len(bands), H, W) reflectance instead, its bands in order, each with
    the reflectance that stands for it where it is missing.
    """

    channels: list[int]
    strides: list[int]
    radius: int
    bands: Mapping[str, float] | None = None
