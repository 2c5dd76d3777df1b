from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
from rasterio.warp import transform_bounds

from sr_models.data.audit import audit_pairs
from sr_models.data.check import check_pairs
from sr_models.data.errors import PairError
from sr_models.data.imports import import_pairs
from sr_models.data.pairs import PairDataset
from sr_models.data.readers import FORMATS
from tests.sr_models.data import public_sets as public

BOUNDS = ["left", "right", "bottom", "top"]


def table_of(root):
    return pd.read_parquet(root / "manifest.parquet")


def raw(path):
    with rasterio.open(path) as src:
        return src.read(), src.transform, src.crs


MAKERS = {
    "sen2venus": public.sen2venus,
    "worldstrat": public.worldstrat,
    "opensr-test": public.opensr_test,
    "sen2naip": public.sen2naip,
}
TILES = {"worldstrat": ("--tile", 96)}


@pytest.fixture(scope="module")
def sources(tmp_path_factory, textured):
    """The folders of all public sets, in miniature, and what their makers return."""
    folder = tmp_path_factory.mktemp("public")
    made = {name: make(folder / name, textured) for name, make in MAKERS.items()}
    return folder, made


@pytest.fixture(scope="module")
def venus(tmp_path_factory, sources):
    folder = tmp_path_factory.mktemp("venus")
    (folder / "source").symlink_to(sources[0] / "sen2venus")
    about = import_pairs("sen2venus", folder / "source", folder / "pairs")
    return folder, sources[1]["sen2venus"], about


@pytest.fixture(scope="module")
def world(tmp_path_factory, sources):
    folder = tmp_path_factory.mktemp("world")
    (folder / "source").symlink_to(sources[0] / "worldstrat")
    about = import_pairs("worldstrat", folder / "source", folder / "pairs", tile=96)
    return folder, about


# --- SEN2VENuS


def test_sen2venus_patches_are_the_tensors_at_their_own_places(venus):
    folder, made, about = venus
    table = table_of(folder / "pairs").set_index("id")
    assert len(table) == 10
    row = table.loc["ALSACE_32ULU_2018-02-14_0001"]
    hr, at, crs = raw(folder / "pairs" / row["hr"])
    np.testing.assert_allclose(hr, made["ALSACE_32ULU_2018-02-14_05m_b2b3b4b8.pt"][1] / 1e4)
    lr, *_ = raw(folder / "pairs" / row["lr"])
    np.testing.assert_allclose(lr, made["ALSACE_32ULU_2018-02-14_10m_b2b3b4b8.pt"][1] / 1e4)
    assert (at.a, at.e, at.c, at.f, crs.to_epsg()) == (5, -5, 500_320, 4_200_000, 32632)
    assert about["lr"]["bands"] == ["B02", "B03", "B04", "B08"]
    assert (about["factor"], about["lr"]["gsd"], about["hr"]["gsd"]) == (2, 10, 5)


def test_sen2venus_sites_are_split_as_a_whole_and_those_on_one_ground_as_one(venus):
    folder, *_ = venus
    table = table_of(folder / "pairs")
    table["site"] = table["id"].str.split("_32ULU").str[0]
    splits = table.groupby("site")["split"].unique()
    assert all(len(s) == 1 for s in splits)
    assert splits["SUDOUE-4"] == splits["SUDOUE-5"]
    assert set(table["split"]) == {"train", "val", "test"}
    assert table.groupby("block")["split"].nunique().max() == 1


def test_sen2venus_says_when_and_whence(venus):
    folder, *_ = venus
    row = table_of(folder / "pairs").iloc[0]
    assert (row["lr_date"], row["hr_date"]) == ("2018-02-14T10:45:00", "2018-02-14T10:30:00")
    assert row["hr_view"] == 17.5
    found = audit_pairs(folder / "pairs").table
    assert found["days"].iloc[0] == pytest.approx(15 / 60 / 24)
    np.testing.assert_allclose(found["gain_B04"], 1.05, rtol=0.01)
    assert found["spectral_angle"].max() < 0.1  # a gain that all bands share turns no spectrum


def test_sen2venus_red_edge_bands_are_four_times_finer(venus, tmp_path):
    folder, *_ = venus
    about = import_pairs("sen2venus-20m", folder / "source", tmp_path / "pairs")
    assert (about["factor"], about["lr"]["gsd"], about["hr"]["gsd"]) == (4, 20, 5)
    assert about["hr"]["bands"] == ["B05", "B06", "B07", "B8A"]
    assert check_pairs(tmp_path / "pairs")["problems"] == []


