"""FHIR Observation and iCure Service, side by side."""

from __future__ import annotations

from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest

from mappings.observation import OBSERVATION, is_observation
from mappings.values import Entity, Number, Resource

from .completion import CALLER, FUZZY_NOW
from .helpers import CONTEXT, expected, written

UCUM = {"system": "http://unitsofmeasure.org", "code": "mmol/L"}
UNIT_CODES = [{"type": "http://unitsofmeasure.org", "code": "mmol/L"}]
STATUS = "http://hl7.org/fhir/observation-status"
INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
LOINC = "http://loinc.org"
ABSENT = {
    "extension": [
        {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}
    ]
}
GLUCOSE = {"coding": [{"system": LOINC, "code": "15074-8"}]}


def value(key: str, **content: object) -> Entity:
    return {"content": {key: content}}


def coded(code: str) -> Resource:
    return {"coding": [{"system": INTERPRETATION, "code": code}]}


def quantity(number: object) -> Resource:
    return {"value": number, "unit": "mmol/l", **UCUM}


BOTH_WAYS: dict[str, tuple[Resource, Entity]] = {
    "identifier": (
        {"identifier": [{"system": "urn:a", "value": "1"}]},
        {"identifier": [{"system": "urn:a", "value": "1"}]},
    ),
    "subject": ({"subject": {"reference": "Patient/p1"}}, {"patientId": "p1"}),
    "moment": (
        {"effectiveDateTime": "2013-04-02T09:30:10Z"},
        {"valueDate": 20130402093010, "openingDate": 20130402093010, "closingDate": None},
    ),
    "day": ({"effectiveDateTime": "2013-04-02"}, {"valueDate": 20130402, "openingDate": 20130402}),
    "year": ({"effectiveDateTime": "2013"}, {"valueDate": 20130000, "openingDate": 20130000}),
    "period": (
        {"effectivePeriod": {"start": "2013-04-02", "end": "2013-04-03T01:02:03Z"}},
        {"valueDate": 20130402, "openingDate": 20130402, "closingDate": 20130403010203},
    ),
    "performer": ({"performer": [{"reference": "Practitioner/h1"}]}, {"responsible": "h1"}),
    "quantity": (
        {"valueQuantity": {"value": Number("6.3"), "comparator": "<", "unit": "mmol/l", **UCUM}},
        value(
            "xx",
            measureValue={"value": 6.3, "comparator": "<", "unit": "mmol/l", "unitCodes": UNIT_CODES},
        ),
    ),
    "interpretation": (
        {"valueQuantity": {"value": 1}, "interpretation": [coded("H")]},
        value("xx", measureValue={"value": 1, "severityCode": "H"}),
    ),
    "reference range": (
        {
            "valueQuantity": quantity(1),
            "referenceRange": [
                {
                    "low": quantity(0),
                    "high": quantity(Number("2.5")),
                    "text": "adults",
                    "type": {"coding": [{"system": "urn:t", "code": "normal"}]},
                    "appliesTo": [{"coding": [{"system": "urn:a", "code": "f"}]}],
                    "age": {"low": {"value": 18, "system": UCUM["system"], "code": "a"}},
                }
            ],
        },
        value(
            "xx",
            measureValue={
                "value": 1,
                "unit": "mmol/l",
                "unitCodes": UNIT_CODES,
                "referenceRanges": [
                    {
                        "low": 0,
                        "high": 2.5,
                        "stringValue": "adults",
                        "tags": [{"type": "urn:t", "code": "normal"}],
                        "codes": [{"type": "urn:a", "code": "f"}],
                        "age": {"low": 18},
                    }
                ],
            },
        ),
    ),
    "string": ({"valueString": "sleeps\nwell"}, value("en", stringValue="sleeps\nwell")),
    "boolean": ({"valueBoolean": False}, value("xx", booleanValue=False)),
    "integer": ({"valueInteger": 3}, value("xx", numberValue=3)),
    "range": (
        {"valueRange": {"low": {"value": 1}, "high": {"value": 2, "unit": "cm"}}},
        value("xx", range=[{"value": 1}, {"value": 2, "unit": "cm"}]),
    ),
    "open range": ({"valueRange": {"high": {"value": 2}}}, value("xx", range=[{}, {"value": 2}])),
    "ratio": (
        {"valueRatio": {"numerator": {"value": 1}, "denominator": {"value": 128}}},
        value("xx", ratio=[{"value": 1}, {"value": 128}]),
    ),
    "samples": (
        {"valueSampledData": {"origin": {"value": 0}, "period": 10, "dimensions": 1, "data": "1 2.5 -3"}},
        value(
            "xx", timeSeries={"fields": ["time", "value"], "samples": [[0.0, 1.0], [10.0, 2.5], [20.0, -3.0]]}
        ),
    ),
    "dateTime": ({"valueDateTime": "2024-01-03T04:05:06Z"}, value("xx", fuzzyDateValue=20240103040506)),
    "note": ({"note": [{"text": "*fine*"}]}, {"notes": [{"markdown": {"xx": "*fine*"}}]}),
}
READ: dict[str, tuple[Entity, Resource]] = {
    "nothing": ({}, {}),
    "status": ({"tags": [{"type": STATUS, "code": "final"}]}, {"status": "final"}),
    "a status that FHIR has not": (
        {"tags": [{"type": STATUS, "code": "guessed"}]},
        {"meta": {"tag": [{"system": STATUS, "code": "guessed"}]}},
    ),
    "tags and categories": (
        {
            "tags": [
                {"type": "urn:c", "code": "lab", "context": "category"},
                {"type": "urn:t", "code": "x", "context": "other"},
                {"type": "ICURE_INTERNAL_FHIR_TYPE", "code": "OBSERVATION"},
            ]
        },
        {
            "category": [{"coding": [{"system": "urn:c", "code": "lab"}]}],
            "meta": {"tag": [{"system": "urn:t", "code": "x"}]},
        },
    ),
    "codes and label": (
        {"codes": [{"type": LOINC, "code": "1", "context": "code"}, {"id": "A|b|1"}], "label": "glucose"},
        {
            "code": {
                "coding": [{"system": LOINC, "code": "1"}, {"system": "A", "version": "1", "code": "b"}],
                "text": "glucose",
            }
        },
    ),
    "label alone": ({"label": "anamnesis"}, {"code": {"text": "anamnesis"}}),
    "codes about something else": (
        {"codes": [{"type": "urn:a", "code": "b", "context": "bodySite"}]},
        {},
    ),
    "a text of any language": (value("fr", stringValue="bien"), {"valueString": "bien"}),
    "an instant": (
        value("xx", instantValue=1_700_000_000_123),
        {"valueDateTime": "2023-11-14T22:13:20.123Z"},
    ),
    "a fraction": (value("en", numberValue=72.5), {"valueQuantity": {"value": Number("72.5")}}),
    "a whole number as a double": (value("en", numberValue=72.0), {"valueInteger": 72}),
    "a number beyond integers": (value("en", numberValue=3e9), {"valueQuantity": {"value": 3000000000}}),
    "a measure as a double": (value("en", measureValue={"value": 72.0}), {"valueQuantity": {"value": 72}}),
    "midnight of a day": ({"valueDate": 20231231240000}, {"effectiveDateTime": "2024-01-01"}),
    "to the hour": ({"valueDate": 20231231236000}, {"effectiveDateTime": "2024-01-01T00:00:00Z"}),
    "to the minute": ({"valueDate": 20231231235960}, {"effectiveDateTime": "2024-01-01T00:00:00Z"}),
    "to the month": ({"valueDate": 20240100000000}, {"effectiveDateTime": "2024-01"}),
    "no such day": ({"valueDate": 20230230}, {}),
    "components": (
        value(
            "xx",
            compoundValue=[
                {
                    "id": "1",
                    "codes": [{"type": LOINC, "code": "8480-6"}],
                    **value("xx", measureValue={"value": 120}),
                },
                {"id": "2", "label": "cuff", **value("en", stringValue="large")},
            ],
        ),
        {
            "component": [
                {"code": {"coding": [{"system": LOINC, "code": "8480-6"}]}, "valueQuantity": {"value": 120}},
                {"code": {"text": "cuff"}, "valueString": "large"},
            ]
        },
    ),
    "links": (
        {"qualifiedLinks": {"hasMember": {"a": "s1"}, "derivedFrom": {"b": "s2"}, "device": {"c": "s3"}}},
        {"hasMember": [{"reference": "Observation/s1"}], "derivedFrom": [{"reference": "Observation/s2"}]},
    ),
    "what FHIR has no element for": ({"comment": "x", "index": 3, "status": 1, "formId": "f"}, {}),
}
WRITTEN: dict[str, tuple[Resource, Entity]] = {
    "no performer": ({}, {"responsible": CALLER}),
    "an unknown performer": ({"performer": [{"reference": "Practitioner/unknown"}]}, {"responsible": CALLER}),
    "the first known performer": (
        {"performer": [{"display": "x"}, {"reference": "Organization/o1"}, {"reference": "Practitioner/h1"}]},
        {"responsible": "o1"},
    ),
    "no date": ({}, {"valueDate": FUZZY_NOW, "openingDate": FUZZY_NOW, "closingDate": None}),
    "the first event": (
        {"effectiveTiming": {"event": ["2024-01-02", "2024-01-03"]}},
        {"valueDate": 20240102, "openingDate": 20240102},
    ),
    "an end only": ({"effectivePeriod": {"end": "2024"}}, {"valueDate": 20240000, "closingDate": 20240000}),
    "wall-clock time as written": (
        {"effectiveInstant": "2024-01-02T23:59:59.9+14:00"},
        {"valueDate": 20240102235959},
    ),
    "a concept by its text": (
        {"valueCodeableConcept": {"coding": [{"system": "urn:a", "code": "b", "display": "d"}], "text": "t"}},
        value("en", stringValue="t"),
    ),
    "a concept by its display": (
        {"valueCodeableConcept": {"coding": [{"code": "b"}, {"code": "c", "display": "d"}]}},
        value("en", stringValue="d"),
    ),
    "a concept without words": ({"valueCodeableConcept": {"coding": [{"code": "b"}]}}, {"content": None}),
    "time": ({"valueTime": "07:08:09.100"}, value("en", stringValue="07:08:09.100")),
    "period": ({"valuePeriod": {"start": "2024-01-02"}}, value("xx", fuzzyDateValue=20240102)),
    "samples with markers": (
        {"valueSampledData": {"origin": {"value": 0}, "period": 1, "dimensions": 1, "data": "1 E 2"}},
        {"content": None},
    ),
    "scaled samples": (
        {
            "valueSampledData": {
                "origin": {"value": 10},
                "period": 2,
                "factor": Number("0.5"),
                "dimensions": 1,
                "data": "2 4",
            }
        },
        value("xx", timeSeries={"fields": ["time", "value"], "samples": [[0.0, 11.0], [2.0, 12.0]]}),
    ),
    "an unlinked subject": ({"subject": {"reference": "Group/g"}}, {"patientId": None}),
    "only Observations are linked": (
        {"hasMember": [{"reference": "MolecularSequence/m"}]},
        {"qualifiedLinks": None},
    ),
    "label is the first display, never the text": (
        {"code": {"coding": [{"code": "a"}, {"code": "b", "display": "B"}], "text": "secret"}},
        {"codes": [{"code": "a", "context": "code"}, {"code": "b", "context": "code"}], "label": "B"},
    ),
    "a text is no label": ({"code": {"text": "secret"}}, {"codes": None, "label": None}),
    "nothing clear of what is kept": (
        {
            "method": {"text": "m"},
            "bodySite": {"text": "b"},
            "dataAbsentReason": {"text": "d"},
            "status": "cancelled",
        },
        {"status": None, "comment": None, "content": None},
    ),
}


