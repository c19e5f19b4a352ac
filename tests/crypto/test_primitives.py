from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from bridge.crypto import primitives
from bridge.crypto.primitives import Undecipherable

from . import reader

KEYS = st.sampled_from((16, 24, 32)).flatmap(lambda size: st.binary(min_size=size, max_size=size))


@given(KEYS, st.binary(max_size=100))
def test_cbc_opens_what_it_sealed_and_so_does_another_reader(key, plain):
    sealed = primitives.cbc_encrypt(key, plain)
    assert primitives.cbc_decrypt(key, sealed) == reader.aes(key, sealed) == plain


@given(KEYS, st.binary(max_size=100))
def test_cbc_opens_what_another_writer_sealed(key, plain):
    assert primitives.cbc_decrypt(key, reader.aes_seal(key, plain)) == plain


def test_every_text_has_its_own_iv():
    assert len({primitives.cbc_encrypt(bytes(32), b"same")[:16] for _ in range(50)}) == 50


NOT_CBC = {
    "empty": (bytes(32), b""),
    "only an IV": (bytes(32), bytes(16)),
    "half a block": (bytes(32), bytes(40)),
    "a key of 20 bytes": (bytes(20), bytes(32)),
    "padding of 0": (bytes(32), reader.aes_seal(bytes(32), bytes(16))[:32]),
}


@pytest.mark.parametrize(("key", "sealed"), NOT_CBC.values(), ids=NOT_CBC)
def test_what_is_no_cbc_text_is_undecipherable(key, sealed):
    with pytest.raises(Undecipherable):
        primitives.cbc_decrypt(key, sealed)


@given(st.binary(max_size=100), st.binary(max_size=20))
def test_a_box_opens_beside_the_same_words_only(plain, aad):
    sealed = primitives.seal(bytes(32), plain, aad)
    assert primitives.open_sealed(bytes(32), sealed, aad) == plain
    for key, box, words in (
        (bytes(31) + b"\1", sealed, aad),
        (bytes(32), sealed[:-1] + bytes((sealed[-1] ^ 1,)), aad),
        (bytes(32), sealed, aad + b"!"),
        (bytes(32), sealed[:20], aad),
        (bytes(32), b"", aad),
    ):
        with pytest.raises(InvalidTag):
            primitives.open_sealed(key, box, words)


def test_hkdf_is_that_of_the_rfc():
    """RFC 5869, appendix A.3: no salt, no info; the first 32 of its 42 bytes."""
    expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
    assert primitives.hkdf(bytes((0x0B,)) * 22, b"").hex() == expected
    assert primitives.hkdf(b"secret", b"one") != primitives.hkdf(b"secret", b"two")


@pytest.mark.parametrize("text", [None, 1, "a", "é", ["aGk="]], ids=repr)
def test_what_is_no_base64_is_undecipherable(text):
    with pytest.raises(Undecipherable):
        primitives.from_base64(text)


@pytest.mark.parametrize("text", [None, 1, "a", "zz", "é"], ids=repr)
def test_what_is_no_hex_is_undecipherable(text):
    with pytest.raises(Undecipherable):
        primitives.from_hex(text)
