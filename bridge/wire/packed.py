"""A Bundle whose resources are text again: as objects they take five times the memory.

Rule: a Bundle is read as `parse` reads it. What is not plainly one, or is flawed anywhere, is left to `parse`, which
says what is wrong with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import orjson

from bridge.wire.text import (
    ESCAPED_TROUBLE,
    MAX_DEPTH,
    Hooks,
    decode,
    deeper_than,
    flaws,
    loads,
    number,
    parse,
)
from mappings.values import Json, Resource

PACK_FROM_BYTES = 1 << 20
"""A Bundle that is shorter takes little memory, and is read once instead of three times."""
_BLANK = re.compile(r"[ \t\n\r]*")
_AROUND = 2
"""The Bundle and its list of entries: the objects and lists that every entry stands in."""


class Packed:
    """A resource as text."""

    __slots__ = ("head", "text")

    def __init__(self, resource: Resource) -> None:
        self.text = compact(resource)
        self.head: Resource = {name: resource[name] for name in ("resourceType", "id") if name in resource}
        """What the envelope of a Bundle asks of it."""

    def unpack(self) -> Resource:
        """Returns the resource, read anew."""
        resource: Resource = loads(self.text)
        return resource


def compact(value: Json) -> bytes:
    """Returns JSON text that takes as much memory as it is long.

    Facts: what `orjson.dumps` returns lies in a place of twice its length, and what is left over serves nobody.
    """
    return bytes(memoryview(orjson.dumps(value, default=number)))


def unpacked(resource: Resource | Packed) -> Resource:
    """Returns a resource, read anew when it was packed."""
    return resource.unpack() if isinstance(resource, Packed) else resource


def parse_bundle(body: bytes, *, max_depth: int = MAX_DEPTH, pack_from: int = PACK_FROM_BYTES) -> Resource:
    """Returns the JSON object that a request body says; of one so long the resources of the entries are `Packed`.

    Raises `Invalid` with every flaw and its path. https://hl7.org/fhir/R4/json.html
    """
    if len(body) < pack_from:
        return parse(body, max_depth=max_depth)
    try:
        return _Plain(decode(body), ESCAPED_TROUBLE.search(body) is not None, max_depth).bundle()
    except (_NotPlain, json.JSONDecodeError, RecursionError):
        return parse(body, max_depth=max_depth)


class _NotPlain(Exception):
    """This is no JSON, or not the Bundle that most are."""


class _Plain:
    """A text that is read from its beginning to its end, entry by entry."""

    def __init__(self, text: str, troubled: bool, max_depth: int) -> None:
        self._text = text
        self._troubled = troubled
        """Whether something is escaped that may be a flaw."""
        self._max_depth = max_depth
        self._hooks = Hooks()
        self._decoder = self._hooks.decoder(self._hooks.members)
        self._at = 0

    def bundle(self) -> Resource:
        """Returns the object that the text says."""
        self._expect("{")
        bundle = self._hooks.members(list(self._members()))
        self._blank()
        if self._at != len(self._text):
            raise _NotPlain
        self._check(bundle, 0, self._max_depth)
        return bundle

    def _members(self) -> Iterator[tuple[str, Json]]:
        for _ in self._items("}"):
            name = self._value()
            self._expect(":")
            if type(name) is not str:
                raise _NotPlain
            yield name, list(self._entries()) if name == "entry" and self._take("[") else self._value()

    def _entries(self) -> Iterator[Json]:
        for _ in self._items("]"):
            begins, entry = self._at, self._value()
            self._check(entry, begins, self._max_depth - _AROUND)
            resource = entry.get("resource") if type(entry) is dict else None
            if type(resource) is dict and type(resource.get("resourceType")) is str:
                entry["resource"] = Packed(resource)
            yield entry

    def _check(self, value: Json, begins: int, max_depth: int) -> None:
        """Raises `_NotPlain` for a value that `parse` must look at; its text begins there and ends where we are."""
        containers = sum(self._text.count(mark, begins, self._at) for mark in "{[")
        if self._hooks.flawed or (containers > max_depth and deeper_than(value, max_depth)):
            raise _NotPlain
        if self._troubled and next(flaws(value, ""), None) is not None:
            raise _NotPlain

    def _items(self, end: str) -> Iterator[None]:
        """Yields where an item begins, as long as there is another."""
        if self._take(end):
            return
        yield
        while not self._take(end):
            self._expect(",")
            yield

    def _value(self) -> Json:
        self._blank()
        value, self._at = self._decoder.raw_decode(self._text, self._at)
        return value

    def _take(self, mark: str) -> bool:
        self._blank()
        found = self._text.startswith(mark, self._at)
        self._at += len(mark) if found else 0
        return found

    def _expect(self, mark: str) -> None:
        if not self._take(mark):
            raise _NotPlain

    def _blank(self) -> None:
        match = _BLANK.match(self._text, self._at)
        self._at = match.end() if match else self._at
