from __future__ import annotations

import copy
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.embedded import entities, model
from bridge.embedded.errors import BadRequest

from .world import ALICE, code, contact, health_element, new_id, ok, patient, refused, service

DEFAULTS = {
    "gender": "unknown",
    "birthSex": "unknown",
    "personalStatus": "unknown",
    "active": True,
    "deactivationReason": "none",
}
STORED = {
    "patient defaults": (model.PATIENT, {"id": "p"}, {"id": "p"} | DEFAULTS),
    "null is absent": (model.PATIENT, {"id": "p", "gender": None, "tags": None}, {"id": "p"} | DEFAULTS),
    "what is sent wins": (
        model.PATIENT,
        {"id": "p", "gender": "male", "active": False},
        {"id": "p"} | DEFAULTS | {"gender": "male", "active": False},
    ),
    "unknown members": (
        model.PATIENT,
        {"id": "p", "foo": 1, "names": [{"lastName": "L", "foo": 1}]},
        {"id": "p", "names": [{"lastName": "L"}]} | DEFAULTS,
    ),
    "empty collections": (
        model.PATIENT,
        {"id": "p", "tags": [], "properties": [], "parameters": {}},
        {"id": "p"} | DEFAULTS,
    ),
    "care party": (
        model.PATIENT,
        {"id": "p", "patientHealthCareParties": [{"type": "doctor"}]},
        {"id": "p", "patientHealthCareParties": [{"type": "doctor", "referral": False}]} | DEFAULTS,
    ),
    "health element defaults": (
        model.HEALTH_ELEMENT,
        {"id": "h"},
        {"id": "h", "relevant": True, "status": 0},
    ),
    "code id split": (
        model.CODE_STUB,
        {"id": "sys|c|1"},
        {"id": "sys|c|1", "type": "sys", "code": "c", "version": "1"},
    ),
    "code id split where missing": (
        model.CODE_STUB,
        {"id": "a|b|c", "code": "other"},
        {"id": "a|b|c", "type": "a", "code": "other", "version": "c"},
    ),
    "code id with fewer parts": (model.CODE_STUB, {"id": "a|b"}, {"id": "a|b", "type": "a", "code": "b"}),
    "code id is not made": (model.CODE_STUB, {"type": "a", "code": "b"}, {"type": "a", "code": "b"}),
    "unknown members of a code": (
        model.CODE_STUB,
        {"code": "b", "display": "x", "label": {"en": "B"}},
        {"code": "b", "label": {"en": "B"}},
    ),
    "identifier": (
        model.IDENTIFIER,
        {"system": "s", "value": "v", "period": {}},
        {"system": "s", "value": "v"},
    ),
    "content": (
        model.CONTENT,
        {"stringValue": "a", "residue": 1, "range": [{}, {"value": 1.5}]},
        {"stringValue": "a", "range": [{}, {"value": 1.5}]},
    ),
    "whole floats are integers where integers belong": (
        model.CONTENT,
        {"fuzzyDateValue": 20200101.0},
        {"fuzzyDateValue": 20200101},
    ),
    "read-only members of a service": (
        model.SERVICE,
        {"id": "s", "contactId": "c", "secretForeignKeys": ["x"], "securityMetadata": {}},
        {"id": "s"},
    ),
}


@pytest.mark.parametrize(("shape", "sent", "stored"), STORED.values(), ids=STORED)
def test_what_is_stored_of_what_was_sent(shape, sent, stored):
    before = copy.deepcopy(sent)
    assert model.read(shape, sent) == stored
    assert sent == before


def test_sets_keep_their_order_and_collapse_exact_duplicates():
    same = {"type": "a", "code": "b", "label": {"en": "x"}}
    other = same | {"context": "code"}
    stored = model.read(model.PATIENT, {"id": "p", "tags": [other, same, {"id": "c|d|"}, dict(same), other]})
    assert stored["tags"] == [other, same, {"id": "c|d|", "type": "c", "code": "d", "version": ""}]


def test_annotations_and_parts_of_content_get_an_id():
    nested = {"content": {"xx": {"compoundValue": [{"label": "part"}]}}, "notes": [{"markdown": {"en": "x"}}]}
    stored = model.read(model.SERVICE, {"id": "s"} | nested)
    assert stored["notes"][0]["id"]
    assert stored["content"]["xx"]["compoundValue"][0]["id"]


WRONG = {
    "string": (model.PATIENT, {"firstName": 1}, "firstName must be a string"),
    "integer": (model.PATIENT, {"dateOfBirth": "1990"}, "dateOfBirth must be a 64-bit integer"),
    "integer with a fraction": (model.PATIENT, {"dateOfBirth": 1.5}, "dateOfBirth"),
    "integer too large": (model.PATIENT, {"dateOfBirth": 2**63}, "dateOfBirth"),
    "boolean is no integer": (model.PATIENT, {"dateOfBirth": True}, "dateOfBirth"),
    "boolean": (model.PATIENT, {"active": "yes"}, "active must be a boolean"),
    "enum": (model.PATIENT, {"gender": "man"}, "gender must be one of male"),
    "enum of another type": (model.PATIENT, {"gender": {}}, "gender"),
    "array": (model.PATIENT, {"tags": {}}, "tags must be an array"),
    "null in an array": (model.PATIENT, {"tags": [None]}, "tags[0] must be an object"),
    "deep": (
        model.CONTACT,
        {"services": [{}, {"content": {"en": {"measureValue": {"value": "7"}}}}]},
        "services[1].content.en.measureValue.value must be a number",
    ),
    "link qualification": (
        model.SERVICE,
        {"qualifiedLinks": {"likes": {"a": "b"}}},
        "qualifiedLinks must be one of",
    ),
    "map": (model.CODE_STUB, {"label": ["x"]}, "label must be an object"),
    "not an object": (model.PATIENT, [], "the body must be an object"),
}


