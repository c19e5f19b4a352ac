"""Candidates: the ids that iCure finds, in the order of the answer, and the records among them that match.

Strategy: ids come in one or several *runs*, each in the order wanted; they are merged while they are read. A run holds
ids only, resources are read a few hundred at a time and let go, so that memory grows with the ids.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from bridge.errors import Invalid, TooCostly
from bridge.homes import Record, home_of, union
from bridge.scope import Scope
from bridge.search import names
from bridge.search.criteria import Criterion, build, check
from bridge.search.names import Name
from bridge.search.query import Query
from bridge.search.recipes import of_patients, service_date
from bridge.search.sorting import sort_key
from mappings import REGISTRY
from mappings.values import Entity

SCAN_BOUND = 2000
"""How many candidates a search without patient may open when nothing upstream narrows it."""
CHAIN_BOUND = 10_000
"""How many candidates a link of a chain, a sort that reads all, or a count may open."""
MOST_RUNS = 16
STEP, LARGEST_STEP = 20, 200

Order = Callable[[Record], Any]


@dataclass(slots=True)
class Candidates:
    """What iCure found for a query."""

    resource_type: str
    runs: list[list[str]]
    criteria: list[Criterion]
    order: Order | None = None
    """How the runs are ordered, where there are several."""
    descending: bool = False
    size: int = 0
    """How many ids there are."""
    by_id: bool = False
    """Whether the run is in the order of the ids."""
    matched: bool = False
    """Whether each of them is known to match."""

    def accepts(self, record: Record) -> bool:
        """Whether a candidate is a match."""
        return not record.deleted and all(c.test(record) for c in self.criteria)


def candidates(scope: Scope, query: Query) -> Candidates:
    """Returns what iCure finds for a query. Raises `TooCostly` where that would be too much to open."""
    criteria = criteria_of(scope, query)
    if any(c.nothing for c in criteria):
        return Candidates(query.resource_type, [[]], [])
    dated = _by_date(scope, query, criteria)
    if dated is not None:
        return dated
    ids = _ids(scope, query, criteria)
    found = Candidates(query.resource_type, [ids], criteria, size=len(ids), by_id=True)
    if query.sort in (("_id",), ("-_id",)):
        found.runs, found.by_id = [sorted(ids, reverse=query.sort == ("-_id",))], query.sort == ("_id",)
    elif query.sort:
        found = _sorted(scope, query, found)
    return found


def criteria_of(scope: Scope, query: Query) -> list[Criterion]:
    """Returns the criteria of a query, with all that they take looked up. Raises `Invalid`, `TooCostly`."""
    asked: list[tuple[Name, Sequence[str]]] = []
    for text, wanted in query.criteria:
        name = names.parse(query.resource_type, text)
        if name is None:
            raise Invalid("This server does not know one of the parameters.")
        check(scope, name, wanted)
        asked.append((name, wanted))
    return [_built(scope, name, wanted) for name, wanted in asked]


def _built(scope: Scope, name: Name, wanted: Sequence[str]) -> Criterion:
    return build(scope, name, wanted, lambda inner: _everything(scope, inner, wanted))


def _everything(scope: Scope, name: Name, wanted: Sequence[str]) -> Iterator[Record]:
    """Yields all that one parameter finds, for a chain. Raises `TooCostly` beyond 10,000."""
    criterion = _built(scope, name, wanted)
    if criterion.nothing:
        return
    ids = _ids(scope, Query(name.resource_type), [criterion])
    if len(ids) > CHAIN_BOUND:
        raise TooCostly("A chained search passes through too many resources; narrow it.")
    yield from matches(scope, Candidates(name.resource_type, [ids], [criterion]), LARGEST_STEP)


def _ids(scope: Scope, query: Query, criteria: Sequence[Criterion]) -> list[str]:
    """Returns the ids that meet all filters, sorted."""
    home = home_of(query.resource_type)
    filters = _filters(scope, query, criteria)
    if not filters:
        filters = [union(home.all_filter(owner) for owner in scope.owners)]
    ids = sorted(set(scope.client.match(home.kind, _intersection(filters))))
    scans = any(not c.filters for c in criteria) and not any(c.secret_ids for c in criteria)
    if scans and len(ids) > SCAN_BOUND:
        raise TooCostly(
            "Nothing in iCure narrows this search enough. Add a patient, or a system to the code."
        )
    return ids


def _filters(scope: Scope, query: Query, criteria: Sequence[Criterion]) -> list[Entity]:
    """Returns a filter for each criterion that has one; dates narrow what is found by patient."""
    kind = REGISTRY[query.resource_type].entity_type
    starts = _bounds(criteria)
    found = []
    for criterion in criteria:
        if criterion.secret_ids and kind == "Service" and starts != (None, None):
            dated = (of_patients(kind, o, criterion.secret_ids, *starts) for o in scope.owners)
            found.append(union(f for f in dated if f is not None))
        elif criterion.filters:
            found.append(union(criterion.filters))
    return found


def _bounds(criteria: Sequence[Criterion]) -> tuple[int | None, int | None]:
    """Returns between which of iCure's dates everything must begin that meets all criteria."""
    lows, highs = [], []
    for criterion in criteria:
        if criterion.starts:
            low, high = zip(*criterion.starts, strict=True)
            lows += [min(low)] if None not in low else []
            highs += [max(high)] if None not in high else []
    return max(lows, default=None), min(highs, default=None)


