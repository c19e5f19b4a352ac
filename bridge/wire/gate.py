"""Which resources are let in: the walk tells what is wrong, and where it is in doubt the R4B model has the last word.

Facts: what the model lets through or wrongly refuses is known: no code bindings, JSON types coerced, broken
base64 emptied, `_value*` of Extension refused, uuid only of version 4, url only of some forms.

Strategy: under lenient validation a deviation that we know is set right or let through, with a warning.

Rule: what the walk takes without doubt, the model takes too. It needs eight times as long and is asked in doubt only.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from bridge.errors import Invalid, Issue
from bridge.wire.shapes import Shape, resource_shape
from bridge.wire.walk import MAX_TOLD, Findings, Path, text_of, walk_resource
from mappings.values import Json, Number, Resource

MODEL_REFUSES = "The R4B model does not allow this."
ADDITIONAL_VALUE = "https://icure.com/fhir/StructureDefinition/additional-value"
"""URL of the extension that keeps each further `value[x]` of an Observation."""


def check(
    resource: Json, *, expected_type: str | None = None, strict: bool = False, at: str | None = None
) -> tuple[Resource, list[Issue]]:
    """Returns the resource to be used and a warning for each deviation from R4 that was let through.

    The resource is the one given unless it had two `value[x]`: the first stays, each other moves into an
    extension. Paths start with `at`, by default the type. Raises `Invalid` with every problem.
    """
    name = resource.get("resourceType") if type(resource) is dict else None
    if expected_type is not None and type(name) is str and name != expected_type:
        raise Invalid(
            issues=[Issue("invalid", f"The resource must be of type {expected_type}.", at or expected_type)]
        )
    found = Findings(strict=strict)
    known = resource_shape(name)
    path: Path = (None, at or (known.name if known else expected_type or "Resource"), None)
    shape = walk_resource(resource, path, found)
    if shape is None or found.errors:
        raise Invalid(issues=found.errors)
    if found.two_values:
        resource = _one_value(resource)
    if found.doubtful:
        pass_model(shape, resource, path)
    return resource, found.warnings


def pass_model(shape: Shape, resource: Resource, path: Path) -> None:
    """Raises `Invalid` when the R4B model refuses the resource."""
    try:
        shape.model.model_validate(_without_extension_siblings(resource))
    except ValidationError as e:
        issues = list(_issues(e, path))
        if issues:
            raise Invalid(issues=issues) from None


def _issues(error: ValidationError, path: Path) -> list[Issue]:
    """Returns what the model refuses and R4 refuses too. Rule: its messages may hold values and are not told."""
    told: list[Issue] = []
    for one in error.errors(include_url=False, include_context=False, include_input=False)[:MAX_TOLD]:
        if one["type"].startswith(("uuid", "url")):
            continue
        at = path
        for step in one["loc"]:
            at = (at[0], at[1], step) if isinstance(step, int) else (at, step.removesuffix("__ext"), None)
        told.append(Issue("structure", MODEL_REFUSES, text_of(at)))
    return told


def _one_value(observation: Resource) -> Resource:
    """Returns the Observation with its first `value[x]`; each other is moved into an extension of its own."""
    elements = resource_shape("Observation").elements  # type: ignore[union-attr]
    first: str | None = None
    kept: Resource = {}
    moved: dict[str, Resource] = {}
    for key, value in observation.items():
        name = key.lstrip("_")
        if elements[key].choice != "value" or name == (first := first or name):
            kept[key] = value
        else:
            moved.setdefault(name, {"url": ADDITIONAL_VALUE})[key] = value
    kept["extension"] = [*kept.get("extension", ()), *moved.values()]
    return kept


def _without_extension_siblings(node: Any) -> Any:
    """Returns a copy without `_value*`, which only an Extension has at an object with a `url`."""
    if type(node) is dict:
        return {
            key: _without_extension_siblings(value)
            for key, value in node.items()
            if not (key.startswith("_value") and "url" in node)
        }
    if type(node) is list:
        return [_without_extension_siblings(item) for item in node]
    return node


def warm_up() -> None:
    """Loads every model and table that a Patient, an Observation or a Bundle can need, and uses each once.

    Call it before a server forks: the workers share what it leaves in memory.
    """
    for name in ("Patient", "Observation", "Condition", "Practitioner", "Organization", "OperationOutcome"):
        _load(resource_shape(name), set())
    for example in _EXAMPLES:
        shape = walk_resource(example, (None, example["resourceType"], None), Findings(strict=True))
        assert shape is not None  # noqa: S101
        pass_model(shape, example, (None, shape.name, None))


def _load(shape: Shape | None, met: set[str]) -> None:
    if shape is None or shape.name in met:
        return
    met.add(shape.name)
    for element in shape.elements.values():
        if element.model is not None:
            _load(element.shape, met)


_CODED = {"coding": [{"system": "http://loinc.org", "code": "718-7"}], "text": "Hemoglobin"}
_EXAMPLES: tuple[Resource, ...] = (
    {
        "resourceType": "Patient",
        "identifier": [{"system": "urn:oid:1.2.3", "value": "1", "period": {"start": "2020-01-01"}}],
        "name": [{"family": "A", "_family": {"extension": [{"url": "urn:a", "valueString": "b"}]}}],
        "telecom": [{"system": "phone", "value": "1"}],
        "address": [{"city": "A"}],
        "birthDate": "2020-01-01",
    },
    {
        "resourceType": "Observation",
        "status": "final",
        "code": _CODED,
        "subject": {"reference": "Patient/1"},
        "effectiveDateTime": "2020-01-01T00:00:00Z",
        "valueQuantity": {"value": Number("1.0"), "unit": "g"},
        "referenceRange": [{"low": {"value": 1}}],
        "component": [{"code": _CODED, "valueString": "a"}],
    },
    {"resourceType": "Bundle", "type": "transaction"},
)
