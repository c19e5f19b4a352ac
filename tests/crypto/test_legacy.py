"""What iCure's older clients wrote, beyond what the vectors hold."""

from __future__ import annotations

import json

import pytest

from bridge.crypto import envelope, legacy
from bridge.crypto.keyring import Keyring
from bridge.crypto.keys import OwnKey
from bridge.crypto.primitives import to_base64
from bridge.errors import KeyMissing

from . import reader

EXCHANGE_KEY = bytes(range(32))
KEY_TEXT = "28ee3984-7e09-4ef0-b962-a298a7354398"
ENTITY_KEY = bytes.fromhex(KEY_TEXT.replace("-", ""))


@pytest.fixture
def ann(world, key):
    return world.settle(key(0), oaep="sha1")


@pytest.fixture
def bob(world, key):
    return world.settle(key(1), oaep="sha1")


def box(person, plain: bytes = EXCHANGE_KEY) -> str:
    (own,) = person.keys
    return reader.wrap(bytes.fromhex(own.private.spki_hex), own.oaep, plain).hex()


def share(world, giver, taker, **boxes: str) -> None:
    """Puts an exchange key on the giver, in `aesExchangeKeys`."""
    name = giver.keys[0].private.spki_hex
    world.stubs[giver.id]["aesExchangeKeys"] = {name: {taker.id: boxes}}


def delegation(giver, taker, text: str, key: bytes = EXCHANGE_KEY) -> dict:
    sealed = reader.aes_seal(key, text.encode()).hex()
    return {taker.id: [{"owner": giver.id, "delegatedTo": taker.id, "key": sealed}]}


def entity_for(giver, taker, key_text: str = KEY_TEXT, key: bytes = ENTITY_KEY, **members) -> dict:
    return {
        "id": "e",
        "delegations": delegation(giver, taker, "e:secret-id"),
        "encryptionKeys": delegation(giver, taker, f"e:{key_text}"),
        "cryptedForeignKeys": delegation(giver, taker, "merged:patient-id"),
        "encryptedSelf": to_base64(reader.aes_seal(key, b'{"note":"secret"}')),
        **members,
    }


def note(ring: Keyring, entity: dict) -> str:
    return envelope.decrypt(entity, ring.open(entity, "Patient").entity_keys)["note"]


READER_NAMES = {
    "short name": lambda own: own.private.fingerprint_v1,
    "whole key": lambda own: own.private.spki_hex,
    "no name": lambda own: "",
}


@pytest.mark.parametrize("name_of", READER_NAMES.values(), ids=READER_NAMES)
def test_a_reader_key_is_named_in_three_ways(name_of, world, ann, bob):
    share(world, ann, bob, **{name_of(bob.keys[0]): box(bob)})
    entity = entity_for(ann, bob)
    opened = bob.keyring(world).open(entity, "Patient")
    assert opened.entity_keys == (ENTITY_KEY,)
    assert (opened.secret_ids, opened.owning_ids) == (("secret-id",), ("patient-id",))
    assert note(bob.keyring(world), entity) == "secret"


def test_who_gave_reads_too(world, ann, bob):
    share(world, ann, bob, **{"": box(ann)})
    assert note(ann.keyring(world), entity_for(ann, bob)) == "secret"


@pytest.mark.parametrize("side", [0, 1], ids=["giver", "taker"])
def test_the_oldest_place_of_exchange_keys_serves_both(side, world, ann, bob):
    world.stubs[ann.id]["hcPartyKeys"] = {bob.id: [box(ann), box(bob)]}
    assert note((ann, bob)[side].keyring(world), entity_for(ann, bob)) == "secret"


def test_a_newer_key_reads_with_its_own_hash(world, ann, key):
    new = world.settle(key(2), oaep="sha256")
    share(world, ann, new, **{new.keys[0].private.fingerprint_v1: box(new)})
    assert note(new.keyring(world), entity_for(ann, new)) == "secret"


@pytest.mark.parametrize("key_text", ["ab" * 32, "ab" * 16], ids=["32 bytes", "16 bytes without dashes"])
def test_entity_keys_of_both_sizes_open(key_text, world, ann, bob):
    share(world, ann, bob, **{"": box(bob)})
    entity = entity_for(ann, bob, key_text, bytes.fromhex(key_text))
    assert note(bob.keyring(world), entity) == "secret"


@pytest.mark.parametrize("key_text", ["no-key", "ab" * 20, "one:two"])
def test_what_is_no_key_is_none(key_text, world, ann, bob):
    share(world, ann, bob, **{"": box(bob)})
    assert bob.keyring(world).open(entity_for(ann, bob, key_text), "Patient").entity_keys == ()


@pytest.mark.parametrize("text", ["secret-id", "e:secret:id", "e:s\u00e9cret", ""])
def test_a_value_of_another_shape_is_none(text, world, ann, bob):
    share(world, ann, bob, **{"": box(bob)})
    entity = entity_for(ann, bob, delegations=delegation(ann, bob, text))
    assert bob.keyring(world).open(entity, "Patient").secret_ids == ()


