"""Where a resource lives upstream: a document of its own, or a Service inside a Contact.

Strategy: everything that knows the shape of the upstream storage is here. A `Record` is one stored resource, opened.
A new resource type needs nothing here as long as its entity type is in `HOMES`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import orjson

from bridge import wire
from bridge.crypto import envelope
from bridge.crypto.keyring import Opened
from bridge.errors import Invalid, KeyMissing, NotSupported
from bridge.scope import Scope
from mappings import REGISTRY
from mappings.engine import Context
from mappings.observation import is_observation
from mappings.party import is_kind, is_tagged
from mappings.residue import Residue
from mappings.values import Entity, Json, Resource

FROM_CONTACT = frozenset(
    (
        "contactId",
        "secretForeignKeys",
        "cryptedForeignKeys",
        "delegations",
        "encryptionKeys",
        "securityMetadata",
        "subContactIds",
        "plansOfActionIds",
        "healthElementsIds",
        "formIds",
    )
)
"""Members that iCure copies from the Contact onto a Service that is read alone."""


@dataclass(frozen=True)
class Record:
    """One stored resource, opened: as iCure holds it and, when asked, as FHIR says it."""

    resource_type: str
    id: str
    version: str
    modified: int | None
    """Epoch milliseconds."""
    deleted: bool
    document: Entity = field(repr=False)
    """The entity as stored: still encrypted, with its envelope."""
    entity: Entity = field(repr=False)
    """The entity opened, without slot and what comes from the Contact."""
    residue: Residue = field(repr=False)
    opened: Opened = field(repr=False)
    """What the envelope holds."""
    context: Context = field(repr=False)

    @property
    def location(self) -> str:
        """`Type/id`."""
        return f"{self.resource_type}/{self.id}"

    @property
    def etag(self) -> str:
        """The version as a weak ETag."""
        return f'W/"{self.version}"'

    @cached_property
    def resource(self) -> Resource:
        """The resource, with the id and the meta that this server gives."""
        said = REGISTRY[self.resource_type].to_fhir(self.entity, self.residue, self.context)
        return with_meta(said, self.resource_type, self.id, self.version, self.modified)


class Home(ABC):
    """How one kind of resource is found and opened upstream."""

    kind: str
    """Path of the type in the REST API."""
    type_name: str
    """Whose exchange keys the envelope is made with."""
    purpose: str
    """Which of the user's autoDelegations apply."""
    encrypts: bool = True
    refusal: str = "iCure refuses this to your login."
    """What a 403 of a write means."""

    def read(self, scope: Scope, resource_type: str, entity_id: str) -> Record | None:
        """Returns the record, a deleted one too; None when there is none. Raises `KeyMissing`, `Forbidden`."""
        document = scope.client.read(self.kind, entity_id)
        return None if document is None else self.record(scope, resource_type, document)

    def read_all(self, scope: Scope, resource_type: str, ids: Sequence[str]) -> list[Record]:
        """Returns those records that there are, deleted ones too, in the order asked; unopenable ones are left out."""
        documents = scope.client.by_ids(self.kind, ids) if ids else []
        scope.keyring.preload(documents, self.type_name)
        records: list[Record] = []
        for document in documents:
            try:
                record = self.record(scope, resource_type, document)
            except KeyMissing:
                scope.unopened += 1
                continue
            if record is not None:
                records.append(record)
        return records

    @abstractmethod
    def record(
        self, scope: Scope, resource_type: str, document: Entity, opened: Opened | None = None
    ) -> Record | None:
        """Returns the opened record, None for an entity of another kind. Raises `KeyMissing`.

        `opened` is given by who knows already what the envelope holds.
        """

    @abstractmethod
    def carried(self, stored: Entity) -> Iterator[Entity]:
        """Yields what a document holds, each as iCure gives it when read alone."""

    def beginning(self, entity_id: str) -> Entity:
        """Returns what a new document has besides what the mapping says."""
        return {}

    def versions(self, scope: Scope, record: Record) -> list[Record]:
        """Returns the versions that are kept, newest first: most documents have only the current one."""
        return [record]

    @abstractmethod
    def all_filter(self, owner: str) -> Entity:
        """Returns the filter that finds everything of a data owner."""

    @abstractmethod
    def identifier_filter(self, owner: str, identifiers: Sequence[dict[str, str]]) -> Entity:
        """Returns the filter that finds what has one of these `{system, value}`."""

    @abstractmethod
    def ids_filter(self, ids: Sequence[str]) -> Entity:
        """Returns the filter that finds these ids."""

    def written(
        self, scope: Scope, resource_type: str, document: Entity, opened: Opened | None
    ) -> tuple[str, int | None]:
        """Returns version and time (epoch milliseconds) of what was just written as this type."""
        record = self.record(scope, resource_type, document, opened)
        assert record is not None  # noqa: S101
        return record.version, record.modified

    def _content(
        self, scope: Scope, resource_type: str, document: Entity, opened: Opened | None
    ) -> tuple[Entity, Residue, Opened]:
        """Returns the entity decrypted and without slot, its residue, and what the envelope holds."""
        entity, text, opened = self._decrypted(scope, resource_type, document, opened)
        return entity, wire.loads(text) if text else {}, opened

    def _decrypted(
        self, scope: Scope, resource_type: str, document: Entity, opened: Opened | None
    ) -> tuple[Entity, bytes | None, Opened]:
        """Returns the entity decrypted and without slot, the text of its residue, and what the envelope holds."""
        if opened is None:
            entity, opened = envelope.open_entity(scope.keyring, document, self.type_name)
        else:
            entity = envelope.decrypt(document, opened.entity_keys)
        if opened.owning_ids:
            entity["patientId"] = opened.owning_ids[0]
        entity, sealed = REGISTRY[resource_type].slot.take(entity)
        text = envelope.open_residue(opened.entity_keys, document["id"], sealed) if sealed else None
        return entity, text, opened


