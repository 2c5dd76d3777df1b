"""A set of pairs as a `torch` data set: real LR images, or LR images made of the HR ones."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch.utils.data import Dataset

from lpips_sat.outputs import StrPath
from lpips_sat.warp import read_values

from .degradation import SENTINEL2, Bicubic, Blind, Degradation, sentinel2
from .errors import DegradationError, PairError
from .sets import DATASET, MANIFEST
from .tiles import TEST_UNTEXTURED

Regime = Literal["real", "synthetic"]
DEGRADATIONS = ("physical", "bicubic", "blind")
# Decoded tiles that are kept: all of `s2-b8` (8 MB) and much of larger sets. In bytes.
CACHE_BYTES = 512 * 2**20
# Relative difference by which a GSD may miss the band's own and still be that band's.
SAME_GSD = 0.01


class PairDataset(Dataset[dict[str, Any]]):
    """Items are dict(lr=(C, h, w), hr=(C, H, W), id=str), float32 in the set's units.

    An item depends on `seed`, the epoch, the tile and nothing else: neither on the order of access
    nor on the number of workers.

    Args:
        root: folder with `manifest.parquet` and `dataset.json`.
        split: "train", "val", "test", or "test_untextured".
        regime: "real": LR as the other sensor saw it; "synthetic": LR made of HR.
        degradation: for "synthetic": "physical" (Sentinel-2's, of the set's own bands), "bicubic",
            "blind", or any `Degradation` of the set's factor.
        crop: side in HR pixels of a random crop, a multiple of the factor; None = whole tiles.
        seed: of crops and noise.

    Raises:
        PairError: no such set or split, or a crop that does not fit.
        DegradationError: "physical" for bands or pixel sizes without published numbers.
    """

    def __init__(
        self,
        root: StrPath,
        split: str,
        regime: Regime = "real",
        *,
        degradation: str | Degradation = "physical",
        crop: int | None = None,
        seed: int = 0,
    ) -> None:
        self.root = Path(root)
        self.about = read_about(root)
        self.factor = int(self.about["factor"])
        self.tiles = read_manifest(root, split)
        self.crop, self.seed, self.epoch = crop, seed, 0
        tile = int(self.about["layout"]["tile"])
        if crop is not None and (crop % self.factor or not 0 < crop <= tile):
            raise PairError(
                f"expected a crop of at most {tile} HR px, a multiple of {self.factor}, got {crop}"
            )
        if regime not in ("real", "synthetic"):
            raise PairError(f"regime must be 'real' or 'synthetic', got {regime!r}")
        self.degradation: Degradation | None = None
        if regime == "synthetic":
            self.degradation = as_degradation(degradation, self.about)
        self._kept: dict[str, npt.NDArray[np.float32]] = {}
        self._kept_bytes = 0

    def __len__(self) -> int:
        return len(self.tiles)

    @property
    def ids(self) -> list[str]:
        """Names of the tiles, in the order of the items."""
        return [str(v) for v in self.tiles["id"]]

    def set_epoch(self, epoch: int) -> None:
        """Draw other crops and other noise from now on."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict[str, Any]:
        tile = self.tiles.iloc[index]
        place, noise = (
            np.random.default_rng([self.seed, self.epoch, zlib.crc32(tile["id"].encode()), stream])
            for stream in range(2)
        )
        hr = self._read(tile["hr"])
        if self.degradation is None:
            lr = self._read(tile["lr"])
        else:
            lr = self.degradation(hr.astype(np.float64), noise).astype(np.float32)
        if self.crop is not None:
            side = self.crop // self.factor
            row, col = (int(place.integers(n - side + 1)) for n in lr.shape[1:])
            lr = lr[:, row : row + side, col : col + side]
            row, col = row * self.factor, col * self.factor
            hr = hr[:, row : row + self.crop, col : col + self.crop]
        # copies: what is handed out may be written to, what is kept may not change
        return {"lr": torch.tensor(lr), "hr": torch.tensor(hr), "id": str(tile["id"])}

    def _read(self, name: str) -> npt.NDArray[np.float32]:
        if name in self._kept:
            return self._kept[name]
        values = read_values(self.root / name)
        if self._kept_bytes + values.nbytes <= CACHE_BYTES:
            self._kept[name] = values
            self._kept_bytes += values.nbytes
        return values


