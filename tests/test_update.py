"""PUT: what it changes, what it leaves, and when it writes nothing."""

from __future__ import annotations

from typing import Any

from tests.helpers import DEMO_PATIENT, Caller, assert_outcome, count_calls

PATIENT = {
    "resourceType": "Patient",
    "name": [{"family": "Curie", "given": ["Marie"], "period": {"start": "1867-11-07T05:00:00+01:00"}}],
    "birthDate": "1867-11",
    "extension": [{"url": "http://example.org/x", "valueDecimal": 7}],
}


def observation(**members: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4", "display": "Heart rate"}]},
        "subject": {"reference": f"Patient/{DEMO_PATIENT}"},
        "valueQuantity": {"value": 72, "unit": "/min"},
        **members,
    }


def test_an_update_changes_the_resource_and_its_version(esmith: Caller) -> None:
    for resource, change in ((PATIENT, {"gender": "female"}), (observation(), {"status": "amended"})):
        created = esmith.created(resource)
        url = f"{created['resourceType']}/{created['id']}"
        answer = esmith.send("PUT", url, created | change)
        assert answer.status_code == 200, answer.text
        read = esmith.get(url)
        assert read.json == answer.json
        assert {k: v for k, v in read.json.items() if k != "meta"} == {
            k: v for k, v in (created | change).items() if k != "meta"
        }
        assert read.headers["ETag"] != f'W/"{created["meta"]["versionId"]}"'


def test_an_unchanged_update_writes_nothing(esmith: Caller) -> None:
    for resource in (PATIENT, observation()):
        created = esmith.created(resource)
        url = f"{created['resourceType']}/{created['id']}"
        counting = count_calls(esmith.app)
        assert esmith.send("PUT", url, created).json == created
        assert not [call for call in counting.calls if call[0] == "PUT"]
        assert esmith.get(url).json == created


def test_an_update_of_an_unknown_id_creates_with_exactly_that_id(esmith: Caller) -> None:
    for resource in (PATIENT, observation()):
        url = f"{resource['resourceType']}/by-client.1"
        answer = esmith.send("PUT", url, {**resource, "id": "by-client.1"})
        assert answer.status_code == 201, answer.text
        assert answer.json["id"] == "by-client.1"
        assert "identifier" not in answer.json
        assert esmith.get(url).status_code == 200


def test_a_client_id_survives_an_update_that_omits_it(esmith: Caller) -> None:
    created = esmith.created({**PATIENT, "id": "mc1"})
    answer = esmith.send("PUT", f"Patient/{created['id']}", {**PATIENT, "id": created["id"]})
    assert answer.json["identifier"] == [{"system": "https://dxm.icure.dev", "value": "mc1"}]
    assert esmith.get("Patient/mc1").json == answer.json
    by_client_id = esmith.send("PUT", "Patient/mc1", {**PATIENT, "id": "mc1", "gender": "female"})
    assert by_client_id.json["id"] == created["id"]


def test_an_update_with_a_stale_version_is_refused(esmith: Caller) -> None:
    for resource in (PATIENT, observation()):
        created = esmith.created(resource)
        url = f"{created['resourceType']}/{created['id']}"
        etag = esmith.get(url).headers["ETag"]
        changed = {**created, "language": "en"}
        assert esmith.send("PUT", url, changed, If_Match=etag).status_code == 200
        assert_outcome(esmith.send("PUT", url, created, If_Match=etag), 412)
        assert esmith.get(url).json["language"] == "en"


def test_an_update_moves_an_observation_to_its_new_patient(esmith: Caller) -> None:
    other = esmith.created(PATIENT)
    created = esmith.created(observation())
    moved = {**created, "subject": {"reference": f"Patient/{other['id']}"}}
    answer = esmith.send("PUT", f"Observation/{created['id']}", moved)
    assert answer.status_code == 200, answer.text
    assert esmith.get(f"Observation/{created['id']}").json == answer.json
    assert [o["id"] for o in esmith.found(f"Observation?patient={other['id']}")] == [created["id"]]
    assert esmith.found(f"Observation?patient={DEMO_PATIENT}") == []


def test_an_update_leaves_the_neighbours_in_the_contact_alone(esmith: Caller) -> None:
    entries = [
        {
            "resource": observation(valueQuantity={"value": v}),
            "request": {"method": "POST", "url": "Observation"},
        }
        for v in (1, 2, 3)
    ]
    esmith.post("", {"resourceType": "Bundle", "type": "transaction", "entry": entries})
    before = {o["id"]: o for o in esmith.found(f"Observation?patient={DEMO_PATIENT}")}
    changed, *others = before
    esmith.send("PUT", f"Observation/{changed}", before[changed] | {"status": "corrected"})
    after = {o["id"]: o for o in esmith.found(f"Observation?patient={DEMO_PATIENT}")}
    assert [after[i] for i in others] == [before[i] for i in others]
    assert after[changed]["status"] == "corrected"


def test_an_update_brings_a_deleted_resource_back(esmith: Caller) -> None:
    for resource in (PATIENT, observation()):
        created = esmith.created(resource)
        url = f"{created['resourceType']}/{created['id']}"
        esmith.delete(url)
        assert_outcome(esmith.get(url), 410)
        assert esmith.send("PUT", url, created).status_code == 200
        assert esmith.get(url).status_code == 200


def test_the_id_of_the_body_must_be_that_of_the_url(esmith: Caller) -> None:
    created = esmith.created(PATIENT)
    for body in (PATIENT, {**PATIENT, "id": "other"}):
        refused = esmith.send("PUT", f"Patient/{created['id']}", body)
        assert_outcome(refused, 400, path="Patient.id")
