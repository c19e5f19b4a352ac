"""The bridge and iCure's own SDK over one running server: each reads what the other wrote."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bridge import demo, wire
from mappings.values import Resource
from tests.helpers import DEMO_PATIENT, Remote, serving
from tests.promises import assert_same, bare
from tests.sdk.client import Sdk, SdkError, install

LOINC, UCUM = "http://loinc.org", "http://unitsofmeasure.org"
HIGH = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
DATA = Path(__file__).parent / "data"


@dataclass
class World:
    """One server, and two people who each use it by FHIR and by the SDK."""

    fhir: Remote
    sdk: Sdk
    other_fhir: Remote
    other_sdk: Sdk


@pytest.fixture(scope="module")
def world(demo_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    install()
    data_dir = Path(shutil.copytree(demo_template, tmp_path_factory.mktemp("sdk") / "data"))
    accounts = {account["name"]: account for account in demo.accounts(data_dir)}
    with serving(data_dir) as server:
        people = [Remote(server, accounts[name]) for name in ("esmith", "jdoe")]
        for person in people:
            person.load_key()
        with started(people[0]) as sdk, started(people[1]) as other_sdk:
            yield World(people[0], sdk, people[1], other_sdk)


def started(person: Remote) -> Sdk:
    account = person.account
    return Sdk.start(
        person.server.url,
        account["login"],
        account["password"],
        account["dataOwnerId"],
        account["privateKey"],
    )


def example(path: str) -> Resource:
    return wire.parse((DATA / f"{path}.json").read_bytes())


def assert_valid(resource: Resource) -> None:
    assert wire.check(resource, strict=True)[1] == []


# what was posted as FHIR


def test_the_sdk_reads_a_patient_that_was_posted_as_fhir(world: World) -> None:
    patient_id = world.fhir.created(example("Patient/rich"))["id"]
    patient = world.sdk.get_patient(patient_id)
    assert (patient["firstName"], patient["lastName"]) == ("Zoé Anne", "van den Éynde")
    assert patient["names"][0] == {"use": "nickname", "firstNames": ["Zaza"]}
    official = patient["names"][1]
    assert (official["prefix"], official["suffix"], official["start"]) == (["Dr"], ["PhD"], 19850130)
    assert (patient["dateOfBirth"], patient["dateOfDeath"], patient["deceased"]) == (19850100, 20610301, True)
    assert (patient["gender"], patient["active"]) == ("indeterminate", False)
    assert (patient["languages"], patient["personalStatus"]) == (["nl", "fr"], "divorced")
    home = next(a for a in patient["addresses"] if a.get("addressType") == "home")
    assert (home["street"], home["city"], home["postalCode"]) == ("Rue Haute 1, boîte 2", "Bruxelles", "1000")
    telecoms = [t for a in patient["addresses"] for t in a.get("telecoms", [])]
    assert {"telecomType": "mobile", "telecomNumber": "+32 470 00 00 01"} in telecoms
    assert {"telecomType": "email", "telecomNumber": "zoe@example.org"} in telecoms
    assert {"system": "https://dxm.icure.dev", "value": "rich"} in patient["identifier"]
    assert patient["identifier"][0]["value"] == "85.01.30-033.28"
    assert patient["picture"] == "iVBORw0KGgo="
    assert patient["partnerships"] == [{"type": "next_of_kin"}]
    care = {(p["type"], p["healthcarePartyId"]) for p in patient["patientHealthCareParties"]}
    assert care == {("doctor", "f005"), ("managingorganization", "1")}
    assert [(t["type"], t["code"]) for t in patient["tags"]] == [("http://example.org/ward", "north")]


def test_the_sdk_reads_the_tutorial_s_patient_with_its_link(world: World) -> None:
    other = world.fhir.created({"resourceType": "Patient", "name": [{"family": "Other"}]})
    link = {"other": {"reference": f"Patient/{other['id']}"}, "type": "seealso"}
    contact = {"organization": {"reference": "Organization/1", "display": "Walt Disney Corporation"}}
    sent = {"resourceType": "Patient", "name": [{"family": "Duck"}], "contact": [contact], "link": [link]}
    patient = world.sdk.get_patient(world.fhir.created(sent)["id"])
    assert patient["partnerships"] == [{"type": "seealso", "partnerId": other["id"]}]


def test_the_sdk_reads_an_observation_that_was_posted_as_fhir(world: World) -> None:
    observation = world.fhir.created(example("Observation/quantity"))
    service = world.sdk.get_service(observation["id"])
    codes = [(c["type"], c["code"], c.get("version"), c["context"]) for c in service["codes"]]
    assert (LOINC, "15074-8", "2.67", "code") in codes
    assert service["label"] == "Glucose in Blood"
    tags = {(t["type"], t["code"]) for t in service["tags"]}
    assert ("http://hl7.org/fhir/observation-status", "corrected") in tags
    assert ("http://terminology.hl7.org/CodeSystem/observation-category", "laboratory") in tags
    measure = service["content"]["xx"]["measureValue"]
    assert (measure["value"], measure["unit"], measure["comparator"]) == (7.5, "mmol/l", "<=")
    assert measure["unitCodes"] == [{"type": UCUM, "code": "mmol/L"}]
    assert measure["severityCode"] == "H"
    ranges = [(r.get("low"), r.get("high"), r.get("stringValue")) for r in measure["referenceRanges"]]
    assert ranges == [(3.1, 6.2, None), (None, None, "see leaflet")]
    assert service["valueDate"] == 20130402093010
    assert [n["markdown"] for n in service["notes"]] == [{"xx": "haemolytic\nsample"}, {"xx": "second"}]
    assert service["responsible"] == "f005"
    assert {"system": "http://example.org/lab", "value": "A-1"} in service["identifier"]

    contact = world.sdk.get_contact(service["contactId"])
    assert [s["id"] for s in contact["services"]] == [observation["id"]]
    assert world.sdk.patient_of_contact(contact["id"]) == [DEMO_PATIENT]
    assert observation["id"] in [s["id"] for s in world.sdk.find_services_of_patient(DEMO_PATIENT)]
    found = world.sdk.find_services(code={"type": LOINC, "code": "15074-8"})
    assert observation["id"] in [s["id"] for s in found]


def test_the_sdk_reads_components_as_compound_value(world: World) -> None:
    observation = world.fhir.created(example("Observation/components"))
    parts = world.sdk.get_service(observation["id"])["content"]["xx"]["compoundValue"]
    assert [c["code"] for c in parts[0]["codes"]] == ["8480-6"]
    assert parts[0]["content"]["xx"]["measureValue"]["value"] == 100
    assert parts[3]["content"]["en"]["stringValue"] == "as it was"
    assert parts[4]["content"]["xx"]["booleanValue"] is False
    assert len({part["id"] for part in parts}) == len(parts) == 13


# what the SDK wrote

PATIENT = {
    "firstName": "Ada",
    "lastName": "Lovelace",
    "gender": "female",
    "dateOfBirth": 18151210,
    "languages": ["en", "fr"],
    "nationality": "GB",
    "profession": "countess",
    "note": "writes to Babbage",
    "personalStatus": "married",
    "identifier": [{"system": "urn:ada", "value": "1"}],
    "addresses": [
        {
            "addressType": "home",
            "street": "St James's Square",
            "houseNumber": "12",
            "city": "London",
            "telecoms": [{"telecomType": "email", "telecomNumber": "ada@example.org"}],
        }
    ],
    "partnerships": [{"type": "husband", "partnerId": "someone"}],
}


def service(**members: Any) -> dict[str, Any]:
    return {"id": str(uuid.uuid4()), **members}


def measure(value: float, **members: Any) -> dict[str, Any]:
    content = {
        "en": {"measureValue": {"value": value, "unit": "kg", "unitCodes": [{"type": UCUM, "code": "kg"}]}}
    }
    return service(content=content, **members)


def code(value: str) -> dict[str, str]:
    return {"id": f"{LOINC}|{value}|2", "type": LOINC, "code": value, "version": "2"}


def test_a_patient_that_the_sdk_wrote_is_valid_fhir_and_found(world: World) -> None:
    made = world.sdk.create_patient(PATIENT)
    patient = world.fhir.read(f"Patient/{made['id']}")
    assert_valid(patient)
    assert bare(patient) == {
        "resourceType": "Patient",
        "identifier": [{"system": "urn:ada", "value": "1"}],
        "active": True,
        "name": [{"family": "Lovelace", "given": ["Ada"]}],
        "telecom": [{"system": "email", "value": "ada@example.org", "use": "home"}],
        "gender": "female",
        "birthDate": "1815-12-10",
        "address": [{"use": "home", "line": ["St James's Square 12"], "city": "London"}],
        "maritalStatus": {
            "coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus", "code": "M"}]
        },
        "contact": [
            {
                "relationship": [
                    {
                        "coding": [
                            {"system": "http://terminology.hl7.org/CodeSystem/v3-RoleCode", "code": "HUSB"}
                        ]
                    }
                ]
            }
        ],
        "communication": [
            {"language": {"coding": [{"system": "urn:ietf:bcp:47", "code": language}]}}
            for language in ("en", "fr")
        ],
    }
    assert made["id"] in [p["id"] for p in world.fhir.found("Patient?name=lovelace&gender=female")]
    assert made["id"] in [p["id"] for p in world.fhir.found("Patient?name=ada")]


def test_services_that_the_sdk_wrote_are_valid_observations_and_found(world: World) -> None:
    patient_id = world.sdk.create_patient(PATIENT)["id"]
    services = {
        "measure": measure(72.5, codes=[code("29463-7")], label="weight", valueDate=20240101120000),
        "tagged": measure(
            1, codes=[code("29463-7")], tags=[{"type": "http://example.org/tags", "code": "t"}]
        ),
        "text": service(label="anamnesis", content={"en": {"stringValue": "sleeps well"}}),
        "bare": service(content={"xx": {"booleanValue": True}}),
        "compound": service(
            codes=[code("85354-9")],
            content={
                "xx": {"compoundValue": [measure(120, codes=[code("8480-6")]), measure(80, label="low")]}
            },
        ),
        "medication": service(content={"en": {"medicationValue": {"instructionForPatient": "one a day"}}}),
    }
    world.sdk.create_contact(patient_id, {"descr": "visit", "services": list(services.values())})
    found = {o["id"]: o for o in world.fhir.found(f"Observation?subject=Patient/{patient_id}")}
    assert found.keys() == {s["id"] for name, s in services.items() if name != "medication"}
    for observation in found.values():
        assert_valid(observation)
        assert observation["status"] == "unknown"
        assert observation["subject"] == {"reference": f"Patient/{patient_id}"}
        assert bare(world.fhir.read(f"Observation/{observation['id']}")) == bare(observation)
    said = {name: found[s["id"]] for name, s in services.items() if name != "medication"}
    assert said["measure"]["code"] == {
        "coding": [{"system": LOINC, "version": "2", "code": "29463-7"}],
        "text": "weight",
    }
    assert said["measure"]["effectiveDateTime"].startswith("2024-01-01T12:00:00")
    assert wire.dump(said["measure"]["valueQuantity"]) == (
        b'{"value":72.5,"unit":"kg","system":"http://unitsofmeasure.org","code":"kg"}'
    )
    assert said["tagged"]["meta"]["tag"] == [{"system": "http://example.org/tags", "code": "t"}]
    assert (said["text"]["code"], said["text"]["valueString"]) == ({"text": "anamnesis"}, "sleeps well")
    assert said["bare"]["valueBoolean"] is True
    assert "coding" not in said["bare"]["code"]
    parts = said["compound"]["component"]
    assert [part["valueQuantity"]["value"] for part in parts] == [120, 80]
    assert parts[1]["code"] == {"text": "low"}
    by_code = world.fhir.found(f"Observation?code={LOINC}|29463-7&patient={patient_id}")
    assert {o["id"] for o in by_code} == {services["measure"]["id"], services["tagged"]["id"]}
    having = world.fhir.found(f"Patient?_has:Observation:code={LOINC}|85354-9")
    assert patient_id in [p["id"] for p in having]
    world.fhir.get(f"Observation/{services['medication']['id']}", 404)


# what both wrote


def test_a_patient_edited_with_the_sdk_keeps_what_fhir_said_beside_it(world: World) -> None:
    created = world.fhir.created(example("Patient/rich"))
    path = f"Patient/{created['id']}"
    world.sdk.update_patient(
        created["id"], {"lastName": "Peeters", "gender": "female", "note": "only in iCure"}
    )
    edited = world.fhir.read(path)
    assert_valid(edited)
    expected = bare(created) | {"gender": "female"}
    expected["name"][1]["family"] = "Peeters"
    del expected["_gender"]  # it was said of the other gender
    assert_same(bare(edited), expected)
    assert edited["meta"]["versionId"] != created["meta"]["versionId"]
    assert edited["photo"] == example("Patient/rich")["photo"]


def test_an_observation_edited_with_the_sdk_keeps_what_fhir_said_beside_it(world: World) -> None:
    created = world.fhir.created(example("Observation/quantity"))
    read = world.sdk.get_service(created["id"])
    read["content"]["xx"]["measureValue"]["value"] = 8.25
    read["notes"][1]["markdown"] = {"xx": "rewritten"}
    world.sdk.update_service(created["id"], {"content": read["content"], "notes": read["notes"]})
    edited = world.fhir.read(f"Observation/{created['id']}")
    assert_valid(edited)
    expected = bare(created)
    expected["valueQuantity"]["value"] = edited["valueQuantity"]["value"]
    expected["note"][1]["text"] = "rewritten"
    assert_same(bare(edited), expected)
    assert b'"value":8.25,' in wire.dump(edited["valueQuantity"])
    assert edited["meta"]["versionId"] != created["meta"]["versionId"]


def test_one_component_edited_with_the_sdk_leaves_the_others(world: World) -> None:
    created = world.fhir.created(example("Observation/components"))
    content = world.sdk.get_service(created["id"])["content"]
    parts = content["xx"]["compoundValue"]
    parts[3]["content"]["en"]["stringValue"] = "as it is"
    del parts[1]
    world.sdk.update_service(created["id"], {"content": content})
    expected = bare(created)
    expected["component"][3]["valueString"] = "as it is"
    del expected["component"][1]
    assert_same(bare(world.fhir.read(f"Observation/{created['id']}")), expected)


@pytest.mark.parametrize("path", ["Observation/quantity", "Observation/components", "Observation/sparse"])
def test_an_observation_saved_unchanged_is_the_same_version(world: World, path: str) -> None:
    created = world.fhir.created(example(path))
    service = world.sdk.get_service(created["id"])
    world.sdk.update_contact(service["contactId"], {"descr": "looked at"})
    again = world.fhir.read(f"Observation/{created['id']}")
    assert_same(bare(again), bare(created))
    assert again["meta"]["versionId"] == created["meta"]["versionId"]


@pytest.mark.parametrize("path", ["Patient/rich", "Patient/nameless", "Patient/absent"])
def test_a_patient_saved_unchanged_says_the_same(world: World, path: str) -> None:
    created = world.fhir.created(example(path))
    world.sdk.update_patient(created["id"], {})
    assert_same(bare(world.fhir.read(f"Patient/{created['id']}")), bare(created))


def test_nothing_is_seen_by_another_before_the_sdk_shares_it(world: World) -> None:
    patient = world.fhir.created(
        example("Patient/rich") | {"id": "shared", "name": [{"family": "Sharedwith"}]}
    )
    about = {"subject": {"reference": f"Patient/{patient['id']}"}, "id": "shared"}
    observation = world.fhir.created(example("Observation/quantity") | about)
    contact_id = world.sdk.get_service(observation["id"])["contactId"]
    paths = [f"Patient/{patient['id']}", f"Observation/{observation['id']}"]
    for path in paths:
        world.other_fhir.get(path, 403)
    assert world.other_fhir.found("Patient?name=sharedwith") == []
    assert world.other_fhir.found(f"Observation?code={LOINC}|15074-8") == []
    with pytest.raises(SdkError):
        world.other_sdk.get_patient(patient["id"])

    other = world.other_fhir.account["dataOwnerId"]
    world.sdk.share_patient_with(patient["id"], other)
    world.sdk.share_contact_with(contact_id, other)
    for path, sent in zip(paths, (patient, observation), strict=True):
        assert_same(bare(world.other_fhir.read(path)), bare(sent))
    assert [p["id"] for p in world.other_fhir.found("Patient?name=sharedwith")] == [patient["id"]]
    assert [o["id"] for o in world.other_fhir.found(f"Observation?subject={paths[0]}")] == [observation["id"]]
    assert world.fhir.read(paths[1])["meta"]["versionId"] == observation["meta"]["versionId"]


def test_what_the_bridge_deleted_the_sdk_sees_as_deleted(world: World) -> None:
    patient = world.fhir.created({"resourceType": "Patient", "name": [{"family": "Gone"}]})
    observation = world.fhir.created(
        example("Observation/quantity") | {"subject": {"reference": f"Patient/{patient['id']}"}}
    )
    world.fhir.send("DELETE", f"Observation/{observation['id']}", status=204)
    assert world.sdk.get_service(observation["id"])["endOfLife"] > 0
    world.fhir.send("DELETE", f"Patient/{patient['id']}", status=204)
    assert world.sdk.get_patient(patient["id"])["deletionDate"] > 0
    assert patient["id"] not in [p["id"] for p in world.sdk.find_patients(name="Gone")]


def test_what_the_sdk_deleted_is_gone_in_fhir(world: World) -> None:
    patient_id = world.sdk.create_patient(PATIENT)["id"]
    world.sdk.delete_patient(patient_id)
    world.fhir.get(f"Patient/{patient_id}", 410)


def test_a_fhir_update_keeps_what_only_icure_says_of_a_patient(world: World) -> None:
    created = world.fhir.created(example("Patient/rich"))
    path = f"Patient/{created['id']}"
    only = {"note": "likes tea", "nationality": "BE", "profession": "diver", "externalId": "x-1"}
    world.sdk.update_patient(created["id"], only)
    resource = world.fhir.read(path)
    resource["name"][1]["family"] = "Peeters"
    resource["telecom"] = resource["telecom"][:1]
    del resource["contact"]
    sent = bare(resource)
    world.fhir.send("PUT", path, resource)
    assert_same(bare(world.fhir.read(path)), sent)
    patient = world.sdk.get_patient(created["id"])
    assert {name: patient[name] for name in only} == only
    assert (patient["lastName"], patient["names"][1]["lastName"]) == ("Peeters", "Peeters")
    assert "partnerships" not in patient


def test_a_fhir_update_keeps_what_only_icure_says_of_a_service(world: World) -> None:
    patient_id = world.sdk.create_patient(PATIENT)["id"]
    weight, neighbour = measure(72.5, codes=[code("29463-7")], label="weight"), measure(1, label="other")
    weight["comment"] = "with shoes"
    contact = world.sdk.create_contact(patient_id, {"descr": "visit", "services": [weight, neighbour]})
    path = f"Observation/{weight['id']}"
    resource = world.fhir.read(path)
    resource["valueQuantity"]["value"] = wire.loads("73.10")
    resource["bodySite"] = {"text": "whole"}
    sent = bare(resource)
    world.fhir.send("PUT", path, resource)
    assert_same(bare(world.fhir.read(path)), sent)
    service = world.sdk.get_service(weight["id"])
    assert service["comment"] == "with shoes"
    assert service["content"]["en"]["measureValue"]["value"] == 73.1
    assert service["label"] == "weight"
    after = world.sdk.get_contact(contact["id"])
    assert after["descr"] == "visit"
    assert [s["label"] for s in after["services"]] == ["weight", "other"]


@pytest.mark.parametrize("path", ["Patient/rich", "Observation/quantity", "Observation/components"])
def test_a_fhir_update_that_changes_nothing_is_no_new_version(world: World, path: str) -> None:
    created = world.fhir.created(example(path))
    url = f"{created['resourceType']}/{created['id']}"
    if url.startswith("Patient"):
        world.sdk.update_patient(created["id"], {"note": "noted"})
    else:
        world.sdk.update_service(created["id"], {"comment": "noted"})
    seen = world.fhir.read(url)
    world.fhir.send("PUT", url, seen)
    assert world.fhir.read(url)["meta"] == seen["meta"]


# Condition and HealthElement

CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
SNOMED = "http://snomed.info/sct"
FEVER = {
    "codes": [{"id": f"{SNOMED}|386661006|", "type": SNOMED, "code": "386661006"}],
    "tags": [{"type": "http://example.org/tags", "code": "t"}],
    "descr": "fever since Monday",
    "openingDate": 20240101,
    "closingDate": 20240109,
    "notes": [{"markdown": {"en": "went away"}}],
    "note": "only in iCure",
    "idOpeningContact": "some-contact",
}


def condition_of(patient_id: str, **members: Any) -> Resource:
    coding = {"system": SNOMED, "code": "39065001", "display": "Burn of ear"}
    return {
        "resourceType": "Condition",
        "identifier": [{"system": "urn:conditions", "value": "7"}],
        "clinicalStatus": {"coding": [{"system": CLINICAL, "code": "active"}]},
        "severity": {"text": "severe"},
        "code": {"coding": [coding], "text": "Burnt ear"},
        "subject": {"reference": f"Patient/{patient_id}"},
        "onsetDateTime": "2012-05-24",
        "note": [{"text": "Still hurts"}],
        **members,
    }


def test_the_sdk_reads_a_condition_that_was_posted_as_fhir(world: World) -> None:
    condition = world.fhir.created(condition_of(DEMO_PATIENT))
    element = world.sdk.get_health_element(condition["id"])
    assert [(c["type"], c["code"]) for c in element["codes"]] == [(SNOMED, "39065001")]
    assert (CLINICAL, "active") in {(t["type"], t["code"]) for t in element["tags"]}
    assert (element["descr"], element["openingDate"]) == ("Burnt ear", 20120524)
    assert [note["markdown"] for note in element["notes"]][:1] == [{"xx": "Still hurts"}]
    assert element["identifiers"][0]["value"] == "7"
    assert element["responsible"] == world.fhir.account["dataOwnerId"]
    assert world.sdk.patient_of_health_element(condition["id"]) == [DEMO_PATIENT]
    with pytest.raises(SdkError):
        world.other_sdk.get_health_element(condition["id"])


def test_a_health_element_that_the_sdk_wrote_is_a_valid_condition_and_found(world: World) -> None:
    patient_id = world.sdk.create_patient(PATIENT)["id"]
    made = world.sdk.create_health_element(patient_id, FEVER)
    condition = world.fhir.read(f"Condition/{made['id']}")
    assert_valid(condition)
    assert bare(condition) == {
        "resourceType": "Condition",
        "meta": {"tag": [{"system": "http://example.org/tags", "code": "t"}]},
        "code": {"coding": [{"system": SNOMED, "code": "386661006"}], "text": "fever since Monday"},
        "subject": {"reference": f"Patient/{patient_id}"},
        "onsetDateTime": "2024-01-01",
        "abatementDateTime": "2024-01-09",
        "recorder": {"reference": f"Practitioner/{world.fhir.account['dataOwnerId']}"},
        "note": [{"text": "went away"}],
    }
    for query in (f"code={SNOMED}|386661006", f"patient={patient_id}", "_tag=http://example.org/tags|t"):
        assert made["id"] in [c["id"] for c in world.fhir.found(f"Condition?{query}")]
    having = world.fhir.found(f"Patient?_has:Condition:patient:code={SNOMED}|386661006")
    assert patient_id in [p["id"] for p in having]


def test_a_condition_edited_with_the_sdk_keeps_what_fhir_said_beside_it(world: World) -> None:
    created = world.fhir.created(condition_of(DEMO_PATIENT, id="edited"))
    world.sdk.update_health_element(created["id"], {"descr": "Burnt ear, healing", "closingDate": 20120601})
    edited = world.fhir.read(f"Condition/{created['id']}")
    assert_valid(edited)
    expected = bare(created) | {"abatementDateTime": "2012-06-01"}
    expected["code"]["text"] = "Burnt ear, healing"
    assert_same(bare(edited), expected)
    assert edited["meta"]["versionId"] != created["meta"]["versionId"]


def test_a_condition_saved_unchanged_says_the_same(world: World) -> None:
    created = world.fhir.created(
        example("Condition/burn") | {"subject": {"reference": f"Patient/{DEMO_PATIENT}"}}
    )
    world.sdk.update_health_element(created["id"], {})
    assert_same(bare(world.fhir.read(f"Condition/{created['id']}")), bare(created))


def test_a_fhir_update_keeps_what_only_icure_says_of_a_health_element(world: World) -> None:
    patient_id = world.sdk.create_patient(PATIENT)["id"]
    made = world.sdk.create_health_element(patient_id, FEVER)
    path = f"Condition/{made['id']}"
    resource = world.fhir.read(path)
    world.fhir.send("PUT", path, resource)
    assert world.fhir.read(path)["meta"] == resource["meta"]
    resource["code"]["text"] = "fever"
    resource["bodySite"] = [{"text": "whole"}]
    sent = bare(resource)
    world.fhir.send("PUT", path, resource)
    assert_same(bare(world.fhir.read(path)), sent)
    element = world.sdk.get_health_element(made["id"])
    assert (element["descr"], element["note"]) == ("fever", "only in iCure")
    assert element["idOpeningContact"] == "some-contact"
    assert [c["code"] for c in element["codes"]] == ["386661006"]


def test_a_condition_that_the_sdk_shares_is_seen_by_the_other(world: World) -> None:
    patient = world.fhir.created(example("Patient/rich") | {"id": "sharing"})
    condition = world.fhir.created(condition_of(patient["id"]))
    path = f"Condition/{condition['id']}"
    world.other_fhir.get(path, 403)
    other = world.other_fhir.account["dataOwnerId"]
    world.sdk.share_patient_with(patient["id"], other)
    world.sdk.share_health_element_with(condition["id"], other)
    assert_same(bare(world.other_fhir.read(path)), bare(condition))
    found = world.other_fhir.found(f"Condition?patient=Patient/{patient['id']}")
    assert [c["id"] for c in found] == [condition["id"]]


def test_a_condition_deleted_on_one_side_is_gone_on_the_other(world: World) -> None:
    first, second = (world.fhir.created(condition_of(DEMO_PATIENT)) for _ in range(2))
    world.fhir.send("DELETE", f"Condition/{first['id']}", status=204)
    assert world.sdk.get_health_element(first["id"])["deletionDate"] > 0
    world.sdk.delete_health_element(second["id"])
    world.fhir.get(f"Condition/{second['id']}", 410)


# Practitioner, Organization and HealthcareParty

DOCTOR = {
    "firstName": "Gregory",
    "lastName": "House",
    "gender": "male",
    "languages": ["en"],
    "identifier": [{"system": "urn:doctors", "value": "221"}],
    "addresses": [{"addressType": "work", "city": "Princeton"}],
    "nihii": "11111111111",
    "speciality": "diagnostics",
}


def test_the_sdk_reads_parties_that_were_posted_as_fhir(world: World) -> None:
    doctor = world.fhir.created(
        {
            "resourceType": "Practitioner",
            "active": True,
            "identifier": [{"system": "urn:doctors", "value": "1"}],
            "name": [{"use": "official", "family": "Wilson", "given": ["James"], "prefix": ["Dr"]}],
            "gender": "male",
            "telecom": [{"system": "phone", "value": "555", "use": "work"}],
            "birthDate": "1969",
        }
    )
    party = world.sdk.get_party(doctor["id"])
    assert (party["firstName"], party["lastName"], party["gender"]) == ("James", "Wilson", "male")
    assert party["identifier"][0]["value"] == "1"
    telecoms = [t for a in party["addresses"] for t in a.get("telecoms", [])]
    assert [t["telecomNumber"] for t in telecoms] == ["555"]
    ward = world.fhir.created(example("Organization/hospital"))
    assert world.sdk.get_party(ward["id"])["name"] == ward["name"]


@pytest.mark.parametrize("path", ["Practitioner/rich", "Organization/hospital", "Organization/nameless"])
def test_a_party_saved_unchanged_with_the_sdk_says_the_same(world: World, path: str) -> None:
    created = world.fhir.created(example(path))
    world.sdk.update_party(created["id"], {})
    assert_same(bare(world.fhir.read(f"{created['resourceType']}/{created['id']}")), bare(created))


def test_a_party_that_the_sdk_wrote_is_a_valid_practitioner_and_keeps_what_only_icure_says(
    world: World,
) -> None:
    made = world.sdk.create_party(DOCTOR)
    path = f"Practitioner/{made['id']}"
    doctor = world.fhir.read(path)
    assert_valid(doctor)
    assert doctor["name"][0]["family"] == "House"
    assert doctor["identifier"] == [{"system": "urn:doctors", "value": "221"}]
    assert made["id"] in [p["id"] for p in world.fhir.found("Practitioner?identifier=urn:doctors|221")]
    assert world.fhir.found(f"Organization?_id={made['id']}") == []
    doctor["name"][0]["given"] = ["Greg"]
    doctor["birthDate"] = "1959-06-11"
    sent = bare(doctor)
    world.fhir.send("PUT", path, doctor)
    assert_same(bare(world.fhir.read(path)), sent)
    party = world.sdk.get_party(made["id"])
    assert (party["firstName"], party["nihii"], party["speciality"]) == ("Greg", "11111111111", "diagnostics")
    world.sdk.update_party(made["id"], {"lastName": "Casa"})
    edited = world.fhir.read(path)
    assert (edited["name"][0]["family"], edited["birthDate"]) == ("Casa", "1959-06-11")


def test_an_organization_that_the_sdk_wrote_is_one_in_fhir(world: World) -> None:
    made = world.sdk.create_party({"name": "Plainsboro", "type": "hospital"})
    ward = world.fhir.read(f"Organization/{made['id']}")
    assert_valid(ward)
    assert ward["name"] == "Plainsboro"
    assert world.fhir.found(f"Practitioner?_id={made['id']}") == []
