"""Models tested with differences of the real sensor turned off: a second table, that grows.

`gap` says what it amounts to. One training, or one foreign model, is a unit of work; the table is
written after each, so that the same call goes on where one was cut short. A table of other data,
settings, factors or weights is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lpips_sat import LpipsSatError
from lpips_sat.errors import ResultsError
from lpips_sat.journal import plain_json

from ..data.degradation import Degradation
from ..data.factors import Factors, fit_factors
from ..data.pairs import PairDataset, as_degradation, read_about
from ..registry import device_of, load_pipeline
from .contenders import Batch, Contender, Sampler
from .curves import trainings_of
from .evaluate import REMEDY, SHARED, check_tested, differences, taken_up
from .exam import BATCH_PIXELS, Exam, check_set
from .foreign import foreign
from .gap import STATES, SUBSETS, comparable
from .lock import sole_writer
from .results import ATTRIBUTION, CaseResults, trained, untrained, write_case_results
from .scores import Scores
from .summary import TEST

CEILING = "ceiling"  # it is shown HR, so that it has no gap
Unit = tuple[str, int]  # a model and the seed of its training
Testing = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class Asked:
    """What is attributed, and how.

    models, metrics: some of the table's, none = all that compare; seeds: only so many trainings of
    each, the first ones; metric_weights: see `Scores`;
    runs: where trainings are; device: "cpu", "cuda", or None for the GPU where there is one.
    """

    models: Sequence[str] = ()
    metrics: Sequence[str] = ()
    metric_weights: Mapping[str, str] = field(default_factory=dict)
    runs: Path = Path("runs")
    device: str | None = None
    seeds: int | None = None


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
        out: Parquet; `sr_models.experiment.gap.attributions` reads it.
        asked: which of them, and where their weights are.
        testing: told a unit and its number of patches; gives what is told the patches done.
        overwrite: begin `out` afresh.

    Returns:
        All that `out` then holds.

    Raises:
        LpipsSatError: the set or the weights are not those of the table, or `out` is of others or
            is being written by another run.
    """
    units = units_of(results, asked.models, asked.seeds)
    check_set(results.provenance, root)
    exam = _exam(results, root, asked)
    degradation = results.provenance["degradation"]
    factors = fit_factors(PairDataset(root, "train"), degradation)
    how = {"table": ATTRIBUTION, **exam.describe(), "factors": factors.to_dict()}
    with sole_writer(out):
        done = taken_up(out, plain_json(how), most=3, overwrite=overwrite)
        todo = [unit for unit in units if not _has(done, unit, results, out)]
        contenders = [_contender(unit, results, exam, asked) for unit in todo]  # or it is said now
        for unit, contender in zip(todo, contenders, strict=True):
            model, seed = unit
            with testing(
                f"{model}, seed {seed}, {len(STATES)} states", exam.tiles[TEST]
            ) as advance:
                told: dict[str, Any] = {"degradation": degradation, "advance": advance}
                rows = attribute(contender, root, factors, exam.scores, **told)
                new = [{"model": model, "seed": seed, **row} for row in rows]
            done = _with(done, unit, new, _weights(unit, results))
            write_case_results(done, out, overwrite=True)
    return done


def check_made_of(results: CaseResults, why: CaseResults, path: Path) -> None:
    """Refuse an attribution of other images, settings or weights than a table has.

    Raises:
        ResultsError: what differs.
    """
    made, known = why.provenance, results.provenance
    now = {key: made.get(key) for key in (*SHARED, "data_range")}
    before = {key: known.get(key) for key in now}
    for metric, about in made.get("metrics", {}).items():
        before[metric], now[metric] = known.get("metrics", {}).get(metric), about
    for name, about in made.get("weights", {}).items():
        model, seed = name.rsplit(" ", 1)
        tested = _weights((model, int(seed)), results)
        before[f"weights of {name}"], now[f"weights of {name}"] = (
            str(one.get("sha256")) for one in (tested, about)
        )
    if changes := differences(before, now):
        raise ResultsError(
            f"{path} is not made of these results: {'; '.join(changes[:3])}. Make it from them "
            "with `mindgap gap --attribute`"
        )


def _with(
    done: CaseResults, unit: Unit, rows: Sequence[dict[str, Any]], weights: Mapping[str, Any]
) -> CaseResults:
    """The table with the rows of one more unit."""
    table = CaseResults.from_rows(rows, {}).table
    if len(done.table):
        table = pd.concat([done.table, table], ignore_index=True)
    known = {**done.provenance["weights"], " ".join(map(str, unit)): dict(weights)}
    return CaseResults(table, {**done.provenance, "weights": known})


