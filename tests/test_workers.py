from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import requests
from gunicorn.config import Config as GunicornConfig

from bridge.app import create_app
from bridge.config import Config
from bridge.embedded.store import DATABASE
from bridge.server import GRACE_SECONDS, KEEP_ALIVE_SECONDS, Worker
from tests.helpers import (
    DEMO_PATIENT,
    FHIR,
    Account,
    Caller,
    Remote,
    Server,
    assert_outcome,
    eventually,
    free_port,
    serving,
)

READ = f"{FHIR}/Patient/{DEMO_PATIENT}"
FRESH = 60
"""Connections that make it all but certain that each of three workers answers some."""


@pytest.fixture
def server(data_dir: Path) -> Iterator[Server]:
    """Three worker processes."""
    with serving(data_dir, workers=3) as server:
        yield server


@pytest.fixture
def remote(server: Server, accounts: dict[str, Account]) -> Remote:
    return Remote(server, accounts["esmith"])


def worker_of(server: Server, connection: socket.socket) -> int:
    """Returns the process id of the worker that holds the other end of a connection."""
    ends = [f":{port:04X}" for _, port in (connection.getpeername(), connection.getsockname())]

    def inodes() -> set[str]:
        """As the table is read in parts, a row may be there twice, or be missed."""
        table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return {row[9] for row in table if row[1].endswith(ends[0]) and row[2].endswith(ends[1])}

    (inode,) = eventually(inodes)
    for pid in server.workers():
        for file in Path(f"/proc/{pid}/fd").iterdir():
            try:
                if str(file.readlink()) == f"socket:[{inode}]":
                    return pid
            except FileNotFoundError:
                continue
    raise AssertionError("no worker holds it")


def answer(connection: socket.socket) -> bytes:
    """Returns all that comes until the other side closes."""
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


def answered(remote: Remote, count: int = FRESH) -> Counter[int]:
    """Returns the statuses of reads, each on a fresh connection."""
    return Counter(
        requests.get(remote.server.url + READ, headers={**remote.headers, "Connection": "close"}).status_code
        for _ in range(count)
    )


def workers_that_accept(server: Server) -> set[int]:
    """Returns which workers take fresh connections, as soon as that are all or after a minute.

    The kernel hands connections to whoever asks first, not in turns.
    """
    found: set[int] = set()
    deadline = time.monotonic() + 60
    while found != set(server.workers()) and time.monotonic() < deadline:
        with kept_open(server) as connection:
            found.add(worker_of(server, connection))
    return found


def kept_open(server: Server) -> socket.socket:
    """Returns a connection that stays open, whose first request was answered."""
    connection = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=30)
    connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


def respawned(server: Server, before: set[int]) -> set[int]:
    """Returns the workers as soon as they are as many as before, and others, and serve."""

    def replaced() -> set[int]:
        now = set(server.workers())
        is_whole = len(now) == len(before) and now != before
        return now if is_whole and workers_that_accept(server) == now else set()

    return eventually(replaced)


def test_three_workers_share_one_upload_one_kill_and_one_delete(server: Server, remote: Remote) -> None:
    before = set(server.workers())
    assert len(before) == 3
    assert workers_that_accept(server) == before
    assert answered(remote, 10) == {403: 10}

    remote.load_key()
    assert answered(remote) == {200: FRESH}

    os.kill(min(before), signal.SIGKILL)
    assert answered(remote) == {200: FRESH}
    after = respawned(server, before)
    assert workers_that_accept(server) == after
    assert answered(remote) == {200: FRESH}

    keychain = f"{server.url}/rest/icdx/v1/keychain/{remote.account['dataOwnerId']}"
    assert requests.delete(keychain, headers=remote.headers).status_code == 204
    assert answered(remote) == {403: FRESH}
    assert_outcome(remote.get(f"Patient/{DEMO_PATIENT}", 403), 403, "security")


def test_connections_that_are_kept_open_are_shared_out(data_dir: Path) -> None:
    """Also after a worker was killed: the one in its place counts from nothing."""
    with serving(data_dir, workers=3, program="tests.patient") as server, ExitStack() as stack:
        before = set(server.workers())
        os.kill(min(before), signal.SIGKILL)
        respawned(server, before)
        held = Counter(worker_of(server, stack.enter_context(kept_open(server))) for _ in range(30))
    assert len(held) == 3
    assert min(held.values()) >= 7, held


def test_what_one_worker_wrote_every_worker_reads(server: Server, remote: Remote) -> None:
    remote.load_key()
    for number in range(8):
        made = remote.created({"resourceType": "Patient", "name": [{"family": f"F{number}"}]})
        for _ in range(4):
            assert remote.read(f"Patient/{made['id']}")["name"] == [{"family": f"F{number}"}]


def documents(data_dir: Path, kind: str) -> int:
    with closing(sqlite3.connect(data_dir / DATABASE)) as db:
        return int(db.execute("SELECT count(*) FROM documents WHERE type = ?", (kind,)).fetchone()[0])


def create_from_threads(remote: Remote, threads: int = 8, each: int = 3) -> list[int]:
    start = threading.Barrier(threads)

    def some(_: int) -> list[int]:
        start.wait()
        body = b'{"resourceType": "Patient"}'
        url = f"{remote.server.fhir}/Patient"
        return [requests.post(url, data=body, headers=remote.headers).status_code for _ in range(each)]

    with ThreadPoolExecutor(threads) as pool:
        return [status for statuses in pool.map(some, range(threads)) for status in statuses]


