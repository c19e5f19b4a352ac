"""FHIR interactions as plain functions: a request and a Bundle entry call the same ones.

https://hl7.org/fhir/R4/http.html
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from bridge import journal, plan, wire
from bridge.conditions import alone, creating, match, read_condition
from bridge.errors import (
    Conflict,
    Gone,
    Invalid,
    Issue,
    MultipleMatches,
    NotFound,
    PreconditionFailed,
    Unprocessable,
)
from bridge.homes import Record, home_of, with_meta
from bridge.patch import Patch, check_depth
from bridge.plan import Incoming, Removal, Write
from bridge.references import by_client_ids, client_ids
from bridge.scope import Scope
from mappings.values import Entity, Resource

WRITE_TRIES = 5
"""How often a write is done anew after a neighbour in the same Contact changed."""
ABSENT = "absent"
"""In the place of an ETag: there must be no such resource."""
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

    @classmethod
    def of(cls, scope: Scope, record: Record) -> Answer:
        """Returns the answer that shows the caller a record."""
        scope.shown([record])
        return cls(200, record.resource, record.location, record.version, record.modified)


def read(scope: Scope, resource_type: str, logical_id: str) -> Answer:
    """Answers a read by server id or client id. https://hl7.org/fhir/R4/http.html#read"""
    return Answer.of(scope, locate(scope, resource_type, logical_id))


def transact(
    scope: Scope,
    incoming: Sequence[Incoming],
    removals: Sequence[Removal] = (),
    there: Mapping[str, Record] = MappingProxyType({}),
) -> tuple[list[Answer], list[Answer]]:
    """Writes all of this or nothing, and answers for each resource and each removal, in their order.

    `there` is what references mean that the request does not write, by fullUrl or `Type/<client id>`.
    """
    answers: dict[str, Answer] = {}
    revs: dict[str, str] = {}

    def tell(write: Write, stored: Entity) -> None:
        revs[stored["id"]] = stored["rev"]
        answers.update(_written(scope, write, stored))

    journal.apply(scope, plan.plan(scope, incoming, removals, there), tell)
    for one in incoming:
        if one.unchanged and one.over is not None:
            answers[one.id] = _answer(one, one.over.version, one.over.modified)
        if one.client_id is not None:
            _forget(scope, one.resource_type, one.client_id)
    for removal in removals:
        _remember_deleted(scope, removal.record)
    return [answers[one.id] for one in incoming], [
        Answer(204, version=revs.get(r.record.id)) for r in removals
    ]


def _written(scope: Scope, write: Write, stored: Entity) -> dict[str, Answer]:
    """Returns the answers for what a document carries, by id."""
    carried = {one.id: one for one in write.carries}
    answers: dict[str, Answer] = {}
    for entity in home_of(write.carries[0].resource_type).carried(stored) if carried else ():
        if one := carried.get(entity["id"]):
            home = home_of(one.resource_type)
            answers[one.id] = _answer(one, *home.written(scope, one.resource_type, entity, write.opened))
    return answers


def _answer(one: Incoming, version: str, modified: int | None) -> Answer:
    """Returns the answer for a written resource: as sent, with what the server gave it."""
    resource = with_meta(one.resource, one.resource_type, one.id, version, modified) if one.resource else None
    return Answer(201 if one.over is None else 200, resource, one.location, version, modified, one.warnings)


def create(scope: Scope, one: Incoming) -> Answer:
    """Answers a create. https://hl7.org/fhir/R4/http.html#create"""
    return transact(scope, [one])[0][0]


def update(
    scope: Scope, resource_type: str, logical_id: str, one: Incoming, if_match: str | None = None
) -> Answer:
    """Answers an update; one of an unknown id creates with exactly that id. https://hl7.org/fhir/R4/http.html#update

    What says the same as before is left as it stands, iCure's own properties too; when all of it does, nothing is
    written. A deleted resource is brought back.
    """

    def write() -> Answer:
        over = find(scope, resource_type, logical_id)
        if over is not None:
            return written_over(over)
        with creating(scope, resource_type, logical_id) as hold:
            over = find(scope, resource_type, logical_id)
            hold.check()
            return written_over(over)

    def written_over(over: Record | None) -> Answer:
        one.over, one.id = over, over.id if over else logical_id
        check_match(over, if_match)
        return create(scope, one)

    return _again(write, if_match)


def create_unless(scope: Scope, one: Incoming, condition: str) -> Answer:
    """Answers a conditional create: what meets the condition already is answered instead.

    https://hl7.org/fhir/R4/http.html#ccreate
    """
    criteria = read_condition(one.resource_type, condition)
    with alone(scope, one.resource_type, criteria) as hold:
        record = match(scope, one.resource_type, criteria)
        hold.check()
        return create(scope, one) if record is None else Answer.of(scope, record)


def update_where(scope: Scope, one: Incoming, condition: str, if_match: str | None = None) -> Answer:
    """Answers a conditional update; where nothing meets the condition it creates.

    https://hl7.org/fhir/R4/http.html#cond-update
    """
    criteria = read_condition(one.resource_type, condition)
    sent = one.sent_id
    with alone(scope, one.resource_type, criteria) as hold:
        record = match(scope, one.resource_type, criteria)
        hold.check()
        if record is None and sent is None:
            check_match(None, if_match)
            return create(scope, one)
        if record is not None and sent not in (None, record.id, *client_ids(scope, record.resource)):
            raise Invalid("The resource that meets the condition has another id.", f"{one.path}.id")
        return update(scope, one.resource_type, record.id if record else str(sent), one, if_match)


