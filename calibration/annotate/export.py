"""A study -> a release of judgements that ``lpips-sat calibrate`` and other programs read.

- ``trials.csv``, ``votes.csv``, ``images.npz``: the 2AFC judgements, see `..judgements`;
- ``jnd/``: the same/different ones in the layout of BAPPS (p0, p1, same);
- ``records.csv``, ``records.parquet``: every answer, with times, repeats, checks and exclusions;
- ``card.json``, ``README.md``: what was shown to whom, and how far to trust it.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image as Picture

from ... import __version__
from ...errors import MissingDependencyError
from ...outputs import whole_folder
from ..judgements import CARD_FILE
from . import quality
from .store import StudyError
from .study import Study

TRIAL_COLUMNS = [
    *("id", "source", "crop"),
    *("distortion_a", "severity_a", "distortion_b", "severity_b"),
]
VOTE_COLUMNS = ["id", "rater", "choice", "confidence", "seconds", "answered"]


def export_study(study: Study, out: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Write the folder ``out``, whole or not at all; returns the card.

    Votes of excluded raters, repeats and checks are in the records only. An earlier export is
    replaced with ``overwrite``. StudyError if there is no vote to export.
    """
    table = quality.records(study)
    judged = quality.judge(table)
    excluded = {row.rater: row.excluded for row in judged}
    table["excluded"] = table["rater"].map(excluded)
    counted = table[(table["role"] == "main") & (table["excluded"] == "")]
    if counted.empty:
        why = [f"{row.rater} {row.excluded}" for row in judged if row.excluded]
        raise StudyError(f"no vote to export yet: {'; '.join(why) or 'none is in'}")
    card = make_card(study, table, judged, counted)
    with whole_folder(out, mark=CARD_FILE, overwrite=overwrite) as folder:
        _write_records(folder, table)
        _write_choices(folder, study, counted[counted["task"] == "2afc"])
        _write_jnd(folder / "jnd", study, counted[counted["task"] == "jnd"])
        (folder / CARD_FILE).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(card_text(card), encoding="utf-8")
    return card


def export_zip(study: Study) -> bytes:
    """The same as a zip archive."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "judgements"
        export_study(study, folder)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(p for p in folder.rglob("*") if p.is_file()):
                archive.write(file, file.relative_to(folder.parent))
        return buffer.getvalue()


def make_card(
    study: Study,
    table: pd.DataFrame,
    judged: list[quality.RaterQuality],
    counted: pd.DataFrame,
) -> dict[str, Any]:
    """The dataset card as plain JSON; ``raters`` and ``licence`` also reach the weights' card."""
    config = study.config
    with study.store() as store:
        undone = store.undone()
    return {
        "name": config["title"],
        "version": __version__,
        "raters": config["raters"],
        "licence": config["licence"],
        "collected": {"from": table["answered"].min(), "to": table["answered"].max()},
        "shown": {
            "patches": config["patches"],
            "size": config["size"],
            **{key: config[key] for key in ("source", "display", "scenes") if key in config},
            "distortions": _shown(study),
            "plan": config["plan"],
        },
        "answers": {
            "recorded": len(table),
            "taken_back": undone,
            "counted": {
                str(task): int(count) for task, count in counted["task"].value_counts().items()
            },
        },
        "agreement": quality.agreement(counted),
        "per_rater": [asdict(row) for row in judged],
    }


def _shown(study: Study) -> dict[str, int]:
    """How often each distortion or method is a side of a main trial."""
    main = study.trials[study.trials["role"] == "main"]
    sides = pd.concat([main["distortion_a"], main["distortion_b"]]).dropna()
    return {str(name): int(n) for name, n in sides.value_counts().sort_index().items()}


def _write_records(folder: Path, table: pd.DataFrame) -> None:
    try:
        table.to_parquet(folder / "records.parquet", index=False)
    except ImportError as error:
        raise MissingDependencyError(
            "Parquet needs pyarrow: pip install 'lpips-sat[annotate]'"
        ) from error
    table.to_csv(folder / "records.csv", index=False)


