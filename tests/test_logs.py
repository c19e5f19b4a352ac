from __future__ import annotations

import base64
import itertools
import json
import logging
import re
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from bridge import logs
from bridge.app import create_app
from bridge.config import Config
from tests.helpers import DEMO_PATIENT, FHIR, Account, Caller, Remote, Server, basic, serving

READ = f"{FHIR}/Patient/{DEMO_PATIENT}"


class Lines(logging.Handler):
    """The lines that the bridge wrote in this thread; what an earlier test began may still run in others."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[dict[str, Any]] = []
        self.thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.thread:
            self.told.append(json.loads(record.getMessage()))


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    level = logs.logger.level
    logs.logger.addHandler(handler)
    logs.logger.setLevel(logging.INFO)
    yield handler
    logs.logger.removeHandler(handler)
    logs.logger.setLevel(level)


TOLD = {
    "read": (
        "GET",
        f"Patient/{DEMO_PATIENT}",
        "/rest/fhir/r4/<resource_type>/<logical_id>",
        "Patient",
        [],
        200,
    ),
    "search": (
        "GET",
        "Patient?name=zq1&_id=zq2&zq3=zq4",
        "/rest/fhir/r4/<resource_type>",
        "Patient",
        ["name", "_id", "unknown"],
        200,
    ),
    "unknown type": ("GET", "Zq5/zq6", "/rest/fhir/r4/<resource_type>/<logical_id>", None, [], 404),
    "no route": ("GET", "/zq7/zq8", None, None, [], 404),
    "health": ("GET", "/health/live", "/health/live", None, [], 200),
    "odd method": ("ZQ9", "Patient", "OTHER", None, [], 405),
}


@pytest.mark.parametrize(
    ("method", "path", "route", "resource_type", "parameters", "status"), TOLD.values(), ids=TOLD
)
def test_each_request_leaves_one_line(
    esmith: Caller,
    lines: Lines,
    method: str,
    path: str,
    route: str | None,
    resource_type: str | None,
    parameters: list[str],
    status: int,
) -> None:
    answer = esmith.send(method, path)
    assert answer.status_code == status
    (line,) = lines.told
    members = {"event", "method", "route", "type", "parameters", "status", "outcome", "ms", "request"}
    assert line.keys() == members
    assert line["event"] == "request"
    assert line["method"] == (method if method == "GET" else "OTHER")
    assert line["route"] == (route if method == "GET" else None)
    assert (line["type"], line["parameters"], line["status"]) == (resource_type, parameters, status)
    assert 0 <= line["ms"] < 60_000
    assert line["request"] == answer.headers["X-Request-Id"]
    assert re.fullmatch("[0-9a-f-]{36}", line["request"])
    assert "zq" not in json.dumps(line).lower()


def test_a_refusal_tells_its_kind(esmith: Caller, lines: Lines) -> None:
    esmith.get("Patient/nothing")
    esmith.get(READ, Authorization="Basic zq")
    assert [(line["status"], line["outcome"]) for line in lines.told] == [(404, "not-found"), (401, "login")]


def test_a_request_id_of_the_caller_is_not_taken_over(esmith: Caller, lines: Lines) -> None:
    answer = esmith.get(READ, X_Request_Id="zq1zq")
    assert answer.headers["X-Request-Id"] != "zq1zq"
    assert "zq1zq" not in json.dumps(lines.told)


def test_an_unforeseen_error_is_told_by_type_and_place_only(
    data_dir: Path, accounts: dict[str, Account], lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = Caller(create_app(Config(data_dir=data_dir)), accounts["esmith"])

    def fail(*_: object) -> None:
        raise LookupError("zq1zq")

    bridge = caller.app.extensions["bridge"]
    monkeypatch.setattr(type(bridge.authenticator), "identify", fail)
    answer = caller.get(READ)
    assert answer.status_code == 500
    assert answer.json["resourceType"] == "OperationOutcome"
    error, request = lines.told
    assert error.keys() == {"event", "request", "type", "at"}
    assert (error["event"], error["type"]) == ("error", "LookupError")
    assert re.fullmatch(r"test_logs\.py:\d+:fail", error["at"][-1])
    assert error["request"] == request["request"]
    assert "zq" not in json.dumps(lines.told) + answer.text + str(answer.headers)


class Canaries:
    """Texts that must not be seen again; each knows where it went."""

    def __init__(self) -> None:
        self.placed: dict[str, str] = {}
        self._next = itertools.count(1000)

    def __call__(self, where: str) -> str:
        text = f"zq{next(self._next)}qz"
        self.placed[text] = where
        return text

    def seen(self, text: str) -> set[str]:
        """Returns where those came from that are in a text, plain or hidden in base64 or hex."""
        readable = text + "".join(_decoded(text))
        return {where for canary, where in self.placed.items() if canary in readable}


def _decoded(text: str) -> Iterator[str]:
    for word in re.findall(r"[A-Za-z0-9+/_-]{12,}", text):
        with_padding = word.replace("-", "+").replace("_", "/") + "=" * (-len(word) % 4)
        try:
            yield base64.b64decode(with_padding).decode("latin-1")
        except ValueError:
            continue


def test_the_search_for_canaries_sees_them() -> None:
    canary = Canaries()
    one, two = canary("one"), canary("two")
    assert canary.seen("nothing") == set()
    assert canary.seen(f"x{one}x") == {"one"}
    assert canary.seen(base64.b64encode(f"esmith:{two}".encode()).decode()) == {"two"}


def told_by(response: requests.Response) -> str:
    return f"{response.reason}{response.headers}{response.text}"


def raw(server: Server, sent: bytes) -> str:
    """Returns all that the server says to these bytes."""
    received = b""
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=60) as peer:
        with suppress(OSError):  # a server that has answered does not read the rest
            peer.sendall(sent)
            peer.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while part := peer.recv(65536):
                received += part
    return received.decode("latin-1")


def full_of(canary: Canaries, account: Account) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields requests that are refused, canaries wherever one can stand."""
    good = {"Authorization": basic(account), "Content-Type": "application/fhir+json"}
    data_owner = account["dataOwnerId"]

    def wrong(scheme: str, text: str) -> dict[str, str]:
        return {**good, "Authorization": f"{scheme} {text}"}

    pair = base64.b64encode(f"{canary('login')}:{canary('password')}".encode()).decode()
    yield "GET", READ, {"headers": wrong("Basic", pair)}
    yield "GET", READ, {"headers": wrong("Bearer", canary("JWT"))}
    yield "GET", READ, {"headers": wrong(canary("scheme"), canary("after it"))}
    right = base64.b64encode(f"esmith:{canary('wrong password')}".encode()).decode()
    yield (
        "POST",
        f"/rest/icdx/v1/keychain/{data_owner}",
        {"headers": wrong("Basic", right), "json": {"key": "x"}},
    )
    for key in (canary("key"), "3082" + canary("hex").encode().hex(), f"-----BEGIN {canary('PEM')}-----"):
        yield "POST", f"/rest/icdx/v1/keychain/{data_owner}", {"headers": good, "json": {"key": key}}
    yield "POST", f"/rest/icdx/v1/keychain/{canary('keychain id')}", {"headers": good, "json": {"key": "x"}}
    yield "GET", f"/rest/icdx/v1/keychain/{canary('keychain id')}", {"headers": good}
    yield "GET", f"/{canary('route')}/{canary('route')}?{canary('name')}={canary('value')}", {"headers": good}
    yield "GET", f"{FHIR}/{canary('type')}/{canary('id')}", {"headers": good}
    yield "GET", f"{FHIR}/Patient/{canary('id')}", {"headers": good}
    yield "GET", f"{FHIR}/Patient/{canary('id')}/_history/{canary('version')}", {"headers": good}
    yield "GET", f"{FHIR}/Observation/{canary('odd id')}!$", {"headers": good}
    yield "DELETE", f"{FHIR}/Patient/{canary('id')}", {"headers": good}
    yield canary("method").upper(), f"{FHIR}/Patient", {"headers": good}
    strict = {**good, "Prefer": "handling=strict"}
    yield "GET", f"{FHIR}/Patient?birthdate={canary('date')}", {"headers": strict}
    yield "GET", f"{FHIR}/Patient?birthdate={canary('date')}", {"headers": good}
    yield "GET", f"{FHIR}/Patient?_count={canary('count')}", {"headers": good}
    yield "GET", f"{FHIR}/Patient?_page={canary('cursor')}&_cursor={canary('cursor')}", {"headers": good}
    yield "GET", READ, {"headers": {**good, "Accept": f"text/{canary('accept')}"}}
    yield "GET", f"{READ}?_format={canary('format')}", {"headers": good}
    yield "GET", READ, {"headers": {**good, "Prefer": f"handling={canary('prefer')}"}}
    yield "GET", READ, {"headers": {**good, canary("header name"): canary("header value")}}
    yield "GET", READ, {"headers": {**good, "X-Request-Id": canary("request id")}}
    yield "GET", READ, {"headers": {**good, "Cookie": f"{canary('cookie')}={canary('cookie')}"}}
    yield "PUT", READ, {"headers": {**good, "If-Match": canary("etag")}, "json": {"resourceType": "Patient"}}
    media = {**good, "Content-Type": f"text/{canary('media')}"}
    yield "POST", f"{FHIR}/Patient", {"headers": media, "data": canary("body")}
    packed = {**good, "Content-Encoding": canary("encoding")}
    yield "POST", f"{FHIR}/Patient", {"headers": packed, "data": canary("body")}
    for body in (
        canary("not JSON"),
        '{"resourceType": "Patient", "' + canary("cut JSON"),
        json.dumps({"resourceType": canary("resourceType")}),
        json.dumps({"resourceType": "Patient", "birthDate": canary("date")}),
        json.dumps({"resourceType": "Patient", "gender": canary("code")}),
        json.dumps({"resourceType": "Patient", "active": canary("boolean")}),
        json.dumps({"resourceType": "Patient", "id": canary("odd id") + "!"}),
        json.dumps({"resourceType": "Patient", "text": {"status": "generated", "div": canary("div")}}),
        json.dumps({"resourceType": "Patient", "photo": [{"data": canary("base64") + "!"}]}),
        json.dumps({"resourceType": "Patient", "extension": [{"url": ""}], "language": canary("language")}),
    ):
        yield "POST", f"{FHIR}/Patient", {"headers": good, "data": body}
    subject = json.dumps(
        {
            "resourceType": "Observation",
            "status": "final",
            "code": {"text": canary("text")},
            "subject": {"reference": f"Patient/{canary('subject')}"},
        }
    )
    yield "POST", f"{FHIR}/Observation", {"headers": good, "data": subject}
    bundle = {"resourceType": "Bundle", "type": canary("bundle type")}
    yield "POST", FHIR, {"headers": good, "json": bundle}
    entry = {
        "fullUrl": canary("fullUrl"),
        "request": {"method": canary("method"), "url": canary("url")},
        "resource": {"resourceType": "Patient", "name": [{"family": canary("family")}]},
    }
    yield "POST", FHIR, {"headers": good, "json": {**bundle, "type": "transaction", "entry": [entry]}}
    yield "GET", f"/rest/v2/{canary('route')}/{canary('route')}", {"headers": good}
    yield (
        "POST",
        "/rest/v2/auth/login",
        {"json": {"username": canary("login"), "password": canary("password")}},
    )


