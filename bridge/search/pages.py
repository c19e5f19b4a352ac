"""Pages: as many matches as asked for, and a sealed cursor that goes on from there.

Rule: a cursor is bound to its caller and holds the whole query, so that what follows cannot be another search.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from bridge.errors import Invalid, Issue, TooCostly
from bridge.homes import Record
from bridge.scope import Scope
from bridge.search.candidates import CHAIN_BOUND, Candidates, candidates, matches, walk
from bridge.search.query import Query

PAGE_BOUND = 1000
"""How many candidates one page opens; where few of them match it ends there, and `next` goes on."""
LONGEST_CURSOR = 1500
CURSOR_SECONDS = 3600
"""How long a query that is too long for a URL is kept."""


@dataclass(slots=True)
class Page:
    """One page of matches."""

    query: Query
    records: list[Record]
    more: bool
    total: int | None = None
    places: tuple[str, ...] = ()
    """Where the next page begins."""
    ignored: list[Issue] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A query and how far it was answered."""

    query: Query
    places: tuple[str, ...] = ()
    total: int | None = None


def run(scope: Scope, query: Query) -> Page:
    """Returns the first page of a query, whole. Raises `TooCostly` when too much has to be opened for that."""
    page = answer(scope, Cursor(query))
    if page.more and len(page.records) < query.count:
        raise TooCostly("Too much has to be read for this condition; narrow it.")
    return page


def answer(scope: Scope, cursor: Cursor) -> Page:
    """Returns the page that begins at a cursor."""
    query = cursor.query
    found = candidates(scope, query)
    if query.count == 0 or query.summary == "count":
        return Page(query, [], False, _counted(scope, found))
    page = _filled(scope, cursor, found)
    if query.total == "none":
        page.total = None
    elif page.total is None and query.total == "accurate":
        page.total = _counted(scope, found)
    elif page.total is None and query.total == "estimate":
        page.total = found.size
    return page


def _filled(scope: Scope, cursor: Cursor, found: Candidates) -> Page:
    """Returns the page, with a total when it was counted on the way."""
    records: list[Record] = []
    places, query = cursor.places, cursor.query
    for opened, read in enumerate(walk(scope, found, query.count + 1, places), 1):
        accepted = found.accepts(read.record)
        if opened > PAGE_BOUND or (accepted and len(records) == query.count):
            break
        records += [read.record] if accepted else []
        places = read.places
    else:
        total = cursor.total if cursor.places else len(records)
        return Page(query, records, False, total)
    return Page(query, records, True, cursor.total, places)


def _counted(scope: Scope, found: Candidates) -> int:
    """Returns how many match. Raises `TooCostly` where too many would have to be opened."""
    if found.matched:
        return found.size
    if found.size > CHAIN_BOUND:
        raise TooCostly("There are too many candidates to count the matches; narrow the search.")
    return sum(1 for _ in matches(scope, found, CHAIN_BOUND))


def write_cursor(scope: Scope, page: Page) -> str:
    """Returns URL-safe text that leads to the next page."""
    owner = scope.caller.data_owner_id
    content = orjson.dumps([owner, asdict(page.query), page.places, page.total])
    text = scope.state.seal("cursor", content)
    if len(text) > LONGEST_CURSOR:
        name = secrets.token_urlsafe(16)
        scope.state.put("cursor", name, content, time.time() + CURSOR_SECONDS)
        text = scope.state.seal("cursor", orjson.dumps([owner, name]))
    return text


def read_cursor(scope: Scope, resource_type: str, text: str) -> Cursor:
    """Returns what a cursor says. Raises `Invalid` when it is another caller's, another type's, or was altered."""
    owner = scope.caller.data_owner_id
    opened = scope.state.open("cursor", text)
    content: list[Any] = orjson.loads(opened) if opened else [None]
    if len(content) == 2 and content[0] == owner:
        kept = scope.state.get("cursor", content[1])
        content = orjson.loads(kept) if kept else [None]
    if content[0] != owner or content[1]["resource_type"] != resource_type:
        raise Invalid("This _cursor is not one that this server gave you for this search, or it has ended.")
    said = content[1]
    query = Query(
        **{
            **said,
            "criteria": tuple((name, tuple(values)) for name, values in said["criteria"]),
            "includes": tuple((name, value) for name, value in said["includes"]),
            "sort": tuple(said["sort"]),
            "elements": tuple(said["elements"]),
        }
    )
    return Cursor(query, tuple(content[2]), content[3])
