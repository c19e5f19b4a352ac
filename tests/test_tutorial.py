"""The tutorial's requests, in their order, once and once more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import DEMO_PATIENT, Caller, assert_outcome

PATIENT = {
    "resourceType": "Patient",
    "id": "pat1",
    "text": {
        "status": "generated",
        "div": '<div xmlns="http://www.w3.org/1999/xhtml"><p>Donald DUCK</p></div>',
    },
    "identifier": [{"use": "usual", "system": "urn:oid:0.1.2.3.4.5.6.7", "value": "654321"}],
    "active": True,
    "name": [{"use": "official", "family": "Donald", "given": ["Duck"]}],
    "gender": "male",
    "contact": [{"organization": {"reference": "Organization/1", "display": "Walt Disney Corporation"}}],
    "managingOrganization": {"reference": "Organization/1", "display": "ACME Healthcare, Inc"},
    "link": [{"other": {"reference": "Patient/pat2"}, "type": "seealso"}],
}


def observation(client_id: str, code: str, **members: object) -> dict[str, object]:
    return {
        "resourceType": "Observation",
        "id": client_id,
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": code, "display": "Something in Blood"}]},
        "subject": {"reference": DEMO_PATIENT, "display": "P. van de Heuvel"},
        "effectivePeriod": {"start": "2013-04-02T09:30:10+01:00"},
        "performer": [{"reference": "Practitioner/f005", "display": "A. Langeveld"}],
        **members,
    }


def bundle() -> dict[str, object]:
    second = {**PATIENT, "id": "pat2", "link": [{"other": {"reference": "Patient/pat1"}, "type": "seealso"}]}
    both = observation(
        "f005",
        "718-7",
        valueQuantity={"value": 7},
        valueCodeableConcept={"id": "CD-ITEM|adr|1", "coding": [{"system": "CD-ITEM", "code": "adr"}]},
    )
    return {"type": "transaction", "entry": [{"resource": second}, {"resource": both}]}


def test_the_tutorial_works_word_for_word(esmith: Caller) -> None:
    created = esmith.created(PATIENT)
    read = esmith.get("Patient/pat1").json
    assert read["id"] == created["id"] != "pat1"
    assert {"system": "https://dxm.icure.dev", "value": "pat1"} in read["identifier"]
    assert read["link"] == PATIENT["link"]

    esmith.created(observation("f001", "15074-8"))
    read = esmith.get("Observation/f001").json
    assert read["subject"] == {"reference": f"Patient/{DEMO_PATIENT}", "display": "P. van de Heuvel"}

    answer = esmith.post("", bundle())
    assert answer.status_code == 200, answer.text
    assert [e["response"]["status"] for e in answer.json["entry"]] == ["201 Created", "201 Created"]
    assert esmith.get("Patient/pat2").json["link"][0]["other"] == {"reference": f"Patient/{created['id']}"}
    second_value = esmith.get("Observation/f005").json
    assert second_value["valueQuantity"] == {"value": 7}
    assert "valueCodeableConcept" in second_value["extension"][0]

    tag = "_has:Observation:_tag=http://loinc.org|718-7"
    assert esmith.found(f"Patient?_id=pat2&name=Donald&{tag}") == []
    assert [p["id"] for p in esmith.found(f"Patient?{tag}")] == [DEMO_PATIENT]
    assert len(esmith.found("Observation?_tag=http://loinc.org|15074-8")) == 1

    assert esmith.delete("Patient/pat1").status_code == 204
    assert_outcome(esmith.get("Patient/pat1"), 410, "deleted")
    assert_outcome(esmith.get(f"Patient/{created['id']}"), 410, "deleted")


def test_the_tutorial_runs_a_second_time(esmith: Caller) -> None:
    for _ in range(2):
        esmith.created(PATIENT)
        repeated = esmith.post("Observation", observation("f001", "15074-8"))
        assert esmith.post("", bundle()).status_code == 200
        assert esmith.get("Patient/pat1").status_code == 200
        assert esmith.delete("Patient/pat1").status_code == 204
    assert repeated.status_code == 201
    assert any("posted before" in warning for warning in repeated.headers.getlist("Warning"))
    refused = esmith.get("Observation/f001")
    assert_outcome(refused, 412, "multiple-matches")
    assert refused.json["issue"][0]["diagnostics"].count("Observation/") == 2


def test_the_tutorials_own_files_work_twice(esmith: Caller, corpus: Path) -> None:
    folder = corpus.parents[1] / "tutorial"
    if not folder.is_dir():
        pytest.skip(f"no tutorial files in {folder}")
    patient, single, several = (
        (folder / f"{n}.json").read_bytes() for n in ("patient", "observation", "bundle")
    )
    for _ in range(2):
        assert esmith.post("Patient", patient).status_code == 201
        assert esmith.get("Patient/pat1").status_code == 200
        assert esmith.post("Observation", single).status_code == 201
        answer = esmith.post("", several)
        assert [e["response"]["status"] for e in answer.json["entry"]] == ["201 Created"] * 2
        assert [p["id"] for p in esmith.found("Patient?_has:Observation:_tag=http://loinc.org|718-7")] == [
            DEMO_PATIENT
        ]
        assert esmith.delete("Patient/pat1").status_code == 204
        assert_outcome(esmith.get("Patient/pat1"), 410, "deleted")
    assert_outcome(esmith.get("Observation/f001"), 412, "multiple-matches")
