"""The gaps in a table of the experiment, attributed: a second table, that grows.

One training, or one foreign model, is a unit of work. The table is written after each, so that the
same call goes on where one was cut short. A table of other data, settings, factors or weights is
refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from lpips_sat import LpipsSatError
from lpips_sat.errors import ResultsError
from lpips_sat.journal import plain_json

from .contenders import Contender, Sampler
from .curves import trainings_of
from .data.factors import Factors, fit_factors
from .data.pairs import PairDataset, read_about
from .evaluate import REMEDY, differences
from .exam import Exam
from .foreign import foreign
from .gap import attribute
from .registry import load_pipeline
from .results import CaseResults, read_case_results, write_case_results
from .scores import Scores
from .summary import TEST

# What a table of the experiment says that must hold of the set and the settings here too.
SHARED = ("set", "degradation", "data_range")
CEILING = "ceiling"  # it is shown HR, so that it has no gap
Unit = tuple[str, int]  # a model and the seed of its training
Testing = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class Asked:
    """What is attributed, and how.

    models, metrics: some of the table's, none = all; metric_weights: see `Scores`; runs: where
    trainings are; device: "cpu", "cuda", or None for the GPU where there is one.
    """

    models: Sequence[str] = ()
    metrics: Sequence[str] = ()
    metric_weights: Mapping[str, str] = field(default_factory=dict)
    runs: Path = Path("runs")
    device: str | None = None


def attribute_results(
    results: CaseResults,
    root: Path,
    out: Path,
    asked: Asked,
    *,
    testing: Testing = lambda unit, patches: nullcontext(lambda done: None),
    overwrite: bool = False,
) -> CaseResults:
    """Attribute the gaps of a table, and write that to `out`, or go on with it.

    Args:
        results: of `mindgap evaluate`, with the cases I and II.
        root: the set of pairs that it is of.
        out: Parquet; `sr_models.gap.attributions` reads it.
        asked: which of them, and where their weights are.
        testing: told a unit and its number of patches; gives what is told the patches done.
        overwrite: begin `out` afresh.

    Returns:
        All that `out` then holds.

    Raises:
        LpipsSatError: the set or the weights are not those of the table, or `out` is of others.
    """
    units = units_of(results, asked.models)
    exam = _exam(results, root, asked)
    contenders = {unit: _contender(unit, results, exam, asked) for unit in units}
    degradation = results.provenance["degradation"]
    factors = fit_factors(PairDataset(root, "train"), degradation)
    done = _begin(out, exam, factors, overwrite=overwrite)
    for unit in units:
        contender, weights = contenders[unit]
        key = f"{unit[0]} {unit[1]}"
        if done.provenance["weights"].setdefault(key, weights) != weights:
            raise ResultsError(f"{out} holds {key} with other weights. {REMEDY}")
        if _has(done, unit):
            continue
        with testing(f"attributing {unit[0]}, seed {unit[1]}", exam.tiles[TEST]) as advance:
            rows = attribute(
                contender, root, factors, exam.scores, degradation=degradation, advance=advance
            )
            new = [{"model": unit[0], "seed": unit[1], **row} for row in rows]
        table = CaseResults.from_rows(new, {}).table
        if len(done.table):
            table = pd.concat([done.table, table], ignore_index=True)
        done = CaseResults(table, done.provenance)
        write_case_results(done, out, overwrite=True)
    return done


def units_of(results: CaseResults, models: Sequence[str] = ()) -> list[Unit]:
    """Models and seeds that a table has in the cases I and II; models: only these.

    Raises:
        ResultsError: it has none, or not of these models.
    """
    table = results.table[results.table["split"] == TEST]
    table = table[(table["model"] != CEILING) & table["case"].isin(["I", "II"])]
    cases = table.groupby(["model", "seed"], sort=False)["case"].nunique()
    both = [(str(model), int(seed)) for model, seed in cases.index[cases == 2]]
    have = list(dict.fromkeys(model for model, _ in both))
    absent = [model for model in models if model not in have]
    if absent or not both:
        raise ResultsError(
            f"no gap of {', '.join(absent) or 'any model'} to attribute: the table has the cases I "
            f"and II of {', '.join(have) or 'none'}; run `mindgap evaluate` for them"
        )
    return [unit for unit in both if not models or unit[0] in models]


def _exam(results: CaseResults, root: Path, asked: Asked) -> Exam:
    """The test that the table is of; another set is refused."""
    known, about = results.provenance, read_about(root)
    names = asked.metrics or list(known["metrics"])
    options: dict[str, Any] = {"data_range": known["data_range"], "weights": asked.metric_weights}
    scores = Scores(about, int(about["layout"]["tile"]), names, **options)
    how: dict[str, Any] = {"degradation": known["degradation"], "num_samples": 1}
    exam = Exam(root, scores, ["real", "synthetic"], **how)
    now = plain_json(exam.describe())
    before, here = ({key: what.get(key) for key in SHARED} for what in (known, now))
    if changes := differences(before, here):
        raise ResultsError(
            f"the table is not of {root}: {'; '.join(changes)}. Give the set that `mindgap "
            "evaluate` tested on"
        )
    return exam


def _contender(
    unit: Unit, results: CaseResults, exam: Exam, asked: Asked
) -> tuple[Contender, dict[str, Any]]:
    """Who was tested in case II, with the same weights."""
    (model, seed), known = unit, results.provenance
    device = asked.device or ("cuda" if torch.cuda.is_available() else "cpu")
    before = known["weights"].get(f"{model} synthetic {seed}")
    if before is None:
        before = known["weights"].get(f"{model} on real", {})
        if before.get("origin") == "predictions":
            raise LpipsSatError(
                f"{model} are images, and the attribution needs the model that made them: name "
                "others with --model"
            )
        contender, about = foreign(model, exam, "real", alone=False, device=device)
    else:
        trainings = trainings_of(results, exam.root, asked.runs, device=device)
        weights = trainings.find(model, "synthetic", seed)
        if weights is None:
            raise LpipsSatError(
                f"{model}, seed {seed}, is not in {asked.runs}: name the folder with --runs, or "
                f"run {trainings.command(model, 'synthetic', seed)}"
            )
        contender, about = Sampler(load_pipeline(weights.folder, device), seed), weights.describe()
    if about["sha256"] != before.get("sha256"):
        raise ResultsError(f"the table holds {model}, seed {seed}, with other weights than now")
    return contender, plain_json(about)


def _begin(out: Path, exam: Exam, factors: Factors, *, overwrite: bool) -> CaseResults:
    """Take up the table that is there, if it fits."""
    now = plain_json({**exam.describe(), "factors": factors.to_dict()})
    empty = CaseResults.from_rows([], {**now, "weights": {}})
    if overwrite or not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        return empty
    there = read_case_results(out)
    if changes := differences({key: there.provenance.get(key) for key in now}, now):
        raise ResultsError(f"{out} was made otherwise: {'; '.join(changes[:3])}. {REMEDY}")
    return there


def _has(done: CaseResults, unit: Unit) -> bool:
    table = done.table
    return bool(((table["model"] == unit[0]) & (table["seed"] == unit[1])).any())
