"""What was sent and acknowledged, in a file that survives whatever ends the import.

Facts: one JSON line for each step, on disk before the next step is taken. `send`: these units are about to be sent
under this key; `done`: the server acknowledged them, as this; `refused`: it took nothing of them. Units are told by
hashes of their content; what the server answered are its own ids.
Rule: what was sent without an answer is only ever sent again as it was, under its key.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import orjson

from bridge.importing.remote import CannotImport
from bridge.importing.spool import Spool

VERSION = 1


class Ledger:
    """The state file of an import; its `owner` is the server and the login that it belongs to."""

    def __init__(self, path: Path, owner: str) -> None:
        self.path = path
        self._owner = hashlib.sha256(owner.encode()).hexdigest()[:32]
        try:
            self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
        except OSError as e:
            raise CannotImport(f"The state file {path} cannot be used: {e.strerror}.") from e
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            self._file.close()
            raise CannotImport(f"Another import is using the state file {path}.") from e

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def tell(self, spool: Spool) -> None:
        """Tells the spool what earlier runs did. Raises `CannotImport` for a file that is not of this import."""
        whole = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                break  # the run was ended while it wrote this
            try:
                _tell(spool, self._owner, number, orjson.loads(line))
            except (ValueError, KeyError, TypeError) as e:
                raise CannotImport(
                    f"{self.path} is no state file of an import, or damaged: line {number}."
                ) from e
            whole += len(line)
        self._file.seek(whole)
        if not whole:
            begun = orjson.dumps({"import": VERSION, "of": self._owner})
            if not begun.startswith(self._file.read()):
                raise CannotImport(f"{self.path} is no state file of an import.")
            self._file.seek(0)
            self._file.truncate()
            self._write({"import": VERSION, "of": self._owner})
        self._file.truncate()

    def send(self, key: str, names: Iterable[bytes]) -> None:
        """Notes what is about to be sent."""
        self._write({"send": key, "of": [name.hex() for name in names]})

    def done(self, key: str, locations: list[str | None], failed: list[int]) -> None:
        """Notes what was acknowledged, part by part; `failed` are the parts of a batch that were not."""
        self._write({"done": key, "as": locations, **({"failed": failed} if failed else {})})

    def refused(self, key: str) -> None:
        """Notes that nothing of this was taken."""
        self._write({"refused": key})

    def _write(self, step: dict[str, Any]) -> None:
        self._file.write(orjson.dumps(step) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _tell(spool: Spool, owner: str, number: int, step: dict[str, Any]) -> None:
    if number == 1:
        if step["import"] != VERSION:
            raise ValueError(step["import"])
        if step["of"] != owner:
            raise CannotImport("The state file belongs to an import with another server or login.")
    elif "send" in step:
        spool.was_sent(step["send"], (bytes.fromhex(name) for name in step["of"]))
    elif "done" in step:
        spool.was_done(step["done"], step["as"], step.get("failed", []))
    else:
        spool.was_refused(step["refused"])
