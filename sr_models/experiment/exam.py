"""The test of the experiment: every test patch of a set, super-resolved and scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lpips_sat import LpipsSatError
from lpips_sat.errors import ResultsError

from ..data.degradation import describe
from ..data.errors import DegradationError
from ..data.pairs import (
    PairDataset,
    Regime,
    as_degradation,
    read_about,
    read_manifest,
    test_sha256,
)
from ..data.tiles import TEST_UNTEXTURED
from .contenders import Batch, Contender, Guess
from .scores import Scores
from .weights import set_name

# HR pixels that are super-resolved at once: 8 patches of 128 x 128, some 100 MB.
BATCH_PIXELS = 2**17
Row = dict[str, Any]


class Exam:
    """The test patches of a set, those without texture apart, and the metrics.

    Args:
        root: a set of `mindgap data`.
        scores: the metrics.
        tested: kinds of LR images that are asked for.
        degradation: how synthetic ones are made, the same in every test: seed 0, epoch 0.
        num_samples: K: beside one sample, the mean of K is scored if K > 1.
    """

    def __init__(
        self,
        root: Path,
        scores: Scores,
        tested: Sequence[Regime],
        *,
        degradation: str,
        num_samples: int,
    ) -> None:
        self.root, self.scores, self.num_samples = root, scores, num_samples
        self.about, self.degradation = read_about(root), degradation
        manifest = read_manifest(root)
        counts = manifest["split"].value_counts()
        self.tiles = {str(split): int(n) for split, n in counts.items() if str(split)}
        splits = ["test", *([TEST_UNTEXTURED] if TEST_UNTEXTURED in self.tiles else [])]
        self.blocks = dict(zip(manifest["id"], manifest["block"], strict=True))
        self.sets = {
            kind: {
                split: PairDataset(root, split, kind, degradation=degradation) for split in splits
            }
            for kind in tested
        }
        self.patches = sum(self.tiles[split] for split in splits)

    def describe(self) -> dict[str, Any]:
        """Everything that a score depends on, besides the contender."""
        about = self.about
        return {
            "set": {
                "name": set_name(self.root),
                "factor": about["factor"],
                "bands": about["hr"]["bands"],
                "lr_bands": about["lr"]["bands"],
                "kind": about["kind"],
                "tiles": self.tiles,
                "test_sha256": self._test_sha256,
            },
            "degradation": self.degradation,
            "synthetic": self._synthetic(),
            "num_samples": self.num_samples,
            "data_range": self.scores.data_range,
            "metrics": self.scores.describe(),
        }

    @cached_property
    def _test_sha256(self) -> str:
        return test_sha256(self.root)

    def _synthetic(self) -> dict[str, Any] | None:
        """The parameters of the degradation; None if this set can have none."""
        try:
            return describe(as_degradation(self.degradation, self.about))
        except DegradationError:  # then only real images are tested, see `PairDataset`
            return None

    def test(
        self, contender: Contender, tested: Regime, advance: Callable[[int], None]
    ) -> Iterator[Row]:
        """Rows without model, case and seed; `advance` is told the patches that are done."""
        for split, pairs in self.sets[tested].items():
            for batch in batches(pairs):
                guess = contender.guess(batch, self.num_samples)
                _check(guess, batch)
                for row in self._rows(guess, batch):
                    yield row | {"split": split, "block": str(self.blocks[row["patch"]])}
                advance(len(batch.ids))

    def _rows(self, guess: Guess, batch: Batch) -> Iterator[Row]:
        count = len(guess.samples)
        estimates = [("sample", guess.samples[0], 1)]
        if count > 1:
            estimates.append(("mean", guess.samples.mean(dim=0), count))
        for estimate, images, runs in estimates:
            found = self.scores(images, batch.hr, batch.lr)
            for name, cost in (("nfe", guess.nfe), ("seconds", guess.seconds)):
                if cost is not None:
                    found[name] = [cost * runs] * len(batch.ids)
            for metric, values in found.items():
                for patch, value in zip(batch.ids, values, strict=True):
                    named = {"estimate": estimate, "patch": patch}
                    yield named | {"metric": metric, "value": value}


def check_set(provenance: Mapping[str, Any], root: Path) -> None:
    """Refuse a set whose test patches are not those that a table is of.

    Raises:
        ResultsError: they are others.
    """
    known = provenance.get("set", {})
    if known.get("test_sha256") != test_sha256(root):
        raise ResultsError(
            f"the table is not of {root}: it is of the set {known.get('name')!r}, with other test "
            "patches. Give the set that `mindgap evaluate` tested on with --data"
        )


def batches(pairs: PairDataset) -> Iterator[Batch]:
    """All pairs in order, as many at once as `BATCH_PIXELS` allows."""
    height, width = pairs[0]["hr"].shape[1:]
    size = max(1, BATCH_PIXELS // (height * width))
    for start in range(0, len(pairs), size):
        items = [pairs[i] for i in range(start, min(start + size, len(pairs)))]
        lr, hr = (_stack(items, key) for key in ("lr", "hr"))
        yield Batch([item["id"] for item in items], lr, hr)


def _stack(items: Sequence[dict[str, Any]], key: str) -> Tensor:
    return torch.stack([item[key] for item in items])


def _check(guess: Guess, batch: Batch) -> None:
    finite = guess.samples.isfinite().all(dim=0).flatten(1).all(dim=1)
    if not finite.all():
        bad = ", ".join(patch for patch, good in zip(batch.ids, finite, strict=True) if not good)
        raise LpipsSatError(f"values that are no numbers in the image of patch {bad}")
