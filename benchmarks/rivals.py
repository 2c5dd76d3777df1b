"""Every distance of the evidence, by name, and their scores with a cache on disk.

A distance maps two display batches (N, 3, H, W) in [0, 1] to (N,), smaller = closer. The peers
carry their published weights (see `peers.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import peers
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from lpips_sat import LPIPSSat
from lpips_sat.backbones import build_backbone
from lpips_sat.functional import rmse, ssim
from lpips_sat.weights import cards

Distance = Callable[[Tensor, Tensor], Tensor]
EQUAL, RANDOM = "LPIPS-Sat, all channels weighing alike", "LPIPS-Sat, random weights"
NETWORKS = {
    "LPIPS-alex": "lpips-alex",
    "LPIPS-vgg": "lpips-vgg",
    "ST-LPIPS-alex": "st-lpips-alex",
    "ST-LPIPS-vgg": "st-lpips-vgg",
    "DISTS": "dists",
}
# Wang et al. 2003 weigh five scales; 64 px carry three, whose weights are made to sum to 1.
SCALES = np.array([0.0448, 0.2856, 0.3001])
BATCH = 32


@dataclass(frozen=True)
class Rival:
    """A distance that is built when it is needed; `version` changes whenever its scores do."""

    build: Callable[[], Distance]
    version: str


def ours() -> dict[str, Rival]:
    """The shipped weights, the default ones first, and two controls made of them."""
    hashes = {name: card["sha256"] for name, card in cards().items()}
    found = {
        title(name): Rival(lambda name=name: LPIPSSat(name, radiometry="display"), digest)
        for name, digest in sorted(hashes.items())
    }
    found[EQUAL] = Rival(equal_weights, hashes["default"])
    found[RANDOM] = Rival(random_weights, hashes["default"])
    return found


def title(name: str) -> str:
    return "LPIPS-Sat" if name == "default" else f"LPIPS-Sat `{name}`"


def equal_weights() -> LPIPSSat:
    return LPIPSSat(LPIPSSat(radiometry="display").backbone, radiometry="display")


def random_weights() -> LPIPSSat:
    """The default architecture as it starts, before it learned anything; channels weigh alike."""
    config = LPIPSSat().config
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = build_backbone(config["backbone"], config["backbone_config"])
    return LPIPSSat(backbone, radiometry="display")


def others(folder: Path) -> dict[str, Rival]:
    """The peers, simple ones first. RMSE orders images as PSNR does."""
    simple = {"PSNR": _psnr, "SSIM": _ssim, "MS-SSIM": _ms_ssim}
    found = {name: Rival(lambda of=of: of, "1") for name, of in simple.items()}
    for name, file in NETWORKS.items():
        found[name] = Rival(lambda file=file: load_peer(file, folder), "1")
    return found


def load_peer(file: str, folder: Path) -> nn.Module:
    return peers.load(file, peers.fetch(folder)).eval()


def _psnr(pred: Tensor, ref: Tensor) -> Tensor:
    return rmse(pred, ref)


def _ssim(pred: Tensor, ref: Tensor) -> Tensor:
    return 1 - ssim(pred, ref, data_range=1.0)


def _ms_ssim(pred: Tensor, ref: Tensor) -> Tensor:
    weights = tuple(SCALES / SCALES.sum())
    return 1 - multiscale_structural_similarity_index_measure(
        pred, ref, data_range=1.0, betas=weights, normalize="relu", reduction="none"
    ).reshape(-1)


def scores(name: str, rival: Rival, pred: Tensor, ref: Tensor, cache: Path) -> NDArray[np.float64]:
    """The distance of every pair (n,); computed once for the same images and weights."""
    digest = hashlib.sha256(f"{name} {rival.version} {tuple(pred.shape)}".encode())
    for images in (pred, ref):
        digest.update(images.contiguous().numpy().tobytes())
    path = cache / f"{digest.hexdigest()[:24]}.npy"
    if not path.exists():
        distance, parts = rival.build(), []
        with torch.inference_mode():
            for start in range(0, len(pred), BATCH):
                rows = slice(start, start + BATCH)
                parts.append(distance(pred[rows], ref[rows]).double())
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, torch.cat(parts).numpy())
    return np.load(path)
