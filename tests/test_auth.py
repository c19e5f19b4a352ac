from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests

from bridge import auth
from bridge.auth import Authenticator
from bridge.embedded import Store, admin
from bridge.errors import NotLoggedIn
from tests.helpers import DEMO_PATIENT, Account, Caller, Remote, assert_outcome, basic, count_calls, serving

READ = f"Patient/{DEMO_PATIENT}"
PASSWORD = "correct horse battery"


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


MALFORMED = {
    "none": "",
    "scheme only": "Basic",
    "empty": "Basic ",
    "not base64": "Basic ???",
    "cut base64": "Basic abc",
    "not UTF-8": f"Basic {encoded(bytes([0xFF, 0xFE, 0x3A, 0x41]))}",
    "no colon": f"Basic {encoded('esmith')}",
    "no login": f"Basic {encoded(':password')}",
    "no password": f"Basic {encoded('esmith:')}",
    "NUL": f"Basic {encoded(chr(0) + ':' + chr(0))}",
    "newlines": f"Basic {encoded('a' + chr(10) + 'b:c' + chr(13))}",
    "short password": f"Basic {encoded('esmith:x')}",
    "other user": f"Basic {encoded('nobody:' + PASSWORD)}",
    "beyond ASCII": "Basic é",
    "huge": f"Basic {encoded('a' * 5000 + ':' + 'b' * 5000)}",
    "bearer only": "Bearer",
    "no JWT": "Bearer x",
    "two words": "Bearer a b",
    "JWT of another": f"Bearer {jwt.encode({'u': 'x', 'exp': 9e9}, 'k' * 32)}",
    "unsigned JWT": f"Bearer {jwt.encode({'u': 'x', 'exp': 9e9}, None, algorithm='none')}",
    "JWT of letters": "Bearer é.é.é",
    "digest": 'Digest username="esmith"',
    "no scheme": encoded("esmith:" + PASSWORD),
}


