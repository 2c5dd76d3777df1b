"""A folder of super-resolved images as a contender: `ID.tif` or `ID.npy` for every test patch.

Predictions were made of one kind of LR image. A folder that holds both kinds has them in `real/`
and `synthetic/`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from lpips_sat import LpipsSatError
from lpips_sat.radiometry import implausible
from lpips_sat.warp import open_image

from ..data.pairs import PairDataset, Regime
from ..pipeline import Array
from .contenders import Batch, Guess

SUFFIXES = (".tif", ".npy")
NAMED = 5  # missing patches that a message names


def holds_predictions(folder: Path) -> bool:
    """Whether a folder looks like one."""
    inner = [folder, *(folder / regime for regime in ("real", "synthetic"))]
    return any(next(part.glob(f"*{suffix}"), None) for part in inner for suffix in SUFFIXES)


class Predictions:
    """Images of test patches in a folder.

    Args:
        folder: what the user named.
        sets: the test patches, all of which must be there.
        tested: of which LR images they were made.
        alone: whether no other kind is tested, so that the images may lie in `folder` itself.

    Raises:
        LpipsSatError: missing patches, or both kinds asked of a folder that holds one.
    """

    def __init__(
        self, folder: Path, sets: Sequence[PairDataset], tested: Regime, *, alone: bool
    ) -> None:
        inner = folder / tested
        if not inner.is_dir() and not alone:
            raise LpipsSatError(
                f"{folder} holds one image per patch, but the cases asked for test on real and on "
                "synthetic LR images: put those made of each into real/ and synthetic/, or ask "
                "for cases of one kind (I and IV are synthetic, II and III real)"
            )
        self.folder = inner if inner.is_dir() else folder
        self.bands, self.kind = sets[0].about["hr"]["bands"], sets[0].about["kind"]
        self.references = {
            patch: pairs.root / file
            for pairs in sets
            for patch, file in zip(pairs.ids, pairs.tiles["hr"], strict=True)
        }
        files = {patch: self._file(patch) for patch in self.references}
        missing = [patch for patch, file in files.items() if file is None]
        if missing:
            more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
            raise LpipsSatError(
                f"{self.folder} lacks {len(missing)} of {len(files)} test patches: "
                f"{', '.join(missing[:NAMED])}{more}; expected ID.tif or ID.npy for each"
            )
        self.files = {patch: file for patch, file in files.items() if file is not None}

    @property
    def sha256(self) -> str:
        """A hash of all files."""
        digest = hashlib.sha256()
        for patch, file in self.files.items():
            digest.update(patch.encode())
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def guess(self, batch: Batch, num_samples: int) -> Guess:
        """See `sr_models.experiment.contenders.Contender`; what they cost is not known."""
        images = [self._read(patch) for patch in batch.ids]
        return Guess(torch.from_numpy(np.stack(images))[None], None, None)

    def _file(self, patch: str) -> Path | None:
        candidates = (self.folder / f"{patch}{suffix}" for suffix in SUFFIXES)
        return next((path for path in candidates if path.is_file()), None)

    def _read(self, patch: str) -> Array:
        """Values (C, H, W), float32, on the grid of the HR image."""
        path, bands = self.files[patch], self.bands
        with open_image(self.references[patch]) as reference:
            grid = reference.grid
        if path.suffix == ".npy":
            values = _load(path)
            values = values[None] if values.ndim == 2 else values
        else:
            with open_image(path, bands=bands) as image:
                other = image.grid.difference(grid) if image.grid.placed else None
                if other is not None:
                    raise LpipsSatError(f"{path} is not on the grid of the HR image: {other}")
                values, valid = image.read((0, 0, image.grid.height, image.grid.width))
                if not valid.all():
                    raise LpipsSatError(
                        f"{path}: {(~valid).mean():.1%} of the pixels are nodata or masked; "
                        "expected a value in each"
                    )
        if values.shape != (len(bands), grid.height, grid.width):
            raise LpipsSatError(
                f"{path}: expected an image ({len(bands)}, {grid.height}, {grid.width}), got "
                f"{values.shape}"
            )
        if found := implausible(values, np.isfinite(values).all(axis=0), self.kind):
            raise LpipsSatError(f"{path}: {found}; expected values in the units of the set")
        return values.astype(np.float32)


def _load(path: Path) -> Array:
    try:
        values: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise LpipsSatError(f"cannot read {path}: {error}") from error
    return values
