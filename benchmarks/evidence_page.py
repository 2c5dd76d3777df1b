"""Tables, sentences and figures of docs/evidence.md, from the result files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
# The agreement on validation that this project aims at.
GOAL = 0.92
# Short names for wide tables.
SHORT = {
    "LPIPS-Sat, all channels weighing alike": "equal weights",
    "LPIPS-Sat, random weights": "random weights",
    "ST-LPIPS-alex": "ST-alex",
    "ST-LPIPS-vgg": "ST-vgg",
}
COLOURS = {"LPIPS-Sat": "#c1272d", "DISTS": "#1f4e79", "LPIPS-alex": "#2e7d32", "raters": "#777777"}


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def span(row: dict[str, float | None], digits: int = 3) -> str:
    known = None not in (row["low"], row["high"])
    return f"{row['low']:.{digits}f} to {row['high']:.{digits}f}" if known else "-"


def votes_table() -> str:
    found = read("evidence")["votes"]
    raters = found["jury"]["overall"]
    overall, of_new = (
        {**found[part], **found["jury"][part]} for part in ("overall", "new_references")
    )
    rows = []
    for (name, row), new in zip(overall.items(), of_new.values(), strict=True):
        shown = f"*{name}*" if name in raters else name
        rows.append([shown, f"{row['mean']:.3f}", span(row), f"{new['mean']:.3f}", span(new)])
    count = next(iter(of_new.values()))["count"]
    header = ["distance", f"all {found['trials']} trials", "95 %", f"{count} new references"]
    return table([*header, "95 %"], rows)


def gain_sentence() -> str:
    found = read("evidence")["votes"]
    gain, ours = found["gain_over"], found["overall"]["LPIPS-Sat"]["mean"]
    sure = "more" if gain["low"] > 0 else "less" if gain["high"] < 0 else None
    verdict = f"agrees {sure} often" if sure else "does not differ beyond chance"
    goal = "reached" if ours >= GOAL else f"not reached ({ours:.3f})"
    return (
        f"LPIPS-Sat minus {gain['peer']} on the same trials: {gain['mean']:+.3f} "
        f"({gain['low']:+.3f} to {gain['high']:+.3f}): it {verdict}. This project's "
        f"own target, {GOAL} on validation, is {goal}."
    )


def kinds_table() -> str:
    rows = read("evidence")["votes"]["groups"]
    names = sorted(rows[0]["agreement"], key=lambda name: name != "LPIPS-Sat")  # ours first
    body = []
    for row in rows:
        values = [row["agreement"][name] for name in names]
        shown = [f"**{v:.2f}**" if v == max(values) else f"{v:.2f}" for v in values]
        body.append([f"{row['name']} ({row['trials']})", *shown])
    return table(["", *(SHORT.get(name, name) for name in names)], body)


def confidence_table() -> str:
    rows = read("evidence")["votes"]["confidence"]
    names = ["LPIPS-Sat", "DISTS", "LPIPS-vgg", "LPIPS-alex", "SSIM"]
    names += [*read("evidence")["votes"]["jury"]["overall"]]
    body = [
        [
            f"{row['name']} ({row['trials']})",
            *(f"{row['agreement'][name]:.2f}" for name in names),
            f"{row['lost']:.0%}",
        ]
        for row in rows
    ]
    return table(["the raters were", *names, "of the votes that LPIPS-Sat loses"], body)


def limit_sentence() -> str:
    found = read("evidence")["votes"]
    raters, ours = found["raters"], found["overall"]["LPIPS-Sat"]["mean"]
    (_, one), (jury, majority) = found["jury"]["overall"].items()
    pairs = ", ".join(
        f"{row['pair']} ({row['lost']:g} of {row['trials']})" for row in found["lost"][:6]
    )
    guess, fairly, _ = (row["agreement"] for row in found["confidence"])
    return (
        f"How much could be won? Raters who took no part in the release saw these trials too; "
        f"nothing was fitted to their votes. One of them wins {one['mean']:.3f} of the "
        f"votes, {jury} {majority['mean']:.3f} ({span(majority)}), and "
        f"LPIPS-Sat {ours:.3f}. Two raters of the release agree on {raters['agree']:.3f} of the "
        f"{raters['pairs']} trials that two of them saw. Of the guesses the majority wins "
        f"{guess[jury]:.2f} and LPIPS-Sat {guess['LPIPS-Sat']:.2f}; of the fairly sure votes "
        f"{fairly[jury]:.2f} and {fairly['LPIPS-Sat']:.2f}. The pairs of kinds on which LPIPS-Sat "
        f"loses most votes: {pairs}."
    )


def sources_sentence() -> str:
    found = read("evidence")["votes"]["leave_one_source_out"]
    shares = ", ".join(f"{name} {share:.3f}" for name, share in found.items())
    return (
        "Heads of `lin` fitted without one source, agreement on the training trials of that "
        f"source: {shares}."
    )


def ladders_table() -> str:
    sets = ladder_sets()
    found, landsat = sets["EuroSAT"], sets["Landsat"]
    names = list(found["kinds"]["blur"])
    rows = []
    for kind, of in found["kinds"].items():
        truly, again = found["rising"][kind], landsat["kinds"][kind]
        rising = f"{truly['LPIPS-Sat']:.2f} ({truly['chips']})" if truly["chips"] else "-"
        state = ""
        if kind in found["must"]:
            failed = [name for name, ladders in sets.items() if kind in ladders["failed"]]
            state = f"**not on {' and '.join(failed)}**" if failed else "yes"
        both = [f"{again[name]['mean']:.2f}" for name in ("LPIPS-Sat", "PSNR")]
        rows.append([kind, *(f"{of[name]['mean']:.2f}" for name in names), rising, *both, state])
    header = ["kind", *(SHORT.get(n, n) for n in names)]
    header.append("LPIPS-Sat, where every step raises the squared error (chips)")
    count = landsat["chips"]
    header += [f"LPIPS-Sat, {count} Landsat patches", "PSNR, Landsat"]
    return table([*header, f"asked for: >= {found['target']}"], rows)


def ladder_sets() -> dict[str, dict[str, Any]]:
    found = read("evidence")
    return {"EuroSAT": found["ladders"], "Landsat": found["ladders_landsat"]}


def ladders_sentence() -> str:
    sentences = []
    for name, found in ladder_sets().items():
        failed = found["failed"]
        passed = [kind for kind in found["must"] if kind not in failed]
        missed = ", ".join(
            f"{kind} ({found['kinds'][kind]['LPIPS-Sat']['mean']:.3f}; "
            f"{found['rising'][kind]['LPIPS-Sat']:.3f} of the chips on which every step raises the "
            "squared error)"
            for kind in failed
        )
        text = f"{', '.join(passed)} reach it, not {missed}" if failed else "all reach it"
        sentences.append(f"on {name} {text}")
    asked = f"Of the kinds for which this project asks {found['target']}"
    return f"{asked}: {'; '.join(sentences)}."


def jpeg_table() -> str:
    found = read("evidence")["jpeg_steps"]
    way = {True: "rises", False: "does not rise"}
    rows = [
        [
            way[row["error_rises"]],
            way[row["score_rises"]],
            f"{row['share']:.1%}",
            str(row["steps"]),
            f"{row['coarser']['mean']:.2f}",
            span(row["coarser"], 2),
            f"{row['raters_agree']:.2f}",
        ]
        for row in found["rows"]
    ]
    header = ["the squared error", "LPIPS-Sat", "of all steps", "steps judged"]
    return table([*header, "votes for the coarser image", "95 %", "two raters agree"], rows)


def jpeg_sentence() -> str:
    found = read("evidence")["jpeg_steps"]
    steps = sum(row["steps"] for row in found["rows"])
    return (
        f"{found['raters']} runs of a vision-language model (not people) compared the images "
        f"before and after {steps} steps of the JPEG ladders of {found['chips']} chips, in "
        f"{found['votes']} votes; one of them says the same again of "
        f"{found['rater_agrees_again']:.2f} of the steps."
    )


def shift_table() -> str:
    curves = dict(read("evidence")["tolerance"]["curves"]["shift"])
    levels = curves.pop("levels")
    shown = [i for i, level in enumerate(levels) if level in (0.25, 0.5, 1.0, 2.0, 4.0)]
    rows = [[name, *(f"{curve[i]:.2f}" for i in shown)] for name, curve in curves.items()]
    return table(["shift, px", *(f"{levels[i]:g}" for i in shown)], rows)


def loss_table() -> str:
    found = read("loss")
    judges = list(found["bicubic"])
    rows = [["bicubic", *(f"{found['bicubic'][j]:.3f}" for j in judges)]]
    for name, values in found["per_seed"].items():
        rows.append([name, *(" / ".join(f"{v:.3f}" for v in values[j]) for j in judges)])
    change = found["change"]
    rows.append(["change", *(f"{change[j]['mean']:+.3f}" for j in judges)])
    rows.append(["95 % over chips", *(span(change[j]) for j in judges)])
    return table(["trained with", *judges], rows)


def loss_sentence() -> str:
    found = read("loss")
    settings, cost = found["settings"], -found["change"]["PSNR"]["mean"]
    verdict = "holds" if found["holds"] else "does not hold"
    return (
        f"x{settings['factor']}, {settings['steps']} steps of {settings['batch']} chips, weight "
        f"{found['weight']:g}, {len(settings['seeds'])} seeds, {settings['test_chips']} held-out "
        f"chips. PSNR changes by {-cost:+.2f} dB. The claim, every other metric better than with "
        f"L1 alone at a cost of at most 0.3 dB, {verdict}."
    )


def made_with() -> str:
    found = read("evidence")
    weights = ", ".join(f"`{name}` {digest[:12]}" for name, digest in found["weights"].items())
    return (
        f"Made with lpips-sat {found['version']}, torch {found['torch']}, weights {weights}; "
        f"peers from {', '.join(found['peers'])}; seed {found['seed']}."
    )


def or_pending(make: Callable[[], str]) -> Callable[[], str]:
    """The block, or, before anything was measured, a line that says so."""

    def block() -> str:
        try:
            return make()
        except FileNotFoundError as missing:
            return f"*Not measured yet: `{Path(missing.filename).name}` is missing.*"

    return block


MAKERS = {
    "votes": votes_table,
    "gain": gain_sentence,
    "kinds": kinds_table,
    "confidence": confidence_table,
    "limit": limit_sentence,
    "sources": sources_sentence,
    "ladders": ladders_table,
    "monotone": ladders_sentence,
    "jpeg": jpeg_sentence,
    "jpeg_steps": jpeg_table,
    "shift": shift_table,
    "loss": loss_table,
    "claim": loss_sentence,
    "made": made_with,
}
BLOCKS = {name: or_pending(make) for name, make in MAKERS.items()}


# -- figures ----------------------------------------------------------------------------------


def draw(folder: Path) -> None:
    """Write agreement.png and tolerance.png."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    found = read("evidence")
    figure, axis = plt.subplots(figsize=(7, 4.2), layout="constrained")
    draw_agreement(axis, found["votes"]["overall"], found["votes"]["jury"]["overall"])
    figure.savefig(folder / "agreement.png", dpi=90)
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained")
    labels = {"shift": "shift, px", "gain": "global gain", "haze": "share of haze"}
    for axis, (kind, label) in zip(axes, labels.items(), strict=True):
        draw_curves(axis, dict(found["tolerance"]["curves"][kind]))
        axis.set_xlabel(label)
    axes[0].set_ylabel("score / score of a x2 bicubic round trip")
    axes[0].legend(fontsize=7)
    figure.savefig(folder / "tolerance.png", dpi=90)


