"""A study on disk: trials, images, raters, and who is asked what in which order.

``study.json`` says what was made how; ``trials.csv`` has one row per question; ``images/`` holds
``ID-ref.png``, ``ID-a.png``, ``ID-b.png``; ``study.db`` (see `.store`) raters and votes.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image as Picture

from .store import Store, StudyError

Image = NDArray[np.uint8]
CONFIG_FILE, TRIALS_FILE, DATABASE = "study.json", "trials.csv", "study.db"
SIDES = ("ref", "a", "b")
# A repeat comes at least this many trials after its first showing, or the rater remembers.
REPEAT_GAP = 10


@dataclass(frozen=True)
class Study:
    """An opened study."""

    folder: Path
    config: dict[str, Any]
    trials: pd.DataFrame

    def image_file(self, trial: int, side: str) -> Path:
        """The picture of one side; a repeat shows the images of its first time."""
        first: Any = self.trials.at[trial, "repeat_of"]
        of = trial if pd.isna(first) else int(first)
        return self.folder / "images" / f"{of:06d}-{side}.png"

    def image(self, trial: int, side: str) -> Image:
        """The same, decoded: uint8 (h, w, 3)."""
        with Picture.open(self.image_file(trial, side)) as picture:
            return np.asarray(picture)

    def store(self) -> Store:
        """Its raters and votes; close it after use."""
        return Store(self.folder / DATABASE)


def open_study(folder: Path) -> Study:
    """Open what `make_study` wrote."""
    missing = [n for n in (CONFIG_FILE, TRIALS_FILE, DATABASE) if not (folder / n).is_file()]
    if missing:
        raise StudyError(
            f"{folder} is no study: {', '.join(missing)} missing; make one with "
            "`lpips-sat annotate make`"
        )
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        table = pd.read_csv(folder / TRIALS_FILE, keep_default_na=False, na_values=[""])
        table = table.astype({"repeat_of": "Int64"})
        return Study(folder, config, table.set_index("id", drop=False))
    except (ValueError, KeyError) as error:
        raise StudyError(f"{folder} is damaged: {error}") from error


def add_rater(study: Study, store: Store, name: str) -> str:
    """Give one more rater a link and an order of trials of their own; returns the token."""
    number = len(store.raters())
    return store.add_rater(name, deal(study, number, store.times_dealt()))


def deal(study: Study, rater: int, dealt: Counter[int]) -> list[tuple[int, bool]]:
    """(trial, whether its sides are swapped) in the order in which ``rater`` (0, 1, ...) sees them.

    Repeats show the other side first and come ``REPEAT_GAP`` trials later where the list is long
    enough. ``dealt`` counts how often each trial was given to others.
    """
    rng = np.random.default_rng([study.config["plan"]["seed"], 5, rater])
    table = study.trials
    main = table.loc[table["role"] == "main", "id"].to_numpy()
    rare_first = sorted(rng.permutation(main), key=lambda trial: dealt[int(trial)])
    mine = [int(trial) for trial in rare_first[: study.config["per_rater"]]]
    checks = table.loc[table["role"] == "check", "id"].tolist()
    order = [int(trial) for trial in rng.permutation(mine + checks)]
    swapped = rng.permutation(np.arange(len(order)) % 2 == 1)
    plan = list(zip(order, map(bool, swapped), strict=True))
    repeats = table.loc[table["role"] == "repeat"]
    for trial, of in zip(repeats["id"], repeats["repeat_of"], strict=True):
        if of not in mine:
            continue
        at = next(i for i, (shown, _) in enumerate(plan) if shown == of)
        place = int(rng.integers(min(at + REPEAT_GAP, len(plan)), len(plan) + 1))
        plan.insert(place, (int(trial), not plan[at][1]))
    return plan
