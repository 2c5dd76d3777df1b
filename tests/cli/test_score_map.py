"""`lpips-sat score --map`."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from .conftest import BANDS, scores, tree


def test_the_map_is_a_georeferenced_picture_of_the_score(run, dn, put, tmp_path):
    images = [image.copy() for image in dn]
    images[0][:, 20:30, 5:50] = 0
    files = [
        put(tmp_path / n, image, bands=BANDS, scale=1e-4, nodata=0)
        for n, image in zip("pr", images, strict=True)
    ]
    result = run("score", *files, "--json", "--map", tmp_path / "map.tif")
    assert result.stderr == f"map: {tmp_path / 'map.tif'}\n"
    with rasterio.open(tmp_path / "map.tif") as src, rasterio.open(files[1]) as ref:
        assert (src.crs, src.transform, src.shape) == (ref.crs, ref.transform, ref.shape)
        assert (src.count, src.dtypes) == (1, ("float32",))
        assert src.descriptions == ("LPIPS-Sat",)
        distance = src.read(1)
    np.testing.assert_array_equal(np.isnan(distance), images[0][0] == 0)
    assert np.nanmean(distance) == pytest.approx(scores(result)["LPIPS-Sat"], abs=1e-4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.tif", "p", "r"]


def test_a_map_that_exists_is_kept_and_replaced_only_when_asked(run, pair, tmp_path):
    target = tmp_path / "map.tif"
    target.write_bytes(b"mine")
    refused = run("score", *pair, "--map", target)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == f"Error: {target} exists: choose another name or pass --overwrite\n"
    assert target.read_bytes() == b"mine"
    assert run("score", *pair, "--map", target, "--overwrite").exit_code == 0
    with rasterio.open(target) as src:
        assert src.shape == (64, 72)


def test_a_map_is_a_geotiff_by_its_name_too(run, pair, tmp_path):
    refused = run("score", *pair, "--map", tmp_path / "map.png")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "map.png: expected a name that ends in .tif, .tiff" in refused.stderr
    assert not (tmp_path / "map.png").exists()


@pytest.mark.parametrize("which", [0, 1])
def test_an_input_is_never_replaced_by_the_map(run, pair, which):
    before = tree(pair[0].parent)
    result = run("score", *pair, "--map", pair[which], "--overwrite")
    assert result.exit_code == 1
    assert "is an input" in result.stderr
    assert tree(pair[0].parent) == before


def test_what_a_vrt_is_read_from_is_an_input_too(run, pair, tmp_path):
    pred, ref = pair
    vrt = tmp_path / "ref.vrt"
    with rasterio.open(ref) as src:
        names = [src.descriptions[i - 1] for i in src.indexes]
        bands = "".join(
            f"""<VRTRasterBand dataType="{src.dtypes[i - 1]}" band="{i}">
            <Description>{names[i - 1]}</Description><SimpleSource>
            <SourceFilename>{ref}</SourceFilename><SourceBand>{i}</SourceBand>
            </SimpleSource></VRTRasterBand>"""
            for i in src.indexes
        )
        place = ", ".join(map(str, src.transform.to_gdal()))
        vrt.write_text(
            f"""<VRTDataset rasterXSize="{src.width}" rasterYSize="{src.height}">
            <SRS>{src.crs.to_wkt()}</SRS><GeoTransform>{place}</GeoTransform>{bands}</VRTDataset>"""
        )
    outer = tmp_path / "outer.vrt"
    outer.write_text(vrt.read_text().replace(str(ref), str(vrt)))
    before = ref.read_bytes()
    words = ("--scale", 1e-4, "--offset", 0, "--map", ref, "--overwrite")
    for source in (vrt, outer):
        refused = run("score", pred, source, *words)
        assert (refused.exit_code, ref.read_bytes() == before) == (1, True)
        assert "is an input" in refused.stderr
