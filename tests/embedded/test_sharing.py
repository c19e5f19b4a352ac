from __future__ import annotations

from typing import Any

import pytest

from .world import (
    ALICE,
    BOB,
    CAROL,
    PAUL,
    access_control_key,
    access_header,
    contact,
    delegation,
    delegation_key,
    health_element,
    new_id,
    ok,
    patient,
    refused,
    shared,
)

ROOT_KEY = delegation_key(f"{ALICE}>{ALICE}")
KINDS = {"patient": patient, "contact": contact, "helement": health_element}


def request(
    name: str = "new", delegator: str | None = ALICE, delegate: str | None = BOB, **members: Any
) -> dict:
    made: dict[str, Any] = {
        "accessControlKeys": [access_control_key(name).hex()],
        "secretIds": ["czE="],
        "encryptionKeys": ["azE="],
        "owningEntityIds": ["bzE="],
    }
    if delegator:
        made["explicitDelegator"] = delegator
    if delegate:
        made["explicitDelegate"] = delegate
    if delegator and delegate:
        made["exchangeDataId"] = "x"
    return {"share": made | {"encryptedExchangeDataId": {}} | members}


def update(key: str, **changes: dict[str, str]) -> dict:
    return {"update": {"metadataAccessControlHash": key} | changes}


def ask(
    client,
    entity: dict,
    *requests: dict,
    parents: tuple[str, ...] = (ROOT_KEY,),
    kind: str = "patient",
    minimal: bool = False,
) -> dict:
    body = {
        "requestsByEntityId": {
            entity["id"]: {
                "requests": {str(n): one for n, one in enumerate(requests)},
                "potentialParentDelegations": list(parents),
            }
        }
    }
    (outcome,) = ok(client.put(f"/{kind}/bulkSharedMetadataUpdate{'Minimal' if minimal else ''}", body))
    return outcome


def delegations(outcome: dict) -> dict:
    return outcome["updatedEntity"]["securityMetadata"]["secureDelegations"]


@pytest.fixture
def stored(alice) -> dict:
    return alice.create("/patient", patient())


@pytest.mark.parametrize("kind", KINDS)
def test_sharing_adds_a_delegation_below_the_own_one(alice, bob, kind):
    entity = alice.create(f"/{kind}", KINDS[kind]())
    outcome = ask(alice, entity, request(), kind=kind)
    assert outcome.keys() == {"entityId", "entityRev", "updatedEntity"}
    assert outcome["entityRev"] == entity["rev"] != outcome["updatedEntity"]["rev"]
    assert delegations(outcome) == entity["securityMetadata"]["secureDelegations"] | {
        delegation_key("new"): {
            "delegator": ALICE,
            "delegate": BOB,
            "exchangeDataId": "x",
            "secretIds": ["czE="],
            "encryptionKeys": ["azE="],
            "owningEntityIds": ["bzE="],
            "parentDelegations": [ROOT_KEY],
            "permissions": "WRITE",
        }
    }
    assert ok(bob.get(f"/{kind}/{entity['id']}")) == outcome["updatedEntity"]
    refused(alice.put(f"/{kind}", entity), 409)


def test_the_minimal_answer_leaves_the_entity_out(alice, stored):
    assert ask(alice, stored, request(), minimal=True).keys() == {"entityId", "entityRev"}


PERMISSIONS = {
    # requested, what the caller's own delegation allows: what is given
    ("MAX_WRITE", "WRITE"): "WRITE",
    ("MAX_WRITE", "READ"): "READ",
    ("FULL_WRITE", "WRITE"): "WRITE",
    ("FULL_WRITE", "READ"): "WRITE",
    ("MAX_READ", "WRITE"): "READ",
    ("FULL_READ", "WRITE"): "READ",
    ("FULL_READ", "READ"): "READ",
}


@pytest.mark.parametrize(("case", "given"), PERMISSIONS.items(), ids=map("-".join, PERMISSIONS))
def test_permissions(alice, bob, case, given):
    requested, own = case
    entity = alice.create(
        "/patient",
        patient(securityMetadata=shared(ALICE, **{"readers" if own == "READ" else "writers": (BOB,)})),
    )
    outcome = ask(
        bob,
        entity,
        request(delegator=BOB, delegate=CAROL, requestedPermissions=requested),
        parents=(delegation_key(f"{ALICE}>{BOB}"),),
    )
    assert delegations(outcome)[delegation_key("new")]["permissions"] == given