@pytest.mark.parametrize("header", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_login_is_refused(app: Any, accounts: dict[str, Account], header: str) -> None:
    caller = Caller(app, accounts["esmith"])
    keychain = f"/rest/icdx/v1/keychain/{caller.account['dataOwnerId']}"
    for answer in (caller.get(READ, Authorization=header), caller.get(keychain, Authorization=header)):
        assert_outcome(answer, 401, "login")
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")
        assert len(header) < 8 or header[-8:] not in answer.text


def test_a_call_without_the_header_is_refused(app: Any) -> None:
    answer = app.test_client().get(f"/rest/fhir/r4/{READ}")
    assert_outcome(answer, 401, "login")
    assert answer.headers["WWW-Authenticate"]


def test_nobody_has_to_log_in_to_learn_what_the_server_does(app: Any) -> None:
    assert app.test_client().get("/rest/fhir/r4/metadata").status_code == 200


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC", "Basic "])
def test_the_scheme_is_read_in_any_case(esmith: Caller, scheme: str) -> None:
    header = f"{scheme} {basic(esmith.account).removeprefix('Basic ')}"
    answer = esmith.get(READ, Authorization=header)
    assert answer.status_code != 401


def test_a_wrong_password_is_refused_every_time(app: Any, esmith: Caller) -> None:
    wrong = Caller(app, {**esmith.account, "password": PASSWORD})
    for _ in range(3):
        assert_outcome(wrong.get(READ), 401, "login")
        assert esmith.get(READ).status_code == 200


def test_a_verified_caller_is_remembered_for_a_minute_at_most(esmith: Caller) -> None:
    assert auth.REMEMBER_SECONDS <= 60
    assert esmith.app.extensions["bridge"].authenticator._remembered.ttl == auth.REMEMBER_SECONDS
    calls = count_calls(esmith.app)
    for _ in range(5):
        esmith.get(READ)
    assert not [call for call in calls.told() if "auth/" in call or "user/" in call]


def test_a_changed_password_counts_as_soon_as_the_caller_is_forgotten(app: Any, esmith: Caller) -> None:
    remembered = app.extensions["bridge"].authenticator._remembered
    verified = remembered.timer()
    user = esmith.get("/rest/v2/user/current").json
    assert esmith.send("PUT", "/rest/v2/user", {**user, "passwordHash": PASSWORD}).status_code == 200
    assert esmith.get(READ).status_code == 200
    remembered.expire(verified + auth.REMEMBER_SECONDS)  # uses in between did not lengthen it
    assert_outcome(esmith.get(READ), 401, "login")
    new = Caller(app, {**esmith.account, "password": PASSWORD})
    assert_outcome(new.get(READ), 403, "security")
    assert new.load_key().status_code == 200
    assert new.get(READ).status_code == 200


def test_a_disabled_user_is_refused_as_soon_as_forgotten(app: Any, esmith: Caller, jdoe: Caller) -> None:
    remembered = app.extensions["bridge"].authenticator._remembered
    verified = remembered.timer()
    assert jdoe.get("Patient?name=x").status_code == 200
    user = jdoe.get("/rest/v2/user/current").json
    assert esmith.send("PUT", "/rest/v2/user", {**user, "status": "DISABLED"}).status_code == 200
    remembered.expire(verified + auth.REMEMBER_SECONDS)
    assert_outcome(jdoe.get("Patient?name=x"), 401, "login")


def test_a_user_without_data_owner_may_not(app: Any, data_dir: Path) -> None:
    admin.create_user(Store(data_dir), "clerk", PASSWORD)
    clerk = Caller(app, {"login": "clerk", "password": PASSWORD, "dataOwnerId": "x", "privateKey": ""})
    for answer in (clerk.get(READ), clerk.get("/rest/icdx/v1/keychain/x")):
        assert_outcome(answer, 403, "forbidden")
        assert "data" in answer.text


def test_a_password_may_hold_colons_and_letters_beyond_ascii(app: Any, data_dir: Path) -> None:
    password = "pass:wörd:日本"
    store = Store(data_dir)
    admin.create_healthcare_party(store, {"id": "zoe", "name": "Zoë"})
    admin.create_user(store, "zoë", password, data_owner_id="zoe")
    zoe = Caller(app, {"login": "zoë", "password": password, "dataOwnerId": "zoe", "privateKey": ""})
    assert_outcome(zoe.get("/rest/icdx/v1/keychain/zoe"), 404, "not-found")


def test_a_bearer_token_works_until_it_ends(app: Any, accounts: dict[str, Account]) -> None:
    login = {"username": accounts["esmith"]["login"], "password": accounts["esmith"]["password"]}
    token = app.test_client().post("/rest/v2/auth/login", json=login).json["token"]
    path = f"/rest/icdx/v1/keychain/{accounts['esmith']['dataOwnerId']}"
    answer = app.test_client().get(path, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 404
    claims = jwt.decode(token, options={"verify_signature": False})
    assert app.extensions["bridge"].authenticator.credential(f"Bearer {token}").ends == claims["exp"]


def test_what_is_remembered_is_neither_header_nor_password(esmith: Caller) -> None:
    authenticator = esmith.app.extensions["bridge"].authenticator
    esmith.get(READ)
    kept = repr(list(authenticator._remembered.items()))
    assert esmith.account["dataOwnerId"] in kept
    for secret in (basic(esmith.account), basic(esmith.account)[6:], esmith.account["password"]):
        assert secret not in kept
        assert secret not in repr(authenticator.credential(basic(esmith.account)))


def test_two_processes_do_not_share_the_name_of_a_credential(app: Any) -> None:
    bridge = app.extensions["bridge"]
    header = f"Basic {encoded('a:b')}"
    one, other = (Authenticator(bridge.upstream, bridge.throttle) for _ in range(2))
    assert one.credential(header).id == one.credential(header).id
    assert one.credential(header).id != other.credential(header).id


def test_a_header_that_is_none_raises_before_icure_is_asked(app: Any) -> None:
    calls = count_calls(app)
    with pytest.raises(NotLoggedIn):
        app.extensions["bridge"].authenticator.credential("Basic ???")
    assert calls.told() == []


def test_every_worker_takes_the_new_password_and_no_wrong_one(
    data_dir: Path, accounts: dict[str, Account]
) -> None:
    with serving(data_dir, workers=2) as server:
        client = Remote(server, accounts["jdoe"])
        client.load_key()
        user = requests.get(f"{server.url}/rest/v2/user/current", headers=client.headers).json()
        changed = requests.put(
            f"{server.url}/rest/v2/user",
            json={**user, "passwordHash": PASSWORD},
            headers={"Authorization": client.headers["Authorization"]},
        )
        assert changed.ok
        stranger = Remote(server, {**accounts["jdoe"], "password": PASSWORD[::-1]})
        for _ in range(4):  # more have to wait
            stranger.get("Patient?name=x", 401)
        fresh = Remote(server, {**accounts["jdoe"], "password": PASSWORD})
        fresh.load_key()
        for _ in range(4):  # more have to wait
            fresh.get("Patient?name=x", 200)
