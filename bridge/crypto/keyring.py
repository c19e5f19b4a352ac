"""What one caller's keys open, and how the caller shares.

Rule: to read, any delegation that opens will do, and those that do not are passed over. To write, only exchange
data that verifies as made by the caller is used; where there is none it is created once, under a lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from cachetools import LRUCache

from bridge.crypto import exchange, legacy
from bridge.crypto.exchange import ACCESS_KEY_BYTES, Directory, ExchangeKey
from bridge.crypto.keys import OwnKey, PublicKey, public_keys
from bridge.crypto.lookup import CACHE_SIZE, RELOAD_SECONDS, Delegation, Lookup
from bridge.crypto.primitives import AES_KEY_SIZES, Undecipherable, to_base64
from bridge.errors import BusinessRule, KeyMissing
from mappings.values import Entity

__all__ = ["Held", "Keyring", "Opened", "OwnKey", "Route"]

ACCESS_KEYS_PER_VALUE = 360

_CREATING = tuple(threading.Lock() for _ in range(61))


@dataclass(frozen=True, slots=True)
class Opened:
    """What delegations say of an entity; nothing of it in `repr`."""

    entity_keys: tuple[bytes, ...] = field(repr=False)
    secret_ids: tuple[str, ...] = field(repr=False)
    owning_ids: tuple[str, ...] = field(repr=False)

    @property
    def entity_key(self) -> bytes:
        """The key to write with. Raises `KeyMissing`."""
        if not self.entity_keys:
            raise KeyMissing
        return self.entity_keys[0]


@dataclass(frozen=True, slots=True)
class Route:
    """How the caller shares with one delegate: the exchange key, and what the delegation tells of both sides."""

    exchange_key: ExchangeKey
    sides: Mapping[str, str]
    box: Mapping[str, str]
    """Where one of the two is anonymous: the exchange data's id, encrypted for the keys of the one that is not."""


@dataclass(frozen=True, slots=True)
class Held:
    """A secure delegation in which the caller takes part."""

    name: str
    members: Entity = field(repr=False)
    exchange_key: ExchangeKey | None
    """None when no loaded key opens it."""

    @property
    def delegate(self) -> str | None:
        """To whom it gives access; None when nobody says so."""
        return self.exchange_key.delegate if self.exchange_key else self.members.get("delegate")

    @property
    def writes(self) -> bool:
        """Whether it gives leave to write."""
        return bool(self.members.get("permissions") == "WRITE")

    def opened(self) -> Opened:
        """Returns what it says of its entity: nothing when no key opens it."""
        found = _Finds()
        if self.exchange_key is not None:
            found.take((self.name, self.members), self.exchange_key)
        return found.opened()


Fits = Callable[[ExchangeKey], bool]
"""Says whether an exchange key will do."""


def _any(exchange_key: ExchangeKey) -> bool:
    return True