def _intersection(filters: Sequence[Entity]) -> Entity:
    return filters[0] if len(filters) == 1 else {"$type": "IntersectionFilter", "filters": list(filters)}


# order


def _by_date(scope: Scope, query: Query, criteria: Sequence[Criterion]) -> Candidates | None:
    """Returns a patient's candidates in the order of iCure's own index of dates; None where it has none.

    Each data owner and each id of the patient is a run of its own, as iCure orders no further. Where no order is asked
    for and a date is, the newest come first: what was asked for is then near the beginning.
    """
    kind = REGISTRY[query.resource_type].entity_type
    patients = [c for c in criteria if c.secret_ids]
    dated_by_default = not query.sort and any(c.starts for c in criteria)
    if not (query.sort in (("date",), ("-date",)) or dated_by_default) or kind != "Service" or not patients:
        return None
    first = min(patients, key=lambda c: len(c.secret_ids))
    pairs = list(product(scope.owners, first.secret_ids))
    keys = scope.client.access_keys
    if len(pairs) > MOST_RUNS or (keys is not None and keys("Contact")):
        return None
    home, descending = home_of(query.resource_type), query.sort != ("date",)
    rest = _filters(scope, query, [c for c in criteria if c is not first])
    runs = []
    for owner, secret_id in pairs:
        dated = of_patients(kind, owner, [secret_id], *_bounds(criteria), descending=descending)
        runs.append(scope.client.match(home.kind, _intersection([*filter(None, [dated]), *rest])))
    size = len(runs[0]) if len(runs) == 1 else len({i for run in runs for i in run})
    return Candidates(
        query.resource_type,
        runs,
        list(criteria),
        order=lambda record: (service_date(record.entity), record.id),
        descending=descending,
        size=size,
    )


def _sorted(scope: Scope, query: Query, found: Candidates) -> Candidates:
    """Returns the matches in the order asked; every one is read for that. Raises `TooCostly` beyond 10,000."""
    if found.size > CHAIN_BOUND:
        raise TooCostly("This order needs every match to be read, and there are too many; narrow the search.")
    keyed = [
        (sort_key(query, record, scope.config.timezone), record.id)
        for record in matches(scope, found, LARGEST_STEP)
    ]
    ids = [entity_id for _, entity_id in sorted(keyed)]
    return Candidates(query.resource_type, [ids], [], size=len(ids), matched=True)


# reading


def matches(scope: Scope, found: Candidates, first: int) -> Iterator[Record]:
    """Yields the records that meet all criteria, reading `first` at once and then more."""
    return (read.record for read in walk(scope, found, first) if found.accepts(read.record))


@dataclass(frozen=True, slots=True)
class Read:
    """A candidate that was read, and where: `places` says for each run how far it was read then."""

    record: Record
    places: tuple[str, ...]


def walk(scope: Scope, found: Candidates, first: int, after: Sequence[str] = ()) -> Iterator[Read]:
    """Yields the candidates in order, each once, reading on from the places of an earlier walk."""
    places = list(after) or ["@0"] * len(found.runs)
    seen = {place.rpartition("@")[0] for place in places}
    parts = [
        _read(scope, found, run, _place(run, place, by_id=found.by_id), first, at)
        for at, (run, place) in enumerate(zip(found.runs, places, strict=True))
    ]
    order = found.order
    merged = (
        parts[0]
        if order is None or len(parts) == 1
        else heapq.merge(*parts, key=lambda item: order(item[0]), reverse=found.descending)
    )
    for record, at, position in merged:
        places[at] = f"{record.id}@{position}"
        if record.id not in seen:
            seen = {record.id}
            yield Read(record, tuple(places))


def _place(run: Sequence[str], place: str, *, by_id: bool) -> int:
    """Returns where to read on after `id@position`; the id may have moved or gone since."""
    entity_id, _, position = place.rpartition("@")
    if by_id:
        return bisect_right(run, entity_id)
    at = min(int(position), len(run))
    if at == 0 or run[at - 1] == entity_id:
        return at
    try:
        return run.index(entity_id) + 1
    except ValueError:
        return at


def _read(
    scope: Scope, found: Candidates, run: Sequence[str], at: int, first: int, which: int
) -> Iterator[tuple[Record, int, int]]:
    """Yields the records of a run, the number of the run, and how many ids of it were read then."""
    home, step = home_of(found.resource_type), min(max(first, STEP), LARGEST_STEP)
    while at < len(run):
        chunk = run[at : at + step]
        positions = {entity_id: at + i for i, entity_id in enumerate(chunk, 1)}
        records = home.read_all(scope, found.resource_type, chunk)[::-1]
        while records:
            record = records.pop()
            yield record, which, positions[record.id]
        at, step = at + step, min(step * 2, LARGEST_STEP)
