"""The FHIR routes. https://hl7.org/fhir/R4/http.html"""

from __future__ import annotations

import re
from dataclasses import replace

from flask import Blueprint, Response, g, jsonify, request

from bridge import bundle as bundles
from bridge import interactions, operations, search, wire
from bridge.capability import capability_statement, smart
from bridge.conditions import OF_THE_ANSWER
from bridge.errors import Invalid, NotFound, NotSupported
from bridge.homes import supported
from bridge.interactions import Answer
from bridge.once import Answers, once, shown
from bridge.patch import JSON_PATCH, MERGE_PATCH, Patch, read_patch
from bridge.plan import Incoming
from bridge.routes.answers import (
    FHIR_BASE,
    arguments,
    base_url,
    body,
    bridge,
    fhir,
    fhir_bundle,
    if_match,
    known_by,
    logged_in,
    preferences,
    scope,
    write,
    write_unless_known,
)
from bridge.scope import Scope
from mappings.values import Resource

bp = Blueprint("fhir", __name__, url_prefix=FHIR_BASE)
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


@bp.before_request
def negotiate() -> None:
    """Refuses what is neither sent nor wanted as JSON. https://hl7.org/fhir/R4/http.html#mime-type"""
    g.media_type = wire.check_accept(request.headers.get("Accept"), request.args.get("_format"))
    sent = request.headers.get("Content-Type", "")
    if request.method == "PATCH" and sent.partition(";")[0].strip().lower() in (JSON_PATCH, MERGE_PATCH):
        return
    if request.method == "POST" and request.endpoint in ("fhir.search_form", "fhir.search_all"):
        wire.check_form_type(sent)
    elif request.method in ("POST", "PUT", "PATCH"):
        wire.check_content_type(sent)


@bp.get("/metadata")
def metadata() -> Response:
    """FHIR capabilities. https://hl7.org/fhir/R4/http.html#capabilities"""
    return fhir(capability_statement(bridge().config, base_url()))


@bp.get("/.well-known/smart-configuration")
def smart_configuration() -> Response:
    """What this server has of SMART App Launch: it issues no tokens; iCure does."""
    return jsonify(smart(base_url()))


@bp.post("", strict_slashes=False)
@bp.post("/", strict_slashes=False)
def transaction() -> Response:
    """FHIR transaction and batch. https://hl7.org/fhir/R4/http.html#transaction"""
    asked = scope()
    sent = body()
    known, bundle = known_by(sent), wire.parse_bundle(sent)
    del sent  # it is long, and takes long
    representation = preferences().get("return") == "representation"
    answer, entries = bundles.run(asked, bundle, known, representation=representation)
    return fhir_bundle(answer, entries, asked.warnings)


@bp.get("", strict_slashes=False)
@bp.get("/", strict_slashes=False)
@bp.post("/_search")
def search_all() -> Response:
    """Refuses a search over all types in words. https://hl7.org/fhir/R4/http.html#search"""
    raise NotSupported("A search is about one resource type here: GET [base]/Patient?name=…, for example.")


@bp.get("/<resource_type>", strict_slashes=False)
def search_type(resource_type: str) -> Response:
    """FHIR search. https://hl7.org/fhir/R4/http.html#search"""
    return _found(resource_type, arguments())


@bp.post("/<resource_type>/_search")
def search_form(resource_type: str) -> Response:
    """FHIR search by POST: parameters in the form and in the URL. https://hl7.org/fhir/R4/http.html#search"""
    return _found(resource_type, [*arguments(), *request.form.items(multi=True)])


def _found(resource_type: str, asked: list[tuple[str, str]]) -> Response:
    supported(resource_type)
    handling = preferences().get("handling", "lenient")
    if handling not in ("lenient", "strict"):
        raise Invalid("Prefer: handling must be lenient or strict.")
    return fhir(search.search(scope(), resource_type, asked, strict=handling == "strict"))


@bp.post("/<resource_type>", strict_slashes=False)
def create(resource_type: str) -> Response:
    """FHIR create, conditional with `If-None-Exist`. https://hl7.org/fhir/R4/http.html#create"""
    asked = _scope(resource_type)
    sent = body()
    known = known_by(sent).keyed
    one = _checked(asked, resource_type, sent)
    condition = _unless()

    def create(scope: Scope) -> Answers:
        if condition is None:
            return {0: interactions.create(scope, one)}
        return {0: interactions.create_unless(scope, one, condition)}

    return write(once(asked, known, create, lambda answers: shown(asked, answers[0])))


@bp.get("/Patient/<logical_id>/$everything")
@bp.post("/Patient/<logical_id>/$everything")
def everything(logical_id: str) -> Response:
    """FHIR $everything. https://hl7.org/fhir/R4/patient-operation-everything.html"""
    asked, _, _ = instance("Patient", logical_id)
    return fhir(operations.everything(asked, logical_id, _parameters()))


@bp.get("/Observation/$lastn")
@bp.post("/Observation/$lastn")
def last_n() -> Response:
    """FHIR $lastn. https://hl7.org/fhir/R4/observation-operation-lastn.html"""
    return fhir(operations.last_n(scope(), _parameters()))


@bp.post("/<resource_type>/$validate")
@bp.post("/<resource_type>/<logical_id>/$validate")
def validate(resource_type: str, logical_id: str | None = None) -> Response:
    """FHIR $validate. https://hl7.org/fhir/R4/resource-operation-validate.html"""
    supported(resource_type)
    logged_in()
    strict = bridge().config.validation == "strict"
    return fhir(operations.validate(_body(), resource_type, logical_id, arguments(), strict=strict))


