"""What is kept of a request that writes: who sent it, what it is about to write, and its answer once it is done.

Strategy: an entry is one sealed value in the state. While it is open it is listed, and its owner holds a lock of the
same name that dies with the owner: an open entry that nobody holds is an orphan.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from bridge.plan import Write
from bridge.scope import Scope
from bridge.state import Hold, State, known_members
from mappings.values import Entity

KIND = "journal"
OPEN, APPLIED, ANSWERED = "open", "applied", "answered"


@dataclass(frozen=True, slots=True)
class Step:
    """One write to one document, with what undoing it takes."""

    method: str
    """create, modify or delete."""
    kind: str
    """Path of the type in the REST API."""
    id: str
    mark: str
    """By which what was written is known: a hash of its encrypted contents."""
    paths: list[str]
    """Which parts of the request it is for."""
    previous: Entity | None = field(default=None, repr=False)
    """The document as it was before."""

    @classmethod
    def of(cls, write: Write) -> Self:
        """Returns the step that a write is."""
        return cls(write.method, write.kind, write.entity["id"], write.mark, write.paths, write.previous)


@dataclass(slots=True)
class Entry:
    """A request that writes, as the journal keeps it."""

    name: str
    """Under which it is kept: of its caller and its key or body, or of nothing but itself."""
    user: str
    anonymous: bool
    """Whether undoing takes the caller's own key."""
    digest: str = ""
    """Of the request that it belongs to."""
    run: str = field(default_factory=lambda: str(uuid.uuid4()))
    """Tells one run of a request from the next."""
    begun: float = field(default_factory=time.time)
    """Epoch seconds."""
    phase: str = OPEN
    steps: list[Step] = field(default_factory=list)
    refresh: str | None = field(default=None, repr=False)
    """The upstream token by which any worker can undo it; kept only while it is open."""
    due: float = 0
    """Before that (epoch seconds) nobody looks at it again."""
    token_due: float = 0
    """Before that (epoch seconds) nobody tries the token again, which was not taken."""
    tries: int = 0
    """How often undoing it was tried in vain."""
    overtaken: bool = False
    """Whether somebody else changed since what is left of it: only an operator can decide."""
    watched: bool = False
    """Whether it is undone already, and only looked at once more for what arrived late."""
    answers: Any = field(default=None, repr=False)

    @classmethod
    def begun_by(cls, scope: Scope, name: str, digest: str = "") -> Self:
        """Returns a new entry of this caller."""
        caller = scope.caller
        return cls(name, caller.user_id, caller.anonymous, digest, refresh=caller.client.refresh_token)

    @property
    def waits_no_longer(self) -> bool:
        """Whether it is time to undo it, when it is an orphan."""
        return not self.overtaken and self.due <= time.time()

    @property
    def by_anybody(self) -> bool:
        """Whether it is time to undo it without its caller."""
        can = self.refresh is not None and not self.anonymous
        return can and self.waits_no_longer and self.token_due <= time.time()


class Journal:
    """The entries, in the state that all workers share."""

    def __init__(self, state: State) -> None:
        self._state = state

    def read(self, name: str) -> Entry | None:
        """Returns the entry of a name."""
        return _entry(self._state.get(KIND, name))

    def keep(self, entry: Entry, seconds: float | None = None) -> None:
        """Keeps the entry, for so long or until it is dropped; an open one is listed."""
        is_open = entry.phase == OPEN
        if not is_open:
            entry.steps, entry.refresh = [], None
        ends = None if seconds is None else time.time() + seconds
        self._state.put(KIND, entry.name, orjson.dumps(entry), ends, listed=is_open)

    def drop(self, entry: Entry) -> None:
        """Forgets the entry."""
        self._state.put(KIND, entry.name, None)

    def hold(self, name: str, wait: float = 0) -> Hold | None:
        """Returns the lock of a name, None when another has it for longer than so many seconds."""
        return self._state.hold(KIND, name, wait)

    def open_names(self) -> list[str]:
        """Returns the hidden names of the open entries."""
        return self._state.listed(KIND)

    def at(self, hidden: str) -> Entry | None:
        """Returns the entry under a hidden name."""
        return _entry(self._state.at(hidden))

    def open_entries(self) -> Iterator[Entry]:
        """Yields the open entries."""
        for hidden in self.open_names():
            if entry := self.at(hidden):
                yield entry


def _entry(value: bytes | None) -> Entry | None:
    if value is None:
        return None
    kept = orjson.loads(value)
    steps = [Step(**step) for step in kept.pop("steps")]
    return Entry(steps=steps, **known_members(Entry, kept))
