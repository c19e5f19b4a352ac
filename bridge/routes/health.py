"""Whether this process lives, whether it can serve, and what routes it has."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, jsonify

from bridge import openapi
from bridge.errors import StateUnavailable
from bridge.routes.answers import FHIR_BASE, base_url, bridge

bp = Blueprint("health", __name__)


@bp.get("/health/live")
def live() -> Response:
    """Answers 200 while the process serves."""
    return jsonify({"status": "up"})


@bp.get("/health/ready")
def ready() -> Response:
    """Answers 200 when iCure and the shared state can be reached, else 503 with what cannot."""
    parts = {"icure": bridge().upstream.reachable(), "state": _state_reachable()}
    response = jsonify({"status": "up" if all(parts.values()) else "down", **parts})
    response.status_code = 200 if all(parts.values()) else 503
    return response


@bp.get("/openapi.json")
def routes() -> Response:
    """Tells all routes, as an OpenAPI document."""
    return jsonify(openapi.document(current_app, base_url().removesuffix(FHIR_BASE)))


def _state_reachable() -> bool:
    try:
        bridge().state.get("health", "probe")
    except StateUnavailable:
        return False
    return True
