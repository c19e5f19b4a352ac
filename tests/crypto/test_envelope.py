from __future__ import annotations

import copy
import json
import string
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.crypto import envelope
from bridge.crypto.manifest import DEFAULT_MANIFESTS, Manifest
from bridge.crypto.primitives import to_base64
from bridge.errors import KeyMissing

from . import reader

KEY = bytes(range(32))

NAMES = st.sampled_from(["a", "b", "c", "d", "notes", "content"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
JSON = st.recursive(
    SCALARS, lambda part: st.lists(part, max_size=3) | st.dictionaries(NAMES, part, max_size=4), max_leaves=15
)
ENTITIES = st.dictionaries(NAMES, JSON, max_size=5)
PATHS = ["a", "b.a", "b.c", "c[].a", "c[].b.*", "d.*.a", "d.*.b[].c", "notes[].*", "content.*"]
MANIFESTS = st.sets(st.sampled_from(PATHS)).map(Manifest.parse)


def without_nulls(value):
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value


@given(ENTITIES, MANIFESTS)
def test_what_is_encrypted_comes_back_here_and_elsewhere(entity, manifest):
    before = copy.deepcopy(entity)
    encrypted = envelope.encrypt(entity, KEY, manifest)
    assert entity == before
    kept = copy.deepcopy(encrypted)
    opened = envelope.decrypt(encrypted, [bytes(32), KEY])
    assert encrypted == kept
    assert without_nulls(opened) == without_nulls(reader.content(encrypted, KEY)) == without_nulls(entity)


@given(ENTITIES, MANIFESTS)
def test_nothing_that_a_manifest_names_stays_in_clear(entity, manifest):
    def check(part, inner):
        assert inner.whole.isdisjoint(part)
        assert not (inner.everything and part.keys() - {"encryptedSelf"})
        for name, (shape, below) in inner.inner.items():
            value = part.get(name)
            parts = [value] if shape == "object" else value if shape == "list" else (value or {}).values()
            for one in filter(None, parts or ()):
                check(one, below)

    check(envelope.encrypt(entity, KEY, manifest), manifest)


SHAPES = {
    "fields go in": (
        {"id": "e", "a": "x", "b": 1.0, "z": "clear"},
        ["a", "b"],
        {"id": "e", "z": "clear"},
        {"a": "x", "b": 1.0},
    ),
    "no field applies": ({"id": "e"}, ["a"], {"id": "e"}, {}),
    "null is left out": ({"id": "e", "a": None, "z": None}, ["a"], {"id": "e"}, {}),
    "null inside is left out": ({"a": {"b": None, "c": "null"}}, ["a"], {}, {"a": {"c": "null"}}),
    "null in a list stays": ({"a": [None, {"b": None}]}, ["a"], {}, {"a": [None, {}]}),
    "another shape is hidden whole": (
        {"c": "text", "d": ["text"]},
        ["c[].a", "d.*.a"],
        {},
        {"c": "text", "d": ["text"]},
    ),
    "a list of something else is hidden whole": (
        {"c": [{"a": 1}, "text"]},
        ["c[].a"],
        {},
        {"c": [{"a": 1}, "text"]},
    ),
}


@pytest.mark.parametrize(("entity", "paths", "clear", "hidden"), SHAPES.values(), ids=SHAPES)
def test_members_go_where_the_manifest_says(entity, paths, clear, hidden):
    encrypted = envelope.encrypt(entity, KEY, Manifest.parse(paths))
    box = encrypted.pop("encryptedSelf")
    assert encrypted == clear
    assert json.loads(reader.aes(KEY, reader.base64.b64decode(box))) == hidden


def test_nested_parts_carry_their_own_box():
    entity = {
        "notes": [{"id": "n", "markdown": {"en": "secret"}}, None],
        "d": {"x": {"a": 1, "z": 2}},
        "b": {"a": 1},
    }
    encrypted = envelope.encrypt(entity, KEY, Manifest.parse(["notes[].markdown", "d.*.a", "b.*"]))
    assert encrypted["notes"][0].keys() == {"id", "encryptedSelf"}
    assert encrypted["notes"][1] is None
    assert encrypted["d"]["x"].keys() == {"z", "encryptedSelf"}
    assert encrypted["b"].keys() == {"encryptedSelf"}
    assert envelope.decrypt(encrypted, [KEY]) == entity


def test_decrypted_members_win_over_clear_ones():
    box = to_base64(reader.aes_seal(KEY, b'{"note":"hidden"}'))
    assert envelope.decrypt({"note": "clear", "encryptedSelf": box}, [KEY]) == {"note": "hidden"}


def test_how_the_text_was_written_does_not_matter():
    text = b'\n{ "note" :\t"\\u00e9\\ud83d\\ude00" }\n\0\0'
    assert envelope.decrypt({"encryptedSelf": to_base64(reader.aes_seal(KEY, text))}, [KEY]) == {
        "note": "é😀"
    }


def test_boxes_inside_boxes_open_too():
    inner = to_base64(reader.aes_seal(KEY, b'{"note":"secret"}'))
    outer = to_base64(reader.aes_seal(KEY, json.dumps({"a": {"encryptedSelf": inner}}).encode()))
    assert envelope.decrypt({"encryptedSelf": outer}, [KEY]) == {"a": {"note": "secret"}}


def test_every_key_is_tried_for_every_part():
    other = bytes(16)
    parts = [{"encryptedSelf": to_base64(reader.aes_seal(k, b'{"a":1}'))} for k in (KEY, other, KEY, other)]
    assert envelope.decrypt({"parts": parts}, [other, KEY]) == {"parts": [{"a": 1}] * 4}


NOT_CONTENT = {
    "a list": b"[1]",
    "a text": b'"x"',
    "no JSON": b"{",
    "not UTF-8": b'{"a":"\xff"}',
    "nothing": b"",
}


@pytest.mark.parametrize("plain", NOT_CONTENT.values(), ids=NOT_CONTENT)
def test_only_an_object_is_content(plain):
    entity = {"id": "e", "encryptedSelf": to_base64(reader.aes_seal(KEY, plain))}
    with pytest.raises(KeyMissing):
        envelope.decrypt(entity, [KEY])


@pytest.mark.parametrize("box", ["é", "AAAA", to_base64(bytes(64)), 7, {"a": 1}], ids=repr)
def test_what_does_not_open_is_told_and_not_shown(box):
    with pytest.raises(KeyMissing) as told:
        envelope.decrypt({"note": "canary", "encryptedSelf": box}, [KEY, bytes(16)])
    assert "canary" not in str(told.value)


def test_what_is_nested_too_deeply_is_told():
    entity: dict = {}
    for _ in range(1000):
        entity = {"a": [entity]}
    with pytest.raises(KeyMissing, match="deep"):
        envelope.decrypt(entity, [KEY])


def test_nothing_encrypted_needs_no_key():
    assert envelope.decrypt({"id": "e", "notes": [{"a": 1}]}, []) == {"id": "e", "notes": [{"a": 1}]}


@pytest.mark.parametrize("member", ["encryptedSelf", "encryptedContent"])
def test_what_is_encrypted_already_is_refused_not_lost(member):
    with pytest.raises(ValueError, match="already"):
        envelope.encrypt({"id": "e", member: "AAAA"}, KEY, Manifest())


def measure(value: float) -> dict:
    return {"en": {"measureValue": {"value": value}}}


def compound(*services: dict, **extra) -> dict:
    return {"en": {"compoundValue": list(services), **extra}}


SERVICES = {
    "a measure": ({"content": measure(1.5)}, set()),
    "no content": ({"comment": "c"}, set()),
    "empty content": ({"content": {}}, {"content"}),
    "a compound": ({"content": compound({"id": "x", "content": measure(1.5)})}, {"content"}),
    "a compound beside nulls": ({"content": compound({"id": "x"}, stringValue=None)}, {"content"}),
    "a compound of none": ({"content": compound()}, {"content"}),
    "mixed in one value": ({"content": compound({"id": "x"}, stringValue="t")}, set()),
    "mixed in two values": ({"content": {**compound({"id": "x"}), "fhir": {"stringValue": "t"}}}, set()),
    "an empty value beside": ({"content": {**compound({"id": "x"}), "fr": {}}}, set()),
}


@pytest.mark.parametrize(("members", "clear"), SERVICES.values(), ids=SERVICES)
def test_a_service_shows_its_content_only_when_purely_compound(members, clear):
    service = {"id": "s", "label": "l", "codes": [{"id": "a|b|c"}], **members}
    encrypted = envelope.encrypt_service(service, KEY)
    assert encrypted.keys() == {"id", "label", "codes", "encryptedSelf", *clear}
    assert without_nulls(envelope.decrypt(encrypted, [KEY])) == without_nulls(service)
    assert without_nulls(reader.content(encrypted, KEY)) == without_nulls(service)


def test_services_of_a_compound_are_encrypted_each_by_itself_to_any_depth():
    leaf = {"id": "z", "label": "z", "content": measure(1.5)}
    service = {"id": "s", "content": compound({"id": "y", "content": compound(leaf)}, leaf)}
    encrypted = envelope.encrypt_service(service, KEY)
    first, second = encrypted["content"]["en"]["compoundValue"]
    assert (
        first["content"]["en"]["compoundValue"][0].keys() == second.keys() == {"id", "label", "encryptedSelf"}
    )
    assert "1.5" not in json.dumps(encrypted)


def test_a_contact_is_encrypted_service_by_service():
    contact = {
        "id": "c",
        "openingDate": 20260101,
        "descr": "d",
        "services": [{"id": "s", "content": measure(1.5), "comment": "m"}, {"id": "t"}],
        "notes": [{"markdown": {"en": "n"}}],
    }
    before = copy.deepcopy(contact)
    encrypted = envelope.encrypt_contact(contact, KEY)
    assert contact == before
    assert encrypted.keys() == {"id", "openingDate", "services", "notes", "encryptedSelf"}
    assert [service.keys() for service in encrypted["services"]] == [{"id", "encryptedSelf"}] * 2
    assert reader.content(encrypted, KEY) == envelope.decrypt(encrypted, [KEY]) == contact
    assert envelope.decrypt(encrypted["services"][0], [KEY]) == contact["services"][0]
    boxes = [s["encryptedSelf"] for s in envelope.encrypt_contact(contact, KEY)["services"]]
    assert len({box[:22] for box in boxes}) == 2


def test_a_contact_of_no_services_keeps_its_shape():
    assert "services" not in envelope.encrypt_contact({"id": "c"}, KEY)
    assert envelope.encrypt_contact({"id": "c", "services": []}, KEY)["services"] == []


@pytest.mark.parametrize("type_name", ["Patient", "Contact", "Service", "HealthElement"])
def test_each_type_is_encrypted_in_its_own_way(type_name):
    entity = {
        "id": "e",
        "note": "1",
        "descr": "2",
        "comment": "3",
        "content": measure(4.5),
        "services": [{"id": "s", "content": measure(4.5)}],
    }
    hidden = {
        "Patient": {"note", "comment"},
        "Contact": {"descr"},
        "Service": {"comment", "content"},
        "HealthElement": {"note", "descr"},
    }
    encrypted = envelope.encrypt_entity(entity, type_name, KEY)
    assert entity.keys() - encrypted.keys() == hidden[type_name]
    assert ("encryptedSelf" in encrypted["services"][0]) == (type_name == "Contact")


def test_a_patient_reaches_the_sdk_without_nulls_and_with_known_members_only():
    """The SDK's parser takes neither unknown members nor null where it wants a list."""
    patient = {
        "id": "p",
        "firstName": "Ada",
        "languages": None,
        "note": None,
        "nationality": "BE",
        "partnerships": [{"type": "friend", "partnerId": None}],
        "notes": [{"id": "n", "markdown": {"en": "x", "fr": None}}],
    }
    encrypted = envelope.encrypt_entity(patient, "Patient", KEY)

    def walk(value):
        if isinstance(value, dict):
            assert None not in value.values()
            for name, part in value.items():
                walk(
                    json.loads(reader.aes(KEY, reader.base64.b64decode(part)))
                    if name == "encryptedSelf"
                    else part
                )
        elif isinstance(value, list):
            for part in value:
                walk(part)

    walk(encrypted)
    assert encrypted.keys() - patient.keys() == {"encryptedSelf"}
    assert "null" not in json.dumps(reader.content(encrypted, KEY))


@pytest.fixture
def people(world, key):
    return [world.settle(key(n), oaep="sha1" if n == 2 else "sha256") for n in range(3)]


def test_new_metadata_reads_as_the_description_says(world, people):
    ann, bob, old = people
    metadata = envelope.new_metadata(ann.keyring(world), "Contact", "patient-id", [bob.id, old.id])
    assert len(metadata.entity_key) == 32
    delegations = metadata.security_metadata["secureDelegations"]
    assert metadata.security_metadata.keys() == {"secureDelegations"}
    root, *children = delegations
    assert "parentDelegations" not in delegations[root]
    assert [delegations[child]["parentDelegations"] for child in children] == [[root], [root]]
    for (name, delegation), person in zip(delegations.items(), (ann, bob, old), strict=True):
        assert (delegation["delegator"], delegation["delegate"]) == (ann.id, person.id)
        assert delegation["permissions"] == "WRITE"
        (own,) = person.keys
        document = world.stored[delegation["exchangeDataId"]]
        secrets = reader.secrets_of(document, own.private.pkcs8_der, own.oaep, own.fingerprint)
        assert name == reader.delegation_key(secrets["accessControlSecret"], "Contact")
        values = {
            member: [reader.element(secrets["exchangeKey"], text) for text in delegation[member]]
            for member in ("secretIds", "encryptionKeys", "owningEntityIds")
        }
        assert values == {
            "secretIds": [metadata.secret_id.encode()],
            "encryptionKeys": [metadata.entity_key],
            "owningEntityIds": [b"patient-id"],
        }


def test_what_belongs_to_nobody_has_no_owning_id(world, people):
    metadata = envelope.new_metadata(people[0].keyring(world), "Patient")
    (delegation,) = metadata.security_metadata["secureDelegations"].values()
    assert "owningEntityIds" not in delegation


def test_a_delegate_named_twice_or_oneself_counts_once(world, people):
    ann, bob, _ = people
    metadata = envelope.new_metadata(ann.keyring(world), "Patient", delegates=[bob.id, ann.id, bob.id])
    assert len(metadata.security_metadata["secureDelegations"]) == 2


def test_two_entities_share_no_secret(world, people):
    ring = people[0].keyring(world)
    one, other = (envelope.new_metadata(ring, "Patient") for _ in range(2))
    assert one.entity_key != other.entity_key and one.secret_id != other.secret_id
    assert world.calls["create_exchange_data"] == 1


@pytest.mark.parametrize("size", [16, 24, 32])
def test_keys_of_every_aes_size_serve_entities(size, world, people):
    ring = people[0].keyring(world)
    metadata = envelope.new_metadata(ring, "Patient")
    made = ring.own_exchange_key()
    (delegation,) = metadata.security_metadata["secureDelegations"].values()
    delegation["encryptionKeys"] = [made.seal(bytes(20)), made.seal(bytes(size))]
    entity = envelope.encrypt({"id": "e", "note": "secret"}, bytes(size), DEFAULT_MANIFESTS["Patient"])
    opened = ring.open({**entity, "securityMetadata": metadata.security_metadata}, "Patient")
    assert opened.entity_key == bytes(size)
    assert opened.entity_keys == (bytes(size),)
    assert envelope.decrypt(entity, opened.entity_keys) == {"id": "e", "note": "secret"}


@given(st.binary(max_size=200), st.text(string.printable))
def test_a_residue_opens_for_its_owner_only(text, owner_id):
    sealed = envelope.seal_residue(KEY, owner_id, text)
    assert envelope.open_residue([bytes(16), KEY], owner_id, sealed) == text
    assert envelope.open_residue([KEY], owner_id + "!", sealed) is None
    assert envelope.open_residue([bytes(32), bytes(16)], owner_id, sealed) is None
    assert envelope.open_residue([KEY], owner_id, sealed[:-8]) is None


def test_a_residue_is_packed_unless_it_is_very_large(monkeypatch):
    text = b'{"code":"718-7"}' * 100
    assert len(envelope.seal_residue(KEY, "e", text)) < len(text) / 5
    monkeypatch.setattr(envelope, "MOST_PACKED_BYTES", len(text) - 1)
    sealed = envelope.seal_residue(KEY, "e", text)
    assert len(sealed) > len(text)
    assert envelope.open_residue([KEY], "e", sealed) == text


RESIDUE_KEY = envelope.hkdf(KEY, envelope.RESIDUE_INFO)
OPENED_BUT_NONE = {
    "no zlib": b"nothing that was packed",
    "half of it": zlib.compress(b"{}" * 100)[:-4],
    "more than anybody keeps": zlib.compress(bytes(envelope.MOST_PACKED_BYTES + 1)),
}


@pytest.mark.parametrize("packed", OPENED_BUT_NONE.values(), ids=OPENED_BUT_NONE)
def test_what_opens_and_is_no_residue_is_none(packed):
    sealed = to_base64(envelope.seal(RESIDUE_KEY, packed, b"e"))
    assert envelope.open_residue([KEY], "e", sealed) is None


@pytest.mark.parametrize("text", ["", "é", "AAAA", to_base64(bytes(100))])
def test_what_is_no_residue_is_none(text):
    assert envelope.open_residue([KEY], "e", text) is None


def test_a_residue_never_looks_the_same_twice():
    assert len({envelope.seal_residue(KEY, "e", b"same") for _ in range(20)}) == 20


def test_a_version_depends_on_content_and_key_only():
    tag = envelope.version_tag(KEY, b"content")
    assert tag == envelope.version_tag(KEY, b"content")
    assert len(tag) == 32 and set(tag) <= set("0123456789abcdef")
    assert len({tag, envelope.version_tag(KEY, b"other"), envelope.version_tag(bytes(32), b"content")}) == 3
