"""What was found, in sentences with numbers: every one is made of the tables below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lpips_sat.report import number
from lpips_sat.stats import Interval

from .content import difference_text, in_words, signed, title_of
from .numbers import Numbers
from .ranks import FIDELITY, PERCEPTION, Agreement
from .tables import worse

Shares = Mapping[tuple[str, str], Mapping[str, Interval]]  # (model, metric) -> factor -> share


def losses(numbers: Numbers, metric: str) -> str:
    """Say which trained model loses most from synthetic to real images."""
    found = _gaps(numbers, metric, ("II", "I"))
    if not found:
        return ""
    said = [f"{model} {_change(numbers, metric, gap)}" for model, gap in found]
    text = f"From synthetic to real images (II \N{MINUS SIGN} I), {title_of(metric)} changes most for "
    text += f"{said[0]}" + (f" and least for {said[-1]}" if len(said) > 1 else "")
    bicubic = numbers.gap("bicubic", metric)
    if bicubic is not None:
        text += f"; bicubic, which learned nothing, changes by {_change(numbers, metric, bicubic)}"
    lost = sum(worse(numbers, metric, gap) is True for _, gap in found)
    return f"{text}. {_count(lost, len(found))} lose by it beyond chance."


def closing(numbers: Numbers, metric: str) -> str:
    """Say whether training on real pairs closes the gap."""
    gained, left = (_gaps(numbers, metric, cases) for cases in (("III", "II"), ("III", "I")))
    if not gained or not left:
        return ""
    better = sum(worse(numbers, metric, change) is False for _, change in gained)
    behind = sum(worse(numbers, metric, change) is True for _, change in left)
    return (
        f"Trained on real pairs instead (III \N{MINUS SIGN} II), {_count(better, len(gained)).lower()} "
        f"gain in {title_of(metric)} beyond chance: {_range(numbers, metric, gained)}. Against the "
        f"usual benchmark (III \N{MINUS SIGN} I) {behind} of {len(left)} stay behind: "
        f"{_range(numbers, metric, left)}."
    )


def reasons(numbers: Numbers, metric: str, shares: Shares) -> str:
    """Say how much of the gap each factor takes, over the trained models."""
    models = [model for model in numbers.trained if (model, metric) in shares]
    if not models:
        return ""
    factors = list(shares[models[0], metric])
    parts = []
    for factor in factors:
        values = [shares[model, metric][factor].mean for model in models]
        parts.append(f"{factor} {_ends(values)}")
    totals = [sum(share.mean for share in shares[model, metric].values()) for model in models]
    return (
        f"Of the gap in {title_of(metric)}, {_ends(totals)}{_unit(numbers, metric)} over "
        f"{len(models)} trained models, the factors take: {'; '.join(parts)}."
    )


def ranking(found: Sequence[Agreement]) -> str:
    """Say whether LPIPS-Sat ranks the models differently from PSNR."""
    if not found:
        return ""
    parts = [
        f"in Case {one.case} Kendall's τ is {number(one.tau.mean)} ({_tau(one.tau)}), and of "
        f"{one.pairs} pairs of models both tell apart {one.alike} in the same order and "
        f"{len(one.contradictions)} in opposite orders"
        for one in found
    ]
    against = sum(len(one.contradictions) for one in found)
    start = "ranks models differently from" if against else "nowhere surely contradicts"
    return f"{title_of(PERCEPTION)} {start} {title_of(FIDELITY)}: {'; '.join(parts)}."


def limits(numbers: Numbers) -> list[str]:
    """Say what the experiment cannot say, from what it was made of."""
    patches, blocks = numbers.size()
    seeds = sorted({numbers.seeds(model) for model in numbers.trained})
    trainings = " to ".join(dict.fromkeys(map(str, (seeds[0], seeds[-1])))) if seeds else "no"
    return [
        f"The numbers rest on {patches} test patches in {blocks} blocks of land, and on {trainings} "
        "trainings of each model. Intervals resample blocks and trainings: they say what another "
        "part of the same scene and another training would change. They say nothing about another "
        "scene, season, sensor, band or factor.",
        "The networks are those of the profile named below. A small one that was trained for minutes "
        "shows how the two regimes differ for it, not which of the published methods is the best.",
        "A share of the gap is what removing a factor from the test images changes, as far as a model "
        "of the factor fitted to training pairs removes it. What no factor explains is the rest.",
    ]


def _gaps(
    numbers: Numbers, metric: str, cases: tuple[str, str]
) -> list[tuple[str, Interval]]:
    """Differences of the trained models, the worst change first."""
    found = [(model, numbers.gap(model, metric, cases)) for model in numbers.trained]
    known = [(model, gap) for model, gap in found if gap is not None]
    sign = 1 if numbers.higher_is_better(metric) else -1
    return sorted(known, key=lambda item: sign * item[1].mean)


def _change(numbers: Numbers, metric: str, gap: Interval) -> str:
    text = difference_text(gap)
    return f"{text.value}{_unit(numbers, metric)}" + (f" ({text.small})" if text.small else "")


def _range(numbers: Numbers, metric: str, found: Sequence[tuple[str, Interval]]) -> str:
    ends = [f"{signed(gap.mean)} ({model})" for model, gap in (found[0], found[-1])]
    return " to ".join(dict.fromkeys(ends)) + _unit(numbers, metric)


def _ends(values: Sequence[float]) -> str:
    low, high = signed(min(values)), signed(max(values))
    return low if low == high else f"{low} to {high}"


def _unit(numbers: Numbers, metric: str) -> str:
    unit = numbers.unit(metric)
    return f" {unit}" if unit else ""


def _count(found: int, total: int) -> str:
    return f"All {total} trained models" if found == total else f"{found} of {total} trained models"


def _tau(found: Interval) -> str:
    return in_words(difference_text(found)).partition("(")[2].rstrip(")") or "no interval"
