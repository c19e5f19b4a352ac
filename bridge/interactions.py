"""FHIR interactions as plain functions: a request and a Bundle entry call the same ones.

https://hl7.org/fhir/R4/http.html
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bridge import journal, plan
from bridge.errors import Gone, Issue, MultipleMatches, NotFound, NotSupported, PreconditionFailed
from bridge.homes import Record, home_of, with_meta
from bridge.plan import Document, Incoming
from bridge.references import by_client_ids, client_ids
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


def delete(scope: Scope, resource_type: str, logical_id: str, if_match: str | None = None) -> Answer:
    """Answers a delete; one that was deleted before stays so. https://hl7.org/fhir/R4/http.html#delete"""
    try:
        record = locate(scope, resource_type, logical_id)
    except Gone:
        return Answer(204)
    if if_match is not None and if_match != record.etag:
        raise PreconditionFailed("This is no longer the current version.")
    version = home_of(resource_type).delete(scope, record)
    for client_id in client_ids(scope, record.resource):
        ends = time.time() + TOMBSTONE_SECONDS
        scope.state.put("tombstone", _tombstone(scope, resource_type, client_id), b"deleted", ends)
    return Answer(204, version=version)


def locate(scope: Scope, resource_type: str, logical_id: str) -> Record:
    """Returns the record under a server id, else the one that has it as client id.

    Raises `NotFound`, `Gone` for a deleted one, `MultipleMatches` for a client id that was posted twice.
    """
    supported(resource_type)
    home = home_of(resource_type)
    record = home.read(scope, resource_type, logical_id)
    records = [record] if record is not None else by_client_ids(scope, resource_type, [logical_id])
    live = [r for r in records if not r.deleted]
    if len(live) > 1:
        raise MultipleMatches(
            f"Several were posted under this id: {', '.join(sorted(r.location for r in live))}."
        )
    if live:
        return live[0]
    if records or scope.state.get("tombstone", _tombstone(scope, resource_type, logical_id)):
        raise Gone()
    raise NotFound()


def _tombstone(scope: Scope, resource_type: str, client_id: str) -> str:
    return f"{scope.caller.data_owner_id}\0{resource_type}\0{client_id}"
