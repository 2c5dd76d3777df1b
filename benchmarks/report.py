"""Tables and pictures of the README and the docs, from result files and shipped cards.

python benchmarks/report.py               # rewrites the blocks between <!-- NAME --> markers
python benchmarks/report.py --figures     # also draws docs/images/ (needs the extra [report])
"""

from __future__ import annotations

import csv
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import evidence_page
import pandas as pd
from click.testing import CliRunner
from two_afc import two_raters

from lpips_sat.calibration.judgements import SHIPPED
from lpips_sat.cli import main as command
from lpips_sat.sample import make_sample
from lpips_sat.weights import cards

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    "README.md",
    "docs/index.md",
    "docs/lpips-sat.md",
    "docs/scoring.md",
    "docs/evidence.md",
    "docs/annotate.md",
    "docs/robustness.md",
    "docs/models.md",
    "docs/pairs.md",
)
RESULTS = ROOT / "benchmarks" / "results"


def agreement_table() -> str:
    ours, equal, *others = cards()["default"]["evidence"]
    frozen, *_ = cards()["lin"]["evidence"]
    rows = {
        "LPIPS-Sat": ours,
        "LPIPS-Sat, all channels weighing alike": equal,
        "LPIPS-Sat `lin`: frozen self-supervised backbone": frozen,
        **{f"{row['metric']}": row for row in others},
    }
    lines = ["| distance | agreement with the votes | 95 % interval |", "|---|---|---|"]
    for name, row in rows.items():
        lines.append(f"| {name} | {row['agreement']:.3f} | {row['low']:.3f} to {row['high']:.3f} |")
    return "\n".join(lines)


def unseen_sentence() -> str:
    found = cards()["default"]["unseen_references"]
    return (
        f"On the {found['trials']} validation trials whose reference image occurs in no training "
        f"trial, LPIPS-Sat agrees with {found['agreement']:.3f} of the votes "
        f"({found['low']:.3f} to {found['high']:.3f})."
    )


def group_table() -> str:
    lines = ["| | | agreement | trials |", "|---|---|---|---|"]
    for row in cards()["default"]["by_group"]:
        lines.append(
            f"| {row['group']} | {row['name']} | {row['agreement']:.3f} | {row['trials']} |"
        )
    return "\n".join(lines)


def provenance_table() -> str:
    lines = ["| weights | what is known |", "|---|---|"]
    for name, card in cards().items():
        for key, value in card.items():
            if key not in ("name", "evidence", "by_group"):
                value = lineage(value) if key == "backbone" else value
                shown = json.dumps(value) if isinstance(value, dict) else str(value)
                lines.append(f"| {name}: {key} | {shown} |")
    return "\n".join(lines)


def lineage(backbone: dict[str, Any]) -> str:
    """The weights that a backbone comes from, each from the next."""
    parts = backbone.get("mean_of", [backbone])
    own = " and ".join(f"`{part['name']}` {part['sha256'][:12]}" for part in parts)
    own = f"the mean of {own}" if len(parts) > 1 else own
    before = parts[0].get("backbone")
    return f"{own} from {lineage(before)}" if before else own


def throughput_table() -> str:
    found = json.loads((RESULTS / "throughput.json").read_text())
    lines = ["| forward pass | LPIPS-Sat, Mpx/s | LPIPS-Sat is faster by |", "|---|---|---|"]
    for shape, rows in found["forward"].items():
        ours = rows["LPIPS-Sat"]["megapixels_per_second"]
        ratios = ", ".join(
            f"{rows[peer]['lpips_sat_is_faster_by']} x {peer}"
            for peer in ("LPIPS-alex", "LPIPS-vgg")
        )
        lines.append(f"| {shape} | {ours} | {ratios} |")
    score = found["score"]
    if memory := found.get("forward_peak_megabytes"):  # not in results of the first release
        lines.append("")
        lines.append(
            f"Peak memory of a forward pass of {memory['pixels'] / 1e6:.1f} Mpx: "
            + ", ".join(f"{name} {value} MB" for name, value in memory.items() if name != "pixels")
            + "."
        )
    lines.append("")
    lines.append(
        f"`lpips-sat score` on {score['pixels'] / 1e6:.0f} Mpx x {score['bands']} bands, "
        f"{len(score['metrics'])} metrics: {score['seconds']:.0f} s "
        f"({score['megapixels_per_second']:.2f} Mpx/s), peak memory {score['peak_megabytes']} MB. "
        f"{found['threads']} threads, torch {found['torch']}, medians of {found['rounds']} rounds."
    )
    return "\n".join(lines)


