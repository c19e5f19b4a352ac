"""What the server's answers say of the parts of the input."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from bridge.errors import Issue
from bridge.importing.remote import UNREACHED, Answer
from bridge.importing.spool import Stored

_LOCATION = re.compile(r"([A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64})(?:/_history/[^/]*)?$")
_ENTRY = re.compile(r"Bundle\.entry\[(\d+)\](\.resource)?")


def place(file: str, line: int | None = None, entry: int | None = None) -> dict[str, Any]:
    """Returns where in the input something stands."""
    name = os.fsencode(file).decode(errors="backslashreplace")
    told = {"file": name, "line": line, "entry": entry}
    return {name: value for name, value in told.items() if value is not None}


def by_entry(
    answer: Answer, parts: Sequence[tuple[Stored, int]]
) -> tuple[dict[int, list[dict[str, Any]]], list[dict[str, Any]]]:
    """Returns the issues of a refusal by the entry that they are about, and those about none."""
    own: dict[int, list[dict[str, Any]]] = {}
    general = []
    for issue in answer.issues:
        match = _ENTRY.match(next(iter(issue.get("expression") or []), ""))
        if match and int(match[1]) < len(parts) and issue.get("severity") in ("error", "fatal"):
            at = int(match[1])
            own.setdefault(at, []).append(at_home(issue, parts[at][0], at))
        else:
            general.append(issue)
    if not answer.issues:
        general = [Issue("exception", answer.words).to_fhir()]
    return own, general


def at_home(issue: dict[str, Any], unit: Stored, at: int) -> dict[str, Any]:
    """Returns an issue with its elements named as in the input."""

    def home(match: re.Match[str]) -> str:
        if unit.bundle:
            return f"Bundle.entry[{unit.parts[at].entry}]{match[2] or ''}"
        return unit.parts[0].resource_type

    expression = [_ENTRY.sub(home, path) for path in issue.get("expression") or []]
    return {**issue, **({"expression": expression} if expression else {})}


def location(response: dict[str, Any]) -> str | None:
    """Returns the `Type/id` that an entry of an answer was given."""
    match = _LOCATION.search(str(response.get("location") or ""))
    return match[1] if match else None


def status(answer: Answer) -> str:
    """Returns the status of an answer in words."""
    return "no answer" if answer.status == UNREACHED else str(answer.status)
