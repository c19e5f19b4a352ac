"""The ciphers that everything else is made of.

Facts: iCure encrypts with AES-CBC and PKCS#7 padding, IV in front, no tag
(https://www.rfc-editor.org/rfc/rfc5652#section-6.3), and exchanges keys with RSA-OAEP
(https://www.rfc-editor.org/rfc/rfc8017#section-7.1). What only the bridge reads is sealed with AES-256-GCM.

Rule: AES-CBC proves nothing. A wrong key gives plausible padding about once in 256, so the caller of
`cbc_decrypt` checks the shape of what came out before trusting it.
"""

from __future__ import annotations

import binascii
import hmac
import os

from cryptography.exceptions import InvalidTag as InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

BLOCK = 16
AES_KEY_SIZES = (16, 24, 32)
NONCE, TAG = 12, 16


class Undecipherable(ValueError):
    """This key does not open this text."""


def cbc_encrypt(key: bytes, plain: bytes) -> bytes:
    """Returns IV ‖ ciphertext under a fresh IV."""
    iv = os.urandom(BLOCK)
    pad = BLOCK - len(plain) % BLOCK
    return iv + Cipher(AES(key), CBC(iv)).encryptor().update(plain + bytes((pad,)) * pad)


def cbc_decrypt(key: bytes, sealed: bytes) -> bytes:
    """Returns what IV ‖ ciphertext hides. Raises `Undecipherable`, though not for every wrong key."""
    if len(key) not in AES_KEY_SIZES or len(sealed) < 2 * BLOCK or len(sealed) % BLOCK:
        raise Undecipherable
    padded = Cipher(AES(key), CBC(sealed[:BLOCK])).decryptor().update(sealed[BLOCK:])
    pad = padded[-1]
    if not 1 <= pad <= BLOCK or padded[-pad:] != bytes((pad,)) * pad:
        raise Undecipherable
    return padded[:-pad]


def seal(key: bytes, plain: bytes, aad: bytes) -> bytes:
    """Returns nonce ‖ ciphertext ‖ tag (AES-GCM), to be opened only beside the same `aad`."""
    nonce = os.urandom(NONCE)
    return nonce + AESGCM(key).encrypt(nonce, plain, aad)


def open_sealed(key: bytes, sealed: bytes, aad: bytes) -> bytes:
    """Returns what `seal` hid. Raises `cryptography.exceptions.InvalidTag` for anything else."""
    if len(sealed) < NONCE + TAG:
        raise InvalidTag
    return AESGCM(key).decrypt(sealed[:NONCE], sealed[NONCE:], aad)


def hkdf(secret: bytes, info: bytes) -> bytes:
    """Returns the 32-byte HKDF-SHA-256 of a strong secret, without salt.

    https://www.rfc-editor.org/rfc/rfc5869
    """
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def hmac_sha512(key: bytes, data: bytes) -> bytes:
    """Returns the 64-byte HMAC."""
    return hmac.digest(key, data, "sha512")


def to_base64(data: bytes) -> str:
    """Returns standard base64 with padding."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def from_base64(text: object) -> bytes:
    """Returns the bytes. Raises `Undecipherable` for what is not base64."""
    try:
        return binascii.a2b_base64(text)  # type: ignore[arg-type]
    except (binascii.Error, TypeError, ValueError):
        raise Undecipherable from None


def from_hex(text: object) -> bytes:
    """Returns the bytes. Raises `Undecipherable` for what is not hex."""
    try:
        return binascii.unhexlify(text)  # type: ignore[arg-type]
    except (binascii.Error, TypeError, ValueError):
        raise Undecipherable from None
