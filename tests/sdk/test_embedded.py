"""iCure's own SDK, unmodified, works on the embedded store."""

from __future__ import annotations

import uuid

import pytest

from bridge.embedded import entities

from .client import Sdk, SdkError

LOINC = "http://loinc.org"
WEIGHT = {"id": f"{LOINC}|29463-7|2.76", "type": LOINC, "code": "29463-7", "version": "2.76"}
NOTE = {"id": "note", "markdown": {"en": "kept"}, "tags": [{"type": "FHIR", "code": "residue"}]}
PATIENT = {
    "firstName": "Gustave",
    "lastName": "Eiffel",
    "names": [{"lastName": "Eiffel", "firstNames": ["Gustave"], "prefix": ["M."], "use": "official"}],
    "gender": "male",
    "dateOfBirth": 18321215,
    "personalStatus": "in_couple",
    "deactivationReason": "no_contact",
    "note": "afraid of heights",
    "identifier": [{"system": "urn:eiffel", "value": "324", "use": "official"}],
    "addresses": [
        {
            "addressType": "home",
            "city": "Paris",
            "telecoms": [{"telecomType": "mobile", "telecomNumber": "+33 1"}],
        }
    ],
    "notes": [NOTE],
    "partnerships": [{"type": "next_of_kin", "status": "active", "partnerId": "x"}],
    "tags": [{"id": "vip|yes|1", "type": "vip", "code": "yes", "version": "1"}],
}


def service(value: float = 72.5, **members) -> dict:
    content = {
        "en": {"measureValue": {"value": value, "unit": "kg", "unitCodes": [{"type": "ucum", "code": "kg"}]}}
    }
    return {"id": str(uuid.uuid4()), "label": "weight", "codes": [WEIGHT], "content": content} | members


@pytest.fixture(scope="module")
def patient(alice):
    return alice.create_patient(PATIENT)


@pytest.fixture(scope="module")
def contact(alice, patient):
    compound = {"xx": {"compoundValue": [service(1.5), service(2.5)]}}
    services = [service(), service(label="pressure", content=compound, comment="sitting")]
    return alice.create_contact(
        patient["id"], {"descr": "visit", "services": services, "openingDate": 20240101120000}
    )


def test_logs_in_with_its_key(alice, server):
    assert alice.current_user()["healthcarePartyId"] == server.alice.data_owner_id
    assert alice.current_data_owner()["dataOwner"]["id"] == server.alice.data_owner_id


def test_a_wrong_password_is_refused(server):
    with pytest.raises(SdkError):
        Sdk.start(server.url, "alice", "wrong password", server.alice.data_owner_id, server.alice.private_key)


def test_a_patient_comes_back_as_it_was(alice, log_in, server, patient):
    for reader in (alice, log_in(server.alice)):
        found = reader.get_patient(patient["id"])
        assert found == patient
        (note,) = found.pop("notes")
        assert (note["id"], note["markdown"], note["tags"]) == tuple(NOTE.values())
        assert found | PATIENT | {"notes": [NOTE]} == found | {"notes": [NOTE]}


def test_what_the_store_holds_of_a_patient_is_encrypted(server, patient):
    with server.store.reading() as view:
        body = view.get(entities.PATIENT, patient["id"]).body
    for secret in (b"afraid of heights", b"kept"):
        assert secret not in body
    assert b"Eiffel" in body


FOUND = {
    "by name": {"name": "eiff"},
    "by identifier": {"identifier": {"system": "urn:eiffel", "value": "324"}},
    "by gender": {"gender": "male"},
    "by birth date": {"birthDates": [18320000, 18321231]},
    "by all of them": {"name": "gust", "gender": "male", "birthDates": [18321215, 18321215]},
}


@pytest.mark.parametrize("criteria", FOUND.values(), ids=FOUND)
def test_a_patient_is_found_by_who_may(alice, bob, patient, criteria):
    assert patient["id"] in [found["id"] for found in alice.find_patients(**criteria)]
    assert patient["id"] not in [found["id"] for found in bob.find_patients(**criteria)]


def test_a_patient_is_not_found_by_what_it_is_not(alice, patient):
    for criteria in ({"name": "bonickhausen"}, {"gender": "female"}, {"birthDates": [19000101, 19001231]}):
        assert patient["id"] not in [found["id"] for found in alice.find_patients(**criteria)]


def test_a_patient_is_changed_and_deleted(alice):
    made = alice.create_patient({"firstName": "Ada", "lastName": "Lovelace", "note": "counts"})
    changed = alice.update_patient(made["id"], {"lastName": "King", "note": "counts still"})
    assert (changed["lastName"], changed["note"]) == ("King", "counts still")
    assert alice.get_patient(made["id"]) == changed
    alice.delete_patient(made["id"])
    assert alice.get_patient(made["id"])["deletionDate"] > 0
    assert made["id"] not in [found["id"] for found in alice.find_patients()]


