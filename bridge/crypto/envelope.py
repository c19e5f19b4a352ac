"""An entity's content and its key: what is encrypted, under what, and who may open it.

Facts: the members that a manifest names go as one JSON object into `encryptedSelf` of the object they belong
to; decrypted members win over clear ones. Services are encrypted one by one with their Contact's key: `content`
goes in whole, unless every value of it is only a `compoundValue`, whose Services are then encrypted each by
itself. A Contact belongs to its Patient by `secretForeignKeys` (a secret id of the Patient, in clear) and by the
owning id in its delegations (encrypted).

Rule: nothing here changes what it is given. An entity to be encrypted is one that was decrypted: what still
carries `encryptedSelf` would lose it, and is refused.
"""

from __future__ import annotations

import hmac
import os
import uuid
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag

from bridge.crypto.keyring import Keyring, Opened
from bridge.crypto.manifest import DEFAULT_MANIFESTS, Manifest, Manifests, Shape
from bridge.crypto.primitives import (
    Undecipherable,
    cbc_decrypt,
    cbc_encrypt,
    from_base64,
    hkdf,
    open_sealed,
    seal,
    to_base64,
)
from bridge.errors import KeyMissing
from mappings.values import Entity, Json

ENTITY_KEY_BYTES = 32
RESIDUE_INFO = b"fhir-residue"
PACKING_LEVEL = 1
"""A residue names the same codes and elements again and again: a third is left of it, and more effort gains little."""
MOST_PACKED_BYTES = 1 << 24
"""Of the text: no larger one is unpacked, so that few bytes of somebody else do not become a thousand times as many."""
_METADATA = frozenset(("securityMetadata", "delegations", "encryptionKeys", "cryptedForeignKeys"))


@dataclass(frozen=True, slots=True)
class NewMetadata:
    """What a new entity starts with: its key, its secret id, and the delegations that carry both."""

    security_metadata: Entity = field(repr=False)
    entity_key: bytes = field(repr=False)
    secret_id: str = field(repr=False)


def new_metadata(
    keyring: Keyring,
    type_name: str,
    owning_id: str | None = None,
    delegates: Iterable[str] = (),
    readers: Iterable[str] = (),
) -> NewMetadata:
    """Returns key, secret id and `securityMetadata` of a new entity.

    Besides the caller `delegates` may read and write it, `readers` may read it.

    `owning_id` is the Patient's id for what belongs to a Patient. May create exchange data upstream. Raises
    `KeyMissing` when the caller's own key is not loaded, `BusinessRule` when a delegate has no key.
    """
    entity_key, secret_id = os.urandom(ENTITY_KEY_BYTES), str(uuid.uuid4())
    delegations: Entity = {}
    parents: Entity = {}
    writers = dict.fromkeys(delegates, "WRITE")
    permissions = {keyring.owner_id: "WRITE", **dict.fromkeys(readers, "READ"), **writers}
    for delegate, permission in permissions.items():
        route = keyring.route_to(delegate, type_name)
        delegation: Entity = {
            **route.sides,
            "secretIds": [route.exchange_key.seal(secret_id.encode())],
            "encryptionKeys": [route.exchange_key.seal(entity_key)],
        }
        if owning_id is not None:
            delegation["owningEntityIds"] = [route.exchange_key.seal(owning_id.encode())]
        name = route.exchange_key.delegation_key(type_name)
        delegations[name] = {**delegation, **parents, "permissions": permission}
        parents = parents or {"parentDelegations": [name]}
    return NewMetadata({"secureDelegations": delegations}, entity_key, secret_id)


def encrypt_entity(
    entity: Entity, type_name: str, key: bytes, manifests: Manifests = DEFAULT_MANIFESTS
) -> Entity:
    """Returns the entity as it goes upstream, whatever its type."""
    if type_name == "Contact":
        return encrypt_contact(entity, key, manifests)
    if type_name == "Service":
        return encrypt_service(entity, key, manifests["Service"])
    return encrypt(entity, key, manifests[type_name])


def encrypt(entity: Entity, key: bytes, manifest: Manifest) -> Entity:
    """Returns the entity with what the manifest names in `encryptedSelf`, on every level it looks into.

    Members that are null are left out: iCure's clients refuse them in many places, and they say nothing.
    """
    return _encrypt(entity, key, manifest, {})


def encrypt_contact(contact: Entity, key: bytes, manifests: Manifests = DEFAULT_MANIFESTS) -> Entity:
    """Returns the Contact encrypted, each of its Services by itself."""
    rest = {name: value for name, value in contact.items() if name != "services"}
    encrypted = encrypt(rest, key, manifests["Contact"])
    if contact.get("services") is not None:
        manifest = manifests["Service"]
        encrypted["services"] = [encrypt_service(service, key, manifest) for service in contact["services"]]
    return encrypted


def encrypt_service(service: Entity, key: bytes, manifest: Manifest = DEFAULT_MANIFESTS["Service"]) -> Entity:
    """Returns the Service encrypted with its Contact's key."""
    content = service.get("content")
    if not content:
        return _encrypt(service, key, manifest, {})
    rest = {name: value for name, value in service.items() if name != "content"}
    if not all(map(_is_compound, content.values())):
        return _encrypt(rest, key, manifest, {"content": content})
    encrypted = _encrypt(rest, key, manifest, {})
    encrypted["content"] = {
        language: {"compoundValue": [encrypt_service(s, key, manifest) for s in value["compoundValue"]]}
        for language, value in content.items()
    }
    return encrypted


def _is_compound(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("compoundValue"), list):
        return False
    return all(part is None for name, part in value.items() if name != "compoundValue")


