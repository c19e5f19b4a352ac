"""What happens to an entity between the bridge's write and its next read: the server completes it, an SDK saves it.

Facts: the server fills in dates, enums, author and responsible, splits the id of a code stub and joins its parts into
one, and keeps tags and codes as sets; an SDK reads an entity into its model and writes the model back, so unknown
members go, nulls and empty lists may go or come, and numbers become doubles.

Strategy: the embedded store's own model of iCure says which members there are; it also refuses what the server would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from bridge.embedded import model
from mappings.values import Entity, Json

NOW = 1_732_190_400_000
FUZZY_NOW = 20241121120000
CALLER = "00000000-0000-4000-8000-00000000cafe"

MODELS = {
    "Patient": model.PATIENT,
    "Service": model.SERVICE,
    "HealthElement": model.HEALTH_ELEMENT,
    "HealthcareParty": model.HEALTHCARE_PARTY,
}
EMPTY: dict[str, Entity] = {
    "Patient": {"addresses": [], "names": [], "languages": [], "partnerships": []},
    "Service": {"identifier": [], "notes": [], "codes": [], "tags": [], "qualifiedLinks": {}},
    "HealthElement": {"identifiers": [], "notes": [], "codes": [], "tags": [], "careTeam": []},
    "HealthcareParty": {
        "addresses": [],
        "names": [],
        "languages": [],
        "properties": [],
        "specialityCodes": [],
    },
}
"""What clients write as empty instead of leaving it out."""
VIRTUAL = ("patientId",)
"""Members that the bridge adds to what it read."""
DOUBLES = frozenset(
    ("value", "ref", "low", "high", "min", "max", "mean", "median", "variance", "numberValue", "samples")
)


def as_sent(entity_type: str, entity: Entity) -> Entity:
    """Returns the entity after its way through JSON."""
    sent: Entity = orjson.loads(orjson.dumps(entity))
    return sent


def completed(entity_type: str, entity: Entity) -> Entity:
    """Returns the entity as the server gives it back; what is encrypted the server does not see."""
    clear = as_sent(entity_type, entity)
    content = clear.pop("content", None)
    stored = {**_with_ids(MODELS[entity_type](clear)), **{n: clear[n] for n in VIRTUAL if n in clear}}
    if content is not None:
        stored["content"] = content
    makers: Entity = {"author": "some-user", "responsible": CALLER}
    if entity_type == "HealthcareParty":
        return {"created": NOW, "modified": NOW, **stored}
    if entity_type == "Service":
        dates: Entity = {"valueDate": FUZZY_NOW, "openingDate": FUZZY_NOW, "created": NOW, "modified": NOW}
        return {**makers, **dates, "index": 0, **stored}
    return {**makers, **stored}


def saved_by_an_sdk(entity_type: str, entity: Entity) -> Entity:
    """Returns a completed entity after an SDK opened it and saved it unchanged."""
    saved: Entity = _as_doubles(MODELS[entity_type](completed(entity_type, entity)))
    return {**saved, **{n: entity[n] for n in VIRTUAL if n in entity}}


def saved_with_nulls(entity_type: str, entity: Entity) -> Entity:
    """Returns a completed entity after a client saved it that writes null and empty lists for what is not set."""
    members = {name: None for name in MODELS[entity_type].members if name not in entity}
    lists: Entity = EMPTY[entity_type]
    return {**members, **lists, **completed(entity_type, entity)}


AFTERWARDS: dict[str, Callable[[str, Entity], Entity]] = {
    "as sent": as_sent,
    "completed by the server": completed,
    "saved by an SDK": saved_by_an_sdk,
    "saved with nulls": saved_with_nulls,
}


def _with_ids(value: Json) -> Any:
    """Returns the value with an id for each code stub that has all three parts."""
    if isinstance(value, dict):
        inner = {name: _with_ids(member) for name, member in value.items()}
        if {"type", "code", "version"} <= inner.keys() and "id" not in inner:
            inner["id"] = f"{inner['type']}|{inner['code']}|{inner['version']}"
        return inner
    return [_with_ids(member) for member in value] if isinstance(value, list) else value


def _as_doubles(value: Json, name: str = "") -> Any:
    if isinstance(value, dict):
        return {inner: _as_doubles(member, inner) for inner, member in value.items()}
    if isinstance(value, list):
        return [_as_doubles(member, name) for member in value]
    return float(value) if name in DOUBLES and type(value) is int else value
