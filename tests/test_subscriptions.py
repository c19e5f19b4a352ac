"""FHIR Subscriptions: who asked for it is told of each change, once at least, and of nothing else."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from requests.adapters import BaseAdapter
from urllib3.connection import HTTPConnection

from bridge import demo, wire
from bridge.app import EMBEDDED_URL, create_app
from bridge.config import Config
from bridge.errors import KeyMissing, StateUnavailable, UpstreamFailed
from bridge.events import following as follow
from bridge.events import kept as kept_module
from bridge.events.hooks import MARK_HEADER, Hooks, Undelivered, inner
from bridge.upstream import REPEATS
from tests.helpers import DEMO_PATIENT, Account, Caller, assert_outcome, count_calls, eventually, saying
from tests.receiver import Receiver, receiving
from tests.test_sharing import patient_user

LOINC = "http://loinc.org"
WEIGHT = {"coding": [{"system": LOINC, "code": "29463-7"}]}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


@pytest.fixture
def config(data_dir: Any) -> Config:
    return Config(data_dir=data_dir, hook_hosts=("127.0.0.1",))


def follow_up(app: Any) -> None:
    """Has everything told that is due."""
    following = app.extensions["following"]
    following.look()
    for _ in range(100):
        due = following.due()
        if not due:
            return
        for one in due:
            following.round(one)
    raise AssertionError("there is no end to it")


def hook(receiver: Receiver, criteria: str = "Observation?code=29463-7", **channel: Any) -> dict[str, Any]:
    return {
        "resourceType": "Subscription",
        "status": "requested",
        "reason": "a test",
        "criteria": criteria,
        "channel": {"type": "rest-hook", "endpoint": receiver.url, **channel},
    }


def observation(**members: Any) -> dict[str, Any]:
    about = {"reference": f"Patient/{DEMO_PATIENT}"}
    said = {"resourceType": "Observation", "status": "final", "code": WEIGHT, "subject": about}
    return {**said, "valueQuantity": {"value": 72, "unit": "kg"}, **members}


def status_of(caller: Caller, made: dict[str, Any]) -> tuple[str, str | None]:
    read = caller.get(f"Subscription/{made['id']}").json
    return read["status"], read.get("error")


def test_one_that_no_longer_looks_at_content_gives_the_key_back(
    app: Any, esmith: Caller, receiver: Receiver
) -> None:
    made = esmith.created(hook(receiver))
    bridge, following = app.extensions["bridge"], app.extensions["following"]
    credential = follow.credential_of(bridge, following.subscriptions.get(made["id"]))
    assert bridge.keyed(credential, "").keyring.owners
    bare = {**hook(receiver, "Observation"), "id": made["id"]}
    assert esmith.send("PUT", f"Subscription/{made['id']}", bare).status_code == 200
    with pytest.raises(KeyMissing):
        bridge.keyed(credential, "")


def test_each_event_is_a_ping_although_what_comes_after_it_fails(
    app: Any, esmith: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "AT_ONCE", 1)
    listening = {"resourceType": "Subscription", "status": "requested", "reason": "a test"}
    made = esmith.created({**listening, "criteria": "Observation", "channel": {"type": "websocket"}})
    for _ in range(3):
        esmith.created(observation())
    following = app.extensions["following"]
    following.look()
    one = following._followed[made["id"]]
    wanted = following._wanted

    def breaks_off(kept: Any, news: Any) -> Iterator[Any]:
        found = list(wanted(kept, news))
        yield from found[:2]
        raise UpstreamFailed

    monkeypatch.setattr(following, "_wanted", breaks_off)
    following.round(one)
    monkeypatch.undo()
    one.due = 0
    follow_up(app)
    assert following.subscriptions.pings(made["id"])[0] >= 3


def test_one_that_is_sent_again_under_its_key_is_one(esmith: Caller, receiver: Receiver) -> None:
    with ThreadPoolExecutor(4) as pool:
        sent = [hook(receiver) for _ in range(4)]
        made = list(pool.map(lambda one: esmith.post("Subscription", one, Idempotency_Key="once"), sent))
    assert [one.status_code for one in made] == [201] * 4
    assert len({one.json["id"] for one in made}) == len(esmith.found("Subscription")) == 1
    for member in ({"criteria": "Patient"}, {"reason": "another"}, {"end": "2999-01-01T00:00:00Z"}):
        other = {**hook(receiver), **member}
        assert_outcome(esmith.post("Subscription", other, Idempotency_Key="once"), 422, "business-rule")
    assert_outcome(esmith.post("Subscription", other, Idempotency_Key="no key"), 400, "invalid")
    assert len(esmith.found("Subscription")) == 1


def test_what_meets_the_criteria_is_told_with_an_empty_post(
    app: Any, esmith: Caller, receiver: Receiver
) -> None:
    made = esmith.created(hook(receiver, header=["Authorization: Bearer abc", "X-Ward: 7"]))
    assert (made["status"], made["criteria"]) == ("active", "Observation?code=29463-7")
    seen = esmith.created(observation())
    esmith.created(observation(code={"text": "another"}))
    follow_up(app)
    ((method, path, headers, body),) = receiver.told
    assert (method, path, body) == ("POST", "/on-result", b"")
    assert (headers["Authorization"], headers["X-Ward"]) == ("Bearer abc", "7")
    esmith.send("PUT", f"Observation/{seen['id']}", {**seen, "status": "amended"})
    follow_up(app)
    assert len(receiver.told) == 2
    esmith.delete(f"Observation/{seen['id']}")
    follow_up(app)
    assert len(receiver.told) == 2
    assert status_of(esmith, made) == ("active", None)


def test_with_a_payload_the_resource_is_put_below_the_endpoint(
    app: Any, esmith: Caller, receiver: Receiver
) -> None:
    esmith.created(hook(receiver, payload="application/fhir+json"))
    seen = esmith.created(observation())
    follow_up(app)
    ((method, path, headers, body),) = receiver.told
    assert (method, path) == ("PUT", f"/on-result/Observation/{seen['id']}")
    assert headers["Content-Type"] == "application/fhir+json"
    assert wire.parse(body) == wire.parse(esmith.get(f"Observation/{seen['id']}").data)


CRITERIA = {
    "all of a type": ("Observation", True),
    "encrypted content": ("Observation?value-quantity=gt70", True),
    "other content": ("Observation?value-quantity=gt80", False),
    "a patient": (f"Observation?patient={DEMO_PATIENT}", True),
    "another patient": ("Observation?patient=nobody", False),
    "a chain": ("Observation?patient.gender=male,female,other,unknown", True),
    "several": (f"Observation?code={LOINC}|29463-7&status=final,amended", True),
    "another type": ("Condition", False),
}


@pytest.mark.parametrize(("criteria", "told"), CRITERIA.values(), ids=CRITERIA)
def test_criteria_are_those_of_a_search(
    app: Any, esmith: Caller, receiver: Receiver, criteria: str, told: bool
) -> None:
    esmith.created(hook(receiver, criteria))
    made = esmith.created(observation())
    follow_up(app)
    assert len(receiver.told) == told
    found = esmith.found(criteria) if "?" in criteria else esmith.found(f"{criteria}?_id={made['id']}")
    assert (made["id"] in {one["id"] for one in found}) == told


def test_patients_and_conditions_are_told_too(app: Any, esmith: Caller, receiver: Receiver) -> None:
    esmith.created(hook(receiver, "Patient?family=Eiffel", payload="application/fhir+json"))
    esmith.created(hook(receiver, "Condition?code=x", payload="application/fhir+json"))
    patient = esmith.created({"resourceType": "Patient", "name": [{"family": "Eiffel"}]})
    esmith.created({"resourceType": "Patient", "name": [{"family": "Tesla"}]})
    subject = {"reference": f"Patient/{patient['id']}"}
    code = {"coding": [{"system": "http://x.org", "code": "x"}]}
    condition = esmith.created({"resourceType": "Condition", "code": code, "subject": subject})
    follow_up(app)
    expected = {f"PUT /on-result/Patient/{patient['id']}", f"PUT /on-result/Condition/{condition['id']}"}
    assert set(receiver.paths()) == expected


@pytest.mark.parametrize(("channel", "shown"), [({"payload": "application/fhir+json"}, 1), ({}, 0)])
def test_a_patient_that_is_sent_was_shown(
    config: Config, accounts: dict[str, Account], receiver: Receiver, channel: dict[str, str], shown: int
) -> None:
    app = create_app(replace(config, access_log=True))
    caller = Caller(app, accounts["esmith"])
    assert caller.load_key().status_code == 200
    caller.created(hook(receiver, "Patient?family=Eiffel", **channel))
    caller.created({"resourceType": "Patient", "name": [{"family": "Eiffel"}]})
    follow_up(app)
    assert len(receiver.paths()) == 1
    assert app.extensions["bridge"].access_log.waiting == shown


def test_nothing_is_told_that_its_owner_cannot_read(
    app: Any, esmith: Caller, jdoe: Caller, receiver: Receiver
) -> None:
    jdoe.created(hook(receiver, "Observation"))
    jdoe.created(hook(receiver, "Observation?code=29463-7", payload="application/fhir+json"))
    esmith.created(observation())
    follow_up(app)
    assert receiver.told == []


def test_a_subscription_is_its_owner_s_alone(
    app: Any, esmith: Caller, jdoe: Caller, receiver: Receiver
) -> None:
    made = esmith.created(hook(receiver))
    url = f"Subscription/{made['id']}"
    assert_outcome(jdoe.get(url), 404)
    assert_outcome(jdoe.send("PUT", url, {**made, "criteria": "Patient"}), 404)
    assert jdoe.delete(url).status_code == 204
    assert jdoe.found("Subscription") == []
    assert esmith.get(url).json == made
    nobody = Caller(app, {"login": "nobody", "password": "wrong-password"})
    assert_outcome(nobody.get(url), 401)
    assert_outcome(nobody.post("Subscription", hook(receiver)), 401)


def test_it_is_found_by_what_it_says(esmith: Caller, receiver: Receiver) -> None:
    one, two = (esmith.created(hook(receiver, criteria)) for criteria in ("Patient", "Observation?code=1"))
    esmith.send("PUT", f"Subscription/{two['id']}", {**two, "status": "off"})
    for query, expected in {
        "": {one["id"], two["id"]},
        f"_id={one['id']}": {one["id"]},
        "status=active": {one["id"]},
        "status=off,error": {two["id"]},
        "type=rest-hook": {one["id"], two["id"]},
        "type=websocket": set(),
        f"url={receiver.url}": {one["id"], two["id"]},
        "url=https://elsewhere.org": set(),
        "criteria=observation": {two["id"]},
        "criteria:exact=Patient": {one["id"]},
        "status=active&criteria=Obs": set(),
    }.items():
        assert {s["id"] for s in esmith.found(f"Subscription?{query}")} == expected, query
    assert esmith.get("Subscription?_sort=status").json["entry"][-1]["search"]["mode"] == "outcome"
    assert_outcome(esmith.get("Subscription?_sort=status", Prefer="handling=strict"), 400)
    form = esmith.send(
        "POST", "Subscription/_search", b"status=off", Content_Type="application/x-www-form-urlencoded"
    )
    assert [entry["resource"]["id"] for entry in form.json["entry"]] == [two["id"]]


def test_versions_are_heeded(esmith: Caller, receiver: Receiver) -> None:
    made = esmith.post("Subscription", hook(receiver))
    assert made.headers["Location"].endswith(f"/Subscription/{made.json['id']}/_history/1")
    url, first = f"Subscription/{made.json['id']}", made.headers["ETag"]
    changed = esmith.send("PUT", url, {**made.json, "reason": "another"}, If_Match=first)
    assert (changed.status_code, changed.headers["ETag"]) == (200, 'W/"2"')
    assert_outcome(esmith.send("PUT", url, made.json, If_Match=first), 412)
    assert_outcome(esmith.delete(url, If_Match=first), 412)
    assert esmith.get(url, If_None_Match=changed.headers["ETag"]).status_code == 304
    assert esmith.delete(url, If_Match=changed.headers["ETag"]).status_code == 204
    assert_outcome(esmith.get(url), 404)
    assert_outcome(esmith.send("PUT", url, made.json), 404)


REFUSED: dict[str, tuple[dict[str, Any], int, str | None]] = {
    "another type": ({"criteria": "Practitioner?name=a"}, 422, "Subscription.criteria"),
    "no type": ({"criteria": "?code=1"}, 422, "Subscription.criteria"),
    "no such parameter": ({"criteria": "Observation?colour=red"}, 400, "Subscription.criteria"),
    "no value": ({"criteria": "Observation?code="}, 400, "Subscription.criteria"),
    "a value that is none": ({"criteria": "Observation?date=soon"}, 400, "Subscription.criteria"),
    "an include": (
        {"criteria": "Observation?code=1&_include=Observation:subject"},
        422,
        "Subscription.criteria",
    ),
    "an order": ({"criteria": "Observation?_sort=date"}, 422, "Subscription.criteria"),
    "paging": ({"criteria": "Observation?_count=7"}, 422, "Subscription.criteria"),
    "an end that has passed": ({"end": "2020-01-01T00:00:00Z"}, 422, "Subscription.end"),
    "no criteria": ({"criteria": None}, 400, "Subscription.criteria"),
    "no status": ({"status": None}, 400, "Subscription.status"),
    "criteria that say only why they are missing": (
        {"criteria": None, "_criteria": {"extension": [{"url": "urn:why", "valueCode": "unknown"}]}},
        400,
        "Subscription.criteria",
    ),
    "a status that says only why it is missing": (
        {"status": None, "_status": {"extension": [{"url": "urn:why", "valueCode": "unknown"}]}},
        400,
        "Subscription.status",
    ),
    "a header that says only why it is missing": (
        {
            "channel": {
                "type": "rest-hook",
                "endpoint": "https://example.org",
                "header": [None],
                "_header": [{"extension": [{"url": "urn:why", "valueCode": "unknown"}]}],
            }
        },
        422,
        "Subscription.channel.header[0]",
    ),
    "a modifier": (
        {"modifierExtension": [{"url": "urn:not", "valueBoolean": True}]},
        422,
        "Subscription.modifierExtension",
    ),
    "a modifier in the channel": (
        {
            "channel": {
                "type": "rest-hook",
                "endpoint": "https://example.org",
                "modifierExtension": [{"url": "urn:not", "valueBoolean": True}],
            }
        },
        422,
        "Subscription.channel.modifierExtension",
    ),
    "more than all workers may read again and again": ({"reason": "x" * 70_000}, 413, "Subscription"),
    "an end that is none": ({"end": "2031-02-30T00:00:00Z"}, 400, "Subscription.end"),
    "e-mail": (
        {"channel": {"type": "email", "endpoint": "mailto:a@b.org"}},
        422,
        "Subscription.channel.type",
    ),
    "no endpoint": ({"channel": {"type": "rest-hook"}}, 422, "Subscription.channel.endpoint"),
    "a websocket with a payload": (
        {"channel": {"type": "websocket", "payload": "application/fhir+json"}},
        422,
        "Subscription.channel.payload",
    ),
}


@pytest.mark.parametrize(("change", "status", "path"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_followed_is_refused_in_words(
    esmith: Caller, receiver: Receiver, change: dict[str, Any], status: int, path: str | None
) -> None:
    sent = {k: v for k, v in {**hook(receiver), **change}.items() if v is not None}
    assert_outcome(esmith.post("Subscription", sent), status, path=path)
    assert esmith.found("Subscription") == []


CHANNELS: dict[str, tuple[dict[str, Any], str]] = {
    "xml": ({"payload": "application/fhir+xml"}, "payload"),
    "a header that splits": ({"header": ["X-A: b\r\nX-C: d"]}, "header[0]"),
    "no header": ({"header": ["X-A: b", "nonsense"]}, "header[1]"),
    "a header of the connection": ({"header": ["Host: elsewhere"]}, "header[0]"),
    "http where nothing is allowed": ({"endpoint": "http://203.0.113.7/x"}, "endpoint"),
    "loopback": ({"endpoint": "https://127.1/x"}, "endpoint"),
    "loopback in IPv6": ({"endpoint": "https://[::1]/x"}, "endpoint"),
    "loopback in disguise": ({"endpoint": "https://[::ffff:127.0.0.1]/x"}, "endpoint"),
    "loopback by name": ({"endpoint": "https://localhost/x"}, "endpoint"),
    "an inner network": ({"endpoint": "https://10.0.0.7/x"}, "endpoint"),
    "link-local": ({"endpoint": "https://169.254.169.254/latest/meta-data"}, "endpoint"),
    "link-local in IPv6": ({"endpoint": "https://[fe80::1]/x"}, "endpoint"),
    "unique local": ({"endpoint": "https://[fd00:ec2::254]/x"}, "endpoint"),
    "translated": ({"endpoint": "https://[64:ff9b::7f00:1]/x"}, "endpoint"),
    "multicast": ({"endpoint": "https://224.0.0.1/x"}, "endpoint"),
    "a cloud's own": ({"endpoint": "https://168.63.129.16/x"}, "endpoint"),
    "nowhere": ({"endpoint": "https://no-such-host.invalid/x"}, "endpoint"),
    "credentials": ({"endpoint": "https://a:b@127.0.0.1/x"}, "endpoint"),
    "another scheme": ({"endpoint": "ftp://127.0.0.1/x"}, "endpoint"),
    "no URL": ({"endpoint": "on-result"}, "endpoint"),
    "itself": ({"endpoint": "http://localhost/rest/fhir/r4"}, "endpoint"),
}


@pytest.mark.parametrize(("change", "at"), CHANNELS.values(), ids=CHANNELS)
def test_an_endpoint_that_must_not_be_asked_is_refused(
    esmith: Caller, receiver: Receiver, change: dict[str, Any], at: str
) -> None:
    answer = esmith.post("Subscription", hook(receiver, **change))
    assert 400 <= answer.status_code < 500
    assert f"Subscription.channel.{at}" in answer.text
    assert esmith.found("Subscription") == []


def test_a_name_that_leads_inwards_later_is_not_followed(
    app: Any, esmith: Caller, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = esmith.created(hook(receiver))
    following = app.extensions["following"]
    monkeypatch.setattr(following.hooks, "_hosts", frozenset())
    esmith.created(observation())
    follow_up(app)
    assert receiver.told == []
    status, error = status_of(esmith, made)
    assert (status, "BRIDGE_HOOK_HOSTS" in str(error)) == ("error", True)


def test_the_connection_goes_to_the_address_that_was_looked_at(
    config: Config, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = ["127.0.0.1", "203.0.113.1"]
    real = socket.getaddrinfo

    def rebound(host: str, *rest: Any, **options: Any) -> Any:
        return real(answers.pop(0) if host == "hook.test" else host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    hooks = Hooks(replace(config, hook_hosts=("hook.test",)), "mark")
    port = receiver.url.rpartition(":")[2]
    hooks.send(f"http://hook.test:{port}", {})
    assert receiver.told[0][2]["Host"] == f"hook.test:{port.partition('/')[0]}"
    assert answers == ["203.0.113.1"]


def test_an_address_that_cannot_be_reached_gives_way_to_the_next(
    config: Config, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo
    addresses = ["127.0.0.2", "127.0.0.1"]
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *rest, **o: [
            found for one in (addresses if host == "hook.test" else [host]) for found in real(one, *rest, **o)
        ],
    )
    hooks = Hooks(replace(config, hook_hosts=("hook.test",)), "mark")
    port = receiver.server.server_port
    hooks.send(f"http://hook.test:{port}/x", {})
    assert receiver.paths() == ["POST /x"]
    addresses.reverse()
    receiver.answers = [500]
    with pytest.raises(Undelivered, match="500"):
        hooks.send(f"http://hook.test:{port}/x", {})
    addresses.remove("127.0.0.1")
    with pytest.raises(Undelivered, match="reached"):
        hooks.send(f"http://hook.test:{port}/x", {})
    assert receiver.paths() == ["POST /x"]


def certified(folder: Path, name: str) -> tuple[Path, Path]:
    """Returns files with a certificate for a name that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / f"{name}.pem", folder / f"{name}.key"
    files[0].write_bytes(made.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


def test_a_certificate_is_held_against_the_name(
    config: Config, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = certified(tmp_path, "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    receiver.server.socket = context.wrap_socket(receiver.server.socket, server_side=True)
    port = receiver.server.server_port
    real = socket.getaddrinfo
    four = {"localhost": "127.0.0.1"}  # to some machines it is ::1 first, where nobody listens
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **o: real(four.get(host, host), *rest, **o)
    )
    allowed = replace(config, hook_hosts=("localhost", "127.0.0.1"))
    with pytest.raises(Undelivered, match="certificate"):
        Hooks(allowed, "mark").send(f"https://localhost:{port}/x", {})
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    Hooks(allowed, "mark").send(f"https://localhost:{port}/x", {})
    with pytest.raises(Undelivered, match="certificate"):
        Hooks(allowed, "mark").send(f"https://127.0.0.1:{port}/x", {})
    assert receiver.paths() == ["POST /x"]


def test_what_the_bridge_sends_itself_is_refused(app: Any, esmith: Caller, receiver: Receiver) -> None:
    esmith.created(hook(receiver))
    esmith.created(observation())
    follow_up(app)
    mark = receiver.told[0][2][MARK_HEADER]
    assert_outcome(esmith.post("Observation", observation(), **{MARK_HEADER: mark}), 403)
    assert_outcome(esmith.post("/rest/v2/patient", {"lastName": "Eiffel"}, **{MARK_HEADER: mark}), 403)
    assert esmith.post("Observation", observation(), **{MARK_HEADER: "another"}).status_code == 201


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LONGEST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(follow, "WAIT_SECONDS", 0.0)


@pytest.mark.usefixtures("at_once")
def test_what_the_endpoint_refuses_is_told_again(app: Any, esmith: Caller, receiver: Receiver) -> None:
    made = esmith.created(hook(receiver, payload="application/fhir+json"))
    receiver.answers = [200, 500, 503, 301]
    seen = [esmith.created(observation())["id"] for _ in range(3)]
    following = app.extensions["following"]
    following.look()
    (one,) = following.due()
    following.round(one)
    status, error = status_of(esmith, made)
    assert (status, str(error).startswith("The endpoint answered 50")) == ("error", True)
    follow_up(app)
    assert set(receiver.paths()) == {f"PUT /on-result/Observation/{one}" for one in seen}
    assert status_of(esmith, made) == ("active", None)


@pytest.mark.usefixtures("at_once")
def test_an_endpoint_that_goes_on_failing_turns_it_off(
    app: Any, esmith: Caller, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "MOST_FAILURES", 3)
    made = esmith.created(hook(receiver))
    receiver.answers = [500] * 3
    esmith.created(observation())
    follow_up(app)
    assert status_of(esmith, made) == (
        "off",
        "The endpoint answered 500: it refuses. That was 3 times in a row.",
    )
    esmith.created(observation())
    follow_up(app)
    assert receiver.told == []
    again = {**esmith.get(f"Subscription/{made['id']}").json, "status": "requested"}
    assert esmith.send("PUT", f"Subscription/{made['id']}", again).json["status"] == "active"
    esmith.created(observation())
    follow_up(app)
    assert len(receiver.told) == 1


def tokens(caller: Caller) -> list[str]:
    """Returns which of the caller's tokens still work."""
    listed = caller.get("/rest/icdx/v1/tokens").json["tokens"]
    return [token["name"] for token in listed if token["name"].startswith("fhir-subscription-")]


def test_its_token_ends_with_it(app: Any, esmith: Caller, receiver: Receiver) -> None:
    made = esmith.created(hook(receiver))
    kept = app.extensions["following"].subscriptions.get(made["id"])
    assert tokens(esmith) == [f"fhir-subscription-{made['id']}"]
    header = {"Authorization": kept.authorization}
    assert esmith.http.get("/rest/v2/user/current", headers=header).status_code == 200
    assert esmith.delete(f"Subscription/{made['id']}").status_code == 204
    eventually(lambda: not tokens(esmith))
    assert esmith.http.get("/rest/v2/user/current", headers=header).status_code == 401


def test_nothing_is_left_behind_when_it_is_not_made(esmith: Caller, receiver: Receiver) -> None:
    assert_outcome(esmith.post("Subscription", hook(receiver, criteria="Observation?colour=red")), 400)
    assert tokens(esmith) == []


def unload(caller: Caller) -> None:
    assert caller.delete(f"/rest/icdx/v1/keychain/{caller.account['dataOwnerId']}").status_code == 204


@pytest.mark.usefixtures("at_once")
def test_without_the_key_notifications_wait_and_say_so(app: Any, esmith: Caller, receiver: Receiver) -> None:
    made = esmith.created(hook(receiver, payload="application/fhir+json"))
    seen = esmith.created(observation())
    unload(esmith)
    following = app.extensions["following"]
    following.look()
    (one,) = following.due()
    following.round(one)
    assert receiver.told == []
    status, error = status_of(esmith, made)
    assert (status, "key" in str(error)) == ("error", True)
    esmith.load_key()
    follow_up(app)
    assert receiver.paths() == [f"PUT /on-result/Observation/{seen['id']}"]
    assert status_of(esmith, made) == ("active", None)


def test_what_looks_at_no_content_needs_no_key(app: Any, esmith: Caller, receiver: Receiver) -> None:
    unload(esmith)
    assert_outcome(esmith.post("Subscription", hook(receiver)), 403, path="Subscription.criteria")
    made = esmith.created(hook(receiver, "Observation"))
    esmith.load_key()
    esmith.created(observation())
    unload(esmith)
    follow_up(app)
    assert receiver.paths() == ["POST /on-result"]
    assert status_of(esmith, made) == ("active", None)


def test_the_key_that_is_lent_opens_nothing_for_another_login(
    app: Any, esmith: Caller, receiver: Receiver
) -> None:
    esmith.created(hook(receiver))
    token = esmith.post("/rest/icdx/v1/tokens", {"name": "mine"}).json["token"]
    other = Caller(app, {**esmith.account, "password": token})
    assert_outcome(other.get(f"Patient/{DEMO_PATIENT}"), 403, "security")


def test_its_key_is_taken_back_when_it_ends(app: Any, esmith: Caller, receiver: Receiver) -> None:
    made = esmith.created(hook(receiver))
    owner, keychain = esmith.account["dataOwnerId"], app.extensions["bridge"].keychain
    assert len(keychain._entries(owner)) == 2
    esmith.delete(f"Subscription/{made['id']}")
    assert len(keychain._entries(owner)) == 1


def test_it_ends_when_it_said_so(
    app: Any, esmith: Caller, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
    made = esmith.created({**hook(receiver), "end": soon})
    follow_up(app)
    assert status_of(esmith, made) == ("active", None)
    monkeypatch.setattr(
        kept_module, "time", SimpleNamespace(time=lambda: time.time() + 60, time_ns=time.time_ns)
    )
    follow_up(app)
    assert status_of(esmith, made) == ("off", None)
    esmith.created(observation())
    follow_up(app)
    assert receiver.told == []


def test_what_happened_while_nobody_followed_is_told_by_who_takes_over(
    app: Any, config: Config, esmith: Caller, receiver: Receiver
) -> None:
    esmith.created(hook(receiver, payload="application/fhir+json"))
    before = esmith.created(observation())["id"]
    follow_up(app)
    seen = [esmith.created(observation())["id"] for _ in range(3)]
    other = create_app(replace(config))
    app.extensions["following"]._hold(())  # as if its worker had died
    follow_up(other)
    told = sorted(f"PUT /on-result/Observation/{one}" for one in (before, *seen))
    assert sorted(receiver.paths()) == told


def test_one_worker_follows_at_a_time(app: Any, config: Config, esmith: Caller, receiver: Receiver) -> None:
    esmith.created(hook(receiver))
    app.extensions["following"].look()
    other = create_app(config)
    other.extensions["following"].look()
    esmith.created(observation())
    assert other.extensions["following"].due() == []
    assert len(app.extensions["following"].due()) == 1


def test_what_the_store_forgot_is_found_by_when_it_was_modified(
    app: Any, esmith: Caller, receiver: Receiver
) -> None:
    esmith.created(hook(receiver, payload="application/fhir+json"))
    seen = [esmith.created(observation())["id"] for _ in range(3)]
    with app.extensions["store"].writing() as writing:
        writing._connection.execute("DELETE FROM changes WHERE number < (SELECT max(number) FROM changes)")
    follow_up(app)
    assert sorted(receiver.paths()) == sorted(f"PUT /on-result/Observation/{one}" for one in seen)


def test_a_user_has_fifty_at_most(
    esmith: Caller, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.events.resource.MOST", 2)
    for _ in range(2):
        esmith.created(hook(receiver, "Patient"))
    assert_outcome(esmith.post("Subscription", hook(receiver, "Patient")), 422)


def test_at_once_a_user_makes_no_more_of_them_than_one_after_the_other(
    app: Any, esmith: Caller, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.events.resource.MOST", 2)
    subscriptions = app.extensions["following"].subscriptions
    add = subscriptions.add

    def slowly(kept: Any) -> None:
        time.sleep(0.1)
        add(kept)

    monkeypatch.setattr(subscriptions, "add", slowly)
    with ThreadPoolExecutor(4) as pool:
        sent = pool.map(lambda _: esmith.post("Subscription", hook(receiver, "Patient")), range(4))
    assert sorted(one.status_code for one in sent) == [201, 201, 422, 422]
    assert len(esmith.found("Subscription")) == 2


def test_what_a_newer_version_keeps_of_one_hinders_nobody(
    app: Any, esmith: Caller, receiver: Receiver
) -> None:
    state = app.extensions["bridge"].state
    made = esmith.created(hook(receiver))

    def newer(value: bytes | None) -> tuple[bytes | None, float | None]:
        assert value is not None
        return orjson.dumps({**orjson.loads(value), "of_a_newer_version": True}), None

    state.update(kept_module.KIND, made["id"], newer, listed=True)
    assert status_of(esmith, made) == ("active", None)
    esmith.created(observation())
    follow_up(app)
    assert len(receiver.told) == 1


def test_nothing_of_it_lies_in_clear(app: Any, data_dir: Any, esmith: Caller, receiver: Receiver) -> None:
    secret = "Bearer canary-of-a-header"
    made = esmith.created(hook(receiver, header=[f"Authorization: {secret}"]))
    token = app.extensions["following"].subscriptions.get(made["id"]).token
    files = [f.read_bytes() for f in data_dir.rglob("*") if f.is_file()]
    for canary in (secret, token, receiver.url, made["id"]):
        kept = [f for f in files if canary.encode() in f]
        assert not kept or canary == made["id"]  # the name of its token in iCure holds its id


def test_what_is_changed_counts_from_then_on(app: Any, esmith: Caller, receiver: Receiver) -> None:
    made = esmith.created(hook(receiver, "Observation?code=no-such-code"))
    esmith.created(observation())
    follow_up(app)
    assert receiver.told == []
    wanted = {**hook(receiver, payload="application/fhir+json"), "id": made["id"]}
    assert esmith.send("PUT", f"Subscription/{made['id']}", wanted).json["criteria"] == wanted["criteria"]
    seen = esmith.created(observation())
    follow_up(app)
    assert receiver.paths() == [f"PUT /on-result/Observation/{seen['id']}"]
    assert tokens(esmith) == [f"fhir-subscription-{made['id']}"]


def test_a_token_that_was_ended_elsewhere_turns_it_off(app: Any, esmith: Caller, receiver: Receiver) -> None:
    made = esmith.created(hook(receiver, "Observation"))
    assert esmith.delete(f"/rest/icdx/v1/tokens/fhir-subscription-{made['id']}").status_code == 204

    def is_off() -> bool:
        app.extensions["bridge"].authenticator._remembered.clear()
        esmith.created(observation())
        follow_up(app)
        return status_of(esmith, made)[0] == "off"

    eventually(is_off)
    assert "token" in str(status_of(esmith, made)[1])


def test_several_hosts_share_it(data_dir: Path, redis_url: str, receiver: Receiver, tmp_path: Path) -> None:
    secret = tmp_path / "deployment-secret"
    secret.write_bytes(b"0123456789abcdef")
    shared = Config(data_dir=data_dir, state_url=redis_url, secret_file=secret, hook_hosts=("127.0.0.1",))
    one, other = create_app(shared), create_app(shared)
    caller = Caller(one, next(a for a in demo.accounts(data_dir) if a["name"] == "esmith"))
    assert caller.load_key().status_code == 200
    made = caller.created(hook(receiver, payload="application/fhir+json"))
    seen = caller.created(observation())
    follow_up(other)
    assert receiver.paths() == [f"PUT /on-result/Observation/{seen['id']}"]
    one.extensions["following"].look()
    assert one.extensions["following"].due() == []
    assert status_of(caller, made) == ("active", None)
    other.extensions["following"]._hold(())


INNER = {
    "IPv4 inside IPv6": "::7f00:1",
    "IPv4 translated by the network": "64:ff9b:1::7f00:1",
    "IPv4 translated statelessly": "::ffff:0:7f00:1",
    "IPv4 through 6to4": "2002:7f00:1::",
    "site-local": "fec0::1",
    "not assigned": "5f00::1",
    "shared by a provider": "100.100.100.200",
    "a cloud's older one": "192.0.0.192",
    "this network": "0.0.0.0",
    "everybody": "255.255.255.255",
}


@pytest.mark.parametrize("address", INNER.values(), ids=INNER)
def test_an_address_that_is_not_public_is_an_inner_one(address: str) -> None:
    assert inner(ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_a_public_address_is_none(address: str) -> None:
    assert not inner(ip_address(address))


@pytest.mark.parametrize("host", ["2130706433", "0177.0.0.1", "0x7f.1", "0", "①②⑦.0.0.1", "localhost."])
def test_a_host_that_is_written_strangely_leads_nowhere_else(
    esmith: Caller, receiver: Receiver, host: str
) -> None:
    answer = esmith.post("Subscription", hook(receiver, endpoint=f"https://{host}/x"))
    assert_outcome(answer, 422, path="Subscription.channel.endpoint")


def test_headers_of_the_same_name_are_one(app: Any, esmith: Caller, receiver: Receiver) -> None:
    esmith.created(hook(receiver, header=["X-Ward: 7", "x-ward: 8", "X-Bed:"]))
    esmith.created(observation())
    follow_up(app)
    ((_, _, headers, _),) = receiver.told
    assert (headers["X-Ward"], headers["X-Bed"]) == ("7, 8", "")


@pytest.mark.parametrize("name", ["Keep-Alive", "Proxy-Authorization", "proxy-connection", MARK_HEADER])
def test_a_header_about_the_connection_is_refused(esmith: Caller, receiver: Receiver, name: str) -> None:
    answer = esmith.post("Subscription", hook(receiver, header=[f"{name}: x"]))
    assert_outcome(answer, 422, path="Subscription.channel.header[0]")


@contextmanager
def dripping(answer: bytes, then: bytes) -> Iterator[tuple[str, threading.Event]]:
    """Runs an endpoint that answers, and then goes on with a byte at a time; tells when it was cut off."""
    cut, listener = threading.Event(), socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(answer)
            while True:
                connection.sendall(then)
                time.sleep(0.02)
        cut.set()

    threading.Thread(target=serve, daemon=True).start()
    with listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/x", cut


def test_an_endpoint_that_is_reached_too_late_is_cut_off_too(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = HTTPConnection.connect

    def late(connection: HTTPConnection) -> None:
        time.sleep(0.5)
        connect(connection)

    monkeypatch.setattr(HTTPConnection, "connect", late)
    monkeypatch.setattr("bridge.events.hooks.WHOLE_SECONDS", 0.01)
    with dripping(*DRIPS["headers"]) as (url, cut):
        with pytest.raises(Undelivered):
            Hooks(config, "mark").send(url, {})
        assert cut.wait(120)


DRIPS = {
    "headers": (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
    "a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
    "a body": (b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n", b"x"),
    "a body up to the end": (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"x"),
    "answers to come": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize(("answer", "then"), DRIPS.values(), ids=DRIPS)
def test_an_endpoint_that_answers_byte_by_byte_is_cut_off(
    config: Config, monkeypatch: pytest.MonkeyPatch, answer: bytes, then: bytes
) -> None:
    monkeypatch.setattr("bridge.events.hooks.WHOLE_SECONDS", 0.5)
    with dripping(answer, then) as (url, cut):
        with suppress(Undelivered):
            Hooks(config, "mark").send(url, {})
        assert cut.wait(120)


def test_a_round_for_which_there_was_no_thread_begins_later(
    app: Any, esmith: Caller, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError

    esmith.created(hook(receiver))
    esmith.created(observation())
    following = app.extensions["following"]
    following.look()
    (one,) = following.due()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        for _ in range(follow.MOST_ROUNDS + 1):
            with pytest.raises(RuntimeError):
                following._begin(one)
    assert following.due() == [one]
    following._begin(one)
    eventually(lambda: len(receiver.told) == 1)
    eventually(lambda: not one.running)


def test_what_comes_after_an_informational_answer_tells_nothing_of_the_next_notification(
    config: Config,
) -> None:
    late = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    with saying(b"HTTP/1.1 103 Early Hints\r\n\r\n", late) as url:
        hooks = Hooks(replace(config, hook_hosts=("127.0.0.1",)), "mark")
        for _ in range(2):
            with pytest.raises(Undelivered, match="103"):
                hooks.send(url, {})


def test_what_a_subscription_does_not_take_is_refused_in_words(esmith: Caller, receiver: Receiver) -> None:
    made = esmith.created(hook(receiver))
    patch = b'[{"op": "replace", "path": "/status", "value": "off"}]'
    entry = {"resource": hook(receiver), "request": {"method": "POST", "url": "Subscription"}}
    for answer in (
        esmith.send("PATCH", f"Subscription/{made['id']}", patch, Content_Type="application/json-patch+json"),
        esmith.send("PUT", "Subscription?status=active", made),
        esmith.delete("Subscription?status=active"),
        esmith.post("", {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}),
    ):
        assert_outcome(answer, 404, "not-supported")
        assert "each by itself" in answer.text
    assert esmith.found("Subscription") == [made]


SHARED = {
    "a patient": ("Patient", {"resourceType": "Patient", "name": [{"family": "Eiffel"}]}),
    "an observation": ("Observation", observation()),
    "a condition": (
        "Condition",
        {"resourceType": "Condition", "code": {"text": "x"}, "subject": observation()["subject"]},
    ),
}


@pytest.mark.parametrize(("criteria", "resource"), SHARED.values(), ids=SHARED)
def test_what_is_shared_with_its_owner_is_told(
    app: Any, esmith: Caller, jdoe: Caller, receiver: Receiver, criteria: str, resource: dict[str, Any]
) -> None:
    jdoe.created(hook(receiver, criteria, payload="application/fhir+json"))
    made = esmith.created(resource)
    follow_up(app)
    assert receiver.told == []
    path = f"{made['resourceType']}/{made['id']}"
    recipient = {
        "name": "recipient",
        "valueReference": {"reference": f"Practitioner/{jdoe.account['dataOwnerId']}"},
    }
    permission = {"name": "permission", "valueCode": "read"}
    asked = {"resourceType": "Parameters", "parameter": [recipient, permission]}
    for _ in range(2):
        assert esmith.post(f"{path}/$share", asked).status_code == 200
        follow_up(app)
        assert receiver.paths() == [f"PUT /on-result/{path}"], "sharing twice changes nothing"


def forget(app: Any) -> None:
    """Has the store know of its last change only."""
    with app.extensions["store"].writing() as writing:
        writing._connection.execute("DELETE FROM changes WHERE number < (SELECT max(number) FROM changes)")


@pytest.mark.usefixtures("at_once")
def test_nothing_is_asked_for_while_the_key_is_missing(app: Any, esmith: Caller, receiver: Receiver) -> None:
    made = esmith.created(hook(receiver))
    for _ in range(2):
        esmith.created(observation())
    forget(app)
    unload(esmith)
    calls, following = count_calls(app), app.extensions["following"]
    following.look()
    for _ in range(3):
        (one,) = following.due()
        following.round(one)
    assert not [call for call in calls.told() if "contact" in call]
    assert status_of(esmith, made) == ("error", follow.NO_KEY)


@pytest.mark.usefixtures("at_once")
def test_what_is_made_good_goes_on_where_the_endpoint_refused(
    app: Any, esmith: Caller, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_module, "MARGIN_MS", 0)
    monkeypatch.setattr(follow, "AT_ONCE", 1)
    esmith.created(hook(receiver, payload="application/fhir+json"))
    seen = []
    for _ in range(4):
        seen.append(esmith.created(observation())["id"])
        time.sleep(0.002)
    forget(app)
    receiver.answers = [200, 200, 500]
    follow_up(app)
    assert receiver.paths() == [f"PUT /on-result/Observation/{one}" for one in seen]


def test_where_time_tells_nothing_that_waits_is_passed_over(
    app: Any, esmith: Caller, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "MOST_CHANGES", 2)
    made, following = esmith.created(hook(receiver)), app.extensions["following"]
    began = following.subscriptions.get(made["id"]).position.at
    for _ in range(3):
        esmith.created(observation())
    following.look()
    (one,) = following.due()
    following.round(one)
    assert following.subscriptions.get(made["id"]).position.at == began
    following.round(one)
    assert following.subscriptions.get(made["id"]).position.at > began


def test_two_who_begin_it_at_once_leave_it_with_a_token_that_works(
    app: Any, esmith: Caller, receiver: Receiver
) -> None:
    made = esmith.created(hook(receiver))
    url = f"Subscription/{made['id']}"
    assert esmith.send("PUT", url, {**made, "status": "off"}).status_code == 200
    before = esmith.get(url).headers["ETag"]

    def begin(match: dict[str, str]) -> int:
        caller = Caller(app, esmith.account)
        return int(caller.send("PUT", url, {**made, "status": "requested"}, **match).status_code)

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(begin, [{"If_Match": before}] * 4)) == [200, 412, 412, 412]
    esmith.created(observation())
    follow_up(app)
    assert len(receiver.told) == 1
    assert status_of(esmith, made) == ("active", None)


def test_one_that_cannot_be_kept_leaves_no_token(
    app: Any, esmith: Caller, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(kept: Any) -> None:
        raise StateUnavailable

    monkeypatch.setattr(app.extensions["following"].subscriptions, "add", unreachable)
    assert_outcome(esmith.post("Subscription", hook(receiver)), 503)
    eventually(lambda: not tokens(esmith))


def test_what_nobody_foresaw_is_said(
    app: Any, esmith: Caller, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    following, noticed = app.extensions["following"], []
    made = esmith.created(hook(receiver))
    esmith.created(observation())
    monkeypatch.setattr(following, "_unexpected", noticed.append)
    monkeypatch.setattr(following.hooks, "send", lambda *_: 1 / 0)
    following.look()
    following._begin(following.due()[0])
    eventually(lambda: status_of(esmith, made) == ("error", follow.UNEXPECTED))
    assert [type(one) for one in noticed] == [ZeroDivisionError]


def test_a_patient_whom_no_delegation_names_takes_its_key_to_be_told(
    app: Any, data_dir: Path, esmith: Caller, receiver: Receiver
) -> None:
    paul = patient_user(esmith, data_dir, "paul")
    unload(paul)
    assert_outcome(
        paul.post("Subscription", hook(receiver, "Observation")), 403, "security", "Subscription.criteria"
    )
    assert paul.load_key().status_code == 200
    paul.created(hook(receiver, "Observation"))
    paul.created({name: value for name, value in observation().items() if name != "subject"})
    esmith.created(observation())
    follow_up(app)
    assert receiver.paths() == ["POST /on-result"]


def test_one_that_began_anew_meanwhile_is_not_ended(app: Any, esmith: Caller, receiver: Receiver) -> None:
    following = app.extensions["following"]
    made = esmith.created(hook(receiver))
    url, before = f"Subscription/{made['id']}", following.subscriptions.get(made["id"])
    for status in ("off", "requested"):
        assert esmith.send("PUT", url, {**made, "status": status}).status_code == 200
    follow.end(following.bridge, following.subscriptions, before, "Its token ended.")
    esmith.created(observation())
    time.sleep(1.1)
    app.extensions["bridge"].authenticator._remembered.clear()
    follow_up(app)
    assert len(receiver.told) == 1
    assert status_of(esmith, made) == ("active", None)


class Failing(BaseAdapter):
    """iCure, of which one call fails, however often it is repeated at once."""

    def __init__(self, inner: BaseAdapter, which: int) -> None:
        super().__init__()
        self.inner, self.which, self.calls = inner, which, 0

    def send(self, request: Any, **options: Any) -> Any:
        self.calls += 1
        if self.which <= self.calls <= self.which + REPEATS:
            raise requests.ConnectionError
        return self.inner.send(request, **options)

    def close(self) -> None:
        self.inner.close()


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("which", range(1, 8))
@pytest.mark.parametrize("criteria", ["Observation?patient.gender=male,female,other,unknown", "Observation"])
def test_whatever_call_to_icure_fails_it_is_told_in_the_end(
    app: Any, esmith: Caller, receiver: Receiver, which: int, criteria: str
) -> None:
    made = esmith.created(hook(receiver, criteria))
    esmith.created(observation())
    bridge = app.extensions["bridge"]
    bridge.upstream._pause_seconds = 0.0
    bridge.authenticator._remembered.clear()
    session = bridge.upstream.session
    inner = session.get_adapter(EMBEDDED_URL)
    session.mount(EMBEDDED_URL, Failing(inner, which))
    following = app.extensions["following"]
    following.look()
    (one,) = following.due()
    following.round(one)
    said = following.subscriptions.get(made["id"]).resource
    assert (said["status"], "iCure" in said.get("error", "")) in (("active", False), ("error", True))
    session.mount(EMBEDDED_URL, inner)
    follow_up(app)
    assert receiver.paths()[-1] == "POST /on-result"
    assert status_of(esmith, made) == ("active", None)
