"""FHIR datatypes and what they are in iCure.

Facts: https://hl7.org/fhir/R4/datatypes.html; iCure's CodeStub, Identifier, PersonName, Measure, ReferenceRange.
Rule: what iCure keeps in clear of a coding is its system, code and version; a display is text and goes to the residue.
"""

from __future__ import annotations

from collections.abc import Callable

from mappings.codecs import (
    Function,
    code,
    date_time,
    decimal,
    distinct,
    each,
    from_double,
    logical_id,
    record,
    table,
    text,
    to_double,
    uri,
)
from mappings.engine import DEFAULT, Codec, Context, said_over
from mappings.values import Entity, Json, Resource

UCUM = "http://unitsofmeasure.org"
INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"


def code_stub(coding: Resource, context: str | None = None) -> Entity | None:
    """Returns system, code and version of a Coding as a CodeStub, None when it has no code."""
    value = coding.get("code")
    if not isinstance(value, str):
        return None
    stub: Entity = {"code": value}
    system, version = coding.get("system"), coding.get("version")
    if isinstance(system, str):
        stub = {"type": system, **stub}
        if isinstance(version, str):
            stub["id"] = f"{system}|{value}|{version}"
    if isinstance(version, str):
        stub["version"] = version
    if context is not None:
        stub["context"] = context
    return stub


def coding(stub: Entity) -> Resource | None:
    """Returns a CodeStub as a Coding."""
    kind, value, version, label = stub.get("type"), stub.get("code"), stub.get("version"), stub.get("label")
    if not value and stub.get("id"):
        kind, value, version = (*str(stub["id"]).split("|"), None, None)[:3]
    display = (label.get("en") or next(iter(label.values()))) if label else None
    said: Resource = {}
    if kind and uri.said(kind):
        said["system"] = kind
    if version and text.said(version):
        said["version"] = version
    if value and code.said(value):
        said["code"] = value
    if display and text.said(display):
        said["display"] = display
    return said or None


_CODE = (("system", "type"), ("code", "code"), ("version", "version"))


class Codings:
    """Codings as a set of CodeStubs, with one `context` for those that are written."""

    def __init__(
        self, context: str | None = None, writes: Callable[[Entity], bool] = lambda stub: True
    ) -> None:
        self._context = context
        self._writes = writes

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the CodeStubs of those codings that have a code, and those that say nothing in FHIR."""
        old = list(onto or ())
        mute = [stub for stub in old if coding(stub) is None]
        return distinct([*self.stubs(value, old), *mute]) or None

    def stubs(self, codings: Json, old: list[Entity]) -> list[Entity]:
        """Returns the CodeStub of each coding that has a code; one that was there stays as it stands."""
        wanted = (code_stub(said, self._context) for said in codings or ())
        return [
            next((o for o in old if self._is(o, stub)), stub)
            for stub in wanted
            if stub and self._writes(stub)
        ]

    def _is(self, one: Entity, stub: Entity) -> bool:
        if self._context is not None and one.get("context") not in (self._context, None):
            return False
        said = coding(one) or {}
        return all(said.get(f) == stub.get(i) for f, i in _CODE)

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the CodeStubs as Codings."""
        said = [coding(stub) for stub in value or ()]
        return [s for s in said if s is not None] or None


