"""docs/mapping.md says what the mappings do."""

from __future__ import annotations

import re

import pytest

from mappings import REGISTRY
from tests.mapping_table import TABLE, table


def test_the_table_is_not_stale() -> None:
    assert TABLE.read_text() == table(), "write it again: python -m tests.mapping_table"


@pytest.mark.parametrize("resource_type", REGISTRY)
def test_every_mapped_element_and_parameter_stands_in_it(resource_type: str) -> None:
    _, _, section = table().partition(f"\n## {resource_type}:")
    section = section.partition("\n## ")[0]
    elements = re.findall(r"^\| `([\w.]+)`", section, re.MULTILINE)
    mapped = {name for row in REGISTRY[resource_type].rows for name in row.fhir if name}
    assert mapped <= set(elements)
    searched = set(re.findall(r"`([\w-]+)`", "".join(re.findall(r"\|([^|]*)\|$", section, re.MULTILINE))))
    assert {p.name for p in REGISTRY[resource_type].search} <= searched
