"""Search: a query becomes an upstream filter and an exact FHIR predicate on the opened resources, always applied.

Facts: https://hl7.org/fhir/R4/search.html. iCure finds by what lies in clear only; each parameter of `PARAMETERS` says
how its filter stands to FHIR: *exact*, *superset* (the predicate drops the rest) or *scan* (nothing upstream helps).
Strategy: the filter gives ids, sorted; a page reads, opens and tests as many as it needs. Memory grows with the ids,
not with the resources.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import orjson

from bridge.errors import Invalid, Issue, TooCostly, outcome, warning
from bridge.homes import Record, home_of, supported, union
from bridge.references import by_ids_or_client_ids, client_ids
from bridge.scope import Scope
from mappings.values import Entity, Resource

DEFAULT_COUNT, MOST_COUNT = 50, 1000
SCAN_BOUND = 2000
"""How many candidates a search without patient may open when nothing upstream narrows it."""
CHAIN_BOUND = 10_000
"""How many resources a chain may pass through."""
CONTROLS = ("_count", "_cursor", "_format", "_pretty")
_EFFECTIVE = 3
"""iCure's name index holds suffixes of at least three letters or digits."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """One AND-part of a query: what finds its candidates upstream, and what decides."""

    test: Callable[[Record], bool]
    filter: Entity | None = None
    """None: scan."""
    by_patient: bool = False
    nothing: bool = False
    """It is known already that nothing matches."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A search parameter: how its OR-ed values become a criterion."""

    type: str
    fit: str
    """How the upstream filter stands to FHIR: exact, superset or scan."""
    build: Callable[[Scope, Sequence[str]], Criterion]
    documentation: str = ""


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed search."""

    resource_type: str
    criteria: tuple[tuple[str, tuple[str, ...]], ...]
    """Parameter name and OR-ed values, as sent."""
    count: int
    after: str = ""
    """The last id of the page before."""


@dataclass(slots=True)
class Page:
    """One page of matches."""

    query: Query
    records: list[Record]
    more: bool
    ignored: list[Issue] = field(default_factory=list)


def parse(
    scope: Scope, resource_type: str, arguments: Iterable[tuple[str, str]], *, strict: bool = False
) -> tuple[Query, list[Issue]]:
    """Returns the query and a warning for each unknown parameter, which is an error when `strict`.

    Raises `Invalid` for values that cannot be read.
    """
    supported(resource_type)
    criteria: list[tuple[str, tuple[str, ...]]] = []
    ignored: list[Issue] = []
    count, cursor = DEFAULT_COUNT, None
    for name, value in arguments:
        if name == "_count":
            count = _count(value)
        elif name == "_cursor":
            cursor = value
        elif name in CONTROLS:
            continue
        elif parameter(resource_type, name) is None:
            ignored.append(
                warning("not-supported", "This server does not know one of the parameters; it was ignored.")
            )
        elif value:
            criteria.append((name, tuple(_values(value))))
    if ignored and strict:
        raise Invalid("This server does not know one of the parameters.")
    if cursor is not None:
        return _open_cursor(scope, resource_type, cursor), []
    return Query(resource_type, tuple(criteria), count), ignored[:1]


def run(scope: Scope, query: Query) -> Page:
    """Returns the next page of a query."""
    ids, criteria = _candidates(scope, query)
    start = bisect_right(ids, query.after)
    matches = _matches(scope, query.resource_type, ids[start:], criteria, query.count + 1)
    records = [record for record, _ in zip(matches, range(query.count + 1), strict=False)]
    return Page(query, records[: query.count], len(records) > query.count)


def search(
    scope: Scope, resource_type: str, arguments: Sequence[tuple[str, str]], *, strict: bool = False
) -> Resource:
    """Answers a search with a searchset Bundle. https://hl7.org/fhir/R4/http.html#search"""
    query, ignored = parse(scope, resource_type, arguments, strict=strict)
    page = run(scope, query)
    if scope.unopened:
        text = f"{scope.unopened} found in iCure cannot be opened with the loaded keys and are left out."
        ignored.append(warning("security", text))
    base = f"{scope.base}/{resource_type}"
    sent = "&".join(f"{quote(n, safe=':_')}={quote(v, safe=',|')}" for n, v in arguments)
    links = [{"relation": "self", "url": f"{base}?{sent}" if sent else base}]
    if page.more:
        links.append({"relation": "next", "url": f"{base}?_cursor={_cursor(scope, page)}"})
    entries: list[Resource] = [
        {"fullUrl": f"{scope.base}/{r.location}", "resource": r.resource, "search": {"mode": "match"}}
        for r in page.records
    ]
    if ignored:
        entries.append({"resource": outcome(ignored), "search": {"mode": "outcome"}})
    bundle: Resource = {"resourceType": "Bundle", "type": "searchset"}
    if not page.more and not query.after:
        bundle["total"] = len(page.records)
    bundle["link"] = links
    if entries:
        bundle["entry"] = entries
    return bundle


