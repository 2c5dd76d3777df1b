"""Write opensr.json: what opensr-test 1.3.3 gives on images that tests/functional/test_opensr.py
draws again from their seeds.

    pip install --target ENV --no-deps opensr-test==1.3.3 satalign==0.1.17 kornia kornia-rs \
        opencv-python-headless mpltern xarray
    pip install --target ENV pydantic
    PYTHONPATH=ENV python tests/reference_values/make_opensr.py
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

CASES: dict[str, dict[str, Any]] = {
    "x4, four bands": {
        "seed": 0,
        "bands": 4,
        "size": (128, 160),
        "factor": 4,
        "shift": (0.4, -0.7),
    },
    "x2, three bands": {"seed": 1, "bands": 3, "size": (96, 96), "factor": 2, "shift": (0.0, 0.0)},
    "x8, two bands": {"seed": 2, "bands": 2, "size": (192, 128), "factor": 8, "shift": (-2.3, 1.1)},
    "x4, shifted too far": {
        "seed": 3,
        "bands": 3,
        "size": (128, 128),
        "factor": 4,
        "shift": (7.0, 7.0),
    },
}
PACKAGES = ("opensr-test", "satalign", "opencv-python-headless", "scikit-image", "torch", "numpy")


def example(
    *, seed: int, bands: int, size: tuple[int, int], factor: int, shift: tuple[float, float]
) -> dict[str, npt.NDArray[np.float64]]:
    """A truth, its reduction, and a shifted, re-toned super-resolution with invented detail."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((bands, *size))
    scales = [ndimage.gaussian_filter(noise, (0, s, s), mode="wrap") * s for s in (1, 3, 8)]
    hr = 0.15 + 0.03 * sum(scales)
    lr = hr.reshape(bands, size[0] // factor, factor, size[1] // factor, factor).mean(axis=(2, 4))
    lr = lr + 0.002 * rng.standard_normal(lr.shape)
    smooth = ndimage.zoom(lr, (1, factor, factor), order=1, mode="nearest", grid_mode=True)
    invented = ndimage.gaussian_filter(rng.standard_normal(hr.shape), (0, 1, 1), mode="wrap")
    sr = smooth + 0.6 * (hr - smooth) + 0.01 * invented
    sr = ndimage.shift(1.05 * sr + 0.004, (0, *shift), order=3, mode="nearest")
    return {"hr": hr, "lr": lr, "sr": sr}


def main() -> None:
    import opensr_test

    results = {}
    for name, case in CASES.items():
        images = {key: torch.from_numpy(value) for key, value in example(**case).items()}
        found = opensr_test.Metrics().compute(**images)
        results[name] = {"case": case, "opensr_test": found}
    document = {
        "made_by": "tests/reference_values/make_opensr.py, default settings, float64 images",
        "versions": {package: version(package) for package in PACKAGES},
        "results": results,
    }
    path = Path(__file__).with_name("opensr.json")
    path.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
