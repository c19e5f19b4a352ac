"""iCure's events over websockets, from one worker process to listeners of others."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from simple_websocket import Client, ConnectionClosed
from werkzeug.test import create_environ

from bridge import demo
from bridge.embedded.listening import ROOM, TALK
from tests.helpers import FHIR, Caller, Server, basic, eventually, serving

SECONDS = 60
PACKAGE = "org.taktik.icure.entities."
SUBSCRIBE = "/ws/v2/notification/subscribe"


class Listener:
    """Somebody who listens to the server under test."""

    def __init__(self, server: Server, account: dict[str, str], **headers: str) -> None:
        self.url = server.url.replace("http://", "ws://") + SUBSCRIBE
        self.socket = Client.connect(self.url, headers={"Authorization": basic(account), **headers})

    def wants(self, kind: str, *events: str, **filter_: Any) -> Listener:
        said = {"entityClass": PACKAGE + kind, "eventTypes": events, "filter": {"filter": filter_}}
        self.socket.send(json.dumps(said))
        return self

    def next(self) -> dict[str, Any]:
        """Returns the next entity; `ping` is answered on the way."""
        while True:
            text = self.socket.receive(timeout=SECONDS)
            assert text is not None, "nothing was heard"
            if text != "ping":
                return dict(json.loads(text))
            self.socket.send("pong")


@pytest.fixture
def server(data_dir: Path) -> Iterator[Server]:
    with serving(data_dir) as running:
        yield running


@pytest.fixture
def esmith(data_dir: Path) -> dict[str, str]:
    return next(a for a in demo.accounts(data_dir) if a["name"] == "esmith")


def call(
    server: Server, account: dict[str, str], method: str, path: str, entity: Any = None
) -> dict[str, Any]:
    """Returns the answer of iCure's API, asked over a connection of its own: of any worker."""
    url = f"{server.url}/rest/v2/{path}"
    headers = {"Authorization": basic(account), "Connection": "close"}
    response = requests.request(method, url, json=entity, headers=headers)
    assert response.status_code == 200, response.text
    return dict(response.json())


def patient(account: dict[str, str], **members: Any) -> dict[str, Any]:
    owner = account["dataOwnerId"]
    legacy = {owner: [{"owner": owner, "delegatedTo": owner, "key": "aa"}]}
    return {"id": str(uuid.uuid4()), "lastName": "Eiffel", "delegations": legacy, **members}


def mine(account: dict[str, str]) -> dict[str, str]:
    return {"$type": "PatientByHcPartyFilter", "healthcarePartyId": account["dataOwnerId"]}


def test_every_listener_hears_of_what_any_worker_writes(server: Server, esmith: dict[str, str]) -> None:
    listeners = [
        Listener(server, esmith).wants("Patient", "CREATE", "UPDATE", "DELETE", **mine(esmith))
        for _ in range(4)
    ]
    made = [call(server, esmith, "POST", "patient", patient(esmith)) for _ in range(6)]
    for one in listeners:
        assert [one.next() for _ in made] == made
    changed = call(server, esmith, "PUT", "patient", made[0] | {"firstName": "Gustave"})
    call(server, esmith, "DELETE", f"patient/{changed['id']}?rev={changed['rev']}")
    for one in listeners:
        heard = [one.next() for _ in range(2)]
        assert {h["id"] for h in heard} == {changed["id"]}
        assert "deletionDate" in heard[1]


class Slow:
    """A connection whose client says what it wants only after something happened, and goes when it was told."""

    def __init__(self, wants: dict[str, Any]) -> None:
        self.says = [json.dumps(wants)]
        self.told: list[dict[str, Any]] = []

    def receive(self, seconds: float) -> str | None:
        return self.says.pop() if self.says else None

    def send(self, text: str) -> None:
        self.told.append(json.loads(text))
        raise ConnectionError


def test_what_happens_before_a_listener_said_what_it_wants_is_not_missed(
    app: Any, accounts: dict[str, dict[str, str]]
) -> None:
    caller = Caller(app, accounts["esmith"])
    environ = {**create_environ(SUBSCRIBE, headers={"Authorization": basic(caller.account)}), ROOM: True}
    app(environ, lambda *_: None)
    made = caller.post("/rest/v2/patient", patient(caller.account)).json
    chain = {"filter": mine(caller.account)}
    slow = Slow({"entityClass": f"{PACKAGE}Patient", "eventTypes": ["CREATE"], "filter": chain})
    with pytest.raises(ConnectionError):
        environ[TALK](slow)
    assert slow.told == [made]


def test_a_jwt_in_the_url_does_for_browsers(server: Server, esmith: dict[str, str]) -> None:
    login = {"username": esmith["login"], "password": esmith["password"]}
    token = requests.post(f"{server.url}/rest/v2/auth/login", json=login).json()["token"]
    url = f"{server.url.replace('http', 'ws')}{SUBSCRIBE}?jwt={token}"
    listener = Listener.__new__(Listener)
    listener.socket = Client.connect(url)
    listener.wants("Patient", "CREATE", **mine(esmith))
    made = call(server, esmith, "POST", "patient", patient(esmith))
    assert listener.next() == made
    listener.socket.close()


