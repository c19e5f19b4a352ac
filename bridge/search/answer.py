"""The answer of a search: a searchset Bundle, and of each resource as much as was asked for.

Facts: https://hl7.org/fhir/R4/http.html#search, https://hl7.org/fhir/R4/search.html#summary and #elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from bridge import wire
from bridge.errors import outcome, warning
from bridge.homes import Record, supported
from bridge.scope import Scope
from bridge.search import pages
from bridge.search.includes import included
from bridge.search.query import Query, parse
from mappings.values import Resource

SUBSETTED = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}
_ALWAYS = ("resourceType", "id", "meta")


def search(
    scope: Scope, resource_type: str, arguments: Sequence[tuple[str, str]], *, strict: bool = False
) -> Resource:
    """Answers a search with a searchset Bundle. https://hl7.org/fhir/R4/http.html#search"""
    supported(resource_type)
    given = next((value for name, value in arguments if name == "_cursor"), None)
    if given is None:
        query, ignored = parse(resource_type, arguments, strict=strict)
        page = pages.answer(scope, pages.Cursor(query))
        said = query.arguments()
    else:
        page, ignored = pages.answer(scope, pages.read_cursor(scope, resource_type, given)), []
        said = [("_cursor", given)]
    brought = included(scope, page.query, page.records)
    scope.shown([*page.records, *brought])
    if scope.unopened:
        text = f"{scope.unopened} found in iCure cannot be opened with the loaded keys and are left out."
        ignored.append(warning("security", text))
    base = f"{scope.base}/{resource_type}"
    links = [{"relation": "self", "url": f"{base}?{_encoded(said)}"}]
    if page.more:
        links.append({"relation": "next", "url": f"{base}?_cursor={pages.write_cursor(scope, page)}"})
    entries = [_entry(scope, page.query, r, "match") for r in page.records]
    entries += [_entry(scope, page.query, r, "include") for r in brought]
    if ignored:
        entries.append({"resource": outcome(ignored), "search": {"mode": "outcome"}})
    bundle: Resource = {"resourceType": "Bundle", "type": "searchset"}
    if page.total is not None:
        bundle["total"] = page.total
    bundle["link"] = links
    if entries:
        bundle["entry"] = entries
    return bundle


def _encoded(arguments: Sequence[tuple[str, str]]) -> str:
    return "&".join(f"{quote(n, safe=':_')}={quote(v, safe=',|:/')}" for n, v in arguments)


def _entry(scope: Scope, query: Query, record: Record, mode: str) -> dict[str, Any]:
    return {
        "fullUrl": f"{scope.base}/{record.location}",
        "resource": reduced(query, record.resource),
        "search": {"mode": mode},
    }


def reduced(query: Query, resource: Resource) -> Resource:
    """Returns as much of a resource as was asked for, tagged when that is not all."""
    kind = resource["resourceType"]
    summary, required = wire.summary_elements(kind)
    if query.elements:
        # elements of one type may be named Type.element
        own = [e.removeprefix(f"{kind}.") for e in query.elements]
        wanted = {n for n in resource if n in required or any(_is(n, e) for e in own)}
    elif query.summary == "true":
        wanted = {n for n in resource if n in summary or n in required}
    elif query.summary == "text":
        wanted = {n for n in resource if n == "text" or n in required}
    elif query.summary == "data":
        wanted = resource.keys() - {"text"}
    else:
        return resource
    kept = {n: v for n, v in resource.items() if n in _ALWAYS or n.removeprefix("_") in wanted}
    meta = kept.get("meta", {})
    tags = meta.get("tag", [])
    return {**kept, "meta": {**meta, "tag": [*tags, SUBSETTED] if SUBSETTED not in tags else tags}}


def _is(name: str, element: str) -> bool:
    """Whether a member is an element, a choice such as value[x] by its stem too."""
    rest = name.removeprefix(element)
    return name == element or (rest != name and rest[:1].isupper() and element in _CHOICES)


_CHOICES = ("value", "effective", "deceased", "multipleBirth", "onset", "abatement")
