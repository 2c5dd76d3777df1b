"""Contenders that are not trained here: controls, pipelines, runs, plugins and predictions.

They are tested on what a case tests, whatever they were trained on.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpips_sat import LpipsSatError

from ..cards import read_card, sha256
from ..data.pairs import Regime
from ..pipeline import SRPipeline
from ..profiles import models as trainable
from ..registry import CHECKPOINTS, GROUP, Bicubic, load_model, names, pipeline_folder
from .contenders import Ceiling, Contender, Plain, Sampler
from .predictions import Predictions, holds_predictions

if TYPE_CHECKING:
    from .exam import Exam

CONTROLS = ("bicubic", "ceiling")


def foreign(
    name: str, exam: Exam, tested: Regime, *, alone: bool, device: str
) -> tuple[Contender, dict[str, Any]]:
    """A contender by name, and what results say of it: `origin`, `sha256` (or ""), and more.

    name: one of `CONTROLS`, a name of `registry.names`, or a folder of a pipeline, a run that has
    ended, or predictions; alone: whether no other kind of LR images is tested.

    Raises:
        LpipsSatError: there is none, it is damaged, or it does not fit the set.
    """
    if name in CONTROLS:
        control: Contender = Ceiling() if name == "ceiling" else Plain(Bicubic(), nfe=0.0)
        return control, {"origin": "control", "sha256": ""}
    folder = Path(name)
    if pipeline_folder(folder) is None and folder.is_dir() and holds_predictions(folder):
        images = Predictions(folder, list(exam.sets[tested].values()), tested, alone=alone)
        return images, {"origin": "predictions", "sha256": images.sha256}
    if name not in names() and not folder.is_dir():
        raise LpipsSatError(
            f"no model {name!r}: expected one of {', '.join([*CONTROLS, *trainable()])}, a folder "
            "of a pipeline, of a training run or of predictions, or a name that `mindgap models` "
            "lists"
        )
    if folder.is_dir() and pipeline_folder(folder) is None:
        raise LpipsSatError(
            f"{name} holds neither a pipeline nor predictions: expected a saved pipeline, a "
            "training run that has ended, or images ID.tif or ID.npy of the test patches"
        )
    model = load_model(name, device=device)
    if isinstance(model, SRPipeline):
        return _pipeline(model, name, exam)
    return Plain(model), {"origin": "plugin", "sha256": "", **_package(name)}


def _pipeline(model: SRPipeline, name: str, exam: Exam) -> tuple[Contender, dict[str, Any]]:
    scale, bands = model.config.scale, list(model.config.bands)
    factor, have = exam.about["factor"], exam.about["hr"]["bands"]
    if scale != factor or len(bands) != len(have):
        raise LpipsSatError(
            f"{name} super-resolves {', '.join(bands)} by a factor of {scale}, but the set has "
            f"{', '.join(have)} and a factor of {factor}"
        )
    folder = pipeline_folder(Path(name)) or CHECKPOINTS / name
    about = {"origin": "pipeline", "sha256": sha256(folder), "about": read_card(folder)}
    return Sampler(model), about


def _package(name: str) -> dict[str, Any]:
    (point,) = [point for point in entry_points(group=GROUP) if point.name == name][:1]
    known = (
        {} if point.dist is None else {"package": point.dist.name, "version": point.dist.version}
    )
    return {"name": point.value, **known}
