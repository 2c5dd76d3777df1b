"""How close a rebuilt satellite-2afc v1 comes to the released images, by kind of distortion.

python benchmarks/rebuild.py RELEASED REBUILT   # folders with images.npz; writes the result file
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

RESULT = Path(__file__).parent / "results" / "rebuild.json"


def psnr(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    """PSNR in dB of uint8 images (n, H, W, 3), capped at 100 dB where they are equal."""
    error = np.square(image.astype(np.float64) - other).mean(axis=(1, 2, 3))
    return 10 * np.log10(255**2 / np.maximum(error, 255**2 / 1e10))


def main(released: Path, rebuilt: Path) -> None:
    trials = pd.read_csv(rebuilt / "trials.csv")
    ids = trials["id"].to_numpy()
    with np.load(released / "images.npz") as theirs, np.load(rebuilt / "images.npz") as ours:
        ref = theirs["ref"][ids]
        exact_ref = float((ours["ref"][ids] == ref).all(axis=(1, 2, 3)).mean())
        sides = [(side, theirs[side][ids], ours[side][ids]) for side in "ab"]
    table = pd.concat(
        pd.DataFrame(
            {
                "kind": trials[f"distortion_{side}"],
                "same": (old == new).all(axis=(1, 2, 3)),
                "to_released": psnr(new, old),
                "released": psnr(old, ref),
                "rebuilt": psnr(new, ref),
            }
        )
        for side, old, new in sides
    )
    kinds = {
        str(kind): {
            "sides": len(rows),
            "identical": round(float(rows["same"].mean()), 3),
            "psnr_to_released": round(float(rows["to_released"].median()), 1),
            "psnr_of_released": round(float(rows["released"].median()), 1),
            "psnr_of_rebuilt": round(float(rows["rebuilt"].median()), 1),
        }
        for kind, rows in table.groupby("kind")
    }
    found = {"trials": len(trials), "references_identical": exact_ref, "kinds": kinds}
    RESULT.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
