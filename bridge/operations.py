"""FHIR operations beyond the interactions: $validate, $everything, $lastn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from bridge import wire
from bridge.errors import BridgeError, Invalid, Issue, outcome, warning
from bridge.homes import Record
from bridge.interactions import locate
from bridge.scope import Scope
from bridge.search import CONTROLS, names, pages, parse
from mappings import REGISTRY
from mappings.values import Resource

WELL = Issue("informational", "No issues detected.", severity="information")
MODES = ("create", "update", "delete", "profile")


def validate(body: Resource, resource_type: str, logical_id: str | None, *, strict: bool) -> Resource:
    """Returns an OperationOutcome of what is wrong with a resource, sent alone or as `resource` in Parameters.

    https://hl7.org/fhir/R4/resource-operation-validate.html
    """
    resource, issues = _validated(body)
    if resource is None:
        return outcome(issues or [WELL])
    try:
        checked, warnings = wire.check(resource, expected_type=resource_type, strict=strict)
    except BridgeError as e:
        return outcome([*issues, *e.issues])
    issues += warnings
    if logical_id is not None and checked.get("id") != logical_id:
        issues.append(Issue("invalid", "The id is not that of the URL.", f"{resource_type}.id"))
    return outcome(issues or [WELL])


def _validated(body: Resource) -> tuple[Resource | None, list[Issue]]:
    """Returns the resource to be validated and what there is to say of the request."""
    if body.get("resourceType") != "Parameters":
        return body, []
    parameters = body.get("parameter")
    named = (
        {p.get("name"): p for p in parameters if isinstance(p, dict)} if isinstance(parameters, list) else {}
    )
    issues: list[Issue] = []
    mode = named.get("mode", {}).get("valueCode")
    if mode is not None and mode not in MODES:
        raise Invalid(f"mode is one of {', '.join(MODES)}.", "Parameters.parameter")
    if "profile" in named:
        issues.append(
            warning("not-supported", "Profiles are not checked; R4 itself is.", "Parameters.parameter")
        )
    resource = named.get("resource", {}).get("resource")
    if isinstance(resource, dict):
        return resource, issues
    if mode == "delete":
        return None, issues
    raise Invalid("Parameters need a resource.", "Parameters.parameter")


# $everything

EVERYTHING = ("_count", "_type", "_since", "_cursor", "_format", "_pretty")
EVERYTHING_COUNT = 200


@dataclass(frozen=True, slots=True)
class _Place:
    """How far a patient's compartment was told: which types, and where in which of them."""

    patient_id: str
    kinds: tuple[str, ...]
    since: str
    count: int
    at: int = 0
    places: tuple[str, ...] = ()


def everything(scope: Scope, logical_id: str, arguments: Sequence[tuple[str, str]]) -> Resource:
    """Returns a patient and all that belongs to it, page by page.

    https://hl7.org/fhir/R4/patient-operation-everything.html
    """
    given = dict(arguments)
    if unknown := sorted(given.keys() - set(EVERYTHING)):
        known = ", ".join(EVERYTHING[:3])
        raise Invalid(f"$everything takes {known}; it does not know {len(unknown)} of the parameters.")
    if "_cursor" in given:
        place, records = _continued(scope, given["_cursor"]), []
    else:
        patient = locate(scope, "Patient", logical_id)
        place, records = _begun(patient, given), [patient]
    while len(records) < place.count and place.at < len(place.kinds):
        criteria = [
            ("patient", place.patient_id),
            *([("_lastUpdated", f"ge{place.since}")] if place.since else []),
        ]
        query, _ = parse(place.kinds[place.at], criteria, strict=True)
        wanted = replace(query, count=place.count - len(records))
        page = pages.answer(scope, pages.Cursor(wanted, place.places))
        records += page.records
        place = (
            replace(place, places=page.places) if page.more else replace(place, at=place.at + 1, places=())
        )
    return _told(scope, place, records)


