"""A search as it was asked: its criteria, and how the answer is to look.

Facts: https://hl7.org/fhir/R4/search.html#return.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from bridge.errors import Invalid, Issue, warning
from bridge.homes import supported
from bridge.search import names
from bridge.search.values import alternatives
from mappings import REGISTRY

DEFAULT_COUNT, MOST_COUNT, MOST_CRITERIA = 50, 1000, 100
INCLUDES = ("_include", "_include:iterate", "_revinclude", "_revinclude:iterate")
CONTROLS = (
    "_count",
    "_cursor",
    "_format",
    "_pretty",
    "_sort",
    "_total",
    "_summary",
    "_elements",
    *INCLUDES,
)
TOTALS = ("none", "estimate", "accurate")
SUMMARIES = ("true", "text", "data", "count", "false")


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed search."""

    resource_type: str
    criteria: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Parameter name and OR-ed values, still escaped."""
    count: int = DEFAULT_COUNT
    sort: tuple[str, ...] = ()
    """Parameter names, with `-` before those that descend."""
    total: str = ""
    summary: str = "false"
    elements: tuple[str, ...] = ()
    includes: tuple[tuple[str, str], ...] = ()
    """Name and value of each _include and _revinclude."""

    def arguments(self) -> list[tuple[str, str]]:
        """Returns the query as this server understood it."""
        said = [(name, ",".join(values)) for name, values in self.criteria]
        said += [("_sort", ",".join(self.sort))] if self.sort else []
        said += [("_total", self.total)] if self.total else []
        said += [("_summary", self.summary)] if self.summary != "false" else []
        said += [("_elements", ",".join(self.elements))] if self.elements else []
        said += self.includes
        return [*said, ("_count", str(self.count))]


def parse(
    resource_type: str, arguments: Iterable[tuple[str, str]], *, strict: bool = False
) -> tuple[Query, list[Issue]]:
    """Returns the query and a warning when a parameter is not known, which is an error when `strict`.

    Raises `Invalid` for what cannot be read; values of criteria are read when the search is run.
    """
    supported(resource_type)
    query = Query(resource_type)
    criteria: list[tuple[str, tuple[str, ...]]] = []
    unknown = False
    for name, value in arguments:
        if name in CONTROLS:
            query = _controlled(query, name, value)
        elif names.parse(resource_type, name) is None:
            unknown = True
        elif value:
            criteria.append((name, _alternatives(value, name)))
    if unknown and strict:
        raise Invalid("This server does not know one of the parameters.")
    if len(criteria) > MOST_CRITERIA:
        raise Invalid(f"A search may have {MOST_CRITERIA} parameters, not more.")
    if query.summary == "text" and query.includes:
        raise Invalid("_summary=text does not go with _include or _revinclude.")
    text = "This server does not know one of the parameters; it was ignored."
    return replace(query, criteria=tuple(criteria)), [warning("not-supported", text)] if unknown else []


def _alternatives(value: str, name: str) -> tuple[str, ...]:
    found = alternatives(value, name)
    if not found:
        raise Invalid(f"{name} has no value.")
    return found


def _controlled(query: Query, name: str, value: str) -> Query:
    if name in INCLUDES:
        return replace(query, includes=(*query.includes, (name, value)))
    match name:
        case "_count":
            return replace(query, count=_count(value))
        case "_total":
            return replace(query, total=_one_of(value, TOTALS, name))
        case "_summary":
            return replace(query, summary=_one_of(value, SUMMARIES, name))
        case "_sort":
            return replace(query, sort=_sort(query.resource_type, value))
        case "_elements":
            return replace(query, elements=tuple(e.strip() for e in value.split(",") if e.strip()))
    return query


def _count(value: str) -> int:
    if not (value.isascii() and value.isdigit()) or len(value) > 9:
        raise Invalid(f"_count must be a whole number; at most {MOST_COUNT} are answered at once.")
    return min(int(value), MOST_COUNT)


def _one_of(value: str, allowed: tuple[str, ...], name: str) -> str:
    if value not in allowed:
        raise Invalid(f"{name} must be one of {', '.join(allowed)}.")
    return value


def _sort(resource_type: str, value: str) -> tuple[str, ...]:
    keys = tuple(key.strip() for key in value.split(",") if key.strip())
    known = names.parameters(resource_type)
    for key in keys:
        parameter = known.get(key.removeprefix("-"))
        if parameter is None or parameter.type == "composite":
            raise Invalid(
                f"_sort wants search parameters of {resource_type}, with - before one that descends."
            )
    return keys


def include(resource_type: str, name: str, value: str) -> tuple[str, str, str]:
    """Returns source type, reference parameter (`*` for all) and target type ("" for any) of an include.

    Raises `Invalid` for what is none.
    """
    source, _, rest = value.partition(":")
    reference, _, target = rest.partition(":")
    if value == "*" and not name.startswith("_rev"):
        source, reference = resource_type, "*"
    if source not in REGISTRY:
        raise Invalid(f"{name} wants Type:parameter, of a resource type that is served.")
    parameter = names.parameters(source).get(reference)
    if reference != "*" and (parameter is None or parameter.type != "reference"):
        raise Invalid(f"{name} wants a search parameter of {source} that is a reference.")
    return source, reference, target
