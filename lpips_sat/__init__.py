"""LPIPS-Sat: a perceptual distance for satellite images, beside the classic metrics.

>>> from lpips_sat import LPIPSSat  # doctest: +SKIP
>>> metric = LPIPSSat(bands=("B04", "B03", "B02"))  # doctest: +SKIP
>>> metric(pred, ref, valid)  # reflectance (N, 3, H, W) -> (N,)  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from .errors import LpipsSatError

if TYPE_CHECKING:
    from . import functional
    from .lpips import LPIPSSat
    from .metrics import (
        CPSNR,
        CSSIM,
        ERGAS,
        MAE,
        MSSSIM,
        PSNR,
        RMSE,
        SAM,
        SCC,
        SSIM,
        UIQI,
        Bias,
        Q2n,
    )
    from .radiometry import Radiometry
    from .raster import open_pair
    from .scoring import score_pair
    from .suites import suite

try:
    __version__ = version("lpips-sat")
except PackageNotFoundError:  # run from a bare checkout
    __version__ = "0+unknown"

# Imported on first use, so that `import lpips_sat` does not wait for torch.
_HOME = {
    "LPIPSSat": "lpips",
    "Radiometry": "radiometry",
    "open_pair": "raster",
    "score_pair": "scoring",
    "suite": "suites",
    **dict.fromkeys(
        (
            *("CPSNR", "CSSIM", "ERGAS", "MAE", "MSSSIM", "PSNR", "RMSE", "SAM", "SCC", "SSIM"),
            *("UIQI", "Bias", "Q2n"),
        ),
        "metrics",
    ),
}

__all__ = [
    "CPSNR",
    "CSSIM",
    "ERGAS",
    "MAE",
    "MSSSIM",
    "PSNR",
    "RMSE",
    "SAM",
    "SCC",
    "SSIM",
    "UIQI",
    "Bias",
    "LPIPSSat",
    "LpipsSatError",
    "Q2n",
    "Radiometry",
    "__version__",
    "functional",
    "open_pair",
    "score_pair",
    "suite",
]


def __getattr__(name: str) -> Any:
    if name == "functional":
        return import_module(".functional", __name__)
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
