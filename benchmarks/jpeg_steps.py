"""Is a coarser JPEG a worse image? What raters say of single steps of its ladders.

results/jpeg_votes.csv holds the votes: which of the images before and after a step looks closer to
the chip. The raters are runs of a vision-language model, **not people**, and were told nothing but
that. Steps were drawn from the ladders of the first `ladders.CHIPS` chips of the evidence: 120 of
those at which LPIPS-Sat fell, 70 of the others at which the squared error fell, and 110 at which
both rose. `chip` counts in the order of evidence.py, `step` from 0; `repeat` marks the second vote
of a rater on a step, with the sides swapped.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ladders import CHIPS, climb
from numpy.typing import NDArray
from rivals import Rival, scores
from two_afc import numbers

from lpips_sat.calibration.ladders import rises
from lpips_sat.functional import rmse
from lpips_sat.stats import bootstrap_mean

VOTES = Path(__file__).parent / "results" / "jpeg_votes.csv"


def measure(ours: Rival, chips: NDArray[np.uint8], cache: Path) -> dict[str, Any]:
    """Votes for the coarser image, by whether the step raises the squared error and LPIPS-Sat."""
    chips = chips[:CHIPS]
    pred, ref = climb(chips, "jpeg")
    error = rises(rmse(pred, ref).double().numpy(), chips)
    score = rises(scores("LPIPS-Sat", ours, pred, ref, cache), chips)
    votes = pd.read_csv(VOTES)
    first = votes[votes["repeat"] == 0]
    steps = first.groupby(["chip", "step"], as_index=False)["coarser"].mean()
    at = (steps["step"].to_numpy(), steps["chip"].to_numpy())
    rows = []
    for error_rises, score_rises in product((True, False), repeat=2):
        where = (error[at] == error_rises) & (score[at] == score_rises)
        if not where.any():
            continue
        of = steps[where]
        rows.append(
            {
                "error_rises": error_rises,
                "score_rises": score_rises,
                "share": round(float(((error == error_rises) & (score == score_rises)).mean()), 4),
                "steps": len(of),
                "coarser": numbers(bootstrap_mean(of["coarser"].to_numpy(), of["chip"].to_numpy())),
                "raters_agree": agreement_of_raters(first.merge(of[["chip", "step"]])),
            }
        )
    return {
        "chips": len(chips),
        "raters": int(votes["rater"].nunique()),
        "votes": len(first),
        "rater_agrees_again": agreement_with_repeats(votes),
        "rows": rows,
    }


def agreement_of_raters(votes: pd.DataFrame) -> float:
    """Share of pairs of votes on one step that say the same."""
    two = votes.merge(votes, on=["chip", "step"]).query("rater_x < rater_y")
    return round(float((two["coarser_x"] == two["coarser_y"]).mean()), 4)


def agreement_with_repeats(votes: pd.DataFrame) -> float:
    """Share of repeated steps on which a rater says the same again."""
    both = votes.pivot(index=["rater", "chip", "step"], columns="repeat", values="coarser").dropna()
    return round(float((both[0] == both[1]).mean()), 4)
