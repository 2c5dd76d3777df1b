"""What was found, in sentences with numbers: all of them stand in the tables too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lpips_sat.stats import Interval

from ..experiment.gap import REST
from .content import Answer, Text, difference_text, fixed, in_words, signed, title_of
from .numbers import Numbers
from .ranks import FIDELITY, PERCEPTION, Agreement
from .tables import worse

GAP = "gap"  # among the parts of an attribution: the whole
LABELS = {"mtf": "MTF", REST: "the rest"}
Parts = Mapping[str, Interval]  # the gap, its shares and the rest
Shares = Mapping[tuple[str, str], Parts]  # by model and metric


def answers(
    numbers: Numbers, metrics: Sequence[str], shares: Shares, agreements: Sequence[Agreement]
) -> list[Answer]:
    """The questions of the experiment that the table can answer."""
    asked = [
        Answer("Which models lose most?", [losses(numbers, metric) for metric in metrics]),
        Answer("Why?", [reasons(numbers, metric, shares) for metric in metrics]),
        Answer(
            "Does training on real pairs close the gap?",
            [closing(numbers, metric) for metric in metrics],
        ),
        Answer(
            f"Does {title_of(PERCEPTION)} rank the models differently from {title_of(FIDELITY)}?",
            [ranking(agreements)],
        ),
    ]
    known = [Answer(a.question, [text for text in a.said if text]) for a in asked]
    return [answer for answer in known if answer.said]


def losses(numbers: Numbers, metric: str) -> str:
    """Say which trained model changes most from synthetic to real images."""
    found = _changes(numbers, metric, ("II", "I"))
    if not found:
        return ""
    ends = [f"{name} {_change(numbers, metric, gap)}" for name, gap in (found[0], found[-1])]
    said = f"most {ends[0]}, least {ends[1]}" if len(found) > 1 else ends[0]
    lost = sum(worse(numbers, metric, gap) is True for _, gap in found)
    text = f"{title_of(metric)} from synthetic to real images (II \N{MINUS SIGN} I): {said}. "
    text += f"{lost} of {len(found)} trained models lose beyond chance"
    bicubic = numbers.gap("bicubic", metric)
    if bicubic is not None:
        text += f"; bicubic, which learned nothing, {_change(numbers, metric, bicubic)}"
    return f"{text}."


def closing(numbers: Numbers, metric: str) -> str:
    """Say whether training on real pairs closes the gap."""
    gained, left = (_changes(numbers, metric, cases) for cases in (("III", "II"), ("III", "I")))
    if not gained or not left:
        return ""
    better, lost = (
        sum(worse(numbers, metric, change) is bad for _, change in gained) for bad in (False, True)
    )
    behind = sum(worse(numbers, metric, change) is True for _, change in left)
    stay = "none of them stays" if not behind else f"{behind} of {len(left)} stay"
    return (
        f"{title_of(metric)} on real images when trained on them (III \N{MINUS SIGN} II): "
        f"{_range(numbers, metric, gained)}; {better} of {len(gained)} gain and {lost} lose beyond "
        f"chance. Beside the usual benchmark (III \N{MINUS SIGN} I) {stay} behind: "
        f"{_range(numbers, metric, left)}."
    )


def reasons(numbers: Numbers, metric: str, shares: Shares) -> str:
    """Say how much of the gap each factor takes, over the trained models."""
    found = [shares[model, metric] for model in numbers.trained if (model, metric) in shares]
    if not found:
        return ""
    certain = all(parts[GAP].low > 0 or parts[GAP].high < 0 for parts in found)
    said = []
    for factor in (name for name in found[0] if name != GAP):
        means = [parts[factor].mean for parts in found]
        average = signed(sum(means) / len(means), numbers.digits(metric))
        text = f"{LABELS.get(factor, factor)} {average}{_unit(numbers, metric)}"
        if certain:
            each = [100 * parts[factor].mean / parts[GAP].mean for parts in found]
            text += f" ({_ends(each)} %)"
        said.append(text)
    of = (
        "the model" if len(found) == 1 else f"{len(found)} trained models, with the range of shares"
    )
    return f"{title_of(metric)}, mean of {of}: {', '.join(said)}."


def ranking(found: Sequence[Agreement]) -> str:
    """Say whether LPIPS-Sat ranks the models differently from PSNR."""
    if not found:
        return ""
    against = sum(len(one.contradictions) for one in found)
    told = sum(one.alike for one in found) + against
    taus = ", ".join(f"{fixed(one.tau.mean, 2)} in Case {one.case}" for one in found)
    tau = f"Kendall's τ of the mean scores: {taus}."
    if not told:
        return (
            f"This table cannot tell: of {found[0].pairs} pairs of models, there is in no case one "
            f"that both metrics tell apart. {tau}"
        )
    counts = [
        f"{one.alike + len(one.contradictions)} in Case {one.case} "
        f"({len(one.contradictions)} in opposite order)"
        for one in found
    ]
    verdict = "Yes" if against else "No pair is surely ordered in opposite ways"
    of = f"Of {found[0].pairs} pairs of models both metrics tell apart {', '.join(counts)}"
    return f"{verdict}. {of}. {tau}"


def limits(numbers: Numbers) -> list[str]:
    """Say what the experiment cannot say, from what it was made of."""
    known = numbers.results.provenance
    about, (patches, blocks) = known.get("set", {}), numbers.size()
    seeds = sorted({numbers.seeds(model) for model in numbers.trained})
    trainings = " to ".join(dict.fromkeys(map(str, (seeds[0], seeds[-1])))) if seeds else "no"
    what = "One set"
    if "factor" in about:
        pairs = ", ".join(
            f"{lr} to {hr}" for lr, hr in zip(about["lr_bands"], about["bands"], strict=True)
        )
        what = f"One set ({about['name']}: {pairs}, x{about['factor']})"
    return [
        f"{what}, {patches} test patches in {blocks} blocks, trainings of each model: {trainings}. "
        "The intervals say what other blocks of the same scenes and other trainings would change. "
        "They say nothing about another place, season, sensor, band or factor.",
        f"All networks are of the profile {known.get('profile', 'named below')!r} and of one "
        "architecture. What a small network learns in minutes does not tell which of the "
        "published methods is the best when trained for days.",
        "A share of the gap is what changes when a factor is taken away from the real images as "
        "far as a model of it, fitted to training pairs, takes it away. The rest holds what these "
        "models miss, such as other spectral responses.",
    ]


def _changes(numbers: Numbers, metric: str, cases: tuple[str, str]) -> list[tuple[str, Interval]]:
    """Differences of the trained models, the worst change first."""
    found = [(model, numbers.gap(model, metric, cases)) for model in numbers.trained]
    known = [(model, gap) for model, gap in found if gap is not None]
    sign = 1 if numbers.higher_is_better(metric) else -1
    return sorted(known, key=lambda item: sign * item[1].mean)


def _change(numbers: Numbers, metric: str, gap: Interval) -> str:
    text = difference_text(gap, numbers.digits(metric))
    return in_words(Text(f"{text.value}{_unit(numbers, metric)}", text.small))


def _range(numbers: Numbers, metric: str, found: Sequence[tuple[str, Interval]]) -> str:
    digits = numbers.digits(metric)
    ends = [f"{signed(gap.mean, digits)} ({model})" for model, gap in (found[0], found[-1])]
    return " to ".join(dict.fromkeys(ends)) + _unit(numbers, metric)


def _ends(values: Sequence[float]) -> str:
    return " to ".join(dict.fromkeys(fixed(value, 0) for value in (min(values), max(values))))


def _unit(numbers: Numbers, metric: str) -> str:
    unit = numbers.unit(metric)
    return f" {unit}" if unit else ""
