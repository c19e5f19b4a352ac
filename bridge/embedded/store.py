"""The documents on disk: SQLite, one file, any number of threads and processes.

Strategy: a document is its JSON as it is answered, beside what is asked of it without reading the JSON
(revision, deletion, who may read and write). All that filters need is in one index table, written in the
same transaction as the document. Write-ahead logging with full synchronisation: a write that was
acknowledged survives `kill -9` and a power cut.

Rule: whoever reads in order to write does both inside `writing()`, which admits one writer at a time over
all processes.

Facts: SQLite guards its files with POSIX locks. A process that closes any descriptor of a file loses all its locks on
it, and a child inherits none but SQLite believes it did. Without its lock, another process deletes the log
that is in use, and what was acknowledged is gone. So the file is never opened beside SQLite, and no connection
lives through a fork. https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakMethod

import orjson

from bridge.embedded import index
from bridge.embedded.access import Access, access
from bridge.embedded.entities import (
    ACCESS_LOG,
    DELEGATED,
    EXCHANGE_DATA,
    EXCHANGE_DATA_MAP,
    PATIENT,
    EntityType,
)
from bridge.embedded.model import Entity

DATABASE = "icure.sqlite"
BUSY_TIMEOUT_SECONDS = 60
CACHE_KIBIBYTES = 16_384
CHECKPOINT_PAGES = 4096
SCHEMA_VERSION = 2
INDEX = """
CREATE TABLE scopes (
    scope INTEGER PRIMARY KEY,
    field TEXT NOT NULL,
    owner TEXT NOT NULL,
    UNIQUE (field, owner)
);
CREATE TABLE postings (
    scope  INTEGER NOT NULL,
    key    TEXT NOT NULL,
    number INTEGER NOT NULL,
    item   TEXT NOT NULL,
    PRIMARY KEY (scope, key, number, item)
) WITHOUT ROWID;
CREATE VIEW entries AS
    SELECT field, owner, key, number, item FROM scopes CROSS JOIN postings ON postings.scope = scopes.scope;
"""
"""The rows of the index. Field and owner stand in each as one small number: a smaller row touches fewer pages."""
SCHEMA = f"""
CREATE TABLE documents (
    type    TEXT NOT NULL,
    id      TEXT NOT NULL,
    rev     TEXT NOT NULL,
    deleted INTEGER NOT NULL,
    readers TEXT NOT NULL,
    writers TEXT NOT NULL,
    body    BLOB NOT NULL,
    UNIQUE (type, id)
);
{INDEX}CREATE TABLE service_versions (
    service  TEXT NOT NULL,
    modified INTEGER NOT NULL,
    contact  TEXT NOT NULL,
    PRIMARY KEY (service, modified, contact)
) WITHOUT ROWID;
CREATE TABLE credentials (
    user   TEXT NOT NULL,
    name   TEXT NOT NULL,
    salt   BLOB NOT NULL,
    digest BLOB NOT NULL,
    expires INTEGER,
    PRIMARY KEY (user, name)
) WITHOUT ROWID;
"""
FROM_VERSION_1 = f"""
ALTER TABLE entries RENAME TO old_entries;
{INDEX}
INSERT INTO scopes (field, owner)
    SELECT DISTINCT field, owner FROM old_entries WHERE field <> 'contact.service';
INSERT INTO postings
    SELECT scope, key, number, item FROM scopes CROSS JOIN old_entries AS old
    WHERE old.field = scopes.field AND old.owner = scopes.owner;
INSERT INTO scopes (field, owner) SELECT 'contact.id', owner FROM scopes WHERE field = 'contact';
INSERT INTO postings
    SELECT of_id.scope, '', 0, item FROM scopes AS of_id
    JOIN scopes AS dated ON dated.owner = of_id.owner AND dated.field = 'contact'
    JOIN postings ON postings.scope = dated.scope
    WHERE of_id.field = 'contact.id';
