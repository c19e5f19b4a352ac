"""What an iCure server tells over websockets: one connection for each user and kind of entity.

Facts: iCure REST API, `/ws/v2/notification/subscribe`. Nothing is acknowledged, and what happens while nobody is
connected is not told later.

Strategy: a change is only heard here; what it is about is read like anything else. Every new connection begins a new
run, so that those who stand in the one before ask for what they missed.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from functools import partial

import orjson
from simple_websocket import Client as Connection
from simple_websocket import ConnectionClosed
from simple_websocket.errors import SimpleWebsocketError

from bridge.auth import Authenticator, Caller
from bridge.errors import BridgeError
from bridge.events.changes import Change
from bridge.homes import home_of, union
from mappings import REGISTRY

PATH = "/ws/v2/notification/subscribe"
PACKAGE = "org.taktik.icure.entities."
CLASSES = {"Patient": "Patient", "Service": "embed.Service", "HealthElement": "HealthElement"}
MOST_REMEMBERED = 10_000
SETTLE_SECONDS = 1.0
"""After which iCure is taken to have understood what was asked."""
SILENT_SECONDS = 60.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0


class Heard:
    """The changes of one user and kind, while there is a connection."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changes: deque[Change] = deque(maxlen=MOST_REMEMBERED)
        self._last = 0
        self.run = str(uuid.uuid4())
        self.wanted = True
        """Whether anybody still wants to hear."""

    def begin(self) -> None:
        """Begins a new run."""
        with self._lock:
            self.run = str(uuid.uuid4())

    def add(self, kind: str, entity_id: str) -> None:
        """Takes down a change."""
        with self._lock:
            self._last += 1
            self._changes.append(Change(self._last, kind, entity_id))

    def last(self) -> int:
        """Returns the number of the last change, 0 for none."""
        return self._last

    def after(self, number: int, most: int) -> tuple[list[Change], int] | None:
        """Returns the first changes after a number, and the last number looked at; None when some are forgotten."""
        with self._lock:
            if self._changes and number < self._changes[0].number - 1:
                return None
            found = [change for change in self._changes if change.number > number][:most]
        return found, found[-1].number if found else number


class Icure:
    """Hears of changes from an iCure server."""

    def __init__(self, url: str, authenticator: Authenticator) -> None:
        self._url = ("ws" + url.removeprefix("http")).rstrip("/") + PATH
        self._authenticator = authenticator
        self._heard: dict[tuple[str, str], Heard] = {}
        self._lock = threading.Lock()

    def of(self, user: str, authorization: str, kind: str) -> Heard:
        """Returns the changes that a user hears of; begins to listen when nobody did."""
        with self._lock:
            heard = self._heard.get((user, kind))
            if heard is None:
                heard = self._heard[user, kind] = Heard()
                talk = partial(self._listen, heard, authorization, kind)
                threading.Thread(target=talk, name="icure events", daemon=True).start()
        return heard

    def keep(self, users: Collection[str]) -> None:
        """Hears no more on behalf of others than these."""
        with self._lock:
            for user, kind in list(self._heard):
                if user not in users:
                    self._heard.pop((user, kind)).wanted = False

    def _listen(self, heard: Heard, authorization: str, kind: str) -> None:
        """Listens until nobody wants to hear, connecting again with growing pauses."""
        pause = FIRST_PAUSE_SECONDS
        while heard.wanted:
            began = time.monotonic()
            with suppress(BridgeError, SimpleWebsocketError, OSError, ValueError, LookupError, TypeError):
                self._connected(heard, authorization, kind)
            if time.monotonic() - began > LONGEST_PAUSE_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _connected(self, heard: Heard, authorization: str, kind: str) -> None:
        caller = self._authenticator.identify(self._authenticator.credential(authorization))
        caller.client.current_user()  # with a token that ended, this gets a new one
        connection = Connection.connect(
            self._url,
            headers={"Authorization": f"Bearer {caller.client.token}"},
            thread_class=partial(threading.Thread, daemon=True),
        )
        try:
            connection.send(orjson.dumps(_wanted(caller, kind)).decode())
            self._hear(heard, connection, kind)
        finally:
            with suppress(ConnectionClosed, OSError):
                connection.close()

    def _hear(self, heard: Heard, connection: Connection, kind: str) -> None:
        said = time.monotonic()
        settled = False
        while heard.wanted and time.monotonic() - said < SILENT_SECONDS:
            text = connection.receive(timeout=SETTLE_SECONDS)
            if not settled:
                heard.begin()
                settled = True
            if text is None:
                continue
            said = time.monotonic()
            if text == "ping":
                connection.send("pong")
            else:
                heard.add(kind, str(orjson.loads(text)["id"]))


def _wanted(caller: Caller, kind: str) -> dict[str, object]:
    resource_type = next(name for name, mapping in REGISTRY.items() if mapping.entity_type == kind)
    keys = caller.client.access_keys
    owners = (caller.data_owner_id, *caller.ancestors)
    filters = [home_of(resource_type).all_filter(owner) for owner in owners]
    return {
        "eventTypes": ["CREATE", "UPDATE"],
        "entityClass": PACKAGE + CLASSES[kind],
        "filter": {"filter": union(filters)},
        "accessControlKeys": list(keys(kind)) if keys else None,
    }
