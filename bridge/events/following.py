"""Following: every Subscription hears of what changed, in order, each change at least once.

Strategy: one thread of each worker looks which Subscriptions there are and holds a lock for each of their owners, which
dies with the worker. For those it holds it starts a *round* in a thread of its own whenever something changed: what
changed since the position that is kept, which of it meets the criteria, a notification for each, and only then the new
position. Whoever takes over after a crash begins where the last kept position is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from urllib.parse import parse_qsl

from bridge import search, wire
from bridge.auth import Credential
from bridge.errors import BridgeError, BusinessRule, Forbidden, KeyMissing, NotLoggedIn, UpstreamFailed
from bridge.events.changes import Changes, Source, kind_of, modified_since
from bridge.events.hooks import Hooks, Undelivered, read_headers
from bridge.events.kept import Kept, Position, Subscriptions
from bridge.homes import Record, home_of
from bridge.scope import Bridge
from bridge.state import Hold
from bridge.upstream import Client
from mappings.observation import is_observation

HOLD, CHANGING = "subscriptions of", "subscription"
"""Kinds of locks: who follows the Subscriptions of a user, and who begins or ends one."""
LOOK_SECONDS = 1.0
"""How often a worker looks for new Subscriptions, and for those whose worker died."""
MOST_LOOKING = 0.05
"""Which share of its time it may look, where there are very many."""
POLL_SECONDS = 0.05
MOST_CHANGES = 50
"""Looked at in one round."""
MOST_ROUNDS, MOST_ROUNDS_OF_ONE = 16, 4
"""At once, in all and of one owner: an endpoint that is slow costs others nothing."""
AT_ONCE = 8
"""Notifications that a round sends at the same time: they are about different resources, so any may come first."""
MOST_FAILURES = 20
LONGEST_PAUSE_SECONDS = 600.0
WAIT_SECONDS = 5.0
"""Until a Subscription that waits for its owner's key looks again."""
KEEP_SECONDS = 5.0
"""How often a position is kept that passed over changes which were not wanted."""
UNEXPECTED = "The bridge failed to tell of something; it tries again. Its log has more."
NO_KEY = "The owner's key is not loaded, or ended: notifications wait until it is uploaded again."

Wanted = tuple[str, Record | None]
"""The id of a resource to tell of, and the resource where it was opened."""


@dataclass(slots=True)
class Followed:
    """A Subscription that this worker follows, between its rounds."""

    id: str
    user: str
    changes: Changes
    position: Position
    due: float = 0
    """Before that (epoch seconds) no round begins."""
    urgent: bool = False
    """Whether a round is due although nothing changed."""
    running: bool = False
    kept_at: float = field(default_factory=time.monotonic)

    def behind(self, last: int) -> bool:
        """Whether something changed that it has not seen, where this is the number of the last change."""
        unseen = self.changes.run != self.position.run or last != self.position.number
        return self.changes.ready and unseen


@dataclass(slots=True)
class News:
    """What changed, with the position before each, and the position after all of them."""

    before: dict[str, Position]
    position: Position
    doubted: set[str]
    """What may have changed long ago."""