def test_many_first_creates_at_once_make_one_exchange_data(
    server: Server, data_dir: Path, accounts: dict[str, Account]
) -> None:
    jdoe = Remote(server, accounts["jdoe"])
    jdoe.load_key()
    before = documents(data_dir, "ExchangeData"), documents(data_dir, "Patient")
    assert create_from_threads(jdoe) == [201] * 24
    assert documents(data_dir, "ExchangeData") == before[0] + 1
    assert documents(data_dir, "Patient") == before[1] + 24


def test_many_first_creates_in_one_process_make_one_exchange_data(
    data_dir: Path, accounts: dict[str, Account]
) -> None:
    jdoe = Caller(create_app(Config(data_dir=data_dir)), accounts["jdoe"])
    jdoe.load_key()
    before = documents(data_dir, "ExchangeData")
    start = threading.Barrier(8)

    def one(_: int) -> int:
        start.wait()
        return int(Caller(jdoe.app, jdoe.account).post("Patient", {"resourceType": "Patient"}).status_code)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(8))) == [201] * 8
    assert documents(data_dir, "ExchangeData") == before + 1


def test_a_key_uploaded_from_many_threads_at_once_is_there_once(server: Server, remote: Remote) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: remote.load_key(), range(16)))
    keychain = f"{server.url}/rest/icdx/v1/keychain/{remote.account['dataOwnerId']}"
    assert len(requests.get(keychain, headers=remote.headers).json()["fingerprints"]) == 1


def test_a_restart_keeps_the_keys(data_dir: Path, accounts: dict[str, Account]) -> None:
    with serving(data_dir) as server:
        Remote(server, accounts["esmith"]).load_key()
    with serving(data_dir) as server:
        Remote(server, accounts["esmith"]).get(f"Patient/{DEMO_PATIENT}")


def test_a_stop_lets_the_request_in_flight_end(server: Server, remote: Remote) -> None:
    remote.load_key()
    body = b'{"resourceType": "Patient", "active": true}'
    headers = {**remote.headers, "Host": "x", "Content-Length": str(len(body)), "Expect": "100-continue"}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    begun = b"HTTP/1.1 100 Continue\r\n\r\n"
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(f"POST {FHIR}/Patient HTTP/1.1\r\n{head}\r\n".encode() + body[:10])
        assert connection.recv(len(begun)) == begun
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: len(server.workers()) == 1)  # those that have nothing to do are gone
        connection.sendall(body[10:])
        received = answer(connection)
    assert received.startswith(b"HTTP/1.1 201"), received[:200]
    assert json.loads(received.partition(b"\r\n\r\n")[2])["active"] is True
    assert server.process.wait(60) == 0
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{server.url}/health/live", timeout=5)


def test_a_stop_is_quick_when_nothing_is_in_flight(data_dir: Path) -> None:
    with serving(data_dir) as server:
        requests.get(f"{server.url}/health/live")
        begin = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        assert time.monotonic() - begin < min(GRACE_SECONDS, KEEP_ALIVE_SECONDS) - 5


def test_a_worker_that_is_told_to_stop_before_it_has_its_application_stops() -> None:
    worker = Worker(1, os.getpid(), [], None, 1, GunicornConfig(), None)
    worker.method_queue.init()
    try:
        worker.handle_exit(signal.SIGTERM, None)
        assert not worker.alive
    finally:
        worker.method_queue.close()
        worker.tmp.close()


def test_health_needs_no_login_and_tells_what_can_be_reached(server: Server) -> None:
    assert requests.get(f"{server.url}/health/live").json() == {"status": "up"}
    ready = requests.get(f"{server.url}/health/ready")
    assert (ready.status_code, ready.json()) == (200, {"status": "up", "icure": True, "state": True})


def test_not_ready_when_the_state_cannot_be_reached(data_dir: Path, accounts: dict[str, Account]) -> None:
    app = create_app(Config(data_dir=data_dir))
    with closing(sqlite3.connect(data_dir / "state.db")) as db, db:
        db.execute("DROP TABLE state")
    client = app.test_client()
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json) == (503, {"status": "down", "icure": True, "state": False})
    assert client.get("/health/live").status_code == 200
    keyed = Caller(app, accounts["esmith"]).get(f"Patient/{DEMO_PATIENT}")
    assert_outcome(keyed, 503, "transient")


def test_not_ready_when_icure_cannot_be_reached(data_dir: Path, accounts: dict[str, Account]) -> None:
    app = create_app(Config(data_dir=data_dir, icure_url=f"http://127.0.0.1:{free_port()}"))
    ready = app.test_client().get("/health/ready")
    assert (ready.status_code, ready.json["icure"], ready.json["state"]) == (503, False, True)
    assert_outcome(Caller(app, accounts["esmith"]).get(f"Patient/{DEMO_PATIENT}"), 502, "transient")


def test_a_server_that_is_no_icure_is_not_ready(server: Server, tmp_path: Path) -> None:
    app = create_app(Config(data_dir=tmp_path, icure_url=f"{server.url}/elsewhere"))
    assert app.test_client().get("/health/ready").status_code == 503
