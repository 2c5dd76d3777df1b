"""How far raters can be trusted: agreement, Krippendorff's alpha, repeats, checks, exclusions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from .study import Study

# A rater who fails more than a quarter of the known answers, or who contradicts two in five of
# their own votes (a coin contradicts one in two), is left out; with fewer answers than this nobody
# is judged.
MIN_CHECKS, MIN_PASSED = 4, 0.75
MIN_REPEATS, MIN_CONSISTENT = 10, 0.6


@dataclass(frozen=True)
class RaterQuality:
    """What is known of one rater; shares are None where there is nothing to count."""

    rater: str
    votes: int
    median_seconds: float | None
    checks: int
    checks_passed: float | None
    repeats: int
    repeats_consistent: float | None
    chose_left: float | None
    excluded: str = ""


def records(study: Study) -> pd.DataFrame:
    """Every vote that stands, one row each, its sides un-swapped.

    ``choice`` is "A" or "B" (2AFC) or "same" or "different"; ``side`` is what was pressed. Raters
    are r0, r1, ... in the order in which they were added.
    """
    with study.store() as store:
        votes = store.votes()
        names = {rater.id: f"r{i}" for i, rater in enumerate(store.raters())}
    trials = study.trials
    rows = []
    for vote in votes:
        trial = trials.loc[vote["trial"]]
        rows.append(
            {
                "id": vote["trial"],
                "rater": names[vote["rater"]],
                "task": trial["task"],
                "role": trial["role"],
                "repeat_of": trial["repeat_of"],
                "choice": unswap(vote["answer"], bool(vote["swapped"])),
                "confidence": vote["confidence"],
                "position": vote["position"],
                "side": vote["answer"],
                "swapped": bool(vote["swapped"]),
                "seconds": round(vote["seconds"], 3),
                "answered": datetime.fromtimestamp(vote["answered"], UTC).isoformat(
                    timespec="milliseconds"
                ),
                "expected": "" if pd.isna(trial["answer"]) else trial["answer"],
            }
        )
    columns = [
        *("id", "rater", "task", "role", "repeat_of", "choice", "confidence", "position"),
        *("side", "swapped", "seconds", "answered", "expected"),
    ]
    table = pd.DataFrame(rows, columns=columns)
    return table.astype({"repeat_of": "Int64", "confidence": "Int64"})


def unswap(answer: str, swapped: bool) -> str:
    """The side of the screen -> the side of the trial: A is shown on the left unless swapped."""
    if answer not in ("left", "right"):
        return answer
    return "A" if (answer == "left") != swapped else "B"


def judge(table: pd.DataFrame) -> list[RaterQuality]:
    """One row per rater of `records`, with the reason if their votes are left out."""
    return [_judge(str(name), votes) for name, votes in table.groupby("rater", sort=False)]


def _judge(name: str, votes: pd.DataFrame) -> RaterQuality:
    checks = votes[votes["role"] == "check"]
    passed = _share(checks["choice"] == checks["expected"])
    repeats = votes[votes["role"] == "repeat"]
    first = votes[votes["role"] == "main"].set_index("id")["choice"]
    again = repeats["choice"].to_numpy() == first.reindex(repeats["repeat_of"]).to_numpy()
    consistent = _share(again)
    sides = votes.loc[votes["task"] == "2afc", "side"]
    reasons = []
    if passed is not None and len(checks) >= MIN_CHECKS and passed < MIN_PASSED:
        reasons.append(f"passed {passed:.0%} of {len(checks)} checks, {MIN_PASSED:.0%} is asked")
    if consistent is not None and len(repeats) >= MIN_REPEATS and consistent < MIN_CONSISTENT:
        reasons.append(
            f"repeated {consistent:.0%} of {len(repeats)} votes, {MIN_CONSISTENT:.0%} is asked"
        )
    return RaterQuality(
        rater=name,
        votes=len(votes),
        median_seconds=round(float(votes["seconds"].median()), 2) if len(votes) else None,
        checks=len(checks),
        checks_passed=passed,
        repeats=len(repeats),
        repeats_consistent=consistent,
        chose_left=_share(sides == "left"),
        excluded="; ".join(reasons),
    )


def _share(hits: Sequence[bool] | pd.Series | Any) -> float | None:
    return round(float(np.mean(hits)), 4) if len(hits) else None


def krippendorff_alpha(units: Iterable[Sequence[str]]) -> float | None:
    """Krippendorff's alpha for nominal data with missing values; None if nothing can be compared.

    units: for each trial, the answers that it got. 1 = the raters agree, 0 = as by chance. By the
    coincidence matrix (Krippendorff 2011, "Computing Krippendorff's alpha-reliability", sec. C).
    """
    coincidences: defaultdict[tuple[str, str], float] = defaultdict(float)
    for answers in units:
        for i, j in combinations(range(len(answers)), 2):
            weight = 1 / (len(answers) - 1)
            coincidences[answers[i], answers[j]] += weight
            coincidences[answers[j], answers[i]] += weight
    totals: defaultdict[str, float] = defaultdict(float)
    for (answer, _), weight in coincidences.items():
        totals[answer] += weight
    n = sum(totals.values())
    expected = n**2 - sum(count**2 for count in totals.values())
    if n <= 1 or expected == 0:
        return None
    observed = sum(weight for (a, b), weight in coincidences.items() if a != b)
    return 1 - (n - 1) * observed / expected


def agreement(table: pd.DataFrame) -> dict[str, Any]:
    """How far raters agree on the main trials of ``table``: pairwise share and alpha, per task."""
    result: dict[str, Any] = {}
    for task, votes in table[table["role"] == "main"].groupby("task"):
        units = [tuple(group) for _, group in votes.groupby("id")["choice"] if len(group) > 1]
        pairs = [a == b for unit in units for a, b in combinations(unit, 2)]
        alpha = krippendorff_alpha(units)
        result[str(task)] = {
            "trials": int(votes["id"].nunique()),
            "votes": len(votes),
            "trials_with_two_votes": len(units),
            "pairwise": _share(pairs),
            "krippendorff_alpha": None if alpha is None else round(alpha, 4),
        }
    return result


def summary(study: Study) -> dict[str, Any]:
    """What the organiser's page shows, as plain JSON."""
    table = records(study)
    quality = {row.rater: asdict(row) for row in judge(table)}
    with study.store() as store:
        undone = store.undone()
        raters = [
            {
                "rater": f"r{number}",
                "name": rater.name,
                "token": rater.token,
                **dict(zip(("done", "total"), store.progress(rater), strict=True)),
                **{k: v for k, v in quality.get(f"r{number}", {}).items() if k != "rater"},
            }
            for number, rater in enumerate(store.raters())
        ]
    return {
        "title": study.config["title"],
        "raters": raters,
        "agreement": agreement(table),
        "undone": undone,
    }
