"""One structured line per request: route, parameter names, status, time, request id; never a value.

Rule: no line holds a URL, a header, a body, an id, or the text of an exception that is not ours.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from flask import Flask, Response, g, request

from bridge.search import CONTROLS, parameter
from mappings import REGISTRY

logger = logging.getLogger("bridge")


def configure() -> None:
    """Sends the bridge's lines to standard output, one JSON object each."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def line(event: str, **members: object) -> None:
    """Writes one line."""
    logger.info(orjson.dumps({"event": event, **members}).decode())


def unexpected(error: BaseException) -> None:
    """Tells of an unforeseen error by its type and where it arose; its text may hold anything, so it is left out."""
    frames = traceback.extract_tb(error.__traceback__)[-12:]
    where = [f"{Path(f.filename).name}:{f.lineno}:{f.name}" for f in frames]
    line("error", request=g.get("request_id") if g else None, type=type(error).__name__, at=where)


def watch(app: Flask) -> None:
    """Has every request of the app leave its line, and its id in `X-Request-Id`."""

    @app.before_request
    def start() -> None:
        g.request_id = str(uuid.uuid4())
        g.started = time.perf_counter()

    @app.after_request
    def end(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.request_id
        line(
            "request",
            method=request.method if request.method in METHODS else "OTHER",
            route=request.url_rule.rule if request.url_rule else None,
            type=_resource_type(),
            parameters=_parameter_names(),
            status=response.status_code,
            outcome=g.get("outcome"),
            ms=round((time.perf_counter() - g.started) * 1000, 1),
            request=g.request_id,
        )
        return response


def watched(environ: dict[str, Any], start_response: Callable[..., Any], route: str) -> Callable[..., Any]:
    """Returns a `start_response` that leaves the line of a request which another application answers."""
    started = time.perf_counter()

    def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        method = environ.get("REQUEST_METHOD", "")
        line(
            "request",
            method=method if method in METHODS else "OTHER",
            route=route,
            status=int(status[:3]),
            ms=round((time.perf_counter() - started) * 1000, 1),
        )
        return start_response(status, headers, *rest)

    return start


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def _resource_type() -> str | None:
    sent = (request.view_args or {}).get("resource_type")
    return sent if sent in REGISTRY else None


def _parameter_names() -> list[str]:
    """Returns the known names among the parameters; what is not one may be a value."""
    resource_type = _resource_type()
    form = request.form if request.endpoint == "fhir.search_form" else {}
    names = list(dict.fromkeys((*request.args, *form)))
    return [
        n if n in CONTROLS or (resource_type and parameter(resource_type, n)) else "unknown" for n in names
    ]
