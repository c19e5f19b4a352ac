"""FHIR Observation and iCure Service.

Facts: https://hl7.org/fhir/R4/observation.html. A Service keeps codes, tags, label, dates, identifiers, links and who
is responsible in clear; its content is encrypted. iCure's own FHIR-shaped SDK knows an Observation by a tag.

The bridge adds `patientId` to a Service it reads, and takes it off what it writes: the patient is a matter of the
Contact. It is no property of iCure's.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from mappings.codecs import code, each, from_double, from_fuzzy, text, to_double, to_fuzzy
from mappings.datatypes import (
    IDENTIFIER,
    INTERPRETATION,
    QUANTITY,
    RANGES,
    Codings,
    reference,
    referenced,
)
from mappings.engine import DEFAULT, WITNESS, Context, Mapping, row, said_over
from mappings.repeats import repeated
from mappings.residue import align
from mappings.search import composite, date, quantity, refers, string, token
from mappings.tags import Grouped, TypeTag, about, is_type, types
from mappings.values import Entity, Json, Resource

STATUS = "http://hl7.org/fhir/observation-status"
ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
NEUTRAL, LANGUAGE = "xx", "en"
"""Keys of `content`: for what has no language, and for text."""
RESIDUE = "fhir"
"""Key of `content` under which the residue stands."""
PARTIES = {"Practitioner": "Practitioner", "Organization": "Organization", "Patient": "Patient"}
NO_CODE = {"extension": [{"url": ABSENT, "valueCode": "unknown"}]}
_IDS = uuid.UUID("6a0b3f5e-4b7d-5d55-8f0e-6d0a5a1f7a21")
_NOT_OBSERVED = ("medicationValue", "documentId", "binaryValue")


def is_observation(service: Entity) -> bool:
    """Whether an opened Service is shown as an Observation.

    All are but those tagged as another FHIR type and those that hold only medication or document content.
    """
    kinds = types(service)
    if kinds:
        return "OBSERVATION" in kinds
    contents = [c for key, c in (service.get("content") or {}).items() if key != RESIDUE]
    return not contents or not all(_only(c, _NOT_OBSERVED) for c in contents)


def _only(content: Entity, names: tuple[str, ...]) -> bool:
    said = [n for n, v in content.items() if v is not None]
    return bool(said) and all(n in names for n in said)


# tags: status, category, meta.tag, and the tag of the type


def _is_status(tag: Entity) -> bool:
    return tag.get("type") == STATUS and tag.get("code") in _STATUSES


_is_category = about("category")


def _is_other(tag: Entity) -> bool:
    return not (_is_status(tag) or _is_category(tag) or is_type(tag))


_STATUSES = frozenset(
    ["registered", "preliminary", "final", "amended", "corrected", "cancelled", "entered-in-error", "unknown"]
)


class Status:
    """`status` as a tag of FHIR's status system."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the tag."""
        return (
            [{"id": f"{STATUS}|{value}|1", "type": STATUS, "code": value, "version": "1"}] if value else None
        )

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the status, `unknown` where iCure says none."""
        return value[0]["code"] if value else "unknown"


# code


class Code:
    """`code` as codes and label: the first display. Text goes to the residue, as a label is in clear."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns codes and label."""
        old = (onto or {}).get("codes") or ()
        codings = [c for c in (value or {}).get("coding") or () if isinstance(c, dict)]
        displays = [c["display"] for c in codings if isinstance(c.get("display"), str)]
        mine = Codings("code").to_icure(codings, [c for c in old if _is_code(c)], context) or []
        label = (onto or {}).get("label")
        if displays or label != (value or {}).get("text"):
            label = displays[0] if displays else None
        return {"codes": [c for c in old if not _is_code(c)] + mine or None, "label": label}

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the codes, and the label as text."""
        codings = Codings().to_fhir([c for c in value.get("codes") or () if _is_code(c)], context)
        label = text.said(value.get("label"))
        said = {**({"coding": codings} if codings else {}), **({"text": label} if label else {})}
        return said or NO_CODE


def _is_code(stub: Entity) -> bool:
    return stub.get("context") in (None, "code")


# when


class Effective:
    """`effective[x]` as valueDate, openingDate and closingDate.

    A Service always has dates: where FHIR says none, it gets those of writing, and the residue remembers.
    """

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the dates."""
        period = value.get("effectivePeriod") or {}
        start, end = to_fuzzy(period.get("start")), to_fuzzy(period.get("end"))
        if start is None:
            start = (
                to_fuzzy(value.get("effectiveDateTime") or value.get("effectiveInstant"))
                or to_fuzzy(_first_event(value.get("effectiveTiming")))
                or end
                or _now(context)
            )
        return {"valueDate": start, "openingDate": start, "closingDate": end}

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns a Period when there is an end, else a dateTime.

        A start has two dates in iCure. Which one an iCure client edited shows by the witness.
        """
        at, opening = value.get("valueDate"), value.get("openingDate")
        closing = from_fuzzy(value.get("closingDate"), context)
        then = value.get(WITNESS, {}).get("valueDate")
        if closing is None:
            said = from_fuzzy(opening if then == at and opening else at or opening, context)
            return {"effectiveDateTime": said} if said else None
        start = from_fuzzy(at if then is not None and at != then else opening or at, context)
        return {"effectivePeriod": {**({"start": start} if start else {}), "end": closing}}


def _first_event(timing: Json) -> Json:
    events = (timing or {}).get("event") or ()
    return events[0] if events else None


def _now(context: Context) -> int:
    moment = datetime.fromtimestamp(context.now // 1000, UTC).astimezone(context.zone)
    return int(moment.strftime("%Y%m%d%H%M%S"))


# who


class Subject:
    """`subject` as the patient of the Contact."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the patient's id when iCure holds the patient."""
        return referenced(value, ("Patient",), context)

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the reference."""
        return reference("Patient", value)


class Performer:
    """The first performer that iCure holds as the one who is responsible; else the caller is."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the data owner's id."""
        ids = (referenced(one, tuple(PARTIES), context) for one in value or ())
        return next((i for i in ids if i), context.caller)

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the one who is responsible as a Practitioner."""
        said = reference("Practitioner", value)
        return [said] if said else None


class Members:
    """References to Observations as qualified links of one kind."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns all links, those of this kind anew."""
        if not value and not onto:
            return None
        links = {k: v for k, v in (onto or {}).items() if k != self._kind}
        old: dict[str, Json] = (onto or {}).get(self._kind) or {}
        keys = {target: key for key, target in old.items()}
        targets = [i for i in (referenced(one, ("Observation",), context) for one in value or ()) if i]
        said = {keys.get(t) or str(uuid.uuid5(_IDS, f"{self._kind}/{t}")): t for t in dict.fromkeys(targets)}
        mute = {key: target for key, target in old.items() if reference("Observation", target) is None}
        if said or mute:
            links[self._kind] = {**said, **mute}
        return links or None

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the references."""
        targets = ((value or {}).get(self._kind) or {}).values()
        return [said for target in targets if (said := reference("Observation", target))] or None


# notes


class Note:
    """An annotation's text; its time and author would stand in clear and go to the residue."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the Annotation."""
        said = value.get("text")
        if not isinstance(said, str):
            return None
        old: Entity = onto or {}
        key = next(iter(old.get("markdown") or {}), NEUTRAL)
        return {**{n: v for n, v in old.items() if n not in ("text", "markdown")}, "markdown": {key: said}}

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the annotation's text."""
        texts = (text.said(t) for t in (*(value.get("markdown") or {}).values(), value.get("text")))
        said = next((t for t in texts if t), None)
        return {"text": said} if said else None


