"""The routes of people and devices: data owners, their exchange keys, healthcare parties and users."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import orjson
from flask import Blueprint, Response, request

from bridge.embedded import sharing, web
from bridge.embedded.auth import NEVER_EXPIRES, data_owner
from bridge.embedded.entities import (
    DATA_OWNERS,
    EXCHANGE_DATA,
    EXCHANGE_DATA_MAP,
    HEALTHCARE_PARTY,
    USER,
    EntityType,
)
from bridge.embedded.errors import AccessDenied, BadRequest, Unknown
from bridge.embedded.index import key
from bridge.embedded.model import KEY_MEMBERS, Entity, Shape, read, text
from bridge.embedded.store import Document
from bridge.embedded.users import group_of

LEGACY_FINGERPRINT_LENGTH = 32
TOKEN_SECONDS = 3600
NEW_PASSWORD = Shape().has(text, "newPassword")
STUB_MEMBERS = ("id", "rev", *KEY_MEMBERS, "parentId")


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
            found = view.found("exchangedata.pair", key(delegator, delegate))
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
        return web.json([group_of(current_user().entity)])

    def by_name(member: str, value: str) -> Response:
        found = web.accounts().found_by(member, value)
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
        found = web.accounts().found_by("healthcarePartyId", owner_id)
        return web.json([document.id for document in found])

    @routes.get("/byPatientId/<owner_id>")
    def by_patient(owner_id: str) -> Response:
        found = web.accounts().found_by("patientId", owner_id)
        return web.json([document.id for document in found])

    @routes.get("")
    def by_login() -> Response:
        start = _start_key()
        patients = request.args.get("skipPatients") == "false"
        rows, following = web.accounts().page(start, web.limit(), patients=patients)
        if following is None:
            return web.page([row.body for row in rows], None)
        return web.page([row.body for row in rows], following.id, following.entity["login"])

    @routes.put("/current/hcparty/<party_id>")
    def set_healthcare_party(party_id: str) -> Response:
        return web.one(web.accounts().set_healthcare_party(party_id))

    @routes.put("/<name>/properties")
    def set_properties(name: str) -> Response:
        return web.one(web.accounts().set_properties(name, web.body()))

    @routes.put("/<name>/password")
    def set_password(name: str) -> Response:
        password = read(NEW_PASSWORD, web.body()).get("newPassword")
        if password is None:
            raise BadRequest("newPassword must be given")
        return web.one(web.accounts().set_password(name, password))

    @routes.put("/<name>/email")
    def set_email(name: str) -> Response:
        return _set(name, "email", web.argument("newEmail"), request.args.get("previousEmail"))

    @routes.put("/<name>/mobilePhone")
    def set_phone(name: str) -> Response:
        return _set(
            name, "mobilePhone", web.argument("newMobilePhone"), request.args.get("previousMobilePhone")
        )

    @routes.delete("/<name>/mobilePhone")
    def remove_phone(name: str) -> Response:
        return _set(name, "mobilePhone", None, request.args.get("previousMobilePhone"))

    @routes.post("/token/<name>/<key>")
    def create_token(name: str, key: str) -> Response:
        seconds = web.integer_argument("tokenValidity", TOKEN_SECONDS)
        validity = TOKEN_SECONDS if seconds is None else max(seconds, NEVER_EXPIRES)
        token = web.accounts().create_token(name, key, validity, request.headers.get("token"))
        return Response(token, content_type="text/plain;charset=utf-8")

    return routes


def _set(name: str, member: str, value: str | None, expected: str | None) -> Response:
    return web.one(web.accounts().set(name, member, value, expected or None))


def _start_key() -> str:
    """Returns the login with which a page begins, which clients send as JSON or as it is."""
    sent = request.args.get("startKey", "")
    try:
        key = orjson.loads(sent)
    except orjson.JSONDecodeError:
        return sent
    return key if isinstance(key, str) else sent


def all_routes() -> list[Blueprint]:
    """Returns every route of people and devices that is not the same for every type of entity."""
    return [data_owner_routes(), exchange_routes(), healthcare_party_routes(), user_routes()]
