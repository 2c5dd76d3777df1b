from __future__ import annotations

import re
import resource
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from scipy.io import netcdf_file

from lpips_sat import raster
from lpips_sat.errors import (
    GridMismatchError,
    MetricInputError,
    OutputExistsError,
    RadiometryError,
    RasterError,
)
from lpips_sat.radiometry import RadiometryOptions
from lpips_sat.raster import (
    Grid,
    MapWriter,
    check_output,
    check_same_grid,
    grid_of,
    open_pair,
    read_on,
    write_raster,
)

UTM18, UTM17 = CRS.from_epsg(32618), CRS.from_epsg(32617)
HEIGHT, WIDTH = 61, 83


def grid(
    x: float = 435730.0,
    y: float = 4179460.0,
    step: float = 10.0,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    crs: CRS | None = UTM18,
) -> Grid:
    return Grid(crs, Affine(step, 0, x, 0, -step, y), size[1], size[0])


def numbers(bands: int = 2, seed: int = 0, dtype: str = "uint16") -> npt.NDArray[Any]:
    generator = np.random.default_rng(seed)
    return generator.integers(1, 200, (bands, HEIGHT, WIDTH)).astype(dtype)


def put(
    path: Path,
    array: npt.NDArray[Any],
    *,
    bands: tuple[str, ...] = ("B04", "B03"),
    where: Grid | None = None,
    scale: float = 1e-4,
    nodata: float | None = None,
) -> Path:
    write_raster(
        path,
        array,
        where or grid(size=array.shape[1:]),
        bands=bands,
        scale=scale,
        offset=0.0,
        nodata=nodata,
        description="test",
        tags={},
    )
    return path


def plain(path: Path, array: npt.NDArray[Any], driver: str = "PNG", **tags: Any) -> Path:
    """Write an image without georeference and without a declared radiometry."""
    count, height, width = array.shape
    shape = {"count": count, "height": height, "width": width, "dtype": array.dtype.name}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver=driver, **shape) as dst:
            for name, value in tags.items():
                setattr(dst, name, value)
            if "colorinterp" in tags and ColorInterp.palette in tags["colorinterp"]:
                dst.write_colormap(1, {0: (1, 2, 3, 255)})
            dst.write(array)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return put(tmp_path / "pred.tif", numbers(seed=1)), put(tmp_path / "ref.tif", numbers(seed=2))


def valid_of(pred: Path, ref: Path, **options: Any) -> npt.NDArray[np.bool_]:
    """The validity mask (H, W) of a pair, put together from small tiles."""
    with open_pair(pred, ref, **options) as both:
        whole = np.zeros((both.grid.height, both.grid.width), dtype=bool)
        for tile in both.tiles(16, halo=3):
            core = tile.valid[0, 0][tile.core_slices].numpy()
            whole[tile.row : tile.row + tile.height, tile.col : tile.col + tile.width] = core
            assert torch.isfinite(tile.pred).all()
            assert not tile.pred[:, :, ~tile.valid[0, 0]].any()
            assert not tile.ref[:, :, ~tile.valid[0, 0]].any()
    return whole


# --- grids


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (grid(), None),
        (grid(x=435730.0 + 0.009), None),  # 0.0009 px
        (grid(x=435730.0 + 0.011), r"origin \(off by 0.0011 px in x, 0 px in y\)"),
        (grid(y=4179460.0 - 5), r"origin \(off by 0 px in x, 0.5 px in y\)"),
        (grid(crs=UTM17), r"CRS \(EPSG:32618 / EPSG:32617\)"),
        (grid(crs=None), r"CRS \(EPSG:32618 / no CRS\)"),
        (grid(step=20.0), r"resolution \(10 x -10 / 20 x -20\)"),
        (grid(step=10.0 + 1e-4), None),  # 8e-4 px over 83 px
        (grid(step=10.0 + 2e-4), "resolution"),  # 1.7e-3 px over 83 px
        (grid(size=(HEIGHT, WIDTH + 1)), r"size \(83 x 61 / 84 x 61 px\)"),
        (grid(x=435730.0 + 10 * WIDTH), "do not overlap"),
        (grid(y=4179460.0 + 10 * HEIGHT), "do not overlap"),
    ],
)
def test_a_difference_names_the_property_beyond_a_thousandth_of_a_pixel(
    other: Grid, expected: str | None
) -> None:
    found = grid().difference(other)
    assert found is None if expected is None else re.search(expected, found or "None")


