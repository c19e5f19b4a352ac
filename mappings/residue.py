"""The keep rule: what FHIR said and iCure cannot say is kept, and used again while it still agrees with iCure.

Strategy: a three-way merge. The *base* is what iCure alone said when FHIR was written, *kept* is what FHIR said.
`keep` writes down where the two differ, by path; `restore` takes what iCure alone says *now*: where that is still the
base, the kept text is used, where it changed, iCure wins for that element only.

A node of the residue says of one element:
  {"k": kept, "b": base}   FHIR said `kept` where iCure says `base`; either may be absent
  {"o": {name: node}}      an object of both, with members that differ; "s": what it stands for, when it is a name
  {"l": [item], "x": [base]}  a list of both: its members in FHIR's order, and what iCure says beyond them.
An item is {"k": kept} (FHIR alone), {"b": base} (the same on both sides), or {"b": base, "n": node}; "i" is the place
of `base` in iCure's list where the two orders differ.

Rules: list members are aligned by content, never by index. A value and its `_value` sibling are one element, and so are
the members of a choice (value[x]).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

from mappings.repeats import Repeats, repeated
from mappings.values import Json, Number, Resource

Node = dict[str, Any]
Residue = dict[str, Any]
"""Nodes by element name, JSON-able; `{}` when nothing is kept."""

LONG = 80
"""Longer strings stand in a base as a digest."""
SIMILAR = 0.5
"""How much of two list members must be the same for one to be an edit of the other."""
SOME, MOST = 0.01, 0.51
"""How much of what iCure says of a list member stands in it: where nothing else tells, where the codec was asked."""
MANY = 40_000
"""More pairs than these are not compared."""

_DATATYPES = [
    "Age",
    "Quantity",
    "CodeableConcept",
    "String",
    "Boolean",
    "Integer",
    "Range",
    "Ratio",
    "SampledData",
    "Time",
    "DateTime",
    "Period",
    "Instant",
    "Timing",
]
CHOICES = {
    f"{choice}{datatype}": f"{choice}[x]"
    for choice in ("value", "effective", "deceased", "multipleBirth", "author", "onset", "abatement")
    for datatype in (*_DATATYPES, "Reference")
}
"""The members of choices, by their names in JSON."""


def names_of(element: str) -> set[str]:
    """Returns the names in JSON of an element: its own or those of all members of the choice, and their siblings."""
    choice = CHOICES.get(element)
    names = {name for name, of in CHOICES.items() if choice and of == choice} or {element}
    return names | {f"_{name}" for name in names}


_CODING = frozenset(("system", "version", "code", "display"))
_ZONED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d)")
_VALUE, _EXTRA = "", "_"
"""Members of the object that stands for a primitive together with its `_` sibling; FHIR has no such names."""


Alone = Callable[[str], list[Json]]


def keep(
    kept: Resource, base: Resource, alone: Alone | None = None, repeats: Repeats | None = None
) -> Residue:
    """Returns what `base` does not say of `kept`.

    `alone` tells for each member of a list what iCure would say if it were the only one; it is asked where the members
    cannot be told by what they have in common. `repeats` remembers lists.
    """
    return _kept(_gathered(kept), _gathered(base), alone, repeats)


def restore(base: Resource, nodes: Residue) -> Resource:
    """Returns what iCure says now, with what was kept wherever it still agrees."""
    return _spread(_restored_members(_gathered(base), nodes))


def _kept(
    kept: Resource, base: Resource, alone: Alone | None = None, repeats: Repeats | None = None
) -> Residue:
    nodes: Residue = {}
    for name, value in kept.items():
        if name not in base:
            nodes[name] = {"k": value}
        elif (said := base[name]) != value:
            nodes[name] = _node(name, value, said, alone, repeats)
    if not base.keys() <= kept.keys():
        nodes |= {name: {"b": _brief(said)} for name, said in base.items() if name not in kept}
    return nodes


def _restored_members(base: Resource, nodes: Residue) -> Resource:
    result = dict(base)
    for name, node in nodes.items():
        value = _restored(name, result.get(name), node)
        if value is None:
            result.pop(name, None)
        else:
            result[name] = value
    return result


def _node(
    name: str, kept: Json, base: Json, alone: Alone | None = None, repeats: Repeats | None = None
) -> Node:
    if isinstance(kept, dict) and isinstance(base, dict):
        if not name.endswith("[x]"):
            node: Node = {"o": keep(kept, base)}
            if stands_for := _stands_for(base):
                node["s"] = stands_for
            return node
        if kept.keys() == base.keys():
            return {"o": _kept(kept, base)}
    elif isinstance(kept, list) and isinstance(base, list):
        return _list_node(kept, base, (lambda: alone(name)) if alone else None, repeats)
    return {"k": kept, "b": _brief(base)}


def _restored(name: str, base: Json, node: Node) -> Json:
    """Returns the element for what iCure says now, None when it is absent on both sides."""
    if "o" in node:
        if not isinstance(base, dict) or not _still_stands(base, node.get("s")):
            return base
        return _restored_members(base, node["o"]) if name.endswith("[x]") else restore(base, node["o"])
    if "l" in node:
        return _restored_list(base or [], node) if base is None or isinstance(base, list) else base
    if isinstance(base, list) and isinstance(node.get("k"), list) and "b" not in node:
        return base + node["k"]
    return node.get("k") if _agrees(base, node.get("b")) else base


# names


def _stands_for(value: Resource) -> list[Json]:
    """Returns what a Reference, a Coding or a CodeableConcept stands for: its target or its codes; else nothing.

    Rule: a display or a text says what something is. It is not kept when that has become something else.
    """
    if "reference" in value:
        return [value["reference"]]
    if isinstance(value.get("coding"), list):
        return [code for coding in value["coding"] for code in _stands_for(coding)]
    if "code" in value and value.keys() <= _CODING:
        return [[value.get(name) for name in ("system", "code", "version")]]
    return []


def _still_stands(value: Resource, then: list[Json] | None) -> bool:
    return not then or any(name in then for name in _stands_for(value))


# lists


def _list_node(
    kept: list[Json], base: list[Json], alone: Callable[[], list[Json]] | None, repeats: Repeats | None
) -> Node:
    covered: Node | None = repeated(repeats, _covered, kept, base)
    if covered is not None:
        return covered
    pairs = _pairs(kept, base, alone)
    places = [pairs[i] for i in range(len(kept)) if i in pairs]
    ordered = all(a < b for a, b in pairwise(places))
    items: list[Node] = []
    for i, value in enumerate(kept):
        item = _item(value, base[pairs[i]]) if i in pairs else {"k": value}
        if i in pairs and not ordered:
            item["i"] = pairs[i]
        items.append(item)
    taken = set(places)
    beyond = [_brief(said) for j, said in enumerate(base) if j not in taken]
    return {"l": items, "x": beyond} if beyond else {"l": items}


def _covered(kept: list[Json], base: list[Json]) -> Node | None:
    """Returns the node of lists whose members stand for each other in turn, None for others."""
    if len(kept) != len(base) or not all(map(covers, kept, base)):
        return None
    return {"l": [_item(value, said) for value, said in zip(kept, base, strict=True)]}


def _item(value: Json, said: Json) -> Node:
    item: Node = {"b": _brief(said)}
    if said != value:
        item["n"] = _node("", value, said)
    return item


def _restored_list(base: list[Json], node: Node) -> Json:
    items: list[Node] = node["l"]
    if base and "x" not in node and [item.get("b", node) for item in items] == base and "i" not in items[0]:
        return [_restored_item(said, item) for said, item in zip(base, items, strict=True)]
    held = [at for at, item in enumerate(items) if "b" in item]
    held.sort(key=lambda at: items[at].get("i", 0))
    then = [*(items[at]["b"] for at in held), *node.get("x", ())]
    if len(base) == len(then) and all(map(_agrees, base, then)):
        said = dict(zip(held, base, strict=False))
        return [_restored_item(said[at], item) if at in said else item["k"] for at, item in enumerate(items)]
    now = [_brief(said) for said in base]
    pairs = align(then, now)
    replaced = _replaced(pairs, len(held), len(now))
    found = {at: j for i, at in enumerate(held) if (j := pairs.get(i, replaced.get(i))) is not None}
    hidden = {j for i, j in pairs.items() if i >= len(held) and then[i] == now[j]}
    values = {at: _restored_item(base[j], items[at]) for at, j in found.items() if j in pairs.values()}
    for i, j in replaced.items():
        one_text = _is_text(then[i]) and _is_text(now[j])
        values[held[i]] = _restored_item(base[j], items[held[i]]) if one_text else base[j]
    places = [found[at] for at in held if at in found]
    if all(a < b for a, b in pairwise(places)):
        order = [at for at, item in enumerate(items) if "b" not in item or at in found]
    else:
        order = _followed(items, found)
    return _with_new(base, items, values, order, found, hidden) or None


def _replaced(pairs: dict[int, int], then: int, now: int) -> dict[int, int]:
    """Returns which new member stands alone where one that is gone stood alone."""
    taken = set(pairs.values())
    found = {}
    for i in range(then):
        j = pairs.get(i - 1, -1 if i == 0 else now) + 1
        if (
            i not in pairs
            and j < now
            and j not in taken
            and pairs.get(i + 1, now if i + 1 == then else -1) == j + 1
        ):
            found[i] = j
    return found


def _is_text(value: Json) -> bool:
    """Whether an object says one text and nothing else, so that an edit leaves nothing to know it by."""
    return isinstance(value, dict) and value.keys() == {"text"}


def _restored_item(base: Json, item: Node) -> Json:
    return _restored("", base, item["n"]) if "n" in item else base


def _followed(items: list[Node], found: dict[int, int]) -> list[int]:
    """Returns the places of items in iCure's new order; what FHIR alone says follows what it stood behind."""
    behind: dict[int, list[int]] = defaultdict(list)
    last = -1
    for at, item in enumerate(items):
        if "b" in item:
            last = at
        else:
            behind[last].append(at)
    order = list(behind[-1])
    for at in sorted(found, key=found.__getitem__):
        order += [at, *behind.pop(at, ())]
    return order + [at for rest, places in behind.items() if rest != -1 for at in places]


