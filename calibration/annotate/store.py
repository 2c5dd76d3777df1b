"""Raters and votes in SQLite: a vote is on disk before anybody is told so.

The journal is a write-ahead log and every commit is synced (``synchronous = FULL``), so neither a
crash of the server nor one of the machine loses a vote that was acknowledged. A vote carries a
``nonce`` of the page's making: sent twice it is recorded once, and an old one is never taken again,
not even after an undo.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import LpipsSatError

TOKEN_BYTES = 24  # 192 random bits in a link
SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE admin (token TEXT NOT NULL);
CREATE TABLE rater (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    token TEXT NOT NULL UNIQUE
);
CREATE TABLE deal (
    rater INTEGER NOT NULL REFERENCES rater,
    position INTEGER NOT NULL,
    trial INTEGER NOT NULL,
    swapped INTEGER NOT NULL CHECK (swapped IN (0, 1)),
    PRIMARY KEY (rater, position)
) WITHOUT ROWID;
CREATE TABLE vote (
    rater INTEGER NOT NULL,
    position INTEGER NOT NULL,
    nonce TEXT NOT NULL,
    answer TEXT NOT NULL CHECK (answer IN ('left', 'right', 'same', 'different')),
    confidence INTEGER CHECK (confidence IN (1, 2, 3)),
    seconds REAL NOT NULL,
    answered REAL NOT NULL,
    undone REAL,
    PRIMARY KEY (rater, nonce),
    FOREIGN KEY (rater, position) REFERENCES deal
) WITHOUT ROWID;
CREATE UNIQUE INDEX one_vote ON vote (rater, position) WHERE undone IS NULL;
"""


class StudyError(LpipsSatError):
    """A study that cannot be made, opened or exported."""


class ConflictError(StudyError):
    """A vote or an undo that does not fit what is recorded."""


@dataclass(frozen=True)
class Rater:
    """A rater with the secret part of their link."""

    id: int
    name: str
    token: str


@dataclass(frozen=True)
class Vote:
    """What the page sends; ``answer`` names the side on the screen, ``seconds`` the time taken."""

    position: int
    answer: str
    confidence: int | None
    seconds: float
    nonce: str


@dataclass(frozen=True)
class Item:
    """A trial as one rater sees it."""

    position: int
    trial: int
    swapped: bool


