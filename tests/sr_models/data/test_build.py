from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.warp import Resampling, reproject, transform_bounds
from rasterio.warp import transform as to_crs

from lpips_sat import LpipsSatError
from lpips_sat.declared import RadiometryOptions
from lpips_sat.errors import OutputExistsError, RadiometryError
from sr_models.data.build import Source, build_pairs
from sr_models.data.errors import PairError
from sr_models.data.sets import texture
from sr_models.data.tiles import Layout
from tests.sr_models.data.conftest import SMALL


def read(path):
    with rasterio.open(path) as src:
        return src.read(), src.transform


@pytest.fixture
def built(tmp_path, scene):
    low, high, lr, hr = scene(tmp_path)
    about = build_pairs(Source(low), Source(high), tmp_path / "pairs", layout=SMALL)
    return (
        tmp_path / "pairs",
        about,
        pd.read_parquet(tmp_path / "pairs" / "manifest.parquet"),
        lr,
        hr,
    )


# --- what is written


def test_tiles_are_the_rasters_own_pixels_at_their_own_places(built):
    folder, about, table, lr, hr = built
    used = table[table["split"] != ""]
    assert len(used) == 16
    for tile in used.itertuples():
        low, low_at = read(folder / tile.lr)
        high, high_at = read(folder / tile.hr)
        r, c = tile.row, tile.col  # HR px of the common grid, which begins at HR column 1
        np.testing.assert_array_equal(high, hr[:, r : r + 32, c + 1 : c + 33])
        r, c = r // 2 + 1, c // 2 + 1  # and at LR pixel (1, 1)
        np.testing.assert_array_equal(low, lr[:, r : r + 16, c : c + 16])
        assert (low_at.c, low_at.f) == (high_at.c, high_at.f)
        assert (low_at.a, high_at.a) == (20, 10)
        assert (tile.left, tile.top) == (500_000 + 20 * c, 4_200_020 - 20 * r)
        assert (tile.right, tile.bottom) == (tile.left + 320, tile.top - 320)
    assert about["factor"] == 2
    assert not about["hr"]["resampled"]


def test_what_is_said_is_what_is_there(built):
    folder, about, table, *_ = built
    assert json.loads((folder / "dataset.json").read_text()) == about
    assert about["tiles"] == table[table["split"] != ""]["split"].value_counts().to_dict()
    assert set(about["tiles"]) == {"train", "val", "test"}
    assert sum(about["tiles"].values()) + sum(about["left_out"].values()) == len(table)
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    named = {*table["lr"], *table["hr"]} - {""}
    assert files == named | {"dataset.json", "manifest.parquet", "preview.png"}
    assert (table["reliability"] > 0.9).all()  # the same content
    assert table[["shift_x", "shift_y"]].abs().median().max() <= 0.06


def test_the_preview_shows_the_images_in_mid_greys(built):
    folder, *_ = built
    grey = np.asarray(Image.open(folder / "preview.png").convert("L"))
    assert ((grey > 50) & (grey < 200)).mean() > 0.2


def test_bands_are_paired_by_name_whatever_their_order(tmp_path, scene):
    low, high, lr, hr = scene(tmp_path, bands=("B04", "B03"), hr_bands=("B08", "B03", "B04"))
    about = build_pairs(Source(low), Source(high), tmp_path / "pairs", layout=SMALL)
    assert about["lr"]["bands"] == about["hr"]["bands"] == ["B03", "B04"]
    tile = pd.read_parquet(tmp_path / "pairs" / "manifest.parquet").iloc[0]
    np.testing.assert_array_equal(read(tmp_path / "pairs" / tile.hr)[0], hr[1:, :32, 1:33])
    np.testing.assert_array_equal(read(tmp_path / "pairs" / tile.lr)[0], lr[::-1, 1:17, 1:17])


def test_untextured_tiles_train_nothing_and_are_reported_apart(tmp_path, scene, raster):
    low, high, _, hr = scene(tmp_path)
    hr[:, 80:] = 0.1  # open water
    raster(high, hr, Affine(10, 0, 500_010, 0, -10, 4_200_000))
    build_pairs(Source(low), Source(high), tmp_path / "pairs", layout=SMALL)
    table = pd.read_parquet(tmp_path / "pairs" / "manifest.parquet")
    water = table["row"] >= 80
    assert set(table.loc[water, "split"]) == {"test_untextured"}
    assert set(table.loc[~water, "split"]) == {"train", "val", "test"}