class DocumentHome(Home):
    """A resource that is a document of its own, e.g. Patient. Its version is the document's rev."""

    def __init__(self, kind: str, type_name: str, prefix: str, purpose: str) -> None:
        self.kind = kind
        self.type_name = type_name
        self._prefix = prefix
        self.purpose = purpose

    def record(
        self, scope: Scope, resource_type: str, document: Entity, opened: Opened | None = None
    ) -> Record | None:
        """Returns the opened record. Raises `KeyMissing`."""
        entity, residue, opened = self._content(scope, resource_type, document, opened)
        return Record(
            resource_type,
            document["id"],
            document["rev"],
            entity.get("modified") or entity.get("created"),
            bool(document.get("deletionDate")),
            document,
            entity,
            residue,
            opened,
            scope.context(),
        )

    def carried(self, stored: Entity) -> Iterator[Entity]:
        """Yields the document."""
        yield stored

    def all_filter(self, owner: str) -> Entity:
        """Returns the filter that finds everything of a data owner."""
        return {"$type": f"{self._prefix}ByHcPartyFilter", "healthcarePartyId": owner}

    def identifier_filter(self, owner: str, identifiers: Sequence[dict[str, str]]) -> Entity:
        """Returns the filter that finds what has one of these `{system, value}`."""
        return {
            "$type": f"{self._prefix}ByHcPartyAndIdentifiersFilter",
            "healthcarePartyId": owner,
            "identifiers": list(identifiers),
        }

    def ids_filter(self, ids: Sequence[str]) -> Entity:
        """Returns the filter that finds these ids."""
        return {"$type": f"{self._prefix}ByIdsFilter", "ids": list(ids)}


class ElementHome(DocumentHome):
    """A HealthElement: a document that belongs to a patient."""

    def beginning(self, entity_id: str) -> Entity:
        """Returns the name that all versions of a HealthElement share, by which iCure's clients group them."""
        return {"healthElementId": entity_id}

    def all_filter(self, owner: str) -> Entity:
        """Returns the filter that finds everything of a data owner."""
        return {"$type": "HealthElementByHcPartyFilter", "hcpId": owner}

    def identifier_filter(self, owner: str, identifiers: Sequence[dict[str, str]]) -> Entity:
        """Returns the filter that finds what has one of these `{system, value}`."""
        kind = "HealthElementByHcPartyIdentifiersFilter"
        return {"$type": kind, "hcPartyId": owner, "identifiers": list(identifiers)}