def observation(resource: Resource) -> Resource:
    return {"resourceType": "Observation", "status": "final", "code": GLUCOSE, **resource}


def read(entity: Entity) -> Resource:
    """Returns what iCure alone says, without what every Observation has."""
    said = OBSERVATION.to_fhir(entity, {}, CONTEXT)
    always = {"resourceType": "Observation", "status": "unknown", "code": ABSENT}
    return {n: v for n, v in said.items() if always.get(n) != v}


@pytest.mark.parametrize(("resource", "entity"), BOTH_WAYS.values(), ids=BOTH_WAYS)
def test_reads_and_writes(resource: Resource, entity: Entity) -> None:
    service, _ = written(OBSERVATION, observation(resource))
    assert {n: service.get(n) for n in entity} == entity
    assert read(entity) == resource
    said = read(service)
    assert {n: said[n] for n in resource} == resource


@pytest.mark.parametrize(("entity", "resource"), READ.values(), ids=READ)
def test_reads(entity: Entity, resource: Resource) -> None:
    assert read(entity) == resource


@pytest.mark.parametrize(("resource", "entity"), WRITTEN.values(), ids=WRITTEN)
def test_writes(resource: Resource, entity: Entity) -> None:
    service, _ = written(OBSERVATION, observation(resource))
    assert {n: service.get(n) for n in entity} == entity


