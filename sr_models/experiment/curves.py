"""How trainings went: PSNR on the validation blocks against the steps.

"The optimisation of case III beside that of case I" is a curve of a training on real pairs beside
one on synthetic pairs. Each is watched on its own kind of LR images, so what compares is where a
curve stands against bicubic interpolation of the same images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lpips_sat import LpipsSatError

from ..cards import CURVE, run_curve
from ..data.pairs import PairDataset, Regime
from ..registry import load_pipeline
from .results import CaseResults, trained
from .weights import Trainings, Weights

COLUMNS = ("step", "psnr", "bicubic")


@dataclass(frozen=True)
class Curve:
    """One training: rows of (step, PSNR of one sample, PSNR of bicubic), both in dB.

    Steps are numbered from 0: after step 0, one is done.
    """

    model: str
    regime: Regime
    seed: int
    rows: tuple[tuple[int, float, float], ...]

    @property
    def steps_to_bicubic(self) -> int | None:
        """Steps done when the model was first seen level with bicubic; None = never."""
        return next((step + 1 for step, psnr, bicubic in self.rows if psnr >= bicubic), None)

    @property
    def last(self) -> float:
        """What it was ahead of bicubic at the end, in dB."""
        _, psnr, bicubic = self.rows[-1]
        return psnr - bicubic


@dataclass(frozen=True)
class Fit:
    """PSNR over that of bicubic, in dB, on training pairs and on test pairs.

    Bicubic stands for how hard the patches are: the two splits are of different places.
    """

    train: float
    test: float

    @property
    def gap(self) -> float:
        """What is learnt by heart: train - test."""
        return self.train - self.test


def trainings_of(
    results: CaseResults, root: Path, runs: Path, *, device: str | None = None
) -> Trainings:
    """The trainings that a table of the experiment is of.

    root: its set; runs: where trainings are; device: to run them on.
    """
    known = results.provenance
    return Trainings(root, known["profile"], known["changes"], known["degradation"], runs, device)


def curves_of(
    results: CaseResults, trainings: Trainings, models: Sequence[str] = ()
) -> list[Curve]:
    """The curves of a table's trainings, model by model, synthetic before real.

    models: only these. Trainings that are not there any more, or kept no curve, are left out.
    """
    found = []
    regimes: tuple[Regime, ...] = ("synthetic", "real")
    for model, rows in results.table.groupby("model", sort=False):
        if models and model not in models:
            continue
        for regime in regimes:
            for seed in sorted(int(s) for s in rows["seed"].unique()):
                if trained(str(model), regime, seed) in results.provenance["weights"]:
                    weights = trainings.find(str(model), regime, seed)
                    points = () if weights is None else rows_of(weights)
                    found += [Curve(str(model), regime, seed, points)] if points else []
    return found


def rows_of(weights: Weights) -> tuple[tuple[int, float, float], ...]:
    """What a run wrote to validation.csv, or a checkpoint's card has as "curve"; empty = nothing.

    Raises:
        LpipsSatError: it is damaged.
    """
    run = weights.folder.parent
    try:
        points = run_curve(run) if weights.origin == "run" else weights.about.get("curve") or []
        return tuple((int(done) - 1, float(psnr), float(bicubic)) for done, psnr, bicubic in points)
    except (OSError, ValueError, KeyError, TypeError) as error:
        source = run / CURVE if weights.origin == "run" else f"the card in {weights.folder}"
        raise LpipsSatError(
            f"cannot read the curve of {source} ({' '.join(str(error).split())}): expected "
            f"{', '.join(COLUMNS)}"
        ) from error


def fit_of(trainings: Trainings, curve: Curve) -> Fit:
    """How a training fits its own pairs, and pairs of the test split of the same kind.

    Both are the first pairs of their split, as many as a training is watched on.
    """
    from ..training import validate

    weights = trainings.find(curve.model, curve.regime, curve.seed)
    if weights is None:
        raise LpipsSatError(f"the training of {curve.model} on {curve.regime} pairs is gone")
    regime = curve.regime
    pipeline: Any = load_pipeline(weights.folder, trainings.device or "cpu")
    ahead = {}
    for split in ("train", "test"):
        pairs = PairDataset(trainings.root, split, regime, degradation=trainings.degradation)
        ours, theirs = validate(pipeline, pairs)
        ahead[split] = ours - theirs
    return Fit(ahead["train"], ahead["test"])
