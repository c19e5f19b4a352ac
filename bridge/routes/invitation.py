"""The route by which a patient is invited."""

from __future__ import annotations

from flask import Blueprint, Response

from bridge import invitation
from bridge.interactions import Answer
from bridge.once import Answers, once
from bridge.routes.answers import FHIR_BASE, body, bridge, fhir, known_by
from bridge.routes.fhir import instance, negotiate, no_parameters
from bridge.scope import Scope

bp = Blueprint("invitation", __name__, url_prefix=FHIR_BASE)
bp.before_request(negotiate)


@bp.post("/Patient/<logical_id>/$invite")
def invite(logical_id: str) -> Response:
    """Makes a user for a patient, and sends the patient its temporary password by e-mail."""
    asked, _, _ = instance("Patient", logical_id)
    no_parameters("invite")
    config, mail = bridge().config, bridge().mail
    link = config.invitation_url or config.public_url

    def invited(scope: Scope) -> Answers:
        return {0: Answer(200, invitation.invite(scope, mail, link, logical_id))}

    return once(asked, known_by(body()).keyed, invited, lambda answers: fhir(answers[0].resource))
