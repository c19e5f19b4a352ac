"""Whether this process lives, and whether it can serve."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from bridge.errors import StateUnavailable
from bridge.routes.answers import bridge

bp = Blueprint("health", __name__, url_prefix="/health")


@bp.get("/live")
def live() -> Response:
    """Answers 200 while the process serves."""
    return jsonify({"status": "up"})


@bp.get("/ready")
def ready() -> Response:
    """Answers 200 when iCure and the shared state can be reached, else 503 with what cannot."""
    parts = {"icure": bridge().upstream.reachable(), "state": _state_reachable()}
    response = jsonify({"status": "up" if all(parts.values()) else "down", **parts})
    response.status_code = 200 if all(parts.values()) else 503
    return response


def _state_reachable() -> bool:
    try:
        bridge().state.get("health", "probe")
    except StateUnavailable:
        return False
    return True
