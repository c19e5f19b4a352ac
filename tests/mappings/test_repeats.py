"""What comes again in a request is mapped once, to the same as if it were mapped each time."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from mappings import REGISTRY
from mappings.engine import Context
from mappings.observation import OBSERVATION
from mappings.repeats import IN_VAIN, LONG, MANY, Repeats, Shelf, key_of, repeated
from mappings.values import Entity, Json, Number, Resource

from .helpers import CONTEXT, assert_same
from .strategies import ENTITIES, resources
from .test_laws import FEW, every_mapping

RESULT: Resource = {
    "resourceType": "Observation",
    "status": "final",
    "category": [{"coding": [{"system": "http://example.org/a", "code": "lab", "display": "Laboratory"}]}],
    "code": {"coding": [{"system": "http://loinc.org", "code": "718-7", "display": "Hemoglobin"}]},
    "performer": [{"reference": "Practitioner/h1"}],
    "valueQuantity": {"value": Number("7.20"), "unit": "g/dl"},
    "referenceRange": [{"low": {"value": Number("7.50"), "unit": "g/dl"}}],
    "note": [{"text": "fasting"}],
}


def repeating() -> Context:
    return replace(CONTEXT, repeats=Repeats())


def new(**elements: Json) -> Resource:
    return {**RESULT, **elements}


@every_mapping
@FEW
@given(st.data())
def test_resources_of_one_request_are_mapped_as_each_would_be_alone(
    resource_type: str, data: DataObject
) -> None:
    mapping = REGISTRY[resource_type]
    drawn = data.draw(st.lists(resources(resource_type), min_size=1, max_size=3))
    sent = [*drawn, *(_mixed(one, other) for one in drawn for other in drawn)]
    context = repeating()
    made = [mapping.to_icure(one, {"id": f"e{at}"}, None, context) for at, one in enumerate(sent)]
    for at, one in enumerate(sent):
        _assert_same(made[at], mapping.to_icure(one, {"id": f"e{at}"}, None, CONTEXT))


def _mixed(one: Resource, other: Resource) -> Resource:
    """Returns a resource with each second element of another."""
    return {**one, **dict(list(other.items())[::2])}


@every_mapping
@FEW
@given(st.data())
def test_updates_are_mapped_the_same_beside_what_is_new(resource_type: str, data: DataObject) -> None:
    mapping = REGISTRY[resource_type]
    resource, onto = data.draw(resources(resource_type)), data.draw(ENTITIES[mapping.entity_type])
    context = repeating()
    for there in ({"id": "e1"}, onto, {"id": "e1"}):
        for sent in (resource, mapping.to_fhir(there, {}, CONTEXT)):
            made = mapping.to_icure(sent, there, {}, context)
            _assert_same(made, mapping.to_icure(sent, there, {}, CONTEXT))


def _assert_same(made: tuple[Entity, Json], alone: tuple[Entity, Json]) -> None:
    assert_same(_plain(made[0]), _plain(alone[0]))
    assert_same(made[1], alone[1])


def _plain(value: Json) -> Json:
    """Returns an entity with its doubles in a form that says -0.0 and 0.0 apart."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return repr(value) if isinstance(value, float) else value


@every_mapping
def test_groups_of_rows_share_nothing_and_are_the_whole_table(resource_type: str) -> None:
    mapping = REGISTRY[resource_type]
    for one, other in combinations(mapping.groups, 2):
        assert one.elements.isdisjoint(other.elements)
        assert one.nodes.isdisjoint(other.nodes)
        assert one.properties.isdisjoint(other.properties)
    rows = [row for group in mapping.groups for row in group.rows]
    assert sorted(rows, key=mapping.rows.index) == list(mapping.rows)
    assert all(list(g.rows) == sorted(g.rows, key=mapping.rows.index) for g in mapping.groups)


def test_what_comes_again_is_what_was_made_before() -> None:
    context = repeating()
    (one, kept), (other, kept_again) = (
        OBSERVATION.to_icure(new(valueQuantity={"value": n}), {"id": str(n)}, None, context) for n in (1, 2)
    )
    assert all(other[name] is one[name] for name in ("tags", "codes", "notes"))
    assert all(kept_again[name] is kept[name] for name in ("category", "code", "referenceRange"))
    assert one["content"] != other["content"]


