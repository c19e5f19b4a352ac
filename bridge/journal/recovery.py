"""Undoing what an owner left behind: by the caller's next request, or by any worker with the caller's upstream token.

Facts: an entry is an orphan when it is open and nobody holds its lock; its owner died, or could not undo it then.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Mapping

from bridge.config import Config
from bridge.errors import BridgeError
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
    hold = journal.hold(name)
    if hold is None:
        return []
    try:
        entry = journal.read(name)
        if entry is None or entry.phase != OPEN or not entry.waits_no_longer:
            return []
        return settle(journal, client, entry, late_seconds(config))
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
    for entry in journal.open_entries():
        if entry.refresh is None or entry.anonymous or not entry.waits_no_longer:
            continue
        try:
            client = Client(bridge.upstream, bridge.upstream.renewed(entry.refresh))
            recover(journal, client, entry.name, bridge.config)
        except BridgeError:
            _try_later(journal, entry.name)


def _try_later(journal: Journal, name: str) -> None:
    hold = journal.hold(name)
    if hold is None:
        return
    try:
        entry = journal.read(name)
        if entry is not None and entry.phase == OPEN:
            _put_off(entry)
            journal.keep(entry)
    finally:
        hold.release()


def _put_off(entry: Entry) -> None:
    entry.tries += 1
    entry.due = time.time() + min(2**entry.tries, LONGEST_PAUSE_SECONDS)
