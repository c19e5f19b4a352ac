"""The application: the only place where the parts meet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import requests
from flask import Flask, Request, Response, request
from flask_cors import CORS
from werkzeug.exceptions import BadRequest, HTTPException, MethodNotAllowed, RequestEntityTooLarge

from bridge import errors, logs
from bridge.accesslog import AccessLog
from bridge.auth import Authenticator
from bridge.config import Config
from bridge.crypto import primitives
from bridge.crypto.manifest import load_manifests
from bridge.embedded import create_app as create_embedded
from bridge.embedded.adapter import InProcess
from bridge.embedded.store import DELETED, Store
from bridge.events import MARK_HEADER, Change, Changes, Following, Icure, Kept, Position
from bridge.keychain import Keychain
from bridge.mail import Mail
from bridge.routes import fhir, health, invitation, keychain, sharing, subscriptions, users
from bridge.routes.answers import packed, refuse
from bridge.scope import Bridge
from bridge.state import Backend, Sqlite, State, deployment_secret
from bridge.throttle import Throttle
from bridge.upstream import Upstream
from bridge.websockets import Websockets

EMBEDDED_URL = "http://embedded.invalid"
EMBEDDED_PATHS = ("/rest/v2", "/ws/v2")
EXPOSED = ["ETag", "Location", "Content-Location", "X-Progress", "Last-Modified", "Warning", "X-Request-Id"]


def create_app(config: Config, *, websockets: int = 4) -> Flask:
    """Returns the WSGI application of one process, with at most so many websockets at once."""
    app = Flask("bridge")
    app.url_map.merge_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.request_class = _Request
    app.config["MAX_CONTENT_LENGTH"] = config.max_body_bytes + 1
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    secret = deployment_secret(config.data_dir, config.secret_file)
    state = State(_backend(config), secret)
    throttle = Throttle(state, config.trusts)
    manifests = load_manifests(config.encrypted_fields_file)
    upstream = _upstream(app, config, throttle)
    app.extensions["bridge"] = Bridge(
        config=config,
        upstream=upstream,
        state=state,
        throttle=throttle,
        authenticator=Authenticator(upstream, throttle),
        keychain=Keychain(state, secret, config),
        manifests=manifests,
        access_log=AccessLog(manifests) if config.access_log else None,
        mail=Mail(config.smtp_server, config.smtp_sender) if config.smtp_server else None,
    )
    for blueprint in (fhir.bp, subscriptions.bp, sharing.bp, invitation.bp, keychain.bp, users.bp, health.bp):
        app.register_blueprint(blueprint)
    if config.cors_origins:
        CORS(
            app, resources=r"/rest/(fhir|icdx)/.*", origins=list(config.cors_origins), expose_headers=EXPOSED
        )
    app.after_request(packed)
    logs.watch(app)
    _follow(app, config, primitives.hkdf(secret, b"notifications").hex())
    app.wsgi_app = app.extensions["websockets"] = Websockets(app.wsgi_app, websockets)  # type: ignore[method-assign]
    _handle_errors(app)
    return app


class _Request(Request):
    """A request whose body is taken whole or not at all.

    Facts: of a body in chunks werkzeug returns as much as is allowed, without a word. So one byte more is allowed.
    """

    def get_data(self, *args: Any, **options: Any) -> Any:
        """Returns the body. Raises `RequestEntityTooLarge`, and `BadRequest` for chunks that cannot be read."""
        try:
            data = super().get_data(*args, **options)
        except HTTPException:
            raise
        except Exception as e:
            raise BadRequest from e
        if self.max_content_length is not None and len(data) >= self.max_content_length:
            raise RequestEntityTooLarge
        return data


def _backend(config: Config) -> Backend:
    if not config.state_url:
        return Sqlite(config.data_dir)
    from bridge.state.redis import Redis  # slow to import, and only wanted here

    return Redis(config.state_url)


def _upstream(app: Flask, config: Config, throttle: Throttle) -> Upstream:
    if not config.embedded:
        return Upstream(config.icure_url)
    embedded = create_embedded(config.data_dir, guard=throttle)
    session = requests.Session()
    session.mount(EMBEDDED_URL, InProcess(embedded))
    app.extensions["store"] = embedded.extensions["store"]
    app.wsgi_app = _Beside(app.wsgi_app, embedded)  # type: ignore[method-assign]
    return Upstream(EMBEDDED_URL, session)


def _follow(app: Flask, config: Config, mark: str) -> None:
    """Has the application know of Subscriptions, and know notifications that it sent itself by their mark."""
    bridge = app.extensions["bridge"]
    source = (
        _Store(app.extensions["store"])
        if config.embedded
        else Icure(config.icure_url, bridge, logs.unexpected)
    )
    app.extensions["following"] = Following(bridge, source, mark, logs.unexpected)

    @app.before_request
    def refuse_own() -> None:
        if request.headers.get(MARK_HEADER) == mark:
            raise errors.Forbidden("This is a notification of this bridge itself.")


class _Store:
    """The changes of the embedded store, the same for everybody: who may hear of what shows when it is read."""

    run, ready, trouble = "store", True, None

    def __init__(self, store: Store) -> None:
        self._store = store

    def begin(self, now: int) -> Position:
        """Returns where a Subscription stands that begins now (epoch milliseconds)."""
        return Position(self.run, self.last(), now)

    def follow(self, followed: Iterable[Kept]) -> None:
        """Does nothing: there is no connection."""

    def of(self, kept: Kept) -> Changes:
        """Returns the changes."""
        return self

    def number_at(self, time: int) -> int | None:
        """Returns None: whoever stands in another run followed another iCure."""
        return None

    def last(self) -> int:
        """Returns the number of the last change, 0 for none."""
        with self._store.reading() as view:
            return view.last_change()

    def after(self, number: int, most: int) -> tuple[list[Change], int] | None:
        """Returns the first changes after a number, and the last number looked at; None when some are forgotten."""
        with self._store.reading() as view:
            found, first = view.changes(number, most), view.first_change()
        if number + 1 < first:
            return None
        told = []
        for one in found:
            entities = {one.id: one.event} if one.type != "Contact" else one.services
            kind = one.type if one.type != "Contact" else "Service"
            told += [Change(one.number, kind, i) for i, event in entities.items() if event != DELETED]
        return told, found[-1].number if found else number


_MARK = "HTTP_" + MARK_HEADER.upper().replace("-", "_")


class _Beside:
    """Two WSGI applications under one address: iCure's paths go to the embedded store."""

    def __init__(self, bridge: Any, embedded: Any) -> None:
        self._bridge, self._embedded = bridge, embedded

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        prefix = next((p for p in EMBEDDED_PATHS if path == p or path.startswith(f"{p}/")), None)
        if _MARK in environ:
            prefix = None  # a notification is no request to iCure, wherever its endpoint is
        answer: Iterable[bytes]
        if prefix is None:
            answer = self._bridge(environ, start_response)
        else:
            answer = self._embedded(environ, logs.watched(environ, start_response, prefix))
        return answer


def _handle_errors(app: Flask) -> None:
    @app.errorhandler(Exception)
    def handle(error: Exception) -> Response:
        if isinstance(error, RequestEntityTooLarge):
            error = errors.TooLarge()
        elif isinstance(error, MethodNotAllowed):
            allowed = ", ".join(sorted(error.valid_methods or ()))
            error = errors.MethodNotAllowed(headers={"Allow": allowed})
        elif isinstance(error, HTTPException):
            error = (
                errors.NotSupported("There is no such route.")
                if error.code == 404
                else errors.Invalid(error.name)
            )
        elif errors.explain(error)[0] == 500:
            if app.testing:
                raise error
            logs.unexpected(error)
        return refuse(error)
