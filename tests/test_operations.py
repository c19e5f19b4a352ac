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