def _with_new(
    base: list[Json],
    items: list[Node],
    values: dict[int, Json],
    order: list[int],
    found: dict[int, int],
    hidden: set[int],
) -> list[Json]:
    """Returns the members in `order`, and what is new in iCure behind the neighbour that it has there."""
    known = {j: at for at, j in found.items()}
    new_behind: dict[int, list[Json]] = defaultdict(list)
    last = -1
    for j, said in enumerate(base):
        if j in known:
            last = known[j]
        elif j not in hidden:
            new_behind[last].append(said)
    result = new_behind[-1]
    for at in order:
        value = values[at] if at in values else items[at].get("k")
        if value is not None:
            result.append(value)
        result += new_behind.get(at, ())
    return result


def _pairs(kept: list[Json], base: list[Json], alone: Callable[[], list[Json]] | None) -> dict[int, int]:
    """Returns which base member each kept one was written as; a base says only a part of what was kept."""
    left, right = [_gather_member(v) for v in kept], [_gather_member(v) for v in base]
    pairs = _same(left, right)
    if alone is None:
        _add_similar(left, right, pairs, partial=True, least=SOME)
        return pairs
    free = [j for j in range(len(base)) if j not in pairs.values()]
    for i, said in enumerate(alone() if free else ()):
        if i not in pairs and (j := next((j for j in free if base[j] == said), None)) is not None:
            pairs[i] = j
            free.remove(j)
    _add_similar(left, right, pairs, partial=True, least=MOST)
    return pairs


