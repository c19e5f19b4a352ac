"""What each type of FHIR consists of, read off the R4B models of fhir.resources.

Facts: R4B stands in for R4. For everything a Patient, an Observation or a Bundle holds, the two agree but for
Extension: R4B adds two value types and the models lack the `_value*` siblings
(https://github.com/nazrulworld/fhir.resources/issues/204).

Strategy: a table per model class, made when the class is first met and kept. Importing all models costs
more than a second, so nothing is imported before it is needed; `gate.warm_up` does that before a server forks.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from bridge.wire.bindings import REQUIRED
from bridge.wire.primitives import RULES, Flaw, Rule, element_id, one_of
from mappings.values import Json

_R4B_ONLY_TYPES = frozenset(
    {
        "AdministrableProductDefinition",
        "Citation",
        "ClinicalUseDefinition",
        "EvidenceReport",
        "Ingredient",
        "ManufacturedItemDefinition",
        "MedicinalProductDefinition",
        "NutritionProduct",
        "PackagedProductDefinition",
        "RegulatedAuthorization",
        "SubscriptionStatus",
        "SubscriptionTopic",
        "SubstanceDefinition",
    }
)
_R4B_ONLY_VALUES = frozenset({"valueCodeableReference", "valueRatioRange"})
_ABSTRACT = frozenset({"Resource", "DomainResource"})
_ELEMENT_NAME = re.compile(r"_?[A-Za-z][A-Za-z0-9_]{0,63}")


@dataclass(slots=True)
class Element:
    """One JSON property of a type: an element, or the `_` sibling of a primitive one."""

    key: str
    name: str
    """Its name in FHIRPath: without `_`, and without the type of a choice."""
    many: bool = False
    rule: Rule | None = None
    """What a primitive value must obey; nothing for elements with children."""
    model: Any = None
    choice: str | None = None
    any_resource: bool = False
    sibling: bool = False
    _shape: Shape | None = None

    @property
    def shape(self) -> Shape:
        """The table of this element's own type."""
        if self._shape is None:
            self._shape = shape_of(self.model())
        return self._shape


@dataclass(slots=True)
class Shape:
    """A type: its properties by JSON name, what must be there, and the model that has the last word."""

    name: str
    model: Any
    elements: dict[str, Element]
    required: tuple[str, ...]
    required_choices: tuple[str, ...]
    is_resource: bool
    order: dict[str, float] = field(default_factory=dict)


def is_element_name(text: str) -> bool:
    """Tells whether this could name an element; anything else is data and is not repeated in an answer."""
    return _ELEMENT_NAME.fullmatch(text) is not None


_shapes: dict[str, Shape] = {}


def resource_shape(resource_type: Json) -> Shape | None:
    """Returns the table of an R4 resource type; nothing if there is no such type."""
    if type(resource_type) is not str:
        return None
    known = _shapes.get(resource_type)
    if known is not None:
        return known if known.is_resource else None
    if resource_type in _R4B_ONLY_TYPES or resource_type in _ABSTRACT or not is_element_name(resource_type):
        return None
    model = _models().get(resource_type)
    if model is None or not model.has_resource_base():
        return None
    return shape_of(model)


@cache
def summary_elements(resource_type: str) -> tuple[frozenset[str], frozenset[str]]:
    """Returns the elements of a resource's summary, and those that it must have. Both are empty for unknown types.

    https://hl7.org/fhir/R4/search.html#summary
    """
    shape = resource_shape(resource_type)
    if shape is None:
        return frozenset(), frozenset()
    return frozenset(shape.model.summary_elements_sequence()), frozenset(shape.required)


def element_order(resource_type: Json) -> Mapping[str, float]:
    """Returns the place of each property in FHIR's order, as far as the type was met; loads nothing."""
    shape = _shapes.get(resource_type) if type(resource_type) is str else None
    return _FIRST if shape is None else shape.order


_FIRST = {"resourceType": 0.0, "id": 1.0, "meta": 2.0}


