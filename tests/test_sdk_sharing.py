"""Sharing between the bridge and the SDK: what one shares the other opens, shares on, and need not share again."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests

from bridge import demo
from bridge.crypto.keys import PrivateKey
from bridge.embedded import Store, admin
from mappings.values import Resource
from tests.helpers import DEMO_PATIENT, Account, Remote, Server, serving, stored
from tests.sdk.client import Sdk, SdkError, install
from tests.test_sharing import PATIENT, asking, condition, content, location, observation, references


@pytest.fixture(scope="module")
def server(demo_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    install()
    data_dir = Path(shutil.copytree(demo_template, tmp_path_factory.mktemp("sharing") / "data"))
    with serving(data_dir) as running:
        yield running


@pytest.fixture(scope="module")
def data_dir(server: Server) -> Path:
    return server.log.parent


@pytest.fixture(scope="module")
def accounts(data_dir: Path) -> dict[str, Account]:
    return {account["name"]: account for account in demo.accounts(data_dir)}


@pytest.fixture(scope="module")
def log_in(server: Server) -> Iterator[Callable[[Account], Sdk]]:
    """Gives the SDK as somebody, in a new instance that knows nothing of earlier ones."""
    opened: list[Sdk] = []

    def start(account: Account) -> Sdk:
        names = ("login", "password", "dataOwnerId", "privateKey")
        opened.append(Sdk.start(server.url, *(account[name] for name in names)))
        return opened[-1]

    yield start
    for sdk in opened:
        sdk.close()


def by_fhir(server: Server, account: Account) -> Remote:
    remote = Remote(server, account)
    remote.load_key()
    return remote


@pytest.fixture(scope="module")
def esmith(server: Server, accounts: dict[str, Account]) -> Remote:
    return by_fhir(server, accounts["esmith"])


@pytest.fixture(scope="module")
def jdoe(server: Server, accounts: dict[str, Account]) -> Remote:
    return by_fhir(server, accounts["jdoe"])


@pytest.fixture(scope="module")
def esmith_sdk(log_in: Callable[[Account], Sdk], accounts: dict[str, Account]) -> Sdk:
    return log_in(accounts["esmith"])


@pytest.fixture(scope="module")
def jdoe_sdk(log_in: Callable[[Account], Sdk], accounts: dict[str, Account]) -> Sdk:
    return log_in(accounts["jdoe"])


@pytest.fixture(scope="module")
def paul(server: Server, data_dir: Path, esmith: Remote) -> Remote:
    """A patient who logs in."""
    made = esmith.created({"resourceType": "Patient", "name": [{"family": "paul"}]})
    account = demo.new_account("paul", "password of paul", made["id"])
    announce(server, esmith.account, made["id"], PrivateKey.parse(account["privateKey"]))
    admin.create_user(Store(data_dir), account["login"], account["password"], patient_id=made["id"])
    share(esmith, location(made), f"Patient/{made['id']}")
    return by_fhir(server, account)


def announce(server: Server, account: Account, owner: str, key: PrivateKey) -> None:
    """Adds a key to those that a data owner announces."""
    login = {"username": account["login"], "password": account["password"]}
    token = requests.post(f"{server.url}/rest/v2/auth/login", json=login).json()["token"]
    headers, url = {"Authorization": f"Bearer {token}"}, f"{server.url}/rest/v2/dataowner/stub"
    known = requests.get(f"{url}/{owner}", headers=headers).json()
    known["stub"]["publicKeysForOaepWithSha256"].append(key.spki_hex)
    assert requests.put(url, json=known, headers=headers).ok


def share(caller: Remote, path: str, recipient: str | Remote, *rest: str) -> Resource:
    if isinstance(recipient, Remote):
        recipient = f"Practitioner/{recipient.account['dataOwnerId']}"
    told: Resource = caller.send("POST", f"{path}/$share", asking(recipient, *rest)).json()
    return told


def said(service: dict[str, Any]) -> str:
    """The text that a Service holds."""
    (text,) = (c["stringValue"] for name, c in service["content"].items() if name != "fhir")
    return str(text)


READING: dict[str, tuple[Callable[[], Resource], Callable[[Sdk, str], Any], Callable[[Any], Any], str]] = {
    "Patient": (lambda: PATIENT, Sdk.get_patient, lambda e: e["lastName"], "Snow"),
    "Observation": (
        observation,
        Sdk.get_service,
        said,
        "Hello world",
    ),
    "Condition": (condition, Sdk.get_health_element, lambda e: e["descr"], condition()["code"]["text"]),
}
each_type = pytest.mark.parametrize(("make", "get", "member", "value"), READING.values(), ids=READING)


@each_type
def test_what_is_shared_by_fhir_is_opened_by_the_sdk(
    esmith: Remote, jdoe: Remote, jdoe_sdk: Sdk, make: Any, get: Any, member: Any, value: str
) -> None:
    made = esmith.created(make())
    jdoe.get(location(made), 403)
    with pytest.raises(SdkError):
        get(jdoe_sdk, made["id"])
    assert made["id"] not in [one["id"] for one in jdoe.found(made["resourceType"])]
    share(esmith, location(made), jdoe, "read")
    assert content(jdoe.read(location(made))) == content(made)
    assert member(get(jdoe_sdk, made["id"])) == value


@each_type
def test_what_a_patient_received_by_fhir_is_opened_by_its_sdk_and_shared_on(
    esmith: Remote,
    jdoe: Remote,
    paul: Remote,
    log_in: Callable[[Account], Sdk],
    make: Any,
    get: Any,
    member: Any,
    value: str,
) -> None:
    made = esmith.created(make())
    share(esmith, location(made), f"Patient/{paul.account['dataOwnerId']}", "write")
    assert content(paul.read(location(made))) == content(made)
    sdk = log_in(paul.account)
    assert member(get(sdk, made["id"])) == value
    if made["resourceType"] == "Patient":
        sdk.share_patient_with(made["id"], jdoe.account["dataOwnerId"])
    elif made["resourceType"] == "Condition":
        sdk.share_health_element_with(made["id"], jdoe.account["dataOwnerId"])
    else:
        contact = sdk.get_service(made["id"])["contactId"]
        sdk.share_contact_with(contact, jdoe.account["dataOwnerId"])
    assert content(jdoe.read(location(made))) == content(made)


def test_what_the_sdk_shared_is_shared_already_and_the_other_way_round(
    esmith: Remote, esmith_sdk: Sdk, jdoe: Remote, jdoe_sdk: Sdk
) -> None:
    owner = jdoe.account["dataOwnerId"]
    first, second = (esmith.created(PATIENT) for _ in range(2))
    esmith_sdk.share_patient_with(first["id"], owner)
    assert content(jdoe.read(location(first))) == content(first)
    rev = esmith.read(location(first))["meta"]["versionId"]
    assert references(share(esmith, location(first), jdoe), "unchanged") == [location(first)]
    assert esmith.read(location(first))["meta"]["versionId"] == rev
    share(esmith, location(second), jdoe)
    esmith_sdk.share_patient_with(second["id"], owner)
    assert jdoe_sdk.get_patient(second["id"])["lastName"] == "Snow"


def test_what_the_sdk_shares_with_one_is_not_below_what_it_shared_with_another(
    server: Server,
    accounts: dict[str, Account],
    data_dir: Path,
    esmith: Remote,
    log_in: Callable[[Account], Sdk],
) -> None:
    """The SDK names all delegations that it knows as possible parents: the topmost of them is the parent."""
    carol = demo.new_account("carol", "password of carol", str(uuid.uuid4()))
    demo.store_account(data_dir, carol)
    made, sdk = esmith.created(PATIENT), log_in(accounts["esmith"])
    sdk.share_patient_with(made["id"], accounts["jdoe"]["dataOwnerId"])
    sdk.share_patient_with(made["id"], carol["dataOwnerId"])
    assert log_in(carol).get_patient(made["id"])["lastName"] == "Snow"
    entity = orjson.loads(stored(data_dir)["Patient", made["id"]][1])
    delegations = entity["securityMetadata"]["secureDelegations"]
    roots = [name for name, one in delegations.items() if "parentDelegations" not in one]
    below = [one["parentDelegations"] for name, one in delegations.items() if name not in roots]
    assert (len(roots), below) == (1, [roots, roots])


def test_an_observation_that_was_moved_out_is_opened_by_the_sdk_of_both(
    esmith: Remote, esmith_sdk: Sdk, jdoe: Remote, jdoe_sdk: Sdk
) -> None:
    entries = [
        {"request": {"method": "POST", "url": "Observation"}, "resource": observation(code=code)}
        for code in ("1-1", "2-2")
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    answer = esmith.send("POST", "", bundle).json()
    one, other = (
        e["response"]["location"].partition("/_history")[0].rpartition("/")[2] for e in answer["entry"]
    )
    before = esmith_sdk.get_service(one)["contactId"]
    share(esmith, f"Observation/{one}", jdoe, "write")
    for sdk in (esmith_sdk, jdoe_sdk):
        moved = sdk.get_service(one)
        assert said(moved) == "Hello world"
        assert moved["contactId"] != before
        assert sdk.patient_of_contact(moved["contactId"]) == [DEMO_PATIENT]
    assert esmith_sdk.get_contact(before)["groupId"] == esmith_sdk.get_contact(moved["contactId"])["groupId"]
    assert esmith_sdk.get_service(other)["contactId"] == before
    with pytest.raises(SdkError):
        jdoe_sdk.get_contact(before)
    jdoe_sdk.update_service(one, {"comment": "seen"})
    assert esmith_sdk.get_service(one)["comment"] == "seen"
    assert esmith.read(f"Observation/{one}")["valueString"] == "Hello world"


def test_what_moves_out_of_a_contact_of_the_sdk_keeps_its_links(
    esmith: Remote, esmith_sdk: Sdk, jdoe: Remote, jdoe_sdk: Sdk
) -> None:
    one, other = ({"id": str(uuid.uuid4()), "content": {"en": {"stringValue": text}}} for text in ("a", "b"))
    links = [
        {"healthElementId": "ours", "services": [{"serviceId": one["id"]}, {"serviceId": other["id"]}]},
        {"healthElementId": "theirs", "services": [{"serviceId": other["id"]}]},
    ]
    visit = {"descr": "about both", "openingDate": 20240101, "services": [one, other], "subContacts": links}
    made = esmith_sdk.create_contact(DEMO_PATIENT, visit)
    share(esmith, f"Observation/{one['id']}", jdoe, "read")
    contact = jdoe_sdk.get_contact(jdoe_sdk.get_service(one["id"])["contactId"])
    assert [service["id"] for service in contact["services"]] == [one["id"]]
    (kept,) = contact["subContacts"]
    assert (kept["healthElementId"], kept["services"]) == ("ours", [{"serviceId": one["id"]}])
    assert (contact["openingDate"], contact["groupId"]) == (20240101, made["groupId"])
    assert "descr" not in contact, "it may be about the others"
    left = esmith_sdk.get_contact(made["id"])
    assert (left["descr"], [service["id"] for service in left["services"]]) == ("about both", [other["id"]])


def test_who_lost_a_key_reads_again_with_the_sdk_what_others_share_again(
    server: Server, data_dir: Path, esmith: Remote, log_in: Callable[[Account], Sdk]
) -> None:
    account = demo.new_account("mallory", "password of mallory", "7a1e4c1c-0d53-4d06-b3b2-21d3a4f0e1aa")
    demo.store_account(data_dir, account)
    mallory = by_fhir(server, account)
    made = mallory.created(PATIENT)
    seen = mallory.created(observation(made["id"]))
    share(mallory, location(made), esmith, "write", "Observation")
    key = PrivateKey.generate()
    announce(server, account, account["dataOwnerId"], key)
    renewed = {**account, "privateKey": key.pkcs8_der.hex()}
    sdk = log_in(renewed)
    with pytest.raises(SdkError):
        sdk.get_patient(made["id"])
    share(esmith, location(made), mallory, "write", "Observation")
    assert sdk.get_patient(made["id"])["lastName"] == "Snow"
    assert said(sdk.get_service(seen["id"])) == "Hello world"
    assert seen["id"] in [service["id"] for service in sdk.find_services_of_patient(made["id"])]
    sdk.update_patient(made["id"], {"note": "back"})
