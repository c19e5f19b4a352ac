"""FHIR operations beyond the interactions: $validate, $everything, $lastn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from bridge import wire
from bridge.errors import BridgeError, Invalid, Issue, TooCostly, outcome, warning
from bridge.homes import Record
from bridge.interactions import locate
from bridge.scope import Scope
from bridge.search import CONTROLS, MOST_COUNT, Query, included, names, pages, parse
from mappings import REGISTRY
from mappings.values import Json, Resource

WELL = Issue("informational", "No issues detected.", severity="information")
MODES = ("create", "update", "delete", "profile")


def said_in(parameters: Resource) -> list[tuple[str, str]]:
    """Returns the parameters of an operation that were sent as a Parameters resource, as a URL would say them.

    https://hl7.org/fhir/R4/operations.html#request. Raises `Invalid` for what a URL could not say.
    """
    if parameters.get("resourceType") != "Parameters":
        raise Invalid("An operation takes Parameters.", str(parameters.get("resourceType", "Parameters")))
    sent = parameters.get("parameter", [])
    if not isinstance(sent, list):
        raise Invalid("parameter is a list.", "Parameters.parameter")
    return [_said(one, f"Parameters.parameter[{at}]") for at, one in enumerate(sent)]


def _said(one: Json, path: str) -> tuple[str, str]:
    holder = one if isinstance(one, dict) else {}
    name, values = holder.get("name"), [v for n, v in holder.items() if n.startswith("value")]
    value = values[0] if len(values) == 1 else None
    if isinstance(value, dict):
        value = value.get("reference")
    if not isinstance(name, str) or value is None or isinstance(value, (dict, list)):
        raise Invalid("A parameter has a name and one value: a primitive, or a Reference.", path)
    return name, value if isinstance(value, str) else wire.dump(value).decode()


def validate(
    body: Resource,
    resource_type: str,
    logical_id: str | None,
    arguments: Sequence[tuple[str, str]] = (),
    *,
    strict: bool,
) -> Resource:
    """Returns an OperationOutcome of what is wrong with a resource, sent alone or as `resource` in Parameters.

    `mode` and `profile` may also stand in the URL.

    https://hl7.org/fhir/R4/resource-operation-validate.html
    """
    resource, issues = _validated(body, dict(arguments))
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


def _validated(body: Resource, asked: dict[str, str]) -> tuple[Resource | None, list[Issue]]:
    """Returns the resource to be validated and what there is to say of the request."""
    whole = body.get("resourceType") == "Parameters"
    at = "Parameters.parameter" if whole else None
    parameters = body.get("parameter") if whole else None
    named: dict[str, Resource] = {}
    for index, one in enumerate(parameters if isinstance(parameters, list) else ()):
        if not isinstance(one, dict) or not isinstance(one.get("name"), str):
            raise Invalid("A parameter has a name.", f"{at}[{index}]")
        named[one["name"]] = one
    issues: list[Issue] = []
    mode = named.get("mode", {}).get("valueCode", asked.get("mode"))
    if mode is not None and mode not in MODES:
        raise Invalid(f"mode is one of {', '.join(MODES)}.", at)
    if "profile" in named or "profile" in asked:
        issues.append(warning("not-supported", "Profiles are not checked; R4 itself is.", at))
    if not whole:
        return body, issues
    resource = named.get("resource", {}).get("resource")
    if isinstance(resource, dict):
        return resource, issues
    if mode == "delete":
        return None, issues
    raise Invalid("Parameters need a resource.", "Parameters.parameter")


# $everything

EVERYTHING = ("_count", "_type", "_since", "_cursor", "_format", "_pretty")
EVERYTHING_COUNT = 200
COMPARTMENT = tuple(kind for kind in REGISTRY if names.parse(kind, "patient") is not None)
"""The types that belong to a patient."""
LINKED = tuple(kind for kind in REGISTRY if kind not in ("Patient", *COMPARTMENT))
"""The types that come along with what refers to them."""


@dataclass(frozen=True, slots=True)
class _Place:
    """How far a patient's compartment was told: which types, and where in which of them."""

    patient_id: str
    kinds: tuple[str, ...]
    linked: tuple[str, ...]
    since: str
    count: int
    at: int = 0
    places: tuple[str, ...] = ()


