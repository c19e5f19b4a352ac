"""No holder of a secret shows it."""

from __future__ import annotations

import inspect
import pkgutil
import traceback
from importlib import import_module

import pytest

import bridge.crypto
from bridge.crypto import envelope, exchange, sharing
from bridge.crypto.keyring import Keyring, Opened, Route
from bridge.crypto.keys import OwnKey, PrivateKey, PublicKey
from bridge.crypto.lookup import Lookup
from bridge.crypto.manifest import Manifest
from bridge.errors import BridgeError

MODULES = [import_module(f"bridge.crypto.{m.name}") for m in pkgutil.iter_modules(bridge.crypto.__path__)]
CLASSES = {
    cls
    for module in MODULES
    for name, cls in inspect.getmembers(module, inspect.isclass)
    if cls.__module__ == module.__name__ and not name.startswith("_")
}
WITHOUT_SECRETS = {Manifest, exchange.Directory}


@pytest.fixture
def holders(world, key):
    """One of each public class that holds a secret, used, and the secrets it holds."""
    ann, bob = world.settle(key(0)), world.settle(key(1))
    ring = ann.keyring(world)
    metadata = envelope.new_metadata(ring, "Patient", delegates=[bob.id])
    entity = {"id": "e", "securityMetadata": metadata.security_metadata}
    opened = ring.open(entity, "Patient", whole=True)
    made = ring.own_exchange_key()
    own = ann.keys[0]
    objects = [
        *(ring, ring._lookup, metadata, opened, made, ring.route_to(bob.id, "Patient")),
        *(*ring.held(entity, "Patient"), sharing.Wish(bob.id, frozenset(), writes=True)),
        *(own, own.private, own.public),
    ]
    secrets = [
        *(metadata.entity_key, made.key, made.access_control_secret, made.access_control_key("Patient")),
        *(own.private.pkcs8_der, own.private.signing_key),
    ]
    return objects, secrets, metadata.secret_id


def test_every_public_class_is_looked_at(holders):
    seen = {cls for holder in holders[0] for cls in type(holder).__mro__}
    errors = {cls for cls in CLASSES if issubclass(cls, Exception)}
    assert CLASSES - seen - errors == WITHOUT_SECRETS
    assert {Keyring, Opened, Route, Lookup, PrivateKey, PublicKey, OwnKey} <= seen


@pytest.mark.parametrize("show", [repr, str, "{!r:}".format, lambda o: repr([o]), lambda o: repr({"x": o})])
def test_nothing_shows_a_secret(show, holders):
    objects, secrets, secret_id = holders
    for holder in objects:
        text = show(holder)
        assert secret_id not in text
        for secret in secrets:
            assert secret.hex() not in text
            assert repr(secret)[2:-1] not in text
            assert repr(secret[8:16])[2:-1] not in text


def test_a_holder_tells_the_fingerprint(holders, key):
    ring, *_, own, private, public = holders[0]
    for holder in (ring, own, private, public):
        assert key(0).fingerprint in repr(holder)


def test_an_error_of_the_crypto_tells_no_text_it_was_given(a_key):
    text = a_key.pkcs8_der.hex()[:-2]
    try:
        PrivateKey.parse(text)
    except BridgeError as error:
        shown = "".join(traceback.format_exception(error)) + repr(error)
        assert text[100:140] not in shown
