"""The bill of materials of the shipped weights (CycloneDX): writes docs/weights.cdx.json.

pip install cyclonedx-python-lib && python benchmarks/bom.py

Names, versions, licences and SHA-256 of every file of weights in the repository. The libraries that
the package needs are its dependencies, which tools such as `cyclonedx-py environment` list.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6

from lpips_sat import __version__
from lpips_sat.weights import STATE_FILE, cards
from sr_models.cards import WEIGHTS, read_card
from sr_models.registry import CHECKPOINTS

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "docs" / "weights.cdx.json"
LICENCE = "Apache-2.0"


def main() -> None:
    package = Component(
        name="lpips-sat", version=__version__, type=ComponentType.LIBRARY, bom_ref="lpips-sat"
    )
    shipped = [
        weights(f"lpips-sat {name}", Path("lpips_sat/weights", name, STATE_FILE),
                {key: card[key] for key in ("variant", "licence", "raters")})
        for name, card in cards().items()
    ] + [
        weights(folder.name, folder.relative_to(ROOT) / WEIGHTS,
                {key: str(card[key]) for key in ("model", "data", "regime", "seed")})
        for folder in sorted(path for path in CHECKPOINTS.iterdir() if path.is_dir())
        for card in [read_card(folder)]
    ]  # fmt: skip
    digests = [digest.content for component in shipped for digest in component.hashes]
    bom = Bom(components=shipped, serial_number=uuid5(NAMESPACE_URL, " ".join(digests)))
    bom.metadata.component = package
    bom.register_dependency(package, shipped)
    RESULT.write_text(JsonV1Dot6(bom).output_as_string(indent=2) + "\n")


def weights(name: str, file: Path, facts: dict[str, str]) -> Component:
    digest = hashlib.sha256((ROOT / file).read_bytes()).hexdigest()
    return Component(
        name=name,
        version=__version__,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=name,
        licenses=[LicenseFactory().make_with_id(LICENCE)],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        properties=[Property(name="file", value=str(file))]
        + [Property(name=key, value=value) for key, value in facts.items()],
    )


if __name__ == "__main__":
    main()
