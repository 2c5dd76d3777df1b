"""A full Sentinel-2 tile through `lpips-sat score`: time, memory, growth with size, two workers.

    python benchmarks/scene.py        # tens of minutes on 2 cores; writes results/scene.json
    python benchmarks/scene.py 1024   # the same up to 1024 px in a minute or two; writes nothing

The pair is the sample's true colours, mirrored to the size wanted. Every run is a process of its
own with one thread. CPU time is the measure where other programs share the machine, as `load` says.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
import torch
from throughput import NETWORKS
from torch import Tensor, nn

from lpips_sat import LPIPSSat, __version__, open_pair, tiled
from lpips_sat.pair import Tile
from lpips_sat.raster import grid_of
from lpips_sat.sample import make_sample

RESULT = Path(__file__).parent / "results" / "scene.json"
FULL = 10_980  # px: a Sentinel-2 tile at 10 m
SIZES = 4  # each twice as wide as the one before
TILES = (1, 8, 15)  # of 768 px, on which networks are compared
ROUNDS = 3
BANDS = ("B04", "B03", "B02")

# One run of the command in a process of its own. Workers' times and peaks are the children's.
CHILD = """
import io, json, os, resource, sys, time
from contextlib import redirect_stdout, suppress
from pathlib import Path
from lpips_sat import scoring
from lpips_sat.cli import main
if os.environ.get("READ_AHEAD") == "no":
    scoring.read_ahead = lambda items: (item for item in items)
began = time.perf_counter()
out = io.StringIO()
with redirect_stdout(out), suppress(SystemExit):
    main(["score", *sys.argv[1:], "--json"])
