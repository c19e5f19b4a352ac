"""The routes of sharing: $share and $access, and of what goes on after its request was answered."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from bridge import definitions, jobs, logs, sharing, wire
from bridge.errors import NotFound
from bridge.interactions import Answer
from bridge.once import Answers, once
from bridge.routes.answers import (
    FHIR_BASE,
    base_url,
    body,
    bridge,
    fhir,
    if_match,
    known_by,
    logged_in,
    origin,
    preferences,
    write,
)
from bridge.routes.fhir import instance, negotiate, no_parameters
from bridge.scope import Scope
from bridge.sharing import SHARED, Share

bp = Blueprint("sharing", __name__, url_prefix=FHIR_BASE)
bp.before_request(negotiate)


def share(resource_type: str, logical_id: str) -> Response:
    """Shares a resource with another data owner, a Patient with its data when asked for."""
    asked, _, _ = instance(resource_type, logical_id)
    sent = body()
    parameters, known, later = wire.parse(sent), known_by(sent).keyed, "respond-async" in preferences()

    def shared(scope: Scope) -> Answers:
        begun = sharing.begin(scope, resource_type, logical_id, parameters, if_match())
        return {0: _later(scope, begun) if later else sharing.run(begun, lambda: scope)}

    answer = once(asked, known, shared, lambda answers: answers[0])
    if answer.status == 202:
        return fhir(None, 202, {"Content-Location": f"{base_url()}/{answer.location}"})
    return write(answer)


def _later(asked: Scope, begun: Share) -> Answer:
    """Begins to share and returns where the answer will be. https://hl7.org/fhir/R4/async.html"""
    shared_by_all, header = bridge(), request.headers.get("Authorization")
    base, address = base_url(), origin()

    def work(told: jobs.Told) -> tuple[Any, str | None]:
        answer = sharing.run(
            begun,
            lambda: shared_by_all.scope(header, base, address),
            lambda done, of: told(f"{done} of {of} documents are done."),
        )
        return answer.resource, answer.version

    job_id = jobs.begin(asked.state, asked.caller.user_id, work, logs.unexpected)
    return Answer(202, location=f"_status/{job_id}")


@bp.get("/_status/<job_id>")
def status(job_id: str) -> Response:
    """Tells how far a job is, and in the end its answer. https://hl7.org/fhir/R4/async.html"""
    job = jobs.look(bridge().state, logged_in().user_id, job_id)
    if job.status is None:
        return fhir(None, 202, {"X-Progress": job.progress, "Retry-After": "1"})
    return fhir(job.resource, job.status, {"ETag": f'W/"{job.version}"'} if job.version else {})


@bp.delete("/_status/<job_id>")
def cancel(job_id: str) -> Response:
    """Ends a job after the step that it is at; what it did stays done. https://hl7.org/fhir/R4/async.html"""
    jobs.cancel(bridge().state, logged_in().user_id, job_id)
    return fhir(None, 202)


def access(resource_type: str, logical_id: str) -> Response:
    """Tells who can open a resource, and through whom."""
    asked, _, _ = instance(resource_type, logical_id)
    no_parameters("access")
    return fhir(sharing.access(asked, resource_type, logical_id))


@bp.get("/OperationDefinition/<name>")
def definition(name: str) -> Response:
    """The definition of an operation that R4 does not define."""
    if name not in definitions.OPERATIONS:
        raise NotFound("There is no operation of this name.")
    return fhir(definitions.definition(name, base_url()))


for _kind in SHARED:
    _of = {"resource_type": _kind}
    bp.add_url_rule(f"/{_kind}/<logical_id>/$share", "share", share, methods=("POST",), defaults=_of)
    bp.add_url_rule(f"/{_kind}/<logical_id>/$access", "access", access, methods=("GET", "POST"), defaults=_of)
