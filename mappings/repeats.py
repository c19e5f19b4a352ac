"""What was made of a content before, to be used again for the same content.

Strategy: a laboratory's import says the same codes, categories, units and ranges in every result. What a mapping makes
of them depends on their content and the context alone, so a context may remember it. What is remembered is one
request's: nothing that one caller sent reaches another.

Rule: what is remembered is shared, so what a mapping returned is never changed in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mappings.values import Json

MANY = 1_000
"""Contents of one kind that are remembered; then all of them are forgotten."""
IN_VAIN = 100
"""Contents of one kind and none of them twice, as identifiers are: no more are remembered."""
LONG = 4_000
"""Contents of more characters than this are not remembered."""

key_of: Callable[[Json], str] = repr
"""From a content to a text that only the same content has: the digits of a number count, 1 is not true."""


class Shelf:
    """What was made of the contents of one kind."""

    __slots__ = ("_made", "came_again")

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}
        self.came_again = False

    def __len__(self) -> int:
        return len(self._made)

    def get(self, key: str) -> Any:
        """Returns what was made of a content, None when that is not known."""
        made = self._made.get(key)
        if made is not None:
            self.came_again = True
        return made

    def put(self, key: str, made: Any) -> None:
        """Remembers what was made of a content."""
        if len(self._made) >= MANY:
            self._made.clear()
        if len(key) <= LONG:
            self._made[key] = made


class Repeats:
    """What was made before in one request, by the kind of content."""

    __slots__ = ("_shelves",)

    def __init__(self) -> None:
        self._shelves: dict[object, Shelf] = {}

    def of(self, kind: object) -> Shelf | None:
        """Returns the shelf of a kind of content, None when contents of this kind do not repeat."""
        shelf = self._shelves.get(kind)
        if shelf is None:
            shelf = self._shelves[kind] = Shelf()
        return shelf if shelf.came_again or len(shelf) < IN_VAIN else None


def repeated(repeats: Repeats | None, function: Callable[..., Any], *contents: Json) -> Any:
    """Returns what a function of the contents alone says; it is asked once for the same contents."""
    shelf = None if repeats is None else repeats.of(function)
    if shelf is None:
        return function(*contents)
    key = key_of(contents)
    made = shelf.get(key)
    if made is None:
        made = function(*contents)
        shelf.put(key, made)
    return made
