"""Experiments with everything that makes a metric, one row of a table each.

An experiment names a backbone and its weights, or the pretext it is trained on first; how features
are compared; and how the heads are fitted. What counts is the agreement with votes on references
that the heads did not see, by cross-validation inside the training trials: the validation trials
(id % 5 == 0) are never looked at here. Every run adds a row, also the failures.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import __version__
from ..backbones.pretrain import PretrainConfig, pretrain
from ..backbones.runs import Sampler, is_a, read_config
from ..errors import WeightsError
from ..lpips import LPIPSSat
from ..stats import rounded
from ..weights import shipped
from . import heads
from .calibrate import load_backbone
from .distances import DISTANCES
from .distortions import KINDS, distort
from .evaluate import agreement, summarise
from .judgements import Judgements
from .ladders import build_ladders

SPEED_SIDE, SPEED_BATCH, SPEED_REPEATS = 256, 2, 3


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One row of the study; read from a TOML file.

    backbone: a folder of weights or of a pretraining run, or an architecture by name with its
    ``backbone_config``, which is first trained for ``steps`` on ``pretext`` if that is named.
    distance: one of `distances.DISTANCES`; form: one of `heads.FORMS`.
    confidence: unsure votes count less. ladders: so many pairs of severities of one kind are
    fitted beside the votes.
    """

    backbone: str = "default"
    backbone_config: dict[str, Any] = dataclasses.field(default_factory=dict)
    pretext: str = ""
    steps: int = 0
    distance: str = "points"
    form: str = "ratio"
    strength: float = 0.003
    confidence: bool = True
    ladders: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for key, known in (("distance", DISTANCES), ("form", heads.FORMS)):
            if getattr(self, key) not in known:
                raise WeightsError(
                    f"unknown {key} {getattr(self, key)!r}; choose from: {', '.join(known)}"
                )
        if bool(self.pretext) != bool(self.steps):
            raise WeightsError("pretext and steps go together: what to train on, and how long")
        if self.backbone_config and self.backbone in shipped():
            raise WeightsError(
                f"backbone_config is for an architecture, but {self.backbone!r} are weights with a "
                "config of their own: leave backbone_config out, or name another backbone"
            )


Row = dict[str, str | float | int | None]


def read_experiment(path: Path, changes: Sequence[str] = ()) -> Experiment:
    """An experiment from a TOML file, with ``KEY=VALUE`` changes."""
    experiment = read_config(Experiment, path)
    known = dataclasses.asdict(experiment)
    changed: dict[str, Any] = {}
    for change in changes:
        key, separator, text = change.partition("=")
        if not separator or key not in known:
            raise WeightsError(
                f"cannot set {change!r}: pass KEY=VALUE with a key of {', '.join(known)}"
            )
        value = text if isinstance(known[key], str) else _value(text, change)
        if not is_a(type(known[key]), value):
            raise WeightsError(f"{key} must be {type(known[key]).__name__}, got {text!r}")
        changed[key] = value
    return dataclasses.replace(experiment, **changed)


