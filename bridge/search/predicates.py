"""One predicate for each FHIR type of search parameter, over the values that a resource has at the parameter's paths.

Facts: https://hl7.org/fhir/R4/search.html. Token, string, date, quantity, number, uri and reference compare as told
there; a composite holds when all of its parts hold for one and the same element.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import tzinfo
from decimal import Decimal
from typing import Any

from bridge.errors import Invalid
from bridge.search import values
from bridge.search.values import Measured, Span, Token, fold
from mappings.search import Parameter
from mappings.values import Json, Resource

Test = Callable[[Resource], bool]
MODIFIERS = {
    "token": ("missing", "not", "text", "of-type"),
    "string": ("missing", "exact", "contains"),
    "date": ("missing",),
    "number": ("missing",),
    "quantity": ("missing",),
    "reference": ("missing", "identifier"),
    "uri": ("missing", "below", "above"),
    "composite": ("missing",),
}
"""By type of parameter; a reference also takes the name of a resource type."""
_PICKED = re.compile(r"(\w*)(?:\[(\w+)=([\w-]+)\])?")
_SILENT = frozenset(("id", "use", "type", "period", "extension", "modifierExtension"))
"""Members of a HumanName or Address that are no text of it."""
_COMPARATORS = {"<": (None, False), "<=": (None, True), ">": (False, None), ">=": (True, None)}


def at(resource: Json, paths: Sequence[str]) -> Iterator[Any]:
    """Yields the values at any of these paths."""
    for path in paths:
        found = [resource]
        for step in path.split(".") if path else ():
            match = _PICKED.fullmatch(step)
            assert match is not None, path  # noqa: S101  paths are ours
            found = [v for holder in found if isinstance(holder, dict) for v in _list(holder.get(match[1]))]
            if match[2]:
                found = [v for v in found if isinstance(v, dict) and v.get(match[2]) == match[3]]
        yield from found


def values_of(parameter: Parameter, resource: Json) -> list[Any]:
    """Returns what a resource has for a parameter."""
    if parameter.read is not None:
        return list(parameter.read(resource))
    found = at(resource, parameter.paths)
    if parameter.type == "reference":
        return [value for value in found if isinstance(value, dict) and _may_be(parameter, value)]
    return list(found)


def _may_be(parameter: Parameter, reference: Resource) -> bool:
    """Whether a Reference may be to one of the types that a parameter is about."""
    kind = reference.get("type") or reference.get("reference", "").rpartition("/")[0].rpartition("/")[2]
    return not parameter.targets or not kind or kind in parameter.targets


def _list(value: Json) -> list[Json]:
    if isinstance(value, list):
        return [v for v in value if v is not None]
    return [] if value is None else [value]


def test(parameter: Parameter, modifier: str, wanted: Sequence[str], zone: tzinfo) -> Test:
    """Returns the predicate of a parameter with OR-ed values. Raises `Invalid` for a modifier or value it has not.

    References are left to `references`, which has to look things up.
    """
    if modifier not in ("", *MODIFIERS[parameter.type]):
        raise Invalid(f"{parameter.name} does not take this modifier here.")
    if modifier == "missing":
        return missing(parameter, wanted)
    matches = MATCHERS[parameter.type](parameter, modifier, wanted, zone)
    if modifier == "not":
        return lambda resource: not any(matches(v) for v in values_of(parameter, resource))
    return lambda resource: any(matches(v) for v in values_of(parameter, resource))


def missing(parameter: Parameter, wanted: Sequence[str]) -> Test:
    """Returns the predicate of `:missing`."""
    if len(wanted) != 1 or wanted[0] not in ("true", "false"):
        raise Invalid(f"{parameter.name}:missing wants true or false.")
    absent = wanted[0] == "true"
    parts = parameter.parts

    def has(resource: Resource) -> bool:
        found = values_of(parameter, resource)
        return any(all(values_of(p, v) for p in parts) for v in found) if parts else bool(found)

    return lambda resource: has(resource) is not absent


# tokens


def _token(parameter: Parameter, modifier: str, wanted: Sequence[str], zone: tzinfo) -> Callable[[Any], bool]:
    if modifier == "text":
        starts = [fold(values.unescape(w)) for w in wanted]
        return lambda value: any(fold(t).startswith(s) for t in texts(value) for s in starts)
    if modifier == "of-type":
        typed = [_of_type(parameter, w) for w in wanted]
        return lambda value: any(_has_type(value, *t) for t in typed)
    tokens = [values.token(w) for w in wanted]
    if any(not t.system and not t.code for t in tokens):
        raise Invalid(f"{parameter.name} wants a code, system|code, |code or system|.")
    implied = parameter.system
    return lambda value: any(says(value, t, implied) for t in tokens)


def says(value: Any, wanted: Token, implied: str = "") -> bool:
    """Whether a coded value says a token; `implied` is the system of a plain code."""
    for system, code in codes(value):
        if wanted.code and code != wanted.code:
            continue
        if wanted.system is None or system == wanted.system:
            return True
        if system == "" and implied and wanted.system == implied and isinstance(value, str):
            return True
    return False


def codes(value: Any) -> Iterator[tuple[str, str]]:
    """Yields system ("" for none) and code of a code, flag, Coding, CodeableConcept, Identifier or ContactPoint."""
    if isinstance(value, bool):
        yield "", "true" if value else "false"
    elif isinstance(value, str):
        yield "", value
    elif isinstance(value, dict):
        if "coding" in value:
            for inner in _list(value["coding"]):
                yield from codes(inner)
        elif "code" in value or "value" in value or "system" in value:
            yield str(value.get("system", "")), str(value.get("code", value.get("value", "")))


def texts(value: Any) -> Iterator[str]:
    """Yields the text that stands beside a coded value."""
    if isinstance(value, dict):
        for name in ("text", "display"):
            if isinstance(value.get(name), str):
                yield value[name]
        for inner in (*_list(value.get("coding")), value.get("type")):
            yield from texts(inner)


def _of_type(parameter: Parameter, wanted: str) -> tuple[Token, str]:
    parts = [values.unescape(p) for p in values.split(wanted, "|")]
    if len(parts) != 3 or not all(parts[1:]):
        raise Invalid(f"{parameter.name}:of-type wants system|code|value.")
    return Token(parts[0], parts[1]), parts[2]


def _has_type(value: Any, kind: Token, wanted: str) -> bool:
    return isinstance(value, dict) and value.get("value") == wanted and says(value.get("type"), kind)


# text


def _string(
    parameter: Parameter, modifier: str, wanted: Sequence[str], zone: tzinfo
) -> Callable[[Any], bool]:
    plain = [values.unescape(w) for w in wanted]
    if modifier == "exact":
        return lambda value: any(text in plain for text in strings(value))
    folded = [fold(w) for w in plain]
    if modifier == "contains":
        return lambda value: any(w in fold(text) for text in strings(value) for w in folded)
    return lambda value: any(fold(text).startswith(w) for text in strings(value) for w in folded)


def strings(value: Any) -> Iterator[str]:
    """Yields the texts of a string, HumanName or Address; of a name also the whole of it, in either order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name not in _SILENT and not name.startswith("_"):
                yield from (t for t in _list(inner) if isinstance(t, str))
        given, family = [g for g in _list(value.get("given")) if isinstance(g, str)], value.get("family", "")
        if given and family:
            yield values.joined([*given, family])
            yield values.joined([family, *given])


