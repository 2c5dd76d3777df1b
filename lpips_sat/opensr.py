"""opensr-test's scores for rasters of any size: block by block, averaged by valid pixels.

They need the low-resolution image beside each tile. Their histograms, shifts and thresholds belong
to a whole image; a raster up to one block in size is scored exactly as opensr-test scores it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .errors import MetricInputError
from .functional.opensr import MIN_SIZE, check_factor, consistency, correctness, synthesis
from .tiled import INPUT_UNITS, Tiled
from .validity import as_valid, ratio_or_nan

# The least side of a block in pixels, and what it is a multiple of, so that networks can be
# aligned to tiles of the same size.
BLOCK, ALIGN = 768, 64


def block_side(factor: int) -> int:
    """Side of a block in pixels: a whole number of LR pixels, 768 for factors 2, 3, 4, 6 and 8."""
    step = math.lcm(ALIGN, factor)
    return max(1, BLOCK // step) * step


def opensr(name: str, *, factor: int) -> Tiled:
    """One of `SCORES`, by name, for images ``factor`` times as fine as their input."""
    unit, higher_is_better, sums, column = SCORES[name]
    return Tiled(
        f"opensr-{name}",
        unit,
        higher_is_better,
        sums,
        partial(_column, column=column),
        align=block_side(factor),
        min_size=MIN_SIZE,
        settings={"opensr_block": block_side(factor)},
        needs_lr=True,
    )


def all_scores(pred: Tensor, ref: Tensor, lr: Tensor, valid: Tensor | None = None) -> Tensor:
    """Each of `SCORES` of whole images (N, C, H, W) with their inputs (N, C, H / f, W / f)."""
    parts = [_consistency(pred, ref, lr, valid), _added(pred, ref, lr, valid)]
    return torch.cat(parts, dim=1)


def _consistency(pred: Tensor, ref: Tensor, lr: Tensor, valid: Tensor | None) -> Tensor:
    return torch.stack(consistency(pred, lr, valid=valid), dim=1)


def _added(pred: Tensor, ref: Tensor, lr: Tensor, valid: Tensor | None) -> Tensor:
    return torch.stack(
        [
            synthesis(pred, ref, lr, valid=valid),
            *correctness(pred, ref, lr, valid=valid),
        ],
        dim=1,
    )


def _sums(
    score: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor],
    number: int,
    pred: Tensor,
    ref: Tensor,
    *,
    lr: Tensor,
    valid: Tensor | None = None,
    core: Tensor | None = None,
) -> Tensor:
    """Float64 (N, 2K): for each score, the sum over blocks times their valid pixels; the latter.

    number: K; lr: (N, C, H / f, W / f), NaN where invalid. A block less than 64 px wide or high
    adds nothing. Adds up over tiles that are whole blocks.
    """
    factor = check_factor(pred, lr)
    if not as_valid(core, pred, name="core").all():
        raise MetricInputError("opensr scores whole tiles: pass them without a halo")
    known = lr.isfinite().all(dim=1, keepdim=True)
    usable = as_valid(valid, pred) & known.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    side, few = block_side(factor), block_side(factor) // factor
    found = [pred.new_zeros((len(pred), 2 * number), dtype=torch.float64)]
    for blocks in zip(*(_cut(x, side) for x in (pred, ref, usable)), _cut(lr, few), strict=True):
        if min(blocks[0].shape[-2:]) >= MIN_SIZE:
            ours, truth, mask, theirs = blocks
            scores = score(ours, truth, theirs, mask)
            weight = mask.sum(dim=(1, 2, 3), dtype=torch.float64)[:, None]
            weight = weight.masked_fill(scores.isnan(), 0)
            found.append(torch.cat([scores.nan_to_num(0) * weight, weight], dim=1))
    return torch.stack(found).sum(dim=0)


def _cut(x: Tensor, side: int) -> list[Tensor]:
    """Blocks of `side` px, row by row; those at the end may be smaller."""
    return [block for row in x.split(side, dim=2) for block in row.split(side, dim=3)]


def _column(sums: Tensor, *, column: int) -> Tensor:
    """Scores (N,) of one column of `_sums`."""
    scores = sums.shape[1] // 2
    return ratio_or_nan(sums[:, column], sums[:, scores + column])


# Name -> unit, which way is up (as opensr-test reads it), the sums that it shares with others, and
# its place in them.
_AGREEMENT, _DETAIL = partial(_sums, _consistency, 3), partial(_sums, _added, 4)
SCORES: dict[str, tuple[str, bool, Callable[..., Tensor], int]] = {
    "reflectance": (INPUT_UNITS, False, _AGREEMENT, 0),
    "spectral": ("degrees", False, _AGREEMENT, 1),
    "spatial": ("LR px", False, _AGREEMENT, 2),
    "synthesis": (INPUT_UNITS, True, _DETAIL, 0),
    "improvement": ("", True, _DETAIL, 1),
    "omission": ("", False, _DETAIL, 2),
    "hallucination": ("", False, _DETAIL, 3),
}
