"""The tables are complete, and the models are used as they must be."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

import bridge
import mappings
from bridge import wire
from bridge.wire.bindings import REQUIRED
from bridge.wire.shapes import Shape, element_order, resource_shape
from tests.wire.examples import OWN

PACKAGES = [Path(package.__file__ or "").parent for package in (bridge, mappings)]

NOT_REQUIRED_IN_R4 = {("Expression", "language")}
ABBREVIATED_IN_THE_MODEL = {("Observation", "status")}


def reachable() -> dict[str, Shape]:
    met: dict[str, Shape] = {}
    todo = [resource_shape(name) for name in ("Patient", "Observation", "Bundle")]
    while todo:
        shape = todo.pop()
        assert shape is not None
        if shape.name not in met:
            met[shape.name] = shape
            todo += [element.shape for element in shape.elements.values() if element.model is not None]
    return met


def test_every_enumeration_that_the_models_tell_is_bound() -> None:
    told = {
        (shape.name, name): frozenset(info.json_schema_extra["enum_values"])
        for shape in reachable().values()
        for name, info in shape.model.model_fields.items()
        if info.json_schema_extra and "enum_values" in info.json_schema_extra
    }
    assert len(told) > 20
    for place in NOT_REQUIRED_IN_R4:
        assert told.pop(place)
        assert place not in REQUIRED
    for place in ABBREVIATED_IN_THE_MODEL:
        assert told.pop(place) - {"+"} < REQUIRED[place]
    assert {place: REQUIRED.get(place) for place in told} == told


def test_every_binding_is_of_an_element_that_exists() -> None:
    shapes = reachable()
    for name in ("Person", "Practitioner", "RelatedPerson"):
        shape = resource_shape(name)
        assert shape is not None
        shapes[name] = shape
    assert [place for place in REQUIRED if place[1] not in shapes[place[0]].elements] == []


def test_extension_has_a_sibling_for_each_of_its_primitive_values() -> None:
    siblings = [key for key in reachable()["Extension"].elements if key.startswith("_value")]
    assert len(siblings) == 19
    primitive = [
        element.key
        for element in reachable()["Extension"].elements.values()
        if element.choice == "value" and element.rule is not None
    ]
    assert sorted(siblings) == sorted(f"_{key}" for key in primitive)


def test_an_order_is_known_of_every_property() -> None:
    wire.warm_up()
    for name in ("Patient", "Observation", "Bundle"):
        shape = resource_shape(name)
        assert shape is not None
        assert set(shape.elements) <= set(element_order(name))


def test_only_the_wire_knows_the_models_and_only_those_of_r4b() -> None:
    for package in PACKAGES:
        for path in package.rglob("*.py"):
            for name in imported(path):
                top = name.split(".")[0]
                if top in ("fhir", "fhir_core"):
                    assert path.parent.name == "wire", path
                    assert name.startswith(("fhir.resources.R4B", "fhir_core.constraints")), name


def imported(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def test_a_warm_worker_imports_nothing_more_for_the_richest_resources() -> None:
    program = """
import sys
from pathlib import Path
from bridge import wire
assert not [name for name in sys.modules if name.startswith("fhir.resources.R4B.")], "not at import time"
wire.warm_up()
warm = set(sys.modules)
for path in sys.argv[1:]:
    resource = wire.parse(Path(path).read_bytes())
    resource.pop("contained", None)
    wire.check(resource)
print(sorted(name for name in set(sys.modules) - warm if name.startswith(("fhir", "pydantic"))))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, OWN)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_ids_are_held_to_64_characters_by_the_model_too() -> None:
    shape = resource_shape("Patient")
    assert shape is not None
    assert shape.model.model_validate({"id": "a" * 64})
    with pytest.raises(ValidationError):
        shape.model.model_validate({"id": "a" * 65})