def everything(scope: Scope, logical_id: str, arguments: Sequence[tuple[str, str]]) -> Resource:
    """Returns a patient and all that belongs to it, page by page, each with the parties that it refers to.

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
    asked = set((given.get("_type") or ",".join(REGISTRY)).split(","))
    if not asked <= REGISTRY.keys():
        raise Invalid(f"_type names some of {', '.join(REGISTRY)}.")
    kinds, linked = (tuple(k for k in known if k in asked) for known in (COMPARTMENT, LINKED))
    count = _from_one(given.get("_count", str(EVERYTHING_COUNT)), "_count")
    return _Place(patient.id, kinds, linked, given.get("_since", ""), min(count, MOST_COUNT))


def _from_one(text: str, name: str) -> int:
    """Returns a number that must be 1 at least, of very large ones a large one."""
    if not (text.isascii() and text.isdigit() and int(text[:9]) >= 1):
        raise Invalid(f"{name} must be a whole number from 1.")
    return int(text[:9])


def _continued(scope: Scope, cursor: str) -> _Place:
    opened = scope.state.open("everything", cursor)
    owner: Any
    content: list[Any]
    owner, *content = orjson.loads(opened) if opened else [None]
    if owner != scope.caller.data_owner_id:
        raise Invalid("This _cursor is not one that this server gave you for this operation.")
    patient_id, kinds, linked, since, count, at, places = content
    return _Place(patient_id, tuple(kinds), tuple(linked), since, count, at, tuple(places))


def _told(scope: Scope, place: _Place, records: Sequence[Record]) -> Resource:
    base = f"{scope.base}/Patient/{place.patient_id}/$everything"
    links = [{"relation": "self", "url": base}]
    if place.at < len(place.kinds):
        owner, content = scope.caller.data_owner_id, asdict(place).values()
        cursor = scope.state.seal("everything", orjson.dumps([owner, *content]))
        links.append({"relation": "next", "url": f"{base}?_cursor={cursor}"})
    sources = ("Patient", *COMPARTMENT)
    links_to = tuple(("_include", f"{source}:*:{kind}") for source in sources for kind in place.linked)
    parties = included(scope, Query("Patient", includes=links_to), records)
    return _searchset(scope, links, records, parties)


def _searchset(
    scope: Scope, links: list[Resource], records: Sequence[Record], along: Sequence[Record] = ()
) -> Resource:
    scope.shown([*records, *along])
    entries = [
        {"fullUrl": f"{scope.base}/{record.location}", "resource": record.resource, "search": {"mode": mode}}
        for mode, some in (("match", records), ("include", along))
        for record in some
    ]
    bundle: Resource = {"resourceType": "Bundle", "type": "searchset", "link": links}
    return {**bundle, "entry": entries} if entries else bundle


# $lastn

MOST_PAGES = 10


def last_n(scope: Scope, arguments: Sequence[tuple[str, str]]) -> Resource:
    """Returns the latest Observations of a patient, `max` for each code.

    Raises `Invalid` without a patient, `TooCostly` where more than 10,000 have to be read for it.
    https://hl7.org/fhir/R4/observation-operation-lastn.html
    """
    most = _from_one(next((value for name, value in arguments if name == "max"), "1"), "max")
    criteria = [(n, v) for n, v in arguments if n != "max" and n not in CONTROLS]
    if not any(n.partition(":")[0].partition(".")[0] in ("patient", "subject") for n, _ in criteria):
        raise Invalid("$lastn needs a patient or subject.")
    asked = [*criteria, ("_sort", "-date"), ("_count", str(MOST_COUNT))]
    query, _ = parse("Observation", asked, strict=True)
    latest: dict[str, list[Record]] = {}
    cursor = pages.Cursor(query)
    for _ in range(MOST_PAGES):
        page = pages.answer(scope, cursor)
        for record in page.records:
            latest.setdefault(_code_of(record.resource), []).append(record)
        if not page.more:
            break
        for records in latest.values():
            del records[most:]
        cursor = pages.Cursor(query, page.places)
    else:
        raise TooCostly(
            "Too many Observations have to be read for this; narrow it by a code, a category or a date."
        )
    kept = [record for records in latest.values() for record in records[:most]]
    bundle = _searchset(scope, [{"relation": "self", "url": f"{scope.base}/Observation/$lastn"}], kept)
    return {**bundle, "total": len(kept)}


def _code_of(resource: Resource) -> str:
    """Returns what tells one code from another: all its codings, or its text."""
    code = resource.get("code", {})
    codings = sorted(f"{c.get('system', '')}|{c.get('code', '')}" for c in code.get("coding", []))
    return " ".join(codings) or str(code.get("text", ""))
