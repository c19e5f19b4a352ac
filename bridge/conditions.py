"""Conditional requests: which resources meet a condition, and one condition at a time.

Facts: https://hl7.org/fhir/R4/http.html#ccreate, #cond-update, #3.1.0.7.1 (conditional delete).
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from urllib.parse import parse_qsl, urlencode

from bridge import search
from bridge.errors import Invalid, MultipleMatches
from bridge.homes import Record
from bridge.scope import Scope
from bridge.state import Hold

Criteria = list[tuple[str, str]]


OF_THE_ANSWER = ("_format", "_pretty")
"""What a URL may say beside its criteria."""


def read_condition(resource_type: str, text: str) -> Criteria:
    """Returns the criteria of `query`, `?query`, `Type?query` or `[base]/Type?query`.

    Raises `Invalid` when there are none that select, or when they are about another type.
    """
    about, mark, query = text.partition("?")
    if not mark or "=" in about:
        about, query = "", text
    if about.rpartition("/")[2] not in ("", resource_type):
        raise Invalid(f"The condition must be about {resource_type}.")
    criteria = [(n, v) for n, v in parse_qsl(query, keep_blank_values=True) if n not in OF_THE_ANSWER]
    if not criteria or any(not value or name in search.CONTROLS for name, value in criteria):
        raise Invalid("A condition needs search parameters with values.")
    return criteria


def canonical(resource_type: str, text: str) -> str:
    """Returns a condition as all who mean the same write it. Raises `Invalid`."""
    return urlencode(sorted(read_condition(resource_type, text)))


def matches(
    scope: Scope, resource_type: str, criteria: Criteria, without: Collection[str] = ()
) -> list[Record]:
    """Returns what meets the criteria, of several two. Raises `Invalid` for a parameter that is not known.

    `without` names records (`Type/id`) that are about to be deleted.
    """
    wanted = str(2 + len(without))
    query, _ = search.parse(resource_type, [*criteria, ("_count", wanted)], strict=True)
    return [r for r in search.run(scope, query).records if r.location not in without][:2]


def match(
    scope: Scope, resource_type: str, criteria: Criteria, without: Collection[str] = ()
) -> Record | None:
    """Returns the one resource that meets the criteria, None when there is none. Raises `MultipleMatches`."""
    found = matches(scope, resource_type, criteria, without)
    if len(found) > 1:
        raise MultipleMatches("Several resources meet the condition.")
    return found[0] if found else None


def alone(scope: Scope, resource_type: str, criteria: Criteria) -> AbstractContextManager[Hold]:
    """Holds the condition: nobody else, in any worker, decides on the same one meanwhile.

    No other data owner either: what one creates, the other may see.
    """
    return scope.state.lock("condition", f"{resource_type}\0{urlencode(sorted(criteria))}")


def creating(scope: Scope, resource_type: str, logical_id: str) -> AbstractContextManager[Hold]:
    """Holds an id that must be of nothing yet: iCure refuses a second document under it, but no second Service.

    Rule: conditions are held first, then ids, each in their order.
    """
    return scope.state.lock("id", f"{resource_type}\0{logical_id}")
