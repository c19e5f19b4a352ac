"""The five laws of the keep rule, over every mapping."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from bridge import wire
from mappings import REGISTRY
from mappings.values import Entity, Json, Resource

from .completion import AFTERWARDS, MODELS, completed
from .helpers import CONTEXT, assert_same, expected, stored, text, written
from .strategies import ENTITIES, EXTENSIONS, resources

FEW = settings(
    max_examples=int(os.environ.get("EXAMPLES", "40")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    print_blob=False,
)

LISTS = [
    ("Patient", "identifier", "identifier"),
    ("Patient", "telecom", "telecoms"),
    ("Patient", "contact", "partnerships"),
    ("Patient", "communication", "languages"),
    ("Patient", "generalPractitioner", "patientHealthCareParties"),
    ("Observation", "identifier", "identifier"),
    ("Observation", "category", "tags"),
    ("Observation", "note", "notes"),
    ("Observation", "component", "compoundValue"),
]

every_mapping = pytest.mark.parametrize("resource_type", REGISTRY)
every_afterwards = pytest.mark.parametrize("later", AFTERWARDS)


@every_mapping
@every_afterwards
@FEW
@given(st.data())
def test_a_resource_comes_back_as_it_was_sent(later: str, resource_type: str, data: DataObject) -> None:
    mapping = REGISTRY[resource_type]
    resource = data.draw(resources(resource_type))
    wire.check(resource)
    entity, residue = written(mapping, resource)
    assert_same(
        mapping.to_fhir(AFTERWARDS[later](mapping.entity_type, entity), residue, CONTEXT), expected(resource)
    )


@every_mapping
@FEW
@given(st.data())
def test_what_is_written_the_server_accepts(resource_type: str, data: DataObject) -> None:
    mapping = REGISTRY[resource_type]
    entity, _ = written(mapping, data.draw(resources(resource_type)))
    stored_there = MODELS[mapping.entity_type](entity)
    assert entity.keys() - {"patientId"} <= stored_there.keys()


@every_mapping
@every_afterwards
@FEW
@given(st.data())
def test_an_untouched_update_changes_nothing(later: str, resource_type: str, data: DataObject) -> None:
    mapping = REGISTRY[resource_type]
    resource = data.draw(resources(resource_type))
    entity, residue = written(mapping, resource)
    entity = AFTERWARDS[later](mapping.entity_type, entity)
    again = mapping.to_icure(mapping.to_fhir(entity, residue, CONTEXT), entity, residue, CONTEXT)
    assert_same(again[0], entity)
    assert_same(again[1], residue)


@every_mapping
@FEW
@given(st.data())
def test_an_untouched_update_of_what_an_sdk_wrote_changes_nothing(
    resource_type: str, data: DataObject
) -> None:
    mapping = REGISTRY[resource_type]
    entity = data.draw(ENTITIES[mapping.entity_type])
    again, residue = mapping.to_icure(mapping.to_fhir(entity, {}, CONTEXT), entity, {}, CONTEXT)
    assert_same(again, entity)
    assert residue == {}


@every_mapping
@FEW
@given(st.data())
def test_an_update_of_what_icure_has_no_home_for_leaves_what_an_sdk_wrote(
    resource_type: str, data: DataObject
) -> None:
    mapping = REGISTRY[resource_type]
    entity = data.draw(ENTITIES[mapping.entity_type])
    resource = {**mapping.to_fhir(entity, {}, CONTEXT), "language": "nl", "extension": EXTENSIONS[:1]}
    again, residue = mapping.to_icure(resource, entity, {}, CONTEXT)
    assert_same(again, entity)
    assert_same(mapping.to_fhir(again, stored(residue), CONTEXT), resource)


@every_mapping
@every_afterwards
@FEW
@given(st.data())
def test_an_update_over_what_an_sdk_wrote_comes_back_as_it_was_sent(
    later: str, resource_type: str, data: DataObject
) -> None:
    mapping = REGISTRY[resource_type]
    resource = data.draw(resources(resource_type))
    onto = completed(mapping.entity_type, data.draw(ENTITIES[mapping.entity_type]))
    entity, residue = mapping.to_icure(resource, onto, {}, CONTEXT)
    entity = AFTERWARDS[later](mapping.entity_type, entity)
    assert_same(mapping.to_fhir(entity, stored(residue), CONTEXT), expected(resource))


@every_mapping
@every_afterwards
@FEW
@given(st.data())
def test_an_update_over_another_resource_comes_back_as_it_was_sent(
    later: str, resource_type: str, data: DataObject
) -> None:
    mapping = REGISTRY[resource_type]
    before = data.draw(resources(resource_type))
    resource = data.draw(resources(resource_type) | _mixed(before, resource_type))
    onto, kept = written(mapping, before)
    onto = completed(mapping.entity_type, onto)
    entity, residue = mapping.to_icure(resource, onto, kept, CONTEXT)
    entity = AFTERWARDS[later](mapping.entity_type, entity)
    assert_same(mapping.to_fhir(entity, stored(residue), CONTEXT), expected(resource))


@st.composite
def _mixed(draw: st.DrawFn, before: Resource, resource_type: str) -> Resource:
    """Draws a resource that has some elements of another one, and lists of it in another order."""
    other = draw(resources(resource_type))
    for name, value in before.items():
        paired = name.startswith("_") or f"_{name}" in before
        if isinstance(value, list) and not paired and draw(st.booleans()):
            other[name] = draw(st.permutations(value))[: draw(st.integers(1, len(value)))]
            other.pop(f"_{name}", None)
    return other


@every_mapping
@FEW
@given(st.data())
def test_what_no_row_owns_survives_every_update(resource_type: str, data: DataObject) -> None:
    mapping = REGISTRY[resource_type]
    owned = {name for row in mapping.rows for name in row.icure}
    onto: Entity = data.draw(ENTITIES[mapping.entity_type])
    entity, _ = mapping.to_icure(data.draw(resources(resource_type)), onto, {}, CONTEXT)
    assert_same(
        {n: v for n, v in entity.items() if n not in owned or n == "id"},
        {n: v for n, v in onto.items() if n not in owned or n == "id"},
    )


@every_mapping
@FEW
@given(st.data())
def test_an_update_of_one_element_touches_only_its_properties(resource_type: str, data: DataObject) -> None:
    mapping = REGISTRY[resource_type]
    onto = completed(mapping.entity_type, data.draw(ENTITIES[mapping.entity_type]))
    resource = mapping.to_fhir(onto, {}, CONTEXT)
    other = expected(data.draw(resources(resource_type)))
    names = {n.lstrip("_") for n in (*resource, *other) if n != "resourceType"}
    name = data.draw(st.sampled_from(sorted(names)))
    changed = {n: v for n, v in resource.items() if n.lstrip("_") != name}
    changed |= {n: v for n, v in other.items() if n.lstrip("_") == name}
    rows = [row for row in mapping.rows if any(n.partition(".")[0] == name for n in row.fhir)]
    entity, residue = mapping.to_icure(changed, onto, {}, CONTEXT)
    touched = {n for row in rows for n in row.icure} - {"id"}
    assert_same(_without(entity, touched), _without(onto, touched))
    entity = AFTERWARDS["saved by an SDK"](mapping.entity_type, entity)
    assert_same(mapping.to_fhir(entity, stored(residue), CONTEXT), changed)


def _without(entity: Entity, names: set[str]) -> Entity:
    return {n: v for n, v in entity.items() if n not in names}


@pytest.mark.parametrize(
    ("resource_type", "element", "members"), LISTS, ids=[f"{a}.{b}" for a, b, _ in LISTS]
)
@FEW
@given(st.data())
def test_a_list_member_removed_or_added_leaves_the_others_as_they_stand(
    resource_type: str, element: str, members: str, data: DataObject
) -> None:
    mapping = REGISTRY[resource_type]
    onto = completed(mapping.entity_type, data.draw(ENTITIES[mapping.entity_type]))
    resource = mapping.to_fhir(onto, {}, CONTEXT)
    said = resource.get(element, [])
    place = data.draw(st.integers(0, len(said)))
    if place < len(said) and data.draw(st.booleans()):
        changed = [*said[:place], *said[place + 1 :]]
    else:
        new = data.draw(resources(resource_type).map(lambda r: r.get(element)).filter(bool))
        changed = [*said[:place], new[0], *said[place:]]
    entity, _ = mapping.to_icure({**resource, element: changed}, onto, {}, CONTEXT)
    before, after = [text(m) for m in _members(onto, members)], [text(m) for m in _members(entity, members)]
    lost = Counter(before) - Counter(after)
    assert lost.total() <= max(0, len(said) - len(changed))


def _members(entity: Entity, name: str) -> list[Json]:
    if name == "telecoms":
        return [t for address in entity.get("addresses") or () for t in address.get("telecoms") or ()]
    if name == "compoundValue":
        return [p for content in (entity.get("content") or {}).values() for p in content.get(name) or ()]
    return entity.get(name) or []


@every_mapping
@FEW
@given(st.data())
def test_what_an_sdk_wrote_is_a_valid_resource(resource_type: str, data: DataObject) -> None:
    mapping = REGISTRY[resource_type]
    entity = data.draw(ENTITIES[mapping.entity_type])
    resource = mapping.to_fhir(entity, {}, CONTEXT)
    wire.check({"id": "x", **resource}, strict=True)
    assert_same(mapping.to_fhir(entity, None, CONTEXT), resource)


@every_mapping
@every_afterwards
@FEW
@given(st.data())
def test_without_its_residue_an_entity_is_a_valid_resource(
    later: str, resource_type: str, data: DataObject
) -> None:
    mapping = REGISTRY[resource_type]
    entity, _ = written(mapping, data.draw(resources(resource_type)))
    wire.check(mapping.to_fhir(AFTERWARDS[later](mapping.entity_type, entity), {}, CONTEXT), strict=True)


@every_mapping
@FEW
@given(st.data())
def test_a_second_trip_without_residue_changes_nothing(resource_type: str, data: DataObject) -> None:
    mapping = REGISTRY[resource_type]
    entity = data.draw(ENTITIES[mapping.entity_type])
    once = mapping.to_fhir(entity, {}, CONTEXT)
    again, residue = written(mapping, once)
    assert_same(mapping.to_fhir(again, residue, CONTEXT), once)


@every_mapping
@FEW
@given(st.data())
def test_the_slot_gives_back_what_was_put_into_it(resource_type: str, data: DataObject) -> None:
    mapping = REGISTRY[resource_type]
    model, entity = MODELS[mapping.entity_type], data.draw(ENTITIES[mapping.entity_type])
    for sealed in ("first", "second"):
        held = completed(mapping.entity_type, mapping.slot.put(mapping.slot.put(entity, "before"), sealed))
        assert sealed in str(held)
        assert "before" not in str(held)
        bare, taken = mapping.slot.take(held)
        assert taken == sealed
        assert_same(model(bare), model(completed(mapping.entity_type, entity)))


def test_a_service_with_components_always_has_the_slot() -> None:
    slot = REGISTRY["Observation"].slot
    compound: Entity = {"id": "s", "content": {"xx": {"compoundValue": [{"id": "p", "label": "hidden"}]}}}
    assert slot.put(compound, None)["content"] == {**compound["content"], "fhir": {"stringValue": ""}}
    assert slot.take(slot.put(compound, None)) == (compound, None)
