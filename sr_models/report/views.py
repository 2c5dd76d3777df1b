"""The patches of the gallery, and what the models of a table make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ..data.pairs import read_about
from ..experiment.cases import CASES
from ..experiment.contenders import Batch, Contender, Sampler
from ..experiment.curves import trainings_of
from ..experiment.evaluate import check_tested
from ..experiment.exam import Exam, check_set
from ..experiment.foreign import foreign
from ..experiment.results import CaseResults, trained
from ..experiment.scores import Scores
from ..experiment.summary import TEST
from ..registry import device_of, load_pipeline
from .gallery import Patch


class Views:
    """The test patches of the set that a table is of, and the table's models.

    root: the set; runs: where trainings are; device: "cpu", "cuda", or None for the GPU if any.
    Attribute `absent`: what `guess` did not find.

    Raises:
        ResultsError: the table is of another set.
    """

    def __init__(
        self, results: CaseResults, root: Path, runs: Path, *, device: str | None = None
    ) -> None:
        known = results.provenance
        check_set(known, root)
        self.results, self.device = results, device_of(device)
        self.trainings = trainings_of(results, root, runs, device=self.device)
        how: dict[str, Any] = {"degradation": known["degradation"], "num_samples": 1}
        about = read_about(root)
        scores = Scores(about, int(about["layout"]["tile"]), ["psnr"])
        self.exam = Exam(root, scores, ["real", "synthetic"], **how)
        check_tested(results, self.exam)
        self.absent: list[str] = []
        self._contenders: dict[tuple[str, str], Contender | None] = {}

    def patches(self, chosen: dict[str, str]) -> list[Patch]:
        """Test patches by name, with the reason to show them."""
        found = []
        for name, why in chosen.items():
            index = self.exam.sets["real"][TEST].ids.index(name)
            items = {kind: sets[TEST][index] for kind, sets in self.exam.sets.items()}
            lr = {str(kind): item["lr"] for kind, item in items.items()}
            found.append(Patch(name, why, lr, items["real"]["hr"]))
        return found

    def guess(self, model: str, case: str, patch: Patch) -> Tensor | None:
        """The image (C, H, W) of the first training; None if its weights are not there."""
        key = (model, case)
        if key not in self._contenders:
            self._contenders[key] = self._contender(model, case)
        contender = self._contenders[key]
        if contender is None:
            return None
        batch = Batch([patch.name], patch.lr[CASES[case].tested][None], patch.hr[None])
        return contender.guess(batch, 1).samples[0, 0]

    def _contender(self, model: str, case: str) -> Contender | None:
        """Who was tested, with the same weights."""
        known, regime = self.results.provenance["weights"], CASES[case].trained
        table = self.results.table
        seed = int(table.loc[(table["model"] == model) & (table["case"] == case), "seed"].min())
        before = known.get(trained(model, regime, seed))
        if before is None:
            tested = CASES[case].tested
            found, _ = foreign(model, self.exam, tested, alone=False, device=self.device)
            return found
        weights = self.trainings.find(model, regime, seed)
        if weights is None or weights.describe()["sha256"] != before["sha256"]:
            where = f"its weights are not in {self.trainings.runs}"
            self.absent.append(f"{model} trained on {regime} images, {where}")
            return None
        return Sampler(load_pipeline(weights.folder, self.device), seed)
