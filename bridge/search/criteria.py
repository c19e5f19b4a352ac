"""From a parameter and its values to a criterion: what finds candidates upstream, and what decides on each.

Strategy: every value is read before anything is asked upstream, so that a wrong one costs nothing. A chain is searched
from its far end; of what it passes through only references are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bridge.errors import Invalid
from bridge.homes import Record, home_of
from bridge.references import by_ids_or_client_ids, client_ids
from bridge.scope import Scope
from bridge.search import predicates, values
from bridge.search.names import Name
from bridge.search.recipes import BEGINNINGS, RECIPES, of_patients, start_bounds
from mappings import REGISTRY
from mappings.search import Parameter
from mappings.values import Entity, Resource


@dataclass(frozen=True, slots=True)
class Criterion:
    """One AND-part of a query."""

    test: Callable[[Record], bool]
    filters: tuple[Entity, ...] = ()
    """What any of them finds are the candidates; none: scan."""
    secret_ids: tuple[str, ...] = field(default=(), repr=False)
    """Of the patients that all candidates belong to."""
    nothing: bool = False
    """It is known already that nothing matches."""
    starts: tuple[tuple[int | None, int | None], ...] = ()
    """Between which of iCure's dates the candidates of each alternative begin."""


NOTHING = Criterion(lambda record: False, nothing=True)
Find = Callable[[Name], Iterable[Record]]
"""Searches what a link of a chain asks of its targets."""


def check(scope: Scope, name: Name, wanted: Sequence[str]) -> None:
    """Raises `Invalid` for a value that the parameter cannot read."""
    if name.inner:
        for inner in name.inner:
            check(scope, inner, wanted)
    elif name.parameter.name != "_id" and name.parameter.type != "reference":
        predicates.test(name.parameter, name.modifier, wanted, scope.config.timezone)
    elif name.modifier == "missing":
        predicates.missing(name.parameter, wanted)


def build(scope: Scope, name: Name, wanted: Sequence[str], find: Find) -> Criterion:
    """Returns the criterion of a parameter."""
    if name.inner:
        return _having(name, find) if name.reverse else _chained(scope, name, find)
    parameter, modifier = name.parameter, name.modifier
    if parameter.name == "_id" and modifier != "missing":
        return _id(scope, name, wanted)
    if parameter.type == "reference" and modifier not in ("missing", "identifier"):
        return _reference(scope, name, wanted)
    if modifier == "identifier":
        tokens = [values.token(w) for w in wanted]
        return Criterion(
            lambda record: any(
                predicates.says(holder.get("identifier"), token)
                for holder in references(parameter, record.resource)
                for token in tokens
            )
        )
    decides = predicates.test(parameter, modifier, wanted, scope.config.timezone)
    filters = () if modifier in ("missing", "not", "text", "of-type") else _filters(scope, name, wanted)
    starts = _starts(scope, parameter, wanted) if parameter.name == "date" and not modifier else ()
    return Criterion(lambda record: decides(record.resource), filters, starts=starts)


def _filters(scope: Scope, name: Name, wanted: Sequence[str]) -> tuple[Entity, ...]:
    """Returns filters for all of these values, none when one of them cannot be narrowed."""
    parameter = name.parameter
    recipe = RECIPES.get(REGISTRY[name.resource_type].entity_type, {}).get(parameter.icure)
    if recipe is None or (recipe in BEGINNINGS and name.modifier == "contains"):
        return ()
    found = [recipe(owner, _read(scope, parameter, w)) for owner in scope.owners for w in wanted]
    return tuple(f for f in found if f is not None) if all(f is not None for f in found) else ()


def _read(scope: Scope, parameter: Parameter, text: str) -> Any:
    """Returns a value as recipes take it."""
    match parameter.type:
        case "token":
            return values.token(text)
        case "date":
            return values.date(text, scope.config.timezone, parameter.name)
        case "composite":
            return _read(scope, parameter.parts[0], values.split(text, "$")[0])
    return values.unescape(text)


def _starts(
    scope: Scope, parameter: Parameter, wanted: Sequence[str]
) -> tuple[tuple[int | None, int | None], ...]:
    return tuple(start_bounds(*values.date(w, scope.config.timezone, parameter.name)) for w in wanted)


def _id(scope: Scope, name: Name, wanted: Sequence[str]) -> Criterion:
    ids = {values.token(w).code for w in wanted}

    def is_one(record: Record) -> bool:
        return record.id in ids or not ids.isdisjoint(client_ids(scope, record.resource))

    if name.modifier == "not":
        return Criterion(lambda record: not is_one(record))
    if name.modifier:
        raise Invalid("_id does not take this modifier.")
    home = home_of(name.resource_type)
    identifiers = [{"system": scope.config.identifier_system, "value": i} for i in sorted(ids)]
    filters = [home.ids_filter(sorted(ids))]
    filters += [home.identifier_filter(owner, identifiers) for owner in scope.owners]
    return Criterion(is_one, tuple(filters))


