"""References in a resource: which there are, and what they become.

Facts: https://hl7.org/fhir/R4/references.html and https://hl7.org/fhir/R4/bundle.html#references.
Strategy: all references of a request are collected first, looked up together (one or two calls a type, however many
there are), and then rewritten in place to `Type/<server id>`. What cannot be found stays as it was sent and is warned
of; only `Observation.subject` must resolve.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

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


@dataclass(slots=True)
class Reference:
    """One `Reference` of a resource; `holder` is its JSON object, rewritten in place."""

    path: str
    member: str
    holder: Resource

    @property
    def text(self) -> str:
        """What stands in `reference` now."""
        return str(self.holder["reference"])


def references(resource: Resource) -> list[Reference]:
    """Returns every literal reference of a resource, those in extensions and contained resources too."""
    found: list[Reference] = []
    _collect(resource, resource.get("resourceType", ""), "", found)
    return found


def _collect(value: Json, path: str, member: str, found: list[Reference]) -> None:
    if isinstance(value, dict):
        if isinstance(value.get("reference"), str):
            found.append(Reference(path, member, value))
        for name, inner in value.items():
            if isinstance(inner, (dict, list)):
                _collect(inner, f"{path}.{name}", name, found)
    else:
        for at, inner in enumerate(value):
            if isinstance(inner, (dict, list)):
                _collect(inner, f"{path}[{at}]", member, found)


@dataclass(slots=True)
class Found:
    """What the references of a request turned out to be."""

    known: set[str] = field(default_factory=set)
    """`Type/<server id>` of what iCure holds or is about to hold."""
    records: dict[str, Record] = field(default_factory=dict)
    """The opened records that were read on the way, by `Type/<server id>`."""
    aliases: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """What has a `Type/<client id>`; a server id always wins over it."""


Matching = Callable[[str, str], Sequence[Record]]
"""From a resource type and a query to what meets it; two are enough to tell that there are several."""


def resolve(
    scope: Scope,
    resources: Iterable[tuple[str, Resource, str]],
    own: dict[str, list[str]],
    matching: Matching,
) -> Found:
    """Rewrites the references of all these (path, resource, base of its fullUrl) and returns what they stand for.

    `own` says what the request itself writes: fullUrl, or `Type/<client id>`, to `Type/<server id>`; `matching` finds
    what a conditional reference means. Raises one `Unprocessable` with all that must resolve and does not.
    """
    found = Found(known={location for locations in own.values() for location in locations})
    conditional: dict[str, Sequence[Record]] = {}
    wanted: list[tuple[str, Reference, str]] = []
    by_identifier: list[tuple[str, Resource, dict[str, str]]] = []
    wrong: list[Issue] = []
    strict = scope.config.references == "strict"
    for at, resource, base in resources:
        for reference in references(resource):
            path = at + reference.path[len(resource["resourceType"]) :]
            target = _target(scope, reference, own, base)
            if target is None:
                continue
            if len(own.get(target, ())) == 1:
                reference.holder["reference"] = own[target][0]
            elif target.startswith("urn:"):
                wrong.append(Issue("not-found", "This reference names nothing in the request.", path))
            elif "?" in target:
                try:
                    if target not in conditional:
                        conditional[target] = matching(*target.split("?", 1))
                    record = _only(conditional[target], path)
                    reference.holder["reference"] = record.location
                    found.known.add(record.location)
                    found.records[record.location] = record
                except BridgeError as e:
                    wrong += [replace(issue, path=path) for issue in e.issues]
            else:
                wanted.append((path, reference, target))
        identifier = _logical_subject(resource)
        if identifier:
            by_identifier.append((at, resource, identifier))
    _look_up(scope, {target for _, _, target in wanted}, found)
    for path, reference, target in wanted:
        matches = [target] if target in found.known else [*own.get(target, ()), *found.aliases[target]]
        if len(matches) == 1:
            reference.holder["reference"] = matches[0]
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


def _logical_subject(resource: Resource) -> dict[str, str] | None:
    """Returns `{system, value}` of a subject that is given by an identifier only."""
    subject: Any = resource.get("subject")
    if (
        not isinstance(subject, dict)
        or "reference" in subject
        or subject.get("type") not in (None, "Patient")
    ):
        return None
    identifier = subject.get("identifier") or {}
    system, value = identifier.get("system"), identifier.get("value")
    return {"system": system, "value": value} if system and value else None


def _link_logical(scope: Scope, wanted: list[tuple[str, Resource, dict[str, str]]], found: Found) -> None:
    """Links a subject given by identifier when exactly one Patient has it."""
    if not wanted:
        return
    distinct = list({(i["system"], i["value"]): i for _, _, i in wanted}.values())
    having: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in by_identifiers(scope, "Patient", distinct):
        for own in record.resource.get("identifier", []):
            having[(own.get("system", ""), own.get("value", ""))].append(record)
    for _, resource, identifier in wanted:
        matches = having[(identifier["system"], identifier["value"])]
        if len(matches) == 1:
            resource["subject"]["reference"] = matches[0].location
            found.known.add(matches[0].location)
            found.records[matches[0].location] = matches[0]
