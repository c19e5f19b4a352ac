from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from bridge.crypto.keys import OwnKey, PrivateKey, PublicKey, announced_keys, fingerprint, public_keys
from bridge.crypto.primitives import Undecipherable
from bridge.errors import BridgeError

from . import reader


def pem(key: PrivateKey, shape: PrivateFormat = PrivateFormat.PKCS8) -> str:
    native = load_der_private_key(key.pkcs8_der, None)
    return native.private_bytes(Encoding.PEM, shape, NoEncryption()).decode()


WRITTEN = {
    "hex": lambda key: key.pkcs8_der.hex(),
    "HEX with blanks around": lambda key: f"\n {key.pkcs8_der.hex().upper()} \n",
    "PEM": pem,
    "older PEM": lambda key: pem(key, PrivateFormat.TraditionalOpenSSL),
    "base64": lambda key: base64.b64encode(key.pkcs8_der).decode(),
    "base64 in lines": lambda key: base64.encodebytes(key.pkcs8_der).decode(),
}


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
def test_a_key_is_read_however_it_is_written(write, a_key):
    parsed = PrivateKey.parse(write(a_key))
    assert (parsed.pkcs8_der, parsed.spki_hex) == (a_key.pkcs8_der, a_key.spki_hex)


def der_hex(native) -> str:
    return native.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()).hex()


REFUSED = {
    "nothing": (lambda key: "", "not a private key"),
    "words": (lambda key: "not a key at all", "not a private key"),
    "a public key": (lambda key: key.spki_hex, "not a private key"),
    "half a key": (lambda key: key.pkcs8_der.hex()[:1000], "not a private key"),
    "broken PEM": (
        lambda key: "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
        "not a private key",
    ),
    "with a password": (
        lambda key: (
            load_der_private_key(key.pkcs8_der, None)
            .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
            .decode()
        ),
        "without a password",
    ),
    "an elliptic curve": (lambda key: der_hex(ec.generate_private_key(ec.SECP256R1())), "not an RSA key"),
    "exponent 3": (lambda key: der_hex(rsa.generate_private_key(3, 2048)), "exponent"),
    "1024 bits": (lambda key: der_hex(rsa.generate_private_key(65537, 1024)), "bits"),
    "a long text": (lambda key: "ab" * 40_000, "too long"),
}


@pytest.mark.parametrize(("write", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_key_for_icure_is_refused_in_words(write, words, a_key):
    text = write(a_key)
    with pytest.raises(BridgeError, match=words) as refused:
        PrivateKey.parse(text)
    assert refused.value.status == 422
    assert refused.value.__cause__ is None
    assert not text or text not in str(refused.value)


def test_fingerprints_are_pieces_of_the_public_key(a_key):
    assert a_key.spki_hex.endswith(a_key.fingerprint_v1) and a_key.fingerprint_v1.endswith("0203010001")
    assert a_key.fingerprint == a_key.fingerprint_v1[:22]
    for name in (a_key.spki_hex, a_key.fingerprint_v1, a_key.fingerprint):
        assert fingerprint(name) == a_key.fingerprint


@pytest.mark.parametrize("oaep", ["sha256", "sha1"])
def test_each_hash_opens_its_own_texts(oaep, a_key):
    own = OwnKey(a_key, oaep)
    assert own.decrypt(reader.wrap(bytes.fromhex(a_key.spki_hex), oaep, b"secret")) == b"secret"
    box = own.public.encrypt(b"secret")
    assert reader.unwrap(a_key.pkcs8_der, oaep, base64.b64encode(box).decode()) == b"secret"
    other = OwnKey(a_key, "sha1" if oaep == "sha256" else "sha256")
    with pytest.raises(Undecipherable):
        other.decrypt(box)


ANNOUNCED = {
    "nothing": ({}, {}),
    "nulls": ({"publicKey": None, "publicKeysForOaepWithSha256": None, "aesExchangeKeys": None}, {}),
    "new": ({"publicKeysForOaepWithSha256": ["aa", "bb"]}, {"aa": "sha256", "bb": "sha256"}),
    "old": ({"publicKey": "aa"}, {"aa": "sha1"}),
    "older": ({"publicKey": "AA", "aesExchangeKeys": {"bb": {}, "xaa": {}}}, {"aa": "sha1", "bb": "sha1"}),
    "both kinds": (
        {"publicKey": "aa", "publicKeysForOaepWithSha256": ["bb"]},
        {"aa": "sha1", "bb": "sha256"},
    ),
    "one key twice": ({"publicKey": "aa", "publicKeysForOaepWithSha256": ["aa"]}, {"aa": "sha256"}),
}


@pytest.mark.parametrize(("owner", "expected"), ANNOUNCED.values(), ids=ANNOUNCED)
def test_announced_keys_are_read_from_three_places(owner, expected):
    assert announced_keys(owner) == expected


def test_announced_keys_that_icure_would_not_take_are_never_encrypted_to(a_key):
    weak = rsa.generate_private_key(65537, 1024).public_key()
    curve = ec.generate_private_key(ec.SECP256R1()).public_key()
    others = [k.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex() for k in (weak, curve)]
    owner = {"publicKeysForOaepWithSha256": [*others, a_key.spki_hex, "00ff"]}
    assert [key.fingerprint for key in public_keys(owner)] == [a_key.fingerprint]
    with pytest.raises(ValueError, match="RSA"):
        PublicKey.parse(others[0], "sha256")
