from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lpips_sat.calibration.annotate.scenes import (
    Display,
    DisplayOptions,
    cut,
    find_rasters,
    texture,
)
from lpips_sat.calibration.annotate.store import StudyError
from lpips_sat.declared import RadiometryOptions
from lpips_sat.errors import GridMismatchError, RadiometryError

BANDS = ("B08", "B04", "B03", "B02")


@pytest.fixture
def scene(textured, put, tmp_path):
    """uint16, reflectance * 10000, bands out of order, a flat third and a hole of nodata."""
    dn = np.rint(1e4 * textured(4, 160, 200, seed=8)).astype(np.uint16)
    dn[:, :, 140:] = 700
    dn[:, 40:60, 30:50] = 0
    return put(tmp_path / "scene.tif", dn, bands=BANDS, scale=1e-4, nodata=0), dn


def test_patches_show_the_declared_bands_with_the_declared_stretch(scene):
    path, dn = scene
    patches, about = cut(
        [path],
        source="s2",
        count=50,
        size=32,
        seed=1,
        display=DisplayOptions(black=(0.02,), white=(0.3, 0.31, 0.32)),
    )
    assert len(patches) > 5
    for patch in patches:
        name, row, col = patch.crop.split(":")
        assert (name, patch.source) == ("scene.tif", "s2")
        window = np.s_[:, int(row) : int(row) + 32, int(col) : int(col) + 32]
        values = dn[window][[1, 2, 3]] * np.float32(1e-4)  # red, green, blue
        white = np.array([0.3, 0.31, 0.32])[:, None, None]
        expected = 255 * np.clip((values - 0.02) / (white - 0.02), 0, 1)
        assert np.abs(patch.image.transpose(2, 0, 1) - expected).max() <= 0.51
        assert (dn[window] != 0).all()  # no pixel of nodata
        assert texture(patch.image) > 0
    assert about["display"]["composite"] == ("B04", "B03", "B02")
    assert about["scenes"][0]["patches"] == len(patches)


def test_patches_never_overlap_and_leave_flat_ground_out(scene):
    patches, _ = cut([scene[0]], source="s", count=50, size=32, seed=0)
    corners = [tuple(map(int, p.crop.split(":")[1:])) for p in patches]
    for i, (row, col) in enumerate(corners):
        assert col < 140
        for other_row, other_col in corners[:i]:
            assert abs(row - other_row) >= 32 or abs(col - other_col) >= 32


def test_the_seed_decides_where(scene):
    first, same, other = (
        [p.crop for p in cut([scene[0]], source="s", count=5, size=32, seed=s)[0]]
        for s in (3, 3, 4)
    )
    assert first == same != other


def test_one_band_is_shown_as_grey(put, textured, tmp_path):
    values = textured(1, 96, 96, seed=2).astype(np.float32)
    path = put(tmp_path / "nir.tif", values, bands=("B08",))
    display = DisplayOptions(black=(0.0,), white=(1.0,))
    patches, _ = cut([path], source="s", count=3, size=32, seed=0, display=display)
    assert len(patches) == 3
    _, row, col = patches[0].crop.split(":")
    where = np.s_[int(row) : int(row) + 32, int(col) : int(col) + 32]
    for channel in patches[0].image.transpose(2, 0, 1):
        assert np.abs(channel - 255 * values[0][where]).max() <= 0.51


def test_several_scenes_of_other_dtypes_share_the_count(put, textured, tmp_path):
    floats = textured(3, 128, 128, seed=2).astype(np.float32)
    bytes_ = np.rint(255 * textured(3, 128, 128, seed=3, high=0.9)).astype(np.uint8)
    put(tmp_path / "a.tif", floats, bands=("red", "green", "blue"))
    patches, _ = cut(find_rasters([tmp_path]), source="s", count=6, size=32, seed=0)
    assert len(patches) == 6
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(2):
        Image.fromarray(bytes_.transpose(1, 2, 0)).save(folder / f"{i}.png")
    shown, about = cut(
        find_rasters([folder]),
        source="s",
        count=6,
        size=32,
        seed=0,
        radiometry=RadiometryOptions(preset="uint8"),
    )
    assert [s["patches"] for s in about["scenes"]] == [3, 3]
    _, row, col = shown[0].crop.split(":")
    where = np.s_[int(row) : int(row) + 32, int(col) : int(col) + 32]
    np.testing.assert_array_equal(shown[0].image, bytes_.transpose(1, 2, 0)[where])


def test_predictions_of_methods_come_from_the_same_place(scene, put, tmp_path):
    path, dn = scene
    for name, gain in (("one", 0.5), ("two", 0.25)):
        (tmp_path / name).mkdir()
        made = np.rint(dn * gain).astype(np.uint16)
        put(tmp_path / name / "scene.tif", made, bands=BANDS, scale=1e-4, nodata=0)
    methods = {"one": tmp_path / "one", "two": tmp_path / "two"}
    unclipped = DisplayOptions(white=(0.35,))
    patches, _ = cut(
        [path], source="s", count=4, size=32, seed=0, methods=methods, display=unclipped
    )
    for patch in patches:
        for name, gain in (("one", 0.5), ("two", 0.25)):
            difference = patch.versions[name] - gain * patch.image
            assert np.abs(difference).max() < 1.2


def test_predictions_on_another_grid_are_refused(scene, put, tmp_path):
    (tmp_path / "one").mkdir()
    put(tmp_path / "one" / "scene.tif", scene[1], bands=BANDS, scale=1e-4, origin=(0.0, 0.0))
    with pytest.raises(GridMismatchError):
        cut([scene[0]], source="s", count=4, size=32, seed=0, methods={"one": tmp_path / "one"})


def test_units_and_stretch_are_never_guessed(put, textured, tmp_path):
    dn = np.rint(1e4 * textured(3, 64, 64)).astype(np.uint16)
    bare = put(tmp_path / "bare.tif", dn, bands=("red", "green", "blue"))
    with pytest.raises(RadiometryError, match="without a declared scale"):
        cut([bare], source="s", count=1, size=32, seed=0)
    odd = put(tmp_path / "odd.tif", dn, bands=("x", "y", "z"), scale=1e-4)
    named = DisplayOptions(composite=("x", "y", "z"))
    with pytest.raises(StudyError, match="--white"):
        cut([odd], source="s", count=1, size=32, seed=0, display=named)


def test_scenes_without_a_textured_patch_are_an_error(put, tmp_path):
    flat = put(
        tmp_path / "f.tif", np.full((3, 64, 64), 0.1, np.float32), bands=("B04", "B03", "B02")
    )
    with pytest.raises(StudyError, match="no patch of 32 px is valid, textured"):
        cut([flat], source="s", count=1, size=32, seed=0)


def test_scenes_of_one_name_or_none_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "x.tif").touch()
    (tmp_path / "b" / "x.tif").touch()
    assert [p.name for p in find_rasters([tmp_path / "a"])] == ["x.tif"]
    with pytest.raises(StudyError, match=r"two scenes are called x\.tif"):
        find_rasters([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(StudyError, match="holds no rasters"):
        find_rasters([tmp_path])


def test_the_display_clips_and_rounds():
    shown = Display(("r", "g", "b"), (0.0,) * 3, (0.5,) * 3)
    values = np.array([-1.0, 0.0, 0.25, 0.5, 9.0]).reshape(1, 1, 5).repeat(3, 0)
    assert shown(values)[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    with pytest.raises(StudyError, match="above --black"):
        DisplayOptions(black=(0.3,), white=(0.2,)).resolve(("B04", "B03", "B02"), "reflectance")