Rows = dict[str, dict[str, float]]


def draw_agreement(axis: Any, distances: Rows, raters: Rows) -> None:
    ordered = sorted({**distances, **raters}.items(), key=lambda item: item[1]["mean"])
    for place, (name, row) in enumerate(ordered):
        colour = COLOURS["LPIPS-Sat"] if name.startswith("LPIPS-Sat") else COLOURS["DISTS"]
        colour = COLOURS["raters"] if name in raters else colour
        axis.plot((row["low"], row["high"]), (place, place), color=colour, linewidth=2)
        axis.plot(row["mean"], place, "o", color=colour, markersize=5)
    axis.axvline(GOAL, color="grey", linestyle=":", linewidth=1)
    axis.set_yticks(range(len(ordered)), [name.replace("`", "") for name, _ in ordered], fontsize=8)
    axis.set_xlabel("agreement with the votes, 95 % interval")


def draw_curves(axis: Any, curves: dict[str, list[float]]) -> None:
    levels = curves.pop("levels")
    for name, values in curves.items():
        style = {"color": COLOURS[name], "linewidth": 2} if name in COLOURS else {"linewidth": 0.9}
        label = "RMSE (PSNR)" if name == "PSNR" else name.replace("`", "")
        axis.plot(levels, values, label=label, **style)
    axis.axhline(1, color="grey", linestyle=":", linewidth=1)
    axis.set_ylim(0, 4)
