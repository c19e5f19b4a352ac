"""A request that is sent again: answered from memory where it was lost, done again where it is meant."""

from __future__ import annotations

import os
import queue
import re
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
import redis
import requests
from requests.adapters import BaseAdapter

from bridge import once, wire
from bridge.app import EMBEDDED_URL, create_app
from bridge.config import Config
from bridge.journal import Journal
from tests.helpers import Caller, Remote, assert_outcome, basic, eventually, serving, stored

Resource = dict[str, Any]


@pytest.fixture(params=["sqlite", "redis"])
def config(data_dir: Path, request: pytest.FixtureRequest) -> Config:
    """Each test runs over both kinds of state."""
    url = request.getfixturevalue("redis_url") if request.param == "redis" else ""
    return Config(data_dir=data_dir, state_url=url)


def patient(mark: str) -> Resource:
    return {"resourceType": "Patient", "identifier": [{"system": "mark", "value": mark}]}


def observation(mark: str) -> Resource:
    code = {"coding": [{"system": "mark", "code": mark}]}
    return {"resourceType": "Observation", "status": "final", "code": code}


def bundle(*resources: Resource, kind: str = "transaction") -> Resource:
    entries = [{"resource": r, "request": {"method": "POST", "url": r["resourceType"]}} for r in resources]
    return {"resourceType": "Bundle", "type": kind, "entry": entries}


def copies(caller: Caller, mark: str) -> int:
    """Returns how many resources of this mark there are."""
    return len(caller.found(f"Patient?identifier=mark|{mark}")) + len(
        caller.found(f"Observation?code=mark|{mark}")
    )


def places(response: Any) -> list[tuple[str, str, str]]:
    """Returns where a transaction put its entries, as told: status, Location and ETag."""
    assert response.status_code == 200, response.text
    told = [entry["response"] for entry in response.json["entry"]]
    return [(one["status"], one["location"], one["etag"]) for one in told]


def test_a_key_gives_the_same_answer_again_and_nothing_is_written(esmith: Caller) -> None:
    first = esmith.post("Patient", patient("a"), Idempotency_Key="k1")
    again = esmith.post("Patient", patient("a"), Idempotency_Key="k1")
    assert first.status_code == again.status_code == 201
    for header in ("Location", "ETag", "Last-Modified"):
        assert first.headers[header] == again.headers[header]
    assert again.json == first.json
    assert copies(esmith, "a") == 1


def test_another_key_and_no_key_write_again(esmith: Caller) -> None:
    for headers in ({"Idempotency_Key": "k1"}, {"Idempotency_Key": "k2"}, {}, {}):
        assert esmith.post("Patient", patient("a"), **headers).status_code == 201
    assert copies(esmith, "a") == 4


@pytest.mark.parametrize("path", ["Patient", "", "Patient?_pretty=true"])
def test_a_key_that_stands_for_another_request_is_refused(esmith: Caller, path: str) -> None:
    assert esmith.post("Patient", patient("a"), Idempotency_Key="k1").status_code == 201
    other = patient("a") if "?" in path else patient("b") if path else bundle(patient("b"))
    assert_outcome(esmith.post(path, other, Idempotency_Key="k1"), 422, "business-rule")
    assert copies(esmith, "b") == 0
    assert copies(esmith, "a") == 1


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "ä"])
def test_a_key_that_is_none_is_refused(esmith: Caller, key: str) -> None:
    assert_outcome(esmith.post("Patient", patient("a"), Idempotency_Key=key), 400, "invalid")
    assert copies(esmith, "a") == 0


def test_a_key_is_its_callers_own(esmith: Caller, jdoe: Caller) -> None:
    for caller in (esmith, jdoe):
        assert caller.post("Patient", patient("a"), Idempotency_Key="k1").status_code == 201
        assert copies(caller, "a") == 1


