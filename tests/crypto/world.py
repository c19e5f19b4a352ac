"""The outside world of the crypto tests: data owners, and what an iCure server keeps for them."""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bridge.crypto.keyring import Keyring
from bridge.crypto.keys import OaepHash, OwnKey, PrivateKey
from mappings.values import Entity


class CountingKey(PrivateKey):
    """A private key that counts its RSA operations."""

    __slots__ = ("used",)

    def __init__(self, key: Any) -> None:
        super().__init__(key)
        self.used = 0

    def decrypt(self, ciphertext: bytes, oaep: OaepHash) -> bytes:
        self.used += 1
        return super().decrypt(ciphertext, oaep)


@dataclass
class Person:
    """A data owner together with the private keys it has at hand."""

    id: str
    keys: list[OwnKey]
    anonymous: bool

    def keyring(self, world: World, **options: Any) -> Keyring:
        return Keyring(self.id, self.anonymous, {self.id: self.keys}, world, **options)


@dataclass
class World:
    """An iCure server as far as keys go, in memory; it counts what it is asked."""

    stubs: dict[str, Entity] = field(default_factory=dict)
    anonymous_ids: set[str] = field(default_factory=set)
    stored: dict[str, Entity] = field(default_factory=dict)
    maps: dict[str, Entity] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    creation_seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def settle(
        self, *keys: PrivateKey, oaep: OaepHash = "sha256", anonymous: bool = False, id: str | None = None
    ) -> Person:
        """Lets a new data owner announce these keys."""
        announced = [key.spki_hex for key in keys]
        older: Entity = {"publicKey": announced[0]} if announced else {}
        if announced[1:]:
            older["aesExchangeKeys"] = {name: {} for name in announced}
        owner_id = id or str(uuid.uuid4())
        members = older if oaep == "sha1" else {"publicKeysForOaepWithSha256": announced}
        self.stubs[owner_id] = {"id": owner_id, "rev": "1-a", **members}
        if anonymous:
            self.anonymous_ids.add(owner_id)
        return Person(owner_id, [OwnKey(key, oaep) for key in keys], anonymous)

    def forget_calls(self) -> None:
        self.calls.clear()

    def exchange_data(self, ids: Sequence[str]) -> list[Entity]:
        self._count("exchange_data")
        return [self.stored[i] for i in ids if i in self.stored]

    def exchange_data_between(self, delegator: str, delegate: str) -> list[Entity]:
        self._count("exchange_data_between")
        pair = delegator, delegate
        return [d for d in list(self.stored.values()) if (d["delegator"], d["delegate"]) == pair]

    def exchange_data_of(self, participant: str) -> Iterator[Entity]:
        self._count("exchange_data_of")
        return iter([d for d in list(self.stored.values()) if participant in (d["delegator"], d["delegate"])])

    def create_exchange_data(self, document: Entity) -> Entity:
        time.sleep(self.creation_seconds)
        self._count("create_exchange_data")
        self.stored[document["id"]] = {**document, "rev": "1-a"}
        return self.stored[document["id"]]

    def exchange_data_maps(self, delegation_keys: Sequence[str]) -> list[Entity]:
        self._count("exchange_data_maps")
        return [self.maps[name] for name in delegation_keys if name in self.maps]

    def create_exchange_data_maps(self, batch: dict[str, dict[str, str]]) -> None:
        self._count("create_exchange_data_maps")
        for access_control_key, boxes in batch.items():
            name = hashlib.sha256(bytes.fromhex(access_control_key)).hexdigest()
            self.maps[name] = {"id": name, "rev": "1-a", "encryptedExchangeDataIds": boxes}

    def data_owner(self, data_owner_id: str) -> Entity | None:
        self._count("data_owner")
        return self.stubs.get(data_owner_id)

    def anonymous(self, data_owner_id: str) -> bool:
        self._count("anonymous")
        return data_owner_id in self.anonymous_ids

    def _count(self, call: str) -> None:
        with self._lock:
            self.calls[call] += 1
