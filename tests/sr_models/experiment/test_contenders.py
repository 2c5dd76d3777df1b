"""Who takes part: pipelines, predictions on disk, plugins, shipped weights; and how it is asked."""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import EntryPoint, EntryPoints
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch

from lpips_sat import LpipsSatError
from lpips_sat.errors import ResultsError
from sr_models import cards, registry, training
from sr_models.data.pairs import PairDataset
from sr_models.experiment import exam, foreign

from .conftest import SHORT, psnr, rewrite, values_of, without_cost


def test_the_size_of_a_batch_changes_nothing(run, pipeline, tmp_path, monkeypatch):
    pipeline("resshift", steps=3, lr_bands=("B8A",)).save_pretrained(tmp_path / "mine")
    asked = {"cases": ("III",), "num_samples": 2, "metrics": ("psnr", "ssim", "lpips-sat")}
    many = run(str(tmp_path / "mine"), out=tmp_path / "many.parquet", **asked)
    monkeypatch.setattr(exam, "BATCH_PIXELS", 1)
    one = run(str(tmp_path / "mine"), out=tmp_path / "one.parquet", **asked)
    pd.testing.assert_frame_equal(without_cost(one), without_cost(many), rtol=1e-4)


def test_the_mean_of_samples_is_tested_beside_one(truth, run, pipeline, tmp_path):
    loaded = pipeline("resshift", steps=3)
    loaded.save_pretrained(tmp_path / "mine")
    results = run(str(tmp_path / "mine"), "bicubic", cases=("II",), num_samples=3)
    item = PairDataset(truth, "test")[0]
    samples = loaded(item["lr"][None], num_samples=3).samples[:, 0]
    for estimate, image, runs in (("sample", samples[0], 1), ("mean", samples.mean(0), 3)):
        known = {"model": str(tmp_path / "mine"), "estimate": estimate}
        assert values_of(results, **known)[item["id"]] == pytest.approx(
            psnr(image, item["hr"]), abs=1e-3
        )
        assert set(values_of(results, metric="nfe", **known)) == {3 * runs}
    assert set(results.table.query("model == 'bicubic'")["estimate"]) == {"sample"}


@pytest.mark.parametrize("suffix", [".npy", ".tif"])
def test_predictions_on_disk_score_as_the_pipeline_that_made_them(
    suffix, truth, run, pipeline, tmp_path
):
    loaded, mine = pipeline("sr3", steps=2), tmp_path / "mine"
    loaded.save_pretrained(tmp_path / "pipeline")
    for kind in ("real", "synthetic"):
        (mine / kind).mkdir(parents=True)
        for split in ("test", "test_untextured"):
            for item in PairDataset(truth, split, kind):
                image = loaded.upscale(item["lr"].numpy(), 2)
                path = mine / kind / f"{item['id']}{suffix}"
                if suffix == ".npy":
                    np.save(path, image)
                else:
                    shutil.copy(truth / "hr" / path.name, path)
                    rewrite(path, image)
    results = run(str(mine), str(tmp_path / "pipeline"), metrics=("psnr", "opensr-improvement"))
    for case in ("I", "II", "III", "IV"):
        for metric in ("psnr", "opensr-improvement"):
            ours, theirs = (
                values_of(results, model=str(model), case=case, metric=metric)
                for model in (mine, tmp_path / "pipeline")
            )
            pd.testing.assert_series_equal(ours, theirs, rtol=1e-4)
    shutil.rmtree(mine / "synthetic")
    with pytest.raises(LpipsSatError, match="put those made of each into real/ and synthetic/"):
        run(str(mine), out=tmp_path / "o.parquet")
    run(str(mine), cases=("II",), out=tmp_path / "o.parquet")
    # other images under the same name are noticed
    next((mine / "real").iterdir()).write_bytes(next((mine / "real").iterdir()).read_bytes() + b"0")
    with pytest.raises(ResultsError, match="mine on real with other weights or images"):
        run(str(mine), cases=("II",), out=tmp_path / "o.parquet")