def test_nodata_and_the_mask_leave_tiles_out(tmp_path, scene, raster):
    low, high, _, hr = scene(tmp_path)
    hr[0, 5, 5] = -9  # in the first tile
    raster(high, hr, Affine(10, 0, 500_010, 0, -10, 4_200_000), nodata=-9)
    clear = np.ones((1, 70, 70), np.uint8)
    clear[0, :, 45:] = 0  # a mask of 30 m pixels, on a grid of its own
    mask = raster(tmp_path / "mask.tif", clear, Affine(30, 0, 499_900, 0, -30, 4_200_100))
    build_pairs(Source(low), Source(high), tmp_path / "pairs", mask=mask, layout=SMALL)
    table = pd.read_parquet(tmp_path / "pairs" / "manifest.parquet")
    cloudy = table["right"] > 499_900 + 45 * 30
    assert cloudy.any()
    assert (table["left_out"] == "invalid").equals(cloudy | (table["id"] == "r00000_c00000"))
    assert table["valid"].iloc[0] == pytest.approx(1023 / 1024)


def test_another_crs_and_pixel_size_are_warped_without_a_shift(tmp_path, raster):
    # both sensors see the same smooth function of place; HR in the next UTM zone with 6 m pixels,
    # LR / 3 = 6.667 m
    def ground(x, y):
        return 0.3 + 0.1 * np.sin(x / 130) + 0.1 * np.cos(y / 170)

    def seen(crs, origin, gsd, size):
        rows, columns = np.mgrid[:size, :size] + 0.5
        x, y = (origin[0] + columns * gsd).ravel(), (origin[1] - rows * gsd).ravel()
        x, y = (np.array(v) for v in to_crs(crs, "EPSG:32618", x, y))
        values = ground(x - 230_000, y - 4_200_000).reshape(1, size, size).astype(np.float32)
        transform = Affine(gsd, 0, origin[0], 0, -gsd, origin[1])
        return raster(tmp_path / f"{gsd}.tif", values, transform, crs=crs)

    (x,), (y,) = to_crs("EPSG:32618", "EPSG:32617", [229_900], [4_200_300])
    low = seen("EPSG:32618", (230_000, 4_200_000), 20, 40)
    high = seen("EPSG:32617", (x, y), 6, 220)
    layout = SMALL.__class__(tile=48, block=1, margin=12, min_texture=0)
    about = build_pairs(Source(low), Source(high), tmp_path / "pairs", layout=layout)
    assert about["factor"] == 3
    assert about["hr"]["resampled"]
    table = pd.read_parquet(tmp_path / "pairs" / "manifest.parquet")
    used = table[table["split"] != ""]
    assert len(used) == 4
    for tile in used.itertuples():
        hr, at = read(tmp_path / "pairs" / tile.hr)
        rows, columns = np.mgrid[:48, :48] + 0.5
        expected = ground(at.c + columns * at.a - 230_000, at.f + rows * at.e - 4_200_000)
        np.testing.assert_allclose(hr[0], expected, atol=3e-4)
        # a shift (y, x) in pixels would show as a difference along the gradient
        gradient = np.stack([g.ravel() for g in np.gradient(expected)], axis=1)
        shift = np.linalg.lstsq(gradient, (hr[0] - expected).ravel(), rcond=None)[0]
        assert np.abs(shift).max() < 0.005


# --- what is measured


def test_a_known_shift_of_lr_is_recorded_in_lr_pixels(tmp_path, scene, raster):
    low, high, lr, _ = scene(tmp_path)
    # an LR raster whose georeference is 6 m (0.3 px) too far east and 4 m (0.2 px) too far south
    wrong = Affine(20, 0, 500_006, 0, -20, 4_200_016)
    raster(low, lr, wrong, bands=("B08",))
    build_pairs(Source(low), Source(high), tmp_path / "pairs", layout=SMALL)
    table = pd.read_parquet(tmp_path / "pairs" / "manifest.parquet")
    assert table["shift_x"].median() == pytest.approx(0.3, abs=0.05)
    assert table["shift_y"].median() == pytest.approx(0.2, abs=0.05)
    assert table["reliability"].median() > 0.9


def test_texture_is_the_rms_below_an_lr_pixel():
    checks = np.indices((8, 8)).sum(0) % 2 * 0.2
    assert texture(checks[None], 2) == pytest.approx(0.1)
    assert texture(checks.repeat(2, 0).repeat(2, 1)[None], 2) == pytest.approx(0)


# --- what is refused


