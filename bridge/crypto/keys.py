"""RSA keys, what names them, and where a data owner announces them.

Facts: a key is known by the hex of its SubjectPublicKeyInfo DER
(https://www.rfc-editor.org/rfc/rfc5280#section-4.1); a fingerprint is a piece of that hex. iCure takes RSA with
exponent 65537 only. Which hash OAEP uses belongs to the place where the key is announced, not to the ciphertext.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
)

from bridge.crypto.primitives import Undecipherable, from_base64
from bridge.errors import BusinessRule

OaepHash = Literal["sha256", "sha1"]

EXPONENT = 65537
BITS = range(2048, 8192 + 1)
LONGEST_TEXT = 32_768
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+")


def _padding(algorithm: hashes.HashAlgorithm) -> OAEP:
    return OAEP(mgf=MGF1(algorithm), algorithm=algorithm, label=None)


_PADDING: Mapping[OaepHash, OAEP] = {
    "sha256": _padding(hashes.SHA256()),
    "sha1": _padding(hashes.SHA1()),  # noqa: S303  older keys are announced for it
}


def fingerprint(name: str) -> str:
    """Returns the fingerprint (22 hex characters, "v2") of a key named by SPKI hex or by either fingerprint."""
    return name[-32:-10] if len(name) >= 32 else name


class PrivateKey:
    """An RSA private key that tells nothing but its fingerprint."""

    __slots__ = ("_key", "fingerprint", "fingerprint_v1", "pkcs8_der", "signing_key", "spki_hex")

    def __init__(self, key: RSAPrivateKey) -> None:
        self._key = key
        self.pkcs8_der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.spki_hex = public.hex()
        self.fingerprint = fingerprint(self.spki_hex)
        self.fingerprint_v1 = self.spki_hex[-32:]
        self.signing_key = hashlib.sha512(self.pkcs8_der).digest()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Returns the key that is written in hex (PKCS#8 DER), PEM or base64 (DER).

        Raises `BusinessRule` when it is none, or none that iCure takes: RSA of 2048 bits or more, exponent 65537.
        """
        key = _load(text.strip())
        if not isinstance(key, RSAPrivateKey):
            raise BusinessRule("This is not an RSA key.")
        if key.public_key().public_numbers().e != EXPONENT:
            raise BusinessRule("The key's public exponent is not 65537.")
        if key.key_size not in BITS:
            raise BusinessRule(f"The key has not between {BITS[0]} and {BITS[-1]} bits.")
        return cls(key)

    @classmethod
    def generate(cls) -> Self:
        """Returns a new key of 2048 bits, the size that iCure's clients make."""
        return cls(generate_private_key(EXPONENT, 2048))

    def decrypt(self, ciphertext: bytes, oaep: OaepHash) -> bytes:
        """Returns the plain bytes. Raises `Undecipherable`."""
        try:
            return self._key.decrypt(ciphertext, _PADDING[oaep])
        except ValueError:
            raise Undecipherable from None

    def __repr__(self) -> str:
        """Tells the fingerprint only."""
        return f"PrivateKey({self.fingerprint})"


def _load(text: str) -> object:
    if len(text) > LONGEST_TEXT:
        raise BusinessRule("This is too long for a private key.")
    try:
        if text.startswith("-----BEGIN"):
            return load_pem_private_key(text.encode(), None)
        return load_der_private_key(bytes.fromhex(text) if _HEX.fullmatch(text) else from_base64(text), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BusinessRule(
            "This is not a private key: hex of PKCS#8 DER, PEM or base64 of DER is read, without a password."
        ) from None


@dataclass(frozen=True, slots=True, repr=False)
class PublicKey:
    """A key to encrypt to, with the OAEP hash under which it is announced."""

    key: RSAPublicKey
    oaep: OaepHash
    fingerprint: str

    @classmethod
    def parse(cls, spki_hex: str, oaep: OaepHash) -> Self:
        """Returns the key. Raises `ValueError` when it is none that iCure takes."""
        try:
            key = load_der_public_key(bytes.fromhex(spki_hex))
        except UnsupportedAlgorithm as e:
            raise ValueError("not a known kind of key") from e
        if not isinstance(key, RSAPublicKey):
            raise ValueError("not an RSA key")
        if key.key_size not in BITS or key.public_numbers().e != EXPONENT:
            raise ValueError("not an RSA key that iCure takes")
        return cls(key, oaep, fingerprint(spki_hex))

    def encrypt(self, plain: bytes) -> bytes:
        """Returns the ciphertext."""
        return self.key.encrypt(plain, _PADDING[self.oaep])

    def __repr__(self) -> str:
        """Tells the fingerprint only."""
        return f"PublicKey({self.fingerprint}, {self.oaep})"


@dataclass(frozen=True, slots=True)
class OwnKey:
    """A private key together with the OAEP hash under which its data owner announces it."""

    private: PrivateKey
    oaep: OaepHash

    @property
    def fingerprint(self) -> str:
        """The "v2" fingerprint."""
        return self.private.fingerprint

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return PublicKey.parse(self.private.spki_hex, self.oaep)

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Returns the plain bytes. Raises `Undecipherable`."""
        return self.private.decrypt(ciphertext, self.oaep)


def announced_keys(data_owner: Mapping[str, Any]) -> dict[str, OaepHash]:
    """Returns the OAEP hash of every key, by SPKI hex, that a data owner or its stub announces.

    A key announced for both hashes, which iCure's clients call an error, is taken for SHA-256.
    """
    older = [data_owner.get("publicKey"), *(data_owner.get("aesExchangeKeys") or {})]
    newer = data_owner.get("publicKeysForOaepWithSha256") or ()
    found: dict[str, OaepHash] = dict.fromkeys(_hex(older), "sha1")
    found.update(dict.fromkeys(_hex(newer), "sha256"))
    return found


def _hex(texts: Iterable[Any]) -> list[str]:
    return [text.lower() for text in texts if isinstance(text, str) and _HEX.fullmatch(text)]


def public_keys(data_owner: Mapping[str, Any]) -> list[PublicKey]:
    """Returns the announced keys that can be encrypted to; what is no usable key is left out."""
    found = []
    for spki_hex, oaep in announced_keys(data_owner).items():
        try:
            found.append(PublicKey.parse(spki_hex, oaep))
        except ValueError:
            continue
    return found
