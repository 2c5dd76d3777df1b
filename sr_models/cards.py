"""Cards: what is known about a trained model, kept inside its pipeline.

A card says what a model learned from and how (data, regime, steps, seed, settings), how its
training went (the curve on the validation pairs), and which weights it speaks of (sha256).
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpips_sat import LpipsSatError
from lpips_sat.outputs import whole_folder
from lpips_sat.weights import check_digest

if TYPE_CHECKING:
    from .pipeline import SRPipeline

MARK = "model_index.json"  # what every saved pipeline holds; the card is in it
CURVE = "validation.csv"  # of a run: a row per look at the validation pairs
WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"  # as diffusers names it


def training_card(run: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """The card of a training run; `about` says what the run's folder does not: data, regime ...

    "curve" holds (steps done, PSNR in dB of one sample, of bicubic) on the validation pairs.
    """
    config = json.loads((run / "config.json").read_text())
    card = {**about, "model": config["model"], "profile": config["name"]}
    card |= {key: config["train"][key] for key in ("steps", "seed")}
    card |= {"train": config["train"], "pairs": config["start"]["pairs"], "curve": run_curve(run)}
    return card | {
        "versions": {name: version(name) for name in ("lpips-sat", "torch", "diffusers")}
    }


def run_curve(run: Path) -> list[tuple[int, float, float]]:
    """(steps done, PSNR in dB of one sample, of bicubic) at every look at the validation pairs."""
    table = run / CURVE
    if not table.is_file():
        return []
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [(int(r["step"]) + 1, float(r["psnr"]), float(r["bicubic"])) for r in rows]


def publish(
    pipeline: SRPipeline, folder: Path, card: Mapping[str, Any], *, overwrite: bool = False
) -> dict[str, Any]:
    """Write a pipeline with half-precision weights and a card that knows their hash.

    Returns the card. `load_model` refuses the folder if the weights are not those of the hash.
    """
    with whole_folder(folder, overwrite=overwrite, mark=MARK) as part:
        pipeline.save_pretrained(part, half=True)
        config = part / "unet" / "config.json"
        known = json.loads(config.read_text())
        known.pop("_name_or_path", None)  # diffusers' note of where the weights lay on this machine
        config.write_text(json.dumps(known, indent=2) + "\n")
        full = {**card, "sha256": sha256(part)}
        write_card(part, full)
    return full


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a saved pipeline, without loading its weights; empty if it has none."""
    try:
        index: dict[str, Any] = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LpipsSatError(f"cannot read {folder / MARK}: {error}") from error
    return dict(index.get("card") or {})


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Replace the card of a saved pipeline."""
    path = folder / MARK
    index = json.loads(path.read_text())
    path.write_text(json.dumps({**index, "card": dict(card)}, indent=2, sort_keys=True) + "\n")


def check_weights(folder: Path) -> None:
    """Refuse weights that are not those of their card; a card without a hash vouches for none.

    diffusers could load another file than the one that is hashed: one of an index beside it, or
    a pickle in its place. Neither is allowed.
    """
    path = _weights(folder)
    if index := next(path.parent.glob("*.index*.json"), None):
        raise LpipsSatError(f"{index} splits the weights over several files: expected {WEIGHTS}")
    expected = read_card(folder).get("sha256")
    if expected is not None:
        remedy = "the file is damaged or was changed; get it again"
        check_digest(folder, sha256(folder), expected, remedy)


def sha256(folder: Path) -> str:
    """The hash of a saved pipeline's weights."""
    return hashlib.sha256(_weights(folder).read_bytes()).hexdigest()


def _weights(folder: Path) -> Path:
    path = folder / WEIGHTS
    if not path.is_file():
        raise LpipsSatError(f"{folder} holds no {WEIGHTS}: the pipeline is damaged, save it again")
    return path
