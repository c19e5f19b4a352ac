"""The route by which a patient is invited."""

from __future__ import annotations

from flask import Blueprint, Response

from bridge import invitation
from bridge.routes.answers import FHIR_BASE, bridge, fhir
from bridge.routes.fhir import instance, negotiate, no_parameters

bp = Blueprint("invitation", __name__, url_prefix=FHIR_BASE)
bp.before_request(negotiate)


@bp.post("/Patient/<logical_id>/$invite")
def invite(logical_id: str) -> Response:
    """Makes a user for a patient, and sends the patient its temporary password by e-mail."""
    asked, _, _ = instance("Patient", logical_id)
    no_parameters("invite")
    config = bridge().config
    link = config.invitation_url or config.public_url
    return fhir(invitation.invite(asked, bridge().mail, link, logical_id))
