"""Judgements of other people's formats.

- a release of judgements (`.judgements`), also one that ``lpips-sat annotate export`` wrote;
- BAPPS (Zhang et al. 2018): folders ``ref``, ``p0``, ``p1``, ``judge`` (choices) or ``p0``,
  ``p1``, ``same`` (same or different), of png and npy files of one name, alone or grouped;
- a table of pairs, CSV or Parquet: ``ref, a, b`` (files, relative to the table) and ``choice``
  (A or B) or ``share_b``; also ``confidence``, ``source``;
- a table of mean opinion scores: ``ref, image, mos``, higher = better; also ``std``, ``source``.

All images of a set have one size. Choices read from elsewhere are numbered so that whole reference
images validate (``id % 5 == 0``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import norm

from .judgements import VALIDATION_STEP, JudgementError, Judgements, read_judgements

Format = Literal["release", "bapps-2afc", "bapps-jnd", "pairs", "mos"]
Images = NDArray[np.uint8]
CHOICE_FOLDERS = ("ref", "p0", "p1", "judge")
SAME_FOLDERS = ("p0", "p1", "same")
TABLES = (".csv", ".parquet")
UNKNOWN = "not stated"


@dataclass(frozen=True)
class SameDifferent:
    """Pairs (n, H, W, 3) with the share of votes "same" (n,); ``group`` names their folder."""

    ref: Images
    image: Images
    same: NDArray[np.float64]
    group: NDArray[np.str_]


@dataclass(frozen=True)
class Opinions:
    """Images with mean opinion scores, higher = better.

    ``table``: ``cluster`` (the reference), ``mos``, ``std`` (of the opinions; NaN if not known),
    ``source`` and ``held_out`` (whether its reference validates).
    """

    table: pd.DataFrame
    ref: Images
    image: Images

    def __len__(self) -> int:
        return len(self.table)

    def where(self, keep: NDArray[np.bool_]) -> Opinions:
        """The images for which ``keep`` (n,) is True."""
        return Opinions(self.table[keep].reset_index(drop=True), self.ref[keep], self.image[keep])


def format_of(path: Path) -> Format:
    """Which of the formats ``path`` is in; JudgementError if in none."""
    if path.is_dir():
        if (path / "trials.csv").is_file():
            return "release"
        if _folders(path, CHOICE_FOLDERS):
            return "bapps-2afc"
        if _folders(path, SAME_FOLDERS):
            return "bapps-jnd"
    elif path.suffix in TABLES and path.is_file():
        columns = set(_read_table(path).columns)
        if {"ref", "a", "b"} <= columns and columns & {"choice", "share_b"}:
            return "pairs"
        if {"ref", "image", "mos"} <= columns:
            return "mos"
        raise JudgementError(
            f"{path} must have the columns ref, a, b, choice (or share_b), or ref, image, mos "
            f"(higher = better); it has {', '.join(sorted(columns))}"
        )
    raise JudgementError(
        f"{path} holds no judgements: expected a folder with trials.csv, votes.csv and images.npz; "
        "BAPPS folders (ref, p0, p1, judge, or p0, p1, same); or a CSV or Parquet table"
    )


def read_choices(path: Path) -> Judgements:
    """Two-alternative choices of any format; opinion scores are turned into pairs."""
    found = format_of(path)
    if found == "release":
        return read_judgements(path)
    if found == "bapps-2afc":
        return read_bapps_choices(path)
    if found == "pairs":
        return read_pairs(path)
    if found == "mos":
        return opinions_as_pairs(read_opinions(path))
    raise JudgementError(
        f"{path} holds same/different judgements: they validate a metric (`lpips-sat validate`), "
        "but nothing is fitted to them"
    )


def read_bapps_choices(path: Path) -> Judgements:
    """BAPPS 2AFC; ``judge`` is the share of raters who find p1 closer. Groups become sources."""
    rows, images = [], []
    for folder in _folders(path, CHOICE_FOLDERS):
        for name in _names(folder, CHOICE_FOLDERS):
            share = _share(folder / "judge" / f"{name}.npy")
            rows.append((_group(folder, path), f"{name}:0:0", share))
            images.append([folder / side / f"{name}.png" for side in CHOICE_FOLDERS[:3]])
    table = pd.DataFrame(rows, columns=["source", "crop", "share_b"])
    return _judgements(table.assign(votes=1, confidence=np.nan), images)


def read_same_different(path: Path) -> SameDifferent:
    """BAPPS JND; ``same`` is the share of raters who saw no difference."""
    pairs, same, group = [], [], []
    for folder in _folders(path, SAME_FOLDERS):
        for name in _names(folder, SAME_FOLDERS):
            pairs.append([folder / side / f"{name}.png" for side in SAME_FOLDERS[:2]])
            same.append(_share(folder / "same" / f"{name}.npy"))
            group.append(_group(folder, path))
    if not pairs:
        raise JudgementError(f"{path} holds no folders {', '.join(SAME_FOLDERS)} with images")
    ref, image = _stacks(pairs)
    return SameDifferent(ref, image, np.array(same), np.array(group))


def read_pairs(path: Path) -> Judgements:
    """A table of pairs; rows of the same three images are votes on one trial."""
    table = _read_table(path)
    table["confidence"] = table.get("confidence", np.nan)
    table["source"] = _sources(table, path)
    if "share_b" not in table:
        if unknown := sorted(set(table["choice"].astype(str)) - {"A", "B"}):
            raise JudgementError(f"{path}: choices must be A or B, got {unknown}")
        table["share_b"] = (table["choice"] == "B").astype(float)
    if not table["share_b"].between(0, 1).all():
        raise JudgementError(f"{path}: share_b must lie in [0, 1]")
    same = table.groupby(["source", "ref", "a", "b"], sort=False, as_index=False, dropna=False)
    trials = same.agg(
        share_b=("share_b", "mean"), votes=("share_b", "size"), confidence=("confidence", "mean")
    )
    images = [[path.parent / str(row[side]) for side in ("ref", "a", "b")] for row in _rows(trials)]
    return _judgements(trials.rename(columns={"ref": "crop"}).drop(columns=["a", "b"]), images)


def read_opinions(path: Path) -> Opinions:
    """A table of mean opinion scores; JudgementError if a score is not a number."""
    table = _read_table(path)
    table["mos"] = pd.to_numeric(table["mos"], errors="coerce")
    if table["mos"].isna().any():
        raise JudgementError(f"{path}: every mos must be a number, higher = better")
    ref, image = _stacks(
        [[path.parent / str(row[k]) for k in ("ref", "image")] for row in _rows(table)]
    )
    kept = pd.DataFrame(
        {
            "cluster": table["ref"].astype(str),
            "mos": table["mos"],
            "std": table.get("std", np.nan),
            "source": _sources(table, path),
            "held_out": _held_out(table["ref"].astype(str)),
        }
    )
    return Opinions(kept, ref, image)


def opinions_as_pairs(opinions: Opinions, *, seed: int = 0) -> Judgements:
    """Pairs of images of one reference, each image in two (one if there are only two).

    The share of votes for B is that of raters whose opinions are independent and normal,
    Phi((mos_b - mos_a) / sqrt(std_a^2 + std_b^2)) (Thurstone 1927); without ``std`` the better mean
    takes all.
    """
    rng, table = np.random.default_rng(seed), opinions.table
    pairs: list[tuple[int, int]] = []
    for _, images in table.groupby("cluster", sort=True).groups.items():
        ring = rng.permutation(np.asarray(images))
        count = len(ring) if len(ring) > 2 else len(ring) - 1
        pairs += [(int(ring[i]), int(ring[(i + 1) % len(ring)])) for i in range(count)]
    if not pairs:
        raise JudgementError("no reference has two images with scores: there are no pairs")
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    mos, std = table["mos"].to_numpy(), table["std"].to_numpy()
    spread = np.sqrt(np.nan_to_num(std[a] ** 2 + std[b] ** 2))
    gap = mos[b] - mos[a]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(spread > 0, norm.cdf(gap / spread), (np.sign(gap) + 1) / 2)
    rows = pd.DataFrame(
        {
            "source": table["source"].to_numpy()[a],
            "crop": table["cluster"].to_numpy()[a],
            "share_b": share,
            "votes": 1,
            "confidence": np.nan,
        }
    )
    return _finish(rows, opinions.ref[a], opinions.image[a], opinions.image[b])


def _judgements(table: pd.DataFrame, images: Sequence[Sequence[Path]]) -> Judgements:
    if table.empty:
        raise JudgementError("there are no judgements in it")
    return _finish(table, *_stacks(images))


def _finish(table: pd.DataFrame, ref: Images, a: Images, b: Images) -> Judgements:
    """Number the trials, so that whole references validate, and name what is not known."""
    cluster = table["source"].astype(str) + ":" + table["crop"].astype(str)
    held = _held_out(cluster)
    number = np.where(held, np.cumsum(held) - 1, np.cumsum(~held) - 1)
    step = VALIDATION_STEP - 1  # ids of the others are those that are no multiple
    ids = np.where(held, VALIDATION_STEP * number, number + number // step + 1)
    table = table.assign(
        id=ids,
        cluster=cluster,
        distortion_a=UNKNOWN,
        severity_a=np.nan,
        distortion_b=UNKNOWN,
        severity_b=np.nan,
    )
    return Judgements(table.reset_index(drop=True), ref, a, b)


def _held_out(clusters: Iterable[str]) -> NDArray[np.bool_]:
    """Every fifth reference, in random order, validates; all of its trials do."""
    _, index = np.unique(list(clusters), return_inverse=True)
    order = np.random.default_rng(0).permutation(index.max() + 1 if len(index) else 0)
    held: NDArray[np.bool_] = (order % VALIDATION_STEP == 0)[index]
    return held


def _folders(path: Path, names: Sequence[str]) -> list[Path]:
    """``path`` and the folders in it, at any depth, that hold all of ``names``."""
    candidates = [path, *sorted(p for p in path.rglob("*") if p.is_dir())]
    return [p for p in candidates if all((p / name).is_dir() for name in names)]


def _names(folder: Path, names: Sequence[str]) -> list[str]:
    """The stems that every subfolder has; JudgementError if one has others."""
    stems = {
        name: {p.stem for p in (folder / name).iterdir() if p.suffix in (".png", ".npy")}
        for name in names
    }
    first = stems[names[0]]
    for name, found in stems.items():
        if odd := sorted(found ^ first):
            raise JudgementError(f"{folder}: {names[0]} and {name} differ in {', '.join(odd[:3])}")
    return sorted(first)


def _group(folder: Path, root: Path) -> str:
    return root.name if folder == root else folder.relative_to(root).as_posix()


def _share(path: Path) -> float:
    try:
        value = float(np.load(path, allow_pickle=False).reshape(-1).mean())
    except (ValueError, TypeError, OSError, EOFError) as error:
        raise JudgementError(f"{path} holds no number: {error}") from error
    if not 0 <= value <= 1:
        raise JudgementError(f"{path}: expected a share of votes in [0, 1], got {value}")
    return value


def _read_table(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise JudgementError(f"cannot read {path}: {error}") from error
    if table.empty:
        raise JudgementError(f"{path} has no rows")
    return table


def _sources(table: pd.DataFrame, path: Path) -> pd.Series:
    """The column ``source``; where it is empty or missing, the name of the file."""
    given = pd.Series(table.get("source"), table.index, dtype=object)
    return given.where(given.notna(), path.stem).astype(str)


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _stacks(files: Sequence[Sequence[Path]]) -> list[Images]:
    """Columns of files -> stacks (n, H, W, 3)."""
    return [_stack(column) for column in zip(*files, strict=True)]


def _stack(files: Sequence[Path]) -> Images:
    images = []
    for file in files:
        try:
            with Image.open(file) as picture:
                images.append(np.asarray(picture.convert("RGB")))
        except (OSError, ValueError) as error:
            raise JudgementError(f"cannot read the image {file}: {error}") from error
        if images[-1].shape != images[0].shape:
            raise JudgementError(
                f"{file} is {images[-1].shape[1]} x {images[-1].shape[0]} px, {files[0]} is "
                f"{images[0].shape[1]} x {images[0].shape[0]}: all images of a set need one size"
            )
    return np.stack(images)