# references


def references(parameter: Parameter, resource: Resource) -> Iterator[Resource]:
    """Yields the References of a resource for a parameter, of the types that it is about."""
    yield from predicates.values_of(parameter, resource)


def _reference(scope: Scope, name: Name, wanted: Sequence[str]) -> Criterion:
    """Matches `Type/id`, an id, or a URL; the ids that clients sent are looked up."""
    literals: set[str] = set()
    bare: set[str] = set()
    asked: dict[str, set[str]] = {}
    targets, elsewhere = name.parameter.targets, False
    for text in map(values.unescape, wanted):
        relative = text.removeprefix(scope.base + "/").partition("/_history/")[0]
        if name.modifier and "/" not in relative:
            relative = f"{name.modifier}/{relative}"
        kind, slash, entity_id = relative.rpartition("/")
        if not slash:
            bare.add(relative)
            for target in targets or REGISTRY:
                asked.setdefault(target, set()).add(relative)
        elif not kind.isalpha():
            literals.add(relative)
            elsewhere = True
        elif kind in (targets or (kind,)) and name.modifier in ("", kind):
            literals.add(relative)
            asked.setdefault(kind, set()).add(entity_id)
            elsewhere |= kind != "Patient"
    kinds = asked.keys() & REGISTRY.keys()
    known = [r for kind in kinds for r in by_ids_or_client_ids(scope, kind, asked[kind])]
    patients = [r for r in known if r.resource_type == "Patient"]
    if targets != ("Patient",):
        meant = {i for r in patients for i in (r.id, *client_ids(scope, r.resource))}
        elsewhere |= not bare <= meant
    literals |= {record.location for record in known}
    return refers(scope, name, literals, patients, bare=frozenset(bare), only_patients=not elsewhere)


def refers(
    scope: Scope,
    name: Name,
    locations: set[str],
    patients: Iterable[Record],
    *,
    bare: frozenset[str] = frozenset(),
    only_patients: bool,
) -> Criterion:
    """Returns the criterion of what refers to one of these.

    With `only_patients` and a parameter that iCure knows, candidates are what belongs to these patients.
    """
    parameter = name.parameter

    def holds(record: Record) -> bool:
        for holder in references(parameter, record.resource):
            said = str(holder.get("reference", "")).removeprefix(scope.base + "/").partition("/_history/")[0]
            if said in locations or (bare and said.rpartition("/")[2] in bare):
                return True
        return False

    if parameter.icure != "patient" or not only_patients:
        return Criterion(holds) if locations or bare else NOTHING
    ids = tuple(dict.fromkeys(s for p in patients for s in secret_ids(scope, p)))
    if not ids:
        return NOTHING
    kind = REGISTRY[name.resource_type].entity_type
    filters = [f for owner in scope.owners if (f := of_patients(kind, owner, ids)) is not None]
    return Criterion(holds, tuple(filters), ids)


def secret_ids(scope: Scope, patient: Record) -> tuple[str, ...]:
    """Returns the ids under which a patient's entities are found."""
    return scope.keyring.open(patient.document, "Patient", whole=True).secret_ids


def _chained(scope: Scope, name: Name, find: Find) -> Criterion:
    """Returns the criterion of what refers to something that the rest of the chain finds."""
    locations: set[str] = set()
    ids: dict[str, None] = {}
    for inner in name.inner:
        for record in find(inner):
            locations.add(record.location)
            if record.resource_type == "Patient" and name.parameter.icure == "patient":
                ids.update(dict.fromkeys(secret_ids(scope, record)))
    found = refers(scope, name, locations, (), only_patients=False)
    if name.parameter.icure != "patient" or set(name.targets) != {"Patient"} or found.nothing:
        return found
    kind = REGISTRY[name.resource_type].entity_type
    filters = [f for owner in scope.owners if (f := of_patients(kind, owner, list(ids))) is not None]
    return Criterion(found.test, tuple(filters), tuple(ids)) if ids else NOTHING


def _having(name: Name, find: Find) -> Criterion:
    """Returns the criterion of what something refers to that the rest finds."""
    start = f"{name.resource_type}/"
    ids: set[str] = set()
    for record in find(name.inner[0]):
        for holder in references(name.parameter, record.resource):
            said = str(holder.get("reference", ""))
            if said.startswith(start):
                ids.add(said.removeprefix(start))
    if not ids:
        return NOTHING
    return Criterion(lambda record: record.id in ids, (home_of(name.resource_type).ids_filter(sorted(ids)),))
