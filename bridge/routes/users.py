"""The routes of users, for administrators, and of tokens, for oneself."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify, request

from bridge import users, wire
from bridge.auth import Login
from bridge.once import standing
from bridge.routes.answers import body, bridge, credential, if_match, known_by

bp = Blueprint("users", __name__, url_prefix="/rest/icdx/v1")


@bp.get("/users")
def find_users() -> Response:
    """Finds users: all, or by email, mobilePhone, patientId, healthcarePartyId or search."""
    found, following = users.find(_login().client, request.args.items(multi=True))
    return jsonify({"users": found, **({"next": following} if following else {})})


@bp.post("/users")
def create_user() -> Response:
    """Makes a user, with a password or without one."""
    login, sent = _login(), _sent()
    known = known_by(wire.dump({name: value for name, value in sent.items() if name != "password"}))
    with standing(bridge().state, login.user_id, known):
        made = users.create(login.client, sent, known.new_id(login.user_id))
    response = _told(made)
    response.status_code = 201
    response.headers["Location"] = f"{bp.url_prefix}/users/{made['id']}"
    return response


@bp.get("/users/<user_id>")
def read_user(user_id: str) -> Response:
    """Tells of a user."""
    return _told(users.read(_login().client, user_id))


@bp.put("/users/<user_id>")
def update_user(user_id: str) -> Response:
    """Replaces what is told of a user; the password stays unless one is sent."""
    return _told(users.update(_login().client, user_id, _sent(), _version()))


@bp.delete("/users/<user_id>")
def delete_user(user_id: str) -> Response:
    """Removes a user, whose login, e-mail and phone are free from then on."""
    users.delete(_login().client, user_id, _version())
    return Response(status=204)


@bp.get("/tokens")
def find_tokens() -> Response:
    """Tells which of the caller's tokens still work, not what they are."""
    return jsonify({"tokens": [token.told() for token in users.tokens(_login().client)]})


@bp.post("/tokens")
def create_token() -> Response:
    """Makes a token that works like the caller's password until it ends; it is told this once."""
    login = _login()
    token, secret = users.create_token(login.client, login.user_id, _sent())
    response = jsonify({**token.told(), "token": secret})
    response.status_code = 201
    response.headers["Cache-Control"] = "no-store"
    return response


@bp.delete("/tokens/<name>")
def end_token(name: str) -> Response:
    """Ends a token of the caller."""
    login = _login()
    users.end_token(login.client, login.user_id, name)
    return Response(status=204)


def _login() -> Login:
    return bridge().authenticator.login(credential())


def _sent() -> dict[str, Any]:
    return wire.parse(body())


def _version() -> str | None:
    """Returns the rev that `If-Match` names, None for any."""
    said = if_match()
    return None if said in (None, "*") else str(said)[3:-1]


def _told(user: dict[str, Any]) -> Response:
    response = jsonify(users.shown(user))
    response.headers["ETag"] = f'W/"{user["rev"]}"'
    return response
