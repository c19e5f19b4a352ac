"""What is kept of list members and numbers where the short ways of comparing could hide a difference."""

from __future__ import annotations

import pytest

from mappings.residue import covers, keep, restore
from mappings.values import Json, Number, Resource

from .helpers import assert_same, stored

LONG = "a text of more than eighty characters, of which a digest stands in the residue, not the text"

COVERED: dict[str, tuple[Json, Json, bool]] = {
    "more said": ({"low": 1, "text": "a"}, {"low": 1}, True),
    "less said": ({"text": "a"}, {"low": 1, "text": "a"}, False),
    "another value": ({"low": 2, "text": "a"}, {"low": 1}, False),
    "a number written otherwise": (
        {"low": {"value": Number("7.50")}},
        {"low": {"value": Number("7.5")}},
        True,
    ),
    "a whole number written otherwise": (Number("1.0e2"), 100, True),
    "another number": (Number("7.50"), Number("7.51"), False),
    "a number and a text": (Number("7.5"), "7.5", False),
    "more members": ([1, 2], [1], False),
}


@pytest.mark.parametrize(("value", "part", "is_covered"), COVERED.values(), ids=COVERED)
def test_a_value_covers_what_says_a_part_of_it(value: Json, part: Json, is_covered: bool) -> None:
    assert covers(value, part) is is_covered


RANGES: Resource = {
    "range": [
        {"low": {"value": Number("7.50")}, "text": LONG, "id": "a"},
        {"low": {"value": Number("8.0")}, "text": "2024-04-05T10:00:10+01:00", "_text": {"id": "b"}},
        {"low": {"value": Number("1e1")}},
    ]
}
NATURAL: Resource = {
    "range": [
        {"low": {"value": Number("7.5")}, "text": LONG},
        {"low": {"value": 8}, "text": "2024-04-05T10:00:10Z"},
        {"low": {"value": 10}},
    ]
}


def _picked(resource: Resource, *places: int) -> Resource:
    return {"range": [resource["range"][at] for at in places]}


@pytest.mark.parametrize("places", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2), (2,), (1, 0)])
def test_members_keep_their_own_digits_ids_and_zones_in_any_order(places: tuple[int, ...]) -> None:
    residue = stored(keep(RANGES, NATURAL))
    assert_same(restore(_picked(NATURAL, *places), residue), _picked(RANGES, *places))


EDITED: dict[str, tuple[int, Resource]] = {
    "a number": (0, {"low": {"value": Number("7.51")}, "text": LONG}),
    "the end of a long text": (0, {"low": {"value": Number("7.5")}, "text": LONG + "."}),
}


@pytest.mark.parametrize(("place", "edited"), EDITED.values(), ids=EDITED)
def test_an_edit_of_one_member_shows_and_the_others_stay(place: int, edited: Resource) -> None:
    residue = stored(keep(RANGES, NATURAL))
    now = {"range": [edited if at == place else said for at, said in enumerate(NATURAL["range"])]}
    shown = {
        **RANGES["range"][place],
        **{n: v for n, v in edited.items() if v != NATURAL["range"][place].get(n)},
    }
    wanted = {"range": [shown if at == place else one for at, one in enumerate(RANGES["range"])]}
    assert_same(restore(now, residue), wanted)


def test_what_icure_alone_says_beside_a_list_is_not_shown_until_it_changes() -> None:
    kept: Resource = {"performer": [{"reference": "PractitionerRole/r"}]}
    natural: Resource = {"performer": [{"reference": "Practitioner/caller"}]}
    edited: Resource = {"performer": [{"reference": "Practitioner/other"}]}
    residue = stored(keep(kept, natural, lambda name: [None]))
    assert_same(restore(natural, residue), kept)
    assert edited["performer"][0] in restore(edited, residue)["performer"]


def test_the_codec_tells_which_of_two_alike_members_a_base_came_from() -> None:
    kept: Resource = {
        "component": [{"text": "a", "code": 1, "id": "lost"}, {"text": "a", "code": 1, "id": "said"}]
    }
    natural: Resource = {"component": [{"text": "a", "code": 1}]}
    asked: list[str] = []

    def alone(name: str) -> list[Json]:
        asked.append(name)
        return [None, natural["component"][0]]

    residue = stored(keep(kept, natural, alone))
    assert asked == ["component"]
    assert restore({}, residue) == {"component": [{"text": "a", "code": 1, "id": "lost"}]}
