"""The routes of entities: those that every type has, those of what is shared, those of Services."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import orjson
from flask import Blueprint, Response, request

from bridge.embedded import entities, services, sharing, web
from bridge.embedded.documents import Documents
from bridge.embedded.entities import (
    ACCESS_LOG,
    CONTACT,
    DELEGATED,
    EXCHANGE_DATA,
    HEALTH_ELEMENT,
    HEALTHCARE_PARTY,
    PATIENT,
    USER,
    EntityType,
)
from bridge.embedded.errors import BadRequest
from bridge.embedded.filters import matches
from bridge.embedded.model import Entity
from bridge.embedded.predicates import predicate
from bridge.embedded.store import Document

MILLISECONDS = 1000


def entity_routes(entity_type: EntityType) -> Blueprint:
    """Returns the routes that every type of entity has."""
    routes = Blueprint(entity_type.path, __name__, url_prefix=f"/rest/v2/{entity_type.path}")

    def documents() -> Documents:
        return web.accounts() if entity_type is USER else web.documents()

    @routes.post("")
    def create() -> Response:
        return web.one(documents().create(entity_type, web.body()))

    @routes.put("")
    def modify() -> Response:
        return web.one(documents().modify(entity_type, web.body()))

    @routes.get("/<entity_id>")
    def get(entity_id: str) -> Response:
        return web.one(documents().read(entity_type, entity_id))

    @routes.post("/byIds")
    def by_ids() -> Response:
        wanted = web.ids(required=entity_type in (CONTACT, HEALTHCARE_PARTY))
        return web.many(documents().read_all(entity_type, wanted))

    @routes.delete("/<entity_id>")
    def delete(entity_id: str) -> Response:
        deleted = documents().delete(entity_type, entity_id, request.args.get("rev"))
        return web.json(web.identifier(deleted))

    @routes.post("/delete/batch")
    def delete_all() -> Response:
        if entity_type is USER:
            return web.identifiers(documents().delete_all(entity_type, web.revisions()))
        unconditional = [(entity_id, None) for entity_id in web.ids()]
        return web.identifiers(documents().delete_all(entity_type, unconditional))

    @routes.post("/delete/batch/withrev")
    def delete_all_with_rev() -> Response:
        return web.identifiers(documents().delete_all(entity_type, web.revisions()))

    @routes.post("/undelete/<entity_id>")
    def undelete(entity_id: str) -> Response:
        return web.one(documents().undelete(entity_type, entity_id, web.argument("rev")))

    @routes.post("/undelete/batch")
    def undelete_all() -> Response:
        return web.many(documents().undelete_all(entity_type, web.revisions()))

    @routes.delete("/purge/<entity_id>")
    def purge(entity_id: str) -> Response:
        purged = documents().purge(entity_type, entity_id, web.argument("rev"))
        return web.json(web.identifier(purged))

    @routes.post("/purge/batch")
    def purge_all() -> Response:
        return web.identifiers(documents().purge_all(entity_type, web.revisions()))

    @routes.post("/match")
    def match() -> Response:
        return web.json(_matches(entity_type.name, web.body()))

    @routes.post("/filter")
    def filter_page() -> Response:
        def load(ids: list[str]) -> list[bytes]:
            return [document.body for document in documents().read_all(entity_type, ids)]

        return _filter(entity_type.name, load, by_id=entity_type in DELEGATED)

    def batch(write: Callable[[Iterable[Document]], Response]) -> Response:
        if request.method == "POST":
            return write(documents().create_all(entity_type, web.body()))
        return write(documents().modify_all(entity_type, web.body()))

    @routes.route("/batch", methods=["POST", "PUT"])
    def default_batch() -> Response:
        return batch(web.identifiers if entity_type is PATIENT else web.many)

    @routes.route("/batch/full", methods=["POST", "PUT"])
    def full_batch() -> Response:
        return batch(web.many)

    @routes.route("/batch/minimal", methods=["POST", "PUT"])
    def minimal_batch() -> Response:
        return batch(web.identifiers)

    return routes


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

    if entity_type in (CONTACT, HEALTH_ELEMENT):

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


def _filter(finds: str, load: Callable[[list[str]], list[bytes]], *, by_id: bool) -> Response:
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
        rows += [body for body in load(part) if holds is None or holds(orjson.loads(body))]
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
        def load(ids: list[str]) -> list[bytes]:
            return [orjson.dumps(service) for service in found(ids) if "endOfLife" not in service]

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


def access_log_routes() -> Blueprint:
    """Returns the routes that only access logs have: by date, by user, by patient."""
    routes = Blueprint("accesslog-more", __name__, url_prefix="/rest/v2/accesslog")

    def page(wanted: Entity) -> Response:
        documents, limit = web.documents(), web.limit()
        wanted["descending"] = request.args.get("descending") == "true"
        ids = _matches(ACCESS_LOG.name, {name: value for name, value in wanted.items() if value is not None})
        start = request.args.get("startDocumentId")
        if start:
            ids = ids[ids.index(start) :] if start in ids else []
        rows = documents.read_all(ACCESS_LOG, ids[: limit + 1])
        if len(rows) <= limit:
            return web.page([row.body for row in rows], None)
        return web.page([row.body for row in rows[:limit]], rows[limit].id, rows[limit].entity.get("date"))

    @routes.get("")
    def by_date() -> Response:
        low, high = web.integer_argument("fromEpoch"), web.integer_argument("toEpoch")
        return page({"$type": "AccessLogByDateFilter", "startDate": low, "endDate": high})

    @routes.get("/byUser")
    def by_user() -> Response:
        user = {"userId": web.argument("userId"), "accessType": request.args.get("accessType")}
        since = web.integer_argument("startDate")
        return page({"$type": "AccessLogByUserIdUserTypeDateFilter", **user, "startDate": since})

    @routes.post("/byDataOwnerPatientDate")
    def by_patient() -> Response:
        wanted: Entity = {
            "$type": "AccessLogByDataOwnerPatientDateFilter",
            "dataOwnerId": web.argument("dataOwnerId"),
            "secretPatientIds": web.ids(required=True),
            "startDate": web.integer_argument("startDate"),
            "endDate": web.integer_argument("endDate"),
            "descending": request.args.get("descending") == "true",
        }
        given = {name: value for name, value in wanted.items() if value is not None}
        return web.json(_matches(ACCESS_LOG.name, given))

    return routes


def all_routes() -> list[Blueprint]:
    """Returns every route of entities."""
    types = (*DELEGATED, HEALTHCARE_PARTY, entities.DEVICE, USER, EXCHANGE_DATA)
    return [
        *(entity_routes(entity_type) for entity_type in types),
        *(delegated_routes(entity_type) for entity_type in DELEGATED),
        service_routes(),
        access_log_routes(),
    ]
