"""The commands and the code of docs/pairs.md, run as they stand there, on small images."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from sr_models.data.build import Source, build_pairs
from tests.sr_models.data import public_sets as public
from tests.sr_models.data.conftest import SMALL

PAGE = (Path(__file__).parents[3] / "docs" / "pairs.md").read_text()
COMMANDS = [
    line.removeprefix("mindgap ")
    for block in re.findall(r"```sh\n(.*?)```", PAGE, flags=re.S)
    for line in re.findall(r"^(mindgap .*)", block.replace("\\\n", ""), flags=re.M)
]
# the sample scenes are large: tests/sr_models/data/test_sample_pairs.py builds them
RUN = [c for c in COMMANDS if not c.startswith("data sample")]


@pytest.fixture(scope="module")
def place(tmp_path_factory, scene, raster, textured):
    """A folder with the files that the page names."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "rasters").mkdir()
    low, high, *_ = scene(folder / "rasters", bands=("B8A",), hr_bands=("B08",))
    sources = Source(low, bands=("B8A",)), Source(high, bands=("B08",))
    layout = SMALL.__class__(tile=64, block=1, margin=0, min_texture=1e-4)
    build_pairs(*sources, folder / "pairs" / "s2-b8", layout=layout, sun_zenith=45)
    # a Sentinel-2 scene with its offset, and a PlanetScope scene of 3 m pixels
    hr = textured(1, 450, 1500, seed=2)
    lr = public.means(hr, 10).repeat(3, 1).repeat(3, 2)  # 10 m pixels, no sharper than 30 m
    at = Affine(10, 0, 500_000, 0, -10, 4_200_000)
    raster(folder / "S2.tif", ((lr + 0.1) * 1e4).astype(np.uint16), at)
    fine = Affine(3, 0, 500_000, 0, -3, 4_200_000)
    raster(folder / "PLANET.tif", (hr * 1e4).astype(np.uint16), fine)
    raster(
        folder / "clear.tif",
        np.ones((1, 60, 200), np.uint8),
        Affine(30, 0, 499_000, 0, -30, 4_201_000),
    )
    public.sen2venus(folder / "SEN2VENUS", textured)
    public.sen2naip(folder / "SEN2NAIP", textured)
    return folder


def test_the_commands_run(place, mindgap, monkeypatch):
    monkeypatch.chdir(place)
    assert len(RUN) == 5
    for command in RUN:
        result = mindgap(*shlex.split(command))
        assert result.exit_code == 0, f"{command}\n{result.output}"
    code = re.findall(r"```py\n(.*?)```", PAGE, flags=re.S)
    assert len(code) == 3
    names: dict[str, object] = {}
    for block in code:
        exec(compile(block, "docs/pairs.md", "exec"), names)
