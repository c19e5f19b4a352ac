"""What an iCure server tells over websockets: one connection for each user and kind of entity.

Facts: iCure REST API, `/ws/v2/notification/subscribe`. A connection carries one filter on one class of entities.
Nothing is acknowledged, and what happens while nobody is connected is not told later.

Strategy: a change is only heard here; what it is about is read like anything else. After each connecting iCure is asked
once what was modified since the one before, on behalf of all Subscriptions of the user; what comes meanwhile waits.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import orjson
from simple_websocket import Client, ConnectionClosed
from simple_websocket.errors import SimpleWebsocketError
from wsproto.utilities import ProtocolError

from bridge.auth import Caller
from bridge.errors import BridgeError, KeyMissing, NotLoggedIn
from bridge.events.changes import Change, Modified, kind_of, modified_at, modified_since
from bridge.events.kept import MARGIN_MS, Kept, Position
from bridge.homes import home_of, union
from bridge.scope import Bridge
from bridge.upstream import ACCESS_TYPES, CONNECT_SECONDS
from mappings import REGISTRY

PATH = "/ws/v2/notification/subscribe"
PACKAGE = "org.taktik.icure.entities."
CLASSES = {"Patient": "Patient", "Service": "embed.Service", "HealthElement": "HealthElement"}
MOST_REMEMBERED = 10_000
SETTLE_SECONDS = 1.0
"""After which iCure is taken to have understood what was asked."""
LOOK_SECONDS, POLL_SECONDS = 20.0, 1.0
"""How often is looked whether iCure still accepts who hears, and with the same keys; whether anybody wants to."""
SILENT_SECONDS = 60.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
NOT_HEARD = "iCure's events cannot be heard at present. What happens meanwhile is told when they can."


class Heard:
    """The changes of one user and kind since a time (epoch milliseconds)."""

    def __init__(self, since: int) -> None:
        self.run = str(uuid.uuid4())
        self.until = since
        """Up to then all is known."""
        self.filled = 0
        """How often it was made good what had been missed."""
        self.wanted = True
        """Whether anybody still wants to hear."""
        self.logins: tuple[str, ...] = ()
        """Authorization headers of the Subscriptions that hear."""
        self._trouble: str | None = None
        self._began = time.monotonic()
        self._since = since
        self._last = 0
        self._lock = threading.Lock()
        self._changes: deque[tuple[Change, float]] = deque()
        """With when they were heard of, or modified before that."""
        self._known: dict[str, float] = {}
        """When the entities that these are about were modified."""

    @property
    def ready(self) -> bool:
        """Whether it is known what changed until now, but for a connection that broke a moment ago."""
        return self.filled > 0

    @property
    def trouble(self) -> str | None:
        """In words, why nothing is heard at present; None when all is well."""
        slow = not self.ready and time.monotonic() - self._began > SILENT_SECONDS
        return self._trouble or (NOT_HEARD if slow else None)

    def fails(self, why: str) -> None:
        """Takes down that no connection can be had."""
        self._trouble = why

    def well(self) -> None:
        """Takes down that all is known and heard."""
        self._trouble = None
        self.filled += 1

    def add(self, kind: str, heard: float, modified: Modified, *, sure: bool = True) -> None:
        """Takes down a change."""
        when, entity_id = modified
        with self._lock:
            self._known[entity_id] = when
            self._last += 1
            self._changes.append((Change(self._last, kind, entity_id, sure), min(when or heard, heard)))
            if len(self._changes) > MOST_REMEMBERED:
                gone, before = self._changes.popleft()
                self._since = max(self._since, int(before) + 1)
                self._known.pop(gone.id, None)

    def knows(self, modified: Modified) -> bool:
        """Whether the last change of this entity that is remembered is this one."""
        when, entity_id = modified
        return when > 0 and self._known.get(entity_id) == when

    def last(self) -> int:
        """Returns the number of the last change, 0 for none."""
        return self._last

    def number_at(self, time: int) -> int | None:
        """Returns a number after which all changes since then (epoch ms) come; None when not all are known."""
        with self._lock:
            if time < self._since:
                return None
            later = (change.number - 1 for change, heard in self._changes if heard >= time)
            return next(later, self._last)

    def after(self, number: int, most: int) -> tuple[list[Change], int] | None:
        """Returns the first changes after a number, and the last number looked at; None when some are forgotten."""
        with self._lock:
            if self._changes and number < self._changes[0][0].number - 1:
                return None
            found = [change for change, _ in self._changes if change.number > number][:most]
        return found, found[-1].number if found else number


@contextmanager
def _closed_on_failure(line: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        line.close()
        raise


class _Encrypted(ssl.SSLSocket):
    """A line that is closed when it cannot be connected."""

    def connect(self, address: Any) -> None:
        with _closed_on_failure(self):
            super().connect(address)


class _Tls:
    """Encrypts a connection; who does not answer is not waited for. It stands for the client's `SSLContext`."""

    def wrap_socket(self, line: socket.socket, server_hostname: str) -> ssl.SSLSocket:
        line.settimeout(CONNECT_SECONDS)
        context = ssl.create_default_context()
        context.sslsocket_class = _Encrypted
        return context.wrap_socket(line, server_hostname=server_hostname)


