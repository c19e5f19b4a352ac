from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import orjson
import pytest

from bridge.embedded import Store, store
from bridge.embedded.access import Caller
from bridge.embedded.errors import AccessDenied, BadRequest
from bridge.embedded.listening import PACKAGE, Wanted

from .world import (
    ALICE,
    BOB,
    CLINIC,
    LOINC,
    access_header,
    code,
    contact,
    delegation,
    delegation_key,
    health_element,
    ok,
    patient,
    service,
    shared,
)

ALL = ("CREATE", "UPDATE", "DELETE")
Hear = Callable[..., list[dict[str, Any]]]


def somebody(owner: str, *ancestors: str) -> Caller:
    return Caller(f"{owner}-user", owner, "hcp", ancestors)


@pytest.fixture
def hear(store: Store) -> Hear:
    """Gives what a listener would have been told of all changes so far."""

    def told(
        kind: str, given: Any, *events: str, caller: Caller | None = None, **members: Any
    ) -> list[dict[str, Any]]:
        said = {"entityClass": PACKAGE + kind, "eventTypes": list(events or ALL), "filter": given, **members}
        with closing(Wanted(store, caller or somebody(ALICE), said)) as wanted, store.reading() as view:
            bodies = [body for change in view.changes(0, 1000) for body in wanted.heard(view, change)]
        return [orjson.loads(body) for body in bodies]

    return told


def ids(heard: list[dict[str, Any]]) -> list[str]:
    return [one["id"] for one in heard]


def of(owner: str, kind: str = "Patient") -> dict[str, str]:
    member = "healthcarePartyId" if kind == "Patient" else "hcpId"
    return {"$type": f"{kind}ByHcPartyFilter", member: owner}


def tagged(tag: str = "t") -> dict[str, str]:
    return {
        "$type": "ServiceByHcPartyTagCodeDateFilter",
        "healthcarePartyId": ALICE,
        "tagType": "T",
        "tagCode": tag,
    }


def test_each_kind_of_event_is_heard_by_who_wants_it(alice, hear):
    made = alice.create("/patient", patient())
    changed = ok(alice.put("/patient", made | {"firstName": "Anna"}))
    ok(alice.delete(f"/patient/{made['id']}", rev=changed["rev"]))
    heard = {event: hear("Patient", {"filter": of(ALICE)}, event) for event in ALL}
    assert {event: ids(found) for event, found in heard.items()} == {event: [made["id"]] for event in ALL}
    assert "deletionDate" in heard["DELETE"][0]


def test_undeleting_is_an_update(alice, hear):
    made = alice.create("/patient", patient())
    gone = ok(alice.delete(f"/patient/{made['id']}", rev=made["rev"]))
    ok(alice.post(f"/patient/undelete/{made['id']}", rev=gone["rev"]))
    assert len(hear("Patient", of(ALICE), "UPDATE")) == 1


def test_a_purged_one_is_told_of_as_it_was(alice, hear):
    made = alice.create("/patient", patient())
    ok(alice.delete(f"/patient/purge/{made['id']}", rev=made["rev"]))
    assert hear("Patient", of(ALICE), "DELETE") == [made]
    assert hear("Patient", of(ALICE), "CREATE") == []


def test_only_what_the_filter_finds_and_the_predicate_lets_through_is_heard(alice, hear):
    both = [alice.create("/patient", patient(lastName=name)) for name in ("Eiffel", "Tesla")]
    by_name = {"$type": "PatientByHcPartyNameFilter", "healthcarePartyId": ALICE, "name": "tesl"}
    assert hear("Patient", {"filter": by_name}) == [both[1]]
    is_tesla = {"$type": "KeyValuePredicate", "key": "lastName", "operator": "EQUAL", "value": "Tesla"}
    assert hear("Patient", {"filter": of(ALICE), "predicate": is_tesla}) == [both[1]]
    parts = {"$type": "ComplementFilter", "superSet": of(ALICE), "subSet": by_name}
    assert hear("Patient", parts) == [both[0]]
    assert hear("Patient", {"$type": "PatientByIdsFilter", "ids": [both[0]["id"]]}) == [both[0]]


def test_only_who_may_read_hears(alice, hear):
    mine = alice.create("/patient", patient())
    for_bob = alice.create("/patient", patient(securityMetadata=shared(ALICE, readers=(BOB,))))
    every = {"$type": "PatientByIdsFilter", "ids": [mine["id"], for_bob["id"]]}
    assert hear("Patient", every, caller=somebody(BOB)) == [for_bob]
    with pytest.raises(AccessDenied):
        hear("Patient", of(ALICE), caller=somebody(BOB))


def test_what_is_shared_with_a_parent_is_heard_by_its_children(alice, hear):
    shared_with_all = alice.create("/patient", patient(securityMetadata=shared(ALICE, readers=(CLINIC,))))
    carol = somebody("carol-owner", CLINIC)
    assert hear("Patient", of(CLINIC), caller=carol) == [shared_with_all]


