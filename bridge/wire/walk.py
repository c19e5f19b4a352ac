"""One walk over a resource along the tables: JSON types, names, cardinality, choices, primitive values, codes.

Facts: https://hl7.org/fhir/R4/json.html, https://hl7.org/fhir/R4/element.html (ele-1),
https://hl7.org/fhir/R4/extensibility.html (ext-1), https://hl7.org/fhir/R4/references.html.

Strategy: the walk tells everything that is wrong. It is in doubt where `null` holds a place and where only an extension
stands for what is required; there the model tells. A path is a chain of (parent, name, index) and becomes text when
there is something to tell.
"""

from __future__ import annotations

from collections.abc import Callable

from bridge.errors import Issue, warning
from bridge.wire.primitives import ID, NULL, Flaw
from bridge.wire.shapes import Element, Shape, is_element_name, resource_shape
from mappings.values import Json, Resource

Path = tuple["Path | None", str, int | None]

MAX_TOLD = 200
"""Problems and warnings told of one resource; an answer must not be larger than the request for it."""

NOT_AN_OBJECT = Flaw("structure", "Must be a JSON object.")
NOT_A_LIST = Flaw("structure", "May repeat: must be a JSON array.")
NOT_ONE = Flaw("structure", "Does not repeat: must not be a JSON array.")
EMPTY_LIST = Flaw("structure", "An array must not be empty.")
EMPTY_OBJECT = Flaw("structure", "An object must not be empty.")
NO_CONTENT = Flaw("value", "Must have a value or children besides its id.")
UNKNOWN = Flaw("structure", "R4 has no element of this name here.")
REQUIRED = Flaw("required", "Is required.")
UNEVEN = Flaw("structure", "The arrays of values and of their extensions must have the same length.")
TWO_CHOICES = Flaw("structure", "Only one type of this element may be present.")
TWO_VALUES = Flaw(
    "structure",
    "Only one type of this element may be present.",
    "deviation",
    "The first stays, the others were moved into an extension.",
)
EXTENSION_BOTH = Flaw("structure", "An extension has either a value or extensions, not both.")
EXTENSION_NEITHER = Flaw("structure", "An extension has a value or extensions.")
NO_TYPE = Flaw("required", "A resource says its resourceType.")
UNKNOWN_TYPE = Flaw("not-supported", "This resourceType is not one of R4 that this server knows.")
NESTED = Flaw("structure", "A contained resource cannot contain others.")
BARE_REFERENCE = Flaw(
    "value",
    "A reference is Type/id or a URL, not an id alone.",
    "deviation",
    "Accepted where it can be resolved.",
)
NOT_A_REFERENCE = Flaw("value", "A reference is Type/id, #id, a query or a URL, without white space.")


class Findings:
    """What a walk found."""

    __slots__ = ("doubtful", "errors", "strict", "two_values", "warnings")

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self.errors: list[Issue] = []
        self.warnings: list[Issue] = []
        self.two_values = False
        self.doubtful = False

    def add(self, flaw: Flaw, path: Path) -> None:
        """Notes the flaw, as an error or as a warning."""
        if len(self.errors) > MAX_TOLD:
            return
        if flaw.weight == "error" or (flaw.weight == "deviation" and self.strict):
            tell(self.errors, Issue(flaw.code, flaw.text, text_of(path)))
        elif not self.strict:
            tell(self.warnings, warning(flaw.code, f"{flaw.text} {flaw.done}", text_of(path)))


def tell(told: list[Issue], issue: Issue) -> None:
    """Adds an issue that was not told yet; the last one says that the rest is not listed."""
    if len(told) < MAX_TOLD and issue not in told:
        told.append(issue)
        if len(told) == MAX_TOLD:
            told.append(Issue("informational", "More of this is not listed.", severity="information"))


def text_of(path: Path) -> str:
    """Returns the FHIRPath that the chain says."""
    parts: list[str] = []
    step: Path | None = path
    while step is not None:
        step, name, index = step
        parts.append(name if index is None else f"{name}[{index}]")
    return ".".join(reversed(parts))


def walk(shape: Shape, node: Resource, path: Path, found: Findings, valued: bool = False) -> None:
    """Notes everything that is wrong with an object of this shape.

    `valued` tells that its value stands elsewhere, as that of a `_` sibling does.
    """
    if len(node) < 2 and not shape.is_resource and not valued and (not node or "id" in node):
        found.add(NO_CONTENT if node else EMPTY_OBJECT, path)
        return
    elements = shape.elements
    chosen: dict[str, str] | None = None
    for key, value in node.items():
        element = elements.get(key)
        if element is None:
            name = key.lstrip("_")
            found.add(UNKNOWN, (path, name, None) if is_element_name(name) else path)
            continue
        choice = element.choice
        if choice is not None:
            name = key.lstrip("_")
            if chosen is None:
                chosen = {choice: name}
            elif chosen.setdefault(choice, name) != name:
                _clash(shape, element, path, found)
        rule = element.rule
        if rule is not None:
            if element.many:
                _values(element, value, node, path, found)
            else:
                flaw = rule(value)
                if flaw is not None:
                    flaw = NOT_ONE if type(value) is list else flaw
                    found.add(flaw, (path, element.name, None))
        elif element.sibling:
            _sibling(shape, element, value, node, path, found)
        elif element.many:
            if type(value) is not list or not value:
                found.add(EMPTY_LIST if value == [] else _not(NOT_A_LIST, value), (path, element.name, None))
                continue
            for index, item in enumerate(value):
                _child(element, item, (path, element.name, index), found)
        elif type(value) is dict and element.model is not None:
            walk(element.shape, value, (path, element.name, None), found)
        else:
            _child(element, value, (path, element.name, None), found)
    for key in shape.required:
        if key not in node:
            if f"_{key}" in node:
                found.doubtful = True
            else:
                found.add(REQUIRED, (path, elements[key].name, None))
    for choice in shape.required_choices:
        if chosen is None or choice not in chosen:
            found.add(REQUIRED, (path, choice, None))
        elif chosen[choice] not in node:
            found.doubtful = True
    more = _MORE.get(shape.name)
    if more is not None:
        more(node, chosen is not None, path, found)


