"""The tutorial on sharing data between data owners, step by step, on the embedded store."""

from __future__ import annotations

import pytest

from bridge.embedded import admin

from .client import Sdk, SdkError
from .conftest import PASSWORD, Person, Server, person

JOHN = {"firstName": "John", "lastName": "Snow", "note": "Winter is coming"}
PARARIBULITIS = {
    "descr": "The patient has been diagnosed Pararibulitis",
    "codes": [{"id": "SNOMEDCT|617|20020131", "type": "SNOMEDCT", "code": "617", "version": "20020131"}],
    "openingDate": 20191012,
}
SAMPLE = {
    "tags": [{"id": "IC-TEST|TEST|", "type": "IC-TEST", "code": "TEST"}],
    "content": {"en": {"stringValue": "Hello world"}},
    "openingDate": 20220929083400,
    "comment": "This is a comment",
}


@pytest.fixture(scope="module")
def p(server: Server, alice: Sdk) -> Person:
    """A patient who is a data owner, known to nobody but who made it."""
    one = person("p")
    alice.create_patient({"id": one.data_owner_id, "firstName": "P", "lastName": "P"} | one.announced())
    alice.share_patient_with(one.data_owner_id, one.data_owner_id)
    admin.create_user(server.store, one.login, PASSWORD, patient_id=one.data_owner_id)
    return one


@pytest.fixture(scope="module")
def patient(alice: Sdk) -> dict:
    return alice.create_patient(JOHN)


def test_a_patient_is_shared_with_a_practitioner_and_with_another_patient(
    alice: Sdk, bob: Sdk, server: Server, log_in, p: Person, patient: dict
) -> None:
    for one in (bob, log_in(p)):
        with pytest.raises(SdkError, match="403"):
            one.get_patient(patient["id"])
    for who in (server.bob.data_owner_id, p.data_owner_id):
        alice.share_patient_with(patient["id"], who)
    for one in (bob, log_in(p)):
        assert one.get_patient(patient["id"])["note"] == "Winter is coming"


def test_who_writes_what_was_read_before_a_share_gets_a_conflict(
    alice: Sdk, bob: Sdk, server: Server, log_in, p: Person
) -> None:
    """The shares themselves meet none in this SDK: iCure's call takes no rev."""
    made = alice.create_patient(JOHN)
    with pytest.raises(SdkError, match="RevisionConflict"):
        alice.share_patient_as_it_was(made["id"], [server.bob.data_owner_id, p.data_owner_id])
    for one in (alice, bob, log_in(p)):
        assert one.get_patient(made["id"])["note"] == "Winter is coming"


def test_who_received_a_health_element_shares_it_on(
    alice: Sdk, bob: Sdk, server: Server, log_in, p: Person, patient: dict
) -> None:
    made = alice.create_health_element(patient["id"], PARARIBULITIS)
    alice.share_health_element_with(made["id"], p.data_owner_id)
    with pytest.raises(SdkError, match="403"):
        bob.get_health_element(made["id"])
    log_in(p).share_health_element_with(made["id"], server.bob.data_owner_id)
    assert bob.get_health_element(made["id"])["descr"] == PARARIBULITIS["descr"]


def test_what_a_patient_creates_is_shared_and_shared_on(
    alice: Sdk, bob: Sdk, server: Server, log_in, p: Person
) -> None:
    sdk = log_in(p)
    made = sdk.create_contact(p.data_owner_id, {"services": [SAMPLE | {"id": "sample-of-p"}]})
    with pytest.raises(SdkError, match="403"):
        alice.get_contact(made["id"])
    sdk.share_contact_with(made["id"], server.alice.data_owner_id)
    alice.share_contact_with(made["id"], server.bob.data_owner_id)
    for one in (alice, bob):
        (sample,) = one.get_contact(made["id"])["services"]
        assert (sample["content"], sample["comment"]) == (SAMPLE["content"], SAMPLE["comment"])


def test_who_lost_a_key_is_shared_with_again(server: Server, alice: Sdk, log_in) -> None:
    """Eve loses her key, announces another, and asks who received it from her."""
    eve = person("eve")
    party = {"id": eve.data_owner_id, "firstName": "Eve", "lastName": "Tester"} | eve.announced()
    admin.create_healthcare_party(server.store, party)
    admin.create_user(server.store, eve.login, PASSWORD, data_owner_id=eve.data_owner_id)
    first = log_in(eve)
    made = first.create_patient(JOHN)
    first.share_patient_with(made["id"], server.alice.data_owner_id)
    renewed = person("eve")
    again = Person(eve.login, eve.data_owner_id, renewed.private_key)
    known = first.get_party(eve.data_owner_id)["publicKeysForOaepWithSha256"]
    keys = known + again.announced()["publicKeysForOaepWithSha256"]
    first.update_party(eve.data_owner_id, {"publicKeysForOaepWithSha256": keys})
    sdk = log_in(again)
    with pytest.raises(SdkError):
        sdk.get_patient(made["id"])
    alice.share_patient_with(made["id"], eve.data_owner_id)
    assert sdk.get_patient(made["id"])["note"] == "Winter is coming"
