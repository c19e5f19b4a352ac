"""Reading the whole input into the spool."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.errors import BridgeError, Invalid, Issue, outcome
from bridge.importing.answers import place
from bridge.importing.contents import Skipped, Unit, contents
from bridge.importing.progress import Progress
from bridge.importing.reading import Document, Source, documents
from bridge.importing.report import BEFORE, FAILED, SKIPPED, Report
from bridge.importing.spool import Spool

UNREADABLE = "(unreadable)"
_EARLIER = Issue("incomplete", "Failed in an earlier run; its report says why.")


@dataclass(frozen=True, slots=True)
class Spooling:
    """Reads files; what cannot be read is reported, what the server has no place for is counted as skipped."""

    spool: Spool
    supported: Container[str]
    report: Report
    progress: Progress

    def read(self, files: Sequence[Source]) -> None:
        """Reads all files."""
        before = 0
        with self.progress.reading(sum(file.size for file in files)):
            for number, file in enumerate(files):
                try:
                    for document in documents(file):
                        self._document(document, number, file)
                        self.progress.reached(before + document.read)
                except BridgeError as e:
                    self._unreadable(place(file.name), e)
                before += file.size

    def _document(self, document: Document, number: int, file: Source) -> None:
        try:
            if document.problem:
                raise Invalid(document.problem)
            found = list(contents(document.text, self.supported))
        except BridgeError as e:
            self._unreadable(place(file.name, document.line), e)
            return
        for one in found:
            if isinstance(one, Skipped):
                self.spool.skip(one)
                self.report.count(one.part.resource_type, SKIPPED)
            elif (failed := self.spool.add(one, number, document.line)) is not None:
                self._sent_before(one, failed, file, document.line)

    def _sent_before(self, unit: Unit, failed: Sequence[int], file: Source, line: int | None) -> None:
        for at, part in enumerate(unit.parts):
            self.report.count(part.resource_type, FAILED if at in failed else BEFORE)
            if at in failed:
                self.report.tell(place(file.name, line, part.entry), "failed before", outcome([_EARLIER]))

    def _unreadable(self, where: dict[str, Any], error: BridgeError) -> None:
        self.report.count(UNREADABLE, FAILED)
        self.report.tell(where, "not sent", outcome(error.issues))