def patch(
    scope: Scope, resource_type: str, logical_id: str, change: Patch, if_match: str | None = None
) -> Answer:
    """Answers a patch: the resource as it is, changed, checked and written. https://hl7.org/fhir/R4/http.html#patch"""

    def write() -> Answer:
        record = locate(scope, resource_type, logical_id)
        check_match(record, if_match)
        return create(scope, patched(scope, record, change, resource_type))

    return _again(write, if_match)


def patched(scope: Scope, record: Record, change: Patch, path: str) -> Incoming:
    """Returns the record's resource with the patch applied, checked, ready to be written over it and to be shown."""
    scope.shown([record])
    resource = change(record.resource)
    if (resource.get("resourceType"), resource.get("id")) != (record.resource_type, record.id):
        raise Unprocessable("A patch cannot change type or id.", f"{path}.id")
    check_depth(resource, path)
    checked, warnings = wire.check(resource, at=path, strict=scope.config.validation == "strict")
    return Incoming(checked, path, id=record.id, over=record, warnings=list(warnings))


def patch_where(
    scope: Scope, resource_type: str, condition: str, change: Patch, if_match: str | None = None
) -> Answer:
    """Answers a conditional patch. Raises `NotFound` when nothing meets the condition."""
    record = match(scope, resource_type, read_condition(resource_type, condition))
    if record is None:
        raise NotFound("Nothing meets the condition.")
    return patch(scope, resource_type, record.id, change, if_match)


def delete_where(scope: Scope, resource_type: str, condition: str, if_match: str | None = None) -> Answer:
    """Answers a conditional delete of exactly one; several are refused and stay."""
    record = match(scope, resource_type, read_condition(resource_type, condition))
    return Answer(204) if record is None else delete(scope, resource_type, record.id, if_match)


def history(scope: Scope, resource_type: str, logical_id: str) -> list[Record]:
    """Returns the versions that iCure keeps of a resource, newest first; a deleted one is among them.

    https://hl7.org/fhir/R4/http.html#history
    """
    versions = _versions(scope, resource_type, logical_id)
    scope.shown({one.id: one for one in versions if not one.deleted}.values())
    return versions


def _versions(scope: Scope, resource_type: str, logical_id: str) -> list[Record]:
    record = find(scope, resource_type, logical_id)
    if record is None:
        raise NotFound()
    return home_of(resource_type).versions(scope, record)


def vread(scope: Scope, resource_type: str, logical_id: str, version: str) -> Answer:
    """Answers a read of one version, as far as iCure keeps versions. https://hl7.org/fhir/R4/http.html#vread"""
    for record in _versions(scope, resource_type, logical_id):
        if record.version == version:
            if record.deleted:
                raise Gone()
            return Answer.of(scope, record)
    raise NotFound("This version is not kept.")


def delete(scope: Scope, resource_type: str, logical_id: str, if_match: str | None = None) -> Answer:
    """Answers a delete; what was deleted before or never was is not there afterwards either.

    https://hl7.org/fhir/R4/http.html#delete
    """

    def write() -> Answer:
        try:
            record = locate(scope, resource_type, logical_id)
        except Gone:
            return Answer(204)
        except NotFound as e:
            return Answer(204, warnings=[replace(issue, severity="warning") for issue in e.issues])
        check_match(record, if_match)
        return transact(scope, [], [Removal(record, resource_type)])[1][0]

    return _again(write, if_match)


def _again(write: Callable[[], Answer], if_match: str | None) -> Answer:
    """Returns the answer of a write that is done anew when someone else wrote meanwhile, e.g. a neighbour.

    Not when something of it is left that could not be undone: that is told, and stays in the journal.
    """
    for attempt in range(WRITE_TRIES):
        try:
            return write()
        except Conflict as e:
            if any(issue.code == "incomplete" for issue in e.issues):
                raise
            if if_match is not None:
                raise PreconditionFailed("This is no longer the current version.") from None
            if attempt == WRITE_TRIES - 1:
                raise
    raise AssertionError("unreachable")


def check_match(record: Record | None, if_match: str | None) -> None:
    """Raises `PreconditionFailed` unless this is the version that the caller names."""
    etag = record.etag if record is not None and not record.deleted else None
    if if_match == ABSENT:
        if etag is not None:
            raise PreconditionFailed("There is one already.")
    elif if_match is not None and (etag is None or if_match not in (etag, "*")):
        raise PreconditionFailed("This is no longer the current version.")


def _remember_deleted(scope: Scope, record: Record) -> None:
    """Keeps the client's ids of a deleted record for a year: iCure no longer finds it by them."""
    for client_id in client_ids(scope, record.resource):
        ends = time.time() + TOMBSTONE_SECONDS
        scope.state.put("tombstone", _tombstone(scope, record.resource_type, client_id), b"deleted", ends)


def _forget(scope: Scope, resource_type: str, client_id: str) -> None:
    """Drops the memory that a client id was deleted: it is in use again."""
    name = _tombstone(scope, resource_type, client_id)
    if scope.state.get("tombstone", name):
        scope.state.put("tombstone", name, None)


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
