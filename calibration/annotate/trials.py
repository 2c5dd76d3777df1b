"""Which two images a trial shows: balanced pairs of distortions or methods, repeats and checks.

Everything follows from a seed, and every image has its own random state, so that a trial can be
made again from its row alone.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch

from ...functional import psnr
from ..distortions import KINDS
from ..render import distorted
from .scenes import Image, Patch
from .store import StudyError

Task = Literal["2afc", "jnd"]
Role = Literal["main", "repeat", "check"]
# satellite-2afc dropped three quarters of the pairs whose PSNR differs by more than this, in dB:
# what PSNR decides alone teaches nothing. Here such a pair is drawn again.
MAX_PSNR_GAP = 6.0
REDRAWS = 8
# Wrecks for trials with a known answer: at full severity nobody who looks prefers one of these.
CHECK_KINDS = ("blur", "noise", "nearest")
NONE = "none"  # the distortion of a side that equals the reference
METHOD = "method:"  # prefix of the distortion of a side that a method made
# Same/different trials are near the threshold: severities are drawn as this times a square.
JND_SEVERITY = 0.6


@dataclass(frozen=True)
class Trial:
    """One question and its images; ``b`` is None for "same or different" (``task`` "jnd").

    ``role``: "main", "repeat" of the trial ``repeat_of``, or "check" with the known ``answer``.
    """

    id: int
    task: Task
    role: Role
    source: str
    crop: str
    distortion_a: str
    severity_a: float | None
    distortion_b: str = ""
    severity_b: float | None = None
    repeat_of: int | None = None
    answer: str = ""
    ref: Image | None = None
    a: Image | None = None
    b: Image | None = None


@dataclass(frozen=True)
class Plan:
    """How many trials, and of what. ``repeats`` and ``checks`` are shares of ``trials + jnd``."""

    trials: int
    jnd: int = 0
    repeats: float = 0.1
    checks: float = 0.05
    distortions: tuple[str, ...] = tuple(KINDS)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse kinds that do not exist and numbers out of range."""
        if unknown := [kind for kind in self.distortions if kind not in KINDS]:
            raise StudyError(f"unknown distortion {unknown[0]!r}: choose from {', '.join(KINDS)}")
        if self.trials < 0 or self.jnd < 0 or self.trials + self.jnd == 0:
            raise StudyError(
                f"expected at least one trial, got {self.trials} trials and {self.jnd} "
                "same/different trials"
            )
        if not (0 <= self.repeats <= 1 and 0 <= self.checks <= 1):
            raise StudyError(
                f"repeats and checks are shares in [0, 1], got {self.repeats} and {self.checks}"
            )

    @property
    def patches(self) -> int:
        """Patches that give every trial but repeats its own."""
        asked = self.trials + self.jnd
        return asked + round(self.checks * asked)


def build_trials(patches: Sequence[Patch], plan: Plan) -> list[Trial]:
    """2AFC trials (ids from 0), then same/different ones, then checks, then repeats.

    Patches with ``versions`` give trials between methods, others between distortions; if there are
    fewer patches than trials, they are shown again with other pairs. Sides are dealt at random.
    """
    if not patches:
        raise StudyError("no patches to make trials of")
    methods = sorted(patches[0].versions)
    names = [METHOD + m for m in methods] if methods else list(plan.distortions)
    if plan.trials and len(names) < 2:
        raise StudyError(f"a trial compares two of the methods or distortions, got only {names}")
    pairs = list(itertools.combinations(names, 2))
    singles = [(name,) for name in names]
    if methods:
        _check_different(plan.trials, len(patches) * len(pairs), "trials (--trials)")
        _check_different(plan.jnd, len(patches) * len(singles), "same/different trials (--jnd)")
    trials = [
        _choice(number, patches[at], _dealt(pair, plan.seed, number), plan.seed)
        for number, (at, pair) in enumerate(balanced(pairs, plan.trials, plan.seed, len(patches)))
    ]
    for at, (kind,) in balanced(singles, plan.jnd, plan.seed, len(patches), first=plan.trials):
        trials.append(_same_or_different(len(trials), patches[at], kind, plan.seed))
    rng = np.random.default_rng([plan.seed, 2])
    asked = len(trials)
    for number in range(round(plan.checks * asked)):
        about_jnd = number % 2 == 1 if plan.trials and plan.jnd else not plan.trials
        make = _check_jnd if about_jnd else _check_choice
        trials.append(make(len(trials), patches[len(trials) % len(patches)], plan.seed))
    chosen = rng.choice(asked, round(plan.repeats * asked), replace=False)
    return trials + [_again(len(trials) + i, trials[of]) for i, of in enumerate(sorted(chosen))]


def _check_different(asked: int, different: int, what: str) -> None:
    """Refuse to ask a question between methods twice: hidden repeats are planned."""
    if asked > different:
        raise StudyError(
            f"patches and methods make {different} different {what}, but {asked} are to be made: "
            "take fewer, give more scenes, or cut smaller patches (--size)"
        )


