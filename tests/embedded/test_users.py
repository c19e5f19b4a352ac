"""What users and administrators do with accounts beyond making and changing whole ones."""

from __future__ import annotations

import pytest

from .world import ALICE, BOB, PASSWORD, Client, new_id, ok, refused


@pytest.fixture
def dora(root):
    return root.create(
        "/user", {"id": new_id("user"), "login": "dora", "email": "d@example.org", "passwordHash": PASSWORD}
    )


def test_users_come_by_login_in_pages(root, dora):
    logins, query = [], {"limit": 2}
    while query:
        page = ok(root.get("/user", skipPatients="false", **query))
        logins.append([user["login"] for user in page["rows"]])
        assert all(user["passwordHash"] == "*" for user in page["rows"])
        following = page.get("nextKeyPair")
        query = following and {
            "limit": 2,
            "startKey": f'"{following["startKey"]}"',
            "startDocumentId": following["startKeyDocId"],
        }
    assert logins == [["alice", "bob"], ["carol", "dora"], ["paul", "root"]]


def test_patients_are_left_out_of_the_list_unless_asked_for(root):
    assert [user["login"] for user in ok(root.get("/user", startKey="carol"))["rows"]] == ["carol", "root"]


def test_only_administrators_list_users(alice):
    refused(alice.get("/user"), 403)


def test_an_email_and_a_phone_change_while_they_are_as_expected(root, dora):
    path = f"/user/{dora['id']}"
    moved = ok(root.put(f"{path}/email", newEmail="new@example.org", previousEmail="d@example.org"))
    assert moved["email"] == "new@example.org"
    refused(root.put(f"{path}/email", newEmail="x@example.org", previousEmail="d@example.org"), 409)
    refused(root.put(f"{path}/email", newEmail="none", previousEmail="new@example.org"), 400)
    assert ok(root.put(f"{path}/mobilePhone", newMobilePhone="+32123456"))["mobilePhone"] == "+32123456"
    refused(root.delete(f"{path}/mobilePhone"), 409)
    assert "mobilePhone" not in ok(root.delete(f"{path}/mobilePhone", previousMobilePhone="+32123456"))
    assert ok(root.get(path))["email"] == "new@example.org"


def test_an_email_of_another_is_refused(root, dora):
    other = root.create("/user", {"id": new_id("user"), "email": "other@example.org"})
    refused(root.put(f"/user/{other['id']}/email", newEmail=dora["email"], previousEmail=other["email"]), 400)


def test_a_password_changes(root, dora, nobody):
    refused(root.put(f"/user/{dora['id']}/password", {"newPassword": "short"}), 400)
    refused(root.put(f"/user/{dora['id']}/password", {"newPassword": "*"}), 400)
    refused(root.put(f"/user/{dora['id']}/password", {}), 400)
    assert ok(root.put("/user/dora/password", {"newPassword": "another password"}))["passwordHash"] == "*"
    ok(nobody.post("/auth/login", {"username": "dora", "password": "another password"}))
    refused(nobody.post("/auth/login", {"username": "dora", "password": PASSWORD}), 401)


def test_properties_replace_those_with_the_same_identifier(alice):
    def stub(name: str, value: str) -> dict:
        return {
            "type": {"identifier": name, "type": "STRING"},
            "typedValue": {"type": "STRING", "stringValue": value},
        }

    ok(alice.put("/user/alice/properties", [stub("colour", "red"), stub("size", "big")]))
    user = ok(alice.put("/user/alice/properties", [stub("colour", "blue")]))
    assert user["properties"] == [stub("colour", "blue"), stub("size", "big")]
    refused(alice.put("/user/alice/properties", {"no": "list"}), 400)


def test_only_administrators_become_another_data_owner(alice, root):
    assert ok(alice.put(f"/user/current/hcparty/{ALICE}"))["healthcarePartyId"] == ALICE
    refused(alice.put(f"/user/current/hcparty/{BOB}"), 403)
    assert ok(root.put(f"/user/current/hcparty/{BOB}"))["healthcarePartyId"] == BOB


@pytest.mark.parametrize("path", ["email?newEmail=x@y", "mobilePhone?newMobilePhone=123456"])
def test_nobody_changes_another(alice, path):
    refused(alice.put(f"/user/bob/{path}"), 403)
    refused(alice.put("/user/bob/password", {"newPassword": "another password"}), 403)
    refused(alice.put("/user/bob/properties", []), 403)
    refused(alice.put("/user/nobody/password", {"newPassword": "another password"}), 403)


def test_expired_tokens_are_forgotten_when_another_is_made(root, dora, app, later):
    root.post("/user/token/dora/short", tokenValidity=1)
    kept = root.post("/user/token/dora/long").text
    later(2)
    root.post("/user/token/dora/next")
    assert ok(root.get(f"/user/{dora['id']}"))["authenticationTokens"].keys() == {"long", "next"}
    login = Client(app)
    ok(login.post("/auth/login", {"username": "dora", "password": kept}))
    ok(login.post("/auth/login", {"username": "dora", "password": PASSWORD}))
