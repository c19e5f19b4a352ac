"""What only a Redis can do to the state: break a connection, stop, freeze, and be shared by hosts."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bridge.errors import StateUnavailable
from bridge.state import State
from bridge.state import redis as redis_module
from bridge.state.redis import LEASE_SECONDS, Redis
from tests.helpers import eventually, redis_serving
from tests.test_state import BRIEF, SECRET, counted_with, is_lost, opened, spawned


class Relay:
    """Stands before a Redis and cuts one exchange: before the request arrives or before its answer does."""

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        self.target = urlsplit(url)
        self.tls = tls
        self.cut_at: int | None = None
        self.cut_answer = False
        self.exchanges = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self.listener.getsockname()[1]}/0"
        self.threads: list[threading.Thread] = []
        self._run(self.accept)

    def _run(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                self._run(self.serve, client)

    def serve(self, client: socket.socket) -> None:
        target = (self.target.hostname, self.target.port)
        with suppress(OSError), socket.create_connection(target) as upstream, self.opened(client) as client:
            while request := client.recv(1 << 20):
                at, self.exchanges = self.exchanges, self.exchanges + 1
                if at == self.cut_at and not self.cut_answer:
                    return
                upstream.sendall(request)
                answer = upstream.recv(1 << 20)
                if at == self.cut_at:
                    return
                client.sendall(answer)

    def opened(self, client: socket.socket) -> socket.socket:
        return self.tls.wrap_socket(client, server_side=True) if self.tls else client

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@contextmanager
def relayed(url: str, tls: ssl.SSLContext | None = None) -> Iterator[Relay]:
    relay = Relay(url, tls)
    try:
        yield relay
    finally:
        relay.close()


def put_twice(state: State) -> None:
    state.put("kind", "name", b"1", listed=True)
    state.put("kind", "name", b"2", time.time() + 60, listed=True)


def count_twice(state: State) -> None:
    counted_with(state, 2)


def hold_and_release(state: State) -> None:
    held = state.hold("kind", "name")
    assert held, "nobody else has it"
    assert state.hold("kind", "name") is None
    held.release()


def read(state: State) -> None:
    state.get("kind", "name")
    state.listed("kind")


EXCHANGES: dict[str, Callable[[State], None]] = {
    "put": put_twice,
    "change": count_twice,
    "hold": hold_and_release,
    "read": read,
}


@pytest.mark.parametrize("cut_answer", [False, True], ids=["request lost", "answer lost"])
@pytest.mark.parametrize("use", EXCHANGES.values(), ids=EXCHANGES)
def test_a_connection_that_breaks_at_any_moment_changes_nothing(
    use: Callable[[State], None], cut_answer: bool, redis_url: str
) -> None:
    at = 0
    while True:
        state = opened(redis_url)
        state.put("count", "all", None)
        with relayed(redis_url) as relay:
            through = opened(relay.url)
            use(through)
            warm = relay.exchanges
            relay.cut_at, relay.cut_answer = warm + at, cut_answer
            if use is count_twice:
                assert state.get("count", "all") == b"2"
            use(through)
            was_cut = relay.exchanges > warm + at
        if use is count_twice:
            assert state.get("count", "all") == b"4"
        if use is put_twice:
            assert [state.at(hidden) for hidden in state.listed("kind")] == [b"2"]
        if not was_cut:
            break
        at += 1
    assert at > 1


USES: dict[str, Callable[[State], object]] = {
    "get": lambda state: state.get("kind", "name"),
    "put": lambda state: state.put("kind", "name", b"value", listed=True),
    "update": lambda state: state.update("kind", "name", lambda old: (old, None), listed=True),
    "listed": lambda state: state.listed("kind"),
    "hold": lambda state: state.hold("kind", "name"),
    "doubts": lambda state: state.doubts(),
}


def is_unavailable(use: Callable[[State], object], state: State) -> bool:
    try:
        use(state)
    except StateUnavailable:
        return True
    return False


def test_a_redis_that_stops_is_unavailable_and_serves_again_when_it_is_back(tmp_path: Path) -> None:
    with redis_serving(tmp_path) as (process, url):
        state = opened(url)
        state.put("kind", "name", b"value", listed=True)
        held = state.hold("kind", "held")
        assert held
        process.kill()
        process.wait()
        assert [name for name, use in USES.items() if not is_unavailable(use, state)] == []
        held.release()
    with redis_serving(tmp_path, port=urlsplit(url).port or 0):
        assert [state.at(hidden) for hidden in state.listed("kind")] == [b"value"]
        assert [name for name, use in USES.items() if is_unavailable(use, state)] == []


def test_connections_to_what_became_a_replica_are_left(tmp_path: Path) -> None:
    """As after a failover, when the name leads elsewhere, but what is connected stays connected."""
    folders = [tmp_path / name for name in ("before", "after")]
    for folder in folders:
        folder.mkdir()
    with redis_serving(folders[0]) as (_, before), redis_serving(folders[1]) as (_, after):
        with relayed(before) as relay:
            state = opened(relay.url)
            state.put("kind", "name", b"before")
            relay.target = urlsplit(after)
            with redis.Redis.from_url(before) as left:
                left.replicaof(relay.target.hostname or "", relay.target.port or 0)
            for use in EXCHANGES.values():
                use(state)
            state.put("kind", "name", b"after")
        assert opened(after).get("kind", "name") == b"after"


def test_a_hold_outlives_a_restart_of_redis(tmp_path: Path) -> None:
    with redis_serving(tmp_path) as (process, url):
        held = opened(url, lease_seconds=120).hold("kind", "name")
        assert held
        process.kill()
        process.wait()
    with redis_serving(tmp_path, port=urlsplit(url).port or 0):
        assert opened(url).hold("kind", "name") is None
        held.check()


def test_a_hold_is_lost_when_redis_stays_away(tmp_path: Path) -> None:
    with redis_serving(tmp_path) as (_, url):
        held = opened(url, lease_seconds=2).hold("kind", "name")
        assert held
    eventually(lambda: is_lost(held))


def test_a_hold_is_lost_when_redis_forgets_it(tmp_path: Path) -> None:
    with redis_serving(tmp_path) as (_, url):
        held = opened(url, lease_seconds=BRIEF).hold("kind", "name")
    assert held
    (folder := tmp_path / "another").mkdir()
    with redis_serving(folder, port=urlsplit(url).port or 0):
        eventually(lambda: is_lost(held))


def test_a_redis_that_freezes_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with redis_serving(tmp_path) as (process, url):
        opened(url).put("kind", "name", b"value")
        monkeypatch.setattr(redis_module, "ANSWER_SECONDS", 0.2)
        state = opened(url)
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        assert [name for name, use in USES.items() if not is_unavailable(use, state)] == []
        process.send_signal(signal.SIGCONT)
        eventually(lambda: not is_unavailable(USES["get"], state))


def test_nothing_of_the_address_is_told(tmp_path: Path) -> None:
    with redis_serving(tmp_path, "--requirepass", "right") as (_, url):
        state = opened(url.replace("//", "//canary:canary@"))
        with pytest.raises(StateUnavailable) as refusal:
            state.get("kind", "name")
    assert "canary" not in str(refusal.value)
    assert "refuses the login" in str(refusal.value)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A file with a certificate of 127.0.0.1 that nobody signed but itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "certificate.pem"
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(made.public_bytes(Encoding.PEM) + key.private_bytes(*form))
    return file


def test_redis_is_reached_over_tls_when_its_certificate_is_trusted(redis_url: str, certificate: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with relayed(redis_url, tls) as relay:
        url = relay.url.replace("redis://", "rediss://")
        trusting = State(Redis(f"{url}?ssl_ca_certs={certificate}"), SECRET)
        trusting.put("kind", "name", b"value")
        with pytest.raises(StateUnavailable):
            State(Redis(url), SECRET).get("kind", "name")
        with pytest.raises(StateUnavailable):
            name = url.replace("127.0.0.1", "localhost")
            State(Redis(f"{name}?ssl_ca_certs={certificate}"), SECRET).get("kind", "name")
    assert opened(redis_url).get("kind", "name") == b"value"


def hold_and_tell(url: str, held: Any, go_on: Any, answers: Any) -> None:
    mine = opened(url, lease_seconds=2).hold("kind", "name")
    assert mine
    held.set()
    go_on.wait()
    answers.put(is_lost(mine))
    mine.release()


def test_a_process_that_was_frozen_beyond_its_lease_knows_that_it_lost_it(redis_url: str) -> None:
    held, go_on, answers = spawned.Event(), spawned.Event(), spawned.Queue()
    process = spawned.Process(target=hold_and_tell, args=(redis_url, held, go_on, answers))
    process.start()
    assert held.wait(60)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        state = opened(redis_url)
        mine = state.hold("kind", "name", wait=60)
        assert mine
    finally:
        os.kill(process.pid, signal.SIGCONT)
        go_on.set()
    assert answers.get(timeout=60) is True
    process.join(60)
    assert process.exitcode == 0
    assert state.hold("kind", "name") is None, "it released what is another's by now"
    mine.check()


def test_many_holds_are_renewed_by_one_thread_that_ends_with_them(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hold that has more time left than it could have from its beginning was renewed."""
    monkeypatch.setattr(redis_module, "RENEWALS", 40)
    before = set(threading.enumerate())

    def renewing() -> int:
        return len([t for t in threading.enumerate() if t.name == "leases" and t not in before])

    state = opened(redis_url)
    assert renewing() == 0
    holds = [held for n in range(20) if (held := state.hold("kind", str(n)))]
    taken = time.monotonic()
    assert renewing() == 1
    assert len(holds) == 20

    def are_renewed() -> bool:
        unless_renewed = LEASE_SECONDS - (time.monotonic() - taken)
        with redis.Redis.from_url(redis_url) as client:
            left = [client.pttl(key) / 1000 for key in client.scan_iter("fhir-bridge:hold:*")]
        return min(left) > unless_renewed + 1.5

    eventually(are_renewed)
    for number, held in enumerate(holds):
        held.check()
        assert opened(redis_url).hold("kind", str(number)) is None
        held.release()
    eventually(lambda: renewing() == 0)
    again = state.hold("kind", "name")
    assert again
    assert renewing() == 1
    again.release()