def test_a_refusal_is_not_remembered(esmith: Caller) -> None:
    wrong = {**patient("a"), "gender": "zanzibar"}
    assert_outcome(esmith.post("Patient", wrong, Idempotency_Key="k1"), 400)
    assert esmith.post("Patient", patient("a"), Idempotency_Key="k1").status_code == 201


def test_a_key_is_forgotten_after_its_time(esmith: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "KEPT_SECONDS", 0.1)
    esmith.post("Patient", patient("a"), Idempotency_Key="k1")
    time.sleep(0.2)
    esmith.post("Patient", patient("a"), Idempotency_Key="k1")
    assert copies(esmith, "a") == 2


def test_the_answer_shows_what_is_there_only_while_it_is_that_version(esmith: Caller) -> None:
    first = esmith.post("Patient", patient("a"), Idempotency_Key="k1")
    changed = {**first.json, "active": True}
    assert esmith.send("PUT", f"Patient/{first.json['id']}", changed).status_code == 200
    again = esmith.post("Patient", patient("a"), Idempotency_Key="k1")
    assert (again.status_code, again.headers["ETag"]) == (201, first.headers["ETag"])
    assert again.data == b""


def test_a_conditional_create_with_a_key_answers_as_it_did(esmith: Caller) -> None:
    asked = {"If_None_Exist": "identifier=mark|a", "Idempotency_Key": "k1"}
    first = esmith.post("Patient", patient("a"), **asked)
    again = esmith.post("Patient", patient("a"), **asked)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.headers["Location"] == again.headers["Location"]


@pytest.mark.parametrize("kind", ["transaction", "batch"])
def test_a_bundle_with_a_key_gives_the_same_answer_again(esmith: Caller, kind: str) -> None:
    sent = bundle(patient("a"), observation("a"), observation("b"), kind=kind)
    sent["entry"].append({"request": {"method": "GET", "url": "Patient?identifier=mark|a"}})
    first = esmith.post("", sent, Idempotency_Key="k1", Prefer="return=representation")
    again = esmith.post("", sent, Idempotency_Key="k1", Prefer="return=representation")
    assert again.status_code == first.status_code == 200
    assert again.json["entry"][:3] == first.json["entry"][:3]
    assert all("resource" in entry for entry in again.json["entry"])
    assert again.json["entry"][3]["resource"]["entry"] == first.json["entry"][3]["resource"]["entry"]
    assert (copies(esmith, "a"), copies(esmith, "b")) == (2, 1)


def test_warnings_are_told_again(esmith: Caller) -> None:
    sent = bundle({**patient("a"), "id": "mine"})
    first, again = (esmith.post("", sent, Idempotency_Key="k1") for _ in range(2))
    assert "outcome" in first.json["entry"][0]["response"]
    assert again.json == first.json


def test_the_same_bundle_after_its_answer_is_a_new_one(esmith: Caller) -> None:
    sent = bundle(patient("a"), observation("a"))
    assert places(esmith.post("", sent)) != places(esmith.post("", sent))
    assert copies(esmith, "a") == 4


@pytest.mark.parametrize("other", ["batch", "create"])
def test_the_key_of_a_batch_stands_for_no_other_request(esmith: Caller, other: str) -> None:
    """Neither its entries nor those that it has more than the first are done."""
    assert esmith.post("", bundle(patient("a"), kind="batch"), Idempotency_Key="k1").status_code == 200
    sent = bundle(patient("b"), patient("c"), kind="batch") if other == "batch" else patient("b")
    path = "" if other == "batch" else "Patient"
    assert_outcome(esmith.post(path, sent, Idempotency_Key="k1"), 422, "business-rule")
    assert (copies(esmith, "b"), copies(esmith, "c")) == (0, 0)


def test_a_batch_of_which_nothing_was_done_leaves_its_key_free(esmith: Caller) -> None:
    wrong = bundle({**patient("a"), "gender": "zanzibar"}, kind="batch")
    answer = esmith.post("", wrong, Idempotency_Key="k1")
    assert answer.json["entry"][0]["response"]["status"].startswith("400")
    answer = esmith.post("", bundle(patient("a"), kind="batch"), Idempotency_Key="k1")
    assert answer.json["entry"][0]["response"]["status"].startswith("201")


