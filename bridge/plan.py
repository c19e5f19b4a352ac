"""From checked resources to encrypted documents, ready to be written.

Strategy: one path for a single request and for a Bundle: assign ids, resolve references, map each resource onto what
iCure holds of it, group new Observations into Contacts, seal and encrypt. Nothing is written upstream here, except
exchange keys that did not exist yet.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import orjson

from bridge import wire
from bridge.conditions import matches, read_condition
from bridge.crypto import envelope
from bridge.crypto.keyring import Opened
from bridge.errors import Conflict, Issue, KeyMissing, Unprocessable, warning
from bridge.homes import HOMES, Home, Record, ServiceHome, home_of, refusal, with_residue
from bridge.references import Found, Reference, by_client_ids, client_ids, references, resolve
from bridge.scope import Scope
from bridge.upstream import NO_IDS
from bridge.wire import Packed
from mappings import REGISTRY
from mappings.engine import Context
from mappings.repeats import Repeats
from mappings.residue import Residue
from mappings.values import Entity, Resource

CONTACT_SERVICES = 100
CONTACT_BYTES = 1 << 20


_GONE: Entity = {}
"""Stands for what was let go; never written to."""


@dataclass(slots=True)
class Incoming:
    """One resource to be written: a new one, or one over what is there."""

    resource: Resource
    path: str
    """Where it stands in the request, e.g. `Bundle.entry[3].resource`."""
    full_url: str | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    over: Record | None = None
    """What it is written over; None for a new one."""
    also: list[str] = field(default_factory=list)
    """Other fullUrls that mean it."""
    client_id: str | None = None
    warnings: list[Issue] = field(default_factory=list)
    entity: Entity = field(default_factory=dict, repr=False)
    residue: Residue = field(default_factory=dict, repr=False)
    resource_type: str = field(init=False)
    """Its FHIR type."""
    sent_id: str | None = field(init=False)
    """The id that it was sent with."""
    references: list[Reference] = field(init=False, repr=False)
    """As they were sent."""
    packed: Packed | None = field(init=False, default=None, repr=False)
    """The resource, while it has to wait."""

    def __post_init__(self) -> None:
        self.resource_type = str(self.resource["resourceType"])
        self.sent_id = self.resource.get("id")
        self.references = references(self.resource)

    def pack(self) -> None:
        """Puts the resource aside."""
        self.packed, self.resource = Packed(self.resource), _GONE

    def unpack(self) -> None:
        """Takes the resource up again."""
        if self.packed is not None:
            self.resource, self.packed = self.packed.unpack(), None

    def let_go(self, *, shown: bool) -> None:
        """Forgets of a new one what is encrypted by now; the resource too unless it is to be shown."""
        if self.over is None:
            self.entity = self.residue = _GONE
            self.resource = self.resource if shown else _GONE

    @property
    def base(self) -> str:
        """What completes its relative references, when it was sent under a RESTful fullUrl; else empty.

        https://hl7.org/fhir/R4/bundle.html#references
        """
        url, _, name = (self.full_url or "").rpartition("/")
        base, _, kind = url.rpartition("/")
        return f"{base}/" if name and kind == self.resource_type and base.startswith("http") else ""

    @property
    def location(self) -> str:
        """`Type/<server id>`."""
        return f"{self.resource_type}/{self.id}"

    @property
    def unchanged(self) -> bool:
        """Whether it says nothing that is not there already."""
        over = self.over
        return (
            over is not None
            and not over.deleted
            and (self.entity, self.residue) == (over.entity, over.residue)
        )

    @property
    def moves(self) -> bool:
        """Whether it now belongs to another patient."""
        over = self.over
        return over is not None and self.entity.get("patientId") != over.entity.get("patientId")


@dataclass(frozen=True, slots=True)
class Removal:
    """One record to be deleted."""

    record: Record
    path: str


def mark(entity: Entity) -> str:
    """Returns what tells one write of a document from another: a hash of its encrypted contents."""
    digests = b"".join(map(_digest, entity.get("services", ())))
    return _marked(entity, digests)


def _digest(part: Entity) -> bytes:
    """Returns a hash of a document without its Services, or of a Service: each writing has its own IV or time."""
    members = [part.get(member) for member in ("encryptedSelf", "modified", "endOfLife")]
    return hashlib.sha256(orjson.dumps(members)).digest()


def _marked(entity: Entity, digests: bytes) -> str:
    return hashlib.sha256(_digest(entity) + digests).hexdigest()


class _Services:
    """The Services of a new Contact as one text: it takes less than objects, and is sent as it is."""

    def __init__(self) -> None:
        self.digests = b""
        self._text = bytearray()

    def add(self, encrypted: Entity) -> None:
        """Takes in one more."""
        self._text += (b"," if self._text else b"[") + orjson.dumps(encrypted)
        self.digests += _digest(encrypted)

    def json(self) -> orjson.Fragment:
        """Returns the list of them, ready to be sent; no more can be added."""
        text, self._text = bytes(self._text) + b"]", bytearray()
        return orjson.Fragment(text)


@dataclass(slots=True)
class Write:
    """One call that changes one document upstream."""

    method: str
    """create, modify or delete."""
    kind: str
    """Path of the type in the REST API."""
    entity: Entity = field(repr=False)
    """What is sent; of a deletion id and rev."""
    paths: list[str]
    """Which parts of the request it is for."""
    carries: list[Incoming] = field(default_factory=list)
    opened: Opened | None = field(default=None, repr=False)
    """What the envelope holds."""
    previous: Entity | None = field(default=None, repr=False)
    """The document as it was before, for undo."""
    services: _Services | None = None
    """Of a new Contact, what is known of its Services, which stand in it as text."""

    @property
    def service_ids(self) -> Iterable[str]:
        """The Services of a Contact."""
        if self.services is not None:
            return (one.id for one in self.carries)
        return (service["id"] for service in self.entity.get("services", ()))

    @property
    def mark(self) -> str:
        """What tells this write of the document from another."""
        return mark(self.entity) if self.services is None else _marked(self.entity, self.services.digests)

    @property
    def size(self) -> int:
        """How many bytes are sent."""
        return len(orjson.dumps(self.entity))

    @property
    def refusal(self) -> str:
        """What it means that iCure forbids it."""
        return refusal(self.kind)


def plan(
    scope: Scope,
    incoming: Sequence[Incoming],
    removals: Sequence[Removal] = (),
    there: Mapping[str, Record] = MappingProxyType({}),
) -> list[Write]:
    """Returns the writes that make all of this so: new Patients, new Contacts, changes, deletions.

    `there` is what references of the request mean although it does not write it, by fullUrl or `Type/<client id>`.

    Raises `Unprocessable` when a reference that must resolve does not, `KeyMissing` when no key can encrypt, `Conflict`
    when something was changed meanwhile.
    """
    own = {name: [record.location] for name, record in there.items()} | _own_references(incoming)
    gone = {removal.record.location for removal in removals}
    for one in incoming:
        _settle_id(one)
    _warn_of_repeated_client_ids(scope, [one for one in incoming if one.over is None])
    before = len(scope.warnings)
    found = resolve(
        scope,
        [(one.path, one.references, one.base) for one in incoming],
        own,
        lambda kind, query: matches(scope, kind, read_condition(kind, query), gone),
    )
    found.records |= {record.location: record for record in there.values()}
    found.records |= {one.location: one.over for one in incoming if one.over}
    _hand_out_warnings(scope, incoming, before)
    repeats = Repeats() if len(incoming) > 1 else None
    context = scope.context(found.known.__contains__, repeats)
    with scope.turns.of(len(incoming)):
        for one in incoming:
            if one.over is not None:
                _map(scope, one, found, context)
        _refuse_moves(incoming)
        new = [one for one in incoming if one.over is None or one.moves]
        changed = [one for one in incoming if one.over is not None and not one.moves and not one.unchanged]
        moved = {one.id for one in incoming if one.moves}
        return [
            *_creations(scope, new, found, context),
            *_changes(scope, changed, removals, [o for o in new if o.id in moved]),
        ]


def _map(scope: Scope, one: Incoming, found: Found, context: Context) -> None:
    """Maps a resource onto what iCure holds of it: with ids and references as they are kept."""
    one.unpack()
    one.resource.pop("id", None)
    for client_id in _client_ids(scope, one):
        _add_client_id(scope, one.resource, client_id)
    found.rewrite(one.path, one.resource)
    entity, residue = (one.over.entity, one.over.residue) if one.over else ({"id": one.id}, None)
    one.entity, one.residue = REGISTRY[one.resource_type].to_icure(one.resource, entity, residue, context)


def _is_service(one: Incoming) -> bool:
    return isinstance(home_of(one.resource_type), ServiceHome)


def _refuse_moves(incoming: Sequence[Incoming]) -> None:
    """Raises `Unprocessable` for a document that would belong to another patient: its delegations name the first."""
    text = "This cannot be moved to another patient: delete it, and create another."
    fixed = [one for one in incoming if one.moves and not _is_service(one)]
    if fixed:
        raise Unprocessable(issues=[Issue("business-rule", text, f"{one.path}.subject") for one in fixed])


def _settle_id(one: Incoming) -> None:
    """Notes the id that a client chose for a new resource: it becomes an identifier.

    Raises `Unprocessable` for one under which iCure tells something else.
    """
    if one.over is None and one.id in NO_IDS.get(home_of(one.resource_type).kind, ()):
        raise Unprocessable("iCure keeps this id to itself; take another.", f"{one.path}.id")
    if one.over is None and one.sent_id not in (None, one.id):
        one.client_id = one.sent_id
        one.warnings.append(
            warning("informational", "The id became an identifier; iCure gave another.", f"{one.path}.id")
        )


def _client_ids(scope: Scope, one: Incoming) -> list[str]:
    """Returns the ids of clients that the resource keeps as identifiers."""
    if one.over is not None:
        return client_ids(scope, one.over.resource)
    return [] if one.client_id is None else [one.client_id]


def _add_client_id(scope: Scope, resource: Resource, client_id: str) -> None:
    identifier = {"system": scope.config.identifier_system, "value": client_id}
    if identifier not in resource.setdefault("identifier", []):
        resource["identifier"].append(identifier)


def _own_references(incoming: Sequence[Incoming]) -> dict[str, list[str]]:
    """Returns what the request itself writes, by fullUrl and by `Type/<client id>`; two may have the same client id."""
    own: dict[str, list[str]] = {}
    for one in incoming:
        if one.sent_id:
            own.setdefault(f"{one.resource_type}/{one.sent_id}", []).append(one.location)
    for one in incoming:
        for url in filter(None, (one.full_url, *one.also)):
            own[url] = [one.location]
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


def _creations(scope: Scope, new: Sequence[Incoming], found: Found, context: Context) -> Iterator[Write]:
    """Yields the documents that hold these resources, Patients first."""
    secret_ids: dict[str, str] = {}
    documents = [one for one in new if not _is_service(one)]
    documents.sort(key=lambda one: one.resource_type != "Patient")
    for one in documents:
        _map(scope, one, found, context)
        yield _document(scope, one, found, secret_ids)
    yield from _contacts(scope, [one for one in new if _is_service(one)], found, secret_ids, context)


def _document(scope: Scope, one: Incoming, found: Found, secret_ids: dict[str, str]) -> Write:
    home = home_of(one.resource_type)
    patient_id = one.entity.get("patientId")
    entity = {
        **home.beginning(one.id),
        **{name: value for name, value in one.entity.items() if name != "patientId"},
        "id": one.id,
        "created": scope.now,
        "modified": scope.now,
    }
    if not home.encrypts:
        opened = Opened((), (), ())
    else:
        metadata = envelope.new_metadata(
            scope.keyring,
            home.type_name,
            owning_id=patient_id,
            delegates=scope.caller.delegates(home.purpose),
        )
        secret_ids[one.location] = metadata.secret_id
        entity["securityMetadata"] = metadata.security_metadata
        entity |= _foreign_keys(scope, patient_id, found, secret_ids)
        owning = (patient_id,) if patient_id is not None else ()
        opened = Opened((metadata.entity_key,), (metadata.secret_id,), owning)
    closed = _flat(_closed(scope, one, entity, opened))
    one.let_go(shown=scope.shows_written)
    return Write("create", home.kind, closed, [one.path], [one], opened)


def _flat(entity: Entity) -> Entity:
    """Returns a document with its objects and lists as text: it takes less so, and is sent as it is."""
    return {
        name: orjson.Fragment(wire.compact(value)) if isinstance(value, (dict, list)) else value
        for name, value in entity.items()
    }


def _closed(scope: Scope, one: Incoming, entity: Entity, opened: Opened) -> Entity:
    """Returns a document as it goes upstream: its residue in its slot, encrypted where its home encrypts."""
    home = home_of(one.resource_type)
    if not home.encrypts:
        return with_residue(one.resource_type, entity, one.residue, None)
    entity = with_residue(one.resource_type, entity, one.residue, opened)
    return envelope.encrypt(entity, opened.entity_key, scope.manifests[home.type_name])


def _contacts(
    scope: Scope, services: Sequence[Incoming], found: Found, secret_ids: dict[str, str], context: Context
) -> Iterator[Write]:
    """Yields the Contacts of these resources: same patient, encounter (else day) and security labels.

    At most 100 Services and about 1 MiB each.
    """
    filling: dict[tuple[Any, ...], _Contact] = {}
    for one in services:
        if one.over is None:
            _map(scope, one, found, context)
        patient_id = one.entity.get("patientId")
        encounter = (one.resource.get("encounter") or {}).get("reference")
        day = str(one.entity.get("valueDate", ""))[:8]
        security = orjson.dumps((one.resource.get("meta") or {}).get("security"), default=wire.number)
        group = (patient_id, encounter or day, security)
        size = len(orjson.dumps(one.resource, default=wire.number))
        if group in filling and not filling[group].has_room(size):
            yield filling.pop(group).write()
        if group not in filling:
            keys = _foreign_keys(scope, patient_id, found, secret_ids)
            filling[group] = _Contact(scope, home_of(one.resource_type), patient_id, keys)
        filling[group].add(one, size)
    for contact in filling.values():
        yield contact.write()


class _Contact:
    """A Contact that is being filled. What is put in is encrypted at once, and only that is kept of it, as text."""

    def __init__(self, scope: Scope, home: Home, patient_id: str | None, foreign_keys: Entity) -> None:
        self._scope = scope
        metadata = envelope.new_metadata(
            scope.keyring,
            home.type_name,
            owning_id=patient_id,
            delegates=scope.caller.delegates(home.purpose),
        )
        owning = (patient_id,) if patient_id is not None else ()
        self._opened = Opened((metadata.entity_key,), (metadata.secret_id,), owning)
        self._head: Entity = {"securityMetadata": metadata.security_metadata, **foreign_keys}
        self._services = _Services()
        self._carries: list[Incoming] = []
        self._days: list[int] = []
        self._size = 0

    def has_room(self, size: int) -> bool:
        """Whether a resource of this many bytes still fits in."""
        return len(self._carries) < CONTACT_SERVICES and self._size + size <= CONTACT_BYTES

    def add(self, one: Incoming, size: int) -> None:
        """Puts a mapped resource in; of a new one only the resource stays, and that only if it is shown."""
        opened, manifest = self._opened, self._scope.manifests["Service"]
        service = _service(self._scope, one, opened)
        self._services.add(envelope.encrypt_service(service, opened.entity_key, manifest))
        self._days.append(one.entity["openingDate"])
        self._carries.append(one)
        self._size += size
        one.let_go(shown=self._scope.shows_written)

    def write(self) -> Write:
        """Returns the call that creates it."""
        contact_id, now = str(uuid.uuid4()), self._scope.now
        dates: Entity = {"created": now, "modified": now, "openingDate": min(self._days)}
        contact = {"id": contact_id, "groupId": contact_id, **dates, **self._head}
        key, manifest = self._opened.entity_key, self._scope.manifests["Contact"]
        encrypted = envelope.encrypt(contact, key, manifest)
        encrypted["services"] = self._services.json()
        paths = [one.path for one in self._carries]
        return Write(
            "create", "contact", encrypted, paths, self._carries, self._opened, services=self._services
        )


def _service(scope: Scope, one: Incoming, opened: Opened) -> Entity:
    """Returns a Service with its residue, newer than what it is written over."""
    entity = {k: v for k, v in one.entity.items() if k not in ("patientId", "endOfLife")}
    modified = max(scope.now, (one.over.modified or 0) + 1) if one.over else scope.now
    entity = {"created": scope.now, **entity, "id": one.id, "modified": modified}
    return with_residue(one.resource_type, entity, one.residue, opened)


def _foreign_keys(scope: Scope, patient_id: str | None, found: Found, secret_ids: dict[str, str]) -> Entity:
    """Returns what links a document to its patient: nothing when it has none."""
    if patient_id is None:
        return {}
    location = f"Patient/{patient_id}"
    if location not in secret_ids:
        secret_ids[location] = _secret_id(scope, found, location)
    return {"secretForeignKeys": [secret_ids[location]]}


def _secret_id(scope: Scope, found: Found, location: str) -> str:
    """Returns the secret id of a patient by which its Contacts are found."""
    opened = scope.keyring.open(found.records[location].document, "Patient")
    if not opened.secret_ids:
        raise KeyMissing(f"{location} is shared with you without what links data to it.")
    return opened.secret_ids[0]


# what is there already


def _changes(
    scope: Scope, changed: Sequence[Incoming], removals: Sequence[Removal], moved: Sequence[Incoming]
) -> Iterator[Write]:
    """Yields the writes over documents that there are: one for each document, however much of it changes."""
    services: dict[str, dict[str, _ServiceChange]] = {}
    for one in changed:
        assert one.over is not None  # noqa: S101
        if _is_service(one):
            opened, manifest = one.over.opened, scope.manifests["Service"]
            service = _service(scope, one, opened)
            written = envelope.encrypt_service(service, opened.entity_key, manifest)
            _of_contact(services, one.over)[one.id] = _ServiceChange(one.over, one.path, written, one)
        else:
            yield _rewritten(scope, one, one.over)
    for one in moved:
        assert one.over is not None  # noqa: S101
        _of_contact(services, one.over)[one.id] = _ServiceChange(one.over, one.path, None)
    deletions = []
    for removal in removals:
        record = removal.record
        if isinstance(home_of(record.resource_type), ServiceHome):
            ended = {"endOfLife": scope.now, "modified": max(scope.now, (record.modified or 0) + 1)}
            _of_contact(services, record)[record.id] = _ServiceChange(record, removal.path, ended, merge=True)
        else:
            gone = {"id": record.id, "rev": record.document["rev"]}
            kind = home_of(record.resource_type).kind
            deletions.append(Write("delete", kind, gone, [removal.path], previous=record.document))
    yield from _rewritten_contacts(scope, services)
    yield from deletions


@dataclass(slots=True)
class _ServiceChange:
    """What becomes of a Service in its Contact: replaced, taken out (None), or some members changed."""

    record: Record
    path: str
    entity: Entity | None
    one: Incoming | None = None
    merge: bool = False


def _of_contact(services: dict[str, dict[str, _ServiceChange]], record: Record) -> dict[str, _ServiceChange]:
    return services.setdefault(record.document["contactId"], {})


def _rewritten(scope: Scope, one: Incoming, over: Record) -> Write:
    entity = {k: v for k, v in one.entity.items() if k not in ("patientId", "deletionDate")}
    closed = _closed(scope, one, {**entity, "modified": scope.now}, over.opened)
    kind = home_of(one.resource_type).kind
    return Write("modify", kind, closed, [one.path], [one], over.opened, over.document)


def _rewritten_contacts(scope: Scope, services: dict[str, dict[str, _ServiceChange]]) -> Iterator[Write]:
    """Yields the Contacts with these Services changed; neighbours are written back as they stand."""
    contacts = {c["id"]: c for c in scope.client.by_ids("contact", sorted(services))} if services else {}
    for contact_id, changes in services.items():
        contact = contacts.get(contact_id)
        if contact is None:
            raise Conflict()
        _check_current(scope, contact, changes)
        kept = []
        for service in contact["services"]:
            change = changes.get(service["id"])
            if change is None:
                kept.append(service)
            elif change.entity is not None:
                kept.append(service | change.entity if change.merge else change.entity)
        ones = [change.one for change in changes.values() if change.one is not None]
        opened = next(iter(changes.values())).record.opened
        paths = [change.path for change in changes.values()]
        yield Write("modify", "contact", {**contact, "services": kept}, paths, ones, opened, contact)


def _check_current(scope: Scope, contact: Entity, changes: dict[str, _ServiceChange]) -> None:
    """Raises `Conflict` when a Service is not as it was when it was read."""
    for service in HOMES["Service"].carried(contact):
        change = changes.get(service["id"])
        if change is not None:
            record = change.record
            now = home_of(record.resource_type).record(scope, record.resource_type, service, record.opened)
            if now is None or now.version != record.version:
                raise Conflict()
    if not changes.keys() <= {service["id"] for service in contact.get("services", ())}:
        raise Conflict()
