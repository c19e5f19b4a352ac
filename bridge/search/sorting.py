"""The order of an answer. https://hl7.org/fhir/R4/search.html#sort

Of several values the one counts that comes first in the order asked; what has none comes last in either direction.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import tzinfo
from functools import total_ordering
from typing import Any

from bridge.homes import Record
from bridge.search import names, predicates, values
from bridge.search.query import Query
from mappings.search import Parameter


@total_ordering
class Descending:
    """A value that comes before smaller ones."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        """Whether the values are equal."""
        return isinstance(other, Descending) and self.value == other.value

    def __lt__(self, other: Descending) -> bool:
        """Whether the value is the larger one."""
        return bool(self.value > other.value)

    __hash__ = None  # type: ignore[assignment]


def sort_key(query: Query, record: Record, zone: tzinfo) -> tuple[Any, ...]:
    """Returns what orders a record among others."""
    known = names.parameters(query.resource_type)
    found: list[Any] = []
    for key in query.sort:
        name = key.removeprefix("-")
        own = [record.id] if name == "_id" else list(_values(known[name], record, zone))
        if not own:
            found.append((1, 0))
        elif name == key:
            found.append((0, min(own)))
        else:
            found.append((0, Descending(max(own))))
    return tuple(found)


def _values(parameter: Parameter, record: Record, zone: tzinfo) -> Iterator[Any]:
    """Yields what can be compared of a record's values for a parameter."""
    for value in predicates.values_of(parameter, record.resource):
        match parameter.type:
            case "token":
                yield from (code for _, code in predicates.codes(value))
            case "string":
                yield from map(values.fold, predicates.strings(value))
            case "date":
                if (span := values.span_of(value, zone)) is not None:
                    yield span.low
            case "quantity" | "number":
                number = values.decimal(value.get("value") if isinstance(value, dict) else value)
                if number is not None:
                    yield number
            case "reference":
                if isinstance(value, dict) and "reference" in value:
                    yield value["reference"]
            case _:
                if isinstance(value, str):
                    yield value
