"""What a document of the input holds: Bundles that are sent as they are, and loose resources.

Strategy: texts are sent as they were read. A parsed document only tells what there is; where entries are taken out of a
Bundle, the parser that keeps the source text of numbers does it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from bridge import wire
from bridge.errors import Invalid
from mappings.values import Json

SENT_AS_THEY_ARE = ("transaction", "batch")
TAKEN_APART = ("collection", "searchset", "document", "message")
_NAME = re.compile(r"[A-Z][A-Za-z]{0,63}")
_REFERENCE = re.compile(rb'((?<!\\)"reference"\s*:\s*")((?:[^"\\]|\\.)*)"')
_VERSION = re.compile(r"/_history/[^/]*$")
_END_OF_URL = re.compile(r"https?://.*/([A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64})")
_URN_UUID = "urn:uuid:"


@dataclass(frozen=True, slots=True)
class Part:
    """A resource or an entry, as it is counted and reported."""

    resource_type: str
    entry: int | None = None
    """Which one of its Bundle it was."""


@dataclass(slots=True)
class Unit:
    """What is sent whole: a Bundle, or one loose resource."""

    text: bytes = field(repr=False)
    parts: list[Part]
    bundle: bool = False
    addresses: list[tuple[str, int]] = field(default_factory=list, repr=False)
    """How others may refer to a part."""
    references: set[str] = field(default_factory=set, repr=False)
    """What it refers to outside of itself."""


@dataclass(slots=True)
class Skipped:
    """A part that the server has no place for; `stands` is what references to it become."""

    part: Part
    addresses: list[str] = field(repr=False)
    stands: str = field(default="", repr=False)


def contents(text: bytes, supported: Container[str]) -> Iterator[Unit | Skipped]:
    """Yields what a document holds. Raises `Invalid` for what cannot be imported."""
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as e:
        raise Invalid(
            f"This is not JSON: {e.msg.partition(':')[0]}, line {e.lineno} column {e.colno}."
        ) from e
    if not isinstance(document, dict):
        raise Invalid("This is no FHIR resource: it is not a JSON object.")
    kind = document.get("resourceType")
    if kind == "Bundle" or (kind is None and isinstance(document.get("entry"), list)):
        return _of_bundle(text, document, supported)
    if not isinstance(kind, str) or not _NAME.fullmatch(kind):
        raise Invalid("This is no FHIR resource: it has no resourceType.")
    return iter([_loose(text, document, Part(kind), supported)])


def _of_bundle(text: bytes, bundle: dict[str, Any], supported: Container[str]) -> Iterator[Unit | Skipped]:
    entries = bundle.get("entry", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise Invalid("The entries of a Bundle are a list of objects.", "Bundle.entry")
    if bundle.get("type") in SENT_AS_THEY_ARE:
        return _whole(text, entries, supported)
    if bundle.get("type") in TAKEN_APART:
        return _apart(text, supported)
    raise Invalid(
        f"Bundles of these types are imported: {', '.join(SENT_AS_THEY_ARE + TAKEN_APART)}.", "Bundle.type"
    )


def _whole(text: bytes, entries: list[Any], supported: Container[str]) -> Iterator[Unit | Skipped]:
    """Yields a Bundle without what the server has no place for."""
    unit = Unit(text, [], bundle=True)
    for index, entry in enumerate(entries):
        part = Part(_type_of(entry), index)
        resource = entry.get("resource")
        addresses = _addresses(resource, entry.get("fullUrl")) if isinstance(resource, dict) else []
        if _NAME.fullmatch(part.resource_type) and part.resource_type not in supported:
            yield Skipped(part, addresses, _stands(part, addresses))
        else:
            unit.addresses += [(address, len(unit.parts)) for address in addresses]
            unit.parts.append(part)
    if not unit.parts:
        return
    if len(unit.parts) < len(entries):
        exact = wire.parse(text)
        exact["entry"] = [exact["entry"][part.entry] for part in unit.parts]
        unit.text = _dump(exact)
    unit.references = references(unit.text) - {address for address, _ in unit.addresses}
    yield unit


def _type_of(entry: dict[str, Any]) -> str:
    """Returns the type that an entry is about; empty when only the server can tell what is wrong with it."""
    request, resource = entry.get("request"), entry.get("resource")
    url = request.get("url") if isinstance(request, dict) else None
    if isinstance(url, str):
        return re.split(r"[/?]", url.removeprefix("/"), maxsplit=1)[0]
    kind = resource.get("resourceType") if isinstance(resource, dict) else None
    return kind if isinstance(kind, str) else ""


def _apart(text: bytes, supported: Container[str]) -> Iterator[Unit | Skipped]:
    """Yields the resources of a Bundle that asks for nothing."""
    for index, entry in enumerate(wire.parse(text).get("entry", [])):
        resource, search = entry.get("resource"), entry.get("search")
        told = isinstance(search, dict) and search.get("mode") == "outcome"
        if not isinstance(resource, dict) or told:
            continue
        kind = resource.get("resourceType")
        if not isinstance(kind, str) or not _NAME.fullmatch(kind):
            raise Invalid("A resource has a resourceType.", f"Bundle.entry[{index}].resource")
        yield _loose(_dump(resource), resource, Part(kind, index), supported, entry.get("fullUrl"))


def _loose(
    text: bytes, resource: dict[str, Any], part: Part, supported: Container[str], full_url: Json = None
) -> Unit | Skipped:
    addresses = _addresses(resource, full_url)
    if part.resource_type not in supported:
        return Skipped(part, addresses, _stands(part, addresses))
    named = [(address, 0) for address in addresses]
    return Unit(text, [part], addresses=named, references=references(text) - set(addresses))


def _addresses(resource: dict[str, Any], full_url: Json) -> list[str]:
    """Returns how references name a resource: `Type/id` and its fullUrl."""
    found = []
    if isinstance(logical_id := resource.get("id"), str):
        found.append(f"{resource.get('resourceType')}/{logical_id}")
    if isinstance(full_url, str):
        found.append(full_url)
        if end := _END_OF_URL.fullmatch(full_url):
            found.append(end[1])
    return list(dict.fromkeys(found))


def _stands(part: Part, addresses: list[str]) -> str:
    """Returns the `Type/id` that a reference to a skipped resource becomes: a server keeps it as it is."""
    literal = [address for address in addresses if address.startswith(f"{part.resource_type}/")]
    urns = [address.removeprefix(_URN_UUID) for address in addresses if address.startswith(_URN_UUID)]
    return next(iter([*literal, *(f"{part.resource_type}/{urn}" for urn in urns)]), "")


def references(text: bytes) -> set[str]:
    """Returns what the references in a JSON text say, without versions."""
    return {said for match in _REFERENCE.finditer(text) if (said := _said(match[2])) and said[0] != "#"}


def with_references(text: bytes, become: Callable[[str], str | None]) -> bytes:
    """Returns the JSON text with references rewritten where `become` knows better; all else stays to the byte."""

    def rewritten(match: re.Match[bytes]) -> bytes:
        target = become(_said(match[2]))
        return match[0] if target is None else match[1] + orjson.dumps(target)[1:]

    return _REFERENCE.sub(rewritten, text)


def is_conditional(reference: str) -> bool:
    """Whether a reference is a query, `Type?…`."""
    return "?" in reference and _NAME.fullmatch(reference.partition("?")[0]) is not None


def _said(text: bytes) -> str:
    said = str(orjson.loads(b'"' + text + b'"')) if b"\\" in text else text.decode()
    return _VERSION.sub("", said)


def _dump(resource: Json) -> bytes:
    return orjson.dumps(resource, default=wire.number)