class PartyHome(DocumentHome):
    """A HealthcareParty: nothing of it is encrypted, everybody reads it, and only administrators make one.

    One that is tagged as neither FHIR type is read as either; a search takes it for what it looks like.
    """

    encrypts = False
    refusal = (
        "iCure lets only administrators make or delete a healthcare party, and each party change itself."
    )

    def read_all(self, scope: Scope, resource_type: str, ids: Sequence[str]) -> list[Record]:
        """Returns those records that there are and that are of this type, in the order asked."""
        records = super().read_all(scope, resource_type, ids)
        return [record for record in records if is_kind(record.entity, resource_type.upper())]

    def record(
        self, scope: Scope, resource_type: str, document: Entity, opened: Opened | None = None
    ) -> Record | None:
        """Returns the record, None for one that is tagged as the other type."""
        if not is_tagged(document, resource_type.upper()):
            return None
        return super().record(scope, resource_type, document, opened)

    def all_filter(self, owner: str) -> Entity:
        """Returns the filter that finds everything."""
        return {"$type": "AllHealthcarePartiesFilter"}

    def identifier_filter(self, owner: str, identifiers: Sequence[dict[str, str]]) -> Entity:
        """Returns the filter that finds what has one of these `{system, value}`."""
        return {"$type": "HealthcarePartyByIdentifiersFilter", "identifiers": list(identifiers)}

    def _content(
        self, scope: Scope, resource_type: str, document: Entity, opened: Opened | None
    ) -> tuple[Entity, Residue, Opened]:
        entity, text = REGISTRY[resource_type].slot.take(document)
        return entity, _residue_in_clear(resource_type, entity, text), Opened((), (), ())


