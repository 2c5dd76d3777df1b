from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lpips_sat.calibration.judgements import (
    SHIPPED,
    VALIDATION_STEP,
    JudgementError,
    Judgements,
    read_card,
    read_judgements,
    read_table,
)

# (id, rater, choice, confidence); trial 4 has no vote, and the trials are not in order of id
VOTES = [
    *((0, "r0", "A", 3), (1, "r0", "A", 1), (1, "r1", "B", 2)),
    *((2, "r0", "B", 3), (2, "r1", "B", 3), (2, "r2", "A", 2)),
    *((3, "r0", "B", 1), (5, "r0", "B", 2), (10, "r1", "A", 3)),
]
TRIALS = [
    *((3, "naip", "b.png:0:64"), (0, "naip", "b.png:64:0"), (1, "naip", "c.png:0:0")),
    *((2, "eurosat", "River/River_1.jpg:0:0"), (4, "eurosat", "River/River_2.jpg:0:0")),
    *((5, "planetscope", "b.png:9:9"), (10, "planetscope", "b.png:1:1")),
]


def write(folder, votes=VOTES, trials=TRIALS, count=11, **images):
    """A release whose images of trial i hold i (ref), 50 + i (a) and 100 + i (b)."""
    folder.mkdir(exist_ok=True)
    columns = ["id", "rater", "choice", "confidence"]
    pd.DataFrame(votes, columns=columns).to_csv(folder / "votes.csv", index=False)
    table = pd.DataFrame(trials, columns=["id", "source", "crop"])
    table = table.assign(distortion_a="blur", severity_a=0.1, distortion_b="noise", severity_b=0.2)
    table.to_csv(folder / "trials.csv", index=False)
    ids = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1)
    made = {n: ids + np.zeros((4, 6, 3), np.uint8) + k for n, k in (("ref", 0), ("a", 50))}
    made["b"] = made["ref"] + 100
    made = {n: a for n, a in (made | images).items() if a is not None}
    np.savez(folder / "images.npz", **made)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "release")


def test_shares_votes_and_confidences_are_summed_up_per_trial(folder):
    table = read_table(folder).set_index("id")
    assert table["share_b"].to_dict() == {3: 1, 0: 0, 1: 0.5, 2: pytest.approx(2 / 3), 5: 1, 10: 0}
    assert table["votes"].to_dict() == {3: 1, 0: 1, 1: 2, 2: 3, 5: 1, 10: 1}
    confidence = {3: 1, 0: 3, 1: 1.5, 2: pytest.approx(8 / 3), 5: 2, 10: 3}
    assert table["confidence"].to_dict() == confidence


def test_a_cluster_is_the_reference_image_within_its_source(folder):
    clusters = read_table(folder).set_index("id")["cluster"].to_dict()
    assert clusters == {
        3: "naip:b.png",
        0: "naip:b.png",
        1: "naip:c.png",
        2: "eurosat:River/River_1.jpg",
        5: "planetscope:b.png",
        10: "planetscope:b.png",
    }


def test_every_trial_keeps_its_own_images(folder):
    trials = read_judgements(folder)
    ids = trials.table["id"].to_numpy()
    assert ids.tolist() == [3, 0, 1, 2, 5, 10]
    assert len(trials) == 6
    for images, base in ((trials.ref, 0), (trials.a, 50), (trials.b, 100)):
        assert images.shape == (6, 4, 6, 3)
        assert images.dtype == np.uint8
        np.testing.assert_array_equal(images[:, 0, 0, 0], ids + base)


def test_a_part_keeps_trials_and_images_together(folder):
    trials = read_judgements(folder)
    part = trials.where((trials.table["source"] == "naip").to_numpy())
    assert part.table["id"].tolist() == [3, 0, 1]
    assert part.table.index.tolist() == [0, 1, 2]
    assert part.b[:, 0, 0, 0].tolist() == [103, 100, 101]


def test_ids_that_are_multiples_of_five_validate(folder):
    training, validation = read_judgements(folder).split()
    assert training.table["id"].tolist() == [3, 1, 2]
    assert validation.table["id"].tolist() == [0, 5, 10]
    assert validation.ref[:, 0, 0, 0].tolist() == [0, 5, 10]
    assert VALIDATION_STEP == 5


def test_the_shipped_table_is_satellite_2afc(tmp_path):
    table = read_table()
    assert table["id"].tolist() == list(range(2400))
    assert table["votes"].sum() == 2680
    assert (table["id"] % 5 == 0).sum() == 480
    assert set(table["source"]) == {"eurosat", "naip", "planetscope", "sentinel2"}
    assert table["share_b"].between(0, 1).all()
    assert table["confidence"].between(1, 3).all()
    assert 0.4 < table["share_b"].mean() < 0.6  # the sides were dealt at random


@pytest.mark.parametrize("name", ["trials.csv", "votes.csv", "images.npz"])
def test_a_file_that_is_missing_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(JudgementError, match=name):
        read_judgements(folder)


