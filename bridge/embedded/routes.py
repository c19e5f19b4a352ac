"""The routes that every type of entity has, and those that few have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import orjson
from flask import Blueprint, Response, request

from bridge.embedded import entities, services, sharing, users, web
from bridge.embedded.auth import NEVER_EXPIRES, data_owner
from bridge.embedded.entities import (
    CONTACT,
    DATA_OWNERS,
    DELEGATED,
    EXCHANGE_DATA,
    EXCHANGE_DATA_MAP,
    HEALTHCARE_PARTY,
    PATIENT,
    USER,
    EntityType,
)
from bridge.embedded.errors import AccessDenied, BadRequest, Unknown
from bridge.embedded.filters import matches
from bridge.embedded.model import KEY_MEMBERS, Entity
from bridge.embedded.predicates import predicate
from bridge.embedded.store import Document

LEGACY_FINGERPRINT_LENGTH = 32
TOKEN_SECONDS = 3600
STUB_MEMBERS = ("id", "rev", *KEY_MEMBERS, "parentId")
MILLISECONDS = 1000


def entity_routes(entity_type: EntityType) -> Blueprint:
    """Returns the routes that every type of entity has."""
    routes = Blueprint(entity_type.path, __name__, url_prefix=f"/rest/v2/{entity_type.path}")
    account = entity_type is USER

    @routes.post("")
    def create() -> Response:
        documents = web.documents()
        made = users.create(documents, web.body()) if account else documents.create(entity_type, web.body())
        return web.one(made)

    @routes.put("")
    def modify() -> Response:
        documents = web.documents()
        changed = (
            users.modify(documents, web.body()) if account else documents.modify(entity_type, web.body())
        )
        return web.one(changed)

    @routes.get("/<entity_id>")
    def get(entity_id: str) -> Response:
        return web.one(web.documents().read(entity_type, entity_id))

    @routes.post("/byIds")
    def by_ids() -> Response:
        wanted = web.ids(required=entity_type in (CONTACT, HEALTHCARE_PARTY))
        return web.many(web.documents().read_all(entity_type, wanted))

    @routes.delete("/<entity_id>")
    def delete(entity_id: str) -> Response:
        deleted = web.documents().delete(entity_type, entity_id, request.args.get("rev"))
        return web.json(web.identifier(deleted))

    @routes.post("/delete/batch")
    def delete_all() -> Response:
        if account:
            return web.identifiers(web.documents().delete_all(entity_type, web.revisions()))
        unconditional = [(entity_id, None) for entity_id in web.ids()]
        return web.identifiers(web.documents().delete_all(entity_type, unconditional))

    @routes.post("/delete/batch/withrev")
    def delete_all_with_rev() -> Response:
        return web.identifiers(web.documents().delete_all(entity_type, web.revisions()))

    @routes.post("/undelete/<entity_id>")
    def undelete(entity_id: str) -> Response:
        documents, rev = web.documents(), web.argument("rev")
        restored = (
            users.undelete(documents, entity_id, rev)
            if account
            else documents.undelete(entity_type, entity_id, rev)
        )
        return web.one(restored)

    @routes.post("/undelete/batch")
    def undelete_all() -> Response:
        documents = web.documents()
        restored = (
            users.undelete_all(documents, web.revisions())
            if account
            else documents.undelete_all(entity_type, web.revisions())
        )
        return web.many(restored)

    @routes.delete("/purge/<entity_id>")
    def purge(entity_id: str) -> Response:
        purged = web.documents().purge(entity_type, entity_id, web.argument("rev"))
        return web.json(web.identifier(purged))

    @routes.post("/purge/batch")
    def purge_all() -> Response:
        return web.identifiers(web.documents().purge_all(entity_type, web.revisions()))

    @routes.post("/match")
    def match() -> Response:
        return web.json(_matches(entity_type.name, web.body()))

    @routes.post("/filter")
    def filter_page() -> Response:
        by_id = entity_type in DELEGATED
        return _filter(entity_type.name, lambda ids: _bodies(entity_type, ids), by_id=by_id)

    def create_all() -> list[Document]:
        documents = web.documents()
        return (
            users.create_all(documents, web.body())
            if account
            else documents.create_all(entity_type, web.body())
        )

    def modify_all() -> list[Document]:
        documents = web.documents()
        return (
            users.modify_all(documents, web.body())
            if account
            else documents.modify_all(entity_type, web.body())
        )

    minimal = entity_type is PATIENT
    _batch_route(routes, "/batch", create_all, modify_all, web.identifiers if minimal else web.many)
    _batch_route(routes, "/batch/full", create_all, modify_all, web.many)
    _batch_route(routes, "/batch/minimal", create_all, modify_all, web.identifiers)
    return routes


def _batch_route(
    routes: Blueprint,
    path: str,
    create_all: Callable[[], list[Document]],
    modify_all: Callable[[], list[Document]],
    write: Callable[[Iterable[Document]], Response],
) -> None:
    def batch() -> Response:
        return write(create_all() if request.method == "POST" else modify_all())

    routes.add_url_rule(path, path.strip("/").replace("/", "_"), batch, methods=["POST", "PUT"])


def delegated_routes(entity_type: EntityType) -> Blueprint:
    """Returns the routes of entities that are shared by delegation."""
    routes = Blueprint(f"{entity_type.path}-shared", __name__, url_prefix=f"/rest/v2/{entity_type.path}")

    @routes.put("/bulkSharedMetadataUpdate")
    def share() -> Response:
        outcome = sharing.bulk_update(web.documents(), entity_type, web.body(), minimal=False)
        return web.json(outcome)

    @routes.put("/bulkSharedMetadataUpdateMinimal")
    def share_minimal() -> Response:
        outcome = sharing.bulk_update(web.documents(), entity_type, web.body(), minimal=True)
        return web.json(outcome)

    if entity_type is not PATIENT:

        @routes.post("/byDataOwnerPatientOpeningDate")
        def by_opening_date() -> Response:
            wanted: Entity = {
                "startDate": _fuzzy(web.integer_argument("startDate")),
                "endDate": _fuzzy(web.integer_argument("endDate")),
                "descending": request.args.get("descending") == "true",
            }
            owner, secret_ids = web.argument("dataOwnerId"), web.ids(required=True)
            if entity_type is CONTACT:
                wanted |= {"$type": "ContactByDataOwnerPatientOpeningDateFilter"}
                wanted |= {"dataOwnerId": owner, "secretForeignKeys": secret_ids}
            else:
                wanted |= {"$type": "HealthElementByDataOwnerPatientOpeningDate"}
                wanted |= {"healthcarePartyId": owner, "patientSecretForeignKeys": secret_ids}
            return web.json(_matches(entity_type.name, wanted))

    return routes


def _fuzzy(epoch_ms: int | None) -> int | None:
    """Returns epoch milliseconds as a fuzzy date-time in UTC."""
    if epoch_ms is None:
        return None
    try:
        moment = datetime.fromtimestamp(epoch_ms / MILLISECONDS, UTC)
    except (OverflowError, ValueError, OSError):
        raise BadRequest("the date must be in epoch milliseconds") from None
    return int(moment.strftime("%Y%m%d%H%M%S"))


def _matches(finds: str, given: Any) -> list[str]:
    documents = web.documents()
    if finds == USER.name:
        documents.caller.require_admin()
    with documents.store.reading() as view:
        return matches(view, documents.caller, finds, given)


def _bodies(entity_type: EntityType, ids: list[str]) -> list[tuple[str, bytes]]:
    return [(document.id, document.body) for document in web.documents().read_all(entity_type, ids)]


def _filter(finds: str, load: Callable[[list[str]], list[tuple[str, bytes]]], *, by_id: bool) -> Response:
    """Returns a page of the entities that a filter chain matches, filled up to the limit where possible."""
    chain = web.body()
    if type(chain) is not dict:
        raise BadRequest("the body must be a filter chain")
    wanted, holds = web.limit(), None
    if chain.get("predicate") is not None:
        holds = predicate(chain["predicate"])
    ids = _matches(finds, chain.get("filter"))
    if by_id:
        ids.sort()
    start = request.args.get("startDocumentId")
    if start:
        ids = ids[ids.index(start) :] if start in ids else []
    rows: list[bytes] = []
    position = 0
    while position < len(ids) and len(rows) < wanted:
        part = ids[position : position + wanted - len(rows)]
        position += len(part)
        rows += [body for _, body in load(part) if holds is None or holds(orjson.loads(body))]
    return web.page(rows, ids[position] if position < len(ids) else None)


def service_routes() -> Blueprint:
    """Returns the routes of Services on their own."""
    routes = Blueprint("service", __name__, url_prefix="/rest/v2/contact/service")

    def found(ids: Iterable[str]) -> list[Entity]:
        documents = web.documents()
        with documents.store.reading() as view:
            return services.read_all(view, documents, ids)

    @routes.get("/<service_id>")
    def get(service_id: str) -> Response:
        return web.json(services.read(web.documents(), service_id))

    @routes.post("")
    def by_ids() -> Response:
        return web.json(found(web.ids()))

    @routes.post("/match")
    def match() -> Response:
        return web.json(_matches("Service", web.body()))

    @routes.post("/filter")
    def filter_page() -> Response:
        def load(ids: list[str]) -> list[tuple[str, bytes]]:
            alive = [service for service in found(ids) if "endOfLife" not in service]
            return [(service["id"], orjson.dumps(service)) for service in alive]

        return _filter("Service", load, by_id=False)

    @routes.post("/linkedTo")
    def linked_to() -> Response:
        wanted: Entity = {"$type": "ServiceByQualifiedLinkFilter", "linkValues": web.ids()}
        if request.args.get("linkType"):
            wanted["linkQualification"] = request.args["linkType"]
        return web.json(found(_matches("Service", wanted)))

    @routes.get("/associationId")
    def by_association() -> Response:
        wanted = {"$type": "ServiceByAssociationIdFilter", "associationId": web.argument("associationId")}
        return web.json(found(_matches("Service", wanted)))

    @routes.get("/healthElementId/<element_id>")
    def by_health_element(element_id: str) -> Response:
        wanted = {
            "$type": "ServiceByHcPartyHealthElementIdsFilter",
            "healthcarePartyId": web.argument("hcPartyId"),
            "healthElementIds": [element_id],
        }
        return web.json(found(_matches("Service", wanted)))

    @routes.get("/content/empty")
    def empty_content() -> Response:
        return web.json({})

    return routes


def data_owner_routes() -> Blueprint:
    """Returns the routes of data owners, whatever they are."""
    routes = Blueprint("dataowner", __name__, url_prefix="/rest/v2/dataowner")

    def found(owner_id: str) -> tuple[EntityType, Document]:
        with web.documents().store.reading() as view:
            known = data_owner(view, owner_id)
        if known is None:
            raise Unknown(f"There is no data owner with id {owner_id}")
        return known

    def full(owner_id: str) -> bytes:
        entity_type, document = found(owner_id)
        if not web.documents().may_read(entity_type, document):
            raise AccessDenied()
        return orjson.dumps({"type": entity_type.data_owner})[:-1] + b',"dataOwner":' + document.body + b"}"

    def stub(owner_id: str) -> bytes:
        entity_type, document = found(owner_id)
        return orjson.dumps(_stub(entity_type, document.entity))

    def current() -> str:
        owner_id = web.documents().caller.data_owner_id
        if owner_id is None:
            raise Unknown("Current user is not a data owner")
        return owner_id

    def hierarchy() -> list[str]:
        owner_id = current()
        return [*web.documents().caller.ancestors, owner_id]

    @routes.get("/<owner_id>")
    def get(owner_id: str) -> Response:
        return web.raw(full(owner_id))

    @routes.get("/current")
    def get_current() -> Response:
        return web.raw(full(current()))

    @routes.get("/current/hierarchy")
    def get_hierarchy() -> Response:
        return web.raw(web.array(full(owner_id) for owner_id in hierarchy()))

    @routes.post("/byIds")
    def by_ids() -> Response:
        return web.raw(web.array(_existing(full, web.ids())))

    @routes.get("/stub/<owner_id>")
    def get_stub(owner_id: str) -> Response:
        return web.raw(stub(owner_id))

    @routes.get("/current/stub")
    def get_current_stub() -> Response:
        return web.raw(stub(current()))

    @routes.get("/current/hierarchy/stub")
    def get_stub_hierarchy() -> Response:
        return web.raw(web.array(stub(owner_id) for owner_id in hierarchy()))

    @routes.post("/stub/byIds")
    def stubs_by_ids() -> Response:
        return web.raw(web.array(_existing(stub, web.ids())))

    @routes.put("/stub")
    def modify_stub() -> Response:
        return web.json(_modify_stub(web.body()))

    return routes


def _existing(load: Callable[[str], bytes], ids: Iterable[str]) -> list[bytes]:
    found = []
    for owner_id in dict.fromkeys(ids):
        try:
            found.append(load(owner_id))
        except (Unknown, AccessDenied):
            continue
    return found


def _stub(entity_type: EntityType, entity: Entity) -> Entity:
    stub = {"publicKeysForOaepWithSha256": []} | {
        member: entity[member] for member in STUB_MEMBERS if member in entity
    }
    return {"type": entity_type.data_owner, "stub": stub}


def _modify_stub(sent: Any) -> Entity:
    """Returns the stub of a data owner whose key members are from now on those that were sent."""
    if type(sent) is not dict or type(sent.get("stub")) is not dict:
        raise BadRequest("the body must have a stub")
    documents, sent_stub = web.documents(), sent["stub"]
    owner_id = sent_stub.get("id")
    if type(owner_id) is not str:
        raise BadRequest("stub.id must be given")
    with documents.store.reading() as view:
        known = data_owner(view, owner_id)
    if known is None:
        raise Unknown(f"There is no data owner with id {owner_id}")
    entity_type, document = known
    unchanged = {name: member for name, member in document.entity.items() if name not in KEY_MEMBERS}
    keys = {name: sent_stub.get(name) for name in KEY_MEMBERS}
    changed = documents.modify(entity_type, unchanged | keys | {"rev": sent_stub.get("rev")})
    return _stub(entity_type, changed.entity)


def exchange_routes() -> Blueprint:
    """Returns the routes of exchange data, exchange data maps and legacy exchange keys."""
    routes = Blueprint("exchange", __name__, url_prefix="/rest/v2")

    @routes.post("/exchangedata/bulk")
    def create_all() -> Response:
        return web.identifiers(web.documents().create_all(EXCHANGE_DATA, web.body()))

    def between(delegator: str, delegate: str) -> Response:
        documents = web.documents()
        with documents.store.reading() as view:
            found = view.found("exchangedata.pair", f"{delegator}\x1f{delegate}")
        return web.many(documents.read_all(EXCHANGE_DATA, found))

    @routes.get("/exchangedata/byDelegatorDelegate/<delegator>/<delegate>")
    def by_delegator_delegate(delegator: str, delegate: str) -> Response:
        return between(delegator, delegate)

    @routes.get("/exchangedata/byDelegatorDelegate")
    def by_delegator_delegate_query() -> Response:
        return between(web.argument("delegatorId"), web.argument("delegateId"))

    def of_participant(owner_id: str) -> Response:
        documents, wanted = web.documents(), web.limit()
        with documents.store.reading() as view:
            found = view.page(
                "exchangedata.participant", owner_id, request.args.get("startDocumentId"), wanted + 1
            )
        rows = [document.body for document in documents.read_all(EXCHANGE_DATA, found[:wanted])]
        return web.page(rows, found[wanted] if len(found) > wanted else None, owner_id)

    @routes.get("/exchangedata/byParticipant/<owner_id>")
    def by_participant(owner_id: str) -> Response:
        return of_participant(owner_id)

    @routes.get("/exchangedata/byParticipant")
    def by_participant_query() -> Response:
        return of_participant(web.argument("dataOwnerId"))

    @routes.get("/exchangedata/byParticipant/<owner_id>/counterparts")
    def counterparts(owner_id: str) -> Response:
        return web.json(_counterparts(owner_id))

    @routes.put("/exchangedatamap/batch")
    def extend_maps() -> Response:
        sharing.extend_maps(web.documents(), web.body())
        return web.json("ok")

    @routes.post("/exchangedatamap/batch")
    def maps_by_ids() -> Response:
        return web.many(web.documents().read_all(EXCHANGE_DATA_MAP, web.ids()))

    for entity_type in DATA_OWNERS:
        routes.add_url_rule(
            f"/{entity_type.path}/<owner_id>/aesExchangeKeys",
            f"{entity_type.path}_exchange_keys",
            lambda owner_id: web.json(_legacy_exchange_keys(owner_id)),
        )
    return routes


def _counterparts(owner_id: str) -> list[str]:
    """Returns the data owners that share exchange data with this one, of the types the query asks for."""
    wanted = {name for name in request.args.get("counterpartsTypes", "").split(",") if name}
    ignored = request.args.get("ignoreOnEntryForFingerprint")
    documents = web.documents()
    others: dict[str, None] = {}
    with documents.store.reading() as view:
        for data in view.get_all(EXCHANGE_DATA, view.found("exchangedata.participant", owner_id)).values():
            entity = data.entity
            if ignored and ignored in entity.get("exchangeKey", {}):
                continue
            others |= dict.fromkeys({entity["delegator"], entity["delegate"]} - {owner_id})
        known = {other: data_owner(view, other) for other in others}
    return [
        other for other, owner in known.items() if owner and (not wanted or owner[0].data_owner in wanted)
    ]


def _legacy_exchange_keys(delegate_id: str) -> dict[str, dict[str, dict[str, str]]]:
    """Returns the old exchange keys made for a data owner: `{delegator: {fingerprint: {fingerprint: key}}}`.

    A key of the oldest form does not say whose it is; it stands under an empty fingerprint.
    """
    found: dict[str, dict[str, dict[str, str]]] = {}
    with web.documents().store.reading() as view:
        for owner_id in view.found("exchangekey", delegate_id):
            known = data_owner(view, owner_id)
            if known is None:
                continue
            owner = known[1].entity
            by_key = {
                public_key[-LEGACY_FINGERPRINT_LENGTH:]: {
                    reader[-LEGACY_FINGERPRINT_LENGTH:]: key for reader, key in delegates[delegate_id].items()
                }
                for public_key, delegates in owner.get("aesExchangeKeys", {}).items()
                if delegate_id in delegates
            }
            oldest = owner.get("hcPartyKeys", {}).get(delegate_id, [])
            if not by_key and len(oldest) > 1 and "publicKey" in owner:
                by_key = {owner["publicKey"][-LEGACY_FINGERPRINT_LENGTH:]: {"": oldest[1]}}
            if by_key:
                found[owner_id] = by_key
    return found


def healthcare_party_routes() -> Blueprint:
    """Returns the routes that only healthcare parties have."""
    routes = Blueprint("hcparty-more", __name__, url_prefix="/rest/v2/hcparty")

    @routes.get("/current")
    def current() -> Response:
        caller = web.documents().caller
        if caller.data_owner_id is None or caller.data_owner_type != HEALTHCARE_PARTY.data_owner:
            raise BadRequest("Current user is not a healthcare party.")
        return web.one(web.documents().read(HEALTHCARE_PARTY, caller.data_owner_id))

    @routes.get("/<parent_id>/children")
    def children(parent_id: str) -> Response:
        documents = web.documents()
        with documents.store.reading() as view:
            found = view.found("hcparty.parent", parent_id)
        return web.many(documents.read_all(HEALTHCARE_PARTY, found))

    @routes.get("/<party_id>/publicKey")
    def public_key(party_id: str) -> Response:
        party = web.documents().read(HEALTHCARE_PARTY, party_id).entity
        if "publicKey" not in party:
            raise Unknown("the healthcare party has no such public key")
        return web.json({"hcPartyId": party_id, "hexString": party["publicKey"]})

    return routes


def user_routes() -> Blueprint:
    """Returns the routes that only users have."""
    routes = Blueprint("user-more", __name__, url_prefix="/rest/v2/user")

    def current_user() -> Document:
        documents = web.documents()
        return documents.read(USER, documents.caller.user_id)

    @routes.get("/current")
    def current() -> Response:
        return web.one(current_user())

    @routes.get("/matches")
    def group_matches() -> Response:
        return web.json([users.group_of(current_user().entity)])

    def by_name(member: str, value: str) -> Response:
        found = users.found_by(web.documents(), member, value)
        if not found:
            raise Unknown("there is no such user")
        return web.one(found[0])

    @routes.get("/byEmail/<email>")
    def by_email(email: str) -> Response:
        return by_name("email", email)

    @routes.get("/byPhoneNumber/<phone>")
    def by_phone(phone: str) -> Response:
        return by_name("mobilePhone", phone)

    @routes.get("/byHealthcarePartyId/<owner_id>")
    def by_healthcare_party(owner_id: str) -> Response:
        found = users.found_by(web.documents(), "healthcarePartyId", owner_id)
        return web.json([document.id for document in found])

    @routes.get("/byPatientId/<owner_id>")
    def by_patient(owner_id: str) -> Response:
        found = users.found_by(web.documents(), "patientId", owner_id)
        return web.json([document.id for document in found])

    @routes.post("/token/<name>/<key>")
    def create_token(name: str, key: str) -> Response:
        seconds = web.integer_argument("tokenValidity", TOKEN_SECONDS)
        token = users.create_token(
            web.documents(),
            name,
            key,
            TOKEN_SECONDS if seconds is None else max(seconds, NEVER_EXPIRES),
            request.headers.get("token"),
        )
        return Response(token, content_type="text/plain;charset=utf-8")

    return routes


def all_routes() -> list[Blueprint]:
    """Returns every route of the interface but those of the login."""
    types = (*DELEGATED, HEALTHCARE_PARTY, entities.DEVICE, USER, EXCHANGE_DATA)
    return [
        *(entity_routes(entity_type) for entity_type in types),
        *(delegated_routes(entity_type) for entity_type in DELEGATED),
        service_routes(),
        data_owner_routes(),
        exchange_routes(),
        healthcare_party_routes(),
        user_routes(),
    ]
