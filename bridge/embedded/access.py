"""Who may see and change an entity.

Facts: the rules of the hosted iCure server. Delegations name data owners, or, where a data owner stays
anonymous, nobody: it proves itself with access control keys, whose SHA-256 is the key of the delegation.
What was shared with a parent in the hierarchy is readable by its children.

Strategy: every entity has a set of keys that read and a set of keys that write, stored beside it. A caller
holds a set of keys too. Access is that two sets meet.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from bridge.embedded.errors import AccessDenied, BadRequest
from bridge.embedded.model import Entity

ACCESS_KEY_BYTES = 16
ADMINS = "admin:"
"""Held by administrators; opens only what has no delegation at all."""


def user_key(user_id: str) -> str:
    """Returns the key that a user holds, beside those of its data owner."""
    return f"user:{user_id}"


@dataclass(frozen=True)
class Caller:
    """The authenticated user of a request."""

    user_id: str
    data_owner_id: str | None = None
    data_owner_type: str | None = None
    ancestors: tuple[str, ...] = ()
    """The parents in the hierarchy, topmost first."""
    admin: bool = False
    hashed_keys: frozenset[str] = frozenset()
    """SHA-256 of each access control key that came with the request."""
    anonymous: bool = False
    """Whether the server leaves this caller's ids out of what it completes."""
    unrestricted: bool = False

    @cached_property
    def keys(self) -> frozenset[str]:
        """Returns all keys this caller holds."""
        held = {user_key(self.user_id), *self.ancestors, *self.hashed_keys}
        if self.data_owner_id is not None:
            held.add(self.data_owner_id)
        if self.admin:
            held.add(ADMINS)
        return frozenset(held)

    @property
    def is_anonymous_by_default(self) -> bool:
        """Returns whether delegations do not name data owners of this type: all but healthcare parties."""
        return self.data_owner_type not in (None, "hcp")

    def with_request(self, hashed_keys: frozenset[str], anonymous: bool, unrestricted: bool) -> Caller:
        """Returns the caller together with what its request said in headers."""
        return replace(self, hashed_keys=hashed_keys, anonymous=anonymous, unrestricted=unrestricted)

    def acts_for(self, data_owner_id: str) -> bool:
        """Returns whether the caller may search as this data owner: itself or an ancestor."""
        return self.unrestricted or data_owner_id == self.data_owner_id or data_owner_id in self.ancestors

    def search_keys(self, data_owner_id: str) -> list[str]:
        """Returns the index owners of a search as this data owner; raises `AccessDenied`."""
        if not self.acts_for(data_owner_id):
            raise AccessDenied()
        if data_owner_id == self.data_owner_id:
            return [data_owner_id, *sorted(self.hashed_keys)]
        return [data_owner_id]

    def require_admin(self) -> None:
        """Raises `AccessDenied` unless the caller is an administrator."""
        if not self.admin:
            raise AccessDenied()


@dataclass(frozen=True, slots=True)
class Access:
    """The keys that read an entity, and those that write it."""

    readers: frozenset[str]
    writers: frozenset[str]

    def may_read(self, caller: Caller) -> bool:
        """Returns whether the caller holds a key that reads."""
        return caller.unrestricted or not self.readers.isdisjoint(caller.keys)

    def may_write(self, caller: Caller) -> bool:
        """Returns whether the caller holds a key that writes."""
        return caller.unrestricted or not self.writers.isdisjoint(caller.keys)


def secure_delegations(entity: Entity) -> dict[str, Any]:
    """Returns the secure delegations of an entity by their key."""
    delegations: dict[str, Any] = entity.get("securityMetadata", {}).get("secureDelegations", {})
    return delegations


def delegation_parties(key: str, delegation: Entity) -> set[str]:
    """Returns who holds a secure delegation: both data owners, and its key where one of them is anonymous."""
    parties = {delegation[side] for side in ("delegator", "delegate") if side in delegation}
    if not ("delegator" in delegation and "delegate" in delegation):
        parties.add(key)
    return parties


def owners(entity: Entity) -> set[str]:
    """Returns the keys under which filters find an entity."""
    found = set(entity.get("delegations", ()))
    for key, delegation in secure_delegations(entity).items():
        found |= delegation_parties(key, delegation)
    return found


def access(entity: Entity, *, is_patient: bool = False) -> Access:
    """Returns who may read and write an entity that delegations rule.

    Legacy delegations count as full access. Without any delegation the entity belongs to who made it and to
    administrators. A patient always reads and writes itself.
    """
    readers = set(entity.get("delegations", ()))
    writers = set(readers)
    for key, delegation in secure_delegations(entity).items():
        parties = delegation_parties(key, delegation) | {key}
        readers |= parties
        if delegation.get("permissions") == "WRITE":
            writers |= parties
    if not readers:
        readers.add(ADMINS)
        if "responsible" in entity:
            readers.add(entity["responsible"])
        if "author" in entity:
            readers.add(user_key(entity["author"]))
        writers |= readers
    if is_patient:
        readers.add(entity["id"])
        writers.add(entity["id"])
    return Access(frozenset(readers), frozenset(writers))


def hash_key(raw: bytes) -> str:
    """Returns the key of the secure delegation that a 16-byte access control key opens."""
    return hashlib.sha256(raw).hexdigest()


def hashed_access_keys(header_values: Iterable[str]) -> frozenset[str]:
    """Returns the delegation keys of the `Icure-Access-Control-Keys` headers; raises `BadRequest`."""
    hashes = set()
    for value in header_values:
        for part in value.split(","):
            try:
                raw = base64.b64decode(part.strip(), validate=True)
            except (binascii.Error, ValueError):
                raise BadRequest("Icure-Access-Control-Keys must be base64") from None
            if len(raw) % ACCESS_KEY_BYTES:
                raise BadRequest(f"Icure-Access-Control-Keys must hold keys of {ACCESS_KEY_BYTES} bytes")
            hashes |= {
                hash_key(raw[start : start + ACCESS_KEY_BYTES])
                for start in range(0, len(raw), ACCESS_KEY_BYTES)
            }
    return frozenset(hashes)


def check_security_metadata(entity: Entity) -> None:
    """Raises `BadRequest` when the secure delegations of an entity could not have been made properly."""
    if "securityMetadata" not in entity:
        return
    delegations = secure_delegations(entity)
    if not delegations:
        raise BadRequest("securityMetadata must have at least one secure delegation")
    for delegation in delegations.values():
        explicit = "delegator" in delegation and "delegate" in delegation
        if explicit != ("exchangeDataId" in delegation):
            raise BadRequest("exchangeDataId must be given exactly when delegator and delegate are")
        if "permissions" not in delegation:
            raise BadRequest("a secure delegation must have permissions")
        if "parentDelegations" not in delegation and delegation["permissions"] != "WRITE":
            raise BadRequest("a secure delegation without parents must have WRITE permission")
    for key in delegations:
        if key in ancestors_of(delegations, key):
            raise BadRequest("secure delegations must not be parents of each other in a circle")


def ancestors_of(delegations: dict[str, Any], key: str) -> set[str]:
    """Returns the keys of all delegations above this one."""
    found: set[str] = set()
    waiting = [key]
    while waiting:
        for parent in delegations.get(waiting.pop(), {}).get("parentDelegations", ()):
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return found
