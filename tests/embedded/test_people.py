from __future__ import annotations

import pytest

from .world import ALICE, BOB, CAROL, CLINIC, PASSWORD, PAUL, Client, new_id, ok, patient, refused


def account(**members) -> dict:
    return {"id": new_id("user"), "login": new_id("login"), "passwordHash": PASSWORD} | members


def test_the_current_user_shows_no_secret(alice, root):
    user = ok(alice.get("/user/current", includeMetadataFromGlobalUser="false"))
    assert user.keys() == {
        "id",
        "rev",
        "login",
        "name",
        "healthcarePartyId",
        "status",
        "type",
        "created",
        "groupId",
        "passwordHash",
    }
    assert user["passwordHash"] == "*"
    assert ok(root.get("/user/current"))["systemMetadata"]["isAdmin"] is True


def test_the_group_of_the_current_user(alice, paul):
    (group,) = ok(alice.get("/user/matches"))
    assert group.keys() == {
        "groupId",
        "groupName",
        "groupsHierarchy",
        "userId",
        "login",
        "name",
        "healthcarePartyId",
    }
    assert ok(paul.get("/user/matches"))[0]["patientId"] == PAUL


def test_a_new_user_is_completed(root):
    user = root.create("/user", {"id": "u", "email": "dora@example.org", "mobilePhone": " ", "groupId": "x"})
    assert (user["login"], user["status"], user["groupId"]) == ("dora@example.org", "ACTIVE", "embedded")
    assert not {"mobilePhone", "passwordHash", "systemMetadata"} & user.keys()
    assert ok(root.get("/user/u")) == user


BAD_USERS = {
    "nothing to log in with": account(login=None),
    "blank login": account(login=" "),
    "e-mail without at": account(email="dora"),
    "phone with letters": account(mobilePhone="call me"),
    "short password": account(passwordHash="short"),
    "unknown status": account(status="MAYBE"),
    "a revision": account(rev="1-a"),
    "no id": account(id=None),
}


@pytest.mark.parametrize("user", BAD_USERS.values(), ids=BAD_USERS)
def test_a_bad_user_is_refused(root, user):
    refused(root.post("/user", user), 400)


def test_names_are_taken_once(root):
    first = root.create("/user", account(login="dora", email="dora@example.org", mobilePhone="+32123456"))
    for member, label in (("login", "Login"), ("email", "Email"), ("mobilePhone", "Phone")):
        said = refused(root.post("/user", account(**{member: first[member]})), 400)
        assert said == f"A user with {label} {first[member]} already exists"
    refused(root.post("/user", account(id=first["id"])), 409)
    ok(root.put("/user", first | {"name": "Dora"}))
    second = root.create("/user", account())
    refused(root.put("/user", second | {"login": "dora"}), 400)


def test_a_deleted_user_frees_its_names_until_somebody_takes_them(root):
    first = root.create("/user", account(login="dora"))
    deleted = ok(root.delete(f"/user/{first['id']}"))
    second = root.create("/user", account(login="dora"))
    refused(root.post(f"/user/undelete/{first['id']}", rev=deleted["rev"]), 400)
    assert ok(root.post("/user/undelete/batch", {"ids": [deleted]})) == []
    ok(root.delete(f"/user/purge/{second['id']}", rev=second["rev"]))
    assert ok(root.post("/user/undelete/batch", {"ids": [deleted]}))[0]["login"] == "dora"


def test_a_purged_users_password_is_forgotten(root, nobody):
    first = root.create("/user", account(id="u", login="dora"))
    ok(root.delete("/user/purge/u", rev=first["rev"]))
    root.create("/user", {"id": "u", "login": "dora"})
    refused(nobody.post("/auth/login", {"username": "dora", "password": PASSWORD}), 401)


