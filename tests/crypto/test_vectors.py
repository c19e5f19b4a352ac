"""Everything that iCure's own clients wrote opens, and what is deterministic comes out to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from bridge.crypto import envelope, exchange, legacy
from bridge.crypto.exchange import ExchangeKey
from bridge.crypto.keyring import Keyring
from bridge.crypto.keys import OwnKey, PrivateKey, announced_keys
from bridge.errors import KeyMissing

from .world import World

FOLDER = Path(__file__).parents[1] / "data" / "vectors"
FILES = {path.stem: orjson.loads(path.read_bytes()) for path in sorted(FOLDER.glob("*.json"))}
TYPES = {"patient": "Patient", "contact": "Contact", "contactCreatedByPatient": "Contact"}
CREATOR_ID = FILES["modern-own"]["keyPairs"][0]["dataOwnerId"]
PATIENT_ID = FILES["modern-own"]["patient"]["asStored"]["id"]
METADATA = {
    "rev",
    "securityMetadata",
    "delegations",
    "encryptionKeys",
    "cryptedForeignKeys",
    "secretForeignKeys",
}

PAIRS = {pair["dataOwnerId"]: pair for file in FILES.values() for pair in file["keyPairs"]}
EXCHANGE = {x["entity"]["id"]: x for file in FILES.values() for x in file.get("exchangeData", ())}
MAPS = {x["entity"]["id"]: x for file in FILES.values() for x in file.get("exchangeDataMaps", ())}


def own_key(owner_id: str) -> OwnKey:
    pair = PAIRS[owner_id]
    return OwnKey(PrivateKey.parse(pair["privateKeyPkcs8Hex"]), pair["oaepHash"])


@pytest.fixture(scope="module")
def world() -> World:
    stubs = {owner["id"]: owner for file in FILES.values() for owner in file["dataOwners"]}
    return World(
        stubs=stubs,
        anonymous_ids={PATIENT_ID},
        stored={i: x["entity"] for i, x in EXCHANGE.items()},
        maps={i: x["entity"] for i, x in MAPS.items()},
    )


def keyring(owner_id: str, world: World) -> Keyring:
    return Keyring(owner_id, owner_id == PATIENT_ID, {owner_id: [own_key(owner_id)]}, world)


def can_read(owner_id: str, name: str) -> bool:
    """The contact that the patient made was shared with the first key pair's owner alone."""
    return name != "contactCreatedByPatient" or owner_id in (PATIENT_ID, CREATOR_ID)


READINGS = [
    (file, name, pair["dataOwnerId"])
    for file in FILES
    for pair in FILES[file]["keyPairs"]
    for name in TYPES
    if name in FILES[file]
]


def expected_secrets(entity: dict[str, Any], owner_id: str) -> tuple[Any, ...]:
    if "decryptedBy" in entity:
        by = entity["decryptedBy"][owner_id]
        return by["entityKeysHex"], by["secretIds"], by["owningEntityIds"]
    return tuple(entity[f"decrypted{part}"] for part in ("EntityKeysHex", "SecretIds", "OwningEntityIds"))


def test_there_are_all_four_files():
    assert sorted(FILES) == ["legacy-api-6", "modern-anonymous-and-sha1", "modern-own", "modern-shared"]


@pytest.mark.parametrize("whole", [False, True], ids=["first that fits", "whole"])
@pytest.mark.parametrize(("file", "name", "owner_id"), [r for r in READINGS if can_read(r[2], r[1])])
def test_every_key_holder_opens_every_entity(file, name, owner_id, whole, world):
    entity = FILES[file][name]
    opened = keyring(owner_id, world).open(entity["asStored"], TYPES[name], whole=whole)
    found = [key.hex() for key in opened.entity_keys], [*opened.secret_ids], [*opened.owning_ids]
    assert found == expected_secrets(entity, owner_id)
    plain = envelope.decrypt(entity["asStored"], opened.entity_keys)
    assert {k: v for k, v in plain.items() if k not in METADATA} == entity["expectedDecrypted"]


@pytest.mark.parametrize(("file", "name", "owner_id"), [r for r in READINGS if not can_read(r[2], r[1])])
def test_who_holds_no_delegation_opens_nothing(file, name, owner_id, world):
    stored = FILES[file][name]["asStored"]
    opened = keyring(owner_id, world).open(stored, TYPES[name], whole=True)
    assert not (opened.entity_keys or opened.secret_ids or opened.owning_ids)
    with pytest.raises(KeyMissing):
        envelope.decrypt(stored, opened.entity_keys)


@pytest.mark.parametrize(("file", "name"), sorted({r[:2] for r in READINGS}))
def test_what_is_encrypted_again_says_the_same(file, name):
    entity = FILES[file][name]
    owner_id = FILES[file]["keyPairs"][0]["dataOwnerId"]
    key = bytes.fromhex(expected_secrets(entity, owner_id)[0][0])
    again = envelope.encrypt_entity(envelope.decrypt(entity["asStored"], [key]), TYPES[name], key)
    assert {k: v for k, v in envelope.decrypt(again, [key]).items() if k not in METADATA} == entity[
        "expectedDecrypted"
    ]
    visible = {k for k in entity["asStored"] if file.startswith("modern")} - {"created", "modified"}
    assert visible <= again.keys()


