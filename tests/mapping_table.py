"""Writes docs/mapping.md: what each FHIR element becomes in iCure. `python -m tests.mapping_table`.

Strategy: the rows of the mappings say which property an element becomes, the default manifests whether that is
encrypted, the search parameters what finds it. What a property cannot say is measured: each example in tests/data is
mapped there, and back without its residue.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from bridge import wire
from bridge.crypto.manifest import DEFAULT_MANIFESTS, Manifest
from bridge.search import parameters
from bridge.wire.shapes import resource_shape
from mappings import REGISTRY
from mappings.engine import WITNESS, Mapping
from mappings.search import SCAN, Parameter
from mappings.values import Resource
from tests.promises import leaves

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "mapping.md"
EXAMPLES = ROOT / "tests" / "data"
META = ("meta.profile", "meta.security", "meta.source", "meta.tag")
NOT_MAPPED = {"resourceType", "id", "meta", "fhir_comments"}
"""What the server says itself, or is in META."""
NOT_SAID = {WITNESS, "id"}
"""What rows see beside the properties that they own."""
LINKS = {"patientId": "the patient in the delegations"}
"""What the bridge calls a property and iCure does not."""

TITLE = """\
# What becomes of each element

Written by `python -m tests.mapping_table`; a test fails when it is stale.

- **iCure** is the property that says the element. An element without one, and what a property cannot say of its \
element, is in the residue: kept as it was sent, beside the entity.
- **Stands** tells what iCure's server sees, with the default lists of encrypted fields. Elements with nothing else \
stand where the residue does.
- **Residue** names what is kept there: everything, or these parts of the element, measured with the examples in \
`tests/data`. *In part*: some values fit into the property, others do not. *As sent*: the property says it in its own \
words, less precise or as another type. The digits of a number (`7.50`) are always kept.
- **Search** names the parameters that look at the element. iCure's own index narrows those in **bold**; for the \
others the bridge reads candidates one by one, so they need a patient, another parameter, or few candidates.

Everywhere: `id` is that of the entity, and an id that a client sent becomes an identifier. `meta.versionId` and \
`meta.lastUpdated` are the server's. `_id` and `_lastUpdated` find by them.
"""


@dataclass
class Fate:
    """How often each part of an element occurs in the examples, and how often iCure alone does not say it."""

    sent: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    written: bool = False
    """Whether it makes any difference to iCure."""

    def __str__(self) -> str:
        if self.sent and self.sent == self.lost:
            return "as sent"
        parts = (
            f"`{part}`" + ("" if self.sent[part] == lost else " in part") for part, lost in self.lost.items()
        )
        return ", ".join(sorted(part.replace("``", "the value") for part in parts))


def table() -> str:
    """Returns the text of docs/mapping.md."""
    return "\n".join([TITLE, *(line for kind in REGISTRY for line in _section(REGISTRY[kind]))])


def _section(mapping: Mapping) -> Iterator[str]:
    encrypts = mapping.entity_type in DEFAULT_MANIFESTS
    yield f"## {mapping.resource_type}: iCure's {mapping.entity_type}\n"
    yield f"The residue is {'encrypted' if encrypts else 'in clear, as all of this entity is'}.\n"
    yield "| Element | iCure | Stands | Residue | Search |"
    yield "|---|---|---|---|---|"
    fates = _fates(mapping)
    for element in _elements(mapping.resource_type):
        properties = [
            p for row in mapping.rows if element in row.fhir for p in row.icure if p not in NOT_SAID
        ]
        if fates[element].sent and not fates[element].written:
            properties = []
        stands = {LINKS.get(p, f"`{p}`"): _stands(mapping.entity_type, p) for p in properties}
        found = ", ".join(_search(mapping.resource_type, element))
        fate = str(fates[element]) if properties else "all"
        yield f"| `{element}` | {', '.join(stands)} | {_summed(stands, encrypts)} | {fate} | {found} |"
    yield ""


def _elements(resource_type: str) -> list[str]:
    shape = resource_shape(resource_type)
    assert shape is not None
    own = [name for name, element in shape.elements.items() if not element.sibling and name not in NOT_MAPPED]
    return [*META, *own]


def _stands(entity_type: str, name: str) -> str:
    """Returns whether a property is encrypted."""
    manifest = DEFAULT_MANIFESTS.get(entity_type, Manifest())
    if name in manifest.whole or name in LINKS or (entity_type, name) == ("Service", "content"):
        return "encrypted"
    if name not in manifest.inner:
        return "clear"
    shape, inner = manifest.inner[name]
    parts = "all members" if inner.everything else ", ".join(f"`{part}`" for part in sorted(inner.whole))
    return f"encrypted: {parts}{' of each' if shape != 'object' else ''}"


def _summed(stands: dict[str, str], encrypts: bool) -> str:
    said = set(stands.values()) or {"encrypted" if encrypts else "clear"}
    if len(said) == 1:
        return said.pop()
    return ", ".join(f"{name} {how}" for name, how in stands.items())


def _search(resource_type: str, element: str) -> Iterator[str]:
    for name, parameter in parameters(resource_type).items():
        if any(
            path == element or re.match(rf"{re.escape(element)}[.\[]", path) for path in _paths(parameter)
        ):
            yield f"`{name}`" if parameter.fit == SCAN else f"**`{name}`**"


def _paths(parameter: Parameter) -> Iterator[str]:
    """Yields what a parameter looks at."""
    if parameter.read is not None:
        yield from (f"{parameter.name}{datatype}" for datatype in ("Boolean", "DateTime"))
    for path in parameter.paths:
        yield from (f"{path}.{inner}" if path else inner for p in parameter.parts for inner in p.paths)
        if path:
            yield path


def _fates(mapping: Mapping) -> defaultdict[str, Fate]:
    """Returns what iCure alone does not say of the elements of each example."""
    fates: defaultdict[str, Fate] = defaultdict(Fate)
    for example in sorted((EXAMPLES / mapping.resource_type).glob("*.json")):
        sent = wire.parse(example.read_bytes())
        entity, _ = mapping.to_icure(sent, {"id": "e"})
        for name in sent.keys() - NOT_MAPPED:
            without = mapping.to_icure({n: v for n, v in sent.items() if n != name}, {"id": "e"})[0]
            fates[name].written |= without != entity
        fates["meta.tag"].written = True
        said = _parts(mapping.to_fhir(entity))
        for (element, part, value), times in _parts(sent).items():
            fates[element].sent[part] += times
            if lost := times - min(times, said[element, part, value]):
                fates[element].lost[part] += lost
    return fates


def _parts(resource: Resource) -> Counter[tuple[str, str, str]]:
    """Returns the primitive values of a resource by element and by their path in it; extensions are one part."""
    found: Counter[tuple[str, str, str]] = Counter()
    for path, value in leaves(resource):
        names = re.sub(r"\[\d+\]", "", path).split(".")
        at = 2 if names[0] == "meta" else 1
        element, rest = ".".join(names[:at]).lstrip("_"), names[at:]
        if path.startswith("_"):
            rest = ["extension"]
        cut = next((i for i, name in enumerate(rest) if name == "extension" or name.startswith("_")), None)
        part = ".".join(rest if cut is None else [*rest[:cut], "extension"])
        number = isinstance(value, Decimal | int) and not isinstance(value, bool)
        found[element, part, repr(float(value) if number else value)] += 1
    return found


if __name__ == "__main__":
    TABLE.write_text(table())