def _uri(parameter: Parameter, modifier: str, wanted: Sequence[str], zone: tzinfo) -> Callable[[Any], bool]:
    plain = [values.unescape(w) for w in wanted]
    if modifier == "below":
        return lambda value: isinstance(value, str) and any(value == w or value.startswith(w) for w in plain)
    if modifier == "above":
        return lambda value: isinstance(value, str) and any(w.startswith(value) for w in plain)
    return lambda value: value in plain


# dates


def _date(parameter: Parameter, modifier: str, wanted: Sequence[str], zone: tzinfo) -> Callable[[Any], bool]:
    spans = [values.date(w, zone, parameter.name) for w in wanted]

    def matches(value: Any) -> bool:
        own = values.span_of(value, zone)
        return own is not None and any(relates(prefix, span, own) for prefix, span in spans)

    return matches


def relates(prefix: str, asked: Span, own: Span) -> bool:
    """Whether a span of a resource stands to the one asked for as the prefix says."""
    match prefix:
        case "eq":
            return asked.contains(own)
        case "ne":
            return not asked.contains(own)
        case "gt":
            return own.high > asked.high
        case "lt":
            return own.low < asked.low
        case "ge":
            return own.high > asked.high or asked.contains(own)
        case "le":
            return own.low < asked.low or asked.contains(own)
        case "sa":
            return own.low >= asked.high
        case "eb":
            return own.high <= asked.low
    away = abs(time.time_ns() // 1000 - asked.low) // 10
    return Span(asked.low - away, asked.high + away).overlaps(own)


# numbers


def _number(
    parameter: Parameter, modifier: str, wanted: Sequence[str], zone: tzinfo
) -> Callable[[Any], bool]:
    asked = [values.measured(values.unescape(w), parameter.name) for w in wanted]
    return lambda value: any(compares(a, value, None) for a in asked)


def _quantity(
    parameter: Parameter, modifier: str, wanted: Sequence[str], zone: tzinfo
) -> Callable[[Any], bool]:
    asked = [_amount(parameter, w) for w in wanted]

    def matches(value: Any) -> bool:
        if not isinstance(value, dict):
            return False
        if "origin" in value:
            sampled = bounds(value)
            return sampled is not None and any(
                _in_unit(value["origin"], unit) and _between(number, *sampled) for number, unit in asked
            )
        return any(
            _in_unit(value, unit) and compares(number, value.get("value"), value.get("comparator"))
            for number, unit in asked
        )

    return matches


def bounds(sampled: Resource) -> tuple[Decimal, Decimal] | None:
    """Returns the least and the greatest value of a SampledData, in the unit of its origin; None where it has none.

    What was below or above the limits of the device counts as these. https://hl7.org/fhir/R4/datatypes.html#SampledData
    """
    origin, factor = (values.decimal(v) for v in (sampled["origin"].get("value"), sampled.get("factor", 1)))
    limits = {"L": values.decimal(sampled.get("lowerLimit")), "U": values.decimal(sampled.get("upperLimit"))}
    if origin is None or factor is None:
        return None
    read = {
        text: limits.get(text) or values.plain(text) for text in set(str(sampled.get("data", "")).split())
    }
    found = [origin + factor * number for number in read.values() if number is not None]
    return (min(found), max(found)) if found else None


def _amount(parameter: Parameter, wanted: str) -> tuple[Measured, Token | None]:
    """Returns number and unit of `[prefix]number|system|code`."""
    parts = [values.unescape(p) for p in values.split(wanted, "|")]
    if len(parts) not in (1, 3):
        raise Invalid(f"{parameter.name} wants a number, or number|system|code, or number||unit.")
    unit = Token(parts[1] or None, parts[2]) if len(parts) == 3 and any(parts[1:]) else None
    return values.measured(parts[0], parameter.name), unit


def _in_unit(value: Resource, unit: Token | None) -> bool:
    if unit is None:
        return True
    if unit.system is None:
        return unit.code in (value.get("code"), value.get("unit"))
    return value.get("system") == unit.system and (not unit.code or value.get("code") == unit.code)


def compares(asked: Measured, value: Json, comparator: str | None) -> bool:
    """Whether a number of a resource, itself a range when it has a comparator, stands to the one asked for."""
    number = values.decimal(value)
    if number is None:
        return False
    below, above = _COMPARATORS.get(comparator or "", (True, True))
    if comparator in _COMPARATORS:
        return _open_ended(asked, number, upwards=below is not None, included=bool(below or above))
    return _between(asked, number, number)


def _between(asked: Measured, low: Decimal, high: Decimal) -> bool:
    """Whether what lies from `low` to `high`, both included, stands to the number asked for as the prefix says."""
    match asked.prefix:
        case "eq":
            return (asked.low <= low and high < asked.high) or low == high == asked.number
        case "ap":
            return (asked.low <= high and low < asked.high) or low == high == asked.number
        case "ne":
            return not (asked.low <= low and high < asked.high)
        case "gt":
            return high > asked.number
        case "sa":
            return low > asked.number
        case "lt":
            return low < asked.number
        case "eb":
            return high < asked.number
        case "ge":
            return high >= asked.number
    return low <= asked.number


def _open_ended(asked: Measured, number: Decimal, *, upwards: bool, included: bool) -> bool:
    """Whether all numbers on one side of `number` (a result such as `< 5`) meet what was asked, or some may."""
    match asked.prefix:
        case "eq":
            return False
        case "ne":
            return True
        case "gt" | "ge":
            if upwards:
                return True
            return number > asked.number or (included and asked.prefix == "ge" and number == asked.number)
        case "lt" | "le":
            if not upwards:
                return True
            return number < asked.number or (included and asked.prefix == "le" and number == asked.number)
        case "sa":
            return upwards and (number > asked.number or (not included and number == asked.number))
        case "eb":
            return not upwards and (number < asked.number or (not included and number == asked.number))
    return number < asked.high if upwards else number > asked.low


# composites


def _composite(
    parameter: Parameter, modifier: str, wanted: Sequence[str], zone: tzinfo
) -> Callable[[Any], bool]:
    """Each alternative has a value for each part, with `$` between."""
    asked: list[list[Test]] = []
    for alternative in wanted:
        pieces = values.split(alternative, "$")
        if len(pieces) != len(parameter.parts) or not all(pieces):
            names = "$".join(part.name for part in parameter.parts)
            raise Invalid(f"{parameter.name} wants {names}.")
        asked.append([test(p, "", [v], zone) for p, v in zip(parameter.parts, pieces, strict=True)])
    return lambda value: any(all(part(value) for part in parts) for parts in asked)


MATCHERS: dict[str, Callable[[Parameter, str, Sequence[str], tzinfo], Callable[[Any], bool]]] = {
    "token": _token,
    "string": _string,
    "uri": _uri,
    "date": _date,
    "number": _number,
    "quantity": _quantity,
    "composite": _composite,
}
