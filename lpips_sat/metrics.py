"""The metrics as `torchmetrics.Metric` classes: `functional/` plus the mean over images.

`sums` and `from_sums` are the contract that tile-by-tile scoring relies on: with `halo` pixels
around each tile, where the image goes on, the sums of disjoint cores add up to those of the whole.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from .errors import MetricInputError
from .functional._inputs import check_data_range, check_min_size
from .functional.ergas import check_ratio, ergas_from_sums, ergas_sums
from .functional.mae import mae_from_sums, mae_sums
from .functional.psnr import psnr_from_sums, psnr_sums
from .functional.rmse import rmse_from_sums, rmse_sums
from .functional.sam import sam_from_sums, sam_sums
from .functional.ssim import HALO, ssim_from_sums, ssim_sums
from .validity import ratio_or_nan


class ImageMetric(Metric):
    """Base of the metrics that score one image at a time: defines the mean over images.

    A subclass says `name`, `unit` (empty = none), `halo` (pixels that a tile needs around its
    core) and the two steps `sums` and `from_sums`. States, in float64 and summed over processes:
    `total` (of the scores), `count` (images scored) and `undefined` (images without a score, for
    example without a valid pixel; they are left out of the mean).
    """

    name: str
    unit: str
    halo: int = 0
    is_differentiable = True
    full_state_update = False

    total: Tensor
    count: Tensor
    undefined: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for state in ("total", "count", "undefined"):
            zero = torch.zeros((), dtype=torch.float64)
            self.add_state(state, default=zero, dist_reduce_fx="sum")

    def sums(
        self, pred: Tensor, ref: Tensor, valid: Tensor | None = None, core: Tensor | None = None
    ) -> Tensor:
        """Return float64 (N, K) that add up over disjoint `core` regions (N, 1, H, W)."""
        raise NotImplementedError(f"{type(self).__name__} must define `sums`.")

    def from_sums(self, sums: Tensor) -> Tensor:
        """Return the scores float64 (N,) of `sums` (N, K); NaN where there is none."""
        raise NotImplementedError(f"{type(self).__name__} must define `from_sums`.")

    def update(self, pred: Tensor, ref: Tensor, valid: Tensor | None = None) -> None:
        """Add the score of each image of two batches (N, C, H, W)."""
        sums = self.sums(pred, ref, valid)
        check_min_size(pred, 2 * self.halo + 1, self.name)
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

    name = "MAE"
    unit = "input units"
    higher_is_better = False

    def sums(
        self, pred: Tensor, ref: Tensor, valid: Tensor | None = None, core: Tensor | None = None
    ) -> Tensor:
        """See `functional.mae.mae_sums`."""
        return mae_sums(pred, ref, valid=valid, core=core)

    def from_sums(self, sums: Tensor) -> Tensor:
        """See `functional.mae.mae_from_sums`."""
        return mae_from_sums(sums)


class RMSE(ImageMetric):
    """Root mean squared error in the units of the input, see `functional.rmse`."""

    name = "RMSE"
    unit = "input units"
    higher_is_better = False

    def sums(
        self, pred: Tensor, ref: Tensor, valid: Tensor | None = None, core: Tensor | None = None
    ) -> Tensor:
        """See `functional.rmse.rmse_sums`."""
        return rmse_sums(pred, ref, valid=valid, core=core)

    def from_sums(self, sums: Tensor) -> Tensor:
        """See `functional.rmse.rmse_from_sums`."""
        return rmse_from_sums(sums)


class PSNR(ImageMetric):
    """Peak signal-to-noise ratio in dB, see `functional.psnr`.

    An image that equals its reference scores +inf, and so does then the mean.
    """

    name = "PSNR"
    unit = "dB"
    higher_is_better = True

    def __init__(self, *, data_range: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_range = check_data_range(data_range)

    def sums(
        self, pred: Tensor, ref: Tensor, valid: Tensor | None = None, core: Tensor | None = None
    ) -> Tensor:
        """See `functional.psnr.psnr_sums`."""
        return psnr_sums(pred, ref, valid=valid, core=core)

    def from_sums(self, sums: Tensor) -> Tensor:
        """See `functional.psnr.psnr_from_sums`."""
        return psnr_from_sums(sums, data_range=self.data_range)


class SSIM(ImageMetric):
    """Structural similarity, see `functional.ssim`."""

    name = "SSIM"
    unit = ""
    halo = HALO
    higher_is_better = True

    def __init__(self, *, data_range: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_range = check_data_range(data_range)

    def sums(
        self, pred: Tensor, ref: Tensor, valid: Tensor | None = None, core: Tensor | None = None
    ) -> Tensor:
        """See `functional.ssim.ssim_sums`."""
        return ssim_sums(pred, ref, data_range=self.data_range, valid=valid, core=core)

    def from_sums(self, sums: Tensor) -> Tensor:
        """See `functional.ssim.ssim_from_sums`."""
        return ssim_from_sums(sums)


class SAM(ImageMetric):
    """Spectral angle in degrees, see `functional.sam`."""

    name = "SAM"
    unit = "degrees"
    higher_is_better = False

    def sums(
        self, pred: Tensor, ref: Tensor, valid: Tensor | None = None, core: Tensor | None = None
    ) -> Tensor:
        """See `functional.sam.sam_sums`."""
        return sam_sums(pred, ref, valid=valid, core=core)

    def from_sums(self, sums: Tensor) -> Tensor:
        """See `functional.sam.sam_from_sums`."""
        return sam_from_sums(sums)


class ERGAS(ImageMetric):
    """Wald's relative dimensionless global error, see `functional.ergas`."""

    name = "ERGAS"
    unit = ""
    higher_is_better = False

    def __init__(self, *, ratio: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ratio = check_ratio(ratio)

    def sums(
        self, pred: Tensor, ref: Tensor, valid: Tensor | None = None, core: Tensor | None = None
    ) -> Tensor:
        """See `functional.ergas.ergas_sums`."""
        return ergas_sums(pred, ref, valid=valid, core=core)

    def from_sums(self, sums: Tensor) -> Tensor:
        """See `functional.ergas.ergas_from_sums`."""
        return ergas_from_sums(sums, ratio=self.ratio)


def _check_finite(sums: Tensor) -> None:
    """Raise if NaN or inf reached the sums: without a score must not mean without a warning."""
    broken = (~torch.isfinite(sums)).any(dim=1).nonzero().flatten().tolist()
    if broken:
        raise MetricInputError(
            f"Valid pixels must be finite, but NaN, infinite or overflowing values came with "
            f"image(s) {broken} of the batch. Mark such pixels as False in `valid`."
        )