def test_sharing_a_patient(alice, bob, server):
    made = alice.create_patient({"firstName": "Ada", "lastName": "Lovelace", "note": "counts"})
    with pytest.raises(SdkError, match="403"):
        bob.get_patient(made["id"])
    shared = alice.share_patient_with(made["id"], server.bob.data_owner_id)
    assert shared["rev"] != made["rev"]
    assert bob.get_patient(made["id"])["note"] == "counts"
    assert made["id"] in [found["id"] for found in bob.find_patients(name="lovelace")]
    assert bob.secret_ids_of_patient(made["id"]) == alice.secret_ids_of_patient(made["id"])
    assert bob.update_patient(made["id"], {"note": "calculates"})["note"] == "calculates"
    assert alice.get_patient(made["id"])["note"] == "calculates"


def test_a_patient_shared_from_the_start(alice, bob, server):
    made = alice.create_patient({"lastName": "Curie", "note": "glows"}, delegates=[server.bob.data_owner_id])
    assert bob.get_patient(made["id"])["note"] == "glows"


def test_a_contact_comes_back_as_it_was(alice, log_in, server, patient, contact):
    for reader in (alice, log_in(server.alice)):
        assert reader.get_contact(contact["id"]) == contact
        assert reader.patient_of_contact(contact["id"]) == [patient["id"]]
    weight, pressure = contact["services"]
    assert weight["content"]["en"]["measureValue"]["value"] == 72.5
    values = [
        part["content"]["en"]["measureValue"]["value"] for part in pressure["content"]["xx"]["compoundValue"]
    ]
    assert values == [1.5, 2.5]
    assert (pressure["comment"], contact["descr"]) == ("sitting", "visit")


def test_services_are_found(alice, bob, patient, contact):
    ids = {one["id"] for one in contact["services"]}
    by_code = {one["id"] for one in alice.find_services(code={"type": LOINC, "code": "29463-7"})}
    assert ids <= by_code
    assert {one["id"] for one in alice.find_services_of_patient(patient["id"])} == ids
    assert [one["id"] for one in alice.find_contacts_of_patient(patient["id"])] == [contact["id"]]
    assert not ids & {one["id"] for one in bob.find_services()}
    alone = alice.get_service(contact["services"][0]["id"])
    assert alone["contactId"] == contact["id"]
    assert alone["content"] == contact["services"][0]["content"]


def test_a_service_is_changed(alice):
    owner = alice.create_patient({"lastName": "Curie"})
    made = alice.create_contact(owner["id"], {"services": [service(1.0), service(2.0)]})
    first, second = made["services"]
    alice.update_service(first["id"], {"content": {"en": {"stringValue": "heavy"}}, "label": "words"})
    changed = alice.get_service(first["id"])
    assert (changed["content"], changed["label"]) == ({"en": {"stringValue": "heavy"}}, "words")
    assert changed["modified"] > first["modified"]
    assert alice.get_contact(made["id"])["services"][1] == second


def test_sharing_a_contact(alice, bob, server):
    owner = alice.create_patient({"lastName": "Curie"})
    made = alice.create_contact(owner["id"], {"services": [service()]})
    with pytest.raises(SdkError, match="403"):
        bob.get_service(made["services"][0]["id"])
    alice.share_patient_with(owner["id"], server.bob.data_owner_id)
    alice.share_contact_with(made["id"], server.bob.data_owner_id)
    assert bob.get_service(made["services"][0]["id"])["content"] == made["services"][0]["content"]
    assert [one["id"] for one in bob.find_services_of_patient(owner["id"])] == [made["services"][0]["id"]]
    assert bob.patient_of_contact(made["id"]) == [owner["id"]]


def test_a_patient_reads_what_was_shared_with_it_and_gives_back(alice, server, log_in):
    """Paul's id never appears in a delegation: he proves himself with access control keys."""
    members = {
        "id": server.paul.data_owner_id,
        "firstName": "Paul",
        "lastName": "Patient",
        "note": "for Paul",
    }
    alice.create_patient(members | server.paul.announced())
    alice.share_patient_with(server.paul.data_owner_id, server.paul.data_owner_id)
    made = alice.create_contact(server.paul.data_owner_id, {"services": [service(64.5)]})
    alice.share_contact_with(made["id"], server.paul.data_owner_id)
    paul = log_in(server.paul)
    assert paul.current_user()["patientId"] == server.paul.data_owner_id
    assert paul.get_patient(server.paul.data_owner_id)["note"] == "for Paul"
    assert paul.get_contact(made["id"])["services"] == made["services"]
    assert [one["id"] for one in paul.find_services_of_patient(server.paul.data_owner_id)] == [
        made["services"][0]["id"]
    ]
    own = paul.create_contact(server.paul.data_owner_id, {"services": [service(63.5)]})
    assert not {"author", "responsible"} & own.keys()
    with pytest.raises(SdkError, match="403"):
        alice.get_contact(own["id"])
    paul.share_contact_with(own["id"], server.alice.data_owner_id)
    assert alice.get_contact(own["id"])["services"][0]["content"] == own["services"][0]["content"]


def test_the_sdk_makes_a_token_that_logs_in(alice, server):
    token = alice.create_token(alice.current_user()["id"], 60)
    with Sdk.start(server.url, "alice", token, server.alice.data_owner_id, server.alice.private_key) as again:
        assert again.current_user()["login"] == "alice"
