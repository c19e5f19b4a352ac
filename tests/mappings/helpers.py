"""What the tests of the mappings share: one context, resources as they come back, and equality to the letter."""

from __future__ import annotations

import json
from typing import Any

from bridge import wire
from mappings.engine import Context, Mapping, Residue
from mappings.values import Entity, Json, Number, Resource

from .completion import CALLER, NOW

UNKNOWN = frozenset({"Practitioner/unknown"})
CONTEXT = Context(now=NOW, known=lambda reference: reference not in UNKNOWN, caller=CALLER)


def written(mapping: Mapping, resource: Resource, entity_id: str = "e1") -> tuple[Entity, Residue]:
    """Returns what a create stores."""
    entity, residue = mapping.to_icure(resource, {"id": entity_id}, None, CONTEXT)
    return entity, stored(residue)


def stored(residue: Residue) -> Residue:
    """Returns the residue after its way through the sealed text."""
    told: Residue = wire.loads(wire.dump(residue))
    return told


def expected(resource: Resource) -> Resource:
    """Returns the resource as it is to come back: without what the server gives it."""
    meta = {n: v for n, v in resource.get("meta", {}).items() if n not in ("versionId", "lastUpdated")}
    rest = {n: v for n, v in resource.items() if n not in ("id", "meta")}
    return {**rest, "meta": meta} if meta else rest


def assert_same(one: Json, other: Json) -> None:
    """Asserts equality member by member: order of members free, numbers by their text, 1 is not true."""
    assert one == other
    assert text(one) == text(other)


def text(value: Json) -> str:
    return json.dumps(value, sort_keys=True, default=_number, indent=1)


def _number(value: Any) -> str:
    assert isinstance(value, Number), "FHIR JSON holds no other kind of number"
    return f"Number({value.text})"
