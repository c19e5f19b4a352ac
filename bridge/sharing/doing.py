"""Sharing what was asked for, document by document."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from bridge import journal
from bridge.crypto import sharing
from bridge.crypto.sharing import Wish
from bridge.errors import BridgeError, Conflict, Forbidden, NotFound, outcome
from bridge.homes import Home, Record, ServiceHome, home_of
from bridge.interactions import Answer, check_match, locate
from bridge.plan import Write
from bridge.scope import Scope
from bridge.search.recipes import of_patients
from bridge.sharing.apart import apart, neighbours
from bridge.sharing.asked import PERMISSIONS, Share
from mappings import REGISTRY
from mappings.values import Entity, Json, Resource

BATCH = 50
"""How many documents are shared in one call."""
TRIES = 5
"""How often a document is shared anew after somebody else changed it."""

Tell = Callable[[int, int], None]
"""Hears how many documents are done, and of how many."""
Documents = list[tuple[Entity, list[str]]]
"""Documents to be shared, each with the references of what it holds."""


def silent(done: int, of: int) -> None:
    """Tells nobody."""


@dataclass(slots=True)
class Outcome:
    """What became of a share: references by what happened to them."""

    shared: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    """Shared before."""
    failed: list[tuple[str, BridgeError]] = field(default_factory=list)
    revs: dict[str, str] = field(default_factory=dict)
    """Of the documents that were changed, by id."""

    def fail(self, references: Iterable[str], error: BridgeError) -> None:
        """Notes that these are not shared."""
        self.failed += [(reference, error) for reference in references]


def run(share: Share, scopes: Callable[[], Scope], tell: Tell = silent) -> Answer:
    """Shares, and answers what was shared with which keys.

    `scopes` gives the caller's scope anew for each batch, and raises when its keys are open no longer. Raises what
    keeps the resource itself from being shared; what of its data cannot be shared is told in the answer.
    """
    done = Outcome()
    version = _itself(scopes(), share, done)
    batches = [batch for kind in share.include for batch in _batches(scopes(), share.record, kind)]
    total, finished = sum(len(ids) for _, ids in batches), 0
    for kind, ids in batches:
        tell(finished, total)
        _along(scopes(), kind, ids, share.wish, done)
        finished += len(ids)
    return Answer(200, _told(share, done), version=version)


def _itself(scope: Scope, share: Share, done: Outcome) -> str:
    """Shares the resource itself and returns its version from then on.

    Raises `PreconditionFailed` when it is no longer the version that the caller names.
    """
    record, home = share.record, home_of(share.record.resource_type)
    for attempt in range(TRIES):
        try:
            document = _own(scope, record) if isinstance(home, ServiceHome) else record.document
            _share(scope, home, [(document, [record.location])], share.wish, done, tries=1)
            for _, error in done.failed:
                raise error
            break
        except Conflict:
            if attempt == TRIES - 1:
                raise
            done.failed.clear()
            record = locate(scope, record.resource_type, record.id)
            check_match(record, share.if_match)
    if not isinstance(home, ServiceHome):
        return done.revs.get(record.id, record.version)
    moved = document["id"] != record.document["contactId"]
    now = home.read(scope, record.resource_type, record.id) if moved else None
    return now.version if now else record.version


def _told(share: Share, done: Outcome) -> Resource:
    parts: list[Json] = [
        {"name": "recipient", "valueReference": {"reference": share.recipient}},
        {"name": "permission", "valueCode": PERMISSIONS[share.wish.writes]},
    ]
    parts += [{"name": "fingerprint", "valueString": one} for one in share.fingerprints]
    for name, references in (("shared", done.shared), ("unchanged", done.unchanged)):
        parts += [{"name": name, "valueReference": {"reference": one}} for one in references]
    for reference, error in done.failed:
        about = [
            {"name": "reference", "valueReference": {"reference": reference}},
            {"name": "outcome", "resource": outcome(error.issues)},
        ]
        parts.append({"name": "failed", "part": about})
    return {"resourceType": "Parameters", "parameter": parts}


def _share(
    scope: Scope, home: Home, documents: Documents, wish: Wish, done: Outcome, tries: int = TRIES
) -> None:
    """Shares documents in one call, anew where somebody else changed them meanwhile."""
    kind, type_name = _kind(home), home.type_name
    scope.keyring.preload([document for document, _ in documents], type_name)
    holds = {document["id"]: references for document, references in documents}
    waiting = [document for document, _ in documents]
    for attempt in range(tries):
        requests = _requests(scope, type_name, waiting, holds, wish, done)
        outcomes = scope.client.share(kind, requests) if requests else {}
        again = []
        for document_id in requests:
            answer = outcomes.get(document_id, {})
            error = _refusal(answer)
            if error is None:
                done.shared += holds[document_id]
                done.revs[document_id] = answer["updatedEntity"]["rev"]
            elif isinstance(error, Conflict) and attempt < tries - 1:
                again.append(document_id)
            else:
                done.fail(holds[document_id], error)
        if not again:
            return
        waiting = scope.client.by_ids(kind, again)


def _requests(
    scope: Scope,
    type_name: str,
    documents: Iterable[Entity],
    holds: dict[str, list[str]],
    wish: Wish,
    done: Outcome,
) -> dict[str, Entity]:
    """Returns what iCure is to be asked, by id; nothing for what is shared already or cannot be."""
    requests: dict[str, Entity] = {}
    for document in documents:
        references = holds[document["id"]]
        try:
            request = sharing.request(scope.keyring, document, type_name, wish)
        except BridgeError as e:
            done.fail(references, e)
            continue
        if request is None:
            done.unchanged += references
        else:
            requests[document["id"]] = request
    return requests


def _kind(home: Home) -> str:
    """Returns the path of the documents in a home: a Service is shared with its Contact."""
    return "contact" if isinstance(home, ServiceHome) else home.kind


def _refusal(answer: Entity) -> BridgeError | None:
    """Returns what it means that iCure rejected a request; a conflict may pass when it is asked anew."""
    rejected = answer.get("rejectedRequests") or {}
    if answer.get("updatedEntity") and not rejected:
        return None
    codes = {one.get("code") for one in rejected.values()}
    if 403 in codes:
        return Forbidden("iCure does not let you share this.")
    if 404 in codes:
        return NotFound()
    return Conflict("iCure did not share this: somebody else changed it meanwhile.")


# a Contact of its own


def _own(scope: Scope, record: Record) -> Entity:
    """Returns the Contact that holds a record and no others."""
    contact = scope.client.read("contact", record.document["contactId"])
    if contact is None:
        raise Conflict()
    return _alone(scope, contact, record.resource_type, {record.id})


def _alone(scope: Scope, contact: Entity, resource_type: str, ids: Collection[str]) -> Entity:
    """Returns the Contact that holds these Services and no others: itself, or a new one to which they were moved.

    Those who move Services out of the same Contact wait for each other.
    """
    if not neighbours(contact, ids):
        return contact
    with scope.state.lock("apart", contact["id"]):
        for _ in range(TRIES):
            contact = scope.client.read("contact", contact["id"]) or contact
            if not neighbours(contact, ids):
                return contact
            with suppress(Conflict):
                return _split(scope, apart(scope, contact, resource_type, ids))
    raise Conflict()


def _split(scope: Scope, writes: list[Write]) -> Entity:
    """Returns the first of these documents, as stored, when all are: for good, whatever becomes of the share."""
    stored: list[Entity] = []
    journal.apply(replace(scope, running=None), writes, lambda _, entity: stored.append(entity))
    return stored[0]


# a Patient's data


def _batches(scope: Scope, patient: Record, kind: str) -> Iterator[tuple[str, list[str]]]:
    """Yields the ids of the documents that hold a patient's data of one type, so many at a time, each with the type."""
    secret_ids = scope.keyring.open(patient.document, "Patient", whole=True).secret_ids
    ids: dict[str, None] = {}
    for owner in scope.owners if secret_ids else ():
        ids |= dict.fromkeys(scope.client.match(_kind(home_of(kind)), _of_patient(kind, owner, secret_ids)))
    found = sorted(ids)
    for at in range(0, len(found), BATCH):
        yield kind, found[at : at + BATCH]