def walk_resource(resource: Json, path: Path, found: Findings) -> Shape | None:
    """Returns the shape of a resource after noting everything that is wrong with it; nothing if it has none."""
    if type(resource) is not dict:
        found.add(_not(NOT_AN_OBJECT, resource), path)
        return None
    shape = resource_shape(resource.get("resourceType"))
    if shape is None:
        found.add(UNKNOWN_TYPE if "resourceType" in resource else NO_TYPE, path)
        return None
    walk(shape, resource, path, found)
    return shape


def _not(flaw: Flaw, value: Json) -> Flaw:
    return NULL if value is None else flaw


def _clash(shape: Shape, element: Element, path: Path, found: Findings) -> None:
    if shape.name == "Observation" and element.choice == "value" and path[0] is None:
        found.two_values = True
        found.add(TWO_VALUES, (path, element.name, None))
    else:
        found.add(TWO_CHOICES, (path, element.name, None))


def _child(element: Element, value: Json, path: Path, found: Findings) -> None:
    if type(value) is not dict:
        found.add(NOT_ONE if type(value) is list else _not(NOT_AN_OBJECT, value), path)
    elif not element.any_resource:
        walk(element.shape, value, path, found)
    else:
        walk_resource(value, path, found)
        if element.key == "contained" and "contained" in value:
            found.add(NESTED, (path, "contained", None))


def _values(element: Element, values: Json, node: Resource, path: Path, found: Findings) -> None:
    """Checks a list of primitive values; `null` only holds the place of a value that is an extension."""
    if type(values) is not list or not values:
        found.add(EMPTY_LIST if values == [] else _not(NOT_A_LIST, values), (path, element.name, None))
        return
    rule = element.rule
    for index, value in enumerate(values):
        if value is None:
            found.doubtful = True
            siblings = node.get(f"_{element.key}")
            if type(siblings) is not list or index >= len(siblings) or siblings[index] is None:
                found.add(NULL, (path, element.name, index))
        elif rule is not None:
            flaw = rule(value)
            if flaw is not None:
                found.add(flaw, (path, element.name, index))


def _sibling(
    shape: Shape, element: Element, value: Json, node: Resource, path: Path, found: Findings
) -> None:
    """Checks the `_` sibling of a primitive element: its id and its extensions."""
    values = node.get(element.key[1:])
    if not element.many:
        at = (path, element.name, None)
        if type(value) is dict:
            walk(element.shape, value, at, found, valued=values is not None and len(value) > 0)
        else:
            found.add(NOT_ONE if type(value) is list else _not(NOT_AN_OBJECT, value), at)
        return
    if type(value) is not list or not value:
        found.add(EMPTY_LIST if value == [] else _not(NOT_A_LIST, value), (path, element.name, None))
        return
    aligned = values if type(values) is list else []
    if aligned and len(aligned) != len(value):
        found.add(UNEVEN, (path, element.name, None))
    for index, item in enumerate(value):
        present = index < len(aligned) and aligned[index] is not None
        if type(item) is dict:
            walk(element.shape, item, (path, element.name, index), found, valued=present and len(item) > 0)
        elif item is not None:
            found.add(NOT_AN_OBJECT, (path, element.name, index))
        else:
            found.doubtful = True
            if not present and not aligned:
                found.add(NULL, (path, element.name, index))


def _extension(node: Resource, valued: bool, path: Path, found: Findings) -> None:
    if valued == ("extension" in node):
        found.add(EXTENSION_BOTH if valued else EXTENSION_NEITHER, path)


def _reference(node: Resource, valued: bool, path: Path, found: Findings) -> None:
    reference = node.get("reference")
    if type(reference) is not str or not reference or reference.isspace():
        return
    at = (path, "reference", None)
    if len(reference.split()) != 1 or reference != reference.strip():
        found.add(NOT_A_REFERENCE, at)
    elif not any(mark in reference for mark in "/#?:"):
        found.add(BARE_REFERENCE if ID.fullmatch(reference) else NOT_A_REFERENCE, at)


_MORE: dict[str, Callable[[Resource, bool, Path, Findings], None]] = {
    "Extension": _extension,
    "Reference": _reference,
}
