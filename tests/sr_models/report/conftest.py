"""A table of the experiment whose effects are known, with blocks, trainings and controls."""

from __future__ import annotations

import numpy as np
import pytest

from sr_models.results import CaseResults

BLOCKS, PER_BLOCK, SEEDS = 6, 4, 3
# Mean of each metric in Case I, and what II, III and IV add to it: the truth that pages must show.
PSNR = {
    "bicubic": (32.0, -5.0, -5.0, 0.0),
    "regression": (34.5, -5.6, -0.9, -3.0),
    "sr3": (33.5, -5.2, -1.0, -2.8),
    "flow": (34.0, -5.8, -0.8, -3.2),
    "ceiling": (32.1, 0.0, 0.0, 0.0),
}
# Lower is better; sr3 looks better than regression, though its PSNR is lower.
LOOKS = {
    "bicubic": (0.60, 0.15, 0.15, 0.0),
    "regression": (0.45, 0.12, 0.03, 0.05),
    "sr3": (0.30, 0.16, 0.02, 0.06),
    "flow": (0.38, 0.14, 0.03, 0.05),
    "ceiling": (0.58, 0.0, 0.0, 0.0),
}
FACTS = {
    "psnr": {"unit": "dB", "higher_is_better": True},
    "lpips-sat": {"unit": "", "higher_is_better": False},
}
PATCHES = [(f"r{b}_{i}", f"block {b}") for b in range(BLOCKS) for i in range(PER_BLOCK)]


def centred(rng, scale):
    """Noise (seeds, patches) whose mean is 0."""
    noise = scale * rng.standard_normal((SEEDS, len(PATCHES)))
    return noise - noise.mean()


@pytest.fixture(scope="session")
def results():
    """Values of patch p, training s: truth + scene(p) + noise(s, p), with means exactly the truth."""
    rng = np.random.default_rng(0)
    rows = []
    for metric, truth, scale in (("psnr", PSNR, 1.0), ("lpips-sat", LOOKS, 0.02)):
        scene = centred(rng, 2 * scale)[0]
        scene -= scene.mean()
        for model, (first, *added) in truth.items():
            free = model in ("bicubic", "ceiling")
            for case, change in zip(("I", "II", "III", "IV"), (0.0, *added), strict=True):
                noise = np.zeros((1, len(PATCHES))) if free else centred(rng, 0.2 * scale)
                for seed, values in enumerate(first + change + scene + noise):
                    rows += [
                        row(model, case, seed, metric, patch, block, float(value))
                        for (patch, block), value in zip(PATCHES, values, strict=True)
                    ]
                    if metric == "psnr" and seed == 0:
                        rows += [
                            row(model, case, 0, "nfe", patch, block, 0.0 if free else 10.0)
                            for patch, block in PATCHES
                        ]
    return CaseResults.from_rows(rows, {"metrics": FACTS, "set": {"name": "made-up"}})


def row(model, case, seed, metric, patch, block, value):
    return {
        "model": model,
        "case": case,
        "seed": seed,
        "estimate": "sample",
        "split": "test",
        "patch": patch,
        "block": block,
        "metric": metric,
        "value": value,
    }
