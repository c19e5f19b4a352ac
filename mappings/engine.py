"""The two-way mapping engine: a table of rows, run in both directions, and the keep rule.

Strategy: a `Codec` says one element both ways, a `Row` puts it between a FHIR element and an iCure property, a
`Mapping` is a table of rows. What the table alone reads from an entity is what iCure says; what it cannot say is the
residue (`mappings.residue`). A property that no row owns is never touched.

Rule: a codec may be lossy but is stable: a second trip changes nothing. It returns None for what it cannot say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Mapping as Members
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from functools import partial
from typing import Any, Protocol

from mappings import residue as residues
from mappings.repeats import Repeats, Shelf, key_of
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
    repeats: Repeats | None = None
    """What was written in this context before; None where nothing is remembered."""


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

    def shares_with(self, other: Row) -> bool:
        """Whether the other reads an element or has a property that this one has too."""
        return not (self.elements.isdisjoint(other.elements) and set(self.icure).isdisjoint(other.icure))

    @property
    def elements(self) -> frozenset[str]:
        """The names in JSON of what the row reads."""
        return frozenset(name for head in self.heads for name in residues.names_of(head))

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


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Rows that share elements or properties with each other and with no other row.

    What they write, and what is kept of it, depends on their elements and the context alone.
    """

    rows: tuple[Row, ...]
    elements: frozenset[str]
    """The names in JSON of what they read."""
    nodes: frozenset[str]
    """The names of what they keep in the residue."""
    properties: frozenset[str]

    def part(self, properties: Entity, nodes: Residue) -> tuple[Entity, Residue]:
        """Returns what the group has of these."""
        return (
            {name: value for name, value in properties.items() if name in self.properties},
            {name: node for name, node in nodes.items() if name in self.nodes},
        )


def _groups(rows: tuple[Row, ...]) -> Iterator[Group]:
    """Yields the smallest groups, their rows in the order of the table."""
    left = list(rows)
    while left:
        group = left[:1]
        while len(more := [r for r in left if any(map(r.shares_with, group))]) > len(group):
            group = more
        left = [r for r in left if r not in group]
        elements = frozenset(name for r in group for name in r.elements)
        properties = frozenset(name for r in group for name in r.icure)
        nodes = frozenset(residues.CHOICES.get(name, name) for name in elements)
        yield Group(tuple(group), elements, nodes | (properties & {WITNESS}), properties)


@dataclass(frozen=True, slots=True)
class Mapping:
    """A resource type and an entity type, told apart and joined by a table of rows."""

    resource_type: str
    entity_type: str
    rows: tuple[Row, ...]
    slot: Slot
    search: tuple[Parameter, ...] = ()
    groups: tuple[Group, ...] = field(init=False)
    _group_of: dict[str, int] = field(init=False)
    """From the name of an element to the place of its group."""
    _witnesses: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        groups = tuple(_groups(self.rows))
        object.__setattr__(self, "groups", groups)
        object.__setattr__(
            self, "_group_of", {n: i for i, group in enumerate(groups) for n in group.elements}
        )
        object.__setattr__(self, "_witnesses", tuple(name for one in self.rows for name in one.witness))

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
        if known is not None:
            changed = [r for r in self.rows if any(known.get(n) != resource.get(n) for n in r.heads)]
            return self._written(changed, self.rows, resource, entity, context)
        if context.repeats is not None:
            return self._recalled(resource, entity, context, context.repeats)
        return self._written(self.rows, self.rows, resource, entity, context)

    def _recalled(
        self, resource: Resource, onto: Entity, context: Context, repeats: Repeats
    ) -> tuple[Entity, Residue]:
        """Returns the same as `_written`, which it asks only for what is not repeated."""
        *parts, left = self._parts(resource)
        entity: Entity = {}
        nodes: Residue = {}
        rows: list[Row] = []
        missed: list[tuple[Group, Shelf, str]] = []
        for group, elements in zip(self.groups, parts, strict=True):
            shelf = repeats.of(group) if group.properties.isdisjoint(onto) else None
            if shelf is not None:
                key = key_of(elements)
                if made := shelf.get(key):
                    entity |= made[0]
                    nodes |= made[1]
                    continue
                missed.append((group, shelf, key))
            rows += group.rows
            left |= elements
        anew = self._written(rows, rows, left, onto, context)
        for group, shelf, key in missed:
            shelf.put(key, group.part(*anew))
        return entity | anew[0], nodes | anew[1]

    def _parts(self, resource: Resource) -> list[Resource]:
        """Returns the elements of each group, and last those of none."""
        parts: list[Resource] = [{} for _ in range(len(self.groups) + 1)]
        for name, value in resource.items():
            parts[self._group_of.get(name, -1)][name] = value
        return parts

    def _written(
        self,
        changed: Sequence[Row],
        rows: Sequence[Row],
        resource: Resource,
        entity: Entity,
        context: Context,
    ) -> tuple[Entity, Residue]:
        """Returns the entity with what changed of the rows, and what all of these rows could not say."""
        for each_row in changed:
            for name, value in each_row.write(resource, entity, context).items():
                if value is None:
                    entity.pop(name, None)
                else:
                    entity[name] = value
        witnesses = {name: entity[name] for name in self._witnesses if entity.get(name) is not None}
        seen = {**entity, WITNESS: witnesses} if witnesses else entity
        alone = partial(self._alone, resource, context)
        nodes = residues.keep(resource, _natural(rows, seen, context), alone, context.repeats)
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
        natural = _natural(self.rows, seen, context)
        return residues.restore(natural, {n: node for n, node in nodes.items() if n != WITNESS})

    def _alone(self, resource: Resource, context: Context, name: str) -> list[Json]:
        """Returns what iCure alone would say for each member of a list if it were the only one; None for nothing."""
        for each_row in self.rows:
            if name in each_row.fhir:
                others = {n: v for n, v in resource.items() if n in each_row.fhir and not isinstance(v, list)}
                alone = ({**others, name: [member]} for member in resource[name])
                said = (each_row.read(each_row.write(one, {}, context), context).get(name) for one in alone)
                return [members[0] if members else None for members in said]
        return []


def _natural(rows: Sequence[Row], entity: Entity, context: Context) -> Resource:
    """Returns what iCure alone says."""
    resource: Resource = {}
    for each_row in rows:
        said = each_row.read(entity, context)
        if each_row.nested:
            meta = resource.setdefault("meta", {})
            meta |= {name.partition(".")[2]: value for name, value in said.items()}
        else:
            resource |= said
    return resource


def _own_members(resource: Resource) -> Resource:
    """Returns the resource without what the server gives it: type, id, version and time of the last update."""
    meta = dict(resource.get("meta") or {})
    own = {**resource, "meta": meta}
    for members, given in ((own, "resourceType"), (own, "id"), (meta, "versionId"), (meta, "lastUpdated")):
        members.pop(given, None)
    return own


def _inner(resource: Resource, names: tuple[str, ...]) -> Resource:
    """Returns elements by their paths, such as `meta.tag`."""
    found: Resource = {}
    for name in names:
        value: Any = resource
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        found[name] = value
    return found