def scene_table() -> str:
    found = json.loads((RESULTS / "scene.json").read_text())
    sizes, full = found["sizes"], list(found["sizes"])[-1]
    lines = [
        f"`lpips-sat score` on {found['bands']} bands with the default suite "
        f"({', '.join(sizes[full]['metrics'])}), {found['threads']} thread:",
        "",
        "| scene | CPU time | Mpx per CPU second | wall time | peak memory |",
        "|---|---|---|---|---|",
    ]
    for side, row in sizes.items():
        pixels, cpu = int(side) ** 2 / 1e6, row["cpu_seconds"]
        name = f"**{side} px** (a Sentinel-2 tile)" if side == full else f"{side} px"
        lines.append(
            f"| {name} | {cpu:.0f} s | {pixels / cpu:.2f} | {row['wall_seconds']:.0f} s "
            f"| {row['peak_megabytes']} MB |"
        )
    one, two = found["workers"]["1"], found["workers"]["2"]
    speed_up = one["wall_seconds"] / two["wall_seconds"]
    reading = found["read_ahead"]
    per_megapixel = ", ".join(
        f"{name} {row['cpu_seconds_per_megapixel']:.2f} s" for name, row in found["tiles"].items()
    )
    load = [row["load"] for row in (*sizes.values(), one, two)]
    lines += [
        "",
        f"CPU time grows as the number of pixels to the power of {found['slope']:.2f} (1 = linear; "
        "log-log, without what starting takes). "
        f"Two workers on {list(sizes)[-2]} px, in runs apart from the table's: "
        f"{two['wall_seconds']:.0f} s of wall time instead of {one['wall_seconds']:.0f} s with one "
        f"({speed_up:.2f} x), {two['peak_megabytes']} MB each. Reading ahead: "
        f"{reading['cheap_metrics_seconds']:.1f} s instead of "
        f"{reading['cheap_metrics_seconds_without']:.1f} s with MAE, PSNR and SAM, "
        f"{reading['default_suite_seconds']:.1f} s instead of "
        f"{reading['default_suite_seconds_without']:.1f} s with the default suite. "
        f"CPU time per megapixel on the same tiles: {per_megapixel}.",
        "",
        f"Torch {found['torch']}, {found['cores']} cores, load {min(load):.1f} to "
        f"{max(load):.1f}, of which the run itself is 1.",
    ]
    return "\n".join(lines)


def upscale_table() -> str:
    found = json.loads((RESULTS / "upscale.json").read_text())
    scene, part = found["scene"], found["part"]
    lines = [
        f"A scene of {scene['width']} x {scene['height']} LR pixels, one sample, "
        f"{found['threads']} threads:",
        "",
        "| model | network evaluations | seconds | CPU seconds | peak memory | trace of tiles |",
        "|---|---|---|---|---|---|",
    ]
    for model, row in found["models"].items():
        lines.append(
            f"| {model} | {row['nfe']} | {row['seconds']:.0f} | {row['cpu_seconds']:.0f} "
            f"| {row['peak_megabytes']} MB | {row['tiles_rms']:.1g} |"
        )
    lines += [
        "",
        f"Trace of tiles: root mean square difference, in reflectance, between {part} x {part} LR "
        f"pixels made by tiles of {found['tile']} with {found['overlap']} in common and the same "
        "pixels made at once. Torch " + found["torch"] + ".",
    ]
    return "\n".join(lines)


