"""`mindgap sr` on a whole scene with every shipped model: seconds, evaluations, memory, tiles.

    python benchmarks/upscale.py    # some ten minutes on 2 cores; writes results/upscale.json

The scene is band B8A of the sample's Sentinel-2 scene. Networks with group normalisation see the
whole of a tile, so tiles leave a trace: `tiles_rms` is how far a part of the scene made by tiles is
from the same part made at once, with the same noise.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lpips_sat import __version__
from lpips_sat.declared import RadiometryOptions
from lpips_sat.sample import scene_file
from lpips_sat.warp import open_image
from sr_models.pipeline import OVERLAP, TILE, SRPipeline
from sr_models.profiles import models
from sr_models.registry import load_model

RESULT = Path(__file__).parent / "results" / "upscale.json"
BAND, PRESET = "B8A", "s2-l1c"
PART = 256  # LR pixels: side of the part, from the middle of the scene, that is made both ways


def main() -> None:
    scene = scene_file(BAND)
    result: dict[str, Any] = {
        "version": __version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 1),
        "tile": TILE,
        "overlap": OVERLAP,
        "part": PART,
        "models": {},
    }
    with open_image(scene, radiometry=RadiometryOptions(PRESET), bands=(BAND,)) as image:
        grid = image.grid
        middle = ((grid.height - PART) // 2, (grid.width - PART) // 2, PART, PART)
        part, _ = image.read(middle)
    result["scene"] = {"width": grid.width, "height": grid.height}
    for model in models():
        name = f"s2-b8-{model}-real"
        result["models"][model] = {**whole(scene, name), "tiles_rms": trace_of_tiles(name, part)}
        print(model, result["models"][model], file=sys.stderr, flush=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


def whole(scene: Path, name: str) -> dict[str, float]:
    """What the command says of a run, and what the run took, the start of Python included."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "lpips_sat.cli.mindgap", "sr", scene]
        options = ["--model", name, "--radiometry", PRESET, "--bands", BAND]
        words = [*command, Path(folder) / "sr.tif", *options]
        process = subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        found = json.loads(process.stdout.read())
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"mindgap sr with {name} failed")
    return {
        "nfe": found["nfe"],
        "seconds": round(found["seconds"], 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_megabytes": round(used.ru_maxrss / 1024),
    }


def trace_of_tiles(name: str, part: np.ndarray) -> float:
    model = load_model(name)
    assert isinstance(model, SRPipeline)
    by_tiles, at_once = (model.by_tiles(part, tile=side) for side in (TILE, PART))
    return float(f"{np.sqrt(np.square(by_tiles - at_once).mean()):.2g}")


if __name__ == "__main__":
    main()
