"""What one request works with: who calls, with which keys, and what it is to be warned of."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from cachetools import TTLCache

from bridge.accesslog import AccessLog
from bridge.auth import Authenticator, Caller, Credential
from bridge.config import Config
from bridge.crypto.keyring import Keyring, Opened
from bridge.crypto.manifest import Manifests
from bridge.errors import Issue
from bridge.keychain import Keychain
from bridge.mail import Mail
from bridge.state import Hold, State
from bridge.throttle import Throttle
from bridge.upstream import Client, Upstream
from mappings.engine import Context
from mappings.repeats import Repeats

REMEMBER_SECONDS = 600
MANY = 50
"""Resources, from which on a request waits for its turn to compute."""
TURN_SECONDS = 1.0
"""How long it waits at most: a small Bundle does not wait for all of a very large one."""
T = TypeVar("T")


class Memory(Generic[T]):
    """What a worker remembers for ten minutes, by name; its threads share it."""

    def __init__(self, most: int) -> None:
        self._cache: TTLCache[str, T] = TTLCache(maxsize=most, ttl=REMEMBER_SECONDS)
        self._lock = threading.Lock()

    def get(self, name: str) -> T | None:
        """Returns what is remembered, None for nothing."""
        with self._lock:
            return self._cache.get(name)

    def put(self, name: str, value: T) -> None:
        """Remembers."""
        with self._lock:
            self._cache[name] = value


class Turns:
    """Who of a worker's threads computes, where there is much to compute.

    Fact: one Python process computes one thing at a time. Two who compute at once change places all the time, and both
    hold all that they have so far.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def of(self, resources: int) -> Iterator[None]:
        """Holds the turn of who has so many resources to check or to map; few need none."""
        held = resources >= MANY and self._lock.acquire(timeout=TURN_SECONDS)
        try:
            yield
        finally:
            if held:
                self._lock.release()


@dataclass(slots=True)
class Running:
    """A request that is done once: under which name, and the lock that nobody else has meanwhile."""

    name: str
    digest: str
    hold: Hold
    wrote: bool = False
    """Whether it has an entry in the journal."""


class Patient(Protocol):
    """What the access log has to know of a record."""

    @property
    def resource_type(self) -> str:
        """Its FHIR type."""

    @property
    def id(self) -> str:
        """Its id on the server."""

    @property
    def opened(self) -> Opened:
        """What its envelope holds."""


@dataclass(slots=True)
class Scope:
    """One caller's request, from the first line to the last."""

    config: Config
    state: State
    caller: Caller
    keyring: Keyring
    manifests: Manifests
    base: str
    """FHIR base of this server as the caller sees it, without a slash at the end."""
    known_parties: Memory[bool]
    """Which HealthcareParty ids exist."""
    open_entries: Memory[tuple[str, str]]
    """Whose the open entries of the journal are, and their names, by hidden name."""
    turns: Turns
    access_log: AccessLog | None = None
    """None where nobody wants to know who was shown what."""
    running: Running | None = None
    """Under which name the request writes; None when it is not known again."""
    warnings: list[Issue] = field(default_factory=list)
    shows_written: bool = True
    """Whether the answer holds the resources as written; else they are let go as soon as they are encrypted."""
    unopened: int = 0
    """How many entities a search met that no loaded key opens."""
    now: int = field(default_factory=lambda: time.time_ns() // 1_000_000)

    @property
    def client(self) -> Client:
        """iCure as the caller sees it."""
        return self.caller.client

    @property
    def owners(self) -> tuple[str, ...]:
        """Data owners in whose name the caller searches: its own and those ancestors whose key is loaded."""
        return tuple(o for o in self.caller.hierarchy if o in self.keyring.owners)

    def shown(self, records: Iterable[Patient]) -> None:
        """Has the access log note which patients the caller is shown."""
        if self.access_log is not None:
            for one in records:
                if one.resource_type == "Patient":
                    self.access_log.note(self.caller, self.keyring, one.id, one.opened.secret_ids)

    def context(
        self, known: Callable[[str], bool] = lambda reference: True, repeats: Repeats | None = None
    ) -> Context:
        """Returns what the mappings have to know; `known` says which relative references iCure holds."""
        return Context(self.now, self.config.timezone, known, self.caller.data_owner_id, repeats)


@dataclass(frozen=True, slots=True)
class Bridge:
    """What all requests of one process share; `app.create_app` puts it together."""

    config: Config
    upstream: Upstream
    state: State
    throttle: Throttle
    authenticator: Authenticator
    keychain: Keychain
    manifests: Manifests
    mail: Mail | None = None
    """None where no mail server is set."""
    access_log: AccessLog | None = None
    known_parties: Memory[bool] = field(default_factory=lambda: Memory(100_000))
    open_entries: Memory[tuple[str, str]] = field(default_factory=lambda: Memory(10_000))
    turns: Turns = field(default_factory=Turns)

    def scope(self, authorization: str | None, base: str, address: str = "") -> Scope:
        """Returns the scope of a caller at an address, with its keys open.

        Raises `NotLoggedIn`, `Throttled`, `Forbidden`, `KeyMissing`.
        """
        return self.keyed(self.authenticator.credential(authorization, address), base)

    def keyed(self, credential: Credential, base: str) -> Scope:
        """Returns the scope of who shows this credential. Raises `NotLoggedIn`, `Forbidden`, `KeyMissing`."""
        caller = self.authenticator.identify(credential)
        keyring = self.keychain.open(caller, credential)
        return Scope(
            config=self.config,
            state=self.state,
            caller=caller,
            keyring=keyring,
            manifests=self.manifests,
            base=base,
            known_parties=self.known_parties,
            open_entries=self.open_entries,
            turns=self.turns,
            access_log=self.access_log,
        )