# content: the value, its interpretation and ranges, the components


class Values:
    """`value[x]` as a Content. Each FHIR type has its member of iCure's; what several share is told by the residue."""

    def write(self, resource: Resource, context: Context) -> tuple[str, Entity] | None:
        """Returns the key and the Content of the value, None when there is none that iCure can say."""
        for name, (key, forward) in _VALUES.items():
            if name in resource:
                said = forward(resource[name], context)
                return (key, said) if said else None
        return None

    def read(self, content: Entity, context: Context) -> Resource:
        """Returns the value of a Content."""
        for name, backward in _CONTENTS.items():
            if content.get(name) is not None:
                said: Resource | None = backward(content[name], context)
                if said:
                    return said
        return {}


def _measure(value: Json, context: Context) -> Entity | None:
    said = QUANTITY.to_icure(value, None, context)
    return {"measureValue": said} if said else None


def _measures(member: str, names: tuple[str, str]) -> Callable[[Json, Context], Entity | None]:
    def forward(value: Json, context: Context) -> Entity | None:
        parts = [QUANTITY.to_icure(value[n], None, context) or {} if n in value else {} for n in names]
        return {member: parts} if any(parts) else None

    return forward


def _of_measures(element: str, names: tuple[str, str]) -> Callable[[Json, Context], Resource | None]:
    def backward(value: Json, context: Context) -> Resource | None:
        parts = {
            n: said
            for n, m in zip(names, value, strict=False)
            if m and (said := QUANTITY.to_fhir(m, context))
        }
        return {element: parts} if parts else None

    return backward


