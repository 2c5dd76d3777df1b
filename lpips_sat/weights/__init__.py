"""Shipped weights: one folder each, as ``LPIPSSat.save_pretrained`` writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WEIGHTS = Path(__file__).parent


def shipped() -> list[str]:
    """Names that ``LPIPSSat(backbone=...)`` finds in the package."""
    return sorted(folder.parent.name for folder in WEIGHTS.glob("*/config.json"))


def cards() -> dict[str, dict[str, Any]]:
    """The card of each: data, licence, evidence, sha256 of the weights file."""
    return {
        name: json.loads((WEIGHTS / name / "config.json").read_text())["card"] for name in shipped()
    }
