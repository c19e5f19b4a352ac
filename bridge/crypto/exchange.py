"""Exchange data: the secrets that one data owner shares with another, and what is derived from them.

Facts: one document per direction; `exchangeKey`, `accessControlSecret` and `sharedSignatureKey` are encrypted
with RSA for every key of both sides, by fingerprint. The access control key of an entity type opens the entity's
door on the server; the hash of it, the delegation key, names a secure delegation. Ids and fingerprints are signed
in a text that is almost JSON: its last bracket is missing, and the secret wears the name of its class. Both belong
to the format.

Rule: anything that opens may be read, but only exchange data that verifies is used to encrypt.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import orjson

from bridge.crypto.keys import OwnKey, PublicKey, fingerprint
from bridge.crypto.primitives import (
    AES_KEY_SIZES,
    Undecipherable,
    cbc_decrypt,
    cbc_encrypt,
    from_base64,
    hmac_sha512,
    to_base64,
)
from mappings.values import Entity

ACCESS_KEY_BYTES = 16
SECRETS = ("exchangeKey", "accessControlSecret", "sharedSignatureKey")
VALIDATOR = b"Cure"


class Directory(Protocol):
    """What has to be asked of iCure to open and to share."""

    def exchange_data(self, ids: Sequence[str]) -> list[Entity]:
        """Returns those exchange data that there are."""

    def exchange_data_between(self, delegator: str, delegate: str) -> list[Entity]:
        """Returns the exchange data of one direction."""

    def exchange_data_of(self, participant: str) -> Iterator[Entity]:
        """Yields all exchange data in which a data owner takes part."""

    def create_exchange_data(self, document: Entity) -> Entity:
        """Stores new exchange data and returns it as stored."""

    def exchange_data_maps(self, delegation_keys: Sequence[str]) -> list[Entity]:
        """Returns those exchange data maps that there are."""

    def create_exchange_data_maps(self, batch: dict[str, dict[str, str]]) -> None:
        """Stores encrypted exchange data ids under access control keys (hex)."""

    def data_owner(self, data_owner_id: str) -> Entity | None:
        """Returns the key members of a data owner, None when there is none."""

    def anonymous(self, data_owner_id: str) -> bool:
        """Whether the data owner's id is kept out of delegations: by default all but healthcare parties."""


class ExchangeKey:
    """One exchange data, opened when first needed: each of its secrets costs RSA once."""

    __slots__ = ("_boxes", "_by_type", "_lock", "_own", "_secrets", "delegate", "delegator", "id", "readers")

    def __init__(self, document: Entity, keys: Iterable[OwnKey]) -> None:
        self.id: str = document["id"]
        self.delegator: str = document["delegator"]
        self.delegate: str = document["delegate"]
        self.readers = _readers(document)
        self._own = {key.fingerprint: key for key in keys}
        self._boxes = _boxes(document, self._own)
        self._secrets: dict[str, bytes | None] = {}
        self._by_type: dict[str, tuple[bytes, str]] = {}
        self._lock = threading.Lock()

    @property
    def is_meant_for_us(self) -> bool:
        """Whether there is a text for any of the keys."""
        return bool(self._boxes["exchangeKey"])

    @property
    def is_open(self) -> bool:
        """Whether using `key` costs nothing more."""
        return self._secrets.get("exchangeKey") is not None

    @property
    def key(self) -> bytes:
        """The AES key. Raises `Undecipherable`."""
        key = self._secret("exchangeKey")
        if len(key) not in AES_KEY_SIZES:
            raise Undecipherable
        return key

    @property
    def access_control_secret(self) -> bytes:
        """16 bytes. Raises `Undecipherable`."""
        return self._secret("accessControlSecret")

    def access_control_key(self, type_name: str) -> bytes:
        """Returns the 16 bytes that open an entity on the server. Raises `Undecipherable`."""
        return self._derive(type_name)[0]

    def delegation_key(self, type_name: str) -> str:
        """Returns the name of secure delegations of this exchange data. Raises `Undecipherable`."""
        return self._derive(type_name)[1]

    def seal(self, value: bytes) -> str:
        """Returns one element of a secure delegation."""
        return to_base64(cbc_encrypt(self.key, VALIDATOR + value))

    def open(self, sealed: object) -> bytes:
        """Returns the value of one element of a secure delegation. Raises `Undecipherable`."""
        plain = cbc_decrypt(self.key, from_base64(sealed))
        if not plain.startswith(VALIDATOR):
            raise Undecipherable
        return plain[len(VALIDATOR) :]

    def comes_from(self, document: Entity) -> bool:
        """Whether this is what the document holds for the same keys."""
        sides = document["delegator"], document["delegate"], _readers(document)
        mine = self.delegator, self.delegate, self.readers
        return mine == sides and self._boxes == _boxes(document, self._own)

    def verifies(self, document: Entity, delegator: str, delegate: str, own_keys: Sequence[OwnKey]) -> bool:
        """Whether `document`, of which this was made, was made by the holder of `own_keys` for this pair."""
        if (document["delegator"], document["delegate"]) != (delegator, delegate):
            return False
        try:
            signed = hashlib.sha256(self._secret("sharedSignatureKey")).digest()
            expected = to_base64(hmac_sha512(self._secret("sharedSignatureKey"), self._signed_text(document)))
        except Undecipherable:
            return False
        signatures = _by_fingerprint(document, "delegatorSignature")
        mine = [key for key in own_keys if key.fingerprint in signatures]
        return (
            bool(mine)
            and all(_same(signatures[k.fingerprint], delegator_signature(k, signed)) for k in mine)
            and _same(document.get("sharedSignature"), expected)
        )

    def _signed_text(self, document: Entity) -> bytes:
        fingerprints = {f for name in SECRETS for f in document.get(name) or ()}
        return signed_text(
            document["delegator"], document["delegate"], self.key, self.access_control_secret, fingerprints
        )

    def _secret(self, name: str) -> bytes:
        with self._lock:
            if name not in self._secrets:
                self._secrets[name] = _decrypt_first(self._boxes[name])
            secret = self._secrets[name]
        if secret is None:
            raise Undecipherable
        return secret

    def _derive(self, type_name: str) -> tuple[bytes, str]:
        derived = self._by_type.get(type_name)
        if derived is None:
            text = self.access_control_secret.hex() + type_name
            key = hashlib.sha256(text.encode()).digest()[:ACCESS_KEY_BYTES]
            derived = self._by_type[type_name] = key, hashlib.sha256(key).hexdigest()
        return derived

    def __repr__(self) -> str:
        """Tells the id only."""
        return f"ExchangeKey({self.id})"