def covers(value: Json, part: Json) -> bool:
    """Whether all that `part` says stands in `value`; a number does however it is written."""
    if value == part:
        return True
    if isinstance(part, dict):
        if not isinstance(value, dict) or not part.keys() <= value.keys():
            return False
        return all(value[n] == v or covers(value[n], v) for n, v in part.items())
    if isinstance(part, list):
        return isinstance(value, list) and len(part) == len(value) and all(map(covers, value, part))
    return isinstance(value, Number) and Decimal.__eq__(value, part) is True


def align(left: Sequence[Json], right: Sequence[Json], *, partial: bool = False) -> dict[int, int]:
    """Returns which member of `right` each of `left` is: the same one first, else the most similar.

    `partial`: those of `right` say only a part of what those of `left` say.
    """
    if not left or not right:
        return {}
    pairs = _same(left, right)
    _add_similar(left, right, pairs, partial=partial, least=SIMILAR)
    return pairs


def _same(left: Sequence[Json], right: Sequence[Json]) -> dict[int, int]:
    """Returns the pairs of equal members, those at both ends of the lists first: repeated ones keep their places."""
    start, short = 0, min(len(left), len(right))
    while start < short and left[start] == right[start]:
        start += 1
    end = 0
    while end < short - start and left[-1 - end] == right[-1 - end]:
        end += 1
    pairs = {i: i for i in range(start)} | {len(left) - 1 - k: len(right) - 1 - k for k in range(end)}
    if start + end < short:
        places: dict[str, deque[int]] = defaultdict(deque)
        for j in range(start, len(right) - end):
            places[_text(right[j])].append(j)
        for i in range(start, len(left) - end):
            if same := places.get(_text(left[i])):
                pairs[i] = same.popleft()
    return pairs


