"""Every error knows its HTTP status and its FHIR issue type; one place turns any error into both.

Facts: OperationOutcome and its issue types, https://hl7.org/fhir/R4/operationoutcome.html and
https://hl7.org/fhir/R4/valueset-issue-type.html.

Rule: texts hold ids, element paths and parameter names, never element values, never key material.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from mappings.engine import MappingError


@dataclass(frozen=True, slots=True)
class Issue:
    """One `OperationOutcome.issue`: what is wrong and at which element."""

    code: str
    text: str
    path: str | None = None
    severity: str = "error"

    def to_fhir(self) -> dict[str, Any]:
        """Returns the issue as FHIR JSON."""
        issue: dict[str, Any] = {"severity": self.severity, "code": self.code, "diagnostics": self.text}
        if self.path is not None:
            issue["expression"] = [self.path]
        return issue

    def at(self, prefix: str) -> Issue:
        """Returns the same issue told of a resource that stands at `prefix`, e.g. `Bundle.entry[3].resource`."""
        if self.path is None:
            return replace(self, path=prefix)
        _, dot, rest = self.path.partition(".")
        return replace(self, path=f"{prefix}{dot}{rest}")


def warning(code: str, text: str, path: str | None = None) -> Issue:
    """Returns an issue that refuses nothing and tells what was accepted all the same."""
    return Issue(code, text, path, severity="warning")


class BridgeError(Exception):
    """Something the caller is told: `status` is HTTP's, `code` is FHIR's issue type."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "exception"

    def __init__(
        self,
        text: str = "",
        path: str | None = None,
        *,
        issues: Iterable[Issue] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        told = list(issues)
        if text or not told:
            told.insert(0, Issue(self.code, text or (self.__doc__ or "").strip(), path))
        self.issues: list[Issue] = told
        self.headers: dict[str, str] = dict(headers or {})
        super().__init__("; ".join(issue.text for issue in told))


class Invalid(BridgeError):
    """The request is not what FHIR or this server defines."""

    status, code = 400, "invalid"


class NotLoggedIn(BridgeError):
    """iCure did not accept the credentials."""

    status, code = 401, "login"


class Forbidden(BridgeError):
    """The caller may not do this."""

    status, code = 403, "forbidden"


class KeyMissing(BridgeError):
    """No key in the keychain opens this entity."""

    status, code = 403, "security"


class NotFound(BridgeError):
    """Nothing is known under this id."""

    status, code = 404, "not-found"


class NotSupported(BridgeError):
    """This server does not do that."""

    status, code = 404, "not-supported"


class MethodNotAllowed(BridgeError):
    """This route has no such method."""

    status, code = 405, "not-supported"


class NotAcceptable(BridgeError):
    """Only JSON is served."""

    status, code = 406, "not-supported"


class Conflict(BridgeError):
    """Someone else wrote this meanwhile."""

    status, code = 409, "conflict"


class Duplicate(BridgeError):
    """There is already an entity with this id."""

    status, code = 409, "duplicate"


class Gone(BridgeError):
    """It was deleted."""

    status, code = 410, "deleted"


class PreconditionFailed(BridgeError):
    """The condition of the request does not hold."""

    status, code = 412, "conflict"


class MultipleMatches(BridgeError):
    """More than one resource matches."""

    status, code = 412, "multiple-matches"


class TooLarge(BridgeError):
    """The body is larger than this server takes."""

    status, code = 413, "too-long"


class UnsupportedMediaType(BridgeError):
    """Only JSON is taken."""

    status, code = 415, "not-supported"


class Unprocessable(BridgeError):
    """The content is well formed and cannot be stored as it stands."""

    status, code = 422, "processing"


class BusinessRule(BridgeError):
    """iCure refuses this content."""

    status, code = 422, "business-rule"


class KeyReused(BusinessRule):
    """This Idempotency-Key was sent with another request."""


class TooCostly(BridgeError):
    """Nothing upstream narrows this search; say more."""

    status, code = 422, "too-costly"


class Throttled(BridgeError):
    """iCure asks to slow down."""

    status, code = 429, "throttled"


class NotConfigured(BridgeError):
    """Whoever runs this server has not set it up for that."""

    status, code = 501, "not-supported"


class MailFailed(BridgeError):
    """The message was not sent."""

    status, code = 502, "transient"


class UpstreamFailed(BridgeError):
    """iCure failed or answered what cannot be understood."""

    status, code = 502, "transient"


class StateUnavailable(BridgeError):
    """What the workers share cannot be reached."""

    status, code = 503, "transient"


class Interrupted(BridgeError):
    """The worker that did this ended before it was done."""

    status, code = 503, "incomplete"


class Overloaded(BridgeError):
    """There is no room for one more now."""

    status, code = 503, "transient"


class UpstreamTimeout(BridgeError):
    """iCure did not answer in time; the outcome of a write is not known."""

    status, code = 504, "timeout"


class MailTimeout(BridgeError):
    """The mail server did not answer in time; whether the message was sent is not known."""

    status, code = 504, "timeout"


def explain(error: BaseException) -> tuple[int, list[Issue], dict[str, str]]:
    """Returns HTTP status, issues and extra headers for any error; an unforeseen one tells nothing of itself."""
    if isinstance(error, BridgeError):
        return error.status, error.issues, error.headers
    if isinstance(error, MappingError):
        return Unprocessable.status, [Issue("invalid", error.text, error.path)], {}
    return 500, [Issue("exception", "The bridge failed on this request. It was logged by its type.")], {}


def outcome(issues: Iterable[Issue]) -> dict[str, Any]:
    """Returns an OperationOutcome. https://hl7.org/fhir/R4/operationoutcome.html"""
    return {"resourceType": "OperationOutcome", "issue": [issue.to_fhir() for issue in issues]}
