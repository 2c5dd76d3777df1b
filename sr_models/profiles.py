"""Profiles: what to build and how to train it, by model and size, read from configs/*.toml."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from lpips_sat import LpipsSatError

if TYPE_CHECKING:
    from .scheduler import BridgeScheduler

PROFILES = ("small", "paper")
LOSSES = ("l1", "l2", "lpips-sat", "matching")
SCHEDULES = ("cosine", "constant")
PRECISIONS = ("no", "bf16")
KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "Sequence[int]": (list, tuple),
}
TITLES = {"Sequence[int]": "a list of whole numbers, such as [64, 128]"}
POSITIVE = (
    "rate_decay",
    "steps",
    "batch",
    "crop",
    "learning_rate",
    "clip",
    "checkpoint_every",
    "looks",
)


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained.

    crop: HR pixels of a side; schedule: of the learning rate after the linear warm-up; rate_decay:
    what the rate is multiplied by at each step of rate_decay_at, and after every rate_decay_every
    steps (0 = never); clip: the largest norm of the gradient; loss: "l1" or "l2" on what the
    network predicts, "lpips-sat" (L1 of the estimate of x0, plus its LPIPS-Sat distance), or
    "matching", UniDB's L1 between means; adversarial: weight of the GAN's loss, 0 for none;
    discriminator: its widths; precision: "no" (float32) or "bf16"; looks: how often the validation
    set is looked at, more densely early on, where a model changes fast.
    """

    steps: int
    batch: int
    crop: int
    learning_rate: float
    warmup: int
    schedule: str
    weight_decay: float
    clip: float
    ema_decay: float
    loss: str
    adversarial: float = 0.0
    discriminator: Sequence[int] = (64, 128, 256, 512)
    precision: str = "no"
    seed: int = 0
    checkpoint_every: int = 500
    looks: int = 6
    workers: int = 0
    rate_decay: float = 1.0
    rate_decay_at: Sequence[int] = ()
    rate_decay_every: int = 0

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        for item in fields(self):
            _check(item.name, str(item.type), getattr(self, item.name))
        if self.rate_decay > 1:
            raise LpipsSatError(f"rate_decay must be at most 1, got {self.rate_decay!r}")
        if (self.rate_decay != 1) != bool(self.rate_decay_at or self.rate_decay_every):
            raise LpipsSatError(
                "rate_decay says how much the rate decays, rate_decay_at or rate_decay_every when: "
                f"give both, got {self.rate_decay!r}, {list(self.rate_decay_at)!r} and "
                f"{self.rate_decay_every!r}"
            )
        if not self.discriminator:
            raise LpipsSatError("discriminator must name the width of one level or more, got none")
        for name, known in (("loss", LOSSES), ("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise LpipsSatError(
                    f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )


def _check(name: str, kind: str, value: Any) -> None:
    """Refuse a value of another kind, or out of range."""
    if not isinstance(value, KINDS[kind]) or isinstance(value, bool):
        raise LpipsSatError(f"{name} must be {TITLES.get(kind, kind)}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise LpipsSatError(f"{name} must be finite, got {value!r}")
    if isinstance(value, (list, tuple)):
        if not all(type(number) is int and number > 0 for number in value):
            raise LpipsSatError(f"{name} must be positive whole numbers, got {list(value)!r}")
    elif isinstance(value, (int, float)) and (value < 0 or (value == 0 and name in POSITIVE)):
        wanted = "positive" if name in POSITIVE else "at least 0"
        raise LpipsSatError(f"{name} must be {wanted}, got {value!r}")


@dataclass(frozen=True)
class Profile:
    """One model at one size: arguments of its scheduler and network, its training, its steps."""

    model: str
    name: str
    scheduler: dict[str, Any]
    network: dict[str, Any]
    train: TrainConfig
    steps: int
    low: float = 0.0  # reflectance of dark water
    high: float = 0.6  # reflectance above nearly all land; brighter values go beyond 1

    def make_scheduler(self) -> BridgeScheduler:
        """A fresh scheduler."""
        from .scheduler import BridgeScheduler  # diffusers takes seconds to import

        return BridgeScheduler(**self.scheduler)


def models(name: str = "small") -> list[str]:
    """The models that a profile knows."""
    return [key for key in _read(name) if key not in ("network", "train")]


def load_profile(model: str, name: str = "small", train: Mapping[str, Any] = {}) -> Profile:
    """A model at a size; `train` replaces fields of its `TrainConfig`."""
    values = _read(name)
    if model not in models(name):
        raise LpipsSatError(f"unknown model {model!r}: expected one of {', '.join(models(name))}")
    known = {item.name for item in fields(TrainConfig)}
    if unknown := sorted(set(train) - known):
        raise LpipsSatError(
            f"no training option {', '.join(unknown)}: expected one of {', '.join(sorted(known))}"
        )
    own = values[model]
    config = TrainConfig(**{**values["train"], **own.get("train", {}), **train})
    return Profile(model, name, own["scheduler"], values["network"], config, own["steps"])


def _read(name: str) -> dict[str, Any]:
    if name not in PROFILES:
        raise LpipsSatError(f"unknown profile {name!r}: expected one of {', '.join(PROFILES)}")
    return tomllib.loads((files(__package__) / "configs" / f"{name}.toml").read_text())
