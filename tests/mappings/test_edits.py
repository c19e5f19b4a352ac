"""Law 4: what an iCure client edits shows in FHIR, and nothing else moves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from mappings import REGISTRY
from mappings.values import Entity, Json, Number, Resource

from .completion import AFTERWARDS, completed, saved_by_an_sdk
from .helpers import CONTEXT, assert_same, expected, written
from .strategies import members_of, resources
from .test_laws import FEW

Change = Callable[[Json], None]


def put(path: str, value: Json) -> Change:
    """Returns a change that sets what stands at a path such as `names/0/lastName`."""

    def change(root: Json) -> None:
        holder, last = _at(root, path)
        holder[last] = value

    return change


def drop(path: str) -> Change:
    def change(root: Json) -> None:
        holder, last = _at(root, path)
        del holder[last]

    return change


def insert(path: str, value: Json) -> Change:
    def change(root: Json) -> None:
        holder, last = _at(root, path)
        holder.insert(last, value)

    return change


def reverse(path: str) -> Change:
    def change(root: Json) -> None:
        holder, last = _at(root, path)
        holder[last].reverse()

    return change


def _at(root: Json, path: str) -> tuple[Any, Any]:
    *way, last = [int(step) if step.isdecimal() else step for step in path.split("/")]
    for step in way:
        root = root[step]
    return root, last


def after(value: Json, *changes: Change) -> Json:
    """Returns a changed copy."""
    changed = copy.deepcopy(value)
    for change in changes:
        change(changed)
    return changed


EXTENSION = {"url": "http://example.org/why", "valueString": "kept"}
EXTENDED = {"extension": [EXTENSION]}
UCUM = {"system": "http://unitsofmeasure.org", "code": "mmol/L"}
MARITAL = "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus"
HIGH = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation", "code": "H"}

PATIENT: Resource = {
    "resourceType": "Patient",
    "meta": {
        "profile": ["http://example.org/StructureDefinition/p"],
        "tag": [
            {"system": "http://example.org/tags", "code": "a", "display": "A"},
            {"system": "http://example.org/tags", "version": "2", "code": "b", "display": "B"},
        ],
    },
    "extension": [EXTENSION],
    "identifier": [
        {"system": "http://example.org/mrn", "value": "1", "extension": [EXTENSION]},
        {"system": "http://example.org/mrn", "value": "2", "assigner": {"reference": "Organization/o1"}},
        {"system": "http://example.org/mrn", "value": "3", "period": {"start": "2020", "id": "p"}},
    ],
    "active": True,
    "_active": EXTENDED,
    "name": [
        {"use": "nickname", "given": ["Zaza"], "id": "nick"},
        {
            "use": "official",
            "text": "Dr Zoé Anne van den Éynde",
            "family": "van den Éynde",
            "given": ["Zoé", "Anne"],
            "_given": [None, EXTENDED],
            "period": {"start": "1985-01-30T00:00:00Z"},
        },
    ],
    "telecom": [
        {"system": "phone", "use": "home", "value": "1", "rank": 2},
        {"system": "email", "use": "work", "value": "z@example.org", "extension": [EXTENSION]},
        {"system": "sms", "value": "2"},
        {"system": "phone", "use": "old", "value": "3"},
        {"extension": [EXTENSION]},
    ],
    "gender": "other",
    "_gender": EXTENDED,
    "birthDate": "1985-01",
    "_birthDate": EXTENDED,
    "deceasedDateTime": "2061-03-01T04:05:06.70+02:00",
    "address": [
        {"use": "home", "line": ["Rue Haute 1", "boîte 2"], "city": "Bruxelles", "text": "at home"},
        {"use": "work", "line": ["Korenmarkt 1"], "city": "Gent", "district": "centre"},
        {"text": "the lighthouse"},
    ],
    "maritalStatus": {
        "coding": [{"system": MARITAL, "code": "D"}],
        "text": "it is complicated",
    },
    "photo": [
        {"url": "https://example.org/1.jpg"},
        {"contentType": "image/png", "data": "iVBORw0KGgo=", "title": "at the sea"},
    ],
    "contact": [
        {
            "relationship": [
                {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0131", "code": "N"}]}
            ],
            "name": {"family": "Éynde"},
        },
        {
            "relationship": [
                {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-RoleCode", "code": "MTH"}]}
            ],
            "gender": "female",
        },
        {"name": {"text": "the neighbour"}},
    ],
    "communication": [
        {"language": {"coding": [{"system": "urn:ietf:bcp:47", "code": "nl-BE"}]}},
        {"language": {"coding": [{"system": "urn:ietf:bcp:47", "code": "fr-BE"}]}, "preferred": True},
        {"language": {"text": "signs"}},
    ],
    "generalPractitioner": [
        {"reference": "Practitioner/h1", "display": "One"},
        {"display": "whoever is on duty"},
        {"reference": "Organization/o2", "display": "Two"},
    ],
    "managingOrganization": {"reference": "Organization/o1", "display": "The clinic"},
    "link": [{"other": {"reference": "Patient/p2", "display": "older"}, "type": "seealso"}],
}

OBSERVATION: Resource = {
    "resourceType": "Observation",
    "meta": {"tag": [{"system": "http://example.org/tags", "code": "a", "display": "A"}]},
    "extension": [EXTENSION],
    "identifier": [{"system": "http://example.org/lab", "value": "1", "extension": [EXTENSION]}],
    "status": "final",
    "_status": {"id": "s"},
    "category": [
        {
            "coding": [
                {"system": "http://example.org/cat", "code": "x", "display": "X"},
                {"system": "http://example.org/cat", "code": "y"},
            ],
            "text": "both",
        },
        {"text": "by hand"},
    ],
    "code": {
        "coding": [
            {"system": "http://loinc.org", "code": "15074-8", "display": "Glucose", "userSelected": True},
            {"system": "http://example.org/codes", "code": "GLU", "display": "glu"},
        ],
        "text": "Glucose in blood",
    },
    "subject": {"reference": "Patient/p1", "display": "P."},
    "effectiveDateTime": "2013-04-02T09:30:10.5+01:00",
    "issued": "2013-04-03T15:30:10+01:00",
    "performer": [{"display": "night shift"}, {"reference": "Practitioner/h1", "display": "One"}],
    "valueQuantity": {"value": Number("7.50"), "unit": "mmol/l", **UCUM, "extension": [EXTENSION]},
    "interpretation": [{"coding": [{**HIGH, "display": "High"}], "text": "too high"}, {"text": "repeat"}],
    "note": [
        {"authorString": "lab", "time": "2013-04-04", "text": "haemolytic"},
        {"authorString": "ward", "text": "second"},
    ],
    "bodySite": {"text": "left arm"},
    "referenceRange": [
        {"low": {"value": Number("3.10"), "unit": "mmol/l", **UCUM}, "text": "adults"},
        {"high": {"value": Number("6.0"), "unit": "mmol/l", **UCUM}, "text": "children"},
    ],
    "hasMember": [
        {"reference": "Observation/m1", "display": "first"},
        {"reference": "MolecularSequence/x"},
        {"reference": "Observation/m2", "display": "second"},
    ],
    "component": [
        {
            "code": {"coding": [{"system": "http://loinc.org", "code": "8480-6", "display": "Systolic"}]},
            "valueQuantity": {"value": Number("120.0"), "unit": "mmHg"},
            "extension": [EXTENSION],
        },
        {"code": {"text": "cuff"}, "valueString": "large", "id": "cuff"},
        {"code": {"text": "asked"}, "dataAbsentReason": {"text": "no"}},
    ],
}


def observation(**members: Json) -> Resource:
    """Returns the Observation with another value."""
    rest = {
        n: v for n, v in OBSERVATION.items() if n not in ("valueQuantity", "interpretation", "referenceRange")
    }
    return {**rest, **members}


def _loinc(code: str) -> Resource:
    return {"system": "http://loinc.org", "code": code}


PATIENT_EDITS: dict[str, tuple[list[Change], list[Change]]] = {
    "lastName only": ([put("lastName", "Jones")], [put("name/1/family", "Jones")]),
    "lastName of the name only": ([put("names/1/lastName", "Jones")], [put("name/1/family", "Jones")]),
    "both copies of lastName": (
        [put("lastName", "Jones"), put("names/1/lastName", "Jones")],
        [put("name/1/family", "Jones")],
    ),
    "firstName only": (
        [put("firstName", "Zoé Eve")],
        [put("name/1/given", ["Zoé", "Eve"]), drop("name/1/_given")],
    ),
    "lastName of another name": ([put("names/0/lastName", "Z")], [put("name/0/family", "Z")]),
    "a name inserted in front": (
        [insert("names/0", {"lastName": "New", "use": "old"})],
        [insert("name/0", {"use": "old", "family": "New"})],
    ),
    "a name deleted": ([drop("names/0")], [drop("name/0")]),
    "gender": ([put("gender", "female")], [put("gender", "female"), drop("_gender")]),
    "gender within other": ([put("gender", "changed")], []),
    "gender unset": ([put("gender", None)], [put("gender", "unknown"), drop("_gender")]),
    "dateOfBirth": (
        [put("dateOfBirth", 19850131)],
        [put("birthDate", "1985-01-31"), drop("_birthDate")],
    ),
    "dateOfBirth unset": ([drop("dateOfBirth")], [drop("birthDate"), drop("_birthDate")]),
    "active": ([put("active", False)], [put("active", False), drop("_active")]),
    "dateOfDeath": ([put("dateOfDeath", 20610302)], [put("deceasedDateTime", "2061-03-02")]),
    "deceased withdrawn": (
        [put("deceased", False), drop("dateOfDeath")],
        [drop("deceasedDateTime"), put("deceasedBoolean", False)],
    ),
    "a telecom's number": (
        [put("addresses/0/telecoms/0/telecomNumber", "9")],
        [put("telecom/0/value", "9")],
    ),
    "a telecom deleted": ([drop("addresses/0/telecoms")], [drop("telecom/0")]),
    "a telecom added": (
        [insert("addresses/1/telecoms/0", {"telecomType": "fax", "telecomNumber": "7"})],
        [insert("telecom/1", {"system": "fax", "use": "work", "value": "7"})],
    ),
    "an address inserted in front": (
        [insert("addresses/0", {"addressType": "work", "city": "Liège"})],
        [insert("address/0", {"use": "work", "city": "Liège"})],
    ),
    "an address deleted": ([drop("addresses/1")], [drop("address/1"), drop("telecom/1")]),
    "an address's city": ([put("addresses/1/city", "Ghent")], [put("address/1/city", "Ghent")]),
    "an address's note": ([put("addresses/0/note", "ring twice")], []),
    "an identifier deleted": ([drop("identifier/0")], [drop("identifier/0")]),
    "an identifier inserted in front": (
        [insert("identifier/0", {"value": "0"})],
        [insert("identifier/0", {"value": "0"})],
    ),
    "identifiers reordered": ([reverse("identifier")], [reverse("identifier")]),
    "an identifier's value": ([put("identifier/1/value", "22")], [put("identifier/1/value", "22")]),
    "all identifiers deleted": ([drop("identifier")], [drop("identifier")]),
    "personalStatus": (
        [put("personalStatus", "married")],
        [
            put("maritalStatus", {"coding": [{"system": MARITAL, "code": "M"}]}),
        ],
    ),
    "picture": (
        [put("picture", "/9j/")],
        [put("photo/1", {"contentType": "image/jpeg", "data": "/9j/"})],
    ),
    "picture deleted": ([drop("picture")], [drop("photo/1")]),
    "a partnership deleted": ([drop("partnerships/0")], [drop("contact/0")]),
    "a partnership's type": (
        [put("partnerships/1/type", "father")],
        [put("contact/1/relationship/0/coding/0/code", "FTH")],
    ),
    "a language deleted": (
        [lambda e: e["languages"].remove("nl")],
        [drop("communication/0")],
    ),
    "a language added": (
        [lambda e: e["languages"].append("de")],
        [insert("communication/1", {"language": {"coding": [{"system": "urn:ietf:bcp:47", "code": "de"}]}})],
    ),
    "a doctor replaced": (
        [put("patientHealthCareParties/0/healthcarePartyId", "h9")],
        [put("generalPractitioner/0", {"reference": "Practitioner/h9"})],
    ),
    "the managing organization unset": (
        [lambda e: e["patientHealthCareParties"].pop()],
        [drop("managingOrganization")],
    ),
    "merged into another": (
        [put("mergeToPatientId", "p3")],
        [insert("link/1", {"other": {"reference": "Patient/p3"}, "type": "replaced-by"})],
    ),
    "a tag deleted": ([drop("tags/0")], [drop("meta/tag/0")]),
    "a tag added": (
        [insert("tags/2", {"type": "http://example.org/tags", "code": "c"})],
        [insert("meta/tag/2", {"system": "http://example.org/tags", "code": "c"})],
    ),
    "what FHIR has no element for": (
        [put("nationality", "BE"), put("companyName", "X"), put("note", "n"), put("modified", 1)],
        [],
    ),
}
STATUS_TAG = {"type": "http://hl7.org/fhir/observation-status", "code": "amended"}


def _status(entity: Entity) -> None:
    others = [t for t in entity["tags"] if t.get("type") != STATUS_TAG["type"]]
    entity["tags"] = [STATUS_TAG, *others]


def _tags(entity: Entity, keep: Callable[[Entity], bool]) -> None:
    entity["tags"] = [t for t in entity["tags"] if keep(t)]


MEASURE = "content/xx/measureValue"
PARTS = "content/xx/compoundValue"

OBSERVATION_EDITS: dict[str, tuple[list[Change], list[Change]]] = {
    "valueDate": ([put("valueDate", 20240101)], [put("effectiveDateTime", "2024-01-01")]),
    "openingDate": ([put("openingDate", 20240101)], [put("effectiveDateTime", "2024-01-01")]),
    "both dates": (
        [put("openingDate", 20240101), put("valueDate", 20240101)],
        [put("effectiveDateTime", "2024-01-01")],
    ),
    "closingDate": (
        [put("closingDate", 20240102)],
        [
            drop("effectiveDateTime"),
            put("effectivePeriod", {"start": "2013-04-02T09:30:10Z", "end": "2024-01-02"}),
        ],
    ),
    "value": ([put(f"{MEASURE}/value", 8.25)], [put("valueQuantity/value", Number("8.25"))]),
    "a value without fraction": ([put(f"{MEASURE}/value", 8.0)], [put("valueQuantity/value", 8)]),
    "comparator": ([put(f"{MEASURE}/comparator", "<")], [put("valueQuantity/comparator", "<")]),
    "severityCode": (
        [put(f"{MEASURE}/severityCode", "L")],
        [put("interpretation/0", {"coding": [{**HIGH, "code": "L"}]})],
    ),
    "a reference range's low": (
        [put(f"{MEASURE}/referenceRanges/0/low", 3.0)],
        [put("referenceRange/0/low/value", 3)],
    ),
    "a reference range deleted": ([drop(f"{MEASURE}/referenceRanges/0")], [drop("referenceRange/0")]),
    "the value deleted": (
        [drop(MEASURE)],
        [drop("valueQuantity"), drop("interpretation/0"), drop("referenceRange")],
    ),
    "status": ([_status], [put("status", "amended"), drop("_status")]),
    "status tag deleted": (
        [lambda e: _tags(e, lambda t: t["type"] != STATUS_TAG["type"])],
        [put("status", "unknown"), drop("_status")],
    ),
    "a category deleted": (
        [lambda e: _tags(e, lambda t: t["code"] != "y")],
        [drop("category/0/coding/1")],
    ),
    "a category added": (
        [insert("tags/0", {"type": "http://example.org/cat", "code": "z", "context": "category"})],
        [insert("category/0/coding/0", {"system": "http://example.org/cat", "code": "z"})],
    ),
    "a tag added": (
        [insert("tags/0", {"type": "http://example.org/tags", "code": "b"})],
        [insert("meta/tag/0", {"system": "http://example.org/tags", "code": "b"})],
    ),
    "a tag deleted": ([lambda e: _tags(e, lambda t: t["code"] != "a")], [drop("meta")]),
    "a code added in front": (
        [insert("codes/0", {"type": "http://loinc.org", "code": "718-7"})],
        [insert("code/coding/0", _loinc("718-7"))],
    ),
    "a code deleted": ([drop("codes/1")], [drop("code/coding/1")]),
    "label": ([put("label", "Sugar")], [put("code/text", "Sugar")]),
    "responsible": (
        [put("responsible", "h9")],
        [put("performer/1", {"reference": "Practitioner/h9"})],
    ),
    "another patient": ([put("patientId", "p9")], [put("subject", {"reference": "Patient/p9"})]),
    "a note": ([put("notes/0/markdown/xx", "clear")], [put("note/0/text", "clear")]),
    "a note inserted in front": (
        [insert("notes/0", {"id": "n", "markdown": {"en": "new"}})],
        [insert("note/0", {"text": "new"})],
    ),
    "a note deleted": ([drop("notes/0")], [drop("note/0")]),
    "an identifier deleted": ([drop("identifier/0")], [drop("identifier")]),
    "a component's value": (
        [put(f"{PARTS}/0/content/xx/measureValue/value", 130.5)],
        [put("component/0/valueQuantity/value", Number("130.5"))],
    ),
    "a component's text": (
        [put(f"{PARTS}/1/content/en/stringValue", "small")],
        [put("component/1/valueString", "small")],
    ),
    "a component deleted": ([drop(f"{PARTS}/0")], [drop("component/0")]),
    "a component inserted in front": (
        [insert(f"{PARTS}/0", {"id": "new", "label": "pulse", "content": {"xx": {"numberValue": 61.0}}})],
        [insert("component/0", {"code": {"text": "pulse"}, "valueInteger": 61})],
    ),
    "components reordered": ([reverse(PARTS)], [reverse("component")]),
    "a link added": (
        [put("qualifiedLinks/hasMember/k", "m3")],
        [insert("hasMember/3", {"reference": "Observation/m3"})],
    ),
    "links of another kind": ([put("qualifiedLinks/parent", {"k": "m9"})], []),
    "what FHIR has no element for": ([put("comment", "c"), put("index", 7), put("modified", 1)], []),
}

VALUES: dict[str, tuple[Resource, Change, list[Change]]] = {
    "string": (
        observation(valueString="old", _valueString={"id": "v"}),
        put("content/en/stringValue", "new"),
        [put("valueString", "new"), drop("_valueString")],
    ),
    "boolean": (
        observation(valueBoolean=True),
        put("content/xx/booleanValue", False),
        [put("valueBoolean", False)],
    ),
    "integer": (observation(valueInteger=3), put("content/xx/numberValue", 4.0), [put("valueInteger", 4)]),
    "number": (
        observation(valueInteger=3),
        put("content/xx/numberValue", 4.5),
        [drop("valueInteger"), put("valueQuantity", {"value": Number("4.5")})],
    ),
    "range": (
        observation(valueRange={"low": {"value": Number("1.50"), "id": "l"}, "high": {"value": 2}}),
        put("content/xx/range/1/value", 3),
        [put("valueRange/high/value", 3)],
    ),
    "ratio": (
        observation(valueRatio={"numerator": {"value": 1}, "denominator": {"value": Number("128.0")}}),
        put("content/xx/ratio/0/value", 2),
        [put("valueRatio/numerator/value", 2)],
    ),
    "dateTime": (
        observation(valueDateTime="2024-01-01T00:00:00.1+01:00"),
        put("content/xx/fuzzyDateValue", 20240102),
        [put("valueDateTime", "2024-01-02")],
    ),
    "concept": (
        observation(
            valueCodeableConcept={"coding": [{"system": "http://a.b", "code": "c", "display": "old"}]}
        ),
        put("content/en/stringValue", "new"),
        [drop("valueCodeableConcept"), put("valueString", "new")],
    ),
    "time": (
        observation(valueTime="10:11:12.50"),
        put("content/en/stringValue", "noon"),
        [drop("valueTime"), put("valueString", "noon")],
    ),
    "samples": (
        observation(
            valueSampledData={
                "origin": {"value": Number("0.0"), "unit": "mV"},
                "period": 10,
                "dimensions": 1,
                "data": "1 2.50 3",
            }
        ),
        put("content/xx/timeSeries/samples/1/1", 9.0),
        [put("valueSampledData/data", "1 9 3")],
    ),
    "a value where there was none": (
        observation(dataAbsentReason={"text": "lost"}),
        put("content/en", {"stringValue": "found"}),
        [put("valueString", "found")],
    ),
    "a period by its start": (
        {
            **OBSERVATION,
            "effectivePeriod": {"start": "2020-01-01T00:00:00.5Z", "end": "2020-01-02", "id": "p"},
        },
        put("valueDate", 20191231),
        [put("effectivePeriod/start", "2019-12-31")],
    ),
    "a period by its opening": (
        {
            **OBSERVATION,
            "effectivePeriod": {"start": "2020-01-01T00:00:00.5Z", "end": "2020-01-02", "id": "p"},
        },
        put("openingDate", 20191231),
        [put("effectivePeriod/start", "2019-12-31")],
    ),
    "no date": (
        {n: v for n, v in OBSERVATION.items() if n not in ("effectiveDateTime", "issued")},
        put("valueDate", 2024),
        [],
    ),
}
for _case in ("a period by its start", "a period by its opening"):
    VALUES[_case][0].pop("effectiveDateTime")
VALUES["no date"] = (
    VALUES["no date"][0],
    put("valueDate", 20240101),
    [put("effectiveDateTime", "2024-01-01")],
)

EDITS = {
    **{f"Patient: {name}": (PATIENT, *rest) for name, rest in PATIENT_EDITS.items()},
    **{f"Observation: {name}": (OBSERVATION, *rest) for name, rest in OBSERVATION_EDITS.items()},
    **{f"Observation's value: {name}": (r, [edit], shown) for name, (r, edit, shown) in VALUES.items()},
}


@pytest.mark.parametrize("later", ["completed by the server", "saved by an SDK"])
@pytest.mark.parametrize(("resource", "edits", "shown"), EDITS.values(), ids=EDITS)
def test_an_edit_shows_and_nothing_else_moves(
    resource: Resource, edits: list[Change], shown: list[Change], later: str
) -> None:
    mapping = REGISTRY[resource["resourceType"]]
    entity, residue = written(mapping, resource)
    entity = AFTERWARDS[later](mapping.entity_type, entity)
    assert_same(mapping.to_fhir(entity, residue, CONTEXT), resource)
    edited = after(entity, *edits)
    assert_same(mapping.to_fhir(edited, residue, CONTEXT), after(resource, *shown))


@pytest.mark.parametrize(("resource", "edits", "shown"), EDITS.values(), ids=EDITS)
def test_an_edit_survives_an_update_of_something_else(
    resource: Resource, edits: list[Change], shown: list[Change]
) -> None:
    mapping = REGISTRY[resource["resourceType"]]
    entity, residue = written(mapping, resource)
    edited = after(completed(mapping.entity_type, entity), *edits)
    wanted = after(resource, *shown, put("language", "nl"), put("extension", [EXTENSION, EXTENSION]))
    again, kept = mapping.to_icure(wanted, edited, residue, CONTEXT)
    assert_same(again, edited)
    assert_same(mapping.to_fhir(saved_by_an_sdk(mapping.entity_type, again), kept, CONTEXT), wanted)


LISTS = [
    ("Patient", "identifier", "identifier"),
    ("Patient", "name", "names"),
    ("Patient", "address", "addresses"),
    ("Patient", "contact", "partnerships"),
    ("Patient", "generalPractitioner", "patientHealthCareParties"),
    ("Observation", "identifier", "identifier"),
    ("Observation", "note", "notes"),
    ("Observation", "component", "content/xx/compoundValue"),
]


@pytest.mark.parametrize(
    ("resource_type", "element", "members"), LISTS, ids=[f"{a}.{b}" for a, b, _ in LISTS]
)
@FEW
@given(st.data())
def test_what_is_kept_of_a_list_member_stays_with_it(
    resource_type: str, element: str, members: str, data: DataObject
) -> None:
    mapping = REGISTRY[resource_type]
    resource = expected(data.draw(resources(resource_type)))
    resource = {n: v for n, v in resource.items() if n not in ("telecom", "link", "managingOrganization")}
    drawn = data.draw(st.lists(members_of(resource_type, element), min_size=6, max_size=12))
    several = _distinct(resource_type, element, drawn)
    assume(len(several) > 2)
    new, *sent = several
    resource[element] = sent
    entity, residue = written(mapping, resource)
    entity = completed(mapping.entity_type, entity)
    held, last = _at(entity, members)
    assume(len(held[last]) == len(sent))
    order = data.draw(st.permutations(range(len(sent))))
    order = order[: data.draw(st.integers(1, len(sent)))]
    held[last] = [held[last][i] for i in order]
    wanted = [sent[i] for i in order]
    if len(order) == len(sent):
        fresh, _ = written(mapping, {**_bare(resource_type), element: [new]}, "e2")
        fresh_held, _ = _at(fresh, members)
        place = data.draw(st.integers(0, len(order)))
        held[last].insert(place, fresh_held[last][0])
        wanted.insert(place, _alone(resource_type, element, new))
    found = mapping.to_fhir(entity, residue, CONTEXT)
    assert_same(found.get(element, []), wanted)
    others = [n for n in found if n not in (element, "name")]
    assert_same({n: found[n] for n in others}, {n: resource[n] for n in others})


def _bare(resource_type: str) -> Resource:
    required: Resource = {"Observation": {"status": "final", "code": {"text": "x"}}}.get(resource_type, {})
    return {"resourceType": resource_type, **required}


def _alone(resource_type: str, element: str, member: Json) -> Json:
    """Returns what iCure says of a list member without residue, None when it is nothing."""
    mapping = REGISTRY[resource_type]
    entity, _ = written(mapping, {**_bare(resource_type), element: [member]})
    return (mapping.to_fhir(entity, {}, CONTEXT).get(element) or [None])[0]


def _distinct(resource_type: str, element: str, members: list[Json]) -> list[Json]:
    """Returns those members that iCure can say, each in another way."""
    found: dict[str, Json] = {}
    for member in members:
        natural = _alone(resource_type, element, member)
        if natural is not None:
            found.setdefault(repr(natural), member)
    return list(found.values())