class Store:
    """The database of a study. Safe to share between threads; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise StudyError(f"{path} is missing")
        # Two connections: nobody who reads waits for the disk that a vote waits for.
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._db, self._reader = _connect(path), _connect(path)

    @classmethod
    def create(cls, path: Path) -> Store:
        """A new database, readable by its owner only: it holds everybody's links."""
        path.touch(mode=0o600, exist_ok=False)
        store = cls(path)
        store._db.executescript(SCHEMA)
        store._db.execute("INSERT INTO admin VALUES (?)", (_token(),))
        return store

    def close(self) -> None:
        """Fold the log into the file and let go of it."""
        with self._writing, self._reading:
            self._reader.close()
            self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- raters

    @property
    def admin_token(self) -> str:
        """The secret part of the organiser's link."""
        return str(self._rows("SELECT token FROM admin")[0]["token"])

    def raters(self) -> list[Rater]:
        """All raters in the order in which they were added."""
        return [Rater(**row) for row in self._rows("SELECT id, name, token FROM rater ORDER BY id")]

    def rater(self, token: str) -> Rater | None:
        """Whose link this is."""
        rows = self._rows("SELECT id, name, token FROM rater WHERE token = ?", token)
        return Rater(**rows[0]) if rows else None

    def add_rater(self, name: str, plan: Sequence[tuple[int, bool]]) -> str:
        """A rater who sees ``plan``, (trial, swapped) in order; returns the token of the link."""
        token = _token()
        with self._write() as db:
            if db.execute("SELECT 1 FROM rater WHERE name = ?", (name,)).fetchone():
                raise ConflictError(f"there is a rater {name!r} already: choose another name")
            rater = db.execute(
                "INSERT INTO rater (name, token) VALUES (?, ?)", (name, token)
            ).lastrowid
            db.executemany(
                "INSERT INTO deal VALUES (?, ?, ?, ?)",
                [(rater, i, trial, int(swapped)) for i, (trial, swapped) in enumerate(plan)],
            )
        return token

    def times_dealt(self) -> Counter[int]:
        """How many raters were given each trial."""
        rows = self._rows("SELECT trial, COUNT(*) AS times FROM deal GROUP BY trial")
        return Counter({row["trial"]: row["times"] for row in rows})

    # -- one rater's way through the study

    def progress(self, rater: Rater) -> tuple[int, int]:
        """(answered, asked)."""
        row = self._rows(
            "SELECT (SELECT COUNT(*) FROM vote WHERE rater = :r AND undone IS NULL) AS done,"
            " (SELECT COUNT(*) FROM deal WHERE rater = :r) AS total",
            {"r": rater.id},
        )[0]
        return row["done"], row["total"]

    def item(self, rater: Rater, position: int) -> Item | None:
        """What ``rater`` sees at ``position``; None beyond the end."""
        rows = self._rows(
            "SELECT trial, swapped FROM deal WHERE rater = ? AND position = ?",
            *(rater.id, position),
        )
        return Item(position, rows[0]["trial"], bool(rows[0]["swapped"])) if rows else None

    def vote(self, rater: Rater, vote: Vote) -> bool:
        """Record the vote on the next trial; True if it is new, False if it was recorded just now.

        ConflictError for any other trial, for a used nonce, and for a changed answer.
        """
        with self._write() as db:
            row = db.execute(
                "SELECT position, answer, confidence, undone FROM vote"
                " WHERE rater = ? AND nonce = ?",
                (rater.id, vote.nonce),
            ).fetchone()
            done = _answered(db, rater)
            if row is not None:
                same = tuple(row) == (vote.position, vote.answer, vote.confidence, None)
                if same and vote.position == done - 1:
                    return False
                raise ConflictError("this vote was recorded before: it is not taken again")
            if vote.position != done:
                raise ConflictError(f"the next trial is {done}, the vote is on {vote.position}")
            if not _is_dealt(db, rater, vote.position):
                raise ConflictError("all trials are answered")
            db.execute(
                "INSERT INTO vote VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
                (
                    *(rater.id, vote.position, vote.nonce, vote.answer),
                    *(vote.confidence, vote.seconds, time.time()),
                ),
            )
        return True

    def undo(self, rater: Rater, position: int) -> bool:
        """Take back the last vote, on ``position``, which stays on file; False if it is already."""
        with self._write() as db:
            done = _answered(db, rater)
            if position == done:
                return False
            if position != done - 1:
                raise ConflictError(f"the last vote is on {done - 1}, not on {position}")
            db.execute(
                "UPDATE vote SET undone = ? WHERE rater = ? AND position = ? AND undone IS NULL",
                (time.time(), rater.id, position),
            )
        return True

    # -- everything, for the organiser

    def votes(self) -> list[dict[str, Any]]:
        """Every vote that stands, with what was shown."""
        rows = self._rows(
            "SELECT rater, position, trial, swapped, answer, confidence, seconds, answered"
            " FROM vote JOIN deal USING (rater, position) WHERE undone IS NULL"
            " ORDER BY rater, position"
        )
        return [dict(row) for row in rows]

    def undone(self) -> int:
        """How many votes were taken back."""
        return int(self._rows("SELECT COUNT(*) AS n FROM vote WHERE undone IS NOT NULL")[0]["n"])

    # -- below

    def _rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._reading:
            named = values[0] if values and isinstance(values[0], dict) else values
            return self._reader.execute(query, named).fetchall()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that other processes wait for; committed to disk when the block ends."""
        with self._writing:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    return db


def _answered(db: sqlite3.Connection, rater: Rater) -> int:
    """How many votes of ``rater`` stand, which is the position of the next trial."""
    query = "SELECT COUNT(*) FROM vote WHERE rater = ? AND undone IS NULL"
    return int(db.execute(query, (rater.id,)).fetchone()[0])


def _is_dealt(db: sqlite3.Connection, rater: Rater, position: int) -> bool:
    query = "SELECT 1 FROM deal WHERE rater = ? AND position = ?"
    return db.execute(query, (rater.id, position)).fetchone() is not None


def _token() -> str:
    return secrets.token_urlsafe(TOKEN_BYTES)
