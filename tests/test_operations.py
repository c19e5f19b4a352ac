"""$validate, the OpenAPI document, the SMART configuration."""

from __future__ import annotations

from typing import Any

import pytest
from openapi_spec_validator import validate

from tests.helpers import Caller, assert_outcome

PATIENT = {"resourceType": "Patient", "name": [{"family": "Curie"}]}
WRONG = {"resourceType": "Patient", "gender": "man"}


def parameters(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Parameters", "parameter": list(parts)}


VALIDATED = {
    "valid": ("Patient/$validate", PATIENT, "information"),
    "wrong": ("Patient/$validate", WRONG, "error"),
    "wrong type": ("Observation/$validate", PATIENT, "error"),
    "in parameters": ("Patient/$validate", parameters({"name": "resource", "resource": WRONG}), "error"),
    "with a mode": (
        "Patient/$validate",
        parameters({"name": "mode", "valueCode": "create"}, {"name": "resource", "resource": PATIENT}),
        "information",
    ),
    "with a profile": (
        "Patient/$validate",
        parameters({"name": "profile", "valueUri": "http://x"}, {"name": "resource", "resource": PATIENT}),
        "warning",
    ),
    "of an instance": ("Patient/x/$validate", {**PATIENT, "id": "x"}, "information"),
    "of another instance": ("Patient/x/$validate", {**PATIENT, "id": "y"}, "error"),
    "a deletion": ("Patient/x/$validate", parameters({"name": "mode", "valueCode": "delete"}), "information"),
}


@pytest.mark.parametrize(("path", "body", "severity"), VALIDATED.values(), ids=VALIDATED)
def test_validate_tells_what_is_wrong_and_writes_nothing(
    esmith: Caller, path: str, body: Any, severity: str
) -> None:
    answer = esmith.post(path, body)
    assert answer.status_code == 200, answer.text
    assert {issue["severity"] for issue in answer.json["issue"]} == {severity}
    assert esmith.found("Patient?name=Curie") == []


@pytest.mark.parametrize(
    "body",
    [parameters(), parameters({"name": "mode", "valueCode": "melt"}), b"x"],
    ids=["empty", "mode", "no JSON"],
)
def test_validate_refuses_what_is_no_request(esmith: Caller, body: Any) -> None:
    assert_outcome(esmith.post("Patient/$validate", body), 400)


def test_the_openapi_document_is_valid_and_names_every_route(esmith: Caller) -> None:
    document = esmith.get("/openapi.json").json
    validate(document)
    paths = set(document["paths"])
    for rule in esmith.app.url_map.iter_rules():
        if rule.endpoint != "static" and not rule.rule.endswith("/"):
            path = rule.rule.replace("<resource_type>", "Patient").replace("<", "{").replace(">", "}")
            assert path in paths
            assert {m.lower() for m in rule.methods - {"HEAD", "OPTIONS"}} <= set(document["paths"][path])


def test_the_smart_configuration_promises_nothing(esmith: Caller) -> None:
    said = esmith.http.get("/rest/fhir/r4/.well-known/smart-configuration").json
    assert said["capabilities"] == []
    assert not any(name.endswith("_endpoint") for name in said)


def observation(patient: str, code: str, day: int) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        "subject": {"reference": f"Patient/{patient}"},
        "effectiveDateTime": f"2024-03-{day:02}",
    }


def ids(bundle: dict[str, Any]) -> list[str]:
    return [entry["resource"]["id"] for entry in bundle.get("entry", [])]


@pytest.mark.parametrize("count", [1, 3, 100])
def test_everything_is_the_patient_and_all_that_belongs_to_it(esmith: Caller, count: int) -> None:
    patient, other = esmith.created(PATIENT), esmith.created(PATIENT)
    mine = [esmith.created(observation(patient["id"], "8867-4", day))["id"] for day in (1, 2, 3, 4)]
    esmith.created(observation(other["id"], "8867-4", 1))
    found, path = [], f"Patient/{patient['id']}/$everything?_count={count}"
    while path:
        answer = esmith.get(path)
        assert answer.status_code == 200, answer.text
        found += ids(answer.json)
        assert len(ids(answer.json)) <= count
        path = next((link["url"] for link in answer.json["link"] if link["relation"] == "next"), "")
    assert found[0] == patient["id"]
    assert sorted(found[1:]) == sorted(mine)


def test_everything_may_be_narrowed(esmith: Caller) -> None:
    patient = esmith.created(PATIENT)
    esmith.created(observation(patient["id"], "8867-4", 1))
    url = f"Patient/{patient['id']}/$everything"
    assert ids(esmith.get(f"{url}?_type=Patient").json) == [patient["id"]]
    assert len(ids(esmith.get(f"{url}?_since=2001-01-01T00:00:00Z").json)) == 2
    assert ids(esmith.get(f"{url}?_since=2901-01-01T00:00:00Z").json) == [patient["id"]]


BAD_EVERYTHING = ["_count=0", "_count=x", "_type=Basic", "start=2020", "_cursor=x", "_since=yesterday"]


@pytest.mark.parametrize("query", BAD_EVERYTHING)
def test_everything_refuses_what_it_does_not_know(esmith: Caller, query: str) -> None:
    patient = esmith.created(PATIENT)
    assert_outcome(esmith.get(f"Patient/{patient['id']}/$everything?{query}"), 400)


def test_everything_of_nobody_is_not_found(esmith: Caller) -> None:
    assert_outcome(esmith.get("Patient/nobody/$everything"), 404)


def test_lastn_gives_the_latest_of_each_code(esmith: Caller) -> None:
    patient = esmith.created(PATIENT)["id"]
    made = {
        (code, day): esmith.created(observation(patient, code, day))["id"]
        for code in ("8867-4", "718-7")
        for day in (5, 9, 7)
    }
    one = esmith.get(f"Observation/$lastn?patient={patient}").json
    assert sorted(ids(one)) == sorted([made["8867-4", 9], made["718-7", 9]])
    two = esmith.get(f"Observation/$lastn?patient=Patient/{patient}&max=2&code=http://loinc.org|718-7").json
    assert ids(two) == [made["718-7", 9], made["718-7", 7]]


@pytest.mark.parametrize(
    "query", ["", "code=718-7", "patient=x&max=0", "patient=x&max=a", "patient=x&shoe=1"]
)
def test_lastn_refuses_what_it_cannot_answer(esmith: Caller, query: str) -> None:
    assert_outcome(esmith.get(f"Observation/$lastn?{query}"), 400)