DROP TABLE old_entries
"""  # noqa: S608
CHANGES = """
CREATE TABLE IF NOT EXISTS changes (
    number   INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    type     TEXT NOT NULL,
    id       TEXT NOT NULL,
    event    TEXT NOT NULL,
    services TEXT,
    gone     BLOB
)
"""
REV_DIGITS = 32
CREATED, UPDATED, DELETED = "CREATE", "UPDATE", "DELETE"
SHARED = "SHARE"
"""Of a Service that is as it was, and that somebody reads who did not: no event to iCure's clients."""
CHANGES_KEPT_MS = 24 * 3600 * 1000
PRUNED_EVERY = 1000
"""After so many changes up to twice as many old ones are removed."""
SILENT = frozenset((ACCESS_LOG.name, EXCHANGE_DATA.name, EXCHANGE_DATA_MAP.name))
"""Types whose changes nobody hears of."""


@dataclass(frozen=True, slots=True)
class Document:
    """One stored entity: its JSON, and what is known of it without reading that."""

    id: str
    rev: str
    deleted: bool
    access: Access
    body: bytes

    @property
    def entity(self) -> Entity:
        """Returns the entity, read anew from its JSON."""
        entity: Entity = orjson.loads(self.body)
        return entity


@dataclass(frozen=True, slots=True)
class Credential:
    """A password (named `""`) or a token of a user, hashed."""

    name: str
    salt: bytes
    digest: bytes
    expires: int | None
    """Epoch milliseconds; None for never."""


@dataclass(frozen=True, slots=True)
class Change:
    """One write, as who listens is told of it."""

    number: int
    """Later writes have greater ones."""
    type: str
    id: str
    event: str
    services: dict[str, str]
    """Of a Contact: the event of each Service that changed."""
    gone: bytes | None
    """JSON of the document before the write, where what the change is about is no longer in the store."""


def _columns(row: tuple[Any, ...]) -> Document:
    identifier, rev, deleted, readers, writers, body = row
    return Document(identifier, rev, bool(deleted), Access(_keys(readers), _keys(writers)), body)


def _keys(joined: str) -> frozenset[str]:
    return frozenset(joined.split("\n")) if joined else frozenset()


def _joined(keys: Iterable[str]) -> str:
    return "\n".join(sorted(keys))


def next_rev(previous: str | None, content: bytes) -> str:
    """Returns the revision after `previous`: one generation more, and a hash of both."""
    generation = int(previous.split("-", 1)[0]) if previous else 0
    digest = hashlib.sha256((previous or "").encode())
    digest.update(content)
    return f"{generation + 1}-{digest.hexdigest()[:REV_DIGITS]}"


def _changed_services(before: Entity | None, after: Entity | None) -> dict[str, str]:
    """Returns by id what happened to the Services of a Contact; those of an undeleted one are as if changed."""
    old, new = index.newest_services(before), index.newest_services(after)
    if before is not None and "deletionDate" in before:
        return dict.fromkeys(new, UPDATED)
    events = {
        key: UPDATED if key in old else CREATED for key, service in new.items() if old.get(key) != service
    }
    return events | dict.fromkeys(old.keys() - new.keys(), DELETED)


