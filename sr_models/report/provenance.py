"""What the numbers depend on: the set, the settings, the trainings and their weights."""

from __future__ import annotations

from typing import Any

from .content import NONE, Section, Table, Text
from .numbers import Numbers

HASH = 12  # digits of a SHA-256 that are shown


def provenance_section(numbers: Numbers) -> Section:
    """The set, the settings and the weights as tables; the page has all of it as JSON too."""
    known = numbers.results.provenance
    tables = [_settings(numbers), *([_weights(known["weights"])] if known.get("weights") else [])]
    return Section("provenance", "Provenance", tables=tables[:1], more=tables[1:], folded="Weights")


def _settings(numbers: Numbers) -> Table:
    known = numbers.results.provenance
    about = known.get("set", {})
    changes = ", ".join(f"{key} = {value}" for key, value in known.get("changes", {}).items())
    tiles = ", ".join(f"{count} {split}" for split, count in about.get("tiles", {}).items())
    packages = ", ".join(f"{name} {text}" for name, text in known.get("packages", {}).items())
    (patches, blocks), hashed = numbers.size(), str(about.get("test_sha256", ""))
    seeds = sorted(map(int, numbers.table["seed"].unique()))
    facts = {
        "set": about.get("name"),
        "bands": ", ".join(map(str, about.get("bands", []))),
        "LR bands": ", ".join(map(str, about.get("lr_bands", []))),
        "factor": about.get("factor"),
        "tiles": tiles,
        "tested on": f"{patches} patches in {blocks} blocks",
        "SHA-256 of the test patches": hashed[:HASH],
        "synthetic LR": known.get("degradation"),
        "profile": known.get("profile"),
        "training options": changes,
        "seeds": ", ".join(map(str, seeds)),
        "peak of PSNR": known.get("data_range"),
        "versions": ", ".join(filter(None, (_version(known), packages))),
    }
    rows = [[Text(name), Text(str(value))] for name, value in facts.items() if value]
    return Table("What the numbers depend on", [Text("what"), Text("value")], rows)


def _version(known: dict[str, Any]) -> str:
    return f"lpips-sat {known['version']}" if "version" in known else ""


def _weights(known: dict[str, Any]) -> Table:
    rows = [
        [
            Text(name),
            Text(str(about.get("origin", ""))),
            Text(str(about.get("name", "")) or NONE.value),
            Text(str(about.get("sha256") or NONE.value)[:HASH]),
        ]
        for name, about in known.items()
    ]
    columns = [Text("trained"), Text("origin"), Text("name"), Text("SHA-256")]
    return Table("Weights", columns, rows)
