"""Sharing with another data owner, and who can open what: $share and $access.

Strategy: what is asked for is checked whole before anything is shared. A Patient's data is shared along in batches;
each part is shared or not by itself, and sharing again changes nothing that was shared before, so that whatever was
broken off is finished by sending it again.

Rule: a share never reaches further than it says. Services that stand in a Contact with others are moved out first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bridge import journal
from bridge.contacts import apart, neighbours
from bridge.crypto import sharing
from bridge.crypto.keys import public_keys
from bridge.crypto.sharing import Wish
from bridge.errors import (
    BridgeError,
    BusinessRule,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Unprocessable,
    outcome,
)
from bridge.homes import HOMES, Home, Record, ServiceHome, home_of
from bridge.interactions import Answer, check_match, locate
from bridge.operations import COMPARTMENT
from bridge.references import by_client_ids
from bridge.scope import Scope
from bridge.search.recipes import of_patients
from mappings import REGISTRY
from mappings.party import is_kind
from mappings.values import Entity, Json, Resource

SHARED = ("Patient", *COMPARTMENT)
"""The types that can be shared; of the others nothing is encrypted."""
PERMISSIONS = ("read", "write")
RECIPIENTS = {"Practitioner": "hcp", "Organization": "hcp", "Patient": "patient"}
"""What kind of data owner stands behind a type."""
BATCH = 50
"""How many documents are shared in one call."""
TRIES = 3
"""How often a document is shared anew after somebody else changed it."""

Tell = Callable[[int, int], None]
"""Hears how many documents are done, and of how many."""


def silent(done: int, of: int) -> None:
    """Tells nobody."""


@dataclass(slots=True)
class Outcome:
    """What became of a share: references by what happened to them."""

    shared: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    """Shared before."""
    failed: list[tuple[str, BridgeError]] = field(default_factory=list)


@dataclass(slots=True)
class Share:
    """A share that was checked and may begin."""

    record: Record
    recipient: str
    """`Type/id`."""
    fingerprints: list[str]
    wish: Wish
    include: list[str]

    def run(self, scopes: Callable[[], Scope], tell: Tell = silent) -> Answer:
        """Shares, and answers what was shared with which keys.

        `scopes` gives the caller's scope anew for each batch, and raises when its keys are open no longer. Raises what
        keeps the resource itself from being shared; what of its data cannot be shared is told in the answer.
        """
        done = Outcome()
        version = self._itself(scopes(), done)
        batches = [batch for kind in self.include for batch in _batches(scopes(), self.record, kind)]
        total, finished = sum(len(ids) for _, ids in batches), 0
        for kind, ids in batches:
            tell(finished, total)
            _along(scopes(), kind, ids, self.wish, done)
            finished += len(ids)
        record = self.record
        return Answer(200, self._told(done), record.location, version)

    def _itself(self, scope: Scope, done: Outcome) -> str:
        """Shares the resource itself and returns its version from then on."""
        record = self.record
        home = home_of(record.resource_type)
        if isinstance(home, ServiceHome):
            contact_id = record.document["contactId"]
            contact = scope.client.read("contact", contact_id)
            if contact is None:
                raise Conflict()
            own = _alone(scope, contact, record.resource_type, {record.id})
            _raise_first(_share(scope, HOMES["Service"], [(own, [record.location])], self.wish, done))
            if own["id"] == contact_id:
                return record.version
            moved = home.read(scope, record.resource_type, record.id)
            return moved.version if moved else record.version
        revs: dict[str, str] = {}
        _raise_first(_share(scope, home, [(record.document, [record.location])], self.wish, done, revs))
        return revs.get(record.id, record.version)

    def _told(self, done: Outcome) -> Resource:
        parts: list[Json] = [
            {"name": "recipient", "valueReference": {"reference": self.recipient}},
            {"name": "permission", "valueCode": PERMISSIONS[self.wish.writes]},
        ]
        parts += [{"name": "fingerprint", "valueString": one} for one in self.fingerprints]
        for name, references in (("shared", done.shared), ("unchanged", done.unchanged)):
            parts += [{"name": name, "valueReference": {"reference": one}} for one in references]
        for reference, error in done.failed:
            about = [
                {"name": "reference", "valueReference": {"reference": reference}},
                {"name": "outcome", "resource": outcome(error.issues)},
            ]
            parts.append({"name": "failed", "part": about})
        return {"resourceType": "Parameters", "parameter": parts}


# what is asked for


def begin(
    scope: Scope, resource_type: str, logical_id: str, sent: Resource, if_match: str | None = None
) -> Share:
    """Returns the share that a request asks for, checked; nothing is shared yet.

    Raises `Invalid` for parameters that are none, `Unprocessable` for a recipient who cannot be shared with, and
    whatever keeps the caller from reading the resource.
    """
    given = _parameters(sent)
    permission, at = _one(given, "permission", ("valueCode", "valueString"))
    if permission not in PERMISSIONS:
        raise Invalid("permission is read or write.", at)
    include = []
    for value, at in _values(given, "include", ("valueCode", "valueString")):
        if resource_type != "Patient":
            raise Invalid("include goes with a Patient.", at)
        if value not in COMPARTMENT:
            raise Invalid(f"include names some of {', '.join(COMPARTMENT)}.", at)
        include.append(value)
    reference, at = _one(given, "recipient", ("valueReference",))
    record = locate(scope, resource_type, logical_id)
    check_match(record, if_match)
    recipient, owner = _recipient(scope, reference.get("reference"), f"{at}.reference")
    fingerprints = [key.fingerprint for key in public_keys(owner["stub"])]
    if not fingerprints:
        raise BusinessRule("This data owner announces no key: there is nothing to encrypt for.", at)
    owner_id = owner["stub"]["id"]
    if owner_id == scope.caller.data_owner_id:
        raise BusinessRule("The recipient is yourself.", at)
    wish = Wish(owner_id, frozenset(fingerprints), writes=permission == "write")
    return Share(record, recipient, fingerprints, wish, list(dict.fromkeys(include)))


Given = list[tuple[str, dict[str, Any], str]]
"""Name, members and path of each parameter."""
KNOWN = ("recipient", "permission", "include")


def _parameters(sent: Resource) -> Given:
    if sent.get("resourceType") != "Parameters":
        raise Invalid("$share takes Parameters.", "Parameters")
    parts = sent.get("parameter", [])
    if not isinstance(parts, list):
        raise Invalid("parameter is a list.", "Parameters.parameter")
    given: Given = []
    for at, one in enumerate(parts):
        path = f"Parameters.parameter[{at}]"
        if not isinstance(one, dict) or one.get("name") not in KNOWN:
            raise Invalid(f"$share takes {', '.join(KNOWN)}.", path)
        given.append((one["name"], one, path))
    return given


def _values(given: Given, name: str, members: Sequence[str]) -> Iterator[tuple[Any, str]]:
    """Yields the values of a parameter, each with its path. Raises `Invalid` for one that has none of these members."""
    kind: type = dict if members == ("valueReference",) else str
    for said, one, path in given:
        if said == name:
            member = next((m for m in members if isinstance(one.get(m), kind)), None)
            if member is None:
                raise Invalid(f"{name} has a {members[0]}.", path)
            yield one[member], f"{path}.{member}"


def _one(given: Given, name: str, members: Sequence[str]) -> tuple[Any, str]:
    values = list(_values(given, name, members))
    if len(values) != 1:
        raise Invalid(f"$share takes one {name}.", "Parameters.parameter")
    return values[0]


def _recipient(scope: Scope, reference: object, path: str) -> tuple[str, Entity]:
    """Returns the reference and the data owner that a reference means, by server id or client id."""
    text = reference.removeprefix(f"{scope.base}/") if isinstance(reference, str) else ""
    resource_type, _, logical_id = text.partition("/")
    if resource_type not in RECIPIENTS or not logical_id:
        raise Unprocessable(f"A recipient is one of {', '.join(RECIPIENTS)}: Type/id.", path)
    owner = scope.client.data_owners([logical_id]).get(logical_id)
    if owner is None:
        ids = {r.id for r in by_client_ids(scope, resource_type, [logical_id]) if not r.deleted}
        owner = scope.client.data_owners(list(ids)).get(next(iter(ids))) if len(ids) == 1 else None
    if owner is None:
        raise Unprocessable("No data owner is known under this reference.", path)
    if owner.get("type") != RECIPIENTS[resource_type]:
        raise Unprocessable(f"This data owner is no {resource_type}.", path)
    return f"{resource_type}/{owner['stub']['id']}", owner


# doing it


def _alone(scope: Scope, contact: Entity, resource_type: str, ids: Collection[str]) -> Entity:
    """Returns the Contact that holds these Services and no others: itself, or a new one to which they were moved."""
    for _ in range(TRIES):
        if not neighbours(contact, ids):
            return contact
        try:
            return journal.apply(scope, apart(scope, contact, resource_type, ids, resource_type))[0]
        except Conflict:
            contact = scope.client.read("contact", contact["id"]) or contact
    raise Conflict()


Documents = list[tuple[Entity, list[str]]]
"""Documents to be shared, each with the references of what it holds."""
Failures = list[tuple[list[str], BridgeError]]


def _share(
    scope: Scope,
    home: Home,
    documents: Documents,
    wish: Wish,
    done: Outcome,
    revs: dict[str, str] | None = None,
) -> Failures:
    """Shares documents in one call, anew where somebody else changed them meanwhile; returns what failed."""
    kind, type_name = _kind(home), home.type_name
    scope.keyring.preload([document for document, _ in documents], type_name)
    failures: Failures = []
    for attempt in range(TRIES):
        requests: dict[str, Entity] = {}
        holds = {document["id"]: references for document, references in documents}
        for document, references in documents:
            try:
                request = sharing.request(scope.keyring, document, type_name, wish)
            except BridgeError as e:
                failures.append((references, e))
                continue
            if request is None:
                done.unchanged += references
            else:
                requests[document["id"]] = request
        outcomes = scope.client.share(kind, requests) if requests else {}
        again = []
        for document_id in requests:
            error = _refused(outcomes.get(document_id))
            if error is None:
                done.shared += holds[document_id]
                if revs is not None:
                    revs[document_id] = str(outcomes[document_id]["entityRev"])
            elif isinstance(error, Conflict) and attempt < TRIES - 1:
                again.append(document_id)
            else:
                failures.append((holds[document_id], error))
        if not again:
            break
        documents = [(document, holds[document["id"]]) for document in scope.client.by_ids(kind, again)]
    return failures


def _kind(home: Home) -> str:
    """Returns the path of the documents in a home: a Service is shared with its Contact."""
    return "contact" if isinstance(home, ServiceHome) else home.kind


def _refused(answer: Entity | None) -> BridgeError | None:
    """Returns what it means that iCure rejected a request; a conflict may pass when it is asked anew."""
    if answer is not None and answer.get("entityRev") and not answer.get("rejectedRequests"):
        return None
    rejected = (answer or {}).get("rejectedRequests") or {}
    codes = {one.get("code") for one in rejected.values() if isinstance(one, dict)}
    if 403 in codes:
        return Forbidden("iCure does not let you share this.")
    if 404 in codes:
        return NotFound()
    return Conflict("iCure did not share this: somebody else changed it meanwhile.")


def _raise_first(failures: Failures) -> None:
    for _, error in failures:
        raise error


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
    for references, error in _share(scope, home, documents, wish, done):
        done.failed += [(reference, error) for reference in references]


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
            done.failed += [(reference, e) for reference in references]


# $access


def access(scope: Scope, resource_type: str, logical_id: str) -> Resource:
    """Returns Parameters that tell who can open a resource, with what leave, and who shared it with them.

    A data owner that keeps its name out of delegations is named only to who shared with it.
    """
    record = locate(scope, resource_type, logical_id)
    grants = _grants(scope, record)
    names = _references(scope, {owner for pair in grants for owner in pair if owner is not None})
    parts = [
        {
            "name": "access",
            "part": [
                {"name": "who", "valueReference": names[who]},
                {"name": "permission", "valueCode": PERMISSIONS[writes]},
                {"name": "through", "valueReference": names[through]},
            ],
        }
        for (who, through), writes in grants.items()
    ]
    return {"resourceType": "Parameters", "parameter": parts}


Grants = dict[tuple[str | None, str | None], bool]
"""Whether they may write, by who and through whom; None for one who does not give a name."""


def _grants(scope: Scope, record: Record) -> Grants:
    document, type_name = record.document, home_of(record.resource_type).type_name
    opened = {one.name: one.exchange_key for one in scope.keyring.held(document, type_name)}
    found: Grants = {}
    for name, members in ((document.get("securityMetadata") or {}).get("secureDelegations") or {}).items():
        known = opened.get(name)
        who = known.delegate if known else members.get("delegate")
        through = known.delegator if known else members.get("delegator")
        found[who, through] = found.get((who, through), False) or members.get("permissions") == "WRITE"
    for who, delegations in (document.get("delegations") or {}).items():
        found |= {(who, one.get("owner") or who): True for one in delegations}
    return found


def _references(scope: Scope, ids: Collection[str]) -> dict[str | None, Resource]:
    """Returns a Reference for each data owner."""
    owners = scope.client.data_owners(sorted(ids))
    parties = [owner_id for owner_id, owner in owners.items() if owner.get("type") == "hcp"]
    organizations = {p["id"] for p in scope.client.healthcare_parties(parties) if is_kind(p, "ORGANIZATION")}
    kinds = {"hcp": "Practitioner", "patient": "Patient", "device": "Device"}
    names: dict[str | None, Resource] = {None: {"display": "A data owner that does not give its name"}}
    for owner_id in ids:
        kind = kinds.get((owners.get(owner_id) or {}).get("type", ""))
        if owner_id in organizations:
            kind = "Organization"
        names[owner_id] = {"reference": f"{kind}/{owner_id}"} if kind else {"identifier": {"value": owner_id}}
    return names
