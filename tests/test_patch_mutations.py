"""Whatever a patch says, the resource afterwards is as the answer tells it, valid, or exactly as it was before."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from bridge import wire
from bridge.patch import JSON_PATCH, MERGE_PATCH
from mappings.values import Resource
from tests.test_mutations import BROKEN, EXAMPLES, PLANTED, Holding, at, bounded, good, mutated, places

FHIRPATH = "application/fhir+json"
JSON_OPERATIONS = ("add", "remove", "replace", "move", "copy", "test")
FHIRPATH_OPERATIONS = ("add", "insert", "delete", "replace", "move")
Make = Callable[[DataObject, Resource], Any]


@pytest.fixture(scope="module")
def holding(demo_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Holding:
    return Holding(Path(shutil.copytree(demo_template, tmp_path_factory.mktemp("patches") / "data")))


@pytest.fixture(scope="module", params=EXAMPLES, ids=lambda path: path.stem)
def there(request: pytest.FixtureRequest, holding: Holding) -> Resource:
    """A resource to be patched."""
    return holding.caller.created(good(request.param))


def value(data: DataObject, resource: Resource, own: Any = None) -> Any:
    """Returns what stands there now, something from elsewhere in the resource, or something planted."""
    kind = data.draw(st.sampled_from(["own", "own", "elsewhere", "planted"]))
    if kind == "own":
        return copy.deepcopy(own)
    if kind == "elsewhere":
        return copy.deepcopy(at(resource, data.draw(st.sampled_from(list(places(resource))))))
    return copy.deepcopy(data.draw(st.sampled_from(PLANTED)))


def json_patch(data: DataObject, resource: Resource) -> Any:
    ends = st.sampled_from([*[()] * 20, *((end,) for end in ("-", "0", "9", "foo", "~2", "extension", "é"))])

    def operation() -> Resource:
        path, other = (data.draw(st.sampled_from(list(places(resource)))) for _ in range(2))
        return {
            "op": data.draw(st.sampled_from(JSON_OPERATIONS)),
            "path": "".join(f"/{step}" for step in (*path, *data.draw(ends))),
            "from": "".join(f"/{step}" for step in (*other, *data.draw(ends))),
            "value": value(data, resource, at(resource, path)),
        }

    return [operation() for _ in range(data.draw(st.integers(1, 3)))]


def merge_patch(data: DataObject, resource: Resource) -> Any:
    names = data.draw(st.lists(st.sampled_from([*resource, "language", "note"]), min_size=1, max_size=3))
    return {name: value(data, resource, resource.get(name)) for name in names}


def fhirpath_patch(data: DataObject, resource: Resource) -> Any:
    types = st.sampled_from(
        ["String", "String", "Boolean", "Date", "CodeableConcept", "Quantity", "Period", "x"]
    )
    ends = st.sampled_from(
        [*[""] * 8, ".first()", ".where(use = 'official')", ".extension('u')", "[7]", ".value"]
    )
    numbers = st.integers(-1, 3)

    def operation() -> Resource:
        path = data.draw(st.sampled_from(list(places(resource))))
        own = at(resource, path)
        steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
        name = data.draw(st.sampled_from([path[0], *resource, "deceased", "component"]))
        if data.draw(st.booleans()):
            steps, name, own = "", path[0], resource[path[0]]
        parts = [
            {"name": "type", "valueCode": data.draw(st.sampled_from(FHIRPATH_OPERATIONS))},
            {"name": "path", "valueString": resource["resourceType"] + steps + data.draw(ends)},
            {"name": "name", "valueString": name},
            {"name": "value", f"value{data.draw(types)}": value(data, resource, own)},
            *({"name": n, "valueInteger": data.draw(numbers)} for n in ("index", "source", "destination")),
        ]
        return {"name": "operation", "part": parts}

    operations = [operation() for _ in range(data.draw(st.integers(1, 2)))]
    return {"resourceType": "Parameters", "parameter": operations}


PATCHES: dict[str, tuple[str, Make]] = {
    "JSON Patch": (JSON_PATCH, json_patch),
    "Merge Patch": (MERGE_PATCH, merge_patch),
    "FHIRPath Patch": (FHIRPATH, fhirpath_patch),
}
some = settings(bounded, max_examples=60)
every_patch = pytest.mark.parametrize(("content_type", "make"), PATCHES.values(), ids=PATCHES)


def patched(holding: Holding, there: Resource, body: bytes, content_type: str) -> None:
    """Sends a patch: refused, nothing has changed; taken, what is read is what was answered, and valid."""
    url = f"{there['resourceType']}/{there['id']}"
    assert holding.caller.send("PUT", url, there).status_code == 200
    before = holding.caller.get(url)
    response = holding.send(url, body, "PATCH", Content_Type=content_type)
    after = holding.caller.get(url)
    if response.status_code >= 300:
        assert after.data == before.data
        return
    resource = wire.parse(response.data)
    assert f"{resource['resourceType']}/{resource['id']}" == url
    assert wire.parse(after.data) == resource
    wire.check(resource)


@every_patch
@some
@given(data=st.data())
def test_a_made_up_patch_is_applied_whole_or_changes_nothing(
    holding: Holding, there: Resource, content_type: str, make: Make, data: DataObject
) -> None:
    patched(holding, there, wire.dump(make(data, there)), content_type)


@every_patch
@some
@given(data=st.data())
def test_a_mutated_patch_is_applied_whole_or_changes_nothing(
    holding: Holding, there: Resource, content_type: str, make: Make, data: DataObject
) -> None:
    document = mutated(data, {"patch": make(data, there)})
    patched(holding, there, wire.dump(document.get("patch")), content_type)


@every_patch
@some
@given(data=st.data())
def test_the_text_of_a_patch_may_be_anything(
    holding: Holding, there: Resource, content_type: str, make: Make, data: DataObject
) -> None:
    text = wire.dump(make(data, there))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(start + 30, len(text))))
    planted = data.draw(st.sampled_from(BROKEN) | st.binary(max_size=4))
    patched(holding, there, text[:start] + planted + text[end:], content_type)
