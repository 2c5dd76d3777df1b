"""`mindgap train`: train a super-resolution model on pairs."""

from __future__ import annotations

import json
import tomllib
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .. import options


def assignment(text: str) -> tuple[str, Any]:
    """`steps=100` -> ("steps", 100), with the value as TOML has it; bare words are text."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(text)
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def assignments(changes: tuple[str, ...]) -> dict[str, Any]:
    """What `--set KEY=VALUE` said; anything else is a usage error."""
    try:
        found = dict(assignment(change) for change in changes)
    except ValueError as error:
        raise click.BadParameter(f"expected KEY=VALUE, got {error}", param_hint="--set") from None
    if "seed" in found:
        raise click.BadParameter("the seed has an option of its own", param_hint="--set")
    return found


@click.command()
@click.option("--model", required=True, help="Which one; `mindgap models` lists them.")
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="Pairs; see `mindgap data`."
)
@click.option(
    "--regime",
    type=click.Choice(["synthetic", "real"]),
    required=True,
    help="LR made from HR by a degradation, or the other sensor's.",
)
@click.option(
    "--degradation",
    type=click.Choice(["physical", "bicubic", "blind"]),
    default="physical",
    show_default=True,
    help="How LR is made in the synthetic regime.",
)
@click.option(
    "--profile",
    type=click.Choice(["small", "paper"]),
    default="small",
    show_default=True,
    help="Minutes on a CPU, or as the papers do it.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Run folder; default in runs/.")
@options.seed("Decides everything random.")
@click.option(
    "--device",
    type=click.Choice(["cpu"]),
    help="cpu, or leave it to accelerate: the GPU where there is one.",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Replace a training option, such as steps=5000 or loss=lpips-sat.",
)
def train(
    model: str,
    data: Path,
    regime: Literal["synthetic", "real"],
    degradation: str,
    profile: str,
    out: Path | None,
    seed: int,
    device: str | None,
    changes: tuple[str, ...],
) -> None:
    """Train a model; call again with the same words to resume.

    The run folder holds the losses (log.csv), the PSNR on the validation blocks (validation.csv),
    both for TensorBoard, a checkpoint to resume from, and at the end the pipeline, which
    `mindgap sr --model RUN` takes. Several GPUs: `accelerate launch -m lpips_sat.cli.mindgap
    train ...`.
    """
    from sr_models.experiment.weights import Material, Trainings
    from sr_models.profiles import load_profile

    wanted = assignments(changes)
    settings = load_profile(model, profile, {**wanted, "seed": seed})
    material = Material(data, regime, degradation, seed)
    usual = Trainings(data, profile, wanted, degradation, Path("runs"))
    folder = out or usual.folder(model, regime, seed)
    with progress(settings.train.steps) as report:
        pipeline = material.train(settings, folder, device=device, report=report)
    click.echo(json.dumps({"run": str(folder), "pipeline": str(pipeline)}))


@contextmanager
def progress(steps: int) -> Any:
    """A bar with the loss on a terminal, else a line every hundred steps."""
    if not options.stderr.is_terminal:
        yield options.step_log(steps)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    text = TextColumn("{task.description}")
    with Progress(text, *columns, console=options.stderr, transient=True) as bar:
        task = bar.add_task("training", total=steps)

        def report(step: int, logs: dict[str, float]) -> None:
            bar.update(task, completed=step + 1, description=f"loss {logs['loss']:.4f}")

        yield report
