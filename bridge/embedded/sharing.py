"""Sharing: new secure delegations on stored entities.

Facts: `bulkSharedMetadataUpdate` of the REST API. Every request of every entity has its own outcome; the key
of a new delegation is the smallest SHA-256 of its access control keys; a new delegation hangs below those of
the caller's own that are named as possible parents and are below none of the others. An outcome names the rev
that the entity had before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bridge.embedded import access, entities
from bridge.embedded.access import ancestors_of, delegation_parties, hash_key, secure_delegations
from bridge.embedded.documents import Documents
from bridge.embedded.entities import EXCHANGE_DATA_MAP, EntityType
from bridge.embedded.errors import BadRequest
from bridge.embedded.model import (
    Entity,
    Shape,
    by_key,
    one_of,
    read,
    strings,
    strings_by_key,
    text,
)
from bridge.embedded.store import Document, Writing

WRITE, READ = "WRITE", "READ"
ROOT = "ROOT"
VALUES = ("secretIds", "encryptionKeys", "owningEntityIds")
SHARE = (
    Shape(defaults={"requestedPermissions": "MAX_WRITE"})
    .has(text, "explicitDelegator explicitDelegate exchangeDataId")
    .has(strings, "accessControlKeys secretIds encryptionKeys owningEntityIds")
    .has(strings_by_key, "encryptedExchangeDataId")
    .has(one_of("MAX_READ FULL_READ MAX_WRITE FULL_WRITE ROOT"), "requestedPermissions")
)
CHANGES = by_key(one_of("CREATE DELETE"))
UPDATE = Shape().has(text, "metadataAccessControlHash").has(CHANGES, " ".join(VALUES))
REQUEST = Shape().has(SHARE, "share").has(UPDATE, "update")
REQUESTS = Shape().has(by_key(REQUEST), "requests").has(strings, "potentialParentDelegations")
BULK = Shape().has(by_key(REQUESTS), "requestsByEntityId")
MAP_BATCH = Shape().has(by_key(strings_by_key), "batch")
KEY_HEX_LENGTH = 2 * access.ACCESS_KEY_BYTES


class Rejected(Exception):
    """One request of a bulk update that is not carried out."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.outcome = {"code": code, "reason": reason, "shouldRetry": False}


@dataclass(slots=True)
class _Change:
    """The delegations of one entity while its requests are applied."""

    documents: Documents
    document: Document
    entity: Entity
    parents: list[str]
    delegations: dict[str, Any]
    is_patient: bool
    maps: dict[str, dict[str, str]] = field(default_factory=dict)
    changed: bool = False

    def share(self, request: Entity) -> None:
        """Adds the delegation that a share request asks for; raises `Rejected`."""
        hashes = sorted(_hash_hex(key) for key in request.get("accessControlKeys", ()))
        if not hashes:
            raise Rejected(400, "accessControlKeys must not be empty")
        if any(key in self.delegations for key in hashes):
            raise Rejected(400, "the entity is already shared with these access control keys")
        delegation: Entity = {
            name: request[explicit]
            for name, explicit in (("delegator", "explicitDelegator"), ("delegate", "explicitDelegate"))
            if explicit in request
        }
        if (len(delegation) == 2) != ("exchangeDataId" in request):
            raise Rejected(400, "exchangeDataId must be given exactly when delegator and delegate are")
        if (len(delegation) == 1) != ("encryptedExchangeDataId" in request):
            raise Rejected(400, "encryptedExchangeDataId must be given exactly when one side is anonymous")
        delegation |= {name: request[name] for name in (*VALUES, "exchangeDataId") if name in request}
        delegation |= self._rank(request["requestedPermissions"])
        self.delegations[hashes[0]] = delegation
        if request["requestedPermissions"] == ROOT:
            self.parents.append(hashes[0])
        if "encryptedExchangeDataId" in request:
            self.maps[hashes[0]] = request["encryptedExchangeDataId"]
        self.changed = True

    def _rank(self, requested: str) -> Entity:
        """Returns parents and permissions of a new delegation; raises `Rejected`."""
        if requested == ROOT:
            if not self._may_root():
                raise Rejected(400, "a root delegation is only for who has legacy access or is the patient")
            return {"permissions": WRITE}
        if not self.parents:
            raise Rejected(400, "there is no valid parent delegation")
        may_write = any(self.delegations[key].get("permissions") == WRITE for key in self.parents)
        writes = requested == "FULL_WRITE" or (requested == "MAX_WRITE" and may_write)
        return {
            "parentDelegations": [
                key for key in self.parents if ancestors_of(self.delegations, key).isdisjoint(self.parents)
            ],
            "permissions": WRITE if writes else READ,
        }

    def _may_root(self) -> bool:
        caller = self.documents.caller
        if self.is_patient and self.document.id == caller.data_owner_id:
            return True
        legacy = self.entity.get("delegations", {})
        if not legacy and "securityMetadata" not in self.entity:
            return self.document.access.may_write(caller)
        return caller.unrestricted or not caller.keys.isdisjoint(legacy)

    def update(self, request: Entity) -> None:
        """Adds or takes away values of a delegation; raises `Rejected`."""
        key = request.get("metadataAccessControlHash")
        delegation = self.delegations.get(key) if key else None
        if delegation is None:
            raise Rejected(404, "there is no such delegation")
        if not _holds(self.documents, str(key), delegation):
            raise Rejected(400, "the delegation is not the caller's")
        updated = {}
        for name in VALUES:
            values = list(delegation.get(name, ()))
            for value, change in request.get(name, {}).items():
                if (value in values) == (change == "CREATE"):
                    raise Rejected(400, "an entry to create exists already, or one to delete does not")
                if change == "CREATE":
                    values.append(value)
                else:
                    values.remove(value)
            updated[name] = values
        for name, values in updated.items():
            if values:
                delegation[name] = values
            else:
                delegation.pop(name, None)
        self.changed = True