def _candidates(scope: Scope, query: Query) -> tuple[list[str], list[Criterion]]:
    """Returns the sorted ids that the upstream finds, and what has to be tested on each."""
    criteria = [_built(scope, query.resource_type, name, values) for name, values in query.criteria]
    if any(c.nothing for c in criteria):
        return [], []
    home = home_of(query.resource_type)
    filters = [c.filter for c in criteria if c.filter is not None]
    if not filters:
        filters = [union(home.all_filter(owner) for owner in scope.owners)]
    whole = filters[0] if len(filters) == 1 else {"$type": "IntersectionFilter", "filters": filters}
    ids = sorted(set(scope.client.match(home.kind, whole)))
    scans = any(c.filter is None for c in criteria) and not any(c.by_patient for c in criteria)
    if scans and len(ids) > SCAN_BOUND:
        raise TooCostly(
            "Nothing in iCure narrows this search enough. Add a patient, or a system to the code."
        )
    return ids, criteria


def _matches(
    scope: Scope, resource_type: str, ids: Sequence[str], criteria: Sequence[Criterion], wanted: int
) -> Iterator[Record]:
    """Yields the records that meet all criteria, reading as many at once as may be needed."""
    step = min(max(wanted, 20), 500)
    for at in range(0, len(ids), step):
        for record in home_of(resource_type).read_all(scope, resource_type, ids[at : at + step]):
            if not record.deleted and all(c.test(record) for c in criteria):
                yield record


def _all(scope: Scope, resource_type: str, criteria: Iterable[tuple[str, Sequence[str]]]) -> list[Record]:
    """Returns everything that matches, for a chain. Raises `TooCostly` beyond 10,000."""
    query = Query(resource_type, tuple((n, tuple(v)) for n, v in criteria), CHAIN_BOUND)
    ids, built = _candidates(scope, query)
    if len(ids) > CHAIN_BOUND:
        raise TooCostly("A chained search passes through too many resources; narrow it.")
    return list(_matches(scope, resource_type, ids, built, CHAIN_BOUND))


# values


def _values(text: str) -> list[str]:
    r"""Returns the values between commas that are not escaped; `\,` `\|` `\$` `\\` stay escaped."""
    return re.findall(r"(?:\\.|[^\\,])+", text)


def _unescape(text: str) -> str:
    return re.sub(r"\\([,|$\\])", r"\1", text)


def _token(value: str) -> tuple[str | None, str]:
    """Returns (system, code); system None: any, code empty: any."""
    found = re.match(r"((?:\\.|[^\\|])*)(\|?)(.*)", value, re.DOTALL)
    first, bar, rest = found.groups() if found else (value, "", "")
    return (_unescape(first), _unescape(rest)) if bar else (None, _unescape(first))


def _count(value: str) -> int:
    if not (value.isascii() and value.isdigit()) or not int(value[:9]) >= 1 or len(value) > 9:
        raise Invalid(f"_count must be a whole number from 1; at most {MOST_COUNT} are answered at once.")
    return min(int(value), MOST_COUNT)