wall = time.perf_counter() - began
found = json.loads(out.getvalue())
own, others = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
peak = int(status["VmHWM"].split()[0])  # ru_maxrss of a child is never below that of its parent
print(json.dumps({
    "wall_seconds": round(wall, 1),
    "cpu_seconds": round(sum(u.ru_utime + u.ru_stime for u in (own, others)), 1),
    "peak_megabytes": round(max(peak, others.ru_maxrss) / 1024),
    "metrics": [s["name"] for s in found.get("scores", [])] or list(found["metrics"]),
}))
"""


def main() -> None:
    largest = int(sys.argv[1]) if sys.argv[1:] else FULL
    sides = [round(largest / 2**k) for k in reversed(range(SIZES))]
    RESULT.parent.mkdir(exist_ok=True)
    result = {
        "version": __version__,
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": 1,
        "bands": len(BANDS),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_sample(folder / "sample")
        half = enlarge(folder, sides[-2])
        result["read_ahead"] = compare_reading(half)
        result["workers"] = {str(n): run(half, "--workers", str(n)) for n in (1, 2)}
        result["tiles"] = compare_networks(half)
        remove(half)
        result["sizes"] = {}
        for side in sides:
            pair = enlarge(folder, side)
            result["sizes"][str(side)] = run(pair)
            remove(pair)
            print(side, result["sizes"][str(side)], file=sys.stderr, flush=True)
        result["slope"] = slope(result["sizes"])
    text = json.dumps(result, indent=2)
    if largest == FULL:
        RESULT.write_text(text + "\n")
    print(text)


def run(pair: list[Path], *args: str, read_ahead: bool = True) -> dict[str, float]:
    env = os.environ | {"OMP_NUM_THREADS": "1", "READ_AHEAD": "yes" if read_ahead else "no"}
    load = os.getloadavg()[0]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, pair), *args],
        check=True,
        capture_output=True,
        text=True,
        env=env,
    )
    return {**json.loads(done.stdout), "load": round((load + os.getloadavg()[0]) / 2, 1)}


def slope(sizes: dict[str, dict[str, float]]) -> float:
    """Of log CPU time over log pixels; what starting takes is that of a line through the ends."""
    pixels = np.array([int(side) ** 2 for side in sizes], dtype=float)
    seconds = np.array([row["cpu_seconds"] for row in sizes.values()])
    per_pixel = (seconds[-1] - seconds[0]) / (pixels[-1] - pixels[0])
    start = max(0.0, seconds[0] - per_pixel * pixels[0])
    return round(float(np.polyfit(np.log(pixels), np.log(seconds - start), 1)[0]), 3)


def compare_reading(pair: list[Path]) -> dict[str, float]:
    """Wall time with and without reading ahead, medians; the metrics are cheap, reading is not."""
    runs: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(ROUNDS):
        for ahead in runs:
            found = run(pair, "--metrics", "mae,psnr,sam", read_ahead=ahead)
            runs[ahead].append(found["wall_seconds"])
    whole = {ahead: run(pair, read_ahead=ahead)["wall_seconds"] for ahead in runs}
    return {
        "cheap_metrics_seconds": statistics.median(runs[True]),
        "cheap_metrics_seconds_without": statistics.median(runs[False]),
        "default_suite_seconds": whole[True],
        "default_suite_seconds_without": whole[False],
    }


def compare_networks(pair: list[Path]) -> dict[str, dict[str, float]]:
    """LPIPS-Sat, LPIPS with AlexNet and VGG16, and SSIM on the same tiles, taking turns.

    "in score" is what the command does: with the mask, and the halo left out.
    """
    torch.set_num_threads(1)
    in_score = {"LPIPS-Sat": LPIPSSat(bands=BANDS).sums, "SSIM": tiled.ssim(data_range=1.0).sums}
    scorers: dict[str, Callable[[Tile], Tensor]] = {
        **{name: forward(build()) for name, build in NETWORKS.items()},
        **{f"{name} in score": masked(sums) for name, sums in in_score.items()},
    }
    with open_pair(*pair) as opened:
        tiles = [t for i, t in enumerate(opened.tiles(size=768, halo=96)) if i in TILES]
    spent: dict[str, list[float]] = {name: [] for name in scorers}
    with torch.inference_mode():
        for number in range(ROUNDS + 1):  # the first warms up
            for name, scorer in scorers.items():
                if name == "LPIPS-vgg" and number > 1:
                    continue  # minutes each
                began = time.process_time()
                for tile in tiles:
                    scorer(tile)
                if number:
                    spent[name].append(time.process_time() - began)
    megapixels = sum(math.prod(tile.pred.shape[-2:]) for tile in tiles) / 1e6
    return {
        name: {"cpu_seconds_per_megapixel": round(statistics.median(times) / megapixels, 2)}
        for name, times in spent.items()
    }


def forward(network: nn.Module) -> Callable[[Tile], Tensor]:
    return lambda tile: network(tile.pred, tile.ref)


def masked(sums: Callable[..., Tensor]) -> Callable[[Tile], Tensor]:
    return lambda tile: sums(tile.pred, tile.ref, valid=tile.valid, core=tile.core)


def enlarge(folder: Path, side: int) -> list[Path]:
    """Mirror the sample's pair to side x side px, strip by strip."""
    paths = []
    for name in ("pred", "ref"):
        source = folder / "sample" / "rgbn" / f"{name}.tif"
        with rasterio.open(source) as src:
            once = src.read([1, 2, 3])
        paths.append(folder / f"{name}-{side}.tif")
        size = once.shape[1]
        column = mirrored(np.arange(side), size)
        with rasterio.open(
            paths[-1], "w", driver="GTiff", width=side, height=side, count=3, dtype="uint16",
            crs=grid_of(source).crs, transform=grid_of(source).transform, nodata=0, tiled=True,
            blockxsize=512, blockysize=512, compress="deflate", predictor=2,
        ) as dst:  # fmt: skip
            dst.descriptions, dst.scales = BANDS, (1e-4,) * 3
            for row in range(0, side, 512):
                rows = mirrored(np.arange(row, min(row + 512, side)), size)
                strip = once[:, rows][:, :, column]
                dst.write(strip, window=((row, row + len(rows)), (0, side)))
    return paths


def mirrored(index: np.ndarray, size: int) -> np.ndarray:
    """Positions of 0, 1, ..., in an image that is unfolded again and again: 0 1 2 2 1 0 0 1 ..."""
    turn = index % (2 * size)
    return np.minimum(turn, 2 * size - 1 - turn)


def remove(paths: list[Path]) -> None:
    for path in paths:
        path.unlink()


if __name__ == "__main__":
    main()
