from __future__ import annotations

import pytest

from bridge.embedded import create_app

from .world import (
    ALICE,
    BOB,
    CLINIC,
    PAUL,
    ROOT,
    Client,
    access_header,
    contact,
    delegation,
    delegation_key,
    health_element,
    new_id,
    ok,
    patient,
    refused,
    service,
    shared,
)

LEGACY = [{"owner": ALICE, "delegatedTo": ALICE, "key": "aa"}]
ANONYMOUS = {"secureDelegations": {delegation_key("secret"): delegation(None, None)}}
TO_ANONYMOUS = {
    "secureDelegations": {
        delegation_key("self"): delegation(ALICE, ALICE),
        delegation_key("secret"): delegation(ALICE, None, "READ", delegation_key("self")),
    }
}
METADATA = {
    "own": {"securityMetadata": shared(ALICE)},
    "read by Bob": {"securityMetadata": shared(ALICE, readers=(BOB,))},
    "written by Bob": {"securityMetadata": shared(ALICE, writers=(BOB,))},
    "read by the clinic": {"securityMetadata": shared(ALICE, readers=(CLINIC,))},
    "written by the clinic": {"securityMetadata": shared(ALICE, writers=(CLINIC,))},
    "of the clinic": {"securityMetadata": shared(CLINIC)},
    "legacy": {"delegations": {ALICE: LEGACY, BOB: LEGACY}},
    "without delegations": {},
    "all anonymous": {"securityMetadata": ANONYMOUS},
    "shared with an anonymous": {"securityMetadata": TO_ANONYMOUS},
}
CALLERS = ("alice", "bob", "carol", "root", "holder of the key")
NO, READ, WRITE = "-", "r", "w"
RULES = {
    # what the entity says      alice  bob    carol  root   holder of the key
    "own":                      (WRITE, NO,    NO,    NO,    NO),
    "read by Bob":              (WRITE, READ,  NO,    NO,    NO),
    "written by Bob":           (WRITE, WRITE, NO,    NO,    NO),
    "read by the clinic":       (WRITE, NO,    READ,  NO,    NO),
    "written by the clinic":    (WRITE, NO,    WRITE, NO,    NO),
    "of the clinic":            (WRITE, NO,    WRITE, NO,    NO),
    "legacy":                   (WRITE, WRITE, NO,    NO,    NO),
    "without delegations":      (WRITE, NO,    NO,    WRITE, NO),
    "all anonymous":            (NO,    NO,    NO,    NO,    WRITE),
    "shared with an anonymous": (WRITE, NO,    NO,    NO,    READ),
}  # fmt: skip
KINDS = {"patient": patient, "contact": contact, "helement": health_element}


def caller(client, name: str) -> Client:
    if name == "holder of the key":
        return client("paul").with_headers(Icure_Access_Control_Keys=access_header("other", "secret"))
    return client(name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("said", "allowed"), RULES.items(), ids=RULES)
def test_who_may_do_what(client, alice, kind, said, allowed):
    entity = KINDS[kind]()
    del entity["securityMetadata"]
    stored = alice.create(f"/{kind}", entity | METADATA[said])
    for name, may in zip(CALLERS, allowed, strict=True):
        somebody = caller(client, name)
        read, by_ids = (
            somebody.get(f"/{kind}/{stored['id']}"),
            ok(somebody.post(f"/{kind}/byIds", {"ids": [stored["id"]]})),
        )
        if may == NO:
            refused(read, 403)
            assert by_ids == []
        else:
            assert by_ids == [ok(read)]
        current = ok(
            (alice if said != "all anonymous" else caller(client, "holder of the key")).get(
                f"/{kind}/{stored['id']}"
            )
        )
        changed = somebody.put(f"/{kind}", current)
        batch = somebody.put(f"/{kind}/batch/full", [changed.json() if may == WRITE else current])
        if may == WRITE:
            ok(changed)
            assert len(ok(batch)) == 1
        else:
            refused(changed, 403)
            assert ok(batch) == []
            refused(somebody.delete(f"/{kind}/{stored['id']}"), 403)
            assert ok(somebody.post(f"/{kind}/delete/batch", {"ids": [stored["id"]]})) == []
            refused(somebody.post(f"/{kind}/undelete/{stored['id']}", rev=current["rev"]), 403)
            refused(somebody.delete(f"/{kind}/purge/{stored['id']}", rev=current["rev"]), 403)


def test_a_patient_reads_and_writes_itself_without_delegation(alice, paul):
    alice.create("/patient", patient(id=PAUL))
    stored = ok(paul.get(f"/patient/{PAUL}"))
    assert ok(paul.put("/patient", stored | {"alias": "P"}))["alias"] == "P"
    refused(paul.get(f"/patient/{alice.create('/patient', patient())['id']}"), 403)


def test_services_follow_their_contact(alice, bob):
    mine, ours = service(), service()
    alice.create("/contact", contact(mine))
    alice.create("/contact", contact(ours, securityMetadata=shared(ALICE, readers=(BOB,))))
    refused(bob.get(f"/contact/service/{mine['id']}"), 403)
    ok(bob.get(f"/contact/service/{ours['id']}"))
    found = ok(bob.post("/contact/service", {"ids": [mine["id"], ours["id"]]}))
    assert [one["id"] for one in found] == [ours["id"]]


