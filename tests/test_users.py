"""Users for administrators and tokens for oneself, through the bridge."""

from __future__ import annotations

import logging
import time
from base64 import b64encode
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bridge import users
from bridge.app import EMBEDDED_URL
from bridge.embedded import auth
from tests.helpers import DEMO_PATIENT, Caller, Counting, assert_outcome, basic, stored

USERS, TOKENS = "/rest/icdx/v1/users", "/rest/icdx/v1/tokens"
PASSWORD = "correct horse battery staple"
JOHN = {"login": "john", "email": "john@hospital.care", "mobilePhone": "+32470000001", "password": PASSWORD}
LOGIN = "/rest/v2/auth/login"


@pytest.fixture
def john(esmith: Caller) -> dict[str, Any]:
    answer = esmith.post(USERS, JOHN)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json
    return made


@pytest.fixture
def as_john(app: Any, john: dict[str, Any]) -> Caller:
    return Caller(app, {"login": "john", "password": PASSWORD})


def log_in(caller: Caller, login: str, secret: str) -> int:
    """Returns how iCure answers this login."""
    return int(caller.post(LOGIN, {"username": login, "password": secret}).status_code)


def test_a_user_is_made_read_changed_and_removed(esmith: Caller) -> None:
    made = esmith.post(USERS, JOHN)
    assert made.status_code == 201, made.text
    user = made.json
    said = {name: value for name, value in JOHN.items() if name != "password"}
    assert said.items() <= user.items()
    assert made.headers["Location"] == f"{USERS}/{user['id']}"
    assert made.headers["ETag"] == f'W/"{user["rev"]}"'
    assert esmith.get(made.headers["Location"]).json == user
    assert log_in(esmith, "john", PASSWORD) == 200

    changed = esmith.send("PUT", f"{USERS}/{user['id']}", {"login": "john", "name": "John"})
    assert changed.status_code == 200, changed.text
    assert (changed.json["name"], changed.json["login"]) == ("John", "john")
    assert not {"email", "mobilePhone"} & changed.json.keys()
    assert log_in(esmith, "john", PASSWORD) == 200

    assert esmith.delete(f"{USERS}/{user['id']}").status_code == 204
    assert_outcome(esmith.get(f"{USERS}/{user['id']}"), 404, "not-found")
    assert_outcome(esmith.delete(f"{USERS}/{user['id']}"), 404, "not-found")
    assert log_in(esmith, "john", PASSWORD) == 401
    assert esmith.post(USERS, JOHN).status_code == 201


def test_a_user_that_is_sent_again_under_its_key_is_made_once(esmith: Caller, data_dir: Path) -> None:
    made = esmith.post(USERS, JOHN, Idempotency_Key="once")
    before = stored(data_dir)
    again = esmith.post(USERS, JOHN, Idempotency_Key="once")
    assert (again.status_code, again.json) == (201, made.json)
    assert again.headers["Location"] == made.headers["Location"]
    for member in ({"login": "other"}, {"name": "John"}, {"status": "DISABLED"}):
        other = {**JOHN, **member}
        assert_outcome(esmith.post(USERS, other, Idempotency_Key="once"), 422, "business-rule")
    assert_outcome(esmith.post(USERS, JOHN, Idempotency_Key="another"), 409, "duplicate")
    assert_outcome(esmith.post(USERS, JOHN, Idempotency_Key="no key"), 400, "invalid")
    assert stored(data_dir) == before


def test_a_key_whose_user_was_refused_stays_free(esmith: Caller, john: dict[str, Any]) -> None:
    assert_outcome(esmith.post(USERS, JOHN, Idempotency_Key="once"), 409, "duplicate")
    other = {"login": "other", "name": "Other"}
    assert esmith.post(USERS, other, Idempotency_Key="once").status_code == 201


def test_a_password_changes_when_one_is_sent(esmith: Caller, john: dict[str, Any]) -> None:
    body = {**JOHN, "password": "wrong horse battery staple"}
    assert esmith.send("PUT", f"{USERS}/{john['id']}", body).status_code == 200
    assert log_in(esmith, "john", "wrong horse battery staple") == 200
    assert log_in(esmith, "john", PASSWORD) == 401