def read_about(root: StrPath) -> dict[str, Any]:
    """Read what `dataset.json` says of a set."""
    path = Path(root) / DATASET
    if not path.is_file():
        raise PairError(
            f"{root} holds no {DATASET}: expected a set of pairs, made by `mindgap data sample` or "
            "`mindgap data build`"
        )
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in ("factor", "lr", "hr", "layout") if key not in about]
    except (ValueError, TypeError) as error:
        raise PairError(f"{path} is damaged ({error}): build the set again") from error
    if missing:
        raise PairError(f"{path} is damaged (no {', '.join(missing)}): build the set again")
    return about


def read_manifest(root: StrPath, split: str | None = None) -> pd.DataFrame:
    """Read the manifest of a set: the tiles of one split, or all, those left out too."""
    path = Path(root) / MANIFEST
    if not path.is_file():
        raise PairError(f"{root} holds no {MANIFEST}: build the set again")
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise PairError(f"{path} is damaged ({error}): build the set again") from error
    if split is None:
        return table
    chosen = table[table["split"] == split].reset_index(drop=True)
    if chosen.empty:
        have = ", ".join(sorted(set(table["split"]) - {""}))
        raise PairError(f"{root} has no tiles of split {split!r}: there are {have or 'none'}")
    return chosen


def test_sha256(root: StrPath) -> str:
    """SHA-256 of the files of the test patches and their names, those without texture too."""
    digest, manifest = hashlib.sha256(), read_manifest(root)
    for split in ("test", TEST_UNTEXTURED):
        tiles = manifest[manifest["split"] == split]
        for file in [*tiles["lr"], *tiles["hr"]]:
            digest.update(str(file).encode())
            digest.update((Path(root) / file).read_bytes())
    return digest.hexdigest()


def as_degradation(wanted: str | Degradation, about: dict[str, Any]) -> Degradation:
    """Turn a name into the degradation of this set, or check a given one; see PairDataset."""
    factor = int(about["factor"])
    if not isinstance(wanted, str):
        if wanted.factor != factor:
            raise DegradationError(
                f"expected a degradation of the set's factor {factor}, got factor {wanted.factor}"
            )
        return wanted
    if wanted == "bicubic":
        return Bicubic(factor)
    if wanted == "blind":
        return Blind(factor)
    if wanted != "physical":
        raise DegradationError(
            f"unknown degradation {wanted!r}: expected one of {', '.join(DEGRADATIONS)}"
        )
    return _sentinel2_of(about)


def _sentinel2_of(about: dict[str, Any]) -> Degradation:
    """Sentinel-2's degradation for the LR bands, if they are Sentinel-2's at its own GSD."""
    low, high, zenith = about["lr"], about["hr"], about["sun_zenith"]
    foreign = [b for b in low["bands"] if not _native(b, low["gsd"])]
    if foreign or zenith is None:
        what = "the sun's zenith angle is not known (--sun-zenith of `mindgap data build`)"
        if foreign:
            what = f"{', '.join(foreign)} at {low['gsd']:g} m is not a band of Sentinel-2"
        raise DegradationError(
            f"no physical degradation for this set: {what}. Take another (--degradation bicubic or "
            "blind), or, in Python, a Physical with the sensor's numbers"
        )
    own = [b if _native(b, high["native_gsd"]) else None for b in high["bands"]]
    return sentinel2(low["bands"], factor=int(about["factor"]), sun_zenith=zenith, hr_bands=own)


def _native(band: str, gsd: float) -> bool:
    """Whether a band of Sentinel-2 has this GSD in metres."""
    return band in SENTINEL2 and abs(gsd / SENTINEL2[band][0] - 1) < SAME_GSD
