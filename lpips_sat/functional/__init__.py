"""The metrics as pure functions: (N, C, H, W), (N, C, H, W), *, valid=None -> float64 (N,).

Each file has `<metric>` and the two steps that it is made of, so that a raster too large for
memory is scored with the same maths:

- `<metric>_sums(pred, ref, *, valid, core)` -> float64 (N, K). `valid` says which pixels hold data,
  `core` which positions count in this call. Sums add up over disjoint cores.
- `<metric>_from_sums(sums)` -> float64 (N,).

`data_range`, `ratio` and `max_shift` go to the steps that need them. `<metric>_per_band` gives
(N, C) for metrics that are defined band by band. `opensr` compares whole images, and has no sums.
"""

from .bias import bias, bias_per_band
from .cpsnr import cpsnr
from .cssim import cssim
from .ergas import ergas
from .mae import mae, mae_per_band
from .ms_ssim import ms_ssim
from .mtf import effective_gsd, mtf, spectral_energy
from .opensr import consistency, correctness, synthesis
from .psnr import psnr, psnr_per_band
from .q2n import q2n
from .rmse import rmse, rmse_per_band
from .sam import sam
from .scc import scc
from .ssim import ssim
from .uiqi import uiqi

__all__ = [
    "bias",
    "bias_per_band",
    "consistency",
    "correctness",
    "cpsnr",
    "cssim",
    "effective_gsd",
    "ergas",
    "mae",
    "mae_per_band",
    "ms_ssim",
    "mtf",
    "psnr",
    "psnr_per_band",
    "q2n",
    "rmse",
    "rmse_per_band",
    "sam",
    "scc",
    "spectral_energy",
    "ssim",
    "synthesis",
    "uiqi",
]