@pytest.mark.parametrize("owner_id", PAIRS)
def test_keys_have_the_names_and_hashes_of_the_vectors(owner_id, world):
    pair, key = PAIRS[owner_id], own_key(owner_id).private
    assert key.spki_hex == pair["publicKeySpkiHex"]
    assert (key.fingerprint_v1, key.fingerprint) == (pair["fingerprintV1"], pair["fingerprintV2"])
    assert key.pkcs8_der.hex() == pair["privateKeyPkcs8Hex"]
    if owner_id != PATIENT_ID:
        assert announced_keys(world.stubs[owner_id]) == {key.spki_hex: pair["oaepHash"]}


def test_a_patient_entity_announces_keys_like_a_stub():
    patient = FILES["modern-anonymous-and-sha1"]["patient"]["asStored"]
    assert announced_keys(patient) == {PAIRS[PATIENT_ID]["publicKeySpkiHex"]: "sha256"}


SIDES = [(i, x["entity"][side]) for i, x in EXCHANGE.items() for side in ("delegator", "delegate")]


@pytest.mark.parametrize(("exchange_id", "owner_id"), dict.fromkeys(SIDES))
def test_exchange_data_opens_from_both_sides(exchange_id, owner_id):
    vector = EXCHANGE[exchange_id]
    opened = ExchangeKey(vector["entity"], [own_key(owner_id)])
    assert opened.key.hex() == vector["decrypted"]["exchangeKeyHex"]
    assert opened.access_control_secret.hex() == vector["decrypted"]["accessControlSecretHex"]
    for type_name, derived in vector["perEntityType"].items():
        assert opened.access_control_key(type_name).hex() == derived["accessControlKeyHex"]
        assert opened.delegation_key(type_name) == derived["secureDelegationKey"]


@pytest.mark.parametrize("exchange_id", EXCHANGE)
def test_signatures_come_out_to_the_byte(exchange_id):
    vector = EXCHANGE[exchange_id]
    entity, plain = vector["entity"], {k: bytes.fromhex(v) for k, v in vector["decrypted"].items()}
    text = exchange.signed_text(
        entity["delegator"],
        entity["delegate"],
        plain["exchangeKeyHex"],
        plain["accessControlSecretHex"],
        entity["exchangeKey"],
    )
    assert text.decode() == vector["sharedSignatureInputUtf8"]
    key = own_key(entity["delegator"])
    signature = exchange.delegator_signature(key, bytes.fromhex(vector["delegatorSignatureInputHex"]))
    assert {key.fingerprint: signature} == entity["delegatorSignature"]
    opened = ExchangeKey(entity, [key])
    assert opened.verifies(entity, entity["delegator"], entity["delegate"], [key])


@pytest.mark.parametrize("exchange_id", EXCHANGE)
def test_only_the_delegator_verifies(exchange_id):
    entity = EXCHANGE[exchange_id]["entity"]
    if entity["delegator"] != entity["delegate"]:
        key = own_key(entity["delegate"])
        opened = ExchangeKey(entity, [key])
        assert not opened.verifies(entity, entity["delegator"], entity["delegate"], [key])


@pytest.mark.parametrize("name", MAPS)
def test_exchange_data_maps_tell_the_id_to_the_named_side(name):
    vector = MAPS[name]
    assert (
        exchange.open_map(vector["entity"], [own_key(vector["readableWithKeyOf"])])
        == vector["decryptedExchangeDataId"]
    )


def test_the_access_control_header_comes_out_to_the_byte(world):
    headers = FILES["modern-anonymous-and-sha1"]["accessControlKeysHeaderForPatientDataOwner"]
    ring = keyring(PATIENT_ID, world)
    assert {name: ring.access_control_header(name) for name in headers} == {
        name: [value] for name, value in headers.items()
    }


def test_a_data_owner_with_a_name_sends_no_access_control_header(world):
    assert keyring(CREATOR_ID, world).access_control_header("Patient") == []


@pytest.mark.parametrize("field", ["aesExchangeKeys", "hcPartyKeys"])
@pytest.mark.parametrize("reader", [0, 1])
def test_legacy_exchange_keys_open_from_both_sides(reader, field):
    file = FILES["legacy-api-6"]
    shared = file["exchangeKeys"][1]
    owner = {"id": shared["delegator"], field: file["dataOwners"][0][field]}
    keys = [own_key(file["keyPairs"][reader]["dataOwnerId"])]
    found = [key.hex() for key in legacy.exchange_keys(owner, shared["delegate"], keys)]
    assert found == shared["exchangeKeysHex"]
