"""Batches and transactions with every kind of entry."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from tests.helpers import DEMO_PATIENT, FHIR, Caller, assert_outcome


def patient(family: str, **members: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "name": [{"family": family}], **members}


def observation(subject: str, **members: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
        "subject": {"reference": subject},
        "valueQuantity": {"value": 72},
        **members,
    }


def entry(method: str, url: str, resource: Any = None, full_url: str = "", **request: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"request": {"method": method, "url": url, **request}}
    if resource is not None:
        said["resource"] = resource
    return {"fullUrl": full_url, **said} if full_url else said


def bundle(*entries: dict[str, Any], kind: str = "transaction") -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def url(resource: dict[str, Any]) -> str:
    return f"{resource['resourceType']}/{resource['id']}"


def statuses(answer: Any) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [int(e["response"]["status"][:3]) for e in answer.json["entry"]]


def test_entries_take_effect_in_the_order_of_fhir_and_are_answered_as_sent(esmith: Caller) -> None:
    old, other = esmith.created(patient("Old")), esmith.created(patient("Other"))
    answer = esmith.post(
        "",
        bundle(
            entry("GET", "Patient?name=Newcomer"),
            entry("PUT", url(other), {**other, "gender": "male"}),
            entry("POST", "Patient", patient("Newcomer")),
            entry("DELETE", url(old)),
            entry("GET", url(other)),
        ),
    )
    assert statuses(answer) == [200, 200, 201, 204, 200]
    entries = answer.json["entry"]
    assert len(entries[0]["resource"]["entry"]) == 1
    assert entries[4]["resource"]["gender"] == "male"
    assert_outcome(esmith.get(url(old)), 410)


def test_patches_stand_in_a_bundle_as_parameters_or_binary(esmith: Caller) -> None:
    one, two = esmith.created(patient("One")), esmith.created(patient("Two"))
    parts = [
        {"name": "type", "valueCode": "add"},
        {"name": "path", "valueString": "Patient"},
        {"name": "name", "valueString": "gender"},
        {"name": "value", "valueCode": "other"},
    ]
    parameters = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}
    data = b64encode(json.dumps([{"op": "add", "path": "/gender", "value": "female"}]).encode()).decode()
    binary = {"resourceType": "Binary", "contentType": "application/json-patch+json", "data": data}
    answer = esmith.post("", bundle(entry("PATCH", url(one), parameters), entry("PATCH", url(two), binary)))
    assert statuses(answer) == [200, 200]
    assert esmith.get(url(one)).json["gender"] == "other"
    assert esmith.get(url(two)).json["gender"] == "female"


def test_several_observations_of_one_contact_change_together(esmith: Caller) -> None:
    subject = f"Patient/{DEMO_PATIENT}"
    esmith.post("", bundle(*(entry("POST", "Observation", observation(subject)) for _ in range(3))))
    first, second, third = esmith.found(f"Observation?patient={DEMO_PATIENT}")
    answer = esmith.post(
        "",
        bundle(
            entry("PUT", url(first), {**first, "status": "amended"}),
            entry("DELETE", url(second)),
        ),
    )
    assert statuses(answer) == [200, 204]
    assert esmith.get(url(first)).json["status"] == "amended"
    assert_outcome(esmith.get(url(second)), 410)
    assert esmith.get(url(third)).json == third


def test_a_conditional_create_in_a_bundle_is_what_references_mean(esmith: Caller) -> None:
    urn = "urn:uuid:0a4f5d5e-8b0d-4f0a-9b51-0d5d0b3a3c11"
    sent = bundle(
        entry("POST", "Observation", observation(urn)),
        entry("POST", "Patient", patient("Once", id="once"), urn, ifNoneExist="_id=once"),
    )
    assert statuses(esmith.post("", sent)) == [201, 201]
    assert statuses(esmith.post("", sent)) == [201, 200]
    [found] = esmith.found("Patient?name=Once")
    assert len(esmith.found(f"Observation?patient={found['id']}")) == 2


def test_two_entries_with_one_condition_make_one_resource(esmith: Caller) -> None:
    urns = [f"urn:uuid:0a4f5d5e-8b0d-4f0a-9b51-0d5d0b3a3c1{i}" for i in range(2)]
    sent = bundle(
        *(entry("POST", "Patient", patient("Same", id="same"), urn, ifNoneExist="_id=same") for urn in urns),
        *(entry("POST", "Observation", observation(urn)) for urn in urns),
    )
    for expected in ([201, 200, 201, 201], [200, 200, 201, 201]):
        assert statuses(esmith.post("", sent)) == expected
    [found] = esmith.found("Patient?name=Same")
    assert len(esmith.found(f"Observation?patient={found['id']}")) == 4


def test_a_conditional_reference_means_the_one_that_meets_it(esmith: Caller) -> None:
    created = esmith.created(patient("Unique"))
    sent = observation("Patient?name=Unique")
    answer = esmith.post("", bundle(entry("POST", "Observation", sent)))
    assert statuses(answer) == [201]
    assert len(esmith.found(f"Observation?patient={created['id']}")) == 1
    for wrong, code in (("Patient?name=Nobody", "not-found"), ("Patient?nome=x", "invalid")):
        refused = esmith.post("", bundle(entry("POST", "Observation", observation(wrong))))
        assert_outcome(refused, 422, code, "Bundle.entry[0].resource.subject")


def test_a_put_in_a_bundle_creates_with_exactly_that_id(esmith: Caller) -> None:
    answer = esmith.post(
        "",
        bundle(
            entry("PUT", "Patient/chosen", patient("Chosen", id="chosen")),
            entry("POST", "Observation", observation("Patient/chosen")),
        ),
    )
    assert statuses(answer) == [201, 201]
    assert esmith.get("Patient/chosen").json["id"] == "chosen"
    assert len(esmith.found("Observation?patient=chosen")) == 1


def test_one_bad_entry_keeps_a_transaction_from_doing_anything(esmith: Caller) -> None:
    kept = esmith.created(patient("Kept"))
    stale = 'W/"1-00000000000000000000000000000000"'
    bad = {
        "stale ifMatch": (entry("PUT", url(kept), kept, ifMatch=stale), 412),
        "wrong ifMatch": (entry("PUT", url(kept), kept, ifMatch="x"), 400),
        "several matches": (entry("DELETE", "Patient?name=New"), 412),
        "no condition": (entry("PUT", "Patient?_count=1", patient("x")), 400),
        "unknown type": (entry("POST", "Basic", {"resourceType": "Basic"}), 404),
        "nothing to patch": (
            entry("PATCH", "Patient/nobody", {"resourceType": "Parameters", "parameter": []}),
            404,
        ),
    }
    esmith.created(patient("New1"))
    esmith.created(patient("New2"))
    before = len(esmith.found("Patient?name=New"))
    for name, (wrong, status) in bad.items():
        answer = esmith.post("", bundle(entry("POST", "Patient", patient("New3")), wrong))
        assert answer.status_code == status, (name, answer.text)
        assert answer.json["issue"][0]["expression"][0].startswith("Bundle.entry[1]"), (name, answer.text)
    assert len(esmith.found("Patient?name=New")) == before
    assert esmith.get(url(kept)).json == kept


def test_two_entries_that_mean_the_same_resource_are_refused(esmith: Caller) -> None:
    created = esmith.created(patient("Twice", id="twice"))
    answer = esmith.post(
        "",
        bundle(entry("DELETE", "Patient/twice"), entry("PUT", url(created), {**created, "gender": "male"})),
    )
    assert_outcome(answer, 400, path="Bundle.entry[1]")
    assert esmith.get(url(created)).json == created


def test_a_batch_does_each_entry_for_itself(esmith: Caller) -> None:
    created = esmith.created(patient("There"))
    answer = esmith.post(
        "",
        bundle(
            entry("POST", "Patient", patient("Fresh")),
            entry("POST", "Patient", {"resourceType": "Patient", "gender": "man"}),
            entry("DELETE", "Patient/nobody"),
            entry("GET", url(created)),
            entry("GET", "Patient/nobody"),
            entry("PUT", url(created), {**created, "gender": "female"}),
            entry("POST", "Patient", patient("There"), ifNoneExist="name=There"),
            entry("GET", "Patient?name=Fresh"),
            kind="batch",
        ),
    )
    assert answer.json["type"] == "batch-response"
    assert statuses(answer) == [201, 400, 204, 200, 404, 200, 200, 200]
    wrong = answer.json["entry"][1]["response"]["outcome"]["issue"][0]
    assert wrong["expression"] == ["Bundle.entry[1].resource.gender"]
    assert answer.json["entry"][7]["resource"]["entry"][0]["resource"]["name"] == [{"family": "Fresh"}]


def test_an_entry_of_a_batch_that_says_nothing_sensible_spoils_no_other(esmith: Caller) -> None:
    answer = esmith.post(
        "",
        bundle(
            entry("POST", "Patient", patient("Fresh")),
            entry("POST", "Patient/$validate", patient("Fresh")),
            entry("PUT", "Patient"),
            entry("GET", "Patient/nobody/$graph"),
            kind="batch",
        ),
    )
    assert statuses(answer) == [201, 400, 400, 404]
    issues = answer.json["entry"][2]["response"]["outcome"]["issue"]
    assert all(issue["expression"][0].startswith("Bundle.entry[2].") for issue in issues)
    assert esmith.found("Patient?name=Fresh") != []


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_operations_that_read_may_be_entries(esmith: Caller, kind: str) -> None:
    person = esmith.created(patient("There"))
    measured = esmith.created(observation(url(person)))
    answer = esmith.post(
        "",
        bundle(
            entry("GET", f"{url(person)}/$everything?_count=10"),
            entry("GET", f"Observation/$lastn?patient={person['id']}"),
            kind=kind,
        ),
    )
    assert statuses(answer) == [200, 200]
    found = [[e["resource"]["id"] for e in told["resource"]["entry"]] for told in answer.json["entry"]]
    assert found == [[person["id"], measured["id"]], [measured["id"]]]


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_a_read_of_what_the_caller_has_is_not_modified(esmith: Caller, kind: str) -> None:
    created = esmith.created(patient("There"))
    version = created["meta"]["versionId"]
    answer = esmith.post(
        "",
        bundle(
            entry("GET", url(created), ifNoneMatch=f'W/"{version}"'),
            entry("GET", url(created), ifNoneMatch="*"),
            entry("GET", f"{url(created)}/_history/{version}", ifNoneMatch=f'"{version}"'),
            entry("GET", url(created), ifModifiedSince=created["meta"]["lastUpdated"]),
            entry("GET", url(created), ifModifiedSince="2001-01-01T00:00:60Z"),
            entry("GET", url(created), ifNoneMatch='W/"other"'),
            kind=kind,
        ),
        Prefer="return=representation",
    )
    assert statuses(answer) == [304, 304, 304, 304, 200, 200]
    assert ["resource" in told for told in answer.json["entry"]] == [False] * 4 + [True] * 2
    assert answer.json["entry"][0]["response"]["etag"] == f'W/"{version}"'


def test_an_update_may_be_meant_for_something_new_only(esmith: Caller) -> None:
    created = esmith.created(patient("There"))
    fresh = entry("PUT", "Patient/fresh", patient("Fresh", id="fresh"), ifNoneMatch="*")
    refused = esmith.post(
        "", bundle(fresh, entry("PUT", url(created), created | {"gender": "male"}, ifNoneMatch="*"))
    )
    assert_outcome(refused, 412, path="Bundle.entry[1]")
    assert_outcome(esmith.get("Patient/fresh"), 404)
    assert statuses(esmith.post("", bundle(fresh))) == [201]
    assert_outcome(esmith.post("", bundle(fresh)), 412, path="Bundle.entry[0]")
    other = entry("PUT", url(created), created, ifNoneMatch='W/"1"')
    assert_outcome(esmith.post("", bundle(other)), 400, path="Bundle.entry[0].request.ifNoneMatch")
    assert esmith.get(url(created)).json == created


def test_what_never_was_is_deleted_already(esmith: Caller) -> None:
    answer = esmith.post(
        "", bundle(entry("DELETE", "Patient/nobody"), entry("POST", "Patient", patient("Fresh")))
    )
    assert statuses(answer) == [204, 201]


def test_entries_of_a_batch_cannot_depend_on_each_other(esmith: Caller) -> None:
    urn = "urn:uuid:0a4f5d5e-8b0d-4f0a-9b51-0d5d0b3a3c12"
    answer = esmith.post(
        "",
        bundle(
            entry("POST", "Patient", patient("Fresh"), urn),
            entry("POST", "Observation", observation(urn)),
            kind="batch",
        ),
    )
    assert statuses(answer) == [201, 422]


def test_the_answer_holds_the_resources_when_the_caller_prefers(esmith: Caller) -> None:
    sent = bundle(entry("POST", "Patient", patient("Shown")))
    assert "resource" not in esmith.post("", sent).json["entry"][0]
    shown = esmith.post("", sent, Prefer="return=representation").json["entry"][0]
    assert shown["resource"]["name"] == [{"family": "Shown"}]
    assert shown["response"]["location"].endswith(
        f"{FHIR}/{url(shown['resource'])}/_history/{shown['resource']['meta']['versionId']}"
    )


SAID = ("identifier=mark|one", "identifier=mark%7Cone", "?_format=json&identifier=mark|one")


@pytest.mark.parametrize("otherwise", SAID[1:])
def test_one_condition_written_in_two_ways_creates_once(esmith: Caller, otherwise: str) -> None:
    one = patient("One", identifier=[{"system": "mark", "value": "one"}])
    answer = esmith.post(
        "", bundle(*(entry("POST", "Patient", one, ifNoneExist=said) for said in (SAID[0], otherwise)))
    )
    assert statuses(answer) == [201, 200]
    assert len({e["response"]["location"] for e in answer.json["entry"]}) == 1
    assert len(esmith.found(f"Patient?{SAID[0]}")) == 1


@pytest.mark.parametrize(
    "first",
    [("PUT", f"Patient?{SAID[0]}", {}), ("POST", "Patient", {"ifNoneExist": SAID[0]})],
    ids=["updated", "created"],
)
@pytest.mark.parametrize("said", SAID[:2])
def test_what_two_entries_would_create_under_one_condition_is_refused(
    esmith: Caller, first: tuple[str, str, dict[str, str]], said: str
) -> None:
    one = patient("One", identifier=[{"system": "mark", "value": "one"}])
    method, url, request = first
    answer = esmith.post("", bundle(entry(method, url, one, **request), entry("PUT", f"Patient?{said}", one)))
    assert_outcome(answer, 400, "invalid", "Bundle.entry[1]")
    assert esmith.found(f"Patient?{SAID[0]}") == []


def test_what_two_entries_would_create_under_one_id_is_refused(esmith: Caller) -> None:
    one = patient("One", id="one", identifier=[{"system": "mark", "value": "one"}])
    answer = esmith.post(
        "", bundle(entry("PUT", "Patient/one", one), entry("PUT", f"Patient?{SAID[0]}", one))
    )
    assert_outcome(answer, 400, "invalid", "Bundle.entry[1]")
    assert esmith.found(f"Patient?{SAID[0]}") == []