def test_who_stays_anonymous_hears_by_its_access_control_keys(alice, hear):
    root = delegation_key("root")
    metadata = {"secureDelegations": {root: delegation(None, None) | {"delegator": ALICE}}}
    made = alice.create("/patient", patient(securityMetadata=metadata))
    every, paul = {"$type": "PatientByIdsFilter", "ids": [made["id"]]}, Caller("paul-user", "paul", "patient")
    assert hear("Patient", every, caller=paul) == []
    assert hear("Patient", every, caller=paul, accessControlKeys=access_header("root")) == [made]


def test_services_are_told_of_one_by_one(alice, hear):
    one, two = (service(tags=[{"id": "T|t|1", "type": "T", "code": "t"}], modified=n) for n in (1, 2))
    home = alice.create("/contact", contact(one, service(codes=[code("1-1")]), secretForeignKeys=["sk"]))
    created = hear("embed.Service", {"filter": tagged()}, "CREATE")
    assert created == [ok(alice.get(f"/contact/service/{one['id']}"))]
    kept, other = home["services"]
    home = ok(alice.put("/contact", home | {"services": [kept | {"modified": 9}, other, two]}))
    assert ids(hear("embed.Service", tagged(), "UPDATE")) == [one["id"]]
    assert ids(hear("embed.Service", tagged(), "CREATE")) == [one["id"], two["id"]]
    ok(alice.put("/contact", home | {"services": [other]}))
    assert sorted(ids(hear("embed.Service", tagged(), "DELETE"))) == sorted([one["id"], two["id"]])
    by_code = {"$type": "ServiceByHcPartyTagCodeDateFilter", "codeType": LOINC, "codeCode": "1-1"}
    assert ids(hear("embed.Service", by_code, "CREATE")) == [other["id"]]


def test_with_a_contact_its_services_are_deleted(alice, hear):
    home = alice.create("/contact", contact(service(), service()))
    ok(alice.delete(f"/contact/{home['id']}", rev=home["rev"]))
    expected = sorted(one["id"] for one in home["services"])
    assert sorted(ids(hear("embed.Service", of(ALICE, "Service"), "DELETE"))) == expected


def test_other_types_are_heard_too(alice, root, hear):
    element = alice.create("/helement", health_element())
    assert hear("HealthElement", of(ALICE, "HealthElement")) == [element]
    home = alice.create("/contact", contact())
    assert hear("Contact", of(ALICE, "Contact")) == [home]
    party = root.create("/hcparty", {"id": "new-party", "name": "New"})
    assert hear("HealthcareParty", {"$type": "HealthcarePartyByIdsFilter", "ids": [party["id"]]}) == [party]


def test_users_are_told_of_to_administrators_and_themselves(root, hear):
    made = root.create("/user", {"id": "new-user", "login": "new-user"})
    every = {"$type": "AllUsersFilter"}
    assert hear("User", every, "CREATE", caller=somebody(BOB)) == []
    heard = hear("User", every, "CREATE", caller=Caller("root", "root-owner", "hcp", admin=True))
    assert made["id"] in ids(heard)


@pytest.mark.parametrize(
    "said",
    [
        {"eventTypes": ["CREATE"], "entityClass": None, "filter": {}},
        {"eventTypes": [7], "entityClass": f"{PACKAGE}Patient", "filter": {}},
        {"eventTypes": ["CREATE"], "entityClass": f"{PACKAGE}Patient", "filter": {"$type": "NoSuchFilter"}},
        {
            "eventTypes": ["CREATE"],
            "entityClass": f"{PACKAGE}Patient",
            "filter": of(ALICE),
            "accessControlKeys": [1],
        },
    ],
)
def test_what_is_no_subscription_is_refused(store, said):
    with pytest.raises(BadRequest):
        Wanted(store, somebody(ALICE), said)


def test_old_changes_are_forgotten(alice, store, monkeypatch):
    monkeypatch.setattr("bridge.embedded.store.CHANGES_KEPT_MS", 0)
    monkeypatch.setattr("bridge.embedded.store.PRUNED_EVERY", 5)
    with store.reading() as view:
        last = view.last_change()
    for _ in range(10):
        alice.create("/patient", patient())
    with store.reading() as view:
        assert view.last_change() == last + 10
        assert view.first_change() > last
        assert [c.number for c in view.changes(0, 100)] == list(range(view.first_change(), last + 11))


def test_a_store_from_before_there_were_events_gets_them(data_dir, alice):
    old = Store(data_dir)
    with old.writing() as writing:
        writing._connection.execute("DROP TABLE changes")
    old.close()
    renewed = Store(data_dir)
    with renewed.reading() as view:
        assert view.last_change() == 0
    renewed.close()
    assert store.CREATED == "CREATE"
