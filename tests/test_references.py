"""References become `Type/<server id>` wherever they stand, in whatever form and order they were sent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge.app import create_app
from bridge.config import Config
from tests.helpers import DEMO_PATIENT, FHIR, Caller, assert_outcome, count_calls, stored

UUID = "urn:uuid:0d0dd6f4-3b2a-4b1e-8d1f-2b8c5c0e7a11"
NOWHERE = "urn:uuid:99999999-3b2a-4b1e-8d1f-2b8c5c0e7a11"
OID = "urn:oid:1.2.36.146.595.217.0.1"
HTTP = "http://other.example/fhir/Patient/p1"

Resource = dict[str, Any]


def patient(**members: Any) -> Resource:
    return {"resourceType": "Patient", "name": [{"family": "Referred"}], **members}


def observation(patient: str | None = None, /, **members: Any) -> Resource:
    about = {} if patient is None else {"subject": {"reference": patient}}
    return {"resourceType": "Observation", "status": "final", "code": {"text": "Hb"}, **about, **members}


def entry(resource: Resource, full_url: str | None = None) -> Resource:
    request = {"method": "POST", "url": resource["resourceType"]}
    return {**({"fullUrl": full_url} if full_url else {}), "resource": resource, "request": request}


def transaction(*entries: Resource) -> Resource:
    return {"resourceType": "Bundle", "type": "transaction", "entry": list(entries)}


def posted(caller: Caller, *entries: Resource) -> list[Resource]:
    """Returns what is read of each entry of a transaction that succeeds."""
    response = caller.post("", transaction(*entries))
    assert response.status_code == 200, response.text
    locations = [e["response"]["location"] for e in response.json["entry"]]
    return [caller.get(one.partition(FHIR + "/")[2].partition("/_history")[0]).json for one in locations]


def everywhere(reference: str) -> Resource:
    """An Observation that refers to one Patient wherever it can."""
    to = {"reference": reference}
    extension = [{"url": "u", "extension": [{"url": "v", "valueReference": dict(to)}]}]
    return observation(
        reference,
        extension=extension,
        focus=[dict(to), {"display": "no reference"}],
        performer=[dict(to)],
        note=[{"authorReference": dict(to), "text": "n"}],
        contained=[{"resourceType": "Observation", "id": "c", **observation(reference)}],
        derivedFrom=[{"reference": "#c"}],
        _status={"extension": [{"url": "u", "valueReference": dict(to)}]},
        component=[
            {
                "code": {"text": "c", "extension": [{"url": "u", "valueReference": dict(to)}]},
                "valueInteger": 1,
            }
        ],
    )


OWN: dict[str, tuple[Resource, str | None, str]] = {
    "urn:uuid": (patient(), UUID, UUID),
    "urn:oid": (patient(), OID, OID),
    "Type/id of the client": (patient(id="p1"), None, "Patient/p1"),
    "fullUrl of http form": (patient(), HTTP, HTTP),
    "fullUrl of http form, with its id": (patient(id="p1"), HTTP, HTTP),
    "Type/id beside a fullUrl": (patient(id="p1"), UUID, "Patient/p1"),
    "this server's URL with the client's id": (patient(id="p1"), None, f"http://localhost{FHIR}/Patient/p1"),
}


@pytest.mark.parametrize(("target", "full_url", "reference"), OWN.values(), ids=OWN)
@pytest.mark.parametrize("first", ["Patient", "Observation"])
def test_what_the_request_brings_is_found_in_any_order(
    esmith: Caller, target: Resource, full_url: str | None, reference: str, first: str
) -> None:
    entries = [entry(target, full_url), entry(everywhere(reference))]
    read = posted(esmith, *(entries if first == "Patient" else entries[::-1]))
    saved, about = read if first == "Patient" else read[::-1]
    said = everywhere(f"Patient/{saved['id']}")
    assert {name: about[name] for name in said} == said
    assert [o["id"] for o in esmith.found(f"Observation?subject=Patient/{saved['id']}")] == [about["id"]]


def test_a_relative_reference_is_completed_by_the_fullUrl_of_its_entry(esmith: Caller) -> None:
    about = entry(observation("Patient/p1"), "http://other.example/fhir/Observation/o1")
    saved, read = posted(esmith, entry(patient(), HTTP), about)
    assert read["subject"] == {"reference": f"Patient/{saved['id']}"}


def test_entries_may_refer_to_each_other(esmith: Caller) -> None:
    one = patient(link=[{"other": {"reference": OID}, "type": "seealso"}])
    two = patient(link=[{"other": {"reference": UUID}, "type": "seealso"}])
    read = posted(esmith, entry(one, UUID), entry(two, OID))
    assert [p["link"][0]["other"]["reference"] for p in read] == [f"Patient/{p['id']}" for p in read[::-1]]

    members = observation(hasMember=[{"reference": OID}, {"reference": "Observation/o3"}])
    read = posted(esmith, entry(members, UUID), entry(observation(), OID), entry(observation(id="o3")))
    assert read[0]["hasMember"] == [{"reference": f"Observation/{o['id']}"} for o in read[1:]]


STORED = {
    "server id": "Patient/{id}",
    "version of the server id": "Patient/{id}/_history/1",
    "client id": "Patient/known",
    "this server's URL": f"http://localhost{FHIR}/Patient/{{id}}",
    "this server's URL with the client's id": f"http://localhost{FHIR}/Patient/known",
}


@pytest.mark.parametrize("form", STORED.values(), ids=STORED)
def test_what_is_stored_is_found(esmith: Caller, form: str) -> None:
    server_id = esmith.created(patient(id="known"))["id"]
    sent = everywhere(form.format(id=server_id))
    created = esmith.created(sent)
    assert created["subject"] == {"reference": f"Patient/{server_id}"}
    said = everywhere(f"Patient/{server_id}")
    read = esmith.get(f"Observation/{created['id']}").json
    assert {name: read[name] for name in said} == said


@pytest.mark.parametrize("form", ["{id}", "known"], ids=["server id", "client id"])
def test_an_id_alone_is_enough_where_the_element_says_the_type(esmith: Caller, form: str) -> None:
    server_id = esmith.created(patient(id="known"))["id"]
    about = observation(form.format(id=server_id), performer=[{"reference": "f005"}])
    response = esmith.post("Observation", about)
    assert response.json["subject"] == {"reference": f"Patient/{server_id}"}
    assert response.json["performer"] == [{"reference": "Practitioner/f005"}]
    assert len(response.headers.getlist("Warning")) == 2
    same = transaction(entry(patient(id="p1")), entry(observation("p1")))
    assert esmith.post("", same).status_code == 200


def test_a_server_id_wins_over_a_client_id(esmith: Caller) -> None:
    other = esmith.created(patient(id=DEMO_PATIENT))["id"]
    assert other != DEMO_PATIENT
    about = esmith.created(observation(f"Patient/{DEMO_PATIENT}"))
    assert about["subject"] == {"reference": f"Patient/{DEMO_PATIENT}"}


KEPT = {
    "a fragment": (
        {"performer": [{"reference": "#a"}], "contained": [{"resourceType": "Practitioner", "id": "a"}]},
        0,
    ),
    "a foreign URL": ({"encounter": {"reference": "http://other.example/Encounter/1"}}, 0),
    "an unknown Practitioner": ({"performer": [{"reference": "Practitioner/nobody"}]}, 1),
    "a type that is not served": ({"encounter": {"reference": "Encounter/1"}}, 1),
    "a Group as subject": ({"subject": {"reference": "Group/1"}}, 1),
    "a Device as subject": ({"subject": {"reference": "Device/1"}}, 1),
    "an unknown Patient elsewhere": ({"focus": [{"reference": "Patient/nobody"}]}, 1),
    "an unknown Observation": ({"derivedFrom": [{"reference": "Observation/nothing"}]}, 1),
    "an identifier of nobody": ({"subject": {"identifier": {"system": "s", "value": "v"}}}, 0),
    "a contained subject": (
        {
            "subject": {"reference": "#p"},
            "contained": [{"resourceType": "Patient", "id": "p", "active": True}],
        },
        0,
    ),
}


@pytest.mark.parametrize(("members", "warnings"), KEPT.values(), ids=KEPT)
def test_what_cannot_be_found_is_kept_as_sent_and_warned_of(
    esmith: Caller, members: Resource, warnings: int
) -> None:
    response = esmith.post("Observation", observation(**members))
    assert response.status_code == 201, response.text
    assert len(response.headers.getlist("Warning")) == warnings
    for read in (response.json, esmith.get(f"Observation/{response.json['id']}").json):
        assert {name: read[name] for name in members} == members
    answer = esmith.post("", transaction(entry(patient()), entry(observation(**members))))
    first, second = (e["response"] for e in answer.json["entry"])
    issues = second.get("outcome", {}).get("issue", [])
    assert "outcome" not in first
    assert [i["severity"] for i in issues] == ["warning"] * warnings
    assert all(i["expression"][0].startswith("Bundle.entry[1].resource.") for i in issues)


def test_a_party_that_is_known_needs_no_warning(esmith: Caller) -> None:
    parties = [{"reference": "Practitioner/f005"}, {"reference": "Organization/1"}]
    response = esmith.post("Observation", observation(performer=parties))
    assert response.headers.getlist("Warning") == []
    assert response.json["performer"] == parties


def test_strict_refuses_what_cannot_be_found(data_dir: Path, esmith: Caller) -> None:
    app = create_app(replace(Config(data_dir=data_dir), references="strict"))
    caller = Caller(app, esmith.account)
    before = stored(data_dir)
    sent = observation(
        encounter={"reference": "Encounter/1"}, performer=[{"reference": "Practitioner/nobody"}]
    )
    response = caller.post("", transaction(entry(patient()), entry(sent)))
    assert_outcome(response, 422, "not-found", "Bundle.entry[1].resource.encounter")
    assert_outcome(response, 422, "not-found", "Bundle.entry[1].resource.performer[0]")
    assert stored(data_dir) == before


def logical(value: str) -> Resource:
    return {"subject": {"identifier": {"system": "http://h", "value": value}}}


def test_a_subject_by_identifier_is_linked_when_exactly_one_patient_has_it(esmith: Caller) -> None:
    one = esmith.created(patient(identifier=[{"system": "http://h", "value": "one"}]))["id"]
    for _ in range(2):
        esmith.created(patient(identifier=[{"system": "http://h", "value": "two"}]))
    linked = esmith.created(observation(**logical("one")))
    assert linked["subject"]["reference"] == f"Patient/{one}"
    assert [o["id"] for o in esmith.found(f"Observation?patient={one}")] == [linked["id"]]
    for value in ("two", "nobody"):
        assert "reference" not in esmith.created(observation(**logical(value)))["subject"]


NOTHING: dict[str, tuple[Resource, str]] = {
    "subject": (observation(NOWHERE), "subject"),
    "an oid": (observation("urn:oid:9.9"), "subject"),
    "focus": (observation(focus=[{"display": "a"}, {"reference": NOWHERE}]), "focus[1]"),
    "an extension": (
        observation(extension=[{"url": "u", "valueReference": {"reference": NOWHERE}}]),
        "extension[0].valueReference",
    ),
    "contained": (
        observation(
            contained=[
                {"resourceType": "Patient", "id": "p", "managingOrganization": {"reference": NOWHERE}}
            ],
            focus=[{"reference": "#p"}],
        ),
        "contained[0].managingOrganization",
    ),
    "link": (patient(link=[{"other": {"reference": NOWHERE}, "type": "refer"}]), "link[0].other"),
}


@pytest.mark.parametrize(("resource", "element"), NOTHING.values(), ids=NOTHING)
def test_a_urn_that_names_nothing_is_refused_and_nothing_is_written(
    esmith: Caller, data_dir: Path, resource: Resource, element: str
) -> None:
    before = stored(data_dir)
    response = esmith.post("", transaction(entry(patient(), UUID), entry(resource)))
    assert_outcome(response, 422, "not-found", f"Bundle.entry[1].resource.{element}")
    assert_outcome(esmith.post(resource["resourceType"], resource), 422, "not-found")
    assert stored(data_dir) == before


def test_every_reference_that_names_nothing_is_told(esmith: Caller, data_dir: Path) -> None:
    before = stored(data_dir)
    entries = [
        entry(observation(about)) for about in (NOWHERE, "Patient/nobody", UUID, "Patient/..", "nobody")
    ]
    response = esmith.post("", transaction(entry(patient(), UUID), *entries))
    assert response.status_code == 422
    told = [i["expression"][0] for i in response.json["issue"]]
    assert sorted(told) == [f"Bundle.entry[{at}].resource.subject" for at in (1, 2, 4, 5)]
    assert stored(data_dir) == before


def test_a_client_id_that_stands_twice_in_the_request_means_neither(esmith: Caller, data_dir: Path) -> None:
    before = stored(data_dir)
    twins = [entry(patient(id="twin")), entry(patient(id="twin"))]
    response = esmith.post("", transaction(*twins, entry(observation("Patient/twin"))))
    assert_outcome(response, 422, "multiple-matches", "Bundle.entry[2].resource.subject")
    assert stored(data_dir) == before
    twins[0]["fullUrl"] = UUID
    first, _, about = posted(esmith, *twins, entry(observation(UUID)))
    assert about["subject"] == {"reference": f"Patient/{first['id']}"}


def test_references_are_looked_up_together(app: Any, esmith: Caller) -> None:
    ids = [esmith.created(patient(id=f"many-{n}"))["id"] for n in range(30)]
    upstream = count_calls(app)
    about = [entry(observation(f"Patient/many-{n}" if n % 2 else f"Patient/{ids[n]}")) for n in range(30)]
    assert esmith.post("", transaction(*about)).status_code == 200
    assert upstream.told() == [
        "POST patient/byIds",
        "POST patient/match",
        "POST patient/byIds",
        "POST contact/batch",
    ]


def test_nothing_that_a_resource_names_is_ever_fetched(app: Any, esmith: Caller) -> None:
    upstream = count_calls(app)
    named = "http://127.0.0.1:9/never"
    sent = patient(
        photo=[{"url": named, "contentType": "image/png"}],
        generalPractitioner=[{"reference": named}],
        extension=[{"url": named, "valueAttachment": {"url": named}}],
    )
    posted(esmith, entry(sent, f"{named}/Patient/x"))
    assert all("never" not in call for call in upstream.told())
