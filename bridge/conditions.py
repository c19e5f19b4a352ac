"""Conditional requests: which resources meet a condition, and one condition at a time.

Facts: https://hl7.org/fhir/R4/http.html#ccreate, #cond-update, #3.1.0.7.1 (conditional delete).
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from urllib.parse import parse_qsl, urlencode

from bridge import search
from bridge.errors import Invalid, MultipleMatches
from bridge.homes import Record
from bridge.scope import Scope


def read_condition(resource_type: str, text: str) -> list[tuple[str, str]]:
    """Returns the criteria of `Type?query`, `?query` or `query`. Raises `Invalid` when there are none that select."""
    query = text.removeprefix(resource_type).removeprefix("?")
    criteria = parse_qsl(query, keep_blank_values=True)
    if not criteria or any(not value or name in search.CONTROLS for name, value in criteria):
        raise Invalid("A condition needs search parameters with values.")
    return criteria


def matches(scope: Scope, resource_type: str, criteria: list[tuple[str, str]]) -> list[Record]:
    """Returns what meets the criteria; of several, two. Raises `Invalid` for a parameter that is not known."""
    query, _ = search.parse(scope, resource_type, [*criteria, ("_count", "2")], strict=True)
    return search.run(scope, query).records


def match(scope: Scope, resource_type: str, criteria: list[tuple[str, str]]) -> Record | None:
    """Returns the one resource that meets the criteria, None when there is none. Raises `MultipleMatches`."""
    found = matches(scope, resource_type, criteria)
    if len(found) > 1:
        raise MultipleMatches("Several resources meet the condition.")
    return found[0] if found else None


def alone(scope: Scope, resource_type: str, criteria: list[tuple[str, str]]) -> AbstractContextManager[None]:
    """Holds the condition: nobody else, in any worker, decides on the same one meanwhile."""
    name = f"{scope.caller.data_owner_id}\0{resource_type}\0{urlencode(sorted(criteria))}"
    return scope.state.lock("condition", name)
