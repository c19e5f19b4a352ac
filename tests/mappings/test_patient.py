"""FHIR Patient and iCure Patient, side by side."""

from __future__ import annotations

import pytest

from mappings.engine import MappingError
from mappings.patient import PATIENT
from mappings.values import Entity, Resource

from .helpers import CONTEXT

MARITAL_STATUS = "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus"
RELATIONSHIP = "http://terminology.hl7.org/CodeSystem/v2-0131"
ROLE = "http://terminology.hl7.org/CodeSystem/v3-RoleCode"
MRN = {"system": "http://example.org/mrn", "value": "1"}


def marital(code: str) -> Resource:
    return {"maritalStatus": {"coding": [{"system": MARITAL_STATUS, "code": code}]}}


def contact(system: str, code: str) -> Resource:
    return {"contact": [{"relationship": [{"coding": [{"system": system, "code": code}]}]}]}


def speaks(*codes: str) -> Resource:
    languages = [{"coding": [{"system": "urn:ietf:bcp:47", "code": code}]} for code in codes]
    return {"communication": [{"language": language} for language in languages]}


def name(**members: object) -> Resource:
    return {"name": [members]}


def phone(**members: str) -> Resource:
    return {"telecom": [members]}


def at(kind: str | None, kind_of_telecom: str, number: str) -> Entity:
    address: Entity = {"addressType": kind} if kind else {}
    return {
        "addresses": [{**address, "telecoms": [{"telecomType": kind_of_telecom, "telecomNumber": number}]}]
    }