LEFT_OUT = {"fullUrl", "family"}
"""The log may not say them either, but an answer may name the entry."""


def test_nothing_of_a_refused_request_is_repeated(data_dir: Path, accounts: dict[str, Account]) -> None:
    canary = Canaries()
    with serving(data_dir, workers=2, BRIDGE_LOG_TEST="zq1zq") as server:
        remote = Remote(server, accounts["esmith"])
        remote.load_key()
        repeated = {}
        for method, path, options in full_of(canary, accounts["esmith"]):
            answer = requests.request(method, server.url + path, timeout=30, **options)
            assert answer.status_code != 500, (method, path)
            if answer.status_code >= 400 and canary.seen(told_by(answer)):
                repeated[f"{method} {path}"] = (answer.status_code, canary.seen(told_by(answer)), answer.text)
        assert repeated == {}
        log = server.log.read_text()
    assert len(canary.placed) > 60
    assert canary.seen(log) == set()
    assert canary.seen(_state(data_dir)) == set()
    account = accounts["esmith"]
    for secret in (account["password"], account["privateKey"][200:240], basic(account)[6:]):
        assert secret not in log + server.log.read_text() + _state(data_dir)


def _state(data_dir: Path) -> str:
    names = "\n".join(str(p.relative_to(data_dir)) for p in data_dir.rglob("*"))
    with closing(sqlite3.connect(data_dir / "state.db")) as db:
        rows = db.execute("SELECT * FROM state").fetchall()
    assert rows
    return names + "".join(f.read_bytes().decode("latin-1") for f in data_dir.glob("state.db*")) + repr(rows)