def balanced(
    options: Sequence[tuple[str, ...]], count: int, seed: int, patches: int, first: int = 0
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """``count`` times the index of a patch and one of ``options``, tuples of names.

    Rarest options first, then rarest names; order random. ``patches`` take turns from the one of
    number ``first`` on; none shows an option again before it has shown all.
    """
    rng = np.random.default_rng([seed, 1, first])
    shown: Counter[str] = Counter()
    used: Counter[int] = Counter()
    seen: Counter[tuple[int, int]] = Counter()  # of patch and option
    for number in range(count):
        luck, at = rng.permutation(len(options)), (first + number) % patches
        best = min(
            range(len(options)),
            key=lambda i: (seen[at, i], used[i], sum(shown[n] for n in options[i]), luck[i]),
        )
        used[best] += 1
        seen[at, best] += 1
        shown.update(options[best])
        yield at, options[best]


def _dealt(pair: tuple[str, ...], seed: int, number: int) -> tuple[str, str]:
    """A pair with its sides dealt at random."""
    first, second = pair
    dealt = np.random.default_rng([seed, 5, number]).integers(2)
    return (first, second) if dealt else (second, first)


def side(patch: Patch, name: str, severity: float | None, seed: Sequence[int]) -> Image:
    """What one side shows: a method's prediction, or the patch distorted with its own ``seed``."""
    if name.startswith(METHOD):
        return patch.versions[name.removeprefix(METHOD)]
    if name == NONE or severity is None:
        return patch.image
    return distorted(patch.image, name, severity, seed)


def _choice(number: int, patch: Patch, pair: tuple[str, str], seed: int) -> Trial:
    """A 2AFC trial; severities are drawn until PSNR alone does not decide it."""
    rng = np.random.default_rng([seed, 3, number])
    for _ in range(REDRAWS):
        severity = [_severity(name, rng.uniform()) for name in pair]
        a, b = (
            side(patch, name, s, (seed, 4, number, k))
            for k, (name, s) in enumerate(zip(pair, severity, strict=True))
        )
        quality_a, quality_b = (_psnr(image, patch.image) for image in (a, b))
        if abs(quality_a - quality_b) <= MAX_PSNR_GAP:
            break
    shown = (pair[0], severity[0], pair[1], severity[1])
    return Trial(number, "2afc", "main", *patch.place, *shown, ref=patch.image, a=a, b=b)


def _psnr(image: Image, ref: Image) -> float:
    """In dB, of two uint8 images (H, W, 3)."""
    pair = (torch.from_numpy(x.astype(np.float64)).permute(2, 0, 1)[None] for x in (image, ref))
    return float(psnr(*pair, data_range=255))


def _same_or_different(number: int, patch: Patch, kind: str, seed: int) -> Trial:
    rng = np.random.default_rng([seed, 3, number])
    severity = _severity(kind, JND_SEVERITY * rng.uniform() ** 2)
    a = side(patch, kind, severity, (seed, 4, number, 0))
    return Trial(number, "jnd", "main", *patch.place, kind, severity, ref=patch.image, a=a)


def _severity(name: str, value: float) -> float | None:
    """As the table keeps it: four decimals; a method has none."""
    return None if name.startswith(METHOD) else round(float(value), 4)


def _check_choice(number: int, patch: Patch, seed: int) -> Trial:
    """One side is the reference itself, the other a wreck."""
    rng = np.random.default_rng([seed, 3, number])
    kind = CHECK_KINDS[rng.integers(len(CHECK_KINDS))]
    wreck = side(patch, kind, 1.0, (seed, 4, number, 0))
    clean, wrecked = (NONE, 0.0), (kind, 1.0)
    asked = partial(Trial, number, "2afc", "check", *patch.place, ref=patch.image)
    if rng.integers(2):
        return asked(*clean, *wrecked, answer="A", a=patch.image, b=wreck)
    return asked(*wrecked, *clean, answer="B", a=wreck, b=patch.image)


def _check_jnd(number: int, patch: Patch, seed: int) -> Trial:
    """Twice the same image, or the image and a wreck."""
    rng = np.random.default_rng([seed, 3, number])
    asked = partial(Trial, number, "jnd", "check", *patch.place, ref=patch.image)
    if rng.integers(2):
        return asked(NONE, 0.0, answer="same", a=patch.image)
    kind = CHECK_KINDS[rng.integers(len(CHECK_KINDS))]
    wreck = side(patch, kind, 1.0, (seed, 4, number, 0))
    return asked(kind, 1.0, answer="different", a=wreck)


def _again(number: int, trial: Trial) -> Trial:
    """The same question once more; its images are those of the first time."""
    return replace(trial, id=number, role="repeat", repeat_of=trial.id, ref=None, a=None, b=None)
