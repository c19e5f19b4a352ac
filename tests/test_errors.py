"""Each error knows its status and its FHIR issue type, and none tells more than it should."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from bridge import errors, logs
from bridge.app import create_app
from bridge.config import Config
from bridge.errors import BridgeError, Issue, explain, outcome, warning
from mappings.engine import MappingError
from tests.helpers import FHIR, Caller

ISSUE_TYPES = {
    *("invalid", "structure", "required", "value", "invariant"),
    *("security", "login", "unknown", "expired", "forbidden", "suppressed"),
    *("processing", "not-supported", "duplicate", "multiple-matches", "not-found", "deleted", "too-long"),
    *("code-invalid", "extension", "too-costly", "business-rule", "conflict"),
    *("transient", "lock-error", "no-store", "exception", "timeout", "incomplete", "throttled"),
    "informational",
}
"""https://hl7.org/fhir/R4/valueset-issue-type.html"""
SEVERITIES = {"fatal", "error", "warning", "information"}


def kinds(of: type[BridgeError] = BridgeError) -> list[type[BridgeError]]:
    """Every error class there is, in whatever module, when the whole application is loaded."""
    return [of, *(inner for kind in of.__subclasses__() for inner in kinds(kind))]


EVERY = pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)

STATUSES = {
    "BridgeError": (500, "exception"),
    "BusinessRule": (422, "business-rule"),
    "Conflict": (409, "conflict"),
    "Duplicate": (409, "duplicate"),
    "Forbidden": (403, "forbidden"),
    "Gone": (410, "deleted"),
    "Invalid": (400, "invalid"),
    "KeyMissing": (403, "security"),
    "KeyReused": (422, "business-rule"),
    "MailFailed": (502, "transient"),
    "MailTimeout": (504, "timeout"),
    "MethodNotAllowed": (405, "not-supported"),
    "MultipleMatches": (412, "multiple-matches"),
    "NotAcceptable": (406, "not-supported"),
    "NotConfigured": (501, "not-supported"),
    "NotFound": (404, "not-found"),
    "NotLoggedIn": (401, "login"),
    "NotSupported": (404, "not-supported"),
    "PreconditionFailed": (412, "conflict"),
    "StateUnavailable": (503, "transient"),
    "Overloaded": (503, "transient"),
    "Interrupted": (503, "incomplete"),
    "Throttled": (429, "throttled"),
    "TooCostly": (422, "too-costly"),
    "TooLarge": (413, "too-long"),
    "Unprocessable": (422, "processing"),
    "UnsupportedMediaType": (415, "not-supported"),
    "UpstreamFailed": (502, "transient"),
    "UpstreamTimeout": (504, "timeout"),
}


def test_every_error_says_what_clients_rely_on() -> None:
    said = {kind.__name__: (kind.status, kind.code) for kind in kinds() if kind.__module__ == errors.__name__}
    assert said == STATUSES


@EVERY
def test_every_error_has_a_status_and_an_issue_type_of_fhir(kind: type[BridgeError]) -> None:
    assert kind.code in ISSUE_TYPES
    assert 400 <= kind.status < 600
    assert (kind.__doc__ or "").strip()


@pytest.mark.parametrize("kind", [getattr(errors, name) for name in STATUSES], ids=STATUSES)
def test_an_error_without_a_word_says_its_docstring(kind: type[BridgeError]) -> None:
    status, issues, headers = explain(kind())
    assert (status, headers) == (kind.status, {})
    assert issues == [Issue(kind.code, (kind.__doc__ or "").strip())]


@pytest.mark.parametrize("kind", [getattr(errors, name) for name in STATUSES], ids=STATUSES)
def test_an_error_tells_its_words_its_path_and_its_headers(kind: type[BridgeError]) -> None:
    more = Issue("required", "Is required.", "Patient.link[0].other")
    status, issues, headers = explain(kind("Words.", "Patient.name", issues=[more], headers={"A": "b"}))
    assert status == kind.status
    assert issues == [Issue(kind.code, "Words.", "Patient.name"), more]
    assert headers == {"A": "b"}


