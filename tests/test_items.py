"""Pairs are found by name, never by position; what does not fit is listed."""

from __future__ import annotations

import pandas as pd
import pytest

from lpips_sat.errors import ResultsError
from lpips_sat.items import Item, is_local, items_of_folders, items_of_manifest


@pytest.fixture
def folders(tmp_path):
    names = {"pred": ["b.tif", "a.png", "c.TIF"], "ref": ["a.tif", "b.tif", "c.tif"]}
    for role, files in names.items():
        (tmp_path / role).mkdir()
        for name in [*files, "notes.txt", ".hidden.tif", "b.tif.aux.xml"]:
            (tmp_path / role / name).touch()
    return {role: tmp_path / role for role in names}


def test_images_are_paired_by_stem_in_the_order_of_names(folders):
    items, unmatched = items_of_folders(folders)
    assert [(item.id, item.scene) for item in items] == [("a", "a"), ("b", "b"), ("c", "c")]
    assert items[0].pred == str(folders["pred"] / "a.png")
    assert items[0].ref == str(folders["ref"] / "a.tif")
    assert unmatched == []


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("a/b.tif", True),
        ("C:/a.tif", True),
        ("https://x/a.tif", False),
        ("s3://bucket/a.tif", False),
        ("zip+https://x/a.zip!b.tif", False),
        ("/vsizip/a.zip/b.tif", False),
        ("GTIFF_DIR:1:a.tif", False),
        ("SENTINEL2_L2A:/a/MTD_MSIL2A.xml:10m:EPSG_32618", False),
    ],
)
def test_gdals_names_are_no_paths(tmp_path, name, local):
    manifest = tmp_path / "pairs.csv"
    manifest.write_text(f"pred,ref\n{name},{name}\n")
    (item,) = items_of_manifest(manifest)
    assert is_local(name) == local
    assert item.ref == (str(tmp_path / name) if local else name)


def test_a_missing_counterpart_is_listed_and_refused_or_left_out(folders):
    (folders["pred"] / "x.tif").touch()
    (folders["ref"] / "a.tif").unlink()
    with pytest.raises(ResultsError, match="2 image") as caught:
        items_of_folders(folders)
    for name in ("a.png", "x.tif", "--allow-missing"):
        assert name in str(caught.value)
    items, unmatched = items_of_folders(folders, allow_missing=True)
    assert [item.id for item in items] == ["b", "c"]
    assert sorted(name.rsplit("/")[-1] for name in unmatched) == ["a.png", "x.tif"]


def test_masks_are_paired_like_images(folders, tmp_path):
    masks = tmp_path / "mask"
    masks.mkdir()
    for name in "abc":
        (masks / f"{name}.tif").touch()
    items, _ = items_of_folders({**folders, "mask": masks})
    assert items[1].mask == str(masks / "b.tif")
    (masks / "b.tif").unlink()
    with pytest.raises(ResultsError, match=r"b\.tif"):
        items_of_folders({**folders, "mask": masks})


def test_folders_that_cannot_be_paired_are_refused(folders, tmp_path):
    (folders["ref"] / "a.jp2").touch()
    with pytest.raises(ResultsError, match="two images of one name"):
        items_of_folders(folders)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ResultsError, match="no image of the same name"):
        items_of_folders({"pred": tmp_path / "empty", "ref": tmp_path / "empty"})
    with pytest.raises(ResultsError, match="expected a folder"):
        items_of_folders({"pred": tmp_path / "none", "ref": tmp_path / "empty"})


def test_a_long_list_is_cut_and_counted(tmp_path):
    for role in ("pred", "ref"):
        (tmp_path / role).mkdir()
    for i in range(30):
        (tmp_path / "pred" / f"{i}.tif").touch()
    with pytest.raises(ResultsError, match="and 20 more"):
        items_of_folders({role: tmp_path / role for role in ("pred", "ref")})


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_manifest_names_pairs_relative_to_itself(tmp_path, suffix):
    rows = {
        "pred": ["p/1.tif", "/abs/2.tif", "https://host/3.tif"],
        "ref": ["r/001.tif", "r/002.tif", "/vsicurl/https://host/r.tif"],
        "mask": ["m.tif", "", None],
        "scene": ["T31", "T31", ""],
    }
    path = tmp_path / f"pairs.{suffix}"
    frame = pd.DataFrame(rows)
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    first, second, third = items_of_manifest(path)
    here = str(tmp_path)
    assert first == Item("001", f"{here}/p/1.tif", f"{here}/r/001.tif", "T31", mask=f"{here}/m.tif")
    assert (second.pred, second.mask, second.lr) == ("/abs/2.tif", None, None)
    assert (third.id, third.scene) == ("r", "r")
    assert (third.pred, third.ref) == ("https://host/3.tif", "/vsicurl/https://host/r.tif")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pred,ref,maks\na,b,c\n", "unknown: maks"),
        ("pred,reference\na,b\n", "missing: ref"),
        ("pred,ref\na,\n", "pair 1: ref is empty"),
        ("pred,ref\na,x.tif\nb,sub/x.tif\n", "more than once: x"),
        ("pred,ref\n", "lists no pair"),
        ("", "not a table"),
        ("pred,ref\n1,2,3,4\n5", "not a table"),
        ("\x00\xff\xfe", "not a table|missing"),
    ],
)
def test_a_bad_manifest_is_one_clear_error(tmp_path, text, said):
    path = tmp_path / "pairs.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ResultsError, match=said):
        items_of_manifest(path)


def test_a_manifest_that_is_missing_or_no_parquet_is_one_clear_error(tmp_path):
    with pytest.raises(ResultsError, match="no such file"):
        items_of_manifest(tmp_path / "none.csv")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ResultsError, match="not a table"):
        items_of_manifest(tmp_path / "x.parquet")