def test_changing_a_user(root, nobody):
    user = root.create("/user", account(login="dora"))
    refused(root.put("/user", user | {"id": "unknown"}), 404)
    changed = ok(root.put("/user", user | {"passwordHash": "another password"}))
    refused(root.put("/user", user), 409)
    refused(root.put("/user", changed | {"passwordHash": "short"}), 400)
    kept = ok(root.put("/user", changed | {"name": "Dora"}))
    assert kept["passwordHash"] == "*"
    ok(nobody.post("/auth/login", {"username": "dora", "password": "another password"}))
    refused(nobody.post("/auth/login", {"username": "dora", "password": PASSWORD}), 401)


def test_users_change_what_is_theirs(alice, bob, nobody):
    me = ok(alice.get("/user/current"))
    changed = ok(
        alice.put(
            "/user",
            me | {"name": "Alice!", "autoDelegations": {"all": [BOB]}, "passwordHash": "another password"},
        )
    )
    assert (changed["name"], changed["autoDelegations"]) == ("Alice!", {"all": [BOB]})
    ok(nobody.post("/auth/login", {"username": "alice", "password": "another password"}))
    grabbed = ok(
        alice.put(
            "/user",
            changed | {"healthcarePartyId": BOB, "status": "DISABLED", "systemMetadata": {"isAdmin": True}},
        )
    )
    assert (grabbed["healthcarePartyId"], grabbed["status"]) == (ALICE, "ACTIVE")
    assert "systemMetadata" not in grabbed
    refused(bob.put("/user", grabbed), 403)


def test_users_are_private(alice, bob, root):
    bobs = ok(bob.get("/user/current"))
    refused(alice.get(f"/user/{bobs['id']}"), 403)
    assert ok(alice.post("/user/byIds", {"ids": [bobs["id"]]})) == []
    refused(alice.post("/user", account()), 403)
    refused(alice.post("/user/batch", [account()]), 403)
    refused(alice.delete(f"/user/{bobs['id']}"), 403)
    refused(alice.post("/user/filter", {"filter": {"$type": "AllUsersFilter"}}), 403)
    assert ok(alice.get(f"/user/byHealthcarePartyId/{BOB}")) == []
    assert ok(root.get(f"/user/byHealthcarePartyId/{BOB}")) == [bobs["id"]]
    assert len(ok(root.get(f"/user/byPatientId/{PAUL}"))) == 1


def test_users_by_email_and_phone(root):
    user = root.create("/user", account(email="dora@example.org", mobilePhone="+32123456"))
    assert (
        ok(root.get("/user/byEmail/dora@example.org"))
        == ok(root.get("/user/byPhoneNumber/+32123456"))
        == user
    )
    refused(root.get("/user/byEmail/nobody@example.org"), 404)


def test_users_in_batches(root):
    taken = root.create("/user", account())
    fresh = [account(), account()]
    made = ok(root.post("/user/batch", [fresh[0], account(login=taken["login"]), fresh[1]]))
    assert [user["id"] for user in made] == [user["id"] for user in fresh]
    refused(root.post("/user/batch", [account(login="same"), account(login="same")]), 400)
    changed = ok(root.put("/user/batch", [made[0] | {"name": "x"}, made[1] | {"rev": "1-stale"}]))
    assert [user["id"] for user in changed] == [made[0]["id"]]
    refused(root.put("/user/batch", {}), 400)
    deleted = ok(root.post("/user/delete/batch", {"ids": [{"id": made[1]["id"], "rev": made[1]["rev"]}]}))
    assert [user["id"] for user in deleted] == [made[1]["id"]]


def test_data_owners(alice, paul, root):
    alice.create("/patient", patient(id=PAUL))
    mine = ok(alice.get("/dataowner/current"))
    assert (mine.keys(), mine["type"], mine["dataOwner"]["id"]) == ({"type", "dataOwner"}, "hcp", ALICE)
    assert ok(alice.get(f"/dataowner/{ALICE}")) == mine
    assert ok(paul.get("/dataowner/current"))["type"] == "patient"
    device = root.create("/device", {"id": new_id("device"), "name": "scale"})
    assert ok(alice.get(f"/dataowner/{device['id']}")) == {"type": "device", "dataOwner": device}
    refused(alice.get("/dataowner/unknown"), 404)
    found = ok(alice.post("/dataowner/byIds", {"ids": [CAROL, "unknown", ALICE]}))
    assert [one["dataOwner"]["id"] for one in found] == [CAROL, ALICE]


