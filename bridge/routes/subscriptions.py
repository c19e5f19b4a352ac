"""The routes of Subscriptions, and the websocket on which some are told. https://hl7.org/fhir/R4/subscription.html"""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import quote

from flask import Blueprint, Response, g, request

from bridge import events, wire
from bridge.auth import Caller, Credential
from bridge.errors import Forbidden, Invalid, NotFound, NotSupported, Overloaded, warning
from bridge.events import Kept
from bridge.interactions import Answer
from bridge.once import standing
from bridge.routes.answers import (
    FHIR_BASE,
    arguments,
    base_url,
    body,
    bridge,
    credential,
    fhir,
    following,
    if_match,
    known_by,
    origin,
    preferences,
    write,
    write_unless_known,
)
from bridge.websockets import ROOM, TALK
from mappings.values import Resource

bp = Blueprint("subscriptions", __name__, url_prefix=FHIR_BASE)


@bp.before_request
def negotiate() -> None:
    """Refuses what is neither sent nor wanted as JSON. https://hl7.org/fhir/R4/http.html#mime-type"""
    g.media_type = wire.check_accept(request.headers.get("Accept"), request.args.get("_format"))
    if request.endpoint == "subscriptions.search_form":
        wire.check_form_type(request.headers.get("Content-Type", ""))
    elif request.method in ("POST", "PUT"):
        wire.check_content_type(request.headers.get("Content-Type", ""))


@bp.post("/Subscription", strict_slashes=False)
def create() -> Response:
    """Begins a Subscription. https://hl7.org/fhir/R4/http.html#create"""
    caller, shown = _caller()
    if "If-None-Exist" in request.headers or any(name not in ("_format", "_pretty") for name in request.args):
        raise NotSupported("A Subscription is not created under a condition here.")
    sent = body()
    resource, known = _checked(sent), known_by(sent)
    new_id = known.new_id(caller.user_id)
    with standing(bridge().state, caller.user_id, known):
        made = events.create(following(), caller, shown, resource, base_url(), new_id)
    return _written(made, 201)


@bp.get("/Subscription/<logical_id>")
def read(logical_id: str) -> Response:
    """FHIR read of a Subscription of one's own. https://hl7.org/fhir/R4/http.html#read"""
    return write_unless_known(_answer(events.read(following(), _caller()[0], logical_id), 200))


@bp.get("/Subscription/<logical_id>/_history/<version>")
def vread(logical_id: str, version: str) -> Response:
    """FHIR vread of a Subscription, of which the current version is kept. https://hl7.org/fhir/R4/http.html#vread"""
    kept = events.read(following(), _caller()[0], logical_id)
    if str(kept.version) != version:
        raise NotFound("This version is not kept.")
    return write_unless_known(_answer(kept, 200))


@bp.put("/Subscription/<logical_id>")
def update(logical_id: str) -> Response:
    """Changes a Subscription, turns it off or on. https://hl7.org/fhir/R4/http.html#update"""
    caller, shown = _caller()
    sent = _checked(body())
    if sent.get("id") != logical_id:
        raise Invalid("The id in the resource must be the one in the URL.", "Subscription.id")
    return _written(events.update(following(), caller, shown, logical_id, sent, base_url(), if_match()), 200)


@bp.delete("/Subscription/<logical_id>")
def delete(logical_id: str) -> Response:
    """Ends a Subscription. https://hl7.org/fhir/R4/http.html#delete"""
    events.delete(following(), _caller()[0], logical_id, if_match())
    return fhir(None, 204)


@bp.get("/Subscription", strict_slashes=False)
def search_type() -> Response:
    """Finds one's own Subscriptions. https://hl7.org/fhir/R4/http.html#search"""
    return _found(arguments())


@bp.post("/Subscription/_search")
def search_form() -> Response:
    """Finds one's own Subscriptions, by POST. https://hl7.org/fhir/R4/http.html#search"""
    return _found([*arguments(), *request.form.items(multi=True)])


@bp.get("/ws")
def listen() -> Response:
    """Tells of events over a websocket: bind, bound, ping. https://hl7.org/fhir/R4/subscription.html#websockets"""
    header = request.headers.get("Authorization")
    if "jwt" in request.args:
        header = f"Bearer {request.args['jwt']}"  # a browser cannot give a websocket headers
    user = bridge().authenticator.identify(bridge().authenticator.credential(header, origin())).user_id
    room = request.environ.get(ROOM)
    if room is None:
        raise Invalid("This is for websockets.")
    if "Origin" in request.headers and "jwt" not in request.args:
        # Fact: a browser sends the login that it remembers along, whatever page asks for the connection.
        raise Forbidden("From a browser, show an iCure JWT: ?jwt=…")
    if not room:
        raise Overloaded("There are too many listeners. Try again later.")
    request.environ[TALK] = partial(events.talk, following(), user)
    return Response(status=101)


def _caller() -> tuple[Caller, Credential]:
    shown = credential()
    return bridge().authenticator.identify(shown), shown


def _checked(sent: bytes) -> Resource:
    strict = bridge().config.validation == "strict"
    resource, g.warnings = wire.check(wire.parse(sent), expected_type="Subscription", strict=strict)
    return resource


def _answer(kept: Kept, status: int) -> Answer:
    return Answer(
        status,
        events.shown(kept),
        f"Subscription/{kept.id}",
        str(kept.version),
        kept.modified,
        g.get("warnings", ()),
    )


def _written(kept: Kept, status: int) -> Response:
    return write(_answer(kept, status))


def _found(asked: list[tuple[str, Any]]) -> Response:
    """Answers with all that the caller has: there are never many."""
    known = [(n, v) for n, v in asked if n.partition(":")[0] in events.PARAMETERS and v]
    others = [n for n, _ in asked if n.partition(":")[0] not in (*events.PARAMETERS, "_format", "_pretty")]
    if others and preferences().get("handling") == "strict":
        raise Invalid("This server does not know one of the parameters.")
    base = base_url()
    entries: list[dict[str, Any]] = [
        {
            "fullUrl": f"{base}/Subscription/{kept.id}",
            "resource": events.shown(kept),
            "search": {"mode": "match"},
        }
        for kept in events.found(following(), _caller()[0], known)
    ]
    query = "&".join(f"{quote(n, safe=':_')}={quote(v, safe=',|:/')}" for n, v in known)
    bundle: Resource = {
        "resourceType": "Bundle",
        "type": "searchset",
        "total": len(entries),
        "link": [{"relation": "self", "url": f"{base}/Subscription" + (f"?{query}" if query else "")}],
    }
    if others:
        text = "This server does not know one of the parameters; it was ignored."
        told = {"resourceType": "OperationOutcome", "issue": [warning("not-supported", text).to_fhir()]}
        entries.append({"resource": told, "search": {"mode": "outcome"}})
    if entries:
        bundle["entry"] = entries
    return fhir(bundle)