@bp.get("/<resource_type>/<logical_id>")
def read(resource_type: str, logical_id: str) -> Response:
    """FHIR read, conditional with `If-None-Match` and `If-Modified-Since`. https://hl7.org/fhir/R4/http.html#read"""
    return write_unless_known(_shortened(interactions.read(*instance(resource_type, logical_id))))


@bp.get("/<resource_type>/<logical_id>/_history/<version>")
def vread(resource_type: str, logical_id: str, version: str) -> Response:
    """FHIR vread, as far as iCure keeps versions. https://hl7.org/fhir/R4/http.html#vread"""
    return write_unless_known(_shortened(interactions.vread(*instance(resource_type, logical_id), version)))


def _shortened(answer: Answer) -> Answer:
    """Returns as much of a resource as `_summary` and `_elements` ask for."""
    asked = [(name, value) for name, value in arguments() if name in ("_summary", "_elements")]
    if not asked or answer.resource is None:
        return answer
    query, _ = search.parse(answer.resource["resourceType"], asked)
    if query.summary == "count":
        raise Invalid("_summary=count goes with a search.")
    return replace(answer, resource=search.reduced(query, answer.resource))


@bp.get("/<resource_type>/<logical_id>/_history")
def history(resource_type: str, logical_id: str) -> Response:
    """FHIR history of an instance, as far as iCure keeps versions. https://hl7.org/fhir/R4/http.html#history"""
    versions = interactions.history(*instance(resource_type, logical_id))
    return fhir(bundles.history(base_url(), versions, f"{resource_type}/{logical_id}", arguments()))


@bp.put("/<resource_type>/<logical_id>")
def update(resource_type: str, logical_id: str) -> Response:
    """FHIR update. https://hl7.org/fhir/R4/http.html#update"""
    asked, _, _ = instance(resource_type, logical_id)
    one = _incoming(asked, resource_type)
    if one.resource.get("id") != logical_id:
        raise Invalid("The id in the resource must be the one in the URL.", f"{resource_type}.id")
    return write(interactions.update(asked, resource_type, logical_id, one, if_match()))


@bp.put("/<resource_type>", strict_slashes=False)
def update_where(resource_type: str) -> Response:
    """FHIR conditional update. https://hl7.org/fhir/R4/http.html#cond-update"""
    one = _incoming(asked := _scope(resource_type), resource_type)
    return write(interactions.update_where(asked, one, _condition(), if_match()))


@bp.patch("/<resource_type>/<logical_id>")
def patch(resource_type: str, logical_id: str) -> Response:
    """FHIR patch. https://hl7.org/fhir/R4/http.html#patch"""
    asked, _, _ = instance(resource_type, logical_id)
    return write(interactions.patch(asked, resource_type, logical_id, _patch(), if_match()))


@bp.patch("/<resource_type>", strict_slashes=False)
def patch_where(resource_type: str) -> Response:
    """FHIR conditional patch. https://hl7.org/fhir/R4/http.html#patch"""
    asked = _scope(resource_type)
    return write(interactions.patch_where(asked, resource_type, _condition(), _patch(), if_match()))


@bp.delete("/<resource_type>/<logical_id>")
def delete(resource_type: str, logical_id: str) -> Response:
    """FHIR delete. https://hl7.org/fhir/R4/http.html#delete"""
    return write(interactions.delete(*instance(resource_type, logical_id), if_match()))


@bp.delete("/<resource_type>", strict_slashes=False)
def delete_where(resource_type: str) -> Response:
    """FHIR conditional delete. https://hl7.org/fhir/R4/http.html#3.1.0.7.1"""
    return write(interactions.delete_where(_scope(resource_type), resource_type, _condition(), if_match()))


def _scope(resource_type: str) -> Scope:
    supported(resource_type)
    return scope()


def _parameters() -> list[tuple[str, str]]:
    """Returns the parameters of an operation: those of the URL, and those of the body where there is one."""
    sent = body() if request.method == "POST" else b""
    return [*arguments(), *(operations.said_in(wire.parse(sent)) if sent else ())]


def instance(resource_type: str, logical_id: str) -> tuple[Scope, str, str]:
    """Returns the scope of a request about one resource, its type and its id. Raises `NotFound` for what is no id."""
    asked = _scope(resource_type)
    if not _ID.fullmatch(logical_id):
        raise NotFound("This is neither an id that FHIR allows nor an operation that is served here.")
    return asked, resource_type, logical_id


def no_parameters(operation: str) -> None:
    """Raises `Invalid` when this request gives an operation parameters that it does not take."""
    sent = body()
    if sent and operations.said_in(wire.parse(sent)):
        raise Invalid(f"${operation} takes no parameters.", "Parameters.parameter")


def _unless() -> str | None:
    """Returns the condition of a create: in `If-None-Exist`, or in the URL, as fhirpy says it."""
    said = request.headers.get("If-None-Exist")
    if all(name in OF_THE_ANSWER for name in request.args):
        return said
    if said is not None:
        raise Invalid("The condition of a create stands in If-None-Exist or in the URL, not in both.")
    return _condition()


def _condition() -> str:
    return request.query_string.decode("ascii", "replace")


def _patch() -> Patch:
    config = bridge().config
    return read_patch(body(), request.headers.get("Content-Type", ""), config.max_body_bytes)


def _incoming(asked: Scope, resource_type: str) -> Incoming:
    return _checked(asked, resource_type, body())


def _checked(asked: Scope, resource_type: str, sent: bytes) -> Incoming:
    """Returns the resource of a body, checked, with what was let through as its warnings."""
    strict = asked.config.validation == "strict"
    resource, warnings = wire.check(wire.parse(sent), expected_type=resource_type, strict=strict)
    return Incoming(resource, resource_type, warnings=list(warnings))


def _body() -> Resource:
    return wire.parse(body())
