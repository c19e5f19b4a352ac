"""Strategies for resources and entities.

Strategy: resources are drawn along the gate's own tables of R4 (`bridge.wire.shapes`), so that every element of every
datatype turns up; what a mapping looks into is drawn from small pools, so that it is met often and repeats itself.
Entities are drawn as iCure's SDKs write them: without residue, with members that FHIR does not know.
"""

from __future__ import annotations

import base64
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from bridge.wire.bindings import REQUIRED
from bridge.wire.primitives import RULES
from bridge.wire.shapes import Element, Shape, resource_shape
from mappings import REGISTRY
from mappings.values import Entity, Json, Number, Resource

LOINC = "http://loinc.org"
MARITAL_STATUS = "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus"
RELATIONSHIP = "http://terminology.hl7.org/CodeSystem/v2-0131"
ROLE = "http://terminology.hl7.org/CodeSystem/v3-RoleCode"
INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
UCUM = "http://unitsofmeasure.org"

DEEPEST = 4

# what a word, a date, a number can be

words = st.sampled_from(
    ["Anna", "Bo", "Çelik", "van der Meer", "médecin", "日本", "a\nb", " ", "x" * 100, "0", "true"]
)
strings = words.filter(str.strip) | st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=6
).filter(str.strip)
codes = st.sampled_from(["final", "en", "nl-BE", "L", "M", "15074-8", "A B"])
uris = st.sampled_from([LOINC, UCUM, "urn:oid:1.2.3", "http://example.org/a", "https://example.org/b?c=d|e"])
ids = st.sampled_from(["a", "b1", "x.y-z"])
years = st.integers(1, 9999) | st.integers(1990, 2025)
clock_times = st.sampled_from(
    ["00:00:00", "09:30:10", "23:59:60", "12:00:00.000", "12:34:56.789", "24:00:00"]
)
zones = st.sampled_from(["Z", "+00:00", "-05:00", "+13:45", "-00:00"])
decimals = (
    st.sampled_from(
        ["7.50", "1.0e2", "-0", "-0.0", "1E-7", "0.000001", "6.3", "72.0", "123456789012345678.123456789"]
        + ["1E+400", "-1E-400", "12345678901234567890", "1e0", "0.1"]
    ).map(Number)
    | st.integers(-(10**14), 10**14)
    | st.floats(-1e6, 1e6).map(lambda double: Number(repr(double)))
)


@st.composite
def dates(draw: DrawFn, precision: str = "day") -> str:
    """Draws a date of any precision from a year to a day, to a second or exactly that."""
    text = f"{draw(years):04}"
    steps = draw(st.integers(0, 2)) if precision != "instant" else 3
    if steps:
        text += f"-{draw(st.integers(1, 12)):02}"
    if steps > 1:
        text += f"-{draw(st.integers(1, 28)):02}"
    if steps == 3 or (steps == 2 and precision == "second" and draw(st.booleans())):
        text += f"T{draw(clock_times.filter(lambda t: t < '24'))}{draw(zones)}"
    return text


date_times = dates("second")
base64_texts = st.binary(min_size=1, max_size=8).map(lambda data: base64.b64encode(data).decode())

PRIMITIVES: dict[str, SearchStrategy[Json]] = {
    "base64Binary": base64_texts,
    "boolean": st.booleans(),
    "canonical": uris,
    "code": codes,
    "date": dates(),
    "dateTime": date_times,
    "decimal": decimals,
    "id": ids,
    "instant": dates("instant"),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "markdown": strings,
    "oid": st.just("urn:oid:1.2.3"),
    "positiveInt": st.integers(1, 9),
    "string": strings,
    "time": clock_times.filter(lambda time: time < "24"),
    "unsignedInt": st.integers(0, 9),
    "uri": uris,
    "url": uris,
    "uuid": st.just("urn:uuid:c757873d-ec9a-4326-a141-556f43239520"),
    "xhtml": strings.map(
        lambda text: f'<div xmlns="http://www.w3.org/1999/xhtml"><p>{_escaped(text)}</p></div>'
    ),
}
_BY_RULE = {id(rule): PRIMITIVES[name] for name, rule in RULES.items()}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# what is drawn from pools

