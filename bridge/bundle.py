"""A transaction Bundle: all of its entries, or none.

Facts: https://hl7.org/fhir/R4/http.html#transaction. Atomic, not isolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bridge import interactions, wire
from bridge.errors import BridgeError, Invalid, Issue, explain, outcome
from bridge.homes import Record, instant
from bridge.interactions import Answer
from bridge.plan import Incoming
from bridge.scope import Scope
from mappings import REGISTRY
from mappings.values import Resource


def transaction(scope: Scope, bundle: Resource) -> Resource:
    """Answers a transaction with a transaction-response.

    Raises one error with everything that is wrong in any entry; then nothing was written.
    """
    strict = scope.config.validation == "strict"
    entries, warnings = wire.check_bundle_envelope(
        bundle, strict=strict, max_entries=scope.config.max_bundle_entries
    )
    scope.warnings += warnings
    incoming: list[Incoming] = []
    wrong: list[Issue] = []
    status = 0
    for entry in entries:
        try:
            incoming.append(_incoming(entry, strict=strict))
        except BridgeError as e:
            entry_status, issues, _ = explain(e)
            status = max(status, entry_status) if status else entry_status
            wrong += issues
    if wrong:
        raise _Refused(status, wrong)
    answers, _ = interactions.transact(scope, incoming)
    return {
        "resourceType": "Bundle",
        "type": "transaction-response",
        "entry": [{"response": _response(scope, answer)} for answer in answers],
    }


def history(base: str, records: Sequence[Record]) -> Resource:
    """Returns the history of a resource. https://hl7.org/fhir/R4/bundle.html#history"""
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
    return {"resourceType": "Bundle", "type": "history", "total": len(entries), "entry": entries}


class _Refused(Invalid):
    """Entries of the Bundle cannot be taken."""

    def __init__(self, status: int, issues: list[Issue]) -> None:
        super().__init__(issues=issues)
        self.status = status  # type: ignore[misc]


def _incoming(entry: wire.Entry, *, strict: bool) -> Incoming:
    path = f"Bundle.entry[{entry.index}]"
    if entry.method != "POST":
        issue = Issue("not-supported", "Only POST entries are served.", f"{path}.request.method")
        raise Invalid(issues=[issue])
    if entry.if_none_exist is not None:
        text = "Conditional create is not served yet."
        raise Invalid(issues=[Issue("not-supported", text, f"{path}.request.ifNoneExist")])
    resource_type = entry.resource.get("resourceType")
    if resource_type not in REGISTRY:
        text = f"This server has {', '.join(REGISTRY)}; no other resource types."
        raise Invalid(issues=[Issue("not-supported", text, f"{path}.resource")])
    checked, warnings = wire.check(entry.resource, at=f"{path}.resource", strict=strict)
    return Incoming(checked, f"{path}.resource", entry.full_url, warnings=[*entry.warnings, *warnings])


def _response(scope: Scope, answer: Answer) -> dict[str, Any]:
    response: dict[str, Any] = {
        "status": "201 Created",
        "location": f"{scope.base}/{answer.location}/_history/{answer.version}",
        "etag": f'W/"{answer.version}"',
    }
    if answer.modified is not None:
        response["lastModified"] = instant(answer.modified)
    if answer.warnings:
        response["outcome"] = outcome(answer.warnings)
    return response
