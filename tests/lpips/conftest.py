"""What the tests of LPIPS-Sat share."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from torch import Tensor
from torch.nn import functional as F

from lpips_sat import LPIPSSat

RGB = ("B04", "B03", "B02")
JUNK = [math.nan, math.inf, -math.inf, 0.0, 1e9, -1e9]
TINY = {"widths": [6, 8, 10], "depth": 1}


def make_tiny(**kwargs: object) -> LPIPSSat:
    """A small untrained pyramid with random biases and non-negative heads, some of them 0."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        metric = LPIPSSat("pyramid", backbone_config=TINY, **kwargs)
        for name, parameter in metric.backbone.named_parameters():
            if name.endswith("bias"):  # 0 would leave positions without any response
                parameter.copy_(torch.rand(parameter.shape).mul(0.2))
        for head in metric.heads:
            head.copy_(torch.rand(len(head)).sub(0.2).clamp(min=0))
    return metric


@pytest.fixture(params=["default", "tiny"])
def metric(request: pytest.FixtureRequest) -> LPIPSSat:
    return LPIPSSat() if request.param == "default" else make_tiny()


@pytest.fixture
def tiny() -> LPIPSSat:
    return make_tiny()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network and nothing cached, whatever the machine holds."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty-cache"))


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def land(n: int = 2, height: int = 64, width: int = 64, *, bands: int = 3, seed: int = 0) -> Tensor:
    """Reflectance of soft blobs with fine texture, 0.02 to 0.3."""
    coarse = torch.rand(n, bands, height // 8 + 2, width // 8 + 2, generator=rng(seed))
    smooth = F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    fine = torch.rand(n, bands, height, width, generator=rng(seed + 1))
    return 0.02 + 0.2 * smooth + 0.08 * fine


def pair(
    n: int = 2, height: int = 64, width: int = 64, *, bands: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Land and a noisier copy: what super-resolution might deliver."""
    ref = land(n, height, width, bands=bands, seed=seed)
    noise = torch.randn(ref.shape, generator=rng(seed + 2))
    return (ref + 0.02 * noise).clamp(min=0), ref


def left_half(valid_from: int, like: Tensor) -> Tensor:
    """True from column `valid_from` on."""
    valid = torch.ones(like.shape[0], 1, *like.shape[2:], dtype=torch.bool)
    valid[..., :valid_from] = False
    return valid


def layer_maps(metric: LPIPSSat, shown: list[Tensor], size: tuple[int, int]) -> np.ndarray:
    """Float64 (L, N, H, W) from what the network is shown, in numpy; pixel i is at i // stride."""
    with torch.no_grad():
        x, y = (metric.backbone(image) for image in shown)
    maps = []
    for a, b, head, stride in zip(x, y, metric.heads, metric.strides, strict=True):
        a, b = (f.double().numpy() for f in (a, b))
        a, b = (f / np.sqrt((f**2).sum(axis=1, keepdims=True) + 1e-8) for f in (a, b))
        distance = np.einsum("c,nchw->nhw", head.double().numpy(), (a - b) ** 2)
        grown = np.empty((len(distance), *size))
        for row, column in np.ndindex(size):
            at = (
                min(row // stride, distance.shape[1] - 1),
                min(column // stride, distance.shape[2] - 1),
            )
            grown[:, row, column] = distance[:, *at]
        maps.append(grown)
    return np.stack(maps)


def display(image: Tensor) -> Tensor:
    """Reflectance over 0.275; above white, 1 + log."""
    values = image.numpy().astype(np.float64) / 0.275
    shown = np.where(values > 1, 1 + np.log(np.maximum(values, 1)), values)
    return torch.from_numpy(shown.astype(np.float32))
