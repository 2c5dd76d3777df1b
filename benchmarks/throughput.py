"""LPIPS-Sat beside LPIPS with AlexNet and VGG16, and `score` on a 4000 x 4000 px pair: one run.

    python benchmarks/throughput.py    # minutes on 2 cores; writes results/throughput.json

Throughput does not depend on weight values, so the peers' trunks are torchvision's, untrained. The
networks take turns within each round; ratios are medians over rounds. Peak memory is that of one
forward pass in a process of its own, beyond what the process held before; the median of as many.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from lpips_sat import LPIPSSat, __version__
from lpips_sat.backbones.features import unit_vectors
from lpips_sat.raster import grid_of, read_on, write_raster
from lpips_sat.sample import make_sample

RESULT = Path(__file__).parent / "results" / "throughput.json"
ROUNDS = 7
MEMORY_SIDE = 1024
SHAPES = {"256 px, batch 8": (8, 3, 256, 256), "1024 px, batch 1": (1, 3, 1024, 1024)}
# Zhang et al. 2018 compare after the ReLUs of AlexNet's five and after VGG16's five blocks.
TAPS = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}


class PlainLpips(nn.Module):
    """LPIPS as published: trunk, unit vectors, squared difference, 1 x 1 head, spatial mean."""

    def __init__(self, net: str) -> None:
        super().__init__()
        models = {"alex": torchvision.models.alexnet, "vgg": torchvision.models.vgg16}
        self.trunk = models[net](weights=None).features[: TAPS[net][-1] + 1]
        self.taps = TAPS[net]
        self.requires_grad_(False).eval()

    def features(self, x: Tensor) -> list[Tensor]:
        found = []
        for index, layer in enumerate(self.trunk):
            x = layer(x)
            if index in self.taps:
                found.append(x)
        return found

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        pairs = zip(self.features(x), self.features(y), strict=True)
        return sum(
            (unit_vectors(f) - unit_vectors(g)).square().mean((2, 3)).sum(1) for f, g in pairs
        )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "LPIPS-Sat": lambda: LPIPSSat(radiometry="display"),
    "LPIPS-alex": lambda: PlainLpips("alex"),
    "LPIPS-vgg": lambda: PlainLpips("vgg"),
}


def main() -> None:
    if sys.argv[1:2] == ["--memory"]:
        print(peak_megabytes(NETWORKS[sys.argv[2]]()))
        return
    # Children first: on Linux a child's peak memory is never below its parent's.
    score, memory = score_scene(), {name: measure_memory(name) for name in NETWORKS}
    torch.manual_seed(0)
    networks = {name: build() for name, build in NETWORKS.items()}
    result = {
        "version": __version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "rounds": ROUNDS,
        "load_before": round(os.getloadavg()[0], 1),
        "forward": {name: compare(networks, shape) for name, shape in SHAPES.items()},
        "forward_peak_megabytes": {"pixels": MEMORY_SIDE**2, **memory},
        "score": score,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(RESULT.read_text())


def compare(networks: dict[str, nn.Module], shape: tuple[int, ...]) -> dict[str, dict[str, float]]:
    x, y = torch.rand(shape), torch.rand(shape)
    megapixels = shape[0] * shape[2] * shape[3] / 1e6
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    with torch.inference_mode():
        for round_ in range(ROUNDS + 1):  # the first warms up
            for name, network in networks.items():
                began = time.perf_counter()
                network(x, y)
                if round_:
                    seconds[name].append(time.perf_counter() - began)
    ours = seconds["LPIPS-Sat"]
    return {
        name: {
            "megapixels_per_second": round(megapixels / statistics.median(times), 3),
            "lpips_sat_is_faster_by": round(
                statistics.median(t / o for t, o in zip(times, ours, strict=True)), 2
            ),
        }
        for name, times in seconds.items()
    }


def measure_memory(name: str) -> int:
    """Peak MB of one forward pass of a network, each in a process of its own: the median."""
    command = [sys.executable, __file__, "--memory", name]
    found = [
        int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(ROUNDS)
    ]
    return round(statistics.median(found))


def peak_megabytes(network: nn.Module) -> int:
    x, y = torch.rand(2, 1, 3, MEMORY_SIDE, MEMORY_SIDE)
    held = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    with torch.inference_mode():
        network(x, y)
    # VmHWM: ru_maxrss of a child is never below that of the process that started it
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return round((int(status["VmHWM"].split()[0]) * 1024 - held) / 1e6)


def score_scene() -> dict[str, float]:
    """The sample repeated to 4000 x 4000 px, 4 bands, scored by the command in its own process."""
    with tempfile.TemporaryDirectory() as folder:
        paths = enlarge(Path(folder))
        command = [sys.executable, "-c", CHILD, *map(str, paths)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    return json.loads(done.stdout)


# Runs the command line in a child, so that the peak memory is the command's own.
CHILD = """
import json, resource, sys, io, contextlib
from lpips_sat.cli import main
out = io.StringIO()
with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
    main(["score", *sys.argv[1:], "--json"])
found = json.loads(out.getvalue())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"pixels": found["pixels"], "bands": len(found["bands"]),
    "metrics": [s["name"] for s in found["scores"]], "seconds": round(found["seconds"], 1),
    "megapixels_per_second": round(found["pixels"] / 1e6 / found["seconds"], 3),
    "peak_megabytes": round(peak)}))
"""


def enlarge(folder: Path, side: int = 4000) -> list[Path]:
    make_sample(folder / "sample")
    paths = []
    for name in ("pred", "ref"):
        path = folder / "sample" / "rgbn" / f"{name}.tif"
        grid = grid_of(path)
        once = read_on(path, grid)
        repeats = -(-side // once.shape[1])
        large = np.tile(once, (1, repeats, repeats))[:, :side, :side]
        paths.append(folder / f"{name}.tif")
        write_raster(
            paths[-1],
            large,
            grid.window(0, 0, side, side),
            bands=("B04", "B03", "B02", "B08"),
            scale=1e-4,
            offset=0.0,
            nodata=0,
            description="the sample, repeated",
            tags={},
        )
    return paths


if __name__ == "__main__":
    main()
