"""Damaged rasters and absurd options: an answer or one clear error, soon, and no half a file.

Each mutant is scored by the command in this process. Every run takes a few of each kind; all 500,
in five parts: pytest -m slow tests/test_fuzz.py
"""

from __future__ import annotations

import random
import signal
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

BANDS = ("B04", "B03", "B02")
MUTANTS = 500
FAST = range(0, MUTANTS, 13)  # 13 and the number of kinds of mutation have no common divisor
PARTS = 5  # nor have this and that
# What a mutant may take: CPU time, and wall time if it only waits; on a busy machine the second may
# be twenty times the first. The pair itself takes a tenth of a second, the largest mutant ten.
CPU_SECONDS, WALL_SECONDS = 60, 900
SPECIAL = (float("nan"), float("inf"), float("-inf"), 1e38, -1e38, 1e-45, 0.0)
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64", "int64")


@pytest.fixture(scope="module")
def whole(textured):
    """DN (3, 48, 56) of a reference."""
    return np.clip(np.rint(textured(3, 48, 56, seed=7) * 1e4), 1, None).astype(np.uint16)


def write(path, array, **profile):
    given = {
        "driver": "GTiff",
        "crs": "EPSG:32618",
        "transform": Affine(10, 0, 4e5, 0, -10, 4e6),
        "photometric": "MINISBLACK",
        **profile,
    }
    count, height, width = array.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(
            path, "w", count=count, height=height, width=width, dtype=array.dtype.name, **given
        ) as dst:
            dst.write(array)
            dst.descriptions = BANDS[:count] + (None,) * (count - 3)
            dst.scales = (1e-4,) * count


# --- mutations: (random state, path of a good raster, its DN); they leave something at the path


def truncated(rng, path, dn):
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def flipped_bytes(rng, path, dn):
    data = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 60)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    path.write_bytes(data)


def wrong_header(rng, path, dn):
    data = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 12)):
        data[rng.randrange(min(64, len(data)))] = rng.randrange(256)
    path.write_bytes(data)