def _concept_text(value: Json, context: Context) -> Entity | None:
    displays = [c["display"] for c in value.get("coding") or () if isinstance(c.get("display"), str)]
    said = value.get("text") or (displays[0] if displays else None)
    return {"stringValue": said} if isinstance(said, str) else None


def _plain(member: str, forward: Callable[[Json], Json]) -> Callable[[Json, Context], Entity | None]:
    def write(value: Json, context: Context) -> Entity | None:
        said = forward(value)
        return None if said is None else {member: said}

    return write


def _period(value: Json, context: Context) -> Entity | None:
    said = to_fuzzy(value.get("start")) or to_fuzzy(value.get("end"))
    return {"fuzzyDateValue": said} if said else None


def _samples(value: Json, context: Context) -> Entity | None:
    """Returns numbers as (milliseconds, value) rows; None when some are markers, or there are several dimensions."""
    step = to_double(value.get("period"))
    origin = to_double((value.get("origin") or {}).get("value", 0))
    factor = to_double(value.get("factor", 1))
    if value.get("dimensions") != 1 or not step or origin is None or factor is None:
        return None
    try:
        numbers = [float(word) for word in (value.get("data") or "").split()]
    except ValueError:
        return None
    rows = [[i * float(step), number * factor + origin] for i, number in enumerate(numbers)]
    if len(rows) < 2 or not all(map(math.isfinite, chain.from_iterable(rows))):
        return None
    return {"timeSeries": {"fields": ["time", "value"], "samples": rows}}


def _of_samples(value: Json, context: Context) -> Resource | None:
    rows: list[list[float]] = value.get("samples") or []
    if value.get("fields") != ["time", "value"] or len(rows) < 2 or any(len(row) != 2 for row in rows):
        return None
    step = from_double(rows[1][0] - rows[0][0])
    data = " ".join(str(from_double(row[1])) for row in rows)
    return {"valueSampledData": {"origin": {"value": 0}, "period": step, "dimensions": 1, "data": data}}


def _of_number(value: Json, context: Context) -> Resource | None:
    said = from_double(value)
    if isinstance(said, int) and abs(said) < 2**31:
        return {"valueInteger": said}
    return None if said is None else {"valueQuantity": {"value": said}}


