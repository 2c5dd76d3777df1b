"""The study of docs/experiment.md: every model, synthetic and real pairs, several trainings.

    python benchmarks/study.py train      # 42 trainings into runs/, those that are missing
    python benchmarks/study.py publish    # the first seed's become sr_models/checkpoints
    python benchmarks/study.py measure    # evaluate, gap and audit, into results/
    python benchmarks/study.py cards      # what was measured, into the checkpoints' cards
    python benchmarks/study.py page       # docs/findings.md with its pictures

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
from sr_models.cards import read_card, write_card
from sr_models.data.pairs import Regime
from sr_models.experiment.cases import CASES as CASES_OF_DESIGN
from sr_models.experiment.results import CaseResults, read_case_results
from sr_models.experiment.summary import mean_of
from sr_models.experiment.weights import Trainings, set_name
from sr_models.profiles import models
from sr_models.registry import CHECKPOINTS

REGIMES: tuple[Regime, ...] = ("synthetic", "real")
MINDGAP = [sys.executable, "-m", "lpips_sat.cli.mindgap"]
SHIPPED_SEED = 0
ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
CASES, GAP, AUDIT = (RESULTS / f"study{kind}" for kind in (".parquet", "-gap.parquet", "-audit"))
ABOUT = (
    "The pairs are Sentinel-2's B8A (20 m) and B08 (10 m), see [Pairs of two sensors](pairs.md); "
    "how everything is measured is on the page [The domain gap](experiment.md)."
)
IN_CARDS = ("psnr", "ssim", "lpips-sat")


@click.group()
@click.option("--data", type=click.Path(path_type=Path), default=Path("runs/pairs/s2-b8"))
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"))
@click.pass_context
def study(context: click.Context, data: Path, runs: Path) -> None:
    context.obj = Trainings(data, "small", {}, "physical", runs, "cpu")


@study.command()
@click.option("--seeds", default=3, show_default=True)
@click.option("--jobs", default=1, show_default=True, help="Trainings at a time, one thread each.")
@click.pass_obj
def train(trainings: Trainings, seeds: int, jobs: int) -> None:
    def one(job: tuple[int, str, Regime]) -> None:
        seed, model, regime = job
        out = trainings.folder(model, regime, seed)
        if not (out / "pipeline").is_dir():
            words = ["train", "--model", model, "--regime", regime, "--seed", str(seed)]
            words += ["--data", str(trainings.root), "--out", str(out), "--device", "cpu"]
            threads = {"OMP_NUM_THREADS": "1"} if jobs > 1 else {}
            subprocess.run([*MINDGAP, *words], check=True, env={**os.environ, **threads})

    order = [(s, m, r) for s in range(seeds) for m in models() for r in REGIMES]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, order))


@study.command()
@click.pass_obj
def publish(trainings: Trainings) -> None:
    from sr_models.pipeline import SRPipeline

    for model in models():
        for regime in REGIMES:
            source = trainings.folder(model, regime, SHIPPED_SEED) / "pipeline"
            target = checkpoint(trainings, model, regime)
            about = {"name": target.name, **read_card(source)}
            card = write_checkpoint(
                SRPipeline.from_pretrained(source), target, about, overwrite=True
            )
            click.echo(f"{target.name}  {card['sha256'][:12]}")


@study.command()
@click.option("--seeds", default=3, show_default=True)
@click.option("--gap-seeds", default=1, show_default=True, help="17 runs per patch each.")
@click.option("--gap-metrics", default="psnr,lpips-sat", show_default=True)
@click.pass_obj
def measure(trainings: Trainings, seeds: int, gap_seeds: int, gap_metrics: str) -> None:
    where = places(trainings)
    mindgap("evaluate", "--model", "all", "--seeds", str(seeds), "--out", str(CASES), *where)
    mindgap("gap", str(CASES), "--attribute", "--metrics", gap_metrics, "--seeds", str(gap_seeds),
            "--out", str(GAP), *where)  # fmt: skip
    mindgap("audit", str(trainings.root), "--out", str(AUDIT), "--overwrite")


@study.command()
@click.pass_obj
def cards(trainings: Trainings) -> None:
    results = read_case_results(CASES)
    of_seed = results.table["seed"] == SHIPPED_SEED
    first = CaseResults(results.table[of_seed], results.provenance)
    for model in models():
        for regime in REGIMES:
            folder = checkpoint(trainings, model, regime)
            found = {
                f"case {case}, {metric}": [
                    round(value, 4) for value in (mean.mean, mean.low, mean.high)
                ]
                for case, about in CASES_OF_DESIGN.items()
                if about.trained == regime
                for metric in IN_CARDS
                for mean in [mean_of(first, model, case, metric)]
            }
            write_card(folder, {**read_card(folder), "results": found})


@study.command()
@click.pass_obj
def page(trainings: Trainings) -> None:
    made = ["--gap", str(GAP), "--audit", str(AUDIT), *places(trainings)]
    path = ROOT / "docs" / "findings.md"
    mindgap("report", str(CASES), *made, "--markdown", str(path), "--overwrite")
    title, text = path.read_text().split("\n", 1)
    path.write_text(f"{title}\n\n{ABOUT}\n{text}")


def places(trainings: Trainings) -> list[str]:
    known = ("--data", trainings.root), ("--runs", trainings.runs), ("--device", "cpu")
    return [str(word) for pair in known for word in pair]


def checkpoint(trainings: Trainings, model: str, regime: Regime) -> Path:
    return CHECKPOINTS / f"{set_name(trainings.root)}-{model}-{regime}"


def mindgap(*words: str) -> None:
    subprocess.run([*MINDGAP, *words], check=True)


if __name__ == "__main__":
    study()
