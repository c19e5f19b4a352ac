"""The two-way mapping engine: a table of rows, run in both directions, and the keep rule.

Facts: FHIR R4 resources, https://hl7.org/fhir/R4/resourcelist.html; iCure entities,
https://github.com/icure/kraken-common.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import Any

from mappings.values import Entity, Resource

Residue = dict[str, Any]
"""What FHIR said and iCure cannot say, JSON-able; `{}` when nothing is kept."""


class MappingError(Exception):
    """An element cannot be said in iCure; `path` is its FHIR path, `text` holds no element value."""

    def __init__(self, text: str, path: str) -> None:
        super().__init__(f"{path}: {text}")
        self.text = text
        self.path = path


def _everything(reference: str) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Context:
    """What a mapping cannot know from the data alone."""

    now: int = 0
    """Epoch milliseconds."""
    zone: tzinfo = UTC
    """The zone of iCure's zoneless times."""
    known: Callable[[str], bool] = field(default=_everything)
    """Whether a relative reference such as `Practitioner/<id>` is an entity that iCure holds."""
    caller: str | None = None
    """The data owner that the server writes as `responsible` where none is given."""


DEFAULT = Context()


class Slot:
    """Where an entity carries its sealed residue."""

    def put(self, entity: Entity, sealed: str | None) -> Entity:
        """Returns the entity with this sealed text as its only residue; without any when it is `None`."""
        raise NotImplementedError

    def take(self, entity: Entity) -> tuple[Entity, str | None]:
        """Returns the entity without its residue, and the sealed text if it carried one."""
        raise NotImplementedError


class Mapping:
    """A resource type and an entity type, told apart and joined by a table of rows."""

    resource_type: str
    entity_type: str
    slot: Slot

    def to_icure(
        self,
        resource: Resource,
        onto: Entity | None = None,
        kept: Residue | None = None,
        context: Context = DEFAULT,
    ) -> tuple[Entity, Residue]:
        """Returns the entity that says what the resource says, and what it could not say."""
        raise NotImplementedError

    def to_fhir(
        self, entity: Entity, residue: Residue | None = None, context: Context = DEFAULT
    ) -> Resource:
        """Returns the resource that the entity and its residue say."""
        raise NotImplementedError