def test_tags_say_status_categories_labels_and_the_type() -> None:
    service, _ = written(
        OBSERVATION,
        observation(
            {
                "category": [
                    {"coding": [{"system": "urn:c", "code": "lab"}, {"system": "urn:c", "code": "blood"}]},
                    {"coding": [{"system": "urn:c", "code": "lab"}]},
                ],
                "meta": {"tag": [{"system": "urn:t", "code": "x"}]},
            }
        ),
    )
    assert {(t["type"], t["code"], t.get("context")) for t in service["tags"]} == {
        (STATUS, "final", None),
        ("urn:c", "lab", "category"),
        ("urn:c", "blood", "category"),
        ("urn:c", "lab", "category.1"),
        ("urn:t", "x", None),
        ("ICURE_INTERNAL_FHIR_TYPE", "OBSERVATION", None),
    }


def test_components_have_ids_that_stay() -> None:
    components = [{"code": {"text": name}, "valueInteger": at} for at, name in enumerate("abc")]
    first, kept = written(OBSERVATION, observation({"component": components}))
    again, _ = written(OBSERVATION, observation({"component": components}))
    assert first == again
    ids = [part["id"] for part in first["content"]["xx"]["compoundValue"]]
    assert len(set(ids)) == 3
    other, _ = written(OBSERVATION, observation({"component": components}), "e2")
    assert not set(ids) & {part["id"] for part in other["content"]["xx"]["compoundValue"]}
    changed = [{"code": {"text": "new"}}, components[2], {**components[0], "valueInteger": 9}]
    updated, _ = OBSERVATION.to_icure(observation({"component": changed}), first, kept, CONTEXT)
    new, *rest = [part["id"] for part in updated["content"]["xx"]["compoundValue"]]
    assert rest[0] == ids[2]
    assert new not in ids


