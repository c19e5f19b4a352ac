"""JSON text and the document it says, without loss: numbers keep their source text.

Facts: https://hl7.org/fhir/R4/json.html. JSON itself allows what FHIR or a safe server cannot take: a name
twice in one object, half a surrogate pair, control characters, numbers and nesting without bound.

Strategy: a flaw that the parser's hooks see is left in the document in place of the value. After parsing, one
search tells the path of every flaw; a document without any is never searched.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import orjson

from bridge.errors import Invalid, Issue
from bridge.wire.shapes import element_order, is_element_name
from mappings.values import Json, Number, Resource

MAX_DEPTH = 64
"""Objects and lists inside each other; a resource with contained resources in a Bundle has about 20."""

MAX_DIGITS = 64
MAX_EXPONENT = 400
MAX_FLAWS = 200
"""Problems told of one document; an answer must not be larger than the request for it."""
PIECE_BYTES = 1 << 16

_EXACT_DIGITS = 15
ESCAPED_TROUBLE = re.compile(rb"\\u(?:00[01]|[dD][89a-fA-F])")
_TROUBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")


class _Flaw:
    """Stands in the document for a value that cannot be taken."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class _Repeated(dict[str, Any]):
    """Stands in the document for an object that has a name more than once."""

    __slots__ = ("names",)
    names: list[str]


_TOO_LONG = f"A number has at most {MAX_DIGITS} digits."
_TOO_FAR = f"The exponent of a number is between -{MAX_EXPONENT} and {MAX_EXPONENT}."


Members = Callable[[list[tuple[str, Any]]], Json]


