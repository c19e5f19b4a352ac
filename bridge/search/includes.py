"""What an answer brings along: the resources that matches refer to, and those that refer to matches.

Facts: https://hl7.org/fhir/R4/search.html#include. An include is about the matches of its own page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bridge.errors import TooCostly
from bridge.homes import Record
from bridge.references import by_ids
from bridge.scope import Scope
from bridge.search import names
from bridge.search.candidates import candidates, matches
from bridge.search.criteria import references
from bridge.search.query import Query, include
from mappings import REGISTRY
from mappings.search import Parameter

MOST_INCLUDED = 1000
"""Resources that one page brings along."""


def included(scope: Scope, query: Query, page: Sequence[Record]) -> list[Record]:
    """Returns what a page brings along, nothing twice. Raises `TooCostly` beyond 1,000."""
    known = {record.location: record for record in page}
    found: dict[str, Record] = {}
    asked = [
        (name, *said)
        for name, value in query.includes
        if (said := include(query.resource_type, name, value)) is not None
    ]
    fresh: Sequence[Record] = page
    first = True
    while fresh:
        brought: list[Record] = []
        for name, source, parameter, target in asked:
            if first or name.endswith(":iterate"):
                brought += _brought(scope, name.startswith("_rev"), source, parameter, target, fresh)
        fresh = list({r.location: r for r in brought if r.location not in known}.values())
        known |= {r.location: r for r in fresh}
        found |= {r.location: r for r in fresh}
        first = False
        if len(found) > MOST_INCLUDED:
            raise TooCostly("_include or _revinclude brings too much along; ask for smaller pages.")
    return list(found.values())


def _brought(
    scope: Scope, reverse: bool, source: str, reference: str, target: str, records: Sequence[Record]
) -> list[Record]:
    known = names.parameters(source)
    parameters = [p for p in known.values() if p.type == "reference" and reference in ("*", p.name)]
    if reverse:
        return [r for p in parameters for r in _referring(scope, source, p, target, records)]
    wanted: dict[str, set[str]] = {}
    for record in records:
        if record.resource_type == source:
            for kind, entity_id in _targets(parameters, record):
                if kind in REGISTRY and target in ("", kind):
                    wanted.setdefault(kind, set()).add(entity_id)
    return [r for kind, ids in wanted.items() for r in by_ids(scope, kind, ids)]


def _targets(parameters: Iterable[Parameter], record: Record) -> Iterator[tuple[str, str]]:
    for parameter in parameters:
        for holder in references(parameter, record.resource):
            kind, slash, entity_id = str(holder.get("reference", "")).partition("/")
            if slash and "/" not in entity_id:
                yield kind, entity_id


def _referring(
    scope: Scope, source: str, parameter: Parameter, target: str, records: Sequence[Record]
) -> list[Record]:
    """Returns what refers to one of these records."""
    kinds = (target,) if target else parameter.targets
    locations = tuple(r.location for r in records if not kinds or r.resource_type in kinds)
    if not locations:
        return []
    asked = Query(source, ((parameter.name, locations),))
    found: list[Record] = []
    for record in matches(scope, candidates(scope, asked), MOST_INCLUDED):
        found.append(record)
        if len(found) > MOST_INCLUDED:
            raise TooCostly("_revinclude brings too much along; ask for smaller pages.")
    return found