def _of_patient(kind: str, owner: str, secret_ids: Sequence[str]) -> Entity:
    entity_type = REGISTRY[kind].entity_type
    if entity_type == "Service":
        members = {"healthcarePartyId": owner, "patientSecretForeignKeys": list(secret_ids)}
        return {"$type": "ContactByHcPartyPatientTagCodeDateFilter", **members}
    filter_ = of_patients(entity_type, owner, secret_ids)
    assert filter_ is not None  # noqa: S101  what belongs to a patient is found by it
    return filter_


def _along(scope: Scope, kind: str, ids: Sequence[str], wish: Wish, done: Outcome) -> None:
    """Shares some documents of a patient's data."""
    home = home_of(kind)
    found = scope.client.by_ids(_kind(home), ids)
    if isinstance(home, ServiceHome):
        documents = list(_contacts(scope, home, kind, found, done))
    else:
        documents = [(document, [f"{kind}/{document['id']}"]) for document in found]
    _share(scope, home, documents, wish, done)


def _contacts(
    scope: Scope, home: ServiceHome, kind: str, found: Iterable[Entity], done: Outcome
) -> Iterator[tuple[Entity, list[str]]]:
    """Yields Contacts that hold nothing but live resources of this type, with their references."""
    contacts = {contact["id"]: contact for contact in found}
    services = {service["id"] for contact in contacts.values() for service in contact.get("services", ())}
    of: dict[str, list[str]] = {}
    for record in home.read_all(scope, kind, sorted(services)):
        if not record.deleted:
            of.setdefault(record.document["contactId"], []).append(record.id)
    for contact_id, contact in contacts.items():
        ids = of.get(contact_id, [])
        references = [f"{kind}/{one}" for one in ids]
        try:
            if ids:
                yield _alone(scope, contact, kind, ids), references
        except BridgeError as e:
            done.fail(references, e)
