"""What goes together: loose resources become transactions, and batches wait for what they refer to.

Strategy: a patient and what refers to it are a flock; flocks that refer to each other are one. Small flocks share a
transaction, a large one is spread over several, its patient in the first. What belongs to no patient but is referred to
by many (Organizations, Practitioners) goes before. Everything is worked out on disk, along the references.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from bridge.importing.spool import Spool

MOST_BYTES = 16 * 1024 * 1024
"""Of the resources in one transaction."""


def pack(spool: Spool, most: int) -> None:
    """Puts every open unit into a batch: a Bundle alone, loose resources `most` at a time."""
    db = spool.db
    db.execute(
        "INSERT INTO link SELECT DISTINCT r.n, a.n FROM reference r JOIN address a USING (hash)"
        " JOIN unit t ON t.n = a.n JOIN unit u ON u.n = r.n"
        " WHERE a.n <> r.n AND t.state = 'open' AND u.state = 'open'"
    )
    db.execute("CREATE INDEX link_target ON link (target)")
    db.execute("INSERT INTO waiting (n) SELECT n FROM unit")
    _rank(db)
    db.execute("UPDATE unit SET rank = (SELECT rank FROM waiting WHERE waiting.n = unit.n)")
    _keep_what_was_sent(db)
    _flock(db, most)
    first = 1 + int(db.execute("SELECT coalesce(max(n), 0) FROM batch").fetchone()[0])
    for number, members in enumerate(_packed(db, most), first):
        db.execute("INSERT INTO batch (n) VALUES (?)", (number,))
        db.executemany(
            "UPDATE unit SET batch = ?, place = ? WHERE n = ?",
            [(number, place, n) for place, n in enumerate(members)],
        )
    db.execute("CREATE INDEX unit_batch ON unit (batch)")
    _order(db)


def _rank(db: sqlite3.Connection) -> None:
    """Ranks all that is waiting above what it is linked to; in a circle there is no above, all share the last rank."""
    db.execute("UPDATE waiting SET missing = (SELECT count(*) FROM link WHERE link.n = waiting.n)")
    rank = 0
    while db.execute("UPDATE waiting SET rank = ? WHERE missing = 0 AND rank IS NULL", (rank,)).rowcount:
        db.execute(
            "UPDATE waiting SET missing = missing - below.many FROM (SELECT link.n, count(*) AS many FROM waiting w"
            " JOIN link ON link.target = w.n WHERE w.rank = ? GROUP BY link.n) AS below WHERE waiting.n = below.n",
            (rank,),
        )
        rank += 1
    db.execute("UPDATE waiting SET rank = ? WHERE rank IS NULL", (rank,))


def _keep_what_was_sent(db: sqlite3.Connection) -> None:
    """Puts together again what an earlier run sent and got no answer for: only so it is the same request."""
    keys = db.execute(
        "SELECT DISTINCT key FROM sent JOIN unit USING (name) WHERE state = 'open' ORDER BY key"
    ).fetchall()
    for number, (key,) in enumerate(keys, 1):
        db.execute("INSERT INTO batch (n, key) VALUES (?, ?)", (number, key))
        db.execute(
            "UPDATE unit SET batch = ?, place = sent.place FROM sent WHERE sent.key = ? AND sent.name = unit.name",
            (number, key),
        )


def _flock(db: sqlite3.Connection, most: int) -> None:
    """Gives each loose resource the number of its flock, that of its first patient."""
    many, size = db.execute("SELECT count(*), coalesce(sum(size), 0) FROM loose").fetchone()
    if many <= most and size <= MOST_BYTES:
        db.execute("UPDATE unit SET flock = 0 WHERE n IN (SELECT n FROM loose)")
        return
    db.execute("UPDATE unit SET flock = n WHERE patient AND n IN (SELECT n FROM loose)")
    db.execute("CREATE INDEX unit_rank ON unit (rank)")
    for (rank,) in db.execute("SELECT DISTINCT rank FROM unit ORDER BY rank").fetchall():
        db.execute(
            "UPDATE unit SET flock = (SELECT min(t.flock) FROM link JOIN unit t ON t.n = link.target"
            " WHERE link.n = unit.n) WHERE rank = ? AND flock IS NULL AND n IN (SELECT n FROM loose)",
            (rank,),
        )
    _join(db)


def _join(db: sqlite3.Connection) -> None:
    """Makes one flock of those that refer to each other."""
    first: dict[int, int] = {}

    def found(flock: int) -> int:
        while (before := first.get(flock, flock)) != flock:
            first[flock] = first.get(before, before)
            flock = first[flock]
        return flock

    pairs = db.execute(
        "SELECT DISTINCT u.flock, t.flock FROM link JOIN unit u ON u.n = link.n JOIN unit t ON t.n = link.target"
        " WHERE u.flock <> t.flock"
    )
    for one, other in pairs:
        low, high = sorted((found(one), found(other)))
        if low != high:
            first[high] = low
    if first:
        db.execute("CREATE INDEX unit_flock ON unit (flock)")
        db.executemany("UPDATE unit SET flock = ? WHERE flock = ?", [(found(f), f) for f in list(first)])


@dataclass(slots=True)
class _Pile:
    """Units that go into one batch, in their order."""

    most: int
    members: list[int] = field(default_factory=list)
    size: int = 0

    def takes(self, many: int, size: int) -> bool:
        """Whether this fits in; what is alone always does."""
        return not self.members or (len(self.members) + many <= self.most and self.size + size <= MOST_BYTES)

    def add(self, members: Iterable[int], size: int) -> None:
        self.members += members
        self.size += size


def _packed(db: sqlite3.Connection, most: int) -> Iterator[list[int]]:
    """Yields what goes into one batch."""
    db.execute(
        "CREATE TEMP TABLE packing AS SELECT n, bundle, flock, size FROM unit"
        " WHERE state = 'open' AND batch IS NULL ORDER BY bundle DESC, flock, rank, n"
    )
    together = _Pile(most)
    rows = db.execute("SELECT bundle, flock, n, size FROM packing ORDER BY rowid")
    for (bundle, flock), members in groupby(rows, key=lambda row: row[:2]):
        pieces = _cut(((n, size) for _, _, n, size in members), 1 if bundle else most)
        first = next(pieces)
        second = next(pieces, None)
        if bundle or flock is None or second is not None:
            yield first.members
            if second is not None:
                yield second.members
            yield from (piece.members for piece in pieces)
            continue
        if not together.takes(len(first.members), first.size):
            yield together.members
            together = _Pile(most)
        together.add(first.members, first.size)
    if together.members:
        yield together.members


def _cut(members: Iterable[tuple[int, int]], most: int) -> Iterator[_Pile]:
    """Yields these in pieces that fit into one batch each."""
    pile = _Pile(most)
    for n, size in members:
        if not pile.takes(1, size):
            yield pile
            pile = _Pile(most)
        pile.add((n,), size)
    yield pile


def _order(db: sqlite3.Connection) -> None:
    """Gives each batch its rank: after those that it refers to; with conditional references after those without."""
    db.executescript(
        "CREATE TEMP TABLE across AS SELECT DISTINCT u.batch AS n, t.batch AS target FROM link"
        " JOIN unit u ON u.n = link.n JOIN unit t ON t.n = link.target"
        " WHERE u.batch <> t.batch AND u.batch IS NOT NULL AND t.batch IS NOT NULL;"
        "DELETE FROM link;"
        "INSERT INTO link SELECT n, target FROM across;"
        "CREATE TEMP TABLE asking AS SELECT DISTINCT batch AS n FROM unit WHERE conditional AND batch IS NOT NULL;"
        "INSERT INTO batch (n) SELECT 0 WHERE EXISTS (SELECT 1 FROM asking);"
        "INSERT OR IGNORE INTO link SELECT n, 0 FROM asking;"
        "INSERT OR IGNORE INTO link SELECT 0, n FROM batch WHERE n > 0 AND EXISTS (SELECT 1 FROM asking)"
        " AND n NOT IN (SELECT n FROM asking)"
        " AND n NOT IN (SELECT n FROM across WHERE target IN (SELECT n FROM asking));"
        "DELETE FROM waiting;"
        "INSERT INTO waiting (n) SELECT n FROM batch;"
    )
    _rank(db)
    db.execute("UPDATE batch SET rank = (SELECT rank FROM waiting WHERE waiting.n = batch.n)")