class Harmful:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize("content", ["object", "bytes", "floats", "bands"])
def test_sen2venus_reads_nothing_but_tensors(venus, tmp_path, capsys, content):
    folder, *_ = venus
    shutil.copytree(folder / "source", tmp_path / "source")
    path = tmp_path / "source" / "NARYN_C_" / "NARYN_C__32ULU_2018-02-14_05m_b2b3b4b8.pt"
    if content == "bytes":
        path.write_bytes(b"no tensor")
    else:
        values = {"floats": torch.zeros(2, 4, 64, 64), "bands": torch.zeros(2, 3, 64, 64).short()}
        torch.save(values.get(content, Harmful()), path)
    with pytest.raises(PairError, match=r"05m_b2b3b4b8\.pt") as raised:
        import_pairs("sen2venus", tmp_path / "source", tmp_path / "pairs")
    assert "executed" not in capsys.readouterr().out
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "pairs").exists()


# --- WorldStrat


def test_worldstrat_keeps_its_split_and_takes_the_nearest_clear_visit(world):
    folder, about = world
    table = table_of(folder / "pairs")
    assert set(table["lr_date"]) == {"2021-01-11"}  # not the nearer one, which has clouds
    areas = dict(zip(table["block"], table["split"], strict=True))
    assert areas == {
        "Landcover-773616": "train",
        "UNHCR-GHAs003590": "val",
        "Amnesty_POI-20-2-2": "test",
    }
    assert (about["factor"], about["hr"]["resampled"], about["hr"]["native_gsd"]) == (6, True, 1.5)
    found = audit_pairs(folder / "pairs")
    assert (found.table["days"] == 10).all()
    assert all("10.0 days apart" in reasons for reasons in found.outside.values())


def test_worldstrat_tiles_show_the_same_ground(world):
    folder, _ = world
    table = table_of(folder / "pairs")
    assert len(table) == 3 * 2 * 2
    found = audit_pairs(folder / "pairs").table
    assert found["shift"].max() < 0.1
    np.testing.assert_allclose(found["bias_B08"], 0.003, atol=1e-3)
    row = table.set_index("id").loc["Landcover-773616_r1_c0"]
    lr, at, crs = raw(folder / "pairs" / row["lr"])
    source = folder / "source" / "lr_dataset" / "Landcover-773616" / "L2A"
    whole, whole_at, _ = raw(source / "Landcover-773616-3-L2A_data.tiff")
    np.testing.assert_array_equal(lr, whole[[3, 2, 1, 7], 16:32, :16])
    assert (at.c, at.f) == pytest.approx((whole_at.c, whole_at.f + 16 * whole_at.e))
    assert crs.to_epsg() == 4326


def test_worldstrat_without_a_clear_visit_leaves_out_the_cloudy_tile(world, tmp_path):
    folder, _ = world
    shutil.copytree(folder / "source", tmp_path / "source")
    area = "Landcover-773616"
    for n in (2, 3):
        mask = tmp_path / "source" / "lr_dataset" / area / "L2A" / f"{area}-{n}-CLM.tiff"
        with rasterio.open(mask, "r+") as dst:
            cloud = dst.read()
            cloud[0, 35, 33] = 1
            dst.write(cloud)
    (tmp_path / "source" / "hr_dataset" / "12bit").rename(tmp_path / "hr")
    (tmp_path / "source" / "hr_dataset").rmdir()
    (tmp_path / "hr").rename(tmp_path / "source" / "hr_dataset")  # both places are in use
    import_pairs("worldstrat", tmp_path / "source", tmp_path / "pairs", tile=96)
    rows = table_of(tmp_path / "pairs").set_index("id").filter(like=area, axis=0)
    assert set(rows["lr_date"]) == {"2021-01-02"}
    assert rows.loc[f"{area}_r0_c0", "left_out"] == "invalid"
    assert rows.loc[f"{area}_r0_c0", "valid"] == pytest.approx(1 - 9 / 16**2)
    assert (rows.drop(f"{area}_r0_c0")["split"] == "train").all()


# --- SEN2NAIP and opensr-test


def test_sen2naip_pairs_are_the_files_with_their_dates(tmp_path, sources):
    source = sources[0] / "sen2naip"
    about = import_pairs("sen2naip", source, tmp_path / "pairs", sun_zenith=40)
    table = table_of(tmp_path / "pairs")
    assert list(table["id"]) == list(table["block"]) == [f"ROI_{i:04d}" for i in range(5)]
    assert set(table["lr_date"]) == {"2021-08-13T17:29:01"}
    assert set(table["hr_date"]) == {"2021-08-12"}
    assert (audit_pairs(tmp_path / "pairs").table["days"] == 1).all()  # days, as HR has no time
    hr, *_ = raw(tmp_path / "pairs" / table["hr"].iloc[0])
    stored, *_ = raw(source / "cross-sensor" / "ROI_0000" / "hr.tif")
    np.testing.assert_allclose(hr, stored / 255, rtol=1e-6)
    assert about["hr"]["radiometry"] == "DN / 255 (NAIP, not calibrated to reflectance)"
    assert (about["factor"], about["hr"]["gsd"], about["sun_zenith"]) == (4, 2.5, 40)
    item = PairDataset(tmp_path / "pairs", "train", "synthetic", crop=64)[0]
    assert item["lr"].shape == (4, 16, 16)


