"""What came of an import: counts for everybody, and a file with every OperationOutcome."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from bridge.importing.remote import CannotImport

IMPORTED, BEFORE, SKIPPED, FAILED, UNSENT = "imported", "imported before", "skipped", "failed", "not sent"
WORDS = (IMPORTED, BEFORE, SKIPPED, FAILED, UNSENT)
SHOWN = 20
"""Failures that are shown at the end."""


class Report:
    """The counts by resource type, the first failures, and the file if one is wanted.

    The file is written as the import goes, under a name of its own until it is whole.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.failures: list[str] = []
        self._path = path
        self._file: BinaryIO | None = None
        self._part = Path(f"{path}.part")
        self._begun = False
        if path is not None:
            try:
                self._file = self._part.open("wb")
                self._file.write(b'{"outcomes": [')
            except OSError as e:
                raise CannotImport(f"The report {path} cannot be written: {e.strerror}.") from e

    def count(self, resource_type: str, word: str, many: int = 1) -> None:
        """Counts resources by what became of them."""
        self.counts.setdefault(resource_type or "(untold)", Counter())[word] += many

    def total(self, word: str) -> int:
        """Returns how many this became of."""
        return sum(counted[word] for counted in self.counts.values())

    def tell(
        self, place: dict[str, Any], status: str, outcome: dict[str, Any], *, failed: bool = True
    ) -> None:
        """Keeps an OperationOutcome with the place in the input that it is about."""
        if failed and len(self.failures) < SHOWN:
            self.failures.append(f"{_words(place)}: {status}: {_first(outcome)}")
        if self._file is not None:
            line = orjson.dumps({**place, "status": status, "outcome": outcome})
            self._file.write((b",\n" if self._begun else b"\n") + line)
            self._begun = True

    def close(self, files: int) -> None:
        """Ends the file, which then has its name."""
        if self._file is not None:
            resources = {kind: dict(counted) for kind, counted in sorted(self.counts.items())}
            summary = orjson.dumps({"files": files, "resources": resources}, option=orjson.OPT_INDENT_2)
            self._file.write(b'\n],\n"summary": ' + summary + b"}\n")
            self._file.close()
            self._part.replace(Path(self._path or ""))


def _words(place: dict[str, Any]) -> str:
    line = f", line {place['line']}" if "line" in place else ""
    entry = f", entry {place['entry']}" if "entry" in place else ""
    return f"{place['file']}{line}{entry}"


def _first(outcome: dict[str, Any]) -> str:
    wrong = [i for i in outcome.get("issue", []) if i.get("severity") in ("error", "fatal")]
    issue: dict[str, Any] = next(iter(wrong or outcome.get("issue", [])), {})
    at = "".join(f" ({path})" for path in issue.get("expression", [])[:1])
    return f"{issue.get('diagnostics') or issue.get('code')}{at}"
