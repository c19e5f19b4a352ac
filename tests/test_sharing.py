"""$share and $access: what is shared is opened by who it was shared with, and by nobody else."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from mappings.values import Resource
from tests.helpers import DEMO_PATIENT, Caller, assert_outcome

LOINC = "http://loinc.org"
PATIENT = {
    "resourceType": "Patient",
    "name": [{"family": "Snow", "given": ["John"]}],
    "maritalStatus": {"text": "Winter is coming"},
}


def observation(patient: str = DEMO_PATIENT, code: str = "718-7", **members: Any) -> Resource:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": LOINC, "code": code}]},
        "subject": {"reference": f"Patient/{patient}"},
        "valueString": "Hello world",
        **members,
    }


def condition(patient: str = DEMO_PATIENT) -> Resource:
    text = "The patient has been diagnosed Pararibulitis"
    return {"resourceType": "Condition", "code": {"text": text}, "subject": {"reference": f"Patient/{patient}"}}


def asking(
    recipient: Caller | str, permission: str | None = "write", *include: str, **members: Any
) -> Resource:
    """Parameters of $share."""
    name = recipient if isinstance(recipient, str) else f"Practitioner/{recipient.account['dataOwnerId']}"
    parts: list[Any] = [{"name": "recipient", "valueReference": {"reference": name}}]
    parts += [{"name": "permission", "valueCode": permission}] if permission else []
    parts += [{"name": "include", "valueCode": kind} for kind in include]
    return {"resourceType": "Parameters", "parameter": parts, **members}


def share(caller: Caller, location: str, *asked: Any, **headers: str) -> Resource:
    """Returns what $share answered."""
    response = caller.post(f"{location}/$share", asking(*asked), **headers)
    assert response.status_code == 200, response.text
    assert response.json["resourceType"] == "Parameters"
    told: Resource = response.json
    return told


def told(parameters: Resource, name: str) -> list[Any]:
    """The values of a parameter."""
    return [
        next((v for n, v in one.items() if n.startswith("value")), one.get("part"))
        for one in parameters["parameter"]
        if one["name"] == name
    ]


def references(parameters: Resource, name: str) -> list[str]:
    return [one["reference"] for one in told(parameters, name)]


@pytest.fixture
def patient(esmith: Caller) -> Resource:
    return esmith.created(PATIENT)


def location(resource: Resource) -> str:
    return f"{resource['resourceType']}/{resource['id']}"


def content(resource: Resource) -> Resource:
    return {name: value for name, value in resource.items() if name != "meta"}


# with another


def test_a_patient_is_shared_and_opened_by_who_it_was_shared_with(
    esmith: Caller, jdoe: Caller, patient: Resource
) -> None:
    path = location(patient)
    assert jdoe.get(path).status_code in (403, 404)
    assert jdoe.found("Patient") == []
    answer = share(esmith, path, jdoe, "read")
    assert references(answer, "shared") == [path]
    assert told(answer, "permission") == ["read"]
    assert references(answer, "recipient") == [f"Practitioner/{jdoe.account['dataOwnerId']}"]
    fingerprints = jdoe.get(f"/rest/icdx/v1/keychain/{jdoe.account['dataOwnerId']}").json["fingerprints"]
    assert told(answer, "fingerprint") == fingerprints
    assert content(jdoe.get(path).json) == content(patient)
    assert [p["id"] for p in jdoe.found("Patient?name=Snow")] == [patient["id"]]


@pytest.mark.parametrize("kind", ["Observation", "Condition"])
def test_a_patient_s_data_is_shared_by_itself(esmith: Caller, jdoe: Caller, kind: str) -> None:
    made = esmith.created({"Observation": observation, "Condition": condition}[kind]())
    path = location(made)
    assert jdoe.get(path).status_code in (403, 404)
    assert jdoe.found(kind) == []
    share(esmith, path, jdoe)
    assert content(jdoe.get(path).json) == content(made)
    assert [one["id"] for one in jdoe.found(kind)] == [made["id"]]
