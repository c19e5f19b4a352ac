"""The FHIR routes. https://hl7.org/fhir/R4/http.html"""

from __future__ import annotations

import re

from flask import Blueprint, Response, g, request

from bridge import bundle as bundles
from bridge import interactions, search, wire
from bridge.capability import capability_statement
from bridge.errors import Invalid, Issue, NotFound
from bridge.homes import supported
from bridge.plan import Incoming
from bridge.routes.answers import FHIR_BASE, arguments, base_url, bridge, fhir, preferences, scope, write
from bridge.scope import Scope
from mappings.values import Resource

bp = Blueprint("fhir", __name__, url_prefix=FHIR_BASE)
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


@bp.before_request
def negotiate() -> None:
    """Refuses what is neither sent nor wanted as JSON. https://hl7.org/fhir/R4/http.html#mime-type"""
    g.media_type = wire.check_accept(request.headers.get("Accept"), request.args.get("_format"))
    if request.method in ("POST", "PUT", "PATCH"):
        wire.check_content_type(request.headers.get("Content-Type"))


@bp.get("/metadata")
def metadata() -> Response:
    """FHIR capabilities. https://hl7.org/fhir/R4/http.html#capabilities"""
    return fhir(capability_statement(bridge().config, base_url()))


@bp.post("", strict_slashes=False)
@bp.post("/", strict_slashes=False)
def transaction() -> Response:
    """FHIR transaction. https://hl7.org/fhir/R4/http.html#transaction"""
    asked = scope()
    answer = bundles.transaction(asked, _body())
    return fhir(answer, warnings=asked.warnings)


@bp.get("/<resource_type>", strict_slashes=False)
def search_type(resource_type: str) -> Response:
    """FHIR search. https://hl7.org/fhir/R4/http.html#search"""
    supported(resource_type)
    handling = preferences().get("handling", "lenient")
    if handling not in ("lenient", "strict"):
        raise Invalid("Prefer: handling must be lenient or strict.")
    return fhir(search.search(scope(), resource_type, arguments(), strict=handling == "strict"))


@bp.post("/<resource_type>", strict_slashes=False)
def create(resource_type: str) -> Response:
    """FHIR create. https://hl7.org/fhir/R4/http.html#create"""
    supported(resource_type)
    if "If-None-Exist" in request.headers:
        raise Invalid("If-None-Exist: conditional create is not served yet; nothing was created.")
    asked = scope()
    resource, warnings = _checked(asked, resource_type)
    incoming = Incoming(resource, resource_type, warnings=list(warnings))
    return write(interactions.create(asked, incoming))


@bp.get("/<resource_type>/<logical_id>")
def read(resource_type: str, logical_id: str) -> Response:
    """FHIR read. https://hl7.org/fhir/R4/http.html#read"""
    return write(interactions.read(*_instance(resource_type, logical_id)))


@bp.get("/<resource_type>/<logical_id>/_history/<version>")
def vread(resource_type: str, logical_id: str, version: str) -> Response:
    """FHIR vread of the current version: iCure keeps no older ones. https://hl7.org/fhir/R4/http.html#vread"""
    answer = interactions.read(*_instance(resource_type, logical_id))
    if answer.version != version:
        raise NotFound("Only the current version of a resource is kept.")
    return write(answer)


@bp.put("/<resource_type>/<logical_id>")
def update(resource_type: str, logical_id: str) -> Response:
    """FHIR update. https://hl7.org/fhir/R4/http.html#update"""
    asked, _, _ = _instance(resource_type, logical_id)
    resource, warnings = _checked(asked, resource_type)
    if resource.get("id") != logical_id:
        raise Invalid("The id in the resource must be the one in the URL.", f"{resource_type}.id")
    one = Incoming(resource, resource_type, warnings=list(warnings))
    return write(interactions.update(asked, resource_type, logical_id, one, request.headers.get("If-Match")))


@bp.delete("/<resource_type>/<logical_id>")
def delete(resource_type: str, logical_id: str) -> Response:
    """FHIR delete. https://hl7.org/fhir/R4/http.html#delete"""
    return write(interactions.delete(*_instance(resource_type, logical_id), request.headers.get("If-Match")))


def _instance(resource_type: str, logical_id: str) -> tuple[Scope, str, str]:
    supported(resource_type)
    asked = scope()
    if not _ID.fullmatch(logical_id):
        raise NotFound("This is not an id that FHIR allows.")
    return asked, resource_type, logical_id


def _checked(asked: Scope, resource_type: str) -> tuple[Resource, list[Issue]]:
    """Returns the resource of the body and what was let through with a warning."""
    strict = asked.config.validation == "strict"
    return wire.check(_body(), expected_type=resource_type, strict=strict)


def _body() -> Resource:
    return wire.parse(request.get_data(cache=False))
