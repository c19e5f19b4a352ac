"""Finding the exchange data behind a delegation, with as few questions to iCure as possible.

Facts: a delegation names its exchange data when both sides are named in it. With one anonymous side, the named one
finds the id in an exchange data map, encrypted; an anonymous data owner derives the delegation keys of all its
exchange data and compares.

Strategy: exchange data is asked for in one call for many delegations, opened with RSA when it is first needed, and
kept. What iCure did not have is remembered for a minute, so that a page of unreadable entities does not cost a call
for each of them.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Iterator, Sequence

from cachetools import LRUCache, TTLCache

from bridge.crypto import legacy
from bridge.crypto.exchange import Directory, ExchangeKey, open_map
from bridge.crypto.keys import OwnKey
from bridge.crypto.primitives import Undecipherable
from mappings.values import Entity

CACHE_SIZE = 4096
MISS_SECONDS = 60.0
LEGACY_SECONDS = 300.0
RELOAD_SECONDS = 5.0

Delegation = tuple[str, Entity]
"""A secure delegation under its name, the delegation key."""


class Lookup:
    """The exchange keys that some private keys open. Safe to be used by many threads."""

    def __init__(self, owner_id: str, anonymous: bool, keys: Sequence[OwnKey], directory: Directory) -> None:
        self.directory = directory
        self._owner_id = owner_id
        self._anonymous = anonymous
        self._keys = keys
        self._lock = threading.Lock()
        self._known: LRUCache[str, ExchangeKey] = LRUCache(CACHE_SIZE)
        self._mapped: LRUCache[str, str] = LRUCache(CACHE_SIZE)
        self._missing: TTLCache[str, bool] = TTLCache(CACHE_SIZE, MISS_SECONDS)
        self._legacy: TTLCache[tuple[str, str], Sequence[bytes]] = TTLCache(CACHE_SIZE, LEGACY_SECONDS)
        self._all: tuple[ExchangeKey, ...] | None = None
        self._all_since = 0.0
        self._derived: dict[str, dict[str, ExchangeKey]] = {}

    def at_hand(self, delegation: Delegation, type_name: str) -> ExchangeKey | None:
        """Returns the exchange key of a delegation when iCure need not be asked."""
        name, members = delegation
        with self._lock:
            exchange_id = members.get("exchangeDataId") or self._mapped.get(name)
            if exchange_id is not None:
                return self._known.get(exchange_id)
            return self._derived.get(type_name, {}).get(name)

    def fetch(self, delegations: Sequence[Delegation], type_name: str) -> None:
        """Brings to hand what iCure has of the exchange data of these delegations."""
        if self._anonymous:
            self.derived(type_name)
            if any(not d[1].get("exchangeDataId") and not self.at_hand(d, type_name) for d in delegations):
                self.derived(type_name, RELOAD_SECONDS)
        self._fetch_maps([name for name, members in delegations if _has_map(members)])
        with self._lock:
            ids = {members.get("exchangeDataId") or self._mapped.get(name) for name, members in delegations}
            wanted = [i for i in ids if i and i not in self._known and i not in self._missing]
        if wanted:
            for document in self.directory.exchange_data(wanted):
                self.remember(document)
            self._note_missing(wanted, self._known)

    def derived(self, type_name: str, seconds: float = math.inf) -> dict[str, ExchangeKey]:
        """Returns an anonymous data owner's exchange data by delegation key, asked for at most so many seconds ago."""
        with self._lock:
            before, known = self._all, self._derived.get(type_name)
            stale = before is None or time.monotonic() - self._all_since > seconds
        if known is not None and not stale:
            return known
        now = before
        if now is None or stale:
            now = tuple(map(self.remember, self.directory.exchange_data_of(self._owner_id)))
        known = dict(_by_delegation_key(now, type_name))
        with self._lock:
            if self._all is before:
                if now is not before:
                    self._all, self._all_since, self._derived = now, time.monotonic(), {}
                self._derived[type_name] = known
        return known

    def remember(self, document: Entity) -> ExchangeKey:
        """Returns the exchange key of a document, the one at hand if it was made of the same.

        What holds nothing for any of the keys is not kept: a key may be added to it later.
        """
        with self._lock:
            known = self._known.get(document["id"])
            if known is None or not known.comes_from(document):
                known = ExchangeKey(document, self._keys)
                if known.is_meant_for_us:
                    self._known[known.id] = known
            return known

    def add(self, exchange_key: ExchangeKey) -> None:
        """Keeps an exchange key that was just made."""
        with self._lock:
            self._known[exchange_key.id] = exchange_key
            if self._all is not None:
                self._all, self._derived = (*self._all, exchange_key), {}

    def legacy_keys(self, delegator: str, delegate: str) -> Sequence[bytes]:
        """Returns the exchange keys that older clients put on the delegator's entity."""
        with self._lock:
            known = self._legacy.get((delegator, delegate))
        if known is None:
            data_owner = self.directory.data_owner(delegator) or {}
            known = legacy.exchange_keys(data_owner, delegate, self._keys)
            with self._lock:
                self._legacy[delegator, delegate] = known
        return known

    def drop(self) -> None:
        """Forgets every key."""
        with self._lock:
            self._keys, self._all, self._derived = (), (), {}
            for cache in (self._known, self._mapped, self._legacy):
                cache.clear()

    def _fetch_maps(self, names: Iterable[str]) -> None:
        with self._lock:
            wanted = [n for n in dict.fromkeys(names) if n not in self._mapped and n not in self._missing]
        if not wanted:
            return
        for document in self.directory.exchange_data_maps(wanted):
            exchange_id = open_map(document, self._keys)
            if exchange_id is not None:
                with self._lock:
                    self._mapped[document["id"]] = exchange_id
        self._note_missing(wanted, self._mapped)

    def _note_missing(
        self, wanted: Iterable[str], cache: LRUCache[str, ExchangeKey] | LRUCache[str, str]
    ) -> None:
        with self._lock:
            for name in wanted:
                if name not in cache:
                    self._missing[name] = True


def _has_map(members: Entity) -> bool:
    return not members.get("exchangeDataId") and bool(members.get("delegator")) != bool(
        members.get("delegate")
    )


def _by_delegation_key(
    exchange_keys: Iterable[ExchangeKey], type_name: str
) -> Iterator[tuple[str, ExchangeKey]]:
    for exchange_key in exchange_keys:
        try:
            yield exchange_key.delegation_key(type_name), exchange_key
        except Undecipherable:
            continue