@pytest.mark.parametrize("name", ["login", "email", "mobilePhone"])
def test_a_name_that_another_has_is_refused_and_told(
    esmith: Caller, john: dict[str, Any], data_dir: Path, name: str
) -> None:
    before = stored(data_dir)
    assert_outcome(esmith.post(USERS, {"login": "other", name: JOHN[name]}), 409, "duplicate", name)
    assert stored(data_dir) == before
    other = esmith.post(USERS, {"login": "other"}).json
    before = stored(data_dir)
    path = f"{USERS}/{other['id']}"
    assert_outcome(esmith.send("PUT", path, {"login": "other", name: JOHN[name]}), 409, "duplicate", name)
    assert stored(data_dir) == before


BAD = {
    "unknown member": ({"login": "x", "passwordHash": PASSWORD}, "passwordHash"),
    "unknown member with a strange name": ({"login": "x", "ü ": PASSWORD}, None),
    "own id": ({"login": "x", "id": "mine"}, "id"),
    "a Bundle of nothing": ({"resourceType": "Bundle", "entry": 5}, "entry"),
    "a Bundle of no entries": ({"resourceType": "Bundle", "entry": [5, None]}, "entry"),
    "administrator": ({"login": "x", "systemMetadata": {"isAdmin": True}}, "systemMetadata"),
    "long login": ({"login": "x" * 256}, "login"),
    "long name": ({"login": "x", "name": "x" * 256}, "name"),
    "long password": ({"login": "x", "password": "x" * 256}, "password"),
    "login of spaces": ({"login": "  "}, "login"),
    "login with a colon": ({"login": "a:b"}, "login"),
    "login that is a number": ({"login": 1}, "login"),
    "no e-mail": ({"email": "john"}, "email"),
    "no phone": ({"mobilePhone": "call me"}, "mobilePhone"),
    "short password": ({"login": "x", "password": "short"}, "password"),
    "status": ({"login": "x", "status": "GONE"}, "status"),
    "delegations": ({"login": "x", "autoDelegations": {"all": "me"}}, "autoDelegations"),
    "delegations of nothing": ({"login": "x", "autoDelegations": {"everything": ["me"]}}, "autoDelegations"),
}


@pytest.mark.parametrize(("body", "path"), BAD.values(), ids=BAD)
def test_what_is_no_user_is_refused_with_its_place(
    esmith: Caller, data_dir: Path, body: Any, path: str | None
) -> None:
    before = stored(data_dir)
    assert_outcome(esmith.post(USERS, body), 400, "invalid", path)
    assert stored(data_dir) == before


@pytest.mark.parametrize("body", [{}, {"name": "John", "password": PASSWORD}, {"login": None}])
def test_a_user_without_a_name_to_log_in_with_is_refused(
    esmith: Caller, john: dict[str, Any], data_dir: Path, body: Any
) -> None:
    before = stored(data_dir)
    for answer in (esmith.post(USERS, body), esmith.send("PUT", f"{USERS}/{john['id']}", body)):
        assert_outcome(answer, 400, "required")
        assert "login, email, mobilePhone" in answer.text
    assert stored(data_dir) == before


@pytest.mark.parametrize("name", ["current", "matches", "byIds", "filter", "..", "%2e%2e", "%00"])
def test_a_path_of_icure_is_no_user(esmith: Caller, data_dir: Path, name: str) -> None:
    before = stored(data_dir)
    for answer in (
        esmith.get(f"{USERS}/{name}"),
        esmith.send("PUT", f"{USERS}/{name}", {"login": "x"}),
        esmith.delete(f"{USERS}/{name}"),
    ):
        assert_outcome(answer, 404)
    assert stored(data_dir) == before


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"login": "a", "login": "b"}'])
def test_what_is_no_json_object_is_refused(esmith: Caller, body: bytes) -> None:
    assert_outcome(esmith.post(USERS, body), 400)
    assert_outcome(esmith.post(TOKENS, body), 400)


