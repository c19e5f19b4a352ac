"""Condition, Practitioner and Organization over HTTP: each does what Patient and Observation do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bridge import wire
from bridge.embedded import Store, admin
from mappings.values import Entity, Resource
from tests.helpers import CORPUS, DEMO_PATIENT, Caller, assert_outcome, count_calls, stored
from tests.promises import assert_same, bare, coming_back

SNOMED = "http://snomed.info/sct"
CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
TYPES = ("Condition", "Practitioner", "Organization")
OWN = [f for t in TYPES for f in sorted((Path(__file__).parent / "data" / t).glob("*.json"))]
HL7 = [f for t in TYPES for f in sorted((CORPUS / "hl7-r4").glob(f"{t}-*.json"))]
ESMITH = "2d205ac4-c8c9-428b-b68e-d9381da235d2"


def condition(**elements: Any) -> Resource:
    return {
        "resourceType": "Condition",
        "code": {"coding": [{"system": SNOMED, "code": "39065001", "display": "Burn of ear"}]},
        "subject": {"reference": f"Patient/{DEMO_PATIENT}"},
        **elements,
    }


def practitioner(**elements: Any) -> Resource:
    return {"resourceType": "Practitioner", "name": [{"family": "Peeters", "given": ["Anna"]}], **elements}


def organization(**elements: Any) -> Resource:
    return {"resourceType": "Organization", "name": "Sint-Jan", **elements}


MADE = {"Condition": condition, "Practitioner": practitioner, "Organization": organization}
every_type = pytest.mark.parametrize("made", MADE.values(), ids=MADE)


def document(data_dir: Path, kind: str, entity_id: str) -> Entity:
    """Returns a document as the embedded store has it."""
    entity: Entity = json.loads(stored(data_dir)[kind, entity_id][1])
    return entity


def transaction(*entries: Resource) -> Resource:
    return {"resourceType": "Bundle", "type": "transaction", "entry": list(entries)}


def posted(resource: Resource, full_url: str = "") -> Resource:
    request = {"method": "POST", "url": resource["resourceType"]}
    return {"resource": resource, "request": request, **({"fullUrl": full_url} if full_url else {})}


# what every type does


@every_type
def test_it_is_created_read_changed_and_deleted(esmith: Caller, made: Any) -> None:
    kind = made()["resourceType"]
    created = esmith.created(made(id="mine"))
    url = f"{kind}/{created['id']}"
    assert bare(created) == coming_back(made(id="mine"), {})
    assert esmith.get(url).json == esmith.get(f"{kind}/mine").json == created

    changed = esmith.send("PUT", url, {**created, "language": "nl"})
    assert (changed.status_code, changed.json["language"]) == (200, "nl")
    assert changed.headers["ETag"] != f'W/"{created["meta"]["versionId"]}"'

    patched = esmith.send(
        "PATCH",
        url,
        wire.dump([{"op": "replace", "path": "/language", "value": "fr"}]),
        Content_Type="application/json-patch+json",
    )
    assert (patched.status_code, patched.json["language"]) == (200, "fr")

    assert esmith.delete(url).status_code == 204
    assert_outcome(esmith.get(url), 410, "deleted")
    assert_outcome(esmith.get(f"{kind}/mine"), 410, "deleted")


@every_type
def test_an_untouched_update_writes_nothing(esmith: Caller, made: Any) -> None:
    created = esmith.created(made())
    upstream = count_calls(esmith.app)
    again = esmith.send("PUT", f"{created['resourceType']}/{created['id']}", created)
    assert (again.status_code, again.json) == (200, created)
    assert not [call for call in upstream.told() if call.startswith(("PUT", "DELETE"))]


@every_type
def test_an_update_of_an_unknown_id_creates_with_that_id(esmith: Caller, made: Any) -> None:
    url = f"{made()['resourceType']}/0b6ffd9a-3a1e-4a0c-9f8e-0f2a5d1f7a01"
    response = esmith.send("PUT", url, made(id=url.partition("/")[2]))
    assert response.status_code == 201, response.text
    assert bare(esmith.get(url).json) == made()


@every_type
def test_a_stale_update_is_refused(esmith: Caller, made: Any) -> None:
    created = esmith.created(made())
    url = f"{created['resourceType']}/{created['id']}"
    esmith.send("PUT", url, {**created, "language": "nl"})
    stale = esmith.send("PUT", url, {**created, "language": "fr"}, If_Match='W/"1-0"')
    assert_outcome(stale, 412)
    assert esmith.get(url).json["language"] == "nl"


@every_type
def test_a_conditional_create_makes_one(esmith: Caller, made: Any) -> None:
    resource = made(identifier=[{"system": "http://example.org/n", "value": "7"}])
    condition_ = {"If_None_Exist": "identifier=http://example.org/n|7"}
    first = esmith.post(resource["resourceType"], resource, **condition_)
    second = esmith.post(resource["resourceType"], resource, **condition_)
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json["id"] == first.json["id"]


@every_type
def test_its_history_is_the_current_version(esmith: Caller, made: Any) -> None:
    created = esmith.created(made())
    url = f"{created['resourceType']}/{created['id']}"
    (entry,) = esmith.get(f"{url}/_history").json["entry"]
    assert entry["resource"] == created
    assert esmith.get(f"{url}/_history/{created['meta']['versionId']}").json == created


@pytest.mark.parametrize("example", [*OWN, *HL7], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_an_example_comes_back_as_it_was_sent(esmith: Caller, example: Path) -> None:
    sent = wire.parse(example.read_bytes())
    served = {}
    kind, _, client_id = sent.get("subject", {}).get("reference", "").partition("/")
    if kind == "Patient" and client_id != DEMO_PATIENT:
        patient = esmith.created({"resourceType": "Patient", "id": client_id})
        served[f"Patient/{client_id}"] = f"Patient/{patient['id']}"
    created = esmith.created(sent)
    read = wire.parse(esmith.get(f"{sent['resourceType']}/{created['id']}").data)
    assert_same(read, created)
    assert_same(bare(read), coming_back(wire.parse(example.read_bytes()), served))


def test_a_transaction_joins_all_types(esmith: Caller) -> None:
    patient, doctor, house = (f"urn:uuid:00000000-0000-4000-8000-00000000000{n}" for n in "123")
    answer = esmith.post(
        "",
        transaction(
            posted(condition(subject={"reference": patient}, recorder={"reference": doctor})),
            posted({"resourceType": "Patient", "managingOrganization": {"reference": house}}, patient),
            posted(practitioner(), doctor),
            posted(organization(), house),
        ),
    )
    assert answer.status_code == 200, answer.text
    locations = [e["response"]["location"].split("/_history")[0] for e in answer.json["entry"]]
    names = ["/".join(location.split("/")[-2:]) for location in locations]
    made, person = esmith.get(names[0]).json, esmith.get(names[1]).json
    assert made["subject"] == {"reference": names[1]}
    assert made["recorder"] == {"reference": names[2]}
    assert person["managingOrganization"] == {"reference": names[3]}
    assert [c["id"] for c in esmith.found(f"Condition?patient={names[1]}")] == [made["id"]]


def test_a_transaction_that_fails_leaves_none_of_them(esmith: Caller, data_dir: Path) -> None:
    before = stored(data_dir)
    answer = esmith.post(
        "",
        transaction(
            posted(practitioner()),
            posted(condition(subject={"reference": "Patient/nobody"})),
            posted(organization()),
        ),
    )
    assert_outcome(answer, 422, "not-found", "Bundle.entry[1].resource.subject")
    assert stored(data_dir) == before


# Condition


def test_a_condition_is_encrypted_but_for_its_codes_and_dates(esmith: Caller, data_dir: Path) -> None:
    told = {
        "code": {
            "coding": [{"system": SNOMED, "code": "39065001", "display": "hidden a"}],
            "text": "hidden b",
        },
        "clinicalStatus": {"coding": [{"system": CLINICAL, "code": "active", "display": "hidden c"}]},
        "severity": {"text": "hidden d"},
        "note": [{"text": "hidden e", "authorString": "hidden f"}],
        "onsetDateTime": "2012-05-24",
        "abatementString": "hidden g",
    }
    upstream = count_calls(esmith.app)
    element = document(data_dir, "HealthElement", esmith.created(condition(**told))["id"])
    assert b"hidden" not in b"".join([*upstream.sent, json.dumps(element).encode()])
    assert element["codes"] == [{"type": SNOMED, "code": "39065001", "context": "code"}]
    assert element["openingDate"] == 20120524
    assert {"type": CLINICAL, "code": "active", "context": "clinicalStatus"} in element["tags"]
    assert element["healthElementId"] == element["id"]


def test_a_condition_belongs_to_its_patient_by_a_secret_id_and_by_its_delegation(
    esmith: Caller, data_dir: Path
) -> None:
    one, other = (document(data_dir, "HealthElement", esmith.created(condition())["id"]) for _ in "12")
    assert one["secretForeignKeys"] == other["secretForeignKeys"]
    assert DEMO_PATIENT not in json.dumps(one)
    (delegation,) = one["securityMetadata"]["secureDelegations"].values()
    assert delegation["owningEntityIds"]


SEARCHES = {
    "code": f"code={SNOMED}|39065001",
    "code alone": f"code=39065001&patient={DEMO_PATIENT}",
    "clinical status": f"clinical-status={CLINICAL}|active",
    "clinical status without system": "clinical-status=active",
    "verification status": "verification-status=refuted",
    "category": "category=http://example.org/c|problem",
    "tag": "_tag=http://example.org/t|run",
    "identifier": "identifier=http://example.org/n|7",
    "client id": "_id=mine",
    "subject": f"subject=Patient/{DEMO_PATIENT}",
    "patient": f"patient={DEMO_PATIENT}",
    "patient by what is known of it": "patient.gender=male",
    "onset": "onset-date=2012",
    "onset, later": "onset-date=gt2012-05-23",
    "abatement": "abatement-date=2013-01",
    "severity": "severity=bad",
    "several": f"code={SNOMED}|39065001&clinical-status=active&onset-date=lt2013",
    "updated": "_lastUpdated=gt2020",
}


@pytest.fixture
def burn(esmith: Caller) -> Resource:
    """A condition that has all that is searched for, beside one that has none of it."""
    other = esmith.created({"resourceType": "Patient", "gender": "female"})
    esmith.created(
        {
            "resourceType": "Condition",
            "subject": {"reference": f"Patient/{other['id']}"},
            "clinicalStatus": {"coding": [{"system": CLINICAL, "code": "resolved"}]},
            "onsetDateTime": "1999",
        }
    )
    return esmith.created(
        condition(
            id="mine",
            meta={"tag": [{"system": "http://example.org/t", "code": "run"}]},
            identifier=[{"system": "http://example.org/n", "value": "7"}],
            clinicalStatus={"coding": [{"system": CLINICAL, "code": "active"}]},
            verificationStatus={"coding": [{"code": "refuted"}]},
            category=[{"coding": [{"system": "http://example.org/c", "code": "problem"}]}],
            severity={"coding": [{"code": "bad"}]},
            onsetDateTime="2012-05-24",
            abatementPeriod={"start": "2013-01-02", "end": "2013-01-05"},
        )
    )


def test_a_condition_is_found(esmith: Caller, burn: Resource) -> None:
    wrong = {
        name: query for name, query in SEARCHES.items() if burn not in esmith.found(f"Condition?{query}")
    }
    assert wrong == {}


def test_what_does_not_match_is_not_found(esmith: Caller, burn: Resource) -> None:
    alike = {"updated"}
    wrong = {n: q for n, q in SEARCHES.items() if n not in alike and len(esmith.found(f"Condition?{q}")) != 1}
    assert wrong == {}


def test_patients_are_found_by_their_conditions(esmith: Caller, burn: Resource) -> None:
    (found,) = esmith.found(f"Patient?_has:Condition:patient:code={SNOMED}|39065001")
    assert found["id"] == DEMO_PATIENT


def test_a_condition_stays_with_its_patient(esmith: Caller) -> None:
    created = esmith.created(condition())
    other = esmith.created({"resourceType": "Patient"})
    moved = {**created, "subject": {"reference": f"Patient/{other['id']}"}}
    url = f"Condition/{created['id']}"
    assert_outcome(esmith.send("PUT", url, moved), 422, "business-rule", "Condition.subject")
    assert esmith.get(url).json == created


def test_a_condition_of_somebody_unknown_is_refused(esmith: Caller) -> None:
    unknown = condition(subject={"reference": "Patient/nobody"})
    assert_outcome(esmith.post("Condition", unknown), 422, "not-found", "Condition.subject")


def test_a_condition_of_a_group_has_no_patient(esmith: Caller, data_dir: Path) -> None:
    created = esmith.created(condition(subject={"reference": "Group/herd"}))
    assert "secretForeignKeys" not in document(data_dir, "HealthElement", created["id"])
    assert esmith.get(f"Condition/{created['id']}").json["subject"] == {"reference": "Group/herd"}


def test_a_condition_is_not_for_others(esmith: Caller, jdoe: Caller) -> None:
    created = esmith.created(condition())
    assert_outcome(jdoe.get(f"Condition/{created['id']}"), 403)
    assert jdoe.found("Condition") == []


# Practitioner and Organization


PARTIES = {
    "Practitioner": (
        practitioner(
            identifier=[{"system": "http://example.org/n", "value": "7"}],
            telecom=[{"system": "phone", "value": "555"}, {"system": "email", "value": "a@b.be"}],
            active=True,
        ),
        "name=peet name=anna family=peet given=anna identifier=http://example.org/n|7 phone=555 email=a@b.be "
        "telecom=phone|555 active=true",
    ),
    "Organization": (
        organization(
            identifier=[{"system": "http://example.org/n", "value": "7"}],
            alias=["Saint Jean"],
            address=[{"city": "Brussel"}],
            type=[{"coding": [{"system": "http://example.org/t", "code": "lab"}]}],
        ),
        "name=sint name=saint identifier=http://example.org/n|7 address=brus address-city=brussel "
        "type=http://example.org/t|lab type=lab",
    ),
}


@pytest.mark.parametrize(("resource", "queries"), PARTIES.values(), ids=PARTIES)
def test_a_party_is_found_by_everybody(
    esmith: Caller, jdoe: Caller, resource: Resource, queries: str
) -> None:
    created = esmith.created(resource)
    kind = resource["resourceType"]
    for caller in (esmith, jdoe):
        assert {q: caller.found(f"{kind}?{q}") for q in queries.split()} == {
            q: [created] for q in queries.split()
        }


def test_each_type_lists_its_own(esmith: Caller) -> None:
    person, house = esmith.created(practitioner()), esmith.created(organization())
    persons = {p["id"] for p in esmith.found("Practitioner")}
    houses = {h["id"] for h in esmith.found("Organization")}
    assert {person["id"], "f005", ESMITH} <= persons
    assert {house["id"], "1"} <= houses
    assert persons & houses == set()


def test_a_party_made_as_one_type_is_not_read_as_the_other(esmith: Caller) -> None:
    person, house = esmith.created(practitioner()), esmith.created(organization())
    assert_outcome(esmith.get(f"Organization/{person['id']}"), 404)
    assert_outcome(esmith.get(f"Practitioner/{house['id']}"), 404)


def test_a_party_that_icure_made_is_read_as_whatever_refers_to_it(esmith: Caller) -> None:
    assert esmith.get("Practitioner/1").json["resourceType"] == "Practitioner"
    assert esmith.get("Organization/1").json["name"] == "ACME Healthcare, Inc"


def test_only_administrators_make_a_party(jdoe: Caller, data_dir: Path) -> None:
    before = stored(data_dir)
    refused = jdoe.post("Practitioner", practitioner())
    assert_outcome(refused, 403, "forbidden")
    assert "administrators" in refused.text
    assert_outcome(jdoe.delete("Organization/1"), 403, "forbidden")
    assert stored(data_dir) == before


def test_a_party_changes_itself_and_keeps_its_keys_and_rights(
    jdoe: Caller, data_dir: Path, accounts: dict[str, dict[str, str]]
) -> None:
    own = accounts["jdoe"]["dataOwnerId"]
    before = document(data_dir, "HealthcareParty", own)
    response = jdoe.send("PUT", f"Practitioner/{own}", practitioner(id=own, birthDate="1970"))
    assert response.status_code == 200, response.text
    after = document(data_dir, "HealthcareParty", own)
    changed = {n for n in before | after if before.get(n) != after.get(n)}
    assert changed == {"rev", "modified", "names", "firstName", "lastName", "properties"}
    assert jdoe.get(f"Practitioner/{own}").json["birthDate"] == "1970"
    assert jdoe.load_key().status_code == 200


SECRET = {
    "publicKey": "30aa",
    "publicKeysForOaepWithSha256": ["30bb"],
    "hcPartyKeys": {"x": ["30cc"]},
    "aesExchangeKeys": {"30dd": {"x": {"y": "30ee"}}},
    "transferKeys": {"f": {"t": "30ff"}},
    "privateKeyShamirPartitions": {"x": "3011"},
    "parentId": ESMITH,
    "userId": "user-22",
    "public": True,
}


@pytest.mark.parametrize("kind", ["Practitioner", "Organization"])
def test_keys_and_rights_of_a_party_are_neither_shown_nor_changed(
    esmith: Caller, data_dir: Path, kind: str
) -> None:
    admin.create_healthcare_party(
        Store(data_dir), {"id": "party", "name": "Anna", "lastName": "Anna", **SECRET}
    )
    shown = esmith.get(f"{kind}/party")
    assert not [
        value for value in ("30aa", "30bb", "30cc", "30dd", "30ee", ESMITH, "user-22") if value in shown.text
    ]
    replaced = {
        "resourceType": kind,
        "id": "party",
        "extension": [{"url": "parentId", "valueString": "x"}],
        **({"partOf": {"reference": "Organization/1"}} if kind == "Organization" else {}),
    }
    assert esmith.send("PUT", f"{kind}/party", replaced).status_code == 200
    after = document(data_dir, "HealthcareParty", "party")
    assert {name: after[name] for name in SECRET} == SECRET


@pytest.mark.parametrize("text", ["no json", "[1]", '{"name": 7}', '{"name": {"l": [1]}}', "[" * 5000])
def test_a_residue_that_somebody_spoiled_is_none(esmith: Caller, data_dir: Path, text: str) -> None:
    spoiled = {"id": "fhir-residue", "typedValue": {"type": "STRING", "stringValue": text}}
    party = {"id": "party", "lastName": "Doe", "properties": [spoiled]}
    admin.create_healthcare_party(Store(data_dir), party)
    assert esmith.get("Practitioner/party").json["name"] == [{"family": "Doe"}]
    assert "party" in {p["id"] for p in esmith.found("Practitioner")}


def test_a_practitioner_is_referred_to_by_the_id_that_a_client_gave_it(esmith: Caller) -> None:
    person = esmith.created(practitioner(id="anna"))
    made = esmith.created(condition(recorder={"reference": "Practitioner/anna"}))
    assert made["recorder"] == {"reference": f"Practitioner/{person['id']}"}
