"""What several test modules share: textured images, rasters, a release of judgements, the CLI."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import rasterio
from affine import Affine
from click.testing import Result
from rasterio.errors import NotGeoreferencedWarning
from scipy.ndimage import gaussian_filter

from lpips_sat.cli import main
from lpips_sat.cli.mindgap import main as mindgap_main
from tests.cli_runner import cli_runner

Array = npt.NDArray[Any]


@pytest.fixture(scope="session")
def textured() -> Callable[..., Array]:
    """Make images (bands, height, width) in about low..high with detail at all scales."""

    def make(
        bands: int, height: int, width: int, *, seed: int = 0, low: float = 0.03, high: float = 0.3
    ) -> Array:
        rng = np.random.default_rng(seed)
        y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
        fall = 1 / (np.hypot(y, x) + 1 / 64)  # the spectrum of natural images, about 1/f
        noise = rng.standard_normal((bands + 1, height, width))
        layers = np.fft.irfft2(np.fft.rfft2(noise) * fall, s=(height, width))
        layers -= layers.mean(axis=(1, 2), keepdims=True)
        layers /= layers.std(axis=(1, 2), keepdims=True)
        image = 2 * layers[0] + layers[1:]  # what the bands share, and what they do not
        return low + (high - low) / (1 + np.exp(-image / 2))

    return make


@pytest.fixture(scope="session")
def put() -> Callable[..., Path]:
    """Write an array (bands, height, width) as a raster with rasterio alone; return its path."""

    def write(
        path: Path,
        array: Array,
        *,
        bands: tuple[str, ...] | None = None,
        scale: float | None = None,
        offset: float | None = None,
        nodata: float | None = None,
        crs: str | None = "EPSG:32618",
        origin: tuple[float, float] = (435_000.0, 4_180_000.0),
        pixel: float = 10.0,
        driver: str = "GTiff",
    ) -> Path:
        count, height, width = array.shape
        profile: dict[str, Any] = {"driver": driver, "nodata": nodata, "dtype": array.dtype.name}
        if driver == "GTiff":
            profile |= {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
            profile |= {"photometric": "MINISBLACK"}
        if crs is not None:
            profile |= {"crs": crs, "transform": Affine(pixel, 0, origin[0], 0, -pixel, origin[1])}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(
                path, "w", count=count, height=height, width=width, **profile
            ) as dst:
                if bands is not None:
                    dst.descriptions = bands
                if scale is not None:
                    dst.scales = (scale,) * count
                if offset is not None:
                    dst.offsets = (offset,) * count
                dst.write(array)
        return path

    return write


@pytest.fixture(scope="session")
def run() -> Callable[..., Result]:
    """Run `lpips-sat ARGS` in this process; stdout and stderr stay apart."""

    def call(*args: object) -> Result:
        return cli_runner().invoke(main, [str(arg) for arg in args], prog_name="lpips-sat")

    return call


@pytest.fixture(scope="session")
def mindgap() -> Callable[..., Result]:
    """Run `mindgap ARGS` in this process."""

    def call(*args: object) -> Result:
        return cli_runner().invoke(mindgap_main, [str(a) for a in args], prog_name="mindgap")

    return call


@pytest.fixture(scope="session")
def release(textured: Callable[..., Array]) -> Callable[..., Path]:
    """Make a small release of judgements whose raters mind blur more than noise."""

    def make(folder: Path, *, trials: int = 60, side: int = 32, seed: int = 0) -> Path:
        folder.mkdir(parents=True)
        rng = np.random.default_rng(seed)
        images: dict[str, list[Array]] = {"ref": [], "a": [], "b": []}
        rows, votes = [], []
        for i in range(trials):
            ref = textured(3, side, side, seed=1000 + i // 2, low=0.1, high=0.9)
            kinds = ["blur", "noise"] if rng.integers(2) else ["noise", "blur"]
            severity, cost = rng.uniform(0.2, 1, 2), []
            images["ref"].append(ref)
            for name, kind, s in zip(("a", "b"), kinds, severity, strict=True):
                grain = 0.12 * s * rng.standard_normal(ref.shape)
                blurred = gaussian_filter(ref, (0, 2 * s, 2 * s))
                images[name].append(blurred if kind == "blur" else ref + grain)
                cost.append((2 if kind == "blur" else 1) * s)
            source, image = ("alpha", "beta", "gamma")[i // 2 % 3], f"image_{i // 4}.png"
            rows.append((i, source, f"{image}:{i}:0", kinds[0], severity[0], kinds[1], severity[1]))
            for rater in range(1 + i % 2):
                choice = "AB"[int(cost[1] < cost[0]) ^ int(rng.uniform() < 0.05)]
                votes.append((i, f"r{rater}", choice, int(rng.integers(1, 4))))
        columns = [
            "id",
            "source",
            "crop",
            "distortion_a",
            "severity_a",
            "distortion_b",
            "severity_b",
        ]
        pd.DataFrame(rows, columns=columns).to_csv(folder / "trials.csv", index=False)
        pd.DataFrame(votes, columns=["id", "rater", "choice", "confidence"]).to_csv(
            folder / "votes.csv", index=False
        )
        stacked = {
            name: np.rint(np.clip(np.stack(items), 0, 1).transpose(0, 2, 3, 1) * 255)
            for name, items in images.items()
        }
        np.savez(folder / "images.npz", **{k: v.astype(np.uint8) for k, v in stacked.items()})
        return folder

    return make


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """An installed Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip(f"no Chromium on the PATH ({', '.join(names)})")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium asks it of root
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=path, args=sandbox)
        yield found
        found.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a file; whatever the console says or the page asks for ends the test."""
    heard: list[str] = []
    tabs = []

    def call(page: Path, **options: Any) -> Any:
        tab = browser.new_page(**options)
        tab.set_default_timeout(120_000)
        tabs.append(tab)

        def asked(request: Any) -> None:
            if not request.url.startswith(("data:", page.as_uri())):
                heard.append(request.url)

        tab.on("console", lambda message: heard.append(message.text))
        tab.on("pageerror", lambda error: heard.append(str(error)))
        tab.on("request", asked)
        tab.goto(page.as_uri())
        return tab

    yield call
    for tab in tabs:
        tab.close()
    assert heard == []
