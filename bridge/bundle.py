"""Bundles: a transaction of all or nothing, a batch of entries each for itself, a history.

Facts: https://hl7.org/fhir/R4/http.html#transaction. Entries take effect in the order DELETE, POST, PUT and PATCH, GET
whatever the order sent, and are answered in the order sent. Atomic, not isolated.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC
from http import HTTPStatus
from typing import Any, NoReturn
from urllib.parse import parse_qsl, urlencode

from bridge import interactions, operations, search, wire
from bridge.conditions import alone, canonical, creating, match, read_condition
from bridge.errors import BridgeError, Gone, Invalid, Issue, NotFound, explain, outcome
from bridge.homes import Record, home_of, instant, supported
from bridge.interactions import ABSENT, Answer, check_match, find, patched
from bridge.once import Answers, Request, apart, once, shown
from bridge.patch import JSON_PATCH, Patch, read_patch
from bridge.plan import Incoming, Removal
from bridge.scope import Scope
from bridge.search.values import moment
from bridge.state import Hold
from bridge.wire import Entry
from mappings.values import Resource

READING = ("GET", "HEAD")
ORDER = ("DELETE", "POST", "PUT", "PATCH", *READING)
MOST_ISSUES = 200
ETAG = re.compile(r'(?:W/)?"([A-Za-z0-9.\-]{1,64})"')


def run(
    scope: Scope, bundle: Resource, request: Request | None = None, *, representation: bool = False
) -> tuple[Resource, Iterator[Resource]]:
    """Answers a transaction or a batch: with a Bundle, and with its entries one by one.

    With `representation` they hold the resources as written.

    The entries are taken off the Bundle. `request` says by what it is known when it comes again.

    Raises one error with everything that is wrong in any entry of a transaction; then nothing was written.
    """
    strict = scope.config.validation == "strict"
    entries, warnings = wire.check_bundle_envelope(
        bundle, strict=strict, max_entries=scope.config.max_bundle_entries, base=scope.base
    )
    scope.warnings += warnings
    kind = bundle["type"]
    bundle.pop("entry", None)  # what is written is let go as soon as it is encrypted
    whole = _transaction if kind == "transaction" else _batch
    scope = replace(scope, shows_written=representation)
    answers = whole(scope, entries, request, representation=representation)
    return {"resourceType": "Bundle", "type": f"{kind}-response"}, (
        _answered(scope, entry, answer, representation=representation)
        for entry, answer in zip(entries, answers, strict=True)
    )


def _transaction(
    scope: Scope, entries: Sequence[Entry], request: Request | None, *, representation: bool
) -> Sequence[Answer | BridgeError]:
    """Returns the answers in the order sent. Raises what is wrong with any entry; then nothing was written.

    A read comes after all is written, so one that fails is answered so for itself.
    """
    writing = [e for e in entries if e.method not in READING]

    def whole(written: Answers) -> Sequence[Answer | BridgeError]:
        if representation:
            written = {index: shown(scope, answer) for index, answer in written.items()}
        return [written.get(e.index) or _tried(scope, e, _read) for e in entries]

    return once(scope, request, lambda scope: _Transaction(scope, _ordered(writing)).written(), whole)


def _batch(
    scope: Scope, entries: Sequence[Entry], request: Request | None, *, representation: bool
) -> Sequence[Answer | BridgeError]:
    """Returns the answers in the order sent, each what the same request alone would get."""

    def do(scope: Scope, entry: Entry) -> Answer:
        if entry.errors:
            raise Invalid(issues=entry.errors)
        if entry.method in READING:
            return _read(scope, entry)
        part = None if request is None else request.part(entry.index)

        def told(answers: Answers) -> Answer:
            answer = answers[entry.index]
            return shown(scope, answer) if representation else answer

        return once(scope, part, lambda scope: {entry.index: _alone(scope, entry)}, told)

    def all_of_them() -> tuple[Sequence[Answer | BridgeError], bool]:
        answers = {entry.index: _tried(scope, entry, do) for entry in _ordered(entries)}
        writing = (entry.index for entry in entries if entry.method not in READING)
        return [answers[e.index] for e in entries], any(isinstance(answers[at], Answer) for at in writing)

    return apart(scope, request, all_of_them)


def _ordered(entries: Iterable[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda e: ORDER.index(e.method))


def _tried(scope: Scope, entry: Entry, do: Callable[[Scope, Entry], Answer]) -> Answer | BridgeError:
    """Returns the answer of an entry by itself, or why there is none."""
    try:
        return do(scope, entry)
    except BridgeError as e:
        return e


def _alone(scope: Scope, entry: Entry) -> Answer:
    """Returns the answer of one writing entry of a batch."""
    kind, if_match = _type_of(entry), _etag(entry)
    if entry.method == "DELETE":
        if entry.id is None:
            return interactions.delete_where(scope, kind, entry.query or "", if_match)
        return interactions.delete(scope, kind, entry.id, if_match)
    if entry.method == "PATCH":
        change = _patch(scope, entry)
        if entry.id is None:
            return interactions.patch_where(scope, kind, entry.query or "", change, if_match)
        return interactions.patch(scope, kind, entry.id, change, if_match)
    one = _incoming(scope, entry)
    if entry.method == "PUT":
        if entry.id is None:
            return interactions.update_where(scope, one, entry.query or "", if_match)
        return interactions.update(scope, kind, entry.id, one, if_match)
    if entry.if_none_exist is not None:
        return interactions.create_unless(scope, one, entry.if_none_exist)
    return interactions.create(scope, one)


@dataclass(slots=True)
class _Transaction:
    """The writing entries of a transaction on their way: each becomes something to write, or is answered already."""

    scope: Scope
    entries: Sequence[Entry]
    """In the order in which they take effect."""
    incoming: dict[int, Incoming] = field(default_factory=dict)
    removals: dict[int, Removal] = field(default_factory=dict)
    settled: dict[int, Answer] = field(default_factory=dict)
    there: dict[str, Record] = field(default_factory=dict)
    """What fullUrls mean of entries that write nothing."""
    same: dict[tuple[str, str], int] = field(default_factory=dict)
    """The entry that stands for all those with the same `ifNoneExist`."""
    met: dict[tuple[str, str], Record] = field(default_factory=dict)
    """What meets an `ifNoneExist` already."""
    records: dict[str, Record] = field(default_factory=dict)
    touched: set[object] = field(default_factory=set)
    """What is changed or created by now: locations, and conditions that nothing met."""

    def written(self) -> dict[int, Answer]:
        """Returns the answers by the places of the entries. Raises what is wrong with any; then nothing was written."""
        with ExitStack() as held:
            with self.scope.turns.of(len(self.entries)):
                self._each(self._checked)
            holds = [held.enter_context(one) for one in self._held_alone()]
            self._look_up()
            self._each(self._settled)
            for hold in holds:
                hold.check()
            incoming, removals = list(self.incoming.items()), list(self.removals.items())
            written, removed = interactions.transact(
                self.scope, [one for _, one in incoming], [r for _, r in removals], self.there
            )
        self.settled |= {index: answer for (index, _), answer in zip(incoming, written, strict=True)}
        self.settled |= {index: answer for (index, _), answer in zip(removals, removed, strict=True)}
        for entry in self.entries:
            if entry.index not in self.settled:
                first = self.settled[self.same[_condition(entry)]]
                self.settled[entry.index] = replace(first, status=200)
        return self.settled

    def _held_alone(self) -> Iterator[AbstractContextManager[Hold]]:
        """Yields what nobody else may decide on meanwhile: the conditions, then the ids that must be of nothing yet."""
        for kind, query in sorted({_condition(e) for e in self.entries if e.if_none_exist or e.query}):
            yield alone(self.scope, kind, read_condition(kind, query))
        absent = {(_type_of(e), e.id) for e in self.entries if e.id is not None and _etag(e) == ABSENT}
        for kind, logical_id in sorted(absent):
            yield creating(self.scope, kind, logical_id)

    def _each(self, step: Callable[[Entry], None]) -> None:
        """Takes a step for every entry. Raises everything that is wrong with any of them."""
        first: BridgeError | None = None
        issues: list[Issue] = []
        unlisted = 0
        for entry in self.entries:
            try:
                step(entry)
            except BridgeError as e:
                first = first or e
                at = entry.path
                issues += [i if (i.path or "").startswith(at) else replace(i, path=at) for i in e.issues]
                unlisted += len(issues[MOST_ISSUES:])
                del issues[MOST_ISSUES:]
        if first is not None:
            _refuse(first, issues, unlisted)

    def _checked(self, entry: Entry) -> None:
        """Checks an entry by itself."""
        _etag(entry)
        if condition := entry.if_none_exist or entry.query:
            read_condition(_type_of(entry), condition)
        if entry.method == "PATCH":
            _patch(self.scope, entry)
        elif entry.method != "DELETE":
            waits_as_text = isinstance(entry.resource, wire.Packed)
            self.incoming[entry.index] = one = _incoming(self.scope, entry)
            if waits_as_text:
                one.pack()
        else:
            _type_of(entry)

    def _look_up(self) -> None:
        """Reads what the entries name by server id, all of a type in one call."""
        wanted: dict[str, list[str]] = {}
        for entry in self.entries:
            if entry.id is not None:
                wanted.setdefault(_type_of(entry), []).append(entry.id)
        for kind, ids in wanted.items():
            records = home_of(kind).read_all(self.scope, kind, ids)
            self.records |= {record.location: record for record in records}

    def _settled(self, entry: Entry) -> None:
        """Decides what an entry writes, or answers it."""
        kind, gone = _type_of(entry), {r.record.location for r in self.removals.values()}
        if entry.method == "POST":
            self._create(entry, kind, gone)
            return
        if entry.id is not None:
            record = self.records.get(f"{kind}/{entry.id}") or find(self.scope, kind, entry.id)
        else:
            record = match(self.scope, kind, read_condition(kind, entry.query or ""), gone)
        check_match(record, _etag(entry))
        for target in self._targets(entry, record):
            if target in self.touched:
                raise Invalid("An earlier entry changes the same resource.")
            self.touched.add(target)
        if entry.method == "DELETE":
            self._delete(entry, record)
        elif entry.method == "PUT":
            self._update(entry, record)
        else:
            if record is None or record.deleted:
                raise Gone() if record else NotFound()
            self.incoming[entry.index] = patched(
                self.scope, record, _patch(self.scope, entry), f"{entry.path}.resource"
            )

    def _targets(self, entry: Entry, record: Record | None) -> Iterator[object]:
        """Yields by what another entry would change the same: what is there, else what an update creates."""
        if record is not None:
            yield record.location
        elif entry.method == "PUT":
            if sent := self.incoming[entry.index].sent_id:
                yield f"{entry.resource_type}/{sent}"
            if entry.query:
                yield _condition(entry)

    def _create(self, entry: Entry, kind: str, gone: set[str]) -> None:
        if entry.if_none_exist is None:
            return
        name = _condition(entry)
        first = self.same.setdefault(name, entry.index)
        if first == entry.index:
            record = match(self.scope, kind, read_condition(kind, entry.if_none_exist), gone)
            if record is None:
                self.touched.add(name)
                return
            self.met[name] = record
        one = self.incoming.pop(entry.index)
        if record := self.met.get(name):
            self.settled[entry.index] = Answer.of(self.scope, record)
            if one.full_url:
                self.there[one.full_url] = record
        elif one.full_url:
            self.incoming[first].also.append(one.full_url)

    def _update(self, entry: Entry, record: Record | None) -> None:
        one = self.incoming[entry.index]
        sent = one.sent_id
        if record is not None:
            one.over, one.id = record, record.id
        elif sent is not None:
            one.id = sent

    def _delete(self, entry: Entry, record: Record | None) -> None:
        if record is not None and not record.deleted:
            self.removals[entry.index] = Removal(record, entry.path)
        else:
            self.settled[entry.index] = Answer(204)


def _refuse(first: BridgeError, issues: list[Issue], unlisted: int) -> NoReturn:
    if unlisted:
        issues.append(Issue("too-long", f"{unlisted} more problems are not listed.", "Bundle"))
    raise type(first)(issues=issues, headers=first.headers)


def _type_of(entry: Entry) -> str:
    supported(entry.resource_type or "")
    return entry.resource_type or ""


def _condition(entry: Entry) -> tuple[str, str]:
    """Returns the condition of an entry, the same for all that mean the same."""
    kind = _type_of(entry)
    return kind, canonical(kind, entry.if_none_exist or entry.query or "")


def _etag(entry: Entry) -> str | None:
    """Returns the ETag that an entry wants to meet, `ABSENT` where it wants to meet none. Raises `Invalid`."""
    if entry.method == "PUT" and entry.if_none_match is not None:
        if entry.if_none_match.strip() != "*" or entry.if_match is not None:
            text = "An update takes ifNoneMatch: *, or ifMatch."
            raise Invalid(text, f"{entry.path}.request.ifNoneMatch")
        return ABSENT
    if entry.if_match is None:
        return None
    etag = ETAG.fullmatch(entry.if_match.strip())
    if etag is None:
        raise Invalid('ifMatch must be one ETag: W/"<versionId>".', f"{entry.path}.request.ifMatch")
    return f'W/"{etag[1]}"'


def _incoming(scope: Scope, entry: Entry) -> Incoming:
    kind, path = _type_of(entry), f"{entry.path}.resource"
    strict = scope.config.validation == "strict"
    checked, warnings = wire.check(wire.unpacked(entry.resource), expected_type=kind, at=path, strict=strict)
    entry.resource = {}
    return Incoming(checked, path, entry.full_url, warnings=[*entry.warnings, *warnings])


def _patch(scope: Scope, entry: Entry) -> Patch:
    """Returns the patch of an entry: FHIRPath Patch as Parameters, JSON Patch as a Binary."""
    _type_of(entry)
    resource, most = wire.unpacked(entry.resource), scope.config.max_body_bytes
    if resource.get("resourceType") == "Binary" and resource.get("contentType") == JSON_PATCH:
        try:
            return read_patch(b64decode(str(resource.get("data", "")), validate=True), JSON_PATCH, most)
        except ValueError as e:
            raise Invalid("This is not base64.", f"{entry.path}.resource.data") from e
    return read_patch(wire.dump(resource), "", most)


def _read(scope: Scope, entry: Entry) -> Answer:
    """Answers a GET or HEAD entry: a read, a vread, a history, a search or an operation."""
    path, _, query = entry.url.partition("?")
    arguments = parse_qsl(query, keep_blank_values=True)
    kind, *rest = path.split("/")
    supported(kind)
    match rest:
        case [] | [""]:
            return Answer(200, search.search(scope, kind, arguments))
        case ["$lastn"] if kind == "Observation":
            return Answer(200, operations.last_n(scope, arguments))
        case [logical_id]:
            return _unless_known(entry, interactions.read(scope, kind, logical_id))
        case [logical_id, "$everything"] if kind == "Patient":
            return Answer(200, operations.everything(scope, logical_id, arguments))
        case [logical_id, "_history"]:
            versions = interactions.history(scope, kind, logical_id)
            return Answer(200, history(scope.base, versions, f"{kind}/{logical_id}", arguments))
        case [logical_id, "_history", version]:
            return _unless_known(entry, interactions.vread(scope, kind, logical_id, version))
    raise NotFound("There is no such route.")


def _unless_known(entry: Entry, answer: Answer) -> Answer:
    """Returns the answer of a read, or 304 when the caller has this version already.

    https://hl7.org/fhir/R4/http.html#cread
    """
    if entry.if_none_match is not None:
        known = entry.if_none_match.strip() == "*" or answer.version in ETAG.findall(entry.if_none_match)
    else:
        since, modified = moment(entry.if_modified_since, UTC), (answer.modified or 0) // 1000
        known = since is not None and answer.modified is not None and modified * 1_000_000 <= since.low
    return Answer(304, version=answer.version, modified=answer.modified) if known else answer


def _answered(
    scope: Scope, entry: Entry, answer: Answer | BridgeError, *, representation: bool
) -> dict[str, Any]:
    """Returns an entry of the answer."""
    if isinstance(answer, BridgeError):
        status, issues, _ = explain(answer)
        issues = [i if (i.path or "").startswith("Bundle.") else replace(i, path=entry.path) for i in issues]
        return {"response": {"status": _status(status), "outcome": outcome(issues)}}
    response: dict[str, Any] = {"status": _status(answer.status)}
    if answer.location is not None and entry.method not in READING:
        response["location"] = f"{scope.base}/{answer.location}/_history/{answer.version}"
    if answer.version is not None:
        response["etag"] = f'W/"{answer.version}"'
    if answer.modified is not None:
        response["lastModified"] = instant(answer.modified)
    if answer.warnings:
        response["outcome"] = outcome(answer.warnings)
    shown = entry.method == "GET" or (representation and entry.method not in ("HEAD", "DELETE"))
    resource = {"resource": answer.resource} if shown and answer.resource is not None else {}
    return {**resource, "response": response}


def _status(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"


def history(
    base: str, records: Sequence[Record], location: str, asked: Iterable[tuple[str, str]] = ()
) -> Resource:
    """Returns the history of a resource: of `_since` and later, `_count` at once.

    Raises `Invalid` for what neither can be. https://hl7.org/fhir/R4/http.html#history
    """
    said = {name: value for name, value in asked if name in ("_since", "_count", "_offset")}
    if "_since" in said:
        span = moment(said["_since"], UTC)
        if span is None:
            raise Invalid("_since must be an instant, e.g. 2026-11-21T12:00:00Z.")
        records = [r for r in records if r.modified is None or r.modified * 1000 >= span.low]
    for name in said.keys() - {"_since"}:
        if not re.fullmatch("[0-9]{1,9}", said[name]):
            raise Invalid(f"{name} must be a whole number.")
    first = int(said.get("_offset", 0))
    after = first + int(said.get("_count", len(records)))
    links = {"self": said} | (
        {"next": {**said, "_offset": str(after)}} if first < after < len(records) else {}
    )
    return {
        "resourceType": "Bundle",
        "type": "history",
        "total": len(records),
        "link": [
            {"relation": relation, "url": f"{base}/{location}/_history{'?' * bool(query)}{urlencode(query)}"}
            for relation, query in links.items()
        ],
        "entry": _versions(base, records[first:after]),
    }


def _versions(base: str, records: Iterable[Record]) -> list[Resource]:
    entries = []
    for record in records:
        entry: Resource = {"fullUrl": f"{base}/{record.location}"}
        if record.deleted:
            method, status = "DELETE", "204 No Content"
        else:
            entry["resource"] = record.resource
            method, status = "PUT", "200 OK"
        response = {"status": status, "etag": record.etag}
        if record.modified is not None:
            response["lastModified"] = instant(record.modified)
        entry |= {"request": {"method": method, "url": record.location}, "response": response}
        entries.append(entry)
    return entries
