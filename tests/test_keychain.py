from __future__ import annotations

import base64
import gc
import json
import sqlite3
import time
import types
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from shutil import copytree
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from bridge.app import create_app
from bridge.config import Config
from bridge.crypto import primitives
from bridge.crypto.keys import PrivateKey
from bridge.embedded import Store, admin
from bridge.keychain import _credential_name as credential_name
from bridge.state import Sqlite, State
from tests.helpers import DEMO_PATIENT, Account, Caller, assert_outcome, basic

KEYCHAIN = "/rest/icdx/v1/keychain"
READ = f"Patient/{DEMO_PATIENT}"
PASSWORD = "correct horse battery"


def keychain(data_owner_id: str) -> str:
    return f"{KEYCHAIN}/{data_owner_id}"


def epoch(instant: str) -> float:
    return time.mktime(time.strptime(instant[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone


@pytest.fixture(scope="session")
def keys() -> list[PrivateKey]:
    """Keys that nobody of the demo environment announces."""
    return [PrivateKey.generate() for _ in range(3)]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock, which stands still otherwise, forward by seconds."""
    now = [time.time()]

    def move(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "time", lambda: now[0])
    return move


@pytest.fixture
def ann(app: Any, accounts: dict[str, Account]) -> Caller:
    """esmith before any key is loaded."""
    return Caller(app, accounts["esmith"])


@pytest.fixture
def person(app: Any, data_dir: Path) -> Callable[..., Caller]:
    """Makes a healthcare party with a user; the first of its keys is its account's."""

    def make(name: str, *own: PrivateKey, parent: str | None = None) -> Caller:
        store = Store(data_dir)
        party = {"id": name, "name": name, "publicKeysForOaepWithSha256": [k.spki_hex for k in own]}
        admin.create_healthcare_party(store, party | ({"parentId": parent} if parent else {}))
        admin.create_user(store, name, PASSWORD, data_owner_id=name)
        key = own[0].pkcs8_der.hex()
        return Caller(app, {"login": name, "password": PASSWORD, "dataOwnerId": name, "privateKey": key})

    return make


class Bearer(Caller):
    """A caller who shows a JWT."""

    def __init__(self, app: Any, account: Account, seconds: int = 3600) -> None:
        super().__init__(app, account)
        login = {"username": account["login"], "password": account["password"]}
        answer = self.http.post(f"/rest/v2/auth/login?duration={seconds}", json=login)
        self.token = answer.json["token"]

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        return super().send(method, path, body, **{"Authorization": f"Bearer {self.token}"} | headers)


def written_as(der_hex: str) -> dict[str, str]:
    """Returns the ways in which a key may be written."""
    der = bytes.fromhex(der_hex)
    key = load_der_private_key(der, None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    upper = der_hex.upper()
    return {"hex": der_hex, "upper": upper, "PEM": pem, "base64": base64.b64encode(der).decode()}


@pytest.mark.parametrize("form", ["hex", "upper", "PEM", "base64"])
def test_a_key_is_loaded_however_it_is_written(ann: Caller, form: str) -> None:
    answer = ann.load_key(written_as(ann.account["privateKey"])[form])
    assert answer.status_code == 200
    assert answer.json.keys() == {"dataOwnerId", "fingerprint", "expiresAt"}
    assert answer.json["dataOwnerId"] == ann.account["dataOwnerId"]
    assert answer.json["fingerprint"] == PrivateKey.parse(ann.account["privateKey"]).fingerprint
    assert 3540 < epoch(answer.json["expiresAt"]) - time.time() <= 3600
    assert ann.get(READ).status_code == 200


def test_get_tells_the_fingerprints_and_nothing_else(esmith: Caller) -> None:
    answer = esmith.get(keychain(esmith.account["dataOwnerId"]))
    assert answer.status_code == 200
    assert answer.json.keys() == {"dataOwnerId", "fingerprints", "expiresAt"}
    assert answer.json["fingerprints"] == [PrivateKey.parse(esmith.account["privateKey"]).fingerprint]
    assert esmith.account["privateKey"][100:140] not in answer.text


def test_get_without_a_key_is_not_found(ann: Caller) -> None:
    assert_outcome(ann.get(keychain(ann.account["dataOwnerId"])), 404, "not-found")


def test_loading_the_same_key_again_keeps_one(esmith: Caller) -> None:
    esmith.load_key()
    assert len(esmith.get(keychain(esmith.account["dataOwnerId"])).json["fingerprints"]) == 1


def test_without_a_key_fhir_says_how_to_load_one(ann: Caller) -> None:
    for answer in (
        ann.get(READ),
        ann.get("Patient?name=x"),
        ann.post("Patient", {"resourceType": "Patient"}),
    ):
        assert_outcome(answer, 403, "security")
        assert keychain(ann.account["dataOwnerId"]) in answer.text
        assert "POST" in answer.text


def test_after_delete_fhir_says_how_to_load_the_key(esmith: Caller) -> None:
    assert esmith.get(READ).status_code == 200
    answer = esmith.delete(keychain(esmith.account["dataOwnerId"]))
    assert (answer.status_code, answer.data) == (204, b"")
    assert_outcome(esmith.get(READ), 403, "security")
    assert keychain(esmith.account["dataOwnerId"]) in esmith.get(READ).text
    assert esmith.get(keychain(esmith.account["dataOwnerId"])).status_code == 404
    assert esmith.delete(keychain(esmith.account["dataOwnerId"])).status_code == 204
    assert esmith.load_key().status_code == 200
    assert esmith.get(READ).status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("authorization", ["", "Basic ZXNtaXRoOndyb25nIHBhc3N3b3Jk", "Bearer e30.e30.e30"])
def test_a_wrong_login_is_refused(ann: Caller, method: str, authorization: str) -> None:
    path = keychain(ann.account["dataOwnerId"])
    answer = ann.send(method, path, {"key": ann.account["privateKey"]}, Authorization=authorization)
    assert_outcome(answer, 401, "login")
    assert answer.headers["WWW-Authenticate"].startswith("Basic")


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_the_keychain_of_someone_else_is_refused(
    esmith: Caller, accounts: dict[str, Account], method: str
) -> None:
    other = accounts["jdoe"]
    answer = esmith.send(method, keychain(other["dataOwnerId"]), {"key": other["privateKey"]})
    assert_outcome(answer, 403, "forbidden")


NO_KEYS = {
    "empty": "",
    "words": "not a key",
    "odd hex": "abc",
    "hex of nothing": "00" * 64,
    "base64 of nothing": "AAAA",
    "cut PEM": "-----BEGIN PRIVATE KEY-----\nMIIE\n",
    "too long": "ab" * 40_000,
    "beyond ASCII": "é" * 64,
}


@pytest.mark.parametrize("text", NO_KEYS.values(), ids=NO_KEYS)
def test_what_is_no_key_is_refused_and_not_repeated(ann: Caller, text: str) -> None:
    answer = ann.load_key(text)
    assert_outcome(answer, 422)
    assert not text or text not in answer.text


def test_a_key_of_another_kind_or_behind_a_password_is_refused(ann: Caller) -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    der = curve.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()).hex()
    assert_outcome(ann.load_key(der), 422)
    rsa = load_der_private_key(bytes.fromhex(ann.account["privateKey"]), None)
    locked = rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    assert_outcome(ann.load_key(locked.decode()), 422)


def test_a_key_that_is_not_announced_is_refused(ann: Caller, keys: list[PrivateKey]) -> None:
    assert_outcome(ann.load_key(keys[0].pkcs8_der.hex()), 422)
    assert ann.get(keychain(ann.account["dataOwnerId"])).status_code == 404


BAD_BODIES = {
    "not JSON": b"{",
    "empty": b"",
    "a list": b"[]",
    "a text": b'"key"',
    "null": b"null",
    "no key": b"{}",
    "a number": b'{"key": 5}',
    "twice": b'{"key": "a", "key": "b"}',
    "not UTF-8": b'{"key": "\xff"}',
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
def test_a_body_without_a_key_is_refused(ann: Caller, body: bytes) -> None:
    assert_outcome(ann.post(keychain(ann.account["dataOwnerId"]), body), 400)


def test_a_key_serves_the_login_that_loaded_it_only(ann: Caller) -> None:
    token = ann.send("POST", "/rest/v2/user/token/esmith/app?tokenValidity=3600").text
    with_token = Caller(ann.app, {**ann.account, "password": token})
    assert with_token.load_key().status_code == 200
    assert with_token.get(READ).status_code == 200
    answer = ann.get(READ)
    assert_outcome(answer, 403, "security")
    assert "with another login" in answer.text
    assert keychain(ann.account["dataOwnerId"]) in answer.text
    assert ann.load_key().status_code == 200
    assert [caller.get(READ).status_code for caller in (ann, with_token)] == [200, 200]


def test_delete_forgets_the_keys_of_every_login(ann: Caller) -> None:
    bearer = Bearer(ann.app, ann.account)
    ann.load_key(), bearer.load_key()
    assert bearer.get(READ).status_code == 200
    ann.delete(keychain(ann.account["dataOwnerId"]))
    assert [caller.get(READ).status_code for caller in (ann, bearer)] == [403, 403]


def test_with_a_bearer_token_the_entry_ends_with_the_token(
    app: Any, accounts: dict[str, Account], later: Callable[[float], None]
) -> None:
    bearer = Bearer(app, accounts["esmith"], seconds=120)
    ends = jwt.decode(bearer.token, options={"verify_signature": False})["exp"]
    answer = bearer.load_key()
    assert abs(epoch(answer.json["expiresAt"]) - ends) <= 1
    assert bearer.get(READ).status_code == 200
    later(121)
    assert_outcome(bearer.get(READ), 403, "security")


def test_a_key_ends_an_hour_after_its_last_use(esmith: Caller, later: Callable[[float], None]) -> None:
    for _ in range(3):
        later(3000)
        assert esmith.get(READ).status_code == 200
    later(3601)
    assert_outcome(esmith.get(READ), 403, "security")
    assert esmith.get(keychain(esmith.account["dataOwnerId"])).status_code == 404


def test_a_key_ends_after_twelve_hours_however_much_it_is_used(
    esmith: Caller, later: Callable[[float], None]
) -> None:
    for _ in range(14):
        later(3000)
        assert esmith.get(READ).status_code == 200
    later(1201)
    assert_outcome(esmith.get(READ), 403, "security")


def test_looking_at_the_keychain_does_not_keep_a_key(esmith: Caller, later: Callable[[float], None]) -> None:
    for _ in range(2):
        later(1700)
        assert esmith.get(keychain(esmith.account["dataOwnerId"])).status_code == 200
    later(300)
    assert_outcome(esmith.get(READ), 403, "security")


def test_how_long_a_key_stays_is_configured(
    data_dir: Path, accounts: dict[str, Account], later: Callable[[float], None]
) -> None:
    app = create_app(Config(data_dir=data_dir, key_ttl_seconds=60, key_max_age_seconds=100))
    caller = Caller(app, accounts["esmith"])
    assert 59 < epoch(caller.load_key().json["expiresAt"]) - time.time() <= 60
    later(55)
    assert caller.get(READ).status_code == 200
    assert (
        44 < epoch(caller.get(keychain(caller.account["dataOwnerId"])).json["expiresAt"]) - time.time() <= 45
    )
    later(46)
    assert caller.get(READ).status_code == 403


def test_a_second_key_is_added_not_swapped(person: Callable[..., Caller], keys: list[PrivateKey]) -> None:
    rita = person("rita", *keys[:2])
    rita.load_key()
    patient = rita.created({"resourceType": "Patient"})
    assert rita.load_key(keys[1].pkcs8_der.hex()).json["fingerprint"] == keys[1].fingerprint
    assert rita.get(keychain("rita")).json["fingerprints"] == [k.fingerprint for k in keys[:2]]
    assert rita.get(f"Patient/{patient['id']}").status_code == 200
    assert rita.delete(keychain("rita")).status_code == 204
    assert rita.get(keychain("rita")).status_code == 404


@pytest.fixture
def clinic(person: Callable[..., Caller], keys: list[PrivateKey]) -> Caller:
    """A healthcare party that has a child."""
    return person("clinic", keys[0])


@pytest.fixture
def nurse(clinic: Caller, person: Callable[..., Caller], keys: list[PrivateKey]) -> Caller:
    """The child of the clinic, with its own key loaded."""
    nurse = person("nurse", keys[1], parent="clinic")
    assert nurse.load_key().status_code == 200
    return nurse


def test_a_child_loads_the_key_of_its_parent_and_reads_what_the_parent_reads(
    clinic: Caller, nurse: Caller
) -> None:
    clinic.load_key()
    patient = f"Patient/{clinic.created({'resourceType': 'Patient', 'active': True})['id']}"
    assert_outcome(nurse.get(patient), 403, "security")
    answer = nurse.load_key(clinic.account["privateKey"], "clinic")
    assert answer.json["dataOwnerId"] == "clinic"
    assert nurse.get(patient).json["active"] is True
    assert len(nurse.get(keychain("clinic")).json["fingerprints"]) == 1
    assert nurse.delete(keychain("clinic")).status_code == 204
    assert_outcome(nurse.get(patient), 403, "security")
    assert clinic.get(patient).status_code == 200, "the child forgot its own upload only"


def test_a_parent_forgets_what_its_child_uploaded_of_it(clinic: Caller, nurse: Caller) -> None:
    nurse.load_key(clinic.account["privateKey"], "clinic")
    assert_outcome(clinic.get("Patient?name=x"), 403, "security")
    assert clinic.delete(keychain("clinic")).status_code == 204
    assert nurse.get(keychain("clinic")).status_code == 404
    assert nurse.get("Patient?name=x").status_code == 200, "its own key is still there"


def test_a_parent_may_not_load_the_key_of_its_child(clinic: Caller, nurse: Caller) -> None:
    assert_outcome(clinic.load_key(nurse.account["privateKey"], "nurse"), 403, "forbidden")


def test_the_key_of_a_parent_is_not_taken_for_the_childs_own(clinic: Caller, nurse: Caller) -> None:
    assert_outcome(nurse.load_key(clinic.account["privateKey"], "nurse"), 422)
    assert_outcome(nurse.load_key(nurse.account["privateKey"], "clinic"), 422)


def secrets_of(account: Account) -> list[bytes]:
    """Returns what of an account must not lie about, in the forms in which it might."""
    der = bytes.fromhex(account["privateKey"])
    pair = f"{account['login']}:{account['password']}".encode()
    return [
        *(der[200:232], der.hex().encode()[400:464], base64.b64encode(der)[100:140]),
        *(account["password"].encode(), base64.b64encode(pair)),
    ]


def state_files(folder: Path) -> bytes:
    files = list(folder.glob("state.db*")) + [f for f in (folder / "locks").rglob("*") if f.is_file()]
    names = "\n".join(str(f.name) for f in folder.rglob("*")).encode()
    return names + b"".join(f.read_bytes() for f in files)


def test_the_state_holds_no_secret_login_or_id_in_clear(esmith: Caller, data_dir: Path) -> None:
    Bearer(esmith.app, esmith.account).load_key()
    esmith.get(READ)
    held = state_files(data_dir)
    account = esmith.account
    for hidden in (*secrets_of(account), b"esmith", account["dataOwnerId"].encode(), b"keychain"):
        assert hidden not in held


def opened_values(folder: Path, secret: bytes) -> list[bytes]:
    """Returns what someone who has the state and this deployment secret can open."""
    state = State(Sqlite(folder), secret)
    with closing(sqlite3.connect(folder / "state.db")) as db:
        rows = db.execute("SELECT name, value FROM state").fetchall()
    assert rows
    opened = []
    for name, value in rows:
        try:
            opened.append(primitives.open_sealed(state._value_key, value, name.encode()))
        except primitives.InvalidTag:
            continue
    return opened


def test_whoever_has_state_and_deployment_secret_still_has_no_key(esmith: Caller, data_dir: Path) -> None:
    opened = opened_values(data_dir, (data_dir / "secret").read_bytes())
    (entries,) = [found for found in map(json.loads, opened) if isinstance(found, list)]
    box = base64.b64decode(entries[0]["box"])
    assert len(box) > 1000, "the search is blind"
    for hidden in (*secrets_of(esmith.account), b"esmith"):
        assert hidden not in b"".join(opened) + box
    assert opened_values(data_dir, b"another deployment secret") == []


def test_a_copied_state_opens_nothing_under_another_deployment_secret(
    esmith: Caller, data_dir: Path, tmp_path: Path
) -> None:
    copy = copytree(data_dir, tmp_path / "copy")
    assert Caller(create_app(Config(data_dir=copy)), esmith.account).get(READ).status_code == 200
    (copy / "secret").write_bytes(b"another deployment secret.......")
    stranger = Caller(create_app(Config(data_dir=copy)), esmith.account)
    assert_outcome(stranger.get(READ), 403, "security")


def test_a_copied_state_opens_nothing_with_another_password(
    esmith: Caller, data_dir: Path, tmp_path: Path
) -> None:
    copy = copytree(data_dir, tmp_path / "copy")
    caller = Caller(create_app(Config(data_dir=copy)), esmith.account)
    user = caller.get("/rest/v2/user/current").json
    assert caller.send("PUT", "/rest/v2/user", {**user, "passwordHash": PASSWORD}).status_code == 200
    changed = Caller(caller.app, {**esmith.account, "password": PASSWORD})
    answer = changed.get(READ)
    assert_outcome(answer, 403, "security")
    assert "with another login" in answer.text


OPAQUE = (type, types.ModuleType, types.FunctionType, types.FrameType, types.CodeType)


def reachable(*roots: object) -> Iterator[object]:
    """Yields every object of the project's classes, and every cache, that these hold."""
    todo, seen = list(roots), set()
    while todo:
        one = todo.pop()
        if id(one) in seen or isinstance(one, OPAQUE):
            continue
        seen.add(id(one))
        if type(one).__module__.partition(".")[0] in ("bridge", "cachetools"):
            yield one
        todo += gc.get_referents(one)


def test_no_object_on_the_way_shows_a_secret(esmith: Caller) -> None:
    bridge = esmith.app.extensions["bridge"]
    esmith.created({"resourceType": "Patient"})
    authorization = basic(esmith.account)
    credential = bridge.authenticator.credential(authorization)
    scope = bridge.scope(authorization, "")
    found = list(reachable(bridge, scope, credential, *bridge.keychain._entries(scope.caller.data_owner_id)))
    names = {type(one).__name__ for one in found}
    wanted = {
        "Bridge",
        "Scope",
        "Caller",
        "Credential",
        "Client",
        "Tokens",
        "Keychain",
        "Keyring",
        "PrivateKey",
    }
    assert wanted | {"Entry", "OwnKey", "ExchangeKey", "State", "TTLCache", "Config"} <= names
    tokens = [one.token for one in found if type(one).__name__ == "Tokens"]
    hidden = [*secrets_of(esmith.account), *(t.encode()[-40:] for t in tokens)]
    hidden += [one.key for one in found if type(one).__name__ == "ExchangeKey" and one.is_open]
    for one in found:
        for text in (repr(one), str(one), repr([one])):
            for secret in hidden:
                assert secret.decode("latin-1") not in text, type(one)
                assert repr(secret)[2:-1] not in text, type(one)
                assert secret.hex() not in text, type(one)


def test_who_uploads_with_another_login_takes_nothing_from_what_was_lent(
    app: Any, person: Callable[..., Caller], keys: list[PrivateKey]
) -> None:
    person("clinic", keys[0])
    ann = person("ann", keys[1], keys[2], parent="clinic")
    ann.load_key()
    ann.load_key(keys[2].pkcs8_der.hex())
    ann.load_key(keys[0].pkcs8_der.hex(), "clinic")
    bridge = app.extensions["bridge"]
    credential = bridge.authenticator.credential(basic(ann.account))
    caller = bridge.authenticator.identify(credential)
    other = bridge.authenticator.credential(f"Bearer {Bearer(app, ann.account).token}")
    bridge.keychain.lend(caller, credential, other)
    name = credential_name(bridge.keychain._seal_key(caller, other))

    def lent() -> set[tuple[str, float]]:
        entries = [*bridge.keychain._entries("ann"), *bridge.keychain._entries("clinic")]
        return {(e.fingerprint, e.ends) for e in entries if e.credential == name}

    before = lent()
    assert len(before) == 3

    short = Bearer(app, ann.account, seconds=600)
    short.load_key()
    bridge.keychain.lend(caller, bridge.authenticator.credential(f"Bearer {short.token}"), other)
    assert lent() == before
    assert bridge.keyed(other, "").keyring.owners == {"ann", "clinic"}
