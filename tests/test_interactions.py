"""Create, read and delete of single resources."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from mappings.values import Resource
from tests.helpers import DEMO_PATIENT, FHIR, Caller, assert_outcome, basic, stored

SYSTEM = "https://dxm.icure.dev"
PATIENT: Resource = {"resourceType": "Patient", "id": "mine", "name": [{"family": "Curie"}]}
OBSERVATION: Resource = {
    "resourceType": "Observation",
    "id": "mine",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "15074-8"}]},
    "subject": {"reference": f"Patient/{DEMO_PATIENT}"},
    "valueBoolean": True,
}
BOTH = pytest.mark.parametrize("resource", [PATIENT, OBSERVATION], ids=["Patient", "Observation"])


def place(resource: Resource) -> str:
    return f"{resource['resourceType']}/{resource['id']}"


# create


@BOTH
def test_a_create_answers_where_which_version_and_when(esmith: Caller, resource: Resource) -> None:
    response = esmith.post(resource["resourceType"], resource)
    created = response.json
    assert response.status_code == 201
    assert response.headers["Content-Type"] == "application/fhir+json; charset=utf-8"
    version = created["meta"]["versionId"]
    assert response.headers["ETag"] == f'W/"{version}"'
    url = f"http://localhost{FHIR}/{place(created)}"
    assert response.headers["Location"] == f"{url}/_history/{version}"
    assert_is_the_time(response.headers["Last-Modified"], created["meta"]["lastUpdated"])
    assert esmith.get(response.headers["Location"]).json == created


def assert_is_the_time(header: str, instant: str) -> None:
    assert parsedate_to_datetime(header).strftime("%Y-%m-%dT%H:%M:%S") == instant[:19]


@BOTH
def test_the_client_s_id_becomes_an_identifier_beside_its_own(esmith: Caller, resource: Resource) -> None:
    own = {"system": "urn:own", "value": "1"}
    created = esmith.created(resource | {"identifier": [own]})
    assert created["id"] != "mine"
    assert created["identifier"] == [own, {"system": SYSTEM, "value": "mine"}]


@BOTH
def test_without_client_id_nothing_is_added(esmith: Caller, resource: Resource) -> None:
    sent = {name: value for name, value in resource.items() if name != "id"}
    created = esmith.created(sent)
    assert {name: value for name, value in created.items() if name not in ("id", "meta")} == sent


def test_preferred_minimal_answers_headers_alone(esmith: Caller) -> None:
    response = esmith.post("Patient", PATIENT, Prefer="return=minimal")
    assert (response.status_code, response.data) == (201, b"")
    assert {"ETag", "Location", "Last-Modified"} <= set(response.headers.keys())


def test_preferred_outcome_answers_one(esmith: Caller) -> None:
    response = esmith.post("Patient", {"resourceType": "Patient"}, Prefer="return=OperationOutcome")
    assert response.status_code == 201
    assert response.json["resourceType"] == "OperationOutcome"
    assert {issue["severity"] for issue in response.json["issue"]} == {"information"}
    esmith.created(PATIENT)
    again = esmith.post("Patient", PATIENT, Prefer="return=OperationOutcome")
    warned = {(i["severity"], i["code"], *i["expression"]) for i in again.json["issue"]}
    assert ("warning", "duplicate", "Patient.id") in warned
    assert "Warning" not in again.headers


def test_preferred_representation_answers_the_resource_and_warns_in_headers(esmith: Caller) -> None:
    esmith.created(PATIENT)
    response = esmith.post("Patient", PATIENT, Prefer="return=representation")
    assert response.json["name"] == PATIENT["name"]
    assert response.headers["Warning"].startswith('199 - "Patient.id: ')


# read


@BOTH
def test_a_read_by_either_id_answers_the_same(esmith: Caller, resource: Resource) -> None:
    created = esmith.created(resource)
    by_server_id, by_client_id = esmith.get(place(created)), esmith.get(place(resource))
    assert by_server_id.json == by_client_id.json == created
    for response in (by_server_id, by_client_id):
        assert response.headers["ETag"] == f'W/"{created["meta"]["versionId"]}"'
        assert_is_the_time(response.headers["Last-Modified"], created["meta"]["lastUpdated"])


def test_a_server_id_wins_over_a_client_id(esmith: Caller) -> None:
    first = esmith.created(PATIENT)
    esmith.created(PATIENT | {"id": first["id"], "name": [{"family": "Impostor"}]})
    assert esmith.get(place(first)).json == first


def test_a_client_id_is_of_one_type_only(esmith: Caller) -> None:
    esmith.created(PATIENT)
    assert_outcome(esmith.get("Observation/mine"), 404, "not-found")


@BOTH
def test_a_client_id_posted_twice_names_both(esmith: Caller, resource: Resource) -> None:
    ids = {esmith.created(resource)["id"] for _ in range(2)}
    refused = esmith.get(place(resource))
    assert_outcome(refused, 412, "multiple-matches")
    assert all(i in refused.json["issue"][0]["diagnostics"] for i in ids)
    assert_outcome(esmith.delete(place(resource)), 412, "multiple-matches")


@BOTH
def test_head_is_a_read_without_a_body(esmith: Caller, resource: Resource) -> None:
    created = esmith.created(resource)
    head, read = esmith.send("HEAD", place(created)), esmith.get(place(created))
    assert (head.status_code, head.data) == (200, b"")
    for name in ("ETag", "Last-Modified", "Content-Type"):
        assert head.headers[name] == read.headers[name]
    assert esmith.send("HEAD", f"{resource['resourceType']}/nothing").status_code == 404


MEDIA = {
    "nothing said": ({}, "", "application/fhir+json"),
    "any": ({"Accept": "*/*"}, "", "application/fhir+json"),
    "fhir": ({"Accept": "application/fhir+json"}, "", "application/fhir+json"),
    "plain": ({"Accept": "application/json"}, "", "application/json"),
    "of a browser": ({"Accept": "text/html,application/json;q=0.9,*/*;q=0.1"}, "", "application/json"),
    "in the URL": ({"Accept": "text/html"}, "?_format=json", "application/fhir+json"),
}


@pytest.mark.parametrize(("headers", "query", "answered"), MEDIA.values(), ids=MEDIA)
def test_json_is_answered_in_the_form_asked_for(
    esmith: Caller, headers: dict[str, str], query: str, answered: str
) -> None:
    response = esmith.get(f"Patient/{DEMO_PATIENT}{query}", **headers)
    assert response.headers["Content-Type"] == f"{answered}; charset=utf-8"


@pytest.mark.parametrize("headers", [{"Accept": "application/fhir+xml"}, {"Accept": "text/turtle"}])
def test_what_is_not_json_is_refused(esmith: Caller, headers: dict[str, str]) -> None:
    assert_outcome(esmith.get(f"Patient/{DEMO_PATIENT}", **headers), 406)
    assert_outcome(esmith.get(f"Patient/{DEMO_PATIENT}?_format=xml"), 406)


@pytest.mark.parametrize(
    "media", ["application/json", "application/fhir+json", "application/json; charset=utf-8"]
)
def test_json_is_taken_under_both_names(esmith: Caller, media: str) -> None:
    assert esmith.post("Patient", PATIENT, Content_Type=media).status_code == 201


def test_pretty_answers_say_the_same_in_lines(esmith: Caller) -> None:
    plain, pretty = (esmith.get(f"Patient/{DEMO_PATIENT}?_pretty={p}") for p in ("false", "true"))
    assert len(plain.data.splitlines()) == 1 < len(pretty.data.splitlines())
    assert plain.json == pretty.json


def test_another_does_not_read_what_was_not_shared(esmith: Caller, jdoe: Caller) -> None:
    for resource in (PATIENT, OBSERVATION):
        created = esmith.created(resource)
        assert_outcome(jdoe.get(place(created)), 403)
        assert_outcome(jdoe.delete(place(created)), 403)
        assert_outcome(jdoe.get(place(resource)), 404)
        assert esmith.get(place(created)).json == created


def test_auto_delegations_share_what_is_created(app: Any, accounts: dict[str, dict[str, str]]) -> None:
    other = Caller(app, accounts["jdoe"])
    other.load_key()
    delegate_to(app, accounts["esmith"], {"all": [accounts["jdoe"]["dataOwnerId"]]})
    caller = Caller(app, accounts["esmith"])
    caller.load_key()
    patient = caller.created(PATIENT)
    observation = caller.created(OBSERVATION | {"subject": {"reference": place(patient)}})
    assert other.get(place(patient)).json == patient
    assert other.get(place(observation)).json == observation
    assert [p["id"] for p in other.found("Patient?name=curie")] == [patient["id"]]
    assert [o["id"] for o in other.found(f"Observation?subject={place(patient)}")] == [observation["id"]]


def test_auto_delegations_of_one_purpose_share_only_that(
    app: Any, accounts: dict[str, dict[str, str]]
) -> None:
    other = Caller(app, accounts["jdoe"])
    other.load_key()
    delegate_to(app, accounts["esmith"], {"administrativeData": [accounts["jdoe"]["dataOwnerId"]]})
    caller = Caller(app, accounts["esmith"])
    caller.load_key()
    patient, observation = caller.created(PATIENT), caller.created(OBSERVATION)
    assert other.get(place(patient)).status_code == 200
    assert other.get(place(observation)).status_code == 403


def delegate_to(app: Any, account: dict[str, str], delegations: dict[str, list[str]]) -> None:
    """Sets the autoDelegations of a user of the embedded store."""
    http, headers = app.test_client(), {"Authorization": basic(account)}
    user = http.get("/rest/v2/user/current", headers=headers).json
    changed = http.put("/rest/v2/user", headers=headers, json=user | {"autoDelegations": delegations})
    assert changed.status_code == 200, changed.text


# delete


@BOTH
@pytest.mark.parametrize("by", ["server id", "client id"])
def test_a_deleted_resource_is_gone_under_both_ids(esmith: Caller, resource: Resource, by: str) -> None:
    created = esmith.created(resource)
    response = esmith.delete(place(created if by == "server id" else resource))
    assert (response.status_code, response.data) == (204, b"")
    for path in (place(created), place(resource)):
        assert_outcome(esmith.get(path), 410, "deleted")
        assert esmith.send("HEAD", path).status_code == 410
        assert esmith.delete(path).status_code == 204


@BOTH
def test_what_never_was_is_not_found(esmith: Caller, resource: Resource) -> None:
    assert_outcome(esmith.get(place(resource)), 404, "not-found")
    assert_outcome(esmith.get(f"{place(resource)}/_history"), 404, "not-found")


@BOTH
def test_what_never_was_is_not_there_after_a_delete_either(esmith: Caller, resource: Resource) -> None:
    response = esmith.delete(place(resource))
    assert (response.status_code, response.data) == (204, b"")
    assert "Nothing is known under this id." in response.headers["Warning"]
    told = esmith.delete(place(resource), Prefer="return=OperationOutcome")
    assert (told.status_code, told.json["issue"][0]["severity"]) == (200, "warning")


@BOTH
def test_a_client_id_lives_again_when_it_is_posted_again(esmith: Caller, resource: Resource) -> None:
    first = esmith.created(resource)
    esmith.delete(place(resource))
    second = esmith.created(resource)
    assert esmith.get(place(resource)).json == second
    assert_outcome(esmith.get(place(first)), 410, "deleted")


def test_one_of_two_with_the_same_client_id_may_go(esmith: Caller) -> None:
    first, second = esmith.created(PATIENT), esmith.created(PATIENT)
    esmith.delete(place(first))
    assert esmith.get(place(PATIENT)).json == second


@BOTH
def test_a_delete_of_another_version_is_refused(esmith: Caller, resource: Resource) -> None:
    created = esmith.created(resource)
    assert_outcome(esmith.delete(place(created), If_Match='W/"0-0"'), 412)
    assert esmith.get(place(created)).json == created
    etag = f'W/"{created["meta"]["versionId"]}"'
    assert esmith.delete(place(created), If_Match=etag).status_code == 204


@pytest.mark.parametrize("resource_type", ["Practitioner", "Organization"])
def test_the_caller_has_no_second_id(esmith: Caller, resource_type: str) -> None:
    assert_outcome(esmith.get(f"{resource_type}/current"), 404, "not-found")


@pytest.mark.parametrize("resource_type", ["Practitioner", "Organization"])
def test_nothing_is_created_where_it_could_not_be_read(
    esmith: Caller, resource_type: str, data_dir: Path
) -> None:
    before = stored(data_dir)
    resource = {"resourceType": resource_type, "id": "current", "active": True}
    path = f"{resource_type}/current"
    assert_outcome(esmith.send("PUT", path, resource), 422, "processing", f"{resource_type}.id")
    entry = {"resource": resource, "request": {"method": "PUT", "url": path}}
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    assert_outcome(esmith.post("", bundle), 422, "processing", "Bundle.entry[0].resource.id")
    assert stored(data_dir) == before


def test_a_deleted_observation_leaves_its_neighbours_in_the_contact(esmith: Caller) -> None:
    entries = [{"resource": OBSERVATION | {"id": f"o{at}"}} for at in range(3)]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    assert esmith.post("", bundle).status_code == 200
    before = [esmith.get(f"Observation/o{at}").json for at in range(3)]
    assert esmith.delete("Observation/o1").status_code == 204
    assert esmith.get("Observation/o0").json == before[0]
    assert esmith.get("Observation/o2").json == before[2]
    assert_outcome(esmith.get("Observation/o1"), 410)


def test_a_deleted_patient_s_observations_stay(esmith: Caller) -> None:
    patient = esmith.created(PATIENT)
    observation = esmith.created(OBSERVATION | {"subject": {"reference": place(patient)}})
    esmith.delete(place(patient))
    assert esmith.get(place(observation)).json == observation
    refused = esmith.post("Observation", OBSERVATION | {"subject": {"reference": place(patient)}})
    assert_outcome(refused, 422, path="Observation.subject")
