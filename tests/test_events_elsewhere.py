"""Subscriptions of a bridge whose iCure is elsewhere: it hears over websockets, and makes good what it did not hear."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection

from bridge.app import create_app
from bridge.config import Config
from bridge.events import following as follow
from bridge.events import icure
from tests.helpers import Caller, Counting, Remote, Server, eventually, serving
from tests.receiver import Receiver, receiving
from tests.test_sharing import patient_user
from tests.test_subscriptions import follow_up, hook, observation, status_of

FULL = {"payload": "application/fhir+json"}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WAIT_SECONDS", "LONGEST_PAUSE_SECONDS", "LOOK_SECONDS"):
        monkeypatch.setattr(follow, name, 0.1)
    for name in ("SETTLE_SECONDS", "POLL_SECONDS", "FIRST_PAUSE_SECONDS"):
        monkeypatch.setattr(icure, name, 0.1)
    monkeypatch.setattr(icure, "LONGEST_PAUSE_SECONDS", 0.5)


@pytest.fixture
def server(data_dir: Path) -> Iterator[Server]:
    """The iCure that is elsewhere, with a bridge of its own."""
    with serving(data_dir) as running:
        yield running


@pytest.fixture
def config(server: Server, tmp_path: Path) -> Config:
    return Config(icure_url=server.url, data_dir=tmp_path / "bridge", hook_hosts=("127.0.0.1",))


@pytest.fixture
def app(config: Config) -> Iterator[Any]:
    application = create_app(config)
    application.testing = True
    yield application
    application.extensions["following"].source.follow(())
    eventually(lambda: not any(one.name == "icure events" for one in threading.enumerate()))


@pytest.fixture
def far(server: Server, accounts: dict[str, dict[str, str]]) -> Remote:
    """Another client of the iCure, with a bridge of its own."""
    caller = Remote(server, accounts["esmith"])
    caller.load_key()
    return caller


def heard(app: Any) -> list[Any]:
    return list(app.extensions["following"].source._heard.values())


def until(app: Any, holds: Callable[[], bool]) -> None:
    """Follows until it is as wanted."""

    def is_so() -> bool:
        go_on(app)
        return holds()

    eventually(is_so)


def go_on(app: Any) -> None:
    """Has what is due now looked at once."""
    following = app.extensions["following"]
    following.look()
    for one in following.due():
        following.round(one)


def connected(app: Any) -> None:
    until(app, lambda: bool(heard(app)) and all(one.ready and not one.trouble for one in heard(app)))


def dismiss(server: Server) -> None:
    """Has the workers of iCure end, and with them its connections; others take their place."""
    before = set(server.workers())

    def are_gone() -> bool:
        left = before.intersection(server.workers())
        for worker in left:  # one that has only just begun does not listen to a signal
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGTERM)
        return not left

    eventually(are_gone)


def break_off(server: Server, app: Any) -> None:
    """Has iCure end its connections."""
    before = [one.filled for one in heard(app)]
    dismiss(server)
    until(app, lambda: all(one.filled > n for one, n in zip(heard(app), before, strict=True)))


@contextmanager
def standing_in(
    app: Any, answer: Callable[[socket.socket, bytes], None], scheme: str = "ws"
) -> Iterator[None]:
    """Puts something else in iCure's place, which answers to websockets as it likes; the connections stay open."""
    lines: list[socket.socket] = []

    def take() -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            lines.append(line)
            if asked := line.recv(65536):
                answer(line, asked)

    source = app.extensions["following"].source
    before = source._place, source._url
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taking = threading.Thread(target=take)
        taking.start()
        host, port = listener.getsockname()
        source._place, source._url = (host, port), f"{scheme}://{host}:{port}{icure.PATH}"
        try:
            yield
        finally:
            source._place, source._url = before
            listener.shutdown(socket.SHUT_RDWR)
            taking.join()
            for line in lines:
                line.close()


def put(made: dict[str, Any]) -> str:
    return f"PUT /on-result/{made['resourceType']}/{made['id']}"


def test_it_is_told_of_what_others_write(app: Any, esmith: Caller, far: Remote, receiver: Receiver) -> None:
    esmith.created(hook(receiver, **FULL))
    connected(app)
    made = far.created(observation())
    until(app, lambda: receiver.paths() == [put(made)])


def test_it_hears_on_when_the_first_subscription_of_a_user_ended(
    app: Any, server: Server, esmith: Caller, far: Remote, receiver: Receiver
) -> None:
    first = esmith.created(hook(receiver, **FULL))
    connected(app)
    esmith.created(hook(receiver, **FULL))
    esmith.delete(f"Subscription/{first['id']}")
    app.extensions["bridge"].authenticator._remembered.clear()
    go_on(app)
    break_off(server, app)
    made = far.created(observation())
    until(app, lambda: receiver.paths() == [put(made)])


def test_it_hears_of_another_kind_when_the_criteria_change(
    app: Any, esmith: Caller, far: Remote, receiver: Receiver
) -> None:
    made = esmith.created(hook(receiver, **FULL))
    connected(app)
    changed = {**made, "criteria": "Condition"}
    assert esmith.send("PUT", f"Subscription/{made['id']}", changed).status_code == 200
    connected(app)
    far.created(observation())
    code = {"coding": [{"system": "http://x.org", "code": "x"}]}
    told = far.created({"resourceType": "Condition", "code": code, "subject": observation()["subject"]})
    until(app, lambda: receiver.paths() == [put(told)])