def test_a_user_that_was_changed_meanwhile_stays(esmith: Caller, john: dict[str, Any]) -> None:
    path = f"{USERS}/{john['id']}"
    stale = f'W/"{john["rev"]}"'
    assert esmith.send("PUT", path, {"login": "john"}, If_Match=stale).status_code == 200
    assert_outcome(esmith.send("PUT", path, {"login": "x"}, If_Match=stale), 412)
    assert_outcome(esmith.delete(path, If_Match=stale), 412)
    assert_outcome(esmith.delete(path, If_Match="nonsense"), 400)
    now = esmith.get(path)
    assert now.json["login"] == "john"
    assert esmith.delete(path, If_Match=now.headers["ETag"]).status_code == 204


@pytest.mark.parametrize(("if_match", "status"), [(True, 412), (False, 409)])
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_who_is_overtaken_while_writing_is_told_so(
    esmith: Caller, john: dict[str, Any], method: str, if_match: bool, status: int
) -> None:
    class Overtaken(Counting):
        """Does every write once before it is done."""

        def send(self, request: Any, **options: Any) -> Any:
            if request.method == method:
                self.inner.send(request, **options)
            return super().send(request, **options)

    session = esmith.app.extensions["bridge"].upstream.session
    session.mount(EMBEDDED_URL, Overtaken(session.get_adapter(EMBEDDED_URL)))
    headers = {"If_Match": f'W/"{john["rev"]}"'} if if_match else {}
    answer = esmith.send(method, f"{USERS}/{john['id']}", {"login": "john"}, **headers)
    assert_outcome(answer, status, "conflict")
    assert "changed meanwhile" in answer.text


def test_users_are_found_by_what_is_known_of_them(esmith: Caller, john: dict[str, Any]) -> None:
    patient = esmith.post(USERS, {"email": "p@example.org", "patientId": DEMO_PATIENT}).json

    def found(**query: str) -> list[str]:
        answer = esmith.http.get(USERS, query_string=query, headers={"Authorization": basic(esmith.account)})
        assert answer.status_code == 200, answer.text
        return [user["id"] for user in answer.json["users"]]

    assert found(email=JOHN["email"]) == found(mobilePhone=JOHN["mobilePhone"]) == [john["id"]]
    assert found(search="hospital") == [john["id"]]
    assert found(patientId=DEMO_PATIENT) == [patient["id"]]
    assert found(email="nobody@example.org") == found(patientId="nobody") == []
    assert len(found(healthcarePartyId=esmith.account["dataOwnerId"])) == 1
    assert len(found()) == 4


def test_users_come_in_pages(esmith: Caller) -> None:
    for at in range(5):
        assert esmith.post(USERS, {"login": f"user{at}"}).status_code == 201
    seen, start = [], ""
    while True:
        page = esmith.get(f"{USERS}?limit=3{start}").json
        seen += [user["login"] for user in page["users"]]
        if "next" not in page:
            break
        start = f"&start={page['next']}"
    assert sorted(seen) == ["esmith", "jdoe", *(f"user{at}" for at in range(5))]


def test_a_page_that_begins_with_a_user_who_was_removed_is_refused_and_not_taken_for_the_end(
    esmith: Caller,
) -> None:
    for at in range(3):
        assert esmith.post(USERS, {"login": f"user{at}"}).status_code == 201
    following = esmith.get(f"{USERS}?limit=2").json["next"]
    assert esmith.delete(f"{USERS}/{following}").status_code == 204
    assert_outcome(esmith.get(f"{USERS}?limit=2&start={following}"), 400, "invalid")


MISASKED = [
    *("limit=0", "limit=x", "limit=1001", "unknown=1", "email=a@b&search=x"),
    *("email=", "search=%20", "limit=1&limit=2", "email=a@b&email=c@d", "start=nobody"),
]


@pytest.mark.parametrize("query", MISASKED)
def test_what_users_are_not_found_by_is_refused(esmith: Caller, query: str) -> None:
    assert_outcome(esmith.get(f"{USERS}?{query}"), 400, "invalid")


