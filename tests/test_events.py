"""Subscriptions of a running server, with real workers that are killed, and with an iCure that is elsewhere."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from simple_websocket import Client, ConnectionClosed

from bridge import demo
from bridge.app import create_app
from bridge.config import Config
from bridge.events import Kept
from tests.helpers import FHIR, Remote, Server, basic, eventually, free_port, serving
from tests.receiver import Receiver, receiving
from tests.test_subscriptions import hook, observation

SECONDS = 60
HOOKS = {"BRIDGE_HOOK_HOSTS": "127.0.0.1"}
FULL = {"payload": "application/fhir+json"}


@pytest.fixture
def accounts(data_dir: Path) -> dict[str, dict[str, str]]:
    return {account["name"]: account for account in demo.accounts(data_dir)}


@pytest.fixture
def server(data_dir: Path) -> Iterator[Server]:
    with serving(data_dir, **HOOKS) as running:
        yield running


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


@pytest.fixture
def esmith(server: Server, accounts: dict[str, dict[str, str]]) -> Remote:
    caller = Remote(server, accounts["esmith"])
    caller.load_key()
    return caller


def put(made: dict[str, Any]) -> str:
    """Returns how a resource is told with its content."""
    return f"PUT /on-result/{made['resourceType']}/{made['id']}"


def websocket(server: Server, account: dict[str, str]) -> Client:
    return Client.connect(
        f"{server.url.replace('http', 'ws')}{FHIR}/ws", headers={"Authorization": basic(account)}
    )


def leave(socket: Client) -> None:
    """Ends a connection; returns when the other side knows."""
    super(Client, socket).close()
    socket.thread.join()


def listening(criteria: str = "Observation?code=29463-7") -> dict[str, Any]:
    said = {"resourceType": "Subscription", "status": "requested", "reason": "a test", "criteria": criteria}
    return {**said, "channel": {"type": "websocket"}}


def test_who_binds_is_pinged_whichever_worker_follows(server: Server, esmith: Remote) -> None:
    made = esmith.created(listening())
    ping = f"ping {made['id']}"
    sockets = [websocket(server, esmith.account) for _ in range(4)]
    for socket in sockets:
        socket.send(f"bind {made['id']}")
        assert socket.receive(timeout=SECONDS) == f"bound {made['id']}"
    for _ in range(3):
        esmith.created(observation())
    for socket in sockets:
        assert [socket.receive(timeout=SECONDS) for _ in range(3)] == [ping] * 3
        leave(socket)
    esmith.created(observation())
    late = websocket(server, esmith.account)
    late.send(f"bind {made['id']}")
    assert [late.receive(timeout=SECONDS) for _ in range(2)] == [f"bound {made['id']}", ping]
    late.close()


def test_who_binds_to_what_is_not_its_own_is_sent_away(
    server: Server, esmith: Remote, accounts: dict[str, dict[str, str]], receiver: Receiver
) -> None:
    mine, posted = esmith.created(listening()), esmith.created(hook(receiver))
    for account, text in (
        ("jdoe", f"bind {mine['id']}"),
        ("esmith", f"bind {posted['id']}"),
        ("esmith", "bind no-such-id"),
        ("esmith", "hello"),
    ):
        socket = websocket(server, accounts[account])
        socket.send(text)
        with pytest.raises(ConnectionClosed) as closed:
            socket.receive(timeout=SECONDS)
        assert closed.value.reason == 1008
    plain = requests.get(f"{server.fhir}/ws", headers=esmith.headers)
    assert (plain.status_code, plain.json()["resourceType"]) == (400, "OperationOutcome")
    assert requests.get(f"{server.fhir}/ws").status_code == 401


def test_a_listener_is_sent_away_when_its_subscription_ends(server: Server, esmith: Remote) -> None:
    made = esmith.created(listening())
    socket = websocket(server, esmith.account)
    socket.send(f"bind {made['id']}")
    assert socket.receive(timeout=SECONDS) == f"bound {made['id']}"
    esmith.send("DELETE", f"Subscription/{made['id']}", status=204)
    with pytest.raises(ConnectionClosed) as closed:
        socket.receive(timeout=SECONDS)
    assert closed.value.reason == 1000


def test_a_killed_worker_s_subscriptions_are_taken_over(
    server: Server, esmith: Remote, receiver: Receiver
) -> None:
    esmith.created(hook(receiver, **FULL))
    told = set()
    for _ in range(3):
        told |= {put(esmith.created(observation())) for _ in range(5)}
        os.kill(server.workers()[0], signal.SIGKILL)
        told |= {put(posted(esmith)) for _ in range(5)}
    receiver.wait_for(told)


def posted(caller: Remote) -> dict[str, Any]:
    """Returns an Observation that was created, though the worker that was asked first may have died."""
    for _ in range(20):
        try:
            return caller.created(observation())
        except (requests.ConnectionError, AssertionError):
            time.sleep(0.1)
    raise AssertionError("nobody answers")


def test_a_restarted_bridge_tells_what_happened_meanwhile(
    data_dir: Path, accounts: dict[str, dict[str, str]], receiver: Receiver
) -> None:
    port, told = free_port(), set()
    for attempt in range(3):
        with serving(data_dir, port=port, **HOOKS) as server:
            caller = Remote(server, accounts["esmith"])
            caller.load_key()
            if attempt == 0:
                caller.created(hook(receiver, **FULL))
            told |= {put(caller.created(observation())) for _ in range(20)}
            if attempt < 2:
                os.killpg(server.process.pid, signal.SIGKILL)
    with serving(data_dir, port=port, **HOOKS):
        receiver.wait_for(told)


def test_an_icure_that_is_elsewhere_tells_over_websockets(
    data_dir: Path, tmp_path: Path, accounts: dict[str, dict[str, str]], receiver: Receiver
) -> None:
    icure_port = free_port()
    with serving(data_dir, port=icure_port) as icure:
        other = tmp_path / "bridge"
        other.mkdir()
        with serving(other, ICURE_URL=icure.url, **HOOKS) as server:
            near, far = Remote(server, accounts["esmith"]), Remote(icure, accounts["esmith"])
            near.load_key()
            far.load_key()
            near.created(hook(receiver, **FULL))
            near.created(hook(receiver, "Patient?family=Eiffel", **FULL))
            told = {put(far.created(observation())) for _ in range(5)}
            told.add(put(far.created({"resourceType": "Patient", "name": [{"family": "Eiffel"}]})))
            receiver.wait_for(told)
            icure.process.terminate()
            icure.process.wait(60)
            with serving(data_dir, port=icure_port) as again:
                back = Remote(again, accounts["esmith"])
                back.load_key()
                told |= {put(back.created(observation())) for _ in range(5)}
                receiver.wait_for(told)
                for made in near.found("Subscription"):
                    near.send("DELETE", f"Subscription/{made['id']}", status=204)


def test_another_host_takes_over_from_one_that_was_killed(
    server: Server, esmith: Remote, tmp_path: Path, redis_url: str, receiver: Receiver
) -> None:
    secret = tmp_path / "deployment-secret"
    secret.write_bytes(b"0123456789abcdef")
    shared = {
        "ICURE_URL": server.url,
        "BRIDGE_STATE_URL": redis_url,
        "BRIDGE_SECRET_FILE": str(secret),
        **HOOKS,
    }
    folders = [tmp_path / "one", tmp_path / "another"]
    for folder in folders:
        folder.mkdir()
    with serving(folders[0], **shared) as one:
        near = Remote(one, esmith.account)
        near.load_key()
        near.created(hook(receiver, **FULL))
        told = {put(esmith.created(observation()))}
        receiver.wait_for(told)
        with serving(folders[1], **shared) as another:
            os.killpg(one.process.pid, signal.SIGKILL)
            told |= {put(esmith.created(observation())) for _ in range(5)}
            receiver.wait_for(told)
            there = Remote(another, esmith.account)
            eventually(lambda: [made["status"] for made in there.found("Subscription")] == ["active"])


def test_what_icure_tells_over_its_connection_is_heard(
    server: Server, esmith: Remote, tmp_path: Path, accounts: dict[str, dict[str, str]]
) -> None:
    app = create_app(Config(icure_url=server.url, data_dir=tmp_path / "bridge"))
    source, now = app.extensions["following"].source, time.time_ns() // 1_000_000
    kept = Kept(
        "an-id", "esmith", "", listening(), source.begin(now), now, token=accounts["esmith"]["password"]
    )
    source.follow([kept])
    heard = source.of(kept)
    eventually(lambda: heard.ready)
    made = esmith.created(observation())
    eventually(lambda: heard.last() == 1)
    changes, reached = heard.after(0, 10)
    assert ([change.id for change in changes], reached) == ([made["id"]], 1)
    source.follow(())
    assert not heard.wanted
