"""The steps of iCure's tutorial on users, with its SDK, on the embedded store."""

from __future__ import annotations

import time
import uuid

import pytest

from .client import Sdk, SdkError

ARGAN = {"firstName": "Argan", "lastName": "Poquelin", "dateOfBirth": 19730210, "ssin": "1973021014722"}


@pytest.fixture(scope="module")
def unique() -> str:
    return uuid.uuid4().hex[:8]


def create_user(root: Sdk, name: str) -> dict:
    return root.create_user(
        {
            "id": str(uuid.uuid4()),
            "login": name,
            "email": f"{name}@hospital.care",
            "passwordHash": "correct horse battery staple",
        }
    )


@pytest.fixture(scope="module")
def john(root: Sdk, unique: str) -> dict:
    return create_user(root, f"john{unique}")


def log_in(server, login: str, secret: str) -> dict:
    with Sdk.start_without_keys(server.url, login, secret) as sdk:
        return sdk.current_user()


def test_a_user_is_created(john, unique):
    assert john["login"] == f"john{unique}"
    assert john["rev"].startswith("1-")
    assert (john["passwordHash"], john["groupId"], john["status"]) == ("*", "embedded", "ACTIVE")


@pytest.mark.parametrize("taken", ["login", "email"])
def test_a_login_or_email_that_is_taken_is_a_bad_request(root, john, taken):
    fresh = {"id": str(uuid.uuid4()), "login": uuid.uuid4().hex, "passwordHash": "correct horse"}
    with pytest.raises(SdkError, match="400"):
        root.create_user(fresh | {taken: john[taken]})


def test_a_temporary_token_is_a_password_until_it_expires(server, root, john):
    token = root.create_token(john["id"], 3600)
    assert log_in(server, john["login"], token)["id"] == john["id"]
    short = root.create_token(john["id"], 1)
    time.sleep(1.1)
    with pytest.raises(SdkError):
        log_in(server, john["login"], short)


def test_everybody_makes_tokens_for_themselves_and_administrators_for_others(alice, john):
    me = alice.current_user()
    assert uuid.UUID(alice.create_token(me["id"], 3600))
    with pytest.raises(SdkError, match="403"):
        alice.create_token(john["id"], 3600)


def test_a_user_is_loaded_by_id_and_by_email(root, john):
    loaded = root.get_user(john["id"])
    assert loaded["login"] == john["login"]
    assert root.get_user_by_email(john["email"]) == loaded


def test_a_patient_is_invited(server, root, unique):
    """What `createAndInviteFor` of the tutorial does, but for the message, which is sent by another service."""
    email = f"argan{unique}@moliere.fr"
    address = {"addressType": "home", "telecoms": [{"telecomType": "email", "telecomNumber": email}]}
    patient = root.create_patient(ARGAN | {"addresses": [address]})
    assert root.find_users(patientId=patient["id"]) == []
    invited = {"id": str(uuid.uuid4()), "name": email, "login": email, "email": email}
    user = root.create_user(invited | {"patientId": patient["id"]})
    assert (user["login"], user["patientId"]) == (email, patient["id"])
    assert "passwordHash" not in user
    token = root.create_token(user["id"], 3600)
    assert log_in(server, email, token)["patientId"] == patient["id"]
    assert [found["id"] for found in root.find_users(patientId=patient["id"])] == [user["id"]]
    with pytest.raises(SdkError, match="400"):
        root.create_user(invited | {"id": str(uuid.uuid4()), "login": "another"})


def test_users_are_filtered_by_id(root, john):
    me = root.current_user()["id"]
    assert {found["id"] for found in root.find_users(ids=[john["id"], me])} == {john["id"], me}


def test_a_user_is_updated_and_then_deleted(server, root, unique):
    john = create_user(root, f"other-john{unique}")
    before = root.get_user(john["id"])
    updated = root.update_user(john["id"], {"passwordHash": "wrong horse battery staple"})
    assert updated == before | {"rev": updated["rev"]} != before
    assert log_in(server, john["login"], "wrong horse battery staple")["id"] == john["id"]
    with pytest.raises(SdkError):
        log_in(server, john["login"], "correct horse battery staple")
    deleted = root.delete_user(john["id"])
    assert deleted["id"] == john["id"]
    assert deleted["rev"] > updated["rev"]
    with pytest.raises(SdkError):
        log_in(server, john["login"], "wrong horse battery staple")
