"""Promise 1 at the level of the mappings: what stays in clear under the default manifests is on the list, not more."""

from __future__ import annotations

import os

import orjson
import pytest

from bridge.crypto.envelope import encrypt, encrypt_service
from bridge.crypto.manifest import DEFAULT_MANIFESTS
from mappings import REGISTRY
from mappings.values import Entity
from tests.canaries import Canaries
from tests.promises import CLEAR, in_clear

from .completion import completed
from .helpers import CONTEXT, assert_same, expected, stored, written

KEY = os.urandom(32)
REFERRED = {
    "Patient": (),
    "Observation": ("performer[", "hasMember[", "derivedFrom["),
    "Condition": ("recorder.reference",),
}
"""References of which iCure keeps the id in clear: who is responsible, links between Services."""


def in_clear_upstream(entity_type: str, entity: Entity) -> bytes:
    """Returns what iCure can read of an entity."""
    sent = {n: v for n, v in entity.items() if n != "patientId"}
    if entity_type == "Service":
        return orjson.dumps(encrypt_service(sent, KEY))
    return orjson.dumps(encrypt(sent, KEY, DEFAULT_MANIFESTS[entity_type]))


@pytest.mark.parametrize("resource_type", sorted(CLEAR.keys() & REGISTRY.keys()))
def test_only_what_is_on_the_list_stays_in_clear(resource_type: str) -> None:
    mapping = REGISTRY[resource_type]
    canaries = Canaries()
    seen: set[str] = set()
    for resource in list(canaries.variants(resource_type)):
        entity, _ = written(mapping, resource)
        entity = mapping.slot.put(entity, "sealed")
        chunk = in_clear_upstream(mapping.entity_type, entity)
        seen |= {canaries.elements[found] for found in canaries.found_in([chunk])}
    allowed = {path for path in seen if in_clear(resource_type, path)}
    referred = {path for path in seen if path.startswith(REFERRED.get(resource_type, ()))}
    assert seen - allowed - referred == set()
    assert len(allowed) > 10


@pytest.mark.parametrize("resource_type", sorted(CLEAR.keys() & REGISTRY.keys()))
def test_a_resource_full_of_canaries_comes_back_as_it_was_sent(resource_type: str) -> None:
    mapping = REGISTRY[resource_type]
    for resource in Canaries().variants(resource_type):
        entity, residue = written(mapping, resource)
        entity = completed(mapping.entity_type, entity)
        assert_same(mapping.to_fhir(entity, stored(residue), CONTEXT), expected(resource))
