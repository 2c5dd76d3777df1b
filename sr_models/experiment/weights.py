"""The weights that a case needs: shipped, of a run that has ended, or trained now."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpips_sat import LpipsSatError

from .. import registry
from ..cards import MARK, read_card, sha256
from ..data.pairs import PairDataset, Regime
from ..profiles import Profile, load_profile

if TYPE_CHECKING:
    from ..training import Report


@dataclass(frozen=True)
class Weights:
    """A saved pipeline. origin: "checkpoint" or "run"; about: its card, or the run's config."""

    folder: Path
    origin: str
    about: dict[str, Any]

    def describe(self) -> dict[str, Any]:
        """What results say of their weights."""
        run = self.origin == "run"
        named = str(self.folder.parent) if run else self.folder.name
        return {
            "origin": self.origin,
            "name": named,
            "sha256": sha256(self.folder),
            "about": self.about,
        }


@dataclass(frozen=True)
class Material:
    """What a training learns from and is watched on: a set, a regime, and a seed of its noise.

    degradation: how LR is made in the synthetic regime.
    """

    root: Path
    regime: Regime
    degradation: str
    seed: int

    def pairs(self, split: str) -> PairDataset:
        """The pairs of a split."""
        how: dict[str, Any] = {"degradation": self.degradation, "seed": self.seed}
        return PairDataset(self.root, split, self.regime, **how)

    @property
    def about(self) -> dict[str, Any]:
        """What a model's card says of it."""
        about = {"data": set_name(self.root), "regime": self.regime}
        return about if self.regime == "real" else about | {"degradation": self.degradation}

    @property
    def start(self) -> dict[str, str]:
        """What the config of a run says that it started from."""
        from ..training import fingerprint  # diffusers takes seconds to import

        pairs = self.pairs("train")
        return {"pairs": fingerprint(pairs), "bands": ",".join(pairs.about["hr"]["bands"])}

    def train(self, profile: Profile, out: Path, *, device: str | None, report: Report) -> Path:
        """Train in the folder `out`, or go on with what it holds; see `training.train`."""
        from ..training import train

        pairs, held_out = self.pairs("train"), self.pairs("val")
        return train(
            profile,
            pairs,
            out,
            bands=pairs.about["hr"]["bands"],
            lr_bands=pairs.about["lr"]["bands"],
            validation=held_out,
            device=device,
            about=self.about,
            report=report,
        )


@dataclass(frozen=True)
class Trainings:
    """Trainings on one set of pairs, as somebody wants them.

    root: the set; profile: its size, see `sr_models.profiles`; changes: of its training options;
    degradation: how LR is made in the synthetic regime; runs: where run folders are; device: "cpu",
    or None for what the machine offers.
    """

    root: Path
    profile: str
    changes: Mapping[str, Any]
    degradation: str
    runs: Path
    device: str | None = None

    def folder(self, model: str, regime: Regime, seed: int) -> Path:
        """The run's folder: runs/s2-b8-sr3-real-small-0."""
        usual = regime == "real" or self.degradation == "physical"
        kind = regime if usual else f"{regime}-{self.degradation}"
        return self.runs / f"{set_name(self.root)}-{model}-{kind}-{self.profile}-{seed}"

    def find(self, model: str, regime: Regime, seed: int) -> Weights | None:
        """What is there already.

        Raises:
            LpipsSatError: the run's folder holds one of another config or from other data.
        """
        return self._shipped(model, regime, seed) or self._ended(model, regime, seed)

    def train(self, model: str, regime: Regime, seed: int, report: Report) -> Weights:
        """Train, or go on with a run that was cut short."""
        out, material = self.folder(model, regime, seed), self._material(regime, seed)
        material.train(self._profile(model, seed), out, device=self.device, report=report)
        return _of_run(out)

    def steps(self, model: str, regime: Regime, seed: int) -> int:
        """Steps of a training."""
        return self._profile(model, seed).train.steps

    def command(self, model: str, regime: Regime, seed: int) -> str:
        """The command that trains the same."""
        words = ["mindgap", "train", "--model", model, "--data", str(self.root)]
        words += ["--regime", regime, "--seed", str(seed), "--profile", self.profile]
        words += [] if regime == "real" else ["--degradation", self.degradation]
        for key, value in self.changes.items():
            words += ["--set", f"{key}={value}"]
        return shlex.join([*words, "--out", str(self.folder(model, regime, seed))])

    def _shipped(self, model: str, regime: Regime, seed: int) -> Weights | None:
        """The checkpoint whose card says that it is this training."""
        candidates = sorted(registry.CHECKPOINTS.glob(f"*-{model}-{regime}/{MARK}"))
        if not candidates or self.changes:
            return None
        wanted = self._material(regime, seed).start["pairs"]
        for path in candidates:
            card = read_card(path.parent)
            made = (card.get("pairs"), card.get("seed"), card.get("profile", "small"))
            if made == (wanted, seed, self.profile):
                return Weights(path.parent, "checkpoint", card)
        return None

    def _ended(self, model: str, regime: Regime, seed: int) -> Weights | None:
        out = self.folder(model, regime, seed)
        if registry.pipeline_folder(out) is None:
            return None
        weights = _of_run(out)
        start = self._material(regime, seed).start
        wanted = {**asdict(self._profile(model, seed)), "start": start}
        if weights.about != json.loads(json.dumps(wanted)):
            raise LpipsSatError(
                f"{out} holds a run of another config or from other data: give the --profile, "
                "--set, --degradation and --data it was trained with, or another folder of --runs"
            )
        return weights

    def _profile(self, model: str, seed: int) -> Profile:
        return load_profile(model, self.profile, {**self.changes, "seed": seed})

    def _material(self, regime: Regime, seed: int) -> Material:
        return Material(self.root, regime, self.degradation, seed)


def set_name(root: Path) -> str:
    """What a set of pairs is called: its folder."""
    return root.resolve().name


def _of_run(out: Path) -> Weights:
    path = out / "config.json"
    if not path.is_file():
        raise LpipsSatError(f"{out} holds a pipeline but no config.json, so it is no run: move it")
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Weights(out / "pipeline", "run", config)