def test_predictions_that_do_not_fit_are_one_clear_line(truth, run, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    ids = [*PairDataset(truth, "test").ids, *PairDataset(truth, "test_untextured").ids]
    for patch in ids[1:]:
        np.save(mine / f"{patch}.npy", np.full((64, 64), 0.1, np.float32))
    with pytest.raises(LpipsSatError, match=f"lacks 1 of {len(ids)} test patches: {ids[0]};"):
        run(str(mine), cases=("II",))
    np.save(mine / f"{ids[0]}.npy", np.zeros((32, 32), np.float32))
    with pytest.raises(LpipsSatError, match=r"expected an image \(1, 64, 64\), got \(1, 32, 32\)"):
        run(str(mine), cases=("II",))
    np.save(mine / f"{ids[0]}.npy", np.full((64, 64), np.nan, np.float32))
    with pytest.raises(LpipsSatError, match=f"no numbers in the image of patch {ids[0]}"):
        run(str(mine), cases=("II",))
    np.save(mine / f"{ids[0]}.npy", np.full((64, 64), 1000, np.int16))
    said = r"\.npy: reflectance outside .* median 1000.* expected values in the units of the set"
    with pytest.raises(LpipsSatError, match=said):
        run(str(mine), cases=("II",))
    (mine / f"{ids[0]}.npy").unlink()
    shutil.copy(truth / "hr" / f"{ids[1]}.tif", mine / f"{ids[0]}.tif")
    with pytest.raises(LpipsSatError, match="is not on the grid of the HR image"):
        run(str(mine), cases=("II",))
    (mine / f"{ids[0]}.tif").unlink()
    shutil.copy(truth / "hr" / f"{ids[0]}.tif", mine / f"{ids[0]}.tif")
    with rasterio.open(mine / f"{ids[0]}.tif", "r+") as dst:
        dst.nodata = float(dst.read(1)[0, 0])
    with pytest.raises(LpipsSatError, match="of the pixels are nodata or masked"):
        run(str(mine), cases=("II",))
    assert not (tmp_path / "results" / "r.parquet").exists()


def test_a_model_of_another_package_takes_part(truth, run, monkeypatch):
    class Nearest:
        def upscale(self, lr, scale):
            return lr.repeat(scale, 1).repeat(scale, 2)

    class Small:
        def upscale(self, lr, scale):
            return lr

    plugins = SimpleNamespace(nearest=Nearest, small=Small)
    monkeypatch.setitem(sys.modules, "another_package", plugins)
    points = EntryPoints(
        EntryPoint(name, f"another_package:{name}", registry.GROUP) for name in vars(plugins)
    )
    for place in (registry, foreign):
        monkeypatch.setattr(place, "entry_points", lambda **wanted: points.select(**wanted))
    results = run("nearest", cases=("III",))
    item = PairDataset(truth, "test")[0]
    want = psnr(item["lr"].repeat_interleave(2, 1).repeat_interleave(2, 2), item["hr"])
    assert values_of(results)[item["id"]] == pytest.approx(want, abs=1e-3)
    assert set(results.table["metric"]) == {"psnr", "seconds"}
    assert results.provenance["weights"]["nearest on real"]["name"] == "another_package:nearest"
    with pytest.raises(LpipsSatError, match=r"expected an image \(1, 64, 64\) of patch r"):
        run("small", cases=("III",))


def test_shipped_weights_are_taken_where_they_were_trained_on_this_set(
    truth, brighter, run, pipeline, untrainable, tmp_path, monkeypatch
):
    monkeypatch.setattr(registry, "CHECKPOINTS", tmp_path / "checkpoints")
    untrainable()
    made = training.fingerprint(PairDataset(truth, "train", "real"))
    shipped = tmp_path / "checkpoints" / "toy-resshift-real"
    card = {"pairs": made, "seed": 0, "steps": 7}
    pipeline("resshift", steps=2, card=card).save_pretrained(shipped)
    asked = {"cases": ("III",), "changes": {}}
    results = run("resshift", **asked)
    about = results.provenance["weights"]["resshift real 0"]
    assert (about["origin"], about["name"]) == ("checkpoint", "toy-resshift-real")
    assert about["about"]["steps"] == 7
    assert cards.read_card(shipped) == card
    for other in ({"seeds": 2}, {"cases": ("II",)}, {"changes": SHORT}, {"profile": "paper"}):
        with pytest.raises(LpipsSatError, match="not trained yet: resshift"):
            run("resshift", train=False, out=tmp_path / "o.parquet", **{**asked, **other})
    pipeline("resshift", card=card | {"pairs": "0" * 16}).save_pretrained(shipped)
    with pytest.raises(LpipsSatError, match="not trained yet: resshift real 0"):
        run("resshift", train=False, out=tmp_path / "o.parquet", **asked)


def test_a_patch_too_large_for_one_piece_goes_through_tiles(pipeline):
    from sr_models.experiment.contenders import Batch, Sampler

    loaded = pipeline("resshift", steps=2)
    lr = 0.3 * torch.rand(1, 1, 140, 16, generator=torch.Generator().manual_seed(0))
    batch = Batch(["a"], lr, torch.zeros(1, 1, 280, 32))
    guess = Sampler(loaded, 5).guess(batch, 2)
    assert guess.samples.shape == (2, 1, 1, 280, 32)
    rows = loaded.rows(lambda r, c, h, w: lr[0, :, r : r + h, c : c + w].numpy(), 140, 16, seed=5)
    want = np.concatenate([values[0] for _, values in rows], axis=1)
    np.testing.assert_array_equal(guess.samples[0, 0], want)