class Failing(BaseAdapter):
    """An upstream that is not reached by some calls, once it was told so."""

    def __init__(self, app: Any, calls: str) -> None:
        super().__init__()
        self.session = app.extensions["bridge"].upstream.session
        self.inner, self.calls, self.fails = self.session.get_adapter(EMBEDDED_URL), calls, False
        app.extensions["bridge"].upstream._pause_seconds = 0.001
        self.session.mount(EMBEDDED_URL, self)

    def send(self, request: Any, **options: Any) -> Any:
        path = request.path_url.partition("?")[0].removeprefix("/rest/v2/")
        if self.fails and re.match(self.calls, f"{request.method} {path}"):
            raise requests.ConnectionError
        return self.inner.send(request, **options)

    def close(self) -> None:
        self.inner.close()


def hung_up(caller: Caller) -> socket.socket:
    """Has the caller hang up after each of its requests; returns its side of the connection."""
    ours, theirs = socket.socketpair()
    theirs.close()
    caller.http.environ_base["gunicorn.socket"] = ours
    return ours


@pytest.mark.parametrize("kind", ["transaction", "create"])
def test_what_cannot_be_read_again_is_still_told_as_done(esmith: Caller, kind: str) -> None:
    sent, path = (bundle(patient("a")), "") if kind == "transaction" else (patient("a"), "Patient")
    asked = {"Prefer": "return=representation"} | ({"Idempotency_Key": "k1"} if kind == "create" else {})
    with hung_up(esmith):
        first = esmith.post(path, sent, **asked)
    esmith.http.environ_base.pop("gunicorn.socket")
    upstream = Failing(esmith.app, "GET patient/")
    upstream.fails = True
    again = esmith.post(path, sent, **asked)
    upstream.fails = False
    assert (again.status_code, again.headers.get("Location")) == (
        first.status_code,
        first.headers.get("Location"),
    )
    assert copies(esmith, "a") == 1


class Died(BaseException):
    """What a worker dies of."""


def test_a_transaction_counts_as_answered_only_after_its_reads(esmith: Caller) -> None:
    """The worker dies in a search that follows the writes: the resend does not make a second copy."""
    sent = bundle(patient("a"), observation("a"))
    sent["entry"].append({"request": {"method": "GET", "url": "Patient?identifier=mark|a"}})
    upstream = Failing(esmith.app, "POST patient/match")
    inner = upstream.inner.send

    def send(request: Any, **options: Any) -> Any:
        if "patient/match" in request.path_url and copies_stored():
            raise Died
        return inner(request, **options)

    def copies_stored() -> int:
        return sum(kind == "Contact" for kind, _ in stored(esmith.app.extensions["bridge"].config.data_dir))

    contacts = copies_stored()
    assert contacts == 0
    upstream.inner.send = send
    with pytest.raises(Died):
        esmith.post("", sent)
    upstream.inner.send = inner
    assert copies_stored() > 0
    assert esmith.post("", sent).status_code == 200
    assert copies(esmith, "a") == 2