def test_a_patient_without_access_shows_its_keys_only(alice, bob):
    stored = alice.create("/patient", patient(publicKey="aa", note="x"))
    refused(bob.get(f"/dataowner/{stored['id']}"), 403)
    stub = ok(bob.get(f"/dataowner/stub/{stored['id']}"))
    assert stub == {
        "type": "patient",
        "stub": {
            "id": stored["id"],
            "rev": stored["rev"],
            "publicKey": "aa",
            "publicKeysForOaepWithSha256": [],
        },
    }


def test_the_hierarchy_begins_at_the_top(alice, bob):
    assert [one["dataOwner"]["id"] for one in ok(alice.get("/dataowner/current/hierarchy"))] == [
        CLINIC,
        ALICE,
    ]
    assert [one["stub"]["id"] for one in ok(alice.get("/dataowner/current/hierarchy/stub"))] == [
        CLINIC,
        ALICE,
    ]
    assert [one["dataOwner"]["id"] for one in ok(bob.get("/dataowner/current/hierarchy"))] == [BOB]
    assert [one["id"] for one in ok(bob.get(f"/hcparty/{CLINIC}/children"))] == [ALICE, CAROL]


def test_users_that_are_no_data_owner(root, app):
    root.create("/user", account(login="dora"))
    token = ok(Client(app).post("/auth/login", {"username": "dora", "password": PASSWORD}))["token"]
    dora = Client(app, f"Bearer {token}")
    for path in ("current", "current/stub", "current/hierarchy"):
        refused(dora.get(f"/dataowner/{path}"), 404)
    refused(dora.get("/hcparty/current"), 400)


def test_the_current_healthcare_party(alice, paul):
    assert ok(alice.get("/hcparty/current"))["id"] == ALICE
    refused(paul.get("/hcparty/current"), 400)


def test_a_stub_changes_the_keys_and_nothing_else(alice, root):
    root.put("/hcparty", ok(root.get(f"/hcparty/{ALICE}")) | {"publicKey": "old"})
    before = ok(alice.get(f"/hcparty/{ALICE}"))
    stub = ok(alice.get("/dataowner/current/stub"))
    stub["stub"] |= {
        "publicKeysForOaepWithSha256": ["bb"],
        "transferKeys": {"a": {"b": "c"}},
        "tags": [],
        "lastName": "Changed",
    }
    answer = ok(alice.put("/dataowner/stub", stub))
    after = ok(alice.get(f"/hcparty/{ALICE}"))
    assert answer["stub"]["rev"] == after["rev"] != before["rev"]
    assert after == before | {
        "rev": after["rev"],
        "publicKeysForOaepWithSha256": ["bb"],
        "transferKeys": {"a": {"b": "c"}},
    }
    assert ok(alice.get(f"/hcparty/{ALICE}/publicKey")) == {"hcPartyId": ALICE, "hexString": "old"}
    refused(alice.get(f"/hcparty/{BOB}/publicKey"), 404)
    refused(alice.put("/dataowner/stub", stub), 409)
    refused(alice.put("/dataowner/stub", {"type": "hcp", "stub": {"id": "unknown", "rev": "1-a"}}), 404)
    for broken in ({}, [], {"stub": {}}, {"stub": {"id": ALICE, "rev": 7}}):
        refused(alice.put("/dataowner/stub", broken), 400)


def exchange_data(delegator: str, delegate: str, **members) -> dict:
    keys = {
        "exchangeKey": {"fp": "a"},
        "accessControlSecret": {"fp": "b"},
        "sharedSignatureKey": {"fp": "c"},
        "sharedSignature": "d",
        "delegatorSignature": {"fp": "e"},
    }
    return {"id": new_id("x"), "delegator": delegator, "delegate": delegate} | keys | members