BOTH_WAYS: dict[str, tuple[Resource, Entity]] = {
    "identifier": (
        {"identifier": [{"use": "official", **MRN, "period": {"start": "2020", "end": "2021-02-03"}}]},
        {"identifier": [{"use": "official", **MRN, "start": "2020", "end": "2021-02-03"}]},
    ),
    "identifier's type and assigner": (
        {
            "identifier": [
                {
                    "type": {"coding": [{"system": "urn:a", "code": "NN"}]},
                    "assigner": {"display": "Town"},
                    **MRN,
                }
            ]
        },
        {"identifier": [{"type": {"type": "urn:a", "code": "NN"}, "assigner": "Town", **MRN}]},
    ),
    "active": ({"active": False}, {"active": False}),
    "official name": (
        name(
            use="official", family="Éynde", given=["Zoé", "Anne"], prefix=["Dr"], suffix=["PhD"], text="Zoé"
        ),
        {
            "names": [
                {
                    "use": "official",
                    "lastName": "Éynde",
                    "firstNames": ["Zoé", "Anne"],
                    "prefix": ["Dr"],
                    "suffix": ["PhD"],
                    "text": "Zoé",
                }
            ],
            "firstName": "Zoé Anne",
            "lastName": "Éynde",
        },
    ),
    "official before others": (
        {"name": [{"use": "nickname", "given": ["Z"]}, {"use": "official", "family": "E", "given": ["A"]}]},
        {
            "names": [
                {"use": "nickname", "firstNames": ["Z"]},
                {"use": "official", "lastName": "E", "firstNames": ["A"]},
            ],
            "firstName": "A",
            "lastName": "E",
        },
    ),
    "family name alone": (
        name(family="E"),
        {"names": [{"lastName": "E"}], "firstName": None, "lastName": "E"},
    ),
    "given name alone": (name(given=["A"]), {"names": [{"firstNames": ["A"]}], "firstName": "A"}),
    "text alone": (name(text="Suharto"), {"names": [{"text": "Suharto"}], "lastName": "Suharto"}),
    "name's period": (
        name(family="E", period={"start": "1985-01-30", "end": "1999"}),
        {"names": [{"lastName": "E", "start": 19850130, "end": 19990000}]},
    ),
    "no name": ({}, {"names": None, "firstName": None, "lastName": ""}),
    "home phone": (phone(system="phone", use="home", value="1"), at("home", "phone", "1")),
    "work e-mail": (phone(system="email", use="work", value="a@b"), at("work", "email", "a@b")),
    "temporary fax": (phone(system="fax", use="temp", value="1"), at("temporary", "fax", "1")),
    "mobile": (phone(system="phone", use="mobile", value="1"), at(None, "mobile", "1")),
    "pager": (phone(system="pager", value="1"), at(None, "pager", "1")),
    "web page": (phone(system="url", value="http://a"), at(None, "web", "http://a")),
    "another telecom": (phone(system="other", value="1"), at(None, "other", "1")),
    "phone at an address": (
        {
            "telecom": [{"system": "phone", "use": "home", "value": "1"}],
            "address": [{"use": "home", "city": "X"}],
        },
        {
            "addresses": [
                {
                    "addressType": "home",
                    "city": "X",
                    "telecoms": [{"telecomType": "phone", "telecomNumber": "1"}],
                }
            ]
        },
    ),
    "address": (
        {
            "address": [
                {
                    "use": "work",
                    "line": ["Rue Haute 1"],
                    "city": "X",
                    "state": "Y",
                    "postalCode": "1000",
                    "country": "BE",
                }
            ]
        },
        {
            "addresses": [
                {
                    "addressType": "work",
                    "street": "Rue Haute 1",
                    "city": "X",
                    "state": "Y",
                    "postalCode": "1000",
                    "country": "BE",
                }
            ]
        },
    ),
    "postal address": (
        {"address": [{"type": "postal", "city": "X"}]},
        {"addresses": [{"addressType": "postal", "city": "X"}]},
    ),
    "male": ({"gender": "male"}, {"gender": "male"}),
    "female": ({"gender": "female"}, {"gender": "female"}),
    "other": ({"gender": "other"}, {"gender": "indeterminate"}),
    "unknown": ({"gender": "unknown"}, {"gender": "unknown"}),
    "born on a day": ({"birthDate": "1990-02-28"}, {"dateOfBirth": 19900228}),
    "born in a month": ({"birthDate": "1990-02"}, {"dateOfBirth": 19900200}),
    "born in a year": ({"birthDate": "1990"}, {"dateOfBirth": 19900000}),
    "alive": ({"deceasedBoolean": False}, {"deceased": False, "dateOfDeath": None}),
    "dead": ({"deceasedBoolean": True}, {"deceased": True, "dateOfDeath": None}),
    "dead since": ({"deceasedDateTime": "2020-03"}, {"deceased": True, "dateOfDeath": 20200300}),
    **{
        f"marital status {code}": (marital(code), {"personalStatus": status})
        for code, status in {
            "A": "annulled",
            "D": "divorced",
            "I": "divorcing",
            "L": "separated",
            "M": "married",
            "P": "polygamous",
            "S": "single",
            "T": "contract",
            "W": "widowed",
        }.items()
    },
    "languages": (speaks("nl", "fr"), {"languages": ["nl", "fr"]}),
    "photo": (
        {"photo": [{"contentType": "image/png", "data": "iVBORw0KGgo="}]},
        {"picture": "iVBORw0KGgo="},
    ),
    **{
        f"contact {code}": (contact(system, code), {"partnerships": [{"type": kind}]})
        for (system, code), kind in {
            (RELATIONSHIP, "C"): "primary_contact",
            (RELATIONSHIP, "N"): "next_of_kin",
            (RELATIONSHIP, "E"): "employer",
            (RELATIONSHIP, "U"): "unknown",
            (ROLE, "MTH"): "mother",
            (ROLE, "SPS"): "spouse",
            (ROLE, "NBOR"): "neighbour",
        }.items()
    },
    "general practitioner": (
        {"generalPractitioner": [{"reference": "Practitioner/h1"}]},
        {"patientHealthCareParties": [{"type": "doctor", "healthcarePartyId": "h1"}]},
    ),
    "managing organization": (
        {"managingOrganization": {"reference": "Organization/o1"}},
        {"patientHealthCareParties": [{"type": "managingorganization", "healthcarePartyId": "o1"}]},
    ),
    "see also": (
        {"link": [{"other": {"reference": "Patient/p2"}, "type": "seealso"}]},
        {"partnerships": [{"type": "seealso", "partnerId": "p2"}]},
    ),
    "tag": (
        {"meta": {"tag": [{"system": "urn:a", "version": "2", "code": "x"}]}},
        {"tags": [{"id": "urn:a|x|2", "type": "urn:a", "code": "x", "version": "2"}]},
    ),
}
READ = {
    "gender changed": ({"gender": "changed"}, {"gender": "other"}),
    "gender changed to male": ({"gender": "changedToMale"}, {"gender": "male"}),
    "no gender": ({"gender": None}, {"gender": "unknown"}),
    "no flag": ({"active": None}, {"active": True}),
    "names as older clients write them": (
        {"firstName": "Zoé Anne", "lastName": "Éynde"},
        name(family="Éynde", given=["Zoé", "Anne"]),
    ),
    "house number and box": (
        {"addresses": [{"street": "Rue Haute", "houseNumber": "1", "postboxNumber": "2"}]},
        {"address": [{"line": ["Rue Haute 1 / 2"]}]},
    ),
    "a kind of address that FHIR has not": (
        {"addresses": [{"addressType": "vacation", "city": "X"}]},
        {"address": [{"city": "X"}]},
    ),
    "a kind of telecom that FHIR has not": (
        {"addresses": [{"telecoms": [{"telecomType": "skype", "telecomNumber": "z"}]}]},
        phone(system="other", value="z"),
    ),
    "widower": ({"personalStatus": "widower"}, marital("W")),
    "in couple": ({"personalStatus": "in_couple"}, {"maritalStatus": {"text": "in couple"}}),
    "a kind of contact that FHIR has not": (
        {"partnerships": [{"type": "brotherinlaw"}]},
        {"contact": [{"relationship": [{"text": "brotherinlaw"}]}]},
    ),
    "a contact that is an organization": (
        {"partnerships": [{"partnerType": "healthcareParty", "partnerId": "o1"}]},
        {"contact": [{"organization": {"reference": "Organization/o1"}}]},
    ),
    "merged": (
        {"mergeToPatientId": "p2", "mergedIds": ["p3"]},
        {
            "link": [
                {"other": {"reference": "Patient/p2"}, "type": "replaced-by"},
                {"other": {"reference": "Patient/p3"}, "type": "replaces"},
            ]
        },
    ),
    "a tag by its id": (
        {"tags": [{"id": "A|b|1"}]},
        {"meta": {"tag": [{"system": "A", "version": "1", "code": "b"}]}},
    ),
    "dead on a day, and the flag withdrawn": (
        {"deceased": False, "dateOfDeath": 20200101},
        {"deceasedBoolean": False},
    ),
    "no date": ({"dateOfBirth": 19901399}, {}),
    "no use in FHIR": ({"names": [{"use": "other", "lastName": "E"}]}, name(family="E")),
}
WRITTEN = {
    "two lines": ({"address": [{"line": ["a", "b"]}]}, {"addresses": [{"street": "a, b"}]}),
    "an old address": (
        {"address": [{"use": "old", "city": "X"}]},
        {"addresses": [{"addressType": "other", "city": "X"}]},
    ),
    "text message": (phone(system="sms", value="1"), at(None, "mobile", "1")),
    "a region": (speaks("fr-BE"), {"languages": ["fr"]}),
    "preferred first": (
        {
            "communication": [
                *speaks("nl")["communication"],
                {**speaks("fr")["communication"][0], "preferred": True},
            ]
        },
        {"languages": ["fr", "nl"]},
    ),
    "a time of death": ({"deceasedDateTime": "2020-03-01T04:05:06+02:00"}, {"dateOfDeath": 20200301}),
    "a year before 1000": ({"birthDate": "0987"}, {"dateOfBirth": None}),
    "unknown parties": (
        {
            "generalPractitioner": [
                {"reference": "Practitioner/unknown"},
                {"display": "x"},
                {"reference": "#c"},
            ]
        },
        {"patientHealthCareParties": None},
    ),
    "merges are iCure's own": (
        {"link": [{"other": {"reference": "Patient/p2"}, "type": "replaced-by"}]},
        {"partnerships": None, "mergeToPatientId": None},
    ),
    "a display is not for all to see": (
        {"meta": {"tag": [{"system": "urn:a", "code": "x", "display": "secret"}]}},
        {"tags": [{"type": "urn:a", "code": "x"}]},
    ),
}