def test_a_component_keeps_what_an_sdk_added_to_it() -> None:
    part = {"id": "1", "label": "cuff", "comment": "left", **value("fr", stringValue="large")}
    onto = {"id": "s", "valueDate": 2024, **value("xx", compoundValue=[part])}
    resource = OBSERVATION.to_fhir(onto, {}, CONTEXT)
    resource["component"].insert(0, {"code": {"text": "pulse"}, "valueInteger": 61})
    resource["component"][1]["interpretation"] = [{"text": "fine"}]
    service, kept = OBSERVATION.to_icure(resource, onto, {}, CONTEXT)
    assert service["content"]["xx"]["compoundValue"][1] == part
    assert OBSERVATION.to_fhir(service, kept, CONTEXT) == resource


def test_a_new_value_leaves_alone_what_it_does_not_say() -> None:
    measure = {
        "value": 1.0,
        "unit": "mmol/l",
        "unitCodes": UNIT_CODES,
        "comment": "c",
        "sign": "+",
        "severity": 2,
    }
    onto = {
        "id": "s",
        "content": {"fr": {"measureValue": measure, "documentId": "d"}},
        "comment": "x",
        "index": 4,
    }
    resource = OBSERVATION.to_fhir(onto, {}, CONTEXT)
    resource["valueQuantity"]["value"] = Number("2.50")
    service, kept = OBSERVATION.to_icure(resource, onto, {}, CONTEXT)
    wanted = {"measureValue": {**measure, "value": 2.5}, "documentId": "d"}
    assert service["content"] == {"fr": wanted}
    assert (service["comment"], service["index"]) == ("x", 4)
    assert OBSERVATION.to_fhir(service, kept, CONTEXT) == resource


