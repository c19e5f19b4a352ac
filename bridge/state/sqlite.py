"""State of one host: a SQLite file (WAL, full sync) for values, flock files for holds."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from weakref import WeakMethod

from bridge.errors import StateUnavailable
from bridge.state.backend import Change

SWEEP_SECONDS = 60
"""How often what has ended is removed."""

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS state"
    " (name TEXT PRIMARY KEY, value BLOB NOT NULL, ends REAL, shelf TEXT NOT NULL DEFAULT '')",
    # Both answer alone: in the row, `ends` and `shelf` lie behind a value of up to many megabytes.
    "CREATE INDEX IF NOT EXISTS state_shelf ON state (shelf, ends, name) WHERE shelf != ''",
    "CREATE INDEX IF NOT EXISTS state_ends ON state (ends) WHERE ends IS NOT NULL",
)
NEW_COLUMN = "ALTER TABLE state ADD COLUMN shelf TEXT NOT NULL DEFAULT ''"
GET = "SELECT value FROM state WHERE name = ? AND (ends IS NULL OR ends >= ?)"
PUT = "INSERT OR REPLACE INTO state (name, value, ends, shelf) VALUES (?, ?, ?, ?)"
DELETE = "DELETE FROM state WHERE name = ?"
NAMES = "SELECT name FROM state WHERE shelf = ? AND shelf != '' AND (ends IS NULL OR ends >= ?)"
SWEEP = "DELETE FROM state WHERE ends < ?"


class Sqlite:
    """What all workers of one host share."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "state.db"
        self._holds = folder / "locks"
        self._local = threading.local()
        self._next_sweep = 0.0
        self._holds.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Fact: closing a descriptor of a file drops SQLite's locks on it, so only a new one is opened here.
        # The WAL beside it takes over the mode.
        with suppress(FileExistsError):
            os.close(os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        close = WeakMethod(self.close)
        os.register_at_fork(before=lambda: (alive := close()) and alive())
        with self._written() as db:
            columns = {column[1] for column in db.execute("PRAGMA table_info(state)")}
            if columns and "shelf" not in columns:
                db.execute(NEW_COLUMN)
            for statement in SCHEMA:
                db.execute(statement)

    def get(self, name: str) -> bytes | None:
        """Returns the value, None when there is none or it has ended."""
        with _translated():
            row = self._connection().execute(GET, (name, time.time())).fetchone()
        return None if row is None else row[0]

    def put(self, name: str, value: bytes | None, ends: float | None, shelf: str = "") -> None:
        """Replaces the value whatever it is; None deletes."""
        with _translated():
            _put(self._connection(), name, value, ends, shelf)
        self._sweep()

    def update(self, name: str, change: Change, shelf: str = "") -> None:
        """Replaces the value by what `change` makes of it, atomically among all workers."""
        with self._written() as db:
            row = db.execute(GET, (name, time.time())).fetchone()
            value, ends = change(None if row is None else row[0])
            _put(db, name, value, ends, shelf)
        self._sweep()

    def names(self, shelf: str) -> list[str]:
        """Returns the names of the values on a shelf, in any order."""
        with _translated():
            rows = self._connection().execute(NAMES, (shelf, time.time())).fetchall()
        return [name for (name,) in rows]

    def doubts(self) -> list[str]:
        """Returns nothing: a commit here outlives the machine's end."""
        return []

    def hold(self, name: str) -> Flock | None:
        """Returns a hold that nobody else has; the kernel frees it when the process dies."""
        path = self._holds / name
        try:
            fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as e:
            raise StateUnavailable("The locks that the workers share cannot be reached.") from e
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(fd, path):  # and not removed by who had it before
                return Flock(fd, path)
        os.close(fd)
        return None

    def close(self) -> None:
        """Closes this thread's connection; a later use opens a new one. None may live through a fork."""
        if getattr(self._local, "pid", None) == os.getpid():
            self._local.pid = None
            self._local.db.close()

    def _connection(self) -> sqlite3.Connection:
        """Returns this thread's connection, never one from before a fork."""
        if getattr(self._local, "pid", None) != os.getpid():
            self._local.db = sqlite3.connect(self._file, timeout=10, isolation_level=None)
            self._local.db.execute("PRAGMA journal_mode = WAL")
            self._local.db.execute("PRAGMA synchronous = FULL")
            self._local.pid = os.getpid()
        db: sqlite3.Connection = self._local.db
        return db

    @contextmanager
    def _written(self) -> Iterator[sqlite3.Connection]:
        """Yields the connection in a transaction that nobody else writes beside."""
        with _translated():
            db = self._connection()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def _sweep(self) -> None:
        """Removes what has ended, now and then."""
        now = time.time()
        if now > self._next_sweep:
            self._next_sweep = now + SWEEP_SECONDS
            with _translated():
                self._connection().execute(SWEEP, (now,))


class Flock:
    """A locked file of its own."""

    def __init__(self, fd: int, path: Path) -> None:
        self._fd, self._path = fd, path

    def check(self) -> None:
        """Raises `StateUnavailable` when someone removed the file: another process may hold a new one."""
        if not _is_at(self._fd, self._path):
            raise StateUnavailable("A lock that the workers share was lost.")

    def release(self) -> None:
        """Lets others have it; a second time does nothing."""
        fd, self._fd = self._fd, -1
        if _is_at(fd, self._path):
            with suppress(OSError):  # what cannot be removed is no lock without its descriptor
                self._path.unlink(missing_ok=True)
        if fd >= 0:
            os.close(fd)


def _put(db: sqlite3.Connection, name: str, value: bytes | None, ends: float | None, shelf: str) -> None:
    if value is None:
        db.execute(DELETE, (name,))
    else:
        db.execute(PUT, (name, value, ends, shelf))


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as e:
        raise StateUnavailable("The state that the workers share cannot be reached.") from e