def test_parents_below_other_parents_are_not_named(alice):
    below = delegation_key("below")
    metadata = {
        "secureDelegations": {
            ROOT_KEY: delegation(ALICE, ALICE),
            below: delegation(ALICE, BOB, parent=ROOT_KEY),
        }
    }
    entity = alice.create("/patient", patient(securityMetadata=metadata))
    outcome = ask(alice, entity, request(delegate=CAROL), parents=(ROOT_KEY, below, "unknown"))
    assert delegations(outcome)[delegation_key("new")]["parentDelegations"] == [ROOT_KEY]


def test_a_parent_must_be_the_callers(alice, bob):
    metadata = shared(ALICE, readers=(BOB,), writers=(CAROL,))
    entity = alice.create("/patient", patient(securityMetadata=metadata))
    outcome = ask(
        bob,
        entity,
        request(delegator=BOB, delegate=PAUL),
        parents=(ROOT_KEY, delegation_key(f"{ALICE}>{CAROL}")),
    )
    assert outcome["rejectedRequests"]["0"]["code"] == 400


REJECTED = {
    "already shared": (request(f"{ALICE}>{ALICE}"), 400),
    "no keys": (request(accessControlKeys=[]), 400),
    "keys not hexadecimal": (request(accessControlKeys=["zz"]), 400),
    "keys too short": (request(accessControlKeys=["aa"]), 400),
    "explicit without exchange data": (
        {"share": {name: value for name, value in request()["share"].items() if name != "exchangeDataId"}},
        400,
    ),
    "explicit with encrypted exchange data": (request(encryptedExchangeDataId={"fp": "a"}), 400),
    "anonymous without encrypted exchange data": (request(delegate=None), 400),
    "root without legacy access": (request(requestedPermissions="ROOT"), 400),
    "unknown delegation": (update("unknown", secretIds={"a": "CREATE"}), 404),
    "entry that exists": (update(ROOT_KEY, secretIds={"c2VjcmV0": "CREATE"}), 400),
    "entry that does not exist": (update(ROOT_KEY, secretIds={"x": "DELETE"}), 400),
}


@pytest.mark.parametrize(("asked", "code"), REJECTED.values(), ids=REJECTED)
def test_rejected_requests_change_nothing(alice, stored, asked, code):
    outcome = ask(alice, stored, asked)
    assert "updatedEntity" not in outcome
    rejected = outcome["rejectedRequests"]["0"]
    assert rejected.keys() == {"code", "reason", "shouldRetry"}
    assert (rejected["code"], rejected["shouldRetry"]) == (code, False)
    assert ok(alice.get(f"/patient/{stored['id']}")) == stored


def test_no_valid_parent_is_rejected(alice, stored):
    assert ask(alice, stored, request(), parents=())["rejectedRequests"]["0"]["code"] == 400


def test_an_unknown_entity_rejects_each_request(alice):
    outcome = ask(alice, {"id": "unknown"}, request(), request("other"))
    assert {number: one["code"] for number, one in outcome["rejectedRequests"].items()} == {
        "0": 404,
        "1": 404,
    }


def test_somebody_elses_entity_is_not_shared(bob, stored):
    outcome = ask(bob, stored, request(delegator=BOB))
    assert outcome.keys() == {"entityId", "rejectedRequests"}
    assert outcome["rejectedRequests"]["0"]["code"] == 403


def test_good_requests_are_applied_beside_rejected_ones(alice, stored):
    outcome = ask(alice, stored, request("one"), request(f"{ALICE}>{ALICE}"), request("two", delegate=CAROL))
    assert outcome["rejectedRequests"].keys() == {"1"}
    assert {delegation_key("one"), delegation_key("two")} <= delegations(outcome).keys()


def test_the_smallest_hash_names_the_delegation(alice, stored):
    keys = [access_control_key(name).hex() for name in "abc"]
    outcome = ask(alice, stored, request(accessControlKeys=keys))
    assert delegations(outcome).keys() - {ROOT_KEY} == {min(delegation_key(name) for name in "abc")}