def _encrypt(entity: Entity, key: bytes, manifest: Manifest, hidden: Entity) -> Entity:
    if "encryptedSelf" in entity or "encryptedContent" in entity:
        raise ValueError("this is encrypted already")
    clear: Entity = {}
    for name, value in entity.items():
        if value is None:
            continue
        if manifest.everything or name in manifest.whole:
            hidden[name] = value
        elif name not in manifest.inner:
            clear[name] = value
        elif (inner := _encrypt_inner(value, key, *manifest.inner[name])) is not None:
            clear[name] = inner
        else:
            hidden[name] = value
    clear["encryptedSelf"] = to_base64(cbc_encrypt(key, _json(hidden)))
    return clear


def _encrypt_inner(value: Json, key: bytes, shape: Shape, manifest: Manifest) -> Json:
    """Returns the value encrypted in its parts; None when its shape is another and it is hidden whole."""
    if shape == "list" and isinstance(value, list) and all(map(_is_part, value)):
        return [part and _encrypt(part, key, manifest, {}) for part in value]
    if shape == "map" and isinstance(value, dict) and all(map(_is_part, value.values())):
        return {name: part and _encrypt(part, key, manifest, {}) for name, part in value.items()}
    if shape == "object" and isinstance(value, dict):
        return _encrypt(value, key, manifest, {})
    return None


def _is_part(value: Json) -> bool:
    return value is None or isinstance(value, dict)


def _json(hidden: Entity) -> bytes:
    text = orjson.dumps(hidden)
    return orjson.dumps(_without_nulls(hidden)) if b"null" in text else text


def _without_nulls(value: Json) -> Json:
    if isinstance(value, dict):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    if isinstance(value, list):
        return [_without_nulls(part) for part in value]
    return value


def decrypt(entity: Entity, keys: Iterable[bytes]) -> Entity:
    """Returns the entity with all its encrypted members in their places and no `encryptedSelf` left.

    `securityMetadata` and the older maps stay, so that it can be written again. Raises `KeyMissing` when
    something in it opens with none of the keys, or lies deeper than anything that iCure's clients write.
    """
    try:
        return _Decryption(keys).entity(entity)
    except RecursionError:
        raise KeyMissing("This entity is nested too deeply to be opened.") from None


def open_entity(keyring: Keyring, entity: Entity, type_name: str) -> tuple[Entity, Opened]:
    """Returns the entity decrypted, and what its delegations say. Raises `KeyMissing`.

    An entity may have several keys, in different delegations; those that cost more to open are tried only when the
    first do not fit.
    """
    opened = keyring.open(entity, type_name)
    try:
        return decrypt(entity, opened.entity_keys), opened
    except KeyMissing:
        whole = keyring.open(entity, type_name, whole=True)
        if whole.entity_keys == opened.entity_keys:
            raise
        return decrypt(entity, whole.entity_keys), whole


class _Decryption:
    """One entity's decryption: it tries the key that fitted last before the others."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        self._keys = list(keys)

    def entity(self, entity: Entity) -> Entity:
        clear: Entity = {}
        for name, value in entity.items():
            if isinstance(value, (dict, list)) and name not in _METADATA:
                clear[name] = self._value(value)
            elif name not in ("encryptedSelf", "encryptedContent"):
                clear[name] = value
        if entity.get("encryptedContent"):
            clear["content"] = self._open(entity["encryptedContent"])
        if entity.get("encryptedSelf"):
            clear.update(self._open(entity["encryptedSelf"]))
        return clear

    def _value(self, value: Json) -> Json:
        if isinstance(value, dict):
            return self.entity(value)
        if isinstance(value, list):
            return [self._value(part) if isinstance(part, (dict, list)) else part for part in value]
        return value

    def _open(self, text: object) -> Entity:
        for at, key in enumerate(self._keys):
            try:
                plain = cbc_decrypt(key, from_base64(text)).rstrip(b"\0")
                members = orjson.loads(plain)
            except (Undecipherable, orjson.JSONDecodeError):
                continue
            if isinstance(members, dict):
                self._keys.insert(0, self._keys.pop(at))
                return self.entity(members) if b'"encrypted' in plain else members
        raise KeyMissing


def seal_residue(entity_key: bytes, owner_id: str, text: bytes) -> str:
    """Returns the residue of an entity or Service, packed and sealed: no client's settings uncover it."""
    packed = zlib.compress(text, PACKING_LEVEL) if len(text) <= MOST_PACKED_BYTES else text
    return to_base64(seal(hkdf(entity_key, RESIDUE_INFO), packed, owner_id.encode()))


def open_residue(entity_keys: Sequence[bytes], owner_id: str, text: str) -> bytes | None:
    """Returns what `seal_residue` sealed for the same owner, None when no key opens it."""
    try:
        sealed = from_base64(text)
    except Undecipherable:
        return None
    for key in entity_keys:
        try:
            return _unpacked(open_sealed(hkdf(key, RESIDUE_INFO), sealed, owner_id.encode()))
        except InvalidTag:
            continue
    return None


def _unpacked(residue: bytes) -> bytes | None:
    """Returns the text of a residue, also of one that was sealed as it stood; None for what is none."""
    if residue.startswith(b"{"):
        return residue
    unpacking = zlib.decompressobj()
    try:
        text = unpacking.decompress(residue, MOST_PACKED_BYTES)
    except zlib.error:
        return None
    return text if unpacking.eof else None


def version_tag(entity_key: bytes, canonical: bytes) -> str:
    """Returns a version that tells nothing of the content without the key: 32 hex characters."""
    return hmac.digest(entity_key, canonical, "sha256").hex()[:32]