def test_exchange_data(alice, bob):
    data = [exchange_data(ALICE, ALICE), exchange_data(ALICE, BOB), exchange_data(ALICE, BOB)]
    stored = [alice.create("/exchangedata", one) for one in data]
    assert [{name: value for name, value in one.items() if name != "rev"} for one in stored] == data
    assert ok(alice.get(f"/exchangedata/byDelegatorDelegate/{ALICE}/{BOB}")) == stored[1:]
    assert (
        ok(alice.get("/exchangedata/byDelegatorDelegate", delegatorId=ALICE, delegateId=ALICE)) == stored[:1]
    )
    assert ok(alice.get(f"/exchangedata/byDelegatorDelegate/{BOB}/{ALICE}")) == []
    assert ok(bob.get(f"/exchangedata/{data[1]['id']}")) == stored[1]
    refused(bob.get("/exchangedata/unknown"), 404)
    assert ok(bob.post("/exchangedata/byIds", {"ids": [data[2]["id"], "unknown"]})) == [stored[2]]
    changed = ok(alice.put("/exchangedata", stored[0] | {"sharedSignature": "new"}))
    refused(alice.put("/exchangedata", stored[0]), 409)
    assert changed["sharedSignature"] == "new"
    assert ok(
        alice.get(f"/exchangedata/byParticipant/{ALICE}/counterparts", counterpartsTypes="hcp,patient")
    ) == [BOB]
    assert (
        ok(alice.get(f"/exchangedata/byParticipant/{ALICE}/counterparts", counterpartsTypes="patient")) == []
    )
    assert (
        ok(alice.get(f"/exchangedata/byParticipant/{ALICE}/counterparts", ignoreOnEntryForFingerprint="fp"))
        == []
    )


def test_exchange_data_of_a_participant_comes_in_pages(alice):
    ids = sorted(alice.create("/exchangedata", exchange_data(ALICE, BOB))["id"] for _ in range(5))
    found, start = [], {}
    while True:
        page = ok(alice.get(f"/exchangedata/byParticipant/{BOB}", limit=2, **start))
        found.append([one["id"] for one in page["rows"]])
        if "nextKeyPair" not in page:
            break
        assert page.keys() == {"rows", "nextKeyPair"}
        assert page["nextKeyPair"].keys() == {"startKey", "startKeyDocId"}
        start = {"startDocumentId": page["nextKeyPair"]["startKeyDocId"]}
    assert found == [ids[:2], ids[2:4], ids[4:]]
    assert ok(alice.get("/exchangedata/byParticipant", dataOwnerId=CAROL)) == {"rows": []}


def test_exchange_data_in_bulk(alice):
    made = ok(alice.post("/exchangedata/bulk", [exchange_data(ALICE, BOB), exchange_data(ALICE, CAROL)]))
    assert [one.keys() for one in made] == [{"id", "rev"}] * 2


def test_legacy_exchange_keys(alice, bob, root):
    spki, oldest = "ab" * 40, "cd" * 40
    ok(
        alice.put(
            "/hcparty",
            ok(alice.get(f"/hcparty/{ALICE}"))
            | {
                "publicKey": spki,
                "aesExchangeKeys": {spki: {BOB: {"ef" * 40: "k1"}, ALICE: {"01" * 40: "k2"}}},
            },
        )
    )
    ok(
        root.put(
            "/hcparty",
            ok(root.get(f"/hcparty/{CAROL}"))
            | {"publicKey": oldest, "hcPartyKeys": {BOB: ["own", "theirs"]}},
        )
    )
    expected = {ALICE: {spki[-32:]: {("ef" * 40)[-32:]: "k1"}}, CAROL: {oldest[-32:]: {"": "theirs"}}}
    assert ok(bob.get(f"/hcparty/{BOB}/aesExchangeKeys")) == expected
    assert ok(bob.get(f"/patient/{PAUL}/aesExchangeKeys")) == {}
    assert ok(bob.get("/device/unknown/aesExchangeKeys")) == {}