def _value(text: str, change: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        raise WeightsError(f"cannot set {change!r}: {error}") from error


def run(
    experiment: Experiment,
    trials: Judgements,
    *,
    name: str,
    folder: Path,
    sample: Sampler | None = None,
    report: Callable[[int, dict[str, float]], None] = lambda step, logs: None,
) -> Row:
    """Carry out one experiment; its pretraining, if any, is kept in ``folder`` and resumes.

    ``trials`` are split here: only the training trials are used. ``sample`` draws clean patches,
    for a pretext and for ladders.
    """
    began = time.perf_counter()
    training, _ = trials.split()
    metric = _metric(experiment, folder, sample, report)
    compare = DISTANCES[experiment.distance]
    of_a, of_b = heads.per_channel(metric, training, compare=compare)
    ladders = _ladders(experiment, metric, sample)
    equal = 1 / (torch.cat([of_a, of_b]).mean(dim=0) + heads.TINY)
    scores = {
        "equal weights": agreement(of_a @ equal, of_b @ equal, training.share_b),
        "references left out": _left_out(experiment, of_a, of_b, training, ladders, "cluster"),
        "sources left out": _left_out(experiment, of_a, of_b, training, ladders, "source"),
    }
    held = summarise(scores["references left out"], training)
    return {
        "name": name,
        "equal weights": round(float(scores["equal weights"].mean()), 4),
        "references left out": rounded(held.mean),
        "low": rounded(held.low),
        "high": rounded(held.high),
        "sources left out": round(float(scores["sources left out"].mean()), 4),
        "trials": len(training),
        "channels": of_a.shape[1],
        "parameters": sum(p.numel() for p in metric.backbone.parameters()),
        "Mpx/s": round(_speed(metric), 2),
        "seconds": round(time.perf_counter() - began),
        "version": __version__,
        "experiment": json.dumps(dataclasses.asdict(experiment), sort_keys=True),
    }


def append(table: Path, row: Row) -> None:
    """Add ``row`` to the CSV file ``table``; a table with other columns is refused."""
    new = not table.exists()
    if not new:
        with table.open(newline="") as file:
            columns = next(csv.reader(file), [])
        if columns != list(row):
            raise WeightsError(f"{table} has other columns ({', '.join(columns)}): name another")
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def _metric(
    experiment: Experiment,
    folder: Path,
    sample: Sampler | None,
    report: Callable[[int, dict[str, float]], None],
) -> LPIPSSat:
    if experiment.pretext:
        if sample is None:
            raise WeightsError("a pretext needs clean patches: pass --eurosat")
        config = PretrainConfig(
            pretext=experiment.pretext,
            backbone=experiment.backbone,
            backbone_config=experiment.backbone_config,
            steps=experiment.steps,
            seed=experiment.seed,
        )
        pretrain(config, folder, kinds=list(KINDS), sample=sample, distort=distort, report=report)
        return load_backbone(str(folder))
    if experiment.backbone_config:
        with torch.random.fork_rng():
            torch.manual_seed(experiment.seed)
            return LPIPSSat(
                experiment.backbone,
                radiometry="display",
                backbone_config=experiment.backbone_config,
            )
    return load_backbone(experiment.backbone)


def _ladders(
    experiment: Experiment, metric: LPIPSSat, sample: Sampler | None
) -> tuple[Tensor, Tensor] | None:
    """Per-channel distances of the harsher and of the gentler of two severities of one kind."""
    if not experiment.ladders:
        return None
    if sample is None:
        raise WeightsError("ladders need clean patches: pass --eurosat")
    built = build_ladders(experiment.ladders, sample, experiment.seed, often={})
    clean, gentle, *_, harsh = built.images.swapaxes(0, 1)
    pairs = Judgements(pd.DataFrame(index=range(len(clean))), clean, harsh, gentle)
    return heads.per_channel(metric, pairs, compare=DISTANCES[experiment.distance])


def _left_out(
    experiment: Experiment,
    of_a: Tensor,
    of_b: Tensor,
    trials: Judgements,
    ladders: tuple[Tensor, Tensor] | None,
    by: str,
) -> NDArray[np.float64]:
    """Agreement on each trial by heads that saw neither its reference nor, if so asked, its source.

    Ladders join every fit: their patches are no references of a trial.
    """
    groups = trials.folds(5) if by == "cluster" else trials.table[by].to_numpy()
    weight = trials.weight if experiment.confidence else np.ones(len(trials))
    return heads.left_out(
        of_a,
        of_b,
        trials,
        groups,
        strength=experiment.strength,
        form=experiment.form,
        weight=weight,
        ladders=ladders,
    )


def _speed(metric: LPIPSSat) -> float:
    """Pixels of one image of a pair per second, in millions; the fastest of a few forwards."""
    batch = torch.rand(SPEED_BATCH, 3, SPEED_SIDE, SPEED_SIDE)
    seconds = []
    with torch.inference_mode():
        for _ in range(SPEED_REPEATS):
            began = time.perf_counter()
            metric(batch, batch)
            seconds.append(time.perf_counter() - began)
    return batch[:, 0].numel() / 1e6 / min(seconds)