def test_a_folder_that_is_missing_is_no_release(tmp_path):
    with pytest.raises(JudgementError, match=r"trials\.csv, votes\.csv missing"):
        read_table(tmp_path / "absent")


@pytest.mark.parametrize("choice", ["b", "C", "both"])
def test_a_choice_other_than_a_or_b_is_refused(tmp_path, choice):
    folder = write(tmp_path / "r", votes=[*VOTES, (3, "r9", choice, 2)])
    with pytest.raises(JudgementError, match=rf"choices must be A or B, got \['{choice}'\]"):
        read_judgements(folder)


def test_ids_beyond_the_images_are_refused(tmp_path):
    with pytest.raises(JudgementError, match="do not fit ids up to 10"):
        read_judgements(write(tmp_path / "r", count=10))


def test_images_of_different_shapes_are_refused(tmp_path):
    short = np.zeros((10, 4, 6, 3), np.uint8)
    with pytest.raises(JudgementError, match=r"images \(11, 4, 6, 3\).*\(10, 4, 6, 3\)"):
        read_judgements(write(tmp_path / "r", b=short))


def test_an_archive_without_a_side_is_refused(tmp_path):
    with pytest.raises(JudgementError, match="must hold ref, a and b, got ref, a"):
        read_judgements(write(tmp_path / "r", b=None))


def test_columns_that_are_missing_are_named(folder):
    votes = pd.read_csv(folder / "votes.csv")
    votes.drop(columns="confidence").to_csv(folder / "votes.csv", index=False)
    with pytest.raises(JudgementError, match=r"votes\.csv has no column confidence"):
        read_judgements(folder)


@pytest.mark.parametrize(("name", "text"), [("votes.csv", ""), ("trials.csv", "id,source,crop\n")])
def test_tables_without_rows_are_refused(folder, name, text):
    (folder / name).write_text(text)
    with pytest.raises(JudgementError, match=name):
        read_judgements(folder)


def test_votes_on_trials_that_are_not_there_are_refused(tmp_path):
    folder = write(tmp_path / "r", votes=[*VOTES, (7, "r0", "A", 3)])
    with pytest.raises(JudgementError, match=r"not there: \[7\]"):
        read_judgements(folder)


@pytest.mark.parametrize("number", [3, -1])
def test_ids_twice_or_below_0_are_refused(tmp_path, number):
    trials = [*TRIALS, (number, "naip", "d.png:0:0")]
    with pytest.raises(JudgementError, match="an id of its own, 0 or more"):
        read_judgements(write(tmp_path / "r", trials=trials))


@pytest.mark.parametrize("content", ["half", "nothing", "text", "an array", "objects"])
def test_an_archive_that_is_damaged_or_pickled_is_refused(folder, content):
    path = folder / "images.npz"
    whole, objects = path.read_bytes(), np.array([None, {}], dtype=object)
    if content == "objects":
        np.savez(path, ref=objects, a=objects, b=objects)
    elif content == "an array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        half = whole[: len(whole) // 2]
        path.write_bytes({"half": half, "nothing": b"", "text": b"PK, or not"}[content])
    with pytest.raises(JudgementError, match=r"images\.npz is no archive of images, or damaged"):
        read_judgements(folder)


def test_releases_join_into_one_with_their_own_images(folder, tmp_path):
    other = write(tmp_path / "other", trials=[(1, "naip", "d.png:0:0")], votes=[(1, "r0", "B", 2)])
    joined = Judgements.join([read_judgements(folder), read_judgements(other)])
    assert joined.table["id"].tolist() == [3, 0, 1, 2, 5, 10, 1]
    assert joined.b[:, 0, 0, 0].tolist() == [103, 100, 101, 102, 105, 110, 101]
    assert joined.share_b[-1] == 1
    assert len(joined.where(joined.table["cluster"].to_numpy() == "naip:d.png")) == 1


def test_releases_with_patches_of_other_sizes_do_not_join(folder, tmp_path):
    larger = np.zeros((11, 8, 6, 3), np.uint8)
    other = write(tmp_path / "other", ref=larger, a=larger, b=larger)
    with pytest.raises(JudgementError, match="different patch sizes"):
        Judgements.join([read_judgements(folder), read_judgements(other)])


@pytest.mark.parametrize("release", ["v2", "v3", "v4"])
def test_the_card_of_a_release_says_what_its_votes_say(release):
    votes = pd.read_csv(SHIPPED[release] / "votes.csv")
    said = read_card(SHIPPED[release])["agreement"]
    twice = votes.merge(votes, on="id").query("rater_x < rater_y")
    sure = twice[(twice["confidence_x"] > 1) & (twice["confidence_y"] > 1)]
    found = [
        value
        for of in (twice, sure)
        for value in (len(of), round((of["choice_x"] == of["choice_y"]).mean(), 3))
    ]
    assert found == [
        said["pairs of votes"],
        said["same choice"],
        said["pairs of votes that were both at least fairly sure"],
        said["same choice among these"],
    ]