CODINGS: list[Resource] = [
    {"system": LOINC, "code": "15074-8", "display": "Glucose"},
    {"system": LOINC, "code": "15074-8"},
    {"system": LOINC, "code": "15074-8", "version": "2.68"},
    {"system": LOINC, "code": "718-7", "display": "Hemoglobin", "userSelected": True},
    {"system": "http://snomed.info/sct", "code": "365756002"},
    {"system": INTERPRETATION, "code": "H", "display": "High"},
    {"system": MARITAL_STATUS, "code": "M", "display": "Married"},
    {"system": MARITAL_STATUS, "code": "U"},
    {"system": MARITAL_STATUS, "code": "I"},
    {"system": RELATIONSHIP, "code": "N"},
    {"system": RELATIONSHIP, "code": "BP"},
    {"system": ROLE, "code": "MTH"},
    {"system": ROLE, "code": "SPS", "display": "spouse"},
    {"system": "urn:ietf:bcp:47", "code": "nl"},
    {"system": "urn:ietf:bcp:47", "code": "fr-BE"},
    {"system": "http://hl7.org/fhir/observation-status", "code": "final"},
    {"system": "ICURE_INTERNAL_FHIR_TYPE", "code": "OBSERVATION", "version": "5"},
    {"system": CLINICAL, "code": "active"},
    {"system": CLINICAL, "code": "resolved", "version": "4.0.1", "display": "Resolved"},
    {"system": VERIFICATION, "code": "refuted"},
    {"system": LOINC},
    {"code": "718-7"},
    {"display": "only words"},
    {"system": LOINC, "code": "718-7", "id": "c1", "extension": [{"url": "http://a.b", "valueInteger": 1}]},
    {"_system": {"extension": [{"url": "http://a.b", "valueCode": "unknown"}]}, "code": "x"},
]
REFERENCES = [
    "Patient/p1",
    "Patient/p2",
    "Practitioner/h1",
    "Practitioner/h2",
    "Practitioner/h3",
    "Practitioner/h4",
    "Organization/o1",
    "Observation/s1",
    "Observation/s2",
    "Device/d1",
    "Group/g1",
    "RelatedPerson/r1",
    "Practitioner/unknown",
    "Patient/p1/_history/2",
    "https://example.org/fhir/Patient/p1",
    "urn:uuid:c757873d-ec9a-4326-a141-556f43239520",
    "#c1",
]
CONTAINED: list[Resource] = [
    {"resourceType": "Practitioner", "id": "c1", "name": [{"family": "Inside"}]},
    {"resourceType": "Patient", "id": "c2", "birthDate": "1970-03", "gender": "male"},
    {"resourceType": "Observation", "id": "c3", "status": "final", "code": {"text": "x"}, "valueInteger": 3},
]
EXTENSIONS: list[Resource] = [
    {"url": "http://example.org/a", "valueString": "kept"},
    {"url": "http://example.org/b", "valueDecimal": Number("7.50")},
    {"url": "http://example.org/c", "valueCode": "M", "_valueCode": {"id": "v"}},
    {"url": "http://example.org/d", "extension": [{"url": "e", "valueBoolean": False}], "id": "x"},
    {"url": "http://example.org/f", "valueReference": {"reference": "Practitioner/h1"}},
    {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"},
]


def pool(members: list[Any]) -> SearchStrategy[Any]:
    return st.sampled_from(members)


_FROM_POOLS: dict[str, SearchStrategy[Resource]] = {"Coding": pool(CODINGS), "Extension": pool(EXTENSIONS)}
_OF_ELEMENTS: dict[tuple[str, str], SearchStrategy[Json]] = {
    ("Reference", "reference"): pool(REFERENCES),
    ("Reference", "type"): st.just("Patient"),
    ("ContactPoint", "value"): pool(["+32 2 555", "a@b.be", "0478"]) | strings,
    ("Attachment", "contentType"): pool(["image/jpeg", "image/png", "text/plain"]),
    ("Quantity", "code"): pool(["mmol/L", "kg", "a"]),
    ("Quantity", "unit"): pool(["mmol/l", "kg", "years"]),
    ("Quantity", "system"): pool([UCUM, "http://example.org/a"]),
    ("SampledData", "data"): pool(["2041 2043 E 2037", "1", "U L 1.5 1.50", "1 2 3 4 5 6"]),
    **{(kind, "contained"): pool(CONTAINED) for kind in REGISTRY},
    ("PatientContact", "relationship"): st.builds(
        lambda coding, more: {"coding": [coding], **more},
        pool([c for c in CODINGS if c.get("system") in (RELATIONSHIP, ROLE)]),
        pool([{}, {"text": "related"}, {"id": "r"}]),
    ),
}


# resources along the tables of R4


@st.composite
def resources(draw: DrawFn, resource_type: str) -> Resource:
    """Draws a valid resource as parsed from JSON, with an id and a meta now and then."""
    shape = resource_shape(resource_type)
    assert shape is not None
    return {"resourceType": resource_type, **draw(_objects(shape, 0))}


def members_of(resource_type: str, element: str) -> SearchStrategy[Json]:
    """Draws one member of a list element of a resource."""
    shape = resource_shape(resource_type)
    assert shape is not None
    return _values(shape, shape.elements[element], 0)


@st.composite
def _objects(draw: DrawFn, shape: Shape, depth: int) -> Resource:
    if shape.name in _FROM_POOLS:
        return dict(draw(_FROM_POOLS[shape.name]))
    names = [name for name, element in shape.elements.items() if _is_drawn(element, depth)]
    chosen = draw(
        st.lists(pool(names), unique=True, min_size=1, max_size=12 if depth == 0 else 5 - depth // 2)
    )
    chosen += [name for name in shape.required if name not in chosen]
    for choice in shape.required_choices:
        chosen.append(
            draw(pool([n for n, e in shape.elements.items() if e.choice == choice and not e.sibling]))
        )
    if set(chosen) <= {"id"}:
        chosen.append(draw(pool([n for n in names if n not in ("id", "extension")])))
    result: Resource = {}
    choices: set[str] = set()
    for name in chosen:
        element = shape.elements[name]
        if element.choice is None or element.choice not in choices:
            choices |= {element.choice} if element.choice else set()
            result |= draw(_members(shape, element, depth))
    return result


def _is_drawn(element: Element, depth: int) -> bool:
    if element.sibling or element.key in ("resourceType", "implicitRules"):
        return False
    return depth < DEEPEST or element.rule is not None


@st.composite
def _members(draw: DrawFn, shape: Shape, element: Element, depth: int) -> Resource:
    """Draws an element with all its members in JSON: the value and, of a primitive one, perhaps its `_` sibling."""
    key = element.key
    value = _values(shape, element, depth)
    extra = st.fixed_dictionaries({"extension": st.lists(pool(EXTENSIONS), min_size=1, max_size=2)})
    with_extra = f"_{key}" in shape.elements and draw(st.integers(0, 5)) == 0
    if not element.many:
        if not with_extra:
            return {key: draw(value)}
        return draw(st.sampled_from([{}, {key: draw(value)}])) | {f"_{key}": draw(extra)}
    values = draw(st.lists(value, min_size=1, max_size=3))
    if draw(st.integers(0, 9)) == 0:
        values = [*values, values[0]]
    if not with_extra:
        return {key: values}
    extras = [draw(st.none() | extra) for _ in values]
    extras[-1] = extras[-1] or draw(extra)
    held = [None if x is not None and draw(st.booleans()) else v for v, x in zip(values, extras, strict=True)]
    return {f"_{key}": extras, **({key: held} if any(v is not None for v in held) else {})}


def _values(shape: Shape, element: Element, depth: int) -> SearchStrategy[Json]:
    key = (shape.name, element.key)
    if key in _OF_ELEMENTS:
        return _OF_ELEMENTS[key]
    if key in REQUIRED:
        return pool(sorted(REQUIRED[key]))
    if element.rule is not None:
        return _BY_RULE.get(id(element.rule), ids)
    return st.deferred(lambda: _objects(element.shape, depth + 1))


# entities as an SDK writes them

ENTITY_TEXTS = st.sampled_from(["Anna", "Bo", "Çelik", "", " ", "a\nb", "Rue Haute 1"])
UUIDS = st.sampled_from(
    [f"{n:08x}-0000-4000-8000-000000000000" for n in range(1, 5)] + ["p1", "h1", "h2", "o1", "s1", "s2"]
)
MOMENTS = st.integers(1_500_000_000_000, 1_800_000_000_000)
FUZZY_DATES = st.sampled_from(
    [19700101, 19700100, 19700000, 20240229, 10000101, 99991231, 19701399, 0, 20230229]
)
FUZZY_TIMES = FUZZY_DATES | st.sampled_from(
    [
        20240101093010,
        20231231240000,
        20231231236000,
        20231231235960,
        20240100000000,
        20240000000000,
        20241399250000,
    ]
)
DOUBLES = st.sampled_from([72.0, 6.3, 0.1, 1e22, -0.0, 1e-7]) | st.floats(-1e6, 1e6) | st.integers(-999, 999)
LANGUAGES = st.sampled_from(["en", "fr", "xx", "nl"])


def any_of(names_: str) -> SearchStrategy[str]:
    return st.sampled_from(names_.split())


GENDERS = any_of("male female indeterminate changed changedToMale changedToFemale unknown")
NAME_USES = any_of("usual official temp nickname anonymous maiden old other")
ADDRESS_TYPES = any_of(
    "home work vacation hospital clinic hq other temporary postal diplomatic reference careaddress"
)
TELECOM_TYPES = any_of(
    "mobile phone email fax skype im medibridge ehealthbox apicrypt web print disk other pager"
)
STATUSES = any_of(
    "single in_couple married separated divorced divorcing widowed widower complicated unknown contract other "
    "annulled polygamous"
)
PARTNERSHIPS = any_of(
    "primary_contact family friend contact mother spouse next_of_kin employer unknown seealso refer brotherinlaw"
)
CARE_PARTIES = any_of(
    "doctor referral medicalhouse retirementhome hospital other referringphysician managingorganization"
)


def some(**members: SearchStrategy[Json]) -> SearchStrategy[Entity]:
    """Draws an object with any of these members; one in a while is null, as SDKs write what is not set."""
    return st.fixed_dictionaries({}, optional={name: _nullable(value) for name, value in members.items()})


def _nullable(value: SearchStrategy[Json]) -> SearchStrategy[Json]:
    return st.integers(0, 7).flatmap(lambda n: st.none() if n == 0 else value)


def few(value: SearchStrategy[Json]) -> SearchStrategy[list[Json]]:
    return st.lists(value, max_size=3)


def distinct(value: SearchStrategy[Json]) -> SearchStrategy[list[Json]]:
    return st.lists(value, max_size=3, unique_by=repr)


code_stubs = st.sampled_from(
    [
        {"id": f"{LOINC}|15074-8|2.68", "type": LOINC, "code": "15074-8", "version": "2.68"},
        {
            "id": f"{LOINC}|718-7|1",
            "type": LOINC,
            "code": "718-7",
            "version": "1",
            "label": {"en": "Hemoglobin"},
        },
        {"id": "CD-ITEM|adr|1", "type": "CD-ITEM", "code": "adr", "version": "1"},
        {"id": "CD-ITEM|adr|1"},
        {"type": LOINC, "code": "15074-8", "context": "code"},
        {"type": "http://example.org/a", "code": "x", "context": "category"},
        {"type": "SOAP", "code": "a  b ", "label": {"fr": "étiquette"}},
        {"type": "no uri", "code": "y"},
        {"code": "z"},
        {"label": {"en": "only words"}},
    ]
)
annotations = st.fixed_dictionaries(
    {"id": UUIDS},
    optional={
        "markdown": st.dictionaries(LANGUAGES, ENTITY_TEXTS, max_size=2),
        "text": ENTITY_TEXTS,
        "created": MOMENTS,
        "modified": MOMENTS,
        "author": UUIDS,
        "tags": distinct(code_stubs),
        "location": ENTITY_TEXTS,
    },
)
identifiers = some(
    id=UUIDS,
    use=st.sampled_from(["official", "usual", "primary"]),
    system=st.sampled_from(["urn:oid:1.2.3", "http://example.org/mrn", "no uri"]),
    value=ENTITY_TEXTS,
    type=code_stubs,
    start=st.sampled_from(["2020-01-01", "2020", "20200101", "yesterday"]),
    end=st.sampled_from(["2020-01-01T00:00:00Z", "2021-12"]),
    assigner=ENTITY_TEXTS,
)
names = some(
    use=NAME_USES,
    lastName=ENTITY_TEXTS,
    firstNames=few(ENTITY_TEXTS),
    prefix=few(ENTITY_TEXTS),
    suffix=few(ENTITY_TEXTS),
    text=ENTITY_TEXTS,
    start=FUZZY_DATES,
    end=FUZZY_DATES,
)
telecoms = some(telecomType=TELECOM_TYPES, telecomNumber=ENTITY_TEXTS, telecomDescription=ENTITY_TEXTS)
addresses = some(
    addressType=ADDRESS_TYPES,
    descr=ENTITY_TEXTS,
    street=ENTITY_TEXTS,
    houseNumber=ENTITY_TEXTS,
    postboxNumber=ENTITY_TEXTS,
    postalCode=ENTITY_TEXTS,
    city=ENTITY_TEXTS,
    state=ENTITY_TEXTS,
    country=ENTITY_TEXTS,
    note=ENTITY_TEXTS,
    notes=few(annotations),
    telecoms=few(telecoms),
    tags=distinct(code_stubs),
    identifier=few(identifiers),
)
patients = some(
    created=MOMENTS,
    modified=MOMENTS,
    identifier=few(identifiers),
    names=few(names),
    firstName=ENTITY_TEXTS,
    maidenName=ENTITY_TEXTS,
    spouseName=ENTITY_TEXTS,
    alias=ENTITY_TEXTS,
    ssin=ENTITY_TEXTS,
    companyName=ENTITY_TEXTS,
    gender=GENDERS,
    birthSex=GENDERS,
    active=st.booleans(),
    deactivationReason=st.sampled_from(["none", "deceased"]),
    dateOfBirth=FUZZY_DATES,
    dateOfDeath=FUZZY_DATES,
    deceased=st.booleans(),
    addresses=few(addresses),
    languages=distinct(any_of("en fr nl français")),
    personalStatus=STATUSES,
    picture=base64_texts | st.just("not base64!"),
    partnerships=few(
        some(
            type=PARTNERSHIPS,
            status=st.just("active"),
            partnerId=UUIDS,
            partnerType=st.sampled_from(["patient", "healthcareParty", "relatedPerson"]),
            meToOtherRelationshipDescription=ENTITY_TEXTS,
            otherToMeRelationshipDescription=ENTITY_TEXTS,
        )
    ),
    patientHealthCareParties=few(
        some(
            type=CARE_PARTIES,
            healthcarePartyId=UUIDS,
            referral=st.booleans(),
            referralPeriods=few(some(startDate=MOMENTS)),
        )
    ),
    mergeToPatientId=UUIDS,
    mergedIds=distinct(UUIDS),
    tags=distinct(code_stubs),
    codes=distinct(code_stubs),
    notes=few(annotations),
    note=ENTITY_TEXTS,
    nationality=ENTITY_TEXTS,
    properties=few(some(id=UUIDS, typedValue=some(type=st.just("STRING"), stringValue=ENTITY_TEXTS))),
    parameters=st.dictionaries(LANGUAGES, few(ENTITY_TEXTS), max_size=1),
    responsible=UUIDS,
    author=UUIDS,
)
measures = some(
    value=DOUBLES,
    unit=ENTITY_TEXTS,
    comparator=st.sampled_from(["<", ">=", "~"]),
    unitCodes=distinct(code_stubs | st.just({"type": UCUM, "code": "mmol/L"})),
    severity=st.integers(0, 5),
    severityCode=st.sampled_from(["H", "L", "x y", ""]),
    comment=ENTITY_TEXTS,
    min=DOUBLES,
    max=DOUBLES,
    sign=st.just("+"),
    referenceRanges=few(
        some(
            low=DOUBLES,
            high=DOUBLES,
            stringValue=ENTITY_TEXTS,
            tags=distinct(code_stubs),
            codes=distinct(code_stubs),
            age=some(low=DOUBLES, high=DOUBLES),
            notes=few(annotations),
        )
    ),
)


def contents(depth: int) -> SearchStrategy[Entity]:
    """Draws a Content, most often of one value."""
    values: dict[str, SearchStrategy[Json]] = {
        "stringValue": ENTITY_TEXTS,
        "numberValue": DOUBLES,
        "booleanValue": st.booleans(),
        "instantValue": MOMENTS,
        "fuzzyDateValue": FUZZY_TIMES,
        "binaryValue": base64_texts,
        "documentId": UUIDS,
        "measureValue": measures,
        "medicationValue": some(instructionForPatient=ENTITY_TEXTS),
        "timeSeries": some(
            fields=few(st.sampled_from(["t", "mV"])),
            samples=few(st.lists(DOUBLES, max_size=2)),
            min=few(DOUBLES),
        ),
        "ratio": few(measures),
        "range": few(measures),
    }
    if depth == 0:
        values["compoundValue"] = few(st.deferred(lambda: services(1)))
    one = st.sampled_from(sorted(values)).flatmap(lambda name: st.fixed_dictionaries({name: values[name]}))
    return one | some(**values)


def services(depth: int = 0) -> SearchStrategy[Entity]:
    """Draws a Service of a Contact, or one inside another's `compoundValue`."""
    members: dict[str, SearchStrategy[Json]] = {
        "label": ENTITY_TEXTS,
        "codes": distinct(code_stubs),
        "tags": distinct(code_stubs),
        "content": st.dictionaries(LANGUAGES, contents(depth), max_size=2),
        "valueDate": FUZZY_TIMES,
        "openingDate": FUZZY_TIMES,
        "closingDate": FUZZY_TIMES,
        "created": MOMENTS,
        "modified": MOMENTS,
        "author": UUIDS,
        "responsible": UUIDS,
        "index": st.integers(0, 3),
        "comment": ENTITY_TEXTS,
        "status": st.integers(0, 7),
        "notes": few(annotations),
        "identifier": few(identifiers),
        "invoicingCodes": distinct(ENTITY_TEXTS),
        "textIndexes": st.dictionaries(LANGUAGES, ENTITY_TEXTS, max_size=1),
        "formId": UUIDS,
        "qualifiedLinks": st.dictionaries(
            st.sampled_from(["hasMember", "derivedFrom", "device", "parent"]),
            st.dictionaries(UUIDS, UUIDS, max_size=2),
            max_size=2,
        ),
    }
    if depth == 0:
        members["patientId"] = UUIDS
    return st.tuples(st.uuids(version=4).map(str), some(**members)).map(
        lambda drawn: {"id": drawn[0], "modified": 1_700_000_000_000, **drawn[1]}
    )


status_tags = st.sampled_from(
    [
        {"id": f"{CLINICAL}|active|1", "type": CLINICAL, "code": "active", "version": "1"},
        {"type": CLINICAL, "code": "resolved", "context": "clinicalStatus"},
        {"type": VERIFICATION, "code": "refuted", "label": {"en": "Refuted"}},
        {
            "id": "ICURE_INTERNAL_FHIR_TYPE|CONDITION|5",
            "type": "ICURE_INTERNAL_FHIR_TYPE",
            "code": "CONDITION",
        },
    ]
)
health_elements = some(
    healthElementId=UUIDS,
    identifiers=few(identifiers),
    codes=distinct(code_stubs),
    tags=distinct(code_stubs | status_tags),
    descr=ENTITY_TEXTS,
    note=ENTITY_TEXTS,
    notes=few(annotations),
    valueDate=FUZZY_TIMES,
    openingDate=FUZZY_TIMES,
    closingDate=FUZZY_TIMES,
    created=MOMENTS,
    modified=MOMENTS,
    responsible=UUIDS,
    author=UUIDS,
    relevant=st.booleans(),
    status=st.integers(0, 7),
    laterality=st.sampled_from(["left", "right"]),
    idService=UUIDS,
    idOpeningContact=UUIDS,
    plansOfAction=few(st.fixed_dictionaries({"id": UUIDS, "name": ENTITY_TEXTS})),
    episodes=few(st.fixed_dictionaries({"id": UUIDS, "comment": ENTITY_TEXTS})),
    careTeam=few(st.fixed_dictionaries({"id": UUIDS, "healthcarePartyId": UUIDS})),
    patientId=UUIDS,
).map(lambda drawn: {"id": "00000000-0000-4000-8000-0000000000bb", "rev": "1-b", **drawn})


parties = some(
    created=MOMENTS,
    modified=MOMENTS,
    identifier=few(identifiers),
    name=ENTITY_TEXTS,
    companyName=ENTITY_TEXTS,
    names=few(names),
    firstName=ENTITY_TEXTS,
    gender=GENDERS,
    civility=ENTITY_TEXTS,
    speciality=ENTITY_TEXTS,
    specialityCodes=few(code_stubs),
    addresses=few(addresses),
    languages=few(st.sampled_from(["en", "fr", "nl-BE", "", "français"])),
    picture=base64_texts | st.just("not base64!"),
    type=st.sampled_from(["persphysician", "medicalhouse", "organization", "x\ny", ""]),
    codes=distinct(code_stubs | st.just({"type": "http://example.org/a", "code": "t", "context": "type"})),
    tags=distinct(code_stubs),
    nihii=ENTITY_TEXTS,
    ssin=ENTITY_TEXTS,
    parentId=UUIDS,
    userId=UUIDS,
    publicKey=st.just("30820122"),
    hcPartyKeys=st.dictionaries(UUIDS, few(st.just("ab12")), max_size=1),
    aesExchangeKeys=st.just({"k": {"d": {"f": "ab"}}}),
    notes=ENTITY_TEXTS,
    properties=few(st.fixed_dictionaries({"id": UUIDS, "typedValue": some(type=st.just("STRING"))})),
).map(
    lambda drawn: {"id": "00000000-0000-4000-8000-0000000000cc", "rev": "1-c", "lastName": "Smith", **drawn}
)


def _with_names(patient: Entity) -> Entity:
    """Returns a patient with the last name that the server insists on, mostly that of its first name."""
    first = next(iter(patient.get("names") or ()), None) or {}
    return {
        "id": "00000000-0000-4000-8000-0000000000aa",
        "rev": "1-a",
        **patient,
        "lastName": first.get("lastName") or "Smith",
    }


ENTITIES: dict[str, SearchStrategy[Entity]] = {
    "Patient": patients.map(_with_names),
    "Service": services(),
    "HealthElement": health_elements,
    "HealthcareParty": parties,
}
"""What SDKs write, by entity type."""