def together(count: int, do: Callable[[int], Any]) -> list[Any]:
    """Returns what several threads got that began at once."""
    start, got = threading.Barrier(count), [None] * count

    def run(at: int) -> None:
        start.wait()
        got[at] = do(at)

    threads = [threading.Thread(target=run, args=[at]) for at in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


class Slow:
    """An upstream that takes its time for one call, so that another request comes meanwhile."""

    def __init__(self, app: Any, call: str) -> None:
        self.session = app.extensions["bridge"].upstream.session
        self.inner = self.session.get_adapter(EMBEDDED_URL)
        self.call, self.entered, self.go = call, threading.Event(), threading.Event()
        self.session.mount(EMBEDDED_URL, self)

    def send(self, request: Any, **options: Any) -> Any:
        path = request.path_url.partition("?")[0].removeprefix("/rest/v2/")
        if f"{request.method} {path}" == self.call and not self.entered.is_set():
            self.entered.set()
            assert self.go.wait(300)
        return self.inner.send(request, **options)

    def close(self) -> None:
        self.inner.close()


KEYED: list[dict[str, str]] = [{}, {"Idempotency_Key": "k1"}]


@pytest.mark.parametrize("headers", KEYED, ids=["by body", "by key"])
def test_the_same_bundle_while_it_runs_waits_and_gets_the_same_answer(
    esmith: Caller, config: Config, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, hold = threading.Semaphore(0), Journal.hold

    def told(self: Journal, name: str, wait: float = 0) -> Any:
        asked.release()
        return hold(self, name, wait)

    monkeypatch.setattr(Journal, "hold", told)
    other = Caller(create_app(config), esmith.account)
    slow = Slow(esmith.app, "POST patient")
    sent = bundle(patient("a"), observation("a"))
    got: list[Any] = []
    first = threading.Thread(target=lambda: got.append(esmith.post("", sent, **headers)))
    first.start()
    assert slow.entered.wait(60)
    second = threading.Thread(target=lambda: got.append(other.post("", sent, **headers)))
    second.start()
    for _ in range(4):  # the first, the second as it looks for orphans, as it tries, and as it waits
        assert asked.acquire(timeout=60)
    time.sleep(0.1)
    assert got == []
    slow.go.set()
    first.join()
    second.join()
    assert places(got[0]) == places(got[1])
    assert copies(esmith, "a") == 2


def test_the_same_request_that_runs_for_too_long_is_a_conflict(
    esmith: Caller, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(once, "WAIT_SECONDS", 0.1)
    slow = Slow(esmith.app, "POST patient")
    first = threading.Thread(target=lambda: esmith.post("", bundle(patient("a"))))
    first.start()
    assert slow.entered.wait(60)
    answer = Caller(create_app(config), esmith.account).post("", bundle(patient("a")))
    assert_outcome(answer, 409, "conflict")
    assert int(answer.headers["Retry-After"]) > 0
    slow.go.set()
    first.join()
    assert copies(esmith, "a") == 1


def test_several_bundles_of_one_caller_run_side_by_side(esmith: Caller, config: Config) -> None:
    other = Caller(create_app(config), esmith.account)
    slow = Slow(esmith.app, "POST patient")
    first = threading.Thread(target=lambda: esmith.post("", bundle(patient("a"), observation("a"))))
    first.start()
    assert slow.entered.wait(60)
    assert other.post("", bundle(patient("b"), observation("b"))).status_code == 200
    assert other.get("Patient?identifier=mark|b").status_code == 200
    slow.go.set()
    first.join()
    assert (copies(esmith, "a"), copies(esmith, "b")) == (2, 2)


def test_many_at_once_with_one_key_write_once(esmith: Caller, config: Config) -> None:
    callers = [Caller(create_app(config), esmith.account) for _ in range(4)]
    answers = together(8, lambda at: callers[at % 4].post("Patient", patient("a"), Idempotency_Key="k1"))
    written = [answer for answer in answers if answer.status_code == 201]
    assert len(written) > once.MOST_WAITING
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.headers["Location"] for answer in written}) == 1
    assert copies(esmith, "a") == 1


def test_a_flood_of_one_request_leaves_threads_to_others(esmith: Caller, config: Config) -> None:
    slow = Slow(esmith.app, "POST patient")
    callers = [Caller(create_app(config), esmith.account) for _ in range(8)]
    got: queue.Queue[int] = queue.Queue()

    def send(caller: Caller) -> None:
        got.put(caller.post("Patient", patient("a"), Idempotency_Key="k1").status_code)

    threads = [threading.Thread(target=send, args=[caller]) for caller in (esmith, *callers)]
    threads[0].start()
    assert slow.entered.wait(60)
    for thread in threads[1:]:
        thread.start()
    turned_away = [got.get(timeout=60) for _ in range(len(callers) - once.MOST_WAITING)]
    assert set(turned_away) == {409}
    slow.go.set()
    for thread in threads:
        thread.join()
    assert {got.get() for _ in range(1 + once.MOST_WAITING)} == {201}
    assert copies(esmith, "a") == 1


def open_entries(config: Config) -> list[str]:
    return Journal(create_app(config).extensions["bridge"].state).open_names()


def test_nothing_stays_open_and_nothing_is_in_clear(esmith: Caller, config: Config, data_dir: Path) -> None:
    sent = bundle(patient("zanzibar"), {**observation("zanzibar"), "id": "zanzibar"})
    esmith.post("", sent)
    esmith.post("Patient", patient("zanzibar"), Idempotency_Key="zanzibar")
    assert open_entries(config) == []
    for file in data_dir.glob("state*"):
        assert b"zanzibar" not in file.read_bytes()
    if config.state_url:
        with redis.Redis.from_url(config.state_url) as client:
            assert client.dbsize() > 0
            for name in client.scan_iter():
                assert b"zanzibar" not in name + (client.dump(name) or b"")


def test_a_transaction_has_as_many_conditions_as_entries(
    data_dir: Path, config: Config, accounts: dict[str, Any]
) -> None:
    """Each is a lock, and with SQLite each lock is an open file, of which a process is given few at first."""
    if config.state_url:
        pytest.skip("locks in Redis are no files")
    sent = bundle(*(patient(f"many-{n}") for n in range(300)))
    for n, entry in enumerate(sent["entry"]):
        entry["request"]["ifNoneExist"] = f"identifier=mark|many-{n}"
    few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, most))
    try:
        with serving(data_dir) as server:
            resource.setrlimit(resource.RLIMIT_NOFILE, (few, most))
            remote = Remote(server, accounts["esmith"])
            remote.load_key()
            assert len(remote.post("", sent, 200).json()["entry"]) == 300
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, most))


