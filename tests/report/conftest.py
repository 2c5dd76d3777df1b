"""Tables of two methods on five pairs, one of them broken, one shifted, one half empty."""

from __future__ import annotations

import numpy as np
import pytest

from lpips_sat.results import read_results

BANDS = ("B04", "B03", "B02")
SIDE = 64
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="session")
def scored(tmp_path_factory, textured, put, run):
    """The folder with smooth.parquet and noisy.parquet, and the rasters that they name."""
    folder = tmp_path_factory.mktemp("scored")
    rng = np.random.default_rng(0)
    for method in ("smooth", "noisy"):
        (folder / method).mkdir()
        lines = ["id,pred,ref,scene"]
        for i in range(5):
            ref = textured(3, SIDE, SIDE, seed=i)
            pred = ref * (1 - 0.02 * i) if method == "smooth" else ref
            pred = pred + 0.002 * (i + 1) * rng.standard_normal(ref.shape)
            if i == 3 and method == "noisy":
                pred = np.roll(pred, (2, -1), axis=(1, 2))
            dn = np.clip(np.rint(pred * 1e4), 1, None).astype(np.uint16)
            if i == 2:
                dn[:, :24] = 0
            kind = {"bands": BANDS, "scale": 1e-4, "nodata": 0}
            put(folder / method / f"p{i}.tif", dn, **kind)
            put(folder / f"r{i}.tif", np.rint(ref * 1e4).astype(np.uint16), **kind)
            name = HOSTILE if i == 4 else f"image {i}"
            lines.append(f"{name},{method}/p{i}.tif,r{i}.tif,s{i}")
        if method == "noisy":
            (folder / method / "p0.tif").write_bytes(b"no raster")
        manifest = folder / f"{method}.csv"
        manifest.write_text("\n".join(lines))
        run("score", manifest, "--out", folder / f"{method}.parquet")
    return folder


@pytest.fixture(scope="session")
def tables(scored):
    return {name: read_results(scored / f"{name}.parquet") for name in ("smooth", "noisy")}


@pytest.fixture(scope="session")
def page(scored, run):
    """The report of both, as the command writes it."""
    out = scored / "report.html"
    result = run("report", scored / "smooth.parquet", scored / "noisy.parquet", "--html", out)
    assert result.exit_code == 0, result.output
    assert f"report: {out}, 5 images" in result.stderr
    return out
