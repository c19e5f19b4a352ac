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


def test_validate_takes_mode_and_profile_from_the_url_too(esmith: Caller) -> None:
    told = esmith.post("Patient/$validate?mode=create&profile=http://x", PATIENT).json["issue"]
    assert [(issue["severity"], issue["code"]) for issue in told] == [("warning", "not-supported")]
    assert_outcome(esmith.post("Patient/$validate?mode=melt", PATIENT), 400)
    gone = esmith.post("Patient/x/$validate?mode=delete", parameters())
    assert (gone.status_code, gone.json["issue"][0]["severity"]) == (200, "information")


@pytest.mark.parametrize(
    "body",
    [parameters(), parameters({"name": "mode", "valueCode": "melt"}), b"x"],
    ids=["empty", "mode", "no JSON"],
)
def test_validate_refuses_what_is_no_request(esmith: Caller, body: Any) -> None:
    assert_outcome(esmith.post("Patient/$validate", body), 400)


@pytest.mark.parametrize("parameter", [{"name": {}}, {"name": ["mode"]}, {"valueCode": "create"}, 5])
def test_validate_names_the_parameter_that_has_no_name(esmith: Caller, parameter: Any) -> None:
    body = parameters({"name": "resource", "resource": PATIENT}, parameter)
    assert_outcome(esmith.post("Patient/$validate", body), 400, "invalid", "Parameters.parameter[1]")


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


def test_everything_brings_the_parties_that_it_refers_to(esmith: Caller) -> None:
    doctor = esmith.created({"resourceType": "Practitioner", "name": [{"family": "Doc"}]})["id"]
    ward = esmith.created({"resourceType": "Organization", "name": "Ward"})["id"]
    sent = PATIENT | {"managingOrganization": {"reference": f"Organization/{ward}"}}
    patient, other = esmith.created(sent)["id"], esmith.created(PATIENT)["id"]
    made = observation(patient, "8867-4", 1) | {
        "performer": [{"reference": f"Practitioner/{doctor}"}],
        "derivedFrom": [
            {"reference": f"Observation/{esmith.created(observation(other, '8867-4', 1))['id']}"}
        ],
    }
    mine = esmith.created(made)["id"]
    url = f"Patient/{patient}/$everything"
    told = [(entry["search"]["mode"], entry["resource"]["id"]) for entry in esmith.get(url).json["entry"]]
    assert told == [("match", patient), ("match", mine), ("include", ward), ("include", doctor)]
    assert ids(esmith.get(f"{url}?_type=Observation,Practitioner").json) == [patient, mine, doctor]
    first = esmith.get(f"{url}?_count=1").json
    assert ids(first) == [patient, ward]
    assert ids(esmith.get(first["link"][1]["url"]).json) == [mine, doctor]


def test_what_everything_tells_may_be_sent_again_unchanged(esmith: Caller) -> None:
    patient = esmith.created(PATIENT)["id"]
    esmith.created(observation(patient, "8867-4", 1))
    url = f"Patient/{patient}/$everything"
    told = esmith.get(url).json
    entries = [
        {"resource": r, "request": {"method": "PUT", "url": f"{r['resourceType']}/{r['id']}"}}
        for r in (entry["resource"] for entry in told["entry"])
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    assert {e["response"]["status"] for e in esmith.post("", bundle).json["entry"]} == {"200 OK"}
    assert esmith.get(url).json == told


def test_an_operation_may_be_posted(esmith: Caller) -> None:
    patient = esmith.created(PATIENT)["id"]
    for day in (1, 2, 3):
        esmith.created(observation(patient, "8867-4", day))
    url = f"Patient/{patient}/$everything"
    narrow = parameters(
        {"name": "_type", "valueCode": "Observation"},
        {"name": "_since", "valueInstant": "2001-01-01T00:00:00Z"},
    )
    assert (
        esmith.post(url, narrow).json
        == esmith.get(f"{url}?_type=Observation&_since=2001-01-01T00:00:00Z").json
    )
    assert len(ids(esmith.post(url, parameters({"name": "_count", "valueInteger": 2})).json)) == 2
    assert len(ids(esmith.post(f"{url}?_count=2", parameters()).json)) == 2
    assert esmith.post(url, None).json == esmith.get(url).json
    latest = parameters(
        {"name": "max", "valuePositiveInt": 2},
        {"name": "patient", "valueReference": {"reference": f"Patient/{patient}"}},
        {"name": "code", "valueString": "http://loinc.org|8867-4"},
    )
    found = esmith.post("Observation/$lastn", latest).json
    assert (
        found == esmith.get(f"Observation/$lastn?max=2&patient={patient}&code=http://loinc.org|8867-4").json
    )
    assert len(ids(found)) == 2


NO_PARAMETERS = {
    "another resource": (PATIENT, "Patient"),
    "no JSON": (b"{", None),
    "no list": ({"resourceType": "Parameters", "parameter": {}}, "Parameters.parameter"),
    "no object": (parameters(1), "Parameters.parameter[0]"),  # type: ignore[arg-type]
    "no name": (parameters({"valueString": "x"}), "Parameters.parameter[0]"),
    "no value": (parameters({"name": "max"}), "Parameters.parameter[0]"),
    "two values": (
        parameters({"name": "max", "valueInteger": 1}, {"name": "code", "valueCode": "a", "valueUri": "b"}),
        "Parameters.parameter[1]",
    ),
    "a value of parts": (
        parameters({"name": "code", "valueCodeableConcept": {"text": "x"}}),
        "Parameters.parameter[0]",
    ),
    "a very large count": (parameters({"name": "max", "valueString": "9" * 5000 + "x"}), None),
    "an unknown name": (parameters({"name": "shoe", "valueString": "1"}), None),
}


@pytest.mark.parametrize(("body", "path"), NO_PARAMETERS.values(), ids=NO_PARAMETERS)
def test_an_operation_refuses_what_are_no_parameters(esmith: Caller, body: Any, path: str | None) -> None:
    patient = esmith.created(PATIENT)["id"]
    assert_outcome(esmith.post(f"Observation/$lastn?patient={patient}", body), 400, path=path)
    assert_outcome(esmith.post(f"Patient/{patient}/$everything", body), 400, path=path)


@pytest.mark.parametrize(
    "path", ["Patient/$everything", "Patient/$foo", "Patient/_history", "Patient/_search?name=x"]
)
def test_what_is_neither_an_id_nor_an_operation_is_told_so(esmith: Caller, path: str) -> None:
    refused = esmith.get(path)
    assert_outcome(refused, 404)
    assert "operation" in refused.json["issue"][0]["diagnostics"]


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


def test_lastn_reads_a_bounded_number_of_observations(
    esmith: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.operations.MOST_PAGES", 2)
    monkeypatch.setattr("bridge.search.pages.PAGE_BOUND", 2)
    patient = esmith.created(PATIENT)["id"]
    made = [esmith.created(observation(patient, "8867-4", day))["id"] for day in (1, 2, 3, 4)]
    assert ids(esmith.get(f"Observation/$lastn?patient={patient}&max=9").json) == made[::-1]
    made.append(esmith.created(observation(patient, "8867-4", 5))["id"])
    assert_outcome(esmith.get(f"Observation/$lastn?patient={patient}&max=9"), 422, "too-costly")
    narrowed = esmith.get(f"Observation/$lastn?patient={patient}&max=9&date=lt2024-03-03").json
    assert ids(narrowed) == [made[1], made[0]]