def test_only_administrators_manage_users(esmith: Caller, jdoe: Caller, data_dir: Path) -> None:
    other = esmith.get(f"{USERS}?healthcarePartyId={esmith.account['dataOwnerId']}").json["users"][0]
    before = stored(data_dir)
    path = f"{USERS}/{other['id']}"
    for answer in (
        jdoe.get(USERS),
        jdoe.get(path),
        jdoe.post(USERS, JOHN),
        jdoe.send("PUT", path, {"login": "esmith", "password": PASSWORD}),
        jdoe.delete(path),
    ):
        assert_outcome(answer, 403, "forbidden")
        assert "administrators" in answer.text
    assert stored(data_dir) == before


@pytest.fixture
def himself(esmith: Caller, jdoe: Caller) -> str:
    """The path of the user that jdoe is."""
    owner = jdoe.account["dataOwnerId"]
    return f"{USERS}/{esmith.get(f'{USERS}?healthcarePartyId={owner}').json['users'][0]['id']}"


def test_everybody_changes_ones_own_password(jdoe: Caller, himself: str) -> None:
    changed = jdoe.send("PUT", himself, {"login": "jdoe", "password": PASSWORD})
    assert changed.status_code == 200, changed.text
    assert changed.json["healthcarePartyId"] == jdoe.account["dataOwnerId"]
    assert log_in(jdoe, "jdoe", PASSWORD) == 200


@pytest.mark.parametrize("name", ["status", "healthcarePartyId", "patientId", "deviceId"])
def test_who_is_no_administrator_changes_nothing_else_of_oneself(
    jdoe: Caller, himself: str, data_dir: Path, name: str
) -> None:
    before = stored(data_dir)
    body = {"login": "jdoe", "password": PASSWORD, name: "DISABLED"}
    assert_outcome(jdoe.send("PUT", himself, body), 403, "forbidden", name)
    assert stored(data_dir) == before
    assert log_in(jdoe, "jdoe", PASSWORD) == 401


@pytest.mark.parametrize("body", [{"login": "esmith"}, {"login": "jdoe", "email": JOHN["email"]}])
def test_who_may_not_look_for_others_learns_not_who_has_a_name(
    jdoe: Caller, john: dict[str, Any], himself: str, data_dir: Path, body: Any
) -> None:
    before = stored(data_dir)
    refused = jdoe.send("PUT", himself, body)
    assert_outcome(refused, 422, "processing")
    assert "another user" in refused.text
    assert stored(data_dir) == before


def test_nobody_manages_anything_without_a_login(app: Any) -> None:
    for path in (USERS, f"{USERS}/x", TOKENS):
        assert_outcome(app.test_client().get(path), 401, "login")


def test_an_administrator_cannot_be_made_here(esmith: Caller, as_john: Caller, john: dict[str, Any]) -> None:
    body = {"login": "john", "healthcarePartyId": esmith.account["dataOwnerId"]}
    assert esmith.send("PUT", f"{USERS}/{john['id']}", body).status_code == 200
    assert_outcome(as_john.get(USERS), 403)


# tokens


def test_a_token_works_like_the_password_until_it_is_ended(esmith: Caller, app: Any) -> None:
    made = esmith.post(TOKENS, {"name": "phone", "seconds": 3600})
    assert made.status_code == 201, made.text
    assert made.headers["Cache-Control"] == "no-store"
    token = made.json["token"]
    with_token = Caller(app, {**esmith.account, "password": token})
    assert with_token.load_key().status_code == 200
    assert with_token.get(f"Patient/{DEMO_PATIENT}").status_code == 200
    (listed,) = esmith.get(TOKENS).json["tokens"]
    assert listed.keys() == {"name", "createdAt", "expiresAt"}
    assert listed["name"] == "phone"

    assert esmith.delete(f"{TOKENS}/phone").status_code == 204
    assert log_in(esmith, "esmith", token) == 401
    assert esmith.get(TOKENS).json == {"tokens": []}
    assert_outcome(esmith.delete(f"{TOKENS}/phone"), 404, "not-found")