class View:
    """The documents as they were when the view was opened."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, entity_type: EntityType, entity_id: str) -> Document | None:
        """Returns the document under this id, also when it is soft-deleted."""
        row = self._connection.execute(
            "SELECT id, rev, deleted, readers, writers, body FROM documents WHERE type = ? AND id = ?",
            (entity_type.name, entity_id),
        ).fetchone()
        return None if row is None else _columns(row)

    def get_all(self, entity_type: EntityType, ids: Iterable[str]) -> dict[str, Document]:
        """Returns the documents under these ids, in their order, without the unknown ones."""
        found = {}
        for entity_id in dict.fromkeys(ids):
            document = self.get(entity_type, entity_id)
            if document is not None:
                found[entity_id] = document
        return found

    def ids(self, where: str, parameters: Sequence[Any], order: str = "number, item") -> list[str]:
        """Returns the items of the index rows for which `where` (our own text, never a client's) holds."""
        query = f"SELECT item FROM entries AS e WHERE {where} ORDER BY {order}"  # noqa: S608
        return list(dict.fromkeys(row[0] for row in self._connection.execute(query, parameters)))

    def found(self, field: str, key: str, owner: str = index.NO_OWNER) -> list[str]:
        """Returns the items that the index has under exactly this key."""
        return self.ids("field = ? AND owner = ? AND key = ?", (field, owner, key))

    def page(self, field: str, key: str, start: str | None, limit: int) -> list[str]:
        """Returns up to `limit` items under this key from `start` on, in ascending order."""
        rows = self._connection.execute(
            "SELECT item FROM entries WHERE field = ? AND owner = ? AND key = ? AND number = 0 AND item >= ?"
            " ORDER BY item LIMIT ?",
            (field, index.NO_OWNER, key, start or "", limit),
        )
        return [row[0] for row in rows]

    def contacts_of(self, service_ids: Iterable[str]) -> dict[str, str]:
        """Returns for each Service that exists the id of the Contact with its newest version."""
        wanted = list(dict.fromkeys(service_ids))
        newest = self._newest_versions(wanted)
        return {service_id: newest[service_id][1] for service_id in wanted if service_id in newest}

    def _newest_versions(
        self, service_ids: Iterable[str], besides: str = ""
    ) -> Mapping[str, tuple[int, str]]:
        """Returns when the newest version of each Service is from and in which Contact it is."""
        rows = self._connection.execute(
            "SELECT service, modified, contact FROM service_versions"
            " WHERE service IN (SELECT value FROM json_each(?)) AND contact <> ? ORDER BY modified, contact",
            (orjson.dumps(list(service_ids)).decode(), besides),
        )
        return {service_id: (modified, contact_id) for service_id, modified, contact_id in rows}

    def last_change(self) -> int:
        """Returns the number of the last write, 0 when there was none."""
        (number,) = self._connection.execute("SELECT coalesce(max(number), 0) FROM changes").fetchone()
        return int(number)

    def first_change(self) -> int:
        """Returns the number of the first write that is still known, 0 when there is none."""
        (number,) = self._connection.execute("SELECT coalesce(min(number), 0) FROM changes").fetchone()
        return int(number)

    def changes(self, after: int, most: int) -> list[Change]:
        """Returns the first writes after a number, in their order."""
        rows = self._connection.execute(
            "SELECT number, type, id, event, services, gone FROM changes WHERE number > ? ORDER BY number LIMIT ?",
            (after, most),
        )
        return [
            Change(number, kind, entity_id, event, orjson.loads(services or b"{}"), gone)
            for number, kind, entity_id, event, services, gone in rows
        ]

    def credentials(self, user_id: str) -> list[Credential]:
        """Returns the hashed password and tokens of a user."""
        rows = self._connection.execute(
            "SELECT name, salt, digest, expires FROM credentials WHERE user = ?", (user_id,)
        )
        return [Credential(*row) for row in rows]


class Scopes(dict[tuple[str, str], int]):
    """The number of each field and owner that a transaction comes across."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__()
        self._connection = connection

    def __missing__(self, scope: tuple[str, str]) -> int:
        """Returns the number under which the rows of a field and owner are found, a new one for the first."""
        known = self._connection.execute(
            "SELECT scope FROM scopes WHERE field = ? AND owner = ?", scope
        ).fetchone()
        if known is None:
            added = self._connection.execute("INSERT INTO scopes (field, owner) VALUES (?, ?)", scope)
            known = (added.lastrowid,)
        (self[scope],) = known
        return self[scope]


class Writing(View):
    """The only writer of the store until its transaction ends."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self._scopes = Scopes(connection)

    def save(self, entity_type: EntityType, entity: Entity, previous: Document | None) -> Document:
        """Returns the document that is stored from now on, with its new revision.

        The entity is taken as it is; whether `previous` may be replaced by it is for the caller to know.
        """
        entity.pop("rev", None)
        content = orjson.dumps(entity)
        rev = next_rev(previous.rev if previous else None, content)
        entity["rev"] = rev
        body = b'{"rev":"' + rev.encode() + b'",' + content[1:]
        allowed = self._access(entity_type, entity)
        values = ("deletionDate" in entity, _joined(allowed.readers), _joined(allowed.writers), body)
        if previous is None:
            self._connection.execute(
                "INSERT INTO documents (type, id, rev, deleted, readers, writers, body) VALUES (?,?,?,?,?,?,?)",
                (entity_type.name, entity["id"], rev, *values),
            )
        else:
            self._connection.execute(
                "UPDATE documents SET rev = ?, deleted = ?, readers = ?, writers = ?, body = ?"
                " WHERE type = ? AND id = ?",
                (rev, *values, entity_type.name, entity["id"]),
            )
        before = previous.entity if previous else None
        self._reindex(entity_type, before, entity)
        gained = previous is not None and not allowed.readers <= previous.access.readers
        self._note(entity_type, before, entity, previous, shared=gained)
        return Document(entity["id"], rev, values[0], allowed, body)

    def purge(self, entity_type: EntityType, document: Document) -> None:
        """Removes a document for good."""
        self._connection.execute(
            "DELETE FROM documents WHERE type = ? AND id = ?", (entity_type.name, document.id)
        )
        self._connection.execute("DELETE FROM credentials WHERE user = ?", (document.id,))
        entity = document.entity
        self._reindex(entity_type, entity, None)
        if not document.deleted:
            self._note(entity_type, entity, None, document)

    def set_credential(self, user_id: str, credential: Credential) -> None:
        """Puts a password or token of a user in the place of the one with the same name."""
        self._connection.execute(
            "REPLACE INTO credentials (user, name, salt, digest, expires) VALUES (?, ?, ?, ?, ?)",
            (user_id, credential.name, credential.salt, credential.digest, credential.expires),
        )

    def remove_credential(self, user_id: str, name: str) -> None:
        """Forgets a password or token of a user."""
        self._connection.execute("DELETE FROM credentials WHERE user = ? AND name = ?", (user_id, name))

    def _note(
        self,
        entity_type: EntityType,
        before: Entity | None,
        after: Entity | None,
        previous: Document | None,
        *,
        shared: bool = False,
    ) -> None:
        """Writes down that a document changed. An undeleted one counts as updated, as it was known before."""
        deleted = after is None or "deletionDate" in after
        if entity_type.name in SILENT or (deleted and previous is not None and previous.deleted):
            return
        services = _changed_services(before, after) if entity_type.name == "Contact" else {}
        if shared and entity_type.name == "Contact":
            services = dict.fromkeys(index.newest_services(after), SHARED) | services
        event = CREATED if before is None else DELETED if deleted else UPDATED
        keeps = after is None or (not deleted and DELETED in services.values())
        now = time.time_ns() // 1_000_000
        number = self._connection.execute(
            "INSERT INTO changes (at, type, id, event, services, gone) VALUES (?, ?, ?, ?, ?, ?)",
            (
                now,
                entity_type.name,
                (after or before or {})["id"],
                event,
                orjson.dumps(services).decode() if services else None,
                previous.body if keeps and previous is not None else None,
            ),
        ).lastrowid
        if number is not None and number % PRUNED_EVERY == 0:
            self._connection.execute(
                "DELETE FROM changes WHERE number IN (SELECT number FROM changes ORDER BY number LIMIT ?) AND at < ?",
                (2 * PRUNED_EVERY, now - CHANGES_KEPT_MS),
            )

    @staticmethod
    def _access(entity_type: EntityType, entity: Entity) -> Access:
        if entity_type not in DELEGATED:
            return Access(frozenset(), frozenset())
        return access(entity, is_patient=entity_type is PATIENT)

    def _reindex(self, entity_type: EntityType, old: Entity | None, new: Entity | None) -> None:
        before, after = index.rows(entity_type.name, old), index.rows(entity_type.name, new)
        if entity_type.name == "Contact":
            service_rows_before, service_rows_after = self._move_services(old, new)
            before |= service_rows_before
            after |= service_rows_after
        self._connection.executemany(
            "DELETE FROM postings WHERE scope = ? AND key = ? AND number = ? AND item = ?",
            self._postings(before - after),
        )
        self._connection.executemany(
            "INSERT OR IGNORE INTO postings VALUES (?, ?, ?, ?)", self._postings(after - before)
        )

    def _postings(self, rows: Iterable[index.Row]) -> list[tuple[int, str, int, str]]:
        """Returns index rows as they are stored, in the order in which they are."""
        scopes = self._scopes
        return sorted(
            (scopes[field, owner], fact_key, number, item) for field, owner, fact_key, number, item in rows
        )

    def _move_services(self, old: Entity | None, new: Entity | None) -> tuple[set[index.Row], set[index.Row]]:
        """Returns the rows of the newest versions of all concerned Services before and after a write."""
        contact_id = (new or old or {})["id"]
        old_services, new_services = index.newest_services(old), index.newest_services(new)
        before: dict[str, tuple[int, str]] = {}
        after: dict[str, tuple[int, str]] = {}
        concerned = old_services.keys() | new_services.keys()
        elsewhere = self._newest_versions(concerned, besides=contact_id)
        for service_id in concerned:
            for services, newest in ((old_services, before), (new_services, after)):
                versions = [elsewhere[service_id]] if service_id in elsewhere else []
                if service_id in services:
                    versions.append((services[service_id].get("modified", 0), contact_id))
                if versions:
                    newest[service_id] = max(versions)
        versions_before, versions_after = index.versions(old), index.versions(new)
        self._connection.executemany(
            "DELETE FROM service_versions WHERE service = ? AND modified = ? AND contact = ?",
            sorted(versions_before - versions_after),
        )
        self._connection.executemany(
            "INSERT INTO service_versions VALUES (?, ?, ?)", sorted(versions_after - versions_before)
        )
        return self._service_rows(before, contact_id, old), self._service_rows(after, contact_id, new)

    def _service_rows(
        self, newest: dict[str, tuple[int, str]], written_id: str, written: Entity | None
    ) -> set[index.Row]:
        by_contact: dict[str, list[str]] = {}
        for service_id, (_, contact_id) in newest.items():
            by_contact.setdefault(contact_id, []).append(service_id)
        found: set[index.Row] = set()
        for contact_id, service_ids in by_contact.items():
            contact = written if contact_id == written_id else self._contact(contact_id)
            if contact is not None:
                services = index.newest_services(contact)
                found |= index.service_rows(contact, [services[service_id] for service_id in service_ids])
        return found

    def _contact(self, contact_id: str) -> Entity:
        (body,) = self._connection.execute(
            "SELECT body FROM documents WHERE type = 'Contact' AND id = ?", (contact_id,)
        ).fetchone()
        contact: Entity = orjson.loads(body)
        return contact


class Store:
    """The store in one directory; opened lazily by every process that uses it."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = data_dir / DATABASE
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        self._process = os.getpid()
        self._idle: list[sqlite3.Connection] = []
        self._inherited: list[sqlite3.Connection] = []
        close = WeakMethod(self.close)
        os.register_at_fork(before=lambda: (alive := close()) and alive())
        with self._connection() as connection:
            self._create(connection)

    @contextmanager
    def reading(self) -> Iterator[View]:
        """Gives a view of one moment of the store."""
        with self._connection() as connection:
            connection.execute("BEGIN")
            try:
                yield View(connection)
            finally:
                connection.execute("ROLLBACK")

    @contextmanager
    def writing(self) -> Iterator[Writing]:
        """Gives the only writer; what it wrote is on disk when the block ends, and gone if it raises."""
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield Writing(connection)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def close(self) -> None:
        """Closes the idle connections of this process; a later use opens new ones."""
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        if self._process != os.getpid():
            self._after_fork()
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._open()
        try:
            yield connection
        except sqlite3.Error:
            connection.close()
            raise
        except BaseException:
            self._idle.append(connection)
            raise
        self._idle.append(connection)

    def _after_fork(self) -> None:
        """Puts aside what was in use at the fork: SQLite must neither use nor close it in a child."""
        self._inherited += self._idle
        self._idle = []
        self._process = os.getpid()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIBIBYTES}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        return connection

    @staticmethod
    def _create(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise RuntimeError(
                    f"the embedded store has version {version}; this program knows {SCHEMA_VERSION}"
                )
            if version < SCHEMA_VERSION:
                for statement in (SCHEMA if version == 0 else FROM_VERSION_1).split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute(CHANGES)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
