"""What the workers share: every value sealed, every name an HMAC, both under the deployment secret.

Strategy: a `Backend` stores opaque bytes under opaque names and knows nothing of what they mean; `State` seals and
opens. SQLite serves all workers of one host.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import secrets
import sqlite3
import threading
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol
from weakref import WeakMethod

from bridge.crypto import primitives
from bridge.crypto.primitives import InvalidTag
from bridge.errors import StateUnavailable

Change = Callable[[bytes | None], tuple[bytes | None, float | None]]
"""From the value now (or None) to the value to keep (None: delete) and when it ends (epoch seconds, None: never)."""

LOCK_SECONDS = 30


class Backend(Protocol):
    """Stores opaque bytes under opaque names. All methods raise `StateUnavailable`."""

    def get(self, name: str) -> bytes | None:
        """Returns the value, None when there is none or it has ended."""

    def update(self, name: str, change: Change) -> None:
        """Replaces the value by what `change` makes of it, atomically among all workers."""

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Holds a lock that one worker at a time has, freed when its process dies."""


class Sqlite:
    """State of one host: a SQLite file (WAL) for values, flock files for locks."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "state.db"
        self._locks = folder / "locks"
        self._local = threading.local()
        self._locks.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Fact: closing a descriptor of a file drops SQLite's locks on it, so only a new one is opened here.
        # The WAL beside it takes over the mode.
        with suppress(FileExistsError):
            os.close(os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        close = WeakMethod(self.close)
        os.register_at_fork(before=lambda: (alive := close()) and alive())
        with self._connection() as db:
            db.execute(
                "CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value BLOB NOT NULL, ends REAL)"
            )

    def get(self, name: str) -> bytes | None:
        """Returns the value, None when there is none or it has ended."""
        with self._connection() as db:
            row = db.execute("SELECT value, ends FROM state WHERE name = ?", (name,)).fetchone()
        return None if row is None or _ended(row[1]) else row[0]

    def update(self, name: str, change: Change) -> None:
        """Replaces the value by what `change` makes of it, atomically among all workers."""
        with self._connection() as db:
            db.execute("BEGIN IMMEDIATE")
            row = db.execute("SELECT value, ends FROM state WHERE name = ?", (name,)).fetchone()
            value, ends = change(None if row is None or _ended(row[1]) else row[0])
            if value is None:
                db.execute("DELETE FROM state WHERE name = ?", (name,))
            else:
                db.execute("INSERT OR REPLACE INTO state VALUES (?, ?, ?)", (name, value, ends))
            db.execute("DELETE FROM state WHERE ends < ?", (time.time(),))

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Holds an flock on a file of its own; the kernel frees it when the process dies."""
        path = self._locks / name
        deadline = time.monotonic() + LOCK_SECONDS
        while (fd := _flock(path)) is None:
            if time.monotonic() > deadline:
                raise StateUnavailable("Another worker holds this lock for too long.")
            time.sleep(0.005)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(fd)

    def close(self) -> None:
        """Closes this thread's connection; a later use opens a new one. None may live through a fork."""
        if getattr(self._local, "pid", None) == os.getpid():
            self._local.pid = None
            self._local.db.close()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Yields this thread's connection (never one from before a fork) and commits or rolls back."""
        try:
            if getattr(self._local, "pid", None) != os.getpid():
                self._local.db = sqlite3.connect(self._file, timeout=10, isolation_level=None)
                self._local.db.execute("PRAGMA journal_mode = WAL")
                self._local.db.execute("PRAGMA synchronous = FULL")
                self._local.pid = os.getpid()
            db: sqlite3.Connection = self._local.db
            try:
                yield db
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            if db.in_transaction:
                db.execute("COMMIT")
        except sqlite3.Error as e:
            raise StateUnavailable("The state that the workers share cannot be reached.") from e


def _ended(ends: float | None) -> bool:
    return ends is not None and ends < time.time()


def _flock(path: Path) -> int | None:
    """Returns the descriptor of the locked file, None while another holds it or just removed it."""
    try:
        fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as e:
        raise StateUnavailable("The locks that the workers share cannot be reached.") from e
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_ino == path.stat().st_ino:
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None


class State:
    """The workers' shared memory: kinds of names, sealed values."""

    def __init__(self, backend: Backend, secret: bytes) -> None:
        self._backend = backend
        self._name_key = primitives.hkdf(secret, b"state-names")
        self._value_key = primitives.hkdf(secret, b"state-values")

    def get(self, kind: str, name: str) -> bytes | None:
        """Returns the opened value, None when there is none, it ended, or it was sealed under another secret."""
        hidden = self._hide(kind, name)
        return self._open(hidden, self._backend.get(hidden))

    def update(self, kind: str, name: str, change: Change) -> None:
        """Replaces the value by what `change` makes of the opened one, atomically among all workers."""
        hidden = self._hide(kind, name)

        def sealed(old: bytes | None) -> tuple[bytes | None, float | None]:
            value, ends = change(self._open(hidden, old))
            return (None if value is None else primitives.seal(self._value_key, value, hidden.encode())), ends

        self._backend.update(hidden, sealed)

    def put(self, kind: str, name: str, value: bytes | None, ends: float | None = None) -> None:
        """Keeps the value until `ends` (epoch seconds); None deletes."""
        self.update(kind, name, lambda _: (value, ends))

    def lock(self, kind: str, name: str) -> AbstractContextManager[None]:
        """Holds a lock that one worker at a time has. Raises `StateUnavailable` after 30 seconds of waiting."""
        return self._backend.lock(self._hide(kind, name))

    def seal(self, purpose: str, value: bytes) -> str:
        """Returns URL-safe text that only this deployment opens, for what a caller is to bring back."""
        return (
            urlsafe_b64encode(primitives.seal(self._value_key, value, purpose.encode())).decode().rstrip("=")
        )

    def open(self, purpose: str, text: str) -> bytes | None:
        """Returns what was sealed for this purpose, None when the text is not of this deployment or was altered."""
        try:
            sealed = urlsafe_b64decode(text + "=" * (-len(text) % 4))
            return primitives.open_sealed(self._value_key, sealed, purpose.encode())
        except (InvalidTag, ValueError):
            return None

    def _hide(self, kind: str, name: str) -> str:
        return hmac.new(self._name_key, f"{kind}\0{name}".encode(), hashlib.sha256).hexdigest()

    def _open(self, hidden: str, sealed: bytes | None) -> bytes | None:
        if sealed is None:
            return None
        try:
            return primitives.open_sealed(self._value_key, sealed, hidden.encode())
        except InvalidTag:
            return None


def deployment_secret(folder: Path, file: Path | None) -> bytes:
    """Returns the secret of `file`, else that of the data dir, made on first use with mode 0600."""
    if file is not None:
        return file.read_bytes()
    path = folder / "secret"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = folder / f"secret.{os.getpid()}.{threading.get_ident()}"
    if not path.exists():
        draft.touch(mode=0o600)
        draft.write_bytes(secrets.token_bytes(32))
        try:
            os.link(draft, path)  # one of several workers wins, whole or not at all
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_bytes()