REFUSED = {
    "no JSON": "pong",
    "no subscription": "[]",
    "no events": json.dumps({"entityClass": f"{PACKAGE}Patient", "eventTypes": [], "filter": {}}),
    "an event there is not": json.dumps({"entityClass": f"{PACKAGE}Patient", "eventTypes": ["READ"]}),
    "a class there is not": json.dumps({"entityClass": "java.lang.String", "eventTypes": ["CREATE"]}),
    "no filter": json.dumps({"entityClass": f"{PACKAGE}Patient", "eventTypes": ["CREATE"], "filter": 7}),
    "someone else's": json.dumps(
        {
            "entityClass": f"{PACKAGE}Patient",
            "eventTypes": ["CREATE"],
            "filter": {"$type": "PatientByHcPartyFilter", "healthcarePartyId": "another"},
        }
    ),
    "a filter that is not about one entity": json.dumps(
        {
            "entityClass": f"{PACKAGE}embed.Service",
            "eventTypes": ["CREATE"],
            "filter": {
                "$type": "UnionFilter",
                "filters": [
                    {"$type": "ServiceByHcPartyTagPrefixFilter", "tagType": "a", "tagCodePrefix": "b"}
                ],
            },
        }
    ),
} | {
    f"keys that are {keys}": json.dumps(
        {
            "entityClass": f"{PACKAGE}Patient",
            "eventTypes": ["CREATE"],
            "filter": {"$type": "PatientByHcPartyFilter"},
            "accessControlKeys": keys,
        }
    )
    for keys in ("?", 7, True, {}, {"a": "b"}, [None])
}


def test_what_is_no_subscription_ends_the_connection_in_words(server: Server, esmith: dict[str, str]) -> None:
    for what, text in REFUSED.items():
        listener = Listener(server, esmith)
        listener.socket.send(text)
        with pytest.raises(ConnectionClosed) as closed:
            listener.socket.receive(timeout=SECONDS)
        assert closed.value.reason == 1008, what
        assert closed.value.message, what


def handshake(server: Server, path: str = SUBSCRIBE, **headers: str | None) -> requests.Response:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9GBhXDw==",
        "Sec-WebSocket-Version": "13",
    }
    return requests.get(server.url + path, headers={**upgrade, **headers})


def test_who_has_not_logged_in_hears_nothing(server: Server, esmith: dict[str, str]) -> None:
    assert handshake(server).status_code == 401
    assert handshake(server, Authorization="Bearer no.such.token").status_code == 401
    assert requests.get(server.url + SUBSCRIBE, headers={"Authorization": basic(esmith)}).status_code == 426


NO_HANDSHAKE = {
    "no key": {"Sec-WebSocket-Key": None},
    "an old version": {"Sec-WebSocket-Version": "8"},
    "no version": {"Sec-WebSocket-Version": None},
    "nothing to upgrade": {"Connection": "keep-alive"},
}


def test_what_is_no_handshake_is_refused_in_words(server: Server, esmith: dict[str, str]) -> None:
    for what, headers in NO_HANDSHAKE.items():
        login = {"Authorization": basic(esmith), **headers}
        assert handshake(server, **login).status_code == 426, what
        refused = handshake(server, f"{FHIR}/ws", **login)
        assert (refused.status_code, refused.json()["resourceType"]) == (400, "OperationOutcome"), what


def test_a_login_that_a_browser_remembers_does_not_do(server: Server, esmith: dict[str, str]) -> None:
    origin = {"Origin": "https://elsewhere.org"}
    assert handshake(server, Authorization=basic(esmith), **origin).status_code == 403
    refused = handshake(server, f"{FHIR}/ws", Authorization=basic(esmith), **origin)
    assert (refused.status_code, refused.json()["resourceType"]) == (403, "OperationOutcome")


def test_listeners_leave_half_of_the_threads_to_others(data_dir: Path, esmith: dict[str, str]) -> None:
    with serving(data_dir, "--threads", "4", workers=1) as server:
        listeners = [Listener(server, esmith).wants("Patient", "CREATE", **mine(esmith)) for _ in range(2)]
        full = handshake(server, Authorization=basic(esmith))
        assert (full.status_code, list(full.json())) == (503, ["message"])
        fhir = handshake(server, f"{FHIR}/ws", Authorization=basic(esmith))
        assert (fhir.status_code, fhir.json()["issue"][0]["code"]) == (503, "transient")
        made = call(server, esmith, "POST", "patient", patient(esmith))
        assert [one.next() for one in listeners] == [made, made]
        listeners[0].socket.close()
        eventually(lambda: handshake(server, Authorization=basic(esmith)).status_code == 101)


def test_a_worker_that_is_told_to_stop_sends_its_listeners_away(
    server: Server, esmith: dict[str, str]
) -> None:
    listener = Listener(server, esmith).wants("Patient", "CREATE", **mine(esmith))
    for worker in server.workers():
        os.kill(worker, signal.SIGTERM)
    with pytest.raises(ConnectionClosed) as closed:
        listener.socket.receive(timeout=SECONDS)
    assert closed.value.reason == 1001