def test_a_value_of_another_kind_takes_the_place_of_the_old_one() -> None:
    onto = {"id": "s", **value("en", stringValue="old")}
    resource = {**OBSERVATION.to_fhir(onto, {}, CONTEXT), "valueBoolean": True}
    del resource["valueString"]
    service, _ = OBSERVATION.to_icure(resource, onto, {}, CONTEXT)
    assert service["content"] == {"xx": {"booleanValue": True}}


def test_codes_about_other_things_survive_an_update() -> None:
    onto = {"id": "s", "codes": [{"code": "arm", "context": "bodySite"}, {"type": LOINC, "code": "1"}]}
    resource = {**OBSERVATION.to_fhir(onto, {}, CONTEXT), "code": GLUCOSE}
    service, _ = OBSERVATION.to_icure(resource, onto, {}, CONTEXT)
    assert service["codes"] == [onto["codes"][0], {"type": LOINC, "code": "15074-8", "context": "code"}]


def test_times_have_the_zone_that_is_configured() -> None:
    brussels = replace(CONTEXT, zone=ZoneInfo("Europe/Brussels"))
    said = OBSERVATION.to_fhir({"valueDate": 20240701120000}, {}, brussels)
    assert said["effectiveDateTime"] == "2024-07-01T12:00:00+02:00"


def test_what_is_kept_does_not_depend_on_the_zone() -> None:
    resource = observation(
        {"effectiveDateTime": "2024-07-01T12:00:00.250-05:00", "issued": "2024-07-02T12:00:00Z"}
    )
    service, residue = written(OBSERVATION, resource)
    brussels = replace(CONTEXT, zone=ZoneInfo("Europe/Brussels"))
    assert OBSERVATION.to_fhir(service, residue, brussels) == expected(resource)


IS_OBSERVATION = {
    "a value": (value("xx", numberValue=1), True),
    "nothing": ({}, True),
    "medication": (value("en", medicationValue={}), False),
    "medication beside a value": (value("en", medicationValue={}, stringValue="x"), True),
    "a document": (value("en", documentId="d"), False),
    "tagged": (
        {
            **value("en", documentId="d"),
            "tags": [{"type": "ICURE_INTERNAL_FHIR_TYPE", "code": "OBSERVATION"}],
        },
        True,
    ),
    "tagged as another": (
        {**value("xx", numberValue=1), "tags": [{"type": "ICURE_INTERNAL_FHIR_TYPE", "code": "CONDITION"}]},
        False,
    ),
}


@pytest.mark.parametrize(("service", "wanted"), IS_OBSERVATION.values(), ids=IS_OBSERVATION)
def test_which_services_are_observations(service: Entity, wanted: bool) -> None:
    assert is_observation(service) is wanted
    assert is_observation(OBSERVATION.slot.put(service, "sealed")) is wanted


CATEGORY_TAGS = [
    {"type": INTERPRETATION, "code": "H", "context": "category"},
    {"type": INTERPRETATION, "code": "L", "context": "category.1"},
]
CATEGORIES_NOW = {
    "one in front that iCure cannot say": ([{"text": "a"}, coded("H"), coded("L")], CATEGORY_TAGS),
    "one in front": (
        [coded("N"), coded("H"), coded("L")],
        [{"type": INTERPRETATION, "code": "N", "context": "category.2"}, *CATEGORY_TAGS],
    ),
    "the other order": ([coded("L"), coded("H")], CATEGORY_TAGS[::-1]),
    "the first gone": ([coded("L")], CATEGORY_TAGS[1:]),
}


@pytest.mark.parametrize(("category", "wanted"), CATEGORIES_NOW.values(), ids=CATEGORIES_NOW)
def test_a_category_keeps_its_tags_wherever_it_comes_to_stand(
    category: list[Resource], wanted: list[Entity]
) -> None:
    was, residue = written(OBSERVATION, {"status": "final", "category": [coded("H"), coded("L")]})
    service, kept = OBSERVATION.to_icure({"status": "final", "category": category}, was, residue, CONTEXT)
    assert [t for t in service["tags"] if "category" in t.get("context", "")] == wanted
    assert OBSERVATION.to_fhir(service, kept, CONTEXT)["category"] == category
