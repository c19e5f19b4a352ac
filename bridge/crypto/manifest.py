"""Which members of an entity are encrypted: iCure's encrypted-fields manifests, parsed once into a tree.

Facts: `field`, `field.sub` (object), `field[].sub` (array of objects), `field.*.sub` (map of objects), and so
on downwards; `*` as the last part means all members of that object; `a.b.["x","y"]` groups endings. The defaults
are those of iCure's SDKs; where their versions differ, the lists are joined.

A file of `BRIDGE_ENCRYPTED_FIELDS_FILE` is a JSON object with the SDK's option names and lists of paths; a list
replaces the default of its type: `{"patient": ["note", "notes[].markdown"], "service": ["comment"]}`. The
`content` of a Service is always encrypted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import orjson

Manifests = Mapping[str, "Manifest"]
"""A manifest for each entity type, e.g. `Patient`."""

_HEAD = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\[\]|\.\*(?=\.))?(?:\.(.+))?")
_GROUP = re.compile(r"(.+\.|)\[(\s*\"[^\"]*\"\s*(?:,\s*\"[^\"]*\"\s*)*)\]")
_CLEAR = frozenset(
    (
        "id",
        "rev",
        "securityMetadata",
        "delegations",
        "encryptionKeys",
        "cryptedForeignKeys",
        "secretForeignKeys",
    )
    + ("encryptedSelf", "deletionDate")
)


class ManifestError(ValueError):
    """A manifest cannot be read; the text says which part of it."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What to encrypt of one object, and what to look into."""

    whole: frozenset[str] = frozenset()
    everything: bool = False
    objects: Mapping[str, Manifest] = field(default_factory=dict)
    lists: Mapping[str, Manifest] = field(default_factory=dict)
    maps: Mapping[str, Manifest] = field(default_factory=dict)

    @classmethod
    def parse(cls, paths: Iterable[str]) -> Manifest:
        """Returns the manifest of an entity type. Raises `ManifestError`."""
        manifest = _parse([flat for path in paths for flat in _ungroup(path)])
        if manifest.everything:
            raise ManifestError('"*" would hide the id of the entity')
        hidden = manifest.whole & _CLEAR
        if hidden:
            raise ManifestError(f"{', '.join(sorted(hidden))}: iCure needs this in clear")
        return manifest

    def names(self, member: str) -> bool:
        """Whether this manifest says anything of a member."""
        return any(member in part for part in (self.whole, self.objects, self.lists, self.maps))


def _parse(paths: Iterable[str]) -> Manifest:
    whole: set[str] = set()
    everything = False
    below: dict[str, dict[str, list[str]]] = {"": {}, "[]": {}, ".*": {}}
    for path in paths:
        if path == "*":
            everything = True
            continue
        match = _HEAD.fullmatch(path)
        if match is None or (match[2] and not match[3]):
            raise ManifestError(f"{path!r} is no path of an encrypted field")
        name, kind, rest = match.groups(default="")
        if rest:
            below[kind].setdefault(name, []).append(rest)
        else:
            whole.add(name)
    names = [*whole, *(name for part in below.values() for name in part)]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ManifestError(f"{', '.join(sorted(twice))}: named in two ways")
    objects, lists, maps = ({name: _parse(rest) for name, rest in part.items()} for part in below.values())
    return Manifest(frozenset(whole), everything, objects, lists, maps)


def _ungroup(path: str) -> list[str]:
    match = _GROUP.fullmatch(path)
    return [path] if match is None else [match[1] + ending for ending in orjson.loads(f"[{match[2]}]")]


_DEFAULTS = {
    "AccessLog": "detail objectId patientId",
    "CalendarItem": "details title patientId phoneNumber address addressText meetingTags[].* flowItem",
    "Classification": "label",
    "Contact": "descr notes[].markdown location encounterLocation participants participantList",
    "Document": "medicalLocationId name",
    "Form": "descr",
    "HealthElement": (
        "descr note notes[].markdown careTeam[].* episode[].name episode[].comment episodes[].name"
        " episodes[].comment"
    ),
    "Invoice": "reason",
    "MaintenanceTask": "properties",
    "Message": "subject",
    "Patient": (
        "note notes[].markdown created modified companyName languages civility birthSex personalStatus"
        " nationality race ethnicity picture insurabilities[].* partnerships[].* patientHealthCareParties[].*"
        " financialInstitutionInformation[].* medicalHouseContracts[].* patientProfessions comment warning"
        " fatherBirthCountry birthCountry nativeCountry socialStatus mainSourceOfIncome schoolingInfos[].*"
        " employementInfos[].*"
    ),
    "Receipt": "references",
    "Service": "notes[].markdown comment",
    "TimeTable": "",
    "Topic": "description linkedServices linkedHealthElements",
}

DEFAULT_MANIFESTS: Manifests = MappingProxyType(
    {type_name: Manifest.parse(paths.split()) for type_name, paths in _DEFAULTS.items()}
)

_TYPES = {type_name[0].lower() + type_name[1:]: type_name for type_name in _DEFAULTS}


def load_manifests(path: Path | None) -> Manifests:
    """Returns the default manifests with those of a file in their place. Raises `ManifestError`."""
    if path is None:
        return DEFAULT_MANIFESTS
    try:
        options = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as e:
        raise ManifestError(f"{path.name} is no readable JSON file") from e
    if not isinstance(options, dict):
        raise ManifestError(f"{path.name} is no JSON object")
    return MappingProxyType({**DEFAULT_MANIFESTS, **dict(_override(*option) for option in options.items())})


def _override(option: str, paths: object) -> tuple[str, Manifest]:
    if option not in _TYPES:
        raise ManifestError(f"{option!r} is no entity type; there are {', '.join(_TYPES)}")
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ManifestError(f"{option!r} is no list of paths")
    try:
        return _TYPES[option], Manifest.parse(paths)
    except ManifestError as e:
        raise ManifestError(f"{option}: {e}") from e