class Keyring:
    """The opened keys of one caller: its own and those of its ancestors. Safe to be used by many threads."""

    def __init__(
        self,
        owner_id: str,
        anonymous: bool,
        keys: Mapping[str, Sequence[OwnKey]],
        directory: Directory,
        *,
        lock: Callable[[str], AbstractContextManager[Any]] | None = None,
    ) -> None:
        """`lock(name)` keeps other processes from creating the same exchange data at the same time."""
        self.owner_id = owner_id
        self.anonymous = anonymous
        self._keys = {owner: tuple(own) for owner, own in keys.items() if own}
        self._lookup = Lookup(owner_id, anonymous, [k for own in self._keys.values() for k in own], directory)
        self._create_lock = lock
        self._lock = threading.Lock()
        self._shares: LRUCache[str, ExchangeKey] = LRUCache(CACHE_SIZE)
        self._routes: LRUCache[str, Route] = LRUCache(CACHE_SIZE)
        self._mapped: LRUCache[tuple[str, str], Route] = LRUCache(CACHE_SIZE)

    @property
    def directory(self) -> Directory:
        """Where the keyring asks; may be replaced by another of the same caller."""
        return self._lookup.directory

    @directory.setter
    def directory(self, directory: Directory) -> None:
        self._lookup.directory = directory

    @property
    def owners(self) -> frozenset[str]:
        """Data owners of whom a key is loaded."""
        return frozenset(self._keys)

    def open(self, entity: Entity, type_name: str, *, whole: bool = False) -> Opened:
        """Returns entity keys, secret ids and owning ids that the caller's keys open; none where nothing does.

        As soon as an entity key is found iCure is asked no more. `whole` opens every delegation of the caller, for
        all secret ids of a Patient: by them its Contacts are found.
        """
        delegations = self._own_delegations(entity)
        found = _Finds()
        for delegation in delegations:
            exchange_key = self._lookup.at_hand(delegation, type_name)
            if exchange_key is not None and exchange_key.is_open:
                found.take(delegation, exchange_key)
        if delegations and (whole or not found.entity_keys):
            self._lookup.fetch(delegations, type_name)
            for delegation in delegations:
                if found.entity_keys and not whole:
                    break
                exchange_key = self._lookup.at_hand(delegation, type_name)
                if exchange_key is not None:
                    found.take(delegation, exchange_key)
        if legacy.is_legacy(entity) and (whole or not found.entity_keys):
            found.take_legacy(entity, self.owners, self._lookup.legacy_keys)
        return found.opened()

    def preload(self, entities: Iterable[Entity], type_name: str) -> None:
        """Asks for the exchange data of all these entities at once, where none that is at hand fits them."""
        wanted: dict[str, Entity] = {}
        for entity in entities:
            delegations = self._own_delegations(entity)
            if not any(self._lookup.at_hand(delegation, type_name) for delegation in delegations):
                wanted.update(delegations)
        if wanted:
            self._lookup.fetch(list(wanted.items()), type_name)

    def access_control_header(self, type_name: str, seconds: float | None = None) -> list[str]:
        """Returns the values of `Icure-Access-Control-Keys`; none for a data owner that delegations name.

        What others shared is asked for again after a few seconds, or after so many.
        """
        if not self.anonymous:
            return []
        exchange_keys = self._lookup.derived(
            type_name, RELOAD_SECONDS if seconds is None else seconds
        ).values()
        keys = b"".join(exchange_key.access_control_key(type_name) for exchange_key in exchange_keys)
        step = ACCESS_KEYS_PER_VALUE * ACCESS_KEY_BYTES
        return [to_base64(keys[at : at + step]) for at in range(0, len(keys), step)]

    def own_exchange_key(self) -> ExchangeKey:
        """Returns the verified exchange key of the caller with itself. Raises `KeyMissing`."""
        return self.exchange_key_to(self.owner_id)

    def held(self, entity: Entity, type_name: str) -> list[Held]:
        """Returns the secure delegations in which the caller, or an ancestor whose key is loaded, takes part."""
        delegations = self._own_delegations(entity)
        self._lookup.fetch(delegations, type_name)
        found = [Held(d[0], d[1], self._lookup.at_hand(d, type_name)) for d in delegations]
        return [one for one in found if one.exchange_key or self._is_named(one.members)]

    def exchange_key_to(self, delegate: str, fits: Fits = _any) -> ExchangeKey:
        """Returns a verified exchange key to share with `delegate`, created where there is none that fits.

        One that is not at hand opens with every key that the delegate announces. Raises `KeyMissing` when the caller's
        own key is not loaded, `BusinessRule` when the delegate has no key.
        """
        known = self._share(delegate, fits)
        if known is not None:
            return known
        with _CREATING[hash((self.owner_id, delegate)) % len(_CREATING)]:
            known = self._share(delegate, fits)
            if known is None:
                known = self._made(delegate, fits)
                with self._lock:
                    self._shares[delegate] = known
            return known

    def route(self, delegate: str, fits: Fits = _any) -> Route:
        """Returns how to share with `delegate`; raises as `exchange_key_to`."""
        exchange_key = self.exchange_key_to(delegate, fits)
        with self._lock:
            known = self._routes.get(exchange_key.id)
        if known is not None:
            return known
        here, there = not self.anonymous, not self._is_anonymous(delegate)
        sides = {"delegator": self.owner_id} if here else {}
        if there:
            sides["delegate"] = delegate
        box: Mapping[str, str] = {}
        if here and there:
            sides["exchangeDataId"] = exchange_key.id
        elif here or there:
            readers = [own.public for own in self._own_keys()] if here else self._public_keys(delegate)
            box = exchange.encrypt_for(readers, exchange_key.id.encode())
        route = Route(exchange_key, sides, box)
        with self._lock:
            self._routes[exchange_key.id] = route
        return route

    def route_to(self, delegate: str, type_name: str) -> Route:
        """Returns how a new entity of this type names `delegate`; raises as `exchange_key_to`.

        Where one of the two is anonymous, the other is to find the exchange data by a map, which is stored here.
        """
        with self._lock:
            known = self._mapped.get((delegate, type_name))
        if known is not None:
            return known
        route = self.route(delegate)
        if route.box:
            access_key = route.exchange_key.access_control_key(type_name).hex()
            self.directory.create_exchange_data_maps({access_key: dict(route.box)})
        with self._lock:
            self._mapped[delegate, type_name] = route
        return route

    def drop(self) -> None:
        """Forgets every key; from now on nothing opens."""
        with self._lock:
            self._keys = {}
            self._shares.clear()
            self._routes.clear()
            self._mapped.clear()
        self._lookup.drop()

    def __repr__(self) -> str:
        """Tells fingerprints only."""
        keys = {owner: [key.fingerprint for key in own] for owner, own in self._keys.items()}
        return f"Keyring({self.owner_id}, {keys})"

    def _own_delegations(self, entity: Entity) -> list[Delegation]:
        """Returns the secure delegations that may be the caller's, those first that cost least to open."""
        owners = self._keys.keys()
        found: list[tuple[int, Delegation]] = []
        secure = (entity.get("securityMetadata") or {}).get("secureDelegations") or {}
        for delegation in secure.items():
            delegator, delegate = delegation[1].get("delegator"), delegation[1].get("delegate")
            nameless = self.anonymous and not (delegator and delegate)
            if nameless or delegate in owners:
                found.append((0 if delegator == delegate else 1, delegation))
            elif delegator in owners:
                found.append((2, delegation))
        found.sort(key=lambda item: item[0])
        return [delegation for _, delegation in found]

    def _own_keys(self) -> Sequence[OwnKey]:
        own = self._keys.get(self.owner_id)
        if not own:
            raise KeyMissing("No key of the caller's own data owner is loaded; it is needed for writing.")
        return own

    def _is_named(self, delegation: Entity) -> bool:
        return not self.owners.isdisjoint((delegation.get("delegator"), delegation.get("delegate")))

    def _share(self, delegate: str, fits: Fits) -> ExchangeKey | None:
        with self._lock:
            known = self._shares.get(delegate)
        return known if known is not None and fits(known) else None

    def _made(self, delegate: str, fits: Fits) -> ExchangeKey:
        """Returns exchange data that was made before and fits, else new one."""
        own = self._own_keys()
        others = () if delegate == self.owner_id else self._public_keys(delegate)
        readers = {key.fingerprint for key in others}

        def covers(exchange_key: ExchangeKey) -> bool:
            return readers <= exchange_key.readers and fits(exchange_key)

        return self._verified(delegate, covers) or self._created(delegate, own, others, covers)

    def _verified(self, delegate: str, fits: Fits) -> ExchangeKey | None:
        own = self._own_keys()
        documents = self.directory.exchange_data_between(self.owner_id, delegate)
        for document in sorted(documents, key=lambda document: str(document["id"])):
            if document.get("deletionDate"):
                continue
            exchange_key = self._lookup.remember(document)
            if exchange_key.verifies(document, self.owner_id, delegate, own) and fits(exchange_key):
                return exchange_key
        return None

    def _created(
        self, delegate: str, own: Sequence[OwnKey], others: Sequence[PublicKey], fits: Fits
    ) -> ExchangeKey:
        name = f"exchange data {self.owner_id} {delegate}"
        with self._create_lock(name) if self._create_lock else nullcontext():
            made_meanwhile = self._verified(delegate, fits) if self._create_lock else None
            if made_meanwhile is not None:
                return made_meanwhile
            document, exchange_key = exchange.create(self.owner_id, delegate, own, others)
            self.directory.create_exchange_data(document)
        self._lookup.add(exchange_key)
        return exchange_key

    def _public_keys(self, delegate: str) -> list[PublicKey]:
        usable = public_keys(self.directory.data_owner(delegate) or {})
        if not usable:
            raise BusinessRule(f"Data owner {delegate} announces no key, so nothing can be shared with it.")
        return usable

    def _is_anonymous(self, delegate: str) -> bool:
        return self.anonymous if delegate == self.owner_id else self.directory.anonymous(delegate)


