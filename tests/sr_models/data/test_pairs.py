from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
import torch
from torch.utils.data import DataLoader

from sr_models.data.build import Source, build_pairs
from sr_models.data.degradation import Bicubic, Blind, Physical
from sr_models.data.errors import DegradationError, PairError
from sr_models.data.pairs import PairDataset
from tests.sr_models.data.conftest import SMALL


@pytest.fixture(scope="module")
def root(tmp_path_factory, scene):
    """A set whose LR band is B8A at 20 m and whose HR band is B08 at 10 m."""
    folder = tmp_path_factory.mktemp("set")
    low, high, *_ = scene(folder, bands=("B8A",), hr_bands=("B08",))
    build_pairs(
        Source(low, bands=("B8A",)),
        Source(high, bands=("B08",)),
        folder / "pairs",
        layout=SMALL,
        sun_zenith=40,
    )
    return folder / "pairs"


def raw(path):
    with rasterio.open(path) as src:
        return src.read()


def test_real_items_are_the_files(root):
    pairs = PairDataset(root, "train")
    assert len(pairs) == len(pairs.ids) == len(set(pairs.ids)) > 3
    for item, name in zip((pairs[i] for i in range(len(pairs))), pairs.ids, strict=True):
        assert item["id"] == name
        assert item["lr"].dtype == item["hr"].dtype == torch.float32
        np.testing.assert_array_equal(item["lr"], raw(root / "lr" / f"{name}.tif"))
        np.testing.assert_array_equal(item["hr"], raw(root / "hr" / f"{name}.tif"))


def test_splits_share_no_tile(root):
    ids = [set(PairDataset(root, split).ids) for split in ("train", "val", "test")]
    assert len(set.union(*ids)) == sum(map(len, ids))


def test_synthetic_items_are_degraded_from_hr(root):
    bicubic = PairDataset(root, "test", "synthetic", degradation="bicubic")
    expected = Bicubic(2)(bicubic[0]["hr"].double().numpy(), np.random.default_rng())
    np.testing.assert_allclose(bicubic[0]["lr"], expected, atol=1e-6)
    # the sensor of the set's own bands: B8A from B08
    sensor = PairDataset(root, "test", "synthetic").degradation
    assert isinstance(sensor, Physical)
    assert (sensor.mtf, sensor.hr_mtf, sensor.snr) == ((0.33,), (0.26,), (161,))
    assert isinstance(
        PairDataset(root, "test", "synthetic", degradation="blind").degradation, Blind
    )


def test_seed_epoch_and_tile_decide_and_nothing_else(root):
    def draw(seed=0, epoch=0, index=0):
        pairs = PairDataset(root, "train", "synthetic", crop=8, seed=seed)
        pairs.set_epoch(epoch)
        return pairs[index]

    first, again = draw(), draw()
    assert torch.equal(first["lr"], again["lr"])
    assert torch.equal(first["hr"], again["hr"])
    for other in (draw(seed=1), draw(epoch=1), draw(index=1)):
        assert not torch.equal(first["lr"], other["lr"])
    pairs = PairDataset(root, "train", "synthetic", crop=8)
    backwards = [pairs[i] for i in reversed(range(len(pairs)))]
    assert torch.equal(backwards[-1]["lr"], first["lr"])


def test_a_crop_shows_the_same_ground_in_both(root):
    pairs = PairDataset(root, "train", crop=8)
    places = set()
    for epoch in range(40):
        pairs.set_epoch(epoch)
        item = pairs[0]
        assert item["lr"].shape == (1, 4, 4)
        assert item["hr"].shape == (1, 8, 8)
        # LR is the mean of HR in this scene, so a misplaced crop would show
        means = item["hr"].reshape(1, 4, 2, 4, 2).mean((2, 4))
        torch.testing.assert_close(item["lr"], means, atol=1e-6, rtol=0)
        places.add(float(item["lr"][0, 0, 0]))
    assert len(places) > 10


def test_what_is_handed_out_may_be_written_to(root):
    pairs = PairDataset(root, "test")
    pairs[0]["hr"].zero_()
    assert pairs[0]["hr"].abs().sum() > 0


def test_a_loader_makes_batches_of_it(root):
    batch = next(iter(DataLoader(PairDataset(root, "train", "synthetic", crop=8), batch_size=4)))
    assert batch["lr"].shape == (4, 1, 4, 4)
    assert len(batch["id"]) == 4


@pytest.mark.parametrize(
    ("args", "known", "error", "message"),
    [
        (("holdout",), {}, PairError, "there are test, train, val"),
        (("train", "both"), {}, PairError, "'real' or 'synthetic'"),
        (("train",), {"crop": 9}, PairError, "a multiple of 2, got 9"),
        (("train",), {"crop": 34}, PairError, "at most 32 HR px"),
        (("train", "synthetic"), {"degradation": "best"}, DegradationError, "physical, bicubic"),
        (("train", "synthetic"), {"degradation": Bicubic(4)}, DegradationError, "set's factor 2"),
    ],
)
def test_what_cannot_be_had_is_refused(root, args, known, error, message):
    with pytest.raises(error, match=message):
        PairDataset(root, *args, **known)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"gsd": 30.0}, "B8A at 30 m is not a band of Sentinel-2"), ({}, "zenith angle is not known")],
)
def test_no_sensor_is_guessed(root, tmp_path, change, message):
    about = json.loads((root / "dataset.json").read_text())
    about["lr"] |= change
    about["sun_zenith"] = None
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    (tmp_path / "manifest.parquet").write_bytes((root / "manifest.parquet").read_bytes())
    with pytest.raises(DegradationError, match=message):
        PairDataset(tmp_path, "train", "synthetic")


def test_a_folder_that_is_no_set_is_said_to_be_none(tmp_path):
    with pytest.raises(PairError, match=r"holds no dataset.json.*mindgap data sample"):
        PairDataset(tmp_path, "train")
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(PairError, match="is damaged"):
        PairDataset(tmp_path, "train")