class Connection(Client):  # type: ignore[misc]
    """A websocket to a server that may be none, and that may not answer. Raises `OSError` then."""

    def handshake(self) -> None:
        """Asks for the websocket, and waits for the answer."""
        # Facts: the client waits for ever for an answer, and leaves its socket open when it gets none or a bad one.
        self.sock.settimeout(CONNECT_SECONDS)
        with _closed_on_failure(self.sock):
            try:
                super().handshake()
            except ProtocolError as e:
                raise OSError from e
        self.sock.settimeout(None)

    def end(self) -> None:
        """Ends the connection, and the thread that reads from it."""
        # Fact: the client's own `close` also closes the socket, below the thread that reads: that waits for ever then.
        with suppress(ConnectionClosed, OSError):
            super(Client, self).close()
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.thread.join()


class Icure:
    """Hears of changes from an iCure server."""

    def __init__(self, url: str, bridge: Bridge, unexpected: Callable[[BaseException], None]) -> None:
        self._url = ("ws" + url.removeprefix("http")).rstrip("/") + PATH
        place = urlsplit(self._url)
        self._place = (str(place.hostname), place.port or (443 if place.scheme == "wss" else 80))
        self._bridge = bridge
        self._unexpected = unexpected
        self._heard: dict[tuple[str, str], Heard] = {}

    def begin(self, now: int) -> Position:
        """Returns where a Subscription stands that begins now (epoch milliseconds)."""
        return Position("", 0, now)

    def follow(self, followed: Iterable[Kept]) -> None:
        """Hears on behalf of these Subscriptions, and of no others."""
        wanted: dict[tuple[str, str], list[Kept]] = {}
        for kept in followed:
            wanted.setdefault(_heard_by(kept), []).append(kept)
        for gone in self._heard.keys() - wanted.keys():
            self._heard.pop(gone).wanted = False
        for key, several in wanted.items():
            heard = self._heard.get(key)
            if heard is None:
                heard = self._heard[key] = Heard(min(kept.since for kept in several))
                talk = partial(self._listen, heard, key[1])
                threading.Thread(target=talk, name="icure events", daemon=True).start()
            heard.logins = tuple(kept.authorization for kept in several)

    def of(self, kept: Kept) -> Heard:
        """Returns the changes that a Subscription hears of."""
        return self._heard[_heard_by(kept)]

    def _listen(self, heard: Heard, kind: str) -> None:
        """Listens until nobody wants to hear, connecting again with growing pauses."""
        pause = FIRST_PAUSE_SECONDS
        while heard.wanted:
            began, filled, why = time.monotonic(), heard.filled, NOT_HEARD
            try:
                self._connected(heard, kind)
            except KeyMissing as e:
                why = str(e)
            except (BridgeError, SimpleWebsocketError, OSError, ValueError, LookupError, TypeError):
                pass
            except Exception as e:  # noqa: BLE001  the thread goes on
                self._unexpected(e)
            if heard.filled == filled:
                heard.fails(why)
            if time.monotonic() - began > LONGEST_PAUSE_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _connected(self, heard: Heard, kind: str) -> None:
        caller = self._caller(heard)
        caller.client.current_user()  # with a token that ended, this gets a new one
        wanted = _wanted(caller, kind)
        # Fact: the client waits for ever for a host that does not answer.
        socket.create_connection(self._place, CONNECT_SECONDS).close()
        connection = Connection.connect(
            self._url,
            headers={"Authorization": f"Bearer {caller.client.token}"},
            ssl_context=_Tls(),
            thread_class=partial(threading.Thread, daemon=True),
        )
        try:
            connection.send(orjson.dumps(wanted).decode())
            held = _Line(heard, connection, kind)
            held.listen(SETTLE_SECONDS)
            held.fill(
                modified_since(caller.client, _type_of(kind), caller.hierarchy, heard.until - MARGIN_MS)
            )
            while _wanted(self._caller(heard), kind) == wanted and held.listen(LOOK_SECONDS):
                pass
        finally:
            connection.end()

    def _caller(self, heard: Heard) -> Caller:
        """Returns the user, by the first token that iCure still accepts; with the key where that is how it sees."""
        refused: BridgeError = NotLoggedIn()
        for login in heard.logins:
            try:
                credential = self._bridge.authenticator.credential(login)
                caller = self._bridge.authenticator.identify(credential)
                return self._bridge.keyed(credential, "").caller if caller.anonymous else caller
            except (NotLoggedIn, KeyMissing) as e:
                refused = e
        raise refused


