"""The laws over whole folders of resources: our own examples, and a corpus when there is one.

`BRIDGE_CORPUS` names a folder with R4 JSON files, Bundles and gzip too; HL7's examples and Synthea's are meant.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge import wire
from bridge.errors import Invalid
from mappings import REGISTRY
from mappings.values import Json, Resource

from .completion import AFTERWARDS, completed
from .helpers import CONTEXT, assert_same, expected, stored, written

DATA = Path(__file__).parents[1] / "data"
ROOT = Path(__file__).parents[2]
CORPUS = Path(os.environ.get("BRIDGE_CORPUS", ROOT.parent / "shared/fhir/examples"))

examples = pytest.mark.parametrize(
    "path",
    [p for name in REGISTRY for p in sorted((DATA / name).glob("*.json"))],
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)


def read(path: Path) -> Iterator[Resource]:
    """Yields the resources of a file that have a mapping, those of a Bundle too."""
    body = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    document = wire.parse(body)
    resources: list[Json] = [e.get("resource") for e in document.get("entry", ())] or [document]
    yield from (r for r in resources if r and r.get("resourceType") in REGISTRY)


def assert_kept(resource: Resource) -> None:
    """Asserts that nothing is lost, whatever happens to the entity, and that it is valid without residue."""
    resource, _ = wire.check(resource)
    mapping = REGISTRY[resource["resourceType"]]
    entity, residue = written(mapping, resource)
    for after in AFTERWARDS.values():
        later = after(mapping.entity_type, entity)
        assert_same(mapping.to_fhir(later, residue, CONTEXT), expected(resource))
        again, kept = mapping.to_icure(resource, later, residue, CONTEXT)
        assert_same(again, later)
        assert_same(kept, residue)
        wire.check({"id": "x", **mapping.to_fhir(later, {}, CONTEXT)}, strict=True)


@examples
def test_an_example_of_ours_is_kept(path: Path) -> None:
    for resource in read(path):
        assert_kept(resource)


@examples
def test_an_example_of_ours_is_valid(path: Path) -> None:
    for resource in read(path):
        assert wire.check(resource)[0] == resource


@pytest.mark.parametrize("resource_type", REGISTRY)
def test_there_are_a_dozen_examples_of_ours(resource_type: str) -> None:
    assert len(list((DATA / resource_type).glob("*.json"))) >= 12


@pytest.mark.parametrize("resource_type", REGISTRY)
def test_any_example_over_any_other_comes_back_as_it_was_sent(resource_type: str) -> None:
    mapping = REGISTRY[resource_type]
    every = [r for p in sorted((DATA / resource_type).glob("*.json")) for r in read(p)]
    for before in every:
        entity, kept = written(mapping, before)
        onto = completed(mapping.entity_type, entity)
        for resource in every:
            later, residue = mapping.to_icure(resource, onto, kept, CONTEXT)
            later = completed(mapping.entity_type, later)
            assert_same(mapping.to_fhir(later, stored(residue), CONTEXT), expected(resource))


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus: set BRIDGE_CORPUS ({CORPUS.name} is not there)")
def test_the_corpus_is_kept() -> None:
    seen: dict[str, int] = dict.fromkeys(REGISTRY, 0)
    for path in sorted([*CORPUS.rglob("*.json"), *CORPUS.rglob("*.json.gz")]):
        for resource in read(path):
            try:
                assert_kept(resource)
            except (AssertionError, Invalid) as e:
                e.add_note(f"{path.name}: {resource['resourceType']}/{resource.get('id')}")
                raise
            seen[resource["resourceType"]] += 1
    assert all(seen.values())