def _add_similar(
    left: Sequence[Json], right: Sequence[Json], pairs: dict[int, int], *, partial: bool, least: float
) -> None:
    """Adds the pairs of what is left over, those with most in common first; very long lists pair by place."""
    taken = set(pairs.values())
    here = {i: _leaves(left[i]) for i in range(len(left)) if i not in pairs}
    there = {j: _leaves(right[j]) for j in range(len(right)) if j not in taken} if here else {}
    near = len(here) * len(there) > MANY
    found = [
        (-len(a & there[j]), -score, abs(i - j), i, j)
        for i, a in here.items()
        for j in ((i,) if near else there)
        if j in there and (score := _similarity(a, there[j], partial=partial)) >= least
    ]
    for *_, i, j in sorted(found):
        if i not in pairs and j not in taken:
            pairs[i] = j
            taken.add(j)


Leaves = frozenset[tuple[str, Any]]


def _leaves(value: Json) -> Leaves:
    """Returns all primitive members of a value with their paths; places in lists and digits do not count."""
    found: list[tuple[str, Any]] = []
    _collect(value, "", found)
    return frozenset(found)


def _collect(value: Json, path: str, found: list[tuple[str, Any]]) -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            _collect(inner, f"{path}.{name}" if name else path, found)
    elif isinstance(value, list):
        for inner in value:
            _collect(inner, path, found)
    else:
        found.append((path, Decimal(value) if isinstance(value, Number) else value))


def _similarity(a: Leaves, b: Leaves, *, partial: bool) -> float:
    whole = len(b) if partial else max(len(a), len(b))
    return len(a & b) / whole if whole else 0.0


def _text(value: Json) -> str:
    return json.dumps(value, sort_keys=True, default=repr)


def _brief(value: Json) -> Json:
    """Returns a value with digests for its long strings, and without zones: those are a matter of configuration."""
    if isinstance(value, str):
        if len(value) in (20, 25) and _ZONED.fullmatch(value):
            return value[:19]
        return value if len(value) <= LONG else "sha256:" + hashlib.sha256(value.encode()).hexdigest()[:32]
    if isinstance(value, dict):
        return {name: _brief(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_brief(inner) for inner in value]
    return value


def _agrees(said: Json, brief: Json) -> bool:
    """Whether a value is what a base has written down; what a brief says in full has itself as its brief."""
    return bool(said == brief or _brief(said) == brief)


# one element, several members


def _gathered(value: Resource) -> Resource:
    """Returns an object with `x` and `_x` as one member, and with the member of a choice under its `[x]`."""
    result = _with_siblings(value) if "_" in "".join(value) else value
    if not CHOICES.keys().isdisjoint(result):
        gathered: Resource = {}
        for name, inner in result.items():
            choice = CHOICES.get(name)
            if choice:
                gathered.setdefault(choice, {})[name] = inner
            else:
                gathered[name] = inner
        return gathered
    return result


def _gather_member(value: Json) -> Json:
    return _gathered(value) if isinstance(value, dict) else value


def _with_siblings(value: Resource) -> Resource:
    result = {name: inner for name, inner in value.items() if name[:1] != "_" or len(name) == 1}
    for name, extra in value.items():
        if name[:1] == "_" and len(name) > 1:
            plain = result.get(name[1:])
            if isinstance(extra, list):
                values = plain if isinstance(plain, list) else [None] * len(extra)
                result[name[1:]] = [_joined(v, x) for v, x in zip(values, extra, strict=False)]
            else:
                result[name[1:]] = _joined(plain, extra)
    return result


def _joined(value: Json, extra: Json) -> Json:
    if extra is None:
        return value
    return {_EXTRA: extra} if value is None else {_VALUE: value, _EXTRA: extra}


def _spread(value: Resource) -> Resource:
    """Returns an object with its members as JSON has them: the reverse of `_gathered`."""
    result: Resource = {}
    for name, inner in value.items():
        if not isinstance(inner, (dict, list)):
            result[name] = inner
        elif name.endswith("[x]") and isinstance(inner, dict):
            for choice, chosen in inner.items():
                _put(result, choice, chosen)
        else:
            _put(result, name, inner)
    return result


def _put(result: Resource, name: str, value: Json) -> None:
    if isinstance(value, dict) and (_EXTRA in value or _VALUE in value):
        if _VALUE in value:
            result[name] = value[_VALUE]
        result["_" + name] = value[_EXTRA]
    elif isinstance(value, list) and any(isinstance(v, dict) and (_EXTRA in v or _VALUE in v) for v in value):
        values = [v.get(_VALUE) if isinstance(v, dict) else v for v in value]
        if any(v is not None for v in values):
            result[name] = values
        result["_" + name] = [v.get(_EXTRA) if isinstance(v, dict) else None for v in value]
    else:
        result[name] = value
