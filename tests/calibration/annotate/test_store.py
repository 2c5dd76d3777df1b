from __future__ import annotations

import sqlite3
import threading

import pytest

from lpips_sat.calibration.annotate.store import ConflictError, Store, StudyError, Vote


@pytest.fixture
def store(tmp_path):
    with Store.create(tmp_path / "study.db") as made:
        made.add_rater("ann", [(7, False), (3, True), (5, False)])
        made.add_rater("bob", [(3, False), (5, True), (7, True)])
        yield made


def cast(position, nonce, answer="left", confidence=3):
    return Vote(position, answer, confidence, 1.0, f"{nonce:>16}".replace(" ", "x"))


def test_votes_are_recorded_in_order_with_what_was_shown(store):
    ann, bob = store.raters()
    assert store.vote(ann, cast(0, "a"))
    assert store.vote(ann, cast(1, "b", "right", None))
    assert store.vote(bob, cast(0, "a"))
    kept = [(v["rater"], v["trial"], v["swapped"], v["answer"]) for v in store.votes()]
    assert kept == [(1, 7, 0, "left"), (1, 3, 1, "right"), (2, 3, 0, "left")]
    assert store.progress(ann) == (2, 3)


def test_a_vote_sent_twice_is_recorded_once(store):
    ann, _ = store.raters()
    assert store.vote(ann, cast(0, "a"))
    assert not store.vote(ann, cast(0, "a"))
    assert len(store.votes()) == 1


@pytest.mark.parametrize(
    "bad",
    [
        cast(0, "other"),  # that trial has a vote
        cast(2, "ahead"),
        cast(0, "a", "right"),  # the same vote with another answer
        cast(1, "a"),  # the same nonce on another trial
    ],
)
def test_a_vote_that_contradicts_the_record_changes_nothing(store, bad):
    ann, _ = store.raters()
    store.vote(ann, cast(0, "a"))
    before = store.votes()
    with pytest.raises(ConflictError):
        store.vote(ann, bad)
    assert store.votes() == before


def test_an_undone_vote_cannot_be_replayed_but_stays_on_file(store):
    ann, _ = store.raters()
    store.vote(ann, cast(0, "a"))
    assert store.undo(ann, 0)
    assert not store.undo(ann, 0)
    assert store.progress(ann) == (0, 3)
    with pytest.raises(ConflictError, match="recorded before"):
        store.vote(ann, cast(0, "a"))
    assert store.vote(ann, cast(0, "b", "right"))
    assert [v["answer"] for v in store.votes()] == ["right"]
    assert store.undone() == 1


def test_only_the_last_vote_can_be_undone(store):
    ann, _ = store.raters()
    for i in range(2):
        store.vote(ann, cast(i, f"n{i}"))
    with pytest.raises(ConflictError, match="last vote is on 1"):
        store.undo(ann, 0)
    assert store.progress(ann) == (2, 3)


def test_there_is_nothing_beyond_the_last_trial(store):
    ann, _ = store.raters()
    for i in range(3):
        store.vote(ann, cast(i, f"n{i}"))
    assert store.item(ann, 3) is None
    with pytest.raises(ConflictError, match="all trials are answered"):
        store.vote(ann, cast(3, "more"))


def test_an_acknowledged_vote_is_on_disk(store, tmp_path):
    ann, _ = store.raters()
    store.vote(ann, cast(0, "a"))
    copy = sqlite3.connect(tmp_path / "study.db")  # another process would see the same
    assert copy.execute("SELECT COUNT(*) FROM vote").fetchone() == (1,)
    assert copy.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    copy.close()
    assert store._db.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL


def test_many_threads_lose_and_double_nothing(tmp_path):
    with Store.create(tmp_path / "s.db") as store:
        for name in "abcd":
            store.add_rater(name, [(i, False) for i in range(50)])

        def answer(rater):
            for i in range(50):
                for _ in range(2):
                    store.vote(rater, cast(i, f"n{i}"))

        threads = [threading.Thread(target=answer, args=(r,)) for r in store.raters()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        kept = [(v["rater"], v["position"]) for v in store.votes()]
        assert sorted(kept) == [(r, i) for r in range(1, 5) for i in range(50)]


def test_links_are_long_and_never_alike(store):
    tokens = [rater.token for rater in store.raters()] + [store.admin_token]
    assert len(set(tokens)) == 3
    assert all(len(token) == 32 for token in tokens)
    assert store.rater(store.admin_token) is None


def test_the_database_is_its_owners_alone(store, tmp_path):
    assert (tmp_path / "study.db").stat().st_mode & 0o077 == 0


def test_two_raters_of_one_name_are_refused(store):
    with pytest.raises(ConflictError, match="'ann' already"):
        store.add_rater("ann", [])
    assert len(store.raters()) == 2


def test_a_database_that_is_missing_is_not_made_by_opening_it(tmp_path):
    with pytest.raises(StudyError, match="is missing"):
        Store(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
