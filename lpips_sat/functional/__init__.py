"""The metrics as pure functions: (N, C, H, W), (N, C, H, W), *, valid=None -> float64 (N,).

Each file has `<metric>` and the two steps that it is made of, so that a raster too large for
memory is scored with the same maths:

- `<metric>_sums(pred, ref, *, valid, core)` -> float64 (N, K). `valid` says which pixels hold data,
  `core` which positions count in this call. Sums add up over disjoint cores.
- `<metric>_from_sums(sums)` -> float64 (N,).

`data_range` and `ratio` go to the step that needs them.
"""

from .ergas import ergas
from .mae import mae
from .mtf import effective_gsd, mtf, spectral_energy
from .opensr import consistency, correctness, synthesis
from .psnr import psnr
from .rmse import rmse
from .sam import sam
from .ssim import ssim

__all__ = [
    "consistency",
    "correctness",
    "effective_gsd",
    "ergas",
    "mae",
    "mtf",
    "psnr",
    "rmse",
    "sam",
    "spectral_energy",
    "ssim",
    "synthesis",
]
