"""Events: who is connected says what it wants to hear of, and is sent every entity that this happens to.

Facts: the first message of the client is the subscription, nothing is acknowledged. Each event is the bare entity, one
message each. The server says `ping`, the client `pong`. Nothing is sent again after a reconnect.

Strategy: each listener reads on in the table of changes, so it does not matter which process wrote, and nothing is
missed from the moment on that its connection is accepted. Filters are about the index, so an index of the one entity
is made in memory and asked.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import orjson

from bridge.embedded import index
from bridge.embedded.access import Access, Caller, access, hashed_access_keys
from bridge.embedded.documents import Documents
from bridge.embedded.entities import (
    CONTACT,
    DELEGATED,
    DEVICE,
    HEALTH_ELEMENT,
    HEALTHCARE_PARTY,
    PATIENT,
    USER,
)
from bridge.embedded.errors import AccessDenied, BadRequest, Busy, NoWebsocket, Refused
from bridge.embedded.filters import matches
from bridge.embedded.model import Entity
from bridge.embedded.predicates import Predicate, predicate
from bridge.embedded.services import enriched
from bridge.embedded.store import Change, Document, Store, View

ROOM, TALK = "websocket.room", "websocket.talk"
"""In the WSGI environment: whether there is room for one more, and who talks."""
FIRST_SECONDS = 30.0
"""For the client to say what it wants."""
POLL_SECONDS = 0.1
PING_SECONDS = 15
SILENT_SECONDS = 60
"""After which a client that answers no ping is given up."""
MOST_CHANGES = 50
"""Read at once."""
REFUSED = 1008
PACKAGE = "org.taktik.icure.entities."
SERVICE = "Service"
TYPES = {one.name: one for one in (PATIENT, CONTACT, HEALTH_ELEMENT, HEALTHCARE_PARTY, DEVICE, USER)}
HEARD = {f"{PACKAGE}embed.{SERVICE}": SERVICE} | {f"{PACKAGE}{name}": name for name in TYPES}
EVENTS = frozenset(("CREATE", "UPDATE", "DELETE"))
NOT_ONE_BY_ONE = frozenset(
    f"ServiceByHcParty{what}Filter"
    for what in (
        "CodePrefix",
        "TagPrefix",
        "MonthCodePrefix",
        "MonthTagPrefix",
        "Codes",
        "TagCodes",
        "HealthElementIds",
    )
)
"""Filters that the real server cannot hold against one entity."""


class Socket(Protocol):
    """A connection; what it does raises `ConnectionError` when the client is gone."""

    def send(self, text: str) -> None:
        """Sends a text."""

    def receive(self, seconds: float) -> str | None:
        """Returns the next text, None when none came in so many seconds."""

    def close(self, code: int, reason: str) -> None:
        """Ends the connection."""


class Wanted:
    """What a listener wants to hear of. Raises `Refused` for what is no subscription."""

    def __init__(self, store: Store, caller: Caller, said: Any) -> None:
        if type(said) is not dict or type(said.get("eventTypes")) is not list:
            raise BadRequest("the first message must be a subscription")
        if not said["eventTypes"] or not all(isinstance(e, str) and e in EVENTS for e in said["eventTypes"]):
            raise BadRequest("eventTypes must be some of CREATE, UPDATE, DELETE")
        name = said.get("entityClass")
        if not isinstance(name, str) or name not in HEARD:
            raise BadRequest("entityClass names nothing of which this server has events")
        self._events = frozenset(said["eventTypes"])
        self._type = HEARD[name]
        self._filter, self._holds = _chain(said.get("filter"))
        keys = said.get("accessControlKeys")
        values = [] if keys is None else [keys] if isinstance(keys, str) else keys
        if type(values) is not list or not all(isinstance(value, str) for value in values):
            raise BadRequest("accessControlKeys must be base64")
        self._documents = Documents(
            store, caller.with_request(hashed_access_keys(values), False, caller.unrestricted)
        )
        self._index = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._index.execute("CREATE TABLE entries (field, owner, key, number, item)")
        self._index.execute("CREATE TABLE service_versions (service, modified, contact)")
        self._finds(set(), "")

    def close(self) -> None:
        """Lets go of what it holds."""
        self._index.close()

    def heard(self, view: View, change: Change) -> Iterator[bytes]:
        """Yields the JSON of the entities that a change is to be told of."""
        if self._type == SERVICE and change.type == CONTACT.name:
            yield from self._services(view, change)
        elif self._type == change.type and change.event in self._events:
            document = self._document(view, change)
            if document is None or not self._documents.may_read(TYPES[self._type], document):
                return
            entity = document.entity
            alive = {name: value for name, value in entity.items() if name != "deletionDate"}
            versions = index.versions(alive) if self._type == CONTACT.name else set()
            if self._finds(index.rows(self._type, alive), document.id, versions) and self._holds(entity):
                yield document.body

    def _services(self, view: View, change: Change) -> Iterator[bytes]:
        if self._events.isdisjoint(change.services.values()):
            return
        document = self._document(view, change)
        if document is None or not self._documents.may_read(CONTACT, document):
            return
        contact = {name: value for name, value in document.entity.items() if name != "deletionDate"}
        before: Entity = orjson.loads(change.gone) if change.gone else contact
        services = index.newest_services(before) | index.newest_services(contact)
        parts = index.linked_parts(contact)
        for service_id, event in change.services.items():
            service = services.get(service_id)
            if event not in self._events or service is None:
                continue
            alone = enriched(service, contact, parts.get(service_id, ()))
            if self._finds(index.service_rows(contact, [service]), service_id) and self._holds(alone):
                yield orjson.dumps(alone)

    def _document(self, view: View, change: Change) -> Document | None:
        """Returns the document as it is now, or as it was before it was removed for good."""
        document = view.get(TYPES[change.type], change.id)
        if document is not None or change.gone is None:
            return document
        entity: Entity = orjson.loads(change.gone)
        known = Access(frozenset(), frozenset())
        if TYPES[change.type] in DELEGATED:
            known = access(entity, is_patient=change.type == PATIENT.name)
        return Document(change.id, entity["rev"], True, known, change.gone)

    def _finds(self, rows: set[index.Row], entity_id: str, versions: Iterable[index.Version] = ()) -> bool:
        """Whether the filter finds an entity that has these rows in the index."""
        self._index.execute("DELETE FROM service_versions")
        self._index.executemany("INSERT INTO service_versions VALUES (?, ?, ?)", versions)
        self._index.execute("DELETE FROM entries")
        self._index.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", rows)
        return entity_id in matches(View(self._index), self._documents.caller, self._type, self._filter)


def _chain(given: Any) -> tuple[Any, Predicate]:
    """Returns filter and predicate of a filter chain, or of a filter alone."""
    holds: Predicate = lambda entity: True  # noqa: E731
    if isinstance(given, dict) and "filter" in given and "$type" not in given:
        if given.get("predicate") is not None:
            holds = predicate(given["predicate"])
        given = given["filter"]
    if not NOT_ONE_BY_ONE.isdisjoint(_names(given)):
        raise BadRequest("this filter cannot be held against one entity")
    return given, holds


def _names(given: Any) -> Iterator[str]:
    """Yields the class of a filter and of those in it."""
    waiting = [given]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += one
        elif isinstance(one, dict):
            yield str(one.get("$type") or one.get("type"))
            waiting += [one[name] for name in ("filters", "superSet", "subSet") if name in one]


def accept(environ: dict[str, Any], store: Store, caller: Caller) -> None:
    """Leaves in the WSGI environment of a handshake who talks with the listener once it is accepted.

    Raises `NoWebsocket` for another request, `Busy` when there is no room for one more, `AccessDenied` when a browser
    sent a login that it remembers for whatever page is open.
    """
    room = environ.get(ROOM)
    if room is None:
        raise NoWebsocket("this is for websockets")
    if "HTTP_ORIGIN" in environ and "jwt=" not in environ.get("QUERY_STRING", ""):
        raise AccessDenied("a page cannot know this login: show a JWT in the URL")
    if not room:
        raise Busy("there are too many listeners; try again later")
    with store.reading() as view:
        number = view.last_change()
    environ[TALK] = lambda socket: listen(store, caller, socket, number)


def listen(store: Store, caller: Caller, socket: Socket, number: int) -> None:
    """Talks with a listener until it goes, falls silent, or is no user any more; of what came after a change."""
    try:
        wanted = Wanted(store, caller, _json(socket.receive(FIRST_SECONDS)))
    except Refused as e:
        socket.close(REFUSED, e.text)
        return
    try:
        _tell(store, caller, socket, wanted, number)
    except AccessDenied as e:
        socket.close(REFUSED, e.text)
    finally:
        wanted.close()


def _check_user(store: Store, caller: Caller) -> None:
    """Raises `AccessDenied` when the listener is no active user any more."""
    with store.reading() as view:
        document = view.get(USER, caller.user_id)
    if document is None or document.deleted or document.entity.get("status") != "ACTIVE":
        raise AccessDenied()


def _json(text: str | None) -> Any:
    try:
        return orjson.loads(text or "")
    except orjson.JSONDecodeError:
        raise BadRequest("the first message must be JSON") from None


def _tell(store: Store, caller: Caller, socket: Socket, wanted: Wanted, number: int) -> None:
    heard = pinged = time.monotonic()
    while True:
        if socket.receive(POLL_SECONDS) is not None:
            heard = time.monotonic()
        now = time.monotonic()
        if now - heard > SILENT_SECONDS:
            socket.close(REFUSED, "no pong")
            return
        if now - pinged > PING_SECONDS:
            _check_user(store, caller)
            socket.send("ping")
            pinged = now
        with store.reading() as view:
            changes = view.changes(number, MOST_CHANGES)
            told = [body for change in changes for body in wanted.heard(view, change)]
        for body in told:
            socket.send(body.decode())
        if changes:
            number = changes[-1].number
