"""The embedded store as a web application: who calls, what is refused, and the routes."""

from __future__ import annotations

import base64
import binascii
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, Response, current_app, g, request
from werkzeug.exceptions import HTTPException

from bridge.embedded import listening, model, owner_routes, routes, web
from bridge.embedded.access import Caller, hashed_access_keys
from bridge.embedded.adapter import IN_PROCESS
from bridge.embedded.auth import JWT_SECONDS, Attempt, Authentication, Guard
from bridge.embedded.documents import Documents
from bridge.embedded.errors import LoginFailed, Refused, TooManyAttempts
from bridge.embedded.store import Store

MAX_BODY_BYTES = 128 * 1024 * 1024
VERSION = "embedded"
ACCESS_KEYS_HEADER = "Icure-Access-Control-Keys"
ANONYMITY_HEADER = "Icure-Request-Autofix-Anonymity"
PREFIX = "/rest/v2"
PUBLIC_PATHS = (
    "/rest/v2/auth/login",
    "/rest/v2/auth/refresh",
    "/rest/v2/auth/switch/",
    "/rest/v2/icure/",
)
CREDENTIALS = model.Shape().has(model.text, "username password")

log = logging.getLogger(__name__)


class EmbeddedApp(Flask):
    """A Flask application whose unforeseen errors reach a caller inside the process as they are."""

    def wsgi_app(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        """Serves a request, also when the application is mounted at `/rest/v2` below another one."""
        mounted = environ.get("SCRIPT_NAME", "")
        if mounted.endswith(PREFIX):
            path = PREFIX + environ.get("PATH_INFO", "")
            environ = environ | {"SCRIPT_NAME": mounted.removesuffix(PREFIX), "PATH_INFO": path}
        return super().wsgi_app(environ, start_response)

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function as it is: none here is a coroutine, and each request would ask of several."""
        return func

    def handle_exception(self, e: Exception) -> Response:
        """Raises the error again for in-process callers; over HTTP answers 500 and logs where, without values."""
        if request.environ.get(IN_PROCESS):
            raise e
        where = "".join(traceback.format_tb(e.__traceback__))
        log.error("%s %s failed: %s\n%s", request.method, request.endpoint, type(e).__name__, where)
        return web.json({"message": "Internal server error"}, 500)


def create_app(
    data_dir: Path, *, store: Store | None = None, enforce_access: bool = True, guard: Guard | None = None
) -> EmbeddedApp:
    """Returns the application that serves the store in `data_dir` at `/rest/v2`.

    `guard` holds up who guesses passwords over HTTP; calls from inside the process are for the caller to guard.
    With `enforce_access=False` every user sees and changes everything, as with the open-source server.
    """
    app = EmbeddedApp(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    opened = store or Store(data_dir)
    app.extensions["store"] = opened
    app.extensions["authentication"] = Authentication(opened)
    app.extensions["guard"] = guard

    @app.before_request
    def identify() -> None:
        if request.url_rule is not None and not request.path.startswith(PUBLIC_PATHS):
            caller = _caller()
            anonymous = request.headers.get(ANONYMITY_HEADER, "").lower()
            caller = caller.with_request(
                hashed_access_keys([request.headers.get(ACCESS_KEYS_HEADER, "")]),
                anonymous=anonymous == "true" or (anonymous != "false" and caller.is_anonymous_by_default),
                unrestricted=not enforce_access,
            )
            g.documents = Documents(opened, caller)

    @app.errorhandler(Refused)
    def refused(error: Refused) -> Response:
        response = web.json({"message": error.text}, error.status)
        if isinstance(error, LoginFailed):
            response.headers["WWW-Authenticate"] = 'Basic realm="icure"'
        if isinstance(error, TooManyAttempts):
            response.headers["Retry-After"] = str(error.seconds)
        return response

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        return web.json({"message": error.name}, error.code or 500)

    @app.get("/ws/v2/notification/subscribe")
    def subscribe() -> Response:
        """Lets the caller listen to events, once whoever serves this has accepted the handshake."""
        listening.accept(request.environ, opened, web.documents().caller)
        return Response(status=101)

    for blueprint in (_session_routes(), *routes.all_routes(), *owner_routes.all_routes()):
        app.register_blueprint(blueprint)
    return app


def _caller() -> Caller:
    """Returns who calls. A browser, which cannot give a websocket headers, shows its JWT in the URL."""
    authentication = web.authentication()
    if "jwt" in request.args:
        return authentication.caller_of(request.args["jwt"])
    kind, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return authentication.caller_of(credentials.strip())
    if kind.lower() == "basic":
        try:
            name, colon, secret = base64.b64decode(credentials, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            raise LoginFailed() from None
        if colon:
            return authentication.verify(name, secret, _attempt(name))
    raise LoginFailed()


def _attempt(name: str) -> Attempt | None:
    """Returns the login under this name as its guard counts it, None where nobody guards."""
    guard: Guard | None = current_app.extensions["guard"]
    if guard is None or request.environ.get(IN_PROCESS):
        return None
    return Attempt(guard, name, guard.origin(request.remote_addr, request.headers.get("X-Forwarded-For", "")))


def _session_routes() -> Blueprint:
    session = Blueprint("session", __name__, url_prefix=PREFIX)

    @session.post("/auth/login")
    def login() -> Response:
        credentials = model.read(CREDENTIALS, web.body())
        if "username" not in credentials or "password" not in credentials:
            raise LoginFailed()
        seconds = web.integer_argument("duration", JWT_SECONDS)
        name, group = credentials["username"], request.args.get("groupId")
        return web.json(
            web.authentication().login(
                name, credentials["password"], seconds or JWT_SECONDS, group, _attempt(name)
            )
        )

    @session.post("/auth/refresh")
    def refresh() -> Response:
        return web.json(web.authentication().refresh(_refresh_token()))

    @session.post("/auth/switch/<group>")
    def switch(group: str) -> Response:
        return web.json(web.authentication().switch(_refresh_token(), group))

    @session.get("/auth/logout")
    def logout() -> Response:
        return web.json({"successful": True})

    session.add_url_rule("/auth/logout", "logout_post", logout, methods=["POST"])

    @session.get("/icure/v")
    def version() -> Response:
        return Response(VERSION, content_type="text/plain")

    @session.get("/icure/ok")
    def alive() -> Response:
        return Response("true", content_type="text/plain")

    return session


def _refresh_token() -> str:
    return request.headers.get("Refresh-Token", "").removeprefix("Bearer ")
