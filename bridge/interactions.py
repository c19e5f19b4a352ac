"""FHIR interactions as plain functions: a request and a Bundle entry call the same ones.

https://hl7.org/fhir/R4/http.html
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bridge import journal, plan
from bridge.errors import Conflict, Gone, Issue, MultipleMatches, NotFound, NotSupported, PreconditionFailed
from bridge.homes import WRITE_TRIES, Record, ServiceHome, home_of, with_meta
from bridge.plan import Document, Incoming
from bridge.references import Found, by_client_ids, client_ids
from bridge.scope import Scope
from mappings import REGISTRY
from mappings.values import Entity, Resource

TOMBSTONE_SECONDS = 365 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Answer:
    """What an interaction came to; `routes` and `bundle` put it into their words."""

    status: int
    resource: Resource | None = field(default=None, repr=False)
    location: str | None = None
    """`Type/id`, relative to the base."""
    version: str | None = None
    modified: int | None = None
    """Epoch milliseconds."""
    warnings: Sequence[Issue] = ()


def supported(resource_type: str) -> None:
    """Raises `NotSupported` for a resource type that is not served."""
    if resource_type not in REGISTRY:
        raise NotSupported(f"This server has {', '.join(REGISTRY)}; no other resource types.")


def read(scope: Scope, resource_type: str, logical_id: str) -> Answer:
    """Answers a read by server id or client id. https://hl7.org/fhir/R4/http.html#read"""
    record = locate(scope, resource_type, logical_id)
    return Answer(200, record.resource, record.location, record.version, record.modified)


def create(scope: Scope, incoming: Sequence[Incoming]) -> list[Answer]:
    """Answers creates, all or none. https://hl7.org/fhir/R4/http.html#create"""
    documents = plan.plan(scope, incoming)
    answers: dict[str, Answer] = {}
    for document, stored in zip(documents, journal.apply(scope, documents), strict=True):
        answers |= _created(scope, document, stored)
    for one in incoming:
        if one.client_id is not None:
            _forget(scope, one.resource_type, one.client_id)
    return [answers[one.id] for one in incoming]


def _created(scope: Scope, document: Document, stored: Entity) -> dict[str, Answer]:
    """Returns the answers for what a document carries, by id: the resource as sent, with what the server gave it."""
    sent = {one.id: one for one in document.carries}
    home = home_of(document.carries[0].resource_type)
    answers: dict[str, Answer] = {}
    for entity in home.carried(stored):
        one = sent[entity["id"]]
        record = home.record(scope, one.resource_type, entity, document.opened)
        assert record is not None  # noqa: S101  what was just written as this type is of this type
        resource = with_meta(one.resource, one.resource_type, one.id, record.version, record.modified)
        answers[one.id] = Answer(
            201, resource, record.location, record.version, record.modified, one.warnings
        )
    return answers


def _forget(scope: Scope, resource_type: str, client_id: str) -> None:
    """Drops the memory that a client id was deleted: it is in use again."""
    name = _tombstone(scope, resource_type, client_id)
    if scope.state.get("tombstone", name):
        scope.state.put("tombstone", name, None)


def update(
    scope: Scope, resource_type: str, logical_id: str, one: Incoming, if_match: str | None = None
) -> Answer:
    """Answers an update; one of an unknown id creates with exactly that id. https://hl7.org/fhir/R4/http.html#update

    What says the same as before is left as it stands, iCure's own properties too; when all of it does, nothing is
    written. A deleted resource is brought back.
    """
    found: Found | None = None
    for _ in range(WRITE_TRIES):
        record = find(scope, resource_type, logical_id)
        _check_match(record, if_match)
        if record is None:
            one.id = logical_id
            return create(scope, [one])[0]
        if found is None:
            one.id = record.id
            one.resource.pop("id", None)
            found = plan.refer(scope, [one], {})
        for client_id in client_ids(scope, record.resource):
            plan.add_client_id(scope, one.resource, client_id)
        try:
            stored = _overwritten(scope, record, one, found)
        except Conflict:
            if if_match is not None:
                raise PreconditionFailed("This is no longer the current version.") from None
            continue
        resource = with_meta(one.resource, resource_type, stored.id, stored.version, stored.modified)
        return Answer(200, resource, stored.location, stored.version, stored.modified, one.warnings)
    raise Conflict()


def _overwritten(scope: Scope, record: Record, one: Incoming, found: Found) -> Record:
    """Returns the record after the resource was written over it; untouched when that says nothing new."""
    plan.write_over(scope, one, found, record.entity, record.residue)
    if not record.deleted and (one.entity, one.residue) == (record.entity, record.residue):
        return record
    home = home_of(record.resource_type)
    if isinstance(home, ServiceHome) and one.entity.get("patientId") != record.entity.get("patientId"):
        return _moved(scope, home, record, one, found)
    return home.replace(scope, record, one.entity, one.residue)


def _moved(scope: Scope, home: ServiceHome, record: Record, one: Incoming, found: Found) -> Record:
    """Writes a Service into a Contact of its new patient, and only then takes it out of the old one."""
    scope.now = max(scope.now, (record.modified or 0) + 1)
    documents = plan.documents_of(scope, [one], found)
    stored = journal.apply(scope, documents)
    home.remove(scope, record)
    moved = home.record(scope, record.resource_type, next(home.carried(stored[0])), documents[0].opened)
    assert moved is not None  # noqa: S101  what was just written as this type is of this type
    return moved


def _check_match(record: Record | None, if_match: str | None) -> None:
    """Raises `PreconditionFailed` unless this is the version that the caller names."""
    if if_match is not None and (record is None or record.deleted or if_match != record.etag):
        raise PreconditionFailed("This is no longer the current version.")


def delete(scope: Scope, resource_type: str, logical_id: str, if_match: str | None = None) -> Answer:
    """Answers a delete; one that was deleted before stays so. https://hl7.org/fhir/R4/http.html#delete"""
    try:
        record = locate(scope, resource_type, logical_id)
    except Gone:
        return Answer(204)
    _check_match(record, if_match)
    version = home_of(resource_type).delete(scope, record)
    for client_id in client_ids(scope, record.resource):
        ends = time.time() + TOMBSTONE_SECONDS
        scope.state.put("tombstone", _tombstone(scope, resource_type, client_id), b"deleted", ends)
    return Answer(204, version=version)


def find(scope: Scope, resource_type: str, logical_id: str) -> Record | None:
    """Returns the record under a server id, else the one that has it as client id; deleted ones too, None for none.

    Raises `MultipleMatches` for a client id that was posted twice.
    """
    record = home_of(resource_type).read(scope, resource_type, logical_id)
    if record is not None:
        return record
    records = by_client_ids(scope, resource_type, [logical_id])
    live = [r for r in records if not r.deleted]
    if len(live) > 1:
        raise MultipleMatches(
            f"Several were posted under this id: {', '.join(sorted(r.location for r in live))}."
        )
    return next(iter(live or records), None)


def locate(scope: Scope, resource_type: str, logical_id: str) -> Record:
    """Returns the live record under a server id or client id.

    Raises `NotFound`, `Gone` for a deleted one, `MultipleMatches` for a client id that was posted twice.
    """
    record = find(scope, resource_type, logical_id)
    if record is not None and not record.deleted:
        return record
    if record is not None or scope.state.get("tombstone", _tombstone(scope, resource_type, logical_id)):
        raise Gone()
    raise NotFound()


def _tombstone(scope: Scope, resource_type: str, client_id: str) -> str:
    return f"{scope.caller.data_owner_id}\0{resource_type}\0{client_id}"