class FirstCoding:
    """A CodeableConcept of which iCure keeps the first coding, as one CodeStub."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the first coding's CodeStub."""
        codings = value.get("coding") or ()
        return code_stub(codings[0]) if codings and isinstance(codings[0], dict) else None

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns a concept with one coding."""
        said = coding(value)
        return {"coding": [said]} if said else None


FIRST_CODING = FirstCoding()


class Concepts:
    """CodeableConcepts as a flat set of CodeStubs; one concept for each stub is read."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the first coding of each concept."""
        stubs = [FIRST_CODING.to_icure(concept, None, context) for concept in value or ()]
        return distinct([s for s in stubs if s is not None]) or None

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns a concept for each stub."""
        said = [FIRST_CODING.to_fhir(stub, context) for stub in value or ()]
        return [s for s in said if s is not None] or None


class Flattened:
    """A record some of whose members stand inside an inner object on the FHIR side, e.g. `period.start`."""

    def __init__(self, members: Codec, inner: str, names: tuple[str, ...]) -> None:
        self._members, self._inner, self._names = members, inner, names

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the object with the inner members beside the others."""
        inside = value.get(self._inner)
        if isinstance(inside, dict):
            value = {**value, **{n: inside[n] for n in self._names if n in inside}}
        return self._members.to_icure(value, onto, context)

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the object with the inner members where FHIR has them."""
        said = self._members.to_fhir(value, context)
        if said is None or said.keys().isdisjoint(self._names):
            return said
        said[self._inner] = {n: said.pop(n) for n in self._names if n in said}
        return said


IDENTIFIER = Flattened(
    Flattened(
        record(
            use=table({u: u for u in ("usual", "official", "temp", "secondary", "old")}),
            type=FIRST_CODING,
            system=uri,
            value=text,
            start=date_time,
            end=date_time,
            display__assigner=text,
        ),
        "period",
        ("start", "end"),
    ),
    "assigner",
    ("display",),
)


# quantities

_AMOUNT = record(value=decimal, comparator=table({c: c for c in ("<", "<=", ">=", ">")}), unit=text)
_UNIT = ("system", "code")


class Unit:
    """System and code of a Quantity's unit as one CodeStub."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the CodeStub as a list."""
        stub = code_stub(value)
        return [stub] if stub else None

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns system and code of the first CodeStub."""
        said = coding(value[0]) if value else None
        return {n: said[n] for n in _UNIT if n in said} if said and "code" in said else None


UNIT = Unit()


class Quantity:
    """A Quantity as a Measure."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the Measure, None when nothing of it can be said."""
        old = {n: v for n, v in onto.items() if n != "unitCodes"} if onto else None
        said = _AMOUNT.to_icure(value, old, context) or {}
        unit = {n: value[n] for n in _UNIT if n in value}
        codes = said_over(UNIT, unit, (onto or {}).get("unitCodes"), context)
        return {**said, "unitCodes": codes} if codes else said or None

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the Quantity, None when the Measure says nothing."""
        said = _AMOUNT.to_fhir(value, context) or {}
        unit = UNIT.to_fhir(value.get("unitCodes"), context) or {}
        return {**said, **unit} or None


QUANTITY = Quantity()


def age_to_icure(value: Json) -> Json:
    """Returns an age Range in years as iCure's, None for other units."""
    ends = {}
    for name in ("low", "high"):
        end = value.get(name)
        if (
            isinstance(end, dict)
            and end.get("code", "a") == "a"
            and (number := to_double(end.get("value"))) is not None
        ):
            ends[name] = number
    return ends or None


def age_to_fhir(value: Json) -> Json:
    """Returns iCure's age range in years."""
    ends = {}
    for name in ("low", "high"):
        number = from_double(value.get(name))
        if number is not None:
            ends[name] = {"value": number, "system": UCUM, "code": "a"}
    return ends or None


def _end_to_fhir(value: Json) -> Json:
    number = from_double(value)
    return None if number is None else {"value": number}


_END = Function(lambda quantity: to_double(quantity.get("value")), _end_to_fhir)
_CONCEPTS = Concepts()

RANGES = each(
    record(
        low=_END,
        high=_END,
        text__stringValue=text,
        type__tags=Function(
            lambda concept: _CONCEPTS.to_icure([concept], None, DEFAULT),
            lambda stubs: (_CONCEPTS.to_fhir(stubs, DEFAULT) or [None])[0],
        ),
        appliesTo__codes=_CONCEPTS,
        age=Function(age_to_icure, age_to_fhir),
    )
)
"""Reference ranges: plain numbers, in the unit of the value."""


def referenced(value: Json, types: tuple[str, ...], context: Context) -> str | None:
    """Returns the id of a relative Reference to one of these types that iCure holds."""
    said = value.get("reference") if isinstance(value, dict) else None
    if not isinstance(said, str):
        return None
    kind, slash, entity_id = said.partition("/")
    if not slash or "/" in entity_id or kind not in types or not context.known(said):
        return None
    return entity_id


def reference(resource_type: str, entity_id: Json) -> Resource | None:
    """Returns the Reference to an entity."""
    said = logical_id.said(entity_id)
    return {"reference": f"{resource_type}/{said}"} if said else None
