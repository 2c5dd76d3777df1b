"""What every training run shares: its config, its folder, its loop and its checkpoints.

A run is a folder with `config.json` (what was asked for, and from what), `log.csv` and `state.pt`.
Steps are pure functions of (weights, optimiser, seed, step), so a resumed run equals an
uninterrupted one.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import math
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..errors import OutputExistsError, WeightsError
from .checkpoints import UNREADABLE

Config = TypeVar("Config")
# Draws a clean display patch (H, W, 3) in [0, 1].
Sampler = Callable[[np.random.Generator], NDArray[np.floating[Any]]]


class TrainConfig(Protocol):
    """What the loop needs of a run's config."""

    @property
    def steps(self) -> int:
        """Steps in all."""

    @property
    def warmup(self) -> int:
        """Steps of the linear warm-up."""

    @property
    def checkpoint_every(self) -> int:
        """Steps between checkpoints."""


class Part(Protocol):
    """What a checkpoint holds: modules, optimisers, averages."""

    def state_dict(self) -> dict[str, Any]:
        """Give tensors and plain numbers."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Take them back."""


def read_config(kind: type[Config], path: Path) -> Config:
    """A config dataclass from a TOML file; unknown keys and wrong types are errors."""
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise WeightsError(f"cannot read the config {path}: {error}") from error
    defaults = dataclasses.asdict(kind())  # type: ignore[call-overload]
    if unknown := sorted(set(values) - set(defaults)):
        raise WeightsError(
            f"{path}: unknown keys {', '.join(unknown)}; known: {', '.join(defaults)}"
        )
    for key, value in values.items():
        wanted = type(defaults[key])
        if not is_a(wanted, value):
            raise WeightsError(f"{path}: {key} must be {wanted.__name__}, got {value!r}")
    return kind(**values)


def is_a(kind: type, value: object) -> bool:
    """Whether a value from TOML is of a config's type; true is no number, 1 is a float too."""
    return type(value) in ((int, float) if kind is float else (kind,))


def fingerprint(parts: Iterable[bytes]) -> str:
    """A short hash of what a run starts from."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]


def fingerprint_of(sample: Sampler) -> str:
    """A fingerprint of a patch source, by a few of its patches."""
    return fingerprint(
        np.ascontiguousarray(sample(np.random.default_rng(i))).tobytes() for i in range(8)
    )


def claim(out: Path, config: Any, start: dict[str, str]) -> None:
    """Make the folder `out` this run's; refuse one begun with another config or other data.

    `start` names what the run starts from by fingerprints.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise OutputExistsError(
            f"cannot make the folder {out}: {reason}; choose another place"
        ) from error
    path = out / "config.json"
    if not path.exists() and any(out.iterdir()):
        raise OutputExistsError(f"{out} is not empty and holds no run: choose another folder")
    text = json.dumps({**dataclasses.asdict(config), "start": start}, indent=2)
    if path.exists() and path.read_text() != text:
        raise OutputExistsError(
            f"{out} holds a run of another config or from other data; choose another folder"
        )
    path.write_text(text)


def train(
    out: Path,
    config: TrainConfig,
    modules: Sequence[nn.Module],
    optimiser: torch.optim.Optimizer,
    loss_of: Callable[[int], tuple[torch.Tensor, dict[str, float]]],
    report: Callable[[int, dict[str, float]], None],
) -> None:
    """Run, or resume, the steps of a claimed folder; `loss_of(step)` gives a loss and its log.

    Each group of `optimiser` names its peak learning rate as `rate`. Gradients are clipped to a
    norm of 1. A loss that is no number stops the run; the last checkpoint stays.
    """
    parameters = [parameter for module in modules for parameter in module.parameters()]
    for step in range(resume(out, *modules, optimiser), config.steps):
        for group in optimiser.param_groups:
            group["lr"] = group["rate"] * schedule(step, steps=config.steps, warmup=config.warmup)
        loss, logs = loss_of(step)
        if not torch.isfinite(loss):
            raise WeightsError(f"the loss became {loss.item()} at step {step}; lower learning_rate")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        report(step, logs)
        log_step(out, step, logs)
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
            checkpoint(out, step + 1, *modules, optimiser)


def resume(out: Path, *parts: Part) -> int:
    """Load the newest checkpoint into `parts`; returns the number of steps done."""
    path, log = out / "state.pt", out / "log.csv"
    if not path.exists():
        log.unlink(missing_ok=True)
        return 0
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        for part, saved in zip(parts, state["parts"], strict=True):
            part.load_state_dict(saved)
    except UNREADABLE as error:
        reason = textwrap.shorten(str(error), 200)
        raise WeightsError(
            f"{path}, from which the run would go on, is damaged ({reason}). Delete it to begin "
            "anew, or name another folder"
        ) from error
    rows = log.read_text().splitlines(keepends=True)
    log.write_text("".join(rows[: state["step"] + 1]))
    return int(state["step"])


def checkpoint(out: Path, step: int, *parts: Part) -> None:
    """Write a checkpoint, whole or not at all."""
    beside = out / "state.pt.tmp"
    torch.save({"step": step, "parts": [part.state_dict() for part in parts]}, beside)
    beside.replace(out / "state.pt")


def log_step(out: Path, step: int, logs: dict[str, float]) -> None:
    """Append a row to the run's log."""
    path = out / "log.csv"
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(["step", *logs])
        writer.writerow([step, *(f"{value:.5f}" for value in logs.values())])


def schedule(step: int, *, steps: int, warmup: int) -> float:
    """Share of the learning rate: linear warm-up, then a cosine to zero."""
    return min(1.0, (step + 1) / max(warmup, 1)) * 0.5 * (1 + math.cos(math.pi * step / steps))
