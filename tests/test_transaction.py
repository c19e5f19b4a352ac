"""A transaction is applied whole, in few documents and few calls, and answered in the order sent."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from bridge.app import create_app
from bridge.config import Config
from tests.helpers import DEMO_PATIENT, FHIR, Caller, assert_outcome, count_calls, stored

Resource = dict[str, Any]
UUID = "urn:uuid:0d0dd6f4-3b2a-4b1e-8d1f-2b8c5c0e7a11"


def patient(**members: Any) -> Resource:
    return {"resourceType": "Patient", "name": [{"family": "Whole"}], **members}


def observation(number: int = 0, about: str = f"Patient/{DEMO_PATIENT}", **members: Any) -> Resource:
    code = {"coding": [{"system": "http://count", "code": f"c-{number}"}]}
    subject = {"reference": about}
    return {"resourceType": "Observation", "status": "final", "code": code, "subject": subject, **members}


def entry(resource: Resource, full_url: str | None = None) -> Resource:
    request = {"method": "POST", "url": resource["resourceType"]}
    return {**({"fullUrl": full_url} if full_url else {}), "resource": resource, "request": request}


def transaction(*entries: Resource) -> Resource:
    return {"resourceType": "Bundle", "type": "transaction", "entry": list(entries)}


def locations(response: Any) -> list[str]:
    """Returns `Type/id` of each entry of an answer."""
    assert response.status_code == 200, response.text
    return [
        e["response"]["location"].partition(FHIR + "/")[2].partition("/_history")[0]
        for e in response.json["entry"]
    ]


def contacts(data_dir: Path) -> list[list[str]]:
    """Returns the Contacts of the store, each as the ids of its Services."""
    documents = [orjson.loads(body) for (kind, _), (_, body) in stored(data_dir).items() if kind == "Contact"]
    return [[service["id"] for service in contact["services"]] for contact in documents]


def test_answers_come_in_the_order_sent(esmith: Caller) -> None:
    entries = [entry(observation(n, UUID, valueInteger=n)) for n in range(8)]
    entries.insert(3, entry(patient(), UUID))
    entries.insert(6, entry(patient(active=False)))
    shuffled = random.Random(1).sample(entries, len(entries))
    response = esmith.post("", transaction(*shuffled))
    assert response.json["type"] == "transaction-response"
    for sent, answer, location in zip(shuffled, response.json["entry"], locations(response), strict=True):
        said = answer["response"]
        assert said["status"] == "201 Created"
        read = esmith.get(location)
        assert said["etag"] == read.headers["ETag"]
        assert said["lastModified"] == read.json["meta"]["lastUpdated"]
        assert said["location"].endswith(f"{location}/_history/{read.json['meta']['versionId']}")
        resource = {k: v for k, v in sent["resource"].items() if k != "subject"}
        assert {k: read.json[k] for k in resource} == resource


def test_patients_are_written_before_observations(app: Any, warm: Caller) -> None:
    upstream = count_calls(app)
    warm.post("", transaction(entry(observation(about=UUID)), entry(patient(), UUID), entry(patient())))
    assert upstream.told() == ["POST patient/batch/full", "POST contact"]


GROUPS: dict[str, tuple[list[Resource], list[int]]] = {
    "one subject, one day": ([observation(n) for n in range(5)], [5]),
    "up to 100 Services": ([observation(n) for n in range(250)], [50, 100, 100]),
    "by day": (
        [observation(n, effectiveDateTime=f"2024-01-0{1 + n % 3}T10:00:00Z") for n in range(9)],
        [3, 3, 3],
    ),
    "by encounter, whatever the day": (
        [
            observation(n, encounter={"reference": "Encounter/1"}, effectiveDateTime=f"2024-01-0{1 + n}")
            for n in range(4)
        ],
        [4],
    ),
    "by two encounters": (
        [observation(n, encounter={"reference": f"http://e/Encounter/{n % 2}"}) for n in range(6)],
        [3, 3],
    ),
    "by security label": (
        [observation(n, meta={"security": [{"code": "R" if n % 2 else "N"}]}) for n in range(6)],
        [3, 3],
    ),
    "with and without subject": (
        [observation(0), {k: v for k, v in observation(1).items() if k != "subject"}, observation(2)],
        [1, 2],
    ),
    "about 1 MiB": ([observation(n, valueString="x" * 400_000) for n in range(6)], [2, 2, 2]),
}


@pytest.mark.parametrize(("resources", "sizes"), GROUPS.values(), ids=GROUPS)
def test_observations_are_grouped_into_contacts(
    esmith: Caller, data_dir: Path, resources: list[Resource], sizes: list[int]
) -> None:
    sent = random.Random(2).sample(resources, len(resources)) if len(sizes) == 1 else resources
    ids = [
        location.partition("/")[2] for location in locations(esmith.post("", transaction(*map(entry, sent))))
    ]
    groups = contacts(data_dir)
    assert sorted(map(len, groups)) == sizes
    assert sorted(one for group in groups for one in group) == sorted(ids)


def test_observations_of_two_patients_never_share_a_contact(esmith: Caller, data_dir: Path) -> None:
    entries = [entry(observation(n, UUID if n % 2 else f"Patient/{DEMO_PATIENT}")) for n in range(10)]
    response = esmith.post("", transaction(entry(patient(), UUID), *entries))
    whose = dict(zip(locations(response)[1:], (n % 2 for n in range(10)), strict=True))
    groups = [{whose[f"Observation/{one}"] for one in group} for group in contacts(data_dir)]
    assert sorted(groups, key=str) == [{0}, {1}]


# problems


def test_all_problems_of_all_entries_are_told_at_once(esmith: Caller, data_dir: Path) -> None:
    before = stored(data_dir)
    entries = [
        entry(patient(gender="zanzibar")),
        entry(patient()),
        entry(observation(valueInteger="1")),
        entry({"resourceType": "Device"}),
        entry(observation(status="zanzibar", foo=1)),
    ]
    response = esmith.post("", transaction(*entries))
    assert 400 <= response.status_code < 500
    assert {issue["expression"][0] for issue in response.json["issue"]} >= {
        "Bundle.entry[0].resource.gender",
        "Bundle.entry[2].resource.value",
        "Bundle.entry[4].resource.status",
        "Bundle.entry[4].resource.foo",
    }
    assert any(i["expression"][0].startswith("Bundle.entry[3]") for i in response.json["issue"])
    assert not any(i["expression"][0].startswith("Bundle.entry[1]") for i in response.json["issue"])
    assert stored(data_dir) == before


def test_a_read_that_fails_fails_alone(esmith: Caller) -> None:
    """What was written is written: the answer must not say otherwise."""
    read = {"request": {"method": "GET", "url": "Patient/nobody"}}
    response = esmith.post("", transaction(entry(patient()), read))
    assert response.status_code == 200, response.text
    first, second = (e["response"] for e in response.json["entry"])
    assert first["status"] == "201 Created"
    assert second["status"] == "404 Not Found"
    assert second["outcome"]["issue"][0]["code"] == "not-found"


def test_an_empty_transaction_changes_nothing(esmith: Caller, data_dir: Path) -> None:
    before = stored(data_dir)
    for body in (transaction(), {"resourceType": "Bundle", "type": "transaction"}):
        response = esmith.post("", body)
        if response.status_code == 200:
            assert response.json["type"] == "transaction-response"
        else:
            assert_outcome(response, 400)
    assert stored(data_dir) == before


@pytest.mark.parametrize("path", ["", "/rest/fhir/r4/"], ids=["without slash", "with slash"])
def test_the_base_takes_a_transaction_with_and_without_a_slash(esmith: Caller, path: str) -> None:
    assert len(locations(esmith.post(path, transaction(entry(patient()))))) == 1


def test_warnings_stand_at_their_entry(esmith: Caller) -> None:
    odd = {"type": "transaction", "entry": [{"resource": patient(id="x")}, entry(patient())]}
    response = esmith.post("", odd)
    first, second = (e["response"] for e in response.json["entry"])
    assert "outcome" not in second
    issues = first["outcome"]["issue"]
    assert {i["severity"] for i in issues} == {"warning"}
    assert {i["expression"][0] for i in issues} >= {"Bundle.entry[0].request", "Bundle.entry[0].resource.id"}
    assert len(response.headers.getlist("Warning")) == 1


# calls


@pytest.fixture
def warm(esmith: Caller) -> Caller:
    """A caller who is verified, whose exchange keys are open."""
    esmith.created(patient())
    esmith.created(observation())
    return esmith


def test_calls_of_a_read_by_server_id(app: Any, warm: Caller) -> None:
    ids = [warm.created(patient())["id"], warm.created(observation())["id"]]
    upstream = count_calls(app)
    warm.get(f"Patient/{ids[0]}")
    assert upstream.told() == [f"GET patient/{ids[0]}"]
    warm.get(f"Observation/{ids[1]}")
    assert upstream.told() == [f"GET contact/service/{ids[1]}"]


def test_calls_of_a_read_by_client_id(app: Any, warm: Caller) -> None:
    warm.created(patient(id="mine"))
    warm.created(observation(id="mine"))
    upstream = count_calls(app)
    warm.get("Patient/mine")
    assert upstream.told() == ["GET patient/mine", "POST patient/match", "POST patient/byIds"]
    warm.get("Observation/mine")
    assert upstream.told() == [
        "GET contact/service/mine",
        "POST contact/service/match",
        "POST contact/service",
    ]


def test_calls_of_a_create(app: Any, warm: Caller) -> None:
    upstream = count_calls(app)
    warm.created(patient())
    assert upstream.told() == ["POST patient"]
    warm.created(observation(performer=[{"reference": "http://other.example/Practitioner/1"}]))
    assert upstream.told() == ["POST patient/byIds", "POST contact"]


def test_calls_of_a_transaction_of_one_patient_and_250_observations(
    app: Any, warm: Caller, data_dir: Path
) -> None:
    before = Counter(kind for kind, _ in stored(data_dir))
    upstream = count_calls(app)
    entries = [entry(observation(n, UUID)) for n in range(250)]
    assert len(locations(warm.post("", transaction(entry(patient(), UUID), *entries)))) == 251
    assert upstream.told() == ["POST patient", "POST contact/batch"]
    assert Counter(kind for kind, _ in stored(data_dir)) - before == {"Patient": 1, "Contact": 3}


def test_calls_of_a_transaction_do_not_grow_with_client_ids(app: Any, warm: Caller) -> None:
    upstream = count_calls(app)
    entries = [entry(observation(n, "Patient/p", id=f"o-{n}")) for n in range(250)]
    locations(warm.post("", transaction(entry(patient(id="p")), *entries)))
    calls = upstream.told()
    assert sorted(calls) == [
        "POST contact/batch",
        "POST contact/service/match",
        "POST patient",
        "POST patient/match",
    ]


def test_documents_go_in_batches_of_a_bounded_size(app: Any, warm: Caller) -> None:
    upstream = count_calls(app)
    days = [entry(observation(n, effectiveDateTime=f"{1900 + n}-01-01")) for n in range(120)]
    locations(warm.post("", transaction(*days)))
    assert upstream.told() == ["POST patient/byIds"] + ["POST contact/batch"] * 3


def test_exchange_data_are_made_once_for_all_entries(accounts: Any, app: Any, data_dir: Path) -> None:
    jdoe = Caller(app, accounts["jdoe"])
    assert jdoe.load_key().status_code == 200
    before = Counter(kind for kind, _ in stored(data_dir))
    entries = [entry(observation(n, UUID)) for n in range(20)]
    locations(jdoe.post("", transaction(entry(patient(), UUID), *entries)))
    assert (Counter(kind for kind, _ in stored(data_dir)) - before)["ExchangeData"] == 1


def test_a_second_worker_reads_what_the_first_wrote(esmith: Caller, data_dir: Path) -> None:
    written = locations(esmith.post("", transaction(entry(patient(), UUID), entry(observation(1, UUID)))))
    other = Caller(create_app(replace(Config(data_dir=data_dir))), esmith.account)
    for location in written:
        assert other.get(location).json == esmith.get(location).json


def test_results_that_say_much_the_same_come_back_each_as_sent(esmith: Caller) -> None:
    said = {
        "category": [
            {"coding": [{"system": "http://example.org/a", "code": "lab", "display": "Laboratory"}]}
        ],
        "note": [{"text": "fasting"}],
        "component": [{"code": {"text": "part"}, "valueInteger": 1}],
    }
    results = [observation(n % 2, valueInteger=n, **said) for n in range(12)]
    results[5] |= {"status": "amended", "performer": [{"reference": "Practitioner/unknown"}]}
    places = locations(esmith.post("", transaction(*map(entry, results))))
    changed = {**esmith.get(places[3]).json, "note": [{"text": "not fasting"}]}
    assert esmith.send("PUT", places[3], changed).status_code == 200
    results[3] = {**results[3], "note": [{"text": "not fasting"}]}
    for sent, place in zip(results, places, strict=True):
        assert {name: value for name, value in esmith.get(place).json.items() if name in sent} == sent