def raters_sentence() -> str:
    found = json.loads((RESULTS / "raters.json").read_text())
    others = max(0, found["cpu_of_others"])  # the clocks differ by a few hundredths
    return (
        f"{found['raters']} raters at once, {found['votes']} votes, {found['cores']} cores, of "
        f"which other programs took {others:.0%}: no vote lost or doubled. A vote "
        f"is durable after {found['median_milliseconds']:.0f} ms (median; "
        f"{found['p99_milliseconds']:.0f} ms for 99 in 100) and costs the server "
        f"{found['server_cpu_milliseconds_per_vote']:.0f} ms of CPU time with its pictures."
    )


def knn_sentence() -> str:
    found = json.loads((RESULTS / "knn.json").read_text())
    shares = [f"{100 * share:.1f} % with {name}" for name, share in found["accuracy"].items()]
    return (
        f"k-NN (k = {found['neighbours']}) on the ten EuroSAT classes, {found['queries']} chips "
        f"never trained on against {found['bank']} others: {', '.join(shares)}; the commonest "
        f"class has {100 * found['chance']:.1f} %."
    )


def study_table() -> str:
    lines = [
        "| experiment | references left out | 95 % interval | sources left out | equal weights |",
        "|---|---|---|---|---|",
    ]
    with (ROOT / "calibration" / "study.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            keys = ("references left out", "low", "high", "sources left out", "equal weights")
            held, low, high, sources, equal = (float(row[key]) for key in keys)
            lines.append(
                f"| `{row['name']}` | {held:.3f} | {low:.3f} to {high:.3f} | {sources:.3f} | "
                f"{equal:.3f} |"
            )
    return "\n".join(lines)


def releases_table() -> str:
    """What the rounds of judgements hold, and how far two votes on one trial agree."""
    header = [
        "release",
        "trials",
        "votes",
        "raters",
        "two raters agree",
        "neither of them guessing",
    ]
    rows = []
    for release, folder in SHIPPED.items():
        votes = pd.read_csv(folder / "votes.csv")
        found = two_raters(votes)
        counts = [votes["id"].nunique(), len(votes), votes["rater"].nunique()]
        shares = [
            f"{found['agree']:.3f} of {found['pairs']} pairs",
            f"{found['sure_agree']:.3f} of {found['sure_pairs']}",
        ]
        rows.append([release, *(str(count) for count in counts), *shares])
    return evidence_page.table(header, rows)


def rebuild_table() -> str:
    found = json.loads((RESULTS / "rebuild.json").read_text())
    lines = [
        f"{found['references_identical']:.0%} of the {found['trials']} references are identical. "
        "Sides, medians:",
        "",
        "| distortion | identical to the released side | PSNR to it | PSNR of the released side to "
        "its reference | of the rebuilt one |",
        "|---|---|---|---|---|",
    ]
    for kind, row in found["kinds"].items():
        lines.append(
            f"| {kind} | {row['identical']:.0%} | {row['psnr_to_released']} dB | "
            f"{row['psnr_of_released']} dB | {row['psnr_of_rebuilt']} dB |"
        )
    lines += ["", "100 dB stands for identical images."]
    return "\n".join(lines)


def sample_scores() -> str:
    """What `lpips-sat score` prints for the first sample pair, without the time that it took."""
    with tempfile.TemporaryDirectory() as folder:
        make_sample(Path(folder) / "sample")
        pair = Path(folder) / "sample" / "rgbn"
        words = ["score", pair / "pred.tif", pair / "ref.tif", "--factor", "2"]
        done = CliRunner().invoke(command, [*map(str, words)], catch_exceptions=False)
    said = re.sub(r"; [\d.]+ s, [\d.]+ Mpx/s", "", done.stdout)
    return "\n".join(["```text", *map(str.rstrip, said.splitlines()), "```"])


def faults_table() -> str:
    found = json.loads((RESULTS / "faults.json").read_text())["faults"]
    lines = ["| fault | exit code | what is said |", "|---|---|---|"]
    for program, rows in found.items():
        for fault, row in rows.items():
            command, code = row["command"].split()[0], row["exit_code"]
            said = row["said"].split("Error: ")[-1].replace("|", "\\|").replace("\n", "<br>")
            lines.append(f"| `{program} {command}`: {fault} | {code} | {said} |")
    return "\n".join(lines)


def pairs_table() -> str:
    found = json.loads((RESULTS / "pairs.json").read_text())
    lines = [
        "| set | shift, LR px | gain | offset | correlation | HR / LR at Nyquist | outside |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in found.items():
        lines.append(
            f"| `{name}` | {row['shift']:.2f} | {row['gain']:.3f} | {row['offset']:+.4f} "
            f"| {row['correlation']:.3f} | {row['mtf_0.5']:.2f} "
            f"| {row['outside']} of {row['pairs']} |"
        )
    return "\n".join(lines)


def cases_table() -> str:
    from sr_models.experiment.results import read_case_results
    from sr_models.report import tables

    path = RESULTS / "study.parquet"
    path.stat()  # the first table is that of PSNR
    parts = tables(read_case_results(path))["cases"].split("\n\n")
    return next(part for part in parts if part.startswith("|"))


BLOCKS = {
    "sample": sample_scores,
    "faults": faults_table,
    "cases": evidence_page.or_pending(cases_table),
    "study": study_table,
    "releases": releases_table,
    "rebuild": rebuild_table,
    "pairs": pairs_table,
    "agreement": agreement_table,
    "provenance": provenance_table,
    "throughput": throughput_table,
    "scene": evidence_page.or_pending(scene_table),
    "upscale": evidence_page.or_pending(upscale_table),
    "raters": evidence_page.or_pending(raters_sentence),
    "knn": knn_sentence,
    "unseen": unseen_sentence,
    "groups": group_table,
    **evidence_page.BLOCKS,
}


def fill(text: str) -> str:
    """Replace what stands between `<!-- NAME -->` and `<!-- /NAME -->`."""
    for name, make in BLOCKS.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        if re.search(pattern, text, flags=re.S):
            content = make()
            text = re.sub(pattern, lambda m, c=content: f"{m[1]}{c}\n{m[2]}", text, flags=re.S)
    return text


def draw_sample() -> None:
    """Reference, prediction and LPIPS-Sat map of both sample pairs, side by side."""
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    import torch
    from matplotlib import pyplot as plt

    from lpips_sat import LPIPSSat, open_pair

    figure, rows = plt.subplots(2, 3, figsize=(10.5, 7.4), layout="constrained")
    with tempfile.TemporaryDirectory() as folder:
        make_sample(Path(folder) / "sample")
        for axes, name in zip(rows, ("rgbn", "nir"), strict=True):
            base = Path(folder) / "sample" / name
            with open_pair(base / "pred.tif", base / "ref.tif") as pair:
                tile = next(iter(pair.tiles(size=1024)))
                metric = LPIPSSat(bands=pair.bands)
                with torch.inference_mode():
                    shown = [metric.to_input(image).clamp(0, 1) for image in (tile.ref, tile.pred)]
                    distance, sums = metric.map_and_sums(tile.pred, tile.ref)
            part = (slice(320, 620), slice(360, 660))
            titles = {
                "rgbn": ("B04, B03, B02 at 10 m", "the same after 20 m and back"),
                "nir": ("B08 at 10 m", "the real 20 m band B8A, restored"),
            }[name]
            for axis, image, title in zip(axes, shown, titles, strict=False):
                axis.imshow(image[0].permute(1, 2, 0).numpy()[part] ** 0.8)
                axis.set_title(title, fontsize=11)
            drawn = axes[2].imshow(np.asarray(distance[0, 0])[part], cmap="magma", vmin=0, vmax=3)
            axes[2].set_title(f"LPIPS-Sat (mean {float(metric.from_sums(sums)):.2f})", fontsize=11)
            figure.colorbar(drawn, ax=axes[2], shrink=0.85)
            for axis in axes:
                axis.set_axis_off()
    figure.savefig(ROOT / "docs" / "images" / "sample.png", dpi=110)


def main() -> None:
    if "--figures" in sys.argv[1:]:
        draw_sample()
        evidence_page.draw(ROOT / "docs" / "images")
    for page in PAGES:
        path = ROOT / page
        path.write_text(fill(path.read_text()))


if __name__ == "__main__":
    main()
