"""A search by going over all resources, written a second time and as plainly as possible."""

from __future__ import annotations

import re
import unicodedata
from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

Resource = dict[str, Any]
FAR_PAST, FAR_FUTURE = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
GENDER = "http://hl7.org/fhir/administrative-gender"
STATUS = "http://hl7.org/fhir/observation-status"


def plain(text: str) -> str:
    return "".join(
        c for c in unicodedata.normalize("NFD", text.casefold()) if unicodedata.category(c) != "Mn"
    )


def names(patient: Resource, *members: str) -> list[str]:
    found = []
    for name in patient.get("name", []):
        for member in members:
            value = name.get(member, [])
            found += value if isinstance(value, list) else [value]
    return found


def codings(*concepts: Resource | None) -> list[tuple[str, str]]:
    return [
        (c.get("system", ""), c["code"]) for concept in concepts if concept for c in concept.get("coding", [])
    ]


def range_of(text: str) -> tuple[datetime, datetime]:
    """Returns first and last microsecond."""
    parts = re.fullmatch(r"(\d{4})(?:-(\d\d))?(?:-(\d\d))?(T.*)?", text)
    assert parts
    year, month, day, rest = parts.groups()
    if rest:
        start = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return start, start + timedelta(microseconds=999_999)
    first = datetime(int(year), int(month or 1), int(day or 1), tzinfo=UTC)
    last_month = int(month or 12)
    last_day = int(day or monthrange(int(year), last_month)[1])
    return first, datetime(int(year), last_month, last_day, 23, 59, 59, 999_999, tzinfo=UTC)


def when(resource: Resource) -> tuple[datetime, datetime] | None:
    for name in ("effectiveDateTime", "birthDate"):
        if name in resource:
            return range_of(resource[name])
    period = resource.get("effectivePeriod")
    if period is None:
        return None
    start = range_of(period["start"])[0] if "start" in period else FAR_PAST
    return start, range_of(period["end"])[1] if "end" in period else FAR_FUTURE


def date_meets(own: tuple[datetime, datetime], prefix: str, value: str) -> bool:
    low, high = range_of(value)
    inside = low <= own[0] and own[1] <= high
    return {
        "eq": inside,
        "ne": not inside,
        "gt": own[1] > high,
        "lt": own[0] < low,
        "ge": inside or own[1] > high,
        "le": inside or own[0] < low,
        "sa": own[0] > high,
        "eb": own[1] < low,
    }[prefix]


def number_meets(own: Decimal, prefix: str, value: str) -> bool:
    asked = Decimal(value)
    half = Decimal("0.5") / 10 ** len(value.partition(".")[2])
    inside = asked - half <= own < asked + half
    return {
        "eq": inside,
        "ne": not inside,
        "gt": own > asked,
        "lt": own < asked,
        "ge": own >= asked,
        "le": own <= asked,
        "sa": own > asked,
        "eb": own < asked,
    }[prefix]


def tokens_of(resource: Resource, name: str) -> list[tuple[str, str]]:
    match name:
        case "gender":
            return [(GENDER, resource["gender"])] if "gender" in resource else []
        case "status":
            return [(STATUS, resource["status"])]
        case "active":
            return [("", str(resource["active"]).lower())] if "active" in resource else []
        case "deceased":
            gone = "deceasedDateTime" in resource or resource.get("deceasedBoolean") is True
            return [("", str(gone).lower())]
        case "identifier":
            return [(i.get("system", ""), i["value"]) for i in resource.get("identifier", [])]
        case "code":
            return codings(resource["code"])
        case "combo-code":
            return codings(resource["code"], *(c["code"] for c in resource.get("component", [])))
        case "category":
            return codings(*resource.get("category", []))
        case "value-concept":
            return codings(resource.get("valueCodeableConcept"))
        case "telecom":
            return [(t["system"], t["value"]) for t in resource.get("telecom", [])]
    raise AssertionError(name)


def quantities(resource: Resource) -> Iterator[Decimal]:
    quantity = resource.get("valueQuantity")
    if quantity and "comparator" not in quantity:
        yield Decimal(str(quantity["value"]))


def meets(resource: Resource, criterion: tuple[str, str, str, str]) -> bool:
    """Whether a resource meets (kind, parameter, modifier or prefix, value)."""
    kind, name, how, value = criterion
    if kind == "date":
        own = when(resource)
        return own is not None and date_meets(own, how, value)
    if kind == "quantity":
        return any(number_meets(own, how, value) for own in quantities(resource))
    if kind == "string":
        members = {
            "name": ("family", "given", "text", "prefix", "suffix"),
            "family": ("family",),
            "given": ("given",),
        }
        texts = names(resource, *members[name])
        if how == "exact":
            return value in texts
        folded = [plain(t) for t in texts]
        return any(plain(value) in t if how == "contains" else t.startswith(plain(value)) for t in folded)
    own_tokens = tokens_of(resource, name)
    if how == "missing":
        return (not own_tokens) is (value == "true")
    system, bar, code = value.rpartition("|")
    found = any(c == code and (not bar or s == system) for s, c in own_tokens)
    return found is not (how == "not")
