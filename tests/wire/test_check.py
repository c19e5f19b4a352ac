"""What R4 does not allow is refused with its path, whatever the models of fhir.resources think of it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from bridge import wire
from bridge.errors import Invalid
from mappings.values import Number
from tests.wire.examples import OWN, corpus, extended, observation, patient, refused, told, xhtml

Told = list[tuple[str | None, str]]

REFUSED: dict[str, tuple[dict[str, Any], Told]] = {
    # Trap 3: what a model looks up by name.
    "no resourceType": ({"id": "1"}, [("Resource", "required")]),
    "unheard resourceType": ({"resourceType": "FooType"}, [("Resource", "not-supported")]),
    "a datatype as resourceType": ({"resourceType": "HumanName"}, [("Resource", "not-supported")]),
    "an abstract resourceType": ({"resourceType": "DomainResource"}, [("Resource", "not-supported")]),
    "a resourceType only of R4B": ({"resourceType": "Citation"}, [("Resource", "not-supported")]),
    "resourceType not a string": ({"resourceType": ["Patient"]}, [("Resource", "not-supported")]),
    "contained without type": (patient(contained=[{"id": "a"}]), [("Patient.contained[0]", "required")]),
    "contained of unknown type": (
        patient(contained=[{"resourceType": "FooType"}]),
        [("Patient.contained[0]", "not-supported")],
    ),
    "contained null": (patient(contained=[None]), [("Patient.contained[0]", "structure")]),
    "contained in contained": (
        patient(contained=[patient(contained=[patient(id="a")])]),
        [("Patient.contained[0].contained", "structure")],
    ),
    "wrong inside contained": (
        patient(contained=[patient(gender="man")]),
        [("Patient.contained[0].gender", "code-invalid")],
    ),
    # Trap 6: coercions.
    "boolean as string": (patient(active="true"), [("Patient.active", "structure")]),
    "boolean as number": (patient(active=1), [("Patient.active", "structure")]),
    "integer as string": (patient(multipleBirthInteger="2"), [("Patient.multipleBirth", "structure")]),
    "integer with fraction": (
        patient(multipleBirthInteger=Number("2.0")),
        [("Patient.multipleBirth", "structure")],
    ),
    "integer minus nought": (
        patient(multipleBirthInteger=Number("-0")),
        [("Patient.multipleBirth", "structure")],
    ),
    "integer as boolean": (patient(multipleBirthInteger=True), [("Patient.multipleBirth", "structure")]),
    "integer of 33 bits": (patient(multipleBirthInteger=2**31), [("Patient.multipleBirth", "value")]),
    "decimal as string": (
        observation(valueQuantity={"value": "7.5"}),
        [("Observation.value.value", "structure")],
    ),
    "decimal as boolean": (
        observation(valueQuantity={"value": True}),
        [("Observation.value.value", "structure")],
    ),
    "date as number": (patient(birthDate=0), [("Patient.birthDate", "structure")]),
    "string as number": (patient(name=[{"family": 5}]), [("Patient.name[0].family", "structure")]),
    "code as number": (patient(gender=1), [("Patient.gender", "structure")]),
    "positiveInt nought": (
        patient(telecom=[{"value": "1", "rank": 0}]),
        [("Patient.telecom[0].rank", "value")],
    ),
    "unsignedInt negative": (patient(photo=[{"size": -1}]), [("Patient.photo[0].size", "value")]),
    # Trap 7: accepted by the models and wrong.
    "resource_type": (patient(resource_type="Patient"), [("Patient.resource_type", "structure")]),
    "a python name": (patient(gender__ext={"id": "a"}), [("Patient.gender__ext", "structure")]),
    "fhir_comments": (patient(fhir_comments="a"), [("Patient.fhir_comments", "structure")]),
    "fhir_comments within": (
        patient(name=[{"text": "a", "fhir_comments": ["b"]}]),
        [("Patient.name[0].fhir_comments", "structure")],
    ),
    "id of 65 characters": (patient(id="a" * 65), [("Patient.id", "value")]),
    "id with a slash": (patient(id="a/b"), [("Patient.id", "value")]),
    "id with a line feed at its end": (patient(id="a\n"), [("Patient.id", "value")]),
    "id empty": (patient(id=""), [("Patient.id", "value")]),
    "empty array": (patient(name=[]), [("Patient.name", "structure")]),
    "empty array of primitives": (patient(name=[{"given": []}]), [("Patient.name[0].given", "structure")]),
    "null": (patient(birthDate=None), [("Patient.birthDate", "structure")]),
    "null for an object": (patient(maritalStatus=None), [("Patient.maritalStatus", "structure")]),
    "null for a list": (patient(name=None), [("Patient.name", "structure")]),
    "null in a list": (patient(name=[{"text": "a"}, None]), [("Patient.name[1]", "structure")]),
    "null in a list of primitives": (
        patient(name=[{"given": ["a", None]}]),
        [("Patient.name[0].given[1]", "structure")],
    ),
    "empty object": (patient(maritalStatus={}), [("Patient.maritalStatus", "structure")]),
    "empty object in a list": (patient(name=[{}]), [("Patient.name[0]", "structure")]),
    "nothing but an id": (patient(name=[{"id": "n"}]), [("Patient.name[0]", "value")]),
    "empty string": (patient(name=[{"family": ""}]), [("Patient.name[0].family", "value")]),
    "white space only": (patient(name=[{"family": " \t\n"}]), [("Patient.name[0].family", "value")]),
    "a string of more than 1 MiB": (
        patient(name=[{"family": "a" * (1024 * 1024 + 1)}]),
        [("Patient.name[0].family", "too-long")],
    ),
    "_given longer than given": (
        patient(
            name=[{"given": ["a"], "_given": [{"id": "x"}, {"extension": [{"url": "u", "valueCode": "v"}]}]}]
        ),
        [("Patient.name[0].given", "structure")],
    ),
    "_given shorter than given": (
        patient(name=[{"given": ["a", "b"], "_given": [{"id": "x"}]}]),
        [("Patient.name[0].given", "structure")],
    ),
    "null in given and in _given": (
        patient(name=[{"given": ["a", None], "_given": [{"id": "x"}, None]}]),
        [("Patient.name[0].given[1]", "structure")],
    ),
    "_given without given, with null": (
        patient(name=[{"_given": [None]}]),
        [("Patient.name[0].given[0]", "structure")],
    ),
    "_given not a list": (
        patient(name=[{"given": ["a"], "_given": {"id": "x"}}]),
        [("Patient.name[0].given", "structure")],
    ),
    "_birthDate a list": (
        patient(birthDate="1990", _birthDate=[{"id": "x"}]),
        [("Patient.birthDate", "structure")],
    ),
    "_birthDate null": (patient(birthDate="1990", _birthDate=None), [("Patient.birthDate", "structure")]),
    "_birthDate empty": (patient(birthDate="1990", _birthDate={}), [("Patient.birthDate", "structure")]),
    "_birthDate with a value": (
        patient(birthDate="1990", _birthDate={"value": "1991"}),
        [("Patient.birthDate.value", "structure")],
    ),
    "_gender with nothing but an id": (patient(_gender={"id": "x"}), [("Patient.gender", "value")]),
    "_name, of an element with children": (
        patient(_name=[{"id": "x"}]),
        [("Patient.name", "structure")],
    ),
    "_id of a resource": (patient(id="a", _id={"id": "x"}), [("Patient.id", "structure")]),
    "extension with value and extensions": (
        extended({"valueCode": "a", "extension": [{"url": "u", "valueCode": "b"}]}),
        [("Patient.extension[0]", "structure")],
    ),
    "extension with neither": (extended({}), [("Patient.extension[0]", "structure")]),
    "extension with two values": (
        extended({"valueCode": "a", "valueString": "b"}),
        [("Patient.extension[0].value", "structure")],
    ),
    "extension without url": (
        patient(extension=[{"valueCode": "a"}]),
        [("Patient.extension[0].url", "required")],
    ),
    # Extension of R4B is wider than that of R4, and narrower.
    "valueCodeableReference": (
        extended({"valueCodeableReference": {"concept": {"text": "a"}}}),
        [("Patient.extension[0].valueCodeableReference", "structure"), ("Patient.extension[0]", "structure")],
    ),
    "valueRatioRange": (
        extended({"valueRatioRange": {"lowNumerator": {"value": 1}}}),
        [("Patient.extension[0].valueRatioRange", "structure"), ("Patient.extension[0]", "structure")],
    ),
    "wrong below _valueString": (
        extended({"valueString": "a", "_valueString": {"extension": [{"url": "u", "valueBoolean": "x"}]}}),
        [("Patient.extension[0].value.extension[0].value", "structure")],
    ),
    # base64: a model makes nothing of it.
    "broken base64": (patient(photo=[{"data": "!!!!"}]), [("Patient.photo[0].data", "value")]),
    "base64 without padding": (patient(photo=[{"data": "SGVsbG8"}]), [("Patient.photo[0].data", "value")]),
    "base64 with more behind": (
        patient(photo=[{"data": "SGVsbG8=AAAA"}]),
        [("Patient.photo[0].data", "value")],
    ),
    "base64 beyond ASCII": (patient(photo=[{"data": "SGVsbGé="}]), [("Patient.photo[0].data", "value")]),
    # Required bindings.
    "gender": (patient(gender="man"), [("Patient.gender", "code-invalid")]),
    "status": (observation(status="finale"), [("Observation.status", "code-invalid")]),
    "name use": (patient(name=[{"text": "a", "use": "main"}]), [("Patient.name[0].use", "code-invalid")]),
    "telecom system": (
        patient(telecom=[{"value": "a", "system": "telex"}]),
        [("Patient.telecom[0].system", "code-invalid")],
    ),
    "comparator": (
        observation(valueQuantity={"value": 1, "comparator": "~"}),
        [("Observation.value.comparator", "code-invalid")],
    ),
    "narrative status": (
        patient(text={"status": "fresh", "div": xhtml("a")}),
        [("Patient.text.status", "code-invalid")],
    ),
    "link type": (
        patient(link=[{"other": {"reference": "Patient/1"}, "type": "same"}]),
        [("Patient.link[0].type", "code-invalid")],
    ),
    "day of week in a list": (
        observation(effectiveTiming={"repeat": {"dayOfWeek": ["mon", "day"]}}),
        [("Observation.effective.repeat.dayOfWeek[1]", "code-invalid")],
    ),
    # Forms of primitives.
    "code with white space": (
        observation(code={"coding": [{"code": " a"}]}),
        [("Observation.code.coding[0].code", "value")],
    ),
    "code with two blanks": (
        observation(code={"coding": [{"code": "a  b"}]}),
        [("Observation.code.coding[0].code", "value")],
    ),
    "uri with a blank": (
        patient(identifier=[{"system": "a b"}]),
        [("Patient.identifier[0].system", "value")],
    ),
    "30 February": (patient(birthDate="2021-02-30"), [("Patient.birthDate", "value")]),
    "29 February of a common year": (patient(birthDate="2023-02-29"), [("Patient.birthDate", "value")]),
    "29 February 1900": (patient(birthDate="1900-02-29"), [("Patient.birthDate", "value")]),
    "31 April": (observation(effectiveDateTime="2024-04-31"), [("Observation.effective", "value")]),
    "month 13": (patient(birthDate="2021-13"), [("Patient.birthDate", "value")]),
    "year 0": (patient(birthDate="0000"), [("Patient.birthDate", "value")]),
    "date with time": (patient(birthDate="2021-01-01T10:00:00Z"), [("Patient.birthDate", "value")]),
    "date in words": (patient(birthDate="1 May 2020"), [("Patient.birthDate", "value")]),
    "time without zone": (
        observation(effectiveDateTime="2021-02-01T10:00:00"),
        [("Observation.effective", "value")],
    ),
    "time without seconds": (
        observation(effectiveDateTime="2021-02-01T10:00Z"),
        [("Observation.effective", "value")],
    ),
    "24 o'clock": (
        observation(effectiveDateTime="2021-02-01T24:00:00Z"),
        [("Observation.effective", "value")],
    ),
    "zone of 15 hours": (
        observation(effectiveDateTime="2021-02-01T10:00:00+15:00"),
        [("Observation.effective", "value")],
    ),
    "31 June with time": (
        observation(effectiveDateTime="2021-06-31T10:00:00Z"),
        [("Observation.effective", "value")],
    ),
    "instant without time": (observation(issued="2021-02-01"), [("Observation.issued", "value")]),
    "time with zone": (observation(valueTime="10:00:00Z"), [("Observation.value", "value")]),
    "digits of another script": (patient(birthDate="２０２１"), [("Patient.birthDate", "value")]),
    "oid": (extended({"valueOid": "1.2.3"}), [("Patient.extension[0].value", "value")]),
    "uuid": (extended({"valueUuid": "urn:uuid:1"}), [("Patient.extension[0].value", "value")]),
    "element id with a blank": (
        patient(name=[{"id": "a b", "text": "c"}]),
        [("Patient.name[0].id", "value")],
    ),
    "element id a number": (patient(name=[{"id": 1, "text": "c"}]), [("Patient.name[0].id", "structure")]),
    # Structure.
    "unknown element": (patient(foo=1), [("Patient.foo", "structure")]),
    "unknown element within": (
        observation(component=[{"code": {"text": "a", "bar": 1}}]),
        [("Observation.component[0].code.bar", "structure")],
    ),
    "an element of another type": (patient(status="final"), [("Patient.status", "structure")]),
    "value[x] of a type it cannot have": (
        observation(valueAttachment={"url": "a"}),
        [("Observation.valueAttachment", "structure")],
    ),
    "resourceType in a datatype": (
        patient(name=[{"resourceType": "HumanName", "text": "a"}]),
        [("Patient.name[0].resourceType", "structure")],
    ),
    "required elements": (
        {"resourceType": "Observation"},
        [("Observation.code", "required"), ("Observation.status", "required")],
    ),
    "required element within": (patient(link=[{"type": "seealso"}]), [("Patient.link[0].other", "required")]),
    "one where many belong": (patient(name={"text": "a"}), [("Patient.name", "structure")]),
    "many where one belongs": (
        patient(maritalStatus=[{"text": "a"}]),
        [("Patient.maritalStatus", "structure")],
    ),
    "many primitives where one belongs": (patient(gender=["male"]), [("Patient.gender", "structure")]),
    "an object for a primitive": (patient(gender={"value": "male"}), [("Patient.gender", "structure")]),
    "a primitive for an object": (patient(maritalStatus="M"), [("Patient.maritalStatus", "structure")]),
    "a list in a list": (patient(name=[[{"text": "a"}]]), [("Patient.name[0]", "structure")]),
    "two effective[x]": (
        observation(effectiveDateTime="2020", effectivePeriod={"start": "2020"}),
        [("Observation.effective", "structure")],
    ),
    "two value[x] in a component": (
        observation(component=[{"code": {"text": "a"}, "valueString": "b", "valueInteger": 1}]),
        [("Observation.component[0].value", "structure")],
    ),
    "reference with a blank": (
        observation(subject={"reference": "Patient/a b"}),
        [("Observation.subject.reference", "value")],
    ),
    "reference that is neither an id nor a URL": (
        observation(subject={"reference": "Ada_Lovelace"}),
        [("Observation.subject.reference", "value")],
    ),
}


@pytest.mark.parametrize(("resource", "expected"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
def test_refuses_with_the_path(resource: dict[str, Any], expected: Told, strict: bool) -> None:
    assert refused(resource, strict=strict) == expected


def test_tells_all_problems_at_once() -> None:
    resource = patient(gender="man", active="true", name=[{"family": ""}, {"foo": 1}], birthDate="2021-02-30")
    assert refused(resource) == [
        ("Patient.gender", "code-invalid"),
        ("Patient.active", "structure"),
        ("Patient.name[0].family", "value"),
        ("Patient.name[1].foo", "structure"),
        ("Patient.birthDate", "value"),
    ]


def test_tells_a_bounded_number_of_problems() -> None:
    resource = patient(**{f"x{number}": 1 for number in range(5000)})
    assert len(refused_issues(resource)) == 201
    assert refused_issues(resource)[-1] == "informational"


def refused_issues(resource: dict[str, Any]) -> list[str]:
    with pytest.raises(Invalid) as error:
        wire.check(resource)
    return [issue.code for issue in error.value.issues]


def test_paths_start_where_the_resource_stands() -> None:
    path = "Bundle.entry[3].resource"
    assert refused(patient(birthDate="x"), at=path) == [(f"{path}.birthDate", "value")]


@pytest.mark.parametrize(
    "resource", [patient(), {"resourceType": "Group"}, {}, [], None, "Observation", {"resourceType": 5}]
)
def test_refuses_another_type_than_expected(resource: Any) -> None:
    assert [path for path, _ in refused(resource, expected_type="Observation")] == ["Observation"]


def test_names_that_cannot_be_elements_are_not_repeated_in_an_error() -> None:
    assert refused(patient(**{"Ada Lovelace": 1})) == [("Patient", "structure")]


ACCEPTED: dict[str, dict[str, Any]] = {
    "nothing but a type": patient(),
    "_gender instead of gender": patient(_gender={"extension": [{"url": "u", "valueCode": "asked"}]}),
    "_gender with only an id, beside gender": patient(gender="male", _gender={"id": "g"}),
    "_status instead of a required status": {
        "resourceType": "Observation",
        "_status": {"extension": [{"url": "u", "valueCode": "unknown"}]},
        "code": {"text": "a"},
    },
    "null that holds a place": patient(
        name=[{"given": ["a", None], "_given": [None, {"extension": [{"url": "u", "valueCode": "b"}]}]}]
    ),
    "_given without given": patient(name=[{"_given": [{"extension": [{"url": "u", "valueCode": "b"}]}]}]),
    "_valueCode beside valueCode": extended({"valueCode": "F", "_valueCode": {"id": "a"}}),
    "_valueCode alone": extended({"_valueCode": {"extension": [{"url": "u", "valueCode": "asked"}]}}),
    "_valueCode below _valueCode": extended(
        {"_valueCode": {"extension": [{"url": "u", "valueCode": "a", "_valueCode": {"id": "b"}}]}}
    ),
    "_valueCode of an extension of a primitive": patient(
        birthDate="1990",
        _birthDate={"extension": [{"url": "u", "valueCode": "a", "_valueCode": {"id": "b"}}]},
    ),
    "uuid of version 1": extended({"valueUuid": "urn:uuid:c757873d-ec9a-1326-a141-556f43239520"}),
    "url without a path": extended({"valueUrl": "?page=2"}),
    "base64 in lines": patient(photo=[{"data": "SGVs\n bG8="}]),
    "a leap second": observation(effectiveDateTime="2016-12-31T23:59:60Z"),
    "a fraction of many digits": observation(effectiveDateTime="2016-12-31T23:59:59.1234567890123Z"),
    "the first and the last moment": observation(
        effectivePeriod={"start": "0001-01-01T00:00:00+14:00", "end": "9999-12-31T23:59:59-14:00"}
    ),
    "29 February": patient(birthDate="2000-02-29"),
    "a year": patient(birthDate="1970"),
    "id of 64 characters": patient(id="a" * 64),
    "a decimal that is an integer": observation(valueQuantity={"value": 7}),
    "a decimal beyond 64 bits": observation(valueQuantity={"value": Number("123456789012345678901")}),
    "a decimal with exponent": observation(valueQuantity={"value": Number("1.0E+2")}),
    "the largest exponent": observation(valueQuantity={"value": Number("1e400")}),
    "an extension of extensions": extended({"extension": [{"url": "u", "valueCode": "a"}]}),
    "a reference by identifier only": observation(subject={"identifier": {"value": "1"}}),
    "a fragment": observation(subject={"reference": "#"}),
    "a conditional reference": observation(subject={"reference": "Patient?identifier=http://a|1"}),
    "urn:uuid": observation(subject={"reference": "urn:uuid:61ebe359-bfdc-4613-8bf2-c5e300945f0a"}),
    "another type that R4 has": {"resourceType": "Organization", "name": "a"},
}


@pytest.mark.parametrize("resource", ACCEPTED.values(), ids=ACCEPTED)
@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
def test_accepts_without_a_word(resource: dict[str, Any], strict: bool) -> None:
    before = copy.deepcopy(resource)
    checked, warnings = wire.check(resource, strict=strict)
    assert checked is resource
    assert resource == before
    assert warnings == []


def test_accepts_extensions_as_deep_as_a_document_may_be() -> None:
    extension: dict[str, Any] = {"url": "u", "valueCode": "a"}
    for _ in range((wire.MAX_DEPTH - 3) // 2):
        extension = {"url": "u", "extension": [extension]}
    body = wire.dump(patient(extension=[extension]))
    assert wire.check(wire.parse(body))[1] == []


@pytest.mark.parametrize(
    "path", [*OWN, *corpus("hl7-r4/Patient-*.json"), *corpus("hl7-r4/Observation-*.json")]
)
def test_accepts_every_valid_example_as_it_is(path: Any) -> None:
    resource = wire.parse(path.read_bytes())
    checked, warnings = wire.check(resource, strict=True)
    assert checked is resource
    assert warnings == []


def test_two_values_stay_and_are_told() -> None:
    resource = observation(
        _valueString={"id": "s"},
        extension=[{"url": "u", "valueCode": "a"}],
        valueQuantity={"value": Number("7.20")},
        valueString="low",
        valueCodeableConcept={"text": "adr"},
    )
    before = copy.deepcopy(resource)
    checked, warnings = wire.check(resource)
    assert resource == before
    assert checked == observation(
        _valueString={"id": "s"},
        valueString="low",
        extension=[
            {"url": "u", "valueCode": "a"},
            {"url": wire.ADDITIONAL_VALUE, "valueQuantity": {"value": Number("7.20")}},
            {"url": wire.ADDITIONAL_VALUE, "valueCodeableConcept": {"text": "adr"}},
        ],
    )
    assert told(warnings) == [("Observation.value", "structure")]
    assert warnings[0].severity == "warning"
    assert wire.check(checked, strict=True) == (checked, [])


def test_an_additional_value_takes_its_extensions_along() -> None:
    because = {"extension": [{"url": "u", "valueCode": "a"}]}
    checked, _ = wire.check(observation(valueInteger=1, _valueDateTime=because))
    assert checked == observation(
        valueInteger=1, extension=[{"url": wire.ADDITIONAL_VALUE, "_valueDateTime": because}]
    )


def test_a_wrong_additional_value_is_refused() -> None:
    assert refused(observation(valueInteger=1, valueString="")) == [("Observation.value", "value")]


def test_an_id_as_reference_is_accepted_and_told() -> None:
    resource = observation(subject={"reference": "9a106b7f-2fa1-4b54-b3cb-c29cbfebe2ee"})
    checked, warnings = wire.check(resource)
    assert checked is resource
    assert told(warnings) == [("Observation.subject.reference", "value")]


def test_an_odd_element_id_is_accepted_and_told() -> None:
    resource = observation(valueCodeableConcept={"id": "CD-ITEM|adr|1", "text": "adr"})
    checked, warnings = wire.check(resource)
    assert checked is resource
    assert told(warnings) == [("Observation.value.id", "value")]


DEVIATIONS = {
    "two values": (observation(valueInteger=1, valueString="a"), [("Observation.value", "structure")]),
    "an id as reference": (
        observation(subject={"reference": "pat1"}),
        [("Observation.subject.reference", "value")],
    ),
}


@pytest.mark.parametrize(("resource", "expected"), DEVIATIONS.values(), ids=DEVIATIONS)
def test_strict_validation_refuses_what_lenient_lets_through(
    resource: dict[str, Any], expected: Told
) -> None:
    assert wire.check(resource)[1]
    assert refused(resource, strict=True) == expected


def test_an_odd_element_id_is_r4_and_passes_strict_validation() -> None:
    assert wire.check(observation(valueCodeableConcept={"id": "a|b", "text": "c"}), strict=True)[1] == []
