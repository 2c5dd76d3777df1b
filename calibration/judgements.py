"""Two-alternative forced-choice judgements: which of A and B looks more like the reference?

A release is a folder with ``images.npz`` (``ref``, ``a``, ``b``: uint8 (n, H, W, 3), trial i in
place i), ``trials.csv`` (what each side shows) and ``votes.csv`` (who chose what). The trials and
votes of satellite-2afc v1 to v4, without images, are part of the package. Their raters are runs
of a vision-language model, not people.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import LpipsSatError

CARD_FILE = "card.json"
RELEASES = ("v1", "v2", "v3", "v4")
SHIPPED = {release: Path(__file__).parent / f"satellite_2afc_{release}" for release in RELEASES}
SHIPPED_TABLE = SHIPPED["v1"]
# Trials whose id is a multiple of this validate and are never fitted.
VALIDATION_STEP = 5
# A guess (confidence 1) counts less: two raters agree on 66 % of the trials where one guessed.
GUESS_WEIGHT = 0.6


class JudgementError(LpipsSatError):
    """A release of judgements that is incomplete or contradicts itself."""


@dataclass(frozen=True)
class Judgements:
    """Trials with their votes, one row each.

    ``table`` has the columns of trials.csv plus ``share_b`` (share of votes for B), ``votes``,
    ``confidence`` (mean; NaN where nobody said) and ``cluster`` (the reference image the patch was
    cut from). ``about`` is what the release's card says, such as ``raters`` and ``licence``.
    """

    table: pd.DataFrame
    ref: NDArray[np.uint8]
    a: NDArray[np.uint8]
    b: NDArray[np.uint8]
    about: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.table)

    def where(self, keep: NDArray[np.bool_]) -> Judgements:
        """The trials for which ``keep`` (n,) is True."""
        table = self.table[keep].reset_index(drop=True)
        return Judgements(table, self.ref[keep], self.a[keep], self.b[keep], self.about)

    @property
    def share_b(self) -> NDArray[np.float64]:
        """Share of the votes for B of each trial (n,)."""
        return self.table["share_b"].to_numpy(np.float64)

    def folds(self, count: int) -> NDArray[np.int64]:
        """A fold 0 .. count - 1 for each trial (n,); whole reference images stay together.

        With fewer reference images than folds, single patches do.
        """
        column = "cluster" if self.table["cluster"].nunique() >= count else "crop"
        _, cluster = np.unique(self.table[column], return_inverse=True)
        return np.random.default_rng(0).integers(count, size=cluster.max() + 1)[cluster]

    @property
    def weight(self) -> NDArray[np.float64]:
        """How much each trial counts in a fit (n,)."""
        return np.where(self.table["confidence"].to_numpy() < 1.5, GUESS_WEIGHT, 1.0)

    @classmethod
    def join(cls, releases: Sequence[Judgements]) -> Judgements:
        """Several releases as one; the patches must have one size."""
        sides = {release.ref.shape[1:] for release in releases}
        if len(sides) > 1:
            raise JudgementError(f"releases of different patch sizes: {sorted(sides)}")
        ref, a, b = (
            np.concatenate([getattr(r, side) for r in releases]) for side in ("ref", "a", "b")
        )
        table = pd.concat([r.table for r in releases], ignore_index=True)
        about = dict(releases[0].about)
        if names := [str(r.about["name"]) for r in releases if "name" in r.about]:
            about["name"] = " + ".join(names)
        return cls(table, ref, a, b, about)

    def split(self) -> tuple[Judgements, Judgements]:
        """(training, validation) trials."""
        held = (self.table["id"] % VALIDATION_STEP == 0).to_numpy()
        return self.where(~held), self.where(held)


def read_table(folder: Path = SHIPPED_TABLE) -> pd.DataFrame:
    """Trials joined with their votes; trials without a vote are left out."""
    missing = [n for n in ("trials.csv", "votes.csv") if not (folder / n).is_file()]
    if missing:
        raise JudgementError(f"{folder} is no release of judgements: {', '.join(missing)} missing")
    trials = _read_csv(folder / "trials.csv", ("id", "source", "crop"))
    votes = _read_csv(folder / "votes.csv", ("id", "choice", "confidence"))
    if unknown := sorted(set(votes["choice"].astype(str)) - {"A", "B"}):
        raise JudgementError(f"{folder}/votes.csv: choices must be A or B, got {unknown}")
    if trials["id"].duplicated().any() or (trials["id"] < 0).any():
        raise JudgementError(f"{folder}/trials.csv: every trial needs an id of its own, 0 or more")
    if stray := sorted(set(votes["id"]) - set(trials["id"])):
        raise JudgementError(f"{folder}/votes.csv: votes on trials that are not there: {stray[:5]}")
    votes = votes.assign(share_b=(votes["choice"] == "B").astype(float))
    summary = votes.groupby("id").agg(
        share_b=("share_b", "mean"), votes=("share_b", "size"), confidence=("confidence", "mean")
    )
    table = trials.merge(summary, left_on="id", right_index=True).reset_index(drop=True)
    table["cluster"] = table["source"] + ":" + table["crop"].str.split(":").str[0]
    return table


def _read_csv(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors
        raise JudgementError(f"cannot read {path}: {error}") from error
    if missing := [name for name in columns if name not in table]:
        raise JudgementError(f"{path} has no column {', '.join(missing)}")
    if table.empty:
        raise JudgementError(f"{path} has no rows")
    return table


def read_judgements(folder: Path) -> Judgements:
    """A whole release: table and images."""
    path = folder / "images.npz"
    if not path.is_file():
        raise JudgementError(
            f"{path} is missing: the votes alone cannot be fitted. Point --judgements at a folder "
            "with images.npz, trials.csv and votes.csv."
        )
    table = read_table(folder)
    ref, a, b = _read_images(path)
    if table["id"].max() >= len(ref) or not ref.shape == a.shape == b.shape:
        raise JudgementError(
            f"{path}: images {ref.shape}, {a.shape}, {b.shape} do not fit ids up to "
            f"{table['id'].max()}"
        )
    rows = table["id"].to_numpy()
    return Judgements(table, ref[rows], a[rows], b[rows], read_card(folder))


def read_card(folder: Path) -> dict[str, Any]:
    """What the release says of itself; satellite-2afc v1 itself came without a card."""
    trials = (folder / "trials.csv").read_bytes()
    if not (folder / CARD_FILE).is_file() and trials == (SHIPPED_TABLE / "trials.csv").read_bytes():
        folder = SHIPPED_TABLE
    try:
        return json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise JudgementError(f"{folder / CARD_FILE} is not JSON: {error}") from error


def _read_images(path: Path) -> list[NDArray[np.uint8]]:
    try:
        with path.open("rb") as file, np.load(file) as images:  # refuses to unpickle
            if not {"ref", "a", "b"} <= set(images.files):
                raise JudgementError(
                    f"{path} must hold ref, a and b, got {', '.join(images.files)}"
                )
            return [images[name] for name in ("ref", "a", "b")]
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise JudgementError(f"{path} is no archive of images, or damaged: {error}") from error