def spoil(kind, low, high, lr, hr, raster):
    """Make of a good scene one that cannot be used; return what to hand to build_pairs."""
    at = Affine(10, 0, 500_010, 0, -10, 4_200_000)
    if kind == "apart":
        raster(high, hr, Affine(10, 0, 550_010, 0, -10, 4_200_000))
    elif kind == "no crs":
        raster(high, hr, at, crs=None)
    elif kind == "same size":
        raster(high, hr, Affine(20, 0, 500_010, 0, -20, 4_200_000))
    elif kind == "clouds":
        raster(high, np.full_like(hr, np.nan), at)
    elif kind == "no name":
        raster(high, hr, at, bands=(None,))
    elif kind == "no band in common":
        raster(high, hr, at, bands=("B03",))
    elif kind == "dn":
        raster(high, (hr * 1e4).astype(np.uint16), at)
    return (Source(high), Source(low)) if kind == "swapped" else (Source(low), Source(high))


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("apart", PairError, r"lr.tif and hr.tif do not overlap"),
        ("no crs", PairError, r"hr.tif has no CRS.*--crs EPSG:CODE"),
        ("swapped", PairError, r"hr.tif has finer pixels \(10\) than lr.tif \(20\): swap"),
        ("same size", PairError, "about the same pixel size"),
        ("clouds", PairError, r"none of 16 tiles of 32 px is valid.*the best has 0.0%"),
        ("no name", RadiometryError, "--bands"),
        ("no band in common", PairError, r"lr.tif has B08, hr.tif has B03.*--hr-bands"),
        ("dn", RadiometryError, "without a declared scale"),
    ],
)
def test_a_scene_that_makes_no_pairs_is_one_clear_line_and_leaves_nothing(
    tmp_path, scene, raster, kind, error, message
):
    (tmp_path / "in").mkdir()
    sources = spoil(kind, *scene(tmp_path / "in"), raster)
    with pytest.raises(error, match=message) as raised:
        build_pairs(*sources, tmp_path / "pairs", layout=SMALL)
    assert "\n" not in str(raised.value)
    assert isinstance(raised.value, LpipsSatError)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_a_tile_that_is_larger_than_the_scene_is_not_blamed_on_clouds(tmp_path, scene):
    (tmp_path / "in").mkdir()
    low, high, *_ = scene(tmp_path / "in")
    layout = Layout(tile=10_000, block=1, margin=0)
    with pytest.raises(PairError, match=r"no tile of 10000 px fits into .*: take smaller"):
        build_pairs(Source(low), Source(high), tmp_path / "pairs", layout=layout)
    assert not (tmp_path / "pairs").exists()


def test_clouds_everywhere_in_the_mask_leave_nothing(tmp_path, scene, raster):
    (tmp_path / "in").mkdir()
    low, high, *_ = scene(tmp_path / "in")
    at = Affine(60, 0, 499_800, 0, -60, 4_200_200)
    mask = raster(tmp_path / "in" / "mask.tif", np.zeros((1, 60, 60), np.uint8), at)
    with pytest.raises(PairError, match=r"none of 16 tiles .* the best has 0.0%") as raised:
        build_pairs(Source(low), Source(high), tmp_path / "pairs", mask=mask, layout=SMALL)
    assert "\n" not in str(raised.value)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_values_far_from_reflectance_are_refused(tmp_path, scene):
    low, high, *_ = scene(tmp_path)
    wrong = Source(high, RadiometryOptions(scale=100.0, offset=0.0))
    with pytest.raises(RadiometryError, match="reflectance outside") as hit:
        build_pairs(Source(low), wrong, tmp_path / "pairs", layout=SMALL)
    assert "--hr-radiometry, or --hr-scale and --hr-offset, and --hr-nodata" in str(hit.value)
    assert "--pred-dn" not in str(hit.value)
    assert not (tmp_path / "pairs").exists()


def test_a_folder_is_replaced_only_when_asked_and_only_if_it_is_a_set(built, tmp_path):
    folder = built[0]
    sources = Source(tmp_path / "lr.tif"), Source(tmp_path / "hr.tif")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        build_pairs(*sources, folder, layout=SMALL)
    (folder / "old").touch()
    build_pairs(*sources, folder, layout=SMALL, overwrite=True)
    assert not (folder / "old").exists()
    mine = tmp_path / "thesis"
    mine.mkdir()
    with pytest.raises(OutputExistsError, match=r"holds no dataset.json"):
        build_pairs(*sources, mine, layout=SMALL, overwrite=True)
    assert mine.is_dir()


