"""Rasters behind a URL are read by ranges: a window costs a window."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pandas as pd
import pytest
import rasterio
from rasterio.shutil import copy as translate

from lpips_sat.errors import RasterError
from lpips_sat.gdal import HTTP_LIMITS
from lpips_sat.items import Item
from lpips_sat.raster import open_pair
from lpips_sat.sets import score_set
from lpips_sat.work import ScoreOptions

CHEAP = ScoreOptions(metrics=("mae", "psnr"))


SERVER = Path(__file__).with_name("range_server.py")


@pytest.fixture
def served(tmp_path, textured, put):
    """Two COGs of 512 x 512 px in a folder that is served, its URL and what was sent."""
    ref = textured(3, 512, 512, seed=3)
    noise = np.random.default_rng(3).standard_normal(ref.shape)
    for name, image in (("pred", ref + 0.01 * noise), ("ref", ref)):
        dn = np.clip(np.rint(image * 1e4), 1, None).astype(np.uint16)
        flat = put(tmp_path / f"{name}-flat.tif", dn, bands=("B04", "B03", "B02"), scale=1e-4)
        translate(flat, tmp_path / f"{name}.tif", driver="COG", blocksize=128, overviews="NONE")
    command = [sys.executable, str(SERVER), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}"

        def sent():
            with urlopen(f"{url}/sent") as answer:
                return int(answer.read())

        yield tmp_path, url, sent
        server.kill()


@pytest.mark.parametrize("prefix", ["", "/vsicurl/"])
def test_a_pair_behind_urls_scores_as_the_files_do(served, prefix):
    folder, url, _ = served
    here = Item("x", f"{folder}/pred.tif", f"{folder}/ref.tif", "x")
    there = Item("x", f"{prefix}{url}/pred.tif", f"{prefix}{url}/ref.tif", "x")
    local, remote = score_set([here], CHEAP), score_set([there], CHEAP)
    assert list(remote.table["reason"]) == [""]
    pd.testing.assert_frame_equal(
        remote.table[["MAE", "PSNR", "pixels"]], local.table[["MAE", "PSNR", "pixels"]]
    )


def test_a_tile_of_a_remote_pair_does_not_fetch_the_whole_files(served):
    folder, url, sent = served
    whole = sum((folder / name).stat().st_size for name in ("pred.tif", "ref.tif"))
    with open_pair(f"{url}/pred.tif", f"{url}/ref.tif") as pair:
        tile = next(pair.tiles(size=128))
    assert tile.pred.shape[-1] == 128
    assert 0 < sent() < whole / 4
    with rasterio.open(folder / "pred.tif") as src:
        expected = src.read(window=((0, 128), (0, 128))) * 1e-4
    assert tile.pred[0].numpy() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("name", "said"), [("missing", "missing.tif"), ("stalled", "stalled.tif")])
def test_a_url_that_does_not_answer_is_one_clear_error(served, monkeypatch, name, said):
    monkeypatch.setitem(HTTP_LIMITS, "GDAL_HTTP_LOW_SPEED_TIME", 1)
    _, url, _ = served
    paths = f"{url}/{name}.tif", f"{url}/ref.tif"
    with pytest.raises(RasterError, match=re.escape(said)), open_pair(*paths):
        pass