MALFORMED = {
    "request line": "{0}\r\n\r\n",
    "method": "{0} / HTTP/1.1\r\n\r\n",
    "method with odd letters": "{0}( / HTTP/1.1\r\nHost: x\r\n\r\n",
    "version": "GET /{0} HTTP/{1}\r\n\r\n",
    "header name": "GET /{0} HTTP/1.1\r\n{1}( : x\r\n\r\n",
    "header value": "GET / HTTP/1.1\r\nX: {0}\0\r\n\r\n",
    "header without colon": "GET / HTTP/1.1\r\n{0}\r\n\r\n",
    "folded header": "GET / HTTP/1.1\r\nX: {0}\r\n {1}\r\n\r\n",
    "length": "POST /rest HTTP/1.1\r\nHost: x\r\nContent-Length: {0}\r\n\r\n",
    "two lengths": "POST /{0} HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "coding": "POST /rest HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {0}\r\n\r\n",
    "chunk": "POST {fhir}/Patient HTTP/1.1\r\nHost: x\r\n{login}Transfer-Encoding: chunked\r\n\r\n{0}\r\n{1}\r\n",
    "chunk cut off": "POST {fhir}/Patient HTTP/1.1\r\nHost: x\r\n{login}Transfer-Encoding: chunked\r\n\r\nff\r\n{0}",
    "body cut off": "POST {fhir}/Patient HTTP/1.1\r\nHost: x\r\n{login}Content-Length: 99\r\n\r\n{0}",
    "long line": "GET /{0}" + "a" * 9000 + " HTTP/1.1\r\nHost: x\r\n\r\n",
    "long header": "GET / HTTP/1.1\r\nX: {0}" + "a" * 9000 + "\r\n\r\n",
    "many headers": "GET / HTTP/1.1\r\n" + "X: {0}\r\n" * 200 + "\r\n",
    "absolute": "GET http://{0}.example.org/{1} HTTP/1.1\r\nHost: {2}\r\n\r\n",
    "expectation": "POST / HTTP/1.1\r\nHost: x\r\nExpect: {0}\r\n\r\n",
    "proxy line": "PROXY {0} 1.2.3.4 1.2.3.4 1 2\r\nGET / HTTP/1.1\r\n\r\n",
    "bytes": "\xff\xfe{0}\r\n\r\n",
    "odd host": "GET {fhir}/metadata HTTP/1.1\r\nHost: {0}<>\r\n\r\n",
    "script name": "GET /{0} HTTP/1.1\r\nHost: x\r\nScript-Name: /{1}\r\nSCRIPT_NAME: /{2}\r\n\r\n",
    "bad escape": "GET {fhir}/Patient/%{0}%ff HTTP/1.1\r\nHost: x\r\n{login}\r\n",
}