def test_a_client_that_went_away_gets_its_answer_when_it_comes_again(
    data_dir: Path, config: Config, accounts: dict[str, Any]
) -> None:
    """It sends the transaction and hangs up; the transaction is done, and a resend tells where."""
    sent = bundle(*(patient(f"gone-{n}") for n in range(3)), *(observation("gone") for _ in range(3)))
    body = wire.dump(sent)
    environment = {"BRIDGE_STATE_URL": config.state_url, "BRIDGE_SECRET_FILE": str(data_dir / "secret")}
    with serving(data_dir, **environment) as server:
        remote = Remote(server, accounts["esmith"])
        remote.load_key()
        before = len(stored(data_dir))
        url = urlsplit(server.fhir)
        head = (
            f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: {basic(accounts['esmith'])}\r\n"
            f"Content-Type: application/fhir+json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        os.killpg(server.process.pid, signal.SIGSTOP)  # nobody answers before the client is gone
        try:
            with socket.create_connection((url.hostname, url.port), timeout=60) as connection:
                connection.sendall(head.encode() + body)
        finally:
            os.killpg(server.process.pid, signal.SIGCONT)
        eventually(lambda: all(len(remote.found(f"Patient?identifier=mark|gone-{n}")) == 1 for n in range(3)))
        answer = orjson.loads(remote.post("", sent, 200).content)
        assert len(answer["entry"]) == 6
        for part in answer["entry"]:
            remote.get(part["response"]["location"].partition("/r4/")[2])
        assert len(remote.found("Observation?code=mark|gone")) == 3
        assert len(stored(data_dir)) - before == 4
        assert len(orjson.loads(remote.post("", sent, 200).content)["entry"]) == 6
        assert len(remote.found("Observation?code=mark|gone")) == 6
