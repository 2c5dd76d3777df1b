"""The study of docs/experiment.md: every model, synthetic and real pairs, several trainings.

    python benchmarks/study.py train      # 42 trainings into runs/, those that are missing
    python benchmarks/study.py publish    # the first seed's become sr_models/checkpoints

Each step takes up what earlier ones left, also after a kill.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from sr_models.cards import publish as write_checkpoint
from sr_models.cards import read_card
from sr_models.profiles import models
from sr_models.registry import CHECKPOINTS

REGIMES = ("synthetic", "real")
MINDGAP = [sys.executable, "-m", "lpips_sat.cli.mindgap"]
SHIPPED_SEED = 0


@click.group()
@click.option("--data", type=click.Path(path_type=Path), default=Path("runs/pairs/s2-b8"))
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"))
@click.pass_context
def study(context: click.Context, data: Path, runs: Path) -> None:
    context.obj = (data, runs)


@study.command()
@click.option("--seeds", default=3, show_default=True)
@click.option("--jobs", default=1, show_default=True, help="Trainings at a time, one thread each.")
@click.pass_obj
def train(places: tuple[Path, Path], seeds: int, jobs: int) -> None:
    data, runs = places

    def one(job: tuple[int, str, str]) -> None:
        seed, model, regime = job
        out = run_folder(data, runs, model, regime, seed)
        if not (out / "pipeline").is_dir():
            words = ["train", "--model", model, "--regime", regime, "--seed", str(seed)]
            words += ["--data", str(data), "--out", str(out), "--device", "cpu"]
            threads = {"OMP_NUM_THREADS": "1"} if jobs > 1 else {}
            subprocess.run([*MINDGAP, *words], check=True, env={**os.environ, **threads})

    order = [(s, m, r) for s in range(seeds) for m in models() for r in REGIMES]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, order))


@study.command()
@click.pass_obj
def publish(places: tuple[Path, Path]) -> None:
    from sr_models.pipeline import SRPipeline

    data, runs = places
    for model in models():
        for regime in REGIMES:
            source = run_folder(data, runs, model, regime, SHIPPED_SEED) / "pipeline"
            target = CHECKPOINTS / f"{data.name}-{model}-{regime}"
            about = {"name": target.name, **read_card(source)}
            card = write_checkpoint(
                SRPipeline.from_pretrained(source), target, about, overwrite=True
            )
            click.echo(f"{target.name}  {card['sha256'][:12]}")


def run_folder(data: Path, runs: Path, model: str, regime: str, seed: int) -> Path:
    return runs / f"{data.name}-{model}-{regime}-small-{seed}"


if __name__ == "__main__":
    study()