def test_nothing_of_an_unreadable_request_is_repeated(data_dir: Path, accounts: dict[str, Account]) -> None:
    canary = Canaries()
    login = f"Authorization: {basic(accounts['esmith'])}\r\nContent-Type: application/fhir+json\r\n"
    with serving(data_dir, workers=1) as server:
        Remote(server, accounts["esmith"]).load_key()
        repeated, statuses = {}, {}
        for name, template in MALFORMED.items():
            places = [canary(f"{name} {n}") for n in range(3)]
            said = raw(server, template.format(*places, fhir=FHIR, login=login).encode("latin-1"))
            statuses[name] = said.split(" ", 2)[1] if said else ""
            if canary.seen(said):
                repeated[name] = said
        assert repeated == {}
        assert not [
            name for name, status in statuses.items() if status.startswith("2") and name != "odd host"
        ]
        assert [name for name, status in statuses.items() if status == "500"] == []
        log = server.log.read_text()
        assert requests.get(f"{server.url}/health/live").ok
    assert canary.seen(log) == set()
    unread = [json.loads(line) for line in log.splitlines() if '"unread"' in line]
    assert len(unread) > 5
    assert all(line.keys() == {"event", "type", "status"} for line in unread)
    assert all(line.startswith("{") for line in log.splitlines()[2:]), "every line is structured"


