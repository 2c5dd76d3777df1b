"""The one network of all models, and the one way it is asked.

A plain `diffusers.UNet2DModel` sees x_t and the up-sampled low-resolution image y side by side,
folded by PixelUnshuffle where full resolution would cost too much. With the head "sample" its
output is added to y, so that a network of zeros gives the bicubic image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from lpips_sat import LpipsSatError

from .scheduler import BridgeScheduler


def build_unet(
    bands: int, *, widths: Sequence[int], layers: int = 1, unshuffle: int = 2, **options: Any
) -> UNet2DModel:
    """A U-Net for images of `bands` bands.

    widths: channels per level, each at half the resolution of the one before; layers: residual
    blocks per level; unshuffle: pixels of a side that are folded into channels (1: none); options:
    further arguments of `UNet2DModel`.
    """
    levels, folded = len(widths), bands * unshuffle**2
    unet = UNet2DModel(
        in_channels=2 * folded,
        out_channels=folded,
        block_out_channels=tuple(widths),
        layers_per_block=layers,
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
        **{"norm_num_groups": 16, "add_attention": False, **options},
    )
    nn.init.zeros_(unet.conv_out.weight)  # training starts from the bicubic image
    nn.init.zeros_(unet.conv_out.bias)
    return unet


def denoise(
    unet: nn.Module, scheduler: BridgeScheduler, x_t: Tensor, y: Tensor, t: int | Tensor
) -> Tensor:
    """Ask the network about x_t (N, C, H, W), given y, at node t; in training and sampling alike.

    H and W must be multiples of `side_multiple`.
    """
    fold = unshuffle_of(unet, y.shape[1])
    seen = torch.cat([scheduler.scale_model_input(x_t, y, t), y], dim=1)
    folded = unet(F.pixel_unshuffle(seen, fold), scheduler.model_time(t, y)).sample
    output = F.pixel_shuffle(folded, fold)
    return y + output if scheduler.head == "sample" else output


def unshuffle_of(unet: nn.Module, bands: int) -> int:
    """The side of PixelUnshuffle, from the network's number of input channels."""
    channels = _config(unet).in_channels
    fold = math.isqrt(channels // (2 * bands))
    if 2 * bands * fold**2 != channels:
        raise LpipsSatError(f"a network of {channels} input channels is not for {bands} bands")
    return fold


def side_multiple(unet: nn.Module, bands: int) -> int:
    """What the sides of an image must be a multiple of."""
    fold: int = unshuffle_of(unet, bands)
    return fold * 2 ** (len(_config(unet).block_out_channels) - 1)


def _config(unet: nn.Module) -> Any:
    plain: Any = getattr(unet, "module", unet)  # several GPUs wrap it
    return plain.config
