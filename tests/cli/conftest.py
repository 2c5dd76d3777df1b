"""What the tests of the commands share."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import gaussian_filter

SHAPE = (4, 64, 72)
BANDS = ("B04", "B03", "B02", "B08")


@pytest.fixture(scope="session")
def dn(textured: Callable[..., npt.NDArray[Any]]) -> tuple[npt.NDArray[np.uint16], ...]:
    """DN (4, 64, 72) of a prediction and its reference, reflectance * 10000, none of them 0."""
    ref = textured(*SHAPE, seed=20)
    grain = 0.004 * np.random.default_rng(21).standard_normal(SHAPE)
    pred = gaussian_filter(ref, (0, 1, 1)) + grain
    return tuple(np.clip(np.rint(image * 1e4), 1, None).astype(np.uint16) for image in (pred, ref))


@pytest.fixture
def pair(
    dn: tuple[npt.NDArray[np.uint16], ...], put: Callable[..., Path], tmp_path: Path
) -> tuple[Path, Path]:
    """A pair of GeoTIFFs that declare bands, scale and nodata, in a folder of their own."""
    folder = tmp_path / "pair"
    folder.mkdir()
    pred, ref = (
        put(folder / name, image, bands=BANDS, scale=1e-4, nodata=0)
        for name, image in zip(("pred.tif", "ref.tif"), dn, strict=True)
    )
    return pred, ref


@pytest.fixture(scope="session")
def command() -> Path:
    """The installed console script."""
    found = [p for p in Path(sysconfig.get_path("scripts")).glob("lpips-sat*") if p.is_file()]
    assert found, "lpips-sat is not installed as a command: pip install -e '.[dev]'"
    return found[0]


@pytest.fixture(scope="session")
def spawn(command: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the installed command in a process of its own, with warnings shown."""

    def call(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(command), *map(str, args)],
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd,
            env=os.environ | {"PYTHONWARNINGS": "default"},
        )

    return call


def refuse_constant(name):
    raise AssertionError(f"{name} is not JSON")


def parsed(result):
    """The JSON on stdout of a run that went well and said nothing else."""
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout, parse_constant=refuse_constant)


def scores(result):
    return {item["name"]: item["value"] for item in parsed(result)["scores"]}


def tree(folder):
    """Every file below a folder with its bytes."""
    return {p: p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}
