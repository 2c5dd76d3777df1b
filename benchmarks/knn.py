"""A sanity check of the features: k-NN on EuroSAT classes, chips that training never saw.

    python benchmarks/knn.py EuroSAT_RGB.zip    # a minute on 2 cores; writes results/knn.json

The shipped backbone beside the same network with random weights.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lpips_sat import LPIPSSat, __version__
from lpips_sat.backbones import build_backbone
from lpips_sat.calibration.evaluate import to_batch
from lpips_sat.calibration.patches import Chips, read_eurosat

RESULT = Path(__file__).parent / "results" / "knn.json"
NEIGHBOURS = 10
BANK, QUERIES = 5000, 1500


def main() -> None:
    path = Path(sys.argv[1])
    rng = np.random.default_rng(0)
    bank = subset(read_eurosat(path), BANK, rng)
    queries = subset(read_eurosat(path, held_out=True), QUERIES, rng)
    shipped = LPIPSSat(radiometry="display")
    torch.manual_seed(0)
    name, config = (shipped.config[key] for key in ("backbone", "backbone_config"))
    networks = {"shipped": shipped.backbone, "random weights": build_backbone(name, config)}
    result = {
        "version": __version__,
        "weights": shipped.card["sha256"],
        "neighbours": NEIGHBOURS,
        "bank": len(bank.labels),
        "queries": len(queries.labels),
        "chance": round(max(Counter(queries.labels).values()) / len(queries.labels), 3),
        "accuracy": {key: round(accuracy(net, bank, queries), 3) for key, net in networks.items()},
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(RESULT.read_text())


def subset(chips: Chips, count: int, rng: np.random.Generator) -> Chips:
    index = rng.permutation(len(chips.labels))[:count]
    return Chips(chips.images[index], [chips.labels[i] for i in index])


def accuracy(network: nn.Module, bank: Chips, queries: Chips) -> float:
    """Majority among the nearest by cosine of spatially averaged, standardised features."""
    known, asked = embed(network, bank), embed(network, queries)
    mean, std = known.mean(0), known.std(0) + 1e-6
    known, asked = (nn.functional.normalize((e - mean) / std) for e in (known, asked))
    nearest = (asked @ known.T).topk(NEIGHBOURS, dim=1).indices.tolist()
    guesses = [Counter(bank.labels[i] for i in row).most_common(1)[0][0] for row in nearest]
    return float(np.mean([g == label for g, label in zip(guesses, queries.labels, strict=True)]))


@torch.inference_mode()
def embed(network: nn.Module, chips: Chips) -> Tensor:
    batches = (to_batch(chips.images[i : i + 256]) for i in range(0, len(chips.images), 256))
    return torch.cat([torch.cat([f.mean((2, 3)) for f in network(b)], dim=1) for b in batches])


if __name__ == "__main__":
    main()
