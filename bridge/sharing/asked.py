"""What a share asks for: Parameters `recipient`, `permission` and, of a Patient, `include`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bridge import wire
from bridge.crypto.keys import public_keys
from bridge.crypto.sharing import Wish
from bridge.errors import BusinessRule, Invalid, Unprocessable
from bridge.homes import Record, home_of
from bridge.interactions import check_match, locate
from bridge.operations import COMPARTMENT
from bridge.references import by_client_ids
from bridge.scope import Scope
from mappings.values import Entity, Resource

SHARED = ("Patient", *COMPARTMENT)
"""The types that can be shared; of the others nothing is encrypted."""
PERMISSIONS = ("read", "write")
RECIPIENTS = {"Practitioner": "hcp", "Organization": "hcp", "Patient": "patient"}
"""What kind of data owner stands behind a type."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share that was checked and may begin."""

    record: Record
    recipient: str
    """`Type/id`."""
    fingerprints: list[str]
    wish: Wish
    include: list[str]
    if_match: str | None


def begin(
    scope: Scope, resource_type: str, logical_id: str, sent: Resource, if_match: str | None = None
) -> Share:
    """Returns the share that a request asks for, checked; nothing is shared yet.

    Raises `Invalid` for parameters that are none, `Unprocessable` for a recipient who cannot be shared with, and
    whatever keeps the caller from reading the resource.
    """
    given = _parameters(sent)
    permission, at = _one(given, "permission", ("valueCode", "valueString"))
    if permission not in PERMISSIONS:
        raise Invalid("permission is read or write.", at)
    include = []
    for value, at in _values(given, "include", ("valueCode", "valueString")):
        if resource_type != "Patient":
            raise Invalid("include goes with a Patient.", at)
        if value not in COMPARTMENT:
            raise Invalid(f"include names some of {', '.join(COMPARTMENT)}.", at)
        include.append(value)
    reference, at = _one(given, "recipient", ("valueReference",))
    record = locate(scope, resource_type, logical_id)
    check_match(record, if_match)
    recipient, owner = _recipient(scope, reference.get("reference"), f"{at}.reference")
    fingerprints = [key.fingerprint for key in public_keys(owner["stub"])]
    if not fingerprints:
        raise BusinessRule("This data owner announces no key: there is nothing to encrypt for.", at)
    owner_id = owner["stub"]["id"]
    if owner_id == scope.caller.data_owner_id:
        raise BusinessRule("The recipient is yourself.", at)
    wish = Wish(owner_id, frozenset(fingerprints), writes=permission == "write")
    return Share(record, recipient, fingerprints, wish, list(dict.fromkeys(include)), if_match)


Given = list[tuple[str, dict[str, Any], str]]
"""Name, members and path of each parameter."""
KNOWN = ("recipient", "permission", "include")


def _parameters(sent: Resource) -> Given:
    checked, _ = wire.check(sent, expected_type="Parameters", strict=True)
    given: Given = []
    for at, one in enumerate(checked.get("parameter", ())):
        path = f"Parameters.parameter[{at}]"
        if one["name"] not in KNOWN:
            raise Invalid(f"$share takes {', '.join(KNOWN)}.", f"{path}.name")
        given.append((one["name"], one, path))
    return given


def _values(given: Given, name: str, members: Sequence[str]) -> Iterator[tuple[Any, str]]:
    """Yields the values of a parameter, each with its path. Raises `Invalid` for one that has none of these members."""
    for said, one, path in given:
        if said == name:
            member = next((m for m in members if m in one), None)
            if member is None:
                raise Invalid(f"{name} has a {members[0]}.", path)
            yield one[member], f"{path}.value"


def _one(given: Given, name: str, members: Sequence[str]) -> tuple[Any, str]:
    values = list(_values(given, name, members))
    if len(values) != 1:
        raise Invalid(f"$share takes one {name}.", "Parameters.parameter")
    return values[0]


def _recipient(scope: Scope, reference: object, path: str) -> tuple[str, Entity]:
    """Returns the reference and the data owner that a reference means, by server id or client id."""
    text = reference.removeprefix(f"{scope.base}/") if isinstance(reference, str) else ""
    resource_type, _, logical_id = text.partition("/")
    if resource_type not in RECIPIENTS or not logical_id:
        raise Unprocessable(f"A recipient is one of {', '.join(RECIPIENTS)}: Type/id.", path)
    owner = scope.client.data_owners([logical_id]).get(logical_id)
    if owner is None:
        ids = {r.id for r in by_client_ids(scope, resource_type, [logical_id]) if not r.deleted}
        owner = scope.client.data_owners(list(ids)).get(next(iter(ids))) if len(ids) == 1 else None
    if owner is None:
        raise Unprocessable("No data owner is known under this reference.", path)
    _check_recipient(scope, resource_type, owner, path)
    return f"{resource_type}/{owner['stub']['id']}", owner


def _check_recipient(scope: Scope, resource_type: str, owner: Entity, path: str) -> None:
    """Raises `Unprocessable` for a data owner of another type or that was deleted, as far as the caller can see."""
    other = Unprocessable(f"This data owner is no {resource_type}.", path)
    if owner.get("type") != RECIPIENTS[resource_type]:
        raise other
    seen = home_of(resource_type).read_all(scope, resource_type, [owner["stub"]["id"]])
    if not seen and resource_type != "Patient":
        raise other
    if any(record.deleted for record in seen):
        raise Unprocessable("This data owner was deleted.", path)
