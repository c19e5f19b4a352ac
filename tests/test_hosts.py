"""Several hosts that share their state in one Redis."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from bridge.app import create_app
from bridge.config import Config
from tests.helpers import (
    DEMO_PATIENT,
    Account,
    Caller,
    Remote,
    assert_outcome,
    eventually,
    redis_serving,
    serving,
)
from tests.test_state import everything

READ = f"Patient/{DEMO_PATIENT}"
PATIENT = {
    "resourceType": "Patient",
    "identifier": [{"system": "https://canary.example.org", "value": "canary-identifier"}],
    "name": [{"family": "Canary", "given": ["Zq"]}],
}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """The deployment secret that all hosts have."""
    file = tmp_path / "deployment"
    file.write_bytes(os.urandom(32))
    file.chmod(0o600)
    return file


@pytest.fixture
def shared(config: Config, redis_url: str, secret: Path) -> Config:
    return replace(config, state_url=redis_url, secret_file=secret)


@pytest.fixture
def hosts(shared: Config, accounts: dict[str, Account]) -> list[Caller]:
    """The same caller at two instances of the application."""
    apps = [create_app(shared) for _ in range(2)]
    return [Caller(app, accounts["esmith"]) for app in apps]


def test_one_upload_serves_every_host_and_one_delete_ends_it_everywhere(hosts: list[Caller]) -> None:
    one, other = hosts
    assert_outcome(other.get(READ), 403, "security")
    assert one.load_key().status_code == 200
    assert [host.get(READ).status_code for host in hosts] == [200, 200]
    keychain = f"/rest/icdx/v1/keychain/{one.account['dataOwnerId']}"
    assert other.delete(keychain).status_code == 204
    for host in hosts:
        assert_outcome(host.get(READ), 403, "security")


def test_a_key_ends_at_every_host(shared: Config, accounts: dict[str, Account]) -> None:
    brief = replace(shared, key_ttl_seconds=2, key_max_age_seconds=2)
    hosts = [Caller(create_app(brief), accounts["esmith"]) for _ in range(2)]
    ends = time.time() + 2
    assert hosts[0].load_key().status_code == 200
    latest = time.time() + 2
    assert all(host.get(READ).status_code == 200 for host in hosts) or time.time() > ends
    eventually(lambda: time.time() > latest)
    for host in hosts:
        assert_outcome(host.get(READ), 403, "security")


def test_hosts_with_other_secrets_share_nothing(
    hosts: list[Caller], shared: Config, accounts: dict[str, Account], tmp_path: Path
) -> None:
    assert hosts[0].load_key().status_code == 200
    file = tmp_path / "another"
    file.write_bytes(os.urandom(32))
    stranger = Caller(create_app(replace(shared, secret_file=file)), accounts["esmith"])
    assert_outcome(stranger.get(READ), 403, "security")


def test_keyed_requests_are_unavailable_while_redis_is(
    config: Config, secret: Path, tmp_path: Path, accounts: dict[str, Account]
) -> None:
    with redis_serving(tmp_path) as (_, url):
        app = create_app(replace(config, state_url=url, secret_file=secret))
        caller = Caller(app, accounts["esmith"])
        assert caller.load_key().status_code == 200
        assert caller.http.get("/health/ready").status_code == 200
    assert_outcome(caller.get(READ), 503)
    assert_outcome(caller.post("Patient", PATIENT), 503)
    assert caller.http.get("/health/ready").json == {"status": "down", "icure": True, "state": False}


def test_hosts_that_start_before_redis_serve_when_it_is_there(
    config: Config, secret: Path, tmp_path: Path, accounts: dict[str, Account]
) -> None:
    with redis_serving(tmp_path) as (_, url):
        pass
    caller = Caller(create_app(replace(config, state_url=url, secret_file=secret)), accounts["esmith"])
    assert_outcome(caller.load_key(), 503)
    with redis_serving(tmp_path, port=int(url.rpartition(":")[2].partition("/")[0])):
        assert caller.load_key().status_code == 200
        assert caller.get(READ).status_code == 200


@pytest.fixture
def two_servers(
    data_dir: Path, tmp_path: Path, redis_url: str, secret: Path, accounts: dict[str, Account]
) -> Iterator[list[Remote]]:
    """The same caller at two running services: the store of the first is the iCure server of the second."""
    url = redis_url.replace("//", "//default:canary-password@")
    environment = {"BRIDGE_STATE_URL": url, "BRIDGE_SECRET_FILE": str(secret)}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with ExitStack() as running:
        first = running.enter_context(serving(data_dir, **environment))
        second = running.enter_context(serving(elsewhere, ICURE_URL=first.url, **environment))
        yield [Remote(server, accounts["esmith"]) for server in (first, second)]


def test_two_running_services_share_keys_and_conditions_and_nothing_lies_in_clear(
    two_servers: list[Remote], redis_url: str, tmp_path: Path
) -> None:
    first, second = two_servers
    second.get(READ, 403)
    first.load_key()
    for remote in (first, second):
        for _ in range(10):
            remote.get(READ)
    condition = f"identifier={PATIENT['identifier'][0]['system']}|canary-identifier"  # type: ignore[index]

    def created(at: int) -> int:
        remote = two_servers[at % 2]
        headers = {**remote.headers, "If-None-Exist": condition}
        return requests.post(f"{remote.server.fhir}/Patient", json=PATIENT, headers=headers).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(created, range(16)))
    assert statuses == [200] * 15 + [201]
    held = everything(redis_url)
    assert held.count(b"fhir-bridge:value:") > 0
    account = first.account
    canaries = [
        "canary",
        "Canary",
        account["login"],
        account["password"],
        account["dataOwnerId"],
        DEMO_PATIENT,
    ]
    clear = [c for c in [*canaries, account["privateKey"][:60]] if c.encode() in held]
    assert clear == []
    assert "canary" not in first.server.log.read_text() + second.server.log.read_text()
    assert not (tmp_path / "elsewhere" / "state.db").exists()
    first.send("DELETE", f"{first.server.url}/rest/icdx/v1/keychain/{account['dataOwnerId']}", None, 204)
    second.get(READ, 403)
