"""The floor: what no bridge can do without. Parse, gate, AES and write, in one process, with nothing around them."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from bridge import wire
from bridge.crypto.primitives import cbc_encrypt

IN_A_DOCUMENT = 100


def floor(body: bytes, folder: Path, seconds: float) -> float:
    """Returns milliseconds of CPU for one body: a resource or a Bundle, one durable commit each."""
    wire.warm_up()
    key = os.urandom(32)
    with closing(sqlite3.connect(folder / "floor.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE IF NOT EXISTS documents (body BLOB)")
        times = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.process_time()
            _once(body, key, db)
            times.append(time.process_time() - start)
    return sorted(times)[len(times) // 2] * 1000


def _once(body: bytes, key: bytes, db: sqlite3.Connection) -> None:
    received = wire.parse(body)
    resources = [e["resource"] for e in received["entry"]] if "entry" in received else [received]
    sealed = [cbc_encrypt(key, wire.dump(wire.check(resource)[0])) for resource in resources]
    db.execute("BEGIN")
    for at in range(0, len(sealed), IN_A_DOCUMENT):
        db.execute("INSERT INTO documents VALUES (?)", (b"".join(sealed[at : at + IN_A_DOCUMENT]),))
    db.execute("COMMIT")
