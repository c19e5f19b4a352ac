"""A second reading of iCure's encryption, from its description alone: it shares no line with `bridge.crypto`."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

HASHES = {"sha256": hashes.SHA256, "sha1": hashes.SHA1}


def unwrap(pkcs8: bytes, oaep: str, box: str) -> bytes:
    """RSA-OAEP with the given hash, for the mask too."""
    key = serialization.load_der_private_key(pkcs8, None)
    kind = HASHES[oaep]
    return key.decrypt(base64.b64decode(box, validate=True), padding.OAEP(padding.MGF1(kind()), kind(), None))


def wrap(spki: bytes, oaep: str, plain: bytes) -> bytes:
    key = serialization.load_der_public_key(spki)
    kind = HASHES[oaep]
    return key.encrypt(plain, padding.OAEP(padding.MGF1(kind()), kind(), None))


def aes(key: bytes, sealed: bytes) -> bytes:
    decryptor = Cipher(algorithms.AES(key), modes.CBC(sealed[:16])).decryptor()
    padded = decryptor.update(sealed[16:]) + decryptor.finalize()
    unpadder = PKCS7(128).unpadder()
    return unpadder.update(padded) + unpadder.finalize()


def aes_seal(key: bytes, plain: bytes, iv: bytes = bytes(range(16))) -> bytes:
    padder = PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return iv + encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()


def element(key: bytes, text: str) -> bytes:
    """One element of a secure delegation."""
    plain = aes(key, base64.b64decode(text, validate=True))
    assert plain[:4] == b"Cure"
    return plain[4:]


def secrets_of(document: dict[str, Any], pkcs8: bytes, oaep: str, fingerprint: str) -> dict[str, bytes]:
    names = ("exchangeKey", "accessControlSecret", "sharedSignatureKey")
    return {name: unwrap(pkcs8, oaep, document[name][fingerprint]) for name in names}


def access_control_key(secret: bytes, type_name: str) -> bytes:
    return hashlib.sha256((secret.hex() + type_name).encode()).digest()[:16]


def delegation_key(secret: bytes, type_name: str) -> str:
    return hashlib.sha256(access_control_key(secret, type_name)).hexdigest()


def shared_signature(document: dict[str, Any], secrets: dict[str, bytes]) -> str:
    fingerprints = ",".join(f'"{name}"' for name in sorted(document["exchangeKey"]))
    text = (
        f'[["delegator","{document["delegator"]}"],["delegate","{document["delegate"]}"]'
        f',["exchangeKey","{secrets["exchangeKey"].hex()}"]'
        f',["accessControlSecret","AccessControlSecret(s={secrets["accessControlSecret"].hex()})"]'
        f',["publicKeysFingerprints",[{fingerprints}]]'
    )
    return base64.b64encode(hmac.digest(secrets["sharedSignatureKey"], text.encode(), "sha512")).decode()


def delegator_signature(secrets: dict[str, bytes], pkcs8: bytes) -> str:
    signed = hashlib.sha256(secrets["sharedSignatureKey"]).digest()
    return base64.b64encode(hmac.digest(hashlib.sha512(pkcs8).digest(), signed, "sha512")).decode()


def content(value: Any, key: bytes) -> Any:
    """Puts everything encrypted back in its place."""
    if isinstance(value, list):
        return [content(part, key) for part in value]
    if not isinstance(value, dict):
        return value
    opened = {name: content(part, key) for name, part in value.items() if name != "encryptedSelf"}
    if "encryptedSelf" in value:
        opened |= json.loads(aes(key, base64.b64decode(value["encryptedSelf"], validate=True)))
    return opened
