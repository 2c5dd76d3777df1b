"""Agreement of every distance with the votes on the validation trials, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rivals import Rival, scores

from lpips_sat.calibration import evaluate
from lpips_sat.calibration.judgements import SHIPPED, Judgements, read_card, read_judgements
from lpips_sat.stats import Interval, bootstrap_mean, rounded
from lpips_sat.weights import cards

REFERENCE = "DISTS"  # the strongest peer
CONFIDENCE = ("guess", "fairly sure", "sure")  # what the raters say, 1 to 3
PAIRS = 10  # of kinds, shown
# What other raters say of the validation trials of v1; nothing was fitted to it or chosen by it.
JURY = SHIPPED["v1"] / "jury.csv"


def measure(distances: dict[str, Rival], folder: Path, cache: Path) -> dict[str, Any]:
    training, validation = read_judgements(folder).split()
    new = ~validation.table["cluster"].isin(set(training.table["cluster"])).to_numpy()
    per_trial = {
        name: agreement(name, rival, validation, cache) for name, rival in distances.items()
    }
    of_raters = jury(validation)
    clusters = validation.table["cluster"].to_numpy()
    gain = per_trial["LPIPS-Sat"] - per_trial[REFERENCE]
    return {
        "trials": len(validation),
        "votes": int(validation.table["votes"].sum()),
        **shares(per_trial, clusters, new),
        "jury": shares(of_raters, clusters, new),
        "gain_over": {"peer": REFERENCE, **numbers(bootstrap_mean(gain, clusters))},
        "groups": groups(per_trial, validation),
        "confidence": by_confidence({**per_trial, **of_raters}, validation),
        "lost": lost(per_trial["LPIPS-Sat"], validation),
        "raters": two_raters(pd.read_csv(folder / "votes.csv")),
        "leave_one_source_out": cards()["lin"]["heads"]["leave_one_source_out"],
    }


def shares(
    per_trial: dict[str, NDArray[np.float64]], clusters: NDArray[Any], new: NDArray[np.bool_]
) -> dict[str, Any]:
    """Intervals of every name, over all trials and over those with ``new`` references."""
    return {
        part: {name: numbers(bootstrap_mean(v[of], clusters[of])) for name, v in per_trial.items()}
        for part, of in (("overall", np.ones_like(new)), ("new_references", new))
    }


def agreement(name: str, rival: Rival, trials: Judgements, cache: Path) -> NDArray[np.float64]:
    """The share of votes on the side that the distance prefers, per trial."""
    ref = evaluate.to_batch(trials.ref)
    of_a, of_b = (
        torch.from_numpy(scores(name, rival, evaluate.to_batch(side), ref, cache))
        for side in (trials.a, trials.b)
    )
    return evaluate.agreement(of_a, of_b, trials.share_b)


def jury(trials: Judgements) -> dict[str, NDArray[np.float64]]:
    """The share of votes that other raters win, per trial: one of them, and their majority.

    Only the validation trials of v1 had a jury, and ids say nothing of other releases.
    """
    if trials.about.get("name") != read_card(SHIPPED["v1"])["name"]:
        raise ValueError(f"the jury saw satellite-2afc v1, not {trials.about.get('name', 'these')}")
    votes = pd.read_csv(JURY).assign(b=lambda table: table["choice"] == "B")
    choices = votes.pivot(index="id", columns="rater", values="b").loc[trials.table["id"]]
    chose_b = torch.from_numpy(choices.to_numpy(np.float64, copy=True))

    def won(for_b: torch.Tensor) -> NDArray[np.float64]:
        return evaluate.agreement(for_b, 1 - for_b, trials.share_b)

    one = np.mean([won(of_one) for of_one in chose_b.T], axis=0)
    majority = won(chose_b.mean(dim=1))
    count = chose_b.shape[1]
    return {"another rater": one, f"the majority of {count} other raters": majority}


def groups(per_trial: dict[str, NDArray[np.float64]], trials: Judgements) -> list[dict[str, Any]]:
    """A row for each source and distortion: trials, and the agreement of every distance."""
    tables = {name: evaluate.by_group(values, trials) for name, values in per_trial.items()}
    first = next(iter(tables.values()))
    return [
        {
            "group": row.group,
            "name": row.label,
            "trials": int(row.trials),
            "agreement": {
                name: round(float(table["agreement"][i]), 4) for name, table in tables.items()
            },
        }
        for i, row in enumerate(first.rename(columns={"name": "label"}).itertuples(index=False))
    ]


def by_confidence(
    per_trial: dict[str, NDArray[np.float64]], trials: Judgements
) -> list[dict[str, Any]]:
    """A row for each confidence of the raters: trials, agreement, our share of all lost votes."""
    confidence = trials.table["confidence"].to_numpy()
    level = np.digitize(confidence, (1.5, 2.5))
    missed = 1 - per_trial["LPIPS-Sat"]
    return [
        {
            "name": name,
            "trials": int((level == i).sum()),
            "agreement": {k: round(float(v[level == i].mean()), 4) for k, v in per_trial.items()},
            "lost": round(float(missed[level == i].sum() / missed.sum()), 4),
        }
        for i, name in enumerate(CONFIDENCE)
    ]


def lost(ours: NDArray[np.float64], trials: Judgements) -> list[dict[str, Any]]:
    """The pairs of kinds on which LPIPS-Sat loses most votes."""
    sides = trials.table[["distortion_a", "distortion_b"]].to_numpy()
    table = pd.DataFrame({"pair": [" / ".join(sorted(pair)) for pair in sides], "lost": 1 - ours})
    found = table.groupby("pair")["lost"].agg(["sum", "size"]).nlargest(PAIRS, "sum")
    return [
        {"pair": pair, "lost": round(float(missed), 2), "trials": int(count)}
        for pair, missed, count in found.itertuples()
    ]


def two_raters(votes: pd.DataFrame) -> dict[str, float]:
    """How often two raters of a trial agree: all pairs of votes, and those without a guess."""
    pairs = votes.merge(votes, on="id").query("rater_x < rater_y")
    same = pairs["choice_x"] == pairs["choice_y"]
    sure = (pairs["confidence_x"] > 1) & (pairs["confidence_y"] > 1)
    return {
        "pairs": len(pairs),
        "agree": round(float(same.mean()), 4),
        "sure_pairs": int(sure.sum()),
        "sure_agree": round(float(same[sure].mean()), 4),
    }


def numbers(interval: Interval) -> dict[str, float | None]:
    return {
        "mean": rounded(interval.mean),
        "low": rounded(interval.low),
        "high": rounded(interval.high),
        "count": interval.count,
        "clusters": interval.clusters,
    }
