"""Resources full of values that occur nowhere else, made along the tables of R4, and a search for them in bytes.

Strategy: every element is filled, each choice in one of several variants. A value says by its look that it is a canary,
so that whatever form it takes on its way (JSON, a fuzzy date, base64, an index) is looked for with a few patterns.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta

from bridge.wire.bindings import REQUIRED
from bridge.wire.shapes import Element, Shape, resource_shape
from mappings.values import Json, Number, Resource

DEEPEST = 4
"""How many elements stand inside each other."""
SIBLINGS_WITHIN = 2
TWO_WITHIN = 1
CONTAINED = ("Patient", "Organization")

_FIRST_DAY = date(1901, 1, 1)
_PATTERNS = [
    re.compile(rb"zq\d{5}q", re.IGNORECASE),
    re.compile(rb"(?<![0-9A-Za-z.])913\d{6}"),
    re.compile(rb"(?<![0-9A-Za-z+/=])19[0-4]\d-?[01]\d-?[0-3]\d"),
    re.compile(rb"\d\d:\d\d:\d\d\.917\d{3}"),
    re.compile(rb"enEw[A-Za-z0-9+/]{8}"),
]
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{16,}")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


@dataclass
class Canaries:
    """Makes resources, and remembers at which element each value stands."""

    elements: dict[bytes, str] = field(default_factory=dict)
    """By what it looks like in bytes."""
    references: set[bytes] = field(default_factory=set)
    """Those that are ids of resources that the bridge asks for upstream."""
    _made: int = 0
    _days: set[date] = field(default_factory=set)

    def variants(self, resource_type: str) -> Iterator[Resource]:
        """Yields resources that together have every element and every choice of a type."""
        shape = resource_shape(resource_type)
        assert shape is not None
        many = max(len(names) for names in _choices(shape).values())
        for at in range(many):
            resource = self._object(shape, "", (), at)
            resource["contained"] = [self._contained(kind, i) for i, kind in enumerate(CONTAINED)]
            if at == 0:
                resource["extension"] += self._extensions_of_every_type()
            yield resource

    def found_in(self, chunks: Iterable[bytes]) -> set[bytes]:
        """Returns the canaries that occur in some bytes, base64 opened."""
        seen: set[bytes] = set()
        for chunk in chunks:
            for text in (chunk, *_opened(chunk)):
                for pattern in _PATTERNS:
                    seen.update(found.lower().replace(b"-", b"") for found in pattern.findall(text))
        return {canary for canary in self.elements if canary.lower().replace(b"-", b"") in seen}

    def _object(self, shape: Shape, path: str, above: tuple[str, ...], variant: int) -> Resource:
        choices = _choices(shape)
        made: Resource = {}
        for key, element in shape.elements.items():
            if element.choice and key.lstrip("_") != _chosen(choices[element.choice], variant, shape):
                continue
            if key == "resourceType":
                made[key] = shape.name
            elif shape.name == "Extension" and key == "extension":
                continue
            elif key.lstrip("_") not in ("contained", "versionId", "lastUpdated"):
                value = self._element(shape, element, f"{path}.{key}" if path else key, above, variant)
                if value is not None:
                    made[key] = value
        return made

    def _element(
        self, shape: Shape, element: Element, path: str, above: tuple[str, ...], variant: int
    ) -> Json:
        depth = path.count(".")
        needed = element.key in shape.required
        if element.any_resource:
            return None
        if element.sibling and (depth > SIBLINGS_WITHIN or shape.name == "Extension"):
            return None
        if element.rule is None and not (needed or element.sibling) and _too_deep(element, depth, above):
            return None
        count = (1 if depth > TWO_WITHIN else 2) if element.many else 0
        at = [f"{path}[{i}]" for i in range(count)] or [path]
        made = [self._value(shape, element, one, above, variant) for one in at]
        return made if element.many else made[0]

    def _value(self, shape: Shape, element: Element, path: str, above: tuple[str, ...], variant: int) -> Json:
        if element.rule is None:
            return self._object(element.shape, path, (*above, element.shape.name), variant)
        bound = REQUIRED.get((shape.name, element.key))
        if bound is not None:
            return sorted(bound)[self._made % len(bound)]
        if (shape.name, element.key) == ("Reference", "reference"):
            return self._reference(path)
        return next(value for value in self._candidates(path, element.key) if element.rule(value) is None)

    def _candidates(self, path: str, key: str) -> Iterator[Json]:
        """Yields a value for each family of primitive types, the most telling first."""
        self._made += 1
        n = self._made
        token, number, day = f"zq{n:05d}q", 913_000_000 + n, _FIRST_DAY + timedelta(days=len(self._days))
        time = f"{n // 3600 % 24:02d}:{n // 60 % 60:02d}:{n % 60:02d}.917{n % 1000:03d}"
        encoded = b64encode(f"{token}.".encode()).decode()
        base64_like = key in ("data", "hash", "blob")
        for value, needle in (
            *(((encoded, encoded),) if base64_like and "SampledData" not in path else ()),
            (token, token),
            (f"{day}T10:11:12+01:00", str(day)),
            (str(day), str(day)),
            (f'<div xmlns="http://www.w3.org/1999/xhtml">{token}</div>', token),
            (time, time),
            (f"urn:oid:1.2.{number}", str(number)),
            (f"urn:uuid:00000000-0000-4000-8000-000{number}", str(number)),
            (encoded, encoded),
            (number, str(number)),
            (Number(f"{number}.250"), str(number)),
            (True, ""),
        ):
            if needle:
                self.elements[needle.encode()] = path
            if needle == str(day):
                self._days.add(day)
            yield value
            if needle:
                del self.elements[needle.encode()]

    def _reference(self, path: str) -> str:
        self._made += 1
        token = f"zq{self._made:05d}q"
        self.elements[token.encode()] = path
        kinds = (
            "Location",
            "Practitioner",
            "Patient",
            "Organization",
            "Observation",
            "http://zq.invalid/Patient",
        )
        kind = kinds[self._made % len(kinds)]
        if kind in ("Practitioner", "Patient", "Organization", "Observation"):
            self.references.add(token.encode())
        return f"{kind}/{token}"

    def _contained(self, resource_type: str, at: int) -> Resource:
        shape = resource_shape(resource_type)
        assert shape is not None
        resource = self._object(shape, f"contained[{at}]", (), at)
        return {name: value for name, value in resource.items() if name not in ("contained", "meta")}

    def _extensions_of_every_type(self) -> list[Resource]:
        shape = resource_shape("Patient")
        assert shape is not None
        extension = shape.elements["extension"].shape
        made = []
        for at, key in enumerate(_choices(extension)["value"]):
            path = f"extension[{at + 2}]"
            element = extension.elements[key]
            value = self._element(extension, element, f"{path}.{key}", ("Extension",), 0)
            made.append({"url": f"http://zq.invalid/{key}", key: value})
        return [*made, {"url": "http://zq.invalid/nested", "extension": made[:2]}]


def _too_deep(element: Element, depth: int, above: tuple[str, ...]) -> bool:
    return depth > DEEPEST or above.count(element.shape.name) > (element.shape.name == "Extension")


def _choices(shape: Shape) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, element in shape.elements.items():
        if element.choice and not element.sibling:
            found.setdefault(element.choice, []).append(key)
    return found or {"": [""]}


def _chosen(names: list[str], variant: int, shape: Shape) -> str:
    return "valueString" if shape.name == "Extension" else names[variant % len(names)]


def _opened(chunk: bytes) -> Iterator[bytes]:
    for text in _BASE64.findall(chunk):
        yield b64decode(text[: len(text) // 4 * 4].translate(_URL_SAFE))