def test_a_scale_that_is_not_the_other_rasters_is_named_before_the_split(tmp_path, scene, raster):
    (tmp_path / "in").mkdir()
    low, high, lr, _ = scene(tmp_path / "in")
    at = Affine(20, 0, 500_000, 0, -20, 4_200_020)
    raster(low, np.rint(1e4 * lr).astype(np.uint16), at)
    dn = RadiometryOptions(scale=1e-4, offset=0.0)
    with pytest.raises(
        PairError, match=r"median of lr.tif is 0\.\d+, that of hr.tif \d.*e-05"
    ) as hit:
        build_pairs(Source(low, dn), Source(high, dn), tmp_path / "pairs")
    assert "--hr-scale and --hr-offset" in str(hit.value)
    assert "\n" not in str(hit.value)
    assert not (tmp_path / "pairs").exists()
    build_pairs(Source(low, dn), Source(high), tmp_path / "pairs", layout=SMALL)


def in_degrees(source, folder, gsd):
    """Warp a raster to EPSG:4326 with pixels of so many metres."""
    with rasterio.open(source) as src:
        west, south, east, north = transform_bounds(src.crs, "EPSG:4326", *src.bounds)
        step = gsd / 111_000
        width, height = round((east - west) / step), round((north - south) / step)
        at = Affine(step, 0, west, 0, -step, north)
        values = np.full((src.count, height, width), np.nan, np.float32)
        known = {"src_transform": src.transform, "src_crs": src.crs, "dst_nodata": np.nan}
        known |= {"dst_transform": at, "dst_crs": "EPSG:4326", "resampling": Resampling.cubic}
        reproject(src.read(), values, **known)
        size = {"count": src.count, "height": height, "width": width, "dtype": "float32"}
        with rasterio.open(
            folder / source.name, "w", crs="EPSG:4326", transform=at, nodata=np.nan, **size
        ) as dst:
            dst.descriptions = src.descriptions
            dst.write(values)
    return folder / source.name


def test_pixel_sizes_are_metres_whatever_the_crs(tmp_path, scene, raster):
    low, high, *_ = scene(tmp_path)
    (tmp_path / "degrees").mkdir()
    turned = in_degrees(low, tmp_path / "degrees", 20)
    with pytest.raises(PairError, match=r"lr.tif is in EPSG:4326, which is not in metres") as hit:
        build_pairs(Source(turned), Source(high), tmp_path / "pairs", layout=SMALL)
    said = "rio warp lr.tif projected.tif --dst-crs EPSG:32618 --resampling cubic"
    assert str(hit.value).endswith(said)
    assert not (tmp_path / "pairs").exists()
    # HR is warped anyway, and its own pixels are measured on the ground
    fine = in_degrees(high, tmp_path / "degrees", 10)
    about = build_pairs(Source(low), Source(fine), tmp_path / "pairs", layout=SMALL)
    assert about["lr"]["gsd"] == 20
    assert about["hr"]["gsd"] == 10
    shorter = np.sqrt(np.cos(np.radians(37.95)))  # degrees of longitude, at this latitude
    assert about["hr"]["native_gsd"] == pytest.approx(10 * shorter, rel=0.01)


def test_a_crs_in_feet_is_converted(tmp_path, scene, raster):
    _, _, lr, hr = scene(tmp_path)
    foot = 1200 / 3937  # of the US survey, in metres
    sides = {}
    for name, values, gsd, at in (("lr", lr, 20, (0, 20)), ("hr", hr, 10, (10, 0))):
        place = Affine(gsd / foot, 0, (5e5 + at[0]) / foot, 0, -gsd / foot, (2e5 + at[1]) / foot)
        sides[name] = raster(tmp_path / f"{name}.tif", values, place, crs="EPSG:2263")
    about = build_pairs(Source(sides["lr"]), Source(sides["hr"]), tmp_path / "p", layout=SMALL)
    assert about["lr"]["gsd"] == pytest.approx(20)
    assert about["hr"]["native_gsd"] == pytest.approx(10)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("2024-W26-7", "2024-06-30"),
        ("20240630", "2024-06-30"),
        ("2024-06-30 10:10", "2024-06-30T10:10:00"),
        ("20240630T235900Z", "2024-06-30T23:59:00+00:00"),
        ("", ""),
    ],
)
def test_dates_are_kept_in_one_way(typed, kept):
    assert Source("x.tif", date=typed).date == kept