def attribute(
    contender: Contender,
    root: Path,
    factors: Factors,
    scores: Scores,
    *,
    degradation: str | Degradation = "physical",
    seed: int = 0,
    advance: Callable[[int], None] = lambda patches: None,
) -> Iterator[dict[str, Any]]:
    """Test a model on every test patch in all `STATES`: rows without model and training.

    Args:
        contender: who super-resolves.
        root: the set of pairs.
        factors: of its training split, see `fit_factors`.
        scores: the metrics.
        degradation: how the synthetic images are made, in case I too.
        seed: of the noise that is added; it is the same in all states.
        advance: told the patches that are done.
    """
    real = PairDataset(root, TEST)
    synthetic = PairDataset(root, TEST, "synthetic", degradation=degradation)
    sensor = as_degradation(degradation, real.about)
    for index, block in enumerate(real.tiles["block"]):
        pair = real[index]
        lr, hr = (pair[key].numpy().astype(np.float64) for key in ("lr", "hr"))
        views = factors.views(hr, sensor, pair["id"])
        images = [
            factors.apply(lr, views, on=on, rng=np.random.default_rng([seed, index]))
            for on in SUBSETS
        ]
        inputs = torch.from_numpy(np.stack(images).astype(np.float32))
        inputs = torch.cat([inputs, synthetic[index]["lr"][None]])
        for metric, values in _tested(contender, scores, inputs, pair).items():
            for state, value in zip(STATES, values, strict=True):
                place = {"split": TEST, "patch": pair["id"], "block": str(block)}
                known = {"estimate": "sample", "metric": metric, "value": value}
                yield {"case": state, **place, **known}
        advance(1)


def _tested(
    contender: Contender, scores: Scores, lr: Tensor, pair: dict[str, Any]
) -> dict[str, list[float]]:
    """Scores of one patch whose LR image comes in N states (N, C, h, w)."""
    hr = pair["hr"][None]
    size = max(1, BATCH_PIXELS // hr[0, 0].numel())
    found: dict[str, list[float]] = {}
    for part in lr.split(size):
        batch = Batch([pair["id"]] * len(part), part, hr.expand(len(part), -1, -1, -1))
        guess = contender.guess(batch, 1)
        if not guess.samples.isfinite().all():
            raise LpipsSatError(f"values that are no numbers in the image of patch {pair['id']}")
        for metric, values in scores(guess.samples[0], batch.hr, part).items():
            found.setdefault(metric, []).extend(values)
    return found


def units_of(
    results: CaseResults, models: Sequence[str] = (), seeds: int | None = None
) -> list[Unit]:
    """Models and seeds that a table has in the cases I and II; models, seeds: only these.

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
    chosen = [unit for unit in both if not models or unit[0] in models]
    return chosen if seeds is None else [unit for unit in chosen if unit[1] < seeds]


def _exam(results: CaseResults, root: Path, asked: Asked) -> Exam:
    """The test that the table is of; another set is refused."""
    known, about = results.provenance, read_about(root)
    names = asked.metrics or comparable(results)
    options: dict[str, Any] = {"data_range": known["data_range"], "weights": asked.metric_weights}
    scores = Scores(about, int(about["layout"]["tile"]), names, **options)
    how: dict[str, Any] = {"degradation": known["degradation"], "num_samples": 1}
    exam = Exam(root, scores, ["real", "synthetic"], **how)
    check_tested(results, exam, (*SHARED, "data_range"))
    return exam


def _weights(unit: Unit, results: CaseResults) -> dict[str, Any]:
    """What the table says of the weights that were tested in case II."""
    known = results.provenance["weights"]
    model, seed = unit
    names = (trained(model, "synthetic", seed), untrained(model, "real"))
    return dict(next((known[name] for name in names if name in known), {}))


def _contender(unit: Unit, results: CaseResults, exam: Exam, asked: Asked) -> Contender:
    """Who was tested in case II, with the same weights."""
    (model, seed), before = unit, _weights(unit, results)
    device = device_of(asked.device)
    if before.get("origin") == "predictions":
        raise LpipsSatError(
            f"{model} are images, and the attribution needs the model that made them: name others "
            "with --model"
        )
    if trained(model, "synthetic", seed) not in results.provenance["weights"]:
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
    return contender


def _has(done: CaseResults, unit: Unit, results: CaseResults, out: Path) -> bool:
    """Whether a unit is done, with the weights that `results` has."""
    name = " ".join(map(str, unit))
    there, now = done.provenance["weights"].get(name), _weights(unit, results)
    if there is not None and there.get("sha256") != now.get("sha256"):
        raise ResultsError(f"{out} holds {name} with other weights. {REMEDY}")
    return there is not None
