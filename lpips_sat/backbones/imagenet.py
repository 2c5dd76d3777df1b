"""The convolutions of AlexNet and VGG16, as LPIPS and DISTS look at images."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import WeightsError
from ..outputs import StrPath
from .base import Backbone
from .checkpoints import read_checkpoint

Net = Literal["alex", "vgg"]
# torchvision's normalisation of ImageNet. The scaling layer of LPIPS is the same in [-1, 1]:
# shift (-0.030, -0.088, -0.188), scale (0.458, 0.448, 0.450).
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Compared are the outputs of these ReLUs (Zhang et al. 2018: five of each network).
TAPS: dict[str, tuple[int, ...]] = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}
CHANNELS = {"alex": [64, 192, 384, 256, 256], "vgg": [64, 128, 256, 512, 512]}
STRIDES = {"alex": [4, 8, 16, 16, 16], "vgg": [1, 2, 4, 8, 16]}
# Pixels that the last tap sees from the corner of its cell of 16 x 16, by the arithmetic of
# receptive fields; pooling over 3 x 3 as in DISTS reaches as far as VGG16's over 2 x 2.
RADIUS = {"alex": 96, "vgg": 105}


class ImageNetTrunk(Backbone):
    """(N, 3, H, W), 0 black to 1 white, -> the five feature maps of AlexNet or VGG16.

    Args:
        net: "alex" or "vgg" (VGG16).
        state: tensors ``features.I.weight`` and ``features.I.bias`` as torchvision names them;
            others are ignored.
        l2_pool: pool by the root mean square under a Hann window, as DISTS does, not the maximum.

    Raises:
        WeightsError: a tensor is missing or has another shape.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: Net, state: Mapping[str, Tensor], *, l2_pool: bool = False) -> None:
        super().__init__()
        from torchvision import models

        build = {"alex": models.alexnet, "vgg": models.vgg16}[net]
        with torch.device("meta"):  # neither memory nor random numbers for what is replaced
            self.features: nn.Sequential = build(weights=None).features[: TAPS[net][-1] + 1]
        for index, layer in enumerate(self.features):
            if l2_pool and isinstance(layer, nn.MaxPool2d):
                self.features[index] = L2Pool()
        self._fill(state)
        self.taps, self.radius = TAPS[net], RADIUS[net]
        self.channels, self.strides = CHANNELS[net], STRIDES[net]
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def _fill(self, state: Mapping[str, Tensor]) -> None:
        wanted = self.features.state_dict(prefix="features.")
        problems = [
            f"{name} {tuple(tensor.shape)}"
            for name, tensor in wanted.items()
            if name not in state or state[name].shape != tensor.shape
        ]
        if problems:
            raise WeightsError(
                f"weights of another network: missing or of another shape are {problems[0]} and "
                f"{len(problems) - 1} more of {len(wanted)}. Pass torchvision's checkpoint."
            )
        mine = {name.removeprefix("features."): state[name].float() for name in wanted}
        self.features.load_state_dict(mine, assign=True)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The feature maps, finest first."""
        x = (x - self.mean) / self.std
        found = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                found.append(x)
        return found


class L2Pool(nn.Module):
    """sqrt(g * x^2 + 1e-12) at stride 2, g a Hann window of 3 x 3 (Ding et al. 2020)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2)), zeros beyond the border."""
        line = torch.tensor([0.25, 0.5, 0.25], dtype=x.dtype, device=x.device)
        channels = x.shape[1]
        kernel = torch.outer(line, line).expand(channels, 1, 3, 3)
        return torch.sqrt(F.conv2d(x * x, kernel, stride=2, padding=1, groups=channels) + 1e-12)


def imagenet_state(net: Net, weights: StrPath | None) -> dict[str, Tensor]:
    """The tensors of a local file, or of torchvision's checkpoint, downloaded once and cached.

    Raises:
        WeightsError: the file cannot be read, or there is no network to download it.
    """
    if weights is not None:
        return read_checkpoint(weights)
    from torchvision import models

    known: dict[str, Any] = {"alex": models.AlexNet_Weights, "vgg": models.VGG16_Weights}
    wanted = known[net].IMAGENET1K_V1
    try:
        state: dict[str, Tensor] = wanted.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:
        reason = textwrap.shorten(str(error), 120)
        raise WeightsError(
            f"cannot download {wanted.url} ({reason}). Fetch the file where there is a network and "
            "pass it: weights=FILE in Python, --weights NAME=FILE on the command line."
        ) from error
    return state
