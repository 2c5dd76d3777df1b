"""What the commands say when something is wrong: real files, real commands, one fault each.

    python benchmarks/faults.py    # writes results/faults.json; under a minute on an idle core

Fails if a fault is not refused with exit code 1 or 2 and one line of its own, or if anything was
written.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import rasterio
from affine import Affine
from click.testing import CliRunner

from lpips_sat import __version__
from lpips_sat.cli import main as lpips_sat
from lpips_sat.cli.mindgap import main as mindgap

RESULT = Path(__file__).parent / "results" / "faults.json"
SIDE = 96


def raster(
    path: Path, values: np.ndarray | None = None, *, corner: tuple[float, float] = (5e5, 5e6),
    pixel: float = 10.0, crs: str | None = "EPSG:32618", scale: float | None = 1e-4,
    bands: tuple[str, ...] = ("B04", "B03", "B02"), side: int = SIDE, nodata: float | None = 0,
) -> Path:  # fmt: skip
    """A small GeoTIFF of texture, as the arguments say."""
    if values is None:
        rng = np.random.default_rng(0)
        values = rng.integers(500, 3000, (len(bands), side, side)).astype(np.uint16)
    transform = Affine.translation(*corner) * Affine.scale(pixel, -pixel)
    count, height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype,
        crs=crs, transform=transform, nodata=nodata,
    ) as file:  # fmt: skip
        file.write(values)
        file.descriptions = bands[:count]
        if scale is not None:
            file.scales = (scale,) * count
    return path


COMMANDS: dict[str, click.Command] = {"lpips-sat": lpips_sat, "mindgap": mindgap}
Make = Callable[[Path], list[str]]


def score_faults() -> dict[str, Make]:
    """Faults of `lpips-sat score`: a folder that holds ref.tif -> the arguments."""

    def pair(make: Callable[[Path], object], *options: str) -> Make:
        def arguments(folder: Path) -> list[str]:
            make(folder / "pred.tif")
            return ["score", str(folder / "pred.tif"), str(folder / "ref.tif"), *options]

        return arguments

    def truncated(path: Path) -> None:
        path.write_bytes(raster(path).read_bytes()[:4000])

    def existing(path: Path) -> None:
        raster(path)
        path.with_name("map.tif").write_bytes(b"mine")

    empty = np.zeros((3, SIDE, SIDE), np.uint16)
    raw = np.random.default_rng(0).uniform(500, 3000, (3, SIDE, SIDE)).astype(np.float32)
    return {
        "the file is missing": pair(lambda p: None),
        "the file is no raster": pair(lambda p: p.write_text("hello")),
        "the file is cut off": pair(truncated),
        "another size": pair(lambda p: raster(p, side=64)),
        "another CRS": pair(lambda p: raster(p, crs="EPSG:32619")),
        "half a pixel beside the grid": pair(lambda p: raster(p, corner=(500005, 5e6))),
        "no overlap": pair(lambda p: raster(p, corner=(6e5, 5e6))),
        "no band in common": pair(lambda p: raster(p, bands=("B11", "B12", "B8A"))),
        "a band that no file has": pair(raster, "--bands", "B04,B99"),
        "integers without a scale": pair(lambda p: raster(p, scale=None)),
        "a preset that contradicts the file": pair(raster, "--radiometry", "s2-l2a"),
        "DN in a float file, said to be reflectance": pair(lambda p: raster(p, raw, scale=None)),
        "nothing but nodata": pair(lambda p: raster(p, empty)),
        "the map exists": pair(existing, "--map", "map.tif"),
        "a metric that does not exist": pair(raster, "--metrics", "psnr,beauty"),
        "opensr without the low-resolution image": pair(raster, "--suite", "opensr"),
    }


def other_faults() -> dict[str, Make]:
    """Faults of the other commands."""

    def tiny(folder: Path) -> list[str]:
        for name in ("pred", "ref"):
            raster(folder / f"{name}.tif", side=10)
        return ["score", str(folder / "pred.tif"), str(folder / "ref.tif")]

    def unmatched(folder: Path) -> list[str]:
        for name in ("pred", "ref"):
            (folder / name).mkdir()
        raster(folder / "pred" / "a.tif")
        raster(folder / "ref" / "b.tif")
        return ["score", str(folder / "pred"), str(folder / "ref"), "--out", str(folder / "t.csv")]

    def manifest(folder: Path) -> list[str]:
        (folder / "pairs.csv").write_text("prediction,ref\na.tif,ref.tif\n")
        return ["score", str(folder / "pairs.csv"), "--out", str(folder / "t.parquet")]

    def damaged(folder: Path) -> list[str]:
        tables = [folder / f"{name}.parquet" for name in ("a", "b")]
        for table in tables:
            table.write_bytes(b"PAR1nothing")
        return ["compare", *map(str, tables)]

    return {
        "images of 10 px": tiny,
        "folders whose names do not match": unmatched,
        "a manifest without its columns": manifest,
        "a damaged table": damaged,
    }


def gap_faults() -> dict[str, Make]:
    """Faults of `mindgap`."""

    def build(low: Path, high: Path) -> list[str]:
        out = str(low.parent / "pairs")
        return ["data", "build", "--lr", str(low), "--hr", str(high), "--out", out]

    def swapped(folder: Path) -> list[str]:
        low = raster(folder / "low.tif", pixel=20.0, side=160)
        return build(raster(folder / "high.tif", side=320), low)

    def no_crs(folder: Path) -> list[str]:
        low = raster(folder / "low.tif", pixel=20.0, crs=None, side=160)
        return build(low, raster(folder / "high.tif", side=320))

    def apart(folder: Path) -> list[str]:
        low = raster(folder / "low.tif", pixel=20.0, corner=(6e5, 5e6), side=160)
        return build(low, raster(folder / "high.tif", side=320))

    def cloudy(folder: Path) -> list[str]:
        low = raster(folder / "low.tif", pixel=20.0, side=160)
        clouds = np.zeros((1, 320, 320), np.uint8)
        mask = raster(folder / "mask.tif", clouds, scale=None, nodata=None)
        return [*build(low, raster(folder / "high.tif", side=320)), "--mask", str(mask)]

    def sr(*words: str) -> Make:
        return lambda folder: ["sr", str(folder / "ref.tif"), str(folder / "sr.tif"), *words]

    return {
        "LR and HR swapped": swapped,
        "no CRS": no_crs,
        "rasters without overlap": apart,
        "clouds everywhere": cloudy,
        "a model that does not exist": sr("--model", "magic"),
        "a model of other bands": sr("--model", "s2-b8-sr3-real"),
        "no set of pairs": lambda folder: ["data", "check", str(folder)],
    }


def try_it(program: str, make: Make) -> dict[str, object]:
    """Run one fault in a folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raster(folder / "ref.tif")
        arguments = make(folder)
        if "map.tif" in arguments:
            arguments[arguments.index("map.tif")] = str(folder / "map.tif")
        before = contents(folder)
        command = COMMANDS[program]
        found = CliRunner().invoke(command, arguments, prog_name=program)
        said = found.stderr.replace(f"{folder}/", "").replace(str(folder), "FOLDER").strip()
        words = [word.replace(f"{folder}/", "").replace(name, "FOLDER") for word in arguments]
        return {
            "command": " ".join(words),
            "exit_code": found.exit_code,
            "said": said,
            "written": sorted(contents(folder).items() - before.items()),
        }


def contents(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hash(path.read_bytes()) for path in files}


def main() -> None:
    groups = {"lpips-sat": {**score_faults(), **other_faults()}, "mindgap": gap_faults()}
    found = {
        program: {fault: try_it(program, make) for fault, make in faults.items()}
        for program, faults in groups.items()
    }
    wrong = [
        f"{fault}: {row}"
        for rows in found.values()
        for fault, row in rows.items()
        if row["exit_code"] not in (1, 2) or row["written"] or "unexpected" in str(row["said"])
    ]
    if wrong:
        raise SystemExit("\n".join(["not refused as it should be:", *wrong]))
    for rows in found.values():
        for row in rows.values():
            del row["written"]
    RESULT.write_text(json.dumps({"version": __version__, "faults": found}, indent=2) + "\n")
    print(f"{sum(map(len, found.values()))} faults refused: {RESULT}")


if __name__ == "__main__":
    main()
