"""The keychain routes: upload, look at and forget private keys."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from bridge import events, wire
from bridge.auth import Caller, Credential
from bridge.errors import Invalid
from bridge.homes import instant
from bridge.keychain import Loaded
from bridge.routes.answers import body, bridge, credential, following

bp = Blueprint("keychain", __name__, url_prefix="/rest/icdx/v1/keychain")


@bp.post("/<data_owner_id>")
def load(data_owner_id: str) -> Response:
    """Adds a private key to the caller's keychain; the key is never answered, logged or written in clear."""
    caller, credential = _caller()
    sent = wire.parse(body())
    key = sent.get("key")
    if not isinstance(key, str):
        raise Invalid('The body must be {"key": "<PKCS#8: hex of DER, PEM, or base64 of DER>"}.', "key")
    loaded = bridge().keychain.load(caller, credential, data_owner_id, key)
    events.renew(following(), caller, credential)
    return _told(loaded, one=True)


@bp.get("/<data_owner_id>")
def loaded(data_owner_id: str) -> Response:
    """Tells which keys are loaded, by fingerprint."""
    return _told(bridge().keychain.loaded(_caller()[0], data_owner_id))


@bp.delete("/<data_owner_id>")
def unload(data_owner_id: str) -> Response:
    """Forgets the keys, in every worker at once."""
    bridge().keychain.unload(_caller()[0], data_owner_id)
    return Response(status=204)


def _caller() -> tuple[Caller, Credential]:
    shown = credential()
    return bridge().authenticator.identify(shown), shown


def _told(loaded: Loaded, *, one: bool = False) -> Response:
    fingerprints = {"fingerprint": loaded.fingerprints[0]} if one else {"fingerprints": loaded.fingerprints}
    expires_at = instant(int(loaded.expires_at * 1000))
    return jsonify({"dataOwnerId": loaded.data_owner_id, **fingerprints, "expiresAt": expires_at})
