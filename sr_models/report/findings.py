"""What was found, in sentences with numbers: all of them stand in the tables too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lpips_sat.stats import Interval

from ..experiment.gap import REST
from ..experiment.summary import LEVEL, over, times, told_apart
from .content import Answer, Text, difference_text, fixed, in_words, signed, title_of
from .numbers import Numbers
from .ranks import FIDELITY, PERCEPTION, Agreement
from .tables import worse

OWN = "each by its own interval"  # of 95 %
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
    """Say how trained models change from synthetic to real images, and which surely most."""
    found = _changes(numbers, metric, ("II", "I"))
    if not found:
        return ""
    lost = sum(worse(numbers, metric, gap) is True for _, gap in found)
    text = f"{title_of(metric)} from synthetic to real images (II \N{MINUS SIGN} I): "
    text += f"{_range(numbers, metric, found)}. {lost} of {len(found)} trained models lose, {OWN}"
    bicubic = numbers.gap("bicubic", metric)
    if bicubic is not None:
        text += f"; bicubic, which learned nothing, {_change(numbers, metric, bicubic)}"
    return f"{text}.{_extremes(numbers, metric, found)}"


def _extremes(numbers: Numbers, metric: str, found: Sequence[tuple[str, Interval]]) -> str:
    """Name who loses most and least, if their gaps are told apart from those of all others."""
    if len(found) < 2:
        return ""
    known = numbers.differences(numbers.gap_grids(metric), level=LEVEL)
    names = [
        name
        if all(told_apart(gap) for pair, gap in known.items() if name in pair)
        else "not established"
        for name, _ in (found[0], found[-1])
    ]
    return f" Who loses most: {names[0]}; least: {names[1]}."


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
        f"{_range(numbers, metric, gained)}; {better} of {len(gained)} gain and {lost} lose, "
        f"{OWN}. Beside the usual benchmark (III \N{MINUS SIGN} I) {stay} behind: "
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
    made_of = times(parts[GAP].trainings for parts in found)
    of = f"{len(found)} trained models, {made_of} of each, with the range of shares"
    if len(found) == 1:
        of = f"the model, {made_of}"
    return f"{title_of(metric)}, mean of {of}: {', '.join(said)}."


def ranking(found: Sequence[Agreement]) -> str:
    """Say whether LPIPS-Sat ranks the models differently from PSNR."""
    if not found:
        return ""
    pairs, alike = sum(one.pairs for one in found), sum(one.alike for one in found)
    against = sum(len(one.contradictions) for one in found)
    where = ", ".join(
        f"{len(one.contradictions)} in Case {one.case}" for one in found if one.contradictions
    )
    taus = ", ".join(f"{fixed(one.tau, 2)} in Case {one.case}" for one in found)
    tau = f"Kendall's τ of the mean scores: {taus}."
    verdict = "Yes" if against else "Not established"
    rest = f"The other {pairs - against - alike}" if against or alike else "All"
    counted = "is 1 comparison, of" if pairs == 1 else f"are {pairs} comparisons, each of"
    return (
        f"{verdict}. There {counted} two models in one case. In "
        f"{against or 'none'} the metrics surely disagree{f' ({where})' if where else ''}: both "
        f"tell the two models apart, in opposite order. In {alike or 'none'} they surely agree: "
        f"both tell them apart, in the same order. {rest} are undecided, because at least one of "
        "the metrics cannot tell the two models apart. The level of 95 % is that of all "
        f"comparisons together. {tau}"
    )


def limits(numbers: Numbers, *, shared: bool) -> list[str]:
    """Say what the experiment cannot say, from what it was made of; shared: whether the gap is."""
    known = numbers.results.provenance
    about, (patches, blocks) = known.get("set", {}), numbers.size()
    counts = numbers.trainings
    other = "other blocks of the same scenes"
    if max(counts, default=0) > 1:
        other += " and other trainings"
    alone = "" if max(counts, default=2) > 1 else ", nor about other trainings"
    what = "One set"
    if "factor" in about:
        pairs = ", ".join(
            f"{lr} to {hr}" for lr, hr in zip(about["lr_bands"], about["bands"], strict=True)
        )
        what = f"One set ({about['name']}: {pairs}, x{about['factor']})"
    said = [
        f"{what}, {patches} test patches in {blocks} blocks. The intervals are Student's, "
        f"{over(counts)}: they say what {other} would change, as far as effects of so few "
        "are close to normal. They say nothing about another place, season, sensor, band or "
        f"factor{alone}.",
    ]
    if numbers.trained:
        said.append(
            f"All networks are of the profile {known.get('profile', 'named below')!r} and of one "
            "architecture. What a small network learns in minutes does not tell which of the "
            "published methods is the best when trained for days."
        )
    if shared:
        said.append(
            "A share of the gap is what changes when a factor is taken away from the real images "
            "as far as a model of it, fitted to training pairs, takes it away. The rest holds what "
            "these models miss, such as other spectral responses."
        )
    return said


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
    ends = [signed(gap.mean, digits) for _, gap in (found[0], found[-1])]
    return " to ".join(dict.fromkeys(ends)) + _unit(numbers, metric)


def _ends(values: Sequence[float]) -> str:
    return " to ".join(dict.fromkeys(fixed(value, 0) for value in (min(values), max(values))))


def _unit(numbers: Numbers, metric: str) -> str:
    unit = numbers.unit(metric)
    return f" {unit}" if unit else ""