def test_security_metadata_changes_by_sharing_only(alice):
    stored = alice.create("/patient", patient())
    widened = stored | {"securityMetadata": shared(ALICE, readers=(BOB,))}
    assert "share" in refused(alice.put("/patient", widened), 400)
    without = {name: value for name, value in stored.items() if name != "securityMetadata"}
    refused(alice.put("/patient", without), 400)
    reordered = {
        "secureDelegations": dict(reversed(stored["securityMetadata"]["secureDelegations"].items())),
        "keysEquivalences": {},
    }
    ok(alice.put("/patient", stored | {"securityMetadata": reordered}))


def test_security_metadata_may_be_given_late(alice, bob):
    stored = alice.create("/patient", {"id": new_id("p"), "lastName": "x"})
    ok(alice.put("/patient", stored | {"securityMetadata": shared(ALICE, readers=(BOB,))}))
    ok(bob.get(f"/patient/{stored['id']}"))


BROKEN = {
    "no delegation": {},
    "no permissions": {"k": {"delegator": ALICE, "delegate": BOB, "exchangeDataId": "x"}},
    "root that only reads": {"k": delegation(ALICE, ALICE, "READ")},
    "explicit without exchange data": {"k": {"delegator": ALICE, "delegate": ALICE, "permissions": "WRITE"}},
    "anonymous with exchange data": {
        "k": {"delegator": ALICE, "exchangeDataId": "x", "permissions": "WRITE"}
    },
    "circle": {"k": delegation(ALICE, ALICE, parent="l"), "l": delegation(ALICE, BOB, parent="k")},
    "own parent": {"k": delegation(ALICE, ALICE, parent="k")},
}


@pytest.mark.parametrize("delegations", BROKEN.values(), ids=BROKEN)
def test_broken_security_metadata_is_refused(alice, delegations):
    refused(alice.post("/patient", patient(securityMetadata={"secureDelegations": delegations})), 400)


@pytest.mark.parametrize("header", ["!!", "YWJj", access_header("secret")[:-4]])
def test_malformed_access_control_keys_are_refused(alice, header):
    refused(alice.with_headers(Icure_Access_Control_Keys=header).get("/patient/x"), 400)


def test_repeated_access_control_headers_count_together(alice, paul):
    stored = alice.create("/patient", patient(securityMetadata=ANONYMOUS))
    joined = f"{access_header('other')},{access_header('secret')}"
    ok(paul.with_headers(Icure_Access_Control_Keys=joined).get(f"/patient/{stored['id']}"))


def test_healthcare_parties_are_seen_by_all_and_made_by_administrators(alice, bob, root):
    party = {"id": new_id("hcp"), "name": "Lab"}
    refused(alice.post("/hcparty", party), 403)
    stored = root.create("/hcparty", party)
    assert ok(bob.get(f"/hcparty/{stored['id']}")) == stored
    refused(alice.put("/hcparty", stored), 403)
    refused(alice.delete(f"/hcparty/{stored['id']}"), 403)
    assert ok(root.put("/hcparty", stored | {"name": "Laboratory"}))["name"] == "Laboratory"


def test_a_healthcare_party_changes_itself_but_not_its_parent(bob, root):
    stored = ok(bob.get(f"/hcparty/{BOB}"))
    changed = ok(bob.put("/hcparty", stored | {"languages": ["fr"]}))
    refused(bob.put("/hcparty", changed | {"parentId": ALICE}), 403)
    refused(
        bob.put("/dataowner/stub", {"type": "hcp", "stub": ok(bob.get(f"/dataowner/stub/{ALICE}"))["stub"]}),
        403,
    )
    ok(root.put("/hcparty", changed | {"parentId": ALICE}))


def test_parents_never_form_a_circle(root):
    top, below = {"id": new_id("hcp"), "name": "top"}, {"id": new_id("hcp"), "name": "below"}
    stored = root.create("/hcparty", top)
    root.create("/hcparty", below | {"parentId": top["id"]})
    refused(root.put("/hcparty", stored | {"parentId": below["id"]}), 422)
    refused(root.put("/hcparty", stored | {"parentId": top["id"]}), 422)


def test_exchange_data_is_made_by_its_parties(alice, bob):
    data = {"id": new_id("x"), "delegator": ALICE, "delegate": ALICE, "exchangeKey": {"fp": "a"}}
    refused(bob.post("/exchangedata", data), 403)
    stored = alice.create("/exchangedata", data)
    refused(bob.put("/exchangedata", stored), 403)
    ok(alice.put("/exchangedata", stored))


def test_without_rules_everybody_sees_everything(data_dir, alice, nobody, furnished):
    stored = alice.create("/patient", patient())
    open_app = create_app(data_dir, enforce_access=False)
    bob = Client(open_app, f"Bearer {furnished[1]['bob']}")
    ok(bob.get(f"/patient/{stored['id']}"))
    ok(bob.put("/patient", stored))
    assert bob.match("/patient", "PatientByHcPartyFilter", healthcarePartyId=ALICE) == [stored["id"]]
    open_app.extensions["store"].close()


def test_administrators_hold_no_key_to_what_is_delegated(root, alice):
    stored = alice.create("/patient", patient())
    refused(root.get(f"/patient/{stored['id']}"), 403)
    refused(root.post("/patient/match", {"$type": "PatientByHcPartyFilter", "healthcarePartyId": ALICE}), 403)
    assert root.match("/patient", "PatientByHcPartyFilter", healthcarePartyId=ROOT) == []
