"""The metrics as `torchmetrics.Metric` classes: `functional/` plus the mean over images.

`sums` and `from_sums` are the contract that tile-by-tile scoring relies on: with `halo` pixels
around each tile, where the image goes on, the sums of disjoint cores add up to those of the whole.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from . import perceptual, tiled
from .backbones.imagenet import Net
from .errors import MetricInputError
from .functional._inputs import check_min_size
from .functional.cpsnr import MAX_SHIFT
from .opensr import SCORES, all_scores
from .outputs import StrPath
from .perceptual import NetworkMetric
from .radiometry import Kind
from .validity import ratio_or_nan


class ImageMetric(Metric):
    """Base of the metrics that score one image at a time: the mean over images.

    Made from a `tiled.Tiled`, whose fields it shows.
    States, in float64 and summed over processes: `total` (of the scores), `count` (images scored)
    and `undefined` (images without a score, for example without a valid pixel; they are left out
    of the mean).
    """

    is_differentiable = True
    full_state_update = False

    total: Tensor
    count: Tensor
    undefined: Tensor

    def __init__(self, metric: tiled.Tiled | NetworkMetric, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.metric = metric  # a network becomes a submodule, and moves with this one
        self.name, self.unit, self.halo = metric.name, metric.unit, metric.halo
        self.min_size, self.align = metric.min_size, metric.align
        self.sums, self.from_sums = metric.sums, metric.from_sums
        for part in ("settings", "known_sums", "per_band"):
            setattr(self, part, getattr(metric, part, None))
        for state in ("total", "count", "undefined"):
            zero = torch.zeros((), dtype=torch.float64)
            self.add_state(state, default=zero, dist_reduce_fx="sum")
        # MetricCollection merges metrics whose states are equal after one batch, as those of two
        # metrics are that both score 0: a state that tells them apart prevents it.
        told = zlib.crc32(repr((metric.name, dict(metric.settings))).encode())
        mark = torch.tensor(float(told), dtype=torch.float64)
        self.add_state("mark", default=mark, dist_reduce_fx="max")

    def update(self, pred: Tensor, ref: Tensor, valid: Tensor | None = None) -> None:
        """Add the score of each image of two batches (N, C, H, W)."""
        sums = self.sums(pred, ref, valid=valid)
        check_min_size(pred, self.min_size, self.name)
        _check_finite(sums)
        scores = self.from_sums(sums)
        undefined = torch.isnan(scores)
        self.total = self.total + scores.nansum()
        self.count = self.count + (~undefined).sum()
        self.undefined = self.undefined + undefined.sum()

    def compute(self) -> Tensor:
        """Return the mean score over all images that have one; NaN if there is none."""
        return ratio_or_nan(self.total, self.count)


class MAE(ImageMetric):
    """Mean absolute error in the units of the input, see `functional.mae`."""

    higher_is_better = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(tiled.mae(), **kwargs)


class RMSE(ImageMetric):
    """Root mean squared error in the units of the input, see `functional.rmse`."""

    higher_is_better = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(tiled.rmse(), **kwargs)


class Bias(ImageMetric):
    """Mean signed error in the units of the input, best at 0, see `functional.bias`."""

    higher_is_better = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(tiled.bias(), **kwargs)


class PSNR(ImageMetric):
    """Peak signal-to-noise ratio in dB, see `functional.psnr`.

    An image that equals its reference scores +inf, and so does then the mean.
    """

    higher_is_better = True

    def __init__(self, *, data_range: float, **kwargs: Any) -> None:
        super().__init__(tiled.psnr(data_range=data_range), **kwargs)


class SSIM(ImageMetric):
    """Structural similarity, see `functional.ssim`."""

    higher_is_better = True

    def __init__(self, *, data_range: float, **kwargs: Any) -> None:
        super().__init__(tiled.ssim(data_range=data_range), **kwargs)


class MSSSIM(ImageMetric):
    """Multi-scale structural similarity, see `functional.ms_ssim`."""

    higher_is_better = True

    def __init__(self, *, data_range: float, **kwargs: Any) -> None:
        super().__init__(tiled.ms_ssim(data_range=data_range), **kwargs)


class CPSNR(ImageMetric):
    """PSNR in dB that forgives a shift and an offset, see `functional.cpsnr`."""

    higher_is_better = True

    def __init__(self, *, data_range: float, max_shift: int = MAX_SHIFT, **kwargs: Any) -> None:
        super().__init__(tiled.cpsnr(data_range=data_range, max_shift=max_shift), **kwargs)


class CSSIM(ImageMetric):
    """SSIM that forgives a shift and an offset, see `functional.cssim`."""

    higher_is_better = True

    def __init__(self, *, data_range: float, max_shift: int = MAX_SHIFT, **kwargs: Any) -> None:
        super().__init__(tiled.cssim(data_range=data_range, max_shift=max_shift), **kwargs)


class UIQI(ImageMetric):
    """Universal image quality index, see `functional.uiqi`."""

    higher_is_better = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(tiled.uiqi(), **kwargs)


class Q2n(ImageMetric):
    """Hypercomplex quality index of all bands, see `functional.q2n`."""

    higher_is_better = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(tiled.q2n(), **kwargs)


class SCC(ImageMetric):
    """Correlation of fine detail, see `functional.scc`."""

    higher_is_better = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(tiled.scc(), **kwargs)


class SAM(ImageMetric):
    """Spectral angle in degrees, see `functional.sam`."""

    higher_is_better = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(tiled.sam(), **kwargs)


class ERGAS(ImageMetric):
    """Wald's relative dimensionless global error, see `functional.ergas`."""

    higher_is_better = False

    def __init__(self, *, ratio: float, **kwargs: Any) -> None:
        super().__init__(tiled.ergas(ratio=ratio), **kwargs)