REPEATED_BUT_FOR: dict[str, tuple[Resource, Resource]] = {
    "digits of a number": (
        new(referenceRange=[{"low": {"value": Number("7.50")}}]),
        new(referenceRange=[{"low": {"value": Number("7.5")}}]),
    ),
    "a number and a text": (new(note=[{"text": "1"}]), new(note=[{"text": 1}])),
    "a number and a boolean": (
        new(extension=[{"url": "a", "valueInteger": 1}], meta={"tag": [{"code": "a", "userSelected": 1}]}),
        new(extension=[{"url": "a", "valueInteger": 1}], meta={"tag": [{"code": "a", "userSelected": True}]}),
    ),
    "the place of an element": (
        new(hasMember=[{"reference": "Observation/s1"}]),
        new(derivedFrom=[{"reference": "Observation/s1"}]),
    ),
    "an extension of a value": (new(), new(_status={"id": "s"})),
    "nothing for something": (new(performer=[{"reference": "Practitioner/h1"}]), new(performer=[])),
}


@pytest.mark.parametrize(("one", "other"), REPEATED_BUT_FOR.values(), ids=REPEATED_BUT_FOR)
def test_what_differs_is_told_apart(one: Resource, other: Resource) -> None:
    context = repeating()
    OBSERVATION.to_icure(one, {"id": "e1"}, None, context)
    made = OBSERVATION.to_icure(other, {"id": "e1"}, None, context)
    _assert_same(made, OBSERVATION.to_icure(other, {"id": "e1"}, None, CONTEXT))
    assert made != OBSERVATION.to_icure(one, {"id": "e1"}, None, CONTEXT) or one == other


def test_one_request_knows_nothing_of_another() -> None:
    OBSERVATION.to_icure(RESULT, {"id": "e1"}, None, repeating())
    stranger = replace(repeating(), known=lambda reference: False, caller="h9")
    entity, _ = OBSERVATION.to_icure(RESULT, {"id": "e1"}, None, stranger)
    assert entity["responsible"] == "h9"


def test_components_have_ids_of_their_own_service() -> None:
    component = {"code": {"text": "systolic"}, "valueQuantity": {"value": 120}}
    context = repeating()
    one, other = (
        OBSERVATION.to_icure(new(component=[component]), {"id": at}, None, context)[0] for at in ("a", "b")
    )
    ids = [entity["content"]["xx"]["compoundValue"][0]["id"] for entity in (one, other)]
    assert ids[0] != ids[1]


# how much is remembered


def test_what_never_comes_again_is_soon_not_remembered() -> None:
    repeats = Repeats()
    asked: list[Json] = []

    def twice(content: Json) -> Json:
        asked.append(content)
        return content * 2

    for n in range(IN_VAIN + 50):
        assert repeated(repeats, twice, n) == n * 2
    assert repeats.of(twice) is None
    assert [repeated(repeats, twice, 7), repeated(repeats, twice, 7)] == [14, 14]
    assert asked.count(7) == 3


def test_what_came_again_is_remembered_however_much_is_new() -> None:
    repeats = Repeats()
    for n in range(IN_VAIN * 2):
        repeated(repeats, key_of, 0)
        repeated(repeats, key_of, n)
    shelf = repeats.of(key_of)
    assert shelf is not None
    assert len(shelf) == IN_VAIN * 2


def test_no_more_is_remembered_than_fits() -> None:
    shelf = Shelf()
    for n in range(MANY * 2 + 5):
        shelf.put(str(n), n)
        assert len(shelf) <= MANY
    assert shelf.get(str(MANY * 2 + 4)) == MANY * 2 + 4
    shelf.put("x" * (LONG + 1), 1)
    assert shelf.get("x" * (LONG + 1)) is None


@FEW
@given(st.data())
def test_a_key_is_the_same_only_for_the_same(data: DataObject) -> None:
    values = st.recursive(
        st.none() | st.booleans() | st.integers(-2, 2) | st.text("a'\",{}[]:\\", max_size=3) | _numbers,
        lambda inner: (
            st.lists(inner, max_size=2) | st.dictionaries(st.text("a'", max_size=2), inner, max_size=2)
        ),
        max_leaves=4,
    )
    one, other = data.draw(values), data.draw(values)
    if key_of(one) == key_of(other):
        assert_same(one, other)


_numbers = st.sampled_from(["1.0", "1.00", "1e0", "-0"]).map(Number)
