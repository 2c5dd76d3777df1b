"""A set is scored on a real dask cluster as it is here, even when a worker is killed."""

from __future__ import annotations

import os
import signal

import numpy as np
import pandas as pd
import pytest

from lpips_sat.errors import LpipsSatError
from lpips_sat.items import items_of_folders
from lpips_sat.sets import score_set
from lpips_sat.work import ScoreOptions

distributed = pytest.importorskip("distributed")
CHEAP = ScoreOptions(metrics=("mae", "psnr"))


@pytest.fixture
def items(tmp_path, textured, put, monkeypatch):
    """Forty pairs, named relative to a folder in which no worker was started."""
    for role in ("pred", "ref"):
        (tmp_path / role).mkdir()
    for i in range(40):
        ref = textured(3, 64, 64, seed=i)
        pred = ref + 0.01 * np.random.default_rng(i).standard_normal(ref.shape)
        for role, image in (("pred", pred), ("ref", ref)):
            path = tmp_path / role / f"{i:02}.tif"
            put(path, image.astype(np.float32), bands=("B04", "B03", "B02"))
    monkeypatch.chdir(tmp_path)
    return items_of_folders({"pred": "pred", "ref": "ref"})[0]


def test_a_worker_killed_in_the_middle_costs_nothing(items, tmp_path):
    here = score_set(items, CHEAP)
    os.chdir("/")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    os.chdir(tmp_path)
    killed = []

    with cluster:

        def kill_one(share, failed):
            if not killed:
                killed.append(cluster.workers[0].pid)
                os.kill(killed[0], signal.SIGKILL)

        there = score_set(
            items,
            CHEAP,
            tmp_path / "out.parquet",
            dask=cluster.scheduler_address,
            progress=kill_one,
        )
    assert killed
    pd.testing.assert_frame_equal(
        there.table.drop(columns=["seconds"]), here.table.drop(columns=["seconds"])
    )
    assert there.provenance == here.provenance


def test_no_scheduler_at_the_address_is_one_clear_error(items, monkeypatch):
    monkeypatch.setattr("lpips_sat.executors.CONNECT_SECONDS", 1)
    with pytest.raises(LpipsSatError, match="cannot reach a dask scheduler at tcp://127"):
        score_set(items[:1], CHEAP, dask="tcp://127.0.0.1:9")