class MTF(ImageMetric):
    """Frequency up to which an image resolves, in cycles/px, see `functional.mtf`."""

    higher_is_better = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(tiled.mtf(), **kwargs)


class LPIPS(ImageMetric):
    """Learned perceptual image patch similarity, see `perceptual.LPIPS` for the arguments."""

    higher_is_better = False

    def __init__(
        self,
        net: Net = "alex",
        *,
        weights: StrPath | None = None,
        radiometry: Kind = "reflectance",
        bands: Sequence[str] = ("B04", "B03", "B02"),
        composite: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        network = perceptual.LPIPS(
            net, weights=weights, radiometry=radiometry, bands=bands, composite=composite
        )
        super().__init__(network, **kwargs)


class DISTS(ImageMetric):
    """Deep image structure and texture similarity, see `perceptual.DISTS` for the arguments."""

    higher_is_better = False

    def __init__(
        self,
        *,
        weights: StrPath | None = None,
        radiometry: Kind = "reflectance",
        bands: Sequence[str] = ("B04", "B03", "B02"),
        composite: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        network = perceptual.DISTS(
            weights=weights, radiometry=radiometry, bands=bands, composite=composite
        )
        super().__init__(network, **kwargs)


class OpenSR(Metric):
    """opensr-test's scores as a `torchmetrics.Metric`: the mean over images of each.

    Each image is scored whole, as opensr-test does; see `functional.opensr`. States, in float64
    and summed over processes: `total` and `count`, one for each of `opensr.SCORES`. An image
    without a score, such as one shifted by more than 5 px in `spatial`, is left out of that mean.
    """

    is_differentiable = False
    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for state in ("total", "count"):
            zero = torch.zeros(len(SCORES), dtype=torch.float64)
            self.add_state(state, default=zero, dist_reduce_fx="sum")

    def update(self, pred: Tensor, ref: Tensor, lr: Tensor, valid: Tensor | None = None) -> None:
        """Add the scores of two batches (N, C, H, W) with their inputs (N, C, H / f, W / f)."""
        scores = all_scores(pred, ref, lr, valid).to(self.total.device)
        self.total = self.total + scores.nansum(dim=0)
        self.count = self.count + (~scores.isnan()).sum(dim=0)

    def compute(self) -> dict[str, Tensor]:
        """The mean of each score by its name; NaN where no image has one."""
        means = ratio_or_nan(self.total, self.count)
        return dict(zip(SCORES, means, strict=True))


def _check_finite(sums: Tensor) -> None:
    """Raise if NaN or inf reached the sums: without a score must not mean without a warning."""
    broken = (~torch.isfinite(sums)).any(dim=1).nonzero().flatten().tolist()
    if broken:
        raise MetricInputError(
            f"Valid pixels must be finite, but NaN, infinite or overflowing values came with "
            f"image(s) {broken} of the batch. Mark such pixels as False in `valid`."
        )