def fold(text: str) -> str:
    """Returns text without case and diacritics, as FHIR compares strings."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return " ".join("".join(c for c in decomposed if not unicodedata.combining(c)).split())


# criteria


def _ids(resource_type: str) -> Callable[[Scope, Sequence[str]], Criterion]:
    def build(scope: Scope, values: Sequence[str]) -> Criterion:
        wanted = {_unescape(v) for v in values}
        home = home_of(resource_type)
        system = scope.config.identifier_system
        identifiers = [{"system": system, "value": v} for v in sorted(wanted)]
        found = [home.ids_filter(sorted(wanted))]
        found += [home.identifier_filter(owner, identifiers) for owner in scope.owners]

        def test(record: Record) -> bool:
            return record.id in wanted or not wanted.isdisjoint(client_ids(scope, record.resource))

        return Criterion(test, union(found))

    return build


def _gender(scope: Scope, values: Sequence[str]) -> Criterion:
    wanted = {_token(v)[1] for v in values}
    stored = [g for v in sorted(wanted) for g in GENDERS.get(v, ())]
    filters = [
        {"$type": "PatientByHcPartyGenderEducationProfession", "healthcarePartyId": owner, "gender": gender}
        for owner in scope.owners
        for gender in stored
    ]
    if not filters:
        return Criterion(lambda record: False, nothing=True)
    return Criterion(lambda record: record.resource.get("gender") in wanted, union(filters))


GENDERS = {
    "male": ("male", "changedToMale"),
    "female": ("female", "changedToFemale"),
    "other": ("indeterminate", "changed"),
    "unknown": ("unknown",),
}
"""FHIR's administrative gender to all that iCure's may say for it."""


def _name(scope: Scope, values: Sequence[str]) -> Criterion:
    wanted = [fold(_unescape(v)) for v in values]
    filters = [_name_filter(scope, v) for v in wanted]

    def test(record: Record) -> bool:
        parts = [fold(p) for name in record.resource.get("name", []) for p in _name_parts(name)]
        return any(part.startswith(w) for w in wanted for part in parts)

    if any(f is None for f in filters):
        return Criterion(test)
    return Criterion(test, union(f for f in filters if f is not None))


def _name_filter(scope: Scope, wanted: str) -> Entity | None:
    """Returns the filter that finds each word of at least three letters, None when there is no such word."""
    words = [w for w in wanted.split() if len(re.sub("[^a-z0-9]", "", w)) >= _EFFECTIVE]
    per_word = [
        union(
            {"$type": "PatientByHcPartyNameContainsFuzzyFilter", "healthcarePartyId": o, "searchString": w}
            for o in scope.owners
        )
        for w in words
    ]
    if len(per_word) > 1:
        return {"$type": "IntersectionFilter", "filters": per_word}
    return per_word[0] if per_word else None


def _name_parts(name: Resource) -> Iterator[str]:
    given = [g for g in name.get("given", []) if g]
    family = name.get("family", "")
    yield from (family, name.get("text", ""), *given, *name.get("prefix", []), *name.get("suffix", []))
    yield " ".join([*given, family])
    yield " ".join([family, *given])


def _code(*, tags: bool) -> Callable[[Scope, Sequence[str]], Criterion]:
    def build(scope: Scope, values: Sequence[str]) -> Criterion:
        wanted = [_token(v) for v in values]

        def test(record: Record) -> bool:
            codings = record.resource.get("code", {}).get("coding", [])
            if tags:
                codings = [*codings, *record.resource.get("meta", {}).get("tag", [])]
            return any(_says(coding, system, code) for system, code in wanted for coding in codings)

        if any(not system or not code for system, code in wanted):
            return Criterion(test)
        filters: list[Entity] = []
        for owner in scope.owners:
            base = {"$type": "ServiceByHcPartyTagCodeDateFilter", "healthcarePartyId": owner}
            for system, code in wanted:
                filters.append({**base, "codeType": system, "codeCode": code})
                if tags:
                    filters.append({**base, "tagType": system, "tagCode": code})
        return Criterion(test, union(filters))

    return build


def _says(coding: Resource, system: str | None, code: str) -> bool:
    if system is not None and coding.get("system", "") != system:
        return False
    return not code or coding.get("code") == code


def _subject(scope: Scope, values: Sequence[str]) -> Criterion:
    ids = []
    for value in values:
        text = _unescape(value)
        text = text[len(scope.base) + 1 :] if text.startswith(scope.base + "/") else text
        kind, slash, entity_id = text.rpartition("/")
        if slash and kind != "Patient":
            continue
        ids.append(entity_id)
    return _of_patients(scope, by_ids_or_client_ids(scope, "Patient", ids) if ids else [])


def _of_patients(scope: Scope, patients: Sequence[Record]) -> Criterion:
    """Returns the criterion that holds for what belongs to one of these patients."""
    ids = {p.id for p in patients}
    secret_ids = [
        s for p in patients for s in scope.keyring.open(p.document, "Patient", whole=True).secret_ids
    ]
    if not secret_ids:
        return Criterion(lambda record: False, nothing=True)
    filters = [
        {
            "$type": "ServiceBySecretForeignKeys",
            "healthcarePartyId": owner,
            "patientSecretForeignKeys": list(dict.fromkeys(secret_ids)),
        }
        for owner in scope.owners
    ]
    return Criterion(lambda record: record.entity.get("patientId") in ids, union(filters), by_patient=True)


def _chained(name: str) -> Callable[[Scope, Sequence[str]], Criterion]:
    """Returns what narrows Observations to the patients that a Patient parameter finds."""
    return lambda scope, values: _of_patients(scope, _all(scope, "Patient", [(name, values)]))


def _having(name: str) -> Callable[[Scope, Sequence[str]], Criterion]:
    """Returns what narrows Patients to those whom an Observation is about that an Observation parameter finds."""

    def build(scope: Scope, values: Sequence[str]) -> Criterion:
        records = _all(scope, "Observation", [(name, values)])
        ids = {r.entity["patientId"] for r in records if "patientId" in r.entity}
        if not ids:
            return Criterion(lambda record: False, nothing=True)
        return Criterion(lambda record: record.id in ids, home_of("Patient").ids_filter(sorted(ids)))

    return build


PATIENT = {
    "_id": Parameter("token", "exact", _ids("Patient"), "server id, or the id a client sent"),
    "gender": Parameter("token", "superset", _gender),
    "name": Parameter(
        "string",
        "superset",
        _name,
        "iCure finds by first, last, maiden and spouse name; other parts only narrow",
    ),
}
OBSERVATION = {
    "_id": Parameter("token", "exact", _ids("Observation"), "server id, or the id a client sent"),
    "_tag": Parameter("token", "superset", _code(tags=True), "meta.tag, and code as well"),
    "code": Parameter("token", "superset", _code(tags=False)),
    "subject": Parameter("reference", "exact", _subject),
    "patient": Parameter("reference", "exact", _subject),
}
PARAMETERS: dict[str, dict[str, Parameter]] = {"Patient": PATIENT, "Observation": OBSERVATION}
"""By resource type and name; `CapabilityStatement` lists exactly these."""

_TO_PATIENT = re.compile(r"(?:_has:Patient:|(?:subject(?::Patient)?|patient)\.)(\w+)")
_HAS_OBSERVATION = re.compile(r"_has:Observation:(?:(?:patient|subject):)?(\w+)")


def parameter(resource_type: str, name: str) -> Parameter | None:
    """Returns the parameter of this name, chained ones too; None when this server does not know it."""
    if resource_type == "Observation" and (match := _TO_PATIENT.fullmatch(name)) and match[1] in PATIENT:
        return Parameter("string", "superset", _chained(match[1]))
    if resource_type == "Patient" and (match := _HAS_OBSERVATION.fullmatch(name)) and match[1] in OBSERVATION:
        return Parameter("string", "superset", _having(match[1]))
    return PARAMETERS[resource_type].get(name)


def _built(scope: Scope, resource_type: str, name: str, values: Sequence[str]) -> Criterion:
    found = parameter(resource_type, name)
    if found is None:
        raise Invalid("This server does not know one of the parameters.")
    return found.build(scope, values)


# cursors


def _cursor(scope: Scope, page: Page) -> str:
    query = page.query
    content: list[Any] = [scope.caller.data_owner_id, query.resource_type, query.criteria, query.count]
    return scope.state.seal("cursor", orjson.dumps([*content, page.records[-1].id]))


def _open_cursor(scope: Scope, resource_type: str, text: str) -> Query:
    opened = scope.state.open("cursor", text)
    content = orjson.loads(opened) if opened else None
    if content is None or content[:2] != [scope.caller.data_owner_id, resource_type]:
        raise Invalid("This _cursor is not one that this server gave you for this search.")
    criteria = tuple((name, tuple(values)) for name, values in content[2])
    return Query(resource_type, criteria, content[3], content[4])