def _holds(documents: Documents, key: str, delegation: Entity) -> bool:
    caller = documents.caller
    return caller.unrestricted or not caller.keys.isdisjoint(delegation_parties(key, delegation) | {key})


def _hash_hex(key: str) -> str:
    try:
        raw = bytes.fromhex(key)
    except ValueError:
        raise Rejected(400, "accessControlKeys must be hexadecimal") from None
    if len(key) != KEY_HEX_LENGTH or len(raw) != access.ACCESS_KEY_BYTES:
        raise Rejected(400, f"accessControlKeys must be {access.ACCESS_KEY_BYTES} bytes long")
    return hash_key(raw)


def bulk_update(documents: Documents, entity_type: EntityType, sent: Any, *, minimal: bool) -> list[Entity]:
    """Returns the outcome for each entity of a `bulkSharedMetadataUpdate`."""
    given = read(BULK, sent).get("requestsByEntityId", {})
    for entity_id, requests in given.items():
        _check_requests(entity_id, requests)
    with documents.store.writing() as writing:
        return [
            _update_entity(documents, writing, entity_type, entity_id, requests, minimal)
            for entity_id, requests in given.items()
        ]


def _check_requests(entity_id: str, requests: Entity) -> None:
    roots = 0
    for request in requests.get("requests", {}).values():
        if len(request) != 1:
            raise BadRequest(f"each request for {entity_id} must hold either share or update")
        roots += request.get("share", {}).get("requestedPermissions") == ROOT
    if roots > 1:
        raise BadRequest(f"there must be at most one ROOT request for {entity_id}")


def _update_entity(
    documents: Documents,
    writing: Writing,
    entity_type: EntityType,
    entity_id: str,
    requests: Entity,
    minimal: bool,
) -> Entity:
    outcome: Entity = {"entityId": entity_id}
    all_requests = requests.get("requests", {})
    document = writing.get(entity_type, entity_id)
    refusal = None
    if document is None:
        refusal = Rejected(404, f"There is no entity with id {entity_id}")
    elif not documents.may_read(entity_type, document):
        refusal = Rejected(403, "the caller has no access to the entity")
    if refusal is not None or document is None:
        rejected = dict.fromkeys(all_requests, refusal.outcome) if refusal else {}
        return outcome | ({"rejectedRequests": rejected} if rejected else {})
    outcome["entityRev"] = document.rev
    change = _opened(documents, entity_type, document, requests)
    rejected = _apply(change, all_requests)
    if change.changed:
        change.entity["securityMetadata"] = change.entity.get("securityMetadata", {}) | {
            "secureDelegations": change.delegations
        }
        document = writing.save(entity_type, change.entity, document)
        for delegation_key, encrypted_ids in change.maps.items():
            extend_map(writing, delegation_key, encrypted_ids)
        if not minimal:
            outcome["updatedEntity"] = document.entity
    return outcome | ({"rejectedRequests": rejected} if rejected else {})


def _opened(documents: Documents, entity_type: EntityType, document: Document, requests: Entity) -> _Change:
    entity = document.entity
    delegations = secure_delegations(entity)
    parents = [
        key
        for key in dict.fromkeys(requests.get("potentialParentDelegations", ()))
        if key in delegations and _holds(documents, key, delegations[key])
    ]
    return _Change(
        documents, document, entity, parents, dict(delegations), is_patient=entity_type is entities.PATIENT
    )


def _apply(change: _Change, requests: dict[str, Entity]) -> dict[str, Entity]:
    """Applies all requests, a root first; returns the outcomes of those that were rejected."""
    rejected = {}
    for request_id, request in sorted(requests.items(), key=lambda item: not _is_root(item[1])):
        try:
            if "share" in request:
                change.share(request["share"])
            else:
                change.update(request["update"])
        except Rejected as refusal:
            rejected[request_id] = refusal.outcome
    return rejected


def _is_root(request: Entity) -> bool:
    return bool(request.get("share", {}).get("requestedPermissions") == ROOT)


def extend_map(writing: Writing, delegation_key: str, encrypted_ids: dict[str, str]) -> None:
    """Adds encrypted exchange data ids to the map of a delegation, which is made when there is none."""
    previous = writing.get(EXCHANGE_DATA_MAP, delegation_key)
    known: Entity = previous.entity if previous else {"id": delegation_key}
    merged = known.get("encryptedExchangeDataIds", {}) | encrypted_ids
    writing.save(EXCHANGE_DATA_MAP, known | {"encryptedExchangeDataIds": merged}, previous)


def extend_maps(documents: Documents, sent: Any) -> None:
    """Carries out `PUT /exchangedatamap/batch`: maps keyed by access control key, in hexadecimal."""
    batch = read(MAP_BATCH, sent).get("batch", {})
    try:
        hashed = {_hash_hex(key): encrypted_ids for key, encrypted_ids in batch.items()}
    except Rejected as refusal:
        raise BadRequest(str(refusal)) from None
    with documents.store.writing() as writing:
        for delegation_key, encrypted_ids in hashed.items():
            extend_map(writing, delegation_key, encrypted_ids)
