"""Who and what the tests of the embedded store are about, and short ways to say it."""

from __future__ import annotations

import base64
import hashlib
import itertools
from typing import Any

import requests

from bridge.embedded import InProcess, admin
from bridge.embedded.app import EmbeddedApp
from bridge.embedded.store import Store

URL = "http://embedded.invalid"
PASSWORD = "correct horse battery"
CLINIC, ALICE, BOB, CAROL, ROOT, PAUL = (
    f"{name}-owner" for name in ("clinic", "alice", "bob", "carol", "root", "paul")
)
"""Data owners. Alice and Carol belong to the clinic, Bob to nobody; Root administrates; Paul is a patient."""
LOINC = "http://loinc.org"
_numbers = itertools.count(1)

Json = dict[str, Any]


def new_id(what: str) -> str:
    return f"{what}-{next(_numbers)}"


def people(store: Store) -> None:
    """Makes everybody; Paul's own Patient is shared with nobody."""
    admin.create_healthcare_party(store, {"id": CLINIC, "name": "Clinic"})
    for owner, first_name, parent in (
        (ALICE, "Alice", CLINIC),
        (BOB, "Bob", None),
        (CAROL, "Carol", CLINIC),
        (ROOT, "Root", None),
    ):
        party = {"id": owner, "firstName": first_name, "lastName": "Tester"}
        admin.create_healthcare_party(store, party | ({"parentId": parent} if parent else {}))
    for owner in (ALICE, BOB, CAROL):
        admin.create_user(store, owner.removesuffix("-owner"), PASSWORD, data_owner_id=owner)
    admin.create_user(store, "root", PASSWORD, data_owner_id=ROOT, admin=True)
    admin.create_user(store, "paul", PASSWORD, patient_id=PAUL)


class Client:
    """Somebody who talks to the store: `client.post("/patient", {…})`."""

    def __init__(self, app: EmbeddedApp, authorization: str | None = None, **headers: str) -> None:
        self._session = requests.Session()
        self._session.mount(URL, InProcess(app))
        self._session.headers.update(headers)
        if authorization:
            self._session.headers["Authorization"] = authorization
        self.app = app

    def with_headers(self, **headers: str) -> Client:
        other = Client(self.app)
        other._session.headers.update(self._session.headers)
        other._session.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
        return other

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> requests.Response:
        return self._session.request(method, f"{URL}/rest/v2{path}", json=body, params=query)

    def get(self, path: str, **query: Any) -> requests.Response:
        return self.call("GET", path, **query)

    def post(self, path: str, body: Any = None, **query: Any) -> requests.Response:
        return self.call("POST", path, body, **query)

    def put(self, path: str, body: Any = None, **query: Any) -> requests.Response:
        return self.call("PUT", path, body, **query)

    def delete(self, path: str, **query: Any) -> requests.Response:
        return self.call("DELETE", path, **query)

    def send(self, path: str, content: bytes) -> requests.Response:
        return self._session.post(f"{URL}/rest/v2{path}", data=content)

    def create(self, path: str, entity: Json) -> Json:
        """Returns what was stored; the test fails when it was not."""
        return ok(self.post(path, entity))

    def match(self, path: str, filter_type: str, **members: Any) -> list[str]:
        return ok(self.post(f"{path}/match", {"$type": filter_type} | members))


def ok(response: requests.Response) -> Any:
    assert response.status_code == 200, f"{response.status_code} {response.text}"
    return response.json()


def refused(response: requests.Response, status: int) -> str:
    """Returns the message of a refusal, which holds nothing else."""
    assert response.status_code == status, f"{response.status_code} {response.text}"
    body = response.json()
    assert list(body) == ["message"]
    return body["message"]


def access_control_key(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()[:16]


def delegation_key(name: str) -> str:
    return hashlib.sha256(access_control_key(name)).hexdigest()


def access_header(*names: str) -> str:
    return base64.b64encode(b"".join(map(access_control_key, names))).decode()


def delegation(
    delegator: str | None, delegate: str | None, permissions: str = "WRITE", parent: str | None = None
) -> Json:
    made: Json = {"permissions": permissions, "secretIds": ["c2VjcmV0"], "encryptionKeys": ["a2V5"]}
    if delegator:
        made["delegator"] = delegator
    if delegate:
        made["delegate"] = delegate
    if delegator and delegate:
        made["exchangeDataId"] = f"exchange-{delegator}-{delegate}"
    if parent:
        made["parentDelegations"] = [parent]
    return made


def shared(owner: str, *, readers: tuple[str, ...] = (), writers: tuple[str, ...] = ()) -> Json:
    """Returns the security metadata of an entity of `owner` that others may read or write too."""
    root = delegation_key(f"{owner}>{owner}")
    delegations = {root: delegation(owner, owner)}
    for others, permissions in ((readers, "READ"), (writers, "WRITE")):
        for other in others:
            delegations[delegation_key(f"{owner}>{other}")] = delegation(owner, other, permissions, root)
    return {"secureDelegations": delegations}


def patient(owner: str = ALICE, **members: Any) -> Json:
    made = {
        "id": new_id("patient"),
        "firstName": "Gustave",
        "lastName": "Eiffel",
        "securityMetadata": shared(owner),
    }
    return made | members


def contact(*services: Json, owner: str = ALICE, **members: Any) -> Json:
    made = {"id": new_id("contact"), "services": list(services), "securityMetadata": shared(owner)}
    return made | members


def service(**members: Any) -> Json:
    return {"id": new_id("service"), "encryptedSelf": "c2VhbGVk"} | members


def health_element(owner: str = ALICE, **members: Any) -> Json:
    return {"id": new_id("element"), "securityMetadata": shared(owner)} | members


def access_log(owner: str = ALICE, **members: Any) -> Json:
    return {"id": new_id("log"), "securityMetadata": shared(owner)} | members


def code(code: str, system: str = LOINC, version: str = "1") -> Json:
    return {"id": f"{system}|{code}|{version}", "type": system, "code": code, "version": version}