@pytest.mark.parametrize(("shape", "sent", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_type_is_refused_where_it_stands(shape, sent, message):
    with pytest.raises(BadRequest) as refusal:
        model.read(shape, sent)
    assert message in refusal.value.text


SHAPES = [
    entity_type.shape
    for entity_type in vars(entities).values()
    if isinstance(entity_type, entities.EntityType)
]
member_names = sorted(
    {name for shape in [*SHAPES, model.SERVICE, model.CONTENT, model.MEASURE] for name in shape.members}
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(member_names) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(shape=st.sampled_from(SHAPES), sent=values)
def test_anything_is_stored_or_refused_and_what_is_stored_is_stable(shape, sent):
    try:
        stored = model.read(shape, sent)
    except BadRequest:
        return
    assert model.read(shape, copy.deepcopy(stored)) == stored


def fuzzy(moment: float) -> int:
    return int(time.strftime("%Y%m%d%H%M%S", time.localtime(moment)))


def test_a_contact_is_completed(alice):
    started = time.time()
    stored = alice.create("/contact", contact(service(), {"label": "no id"}, service(index=4)))
    user = ok(alice.get("/user/current"))["id"]
    for entity in (stored, *stored["services"]):
        assert int(started * 1000) <= entity["created"] == entity["modified"] <= time.time() * 1000
        assert fuzzy(started) <= entity["openingDate"] <= fuzzy(time.time())
        assert (entity["author"], entity["responsible"]) == (user, ALICE)
    assert len(stored["groupId"]) == 36
    assert all(one["valueDate"] == stored["openingDate"] and one["id"] for one in stored["services"])
    assert [one["index"] for one in stored["services"]] == [4, 5, 4]


def test_what_a_contact_says_itself_is_kept(alice):
    said = {
        "created": 1,
        "modified": 2,
        "groupId": "g",
        "openingDate": 20200101,
        "author": "a",
        "responsible": "r",
    }
    one = service(
        created=3, modified=4, valueDate=20190101, openingDate=20180101, author="x", responsible="y", index=7
    )
    stored = alice.create("/contact", contact(one, **said))
    assert said.items() <= stored.items()
    assert stored["services"] == [one]


def test_a_changed_contact_gets_dates_for_what_is_new_but_no_author(alice):
    stored = alice.create("/contact", contact(service()))
    del stored["author"]
    changed = ok(alice.put("/contact", stored | {"services": [*stored["services"], service()]}))
    old, new = changed["services"]
    assert "author" not in changed
    assert old == stored["services"][0]
    assert {"created", "modified", "valueDate", "openingDate", "index"} <= new.keys()
    assert not {"author", "responsible"} & new.keys()
    assert changed["modified"] == stored["modified"]


def test_a_patient_gets_author_and_responsible_and_no_dates(alice):
    stored = alice.create("/patient", patient())
    assert stored["responsible"] == ALICE
    assert not {"created", "modified"} & stored.keys()


ANONYMITY = {
    "hcp": ("alice", {}, True),
    "hcp that hides": ("alice", {"true"}, False),
    "patient": ("paul", {}, False),
    "patient that shows": ("paul", {"false"}, True),
}


@pytest.mark.parametrize(("name", "header", "filled"), ANONYMITY.values(), ids=ANONYMITY)
def test_author_and_responsible_are_left_out_for_who_stays_anonymous(client, name, header, filled):
    caller = client(name)
    for value in header:
        caller = caller.with_headers(Icure_Request_Autofix_Anonymity=value)
    stored = caller.create("/patient", patient())
    assert ("author" in stored, "responsible" in stored) == (filled, filled)


def test_a_healthcare_party_gets_dates(root):
    stored = root.create("/hcparty", {"id": new_id("hcp"), "name": "Lab"})
    assert stored["created"] == stored["modified"] > 0


def test_a_health_element_gets_its_defaults(alice):
    stored = alice.create("/helement", health_element(codes=[{"id": "icd|A|10"}]))
    assert (
        stored.items()
        >= {"relevant": True, "status": 0, "responsible": ALICE, "codes": [code("A", "icd", "10")]}.items()
    )


REFUSED_ON_CREATE = {
    "a revision": ("/patient", patient(rev="1-a"), "non-null revision"),
    "no id": ("/patient", {"firstName": "x"}, "id"),
    "empty id": ("/patient", patient(id=""), "id"),
    "a slash in the id": ("/patient", patient(id="a/b"), "id"),
    "a space in the id": ("/contact", contact(id="a b"), "id"),
    "a control character in the id": ("/contact", contact(id="a\x00b"), "id"),
    "no name": ("/patient", {"id": "p", "names": [{"lastName": "x"}]}, "Name, Last name are required"),
    "security metadata without delegations": ("/patient", patient(securityMetadata={}), "securityMetadata"),
    "no healthcare party name": ("/hcparty", {"id": "h", "firstName": "x"}, "lastName"),
    "no delegator": ("/exchangedata", {"id": "x", "delegate": ALICE}, "delegator"),
}


@pytest.mark.parametrize(("path", "entity", "message"), REFUSED_ON_CREATE.values(), ids=REFUSED_ON_CREATE)
def test_create_is_refused(root, path, entity, message):
    assert message in refused(root.post(path, entity), 400)


def test_a_patient_with_encrypted_names_or_deleted_needs_no_name(alice):
    alice.create("/patient", {"id": new_id("p"), "encryptedSelf": "c2VhbGVk"})
    alice.create("/patient", {"id": new_id("p"), "deletionDate": 1})
    alice.create("/patient", {"id": new_id("p"), "lastName": ""})