def test_a_token_ends_by_itself(esmith: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    token = esmith.post(TOKENS, {"seconds": 60}).json["token"]
    assert log_in(esmith, "esmith", token) == 200
    later = SimpleNamespace(
        time=lambda: time.time() + 60,
        time_ns=lambda: time.time_ns() + 60 * 10**9,
        monotonic=lambda: time.monotonic() + 60,
    )
    for module in (auth, users):
        monkeypatch.setattr(module, "time", later)
    assert log_in(esmith, "esmith", token) == 401
    assert esmith.get(TOKENS).json == {"tokens": []}


def test_a_token_with_the_same_name_replaces_the_first(esmith: Caller) -> None:
    first, second = (esmith.post(TOKENS, {"name": "phone"}).json["token"] for _ in range(2))
    assert (log_in(esmith, "esmith", first), log_in(esmith, "esmith", second)) == (401, 200)
    assert len(esmith.get(TOKENS).json["tokens"]) == 1


def test_tokens_have_names_and_ends_of_their_own(esmith: Caller) -> None:
    unnamed = esmith.post(TOKENS, {}).json
    forever = esmith.post(TOKENS, {"seconds": -1}).json
    assert "expiresAt" in unnamed
    assert "expiresAt" not in forever
    assert unnamed["name"] != forever["name"]
    assert [t["name"] for t in esmith.get(TOKENS).json["tokens"]] == [unnamed["name"], forever["name"]]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"seconds": 0}, "seconds"),
        ({"seconds": -2}, "seconds"),
        ({"seconds": 10**12}, "seconds"),
        ({"seconds": "60"}, "seconds"),
        ({"seconds": True}, "seconds"),
        ({"name": ""}, "name"),
        ({"name": ".."}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": 7}, "name"),
        ({"user": "jdoe"}, None),
    ],
)
def test_what_is_no_token_is_refused_with_its_place(
    esmith: Caller, data_dir: Path, body: Any, path: str | None
) -> None:
    before = stored(data_dir)
    assert_outcome(esmith.post(TOKENS, body), 400, "invalid", path)
    assert stored(data_dir) == before


def test_who_owns_no_data_makes_tokens_and_reads_nothing(as_john: Caller) -> None:
    token = as_john.post(TOKENS, {}).json["token"]
    assert log_in(as_john, "john", token) == 200
    assert_outcome(as_john.get(f"Patient/{DEMO_PATIENT}"), 403, "forbidden")
    assert "owns no data" in as_john.get(f"Patient/{DEMO_PATIENT}").text


def test_tokens_are_ones_own(esmith: Caller, jdoe: Caller) -> None:
    esmith.post(TOKENS, {"name": "phone"})
    assert jdoe.get(TOKENS).json == {"tokens": []}
    assert_outcome(jdoe.delete(f"{TOKENS}/phone"), 404)


def test_no_password_and_no_token_is_told_logged_or_kept(
    esmith: Caller, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("bridge")
    logger.propagate = True
    with caplog.at_level(logging.DEBUG):
        user = esmith.post(USERS, JOHN).json
        token = esmith.post(TOKENS, {"name": "phone"}).json["token"]
        said = [
            esmith.get(f"{USERS}/{user['id']}").text,
            esmith.get(USERS).text,
            esmith.get(TOKENS).text,
            esmith.post(USERS, JOHN).text,
            esmith.post(USERS, {**JOHN, "email": PASSWORD}).text,
            esmith.send("PUT", f"{USERS}/{user['id']}", JOHN).text,
        ]
    files = b"".join(file.read_bytes() for file in data_dir.rglob("*") if file.is_file())
    for secret in (PASSWORD, token, b64encode(PASSWORD.encode()).decode(), esmith.account["password"]):
        assert not [text for text in said if secret in text]
        assert secret not in caplog.text
        assert secret == esmith.account["password"] or secret.encode() not in files
    assert not [text for text in said if "passwordHash" in text or "authenticationTokens" in text]
