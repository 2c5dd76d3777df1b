"""What the tests of the models share: toy pairs, and networks small enough for a test."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from sr_models.network import build_unet
from sr_models.pipeline import SRPipeline
from sr_models.profiles import Profile, load_profile

NODES = {  # entries of the reference values: process, steps, parameters
    "sr3_cosine_T1000": ("sr3", 1000, {"schedule": "cosine"}),
    "sr3_linear_T2000": ("sr3", 2000, {}),
    "resshift_T15_k2_p0.3_min0.04": ("resshift", 15, {}),
    "resshift_T4_k2_p0.3_min0.2": ("resshift", 4, {"min_noise_level": 0.2}),
    "i2sb_N1000_betamax0.3": ("i2sb", 1000, {}),
    "unidb_T100_lam30_eps0.005_ginv1e-7": ("unidb", 100, {}),
    "flow_T1000": ("flow", 1000, {}),
}
TINY = {"widths": [16, 16], "layers": 1, "unshuffle": 2, "norm_num_groups": 8}


class ToyPairs:
    """Smooth random reflectance, and its mean over 2 x 2 pixels."""

    bands = ("B08",)

    def __init__(self, count: int = 8, side: int = 48) -> None:
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand(count, 1, side // 4, side // 4, generator=generator)
        self.hr = 0.4 * F.interpolate(coarse, scale_factor=4.0, mode="bicubic").clamp(0, 1)
        self.lr = F.avg_pool2d(self.hr, 2)

    def __len__(self) -> int:
        return len(self.hr)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"lr": self.lr[index], "hr": self.hr[index]}


@pytest.fixture(scope="session")
def toy() -> ToyPairs:
    return ToyPairs()


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Profile]:
    """A model of the small profile on a tiny network, trained for a few steps."""

    def make(model: str, name: str = "small", **train: Any) -> Profile:
        short = {"steps": 6, "batch": 2, "crop": 16, "warmup": 2, "checkpoint_every": 3}
        short |= {"discriminator": (8, 8), "precision": "no", "looks": 1}
        profile = load_profile(model, name, {**short, **train})
        return dataclasses.replace(profile, network=TINY)

    return make


@pytest.fixture(scope="session")
def pipeline(tiny: Callable[..., Profile]) -> Callable[..., SRPipeline]:
    """An untrained pipeline whose network does something."""

    def make(model: str = "resshift", *, bands: tuple[str, ...] = ("B08",), **options: Any) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            unet = build_unet(len(bands), **TINY).eval()
            torch.nn.init.normal_(unet.conv_out.weight, std=0.05)
        return SRPipeline(unet, tiny(model).make_scheduler(), bands=bands, **options)

    return make