class Hooks:
    """What the parser calls; `flawed` tells whether any of it has to be searched for."""

    __slots__ = ("flawed",)

    def __init__(self) -> None:
        self.flawed = False

    def flaw(self, text: str) -> _Flaw:
        """Returns what stands for a value that cannot be taken."""
        self.flawed = True
        return _Flaw(text)

    def members(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Returns the object of these members."""
        members = dict(pairs)
        if len(members) == len(pairs):
            return members
        self.flawed = True
        repeated = _Repeated(members)
        repeated.names = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
        return repeated

    def integer(self, text: str) -> int | Number | _Flaw:
        """Returns the number that digits say."""
        if len(text) <= _EXACT_DIGITS and text != "-0":
            return int(text)
        if len(text) - text.startswith("-") > MAX_DIGITS:
            return self.flaw(_TOO_LONG)
        return Number(text) if text == "-0" or len(text.lstrip("-")) > _EXACT_DIGITS else int(text)

    def decimal(self, text: str) -> Number | _Flaw:
        """Returns the number that digits with a point or an exponent say."""
        digits, _, exponent = text.replace("E", "e").partition("e")
        if len(digits) - digits.count("-") - digits.count(".") > MAX_DIGITS:
            return self.flaw(_TOO_LONG)
        # Leading zeros are legal in an exponent; the length test keeps `int` from a text without bound.
        if exponent and (len(exponent.lstrip("+-0")) > 3 or abs(int(exponent[-4:])) > MAX_EXPONENT):
            return self.flaw(_TOO_FAR)
        return Number(text)

    def constant(self, text: str) -> _Flaw:
        """Returns what stands for `NaN` or `Infinity`."""
        return self.flaw("NaN and Infinity are not JSON numbers.")

    def decoder(self, members: Members | None = None) -> json.JSONDecoder:
        """Returns a parser that calls these."""
        return json.JSONDecoder(
            object_pairs_hook=members,
            parse_float=self.decimal,
            parse_int=self.integer,
            parse_constant=self.constant,
        )


def parse(body: bytes, *, max_depth: int = MAX_DEPTH) -> Resource:
    """Returns the JSON object that a request body says; its non-integer numbers are `Number`.

    Raises `Invalid` with every flaw and its path. https://hl7.org/fhir/R4/json.html
    """
    text = decode(body)
    hooks = Hooks()
    document = _load(text, hooks.decoder(hooks.members))
    if type(document) is not dict and not isinstance(document, _Repeated):
        raise _invalid("The body is not a JSON object.")
    if body.count(b"{") + body.count(b"[") > max_depth and deeper_than(document, max_depth):
        raise _invalid(f"More than {max_depth} objects and lists stand inside each other.")
    if hooks.flawed or ESCAPED_TROUBLE.search(body):
        _search(document)
    return document


def loads(text: str | bytes) -> Json:
    """Returns the value that JSON text of our own writing says; its non-integer numbers are `Number`.

    Names that stand twice are not looked for.
    """
    return _load(text.decode() if isinstance(text, bytes) else text, _OWN)


def decode(body: bytes) -> str:
    """Returns the text of a body, without byte order mark. Raises `Invalid` for none."""
    if body.startswith(b"\xef\xbb\xbf"):
        body = body[3:]
    if not body or body.isspace():
        raise _invalid("The body is empty.")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as e:
        raise _invalid(f"The body is not UTF-8: byte {e.start} cannot be read.") from None


_OWN = Hooks().decoder()


def _load(text: str, decoder: json.JSONDecoder) -> Json:
    try:
        return decoder.decode(text)
    except json.JSONDecodeError as e:
        raise _invalid(f"The body is not JSON: {e.msg}, line {e.lineno} column {e.colno}.") from None
    except RecursionError:
        raise _invalid("Too many objects and lists stand inside each other.") from None


def _invalid(text: str) -> Invalid:
    return Invalid(issues=[Issue("structure", text)])


_NESTING = frozenset((dict, list, _Repeated))


def deeper_than(document: Json, max_depth: int) -> bool:
    """Whether more objects and lists than that stand inside each other."""
    level = [document] if type(document) in _NESTING else []
    for _ in range(max_depth):
        level = [
            value
            for container in level
            for value in (container if type(container) is list else container.values())
            if type(value) in _NESTING
        ]
        if not level:
            return False
    return True


def _search(document: Resource) -> None:
    """Raises `Invalid` if there is a flaw in the document, with the path of each."""
    name = document.get("resourceType")
    guess = "Bundle" if "entry" in document else "Resource"
    root = name if isinstance(name, str) and is_element_name(name) else guess
    issues: list[Issue] = []
    for path, text in flaws(document, root):
        issues.append(Issue("structure", text, path))
        if len(issues) == MAX_FLAWS:
            break
    if issues:
        raise Invalid(issues=issues)


def flaws(value: Json, path: str) -> Iterator[tuple[str, str]]:
    """Yields path and text of every flaw in a value that stands at this path."""
    if isinstance(value, _Flaw):
        yield path, value.text
    elif isinstance(value, str):
        if _TROUBLE.search(value):
            yield path, "The string holds a control character or half of a surrogate pair."
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from flaws(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        if isinstance(value, _Repeated):
            for name in value.names:
                yield _below(path, name), "The same name stands more than once in one object."
        for name, item in value.items():
            if _TROUBLE.search(name):
                yield path, "A name holds a control character or half of a surrogate pair."
            yield from flaws(item, _below(path, name))


def _below(path: str, name: str) -> str:
    return f"{path}.{name.lstrip('_')}" if is_element_name(name) else path


def number(value: Any) -> orjson.Fragment:
    """Returns the source text of a `Number`: the `default` of `orjson.dumps`."""
    if not isinstance(value, Number):
        raise TypeError(f"{type(value).__name__} is not JSON")
    return orjson.Fragment(value.text)


def dump(resource: Json) -> bytes:
    """Returns the JSON text of a resource, elements in FHIR's order and every number in its source text."""
    return orjson.dumps(_ordered(resource), default=number)


def dump_bundle(bundle: Resource, entries: Iterable[Json]) -> Iterator[bytes]:
    """Yields the JSON text of a Bundle with these entries, in pieces of about 64 KiB, as they come."""
    text = bytearray(dump(bundle)[:-1] + b',"entry":[')
    for at, entry in enumerate(entries):
        text += (b"," if at else b"") + orjson.dumps(_ordered_entry(entry), default=number)
        if len(text) >= PIECE_BYTES:
            yield bytes(text)
            text.clear()
    yield bytes(text) + b"]}"


def dump_pretty(resource: Json) -> bytes:
    """Returns the JSON text of a resource, indented for people. https://hl7.org/fhir/R4/http.html#parameters"""
    return orjson.dumps(_ordered(resource), default=number, option=orjson.OPT_INDENT_2)


def _ordered(resource: Json) -> Json:
    if not isinstance(resource, dict) or "resourceType" not in resource:
        return resource
    order = element_order(resource["resourceType"])
    last = len(order)
    ordered = {key: resource[key] for key in sorted(resource, key=lambda key: order.get(key, last))}
    if resource["resourceType"] == "Bundle" and isinstance(entries := resource.get("entry"), list):
        ordered["entry"] = list(map(_ordered_entry, entries))
    return ordered


def _ordered_entry(entry: Json) -> Json:
    if not isinstance(entry, dict) or "resource" not in entry:
        return entry
    return {**entry, "resource": _ordered(entry["resource"])}
