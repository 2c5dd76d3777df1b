"""Patches -> a study folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image as Picture

from ... import __version__
from ...outputs import whole_folder
from .scenes import Patch
from .store import Store, StudyError
from .study import CONFIG_FILE, DATABASE, SIDES, TRIALS_FILE, Study, add_rater, open_study
from .trials import Plan, Trial, build_trials

COLUMNS = [f.name for f in fields(Trial) if f.name not in SIDES]


def make_study(
    patches: Sequence[Patch],
    plan: Plan,
    out: Path,
    *,
    raters: Sequence[str],
    per_rater: int | None = None,
    break_every: int = 50,
    title: str = "",
    about: dict[str, Any] | None = None,
) -> Study:
    """Write the study folder ``out``, whole or not at all; it must not exist.

    raters: one name per link. per_rater: main trials that each is asked (default: all); those asked
    least so far come first. about: facts for the dataset card.
    """
    trials = build_trials(patches, plan)
    asked = plan.trials + plan.jnd
    if per_rater is not None and not 0 < per_rater <= asked:
        raise StudyError(f"a rater can be asked 1 to {asked} of these trials, not {per_rater}")
    config = {
        "title": title or out.name,
        "version": __version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "size": len(patches[0].image),
        "patches": len({(p.source, p.crop) for p in patches}),
        "break_every": break_every,
        "per_rater": per_rater or asked,
        "raters": "not stated",
        "licence": "not stated",
        "plan": asdict(plan),
        **(about or {}),
    }
    with whole_folder(out, mark=CONFIG_FILE) as folder:
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        rows = pd.DataFrame([_row(trial) for trial in trials], columns=COLUMNS)
        rows.to_csv(folder / TRIALS_FILE, index=False)
        (folder / "images").mkdir()
        for trial in trials:
            _write_images(folder / "images", trial)
        Store.create(folder / DATABASE).close()
        made = open_study(folder)
        with made.store() as store:
            for name in raters:
                add_rater(made, store, name)
    return replace(made, folder=out)


def _row(trial: Trial) -> dict[str, Any]:
    return {name: getattr(trial, name) for name in COLUMNS}


def _write_images(folder: Path, trial: Trial) -> None:
    for side in SIDES:
        image = getattr(trial, side)
        if image is not None:
            Picture.fromarray(image).save(folder / f"{trial.id:06d}-{side}.png", optimize=True)
