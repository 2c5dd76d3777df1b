"""Pairs of rasters: bands, tiles, what counts, and files that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.enums import ColorInterp
from scipy.io import netcdf_file

from lpips_sat.declared import RadiometryOptions
from lpips_sat.errors import (
    GridMismatchError,
    MetricInputError,
    RadiometryError,
    RasterError,
)
from lpips_sat.raster import (
    open_pair,
)

from .conftest import HEIGHT, WIDTH, grid, numbers, plain, put, valid_of

# --- pairs


def test_a_pair_says_what_it_compares(pair: tuple[Path, Path]) -> None:
    with open_pair(*pair) as both:
        assert both.grid == grid()
        assert both.bands == ("B04", "B03")
        assert both.kind == "reflectance"
        assert both.dtype == "uint16"
        assert both.pred_radiometry.scale == both.ref_radiometry.scale == (1e-4, 1e-4)


@pytest.mark.parametrize("size", [16, 32, 128])
@pytest.mark.parametrize(("halo", "align"), [(0, 1), (5, 1), (5, 8), (16, 16)])
def test_tiles_put_the_image_together_again_and_start_on_the_networks_phase(
    pair: tuple[Path, Path], size: int, halo: int, align: int
) -> None:
    expected = [(numbers(seed=s) * 1e-4).astype(np.float32) for s in (1, 2)]
    counted = np.zeros((HEIGHT, WIDTH), dtype=int)
    with open_pair(*pair) as both:
        for tile in both.tiles(size, halo=halo, align=align):
            rows, cols = tile.core_slices
            top, left = tile.row - rows.start, tile.col - cols.start
            assert top % align == 0
            assert left % align == 0
            bottom, right = top + tile.pred.shape[2], left + tile.pred.shape[3]
            # the halo is there in full wherever the image goes on
            assert top == 0 or tile.row - top >= halo
            assert right == WIDTH or right - (tile.col + tile.width) >= halo
            for got, want in zip((tile.pred, tile.ref), expected, strict=True):
                assert got.dtype == torch.float32
                np.testing.assert_allclose(got[0], want[:, top:bottom, left:right], rtol=1e-6)
            assert tile.valid.dtype == tile.core.dtype == torch.bool
            assert tile.valid.shape == tile.core.shape == (1, 1, *tile.pred.shape[2:])
            counted[top:bottom, left:right] += tile.core[0, 0].numpy()
            assert tile.core.sum() == tile.height * tile.width
            assert tile.core[0, 0][tile.core_slices].all()
    assert (counted == 1).all()


@pytest.mark.parametrize("bad", [{"size": 0}, {"size": 10, "align": 4}, {"halo": -1}])
def test_tiles_that_lose_the_phase_are_refused(
    pair: tuple[Path, Path], bad: dict[str, int]
) -> None:
    with (
        open_pair(*pair) as both,
        pytest.raises(MetricInputError, match="multiple of align"),
    ):
        next(both.tiles(**bad))


def test_bands_are_matched_by_name_in_the_references_order(tmp_path: Path) -> None:
    a, b, c = numbers(3, seed=1)
    pred = put(tmp_path / "pred.tif", np.stack([a, b, c]), bands=("red", "B8", "B3"))
    ref = put(tmp_path / "ref.tif", np.stack([c, b]), bands=("B03", "nir"))
    with open_pair(pred, ref) as both:
        assert both.bands == ("B03", "B08")
        tile = next(both.tiles(128))
        assert torch.equal(tile.pred, tile.ref)
        np.testing.assert_allclose(tile.pred[0, 0], c * 1e-4, rtol=1e-6)
    with open_pair(pred, ref, bands=["nir"]) as both:
        assert both.bands == both.pred_radiometry.bands == ("B08",)
        np.testing.assert_allclose(next(both.tiles(128)).ref[0, 0], b * 1e-4, rtol=1e-6)


def test_missing_bands_are_listed_for_both_sides(tmp_path: Path) -> None:
    pred = put(tmp_path / "pred.tif", numbers(1), bands=("B8A",))
    ref = put(tmp_path / "ref.tif", numbers(2))
    with (
        pytest.raises(RadiometryError, match=r"no band in common: .* has B8A; .* has B04,B03"),
        open_pair(pred, ref),
    ):
        pass
    with (
        pytest.raises(RadiometryError, match=r"band B08 is not in both: .*pred.tif has B04,B03"),
        open_pair(ref.rename(tmp_path / "2pred.tif"), tmp_path / "2pred.tif", bands=["B04", "B8"]),
    ):
        pass


def test_bands_asked_for_name_a_file_that_does_not_name_its_own(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    with rasterio.open(pair[0], "r+") as dst:
        dst.descriptions = (None, None)
    with pytest.raises(RadiometryError, match=r"pred.tif: 2 band.*--bands"), open_pair(*pair):
        pass
    with open_pair(*pair, bands=["B03", "B04"]) as both:
        tile = next(both.tiles(128))
    np.testing.assert_allclose(tile.pred[0], numbers(seed=1) * 1e-4, rtol=1e-6)
    np.testing.assert_allclose(tile.ref[0], numbers(seed=2)[::-1] * 1e-4, rtol=1e-6)
    with (
        pytest.raises(RadiometryError, match=r"pred.tif: 2 band.*B04 are wanted.*--bands"),
        open_pair(*pair, bands=["B04"]),
    ):
        pass


def test_each_file_has_its_own_radiometry(tmp_path: Path) -> None:
    pred = put(tmp_path / "pred.tif", numbers(seed=1).astype("float32") * 1e-4, scale=1.0)
    ref = put(tmp_path / "ref.tif", numbers(seed=1) + 1000, scale=1.0)
    with pytest.raises(RadiometryError, match=r"ref.tif: uint16"), open_pair(pred, ref):
        pass
    with open_pair(pred, ref, ref_radiometry=RadiometryOptions(preset="s2-l2a")) as both:
        tile = next(both.tiles(128))
    torch.testing.assert_close(tile.pred, tile.ref, rtol=0, atol=1e-7)


def test_reflectance_is_not_compared_with_a_picture(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    picture = put(tmp_path / "picture.tif", numbers(dtype="uint8"), scale=1.0)
    with (
        pytest.raises(RadiometryError, match=r"display.*reflectance"),
        open_pair(picture, pair[1], pred_radiometry=RadiometryOptions(preset="uint8")),
    ):
        pass


def test_plain_pictures_are_read_without_a_georeference(tmp_path: Path) -> None:
    a, b = (plain(tmp_path / f"{s}.png", numbers(3, seed=s, dtype="uint8")) for s in (1, 2))
    with pytest.raises(RadiometryError, match="--radiometry uint8"), open_pair(a, b):
        pass
    with open_pair(a, b, radiometry=RadiometryOptions(preset="uint8")) as both:
        assert both.kind == "display"
        assert both.bands == ("B04", "B03", "B02")
        tile = next(both.tiles(128))
    np.testing.assert_allclose(tile.pred[0], numbers(3, seed=1) / 255, rtol=1e-6)


# --- what counts


def test_nodata_of_either_file_and_non_finite_values_are_invalid(tmp_path: Path) -> None:
    pred, ref = numbers(dtype="float32", seed=1), numbers(seed=2)
    expected = np.ones((HEIGHT, WIDTH), dtype=bool)
    pred[0, 3, 4], pred[1, 5, 6], pred[1, 7, 8] = np.nan, np.inf, -9999
    ref[1, 20, 30] = 0
    for row, col in ((3, 4), (5, 6), (7, 8), (20, 30)):
        expected[row, col] = False
    files = (
        put(tmp_path / "pred.tif", pred, scale=1.0, nodata=-9999),
        put(tmp_path / "ref.tif", ref, nodata=0),
    )
    np.testing.assert_array_equal(valid_of(*files), expected)


def test_nodata_of_a_band_that_is_not_compared_does_not_count(tmp_path: Path) -> None:
    array = numbers()
    array[1, 0, 0] = 0
    path = put(tmp_path / "a.tif", array, nodata=0)
    assert not valid_of(path, path)[0, 0]
    assert valid_of(path, path, bands=["B04"])[0, 0]


def test_an_alpha_band_is_a_mask_and_never_data(tmp_path: Path) -> None:
    rgba = numbers(4, dtype="uint8")
    rgba[3] = 255
    rgba[3, 10, :5] = 0
    path = plain(tmp_path / "a.png", rgba)
    uint8 = RadiometryOptions(preset="uint8")
    with open_pair(path, path, radiometry=uint8) as both:
        assert both.bands == ("B04", "B03", "B02")
    valid = valid_of(path, path, radiometry=uint8)
    np.testing.assert_array_equal(valid, rgba[3] != 0)


def test_alpha_counts_beside_nodata(tmp_path: Path) -> None:
    array = numbers(3)
    array[2] = 255
    array[2, 4, 4] = 0
    array[0, 9, 9] = 0
    path = put(tmp_path / "a.tif", array, bands=("B04", "B03", ""), nodata=0)
    with rasterio.open(path, "r+") as dst:
        dst.colorinterp = [ColorInterp.gray, ColorInterp.undefined, ColorInterp.alpha]
    valid = valid_of(path, path)
    assert np.argwhere(~valid).tolist() == [[4, 4], [9, 9]]


def test_a_band_flagged_as_alpha_but_named_as_a_band_is_data(tmp_path: Path) -> None:
    # GDAL writes the fourth band of uint8 as alpha unless told otherwise
    array = numbers(4, dtype="uint8")
    path = plain(tmp_path / "rgbn.tif", array, driver="GTiff")
    naip = RadiometryOptions(preset="naip")
    with open_pair(path, path, radiometry=naip) as both:
        assert both.bands == ("B04", "B03", "B02", "B08")
    uint8 = RadiometryOptions(preset="uint8")
    with open_pair(path, path, radiometry=uint8) as both:
        assert both.bands == ("B04", "B03", "B02")  # it is flagged as alpha
    names = ("red", "green", "blue", "nir")
    named = plain(tmp_path / "named.tif", array, driver="GTiff", descriptions=names)
    with open_pair(named, named, radiometry=uint8) as both:
        assert both.bands == ("B04", "B03", "B02", "B08")


@pytest.mark.parametrize("internal", [True, False])
def test_a_files_own_mask_counts(tmp_path: Path, internal: bool) -> None:
    path = put(tmp_path / "a.tif", numbers(), nodata=None)
    mask = np.full((HEIGHT, WIDTH), 255, dtype="uint8")
    mask[11, 12:20] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as dst:
        dst.write_mask(mask)
    assert (tmp_path / "a.tif.msk").exists() is not internal
    other = put(tmp_path / "b.tif", numbers())
    np.testing.assert_array_equal(valid_of(path, other), mask != 0)
    np.testing.assert_array_equal(valid_of(other, path), mask != 0)


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", None), ("float32", None), ("uint8", 255)])
def test_a_mask_raster_is_valid_where_it_is_not_zero(
    tmp_path: Path, pair: tuple[Path, Path], dtype: str, nodata: float | None
) -> None:
    mask = np.ones((1, HEIGHT, WIDTH), dtype=dtype)
    mask[0, 5, 5:9] = 0
    mask[0, 6, 6] = 7
    mask[0, 7, 7] = 255
    path = put(tmp_path / "mask.tif", mask, bands=("mask",), nodata=nodata)
    expected = mask[0] != 0
    expected[7, 7] = nodata is None
    np.testing.assert_array_equal(valid_of(*pair, mask_path=path), expected)


def test_a_mask_raster_must_fit(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    ones = np.ones((1, HEIGHT, WIDTH), dtype="uint8")
    shifted = put(tmp_path / "shifted.tif", ones, bands=("m",), where=grid(x=435735.0))
    with pytest.raises(GridMismatchError, match="shifted"), open_pair(*pair, mask_path=shifted):
        pass
    two = put(tmp_path / "two.tif", np.ones((2, HEIGHT, WIDTH), "uint8"))
    with pytest.raises(RasterError, match="2 bands"), open_pair(*pair, mask_path=two):
        pass


# --- files that cannot be read


def test_a_pair_on_two_grids_is_refused_with_both_printed(tmp_path: Path) -> None:
    pred = put(tmp_path / "pred.tif", numbers(), where=grid(x=435735.0))
    ref = put(tmp_path / "ref.tif", numbers())
    with pytest.raises(GridMismatchError) as caught, open_pair(pred, ref):
        pass
    assert str(grid(x=435735.0)) in str(caught.value)
    assert str(grid()) in str(caught.value)
    assert "origin (off by -0.5 px in x" in str(caught.value)


def bad_file(kind: str, folder: Path) -> Path:
    path = folder / "bad.tif"
    if kind == "text":
        path.write_text("this is no raster")
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "no bands":
        with netcdf_file(path, "w") as dst:  # GDAL shows its variables as subdatasets
            dst.createDimension("y", 4)
            dst.createDimension("x", 5)
            dst.createVariable("first", "f4", ("y", "x"))
            dst.createVariable("second", "f4", ("y", "x"))
    elif kind == "complex":
        plain(path, np.zeros((1, 4, 4), dtype="complex64"), driver="GTiff")
    elif kind == "palette":
        palette = [ColorInterp.palette]
        plain(path, np.zeros((1, 4, 4), "uint8"), driver="GTiff", colorinterp=palette)
    return path


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("missing", "no such file"),
        ("text", "not a raster"),
        ("empty", "not a raster"),
        ("folder", "is a folder"),
        ("no bands", "no bands"),
        ("complex", "complex64 numbers"),
        ("palette", "-expand rgb"),
    ],
)
def test_what_is_no_image_is_one_line(
    kind: str, text: str, tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    path = bad_file(kind, tmp_path)
    for files in ((path, pair[1]), (pair[0], path)):
        with pytest.raises(RasterError) as caught, open_pair(*files):
            pass
        assert "bad.tif" in str(caught.value)
        assert text in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_truncated_file_is_an_error_when_its_lost_part_is_read(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 60000, (1, 1024, 300)).astype("uint16")
    ref = put(tmp_path / "ref.tif", noise, bands=("B04",))
    cut = tmp_path / "cut.tif"
    cut.write_bytes(ref.read_bytes()[: ref.stat().st_size * 5 // 8])  # in the third of four rows
    with open_pair(cut, ref) as both:  # the header is whole
        tiles = both.tiles(256)
        assert next(tiles).valid.all()
        with pytest.raises(RasterError, match=r"cannot read rows 512 to 767 of .*cut.tif") as e:
            list(tiles)
    assert "\n" not in str(e.value)