def _begun(patient: Record, given: dict[str, str]) -> _Place:
    kinds = tuple(k for k in REGISTRY if names.parse(k, "patient") is not None)
    if wanted := given.get("_type"):
        asked = wanted.split(",")
        if not set(asked) <= {"Patient", *kinds}:
            raise Invalid(f"_type names some of Patient, {', '.join(kinds)}.")
        kinds = tuple(k for k in kinds if k in asked)
    count = given.get("_count", str(EVERYTHING_COUNT))
    if not (count.isascii() and count.isdigit() and int(count[:9]) >= 1):
        raise Invalid("_count must be a whole number from 1.")
    return _Place(patient.id, kinds, given.get("_since", ""), min(int(count), 1000))


def _continued(scope: Scope, cursor: str) -> _Place:
    opened = scope.state.open("everything", cursor)
    owner: Any
    content: list[Any]
    owner, *content = orjson.loads(opened) if opened else [None]
    if owner != scope.caller.data_owner_id:
        raise Invalid("This _cursor is not one that this server gave you for this operation.")
    patient_id, kinds, since, count, at, places = content
    return _Place(patient_id, tuple(kinds), since, count, at, tuple(places))


def _told(scope: Scope, place: _Place, records: Sequence[Record]) -> Resource:
    base = f"{scope.base}/Patient/{place.patient_id}/$everything"
    links = [{"relation": "self", "url": base}]
    if place.at < len(place.kinds):
        content = [scope.caller.data_owner_id, place.patient_id, place.kinds, place.since, place.count]
        cursor = scope.state.seal("everything", orjson.dumps([*content, place.at, place.places]))
        links.append({"relation": "next", "url": f"{base}?_cursor={cursor}"})
    return _searchset(scope, links, records)


def _searchset(scope: Scope, links: list[Resource], records: Sequence[Record]) -> Resource:
    entries = [
        {"fullUrl": f"{scope.base}/{r.location}", "resource": r.resource, "search": {"mode": "match"}}
        for r in records
    ]
    bundle: Resource = {"resourceType": "Bundle", "type": "searchset", "link": links}
    return {**bundle, "entry": entries} if entries else bundle


# $lastn


def last_n(scope: Scope, arguments: Sequence[tuple[str, str]]) -> Resource:
    """Returns the latest Observations of a patient, `max` for each code. Raises `Invalid` without a patient.

    https://hl7.org/fhir/R4/observation-operation-lastn.html
    """
    most = next((value for name, value in arguments if name == "max"), "1")
    if not (most.isascii() and most.isdigit() and int(most[:9]) >= 1):
        raise Invalid("max must be a whole number from 1.")
    criteria = [(n, v) for n, v in arguments if n != "max" and n not in CONTROLS]
    if not any(n.partition(":")[0].partition(".")[0] in ("patient", "subject") for n, _ in criteria):
        raise Invalid("$lastn needs a patient or subject.")
    query, _ = parse("Observation", [*criteria, ("_sort", "-date"), ("_count", "1000")], strict=True)
    latest: dict[str, list[Record]] = {}
    cursor = pages.Cursor(query)
    while True:
        page = pages.answer(scope, cursor)
        for record in page.records:
            latest.setdefault(_code_of(record.resource), []).append(record)
        if not page.more:
            break
        for records in latest.values():
            del records[int(most[:9]) :]
        cursor = pages.Cursor(query, page.places)
    kept = [record for records in latest.values() for record in records[: int(most[:9])]]
    bundle = _searchset(scope, [{"relation": "self", "url": f"{scope.base}/Observation/$lastn"}], kept)
    return {**bundle, "total": len(kept)}


def _code_of(resource: Resource) -> str:
    """Returns what tells one code from another: all its codings, or its text."""
    code = resource.get("code", {})
    codings = sorted(f"{c.get('system', '')}|{c.get('code', '')}" for c in code.get("coding", []))
    return " ".join(codings) or str(code.get("text", ""))