def test_the_older_place_is_not_opened_when_the_newer_was(world, ann, bob, key):
    share(world, ann, bob, **{"": box(bob)})
    world.stubs[ann.id]["hcPartyKeys"] = {bob.id: [box(ann), box(bob)]}
    key(1).used = 0
    assert note(bob.keyring(world), entity_for(ann, bob)) == "secret"
    assert key(1).used == 1


def test_a_delegation_under_another_exchange_key_is_passed_over(world, ann, bob):
    share(world, ann, bob, **{"": box(bob)})
    entity = entity_for(ann, bob)
    other = delegation(ann, bob, f"e:{KEY_TEXT}", bytes(32))[bob.id]
    entity["encryptionKeys"][bob.id] = [*other, *entity["encryptionKeys"][bob.id]]
    assert bob.keyring(world).open(entity, "Patient").entity_keys == (ENTITY_KEY,)


def test_the_giver_is_asked_for_once(world, ann, bob):
    share(world, ann, bob, **{"": box(bob)})
    ring = bob.keyring(world)
    for _ in range(3):
        assert note(ring, entity_for(ann, bob)) == "secret"
    assert world.calls == {"data_owner": 1}


def test_very_old_data_opens_with_its_secret_id(world, ann, bob):
    share(world, ann, bob, **{"": box(bob)})
    entity = entity_for(ann, bob, encryptionKeys={}, delegations=delegation(ann, bob, f"e:{KEY_TEXT}"))
    assert note(bob.keyring(world), entity) == "secret"


def test_a_secret_id_is_no_key_where_nothing_is_encrypted(world, ann, bob):
    share(world, ann, bob, **{"": box(bob)})
    entity = {"id": "e", "delegations": delegation(ann, bob, f"e:{KEY_TEXT}")}
    opened = bob.keyring(world).open(entity, "Patient")
    assert opened.secret_ids == (KEY_TEXT,)
    with pytest.raises(KeyMissing):
        _ = opened.entity_key


def test_what_is_not_shared_does_not_open(world, ann, bob, key):
    share(world, ann, bob, **{"": box(bob)})
    entity = entity_for(ann, bob)
    assert world.settle(key(2)).keyring(world).open(entity, "Patient").entity_keys == ()
    assert not world.calls, "who has no part in it need not ask"
    wrong = Keyring(bob.id, False, {bob.id: [OwnKey(key(3), "sha1")]}, world)
    assert wrong.open(entity, "Patient").entity_keys == ()


def test_an_entity_shared_in_both_ways_opens_in_the_newer_and_lists_both(world, ann, bob):
    share(world, ann, bob, **{"": box(bob)})
    metadata = envelope.new_metadata(ann.keyring(world), "Patient", delegates=[bob.id])
    entity = entity_for(ann, bob, securityMetadata=metadata.security_metadata)
    first = bob.keyring(world).open(entity, "Patient")
    whole = bob.keyring(world).open(entity, "Patient", whole=True)
    assert first.secret_ids == (metadata.secret_id,)
    assert whole.secret_ids == (metadata.secret_id, "secret-id")
    assert whole.entity_keys == (metadata.entity_key, ENTITY_KEY)
    assert envelope.decrypt(entity, whole.entity_keys)["note"] == "secret"


def test_a_key_in_another_delegation_is_tried_when_the_first_does_not_fit(world, ann, bob):
    share(world, ann, bob, **{"": box(bob)})
    metadata = envelope.new_metadata(ann.keyring(world), "Patient", delegates=[bob.id])
    entity = entity_for(ann, bob, securityMetadata=metadata.security_metadata)
    plain, opened = envelope.open_entity(bob.keyring(world), entity, "Patient")
    assert plain["note"] == "secret"
    assert opened.entity_keys == (metadata.entity_key, ENTITY_KEY)
    del entity["encryptionKeys"]
    with pytest.raises(KeyMissing):
        envelope.open_entity(bob.keyring(world), entity, "Patient")


CONTENT = {"en": {"stringValue": "secret"}}


@pytest.mark.parametrize("trailing", [b"", b"\0\0\0"], ids=["plain", "with NULs behind"])
def test_the_oldest_services_open(trailing):
    sealed = reader.aes_seal(ENTITY_KEY, json.dumps(CONTENT).encode() + trailing)
    service = {"id": "s", "label": "l", "encryptedContent": to_base64(sealed)}
    contact = {"id": "c", "services": [service]}
    plain = {"id": "s", "label": "l", "content": CONTENT}
    assert envelope.decrypt(contact, [bytes(16), ENTITY_KEY]) == {"id": "c", "services": [plain]}
    with pytest.raises(KeyMissing):
        envelope.decrypt(contact, [bytes(16)])


def test_only_entities_with_older_maps_are_legacy():
    assert not legacy.is_legacy({"id": "e", "delegations": {}, "securityMetadata": {}})
    assert legacy.is_legacy({"id": "e", "delegations": {"a": []}})
