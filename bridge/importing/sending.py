"""Reading the input into the spool, and sending what is in it."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections import deque
from collections.abc import Container, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from bridge.errors import BridgeError, Issue, outcome
from bridge.importing.contents import Skipped, contents, with_references
from bridge.importing.ledger import Ledger
from bridge.importing.progress import Progress
from bridge.importing.reading import Document, Source, documents
from bridge.importing.remote import UNREACHED, Answer, Remote
from bridge.importing.report import BEFORE, FAILED, IMPORTED, SKIPPED, UNSENT, Report
from bridge.importing.spool import DONE, Spool, Stored, Target, address_hash
from bridge.importing.spool import FAILED as NOT_DONE

UNREADABLE = "(unreadable)"
REFUSED = frozenset({400, 404, 410, 412, 413, 415, 422})
"""Answers that say that nothing was written."""
_LOCATION = re.compile(r"([A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64})(?:/_history/[^/]*)?$")
_ENTRY = re.compile(r"Bundle\.entry\[(\d+)\](\.resource)?")
_WITH_OTHERS = Issue("incomplete", "Not imported: another resource of its transaction was refused.")
_FAILED_TARGET = Issue("not-found", "Not sent: it refers to something in the input that was not imported.")
_CIRCLE = Issue(
    "too-long",
    "Not sent: it is in a circle of references that is too large for one transaction; raise --batch.",
)
_TORN = Issue(
    "conflict",
    "Not sent: an earlier run sent it together with resources that are no longer in the input, and had no answer. "
    "Put them back, or begin with another state file.",
)


def spool_up(
    files: Sequence[Source], spool: Spool, supported: Container[str], report: Report, progress: Progress
) -> None:
    """Reads the whole input into the spool; what cannot be read is reported."""
    before = 0
    with progress.reading(sum(file.size for file in files)):
        for number, file in enumerate(files):
            try:
                for document in documents(file):
                    _spool_up(document, number, file, spool, supported, report)
                    progress.reached(before + document.read)
            except BridgeError as e:
                _unreadable(report, {"file": file.name}, e)
            before += file.size


def _spool_up(
    document: Document, number: int, file: Source, spool: Spool, supported: Container[str], report: Report
) -> None:
    try:
        if document.problem:
            raise BridgeError(document.problem)
        found = list(contents(document.text, supported))
    except BridgeError as e:
        _unreadable(report, _place(file.name, document.line), e)
        return
    for one in found:
        if isinstance(one, Skipped):
            spool.skip(one)
            report.count(one.part.resource_type, SKIPPED)
            continue
        failed = spool.add(one, number, document.line)
        for at, part in enumerate(one.parts if failed is not None else ()):
            report.count(part.resource_type, FAILED if at in (failed or ()) else BEFORE)
        for at in failed or ():
            told = outcome([Issue("incomplete", "Failed in an earlier run; its report says why.")])
            report.tell(_place(file.name, document.line, one.parts[at].entry), "before", told)


def _unreadable(report: Report, place: dict[str, Any], error: BridgeError) -> None:
    report.count(UNREADABLE, FAILED)
    report.tell(place, "not sent", outcome(error.issues))


def _place(file: str, line: int | None = None, entry: int | None = None) -> dict[str, Any]:
    told = {"file": file, "line": line, "entry": entry}
    return {name: value for name, value in told.items() if value is not None}


@dataclass(frozen=True, slots=True)
class _Request:
    """A Bundle on its way."""

    key: str
    body: bytes = field(repr=False)
    units: list[Stored]


def send(
    spool: Spool,
    remote: Remote,
    files: Sequence[Source],
    report: Report,
    progress: Progress,
    *,
    jobs: int,
    ledger: Ledger | None = None,
) -> str:
    """Sends all that is open in the spool. Returns why it was left before the end, if it was."""
    sending = _Sending(spool, remote, files, report, progress, jobs, ledger)
    with progress.sending(spool.open_parts()), ThreadPoolExecutor(jobs) as pool:
        for batches in spool.batches():
            sending.side_by_side(pool, batches)
    for kind, many in spool.unsent():
        report.count(kind, UNSENT, many)
    return sending.stopped


@dataclass
class _Sending:
    """An import on its way; all but the posting itself is done by one thread."""

    spool: Spool
    remote: Remote
    files: Sequence[Source]
    report: Report
    progress: Progress
    jobs: int
    ledger: Ledger | None
    stopped: str = ""

    def side_by_side(self, pool: ThreadPoolExecutor, batches: Iterable[int]) -> None:
        """Sends batches of which none refers to another."""
        todo = iter(batches)
        left: deque[list[Stored]] = deque()
        flying: dict[Future[Answer], _Request] = {}
        try:
            while not self.stopped:
                while len(flying) <= self.jobs and not self.stopped:
                    units = left.popleft() if left else self._units(todo)
                    if units is None:
                        break
                    if request := self._request(units):
                        flying[pool.submit(self.remote.post, request.body, request.key)] = request
                if not flying:
                    return
                self._land(flying, left)
        except KeyboardInterrupt:
            self._stop("Interrupted.")
        while flying:
            self._land(flying, left)

    def _stop(self, why: str) -> None:
        self.stopped = self.stopped or why
        self.remote.stop()

    def _land(self, flying: dict[Future[Answer], _Request], left: deque[list[Stored]]) -> None:
        landed, _ = wait(flying, return_when=FIRST_COMPLETED)
        for future in landed:
            if rest := self._landed(flying.pop(future), future.result()):
                left.append(rest)

    def _units(self, todo: Iterable[int]) -> list[Stored] | None:
        """Returns what is to be sent next."""
        for batch in todo:
            units = self.spool.units(batch)
            key = self.spool.key(batch)
            if key and self.spool.missing(key):
                for unit in units:
                    self._fail(unit, "not sent", [_TORN])
            elif units:
                return units
        return None

    # one request

    def _request(self, units: list[Stored]) -> _Request | None:
        """Returns the Bundle of these without those that cannot be sent, noted as about to be sent."""
        targets = {unit.n: self.spool.targets(unit.n) for unit in units}
        while lost := [(unit, why) for unit in units if (why := _lost(targets[unit.n], units))]:
            for unit, why in lost:
                self._fail(unit, "not sent", [why])
            gone = {unit.n for unit, _ in lost}
            units = [unit for unit in units if unit.n not in gone]
            targets = {unit.n: self.spool.targets(unit.n) for unit in units}
        if not units:
            return None
        key = hashlib.sha256(b"".join(unit.name for unit in units)).hexdigest()
        if self.ledger:
            self.ledger.send(key, (unit.name for unit in units))
        return _Request(key, _body(units, targets), units)

    # one answer

    def _landed(self, request: _Request, answer: Answer) -> list[Stored]:
        """Notes what the server said; returns what may be sent without those that it refused."""
        parts = [(unit, at) for unit in request.units for at in range(len(unit.parts))]
        entries = answer.body.get("entry")
        if answer.status == 200 and isinstance(entries, list) and len(entries) == len(parts):
            self._acknowledged(request, [entry.get("response") or {} for entry in entries])
            return []
        own, general = _by_entry(answer, parts)
        if answer.status in REFUSED:
            if self.ledger:
                self.ledger.refused(request.key)
            loose = not request.units[0].bundle
            if loose and own and len(own) < len(request.units):
                for at, issues in own.items():
                    self._fail(request.units[at], str(answer.status), issues)
                return [unit for at, unit in enumerate(request.units) if at not in own]
        elif answer.status == UNREACHED:
            self._stop("The server cannot be reached any more.")
        elif answer.status == 401:
            self._stop("The server no longer accepts this login.")
        self._refused(request, _status(answer), own, general)
        return []

    def _acknowledged(self, request: _Request, responses: list[dict[str, Any]]) -> None:
        locations = [_location(response) for response in responses]
        failed = [
            at for at, response in enumerate(responses) if not str(response.get("status")).startswith("2")
        ]
        if self.ledger:
            self.ledger.done(request.key, locations, failed)
        at = 0
        for unit in request.units:
            self.spool.settle(unit.n, DONE, locations[at : at + len(unit.parts)])
            for part, response in zip(unit.parts, responses[at:], strict=False):
                wrong = at in failed
                self.report.count(part.resource_type, FAILED if wrong else IMPORTED)
                if isinstance(told := response.get("outcome"), dict):
                    issues = [_at_home(issue, unit, at) for issue in told.get("issue", [])]
                    place = self._place(unit, part.entry)
                    told = {**told, "issue": issues}
                    self.report.tell(place, str(response.get("status")), told, failed=wrong)
                at += 1
            self.progress.advance(len(unit.parts))

    def _refused(self, request: _Request, status: str, own: dict[int, list[Any]], general: list[Any]) -> None:
        if not request.units[0].bundle:
            for at, unit in enumerate(request.units):
                self._fail(unit, status, own.get(at, []) + general or [_WITH_OTHERS])
            return
        (unit,) = request.units
        for at, issues in own.items():
            told = {"resourceType": "OperationOutcome", "issue": issues}
            self.report.tell(self._place(unit, unit.parts[at].entry), status, told)
        if general or not own:
            self._fail(unit, status, general or [_WITH_OTHERS])
        else:
            self._settle_failed(unit)

    def _fail(self, unit: Stored, status: str, issues: Sequence[Issue | dict[str, Any]]) -> None:
        told = [issue.to_fhir() if isinstance(issue, Issue) else issue for issue in issues]
        entry = None if unit.bundle else unit.parts[0].entry
        self.report.tell(
            self._place(unit, entry), status, {"resourceType": "OperationOutcome", "issue": told}
        )
        self._settle_failed(unit)

    def _settle_failed(self, unit: Stored) -> None:
        self.spool.settle(unit.n, NOT_DONE)
        for part in unit.parts:
            self.report.count(part.resource_type, FAILED)
        self.progress.advance(len(unit.parts))

    def _place(self, unit: Stored, entry: int | None) -> dict[str, Any]:
        return _place(self.files[unit.source].name, unit.line, entry)


def _lost(targets: dict[bytes, Target], units: list[Stored]) -> Issue | None:
    """Returns why a unit cannot be sent beside these, if it cannot."""
    beside = {unit.n for unit in units}
    for target in targets.values():
        if target.n not in beside and target.location is None:
            return _CIRCLE if target.state == "open" else _FAILED_TARGET
    return None


def _body(units: list[Stored], targets: dict[int, dict[bytes, Target]]) -> bytes:
    """Returns the Bundle as it is sent: one as it came, or a transaction of loose resources."""
    urls = {unit.n: f"urn:uuid:{uuid.UUID(bytes=unit.name, version=5)}" for unit in units}

    def rewritten(unit: Stored) -> bytes:
        own = targets[unit.n]

        def become(said: str) -> str | None:
            target = own.get(address_hash(said))
            return None if target is None else target.location or urls[target.n or 0]

        return with_references(unit.text, become) if own else unit.text

    if units[0].bundle:
        return rewritten(units[0])
    entries = (
        b'{"fullUrl":"%b","resource":%b,"request":{"method":"POST","url":"%b"}}'
        % (urls[unit.n].encode(), rewritten(unit), unit.parts[0].resource_type.encode())
        for unit in units
    )
    return b'{"resourceType":"Bundle","type":"transaction","entry":[' + b",".join(entries) + b"]}"


def _by_entry(
    answer: Answer, parts: list[tuple[Stored, int]]
) -> tuple[dict[int, list[dict[str, Any]]], list[dict[str, Any]]]:
    """Returns the issues of a refusal by the entry that they are about, and those about none."""
    own: dict[int, list[dict[str, Any]]] = {}
    general = []
    for issue in answer.issues:
        match = _ENTRY.match(next(iter(issue.get("expression") or []), ""))
        if match and int(match[1]) < len(parts) and issue.get("severity") in ("error", "fatal"):
            at = int(match[1])
            own.setdefault(at, []).append(_at_home(issue, parts[at][0], at))
        else:
            general.append(issue)
    if not answer.issues:
        general = [Issue("exception", answer.words).to_fhir()]
    return own, general


def _at_home(issue: dict[str, Any], unit: Stored, at: int) -> dict[str, Any]:
    """Returns an issue with its elements named as in the input."""

    def home(match: re.Match[str]) -> str:
        if unit.bundle:
            return f"Bundle.entry[{unit.parts[at].entry}]{match[2] or ''}"
        return unit.parts[0].resource_type

    expression = [_ENTRY.sub(home, path) for path in issue.get("expression") or []]
    return {**issue, **({"expression": expression} if expression else {})}


def _location(response: dict[str, Any]) -> str | None:
    match = _LOCATION.search(str(response.get("location") or ""))
    return match[1] if match else None


def _status(answer: Answer) -> str:
    return "no answer" if answer.status == UNREACHED else str(answer.status)
