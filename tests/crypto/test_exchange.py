from __future__ import annotations

import copy

import pytest

from bridge.crypto import exchange
from bridge.crypto.exchange import ExchangeKey
from bridge.crypto.keys import OwnKey
from bridge.crypto.primitives import Undecipherable, to_base64

from . import reader


@pytest.fixture
def ann(key):
    return [OwnKey(key(0), "sha256"), OwnKey(key(1), "sha256")]


@pytest.fixture
def bob(key):
    return [OwnKey(key(2), "sha1")]


@pytest.fixture
def made(ann, bob):
    return exchange.create("ann", "bob", ann, [key.public for key in bob])


def test_every_key_of_both_sides_reads_the_same(made, ann, bob):
    document, opened = made
    readings = []
    for own in (*ann, *bob):
        secrets = reader.secrets_of(document, own.private.pkcs8_der, own.oaep, own.fingerprint)
        assert {len(v) for v in secrets.values()} == {32, 16, 128}
        readings.append(secrets)
    assert readings[0] == readings[1] == readings[2]
    assert (opened.key, opened.access_control_secret) == (
        readings[0]["exchangeKey"],
        readings[0]["accessControlSecret"],
    )


def test_every_key_of_the_delegator_signs(made, ann):
    document, _ = made
    for own in ann:
        secrets = reader.secrets_of(document, own.private.pkcs8_der, own.oaep, own.fingerprint)
        signature = reader.delegator_signature(secrets, own.private.pkcs8_der)
        assert document["delegatorSignature"][own.fingerprint] == signature
        assert document["sharedSignature"] == reader.shared_signature(document, secrets)
    assert document["delegatorSignature"].keys() == {own.fingerprint for own in ann}


def test_no_two_exchange_data_share_anything(ann):
    one, other = (exchange.create("ann", "ann", ann, ())[1] for _ in range(2))
    assert one.id != other.id
    assert one.key != other.key and one.access_control_secret != other.access_control_secret


def test_derived_keys_are_those_of_the_description(made):
    _, opened = made
    secret = opened.access_control_secret
    for type_name in ("Patient", "Contact"):
        assert opened.access_control_key(type_name) == reader.access_control_key(secret, type_name)
        assert opened.delegation_key(type_name) == reader.delegation_key(secret, type_name)


def changed(**members):
    return lambda document: document.update(members)


def resealed(name, plain):
    """What anyone can do who knows the public keys: put another secret in."""

    def change(document, readers):
        document[name] = exchange.encrypt_for([own.public for own in readers], plain)

    return change


FORGERIES = {
    "shared signature of another text": changed(sharedSignature=to_base64(bytes(64))),
    "no shared signature": changed(sharedSignature=None),
    "no delegator signature": changed(delegatorSignature={}),
    "delegator signature missing": lambda document: document.pop("delegatorSignature"),
    "another delegator": changed(delegator="eve"),
    "another delegate": changed(delegate="eve"),
    "one of two delegator signatures wrong": lambda document: document["delegatorSignature"].update(
        {max(document["delegatorSignature"]): to_base64(bytes(64))}
    ),
    "a reader added": lambda document: document["exchangeKey"].update({"0" * 22: "AAAA"}),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_a_forgery_opens_and_does_not_verify(forge, made, ann):
    document = copy.deepcopy(made[0])
    assert ExchangeKey(document, ann).verifies(document, "ann", "bob", ann)
    forge(document)
    opened = ExchangeKey(document, ann)
    assert opened.key == made[1].key
    assert not opened.verifies(document, "ann", "bob", ann)


@pytest.mark.parametrize(
    ("name", "size"), [("exchangeKey", 32), ("accessControlSecret", 16), ("sharedSignatureKey", 128)]
)
def test_a_secret_put_in_by_someone_else_does_not_verify(name, size, made, ann, bob):
    document = copy.deepcopy(made[0])
    resealed(name, bytes(size))(document, (*ann, *bob))
    assert not ExchangeKey(document, ann).verifies(document, "ann", "bob", ann)


def test_what_someone_else_made_in_ones_name_does_not_verify(ann, bob, key):
    eve = [OwnKey(key(3), "sha256")]
    document, _ = exchange.create("ann", "bob", eve, [own.public for own in (*ann, *bob)])
    assert ExchangeKey(document, ann).key
    assert not ExchangeKey(document, ann).verifies(document, "ann", "bob", ann)


def test_what_one_made_for_someone_else_does_not_verify(made, ann):
    document, opened = made
    assert not opened.verifies(document, "ann", "eve", ann)
    assert not opened.verifies(document, "eve", "bob", ann)


def test_one_loaded_key_is_enough_to_verify(made, ann):
    for own in ann:
        assert ExchangeKey(made[0], [own]).verifies(made[0], "ann", "bob", [own])


def test_exchange_data_without_a_shared_secret_opens_still(made, bob):
    document = {k: v for k, v in made[0].items() if k not in ("accessControlSecret", "sharedSignatureKey")}
    assert ExchangeKey(document, bob).key == made[1].key
    with pytest.raises(Undecipherable):
        ExchangeKey(document, bob).delegation_key("Patient")


def test_names_of_keys_may_be_the_longer_fingerprints(made, ann):
    longer = {own.fingerprint: own.private.fingerprint_v1 for own in ann}
    boxes = {longer.get(name, name): box for name, box in made[0]["exchangeKey"].items()}
    assert ExchangeKey({**made[0], "exchangeKey": boxes}, ann).key == made[1].key


UNOPENABLE = {
    "no box for this key": {},
    "a box that is no base64": "é",
    "a box of something else": to_base64(bytes(256)),
}


@pytest.mark.parametrize("box", UNOPENABLE.values(), ids=UNOPENABLE)
def test_what_does_not_open_is_tried_once(box, made, key):
    key(0).used = 0
    own = OwnKey(key(0), "sha256")
    opened = ExchangeKey({**made[0], "exchangeKey": {own.fingerprint: box} if box else {}}, [own])
    for _ in range(3):
        with pytest.raises(Undecipherable):
            _ = opened.key
    assert key(0).used <= 1


def test_a_key_of_a_strange_size_is_no_exchange_key(ann):
    document, _ = exchange.create("ann", "ann", ann, ())
    resealed("exchangeKey", bytes(20))(document, ann)
    with pytest.raises(Undecipherable):
        _ = ExchangeKey(document, ann).key


def test_an_element_without_its_validator_is_undecipherable(made):
    _, opened = made
    assert opened.open(opened.seal(b"value")) == b"value"
    assert reader.element(opened.key, opened.seal(b"value")) == b"value"
    with pytest.raises(Undecipherable):
        opened.open(to_base64(reader.aes_seal(opened.key, b"value")))