def test_it_says_that_it_hears_nothing_and_makes_good(
    app: Any, esmith: Caller, far: Remote, receiver: Receiver
) -> None:
    source = app.extensions["following"].source
    place, source._place = source._place, ("127.0.0.1", 9)
    made = esmith.created(hook(receiver, **FULL))
    until(app, lambda: status_of(esmith, made) == ("error", icure.NOT_HEARD))
    seen = far.created(observation())
    go_on(app)
    assert receiver.told == []
    source._place = place
    until(app, lambda: status_of(esmith, made) == ("active", None))
    assert receiver.paths() == [put(seen)]


def test_of_connections_that_fell_silent_no_thread_is_left_over(
    app: Any, esmith: Caller, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SILENT_SECONDS", "LOOK_SECONDS"):
        monkeypatch.setattr(icure, name, 0.2)
    taken = []

    def silent(line: socket.socket, asked: bytes) -> None:
        there = WSConnection(ConnectionType.SERVER)
        there.receive_data(asked)
        next(there.events())
        line.sendall(there.send(AcceptConnection()))
        taken.append(line)

    with standing_in(app, silent):
        esmith.created(hook(receiver, **FULL))
        until(app, lambda: len(taken) >= 3)
        readers = [one for one in threading.enumerate() if "simple_websocket" in one.name]
        assert len(readers) <= 1


@pytest.mark.parametrize(
    ("scheme", "answer"),
    [
        pytest.param("ws", lambda line, asked: None, id="none"),
        pytest.param("wss", lambda line, asked: None, id="none to TLS"),
        pytest.param("ws", lambda line, asked: line.shutdown(socket.SHUT_RDWR), id="broken off"),
        pytest.param("ws", lambda line, asked: line.sendall(b"220 mail.example ESMTP\r\n\r\n"), id="no HTTP"),
        pytest.param("ws", lambda line, asked: line.sendall(b"HTTP/1.1 401 No\r\n\r\n"), id="a refusal"),
    ],
)
def test_it_hears_again_after_one_who_does_not_take_websockets(
    app: Any,
    esmith: Caller,
    far: Remote,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    answer: Callable[[socket.socket, bytes], None],
) -> None:
    asked = []

    def take(line: socket.socket, said: bytes) -> None:
        asked.append(said)
        answer(line, said)

    with standing_in(app, take, scheme), monkeypatch.context() as patch:
        patch.setattr(icure, "CONNECT_SECONDS", 0.2)
        made = esmith.created(hook(receiver, **FULL))
        until(app, lambda: status_of(esmith, made) == ("error", icure.NOT_HEARD))
        eventually(lambda: len(asked) >= 2)
    seen = far.created(observation())
    until(app, lambda: status_of(esmith, made) == ("active", None))
    until(app, lambda: receiver.paths() == [put(seen)])


def test_what_was_missed_is_asked_for_once_for_all(
    app: Any, server: Server, esmith: Caller, far: Remote, receiver: Receiver
) -> None:
    for _ in range(3):
        esmith.created(hook(receiver, **FULL))
    connected(app)
    session = app.extensions["bridge"].upstream.session
    counting = Counting(session.get_adapter(server.url))
    session.mount(server.url, counting)
    source = app.extensions["following"].source
    place, source._place = source._place, ("127.0.0.1", 9)
    dismiss(server)
    until(app, lambda: all(one.trouble for one in heard(app)))
    missed = [put(far.created(observation())) for _ in range(2)]
    counting.told()
    source._place = place
    until(app, lambda: len(receiver.told) == 6)
    assert sorted(receiver.paths()) == sorted(3 * missed)
    assert counting.told().count("POST contact/service/match") == 1


def test_of_patients_that_do_not_say_when_they_changed_the_new_ones_are_told(
    app: Any, esmith: Caller, far: Remote, receiver: Receiver
) -> None:
    time.sleep(0.01)
    esmith.created(hook(receiver, "Patient", **FULL))
    connected(app)
    follow_up(app)
    assert receiver.told == []
    made = far.created({"resourceType": "Patient", "name": [{"family": "Eiffel"}]})
    until(app, lambda: receiver.paths() == [put(made)])


def test_a_patient_that_no_delegation_names_is_told_of_its_own(
    app: Any, server: Server, data_dir: Path, esmith: Caller, receiver: Receiver
) -> None:
    there = Caller(create_app(Config(data_dir=data_dir)), esmith.account)
    assert there.load_key().status_code == 200
    paul = Caller(app, patient_user(there, data_dir, "paul").account)
    assert paul.load_key().status_code == 200
    paul.created(hook(receiver, **FULL))
    bare = paul.created(hook(receiver, "Observation"))
    seen = {name: value for name, value in observation().items() if name != "subject"}
    paul.created(seen)
    connected(app)
    until(app, lambda: len(receiver.told) == 2)
    receiver.told.clear()
    mine = paul.created(seen)
    until(app, lambda: sorted(receiver.paths()) == ["POST /on-result", put(mine)])
    assert status_of(paul, bare) == ("active", None)
