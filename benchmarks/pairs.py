"""What the audit says of the two sample sets, for docs/pairs.md; into results/pairs.json.

python benchmarks/pairs.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from sr_models.data.audit import Audit, audit_pairs
from sr_models.data.sample_pairs import build_sample_pairs

RESULT = Path(__file__).parent / "results" / "pairs.json"
# Columns of the audit; the mean over bands of what has one for each.
MEASURES = ("shift", "gain", "offset", "correlation", "mtf_0.5")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "pairs"
        found = {name: summary(audit_pairs(root / name)) for name in build_sample_pairs(root)}
    RESULT.write_text(json.dumps(found, indent=2) + "\n")


def summary(audit: Audit) -> dict[str, Any]:
    """Medians of the textured pairs, and how many pairs of all lie outside the limits."""
    textured = audit.table[audit.table["textured"]]
    medians = {}
    for measure in MEASURES:
        bands = [name for name in textured if name.startswith(f"{measure}_")]
        columns = [measure] if measure in textured else bands
        medians[measure] = float(textured[columns].median().mean())
    return {**medians, "outside": len(audit.outside), "pairs": len(audit.table)}


if __name__ == "__main__":
    main()