def test_values_are_added_and_taken_away(alice, stored):
    changes = {"secretIds": {"bmV3": "CREATE", "c2VjcmV0": "DELETE"}, "encryptionKeys": {"a2V5": "DELETE"}}
    outcome = ask(alice, stored, update(ROOT_KEY, **changes))
    expected = delegation(ALICE, ALICE) | {"secretIds": ["bmV3"]}
    del expected["encryptionKeys"]
    assert delegations(outcome)[ROOT_KEY] == expected


def test_a_legacy_entity_gets_its_root_together_with_the_share(alice, bob):
    legacy = {
        "id": new_id("p"),
        "lastName": "x",
        "delegations": {ALICE: [{"owner": ALICE, "delegatedTo": ALICE, "key": "aa"}]},
    }
    entity = alice.create("/patient", legacy)
    outcome = ask(
        alice,
        entity,
        request("share"),
        request("root", delegate=ALICE, requestedPermissions="ROOT"),
        parents=(),
    )
    assert "rejectedRequests" not in outcome
    assert delegations(outcome)[delegation_key("share")]["parentDelegations"] == [delegation_key("root")]
    assert "parentDelegations" not in delegations(outcome)[delegation_key("root")]
    assert outcome["updatedEntity"]["delegations"] == legacy["delegations"]
    ok(bob.get(f"/patient/{entity['id']}"))


def test_two_roots_are_refused(alice, stored):
    body = {stored["id"]: {"requests": {name: request(name, requestedPermissions="ROOT") for name in "ab"}}}
    refused(alice.put("/patient/bulkSharedMetadataUpdate", {"requestsByEntityId": body}), 400)


@pytest.mark.parametrize(
    "broken", [{}, request() | update("x"), {"share": {"requestedPermissions": "ALL"}}, {"share": []}]
)
def test_a_request_is_either_share_or_update(alice, stored, broken):
    body = {stored["id"]: {"requests": {"0": broken}}}
    refused(alice.put("/patient/bulkSharedMetadataUpdate", {"requestsByEntityId": body}), 400)


def test_a_patient_makes_the_root_of_itself(alice, paul):
    alice.create("/patient", patient(id=PAUL))
    outcome = ask(
        paul,
        {"id": PAUL},
        request("own", delegator=None, delegate=None, requestedPermissions="ROOT"),
        parents=(),
    )
    assert delegations(outcome)[delegation_key("own")]["permissions"] == "WRITE"


def test_sharing_with_an_anonymous_makes_the_exchange_data_map(alice, paul, stored):
    asked = request("secret", delegate=None, encryptedExchangeDataId={"fp": "first"})
    ask(alice, stored, asked)
    (found,) = ok(alice.post("/exchangedatamap/batch", {"ids": [delegation_key("secret"), "unknown"]}))
    assert found.keys() == {"id", "rev", "encryptedExchangeDataIds"}
    assert (found["id"], found["encryptedExchangeDataIds"]) == (delegation_key("secret"), {"fp": "first"})
    ok(paul.with_headers(Icure_Access_Control_Keys=access_header("secret")).get(f"/patient/{stored['id']}"))


def test_exchange_data_maps_are_made_and_extended(alice):
    for entries in ({"a": "1"}, {"b": "2"}):
        body = {"batch": {access_control_key("k").hex(): entries}}
        assert ok(alice.put("/exchangedatamap/batch", body)) == "ok"
    (found,) = ok(alice.post("/exchangedatamap/batch", {"ids": [delegation_key("k")]}))
    assert found["encryptedExchangeDataIds"] == {"a": "1", "b": "2"}
    refused(alice.put("/exchangedatamap/batch", {"batch": {"no key": {"a": "1"}}}), 400)
    refused(alice.put("/exchangedatamap/batch", {"batch": {"00": {"a": "1"}}}), 400)


def test_shared_entities_are_found_by_who_they_are_shared_with(alice, bob, stored):
    assert bob.match("/patient", "PatientByHcPartyFilter") == []
    ask(alice, stored, request())
    assert bob.match("/patient", "PatientByHcPartyFilter") == [stored["id"]]
