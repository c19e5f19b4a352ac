"""A few Patients and Observations that differ in every element a search looks at."""

from __future__ import annotations

from typing import Any

Resource = dict[str, Any]
LOINC, UCUM = "http://loinc.org", "http://unitsofmeasure.org"
ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"


def patient(client_id: str, **members: Any) -> Resource:
    return {"resourceType": "Patient", "id": client_id, **members}


def concept(system: str, code: str, **members: Any) -> Resource:
    return {"coding": [{"system": system, "code": code, **members}]}


def amount(value: Any, unit: str = "g", **members: Any) -> Resource:
    return {"value": value, "unit": unit, "system": UCUM, "code": unit, **members}


def observation(client_id: str, about: str | None = "anna", code: str = "718-7", **members: Any) -> Resource:
    subject = {"subject": {"reference": f"Patient/{about}"}} if about else {}
    return {
        "resourceType": "Observation",
        "id": client_id,
        "status": "final",
        "code": concept(LOINC, code),
        **subject,
        **members,
    }


PATIENTS = [
    patient(
        "anna",
        active=True,
        identifier=[
            {
                "type": {"coding": [{"system": "urn:types", "code": "MR"}], "text": "Medical record"},
                "system": "urn:hospital",
                "value": "A-1",
            }
        ],
        name=[{"use": "official", "family": "Müller", "given": ["Anna", "Maria"]}],
        gender="female",
        birthDate="1974-03-05",
        address=[
            {"use": "home", "line": ["Rue Haute 12"], "city": "Liège", "postalCode": "4000", "country": "BE"}
        ],
        telecom=[
            {"system": "phone", "value": "+32 2 555 01 02"},
            {"system": "email", "value": "anna@example.org"},
        ],
        communication=[{"language": concept("urn:ietf:bcp:47", "fr-BE")}],
        meta={"tag": [{"system": "urn:tags", "code": "study"}]},
    ),
    patient(
        "bo",
        active=False,
        identifier=[{"system": "urn:hospital", "value": "B|2"}, {"system": "urn:other", "value": "A-1"}],
        name=[{"family": "Mulder", "given": ["Bo"]}],
        gender="male",
        birthDate="1974-03",
        deceasedDateTime="2020-05-17",
        address=[{"use": "work", "city": "Namur", "state": "Wallonia", "postalCode": "5000"}],
        telecom=[{"system": "phone", "value": "555"}],
        managingOrganization={"reference": "Organization/1", "display": "Hospital"},
        generalPractitioner=[{"reference": "Practitioner/f005"}],
    ),
    patient(
        "chris",
        name=[{"family": "O'Neil, Jr.", "given": ["Chris"]}],
        gender="other",
        birthDate="1974",
        deceasedBoolean=True,
        link=[{"other": {"reference": "Patient/anna"}, "type": "seealso"}],
    ),
    patient(
        "dora", name=[{"family": "Ødegård", "given": ["Dora"]}], deceasedBoolean=False, birthDate="2001-12-31"
    ),
    patient("empty", name=[{"family": "Zeno"}]),
]
OBSERVATIONS = [
    observation(
        "gram",
        effectiveDateTime="2024-05-17T08:30:00Z",
        valueQuantity=amount(5),
        category=[concept(CATEGORY, "laboratory")],
        identifier=[{"system": "urn:lab", "value": "7"}],
        performer=[{"reference": "Practitioner/f005"}],
        method=concept("urn:methods", "probe"),
        device={"reference": "Device/d1"},
        specimen={"reference": "Specimen/s1"},
        encounter={"reference": "Encounter/e1"},
        meta={"tag": [{"system": "urn:tags", "code": "study"}]},
    ),
    observation(
        "exact", effectiveDateTime="2024-05-17", valueQuantity=amount(5.4), status="amended", code="2339-0"
    ),
    observation("milli", "bo", effectiveDateTime="2024-05", valueQuantity=amount(5400, "mg")),
    observation("less", "bo", effectiveDateTime="2023", valueQuantity=amount(5, comparator="<")),
    observation(
        "period", effectivePeriod={"start": "2023-12-30", "end": "2024-01-02"}, valueString="Straße, sauber"
    ),
    observation(
        "open", effectivePeriod={"start": "2020-01-01"}, valueCodeableConcept=concept("urn:v", "yes")
    ),
    observation(
        "panel",
        None,
        "55284-4",
        subject={"identifier": {"system": "urn:pets", "value": "rex"}, "display": "Rex"},
        component=[
            {"code": concept(LOINC, "8480-6"), "valueQuantity": amount(120, "mm[Hg]")},
            {"code": concept(LOINC, "8462-4"), "valueQuantity": amount(80, "mm[Hg]")},
        ],
        hasMember=[{"reference": "Observation/gram"}],
    ),
    observation(
        "absent",
        None,
        subject={"reference": "Group/g1"},
        dataAbsentReason=concept(ABSENT, "unknown"),
        derivedFrom=[{"reference": "Observation/exact"}],
        focus=[{"reference": "Patient/bo"}],
    ),
    observation(
        "dated", "chris", valueDateTime="2024-05-17T08:30:00+02:00", code="29463-7", status="preliminary"
    ),
    observation(
        "texty",
        "dora",
        code="29463-7",
    )
    | {
        "code": {
            "coding": [{"system": LOINC, "code": "29463-7", "display": "Body weight"}],
            "text": "Gewicht",
        }
    },
]