@pytest.mark.parametrize(("resource", "entity"), BOTH_WAYS.values(), ids=BOTH_WAYS)
def test_reads_and_writes(resource: Resource, entity: Entity) -> None:
    written, _ = PATIENT.to_icure({"resourceType": "Patient", **resource}, None, None, CONTEXT)
    assert {n: written.get(n) for n in entity} == entity
    assert read(written) == resource
    assert read(entity) == resource


@pytest.mark.parametrize(("entity", "resource"), READ.values(), ids=READ)
def test_reads(entity: Entity, resource: Resource) -> None:
    said = PATIENT.to_fhir({"lastName": "", **entity}, {}, CONTEXT)
    assert {n: v for n, v in said.items() if n not in DEFAULTS or n in resource} == {
        "resourceType": "Patient",
        **resource,
    }


@pytest.mark.parametrize(("resource", "entity"), WRITTEN.values(), ids=WRITTEN)
def test_writes(resource: Resource, entity: Entity) -> None:
    written, _ = PATIENT.to_icure({"resourceType": "Patient", **resource}, None, None, CONTEXT)
    assert {n: written.get(n) for n in entity} == entity


DEFAULTS = {"gender": "unknown", "active": True}
"""What iCure says of every patient of whom nothing is said."""


def read(entity: Entity) -> Resource:
    """Returns what iCure alone says, without what it says of every patient."""
    said = PATIENT.to_fhir(entity, {}, CONTEXT)
    return {n: v for n, v in said.items() if n != "resourceType" and (n in entity or DEFAULTS.get(n) != v)}


