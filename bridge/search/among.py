"""Which of some resources meet a query: for who knows already what to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bridge.homes import Record
from bridge.scope import Scope
from bridge.search.candidates import LARGEST_STEP, Candidates, criteria_of, matches
from bridge.search.query import Query


def check(scope: Scope, query: Query) -> None:
    """Raises what a search with these criteria would raise before it finds anything."""
    criteria_of(scope, query)


def among(scope: Scope, query: Query, ids: Sequence[str]) -> Iterator[Record]:
    """Yields those of the resources with these ids that meet the criteria, in the order of the ids."""
    found = Candidates(query.resource_type, [list(ids)], criteria_of(scope, query))
    return matches(scope, found, LARGEST_STEP)
