"""Some test patches in pictures: truth, input, and what every model makes of it in every case."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lpips_sat import LPIPSSat
from lpips_sat.errors import MetricInputError
from lpips_sat.radiometry import Kind
from lpips_sat.report import Panel, colour_top, map_panel, rgb_panel

from ..experiment.cases import CASES
from .content import Column, Plate, fixed, title_of
from .numbers import Numbers
from .ranks import FIDELITY, PERCEPTION

Array = npt.NDArray[np.float32]
# Shares of the HR pixels of a patch that are shown black and white, in all its pictures alike.
BLACK, WHITE = 0.005, 0.995
LABEL = 18  # pixels above a column of a sheet


Distance = Callable[[Tensor, Tensor], Array | None]  # LPIPS-Sat per pixel (H, W), if it applies


@dataclass(frozen=True)
class Patch:
    """A test patch: lr by regime and hr (C, h, w), float32; why: it is shown."""

    name: str
    why: str
    lr: Mapping[str, Tensor]
    hr: Tensor


# model, case, patch -> image (C, H, W), or none if the model is not at hand
Guess = Callable[[str, str, Patch], Tensor | None]


def choose(numbers: Numbers, count: int = 3) -> dict[str, str]:
    """Patches with the reason to show them: a typical gap, the worst by PSNR and by LPIPS-Sat.

    A fourth would be one of a typical gap in LPIPS-Sat.
    """
    typical, worst = [], []
    for metric in (FIDELITY, PERCEPTION):
        gaps = [numbers.patch_gap(model, metric) for model in numbers.trained]
        known = [gap for gap in gaps if len(gap)]
        if not known:
            continue
        mean = sum(known[1:], known[0]).dropna() / len(known)
        order = mean if numbers.higher_is_better(metric) else -mean
        middle, last = (mean - mean.median()).abs().idxmin(), order.idxmin()
        typical.append((str(middle), f"a typical gap in {title_of(metric)}"))
        worst.append((str(last), f"the worst gap in {title_of(metric)}"))
    found: dict[str, str] = {}
    for name, why in [*typical[:1], *worst, *typical[1:]]:
        found.setdefault(name, why)
    return dict(list(found.items())[:count])


def plates(
    numbers: Numbers, patches: Sequence[Patch], guess: Guess, bands: Sequence[str], kind: Kind
) -> list[Plate]:
    """A plate per patch and case; the colours of maps mean the same in all cases of a patch."""
    distance = _distance(bands, kind)
    return [
        plate
        for place, patch in enumerate(patches, start=1)
        for plate in _Views(numbers, patch, guess, distance).plates(f"patch-{place}")
    ]


def save_sheet(plate: Plate, path: Path) -> None:
    """Write a plate as one picture, columns side by side."""
    sides = [[_image(panel) for panel in column.panels] for column in plate.columns]
    wide, high = max(i.width for c in sides for i in c), max(i.height for c in sides for i in c)
    rows = max(len(column) for column in sides)
    sheet = Image.new("RGB", (len(sides) * (wide + 4), 2 * LABEL + rows * (high + 4)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for x, (column, images) in enumerate(zip(plate.columns, sides, strict=True)):
        left = x * (wide + 4)
        draw.text((left + 2, 2), column.name, fill="black", font=font)
        draw.text((left + 2, LABEL), column.score, fill="#5b6268", font=font)
        for y, image in enumerate(images):
            sheet.paste(image, (left, 2 * LABEL + y * (high + 4)))
    sheet.save(path)


class _Views:
    """A patch as all models show it in all cases, on common scales."""

    def __init__(self, numbers: Numbers, patch: Patch, guess: Guess, distance: Distance) -> None:
        self.numbers, self.patch = numbers, patch
        self.images = {
            (case, model): image
            for case in numbers.cases
            for model in numbers.models
            if numbers.mean(model, case, numbers.metrics[0]) is not None
            and (image := guess(model, case, patch)) is not None
        }
        hr = patch.hr
        self.errors = {key: (x - hr).abs().mean(0).numpy() for key, x in self.images.items()}
        found = {key: distance(x, hr) for key, x in self.images.items()}
        self.looks = {key: x for key, x in found.items() if x is not None}
        self.valid = np.ones(hr.shape[1:], bool)
        self.top, self.top_looks = (
            max((colour_top(x, self.valid) for x in maps.values()), default=0.0)
            for maps in (self.errors, self.looks)
        )
        self.show = _display(hr)

    def plates(self, name: str) -> list[Plate]:
        """A plate per case."""
        found = []
        for case in dict.fromkeys(case for case, _ in self.images):
            trained, tested = CASES[case].trained, CASES[case].tested
            models = [model for one, model in self.images if one == case]
            title = f"Case {case} ({trained} \u2192 {tested}): {self.patch.name}, {self.patch.why}"
            columns = [self._truth(tested), *(self._column(case, model) for model in models)]
            found.append(Plate(f"{name}-{case}", title, columns))
        return found

    def _truth(self, tested: str) -> Column:
        lr = self.patch.lr[tested]
        factor = self.patch.hr.shape[-1] // lr.shape[-1]
        large = lr.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)
        images = {"HR": self.patch.hr, f"LR, {tested}": large}
        panels = [rgb_panel(name, self.show(x), self.valid) for name, x in images.items()]
        return Column("the truth", "", panels)

    def _column(self, case: str, model: str) -> Column:
        key, valid = (case, model), self.valid
        panels = [
            rgb_panel("image", self.show(self.images[key]), valid),
            map_panel("error", self.errors[key], valid, self.top, ""),
        ]
        if key in self.looks:
            title = title_of(PERCEPTION)
            panels.append(map_panel(title, self.looks[key], valid, self.top_looks, ""))
        return Column(model, self._scores(case, model), panels)

    def _scores(self, case: str, model: str) -> str:
        """What the table says of the first training."""
        said = []
        for metric in (FIDELITY, PERCEPTION):
            value = self.numbers.value(model, case, metric, self.patch.name)
            if value is not None:
                text = fixed(value, self.numbers.digits(metric))
                said.append(" ".join(filter(None, (text, self.numbers.unit(metric)))))
        return ", ".join(said)


def _distance(bands: Sequence[str], kind: Kind) -> Distance:
    """LPIPS-Sat per pixel (H, W), or nothing where it does not apply to the bands."""
    try:
        metric = LPIPSSat(bands=tuple(bands), radiometry=kind, spatial=True)
    except MetricInputError:
        return lambda image, hr: None

    def measure(image: Tensor, hr: Tensor) -> Array:
        with torch.inference_mode():
            found: Array = metric(image[None], hr[None])[0, 0].numpy()
        return found

    return measure


def _display(hr: Tensor) -> Callable[[Tensor], Array]:
    """Show images (C, H, W) as colours (H, W, 3) by the range of HR."""
    low, high = np.quantile(hr.numpy(), [BLACK, WHITE])
    index = [0, 1, 2] if len(hr) > 2 else [0, 0, 0]

    def show(image: Tensor) -> Array:
        shown = (image[index] - low) / max(high - low, 1e-9)
        colours: Array = shown.clamp(0, 1).permute(1, 2, 0).numpy()
        return colours

    return show


def _image(panel: Panel) -> Image.Image:
    data = base64.b64decode(panel.uri.partition(",")[2])
    return Image.open(io.BytesIO(data)).convert("RGB")
