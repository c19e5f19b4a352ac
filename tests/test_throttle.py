"""Who guesses passwords waits, in every worker, and holds up nobody else."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from bridge import throttle
from bridge.app import create_app
from bridge.config import Config
from bridge.state import Sqlite, State, sqlite
from bridge.throttle import ADDRESS, DRAINED_SECONDS, LOGIN, LONGEST_WAIT_SECONDS, PAIR, Throttle
from tests.helpers import DEMO_PATIENT, Account, Caller, assert_outcome, serving

READ = f"Patient/{DEMO_PATIENT}"
LOGIN_PATH = "/rest/v2/auth/login"
HERE, THERE = "192.0.2.1", "198.51.100.7"


class Clock:
    """A clock that is put forward by hand."""

    def __init__(self) -> None:
        self.now = time.time()

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(throttle, "time", SimpleNamespace(time=clock.time))
    return clock


@pytest.fixture(params=["sqlite", "redis"])
def workers(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Throttle, Throttle]:
    """The throttles of two workers that share a state."""
    if request.param == "sqlite":
        backends: list[Any] = [Sqlite(tmp_path), Sqlite(tmp_path)]
    else:
        from bridge.state.redis import Redis

        url = request.getfixturevalue("redis_url")
        backends = [Redis(url), Redis(url)]
    one, other = (Throttle(State(b, b"s" * 32), Config().trusts) for b in backends)
    return one, other


def test_the_first_wrong_passwords_cost_nothing_and_the_next_twice_as_long_each(
    workers: tuple[Throttle, Throttle], clock: Clock
) -> None:
    one, other = workers
    waits = []
    for _ in range(PAIR.free + 5):
        waits.append(other.wait("esmith", HERE))
        one.failed("esmith", HERE)
    assert waits == [*[0] * PAIR.free, 1, 2, 4, 8, 16]


def test_nobody_waits_longer_than_the_longest_wait(workers: tuple[Throttle, Throttle], clock: Clock) -> None:
    one, _ = workers
    for _ in range(40):
        one.failed("esmith", HERE)
    assert one.wait("esmith", HERE) == LONGEST_WAIT_SECONDS


def test_waiting_helps(workers: tuple[Throttle, Throttle], clock: Clock) -> None:
    one, other = workers
    for _ in range(PAIR.free + 3):
        one.failed("esmith", HERE)
    assert one.wait("esmith", HERE) == 8
    clock.now += 5
    assert other.wait("esmith", HERE) == 3
    clock.now += 3
    assert other.wait("esmith", HERE) == 0
    clock.now += 2 * DRAINED_SECONDS
    for _ in range(PAIR.free):
        assert one.wait("esmith", HERE) == 0
        one.failed("esmith", HERE)


def test_the_right_password_ends_the_count(workers: tuple[Throttle, Throttle], clock: Clock) -> None:
    one, other = workers
    for _ in range(PAIR.free + 3):
        one.failed("esmith", HERE)
    clock.now += 8
    other.succeeded("esmith", HERE)
    one.failed("esmith", HERE)
    assert one.wait("esmith", HERE) == 0


def test_one_address_holds_up_nobody_elsewhere_nor_others_there(
    workers: tuple[Throttle, Throttle], clock: Clock
) -> None:
    one, other = workers
    for _ in range(PAIR.free + 3):
        one.failed("esmith", HERE)
    assert other.wait("esmith", THERE) == 0
    assert other.wait("jdoe", HERE) == 0


def test_many_addresses_hold_up_a_login_but_where_it_is_known(
    workers: tuple[Throttle, Throttle], clock: Clock
) -> None:
    one, other = workers
    one.succeeded("esmith", HERE)
    for at in range(LOGIN.free + 2):
        one.failed("esmith", f"203.0.113.{at}")
    assert other.wait("esmith", THERE) == 4
    assert other.wait("esmith", HERE) == 0
    assert other.wait("jdoe", THERE) == 0


def test_an_address_is_known_for_thirty_days_after_the_last_time(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "time", clock)
    one = Throttle(State(Sqlite(tmp_path), b"s" * 32), Config().trusts)
    waits = []
    for days, comes in ((0, True), (20, True), (20, False), (20, False)):
        clock.now += days * 24 * 3600
        for at in range(LOGIN.free + 1):
            one.failed("esmith", f"203.0.113.{at}")
        waits.append(one.wait("esmith", HERE) > 0)
        if comes:
            one.succeeded("esmith", HERE)
    assert waits == [True, False, False, True]


def test_many_logins_hold_up_an_address(workers: tuple[Throttle, Throttle], clock: Clock) -> None:
    one, other = workers
    for at in range(ADDRESS.free):
        assert other.wait(f"user{at}", HERE) == 0
        one.failed(f"user{at}", HERE)
    assert other.wait("jdoe", HERE) == 1
    assert other.wait("jdoe", THERE) == 0


def test_who_tries_many_logins_keeps_none_out_that_is_known_there(
    workers: tuple[Throttle, Throttle], clock: Clock
) -> None:
    one, other = workers
    one.succeeded("esmith", HERE)
    for at in range(ADDRESS.free + 5):
        one.failed(f"user{at}", HERE)
    assert other.wait("jdoe", HERE) > 0
    assert other.wait("esmith", HERE) == 0
    for _ in range(PAIR.free):
        one.failed("esmith", HERE)
    assert other.wait("esmith", HERE) == 1


def test_an_office_that_mistypes_now_and_then_never_waits(
    workers: tuple[Throttle, Throttle], clock: Clock
) -> None:
    one, _ = workers
    for at in range(4 * ADDRESS.free):
        clock.now += 1.1 * DRAINED_SECONDS / ADDRESS.free
        one.failed(f"user{at}", HERE)
    assert one.wait("jdoe", HERE) == 0


def test_addresses_of_one_ipv6_network_are_one(workers: tuple[Throttle, Throttle], clock: Clock) -> None:
    one, _ = workers
    for at in range(PAIR.free):
        one.failed("esmith", f"2001:db8::{at:x}")
    assert one.wait("esmith", "2001:db8::ffff") == 1
    assert one.wait("esmith", "2001:db8:0:1::1") == 0
    for _ in range(PAIR.free):
        one.failed("esmith", f"::ffff:{HERE}")
    assert one.wait("esmith", HERE) == 1


ORIGINS = {
    "no proxy": (HERE, "", HERE),
    "a proxy that nobody trusts": (HERE, THERE, HERE),
    "a trusted proxy": ("10.0.0.1", THERE, THERE),
    "two trusted proxies": ("10.0.0.1", f"{THERE}, 10.0.0.2", THERE),
    "what the client made up": ("10.0.0.1", f"1.1.1.1, {THERE}", THERE),
    "a port": ("10.0.0.1", f"{THERE}:443", THERE),
    "IPv6 with a port": ("10.0.0.1", "[2001:db8::1]:443", "2001:db8::1"),
    "IPv6 in brackets": ("10.0.0.1", "[2001:db8::1]", "2001:db8::1"),
    "IPv6": ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
    "a trusted proxy that is reached over both": ("::ffff:10.0.0.1", THERE, THERE),
    "a trusted proxy that says nothing": ("10.0.0.1", "", "10.0.0.1"),
    "a trusted proxy that says nonsense": ("10.0.0.1", "nonsense", "10.0.0.1"),
    "no address": (None, THERE, ""),
}


@pytest.mark.parametrize(("peer", "forwarded", "origin"), ORIGINS.values(), ids=ORIGINS)
def test_an_address_is_what_trusted_proxies_say(
    tmp_path: Path, peer: str | None, forwarded: str, origin: str
) -> None:
    config = Config(trusted_proxies=("10.0.0.0/8",))
    assert Throttle(State(Sqlite(tmp_path), b"s" * 32), config.trusts).origin(peer, forwarded) == origin


def test_neither_logins_nor_addresses_stand_in_the_state(tmp_path: Path) -> None:
    one = Throttle(State(Sqlite(tmp_path), b"s" * 32), Config().trusts)
    one.failed("esmith", HERE)
    one.succeeded("esmith", HERE)
    kept = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"esmith" not in kept
    assert HERE.encode() not in kept


# through HTTP


@pytest.fixture
def guess(app: Any, accounts: dict[str, Account]) -> Callable[..., Any]:
    """Asks as esmith with a password."""

    def ask(password: str, **headers: str) -> Any:
        return Caller(app, {**accounts["esmith"], "password": password}).get(READ, **headers)

    return ask


def test_many_wrong_passwords_end_in_429_in_words(
    guess: Callable[..., Any], accounts: dict[str, Account], clock: Clock
) -> None:
    for at in range(PAIR.free):
        assert_outcome(guess(f"wrong password {at}"), 401, "login")
    refused = guess("another wrong password")
    assert_outcome(refused, 429, "throttled")
    assert int(refused.headers["Retry-After"]) >= 1
    assert "wrong password" not in refused.text.replace("many wrong passwords", "")
    assert_outcome(guess(accounts["esmith"]["password"]), 429, "throttled")


def test_the_right_password_works_after_the_wait(
    guess: Callable[..., Any], app: Any, accounts: dict[str, Account], clock: Clock
) -> None:
    for at in range(PAIR.free + 1):
        guess(f"wrong password {at}")
    clock.now += int(guess("wrong again").headers["Retry-After"])
    assert Caller(app, accounts["esmith"]).load_key().status_code == 200
    for at in range(PAIR.free - 1):
        assert_outcome(guess(f"and again {at}"), 401)


def test_who_is_remembered_does_not_wait(esmith: Caller, guess: Callable[..., Any], clock: Clock) -> None:
    for at in range(PAIR.free + 3):
        guess(f"wrong password {at}")
    assert_outcome(guess("wrong again"), 429)
    assert esmith.get(READ).status_code == 200


def test_the_embedded_store_s_own_login_counts_with_the_bridge_s(
    app: Any, accounts: dict[str, Account], guess: Callable[..., Any], clock: Clock
) -> None:
    client = app.test_client()
    for at in range(PAIR.free - 1):
        wrong = {"username": "esmith", "password": f"wrong password {at}"}
        assert client.post(LOGIN_PATH, json=wrong).status_code == 401
    header = "Basic " + b64encode(b"esmith:another one").decode()
    assert client.get("/rest/v2/user/current", headers={"Authorization": header}).status_code == 401
    right = {"username": "esmith", "password": accounts["esmith"]["password"]}
    refused = client.post(LOGIN_PATH, json=right)
    assert (refused.status_code, list(refused.json)) == (429, ["message"])
    assert int(refused.headers["Retry-After"]) >= 1
    assert_outcome(guess(accounts["esmith"]["password"]), 429, "throttled")
    clock.now += 1
    assert client.post(LOGIN_PATH, json=right).status_code == 200


def test_addresses_are_those_that_the_proxy_tells(
    data_dir: Path, accounts: dict[str, Account], clock: Clock
) -> None:
    app = create_app(replace(Config(data_dir=data_dir), trusted_proxies=("127.0.0.1",)))
    wrong = Caller(app, {**accounts["esmith"], "password": "wrong password"})
    for _ in range(PAIR.free):
        assert_outcome(wrong.get(READ, X_Forwarded_For=HERE), 401)
    assert_outcome(wrong.get(READ, X_Forwarded_For=HERE), 429)
    assert_outcome(wrong.get(READ, X_Forwarded_For=THERE), 401)


def test_the_count_holds_across_the_workers_of_a_server(data_dir: Path, accounts: dict[str, Account]) -> None:
    with serving(data_dir, workers=2) as server:
        statuses = [
            requests.get(f"{server.fhir}/{READ}", auth=("esmith", f"wrong password {at}")).status_code
            for at in range(2 * PAIR.free - 1)
        ]
        assert statuses[: PAIR.free] == [401] * PAIR.free
        assert 429 in statuses  # counted by each worker alone, none had seen enough
        jdoe = accounts["jdoe"]
        answer = requests.get(f"{server.url}/rest/icdx/v1/tokens", auth=(jdoe["login"], jdoe["password"]))
        assert answer.status_code == 200
