"""What is kept of a Subscription: as its owner sent it, the token by which it is followed, and how far that went.

Strategy: one sealed value in the state for each. Whoever changes it does so by `update`, atomically: the owner's
request and the worker that follows may come at the same time.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from bridge import wire
from bridge.state import State, known_members
from mappings.values import Resource

KIND, PINGS = "subscription", "subscription pings"
ENDED_SECONDS = 30 * 24 * 3600
"""How long a Subscription that is off is kept, so that its owner can read why."""
MARGIN_MS = 120_000
"""How far clocks may differ where time tells what changed."""


@dataclass(slots=True)
class Position:
    """How far the changes were told: by their number in one run of counting, and by the clock."""

    run: str
    number: int
    at: int
    """Epoch milliseconds."""


@dataclass(slots=True)
class Kept:
    """A Subscription."""

    id: str
    user: str
    base: str
    """The FHIR base as its owner saw it."""
    resource: Resource = field(repr=False)
    position: Position
    created: int
    """Epoch milliseconds."""
    modified: int = 0
    """Epoch milliseconds."""
    version: int = 1
    token_name: str = ""
    token: str | None = field(default=None, repr=False)
    """None once it is off."""
    failures: int = 0
    due: float = 0
    """Before that (epoch seconds) nothing is sent."""
    anonymous: bool = False
    """Whether its owner sees things by its key only, as no delegation names it: a patient, a device."""

    @property
    def channel(self) -> dict[str, Any]:
        """How its owner wants to be told."""
        channel: dict[str, Any] = self.resource["channel"]
        return channel

    @property
    def criteria(self) -> tuple[str, str]:
        """The resource type, and what is asked of it."""
        kind, _, query = str(self.resource["criteria"]).partition("?")
        return kind, query

    @property
    def needs_key(self) -> bool:
        """Whether content is looked at, by the criteria or because it is sent along, or nothing is seen without key."""
        return bool(self.anonymous or self.criteria[1] or self.channel.get("payload"))

    @property
    def since(self) -> int:
        """From when on (epoch milliseconds) there may be something that it was not told, where time tells."""
        return max(self.position.at - MARGIN_MS, self.created)

    @property
    def authorization(self) -> str:
        """The Authorization header by which it is followed."""
        return "Basic " + b64encode(f"{self.user}:{self.token}".encode()).decode()

    @property
    def ended(self) -> bool:
        """Whether its time is over."""
        end = self.resource.get("end")
        return end is not None and instant_ms(end) <= time.time() * 1000

    def say(self, status: str, error: str | None = None) -> None:
        """Has the resource tell how it stands; a version of its own when that is new."""
        if (self.resource.get("status"), self.resource.get("error")) == (status, error):
            return
        rest = {name: value for name, value in self.resource.items() if name not in ("status", "error")}
        self.resource = {**rest, "status": status, **({"error": error} if error else {})}
        self.touch()

    def touch(self) -> None:
        """Makes it a new version."""
        self.version, self.modified = self.version + 1, time.time_ns() // 1_000_000


def instant_ms(text: str) -> int:
    """Returns a FHIR instant in epoch milliseconds. Raises `ValueError`."""
    from datetime import datetime

    return int(datetime.fromisoformat(text).timestamp() * 1000)


class Subscriptions:
    """All Subscriptions, in the state that the workers share."""

    def __init__(self, state: State) -> None:
        self._state = state

    def get(self, subscription_id: str) -> Kept | None:
        """Returns the Subscription under an id."""
        return _read(self._state.get(KIND, subscription_id))

    def all(self) -> Iterator[Kept]:
        """Yields all of them, in any order."""
        for hidden in self._state.listed(KIND):
            kept = _read(self._state.at(hidden))
            if kept is not None:
                yield kept

    def of(self, user: str) -> list[Kept]:
        """Returns those of a user, oldest first."""
        return sorted((k for k in self.all() if k.user == user), key=lambda k: (k.created, k.id))

    def add(self, kept: Kept) -> None:
        """Keeps a new one."""
        self._state.put(KIND, kept.id, _written(kept), listed=True)

    def change(self, subscription_id: str, change: Callable[[Kept], None]) -> Kept | None:
        """Returns the Subscription as `change` left it; None when there is none any more."""
        changed: list[Kept] = []

        def apply(old: bytes | None) -> tuple[bytes | None, float | None]:
            kept = _read(old)
            changed[:] = []
            if kept is None:
                return None, None
            change(kept)
            changed[:] = [kept]
            off = kept.resource["status"] == "off"
            return _written(kept), time.time() + ENDED_SECONDS if off else None

        self._state.update(KIND, subscription_id, apply, listed=True)
        return changed[0] if changed else None

    def remove(self, subscription_id: str) -> None:
        """Forgets it."""
        self._state.put(KIND, subscription_id, None)
        self._state.put(PINGS, subscription_id, None)

    def ping(self, subscription_id: str, times: int) -> None:
        """Counts events of a Subscription whose owner listens over a websocket."""
        self._count(subscription_id, lambda happened, told: (happened + times, told))

    def pinged(self, subscription_id: str, told: int) -> None:
        """Keeps how many of them a listener was told."""
        self._count(subscription_id, lambda happened, before: (happened, max(before, told)))

    def pings(self, subscription_id: str) -> tuple[int, int]:
        """Returns how many events there were, and how many of them a listener was told."""
        return _pings(self._state.get(PINGS, subscription_id))

    def _count(self, subscription_id: str, change: Callable[[int, int], tuple[int, int]]) -> None:
        def apply(old: bytes | None) -> tuple[bytes | None, float | None]:
            return orjson.dumps(change(*_pings(old))), time.time() + ENDED_SECONDS

        self._state.update(PINGS, subscription_id, apply)


def _pings(value: bytes | None) -> tuple[int, int]:
    happened, told = orjson.loads(value or b"[0,0]")
    return happened, told


def _written(kept: Kept) -> bytes:
    members = asdict(kept) | {"resource": wire.dump(kept.resource).decode()}
    return orjson.dumps(members)


def _read(value: bytes | None) -> Kept | None:
    if value is None:
        return None
    members = orjson.loads(value)
    members["resource"] = wire.parse(members["resource"].encode())
    members["position"] = Position(**members["position"])
    return Kept(**known_members(Kept, members))
