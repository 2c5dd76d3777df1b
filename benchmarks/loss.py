"""LPIPS-Sat as a loss: x4 super-resolution by L1 alone and by L1 + LPIPS-Sat, judged by others.

    python benchmarks/loss.py EuroSAT_RGB.zip    # writes results/loss.json; kept while valid

A small network learns from EuroSAT training chips, brought to a quarter of their size, three seeds
with either loss from the same start on the same batches. The weight of LPIPS-Sat is the largest of
`WEIGHTS` that costs at most `TUNING_COST` dB on chips that neither train nor test. The test is on
held-out chips, by metrics that are not LPIPS-Sat.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rivals import others
from torch import Tensor, nn
from torch.nn import functional as F
from two_afc import numbers

from lpips_sat import LPIPSSat
from lpips_sat.calibration.evaluate import to_batch
from lpips_sat.calibration.patches import read_eurosat
from lpips_sat.functional import psnr
from lpips_sat.stats import bootstrap_mean
from lpips_sat.weights import cards

RESULT = Path(__file__).parent / "results" / "loss.json"
JUDGES = ("LPIPS-alex", "LPIPS-vgg", "DISTS")
# Tried from the largest; in units of a x2 bicubic round trip, beside an L1 of a few hundredths.
WEIGHTS = (0.002, 0.001, 0.0005, 0.00025)
TUNING_COST = 0.2  # dB
ALLOWED_COST = 0.3  # dB


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything but the weights of LPIPS-Sat that decides the outcome."""

    factor: int = 4
    channels: int = 32
    blocks: int = 4
    steps: int = 500
    batch: int = 16
    learning_rate: float = 2e-3
    seeds: tuple[int, ...] = (1, 2, 3)
    tuning_seed: int = 0
    tuning_chips: int = 64
    test_chips: int = 96


class Network(nn.Module):
    """Residual blocks at low resolution, one pixel shuffle, added to the bicubic image."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.factor, width = settings.factor, settings.channels
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1),
            )
            for _ in range(settings.blocks)
        )
        self.tail = nn.Conv2d(width, 3 * self.factor**2, 3, padding=1)

    def forward(self, small: Tensor) -> Tensor:
        x = self.head(small)
        for block in self.blocks:
            x = x + block(x)
        return enlarge(small, self.factor) + F.pixel_shuffle(self.tail(x), self.factor)


def enlarge(small: Tensor, factor: int) -> Tensor:
    return F.interpolate(small, scale_factor=factor, mode="bicubic")


def reduce(image: Tensor, factor: int) -> Tensor:
    return F.interpolate(image, scale_factor=1 / factor, mode="bicubic", antialias=True)


def train(settings: Settings, chips: NDArray[np.uint8], weight: float, seed: int) -> Network:
    """Minimise L1 + `weight` LPIPS-Sat; `seed` decides the start and the batches."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(settings)
    metric, rng = LPIPSSat(radiometry="display"), np.random.default_rng(seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    for _ in range(settings.steps):
        ref = to_batch(chips[rng.integers(len(chips), size=settings.batch)])
        pred = network(reduce(ref, settings.factor))
        loss = F.l1_loss(pred, ref)
        if weight:
            loss = loss + weight * metric(pred.clamp(0, 1), ref).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


@torch.inference_mode()
def restore(network: Network, ref: Tensor) -> Tensor:
    return network(reduce(ref, network.factor)).clamp(0, 1)


def choose(settings: Settings, chips: NDArray[np.uint8]) -> tuple[float, dict[str, Any]]:
    """The weight, and the mean PSNR on tuning chips that led to it."""
    tuning, training = np.split(chips, [settings.tuning_chips])
    ref, found = to_batch(tuning), {}
    for weight in (0.0, *WEIGHTS):
        network = train(settings, training, weight, settings.tuning_seed)
        found[weight] = float(psnr(restore(network, ref), ref, data_range=1.0).mean())
        print(f"tuning: weight {weight}: {found[weight]:.3f} dB", flush=True)
        if weight and found[0.0] - found[weight] <= TUNING_COST:
            break
    return weight, {"psnr": {str(w): round(v, 3) for w, v in found.items()}}


def run(settings: Settings, eurosat: Path, cache: Path) -> dict[str, Any]:
    chips = read_eurosat(eurosat).images
    chips = np.random.default_rng(0).permutation(chips)
    weight, tuning = choose(settings, chips)
    held_out = np.random.default_rng(0).permutation(read_eurosat(eurosat, held_out=True).images)
    ref = to_batch(held_out[: settings.test_chips])
    judges = {name: others(cache / "peers")[name].build() for name in JUDGES}

    def judge(pred: Tensor) -> dict[str, NDArray[np.float64]]:
        parts = list(zip(pred.split(16), ref.split(16), strict=True))
        with torch.inference_mode():
            found = {
                name: torch.cat([judge(p, r).double() for p, r in parts]).numpy()
                for name, judge in judges.items()
            }
        return {"PSNR": psnr(pred, ref, data_range=1.0).numpy(), **found}

    arms: dict[str, list[dict[str, NDArray[np.float64]]]] = {"L1": [], "L1 + LPIPS-Sat": []}
    training = chips[settings.tuning_chips :]
    for seed in settings.seeds:
        for name, share in zip(arms, (0.0, weight), strict=True):
            began = time.perf_counter()
            arms[name].append(judge(restore(train(settings, training, share, seed), ref)))
            print(f"seed {seed}, {name}: {time.perf_counter() - began:.0f} s", flush=True)
    bicubic = judge(enlarge(reduce(ref, settings.factor), settings.factor).clamp(0, 1))
    return {"weight": weight, "tuning": tuning, **summary(arms, bicubic)}


def summary(
    arms: dict[str, list[dict[str, NDArray[np.float64]]]], bicubic: dict[str, NDArray[np.float64]]
) -> dict[str, Any]:
    """Means per seed, and the paired change with its interval over chips."""
    plain, perceptual = arms.values()
    change = {
        judge: numbers(
            bootstrap_mean(
                np.mean([b[judge] - a[judge] for a, b in zip(plain, perceptual, strict=True)], 0)
            )
        )
        for judge in bicubic
    }
    return {
        "bicubic": {judge: round(float(v.mean()), 4) for judge, v in bicubic.items()},
        "per_seed": {
            name: {judge: [round(float(r[judge].mean()), 4) for r in runs] for judge in bicubic}
            for name, runs in arms.items()
        },
        "change": change,
        "holds": change["PSNR"]["mean"] >= -ALLOWED_COST
        and all(change[judge]["high"] < 0 for judge in JUDGES),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="LPIPS-Sat as a loss; see the module.")
    parser.add_argument("eurosat", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("runs/evidence"))
    given = parser.parse_args()
    settings = Settings()
    valid_for = json.loads(
        json.dumps(
            {"weights": cards()["default"]["sha256"], "settings": dataclasses.asdict(settings)}
        )
    )
    if RESULT.exists():
        kept = json.loads(RESULT.read_text())
        if {key: kept.get(key) for key in valid_for} == valid_for:
            print(f"{RESULT} is of these weights and settings already")
            return
    result = valid_for | run(settings, given.eurosat, given.cache)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