def test_sen2naip_places_that_overlap_are_split_together(tmp_path, sources):
    source = shutil.copytree(sources[0] / "sen2naip", tmp_path / "source")
    for i, other in ((1, 0), (2, 1)):  # a chain: 0 - 1 - 2
        for name in ("lr.tif", "hr.tif"):
            with rasterio.open(source / "cross-sensor" / f"ROI_{i:04d}" / name, "r+") as dst:
                at = dst.transform
                shifted = rasterio.Affine(at.a, 0, 500_000 + 160 * (other + 1), 0, at.e, at.f)
                dst.transform = shifted
    import_pairs("sen2naip", source, tmp_path / "pairs")
    table = table_of(tmp_path / "pairs").set_index("id")
    assert list(table["block"]) == ["ROI_0000"] * 3 + ["ROI_0003", "ROI_0004"]
    assert check_pairs(tmp_path / "pairs")["problems"] == []


def test_places_that_overlap_across_zones_are_split_together(tmp_path, sources):
    source = shutil.copytree(sources[0] / "sen2naip", tmp_path / "source")
    place = source / "cross-sensor" / "ROI_0003"
    for name in ("lr.tif", "hr.tif"):
        with rasterio.open(source / "cross-sensor" / "ROI_0004" / name) as src:
            left, bottom, right, top = src.bounds
            zone = rasterio.CRS.from_epsg(src.crs.to_epsg() + 1)
            west, south, *_ = transform_bounds(src.crs, zone, left, bottom, right, top)
            size, height = src.res[0], src.height
        with rasterio.open(place / name, "r+") as dst:
            dst.crs = zone
            dst.transform = rasterio.Affine(size, 0, west, 0, -size, south + size * height)
    import_pairs("sen2naip", source, tmp_path / "pairs")
    table = table_of(tmp_path / "pairs").set_index("id")
    assert table["block"]["ROI_0003"] == table["block"]["ROI_0004"]
    assert check_pairs(tmp_path / "pairs")["problems"] == []
    manifest = tmp_path / "pairs" / "manifest.parquet"
    torn = pd.read_parquet(manifest)
    torn.loc[torn["id"] == "ROI_0003", ["block", "split"]] = ["ROI_0003", "train"]
    torn.loc[torn["id"] == "ROI_0004", ["block", "split"]] = ["ROI_0004", "test"]
    torn.to_parquet(manifest)
    problems = check_pairs(tmp_path / "pairs")["problems"]
    assert any("shares ground with block ROI_0004 in another CRS" in p for p in problems)


def test_opensr_test_is_for_tests_only_and_no_pickle_is_opened(tmp_path, sources):
    source = sources[0] / "opensr-test"
    about = import_pairs("opensr-test", source, tmp_path / "pairs")
    table = table_of(tmp_path / "pairs")
    assert set(table["split"]) == {"test"}
    assert list(table["lr_date"]) == ["2021-09-17T18:20:21", "2017-01-28T08:12:01"]
    assert list(table["hr_date"]) == ["2021-09-17", "2017-02-05T07:55:04"]
    lr, *_ = raw(tmp_path / "pairs" / table["lr"].iloc[1])
    file = next((source / "L2A").glob("ROI_00001__*.tif"))
    np.testing.assert_allclose(lr, raw(file)[0][[3, 2, 1, 7]] / 1e4, rtol=1e-6)
    assert about["lr"]["bands"] == ["B04", "B03", "B02", "B08"]
    assert audit_pairs(tmp_path / "pairs").table["shift"].max() < 0.05


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: text.rsplit("\t", 1)[0], r"line \d: expected 12"),
        (
            lambda text: text.replace("\t17.5\t", "\tn/a\t"),
            r"index\.csv: venus_zenith_angle is 'n/a'",
        ),
        (lambda text: text + "\udcff", "no table in UTF-8"),
    ],
)
def test_a_damaged_table_is_one_clear_line(tmp_path, sources, spoil, said):
    source = shutil.copytree(sources[0] / "sen2venus", tmp_path / "source")
    index = next(source.glob("**/index.csv"))
    text = spoil(index.read_text().rstrip())
    index.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(PairError, match=said):
        import_pairs("sen2venus", source, tmp_path / "pairs", tile=64)


