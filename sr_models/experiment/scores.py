"""Metrics of `lpips_sat.suites` on batches of patches: a value per patch and metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lpips_sat import suites
from lpips_sat.errors import UnknownMetricError
from lpips_sat.radiometry import Kind
from lpips_sat.scoring import metric_settings
from lpips_sat.tiled import INPUT_UNITS, TileMetric

DEFAULT = ("psnr", "ssim", "lpips-sat")
SEVERAL_BANDS = ("sam", "ergas")
CORRECTNESS = ("opensr-improvement", "opensr-omission", "opensr-hallucination")
# R of PSNR and SSIM. Reflectance rarely exceeds 0.6 on land: the profiles normalise 0..0.6, and a
# peak of 1, which no pixel reaches, would add 4.4 dB to every PSNR.
DATA_RANGE: dict[Kind, float] = {"reflectance": 0.6, "display": 1.0}


class Scores:
    """Metrics built for one set of pairs.

    Args:
        about: what `dataset.json` says of the set.
        side: of a patch, in HR pixels.
        names: of the metrics; none = `DEFAULT`, `CORRECTNESS` if patches are large enough, and
            `SEVERAL_BANDS` if there are.
        data_range: R of PSNR and SSIM; None = `DATA_RANGE`.
        weights: a metric's name -> the name or path of its weights.

    Raises:
        UnknownMetricError: a metric that does not exist or does not apply, and why.
    """

    def __init__(
        self,
        about: Mapping[str, Any],
        side: int,
        names: Sequence[str] = (),
        *,
        data_range: float | None = None,
        weights: Mapping[str, str] | None = None,
    ) -> None:
        bands, factor = tuple(about["hr"]["bands"]), int(about["factor"])
        self.kind: Kind = about["kind"]
        self.data_range = data_range or DATA_RANGE[self.kind]
        settings = suites.Settings(
            bands,
            self.kind,
            self.data_range,
            factor,
            weights=weights or {},
            lr_factor=factor,
            gsd=float(about["hr"]["gsd"]),
        )
        asked = [name.lower() for name in names]
        wanted = asked or [*DEFAULT, *CORRECTNESS, *(SEVERAL_BANDS if len(bands) > 1 else ())]
        found = dict(zip(dict.fromkeys(wanted), suites.build(wanted, settings), strict=True))
        small = {name: needed for name, m in found.items() if (needed := _min_size(m)) > side}
        if asked and small:
            name, needed = next(iter(small.items()))
            raise UnknownMetricError(
                f"{name!r}: needs images of at least {needed} px, the patches have {side}: leave "
                "it out with --metrics"
            )
        self.left_out = list(small)
        self.metrics = {name: m for name, m in found.items() if name not in small}

    def describe(self) -> dict[str, dict[str, Any]]:
        """Per metric its unit, direction and settings."""
        return {
            name: {
                "unit": self.kind if metric.unit == INPUT_UNITS else metric.unit,
                "higher_is_better": metric.higher_is_better,
                "settings": metric_settings(metric),
            }
            for name, metric in self.metrics.items()
        }

    def __call__(self, pred: Tensor, ref: Tensor, lr: Tensor) -> dict[str, list[float]]:
        """Scores of images (N, C, H, W) against `ref`, of LR images (N, C, h, w); NaN = none."""
        done: dict[Callable[..., Tensor], Tensor] = {}
        found = {}
        with torch.inference_mode():
            for name, metric in self.metrics.items():
                if metric.sums not in done:  # metrics made from the same sums share the work
                    done[metric.sums] = _sums(metric, pred, ref, lr)
                found[name] = metric.from_sums(done[metric.sums]).double().tolist()
        return found


def _sums(metric: TileMetric, pred: Tensor, ref: Tensor, lr: Tensor) -> Tensor:
    given = {"lr": lr} if getattr(metric, "needs_lr", False) else {}
    first: Callable[..., Tensor] | None = getattr(metric, "known_sums", None)
    if first is not None:
        given["known"] = first(pred, ref)
    return metric.sums(pred, ref, **given)


def _min_size(metric: TileMetric) -> int:
    return int(getattr(metric, "min_size", 2 * metric.halo + 1))
