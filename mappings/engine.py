"""The two-way mapping engine: a table of rows, run in both directions, and the keep rule.

Strategy: a `Codec` says one element both ways, a `Row` puts it between a FHIR element and an iCure property, a
`Mapping` is a table of rows. What the table alone reads from an entity is what iCure says; what it cannot say is the
residue (`mappings.residue`). A property that no row owns is never touched.

Rule: a codec may be lossy but is stable: a second trip changes nothing. It returns None for what it cannot say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Mapping as Members
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import Any, Protocol

from mappings import residue as residues
from mappings.residue import Residue
from mappings.search import Parameter
from mappings.values import Entity, Json, Resource

WITNESS = "~"
"""Where the residue remembers properties that are copies of others, to tell which of the two was edited."""


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
    """The data owner that is responsible for what is written, where the resource names nobody."""


DEFAULT = Context()


class Codec(Protocol):
    """A pair of functions between an element and a property."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns what iCure says for an element, over what stands there now; None when it has no words for it."""

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns what the property says in FHIR; None when that is nothing."""


def said_over(codec: Codec, value: Json, onto: Json, context: Context) -> Json:
    """Returns what stands there if it already says all that the codec can say of the value; else what that says."""
    if not onto:
        return codec.to_icure(value, onto, context)
    there = codec.to_fhir(onto, context)
    if there == value or (there is None and not value and value is not False):
        return onto
    if there is not None and residues.covers(value, there):
        anew = codec.to_icure(value, None, context)
        again = None if anew is None else codec.to_fhir(anew, context)
        if again is None or residues.covers(there, again):
            return onto
    return codec.to_icure(value, onto, context)


@dataclass(frozen=True, slots=True)
class Row:
    """One fact: elements of the resource, properties of the entity, and how one becomes the other.

    With one name on a side the codec sees the value, with several an object of them. `where` restricts a list
    property to the members that this row owns. `witness` names the properties that are copies of others.
    """

    fhir: tuple[str, ...]
    icure: tuple[str, ...]
    codec: Codec
    heads: tuple[str, ...]
    """The elements that `fhir` begins with: `meta` for `meta.tag`."""
    where: Callable[[Json], bool] | None = None
    witness: tuple[str, ...] = ()
    nested: bool = False
    """Whether an element of `fhir` stands inside another, as `meta.tag` does."""

    def read(self, entity: Entity, context: Context) -> Resource:
        """Returns the elements that the properties say."""
        value: Json
        if len(self.icure) == 1:
            value = entity.get(self.icure[0])
            if self.where is not None:
                value = [member for member in value or () if self.where(member)]
        else:
            value = _some(entity, self.icure)
        said = self.codec.to_fhir(value, context)
        if said is None:
            return {}
        return {self.fhir[0]: said} if len(self.fhir) == 1 else said

    def write(self, resource: Resource, onto: Entity, context: Context) -> Entity:
        """Returns the properties, None for one that is to be absent."""
        if self.nested:
            resource = _inner(resource, self.fhir)
        value = resource.get(self.fhir[0]) if len(self.fhir) == 1 else _some(resource, self.fhir)
        if len(self.icure) > 1:
            said = said_over(self.codec, value, _some(onto, self.icure), context) or {}
            return {name: said.get(name) for name in self.icure}
        name = self.icure[0]
        old = onto.get(name)
        if self.where is None:
            return {name: said_over(self.codec, value, old, context)}
        mine: list[Json] = []
        others: list[Json] = []
        for member in old or ():
            (mine if self.where(member) else others).append(member)
        return {name: others + (said_over(self.codec, value, mine, context) or []) or None}


def _some(members: Members[str, Json], names: tuple[str, ...]) -> dict[str, Json]:
    return {name: value for name in names if (value := members.get(name)) is not None}


def row(
    fhir: str,
    icure: str,
    codec: Codec,
    *,
    where: Callable[[Json], bool] | None = None,
    witness: str = "",
) -> Row:
    """Returns a row; several names are separated by blanks."""
    names = tuple(fhir.split())
    heads = tuple(name.partition(".")[0] for name in names)
    return Row(names, tuple(icure.split()), codec, heads, where, tuple(witness.split()), heads != names)


class Slot(Protocol):
    """Where an entity carries its sealed residue."""

    def put(self, entity: Entity, sealed: str | None) -> Entity:
        """Returns the entity with this sealed text as its only residue; without any when it is `None`."""

    def take(self, entity: Entity) -> tuple[Entity, str | None]:
        """Returns the entity without its residue, and the sealed text if it carried one."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """A resource type and an entity type, told apart and joined by a table of rows."""

    resource_type: str
    entity_type: str
    rows: tuple[Row, ...]
    slot: Slot
    search: tuple[Parameter, ...] = ()

    def to_icure(
        self,
        resource: Resource,
        onto: Entity | None = None,
        kept: Residue | None = None,
        context: Context = DEFAULT,
    ) -> tuple[Entity, Residue]:
        """Returns the entity that says what the resource says, and what it could not say.

        `onto` is the entity that it is written over, `kept` its residue: what already says the same is left as it
        stands. Raises `MappingError`.
        """
        resource = _own_members(resource)
        entity: Entity = dict(onto or {})
        known = self._sayings(onto, kept, context) if onto is not None and len(onto) > 1 else None
        if known is not None and known == resource:
            return entity, kept or {}
        for each_row in self.rows:
            if known is not None and all(known.get(n) == resource.get(n) for n in each_row.heads):
                continue
            for name, value in each_row.write(resource, entity, context).items():
                if value is None:
                    entity.pop(name, None)
                else:
                    entity[name] = value
        witnesses = {name: entity[name] for name in self._witnesses() if entity.get(name) is not None}
        natural = self._natural({**entity, WITNESS: witnesses} if witnesses else entity, context)
        nodes = residues.keep(resource, natural, lambda name: self._alone(name, resource, context))
        if witnesses:
            nodes[WITNESS] = witnesses
        return entity, nodes

    def to_fhir(self, entity: Entity, residue: Residue | None = None, context: Context = DEFAULT) -> Resource:
        """Returns the resource that the entity and its residue say; without `id`."""
        said = self._sayings(entity, residue, context)
        return {"resourceType": self.resource_type, **{n: v for n, v in said.items() if v != {}}}

    def _sayings(self, entity: Entity, residue: Residue | None, context: Context) -> Resource:
        nodes = residue or {}
        seen = {**entity, WITNESS: nodes[WITNESS]} if WITNESS in nodes else entity
        natural = self._natural(seen, context)
        return residues.restore(natural, {n: node for n, node in nodes.items() if n != WITNESS})

    def _natural(self, entity: Entity, context: Context) -> Resource:
        """Returns what iCure alone says."""
        resource: Resource = {"meta": {}}
        for each_row in self.rows:
            said = each_row.read(entity, context)
            if each_row.nested:
                resource["meta"] |= {name.partition(".")[2]: value for name, value in said.items()}
            else:
                resource |= said
        return resource

    def _alone(self, name: str, resource: Resource, context: Context) -> list[Json]:
        """Returns what iCure alone would say for each member of a list if it were the only one; None for nothing."""
        for each_row in self.rows:
            if name in each_row.fhir:
                others = {n: v for n, v in resource.items() if n in each_row.fhir and not isinstance(v, list)}
                alone = ({**others, name: [member]} for member in resource[name])
                said = (each_row.read(each_row.write(one, {}, context), context).get(name) for one in alone)
                return [members[0] if members else None for members in said]
        return []

    def _witnesses(self) -> Iterator[str]:
        for each_row in self.rows:
            yield from each_row.witness


def _own_members(resource: Resource) -> Resource:
    """Returns the resource without what the server gives it: type, id, version and time of the last update."""
    own = {name: value for name, value in resource.items() if name not in ("resourceType", "id", "meta")}
    meta = resource.get("meta") or {}
    meta = {name: value for name, value in meta.items() if name not in ("versionId", "lastUpdated")}
    return {**own, "meta": meta}


def _inner(resource: Resource, names: tuple[str, ...]) -> Resource:
    """Returns elements by their paths, such as `meta.tag`."""
    found: Resource = {}
    for name in names:
        value: Any = resource
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        found[name] = value
    return found
