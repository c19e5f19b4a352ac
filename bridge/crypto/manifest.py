"""Which members of an entity are encrypted: iCure's encrypted-fields manifests, parsed once into a tree.

Facts: `field`, `field.sub` (object), `field[].sub` (array of objects), `field.*.sub` (map of objects), and so
on downwards; `*` as the last part means all members of that object; `a.b.["x","y"]` groups endings. The defaults
are those of iCure's SDKs; where their versions differ, the lists are joined. `partnerships` are hidden as a whole,
not one by one: SDKs before 1.1 refuse a Partnership with an `encryptedSelf`, and what is hidden where is free.

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
from typing import Literal

import orjson

Manifests = Mapping[str, "Manifest"]
"""A manifest for each entity type, e.g. `Patient`."""

Shape = Literal["object", "list", "map"]

_SHAPES: Mapping[str | None, Shape] = {None: "object", "[]": "list", ".*": "map"}
_HEAD = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\[\]|\.\*(?=\.))?(?:\.(.+))?")
_GROUP = re.compile(r'(.+\.|)\[(\s*"[^"\\]*"\s*(?:,\s*"[^"\\]*"\s*)*)\]')
_METADATA = {"securityMetadata", "delegations", "encryptionKeys", "cryptedForeignKeys", "secretForeignKeys"}
_CLEAR = frozenset({"id", "rev", "deletionDate", "encryptedSelf", *_METADATA})


class ManifestError(ValueError):
    """A manifest cannot be read; the text says which part of it."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What to encrypt of one object: these members whole, or all of them, and parts of what is in `inner`."""

    whole: frozenset[str] = frozenset()
    everything: bool = False
    inner: Mapping[str, tuple[Shape, Manifest]] = field(default_factory=dict)

    @classmethod
    def parse(cls, paths: Iterable[str]) -> Manifest:
        """Returns the manifest of an entity type. Raises `ManifestError`."""
        flat = [ending for path in paths for ending in _ungroup(path)]
        for path in flat:
            try:
                _parse([path])
            except ManifestError:
                raise ManifestError(f"{path!r} is no path of an encrypted field") from None
        manifest = _parse(flat)
        if manifest.everything:
            raise ManifestError('"*" would hide the id of the entity')
        hidden = (manifest.whole | manifest.inner.keys()) & _CLEAR
        if hidden:
            raise ManifestError(f"{', '.join(sorted(hidden))}: iCure needs this in clear")
        return manifest


def _parse(paths: Iterable[str]) -> Manifest:
    whole: set[str] = set()
    everything = False
    inner: dict[str, tuple[Shape, list[str]]] = {}
    for path in paths:
        match = _HEAD.fullmatch(path)
        if path == "*":
            everything = True
        elif match is None or (match[2] and not match[3]):
            raise ManifestError
        elif not match[3]:
            whole.add(match[1])
        else:
            shape, rests = inner.setdefault(match[1], (_SHAPES[match[2]], []))
            if shape != _SHAPES[match[2]]:
                raise ManifestError(f"{match[1]}: named in two ways")
            rests.append(match[3])
    if twice := whole & inner.keys():
        raise ManifestError(f"{', '.join(sorted(twice))}: named in two ways")
    return Manifest(
        frozenset(whole), everything, {name: (shape, _parse(rests)) for name, (shape, rests) in inner.items()}
    )


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
        " nationality race ethnicity picture insurabilities[].* partnerships patientHealthCareParties[].*"
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