def test_a_gender_beyond_the_binding_is_refused_by_its_path() -> None:
    with pytest.raises(MappingError) as raised:
        PATIENT.to_icure({"resourceType": "Patient", "gender": "secret"})
    assert raised.value.path == "Patient.gender"
    assert "secret" not in str(raised.value)


OVER = {
    "house number stays": (
        {"addresses": [{"street": "Rue Haute", "houseNumber": "1", "city": "X"}]},
        lambda r: r["address"][0].update(city="Y", text="new"),
        {"addresses": [{"street": "Rue Haute", "houseNumber": "1", "city": "Y"}]},
    ),
    "note of an address stays": (
        {"addresses": [{"addressType": "home", "city": "X", "note": "ring"}]},
        lambda r: r["address"].insert(0, {"use": "work", "city": "Z"}),
        {
            "addresses": [
                {"addressType": "work", "city": "Z"},
                {"addressType": "home", "city": "X", "note": "ring"},
            ]
        },
    ),
    "a telecom stays where it is": (
        {
            "addresses": [
                {
                    "addressType": "hospital",
                    "city": "X",
                    "telecoms": [
                        {"telecomType": "phone", "telecomNumber": "1", "telecomDescription": "desk"},
                        {"telecomType": "fax", "telecomNumber": "2"},
                    ],
                }
            ]
        },
        lambda r: r["telecom"].__setitem__(1, {"system": "fax", "value": "3"}),
        {
            "addresses": [
                {
                    "addressType": "hospital",
                    "city": "X",
                    "telecoms": [
                        {"telecomType": "phone", "telecomNumber": "1", "telecomDescription": "desk"},
                        {"telecomType": "fax", "telecomNumber": "3"},
                    ],
                }
            ]
        },
    ),
    "gender stays as it stands": (
        {"gender": "changedToFemale"},
        lambda r: r.update(_gender={"id": "g"}, birthDate="1990"),
        {"gender": "changedToFemale", "dateOfBirth": 19900000},
    ),
    "a relationship without FHIR code stays": (
        {"partnerships": [{"type": "brotherinlaw", "partnerId": "p"}, {"partnerId": "q"}]},
        lambda r: r["contact"][0].update(gender="male"),
        {"partnerships": [{"type": "brotherinlaw", "partnerId": "p"}, {"partnerId": "q"}]},
    ),
    "referral periods stay": (
        {"patientHealthCareParties": [{"type": "doctor", "healthcarePartyId": "h1", "referral": True}]},
        lambda r: r["generalPractitioner"].append({"reference": "Practitioner/h2"}),
        {
            "patientHealthCareParties": [
                {"type": "doctor", "healthcarePartyId": "h1", "referral": True},
                {"type": "doctor", "healthcarePartyId": "h2"},
            ]
        },
    ),
    "other members of the team stay": (
        {"patientHealthCareParties": [{"type": "hospital", "healthcarePartyId": "h9"}]},
        lambda r: r.update(generalPractitioner=[{"reference": "Practitioner/h1"}]),
        {
            "patientHealthCareParties": [
                {"type": "hospital", "healthcarePartyId": "h9"},
                {"type": "doctor", "healthcarePartyId": "h1"},
            ]
        },
    ),
    "a name's use without FHIR code stays": (
        {
            "names": [{"use": "other", "lastName": "E", "firstNames": ["A"]}],
            "lastName": "E",
            "firstName": "A",
        },
        lambda r: r["name"][0].update(family="F"),
        {
            "names": [{"use": "other", "lastName": "F", "firstNames": ["A"]}],
            "lastName": "F",
            "firstName": "A",
        },
    ),
    "both copies of a name are written": (
        {"names": [{"lastName": "E", "firstNames": ["A"]}], "lastName": "E", "firstName": "A"},
        lambda r: r["name"][0].update(family="F"),
        {"names": [{"lastName": "F", "firstNames": ["A"]}], "lastName": "F", "firstName": "A"},
    ),
    "labels of tags stay": (
        {"tags": [{"type": "urn:a", "code": "x", "label": {"en": "X", "fr": "Y"}, "contextLabel": "z"}]},
        lambda r: r["meta"]["tag"].insert(0, {"system": "urn:a", "code": "w"}),
        {
            "tags": [
                {"type": "urn:a", "code": "w"},
                {"type": "urn:a", "code": "x", "label": {"en": "X", "fr": "Y"}, "contextLabel": "z"},
            ]
        },
    ),
    "merges stay": (
        {"mergedIds": ["p3"]},
        lambda r: r["link"].append({"other": {"reference": "Patient/p2"}, "type": "seealso"}),
        {"mergedIds": ["p3"], "partnerships": [{"type": "seealso", "partnerId": "p2"}]},
    ),
    "an element removed": (
        {"dateOfBirth": 19900101, "ssin": "1"},
        lambda r: r.pop("birthDate"),
        {"ssin": "1"},
    ),
}


@pytest.mark.parametrize(("entity", "update", "wanted"), OVER.values(), ids=OVER)
def test_an_update_changes_only_what_it_says(entity, update, wanted) -> None:
    onto = {"id": "p", "rev": "1-a", "lastName": "", **entity}
    resource = PATIENT.to_fhir(onto, {}, CONTEXT)
    update(resource)
    written, residue = PATIENT.to_icure(resource, onto, {}, CONTEXT)
    assert written == {"id": "p", "rev": "1-a", "lastName": "", **wanted}
    assert PATIENT.to_fhir(written, residue, CONTEXT) == resource
