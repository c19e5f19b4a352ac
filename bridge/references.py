"""References in a resource: which there are, and what they become.

Facts: https://hl7.org/fhir/R4/references.html and https://hl7.org/fhir/R4/bundle.html#references.
Strategy: all references of a request are collected first and looked up together (one or two calls a type, however many
there are); each resource is rewritten in place to `Type/<server id>` when its turn comes. What cannot be found stays as
it was sent and is warned of; only `Observation.subject` must resolve.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from bridge.errors import BridgeError, Issue, Unprocessable, warning
from bridge.homes import Record, home_of, union
from bridge.scope import Scope
from mappings import REGISTRY
from mappings.values import Json, Resource

PARTIES = ("Practitioner", "Organization")
SUBJECTS = ("subject", "patient")
_RELATIVE = re.compile(r"([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(/_history/[A-Za-z0-9\-.]{1,64})?")
_BARE = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_BARE_TYPES = {
    "subject": "Patient",
    "patient": "Patient",
    "performer": "Practitioner",
    "generalPractitioner": "Practitioner",
    "managingOrganization": "Organization",
    "organization": "Organization",
    "hasMember": "Observation",
    "derivedFrom": "Observation",
}


class Reference(NamedTuple):
    """One `Reference` of a resource: what it says, and the way to it."""

    steps: tuple[str | int, ...]
    text: str
    """What stands in `reference`; empty for a subject that is given by an identifier only."""
    identifier: tuple[str, str] | None = None
    """System and value of such a subject."""

    @property
    def path(self) -> str:
        """The way to it, to be put behind that of the resource."""
        return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.steps)

    @property
    def member(self) -> str:
        """The element that it is."""
        return next((step for step in reversed(self.steps) if isinstance(step, str)), "")


def references(resource: Resource) -> list[Reference]:
    """Returns every literal reference of a resource, deep ones too, and a subject that is given by identifier."""
    found: list[Reference] = []
    _collect(resource, (), found)
    if identifier := _logical_subject(resource):
        found.append(Reference(("subject",), "", identifier))
    return found


def _collect(value: Json, steps: tuple[str | int, ...], found: list[Reference]) -> None:
    if isinstance(value, dict):
        if isinstance(value.get("reference"), str):
            found.append(Reference(steps, value["reference"]))
        for name, inner in value.items():
            if isinstance(inner, (dict, list)):
                _collect(inner, (*steps, name), found)
    else:
        for at, inner in enumerate(value):
            if isinstance(inner, (dict, list)):
                _collect(inner, (*steps, at), found)


@dataclass(slots=True)
class Found:
    """What the references of a request turned out to be."""

    known: set[str] = field(default_factory=set)
    """`Type/<server id>` of what iCure holds or is about to hold."""
    records: dict[str, Record] = field(default_factory=dict)
    """The opened records that were read on the way, by `Type/<server id>`."""
    aliases: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """What has a `Type/<client id>`; a server id always wins over it."""
    meant: dict[str, list[tuple[Reference, str]]] = field(default_factory=lambda: defaultdict(list))
    """By the path of each resource, those of its references that become something else."""

    def mean(self, at: str, reference: Reference, location: str) -> None:
        """Notes what a reference stands for."""
        if location != reference.text:
            self.meant[at].append((reference, location))

    def rewrite(self, at: str, resource: Resource) -> None:
        """Puts what they stand for into the references of the resource that stands there."""
        for reference, location in self.meant.get(at, ()):
            holder: Any = resource
            for step in reference.steps:
                holder = holder[step]
            holder["reference"] = location


Matching = Callable[[str, str], Sequence[Record]]
"""From a resource type and a query to what meets it; two are enough to tell that there are several."""


def resolve(
    scope: Scope,
    resources: Iterable[tuple[str, Sequence[Reference], str]],
    own: dict[str, list[str]],
    matching: Matching,
) -> Found:
    """Returns what the references of all these (path, references, base of its fullUrl) stand for.

    `own` says what the request itself writes: fullUrl, or `Type/<client id>`, to `Type/<server id>`; `matching` finds
    what a conditional reference means. Raises one `Unprocessable` with all that must resolve and does not.
    """
    found = Found(known={location for locations in own.values() for location in locations})
    conditional: dict[str, Sequence[Record]] = {}
    wanted: list[tuple[str, Reference, str]] = []
    by_identifier: list[tuple[str, Reference]] = []
    wrong: list[Issue] = []
    strict = scope.config.references == "strict"
    for at, said, base in resources:
        for reference in said:
            if reference.identifier is not None:
                by_identifier.append((at, reference))
                continue
            target = _target(scope, reference, own, base)
            if target is None:
                continue
            if len(own.get(target, ())) == 1:
                found.mean(at, reference, own[target][0])
            elif target.startswith("urn:"):
                text = "This reference names nothing in the request."
                wrong.append(Issue("not-found", text, at + reference.path))
            elif "?" in target:
                try:
                    if target not in conditional:
                        conditional[target] = matching(*target.split("?", 1))
                    record = _only(conditional[target], at + reference.path)
                    found.mean(at, reference, record.location)
                    found.known.add(record.location)
                    found.records[record.location] = record
                except BridgeError as e:
                    wrong += [replace(issue, path=at + reference.path) for issue in e.issues]
            else:
                wanted.append((at, reference, target))
    _look_up(scope, {target for _, _, target in wanted}, found)
    for at, reference, target in wanted:
        matches = [target] if target in found.known else [*own.get(target, ()), *found.aliases[target]]
        path = at + reference.path
        if len(matches) == 1:
            found.mean(at, reference, matches[0])
        elif reference.member in SUBJECTS and target.startswith("Patient/"):
            wrong.append(_unresolved(path, matches, found.aliases[target]))
        elif strict:
            wrong.append(Issue("not-found", "Nothing that this reference could mean is known.", path))
        else:
            scope.warnings.append(
                warning("not-found", "This reference is kept as sent; nothing is known there.", path)
            )
    if wrong:
        raise Unprocessable(issues=wrong)
    _link_logical(scope, by_identifier, found)
    return found


def _only(matches: Sequence[Record], path: str) -> Record:
    """Returns the one match of a conditional reference. Raises `Unprocessable` for none or several."""
    if len(matches) != 1:
        code, what = ("multiple-matches", "Several") if matches else ("not-found", "No")
        raise Unprocessable(issues=[Issue(code, f"{what} resources meet this conditional reference.", path)])
    return matches[0]


def _unresolved(path: str, matches: list[str], stored: list[str]) -> Issue:
    if matches:
        which = f": {', '.join(stored)}" if stored else ""
        text = f"This client id means several{which}. Use the server's id, or a fullUrl."
        return Issue("multiple-matches", text, path)
    return Issue("not-found", "This Patient is not known, or not readable by you.", path)


def _target(scope: Scope, reference: Reference, own: dict[str, list[str]], base: str) -> str | None:
    """Returns what a reference asks for: a key of `own`, `Type/id`, a urn or a query; None when it is left alone."""
    text = reference.text
    if text.startswith("#") or not text:
        return None
    if base and base + text in own:
        return base + text
    if text in own or text.startswith(("urn:uuid:", "urn:oid:")):
        return text
    relative = text[len(scope.base) + 1 :] if text.startswith(scope.base + "/") else text
    if relative in own:
        return relative
    if match := _RELATIVE.fullmatch(relative):
        return f"{match[1]}/{match[2]}"
    if _BARE.fullmatch(relative):
        kind = _BARE_TYPES.get(reference.member)
        return f"{kind}/{relative}" if kind else relative
    if re.match(r"[A-Z][A-Za-z]+\?", relative):
        return relative
    return None


def client_ids(scope: Scope, resource: Resource) -> list[str]:
    """Returns the ids under which clients sent this resource."""
    system = scope.config.identifier_system
    return [i["value"] for i in resource.get("identifier", []) if i.get("system") == system and "value" in i]


def _look_up(scope: Scope, targets: Iterable[str], found: Found) -> None:
    by_type: dict[str, set[str]] = defaultdict(set)
    for target in targets:
        kind, slash, entity_id = target.partition("/")
        if slash:
            by_type[kind].add(entity_id)
    parties = {p for kind in PARTIES for p in by_type.get(kind, ())}
    if parties:
        existing = known_parties(scope, parties)
        found.known |= {f"{k}/{p}" for k in PARTIES for p in by_type.get(k, ()) if p in existing}
    for kind in by_type.keys() & REGISTRY.keys():
        records = by_ids(scope, kind, by_type[kind]) if kind not in PARTIES else []
        rest = {i for i in by_type[kind] if f"{kind}/{i}" not in found.known} - {r.id for r in records}
        for record in by_client_ids(scope, kind, sorted(rest)):
            if not record.deleted:
                records.append(record)
                for client_id in client_ids(scope, record.resource):
                    found.aliases[f"{kind}/{client_id}"].append(record.location)
        found.records |= {record.location: record for record in records}
        found.known |= {record.location for record in records}


def known_parties(scope: Scope, ids: set[str]) -> set[str]:
    """Returns which of these are HealthcareParty ids; existing ones are remembered by the worker."""
    unknown = [i for i in ids if not scope.known_parties.get(i)]
    if unknown:
        for party in scope.client.healthcare_parties(unknown):
            if not party.get("deletionDate"):
                scope.known_parties.put(party["id"], True)
    return {i for i in ids if scope.known_parties.get(i)}


def by_ids(scope: Scope, resource_type: str, ids: Iterable[str]) -> list[Record]:
    """Returns the live records under these server ids."""
    return [r for r in home_of(resource_type).read_all(scope, resource_type, sorted(ids)) if not r.deleted]


def by_ids_or_client_ids(scope: Scope, resource_type: str, ids: Iterable[str]) -> list[Record]:
    """Returns the live records that these ids mean, be they the server's or a client's."""
    asked = set(ids)
    records = by_ids(scope, resource_type, asked)
    rest = sorted(asked - {record.id for record in records})
    return records + [r for r in by_client_ids(scope, resource_type, rest) if not r.deleted]


def by_client_ids(scope: Scope, resource_type: str, ids: list[str]) -> list[Record]:
    """Returns the records that clients sent under these ids, deleted Services too."""
    return by_identifiers(
        scope, resource_type, [{"system": scope.config.identifier_system, "value": i} for i in ids]
    )


def by_identifiers(scope: Scope, resource_type: str, identifiers: list[dict[str, str]]) -> list[Record]:
    """Returns the records that have one of these `{system, value}`."""
    if not identifiers:
        return []
    home = home_of(resource_type)
    ids = scope.client.match(home.kind, union(home.identifier_filter(o, identifiers) for o in scope.owners))
    return home.read_all(scope, resource_type, list(dict.fromkeys(ids)))


def _logical_subject(resource: Resource) -> tuple[str, str] | None:
    """Returns system and value of a subject that is given by an identifier only."""
    subject: Any = resource.get("subject")
    if (
        not isinstance(subject, dict)
        or "reference" in subject
        or subject.get("type") not in (None, "Patient")
    ):
        return None
    identifier = subject.get("identifier") or {}
    system, value = identifier.get("system"), identifier.get("value")
    return (system, value) if system and value else None


def _link_logical(scope: Scope, wanted: Sequence[tuple[str, Reference]], found: Found) -> None:
    """Links a subject given by identifier when exactly one Patient has it."""
    if not wanted:
        return
    distinct = dict.fromkeys(reference.identifier for _, reference in wanted if reference.identifier)
    having: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in by_identifiers(
        scope, "Patient", [{"system": system, "value": value} for system, value in distinct]
    ):
        for own in record.resource.get("identifier", []):
            having[(own.get("system", ""), own.get("value", ""))].append(record)
    for at, reference in wanted:
        matches = having[reference.identifier or ("", "")]
        if len(matches) == 1:
            found.mean(at, reference, matches[0].location)
            found.known.add(matches[0].location)
            found.records[matches[0].location] = matches[0]
