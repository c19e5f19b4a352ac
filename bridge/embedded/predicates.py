"""The predicates that a filter chain applies to whole entities.

Facts: a comparison with null on the left is false; `LIKE` is about the whole text.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

from bridge.embedded.errors import BadRequest
from bridge.embedded.model import Entity

Predicate = Callable[[Entity], bool]
MAX_DEPTH = 32
MAX_PATTERN_LENGTH = 200
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "EQUAL": operator.eq,
    "NOTEQUAL": operator.ne,
    "GREATERTHAN": operator.gt,
    "SMALLERTHAN": operator.lt,
    "GREATERTHANOREQUAL": operator.ge,
    "SMALLERTHANOREQUAL": operator.le,
}
SYMBOLS = {
    "==": "EQUAL",
    "!=": "NOTEQUAL",
    ">": "GREATERTHAN",
    "<": "SMALLERTHAN",
    ">=": "GREATERTHANOREQUAL",
    "<=": "SMALLERTHANOREQUAL",
    "%=": "LIKE",
    "%%=": "ILIKE",
}


def predicate(given: Any, depth: int = 0) -> Predicate:
    """Returns the predicate that JSON describes; raises `BadRequest`."""
    if type(given) is not dict or depth > MAX_DEPTH:
        raise BadRequest("Invalid JSON predicate format")
    match given.get("$type"):
        case "AlwaysPredicate":
            return lambda entity: True
        case "NotPredicate":
            inner = predicate(given.get("predicate"), depth + 1)
            return lambda entity: not inner(entity)
        case "AndPredicate":
            parts = _parts(given, depth)
            return lambda entity: all(part(entity) for part in parts)
        case "OrPredicate":
            parts = _parts(given, depth)
            return lambda entity: any(part(entity) for part in parts)
        case "KeyValuePredicate":
            return _key_value(given)
    raise BadRequest("Invalid JSON predicate format: no such predicate")


def _parts(given: Entity, depth: int) -> list[Predicate]:
    inner = given.get("predicates")
    if type(inner) is not list:
        raise BadRequest("the predicate must have predicates")
    return [predicate(part, depth + 1) for part in inner]


def _key_value(given: Entity) -> Predicate:
    key, name, wanted = given.get("key"), given.get("operator"), given.get("value")
    if type(key) is not str or type(name) is not str:
        raise BadRequest("the predicate must have key and operator")
    name = SYMBOLS.get(name, name)
    if name in ("LIKE", "ILIKE"):
        return _like(key, wanted, re.IGNORECASE if name == "ILIKE" else 0)
    compare = COMPARISONS.get(name)
    if compare is None:
        raise BadRequest("the predicate has an unknown operator")

    def holds(entity: Entity) -> bool:
        value = _property(entity, key)
        if value is None:
            return False
        try:
            return compare(value, wanted)
        except TypeError:
            return False

    return holds


def _like(key: str, wanted: Any, flags: int) -> Predicate:
    """Returns whether a property is like a pattern in which only `.`, `*`, `+` and `?` are more than text.

    Strategy: full regular expressions of a client could keep the server busy for ever.
    """
    if type(wanted) is not str or len(wanted) > MAX_PATTERN_LENGTH:
        raise BadRequest("the predicate must have a short string as value")
    pieces = [piece for piece in re.split(r"(\.\*)", wanted) if piece]
    pattern = re.compile(
        "".join(".*" if piece == ".*" else re.escape(piece) for piece in pieces), flags | re.DOTALL
    )

    def holds(entity: Entity) -> bool:
        value = _property(entity, key)
        return type(value) is str and pattern.fullmatch(value) is not None

    return holds


def _property(entity: Entity, path: str) -> Any:
    value: Any = entity
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
