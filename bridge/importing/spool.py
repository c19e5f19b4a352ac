"""What was read and is to be sent: on disk, sealed, in a file that has no name.

Strategy: a temporary SQLite database (https://www.sqlite.org/inmemorydb.html#temp_db) holds the texts under a key that
only this process has, and names and addresses as hashes, so that memory does not grow with the input and nothing of it
is left behind. Everything here belongs to one thread.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Self

import orjson

from bridge.crypto import primitives
from bridge.importing.contents import Part, Skipped, Unit, is_conditional

OPEN, DONE, FAILED = "open", "done", "failed"

_TABLES = """
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    CREATE TABLE unit (
        n INTEGER PRIMARY KEY, source INTEGER NOT NULL, line INTEGER, name BLOB NOT NULL UNIQUE,
        bundle INTEGER NOT NULL, conditional INTEGER NOT NULL, patient INTEGER NOT NULL, size INTEGER NOT NULL,
        parts TEXT NOT NULL, state TEXT NOT NULL, rank INTEGER, flock INTEGER, batch INTEGER, place INTEGER
    );
    CREATE TABLE text (n INTEGER PRIMARY KEY, sealed BLOB NOT NULL);
    CREATE TABLE address (hash BLOB PRIMARY KEY, n INTEGER, part INTEGER, stands BLOB) WITHOUT ROWID;
    CREATE TABLE reference (n INTEGER, hash BLOB, PRIMARY KEY (n, hash)) WITHOUT ROWID;
    CREATE TABLE location (n INTEGER, part INTEGER, location TEXT NOT NULL, PRIMARY KEY (n, part)) WITHOUT ROWID;
    CREATE TABLE alike (hash BLOB PRIMARY KEY, many INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE done (name BLOB PRIMARY KEY, locations BLOB NOT NULL, failed BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE sent (key TEXT, place INTEGER, name BLOB, PRIMARY KEY (key, place)) WITHOUT ROWID;
    CREATE TABLE link (n INTEGER, target INTEGER, PRIMARY KEY (n, target)) WITHOUT ROWID;
    CREATE TABLE waiting (n INTEGER PRIMARY KEY, missing INTEGER, rank INTEGER);
    CREATE INDEX ready ON waiting (missing) WHERE rank IS NULL;
    CREATE INDEX ranked ON waiting (rank);
    CREATE VIEW loose AS SELECT * FROM unit WHERE state = 'open' AND NOT bundle AND batch IS NULL;
    CREATE TABLE batch (n INTEGER PRIMARY KEY, key TEXT, rank INTEGER);
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """A unit as it lies in the spool."""

    n: int
    name: bytes
    source: int
    line: int | None
    bundle: bool
    parts: list[Part]
    text: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Target:
    """What a reference of a unit means."""

    n: int | None
    part: int = 0
    location: str | None = field(default=None, repr=False)
    """`Type/id` at the server, once it is there; or what stands for something skipped."""
    state: str = OPEN


class Spool:
    """The units of an input, and what became of them."""

    def __init__(self, run: str = "") -> None:
        self._key = os.urandom(32)
        self._run = run.encode()
        self.db = sqlite3.connect("", isolation_level=None)
        self.db.executescript(_TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.db.close()

    def add(self, unit: Unit, source: int, line: int | None) -> list[int] | None:
        """Keeps a unit. Returns which of its parts failed when an earlier run sent it; None when it is to be sent."""
        name = self._name(unit)
        done = self.db.execute("SELECT locations, failed FROM done WHERE name = ?", (name,)).fetchone()
        row = (
            source,
            line,
            name,
            unit.bundle,
            any(map(is_conditional, unit.references)),
            unit.parts[0].resource_type == "Patient" and not unit.bundle,
            len(unit.text),
            orjson.dumps([[part.resource_type, part.entry] for part in unit.parts]).decode(),
            DONE if done else OPEN,
        )
        n = self.db.execute(
            "INSERT INTO unit (source, line, name, bundle, conditional, patient, size, parts, state)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        ).lastrowid
        assert n is not None  # noqa: S101
        self.db.executemany(
            "INSERT OR IGNORE INTO address (hash, n, part) VALUES (?, ?, ?)",
            [(address_hash(address), n, part) for address, part in unit.addresses],
        )
        if done:
            self._locate(n, orjson.loads(done[0]))
            return list(orjson.loads(done[1]))
        self.db.executemany(
            "INSERT OR IGNORE INTO reference VALUES (?, ?)",
            [(n, address_hash(said)) for said in unit.references],
        )
        self.db.execute("INSERT INTO text VALUES (?, ?)", (n, self._sealed(zlib.compress(unit.text, 1))))
        return None

    def skip(self, skipped: Skipped) -> None:
        """Keeps what references to a skipped part become."""
        if skipped.stands:
            self.db.executemany(
                "INSERT OR IGNORE INTO address (hash, stands) VALUES (?, ?)",
                [
                    (address_hash(address), self._sealed(skipped.stands.encode()))
                    for address in skipped.addresses
                ],
            )

    def _name(self, unit: Unit) -> bytes:
        """Returns what a unit is known by in every run: its content, and the how-manieth of its like it is."""
        kind = b"bundle" if unit.bundle else b"resource"
        alike = hashlib.sha256(b"\0".join((self._run, kind, unit.text))).digest()
        many = self.db.execute(
            "INSERT INTO alike VALUES (?, 1) ON CONFLICT DO UPDATE SET many = many + 1 RETURNING many",
            (alike,),
        ).fetchone()[0]
        return hashlib.sha256(alike + str(many).encode()).digest()[:16]

    def _sealed(self, plain: bytes) -> bytes:
        return primitives.seal(self._key, plain, b"import")

    def _opened(self, sealed: bytes) -> bytes:
        return primitives.open_sealed(self._key, sealed, b"import")

    def was_sent(self, key: str, names: Iterable[bytes]) -> None:
        """Remembers a batch that an earlier run began to send."""
        self.db.executemany(
            "INSERT OR REPLACE INTO sent VALUES (?, ?, ?)", [(key, at, n) for at, n in enumerate(names)]
        )

    def was_refused(self, key: str) -> None:
        """Forgets a batch of which the server took nothing."""
        self.db.execute("DELETE FROM sent WHERE key = ?", (key,))

    def was_done(self, key: str, locations: list[str | None], failed: list[int]) -> None:
        """Remembers the parts of a batch that the server acknowledged."""
        names = [
            name for (name,) in self.db.execute("SELECT name FROM sent WHERE key = ? ORDER BY place", (key,))
        ]
        each = [locations] if len(names) == 1 else [[location] for location in locations]
        self.db.executemany(
            "INSERT OR REPLACE INTO done VALUES (?, ?, ?)",
            [(n, orjson.dumps(own), orjson.dumps(failed)) for n, own in zip(names, each, strict=True)],
        )
        self.was_refused(key)

    def batches(self) -> Iterator[list[int]]:
        """Yields the batches that may be sent beside each other, those that others refer to first."""
        ranks = self.db.execute("SELECT DISTINCT rank FROM batch ORDER BY rank").fetchall()
        for (rank,) in ranks:
            yield [n for (n,) in self.db.execute("SELECT n FROM batch WHERE rank = ? ORDER BY n", (rank,))]

    def open_parts(self) -> int:
        """Returns how many parts are to be sent."""
        query = "SELECT coalesce(sum(json_array_length(parts)), 0) FROM unit WHERE state = 'open'"
        return int(self.db.execute(query).fetchone()[0])

    def unsent(self) -> Iterator[tuple[str, int]]:
        """Yields the types and numbers of parts that are still to be sent."""
        query = "SELECT value ->> 0, count(*) FROM unit, json_each(parts) WHERE state = 'open' GROUP BY 1"
        yield from self.db.execute(query)

    def units(self, batch: int) -> list[Stored]:
        """Returns the open units of a batch in their order."""
        rows = self.db.execute(
            "SELECT n, name, source, line, bundle, parts, sealed FROM unit JOIN text USING (n)"
            " WHERE batch = ? AND state = 'open' ORDER BY place",
            (batch,),
        )
        return [
            Stored(n, name, source, line, bool(bundle), _parts(parts), zlib.decompress(self._opened(sealed)))
            for n, name, source, line, bundle, parts, sealed in rows
        ]

    def key(self, batch: int) -> str | None:
        """Returns the key under which an earlier run began to send a batch."""
        with closing(self.db.execute("SELECT key FROM batch WHERE n = ?", (batch,))) as found:
            return str(row[0]) if (row := found.fetchone()) and row[0] else None

    def missing(self, key: str) -> int:
        """Returns how many units of a batch that an earlier run began to send are no longer in the input."""
        query = "SELECT count(*) FROM sent WHERE key = ? AND name NOT IN (SELECT name FROM unit)"
        return int(self.db.execute(query, (key,)).fetchone()[0])

    def targets(self, n: int) -> dict[bytes, Target]:
        """Returns what the references of a unit mean as far as the input tells, by their hash."""
        rows = self.db.execute(
            "SELECT hash, a.n, a.part, a.stands, location, state FROM reference r JOIN address a USING (hash)"
            " LEFT JOIN location l ON l.n = a.n AND l.part = a.part LEFT JOIN unit u ON u.n = a.n WHERE r.n = ?",
            (n,),
        )
        return {
            said: Target(None, 0, self._opened(stands).decode(), DONE)
            if target is None
            else Target(target, part, location, state)
            for said, target, part, stands, location, state in rows
        }

    def settle(self, n: int, state: str, locations: Sequence[str | None] = ()) -> None:
        """Notes what became of a unit, and forgets its text."""
        self.db.execute("UPDATE unit SET state = ? WHERE n = ?", (state, n))
        self.db.execute("DELETE FROM text WHERE n = ?", (n,))
        self._locate(n, locations)

    def _locate(self, n: int, locations: Sequence[str | None]) -> None:
        self.db.executemany(
            "INSERT INTO location VALUES (?, ?, ?)",
            [(n, part, location) for part, location in enumerate(locations) if location],
        )


def address_hash(address: str) -> bytes:
    """Returns what an address is known by here."""
    return hashlib.sha256(address.encode()).digest()[:16]


def _parts(stored: str) -> list[Part]:
    return [Part(kind, entry) for kind, entry in orjson.loads(stored)]
