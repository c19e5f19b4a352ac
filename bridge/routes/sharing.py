"""The routes of sharing: $share and $access. https://hl7.org/fhir/R4/operations.html"""

from __future__ import annotations

from flask import Blueprint, Response

from bridge import sharing, wire
from bridge.routes.answers import FHIR_BASE, body, fhir, if_match, write
from bridge.routes.fhir import instance, negotiate
from bridge.sharing import SHARED

bp = Blueprint("sharing", __name__, url_prefix=FHIR_BASE)
bp.before_request(negotiate)


def share(resource_type: str, logical_id: str) -> Response:
    """Shares a resource with another data owner, a Patient with its data when asked for."""
    asked, _, _ = instance(resource_type, logical_id)
    begun = sharing.begin(asked, resource_type, logical_id, wire.parse(body()), if_match())
    return write(begun.run(lambda: asked))


def access(resource_type: str, logical_id: str) -> Response:
    """Tells who can open a resource, and through whom."""
    return fhir(sharing.access(*instance(resource_type, logical_id)))


for _kind in SHARED:
    _of = {"resource_type": _kind}
    bp.add_url_rule(f"/{_kind}/<logical_id>/$share", "share", share, methods=("POST",), defaults=_of)
    bp.add_url_rule(f"/{_kind}/<logical_id>/$access", "access", access, methods=("GET", "POST"), defaults=_of)
