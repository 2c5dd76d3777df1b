"""What the tests of the experiment share: two small sets, and rows of a table."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
import rasterio
from torch.nn import functional as F

from sr_models import training
from sr_models.data.build import Source, build_pairs
from sr_models.data.pairs import PairDataset
from sr_models.data.tiles import Layout
from sr_models.experiment.evaluate import Asked, evaluate

SHORT = {"steps": 2, "batch": 2, "crop": 16, "warmup": 1}
PLACE = ["model", "case", "seed", "estimate", "split", "patch", "metric"]


@pytest.fixture(scope="session")
def truth(put, textured, tmp_path_factory):
    """A set whose LR images are made of HR by the degradation itself, with noise of their own."""
    folder = tmp_path_factory.mktemp("set")
    hr = textured(1, 320, 320, seed=4).astype(np.float32)
    hr[:, 240:, 240:] = 0.1  # water
    sources = [
        Source(put(folder / f"{band}.tif", image, bands=(band,), pixel=gsd), bands=(band,))
        for band, image, gsd in (("B8A", hr[:, ::2, ::2], 20), ("B08", hr, 10))
    ]
    layout = Layout(tile=64, block=1, margin=16, min_texture=1e-4, shares=(0.4, 0.2, 0.4))
    build_pairs(*sources, folder / "toy", layout=layout, sun_zenith=40)
    for split in ("train", "val", "test", "test_untextured"):
        for item in PairDataset(folder / "toy", split, "synthetic", seed=1):
            rewrite(folder / "toy" / "lr" / f"{item['id']}.tif", item["lr"].numpy())
    return folder / "toy"


@pytest.fixture(scope="session")
def brighter(truth, tmp_path_factory):
    """The same, but the other sensor sees everything 10 % brighter."""
    folder = tmp_path_factory.mktemp("brighter") / "toy"
    shutil.copytree(truth, folder)
    for item in PairDataset(truth, "test"):
        rewrite(folder / "lr" / f"{item['id']}.tif", 1.1 * item["lr"].numpy())
    return folder


@pytest.fixture
def run(truth, tmp_path):
    """Evaluate in a folder of this test's own."""

    def call(*models, root=truth, out=None, watch=None, overwrite=False, **asked):
        known = {"metrics": ("psnr",), "changes": SHORT, "runs": tmp_path / "runs", "device": "cpu"}
        asked = Asked(models, **{**known, **asked})
        target = out or tmp_path / "results" / "r.parquet"
        return evaluate(root, target, asked, watch=watch, overwrite=overwrite)

    return call


@pytest.fixture
def untrainable(monkeypatch):
    """From here on nothing may be trained."""

    def fail(*_, **__):
        raise AssertionError("trained")

    return lambda: monkeypatch.setattr(training, "train", fail)


def rewrite(path, values):
    with rasterio.open(path, "r+") as dst:
        dst.write(values)


def values_of(results, **wanted):
    """Values by patch of the rows that are wanted."""
    table = results.table
    for name, value in ({"split": "test", "estimate": "sample", "metric": "psnr"} | wanted).items():
        table = table[table[name] == value]
    return table.set_index("patch")["value"]


def without_cost(results):
    table = results.table[results.table["metric"] != "seconds"]
    return table.sort_values(PLACE).reset_index(drop=True)


def psnr(image, hr):
    """In dB, for a peak of 0.6 reflectance."""
    return 10 * math.log10(0.36 / float(((image.double() - hr.double()) ** 2).mean()))


def bicubic(lr):
    return F.interpolate(lr[None], scale_factor=2, mode="bicubic")[0]