def test_a_rotated_grid_differs_in_resolution() -> None:
    turned = Grid(UTM18, grid().transform @ Affine.rotation(0.1), WIDTH, HEIGHT)
    assert "resolution" in (grid().difference(turned) or "")
    assert turned.difference(turned) is None
    assert "rotated" in str(turned)


def test_plain_images_need_only_the_same_size() -> None:
    bare = Grid(None, Affine.identity(), WIDTH, HEIGHT)
    assert bare.difference(bare) is None
    assert bare.difference(grid(crs=None)) is None  # one has a world file
    assert "size" in (bare.difference(Grid(None, Affine.identity(), 5, HEIGHT)) or "")
    assert "origin" in (grid(crs=None).difference(grid(x=435735.0, crs=None)) or "")


@pytest.mark.parametrize(
    ("pred", "advice"),
    [
        (grid(crs=UTM17), "rio warp p.tif aligned.tif --like r.tif"),
        (grid(x=0.0), "different places"),
        (Grid(None, Affine.identity(), WIDTH, HEIGHT), "rio edit-info p.tif --like r.tif"),
        (grid(crs=None), "rio edit-info p.tif --crs"),
    ],
)
def test_a_grid_mismatch_prints_both_grids_and_the_way_out(pred: Grid, advice: str) -> None:
    with pytest.raises(GridMismatchError) as caught:
        check_same_grid(pred, grid(), pred_name="p.tif", ref_name="r.tif")
    text = str(caught.value)
    assert f"p.tif: {pred}" in text
    assert "r.tif: EPSG:32618, origin (435730, 4179460), pixel 10 x -10, 83 x 61 px" in text
    assert advice in text


def test_refining_and_cutting_keep_the_corner_where_it_is() -> None:
    fine = grid().refine(2)
    assert (fine.transform.a, fine.transform.e) == (5.0, -5.0)
    assert (fine.transform.c, fine.transform.f) == (435730.0, 4179460.0)
    assert (fine.width, fine.height) == (166, 122)
    part = grid().window(2, 3, 5, 7)
    assert (part.transform.c, part.transform.f) == (435760.0, 4179440.0)
    assert (part.height, part.width) == (5, 7)
    assert grid().locate(part) == (2.0, 3.0)


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
        pytest.raises(RadiometryError, match=r"pred.tif: 2 band.*--bands"),
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


# --- reading on a grid


def test_a_window_is_read_where_it_lies(tmp_path: Path) -> None:
    path = put(tmp_path / "a.tif", numbers())
    assert grid_of(path) == grid()
    part = grid().window(7, 11, 20, 30)
    np.testing.assert_array_equal(read_on(path, part), numbers()[:, 7:27, 11:41])


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (grid(x=435735.0, size=(9, 9)), "origin"),
        (grid(step=5.0, size=(9, 9)), "resolution"),
        (grid(crs=UTM17, size=(9, 9)), "CRS"),
        (grid(x=435720.0, size=(9, 9)), "reaches beyond"),
        (grid(size=(HEIGHT + 1, 9)), "reaches beyond"),
    ],
)
def test_nothing_is_resampled_to_read_a_window(tmp_path: Path, wanted: Grid, text: str) -> None:
    path = put(tmp_path / "a.tif", numbers())
    with pytest.raises(GridMismatchError, match=text):
        read_on(path, wanted)


# --- writing


def test_a_raster_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    array = numbers(4, dtype="uint8")
    write_raster(
        path,
        array,
        grid(),
        bands=("B04", "B03", "B02", "B08"),
        scale=0.004,
        offset=-0.1,
        nodata=0,
        description="what it is",
        tags={"SOURCE_BAND": "B8A"},
    )
    with rasterio.open(path) as src:
        np.testing.assert_array_equal(src.read(), array)
        assert src.descriptions == ("B04", "B03", "B02", "B08")
        assert (src.scales, src.offsets) == ((0.004,) * 4, (-0.1,) * 4)
        assert src.nodata == 0
        assert src.crs == UTM18
        assert src.transform == grid().transform
        assert src.tags()["SOURCE_BAND"] == "B8A"
        assert src.tags()["TIFFTAG_IMAGEDESCRIPTION"] == "what it is"
        assert ColorInterp.alpha not in src.colorinterp
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]  # no sidecar, no temporary


def test_an_array_that_does_not_fit_its_grid_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MetricInputError, match=r"\(2, 61, 82\).*got \(2, 61, 83\)"):
        put(tmp_path / "a.tif", numbers(), where=grid(size=(HEIGHT, WIDTH - 1)))


