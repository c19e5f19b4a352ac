"""What the name of a search parameter says: which parameter, with which modifier, through which references.

Facts: https://hl7.org/fhir/R4/search.html#modifiers, #chaining, #has. `_has:Type:name` without a reference between is
iCure's way to ask something of a patient's resources, or of the patient whom a resource is about.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from bridge.errors import Invalid
from bridge.search.predicates import MODIFIERS
from mappings import REGISTRY
from mappings.search import COMMON, Parameter

DEEPEST = 3
"""References that one parameter may pass through."""
_OF_PATIENT = ("patient", "subject")


@dataclass(frozen=True, slots=True)
class Name:
    """A parameter of a resource type; with `inner` it asks what another resource type says for that.

    `reverse`: the other resource refers to this one by `parameter`, else this one refers to it.
    """

    resource_type: str
    parameter: Parameter
    modifier: str = ""
    targets: tuple[str, ...] = ()
    """The types that a chain goes on to."""
    inner: tuple[Name, ...] = ()
    """What is asked of each of `targets`."""
    reverse: bool = False

    @property
    def last(self) -> Parameter:
        """The parameter at the end of the chain."""
        return self.inner[0].last if self.inner else self.parameter


@cache
def parameters(resource_type: str) -> dict[str, Parameter]:
    """Returns the search parameters of a type by name."""
    own = {p.name: p for p in REGISTRY[resource_type].search}
    return {**{p.name: p for p in COMMON if p.name not in own}, **own}


def parse(resource_type: str, text: str, depth: int = 0) -> Name | None:
    """Returns what a name says, None when there is no such parameter.

    Raises `Invalid` for a modifier that the parameter has not, and for a chain that is too deep.
    """
    if resource_type not in REGISTRY or depth > 2 * DEEPEST + 2:
        return None
    found = (
        _having(resource_type, text, depth) if text.startswith("_has:") else _own(resource_type, text, depth)
    )
    if found is not None and depth == 0 and _depth(found) > DEEPEST:
        raise Invalid(f"A search may pass through {DEEPEST} references, not more.")
    return found


def _depth(name: Name) -> int:
    return 1 + max(map(_depth, name.inner)) if name.inner else 0


def _own(resource_type: str, text: str, depth: int) -> Name | None:
    head, dot, rest = text.partition(".")
    name, _, modifier = head.partition(":")
    parameter = parameters(resource_type).get(name)
    if parameter is None:
        return None
    if dot:
        return _chained(resource_type, parameter, modifier, rest, depth)
    types = parameter.targets or tuple(REGISTRY) if parameter.type == "reference" else ()
    if modifier and modifier not in (*MODIFIERS[parameter.type], *types):
        known = ", ".join((*MODIFIERS[parameter.type], *types))
        raise Invalid(f"{parameter.name} does not take this modifier; it takes {known}.")
    return Name(resource_type, parameter, modifier)


def _chained(resource_type: str, parameter: Parameter, modifier: str, rest: str, depth: int) -> Name | None:
    if parameter.type != "reference":
        raise Invalid(f"{parameter.name} is no reference: nothing can be asked beyond it.")
    if modifier and parameter.targets and modifier not in parameter.targets:
        raise Invalid(f"{parameter.name} does not refer to this type.")
    types = [t for t in ([modifier] if modifier else parameter.targets or REGISTRY) if t in REGISTRY]
    inner = {t: found for t in types if (found := parse(t, rest, depth + 1))}
    return Name(resource_type, parameter, "", tuple(inner), tuple(inner.values())) if inner else None


def _having(resource_type: str, text: str, depth: int) -> Name | None:
    """Reads `_has:Type:reference:name`, and iCure's `_has:Type:name`."""
    _, other, rest = (*text.split(":", 2), "", "")[:3]
    if other not in REGISTRY or not rest:
        return None
    link, _, name = rest.partition(":")
    reference = parameters(other).get(link)
    if (
        reference is not None
        and reference.type == "reference"
        and name
        and may_refer(reference, resource_type)
    ):
        inner = parse(other, name, depth + 1)
        return inner and Name(resource_type, reference, "", (other,), (inner,), reverse=True)
    for at, reverse in ((other, True), (resource_type, False)):
        target = resource_type if reverse else other
        for candidate in _OF_PATIENT:
            reference = parameters(at).get(candidate)
            if reference is not None and reference.type == "reference" and may_refer(reference, target):
                inner = parse(other, rest, depth + 1)
                return inner and Name(resource_type, reference, "", (other,), (inner,), reverse=reverse)
    return None


def may_refer(reference: Parameter, resource_type: str) -> bool:
    """Whether a reference parameter may name resources of a type."""
    return not reference.targets or resource_type in reference.targets


def parameter(resource_type: str, name: str) -> Parameter | None:
    """Returns the parameter that a name ends in, chained ones too; None when this server does not know it."""
    try:
        found = parse(resource_type, name)
    except Invalid:
        return None
    return found.last if found is not None else None


def include_values(resource_type: str) -> list[str]:
    """Returns what `_include` brings along with resources of a type."""
    return ["*", *_links(resource_type, tuple(REGISTRY))]


def reverse_include_values(resource_type: str) -> list[str]:
    """Returns what `_revinclude` brings along with resources of a type."""
    return [link for source in REGISTRY for link in _links(source, (resource_type,))]


def _links(source: str, types: tuple[str, ...]) -> list[str]:
    """Returns `Type:parameter` of the references of a type that may be to one of these types."""
    known = (p for p in parameters(source).values() if p.type == "reference")
    return [f"{source}:{p.name}" for p in known if any(may_refer(p, t) for t in types)]


PARAMETERS = {resource_type: parameters(resource_type) for resource_type in REGISTRY}
"""By resource type and name; `CapabilityStatement` lists exactly these."""