def absurd_tags(rng, path, dn):
    """Change whole entries of the directory: sizes, counts, offsets, types."""
    data = bytearray(path.read_bytes())
    start = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, start)[0]
    for _ in range(rng.randint(1, 3)):
        entry = start + 2 + 12 * rng.randrange(count)
        field, size = rng.choice([(0, "H"), (2, "H"), (4, "I"), (8, "I")])
        top = 2 ** (16 if size == "H" else 32) - 1
        value = rng.choice([0, 1, 2, 7, 255, 65535, top // 2, top, rng.randint(0, top)])
        struct.pack_into(f"<{size}", data, entry + field, min(value, top))
    path.write_bytes(data)


def huge(rng, path, dn):
    """Declare an enormous image: width and height tags of up to 2^31."""
    data = bytearray(path.read_bytes())
    start = struct.unpack_from("<I", data, 4)[0]
    for index in (0, 1)[: rng.randint(1, 2)]:
        entry = start + 2 + 12 * index
        struct.pack_into("<HII", data, entry + 2, 4, 1, rng.choice([10**5, 10**7, 2**31 - 1]))
    path.write_bytes(data)


def sparse(rng, path, dn):
    """A valid, large image without any data."""
    path.unlink()
    side = rng.choice([600, 1500])
    with rasterio.open(
        path, "w", driver="GTiff", count=3, dtype="uint8", height=side, width=side, tiled=True,
        SPARSE_OK=True, crs="EPSG:32618", transform=Affine(10, 0, 4e5, 0, -10, 4e6), BIGTIFF="YES",
    ) as dst:  # fmt: skip
        dst.descriptions = BANDS
        dst.scales = (0.004,) * 3


def nan_storm(rng, path, dn):
    values = dn * np.float32(1e-4)
    share = rng.choice([0.01, 0.5, 0.99, 1.0])
    where = np.random.default_rng(rng.randrange(2**32)).random(values.shape) < share
    values[where] = rng.choice(SPECIAL)
    with rasterio.open(path) as src:
        transform = src.transform
    write(path, values, transform=transform)
    with rasterio.open(path, "r+") as dst:
        dst.scales = (1.0,) * dst.count


def other_dtype(rng, path, dn):
    with np.errstate(all="ignore"):
        array = dn.astype(rng.choice(DTYPES))
    write(path, array)


def other_grid(rng, path, dn):
    special = [float("nan"), float("inf"), 1e308, 1e-300, 0.0, -10.0]
    numbers = [10.0, rng.uniform(-9, 9), 4e5, rng.uniform(-9, 9), -10.0, 4e6]
    for _ in range(rng.randint(1, 2)):
        numbers[rng.randrange(6)] = rng.choice(special)
    write(path, dn, transform=Affine(*numbers))


def other_shape(rng, path, dn):
    rows, cols = rng.choice([(1, 1), (1, 56), (48, 1), (31, 33), (11, 11), (10, 56)])
    write(path, dn[:, :rows, :cols])


def other_bands(rng, path, dn):
    write(path, dn[: rng.choice([1, 2])] if rng.random() < 0.5 else np.concatenate([dn, dn, dn]))


def other_meaning(rng, path, dn):
    with rasterio.open(path, "r+") as dst:
        dst.scales = tuple(rng.choice([1e-4, 0.0, *SPECIAL, -1.0]) for _ in range(dst.count))
        dst.offsets = tuple(rng.choice([0.0, *SPECIAL]) for _ in range(dst.count))
        dst.descriptions = tuple(
            rng.choice(["B04", "", "\u00e9\u4e2d", "x" * 300, "[b]"]) for _ in BANDS
        )


def other_file(rng, path, dn):
    text = b"<VRTDataset rasterXSize='56' rasterYSize='48'></VRTDataset>"
    path.write_bytes(
        rng.choice([b"", b"\0" * 999, b"II*\0", b"GIF89a", text, b"pred,ref\n", b"{}"])
    )


def a_folder(rng, path, dn):
    path.unlink()
    path.mkdir()


MUTATIONS = (
    truncated, flipped_bytes, wrong_header, absurd_tags, huge, sparse, nan_storm, other_dtype,
    other_grid, other_shape, other_bands, other_meaning, other_file, a_folder,
)  # fmt: skip


def options(rng, folder):
    """Arguments that may make no sense, alone or together."""
    absurd = ["nan", "inf", "-1", "0", "1e400", "1e-320", "", "x", "\u00e9", "1,2", ",", "--json"]
    numbers = ["--scale", "--offset", "--nodata", "--factor", "--data-range"]
    names = ["mae", "psnr", "ssim", "sam", "ergas", "bias", "q2n", "scc", "nothing", "MAE"]
    choices = [
        ["--metrics", ",".join(rng.sample(names, rng.randint(1, 4)))],
        ["--bands", rng.choice(["B04", "B02,B04", "red", "B04,B04", "", "B99"])],
        ["--radiometry", rng.choice(["s2-l2a", "uint8", "naip", "none"])],
        [rng.choice(numbers), rng.choice(absurd)],
        ["--mask", str(folder / rng.choice(["ref.tif", "pred.tif", "none.tif"]))],
        ["--tile-size", rng.choice(["32", "1", "-5", "100000", "64"])],
        ["--tiles"],
        ["--composite", rng.choice(["B04,B03,B02", "B04", "B08,B04,B03", ""])],
    ]
    return [word for part in rng.sample(choices, rng.choice([0, 0, 1, 2])) for word in part]


def mutant(number, folder, dn):
    """Make mutant `number` in an empty folder; return the arguments that score it."""
    rng = random.Random(number)
    paths = [folder / "pred.tif", folder / "ref.tif"]
    for path in paths:
        write(path, dn)
    mutate = MUTATIONS[number % len(MUTATIONS)]
    both = rng.random() < 0.4
    for path in paths if both else [rng.choice(paths)]:
        mutate(random.Random(number) if both else rng, path, dn)
    outputs = [[], ["--json"], ["--map", str(folder / "out.tif")]]
    outputs += [["--out", str(folder / f"out.{kind}")] for kind in ("parquet", "csv", "json")]
    cheap = [] if rng.random() < 0.15 else ["--metrics", "mae,psnr,ssim,sam"]
    return ["score", *map(str, paths), *cheap, *options(rng, folder), *rng.choice(outputs)]


def check(number, folder, dn, run):
    args = mutant(number, folder, dn)
    before = {p.name for p in folder.iterdir()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        result = run(*args)
    said = f"mutant {number}: {args}\n{result.stdout}{result.stderr}"
    assert result.exit_code in (0, 1, 2), said
    assert "Traceback" not in result.stderr, said
    assert "unexpected" not in result.output, said
    assert result.exception is None or isinstance(result.exception, SystemExit), said
    if result.exit_code:
        assert result.stderr.strip(), said
    new = {p.name for p in folder.iterdir()} - before
    assert new <= {"out.tif", "out.parquet", "out.csv", "out.csv.json", "out.json"}, said
    if result.exit_code == 2 or (result.exit_code == 1 and "--out" not in args):
        assert not new, said
    if "out.tif" in new:
        with rasterio.open(folder / "out.tif") as src:
            src.read()


@pytest.fixture
def alarm():
    """Turn a hang into a failure; Python sees it once the native code returns."""
    limits = {
        signal.SIGPROF: (signal.ITIMER_PROF, CPU_SECONDS),
        signal.SIGALRM: (signal.ITIMER_REAL, WALL_SECONDS),
    }

    def ring(number, frame):
        raise TimeoutError(f"more than {limits[number][1]} s")

    def wind():
        for timer, seconds in limits.values():
            signal.setitimer(timer, seconds)

    before = {number: signal.signal(number, ring) for number in limits}
    yield wind
    for number, (timer, _) in limits.items():
        signal.setitimer(timer, 0)
        signal.signal(number, before[number])


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param(FAST, id="some"),
        *(
            pytest.param(range(part, MUTANTS, PARTS), id=f"part {part}", marks=pytest.mark.slow)
            for part in range(PARTS)
        ),
    ],
)
def test_a_mutant_never_hangs_crashes_or_leaves_half_a_file(numbers, whole, tmp_path, run, alarm):
    assert {number % len(MUTATIONS) for number in numbers} == set(range(len(MUTATIONS)))
    failed = []
    for number in numbers:
        folder = Path(tmp_path / str(number))
        folder.mkdir()
        alarm()
        try:
            check(number, folder, whole, run)
        except (AssertionError, TimeoutError) as error:
            failed.append(str(error))
    assert not failed, "\n\n".join(failed)