@pytest.mark.parametrize("placed", [True, False])
def test_a_map_is_put_together_from_tiles_with_nan_where_none_came(
    tmp_path: Path, placed: bool
) -> None:
    where = grid(size=(600, 700))
    if not placed:
        where = Grid(None, Affine.identity(), 700, 600)
    path = tmp_path / "map.tif"
    expected = np.full((600, 700), np.nan, dtype=np.float32)
    generator = torch.Generator().manual_seed(0)
    with MapWriter(path, where, description="LPIPS-Sat", tags={"VERSION": "1"}) as writer:
        for row, col, h, w in ((0, 0, 256, 256), (0, 256, 256, 256), (512, 600, 88, 100)):
            piece = torch.rand(h, w, generator=generator)
            writer.write(row, col, piece)
            expected[row : row + h, col : col + w] = piece.numpy()
        assert not path.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["map.tif"]
    assert grid_of(path).difference(where) is None
    np.testing.assert_array_equal(read_on(path, where)[0], expected)
    if placed:
        with rasterio.open(path) as src:
            assert np.isnan(src.nodata)
            assert src.dtypes == ("float32",)
            assert src.descriptions == ("LPIPS-Sat",)
            assert src.tags()["VERSION"] == "1"
            assert src.profile["compress"] == "deflate"
            assert src.profile["tiled"]


def break_after(writer: MapWriter) -> None:
    writer.write(0, 0, np.zeros((10, 10)))
    assert len(list(writer.path.parent.iterdir())) == 1  # there is something to clean up
    raise KeyError


def test_a_map_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    with pytest.raises(KeyError), MapWriter(path, grid()) as writer:
        break_after(writer)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RasterError, match="with"):
        writer.write(0, 0, np.zeros((10, 10)))


@pytest.mark.parametrize(("row", "col", "shape"), [(-1, 0, (4, 4)), (58, 0, (4, 4)), (0, 0, (4,))])
def test_a_piece_outside_the_map_is_refused(
    tmp_path: Path, row: int, col: int, shape: tuple[int, ...]
) -> None:
    with (
        pytest.raises(MetricInputError, match="inside 61 x 83 px"),
        MapWriter(tmp_path / "map.tif", grid()) as writer,
    ):
        writer.write(row, col, np.zeros(shape))


def test_an_output_that_exists_stays_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    path.write_bytes(b"precious")
    with pytest.raises(OutputExistsError, match="--overwrite"), MapWriter(path, grid()):
        pass
    with pytest.raises(OutputExistsError, match="--overwrite"):
        put(path, numbers())
    with pytest.raises(KeyError), MapWriter(path, grid(), overwrite=True):
        raise KeyError  # a failure does not cost the old file either
    assert path.read_bytes() == b"precious"
    assert [p.name for p in tmp_path.iterdir()] == ["map.tif"]
    with MapWriter(path, grid(), overwrite=True) as writer:
        writer.write(0, 0, np.ones((HEIGHT, WIDTH)))
    assert (read_on(path, grid()) == 1).all()


def test_an_output_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    with pytest.raises(OutputExistsError), MapWriter(path, grid()):
        path.write_bytes(b"another's")
    assert path.read_bytes() == b"another's"


def test_an_output_is_checked_before_any_work(tmp_path: Path) -> None:
    check_output(tmp_path / "new.tif", overwrite=False)
    with pytest.raises(RasterError, match=r"folder .*absent is missing; create it"):
        check_output(tmp_path / "absent" / "new.tif", overwrite=True)
    with pytest.raises(RasterError, match="is a folder"):
        check_output(tmp_path, overwrite=True)


# --- the house


def test_gdal_and_what_builds_on_it_alone_import_rasterio() -> None:
    package = Path(raster.__file__).parent
    pattern = re.compile(r"^\s*(?:import|from) rasterio\b", re.MULTILINE)
    users = [p.name for p in package.rglob("*.py") if pattern.search(p.read_text("utf-8"))]
    assert sorted(users) == ["gdal.py", "warp.py", "writing.py"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
def test_memory_does_not_grow_with_the_scene(tmp_path: Path) -> None:
    def resident() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20

    size = 4096  # 134 MB as float32 x 2 bands, opened twice
    path = put(tmp_path / "big.tif", np.zeros((2, size, size), dtype=np.float32), scale=1.0)
    with open_pair(path, path) as both, MapWriter(tmp_path / "map.tif", both.grid) as writer:
        tiles = both.tiles(256)
        next(tiles)
        before = resident()
        for tile in tiles:
            writer.write(tile.row, tile.col, tile.pred[0, 0])
        assert resident() - before < 128  # MB: the cache of 64, and a few tiles
