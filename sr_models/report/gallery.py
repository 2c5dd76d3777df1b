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
from lpips_sat.report import Panel, colour_top, map_panel, number, rgb_panel

from ..cases import CASES
from ..summary import TEST
from .content import Column, Plate, title_of
from .numbers import SAMPLE, Numbers
from .ranks import FIDELITY, PERCEPTION

Array = npt.NDArray[np.float32]
# Shares of the HR pixels of a patch that are shown black and white, in all its pictures alike.
BLACK, WHITE = 0.005, 0.995
LABEL = 18  # pixels above a column of a sheet


@dataclass(frozen=True)
class Patch:
    """A test patch: lr by regime and hr (C, h, w), float32; why: it is shown."""

    name: str
    why: str
    lr: Mapping[str, Tensor]
    hr: Tensor


Guess = Callable[[str, str, Patch], Tensor]  # model, case, patch -> image (C, H, W)


def choose(numbers: Numbers, count: int = 3) -> dict[str, str]:
    """Patches with the reason to show them: a typical gap, the worst by PSNR and by LPIPS-Sat."""
    found: dict[str, str] = {}
    for metric in (FIDELITY, PERCEPTION):
        gaps = [numbers.patch_gap(model, metric) for model in numbers.trained]
        known = [gap for gap in gaps if len(gap)]
        if not known:
            continue
        mean = sum(known[1:], known[0]).dropna() / len(known)
        order = mean if numbers.higher_is_better(metric) else -mean
        typical = str((mean - mean.median()).abs().idxmin())
        found.setdefault(typical, f"a typical gap in {title_of(metric)}")
        found.setdefault(str(order.idxmin()), f"the worst gap in {title_of(metric)}")
    return dict(list(found.items())[:count])


def plates(
    numbers: Numbers, patches: Sequence[Patch], guess: Guess, bands: Sequence[str], kind: str
) -> list[Plate]:
    """A plate per patch and case; the colours of maps mean the same in all cases of a patch."""
    return [
        plate
        for number, patch in enumerate(patches, start=1)
        for plate in _of_patch(numbers, patch, guess, _distance(bands, kind), f"patch-{number}")
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


def _of_patch(
    numbers: Numbers, patch: Patch, guess: Guess, distance: Callable[[Tensor, Tensor], Array | None],
    name: str,
) -> list[Plate]:
    seen = {
        (case, model): guess(model, case, patch)
        for case in numbers.cases
        for model in numbers.models
        if _score(numbers, model, case, patch, FIDELITY) is not None
    }
    errors = {key: (image - patch.hr).abs().mean(0).numpy() for key, image in seen.items()}
    maps = {key: distance(image, patch.hr) for key, image in seen.items()}
    valid = np.ones(patch.hr.shape[1:], bool)
    known = [found for found in maps.values() if found is not None]
    tops = [
        max((colour_top(values, valid) for values in found), default=0.0)
        for found in (list(errors.values()), known)
    ]
    show = _display(patch.hr)
    found = []
    for case in dict.fromkeys(case for case, _ in seen):
        regime = CASES[case].tested
        first = Column(
            "HR, LR",
            "",
            [
                rgb_panel("HR", show(patch.hr), valid),
                rgb_panel(f"LR, {regime}", show(_nearest(patch, regime)), valid),
            ],
        )
        columns = [first]
        for model in (model for one, model in seen if one == case):
            key = (case, model)
            panels = [
                rgb_panel("image", show(seen[key]), valid),
                map_panel("error", errors[key], valid, tops[0], ""),
            ]
            if (looks := maps[key]) is not None:
                panels.append(map_panel(title_of(PERCEPTION), looks, valid, tops[1], ""))
            scores = [_score(numbers, model, case, patch, m) for m in (FIDELITY, PERCEPTION)]
            score = " · ".join(number(value) for value in scores if value is not None)
            columns.append(Column(model, score, panels))
        title = f"{patch.name}, {patch.why}: Case {case}, {CASES[case].trained} → {regime}"
        found.append(Plate(f"{name}-{case}", title, columns))
    return found


def _score(
    numbers: Numbers, model: str, case: str, patch: Patch, metric: str
) -> float | None:
    """The value of the first training in the table."""
    table = numbers.table
    rows = table[
        (table["model"] == model) & (table["case"] == case) & (table["patch"] == patch.name)
        & (table["metric"] == metric) & (table["estimate"] == SAMPLE) & (table["split"] == TEST)
    ]
    return None if rows.empty else float(rows.sort_values("seed")["value"].iloc[0])


def _distance(bands: Sequence[str], kind: str) -> Callable[[Tensor, Tensor], Array | None]:
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


def _nearest(patch: Patch, regime: str) -> Tensor:
    lr = patch.lr[regime]
    factor = patch.hr.shape[-1] // lr.shape[-1]
    return lr.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)


def _image(panel: Panel) -> Image.Image:
    data = base64.b64decode(panel.uri.partition(",")[2])
    return Image.open(io.BytesIO(data)).convert("RGB")
