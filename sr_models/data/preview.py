"""A picture of a set of pairs: where its splits lie, and some of its pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageDraw

from lpips_sat.warp import read_values

# Okabe & Ito's colours, told apart with any colour vision.
COLORS = {"train": "#0072B2", "val": "#E69F00", "test": "#D55E00", "test_untextured": "#CC79A7"}
MAP_PX = 768  # longest side of the map
SHOWN = 6  # pairs below it; of a public set, which has no map, SHOWN_ALONE
SHOWN_ALONE = 24
PAIR_PX = 128


def write_preview(path: Path, folder: Path, table: pd.DataFrame, about: dict[str, Any]) -> None:
    """Draw the tiles of every split at their places, and below them pairs, LR beside HR.

    A public set is many places: of it only pairs are drawn, framed by the colours of their splits.
    """
    used = table[table["split"] != ""]
    textured = used[used["split"] != "test_untextured"]
    count = min(SHOWN_ALONE if "format" in about else SHOWN, len(textured))
    chosen = textured.iloc[np.linspace(0, len(textured) - 1, count).astype(int)]
    pairs = [
        (_read(folder / lr), _read(folder / hr))
        for lr, hr in zip(chosen["lr"], chosen["hr"], strict=True)
    ]
    low, high = np.percentile(np.concatenate([hr.ravel() for _, hr in pairs]), (1, 99))
    begin = 0 if "format" in about else MAP_PX
    sheet = Image.new("RGB", (MAP_PX, begin + -(-count // 3) * PAIR_PX), "white")
    draw = ImageDraw.Draw(sheet)
    if begin:
        _draw_map(sheet, folder, table, int(about["layout"]["tile"]), (low, high))
    for i, ((lr, hr), split) in enumerate(zip(pairs, chosen["split"], strict=True)):
        x, y = (i % 3) * 2 * PAIR_PX, begin + (i // 3) * PAIR_PX
        sheet.paste(_picture(lr, low, high, PAIR_PX), (x, y))
        sheet.paste(_picture(hr, low, high, PAIR_PX), (x + PAIR_PX, y))
        if not begin:
            end = x + 2 * PAIR_PX - 1, y + PAIR_PX - 1
            draw.rectangle([(x, y), end], outline=COLORS[split], width=3)
    for i, (name, color) in enumerate(COLORS.items()):
        draw.rectangle([4, 4 + 14 * i, 14, 14 + 14 * i], fill=color)
        draw.text((18, 3 + 14 * i), name, fill="black", stroke_width=2, stroke_fill="white")
    sheet.save(path)


def _draw_map(
    sheet: Image.Image, folder: Path, table: pd.DataFrame, tile: int, stretch: tuple[float, float]
) -> None:
    """Draw every used tile at its place, framed by the colour of its split."""
    shrink = MAP_PX / max(table["row"].max() + tile, table["col"].max() + tile)
    side = max(1, round(tile * shrink))
    draw = ImageDraw.Draw(sheet)
    used = table[table["split"] != ""]
    shown = (used[name] for name in ("row", "col", "hr", "split"))
    for row, col, name, split in zip(*shown, strict=True):
        corner = round(col * shrink), round(row * shrink)
        sheet.paste(_picture(_read(folder / name), *stretch, side), corner)
        end = corner[0] + side - 1, corner[1] + side - 1
        draw.rectangle([corner, end], outline=COLORS[split], width=3)


def _read(path: Path) -> npt.NDArray[np.float32]:
    """Read the mean of all bands (H, W)."""
    mean: npt.NDArray[np.float32] = read_values(path).mean(0)
    return mean


def _picture(image: npt.NDArray[np.float32], low: float, high: float, side: int) -> Image.Image:
    grey = np.clip((image - low) / max(high - low, 1e-9), 0, 1) * 255
    return Image.fromarray(np.rint(grey).astype(np.uint8)).resize(
        (side, side), Image.Resampling.BOX
    )
