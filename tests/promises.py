"""What the bridge promises of every resource, in a form that tests can ask: what lies in clear, and what comes back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from bridge.config import Config
from mappings.values import Json, Number, Resource

CLIENT_ID_SYSTEM = Config().identifier_system
LOOKED_UP = ("Patient", "Observation", "Practitioner", "Organization")
"""A reference to one of these is asked for upstream by its id."""

_IDENTIFIER = """
identifier[].use identifier[].system identifier[].value identifier[].period.start identifier[].period.end
identifier[].type.coding[0].system identifier[].type.coding[0].code identifier[].type.coding[0].version
identifier[].assigner.display
"""
_TAG = "id meta.tag[].system meta.tag[].code meta.tag[].version"
CLEAR: dict[str, tuple[str, ...]] = {
    "Patient": tuple(
        f"""
        {_TAG} {_IDENTIFIER} active gender birthDate deceasedBoolean deceasedDateTime
        name[].use name[].text name[].family name[].given[] name[].prefix[] name[].suffix[]
        name[].period.start name[].period.end telecom[].system telecom[].use telecom[].value
        address[].use address[].type address[].line[] address[].city address[].state address[].postalCode
        address[].country
        """.split()
    ),
    "Observation": tuple(
        f"""
        {_TAG} {_IDENTIFIER} status code.coding[].system code.coding[].code code.coding[].version
        code.coding[0].display category[].coding[].system category[].coding[].code category[].coding[].version
        effectiveDateTime effectiveInstant effectivePeriod.start effectivePeriod.end effectiveTiming.event[0]
        """.split()
    ),
    "Condition": tuple(
        f"""
        {_TAG} {_IDENTIFIER} code.coding[].system code.coding[].code code.coding[].version
        category[].coding[].system category[].coding[].code category[].coding[].version
        clinicalStatus.coding[].system clinicalStatus.coding[].code clinicalStatus.coding[].version
        verificationStatus.coding[].system verificationStatus.coding[].code verificationStatus.coding[].version
        onsetDateTime onsetPeriod.start abatementDateTime abatementPeriod.end
        """.split()
    ),
}
"""Elements that may be read by iCure: design, promise 1. `[]` is any member of a list, `[0]` the first one."""


def in_clear(resource_type: str, path: str) -> bool:
    """Whether the element at a path such as `name[1].given[0]` may leave the bridge in clear."""
    return _clear_paths(resource_type).fullmatch(path) is not None


def _clear_paths(resource_type: str) -> re.Pattern[str]:
    listed = (re.escape(path).replace(r"\[\]", r"\[\d+\]") for path in CLEAR[resource_type])
    return re.compile("|".join(listed))


def leaves(value: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Yields every primitive value of a resource with its path."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{at}]")
    else:
        yield path, value


def coming_back(sent: Resource, served: Mapping[str, str]) -> Resource:
    """Returns what a read must give for a resource that was sent, without what the server gives it.

    `served` has, for each reference that the bridge can resolve, what it becomes.
    """
    expected = bare(sent)
    if "id" in sent:
        own = {"system": CLIENT_ID_SYSTEM, "value": sent["id"]}
        expected["identifier"] = [*expected.get("identifier", []), own]
    resolved: Resource = _resolved(expected, served)
    return resolved


def bare(resource: Resource) -> Resource:
    """Returns a resource without id, meta.versionId and meta.lastUpdated."""
    rest = {name: value for name, value in resource.items() if name not in ("id", "meta")}
    meta = {n: v for n, v in resource.get("meta", {}).items() if n not in ("versionId", "lastUpdated")}
    return {**rest, "meta": meta} if meta else rest


def _resolved(value: Json, served: Mapping[str, str]) -> Json:
    if isinstance(value, list):
        return [_resolved(inner, served) for inner in value]
    if not isinstance(value, dict):
        return value
    found = {name: _resolved(inner, served) for name, inner in value.items()}
    if isinstance(found.get("reference"), str):
        found["reference"] = served.get(found["reference"], found["reference"])
    return found


def assert_same(one: Resource, other: Resource) -> None:
    """Asserts equality member by member: order of members free, of lists kept, numbers by their source text."""
    assert _text(one) == _text(other)


def _text(value: Any) -> list[str]:
    return json.dumps(value, sort_keys=True, default=_number, indent=1, ensure_ascii=False).splitlines()


def _number(value: Any) -> str:
    assert isinstance(value, Number)
    return f"number {value.text}"
