"""Outputs that cannot be written are refused before the work, in words; other errors stay."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from lpips_sat.errors import RasterError
from lpips_sat.outputs import check_folder, check_output, whole_file, whole_folder


@pytest.fixture
def closed(tmp_path, monkeypatch):
    """A folder in which nothing can be made, by the administrator either."""

    def refuse(make):
        def call(*args, dir=None, **options):
            if Path(dir) == tmp_path:
                raise PermissionError(13, "Permission denied", str(dir))
            return make(*args, dir=dir, **options)

        return call

    for name in ("TemporaryFile", "mkdtemp"):
        monkeypatch.setattr(tempfile, name, refuse(getattr(tempfile, name)))
    return tmp_path


def test_a_closed_folder_is_refused_before_the_work(closed):
    said = r"cannot write .*: Permission denied; choose another place"
    with pytest.raises(RasterError, match=said):
        check_output(closed / "a.csv", overwrite=False)
    with pytest.raises(RasterError, match=said):
        check_folder(closed / "a" / "deep", mark="m", overwrite=False)
    for writing in (
        whole_file(closed / "a.csv", overwrite=False),
        whole_folder(closed / "a", mark="m"),
    ):
        with pytest.raises(RasterError, match=said), writing:
            pytest.fail("the work began")


def test_a_file_in_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RasterError, match=r"cannot write .*Not a directory"):
        check_folder(tmp_path / "file" / "out", mark="m", overwrite=False)


def test_a_name_that_the_file_system_refuses_is_told(tmp_path):
    name = 250 * "x"  # with what is added beside it, over the 255 bytes of common file systems
    with (
        pytest.raises(RasterError, match=r"cannot write .*name too long"),
        whole_file(tmp_path / name, overwrite=False) as part,
    ):
        part.touch()


def test_errors_of_the_work_stay_what_they_are(tmp_path):
    for writing in (
        whole_file(tmp_path / "a", overwrite=False),
        whole_folder(tmp_path / "b", mark="m"),
    ):
        with pytest.raises(FileNotFoundError, match="input"), writing:
            (tmp_path / "input").read_text()
    assert list(tmp_path.iterdir()) == []
