"""Curves that map the values of a prediction's bands to those of its reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .errors import MetricInputError

Array = npt.NDArray[np.float64]
Fit = Literal["linear", "histogram"]
PERCENTILES = np.linspace(0, 100, 101)


def fit_curve(pred: npt.NDArray[Any], ref: npt.NDArray[Any], how: Fit) -> dict[str, Any]:
    """Fit one band of a prediction (n,) to its reference (n,), pixel by pixel the same places.

    Returns:
        "linear": `gain` and `offset` of the least-squares line; "histogram": `source` and `target`,
        the percentiles 0 to 100 of both, between which values are interpolated.

    Raises:
        MetricInputError: fewer than two pixels, or a line that does not rise.
    """
    if len(pred) < 2:
        raise MetricInputError("too few valid pixels to harmonize: leave out --harmonize")
    x, y = pred.astype(np.float64), ref.astype(np.float64)
    return _line(x, y) if how == "linear" else _percentiles(x, y)


def apply_curve(curve: Mapping[str, Any], values: npt.NDArray[Any]) -> Array:
    """Map values of any shape; a histogram's ends hold beyond them."""
    if "gain" in curve:
        return curve["gain"] * values.astype(np.float64) + curve["offset"]
    return np.interp(values, curve["source"], curve["target"])


def _line(pred: Array, ref: Array) -> dict[str, Any]:
    spread = float(np.var(pred))
    gain = float(np.mean((pred - pred.mean()) * (ref - ref.mean()))) / spread if spread else 1.0
    if gain <= 0:
        raise MetricInputError(
            f"the prediction does not rise with the reference (gain {gain:.3g}): no line "
            "harmonizes it; leave out --harmonize"
        )
    return {"gain": gain, "offset": float(ref.mean() - gain * pred.mean())}


def _percentiles(pred: Array, ref: Array) -> dict[str, Any]:
    """Equal percentiles of `pred` share their mean target."""
    source, index = np.unique(np.percentile(pred, PERCENTILES), return_inverse=True)
    target = np.bincount(index, np.percentile(ref, PERCENTILES)) / np.bincount(index)
    return {"source": source.tolist(), "target": target.tolist()}
