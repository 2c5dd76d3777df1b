from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lpips_sat.calibration import readers
from lpips_sat.calibration.judgements import JudgementError


@pytest.fixture
def picture():
    """Write a small RGB png whose pixels all hold `value`."""

    def write(path, value, side=8):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((side, side, 3), value, np.uint8)).save(path)
        return path

    return write


@pytest.fixture
def bapps(picture, tmp_path):
    """The published layout: 2afc/val/GROUP/{ref,p0,p1,judge}/000000.{png,npy}, and jnd/val."""
    for group, count in (("cnn", 6), ("superres", 8)):
        for i in range(count):
            root = tmp_path / "2afc" / "val" / group
            for k, name in enumerate(("ref", "p0", "p1")):
                picture(root / name / f"{i:06d}.png", 10 * i + k)
            (root / "judge").mkdir(exist_ok=True)
            np.save(root / "judge" / f"{i:06d}.npy", np.array([i / 10], np.float32))
    for i in range(5):
        root = tmp_path / "jnd" / "val" / "traditional"
        for k, name in enumerate(("p0", "p1")):
            picture(root / name / f"{i:06d}.png", 10 * i + k)
        (root / "same").mkdir(exist_ok=True)
        np.save(root / "same" / f"{i:06d}.npy", np.array([i / 4], np.float32))
    return tmp_path


def test_bapps_choices_keep_images_shares_and_groups(bapps):
    found = readers.read_choices(bapps / "2afc" / "val")
    table = found.table
    assert len(found) == 14
    assert table["source"].value_counts().to_dict() == {"superres": 8, "cnn": 6}
    number = table["crop"].str.split(":").str[0].astype(int).to_numpy()
    np.testing.assert_allclose(table["share_b"], number / 10)  # judge: the share that prefers p1
    for images, k in ((found.ref, 0), (found.a, 1), (found.b, 2)):
        assert images.shape == (14, 8, 8, 3)
        assert images[:, 0, 0, 0].tolist() == (10 * number + k).tolist()
    assert readers.read_choices(bapps / "2afc" / "val" / "cnn").table["source"].unique() == ["cnn"]


def test_bapps_same_different_keeps_images_and_shares(bapps):
    found = readers.read_same_different(bapps / "jnd")
    assert found.same.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.ref[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40]
    assert found.image[:, 0, 0, 0].tolist() == [1, 11, 21, 31, 41]
    assert set(found.group) == {"val/traditional"}
    assert readers.format_of(bapps / "jnd") == "bapps-jnd"


def test_same_different_judgements_are_not_fitted(bapps):
    with pytest.raises(JudgementError, match="validate a metric"):
        readers.read_choices(bapps / "jnd")


def test_a_fifth_of_the_references_validates_whole(picture, tmp_path):
    rows = []
    for i in range(100):
        for side in ("ref", "a", "b"):
            picture(tmp_path / f"{side}{i // 4 if side == 'ref' else i}.png", i)
        rows.append((f"ref{i // 4}.png", f"a{i}.png", f"b{i}.png", "AB"[i % 2]))
    table = pd.DataFrame(rows, columns=["ref", "a", "b", "choice"])
    table.to_csv(tmp_path / "pairs.csv", index=False)
    found = readers.read_choices(tmp_path / "pairs.csv")
    assert found.table["id"].is_unique
    training, validation = found.split()
    assert (len(training), len(validation)) == (80, 20)
    assert not set(training.table["cluster"]) & set(validation.table["cluster"])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_on_the_same_images_are_votes_on_one_trial(picture, tmp_path, suffix):
    for name, value in (("r", 1), ("x", 2), ("y", 3)):
        picture(tmp_path / "images" / f"{name}.png", value)
    r, x, y = (f"images/{name}.png" for name in "rxy")
    rows = [(r, x, y, "A", 3), (r, x, y, "B", 1), (r, x, y, "B", 2), (r, y, x, "A", 3)]
    table = pd.DataFrame(rows, columns=["ref", "a", "b", "choice", "confidence"])
    path = tmp_path / f"votes.{suffix}"
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path, index=False)
    found = readers.read_choices(path)
    assert found.table["share_b"].tolist() == [pytest.approx(2 / 3), 0]
    assert found.table["votes"].tolist() == [3, 1]
    assert found.table["confidence"].tolist() == [2, 3]
    assert found.a[:, 0, 0, 0].tolist() == [2, 3]
    assert found.b[:, 0, 0, 0].tolist() == [3, 2]
    assert found.table["source"].tolist() == ["votes", "votes"]


def test_rows_without_a_source_are_of_the_file(picture, tmp_path):
    for i in range(9):
        picture(tmp_path / f"{i}.png", i)
    rows = [(f"{i}.png", f"{i + 1}.png", f"{i + 2}.png", "A") for i in (0, 3, 6)]
    table = pd.DataFrame(rows, columns=["ref", "a", "b", "choice"])
    for sources, expected in (
        (["mine", None, None], ["mine", "pairs", "pairs"]),
        ([7, None, 8], ["7.0", "pairs", "8.0"]),  # a column with gaps is of floats
        ([None] * 3, ["pairs"] * 3),
        ([7, 7, 8], ["7", "7", "8"]),
    ):
        table.assign(source=sources).to_csv(tmp_path / "pairs.csv", index=False)
        found = readers.read_choices(tmp_path / "pairs.csv")
        assert found.table["source"].tolist() == expected
    scores = pd.DataFrame({"ref": ["0.png"] * 2, "image": ["1.png", "2.png"], "mos": [1, 2]})
    scores.assign(source=["mine", None]).to_csv(tmp_path / "mos.csv", index=False)
    opinions = readers.read_opinions(tmp_path / "mos.csv")
    assert opinions.table["source"].tolist() == ["mine", "mos"]


