"""Rasters and maps written: whole or not at all, and in little memory."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.enums import ColorInterp

from lpips_sat import raster
from lpips_sat.errors import (
    MetricInputError,
    OutputExistsError,
    RasterError,
)
from lpips_sat.raster import (
    Grid,
    MapWriter,
    check_output,
    grid_of,
    open_pair,
    read_on,
    write_raster,
)

from .conftest import HEIGHT, UTM18, WIDTH, grid, numbers, put

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
