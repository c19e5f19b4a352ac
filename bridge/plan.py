"""From checked resources to encrypted documents, ready to be written.

Strategy: one path for a single request and for a Bundle: assign ids, resolve references, map, group Observations into
Contacts, seal and encrypt. Nothing is written upstream here, except exchange keys that did not exist yet.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from bridge import wire
from bridge.crypto import envelope
from bridge.crypto.keyring import Opened
from bridge.errors import Issue, KeyMissing, warning
from bridge.homes import Home, home_of, with_residue
from bridge.references import Found, by_client_ids, client_ids, resolve
from bridge.scope import Scope
from mappings import REGISTRY
from mappings.residue import Residue
from mappings.values import Entity, Resource

CONTACT_SERVICES = 100
CONTACT_BYTES = 1 << 20


@dataclass(slots=True)
class Incoming:
    """One resource to be created."""

    resource: Resource
    path: str
    """Where it stands in the request, e.g. `Bundle.entry[3].resource`."""
    full_url: str | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    client_id: str | None = None
    warnings: list[Issue] = field(default_factory=list)
    entity: Entity = field(default_factory=dict, repr=False)
    residue: Residue = field(default_factory=dict, repr=False)

    @property
    def resource_type(self) -> str:
        """Its FHIR type."""
        return str(self.resource["resourceType"])

    @property
    def location(self) -> str:
        """`Type/<server id>`."""
        return f"{self.resource_type}/{self.id}"


@dataclass(slots=True)
class Document:
    """One encrypted entity to be written, and the resources that it carries."""

    kind: str
    entity: Entity = field(repr=False)
    carries: list[Incoming]
    opened: Opened = field(repr=False)
    """What the envelope holds."""


def plan(scope: Scope, incoming: Sequence[Incoming]) -> list[Document]:
    """Returns the documents that hold all these resources, Patients first.

    Raises `Unprocessable` when a reference that must resolve does not, `KeyMissing` when no key can encrypt.
    """
    own = _own_references(incoming)
    for one in incoming:
        sent = one.resource.pop("id", None)
        if sent is not None and sent != one.id:
            one.client_id = sent
            add_client_id(scope, one.resource, sent)
    _warn_of_repeated_client_ids(scope, incoming)
    found = refer(scope, incoming, own)
    for one in incoming:
        write_over(scope, one, found, {"id": one.id}, {})
    return documents_of(scope, incoming, found)


def add_client_id(scope: Scope, resource: Resource, client_id: str) -> None:
    """Keeps the id under which a client knows the resource as an identifier."""
    identifier = {"system": scope.config.identifier_system, "value": client_id}
    if identifier not in resource.setdefault("identifier", []):
        resource["identifier"].append(identifier)


def refer(scope: Scope, incoming: Sequence[Incoming], own: dict[str, str]) -> Found:
    """Rewrites the references of all these resources and returns what they stand for."""
    before = len(scope.warnings)
    found = resolve(scope, [(one.path, one.resource) for one in incoming], own)
    _hand_out_warnings(scope, incoming, before)
    return found


def write_over(scope: Scope, one: Incoming, found: Found, entity: Entity, residue: Residue) -> None:
    """Maps a resource onto what iCure holds of it."""
    context = scope.context(found.known.__contains__)
    one.entity, one.residue = REGISTRY[one.resource_type].to_icure(one.resource, entity, residue, context)


def documents_of(scope: Scope, incoming: Sequence[Incoming], found: Found) -> list[Document]:
    """Returns the documents that hold these mapped resources, Patients first."""
    secret_ids: dict[str, str] = {}
    documents = [
        _patient(scope, one, secret_ids)
        for one in incoming
        if REGISTRY[one.resource_type].entity_type == "Patient"
    ]
    services = [one for one in incoming if REGISTRY[one.resource_type].entity_type == "Service"]
    documents += [_contact(scope, group, found, secret_ids) for group in contacts(services)]
    return documents


def _own_references(incoming: Sequence[Incoming]) -> dict[str, str]:
    """Returns what the request itself will create, by fullUrl and by `Type/<client id>`."""
    own: dict[str, str] = {}
    for one in incoming:
        if client_id := one.resource.get("id"):
            own[f"{one.resource_type}/{client_id}"] = one.location
    for one in incoming:
        if one.full_url:
            own[one.full_url] = one.location
    return own if len(incoming) > 1 or (incoming and incoming[0].full_url) else {}


def _warn_of_repeated_client_ids(scope: Scope, incoming: Sequence[Incoming]) -> None:
    for resource_type in {one.resource_type for one in incoming if one.client_id}:
        sent = [one for one in incoming if one.client_id and one.resource_type == resource_type]
        records = by_client_ids(scope, resource_type, sorted({str(one.client_id) for one in sent}))
        taken = {i for r in records if not r.deleted for i in client_ids(scope, r.resource)}
        seen: set[str] = set()
        for one in sent:
            client_id = str(one.client_id)
            if client_id in taken or client_id in seen:
                text = "This id was posted before; it now means several and is answered 412. Use the server's id."
                one.warnings.append(warning("duplicate", text, f"{one.path}.id"))
            seen.add(client_id)


def _hand_out_warnings(scope: Scope, incoming: Sequence[Incoming], start: int) -> None:
    """Moves the new warnings of the request to the resources that they are about."""
    by_path = {one.path: one for one in incoming}
    kept: list[Issue] = scope.warnings[:start]
    for issue in scope.warnings[start:]:
        path = issue.path or ""
        while path and path not in by_path:
            path = path.rpartition(".")[0]
        (by_path[path].warnings if path else kept).append(issue)
    scope.warnings[:] = kept


def _patient(scope: Scope, one: Incoming, secret_ids: dict[str, str]) -> Document:
    home = home_of(one.resource_type)
    metadata = envelope.new_metadata(
        scope.keyring, home.type_name, delegates=scope.caller.delegates(home.purpose)
    )
    secret_ids[one.location] = metadata.secret_id
    entity = {
        **one.entity,
        "id": one.id,
        "created": scope.now,
        "modified": scope.now,
        "securityMetadata": metadata.security_metadata,
    }
    entity = with_residue(one.resource_type, entity, one.residue, metadata.entity_key)
    encrypted = envelope.encrypt(entity, metadata.entity_key, scope.manifests[home.type_name])
    return Document(home.kind, encrypted, [one], Opened((metadata.entity_key,), (metadata.secret_id,), ()))


def contacts(services: Sequence[Incoming]) -> Iterator[list[Incoming]]:
    """Yields the resources that share a Contact: same patient, encounter (else day) and security labels.

    At most 100 Services and about 1 MiB each.
    """
    groups: dict[tuple[Any, ...], list[Incoming]] = {}
    sizes: dict[tuple[Any, ...], int] = {}
    for one in services:
        resource = one.resource
        encounter = (resource.get("encounter") or {}).get("reference")
        day = str(one.entity.get("valueDate", ""))[:8]
        security = orjson.dumps((resource.get("meta") or {}).get("security"), default=wire.number)
        group = (one.entity.get("patientId"), encounter or day, security)
        size = len(wire.dump(resource))
        if group in groups and (
            len(groups[group]) == CONTACT_SERVICES or sizes[group] + size > CONTACT_BYTES
        ):
            yield groups.pop(group)
        groups.setdefault(group, []).append(one)
        sizes[group] = (sizes[group] if len(groups[group]) > 1 else 0) + size
    yield from groups.values()


def _contact(scope: Scope, group: list[Incoming], found: Found, secret_ids: dict[str, str]) -> Document:
    home: Home = home_of(group[0].resource_type)
    patient_id = group[0].entity.get("patientId")
    metadata = envelope.new_metadata(
        scope.keyring, home.type_name, owning_id=patient_id, delegates=scope.caller.delegates(home.purpose)
    )
    contact: Entity = {
        "id": str(uuid.uuid4()),
        "created": scope.now,
        "modified": scope.now,
        "openingDate": min(one.entity["openingDate"] for one in group),
        "services": [_service(scope, one, metadata.entity_key) for one in group],
        "securityMetadata": metadata.security_metadata,
    }
    contact["groupId"] = contact["id"]
    if patient_id is not None:
        location = f"Patient/{patient_id}"
        if location not in secret_ids:
            secret_ids[location] = _secret_id(scope, found, location)
        contact["secretForeignKeys"] = [secret_ids[location]]
    encrypted = envelope.encrypt_contact(contact, metadata.entity_key, scope.manifests)
    owning = (patient_id,) if patient_id is not None else ()
    return Document(
        "contact", encrypted, group, Opened((metadata.entity_key,), (metadata.secret_id,), owning)
    )


def _service(scope: Scope, one: Incoming, key: bytes) -> Entity:
    entity = {k: v for k, v in one.entity.items() if k != "patientId"}
    entity = {**entity, "id": one.id, "created": scope.now, "modified": scope.now}
    return with_residue(one.resource_type, entity, one.residue, key)


def _secret_id(scope: Scope, found: Found, location: str) -> str:
    """Returns the secret id of a patient by which its Contacts are found."""
    opened = scope.keyring.open(found.records[location].document, "Patient")
    if not opened.secret_ids:
        raise KeyMissing(f"{location} is shared with you without what links data to it.")
    return opened.secret_ids[0]