def test_a_row_without_an_image_is_an_error(picture, tmp_path):
    picture(tmp_path / "r.png", 1)
    row = {"ref": ["r.png"] * 2, "a": ["r.png"] * 2, "b": ["r.png", None], "choice": ["A"] * 2}
    pd.DataFrame(row).to_csv(tmp_path / "pairs.csv", index=False)
    with pytest.raises(JudgementError, match=r"cannot read the image .*nan"):
        readers.read_choices(tmp_path / "pairs.csv")


@pytest.fixture
def opinions(picture, tmp_path):
    """Two references: one with four images, one with two."""
    rows = []
    for ref, scores in (("p", (1.0, 2.0, 4.0, 4.0)), ("q", (3.0, 5.0))):
        picture(tmp_path / f"{ref}.png", ord(ref))
        for i, mos in enumerate(scores):
            picture(tmp_path / f"{ref}{i}.png", round(10 * mos))
            rows.append((f"{ref}.png", f"{ref}{i}.png", mos, 0.8))
    table = pd.DataFrame(rows, columns=["ref", "image", "mos", "std"])
    table.to_csv(tmp_path / "mos.csv", index=False)
    return tmp_path / "mos.csv", table


def test_opinion_scores_become_pairs_with_the_share_of_normal_opinions(opinions):
    path, _ = opinions
    found = readers.read_choices(path)
    mos_a, mos_b = (images[:, 0, 0, 0] / 10.0 for images in (found.a, found.b))
    for share, a, b in zip(found.share_b, mos_a, mos_b, strict=True):
        z = (b - a) / math.sqrt(2 * 0.8**2)
        assert share == pytest.approx(0.5 * (1 + math.erf(z / math.sqrt(2))))
    assert found.table["crop"].value_counts().to_dict() == {"p.png": 4, "q.png": 1}
    of_p = found.table["crop"] == "p.png"
    assert sorted([*mos_a[of_p], *mos_b[of_p]]) == [1, 1, 2, 2, 4, 4, 4, 4]  # each in two pairs
    assert set(found.ref[~of_p.to_numpy(), 0, 0, 0]) == {ord("q")}


def test_without_spread_the_better_mean_takes_all(opinions, tmp_path):
    path, table = opinions
    table.drop(columns="std").to_csv(path, index=False)
    found = readers.read_choices(path)
    better = np.sign(found.b[:, 0, 0, 0].astype(float) - found.a[:, 0, 0, 0])
    assert found.share_b.tolist() == ((better + 1) / 2).tolist()
    assert 0.5 in set(((better + 1) / 2).tolist()) | {0.5}


def test_opinions_are_the_same_at_every_reading(opinions):
    one, two = (readers.read_choices(opinions[0]) for _ in range(2))
    pd.testing.assert_frame_equal(one.table, two.table)


# --- what is refused


def test_what_holds_no_judgements_is_told_the_formats(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "absent", tmp_path / "absent.csv"):
        with pytest.raises(JudgementError, match="BAPPS folders"):
            readers.read_choices(path)


def test_a_table_with_other_columns_is_told_which(tmp_path):
    pd.DataFrame({"ref": ["a"], "image": ["b"], "dmos": [1]}).to_csv(tmp_path / "t.csv")
    with pytest.raises(JudgementError, match=r"higher = better.*dmos"):
        readers.read_choices(tmp_path / "t.csv")


def test_bapps_folders_must_match(bapps):
    (bapps / "2afc" / "val" / "cnn" / "judge" / "000003.npy").unlink()
    with pytest.raises(JudgementError, match="ref and judge differ in 000003"):
        readers.read_choices(bapps / "2afc")


@pytest.mark.parametrize("value", [np.array([1.5]), np.array([None], object)])
def test_a_judgement_must_be_a_share_and_is_never_unpickled(bapps, value):
    np.save(bapps / "2afc" / "val" / "cnn" / "judge" / "000000.npy", value)
    with pytest.raises(JudgementError, match=r"000000\.npy"):
        readers.read_choices(bapps / "2afc")


def test_images_of_other_sizes_missing_or_damaged_are_named(opinions, picture, tmp_path):
    path, _ = opinions
    picture(tmp_path / "p1.png", 3, side=9)
    with pytest.raises(JudgementError, match=r"p1\.png is 9 x 9 px.*one size"):
        readers.read_choices(path)
    (tmp_path / "p1.png").write_bytes(b"not an image")
    with pytest.raises(JudgementError, match=r"cannot read the image .*p1\.png"):
        readers.read_choices(path)
    (tmp_path / "p1.png").unlink()
    with pytest.raises(JudgementError, match=r"p1\.png"):
        readers.read_choices(path)


def test_choices_and_scores_must_be_such(tmp_path, picture):
    for name in "rab":
        picture(tmp_path / f"{name}.png", 1)
    row = {"ref": ["r.png"], "a": ["a.png"], "b": ["b.png"]}
    pd.DataFrame(row | {"choice": ["left"]}).to_csv(tmp_path / "c.csv", index=False)
    with pytest.raises(JudgementError, match=r"A or B, got \['left'\]"):
        readers.read_choices(tmp_path / "c.csv")
    pd.DataFrame(row | {"share_b": [1.2]}).to_csv(tmp_path / "s.csv", index=False)
    with pytest.raises(JudgementError, match="share_b must lie"):
        readers.read_choices(tmp_path / "s.csv")
    scores = pd.DataFrame({"ref": ["r.png"], "image": ["a.png"], "mos": ["good"]})
    scores.to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(JudgementError, match="every mos must be a number"):
        readers.read_choices(tmp_path / "m.csv")