class _Line:
    """A connection on which iCure tells what is heard."""

    def __init__(self, heard: Heard, connection: Connection, kind: str) -> None:
        self._heard, self._connection, self._kind = heard, connection, kind
        self._said = time.monotonic()
        self._waiting: list[tuple[float, Modified]] | None = []
        """What came before it was known what happened before the connection."""

    def listen(self, seconds: float) -> bool:
        """Takes down what is said for so many seconds; returns whether there may be more to come."""
        ends = time.monotonic() + seconds
        while self._heard.wanted:
            text = self._connection.receive(timeout=min(POLL_SECONDS, seconds))
            if text is not None:
                self._note(text)
            if time.monotonic() >= ends and (seconds or text is None):
                break
        return self._heard.wanted and time.monotonic() - self._said < SILENT_SECONDS

    def _note(self, text: str) -> None:
        self._said, now = time.monotonic(), _now()
        if text == "ping":
            self._connection.send("pong")
        else:
            entity = orjson.loads(text)
            told = (now, (modified_at(entity), str(entity["id"])))
            if self._waiting is not None:
                self._waiting.append(told)
                return
            self._heard.add(self._kind, *told)
        if self._waiting is None:
            self._heard.until = now

    def fill(self, missed: Iterator[list[Modified]]) -> None:
        """Takes down what was missed, and then what came while it was read; goes on listening meanwhile."""
        now, found = _now(), []
        for page in missed:
            found += page
            self.listen(0)
        for one in sorted(found):
            if not self._heard.knows(one):
                self._heard.add(self._kind, now, one, sure=one[0] > 0)
        for told in self._waiting or ():
            self._heard.add(self._kind, *told)
        self._waiting = None
        self._heard.until = now
        self._heard.well()


def _now() -> int:
    return time.time_ns() // 1_000_000


def _heard_by(kept: Kept) -> tuple[str, str]:
    return kept.user, kind_of(kept.criteria[0])


def _type_of(kind: str) -> str:
    return next(name for name, mapping in REGISTRY.items() if mapping.entity_type == kind)


def _wanted(caller: Caller, kind: str) -> dict[str, Any]:
    home, keys = home_of(_type_of(kind)), caller.client.access_keys
    return {
        "eventTypes": ["CREATE", "UPDATE"],
        "entityClass": PACKAGE + CLASSES[kind],
        "filter": {"filter": union(home.all_filter(owner) for owner in caller.hierarchy)},
        "accessControlKeys": sorted(keys(ACCESS_TYPES[home.kind])) if keys else None,
    }
