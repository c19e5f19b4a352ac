"""A request that is done once, however often it is sent.

Facts: a POST may be sent again because its answer was lost, or because it is meant to be done again; HTTP does not
tell which. https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
Strategy: with an `Idempotency-Key` the answer is kept for a day, and given to whoever sends the same request under the
same key; the resource of an answer that says where it is is read again there. A transaction without a key is known by
its body, and given its answer while it is running or when it was done and nobody heard the answer; after an answer the
same body is a new request.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

from bridge.errors import BridgeError, Conflict, Issue, KeyReused, UpstreamFailed
from bridge.homes import home_of
from bridge.interactions import Answer
from bridge.journal import ANSWERED, APPLIED, OPEN, Entry, Journal, late_seconds, settle
from bridge.scope import Running, Scope
from bridge.state import Hold, State
from mappings.values import Json

WAIT_SECONDS = 30.0
"""How long a request waits for the same one that is running."""
MOST_WAITING = 4
"""How many requests of a worker wait so at once: its other threads stay free."""
_WAITING = threading.BoundedSemaphore(MOST_WAITING)
REPEAT_SECONDS = 300
"""How long the answer of a request without key is kept, for those who wait for it."""
KEPT_SECONDS = 24 * 3600
"""How long an answer is kept that nobody heard, or that has a key."""

Answers = dict[int, Answer]
"""What the parts of a request came to, by their place in it."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """By what a request is known when it comes again."""

    digest: str
    """SHA-256 of what was sent."""
    key: str | None = None
    """Its `Idempotency-Key`."""
    heard: Callable[[], bool] = lambda: True
    """Whether the client is still there for the answer."""

    @classmethod
    def of(cls, method: str, url: str, body: bytes, key: str | None, heard: Callable[[], bool]) -> Request:
        """Returns what is known of a request."""
        digest = hashlib.sha256(f"{method} {url}\n".encode())
        digest.update(body)
        return cls(digest.hexdigest(), key, heard)

    @property
    def keyed(self) -> Request | None:
        """The request when it has a key: for what is not known again by its body alone."""
        return None if self.key is None else self

    def new_id(self, user: str) -> str:
        """Returns the id of what it makes for a user: the same whenever it is sent again under its key."""
        return str(
            uuid.uuid4() if self.key is None else uuid.uuid5(uuid.NAMESPACE_URL, f"{user}\0{self.key}")
        )

    def part(self, at: int) -> Request | None:
        """Returns what one part of a request is known by that is done part by part; only a key makes that so."""
        return None if self.key is None else replace(self, key=f"{self.key}\0{at}")


def once(
    scope: Scope, request: Request | None, do: Callable[[Scope], Answers], then: Callable[[Answers], T]
) -> T:
    """Returns what `then` makes of what a request came to, now or when it was sent before: then without the resources
    that can be read again.

    Only after `then` it counts as done, so what that takes time for or fails in leaves nothing that nobody was told.

    Raises `KeyReused` for a key that stands for another request, `Conflict` while the same request is running, or
    when an earlier run of it could be neither finished nor undone.
    """
    if request is None:
        return then(do(scope))
    journal, name = Journal(scope.state), _name(scope.caller.user_id, request)
    before = journal.read(name)
    _check_same(request, before)
    with _alone(journal, name) as hold:
        entry = journal.read(name)
        _check_same(request, entry)
        if entry is not None and entry.phase == OPEN:
            _undo(scope, journal, entry)
        elif entry is not None and _tells(request, before, entry):
            whole = then({int(at): _told(answer) for at, answer in entry.answers.items()})
            _close(journal, request, entry, hold)
            return whole
        running = Running(name, request.digest, hold)
        answers = do(replace(scope, running=running))
        whole = then(answers)
        if running.wrote or request.key is not None:
            entry = Entry.begun_by(scope, name, request.digest)
            entry.answers = {str(at): _kept(answer) for at, answer in answers.items()}
            _close(journal, request, entry, hold)
        return whole


def apart(scope: Scope, request: Request | None, do: Callable[[], tuple[T, bool]]) -> T:
    """Returns what a request came to that is done part by part, and whose key stands for it alone.

    `do` also says whether anything was done; a key under which nothing was is free again.

    Raises `KeyReused` for a key that stands for another request.
    """
    if request is None or request.key is None:
        return do()[0]
    journal, name = Journal(scope.state), _name(scope.caller.user_id, request)
    with _alone(journal, name):
        _check_same(request, journal.read(name))
        entry = Entry.begun_by(scope, name, request.digest)
        entry.phase, entry.answers = ANSWERED, {}
        journal.keep(entry, KEPT_SECONDS)
    came_to, done = do()
    if not done:
        journal.drop(entry)
    return came_to


@contextmanager
def standing(state: State, user: str, request: Request) -> Iterator[None]:
    """Has a key stand for this request alone once it is done, where what it makes is known again by its id.

    Raises `KeyReused` for a key that stands for another request.
    """
    if request.key is None:
        yield
        return
    journal, name = Journal(state), _name(user, request)
    with _alone(journal, name):
        _check_same(request, journal.read(name))
        yield
        journal.keep(Entry(name, user, False, request.digest, phase=ANSWERED), KEPT_SECONDS)


def _name(user: str, request: Request) -> str:
    known_by = f"body\0{request.digest}" if request.key is None else f"key\0{request.key}"
    return f"{user}\0{known_by}"


@contextmanager
def _alone(journal: Journal, name: str) -> Iterator[Hold]:
    """Holds a name. Raises `Conflict` while another does for too long, or too many wait in this worker already."""
    hold = journal.hold(name)
    if hold is None and _WAITING.acquire(blocking=False):
        try:
            hold = journal.hold(name, WAIT_SECONDS)
        finally:
            _WAITING.release()
    if hold is None:
        raise Conflict("The same request is still running.", headers={"Retry-After": "5"})
    try:
        yield hold
    finally:
        hold.release()


def _check_same(request: Request, entry: Entry | None) -> None:
    if entry is not None and entry.digest != request.digest:
        raise KeyReused()


def _tells(request: Request, before: Entry | None, entry: Entry) -> bool:
    """Whether what was answered before is the answer now: not to one who sends a body again after the answer."""
    heard_before = before is not None and before.phase == ANSWERED and before.run == entry.run
    return request.key is not None or not heard_before


def _undo(scope: Scope, journal: Journal, entry: Entry) -> None:
    """Undoes what an earlier run of the request left. Raises `Conflict` or `UpstreamFailed` when that is impossible."""
    left = settle(journal, scope.client, entry, late_seconds(scope.config))
    if left:
        kind = Conflict if all(one.overtaken for one in left) else UpstreamFailed
        text = "An earlier run of this request left this, and it could not be undone."
        paths = [path for one in left for path in one.step.paths]
        raise kind(issues=[Issue("incomplete", text, path) for path in paths])


def _close(journal: Journal, request: Request, entry: Entry, hold: Hold) -> None:
    """Keeps the answer, just before it is given. Raises `StateUnavailable` when others may have undone it."""
    hold.check()
    heard = request.heard()
    entry.phase = ANSWERED if heard else APPLIED
    journal.keep(entry, KEPT_SECONDS if request.key is not None or not heard else REPEAT_SECONDS)


def _kept(answer: Answer) -> Json:
    """Returns an answer, without its resource when that can be read again where it is."""
    warnings = [asdict(issue) for issue in answer.warnings]
    resource = answer.resource if answer.location is None else None
    return {
        **{name: getattr(answer, name) for name in _KEPT},
        "warnings": warnings,
        **({} if resource is None else {"resource": resource}),
    }


_KEPT = ("status", "location", "version", "modified")


def _told(kept: Json) -> Answer:
    return Answer(**{**kept, "warnings": [Issue(**issue) for issue in kept["warnings"]]})


def shown(scope: Scope, answer: Answer) -> Answer:
    """Returns the answer with its resource, read again where it was answered before and nobody changed it since.

    What was done stays told so where the resource cannot be read now.
    """
    if answer.resource is not None or answer.location is None or answer.status == 204:
        return answer
    resource_type, _, logical_id = answer.location.partition("/")
    try:
        record = home_of(resource_type).read(scope, resource_type, logical_id)
    except BridgeError:
        return answer
    if record is None or record.deleted or record.version != answer.version:
        return answer
    return replace(answer, resource=record.resource)
