from __future__ import annotations

import base64
import json
import stat
import time
from pathlib import Path

import jwt
import pytest

from bridge.embedded import Store, auth
from bridge.embedded.auth import AUTH_AUDIENCE, KEY_FILE, Authentication

from .world import ALICE, CLINIC, PASSWORD, Client, ok, refused


def login(client: Client, name: str = "alice", secret: str = PASSWORD, **query: str):
    return client.post("/auth/login", {"username": name, "password": secret}, **query)


def claims(token: str) -> dict:
    middle = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))


def basic(name: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


def test_login_answers_what_the_sdk_reads(nobody):
    answer = ok(login(nobody))
    assert answer.keys() == {"token", "refreshToken", "successful"}
    told = claims(answer["token"])
    assert told["tac"] == 40
    assert abs(told["exp"] - time.time() - 3600) < 60
    assert (told["doId"], told["doTp"], told["hh"]) == (ALICE, "hcp", [CLINIC])


@pytest.mark.parametrize("name", ["alice", "embedded/alice", "embedded:alice"])
def test_login_takes_the_login_with_and_without_group(nobody, name):
    ok(login(nobody, name))


def test_login_takes_id_email_and_phone(nobody, root):
    user = root.create(
        "/user",
        {
            "id": "u1",
            "login": "dora",
            "email": "dora@example.org",
            "mobilePhone": "+32123456",
            "passwordHash": PASSWORD,
        },
    )
    for name in (user["id"], "dora", "dora@example.org", "+32123456"):
        ok(login(nobody, name))


REFUSED = {
    "wrong password": ("alice", "wrong password", {}, 401),
    "unknown user": ("nobody", PASSWORD, {}, 401),
    "other group": ("alice", PASSWORD, {"groupId": "elsewhere"}, 401),
    "short secret": ("alice", "12345", {}, 412),
    "too long a duration": ("alice", PASSWORD, {"duration": "9999999"}, 401),
    "duration no number": ("alice", PASSWORD, {"duration": "x"}, 400),
}


@pytest.mark.parametrize(("name", "secret", "query", "status"), REFUSED.values(), ids=REFUSED)
def test_login_is_refused(nobody, name, secret, query, status):
    refused(login(nobody, name, secret, **query), status)


@pytest.mark.parametrize("change", [{"status": "DISABLED"}, {"status": "REGISTERING"}, {"deletionDate": 1}])
def test_login_of_a_user_that_is_not_active_is_refused(nobody, root, change):
    user = root.create("/user", {"id": "u1", "login": "dora", "passwordHash": PASSWORD})
    refresh_token = ok(login(nobody, "dora"))["refreshToken"]
    ok(root.put("/user", user | change))
    refused(login(nobody, "dora"), 401)
    refused(nobody.with_headers(Refresh_Token=refresh_token).post("/auth/refresh"), 401)


def test_an_unknown_user_costs_as_much_as_a_wrong_password(nobody):
    def cost(name: str) -> float:
        started = time.process_time()
        login(nobody, name, "wrong password")
        return time.process_time() - started

    known, unknown = min(cost("alice") for _ in range(3)), min(cost("nobody") for _ in range(3))
    assert 0.5 < unknown / known < 2


def test_refresh_and_switch_give_new_tokens(nobody, app):
    first = ok(login(nobody))
    holder = nobody.with_headers(Refresh_Token=first["refreshToken"])
    refreshed = ok(holder.post("/auth/refresh"))
    assert refreshed.keys() == {"token", "successful"}
    switched = ok(holder.post("/auth/switch/embedded"))
    assert switched.keys() == {"token", "refreshToken", "successful"}
    for token in (refreshed["token"], switched["token"]):
        assert ok(Client(app, f"Bearer {token}").get("/user/current"))["login"] == "alice"
    refused(holder.post("/auth/switch/elsewhere"), 401)


def test_each_token_serves_one_purpose(nobody, app):
    answer = ok(login(nobody))
    refused(Client(app, f"Bearer {answer['refreshToken']}").get("/user/current"), 401)
    refused(nobody.with_headers(Refresh_Token=answer["token"]).post("/auth/refresh"), 401)


def forged(key: bytes = b"k" * 32, algorithm: str = "HS256", **changes) -> str:
    made = {"u": "alice", "aud": AUTH_AUDIENCE, "exp": int(time.time()) + 60} | changes
    return jwt.encode(made, key, algorithm=algorithm)


def test_a_token_that_is_not_ours_is_refused(app, data_dir: Path):
    key = (data_dir / KEY_FILE).read_bytes()
    tokens = {
        "other key": forged(),
        "expired": forged(key, exp=int(time.time()) - 30),
        "other audience": forged(key, aud="somebody"),
        "no algorithm": jwt.encode(
            {"u": "alice", "aud": AUTH_AUDIENCE, "exp": 2**40}, None, algorithm="none"
        ),
        "no token": "x.y.z",
        "empty": "",
    }
    for why, token in tokens.items():
        assert Client(app, f"Bearer {token}").get("/user/current").status_code == 401, why
    assert Client(app, f"Bearer {forged(key, exp=int(time.time()))}").get("/rest").status_code == 404


def test_a_token_that_was_taken_ends_when_it_says(app, data_dir: Path, monkeypatch):
    key = (data_dir / KEY_FILE).read_bytes()
    alice = Client(app, f"Bearer {forged(key, doId=ALICE, exp=int(time.time()) + 60)}")
    assert alice.get("/patient/none").status_code == 404
    assert alice.get("/patient/none").status_code == 404
    monkeypatch.setattr(auth, "CLOCK_SKEW_SECONDS", -60)  # as if it were a minute later
    refused(alice.get("/patient/none"), 401)


def test_without_credentials_every_route_asks_for_them(app, nobody):
    public = {
        "/rest/v2/auth/login",
        "/rest/v2/auth/refresh",
        "/rest/v2/auth/switch/<group>",
        "/rest/v2/icure/v",
        "/rest/v2/icure/ok",
    }
    for rule in app.url_map.iter_rules():
        if rule.rule in public or not rule.rule.startswith("/rest/v2"):
            continue
        path = rule.rule.removeprefix("/rest/v2").replace("<", "").replace(">", "")
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            response = nobody.call(method, path, {})
            refused(response, 401)
            assert response.headers["WWW-Authenticate"].startswith("Basic ")


@pytest.mark.parametrize(
    "header", ["Basic", "Basic !!!", "Basic " + base64.b64encode(b"no-colon").decode(), "Digest x"]
)
def test_a_malformed_authorization_is_refused(app, header):
    refused(Client(app, header).get("/user/current"), 401)


def test_basic_credentials_count_at_once_after_a_change(app, root, monkeypatch):
    user = root.create("/user", {"id": "u1", "login": "dora", "passwordHash": PASSWORD})
    dora = Client(app, basic("dora", PASSWORD))
    hashed = []
    real = auth.digest
    monkeypatch.setattr(auth, "digest", lambda *given: hashed.append(1) or real(*given))
    ok(dora.get("/user/current"))
    ok(dora.get("/user/current"))
    assert len(hashed) == 1
    ok(root.put("/user", user | {"passwordHash": "another password"}))
    refused(dora.get("/user/current"), 401)
    ok(Client(app, basic("dora", "another password")).get("/user/current"))


def test_a_token_works_like_the_password_until_it_expires(app, root, later):
    root.create("/user", {"id": "u1", "login": "dora", "passwordHash": PASSWORD})
    token = root.post("/user/token/dora/phone", tokenValidity=auth.REMEMBERED_SECONDS // 2).text
    dora = Client(app, basic("dora", token))
    ok(dora.get("/user/current"))
    later(auth.REMEMBERED_SECONDS // 2 + 1)
    refused(dora.get("/user/current"), 401)
    ok(Client(app, basic("dora", PASSWORD)).get("/user/current"))


def test_the_same_token_key_replaces_the_token(app, root):
    root.create("/user", {"id": "u1", "login": "dora", "passwordHash": PASSWORD})
    first, second = (root.post("/user/token/u1/phone").text for _ in range(2))
    refused(Client(app, basic("dora", first)).get("/user/current"), 401)
    ok(Client(app, basic("dora", second)).get("/user/current"))


VALIDITY = {
    "as asked": ({"tokenValidity": 100}, None, 100),
    "default": ({}, None, 3600),
    "at least a second": ({"tokenValidity": 0}, None, 1),
    "for ever": ({"tokenValidity": -1}, None, -1),
    "short tokens live ten minutes": ({"tokenValidity": 9999}, "123456", 600),
    "short tokens never live for ever": ({"tokenValidity": -1}, "123456", 600),
}


@pytest.mark.parametrize(("query", "token", "seconds"), VALIDITY.values(), ids=VALIDITY)
def test_validity_of_a_token(alice, query, token, seconds):
    asking = alice.with_headers(token=token) if token else alice
    assert (asking.post("/user/token/alice/phone", **query).text == token) == bool(token)
    stored = ok(alice.get("/user/current"))["authenticationTokens"]["phone"]
    assert stored.keys() == {"creationTime", "validity"}
    assert stored["validity"] == seconds


def test_tokens_of_others_are_for_administrators(alice, root):
    refused(alice.post("/user/token/bob/phone"), 403)
    refused(alice.post("/user/token/nobody/phone"), 403)
    refused(root.post("/user/token/nobody/phone"), 404)


def test_nothing_on_disk_is_a_secret_in_clear_and_nobody_else_reads_it(alice, data_dir: Path, nobody):
    token = alice.post("/user/token/alice/phone").text
    answer = ok(login(nobody, secret=token))
    files = [path for path in data_dir.iterdir() if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    content = b"".join(path.read_bytes() for path in files)
    for secret in (PASSWORD, token, answer["token"], answer["refreshToken"]):
        assert secret.encode() not in content


def test_processes_share_one_key(data_dir: Path, store: Store):
    (data_dir / KEY_FILE).unlink()
    first, second = Authentication(store), Authentication(store)
    token = first.login("alice", PASSWORD)["token"]
    assert second.caller_of(token).data_owner_id == ALICE
