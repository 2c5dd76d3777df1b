"""Backbone + judgements -> a calibrated metric with its card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from .. import __version__
from ..backbones.ssl4eo import PUBLISHED, RGB
from ..errors import WeightsError
from ..lpips import CONFIG_FILE, LPIPSSat
from ..outputs import whole_folder
from ..stats import rounded
from ..weights import STATE_FILE, shipped
from . import evaluate, heads
from .judgements import VALIDATION_STEP, JudgementError, Judgements

# What the card of weights says of where they come from, for the card of what is made from them.
INHERITED = ("name", "version", "sha256", "raters", "licence", "pretraining", "tuning", "backbone")


def load_backbone(source: str, checkpoint: str | None = None) -> LPIPSSat:
    """A metric to calibrate, from a pretraining folder, a saved metric's folder, or a name.

    ``checkpoint``: the weights of an ``ssl4eo-s12-...`` backbone, a file or ``"hub"``.
    """
    folder = Path(source)
    if checkpoint is not None and source not in PUBLISHED:
        raise WeightsError(
            f"a checkpoint goes with one of {', '.join(PUBLISHED)}, not with {source!r}"
        )
    if source in shipped() or not folder.is_dir():
        config = None if checkpoint is None else {"checkpoint": checkpoint}
        return _begin(LPIPSSat(source, radiometry="display", backbone_config=config))
    if (folder / STATE_FILE).is_file():
        return _begin(LPIPSSat.from_pretrained(folder, radiometry="display", bands=RGB))
    weights = folder / "backbone.safetensors"
    if not weights.is_file():
        raise WeightsError(
            f"{weights} is missing: {folder} is no finished pretraining run; continue it with "
            "`lpips-sat pretrain`"
        )
    config = json.loads((folder / CONFIG_FILE).read_text())
    metric = LPIPSSat(
        config["backbone"],
        radiometry="display",
        backbone_config=config["backbone_config"],
        card={"pretraining": config},
    )
    metric.backbone.load_state_dict(load_file(weights))
    return metric


def mean_of(metrics: Sequence[LPIPSSat]) -> LPIPSSat:
    """One metric with the mean of the weights of several that began as one.

    Wortsman et al. 2022, "Model soups: averaging weights of multiple fine-tuned models improves
    accuracy without increasing inference time".
    """
    first, *others = metrics
    if not others:
        return first
    states = [metric.state_dict() for metric in metrics]
    shapes = [{key: value.shape for key, value in state.items()} for state in states]
    if any(other != shapes[0] for other in shapes[1:]):
        raise WeightsError("only weights of one network have a mean; these are of several")
    mean = {key: torch.stack([state[key] for state in states]).mean(dim=0) for key in states[0]}
    first.load_state_dict(mean)
    parts = [metric.card.get("backbone", {}) for metric in metrics]
    alike = {key: value for key, value in parts[0].items() if key in ("raters", "licence")}
    parts = [parts[0], *(_briefly(part, parts[0]) for part in parts[1:])]
    first.card["backbone"] = {"name": "the mean of several", **alike, "mean_of": parts}
    return first


def _briefly(part: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    """A part of a mean; of a backbone that ``first`` tells whole, the name and hash suffice."""
    backbone = part.get("backbone")
    if not backbone or backbone not in (first, first.get("backbone")):
        return part
    brief = {key: backbone[key] for key in ("name", "sha256") if key in backbone}
    return {**part, "backbone": brief}


def _begin(metric: LPIPSSat) -> LPIPSSat:
    """Of the card keep what is about the backbone; the heads are fitted anew."""
    known = {key: metric.card[key] for key in INHERITED if key in metric.card}
    if known.keys() - {"backbone"}:  # weights made here; others say themselves what they are
        metric.card.clear()
        metric.card["backbone"] = known
    return metric


def split(trials: Judgements) -> tuple[Judgements, Judgements]:
    """(training, validation) trials; JudgementError if either are too few to make a metric of."""
    training, validation = trials.split()
    references = training.table["crop"].nunique()
    if references < 2 or not len(validation):
        raise JudgementError(
            f"expected trials of two references or more to fit (id % {VALIDATION_STEP} > 0) and "
            f"one trial or more to validate (id % {VALIDATION_STEP} == 0), got {references} and "
            f"{len(validation)}: add judgements"
        )
    return training, validation


def calibrate(
    metric: LPIPSSat, trials: Judgements, *, name: str, out: Path, overwrite: bool = False
) -> pd.DataFrame:
    """Fit the heads on the training trials, write the folder ``out``, return the evidence.

    The validation trials (id % 5 == 0) play no part in the fit or in the choice of its strength.
    ``overwrite``: replace ``out`` if it holds weights. Raises JudgementError, see `split`.
    """
    training, _ = split(trials)
    of_a, of_b = heads.per_channel(metric, training)
    chosen = heads.choose(of_a, of_b, training)
    heads.set_heads(metric, chosen.weights)
    heads.anchor(metric, training.ref)
    fitted = {
        "strength": chosen.strength,
        "cross_validated_agreement": round(chosen.cross_validated, 4),
        "leave_one_source_out": leave_one_source_out(of_a, of_b, training, chosen.strength),
    }
    variant = "lin: linear heads on frozen features"
    facts = {"variant": variant, "heads": fitted}
    return publish(metric, trials, name=name, out=out, overwrite=overwrite, **facts)


def publish(
    metric: LPIPSSat,
    trials: Judgements,
    *,
    name: str,
    out: Path,
    overwrite: bool = False,
    **facts: Any,
) -> pd.DataFrame:
    """Measure ``metric`` on the validation trials, write it with its card, return the evidence.

    ``overwrite``: replace ``out`` if it holds weights. ``facts``: what the card shall say of this
    way of making it. Raises JudgementError, see `split`.
    """
    training, validation = split(trials)
    scores = agreements(metric, validation)
    ours = scores["LPIPS-Sat"]
    new = ~validation.table["cluster"].isin(set(training.table["cluster"])).to_numpy()
    table = pd.DataFrame(
        {"metric": label, **_summary(of, validation)} for label, of in scores.items()
    )
    metric.card.update(
        name=name,
        version=__version__,
        judgements={"training": len(training), "validation": len(validation)},
        evidence=table.to_dict(orient="records"),
        unseen_references=_summary(ours[new], validation.where(new))
        if new.any()
        else {"trials": 0},
        by_group=evaluate.by_group(ours, validation).round(4).to_dict(orient="records"),
        input=metric.to_input.about,
        **facts,
        **standing_facts(trials),
    )
    of_backbone = metric.card.get("backbone", {}).get("licence", metric.card["licence"])
    if of_backbone != metric.card["licence"]:
        metric.card["licence"] += f"; backbone: {of_backbone}"
    # Judged on display patches; what is saved starts, as LPIPSSat does, with reflectance.
    metric.config.update(radiometry="reflectance", bands=list(metric.to_input.composite))
    save(metric, out, overwrite=overwrite)
    return table


def standing_facts(trials: Judgements) -> dict[str, str]:
    """What is true of every metric that this module makes of ``trials``."""
    about = trials.about
    held_out = (
        f"trials with id % {VALIDATION_STEP} == 0, never fitted; intervals: 95 %, bootstrap over "
        "reference images"
    )
    return {
        "unit": "1 = the mean score of a x2 bicubic round trip of the calibration patches as the "
        f"raters saw them ({trials.ref.shape[1]} px, stretched for display); a duller scene scores "
        "less",
        "raters": str(about.get("raters", "not stated by the judgements")),
        "licence": str(about.get("licence", "not stated by the judgements")),
        "validation": ". ".join([held_out, *([about["leakage"]] if "leakage" in about else [])]),
    }


def agreements(metric: LPIPSSat, trials: Judgements) -> dict[str, NDArray[np.float64]]:
    """Agreement on each trial: LPIPS-Sat, the same backbone with equal weights, SSIM, PSNR."""
    distances: dict[str, evaluate.Distance] = {
        "LPIPS-Sat": metric,
        "the same backbone, equal weights": LPIPSSat(metric.backbone, radiometry="display"),
        **{name: evaluate.CLASSIC[name] for name in ("SSIM", "PSNR")},
    }
    return {
        label: evaluate.agreement(*evaluate.pair_distances(distance, trials), trials.share_b)
        for label, distance in distances.items()
    }


def _summary(scores: NDArray[np.float64], trials: Judgements) -> dict[str, float | None]:
    """A row of evidence: mean agreement with its interval, and the numbers it rests on.

    Without an interval where all patches are of one image, which says nothing of others.
    """
    interval = evaluate.summarise(scores, trials)
    return {
        "agreement": rounded(interval.mean),
        "low": rounded(interval.low),
        "high": rounded(interval.high),
        "trials": interval.count,
        "references": interval.clusters,
    }


def leave_one_source_out(
    of_a: Tensor, of_b: Tensor, trials: Judgements, strength: float
) -> dict[str, float]:
    """Agreement on each source by heads that never saw it; empty if there is only one."""
    sources: NDArray[Any] = trials.table["source"].to_numpy()
    names = sorted(set(sources))
    if len(names) == 1:
        return {}
    scores = heads.left_out(of_a, of_b, trials, sources, strength=strength)
    return {name: round(float(scores[sources == name].mean()), 4) for name in names}


def save(metric: LPIPSSat, out: Path, *, overwrite: bool = False) -> None:
    """Write weights and card into the folder ``out``, whole or not at all.

    OutputExistsError if it exists, unless ``overwrite`` and it holds weights.
    """
    with whole_folder(out, mark=STATE_FILE, overwrite=overwrite) as folder:
        metric.save_pretrained(folder)
        metric.card["sha256"] = hashlib.sha256((folder / STATE_FILE).read_bytes()).hexdigest()
        (folder / "README.md").unlink()  # an existing one would be kept, without the hash
        metric.save_pretrained(folder)
        for file in folder.iterdir():
            file.chmod(0o644)  # made private by safetensors
        folder.chmod(0o755)