def create(
    delegator: str, delegate: str, own_keys: Sequence[OwnKey], delegate_keys: Sequence[PublicKey]
) -> tuple[Entity, ExchangeKey]:
    """Returns new exchange data, signed with every own key, and what it holds."""
    secrets = {"exchangeKey": os.urandom(32), "accessControlSecret": os.urandom(16)}
    secrets["sharedSignatureKey"] = os.urandom(128)
    readers = {key.fingerprint: key for key in (*(own.public for own in own_keys), *delegate_keys)}
    text = signed_text(
        delegator, delegate, secrets["exchangeKey"], secrets["accessControlSecret"], readers.keys()
    )
    signed = hashlib.sha256(secrets["sharedSignatureKey"]).digest()
    document: Entity = {"id": str(uuid.uuid4()), "delegator": delegator, "delegate": delegate}
    document |= {name: encrypt_for(readers.values(), secret) for name, secret in secrets.items()}
    document["sharedSignature"] = to_base64(hmac_sha512(secrets["sharedSignatureKey"], text))
    document["delegatorSignature"] = {key.fingerprint: delegator_signature(key, signed) for key in own_keys}
    opened = ExchangeKey(document, own_keys)
    opened._secrets.update(secrets)
    return document, opened


def delegator_signature(key: OwnKey, signed: bytes) -> str:
    """Returns one signature of the delegator over the SHA-256 of the shared signature key."""
    return to_base64(hmac_sha512(key.private.signing_key, signed))


def signed_text(
    delegator: str,
    delegate: str,
    exchange_key: bytes,
    access_control_secret: bytes,
    fingerprints: Iterable[str],
) -> bytes:
    """Returns what the shared signature signs, to the byte as iCure's clients write it."""
    members = (
        ["delegator", delegator],
        ["delegate", delegate],
        ["exchangeKey", exchange_key.hex()],
        ["accessControlSecret", f"AccessControlSecret(s={access_control_secret.hex()})"],
        ["publicKeysFingerprints", sorted(set(fingerprints))],
    )
    return b"[" + b",".join(map(orjson.dumps, members))


def encrypt_for(readers: Iterable[PublicKey], plain: bytes) -> dict[str, str]:
    """Returns a text for every reader, by fingerprint."""
    return {key.fingerprint: to_base64(key.encrypt(plain)) for key in readers}


def open_map(document: Entity, keys: Iterable[OwnKey]) -> str | None:
    """Returns the exchange data id in an exchange data map, None when no key opens it."""
    plain = _decrypt_first(_boxes_of(document, "encryptedExchangeDataIds", {k.fingerprint: k for k in keys}))
    return None if plain is None else plain.decode("utf-8", "replace")


def _readers(document: Entity) -> frozenset[str]:
    """Returns the fingerprints of all keys that open it."""
    return frozenset(_by_fingerprint(document, "exchangeKey"))


def _by_fingerprint(document: Entity, name: str) -> Mapping[str, object]:
    return {fingerprint(f): value for f, value in (document.get(name) or {}).items()}


def _boxes(document: Entity, own: Mapping[str, OwnKey]) -> dict[str, list[tuple[OwnKey, object]]]:
    return {name: _boxes_of(document, name, own) for name in SECRETS}


def _boxes_of(document: Entity, name: str, own: Mapping[str, OwnKey]) -> list[tuple[OwnKey, object]]:
    return [(own[f], box) for f, box in _by_fingerprint(document, name).items() if f in own]


def _decrypt_first(boxes: Iterable[tuple[OwnKey, object]]) -> bytes | None:
    for key, box in boxes:
        try:
            return key.decrypt(from_base64(box))
        except Undecipherable:
            continue
    return None


def _same(one: object, other: str) -> bool:
    return isinstance(one, str) and hmac.compare_digest(one.encode(), other.encode())