class Following:
    """The Subscriptions that this worker follows."""

    def __init__(
        self, bridge: Bridge, source: Source, mark: str, unexpected: Callable[[BaseException], None]
    ) -> None:
        self.bridge = bridge
        self.source = source
        self.hooks = Hooks(bridge.config, mark)
        self.subscriptions = Subscriptions(bridge.state)
        self._unexpected = unexpected
        self._holds: dict[str, Hold] = {}
        self._followed: dict[str, Followed] = {}
        self._rounds = threading.Semaphore(MOST_ROUNDS)
        self._look_again = 0.0

    def start(self) -> None:
        """Follows in a thread that ends with the process."""
        threading.Thread(target=self._run, name="subscriptions", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                began = time.monotonic()
                if began > self._look_again:
                    self.look()
                    took = time.monotonic() - began
                    self._look_again = began + max(LOOK_SECONDS, took / MOST_LOOKING)
                for one in self.due():
                    self._begin(one)
                time.sleep(POLL_SECONDS)
            except Exception as e:  # noqa: BLE001  the thread goes on
                self._unexpected(e)
                time.sleep(LOOK_SECONDS)

    def _begin(self, one: Followed) -> None:
        """Begins a round in a thread of its own, when there is room for it."""
        busy = sum(f.running for f in self._followed.values() if f.user == one.user)
        if busy >= MOST_ROUNDS_OF_ONE or not self._rounds.acquire(blocking=False):
            return
        one.running = True

        def over() -> None:
            one.running = False
            self._rounds.release()

        def run() -> None:
            try:
                self.round(one)
            except Exception as e:  # noqa: BLE001  a later round tries again
                one.due = time.time() + WAIT_SECONDS
                self._unexpected(e)
                with suppress(BridgeError):
                    self._put_off(one, UNEXPECTED, WAIT_SECONDS)
            finally:
                over()

        try:
            threading.Thread(target=run, name="notifications", daemon=True).start()
        except BaseException:  # there may be no room for one more thread
            over()
            raise

    def look(self) -> None:
        """Takes over the Subscriptions of owners whom nobody follows, and lets go of those that are gone."""
        there = [kept for kept in self.subscriptions.all() if kept.token is not None]
        self._hold({kept.user for kept in there})
        mine = {kept.id: kept for kept in there if kept.user in self._holds}
        for gone in self._followed.keys() - mine.keys():
            del self._followed[gone]
        self.source.follow(mine.values())
        for kept in mine.values():
            changes = self.source.of(kept)
            known = self._followed.get(kept.id)
            if known is None:
                known = Followed(kept.id, kept.user, changes, kept.position, kept.due)
                self._followed[kept.id] = known
            known.changes = changes
            known.urgent = kept.ended or kept.resource["status"] == "error"

    def _hold(self, users: Collection[str]) -> None:
        for user, hold in list(self._holds.items()):
            try:
                hold.check()
            except BridgeError:
                del self._holds[user]
                hold.release()
        for user in self._holds.keys() - set(users):
            self._holds.pop(user).release()
        for user in set(users) - self._holds.keys():
            taken = self.bridge.state.hold(HOLD, user)
            if taken is not None:
                self._holds[user] = taken

    def due(self) -> list[Followed]:
        """Returns those that have something to look at now."""
        now = time.time()
        ready = [one for one in self._followed.values() if not one.running and one.due <= now]
        last = {
            id(changes): changes.last()
            for changes in {id(one.changes): one.changes for one in ready}.values()
        }
        return [
            one for one in ready if one.urgent or one.changes.trouble or one.behind(last[id(one.changes)])
        ]

    def round(self, one: Followed) -> None:
        """Tells one Subscription of what changed next, and keeps how far it came or why it did not."""
        one.urgent = False
        kept = self.subscriptions.get(one.id)
        if kept is None or kept.token is None:
            one.due = time.time() + LOOK_SECONDS
            return
        try:
            if kept.ended:
                end(self.bridge, self.subscriptions, kept)
                return
            self._tell(one, kept)
        except (Undelivered, BusinessRule) as e:
            self._failed(one, str(e))
        except KeyMissing:
            self._put_off(one, NO_KEY, WAIT_SECONDS)
        except NotLoggedIn:
            end(
                self.bridge,
                self.subscriptions,
                kept,
                "iCure no longer accepts the token of this Subscription.",
            )
        except BridgeError as e:
            self._put_off(one, str(e), WAIT_SECONDS)

    def _tell(self, one: Followed, kept: Kept) -> None:
        if one.changes.trouble:
            self.bridge.authenticator.identify(credential_of(self.bridge, kept))
            raise UpstreamFailed(one.changes.trouble)
        if not one.changes.ready:
            one.due = time.time() + LOOK_SECONDS
            return
        news = self._news(one, kept)
        told = 0
        for some in _batched(self._wanted(kept, news), AT_ONCE):
            if kept.channel["type"] == "rest-hook":
                refused = self._send_all(kept, some)
                if refused is not None:
                    entity_id, error = refused
                    self._keep(one, news.before[entity_id])
                    raise error
            else:
                self.subscriptions.ping(kept.id, len(some))
            told += len(some)
            self._keep(one, news.before[some[-1][0]], now=False)
        well = kept.resource["status"] == "active" and not kept.failures
        self._keep(one, news.position, well=True, now=told > 0 or not well)

    def _news(self, one: Followed, kept: Kept) -> News:
        changes, position = one.changes, one.position
        now, last = time.time_ns() // 1_000_000, changes.last()
        number = position.number if changes.run == position.run else changes.number_at(kept.since)
        found = None if number is None else changes.after(number, MOST_CHANGES)
        if found is None:
            return self._modified(kept, position, Position(changes.run, last, now))
        before: dict[str, Position] = {}
        for change in found[0]:
            if change.kind == kind_of(kept.criteria[0]):
                before.pop(change.id, None)
                before[change.id] = Position(changes.run, change.number - 1, position.at)
        doubted = {change.id for change in found[0] if not change.sure}
        at = now if found[1] >= last else position.at
        return News(before, Position(changes.run, found[1], at), doubted)

    def _modified(self, kept: Kept, position: Position, after: Position) -> News:
        """Returns as news what was modified since, oldest first, where the changes are no longer known."""
        credential = credential_of(self.bridge, kept)
        caller = self.bridge.authenticator.identify(credential)
        if kept.needs_key:
            self.bridge.keyed(credential, kept.base)
        owners = caller.hierarchy
        pages = modified_since(caller.client, kept.criteria[0], owners, kept.since)
        times = sorted(one for page in pages for one in page)
        before = {entity_id: replace(position, at=max(position.at, int(when))) for when, entity_id in times}
        return News(before, after, {entity_id for when, entity_id in times if not when})

    def _wanted(self, kept: Kept, news: News) -> Iterator[Wanted]:
        """Yields those that meet the criteria; opened only where content is looked at."""
        ids = list(news.before)
        if not ids:
            return
        resource_type, asked = kept.criteria
        if not kept.needs_key:
            caller = self.bridge.authenticator.identify(credential_of(self.bridge, kept))
            yield from _bare(visible(caller.client, resource_type, ids), news.doubted)
            return
        scope = self.bridge.scope(kept.authorization, kept.base)
        query, _ = search.parse(resource_type, parse_qsl(asked, keep_blank_values=True), strict=True)
        for record in search.among(scope, query, ids):
            if record.id not in news.doubted or (record.modified or kept.since) >= kept.since:
                if kept.channel.get("payload"):
                    scope.shown([record])
                yield record.id, record

    def _send_all(self, kept: Kept, some: Sequence[Wanted]) -> tuple[str, BridgeError] | None:
        """Sends several notifications at the same time; returns the first that was not taken, and why."""

        def send(one: Wanted) -> tuple[str, BridgeError] | None:
            try:
                self._send(kept, *one)
            except BridgeError as e:
                return one[0], e
            return None

        if len(some) == 1:
            return send(some[0])
        with ThreadPoolExecutor(len(some)) as pool:
            return next(filter(None, pool.map(send, some)), None)

    def _send(self, kept: Kept, entity_id: str, record: Record | None) -> None:
        channel = kept.channel
        headers = read_headers(channel.get("header", ()))
        put = None
        if record is not None and (payload := channel.get("payload")):
            put = (f"{record.resource_type}/{entity_id}", wire.dump(record.resource), payload)
        self.hooks.send(channel["endpoint"], headers, put)

    def _keep(self, one: Followed, position: Position, *, well: bool = False, now: bool = True) -> None:
        """Keeps how far it came; not at once when that can be found again without telling anybody twice."""
        one.position = position
        if not now and time.monotonic() - one.kept_at < KEEP_SECONDS:
            return
        one.kept_at = time.monotonic()

        def change(kept: Kept) -> None:
            kept.position = position
            if well and kept.token is not None:
                kept.failures, kept.due = 0, 0
                kept.say("active")

        self.subscriptions.change(one.id, change)

    def _failed(self, one: Followed, why: str) -> None:
        """Counts a failure of the endpoint; too many in a row turn the Subscription off."""

        def change(kept: Kept) -> None:
            if kept.token is not None:
                kept.failures += 1
                kept.due = time.time() + min(2.0**kept.failures, LONGEST_PAUSE_SECONDS)
                kept.say("error", why)

        kept = self.subscriptions.change(one.id, change)
        if kept is not None:
            one.due = kept.due
            if kept.failures >= MOST_FAILURES:
                end(self.bridge, self.subscriptions, kept, f"{why} That was {kept.failures} times in a row.")

    def _put_off(self, one: Followed, why: str, seconds: float) -> None:
        one.due = time.time() + seconds

        def change(kept: Kept) -> None:
            if kept.token is not None:
                kept.say("error", why)

        self.subscriptions.change(one.id, change)


def _bare(ids: Iterable[str], doubted: Collection[str]) -> Iterator[Wanted]:
    """Yields what is told by its id alone; of what may have changed long ago the first does for all."""
    once = True
    for entity_id in ids:
        if entity_id not in doubted or once:
            yield entity_id, None
            once = once and entity_id not in doubted


def _batched(wanted: Iterator[Wanted], size: int) -> Iterator[list[Wanted]]:
    while some := list(islice(wanted, size)):
        yield some


def credential_of(bridge: Bridge, kept: Kept) -> Credential:
    """Returns the credential by which a Subscription is followed."""
    return bridge.authenticator.credential(kept.authorization)


def visible(client: Client, resource_type: str, ids: Sequence[str]) -> list[str]:
    """Returns those of the ids that are live resources of this type which the caller may see; opens none."""
    home = home_of(resource_type)
    return [
        document["id"]
        for document in client.by_ids(home.kind, list(ids))
        if not (document.get("deletionDate") or document.get("endOfLife"))
        and (home.kind != "contact/service" or is_observation(document))
    ]


def end(bridge: Bridge, subscriptions: Subscriptions, kept: Kept, why: str | None = None) -> None:
    """Turns a Subscription off: its token is revoked, its keys are taken back. One that began anew goes on."""

    def off(one: Kept) -> None:
        one.token = None
        one.say("off", why)

    with bridge.state.lock(CHANGING, kept.id):
        now = subscriptions.get(kept.id)
        if now is not None and now.token == kept.token:
            revoke(bridge, now)
            subscriptions.change(kept.id, off)


def revoke(bridge: Bridge, kept: Kept) -> None:
    """Has the token of a Subscription end, and takes back the keys that were lent to it.

    Facts: a token that is made under the same name replaces it, and this one ends at once.
    """
    if kept.token is None:
        return
    credential = credential_of(bridge, kept)
    try:
        caller = bridge.authenticator.identify(credential)
        caller.client.create_token(caller.user_id, kept.token_name, 1)
        bridge.keychain.take_back(caller, credential)
    except (NotLoggedIn, Forbidden):
        return