def test_a_description_that_is_none_is_one_clear_line(tmp_path):
    for text in ("{}", "[]", "3"):
        (tmp_path / "dataset.json").write_text(text)
        with pytest.raises(PairError, match=r"dataset\.json is damaged"):
            check_pairs(tmp_path)


# --- all of them


@pytest.mark.parametrize("name", MAKERS)
def test_the_command_imports_a_set_that_is_whole_and_free_of_leaks(
    tmp_path, sources, mindgap, name
):
    source = sources[0] / name
    out = tmp_path / "pairs"
    args = ("data", "import", "--format", name, source, "--out", out)
    made = mindgap(*args, *TILES.get(name, ()))
    assert made.exit_code == 0, made.output
    tiles = json.loads(made.stdout)[str(out)]["tiles"]
    checked = mindgap("data", "check", out)
    assert checked.exit_code == 0, checked.output
    assert json.loads(checked.stdout)["splits"] == tiles
    assert (out / "preview.png").is_file()
    assert json.loads((out / "dataset.json").read_text())["title"] == FORMATS[name].title
    for split in tiles:
        assert len(PairDataset(out, split)) == tiles[split]
    # the oracle of leaks: no tile of another split shares ground with one that trains
    table = table_of(out)
    for crs, part in table[table["split"] != ""].groupby("crs"):
        assert crs
        boxes = {
            s: p[["left", "right", "bottom", "top"]].to_numpy() for s, p in part.groupby("split")
        }
        for one in boxes.get("train", []):
            for split in set(boxes) - {"train"}:
                for other in boxes[split]:
                    wide = min(one[1], other[1]) - max(one[0], other[0])
                    tall = min(one[3], other[3]) - max(one[2], other[2])
                    assert min(wide, tall) <= 1e-9
    again = mindgap(*args)
    assert again.exit_code == 1
    assert "--overwrite" in again.stderr


def spoil(kind, source):
    image = next(p for p in sorted(source.rglob("*")) if p.suffix in (".pt", ".tif", ".tiff"))
    if kind in ("nothing there", "empty"):
        shutil.rmtree(source)
    if kind == "empty":
        source.mkdir()
    elif kind == "a file is missing":
        image.unlink()
    elif kind == "a file is damaged":
        image.write_text("")
    elif kind == "other columns":
        for path in source.rglob("*.csv"):
            path.write_text("a,b\n1,2\n")
        for path in source.rglob("*.json"):
            path.write_text("{")


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(
    "kind",
    ["nothing there", "empty", "a file is missing", "a file is damaged", "other columns"],
)
def test_a_set_that_is_not_as_published_is_one_line_and_leaves_nothing(
    tmp_path, sources, mindgap, name, kind
):
    shutil.copytree(sources[0] / name, tmp_path / "source")
    spoil(kind, tmp_path / "source")
    args = ("data", "import", "--format", name, tmp_path / "source", "--out", tmp_path / "pairs")
    result = mindgap(*args, *TILES.get(name, ()))
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1
    assert {p.name for p in tmp_path.iterdir()} <= {"source"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tile": 30}, "tiles of 30 px do not fit"),
        ({"tile": 1024}, "tiles of 1024 px do not fit"),
        ({"min_texture": 1.0}, "0 places with textured, valid pairs"),
    ],
)
def test_settings_that_make_no_set_are_refused(tmp_path, textured, settings, message):
    source = public.sen2naip(tmp_path / "source", textured, 3)
    with pytest.raises(PairError, match=message):
        import_pairs("sen2naip", source, tmp_path / "pairs", **settings)
    with pytest.raises(PairError, match="unknown format 'naip'"):
        import_pairs("naip", source, tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()


def test_two_places_are_too_few_to_train_validate_and_test(tmp_path, textured):
    source = public.sen2naip(tmp_path / "source", textured, 2)
    with pytest.raises(PairError, match=r"2 places .* at least 3 are needed"):
        import_pairs("sen2naip", source, tmp_path / "pairs")


def test_check_names_leaks_of_an_imported_set(venus, tmp_path):
    folder, *_ = venus
    shutil.copytree(folder / "pairs", tmp_path / "pairs")
    table = table_of(tmp_path / "pairs")
    train = table.index[table["split"] == "train"][0]
    test = table.index[table["split"] == "test"][0]
    table.loc[test, BOUNDS] = table.loc[train, BOUNDS].to_numpy() + np.array([5, 5, 0, 0])
    table.loc[train, "block"] = table.loc[test, "block"]
    table.to_parquet(tmp_path / "pairs" / "manifest.parquet")
    problems = check_pairs(tmp_path / "pairs")["problems"]
    assert problems == [
        f"block {table.loc[test, 'block']}: in test and train, expected one split",
        f"{table.loc[test, 'id']}: shares ground with the training tile {table.loc[train, 'id']}",
    ]