def test_a_mapping_error_names_its_element() -> None:
    status, issues, _ = explain(MappingError("Has no counterpart.", "Observation.value"))
    assert status == 422
    assert [(issue.code, issue.path) for issue in issues] == [("invalid", "Observation.value")]


FOREIGN = [
    ValueError("zanzibar"),
    KeyError("zanzibar"),
    UnicodeDecodeError("utf-8", b"zanzibar", 0, 1, "zanzibar"),
    OSError(5, "zanzibar", "/zanzibar"),
    RecursionError("zanzibar"),
    MemoryError("zanzibar"),
    AssertionError("zanzibar"),
    KeyboardInterrupt("zanzibar"),
]


@pytest.mark.parametrize("error", FOREIGN, ids=lambda error: type(error).__name__)
def test_a_foreign_error_tells_nothing_of_itself(error: BaseException) -> None:
    status, issues, headers = explain(error)
    assert (status, headers) == (500, {})
    assert "zanzibar" not in repr(issues)
    assert [issue.code for issue in issues] == ["exception"]


def test_an_outcome_is_what_fhir_says_it_is() -> None:
    issues = [Issue("value", "Wrong.", "Patient.birthDate"), warning("duplicate", "Twice.")]
    assert outcome(issues) == {
        "resourceType": "OperationOutcome",
        "issue": [
            {
                "severity": "error",
                "code": "value",
                "diagnostics": "Wrong.",
                "expression": ["Patient.birthDate"],
            },
            {"severity": "warning", "code": "duplicate", "diagnostics": "Twice."},
        ],
    }


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (None, "Bundle.entry[3].resource"),
        ("Patient", "Bundle.entry[3].resource"),
        ("Patient.name[0].family", "Bundle.entry[3].resource.name[0].family"),
    ],
)
def test_an_issue_can_be_told_of_an_entry(path: str | None, expected: str) -> None:
    assert Issue("value", "Wrong.", path).at("Bundle.entry[3].resource").path == expected


def test_every_issue_in_the_code_has_an_issue_type_of_fhir() -> None:
    """Read off the source: what is written as the code of an `Issue`, a `warning` or a `Flaw`."""
    root = Path(errors.__file__).parent
    files = [file for file in root.rglob("*.py") if "embedded" not in file.parts]
    written = {
        (file.name, code)
        for file in files
        for code in re.findall(r'\b(?:Issue|warning|Flaw)\(\s*"([^"]*)"', file.read_text())
    }
    assert len(written) > 20
    assert {(file, code) for file, code in written if code not in ISSUE_TYPES} == set()
    severities = {s for file in files for s in re.findall(r'severity="([^"]*)"', file.read_text())}
    assert severities <= SEVERITIES


@pytest.fixture
def in_production(config: Config, accounts: dict[str, dict[str, str]]) -> Caller:
    """A caller of an application that is not under test: what is unexpected becomes an answer."""
    app = create_app(config)

    @app.get(f"{FHIR}/broken")
    def broken() -> Any:
        raise ValueError("zanzibar")

    return Caller(app, accounts["esmith"])


def test_an_unexpected_error_is_answered_in_words_and_logged_by_its_type(
    in_production: Caller, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs.logger, "propagate", True)
    with caplog.at_level(logging.INFO, logger="bridge"):
        response = in_production.get("broken")
    assert response.status_code == 500
    assert response.json["resourceType"] == "OperationOutcome"
    assert response.json["issue"][0]["code"] == "exception"
    assert response.headers["X-Request-Id"]
    said = [record.getMessage() for record in caplog.records]
    assert any('"type":"ValueError"' in line and "test_errors.py" in line for line in said)
    assert "zanzibar" not in response.text + "".join(said)


def test_under_test_an_unexpected_error_is_raised(
    config: Config, accounts: dict[str, dict[str, str]]
) -> None:
    app = create_app(config)
    app.testing = True

    @app.get("/broken")
    def broken() -> Any:
        raise ValueError("zanzibar")

    with pytest.raises(ValueError, match="zanzibar"):
        Caller(app, accounts["esmith"]).get("/broken")