class _Finds:
    """What was found so far, in the order found and each once."""

    def __init__(self) -> None:
        self.entity_keys: dict[bytes, None] = {}
        self._secret_ids: dict[str, None] = {}
        self._owning_ids: dict[str, None] = {}
        self._taken: set[str] = set()

    def take(self, delegation: Delegation, exchange_key: ExchangeKey) -> None:
        name, members = delegation
        if name in self._taken:
            return
        self._taken.add(name)
        keys = _open_all(exchange_key, members.get("encryptionKeys"))
        self.entity_keys.update(dict.fromkeys(key for key in keys if len(key) in AES_KEY_SIZES))
        for member, found in (("secretIds", self._secret_ids), ("owningEntityIds", self._owning_ids)):
            values = _open_all(exchange_key, members.get(member))
            found.update(dict.fromkeys(value.decode("utf-8", "replace") for value in values))

    def take_legacy(self, entity: Entity, owners: Iterable[str], keys_between: legacy.KeysBetween) -> None:
        self.entity_keys.update(dict.fromkeys(legacy.entity_keys(entity, owners, keys_between)))
        for member, found in ((legacy.SECRET_IDS, self._secret_ids), (legacy.OWNING_IDS, self._owning_ids)):
            found.update(dict.fromkeys(legacy.values(entity, member, owners, keys_between)))

    def opened(self) -> Opened:
        return Opened(tuple(self.entity_keys), tuple(self._secret_ids), tuple(self._owning_ids))


def _open_all(exchange_key: ExchangeKey, sealed: Iterable[object] | None) -> Iterator[bytes]:
    for text in sealed or ():
        try:
            yield exchange_key.open(text)
        except Undecipherable:
            continue
