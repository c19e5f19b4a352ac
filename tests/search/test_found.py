"""What each parameter finds, with each modifier and prefix that it has."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.search import PARAMETERS
from bridge.search.predicates import MODIFIERS
from bridge.search.values import PREFIXES
from tests.helpers import DEMO_PATIENT, Caller, assert_outcome
from tests.search.conftest import Library
from tests.search.library import ABSENT, CATEGORY, LOINC, observation

GENDER = "http://hl7.org/fhir/administrative-gender"
EVERYBODY = "anna bo chris dora empty"
ALL = "gram exact milli less period open panel absent dated texty"

PATIENTS = {
    "_id=anna": "anna",
    "_id={bo}": "bo",
    "_id={bo},anna,nobody": "anna bo",
    "_id:not={bo}": "anna chris dora empty",
    "_lastUpdated=gt2020": EVERYBODY,
    "_lastUpdated=lt2020": "",
    "_tag=urn:tags|study": "anna",
    "_tag=urn:tags|": "anna",
    "_tag=study": "anna",
    "_tag:not=urn:tags|study": "bo chris dora empty",
    "_tag:missing=false": "anna",
    "_security=x": "",
    "_profile=http://example.org/p": "",
    "_source=http://example.org": "",
    "identifier=urn:hospital|A-1": "anna",
    "identifier=A-1": "anna bo",
    "identifier=urn:hospital|": "anna bo",
    r"identifier=urn:hospital|B\|2": "bo",
    "identifier=|A-1": "",
    "identifier:of-type=urn:types|MR|A-1": "anna",
    "identifier:text=medical rec": "anna",
    "identifier:not=A-1": "chris dora empty",
    "name=mul": "anna bo",
    "name=MÜLLER": "anna",
    "name=anna mar": "anna",
    "name=müller anna": "anna",
    "name=ria": "",
    "name:contains=ria": "anna",
    "name:exact=Müller": "anna",
    "name:exact=müller": "",
    r"name=o'neil\, jr": "chris",
    "name=bo": "bo",
    "name=mul&name=bo": "bo",
    "name=anna,bo": "anna bo",
    "family=mul": "anna bo",
    "family=anna": "",
    "family:exact=Mulder": "bo",
    "family=Ødeg": "dora",
    "family:contains=degar": "dora",
    "given=maria": "anna",
    "given:exact=Maria": "anna",
    "given:contains=or": "dora",
    "given:missing=true": "empty",
    "gender=female": "anna",
    "gender=female,male": "anna bo",
    "gender=other": "chris",
    "gender=unknown": "",
    "gender=zanzibar": "",
    f"gender={GENDER}|male": "bo",
    "gender:not=female": "bo chris dora empty",
    "gender:missing=true": "dora empty",
    "birthdate=1974-03-05": "anna",
    "birthdate=1974-03": "anna bo",
    "birthdate=1974": "anna bo chris",
    "birthdate=ne1974-03": "chris dora",
    "birthdate=gt1974-03-05": "bo chris dora",
    "birthdate=ge1974-03-05": "anna bo chris dora",
    "birthdate=lt1974-03-05": "bo chris",
    "birthdate=le1974-03-05": "anna bo chris",
    "birthdate=sa1974": "dora",
    "birthdate=eb2001": "anna bo chris",
    "birthdate=ap1974-03": "anna bo chris",
    "birthdate=ge1974&birthdate=lt1975": "anna bo chris",
    "birthdate:missing=true": "empty",
    "death-date=2020-05": "bo",
    "death-date=gt2021": "",
    "death-date:missing=false": "bo",
    "deceased=true": "bo chris",
    "deceased=false": "anna dora empty",
    "deceased:not=true": "anna dora empty",
    "active=true": "anna",
    "active=false": "bo",
    "active:missing=true": "chris dora empty",
    "address=rue": "anna",
    "address=liege": "anna",
    "address:contains=aute 1": "anna",
    "address:exact=Namur": "bo",
    "address-city=liège": "anna",
    "address-city:exact=Liege": "",
    "address-city:contains=amu": "bo",
    "address-country=be": "anna",
    "address-postalcode=50": "bo",
    "address-postalcode=5000": "bo",
    "address-state=wall": "bo",
    "address-use=home": "anna",
    "address-use:not=home": "bo chris dora empty",
    "telecom=555": "bo",
    "telecom=phone|555": "bo",
    "telecom=email|anna@example.org": "anna",
    "telecom:missing=true": "chris dora empty",
    "phone=555": "bo",
    "phone=anna@example.org": "",
    "email=anna@example.org": "anna",
    "language=fr-BE": "anna",
    "language=urn:ietf:bcp:47|fr-BE": "anna",
    "language=fr": "",
    "general-practitioner=Practitioner/f005": "bo",
    "general-practitioner=f005": "bo",
    "general-practitioner=Practitioner/1": "",
    "general-practitioner:missing=false": "bo",
    "organization=Organization/1": "bo",
    "organization=1": "bo",
    "organization:Organization=1": "bo",
    "link=Patient/{anna}": "chris",
    "link=anna": "chris",
    "link:Patient=anna": "chris",
    "link.name=müller": "chris",
    "link:Patient.gender=female": "chris",
    "link:Patient.gender=male": "",
    "_has:Observation:patient:code=29463-7": "chris dora",
    f"_has:Observation:patient:code={LOINC}|718-7": "anna bo",
    "_has:Observation:subject:status=amended": "anna",
    "_has:Observation:focus:code=718-7": "bo",
    "_has:Observation:code=29463-7": "chris dora",
    "_has:Observation:_tag=urn:tags|study": "anna",
    "_has:Patient:link:name=chris": "anna",
    "_has:Observation:patient:_has:Observation:has-member:code=55284-4": "anna",
    "_has:Observation:patient:code=29463-7&gender=other": "chris",
}
OBSERVATIONS = {
    "_id=gram": "gram",
    "_id={gram},{less}": "gram less",
    "_lastUpdated=ge2020": ALL,
    "_tag=urn:tags|study": "gram",
    f"_tag={LOINC}|29463-7": "dated texty",
    f"_tag={LOINC}|": ALL,
    "_security:missing=false": "",
    "_profile:below=http://example.org": "",
    "_profile:above=http://example.org": "",
    "_source:missing=true": ALL,
    "identifier=urn:lab|7": "gram",
    "identifier:missing=true": "",
    "status=amended": "exact",
    "status=http://hl7.org/fhir/observation-status|preliminary": "dated",
    "status:not=final": "exact dated",
    f"category={CATEGORY}|laboratory": "gram",
    "category=laboratory": "gram",
    "category:missing=true": "exact milli less period open panel absent dated texty",
    f"code={LOINC}|29463-7": "dated texty",
    f"code={LOINC}|29463-7,{LOINC}|55284-4": "panel dated texty",
    "code=29463-7": "dated texty",
    "code=|29463-7": "",
    f"code={LOINC}|": ALL,
    "code:text=gewi": "texty",
    "code:text=body w": "texty",
    "code:not=718-7": "exact panel dated texty",
    "date=2024-05-17": "gram exact",
    "date=2024-05-17T08:30:00Z": "gram",
    "date=2024-05-17T10:30:00+02:00": "gram",
    "date=2024-05": "gram exact milli",
    "date=2024": "gram exact milli",
    "date=ne2024": "less period open",
    "date=gt2024-05-17": "milli open",
    "date=ge2024-05-17": "gram exact milli open",
    "date=lt2023-12-31": "less period open",
    "date=le2023-12-31": "less period open",
    "date=sa2024-01-01": "gram exact milli",
    "date=eb2024-01-01": "less",
    "date=eb2024-01-03": "less period",
    "date=ap2019-12-01": "open",
    "date:missing=true": "panel absent dated texty",
    "subject=Patient/bo": "milli less",
    "subject={bo}": "milli less",
    "subject=bo": "milli less",
    "subject:Patient=bo": "milli less",
    "subject=Group/g1": "absent",
    "subject:Group=g1": "absent",
    "subject=Patient/bo,Group/g1": "milli less absent",
    "subject:identifier=urn:pets|rex": "panel",
    "subject:missing=true": "",
    "patient=anna": "gram exact period open",
    "patient=Patient/{anna},Patient/bo": "gram exact milli less period open",
    "patient=http://localhost/rest/fhir/r4/Patient/{bo}": "milli less",
    "patient=nobody": "",
    "patient=Group/g1": "",
    "patient:missing=true": "absent",
    "encounter=Encounter/e1": "gram",
    "encounter=e1": "gram",
    "performer=Practitioner/f005": "gram",
    "performer:Practitioner=f005": "gram",
    "value-quantity=5": "gram exact",
    "value-quantity=5.0": "gram",
    "value-quantity=5.4": "exact",
    "value-quantity=5.40": "exact",
    "value-quantity=5.0||g": "gram",
    "value-quantity=5|http://unitsofmeasure.org|g": "gram exact",
    "value-quantity=5|http://unitsofmeasure.org|mg": "",
    "value-quantity=5400||mg": "milli",
    "value-quantity=ne5||g": "less",
    "value-quantity=ne5.0||g": "exact less",
    "value-quantity=gt5": "exact milli",
    "value-quantity=ge5||g": "gram exact",
    "value-quantity=lt5.4||g": "gram less",
    "value-quantity=le5.4||g": "gram exact less",
    "value-quantity=sa5||g": "exact",
    "value-quantity=eb5.4||g": "gram less",
    "value-quantity=eb5||g": "less",
    "value-quantity=ap5||g": "gram exact less",
    "value-quantity:missing=false": "gram exact milli less",
    "value-concept=urn:v|yes": "open",
    "value-concept=yes": "open",
    "value-concept:not=yes": "gram exact milli less period panel absent dated texty",
    "value-string=strasse": "period",
    r"value-string=straße\, s": "period",
    "value-string:contains=sauber": "period",
    "value-string:exact=Straße, sauber": "",
    r"value-string:exact=Straße\, sauber": "period",
    "value-date=2024-05-17T06:30:00Z": "dated",
    "value-date=gt2024": "",
    "value-date:missing=false": "dated",
    f"data-absent-reason={ABSENT}|unknown": "absent",
    "combo-code=8480-6": "panel",
    "combo-code=718-7,8480-6": "gram milli less period open panel absent",
    "combo-value-quantity=80": "panel",
    "combo-value-quantity=gt79": "milli panel",
    "combo-value-concept=yes": "open",
    "combo-data-absent-reason=unknown": "absent",
    f"component-code={LOINC}|8462-4": "panel",
    "component-value-quantity=ge120": "panel",
    "component-value-quantity=ge121": "",
    "component-value-concept:missing=true": ALL,
    "component-data-absent-reason=unknown": "",
    f"code-value-quantity={LOINC}|718-7$5||g": "gram",
    f"code-value-quantity={LOINC}|718-7$gt5": "milli",
    f"code-value-concept={LOINC}|718-7$urn:v|yes": "open",
    f"component-code-value-quantity={LOINC}|8480-6$120": "panel",
    f"component-code-value-quantity={LOINC}|8480-6$80": "",
    "component-code-value-concept=8480-6$yes": "",
    "combo-code-value-quantity=8462-4$80": "panel",
    "combo-code-value-quantity=718-7$5": "gram",
    "combo-code-value-concept=718-7$yes": "open",
    "code-value-quantity:missing=false": "gram exact milli less",
    "has-member=Observation/gram": "panel",
    "has-member=gram": "panel",
    "has-member={gram}": "panel",
    "has-member.code=718-7": "panel",
    "has-member:Observation.patient.name=müller": "panel",
    "derived-from=exact": "absent",
    "derived-from.status=amended": "absent",
    "based-on=ServiceRequest/1": "",
    "part-of:missing=true": ALL,
    "focus=Patient/bo": "absent",
    "focus:Patient=bo": "absent",
    "focus:Patient.gender=male": "absent",
    "method=urn:methods|probe": "gram",
    "specimen=Specimen/s1": "gram",
    "device=Device/d1": "gram",
    "device:Device=d1": "gram",
    "subject:Patient.name=mul": "gram exact milli less period open",
    "patient.identifier=urn:hospital|A-1": "gram exact period open",
    "patient.gender:not=female": "milli less dated texty",
    "subject.birthdate=lt1974-03": "dated",
    "patient.link.name=anna": "dated",
    "patient.link.identifier=urn:hospital|A-1": "dated",
    "patient.name=nobody": "",
    "_has:Patient:name=mulder": "milli less",
    "_has:Patient:gender=female": "gram exact period open",
    "_has:Observation:has-member:code=55284-4": "gram",
    "_has:Observation:has-member:combo-code=8480-6": "gram",
    "patient=anna&date=2024-05-17&code:not=718-7": "exact",
    "patient=anna&date=sa2023-12-01&date=eb2024-05-17": "period",
    "patient._has:Observation:patient:status=amended": "gram exact period open",
}


@pytest.mark.parametrize(("query", "expected"), PATIENTS.items())
def test_a_search_of_patients_finds(library: Library, query: str, expected: str) -> None:
    assert sorted(library.found(f"Patient?{query}")) == sorted(expected.split())


@pytest.mark.parametrize(("query", "expected"), OBSERVATIONS.items())
def test_a_search_of_observations_finds(library: Library, query: str, expected: str) -> None:
    assert sorted(library.found(f"Observation?{query}")) == sorted(expected.split())


TABLES = {"Patient": PATIENTS, "Observation": OBSERVATIONS}


def test_every_parameter_has_a_row() -> None:
    for resource_type, table in TABLES.items():
        shown = {query.partition("=")[0].partition(":")[0].partition(".")[0] for query in table}
        assert PARAMETERS[resource_type].keys() <= shown


def test_every_modifier_and_prefix_of_a_type_has_a_row() -> None:
    shown: dict[str, set[str]] = {}
    for resource_type, table in TABLES.items():
        for name, _, value in (query.partition("=") for query in table):
            parameter = PARAMETERS[resource_type].get(name.partition(":")[0])
            if parameter is not None and "." not in name:
                shown.setdefault(parameter.type, set()).update((name.partition(":")[2], value[:2]))
    for kind, modifiers in MODIFIERS.items():
        assert set(modifiers) <= shown.get(kind, set(modifiers)), kind
    for kind in ("date", "quantity"):
        assert set(PREFIXES) - {"eq"} <= shown[kind]


REFUSED = {
    "an unknown modifier": "Patient?name:sounds=x",
    "contains on a token": "Patient?gender:contains=ma",
    "not on a string": "Patient?name:not=x",
    "exact on a date": "Patient?birthdate:exact=2000",
    "text on a reference": "Observation?subject:text=x",
    "a type that a reference cannot have": "Observation?performer:Device=1",
    "in": "Observation?code:in=http://x",
    "not in": "Observation?code:not-in=http://x",
    "above": "Observation?code:above=http://x|1",
    "below": "Observation?code:below=http://x|1",
    "missing maybe": "Patient?name:missing=maybe",
    "missing twice": "Patient?name:missing=true,false",
    "a month 13": "Patient?birthdate=1974-13",
    "a prefix alone": "Patient?birthdate=gt",
    "a date in words": "Observation?date=yesterday",
    "a chained date in words": "Observation?patient.birthdate=yesterday",
    "a number in words": "Observation?value-quantity=five",
    "a quantity of two parts": "Observation?value-quantity=5|g",
    "an exponent": "Observation?value-quantity=1e999999",
    "a composite of one part": "Observation?code-value-quantity=718-7",
    "a composite of three parts": "Observation?code-value-quantity=718-7$1$2",
    "of-type of two parts": "Patient?identifier:of-type=a|b",
    "only a bar": "Patient?identifier=|",
    "a chain over four references": "Observation?has-member.has-member.patient.link.name=x",
    "a chain over what is no reference": "Observation?code.name=x",
    "a chain to another type": "Observation?performer:Device.name=x",
    "1,001 values": "Patient?gender=" + ",".join(["male"] * 1001),
    "101 parameters": "Patient?" + "&".join(["gender=male"] * 101),
    "a count below zero": "Patient?_count=-1",
    "a total of another kind": "Patient?_total=some",
    "a summary of another kind": "Patient?_summary=some",
    "a sort by nothing known": "Patient?_sort=shoe-size",
    "a sort by a composite": "Observation?_sort=code-value-quantity",
    "an include of nothing": "Observation?_include=Observation:code",
    "an include that is none": "Observation?_include=subject",
    "a revinclude of nothing": "Patient?_revinclude=Observation",
    "a revinclude of everything": "Patient?_revinclude=*",
    "a text summary with an include": "Observation?_summary=text&_include=Observation:subject",
}


@pytest.mark.parametrize("query", REFUSED.values(), ids=REFUSED)
def test_a_search_is_refused_in_words(library: Library, query: str) -> None:
    refused = library.esmith.get(library.asked(query))
    assert_outcome(refused, 400, "invalid")
    assert refused.json["issue"][0]["diagnostics"].endswith(".")


def test_a_modifier_that_is_refused_is_answered_with_those_that_are_taken(library: Library) -> None:
    refused = library.esmith.get("Observation?code:in=http://x").json["issue"][0]["diagnostics"]
    assert refused == "code does not take this modifier; it takes missing, not, text, of-type."


@pytest.mark.parametrize(
    "query", ["Patient", "Observation", "Patient?name=mul", f"Observation?code={LOINC}|718-7"]
)
def test_nothing_of_another_data_owner_is_found(library: Library, query: str) -> None:
    mine, theirs = ({r["id"] for r in library.callers[name].found(query)} for name in ("esmith", "jdoe"))
    assert mine
    assert theirs
    assert not mine & theirs


@pytest.mark.parametrize("kind", ["Patient", "Observation"])
def test_nothing_is_found_through_what_belongs_to_another(library: Library, kind: str) -> None:
    queries = (
        f"Observation?patient={library.ids['anna']}",
        f"{kind}?_id={library.ids['anna']},{library.ids['gram']}",
    )
    for query in queries:
        assert library.callers["jdoe"].found(query) == []


SAMPLED = {
    "value-quantity=2.6||mV": "",
    "value-quantity=0||mV": "",
    "value-quantity=2||mV": "flat",
    "value-quantity=2e0||mV": "flat",
    "value-quantity=gt5": "wave",
    "value-quantity=gt6": "",
    "value-quantity=ge6": "wave",
    "value-quantity=lt1": "wave",
    "value-quantity=lt-4": "",
    "value-quantity=le-4": "wave",
    "value-quantity=sa1": "flat",
    "value-quantity=eb3": "flat",
    "value-quantity=eb7": "flat wave",
    "value-quantity=ne2": "wave",
    "value-quantity=ap5": "wave",
    "value-quantity=gt5||V": "",
    "value-quantity:missing=false": "empty flat wave",
    "combo-value-quantity=gt5": "part wave",
    "component-value-quantity=10": "part",
}


def test_sampled_data_counts_from_its_least_to_its_greatest_value(esmith: Caller) -> None:
    def sampled(data: str, **members: Any) -> dict[str, Any]:
        origin = {"value": 2, "unit": "mV"}
        return {
            "valueSampledData": {"origin": origin, "period": 10, "dimensions": 1, "data": data, **members}
        }

    made = {
        "wave": sampled("-3 E 0 L U 1", factor=2, lowerLimit=-2, upperLimit=2),
        "flat": sampled("0 0 0.0"),
        "empty": sampled("E E"),
        "part": {"component": [{"code": {"text": "x"}, **sampled("8")}]},
    }
    names = {esmith.created(observation(n, DEMO_PATIENT, **members))["id"]: n for n, members in made.items()}
    found = {
        query: " ".join(
            sorted(names[o["id"]] for o in esmith.found(f"Observation?patient={DEMO_PATIENT}&{query}"))
        )
        for query in SAMPLED
    }
    assert found == SAMPLED
