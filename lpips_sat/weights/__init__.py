"""Shipped weights: one folder each, as ``LPIPSSat.save_pretrained`` writes them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..errors import WeightsError

WEIGHTS = Path(__file__).parent
STATE_FILE = "model.safetensors"


def shipped() -> list[str]:
    """Names that ``LPIPSSat(backbone=...)`` finds in the package."""
    return sorted(folder.parent.name for folder in WEIGHTS.glob("*/config.json"))


def cards() -> dict[str, dict[str, Any]]:
    """The card of each: data, licence, evidence, sha256 of the weights file."""
    return {
        name: json.loads((WEIGHTS / name / "config.json").read_text())["card"] for name in shipped()
    }


def check_shipped(name: str) -> None:
    """Refuse shipped weights that are not those of their card."""
    folder = WEIGHTS / name
    expected = json.loads((folder / "config.json").read_text())["card"]["sha256"]
    found = hashlib.sha256((folder / STATE_FILE).read_bytes()).hexdigest()
    check_digest(folder, found, expected, "install the package again")


def check_digest(folder: Path, found: str, expected: str, remedy: str) -> None:
    """Refuse the weights in a folder whose sha256 is not that of their card."""
    if found != expected:
        raise WeightsError(
            f"the weights in {folder} are not those of their card (sha256 {found[:12]}, expected "
            f"{expected[:12]}): {remedy}"
        )
