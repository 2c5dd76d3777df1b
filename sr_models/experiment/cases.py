"""Cases I to IV: which low-resolution images a model learned from, and which it is tested on.

"Mind the Gap" (arXiv 2606.28039) defines I to III; IV completes the 2 x 2 design.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..data.pairs import Regime


@dataclass(frozen=True)
class Case:
    """One cell of the design; "synthetic": LR made of HR, "real": LR of the other sensor."""

    trained: Regime
    tested: Regime
    question: str


CASES = {
    "I": Case("synthetic", "synthetic", "the usual benchmark"),
    "II": Case("synthetic", "real", "the gap is II - I, paired by patch"),
    "III": Case("real", "real", "does direct training work, and how well does it optimise"),
    "IV": Case("real", "synthetic", "completes the 2 x 2 design"),
}
