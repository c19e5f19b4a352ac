"""Sending what is in the spool, and noting what the server says."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from bridge.errors import Issue
from bridge.importing import answers
from bridge.importing.ledger import Ledger
from bridge.importing.progress import Progress
from bridge.importing.reading import Source
from bridge.importing.remote import UNREACHED, Answer, Remote
from bridge.importing.report import FAILED, IMPORTED, UNSENT, Report
from bridge.importing.request import Request, why_not
from bridge.importing.spool import DONE, Spool, Stored
from bridge.importing.spool import FAILED as NOT_DONE

REFUSED = frozenset({400, 404, 410, 412, 413, 415, 422})
"""Answers that say that nothing was written."""
_WITH_OTHERS = Issue("incomplete", "Not imported: another resource of its transaction was refused.")
_TORN = Issue(
    "conflict",
    "Not sent: an earlier run sent it together with resources that are no longer in the input, and had no answer. "
    "Put them back, or begin with another state file.",
)


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
    open_parts = spool.open_parts()
    with (
        _interruptible(sending.stop, progress),
        progress.sending(open_parts),
        ThreadPoolExecutor(jobs) as pool,
    ):
        for batches in spool.batches():
            sending.side_by_side(pool, batches)
    for kind, many in spool.unsent():
        report.count(kind, UNSENT, many)
    return sending.stopped


@contextmanager
def _interruptible(stop: Callable[[str], None], progress: Progress) -> Iterator[None]:
    """Calls `stop` when the user interrupts, in place of breaking off in the middle of a step; again breaks off.

    Fact: Python waits at its end for every thread, and so for answers that may be long in coming.
    """

    def interrupted(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, again)
        stop("Interrupted.")

    def again(number: int, frame: FrameType | None) -> None:
        try:
            progress.console.show_cursor()
        finally:
            os._exit(128 + number)

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


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

    def side_by_side(self, pool: ThreadPoolExecutor, batches: Sequence[int]) -> None:
        """Sends batches of which none refers to another."""
        todo = iter(batches)
        left: deque[list[Stored]] = deque()
        flying: dict[Future[Answer | None], Request] = {}
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
        while flying:
            self._land(flying, left)

    def stop(self, why: str) -> None:
        """Sends nothing more; what is on its way is waited for."""
        self.stopped = self.stopped or why
        self.remote.stop()

    def _land(self, flying: dict[Future[Answer | None], Request], left: deque[list[Stored]]) -> None:
        landed, _ = wait(flying, return_when=FIRST_COMPLETED)
        for future in landed:
            if rest := self._landed(flying.pop(future), future.result()):
                left.append(rest)

    def _units(self, todo: Iterator[int]) -> list[Stored] | None:
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

    def _request(self, units: list[Stored]) -> Request | None:
        """Returns the Bundle of these without those that cannot be sent, noted as about to be sent."""
        targets = {unit.n: self.spool.targets(unit.n) for unit in units}
        beside = set(targets)
        while lost := [(unit, why) for unit in units if (why := why_not(targets[unit.n], beside))]:
            for unit, why in lost:
                self._fail(unit, "not sent", [why])
                beside.remove(unit.n)
            units = [unit for unit in units if unit.n in beside]
            targets = {unit.n: self.spool.targets(unit.n) for unit in units}
        if not units:
            return None
        request = Request.of(units, targets)
        if self.ledger:
            self.ledger.send(request.key, (unit.name for unit in units))
        return request

    def _landed(self, request: Request, answer: Answer | None) -> list[Stored]:
        """Notes what the server said; returns what may be sent without those that it refused."""
        if answer is None:
            if self.ledger:
                self.ledger.refused(request.key)
            return []
        parts = [(unit, at) for unit in request.units for at in range(len(unit.parts))]
        entries = answer.body.get("entry")
        if answer.status == 200 and isinstance(entries, list) and len(entries) == len(parts):
            self._acknowledged(request, [entry.get("response") or {} for entry in entries])
            return []
        own, general = answers.by_entry(answer, parts)
        if answer.status in REFUSED:
            if self.ledger:
                self.ledger.refused(request.key)
            if request.loose and own and len(own) < len(request.units):
                for at, issues in own.items():
                    self._fail(request.units[at], str(answer.status), issues)
                return [unit for at, unit in enumerate(request.units) if at not in own]
        elif answer.status == UNREACHED:
            self.stop("The server cannot be reached any more.")
        elif answer.status == 401:
            self.stop("The server no longer accepts this login.")
        self._refused(request, answers.status(answer), own, general)
        return []

    def _acknowledged(self, request: Request, responses: list[dict[str, Any]]) -> None:
        locations = [answers.location(response) for response in responses]
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
                    issues = [answers.at_home(issue, unit, at) for issue in told.get("issue", [])]
                    place = self._place(unit, part.entry)
                    told = {**told, "issue": issues}
                    self.report.tell(place, str(response.get("status")), told, failed=wrong)
                at += 1
            self.progress.advance(len(unit.parts))

    def _refused(self, request: Request, status: str, own: dict[int, list[Any]], general: list[Any]) -> None:
        if request.loose:
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
        return answers.place(self.files[unit.source].name, unit.line, entry)