def _of_instant(value: Json, context: Context) -> Resource | None:
    try:
        moment = datetime.fromtimestamp(value / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return {"valueDateTime": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")}


def _of_fuzzy(value: Json, context: Context) -> Resource | None:
    said = from_fuzzy(value, context)
    return {"valueDateTime": said} if said else None


def _text(value: Json) -> Json:
    return value if isinstance(value, str) else None


_VALUES: dict[str, tuple[str, Callable[[Json, Context], Entity | None]]] = {
    "valueQuantity": (NEUTRAL, _measure),
    "valueCodeableConcept": (LANGUAGE, _concept_text),
    "valueString": (LANGUAGE, _plain("stringValue", _text)),
    "valueBoolean": (NEUTRAL, _plain("booleanValue", lambda v: v if isinstance(v, bool) else None)),
    "valueInteger": (NEUTRAL, _plain("numberValue", to_double)),
    "valueRange": (NEUTRAL, _measures("range", ("low", "high"))),
    "valueRatio": (NEUTRAL, _measures("ratio", ("numerator", "denominator"))),
    "valueSampledData": (NEUTRAL, _samples),
    "valueTime": (LANGUAGE, _plain("stringValue", _text)),
    "valueDateTime": (NEUTRAL, _plain("fuzzyDateValue", to_fuzzy)),
    "valuePeriod": (NEUTRAL, _period),
}
_CONTENTS: dict[str, Callable[[Any, Context], Resource | None]] = {
    "measureValue": lambda v, c: {"valueQuantity": said} if (said := QUANTITY.to_fhir(v, c)) else None,
    "stringValue": lambda v, c: {"valueString": v} if text.said(v) else None,
    "numberValue": _of_number,
    "booleanValue": lambda v, c: {"valueBoolean": v},
    "range": _of_measures("valueRange", ("low", "high")),
    "ratio": _of_measures("valueRatio", ("numerator", "denominator")),
    "timeSeries": _of_samples,
    "fuzzyDateValue": _of_fuzzy,
    "instantValue": _of_instant,
}
_OURS = frozenset((*_CONTENTS, "compoundValue"))
VALUES = Values()
VALUE_NAMES = tuple(_VALUES)


class Contents:
    """value[x], interpretation, referenceRange and component as `content`."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns content; members and languages that say nothing in FHIR stay."""
        old: dict[str, Entity] = (onto or {}).get("content") or {}
        said = _content_of(value, old, context)
        components = [c for c in value.get("component") or () if isinstance(c, dict)]
        if components:
            parts = _parts(components, old, (onto or {}).get("id") or "", context)
            said[NEUTRAL] = {**said.get(NEUTRAL, {}), "compoundValue": parts}
        return {"content": said or None, "id": (onto or {}).get("id")}

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the elements."""
        content = value.get("content") or {}
        said = _said_of(content, context)
        parts = [p for key, c in content.items() if key != RESIDUE for p in c.get("compoundValue") or ()]
        if parts:
            said["component"] = [COMPONENT.to_fhir(part, context) for part in parts]
        return said or None


def _content_of(value: Resource, old: dict[str, Entity], context: Context) -> dict[str, Entity]:
    """Returns content with the value of a resource or component, and without its parts."""
    said = {key: rest for key, c in old.items() if (rest := {n: v for n, v in c.items() if n not in _OURS})}
    written = VALUES.write(value, context)
    if written is None:
        return said
    key, content = written
    before = next((k for k, c in old.items() if k != RESIDUE and content.keys() <= c.keys()), None)
    key = before or key
    measure = content.get("measureValue")
    if measure is not None:
        was = (old.get(key) or {}).get("measureValue") or {}
        if was:
            measure = QUANTITY.to_icure(value["valueQuantity"], was, context)
        ranges, there = value.get("referenceRange"), was.get("referenceRanges")
        members = {
            "referenceRanges": repeated(context.repeats, _ranges_to_icure, ranges, there),
            "severityCode": _severity(value),
        }
        measure = {n: v for n, v in measure.items() if n not in members}
        content = {"measureValue": measure | {n: v for n, v in members.items() if v}}
    said[key] = {**said.get(key, {}), **content}
    return said


def _severity(value: Resource) -> str | None:
    for concept in value.get("interpretation") or ():
        for said in concept.get("coding") or ():
            if said.get("system") == INTERPRETATION and isinstance(said.get("code"), str):
                return str(said["code"])
    return None


def _said_of(content: dict[str, Entity], context: Context) -> Resource:
    """Returns value, interpretation and ranges of a content."""
    for key, one in content.items():
        said = VALUES.read(one, context) if key != RESIDUE else None
        if not said:
            continue
        measure = one.get("measureValue")
        if measure:
            unit = {n: v for n, v in said.get("valueQuantity", {}).items() if n in ("unit", "system", "code")}
            ranges = repeated(context.repeats, _ranges_to_fhir, measure.get("referenceRanges"), unit)
            if ranges:
                said["referenceRange"] = ranges
            if severity := code.said(measure.get("severityCode")):
                codes = [{"system": INTERPRETATION, "code": severity}]
                said["interpretation"] = [{"coding": codes}]
        return said
    return {}


def _ranges_to_icure(ranges: Json, onto: Json) -> Json:
    return RANGES.to_icure(ranges, onto, DEFAULT)


def _ranges_to_fhir(ranges: Json, unit: Resource) -> list[Resource]:
    """Returns reference ranges in the unit of the value."""
    said = RANGES.to_fhir(ranges, DEFAULT) or ()
    return [{n: {**v, **unit} if n in ("low", "high") else v for n, v in one.items()} for one in said]


class Component:
    """A component as a Service of its own; over one that was there it keeps its id and what iCure added."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the Service."""
        old: Entity = onto or {}
        said = CODE.to_icure(value.get("code"), old, context)
        said["content"] = _content_of(value, old.get("content") or {}, context) or None
        rest = {n: v for n, v in old.items() if n not in said}
        return {**rest, **{n: v for n, v in said.items() if v is not None}}

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the component."""
        return {"code": CODE.to_fhir(value, context), **_said_of(value.get("content") or {}, context)}


def _parts(
    components: list[Resource], old: dict[str, Entity], service_id: str, context: Context
) -> list[Entity]:
    """Returns components as Services, each with an id."""
    was = [p for key, c in old.items() if key != RESIDUE for p in c.get("compoundValue") or ()]
    naturals = [COMPONENT.to_fhir(part, context) for part in was]
    pairs = align(_telling(components), _telling(naturals), partial=True)
    taken = {part.get("id") for part in was}
    parts = []
    for i, component in enumerate(components):
        part = said_over(COMPONENT, component, was[pairs[i]] if i in pairs else None, context)
        parts.append(part if "id" in part else {"id": _part_id(service_id, i, taken), **part})
    return parts


def _telling(components: list[Resource]) -> list[Resource]:
    """Returns components without a code that only says that there is none: by that they cannot be told."""
    return [{n: v for n, v in component.items() if v != NO_CODE} for component in components]


def _part_id(service_id: str, at: int, taken: set[Any]) -> str:
    """Returns an id that is the same each time the same resource is written, and that no other part has."""
    again = 0
    while (made := str(uuid.uuid5(_IDS, f"{service_id}/{at}/{again}"))) in taken:
        again += 1
    taken.add(made)
    return made


CODE, COMPONENT = Code(), Component()


class ContentSlot:
    """The residue as one more entry of `content`, which every iCure client encrypts."""

    def put(self, entity: Entity, sealed: str | None) -> Entity:
        """Returns the entity with this sealed text as its only residue.

        A Service with components always has the entry, empty if need be: purely compound content would stay visible.
        """
        content = {k: v for k, v in (entity.get("content") or {}).items() if k != RESIDUE}
        if sealed is None and any(c.get("compoundValue") for c in content.values()):
            sealed = ""
        if sealed is not None:
            content[RESIDUE] = {"stringValue": sealed}
        rest = {n: v for n, v in entity.items() if n != "content"}
        return {**rest, "content": content} if content else rest

    def take(self, entity: Entity) -> tuple[Entity, str | None]:
        """Returns the entity without its residue, and the sealed text if it carried one."""
        content = entity.get("content") or {}
        if RESIDUE not in content:
            return entity, None
        rest = {n: v for n, v in entity.items() if n != "content"}
        others = {k: v for k, v in content.items() if k != RESIDUE}
        return {**rest, "content": others} if others else rest, content[RESIDUE].get("stringValue") or None


_SUBJECTS = "Patient Group Device Location"
_PERFORMERS = "Practitioner PractitionerRole Organization CareTeam Patient RelatedPerson"
_SOURCES = "DocumentReference ImagingStudy Media QuestionnaireResponse Observation MolecularSequence"
_VALUE = (token("code", "code"), quantity("value-quantity", "valueQuantity valueSampledData"))
_CONCEPT = (token("code", "code"), token("value-concept", "valueCodeableConcept"))

SEARCH = (
    token(
        "_tag", "meta.tag code", "tags", documentation="meta.tag, and code as well: iCure's labels are both."
    ),
    token("identifier", "identifier", "identifier"),
    token("status", "status", "status", system=STATUS),
    token("category", "category", "category"),
    token("code", "code", "codes", documentation="Without a system: among one patient's, or few."),
    date(
        "date",
        "effectiveDateTime effectivePeriod effectiveTiming effectiveInstant",
        documentation="Within a patient, lt and le see a Period without start by its end, a Timing by its first event.",
    ),
    refers("subject", "subject", _SUBJECTS, "patient"),
    refers("patient", "subject", "Patient", "patient"),
    refers("encounter", "encounter", "Encounter"),
    refers("performer", "performer", _PERFORMERS),
    quantity("value-quantity", "valueQuantity valueSampledData"),
    token("value-concept", "valueCodeableConcept"),
    string("value-string", "valueString valueCodeableConcept.text"),
    date("value-date", "valueDateTime valuePeriod"),
    token("data-absent-reason", "dataAbsentReason"),
    token("combo-code", "code component.code"),
    quantity(
        "combo-value-quantity",
        "valueQuantity valueSampledData component.valueQuantity component.valueSampledData",
    ),
    token("combo-value-concept", "valueCodeableConcept component.valueCodeableConcept"),
    token("combo-data-absent-reason", "dataAbsentReason component.dataAbsentReason"),
    token("component-code", "component.code"),
    quantity("component-value-quantity", "component.valueQuantity component.valueSampledData"),
    token("component-value-concept", "component.valueCodeableConcept"),
    token("component-data-absent-reason", "component.dataAbsentReason"),
    composite("code-value-quantity", ("",), *_VALUE, icure="codes"),
    composite("code-value-concept", ("",), *_CONCEPT, icure="codes"),
    composite("component-code-value-quantity", ("component",), *_VALUE),
    composite("component-code-value-concept", ("component",), *_CONCEPT),
    composite("combo-code-value-quantity", ("", "component"), *_VALUE),
    composite("combo-code-value-concept", ("", "component"), *_CONCEPT),
    refers("has-member", "hasMember", "Observation QuestionnaireResponse MolecularSequence"),
    refers("derived-from", "derivedFrom", _SOURCES),
    refers("based-on", "basedOn"),
    refers("part-of", "partOf"),
    refers("focus", "focus"),
    token("method", "method"),
    refers("specimen", "specimen", "Specimen"),
    refers("device", "device", "Device DeviceMetric"),
)

OBSERVATION = Mapping(
    "Observation",
    "Service",
    (
        row("identifier", "identifier", each(IDENTIFIER)),
        row("status", "tags", Status(), where=_is_status),
        row("category", "tags", Grouped("category"), where=_is_category),
        row("meta.tag", "tags", Codings(writes=_is_other), where=_is_other),
        row("", "tags", TypeTag("OBSERVATION"), where=is_type),
        row("code", "codes label", CODE),
        row("subject", "patientId", Subject()),
        row(
            "effectiveDateTime effectivePeriod effectiveInstant effectiveTiming",
            f"valueDate openingDate closingDate {WITNESS}",
            Effective(),
            witness="valueDate",
        ),
        row("performer", "responsible", Performer()),
        row(
            " ".join((*VALUE_NAMES, "interpretation", "referenceRange", "component")),
            "content id",
            Contents(),
        ),
        row("note", "notes", each(Note())),
        row("hasMember", "qualifiedLinks", Members("hasMember")),
        row("derivedFrom", "qualifiedLinks", Members("derivedFrom")),
    ),
    ContentSlot(),
    SEARCH,
)