def _residue_in_clear(resource_type: str, entity: Entity, text: str | None) -> Residue:
    """Returns a residue that stands in clear; none when some client made something else of it."""
    try:
        residue: Residue = wire.loads(text) if text else {}
        REGISTRY[resource_type].to_fhir(entity, residue)
    except (Invalid, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return {}
    return residue


class ServiceHome(Home):
    """A resource that is a Service inside a Contact. Its version is an HMAC over the opened Service alone."""

    kind = "contact/service"
    type_name = "Contact"
    purpose = "medicalInformation"

    def record(
        self, scope: Scope, resource_type: str, document: Entity, opened: Opened | None = None
    ) -> Record | None:
        """Returns the opened record, None for a Service of another kind. Raises `KeyMissing`."""
        entity, residue, opened = self._content(scope, resource_type, document, opened)
        entity = _without_copies(entity)
        if not is_observation(entity):
            return None
        return Record(
            resource_type,
            document["id"],
            service_version(opened, entity, residue_text(residue)),
            document.get("modified"),
            bool(document.get("endOfLife")),
            document,
            entity,
            residue,
            opened,
            scope.context(),
        )

    def written(
        self, scope: Scope, resource_type: str, document: Entity, opened: Opened | None
    ) -> tuple[str, int | None]:
        """Returns version and time (epoch milliseconds) of what was just written as this type."""
        entity, text, opened = self._decrypted(scope, resource_type, document, opened)
        version = service_version(opened, _without_copies(entity), text or residue_text({}))
        return version, document.get("modified")

    def versions(self, scope: Scope, record: Record) -> list[Record]:
        """Returns the version in each Contact that holds the Service, newest first."""
        ids = scope.client.match("contact", {"$type": "ContactByServiceIdsFilter", "ids": [record.id]})
        found = {record.version: record}
        for contact in scope.client.by_ids("contact", ids):
            for service in self.carried(contact):
                if service["id"] == record.id and (one := self.record(scope, record.resource_type, service)):
                    found.setdefault(one.version, one)
        return sorted(found.values(), key=lambda one: one.modified or 0, reverse=True)

    def carried(self, stored: Entity) -> Iterator[Entity]:
        """Yields the Services of a Contact, each with what it takes over from the Contact."""
        copied = {name: stored[name] for name in FROM_CONTACT & stored.keys()}
        fallback: Entity = {name: stored[name] for name in ("author", "responsible") if name in stored}
        for service in stored.get("services", ()):
            yield {**fallback, **service, **copied, "contactId": stored["id"]}

    def all_filter(self, owner: str) -> Entity:
        """Returns the filter that finds everything of a data owner."""
        return {"$type": "ServiceByHcPartyFilter", "hcpId": owner}

    def identifier_filter(self, owner: str, identifiers: Sequence[dict[str, str]]) -> Entity:
        """Returns the filter that finds what has one of these `{system, value}`."""
        return {
            "$type": "ServiceByHcPartyIdentifiersFilter",
            "healthcarePartyId": owner,
            "identifiers": list(identifiers),
        }

    def ids_filter(self, ids: Sequence[str]) -> Entity:
        """Returns the filter that finds these ids."""
        return {"$type": "ServiceByIdsFilter", "ids": list(ids)}


HOMES: dict[str, Home] = {
    "Patient": DocumentHome("patient", "Patient", "Patient", "administrativeData"),
    "Service": ServiceHome(),
    "HealthcareParty": PartyHome("hcparty", "HealthcareParty", "HealthcareParty", ""),
    "HealthElement": ElementHome("helement", "HealthElement", "HealthElement", "medicalInformation"),
}
"""By entity type."""


def refusal(kind: str) -> str:
    """Returns what it means that iCure refuses a write to a path of its API."""
    return next((home.refusal for home in HOMES.values() if home.kind == kind), Home.refusal)


def supported(resource_type: str) -> None:
    """Raises `NotSupported` for a resource type that is not served."""
    if resource_type == "Subscription":
        raise NotSupported(
            "A Subscription is created, read, updated, deleted and searched for, each by itself."
        )
    if resource_type not in REGISTRY:
        raise NotSupported(f"This server has {', '.join(REGISTRY)}; no other resource types.")


def home_of(resource_type: str) -> Home:
    """Returns where the resources of a type live. Raises `NotSupported` for a type that is not served."""
    supported(resource_type)
    return HOMES[REGISTRY[resource_type].entity_type]


def with_residue(resource_type: str, entity: Entity, residue: Residue, opened: Opened | None) -> Entity:
    """Returns the entity with its residue in its slot: sealed, but for an entity that is in clear and has no key."""
    text = None
    if residue:
        said = residue_text(residue)
        text = (
            said.decode() if opened is None else envelope.seal_residue(opened.entity_key, entity["id"], said)
        )
    return REGISTRY[resource_type].slot.put(entity, text)


def residue_text(residue: Residue) -> bytes:
    """Returns the JSON text of a residue: the same for all that say the same."""
    return orjson.dumps(residue, default=wire.number, option=orjson.OPT_SORT_KEYS)


def _without_copies(service: Entity) -> Entity:
    return {name: value for name, value in service.items() if name not in FROM_CONTACT}


def service_version(opened: Opened, entity: Entity, kept: bytes) -> str:
    """Returns the versionId of an opened Service: it changes with its content, not with its neighbours or its IV.

    `kept` is the text of its residue.

    Rule: a number is what it is worth. SDKs in JavaScript write 100.0 and -0.0 as 100 and 0.
    """
    content = orjson.dumps(entity, option=orjson.OPT_SORT_KEYS)
    if _WHOLE_DOUBLE.search(content):
        content = orjson.dumps(_by_worth(entity), option=orjson.OPT_SORT_KEYS)
    key = opened.entity_keys[0] if opened.entity_keys else b""
    return envelope.version_tag(key, b"[%b,%b]" % (content, kept))


def _by_worth(value: Json) -> Json:
    if isinstance(value, dict):
        return {name: _by_worth(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_by_worth(inner) for inner in value]
    if isinstance(value, float) and abs(value) < _EXACT and value.is_integer():
        return int(value)
    return value


_EXACT = 2.0**53
_WHOLE_DOUBLE = re.compile(rb"\.0[,}\]]")
"""What there is in JSON text that holds an exact double without fraction."""


def union(filters: Iterable[Entity]) -> Entity:
    """Returns one filter that finds what any of these finds."""
    several = list(filters)
    return several[0] if len(several) == 1 else {"$type": "UnionFilter", "filters": several}


def with_meta(
    resource: Resource, resource_type: str, entity_id: str, version: str, modified: int | None
) -> Resource:
    """Returns the resource with the id and the meta that this server gives."""
    meta: dict[str, Any] = {"versionId": version}
    if modified is not None:
        meta["lastUpdated"] = instant(modified)
    meta |= {k: v for k, v in resource.get("meta", {}).items() if k not in ("versionId", "lastUpdated")}
    rest = {k: v for k, v in resource.items() if k not in ("resourceType", "id", "meta")}
    return {"resourceType": resource_type, "id": entity_id, "meta": meta, **rest}


def instant(epoch_ms: int) -> str:
    """Returns a FHIR instant in UTC with milliseconds."""
    moment = datetime.fromtimestamp(epoch_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{epoch_ms % 1000:03d}Z"
