"""A search as it was asked: its criteria, and how the answer is to look.

Facts: https://hl7.org/fhir/R4/search.html#return.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from bridge.errors import Invalid, Issue, warning
from bridge.homes import supported
from bridge.search import names
from bridge.search.values import alternatives
from mappings import REGISTRY

_INCLUDE = re.compile(
    r"(?P<source>[A-Z][A-Za-z]*):(?P<reference>\*|[a-z][a-z-]*)(?::(?P<target>[A-Z][A-Za-z]*))?"
)
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
    """Returns the query, and warnings of what is not known, which is an error when `strict`.

    Raises `Invalid` for what cannot be read; values of criteria are read when the search is run.
    """
    supported(resource_type)
    query = Query(resource_type)
    criteria: list[tuple[str, tuple[str, ...]]] = []
    unknown: dict[str, None] = {}
    for name, value in arguments:
        if name in INCLUDES and include(resource_type, name, value) is None:
            unknown[f"{name} names something that this server does not have"] = None
        elif name in CONTROLS:
            query = _controlled(query, name, value)
        elif names.parse(resource_type, name) is None:
            unknown["This server does not know one of the parameters"] = None
        elif value:
            criteria.append((name, _alternatives(value, name)))
    if unknown and strict:
        raise Invalid(f"{'; '.join(unknown)}.")
    if len(criteria) > MOST_CRITERIA:
        raise Invalid(f"A search may have {MOST_CRITERIA} parameters, not more.")
    if query.summary == "text" and query.includes:
        raise Invalid("_summary=text does not go with _include or _revinclude.")
    ignored = [warning("not-supported", f"{text}; it was ignored.") for text in unknown]
    return replace(query, criteria=tuple(criteria)), ignored


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


def include(resource_type: str, name: str, value: str) -> tuple[str, str, str] | None:
    """Returns source type, reference parameter (`*` for all) and target type ("" for any) of an include.

    None where it names a type or a parameter that this server does not have, or refers to such types only. Raises
    `Invalid` for what is no include.
    """
    if value == "*" and not name.startswith("_rev"):
        return resource_type, "*", ""
    said = _INCLUDE.fullmatch(value)
    if said is None:
        raise Invalid(f"{name} wants Type:parameter, or Type:parameter:Type.")
    source, reference, target = said["source"], said["reference"], said["target"] or ""
    if source not in REGISTRY or (target and target not in REGISTRY):
        return None
    if reference != "*":
        parameter = names.parameters(source).get(reference)
        if parameter is not None and parameter.type != "reference":
            raise Invalid(f"{name} wants a search parameter of {source} that is a reference.")
        types = (target,) if target else REGISTRY
        if parameter is None or not any(names.may_refer(parameter, kind) for kind in types):
            return None
    return source, reference, target
