"""What the code stubs of an entity are about: elements, labels, and the FHIR type that iCure's own SDK goes by.

Facts: iCure has one set of tags and one of codes for an entity; the `context` of a stub says what it is about. iCure's
FHIR-shaped SDK knows the type of a resource by a tag.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from mappings.codecs import distinct
from mappings.datatypes import Codings, coding
from mappings.engine import Context
from mappings.values import Entity, Json, Resource

INTERNAL = "ICURE_INTERNAL_FHIR_TYPE"


def type_tag(kind: str) -> Entity:
    """Returns the tag of a FHIR type."""
    return {"id": f"{INTERNAL}|{kind}|5", "type": INTERNAL, "code": kind, "version": "5"}


def types(entity: Entity) -> set[str]:
    """Returns the FHIR types that an entity is tagged as."""
    return {str(t.get("code")) for t in entity.get("tags") or () if is_type(t)}


def is_type(tag: Entity) -> bool:
    """Whether a tag names a FHIR type."""
    return tag.get("type") == INTERNAL


def about(element: str) -> Callable[[Entity], bool]:
    """Returns what tells the stubs about an element by their context: `element`, or `element.1` and so on."""
    return lambda stub: str(stub.get("context") or "").partition(".")[0] == element


class TypeTag:
    """The tag of a FHIR type; nothing in FHIR."""

    def __init__(self, kind: str) -> None:
        self._tag = type_tag(kind)

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the tag beside those of its kind that are there."""
        return list(onto) if onto else [self._tag]

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns nothing."""
        return None


class Grouped:
    """CodeableConcepts as code stubs; the context keeps the codings of one concept together."""

    def __init__(self, element: str) -> None:
        self._element = element

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns a stub for each coding that has a code."""
        stubs: list[Entity] = []
        concepts = [concept.get("coding") for concept in value or ()]
        for codings, where in zip(concepts, self._contexts(concepts, onto or []), strict=True):
            stubs += Codings(where).stubs(codings, onto or [])
        mute = [stub for stub in onto or () if coding(stub) is None]
        return distinct([*stubs, *mute]) or None

    def _contexts(self, concepts: list[Json], old: list[Entity]) -> list[str]:
        """Returns a context for each concept: the one that a coding of it had, else a free one."""
        found: dict[int, str] = {}
        for where in dict.fromkeys(stub["context"] for stub in old):
            group = [stub for stub in old if stub["context"] == where]
            for at, codings in enumerate(concepts):
                if at not in found and any(stub in group for stub in Codings(where).stubs(codings, group)):
                    found[at] = where
                    break
        names = (f"{self._element}.{n}" if n else self._element for n in count())
        free = (name for name in names if name not in found.values())
        return [found[at] if at in found else next(free) for at in range(len(concepts))]

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns a concept for each context."""
        concepts: dict[str, list[Resource]] = {}
        for stub in value or ():
            if said := coding(stub):
                concepts.setdefault(stub["context"], []).append(said)
        return [{"coding": codings} for codings in concepts.values()] or None


class Concept:
    """One CodeableConcept as code stubs of one context."""

    def __init__(self, element: str) -> None:
        self._codings = Codings(element)

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns a stub for each coding that has a code."""
        return self._codings.to_icure((value or {}).get("coding"), onto, context)

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the concept."""
        codings = self._codings.to_fhir(value, context)
        return {"coding": codings} if codings else None
