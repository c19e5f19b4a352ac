"""iCure's tutorial on events, step by step, with its own SDK on the embedded store."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge import demo
from tests.helpers import Remote, Server, serving
from tests.sdk.client import Sdk, install
from tests.test_subscriptions import observation

SECONDS = 60
IC_TEST = {"type": "IC-TEST", "code": "TEST"}


@pytest.fixture(scope="module")
def server(demo_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    install()
    data_dir = Path(shutil.copytree(demo_template, tmp_path_factory.mktemp("events") / "data"))
    with serving(data_dir) as running:
        running.accounts = {a["name"]: a for a in demo.accounts(data_dir)}  # type: ignore[attr-defined]
        yield running


@pytest.fixture
def log_in(server: Server) -> Iterator[Any]:
    """Gives the SDK as somebody."""
    opened: list[Sdk] = []

    def start(name: str) -> Sdk:
        account = server.accounts[name]  # type: ignore[attr-defined]
        names = ("login", "password", "dataOwnerId", "privateKey")
        opened.append(Sdk.start(server.url, *(account[n] for n in names)))
        return opened[-1]

    yield start
    for sdk in opened:
        sdk.close()


def kinds(sdk: Sdk, subscription: int, *, until: str | None) -> list[str]:
    """Returns the kinds of events up to one about an entity; of those that come within a second when there is none."""
    found = []
    while event := sdk.next_event(subscription, SECONDS if until else 1):
        found.append(event["kind"])
        if event["kind"] == "EntityNotification" and event["id"] == until:
            return found
    assert until is None, found
    return found


def connected(sdk: Sdk, subscription: int) -> bool:
    """Whether the first event, which is waited for, is that there is a connection."""
    event = sdk.next_event(subscription, SECONDS)
    return event is not None and event["kind"] == "Connected"


def data_sample(**members: Any) -> dict[str, Any]:
    return {
        "tags": [{"id": "IC-TEST|TEST|1", **IC_TEST, "version": "1"}],
        "content": {"en": {"stringValue": "Hello world"}},
        **members,
    }


def test_the_tutorial_on_events(server: Server, log_in: Any) -> None:
    api = log_in("esmith")
    connection = api.subscribe(tag=IC_TEST)
    assert connected(api, connection)
    john = api.create_patient({"firstName": "John", "lastName": "Snow", "note": "Winter is coming"})
    made = api.create_contact(john["id"], {"services": [{"id": "e" * 32, **data_sample()}]})
    assert kinds(api, connection, until=made["services"][0]["id"]) == ["EntityNotification"]
    api.create_contact(john["id"], {"services": [{"id": "f" * 32, "content": {"en": {"stringValue": "x"}}}]})
    assert kinds(api, connection, until=None) == []
    assert api.unsubscribe(connection) is True


def test_what_is_posted_as_fhir_is_heard_with_the_sdk(server: Server, log_in: Any) -> None:
    api, fhir = log_in("esmith"), Remote(server, server.accounts["esmith"])  # type: ignore[attr-defined]
    fhir.load_key()
    patients = api.subscribe("Create", "Update")
    services = api.subscribe(tag={"type": "urn:ward", "code": "7"})
    for connection in (patients, services):
        assert connected(api, connection)
    made = fhir.created({"resourceType": "Patient", "name": [{"family": "Eiffel"}]})
    assert kinds(api, patients, until=made["id"]) == ["EntityNotification"]
    seen = fhir.created(observation(meta={"tag": [{"system": "urn:ward", "code": "7"}]}))
    assert kinds(api, services, until=seen["id"]) == ["EntityNotification"]


def test_nobody_else_hears_of_it(server: Server, log_in: Any) -> None:
    jdoe, fhir = log_in("jdoe"), Remote(server, server.accounts["esmith"])  # type: ignore[attr-defined]
    fhir.load_key()
    connection = jdoe.subscribe("Create", "Update")
    assert connected(jdoe, connection)
    fhir.created(observation())
    assert kinds(jdoe, connection, until=None) == []