def hold_and_fork(url: str, children: Any) -> None:
    state = opened(url, lease_seconds=BRIEF)
    assert state.hold("kind", "of the parent")
    if os.fork() == 0:
        assert state.hold("kind", "of the parent") is None
        assert state.hold("kind", "of the child")
        children.put(os.getpid())
    time.sleep(120)


def test_a_child_does_not_keep_the_holds_of_its_parent(redis_url: str) -> None:
    children = spawned.Queue()
    parent = spawned.Process(target=hold_and_fork, args=(redis_url, children))
    parent.start()
    child = children.get(timeout=60)
    state = opened(redis_url)
    try:
        assert state.hold("kind", "of the parent") is None
        parent.kill()
        assert state.hold("kind", "of the parent", wait=60)
        assert state.hold("kind", "of the child") is None
    finally:
        os.kill(child, signal.SIGKILL)
        parent.join(60)


def test_a_list_heals_when_it_is_read(redis_url: str) -> None:
    state = opened(redis_url)
    state.put("kind", "soon", b"1", time.time() + 0.2, listed=True)
    state.put("kind", "deleted", b"2", listed=True)
    state.put("kind", "unlisted", b"3", listed=True)
    state.put("kind", "kept", b"4", listed=True)
    state.put("kind", "deleted", None)
    state.put("kind", "unlisted", b"3")
    eventually(lambda: len(state.listed("kind")) == 1)
    with redis.Redis.from_url(redis_url) as client:
        (shelf,) = {*client.scan_iter("fhir-bridge:shelf:*")}
        assert client.scard(shelf) == 1
        state.put("kind", "kept", None)
        assert state.listed("kind") == []
        assert not client.exists(shelf)
