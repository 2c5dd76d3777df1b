"""Agreement of every distance with the votes on the validation trials, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rivals import Rival, scores

from lpips_sat.calibration import evaluate
from lpips_sat.calibration.judgements import Judgements, read_judgements
from lpips_sat.stats import Interval, bootstrap_mean
from lpips_sat.weights import cards

REFERENCE = "DISTS"  # the strongest peer


def measure(distances: dict[str, Rival], folder: Path, cache: Path) -> dict[str, Any]:
    training, validation = read_judgements(folder).split()
    new = ~validation.table["cluster"].isin(set(training.table["cluster"])).to_numpy()
    per_trial = {
        name: agreement(name, rival, validation, cache) for name, rival in distances.items()
    }
    clusters = validation.table["cluster"].to_numpy()
    gain = per_trial["LPIPS-Sat"] - per_trial[REFERENCE]
    return {
        "trials": len(validation),
        "votes": int(validation.table["votes"].sum()),
        "overall": {name: numbers(bootstrap_mean(v, clusters)) for name, v in per_trial.items()},
        "new_references": {
            name: numbers(bootstrap_mean(v[new], clusters[new])) for name, v in per_trial.items()
        },
        "gain_over": {"peer": REFERENCE, **numbers(bootstrap_mean(gain, clusters))},
        "groups": groups(per_trial, validation),
        "leave_one_source_out": cards()["lin"]["heads"]["leave_one_source_out"],
    }


def agreement(name: str, rival: Rival, trials: Judgements, cache: Path) -> NDArray[np.float64]:
    """The share of votes on the side that the distance prefers, per trial."""
    ref = evaluate.to_batch(trials.ref)
    of_a, of_b = (
        torch.from_numpy(scores(name, rival, evaluate.to_batch(side), ref, cache))
        for side in (trials.a, trials.b)
    )
    return evaluate.agreement(of_a, of_b, trials.share_b)


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


def numbers(interval: Interval) -> dict[str, float]:
    return {
        "mean": round(interval.mean, 4),
        "low": round(interval.low, 4),
        "high": round(interval.high, 4),
        "count": interval.count,
        "clusters": interval.clusters,
    }
