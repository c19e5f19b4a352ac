"""Small resources with working defaults, and what the wire says of a document."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bridge import wire
from bridge.errors import BridgeError, Issue

DATA = Path(__file__).parent.parent / "data" / "wire"
OWN = sorted(DATA.glob("*.json"))
CORPUS = Path(os.environ.get("BRIDGE_CORPUS", Path(__file__).parents[3] / "shared" / "fhir" / "examples"))


def corpus(pattern: str) -> list[Any]:
    """Returns the files of the corpus as parameters; one that is skipped with a message when there are none."""
    files = sorted(CORPUS.glob(pattern))
    if files:
        return [pytest.param(path, id=path.stem) for path in files]
    return [pytest.param(None, marks=pytest.mark.skip(f"no {pattern} under BRIDGE_CORPUS"))]


def patient(**elements: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", **elements}


def observation(**elements: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "status": "final", "code": {"text": "Hb"}, **elements}


def extended(*extensions: dict[str, Any]) -> dict[str, Any]:
    return patient(extension=[{"url": "http://example.org/x", **extension} for extension in extensions])


def narrated(div: str) -> dict[str, Any]:
    return patient(text={"status": "generated", "div": div})


def xhtml(inner: str) -> str:
    return f'<div xmlns="http://www.w3.org/1999/xhtml">{inner}</div>'


def issues(error: BridgeError) -> list[tuple[str | None, str]]:
    return told(error.issues)


def told(list_of_issues: list[Issue]) -> list[tuple[str | None, str]]:
    return [(issue.path, issue.code) for issue in list_of_issues]


def refused(resource: Any, **options: Any) -> list[tuple[str | None, str]]:
    """Returns path and code of every problem that a resource is refused for."""
    with pytest.raises(BridgeError) as error:
        wire.check(resource, **options)
    assert error.value.status == 400
    assert all(issue.severity == "error" for issue in error.value.issues)
    return issues(error.value)
