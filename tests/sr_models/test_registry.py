from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, EntryPoints
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lpips_sat import LpipsSatError
from sr_models import registry
from sr_models.pipeline import SRPipeline


class Nearest:
    def upscale(self, lr, scale):
        return lr.repeat(scale, 1).repeat(scale, 2)


@pytest.fixture
def install(monkeypatch):
    """Register a model, as an installed package would."""

    def add(**objects):
        monkeypatch.setitem(sys.modules, "another_package", SimpleNamespace(**objects))
        points = [EntryPoint(k, f"another_package:{k}", registry.GROUP) for k in objects]
        monkeypatch.setattr(
            registry, "entry_points", lambda **wanted: EntryPoints(points).select(**wanted)
        )

    return add


def test_bicubic_is_a_model():
    lr = np.random.default_rng(0).random((3, 9, 11)).astype(np.float32)
    want = F.interpolate(torch.from_numpy(lr)[None], scale_factor=3, mode="bicubic")
    np.testing.assert_array_equal(registry.load_model("bicubic").upscale(lr, 3), want[0])


@pytest.mark.parametrize("inner", ["", "pipeline"])
def test_a_folder_is_a_model(pipeline, tmp_path, inner):
    pipeline().save_pretrained(tmp_path / inner)
    loaded = registry.load_model(tmp_path)
    assert isinstance(loaded, SRPipeline)
    lr = np.full((1, 8, 8), 0.2, np.float32)
    np.testing.assert_array_equal(loaded.upscale(lr, 2), pipeline().upscale(lr, 2))


def test_a_checkpoint_is_found_by_name(pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "CHECKPOINTS", tmp_path)
    pipeline().save_pretrained(tmp_path / "resshift-toy")
    assert registry.names()["resshift-toy"] == "checkpoint"
    card = {"data": "s2-b8", "steps": 2500, "seed": 0, "pairs": "0123"}
    pipeline(card=card).save_pretrained(tmp_path / "told")
    assert registry.names()["told"] == "checkpoint: data s2-b8, steps 2500, seed 0"
    assert isinstance(registry.load_model("resshift-toy"), SRPipeline)


def test_a_model_of_another_package(install):
    install(nearest=Nearest, broken=dict)
    assert registry.names()["nearest"] == "another_package:nearest"
    assert registry.load_model("nearest").upscale(np.ones((1, 2, 2)), 2).shape == (1, 4, 4)
    with pytest.raises(LpipsSatError, match="has no upscale"):
        registry.load_model("broken")


def test_what_is_no_model_is_one_clear_line(tmp_path, pipeline):
    with pytest.raises(LpipsSatError, match="no model 'swinir': expected a folder, or one of bic"):
        registry.load_model("swinir")
    with pytest.raises(LpipsSatError, match="training run that has ended"):
        registry.load_model(tmp_path)
    pipeline().save_pretrained(tmp_path)
    (tmp_path / "unet" / "config.json").unlink()
    with pytest.raises(LpipsSatError, match="cannot load the model in") as caught:
        registry.load_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_in_several_files_or_in_a_pickle_are_refused(pipeline, tmp_path):
    model = pipeline()
    model.save_pretrained(tmp_path)
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    index = weights.with_name(f"{weights.name}.index.json")
    index.write_text('{"metadata": {}, "weight_map": {}}')
    with pytest.raises(LpipsSatError, match="splits the weights over several files"):
        registry.load_model(tmp_path)
    index.unlink()
    registry.load_model(tmp_path)
    torch.save(model.unet.state_dict(), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(LpipsSatError, match=r"holds no unet.diffusion_pytorch_model\.safetensors"):
        registry.load_model(tmp_path)


def test_a_plugin_with_the_name_of_a_built_in_model_is_told_and_not_run(install):
    install(bicubic=Nearest)
    assert registry.names()["bicubic"] == (
        "control; not another_package:bicubic, which has the same name"
    )
    assert isinstance(registry.load_model("bicubic"), registry.Bicubic)


def test_what_a_plugin_raises_is_told_with_its_name(install):
    def broken():
        raise RuntimeError("no licence")

    class Failing:
        def upscale(self, lr, scale):
            raise ValueError("oops")

    install(broken=broken, failing=Failing)
    said = "model 'broken' of another_package:broken failed .RuntimeError: no licence"
    with pytest.raises(LpipsSatError, match=said):
        registry.load_model("broken")
    model = registry.load_model("failing")
    with pytest.raises(LpipsSatError, match=r"another_package:failing failed .ValueError: oops"):
        model.upscale(np.zeros((1, 4, 4), np.float32), 2)