def _write_choices(folder: Path, study: Study, votes: pd.DataFrame) -> None:
    """The 2AFC release; images.npz holds the image of trial i at index i."""
    if votes.empty:
        return
    trials = study.trials
    trials = trials[(trials["task"] == "2afc") & (trials["role"] == "main")]
    trials[TRIAL_COLUMNS].to_csv(folder / "trials.csv", index=False)
    votes.sort_values(["id", "rater"])[VOTE_COLUMNS].to_csv(folder / "votes.csv", index=False)
    ref, a, b = (
        np.stack([study.image(int(trial), side) for trial in trials["id"]])
        for side in ("ref", "a", "b")
    )
    np.savez(folder / "images.npz", ref=ref, a=a, b=b)


def _write_jnd(folder: Path, study: Study, votes: pd.DataFrame) -> None:
    """The BAPPS layout: p0 the reference, p1 the other, same the share of votes "same"."""
    if votes.empty:
        return
    for name in ("p0", "p1", "same"):
        (folder / name).mkdir(parents=True)
    for trial in np.unique(votes["id"]):
        choices = votes.loc[votes["id"] == trial, "choice"]
        for name, side in (("p0", "ref"), ("p1", "a")):
            picture = Picture.fromarray(study.image(int(trial), side))
            picture.save(folder / name / f"{trial:06d}.png")
        same = np.array([(choices == "same").mean()], dtype=np.float32)
        np.save(folder / "same" / f"{trial:06d}.npy", same)


def card_text(card: dict[str, Any]) -> str:
    """The card for people, in Markdown."""
    lines = [f"# {card['name']}: perceptual judgements", ""]
    lines += [
        f"Raters: {card['raters']}. Licence: {card['licence']}. Collected "
        f"{card['collected']['from']} to {card['collected']['to']} with lpips-sat "
        f"{card['version']}.",
        "",
        "## What was shown",
        "",
        f"{card['shown']['patches']} patches of {card['shown']['size']} px.",
    ]
    lines += _scene_lines(card["shown"])
    lines += ["", "Sides of the main trials: "]
    lines[-1] += ", ".join(f"{name} {n}" for name, n in card["shown"]["distortions"].items()) + "."
    lines += ["", "## Agreement", ""]
    lines += [
        "| task | trials | votes | pairwise | Krippendorff's alpha |",
        "|---|---|---|---|---|",
    ]
    for task, found in card["agreement"].items():
        lines.append(
            f"| {task} | {found['trials']} | {found['votes']} | {_number(found['pairwise'])} | "
            f"{_number(found['krippendorff_alpha'])} |"
        )
    lines += ["", "Over the main trials with two votes or more, without excluded raters.", ""]
    lines += _rater_lines(card)
    return "\n".join(lines) + "\n"


def _scene_lines(shown: dict[str, Any]) -> list[str]:
    if "scenes" not in shown:
        return []
    display = shown["display"]
    return [
        f"Bands {', '.join(display['composite'])}, values {display['black']} shown black and "
        f"{display['white']} white.",
        "",
        *("| scene | patches | radiometry |", "|---|---|---|"),
        *(f"| {s['name']} | {s['patches']} | {s['radiometry']} |" for s in shown["scenes"]),
    ]


def _rater_lines(card: dict[str, Any]) -> list[str]:
    answers = card["answers"]
    head = (
        "rater",
        "votes",
        "median s",
        "checks passed",
        "repeats alike",
        "chose left",
        "left out",
    )
    lines = [
        "## Raters",
        "",
        f"{answers['recorded']} answers are on record, {answers['taken_back']} taken back.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
    ]
    for row in card["per_rater"]:
        cells = (
            *(row["rater"], row["votes"], _number(row["median_seconds"])),
            f"{_number(row['checks_passed'])} of {row['checks']}",
            f"{_number(row['repeats_consistent'])} of {row['repeats']}",
            *(_number(row["chose_left"]), row["excluded"] or "no"),
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
