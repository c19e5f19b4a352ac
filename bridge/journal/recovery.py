"""Undoing what an owner left behind: by the caller's next request, or by any worker with the caller's upstream token.

Facts: an entry is an orphan when it is open and nobody holds its lock; its owner died, or could not undo it then.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from bridge.config import Config
from bridge.errors import BridgeError, Conflict, KeyMissing
from bridge.journal.entry import OPEN, Entry, Journal
from bridge.journal.undoing import Left, undo
from bridge.scope import Bridge, Scope
from bridge.upstream import READ_SECONDS, Client

LONGEST_PAUSE_SECONDS = 300


def late_seconds(config: Config) -> float:
    """Returns for how long a write may still arrive upstream after its reply was given up.

    The embedded store is in this process: it dies with what it was asked.
    """
    return 0 if config.embedded else 2 * READ_SECONDS


def settle(
    journal: Journal,
    client: Client,
    entry: Entry,
    late: float,
    refused: Collection[str] = (),
    acknowledged: Mapping[str, str] | None = None,
) -> list[Left]:
    """Undoes an open entry and drops it, or keeps what is left of it; returns that.

    With `late` it is looked at once more after so many seconds, for what arrived only then.
    """
    left = undo(client, entry.steps, refused, acknowledged or {})
    if left:
        entry.steps = [one.step for one in reversed(left)]
        entry.overtaken = all(one.overtaken for one in left)
        _put_off(entry)
        journal.keep(entry)
        return left
    if late and not entry.watched:
        rest = Entry(str(uuid.uuid4()), entry.user, entry.anonymous, refresh=entry.refresh, steps=entry.steps)
        rest.watched, rest.due = True, time.time() + late
        journal.keep(rest)
    journal.drop(entry)
    return []


def recover(journal: Journal, client: Client, name: str, config: Config) -> list[Left]:
    """Undoes the entry of a name when it is an orphan and due; returns what is left."""
    with _orphan(journal, name) as entry:
        if entry is None or not entry.waits_no_longer:
            return []
        return settle(journal, client, entry, late_seconds(config))


@contextmanager
def _orphan(journal: Journal, name: str) -> Iterator[Entry | None]:
    """Holds the open entry of a name; None when there is none, or while its owner lives."""
    hold = journal.hold(name)
    if hold is None:
        yield None
        return
    try:
        entry = journal.read(name)
        yield entry if entry is not None and entry.phase == OPEN else None
    finally:
        hold.release()


def recovered(scope: Scope) -> None:
    """Undoes the orphans of this caller."""
    journal = Journal(scope.state)
    for hidden in journal.open_names():
        known = scope.open_entries.get(hidden)
        if known is None and (entry := journal.at(hidden)):
            known = (entry.user, entry.name)
            scope.open_entries.put(hidden, known)
        if known is not None and known[0] == scope.caller.user_id:
            recover(journal, scope.client, known[1], scope.config)


def sweep(bridge: Bridge) -> None:
    """Undoes what is due of all callers whose upstream token is in the entry."""
    journal = Journal(bridge.state)
    for listed in journal.open_entries():
        if listed.by_anybody:
            with _orphan(journal, listed.name) as entry:
                if entry is not None and entry.by_anybody:
                    _sweep(bridge, journal, entry)


def _sweep(bridge: Bridge, journal: Journal, entry: Entry) -> None:
    """Undoes an orphan by its token. One that is refused is put off, but not for its caller, who needs none."""
    try:
        client = _client(bridge, entry)
    except BridgeError:
        entry.token_due = time.time() + LONGEST_PAUSE_SECONDS
        journal.keep(entry)
        return
    settle(journal, client, entry, late_seconds(bridge.config))


def resolve(bridge: Bridge, name: str) -> list[Left]:
    """Undoes an orphan at an operator's word, due or not; returns what is left.

    Raises `KeyMissing` when only its caller can, `Conflict` while its owner lives, `NotLoggedIn` when its token ended.
    """
    journal = Journal(bridge.state)
    with _orphan(journal, name) as entry:
        if entry is None:
            raise Conflict("It is running, or was closed just now.")
        if entry.refresh is None or entry.anonymous:
            raise KeyMissing("Only a request of its caller can undo it.")
        return settle(journal, _client(bridge, entry), entry, late_seconds(bridge.config))


def close(journal: Journal, name: str) -> bool:
    """Closes an orphan as it stands; returns whether it was one."""
    with _orphan(journal, name) as entry:
        if entry is not None:
            journal.drop(entry)
        return entry is not None


def _client(bridge: Bridge, entry: Entry) -> Client:
    return Client(bridge.upstream, bridge.upstream.renewed(entry.refresh or ""))


def _put_off(entry: Entry) -> None:
    entry.tries += 1
    entry.due = time.time() + min(2**entry.tries, LONGEST_PAUSE_SECONDS)
