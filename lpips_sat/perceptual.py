"""LPIPS and DISTS as published, on named bands, under masks and tile by tile.

Both see what LPIPS-Sat sees (`lpips_sat.composites.NetworkInput`): three bands between 0,
black, and 1, white, which is [-1, 1] in the convention of LPIPS. They were made for photographs.

Each feature position stands for a cell of stride x stride pixels and counts by the share of its
cell that is valid; what lies under the mask is filled in both images alike
(`lpips_sat.validity.soft_fill`). Without a mask the numbers are the published ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .backbones.checkpoints import read_checkpoint
from .backbones.features import cell_share, weighted_distance
from .backbones.imagenet import CHANNELS, ImageNetTrunk, Net, imagenet_state
from .composites import NetworkInput
from .errors import MetricInputError, WeightsError
from .functional._inputs import check_min_size, check_pair
from .outputs import StrPath
from .radiometry import Kind
from .validity import FILL_REACH, as_valid, combine, ratio_or_nan, soft_fill

MIN_SIZE = 32
# Stabilise the two quotients of DISTS (Ding et al. 2020).
C1 = C2 = 1e-6


class NetworkMetric(nn.Module):
    """What LPIPS and DISTS share: input, masks, tiles. Frozen, always in evaluation mode.

    Call:
        ``metric(pred, ref, valid=None)`` with floating (N, C, H, W), H and W >= 32, and boolean
        ``valid`` (N, 1, H, W). Returns float64 (N,), range [0, inf), 0 = identical, lower is
        better, no unit; NaN for an image without a valid pixel. Usable as a loss.
    """

    unit = ""
    higher_is_better = False
    min_size = MIN_SIZE

    def __init__(
        self,
        name: str,
        trunk: ImageNetTrunk,
        weights: StrPath | None,
        to_input: NetworkInput,
    ) -> None:
        super().__init__()
        self.name, self.trunk, self.to_input = name, trunk, to_input
        key = name.lower().replace("-", "_")
        self.settings: Mapping[str, Any] = {
            "composite": list(to_input.composite),
            f"{key}_weights": "torchvision" if weights is None else Path(weights).name,
        }

    @property
    def align(self) -> int:
        """Tiles must begin at multiples of this many pixels to see the features of the whole."""
        return max(self.trunk.strides)

    @property
    def halo(self) -> int:
        """Pixels around a tile on which its features depend, a multiple of `align`."""
        return -(-(self.trunk.radius + FILL_REACH) // self.align) * self.align

    def train(self, mode: bool = True) -> NetworkMetric:
        """Stays in evaluation mode: a parent's ``train()`` must not thaw a metric."""
        return super().train(False)

    def forward(self, pred: Tensor, ref: Tensor, valid: Tensor | None = None) -> Tensor:
        """The distance; see the class for shapes."""
        check_pair(pred, ref)
        check_min_size(pred, MIN_SIZE, self.name)
        return self.from_sums(self.sums(pred, ref, valid=valid))

    def sums(
        self, pred: Tensor, ref: Tensor, *, valid: Tensor | None = None, core: Tensor | None = None
    ) -> Tensor:
        """Float64 (N, K), see the metric; needs tiles that keep `align` and `halo`."""
        raise NotImplementedError

    def from_sums(self, sums: Tensor) -> Tensor:
        """Scores (N,) of `sums`; NaN where nothing was valid."""
        raise NotImplementedError

    def _look(
        self, pred: Tensor, ref: Tensor, valid: Tensor | None, core: Tensor | None
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """Network input and features of both images (2N first), and which pixels count."""
        check_pair(pred, ref)
        holds_data, counts = as_valid(valid, pred), as_valid(core, pred, name="core")
        both = torch.cat([self.to_input(pred), self.to_input(ref)])
        if valid is not None:
            both = soft_fill(both, torch.cat([holds_data, holds_data]))
        both = both.to(self.trunk.mean.dtype)
        return both, self.trunk(both), combine(holds_data, counts)


class LPIPS(NetworkMetric):
    """Learned perceptual image patch similarity, version 0.1.

    sum_l mean over positions of sum_c w_lc (f_lc(x) - f_lc(y))^2, f_l the unit-normalised
    features of five layers of a network trained on ImageNet.

    Args:
        net: "alex", the authors' choice for a metric, or "vgg", their choice for a loss.
        weights: a local file in place of the download: torchvision's checkpoint of the network, as
            ``.pth`` or ``.safetensors``, with or without heads ``linL.model.1.weight``. Without
            heads those that torchmetrics carries are used.
        radiometry: what the images hold: "reflectance" or "display", see `LPIPSSat`.
        bands: the names of the C channels, in order.
        composite: the three bands that are looked at, if not the default.

    Raises:
        WeightsError: no weights, damaged ones, or those of another network.

    References:
        Zhang, Isola, Efros, Shechtman & Wang 2018, eq. 1, doi:10.1109/CVPR.2018.00068. Equal to
        torchmetrics, which adds 1e-8 under the root of the norm: gradients stay finite.
    """

    def __init__(
        self,
        net: Net = "alex",
        *,
        weights: StrPath | None = None,
        radiometry: Kind = "reflectance",
        bands: Sequence[str] = ("B04", "B03", "B02"),
        composite: Sequence[str] | None = None,
    ) -> None:
        if net not in CHANNELS:
            raise MetricInputError(f"`net` must be one of {', '.join(CHANNELS)}, got {net!r}")
        state = imagenet_state(net, weights)
        to_input = NetworkInput(bands, radiometry, composite)
        super().__init__(f"LPIPS-{net}", ImageNetTrunk(net, state), weights, to_input)
        names = [f"lin{layer}.model.1.weight" for layer in range(len(CHANNELS[net]))]
        if not any(name in state for name in names):
            state = _shipped_with_torchmetrics(f"lpips_models/{net}.pth")
        shapes = [(1, width, 1, 1) for width in CHANNELS[net]]
        heads = _take(state, names, shapes)
        self.heads = nn.ParameterList(head.flatten() for head in heads)
        self.requires_grad_(False).train(False)

    def sums(
        self, pred: Tensor, ref: Tensor, *, valid: Tensor | None = None, core: Tensor | None = None
    ) -> Tensor:
        """Float64 (N, 2L): of each layer the sum over positions, and how many count."""
        _, features, counted = self._look(pred, ref, valid, core)
        columns = []
        for maps, head, stride in zip(features, self.heads, self.trunk.strides, strict=True):
            weight = cell_share(counted, stride, maps)
            distance = weighted_distance(maps, head).to(weight.dtype)
            columns += [(distance * weight).sum(dim=(1, 2, 3)), weight.sum(dim=(1, 2, 3))]
        return torch.stack(columns, dim=1)

    def from_sums(self, sums: Tensor) -> Tensor:
        """Scores (N,) of `sums`; NaN where nothing was valid."""
        return ratio_or_nan(sums[:, ::2], sums[:, 1::2]).sum(dim=1)


class DISTS(NetworkMetric):
    """Deep image structure and texture similarity.

    1 - sum_lc (alpha_lc T_lc + beta_lc S_lc) over the channels of the image and of five layers of
    VGG16 with L2 pooling. With the mean m, variance s^2 and covariance s_xy over all positions,
    T = (2 m_x m_y + c1) / (m_x^2 + m_y^2 + c1) and S = (2 s_xy + c2) / (s_x^2 + s_y^2 + c2).
    Range [0, 1] up to negative correlation.

    Args:
        weights: a local file in place of the download: torchvision's checkpoint of VGG16, as
            ``.pth`` or ``.safetensors``, with or without ``alpha`` and ``beta``. Without them
            those that torchmetrics carries are used.
        radiometry: what the images hold: "reflectance" or "display", see `LPIPSSat`.
        bands: the names of the C channels, in order.
        composite: the three bands that are looked at, if not the default.

    Raises:
        WeightsError: no weights, damaged ones, or those of another network.

    References:
        Ding, Ma, Wang & Simoncelli 2020, doi:10.1109/TPAMI.2020.3045810.
    """

    alpha: Tensor
    beta: Tensor

    def __init__(
        self,
        *,
        weights: StrPath | None = None,
        radiometry: Kind = "reflectance",
        bands: Sequence[str] = ("B04", "B03", "B02"),
        composite: Sequence[str] | None = None,
    ) -> None:
        state = imagenet_state("vgg", weights)
        to_input = NetworkInput(bands, radiometry, composite)
        super().__init__("DISTS", ImageNetTrunk("vgg", state, l2_pool=True), weights, to_input)
        self.widths = [3, *self.trunk.channels]
        if "alpha" not in state and "beta" not in state:
            state = _shipped_with_torchmetrics("dists_models/weights.pt")
        shape = (1, sum(self.widths), 1, 1)
        alpha, beta = _take(state, ["alpha", "beta"], [shape, shape])
        self.register_buffer("alpha", alpha.flatten())
        self.register_buffer("beta", beta.flatten())
        self.requires_grad_(False).train(False)

    def sums(
        self, pred: Tensor, ref: Tensor, *, valid: Tensor | None = None, core: Tensor | None = None
    ) -> Tensor:
        """Float64 (N, 5C + L): of all channels the sums of x, y, x^2, y^2 and xy; the positions."""
        both, features, counted = self._look(pred, ref, valid, core)
        moments: list[list[Tensor]] = []
        numbers = []
        for maps, stride in zip([both, *features], [1, *self.trunk.strides], strict=True):
            weight = cell_share(counted, stride, maps)
            numbers.append(weight.sum(dim=(1, 2, 3)))
            for part in maps.split(16, dim=1):  # a few at a time: they are taken in float64
                x, y = part.to(weight.dtype).chunk(2)
                terms = (x, y, x * x, y * y, x * y)
                moments.append([(term * weight).sum(dim=(2, 3)) for term in terms])
        columns = [torch.cat(column, dim=1) for column in zip(*moments, strict=True)]
        return torch.cat([*columns, torch.stack(numbers, dim=1)], dim=1)

    def from_sums(self, sums: Tensor) -> Tensor:
        """Scores (N,) of `sums`; NaN where nothing was valid."""
        channels, layers = sum(self.widths), len(self.widths)
        widths = torch.tensor(self.widths, device=sums.device)
        number = sums[:, -layers:].repeat_interleave(widths, dim=1)
        x, y, xx, yy, xy = (
            ratio_or_nan(column, number) for column in sums[:, :-layers].split(channels, dim=1)
        )
        texture = (2 * x * y + C1) / (x * x + y * y + C1)
        spread = (xx - x * x) + (yy - y * y)
        structure = (2 * (xy - x * y) + C2) / (spread + C2)
        alpha, beta = self.alpha.to(sums.dtype), self.beta.to(sums.dtype)
        missing = alpha * (1 - texture) + beta * (1 - structure)  # keeps all digits near 0
        return missing.sum(dim=1) / (alpha.sum() + beta.sum())


def _shipped_with_torchmetrics(name: str) -> dict[str, Tensor]:
    path = Path(str(files("torchmetrics.functional.image") / name))
    if not path.is_file():
        raise WeightsError(
            f"this version of torchmetrics has no {name}: upgrade it, or pass a weights file that "
            "holds the heads too"
        )
    return read_checkpoint(path)


def _take(
    state: Mapping[str, Tensor], names: Sequence[str], shapes: Sequence[tuple[int, ...]]
) -> list[Tensor]:
    """The heads by name; refuses what is missing, misshapen, negative or not finite."""
    for name, shape in zip(names, shapes, strict=True):
        if name not in state or tuple(state[name].shape) != shape:
            came = tuple(state[name].shape) if name in state else "nothing"
            raise WeightsError(f"the weights must hold {name} of shape {shape}, got {came}")
        if not torch.isfinite(state[name]).all() or (state[name] < 0).any():
            raise WeightsError(f"{name} holds negative or non-finite weights; it is no metric")
    return [state[name].float() for name in names]
