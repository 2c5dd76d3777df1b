"""A table of the experiment whose effects are known, with blocks, trainings and controls."""

from __future__ import annotations

import numpy as np
import pytest

from sr_models.data.audit import audit_pairs, write_audit
from sr_models.data.build import Source, build_pairs
from sr_models.data.tiles import Layout
from sr_models.experiment.attribution import Asked as Attributed
from sr_models.experiment.attribution import attribute_results
from sr_models.experiment.evaluate import Asked, evaluate
from sr_models.experiment.gap import STATES, SUBSETS
from sr_models.experiment.results import ATTRIBUTION, EVALUATION, CaseResults
from sr_models.report.numbers import Numbers

BLOCKS, PER_BLOCK, SEEDS = 6, 4, 3
PATCHES = [(f"r{b}_{i}", f"block {b}") for b in range(BLOCKS) for i in range(PER_BLOCK)]
HOSTILE = "<script>alert(1)</script>|[x]"
# Mean of each metric in Case I, and what II, III and IV add to it: what a report must say.
PSNR = {
    "ceiling": (32.1, 0.0, 0.0, 0.0),
    "regression": (34.5, -5.6, -0.9, -3.0),
    "sr3": (33.5, -5.2, -1.0, -2.8),
    HOSTILE: (34.0, -5.8, -0.8, -3.2),
    "bicubic": (32.0, -5.0, -5.0, 0.0),
}
# Lower is better; sr3 looks better than regression, though its PSNR is lower.
LOOKS = {
    "ceiling": (0.58, 0.0, 0.0, 0.0),
    "regression": (0.45, 0.12, 0.03, 0.05),
    "sr3": (0.30, 0.16, 0.02, 0.06),
    HOSTILE: (0.38, 0.14, 0.03, 0.05),
    "bicubic": (0.60, 0.15, 0.15, 0.0),
}
# What turning each factor off takes away, as shares of a gap of 5 dB; the last is the rest.
SHARES = {"registration": 0.1, "radiometry": -3.5, "mtf": -1.0, "noise": -0.2, "rest": -0.4}
PROVENANCE = {
    "table": EVALUATION,
    "version": "0.1.0",
    "profile": "small",
    "set": {
        "name": "made-up",
        "factor": 2,
        "bands": ["B08"],
        "lr_bands": ["B8A"],
        "test_sha256": "0123456789abcdef",
    },
    "metrics": {
        "psnr": {"unit": "dB", "higher_is_better": True},
        "lpips-sat": {"unit": "", "higher_is_better": False},
    },
    "weights": {
        "sr3 synthetic 0": {"origin": "run", "name": "runs/sr3", "sha256": "fedcba9876543210"}
    },
}


def cell(model, case, seed, metric, patch, value):
    """One row of the table."""
    known = {"model": model, "case": case, "seed": seed, "estimate": "sample", "split": "test"}
    block = dict(PATCHES)[patch]
    return {**known, "patch": patch, "block": block, "metric": metric, "value": float(value)}


def centred(rng, scale, rows=SEEDS):
    """Noise (rows, patches) whose mean is 0."""
    noise = scale * rng.standard_normal((rows, len(PATCHES)))
    return noise - noise.mean()


@pytest.fixture(scope="session")
def results():
    """Values are truth + scene of the patch + noise of patch and training; means the truth."""
    rng, rows = np.random.default_rng(0), []
    for metric, truth, scale in (("psnr", PSNR, 1.0), ("lpips-sat", LOOKS, 0.02)):
        scene = centred(rng, 2 * scale, 1)
        for model, (first, *added) in truth.items():
            control = model in ("bicubic", "ceiling")
            for case, change in zip(("I", "II", "III", "IV"), (0.0, *added), strict=True):
                # a control is the same whatever others were trained on
                noise = scene * 0.1 * abs(change) if control else centred(rng, 0.05 * scale)
                for seed, values in enumerate(first + change + scene + noise):
                    rows += [
                        cell(model, case, seed, metric, patch, value)
                        for (patch, _), value in zip(PATCHES, values, strict=True)
                    ]
        rows += [cell("sr3", "I", 0, "nfe", patch, 20) for patch, _ in PATCHES]
    return CaseResults.from_rows(rows[: -len(PATCHES)], PROVENANCE)


@pytest.fixture(scope="session")
def numbers(results):
    return Numbers(results)


@pytest.fixture(scope="session")
def attribution():
    """Scores in all states of which every factor takes what `SHARES` says."""
    rows, rng = [], np.random.default_rng(1)
    for model in ("bicubic", "sr3", HOSTILE):
        for seed in range(1 if model == "bicubic" else SEEDS):
            for patch, _ in PATCHES:
                start = 30 + rng.standard_normal()
                for state, on in zip(STATES, (*SUBSETS, None), strict=True):
                    left = {} if on is None else {k: v for k, v in SHARES.items() if k not in on}
                    value = start + sum(left.values())
                    rows.append(cell(model, state, seed, "psnr", patch, value))
    return CaseResults.from_rows(rows, {"table": ATTRIBUTION, "set": PROVENANCE["set"]})


@pytest.fixture(scope="session")
def study(put, textured, tmp_path_factory):
    """A small study, really run: a set, trainings of two steps, and the tables made of them."""
    folder = tmp_path_factory.mktemp("study")
    hr = textured(1, 320, 320, seed=4).astype(np.float32)
    hr[:, 240:, 240:] = 0.1  # water
    lr = 1.1 * hr.reshape(1, 160, 2, 160, 2).mean(axis=(2, 4), dtype=np.float32)
    sources = [
        Source(put(folder / f"{band}.tif", image, bands=(band,), pixel=gsd), bands=(band,))
        for band, image, gsd in (("B8A", lr, 20), ("B08", hr, 10))
    ]
    layout = Layout(tile=64, block=1, margin=16, min_texture=1e-4, shares=(0.4, 0.2, 0.4))
    build_pairs(*sources, folder / "toy", layout=layout, sun_zenith=40)
    changes = {"steps": 2, "batch": 2, "crop": 16, "warmup": 1}
    known = {"metrics": ("psnr", "lpips-sat"), "runs": folder / "runs", "device": "cpu"}
    asked = Asked(("bicubic", "ceiling", "regression"), changes=changes, **known)
    results = evaluate(folder / "toy", folder / "results.parquet", asked)
    why = Attributed(["regression"], ["psnr"], runs=folder / "runs", device="cpu")
    attribute_results(results, folder / "toy", folder / "gap.parquet", why)
    write_audit(audit_pairs(folder / "toy"), folder / "audit", figures=False)
    return folder


@pytest.fixture(scope="session")
def page(study, mindgap):
    """The report of the study, as the command writes it with everything given."""
    given = ("--gap", study / "gap.parquet", "--audit", study / "audit", "--data", study / "toy")
    done = mindgap(
        *("report", study / "results.parquet", *given, "--runs", study / "runs", "--device", "cpu"),
        *("--html", study / "report.html", "--markdown", study / "report.md"),
    )
    assert done.exit_code == 0, done.output
    assert f"report: {study / 'report.html'}, " in done.stderr
    return study / "report.html"