def test_an_unreadable_request_is_answered_with_an_outcome(data_dir: Path) -> None:
    with serving(data_dir, workers=1) as server:
        for sent, status in (
            (b"GET / HTTP/9\r\n\r\n", 400),
            (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        ):
            head, _, body = raw(server, sent).partition("\r\n\r\n")
            assert head.startswith(f"HTTP/1.1 {status} ")
            assert json.loads(body)["resourceType"] == "OperationOutcome"


def test_a_failure_of_the_store_is_logged_without_values(
    data_dir: Path, accounts: dict[str, Account]
) -> None:
    canary = Canaries()
    with serving(data_dir, workers=1) as server:
        remote = Remote(server, accounts["esmith"])
        remote.load_key()
        remote.get(f"Patient/{DEMO_PATIENT}")
        with closing(sqlite3.connect(data_dir / "icure.sqlite", timeout=60)) as db, db:
            db.execute("ALTER TABLE documents RENAME TO elsewhere")
        family = [{"family": canary("family")}]
        answers = [
            remote.post("Patient", {"resourceType": "Patient", "name": family}, 500),
            remote.get(f"Patient/{canary('id')}", 500),
            remote.get(f"Patient?_id={canary('id')}", 500),
            requests.get(f"{server.url}/rest/v2/patient/{canary('id')}", headers=remote.headers),
        ]
        assert [a.status_code for a in answers] == [500] * 4
        assert canary.seen("".join(map(told_by, answers))) == set()
        log = server.log.read_text()
    assert canary.seen(log) == set()
    errors = [json.loads(line) for line in log.splitlines() if '"error"' in line]
    assert len(errors) >= 3
    assert {error["type"] for error in errors} == {"OperationalError"}
    assert "no such table" not in log


def test_every_request_of_a_running_server_leaves_one_line(
    data_dir: Path, accounts: dict[str, Account]
) -> None:
    with serving(data_dir, workers=2) as server:
        remote = Remote(server, accounts["esmith"])
        remote.load_key()
        ids = [remote.get(f"Patient/{DEMO_PATIENT}").headers["X-Request-Id"] for _ in range(20)]
        log = server.log.read_text()
    told = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert len(set(ids)) == 20
    assert all(sum(line.get("request") == one for line in told) == 1 for one in ids)


def test_a_request_to_the_embedded_store_leaves_its_line_too(esmith: Caller, lines: Lines) -> None:
    esmith.get("/rest/v2/patient/canary-id")
    esmith.get("/rest/v2x/canary-id")
    assert [line["route"] for line in lines.told] == ["/rest/v2", None]
    assert "canary" not in json.dumps(lines.told)