class _Models:
    """The model classes by name. Facts: `get_fhir_model_class` keeps every name that it is asked for."""

    def get(self, name: str) -> Any:
        from fhir.resources.R4B import fhirtypes, get_fhir_model_class

        return get_fhir_model_class(name) if hasattr(fhirtypes, f"{name}Type") else None


@cache
def _models() -> _Models:
    from fhir_core import constraints

    # Facts: fhir_core allows 255 characters in an id, FHIR 64; it reads this when a model is first imported.
    constraints.TYPES_ID_MAX_LENGTH = 64
    return _Models()


def shape_of(model: Any) -> Shape:
    """Returns the table of a model class."""
    name: str = model.__name__
    known = _shapes.get(name)
    if known is not None:
        return known
    is_resource = model.has_resource_base()
    elements: dict[str, Element] = {}
    required: list[str] = []
    required_choices: set[str] = set()
    for python_name, info in model.model_fields.items():
        key = info.alias or python_name
        if key == "fhir_comments" or (name == "Extension" and key in _R4B_ONLY_VALUES):
            continue
        told: dict[str, Any] = info.json_schema_extra or {}
        choice = told.get("one_of_many")
        elements[key] = _element(name, key, info.annotation, choice)
        if key == "id" and not is_resource:
            elements[key].rule = element_id
        if info.is_required() or told.get("element_required"):
            required.append(key)
        if told.get("one_of_many_required"):
            required_choices.add(choice or key)
    if name == "Extension":
        _add_siblings(elements)
    for element in elements.values():
        if element.sibling:
            value = elements[element.key[1:]]
            element.name, element.choice = value.name, value.choice
    if is_resource:
        elements["resourceType"] = Element("resourceType", "resourceType", rule=_anything)
    sequence = ["resourceType", *model.elements_sequence()]
    order = {key: float(place) for place, key in enumerate(sequence)}
    order |= {f"_{key}": place + 0.5 for key, place in order.items()}
    shape = Shape(name, model, elements, tuple(required), tuple(sorted(required_choices)), is_resource, order)
    _shapes[name] = shape
    return shape


def _anything(value: Json) -> Flaw | None:
    return None


def _element(owner: str, key: str, annotation: Any, choice: str | None) -> Element:
    many, inner = _unwrapped(annotation)
    if key.startswith("_"):
        return Element(key, key, many, model=inner.get_model_klass, sibling=True)
    name = choice or key
    if hasattr(inner, "get_model_klass"):
        if inner.__name__ == "ResourceType":
            return Element(key, name, many, any_resource=True)
        return Element(key, name, many, model=inner.get_model_klass, choice=choice)
    codes = REQUIRED.get((owner, key))
    rule = RULES[_primitive_name(inner)] if codes is None else one_of(codes)
    return Element(key, name, many, rule=rule, choice=choice)


def _unwrapped(annotation: Any) -> tuple[bool, Any]:
    """Returns whether it is a list, and the type of one item."""
    while True:
        origin = typing.get_origin(annotation)
        if origin in (typing.Union, types.UnionType):
            annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
        elif origin is list:
            return True, _unwrapped(typing.get_args(annotation)[0])[1]
        else:
            return False, annotation


def _primitive_name(annotation: Any) -> str:
    if annotation is bool:
        return "boolean"
    for mark in reversed(typing.get_args(annotation)):
        name = getattr(mark, "__visit_name__", None)
        if name is not None:
            return str(name)
    return "uuid"


def _add_siblings(elements: dict[str, Element]) -> None:
    """Gives Extension the `_value*` properties that R4 has and the models lack."""
    primitive = [e for e in elements.values() if e.choice is not None and e.rule is not None]
    for element in primitive:
        key = f"_{element.key}"
        elements[key] = Element(key, key, model=_sibling_model, sibling=True)


def _sibling_model() -> Any:
    return _models().get("FHIRPrimitiveExtension")
