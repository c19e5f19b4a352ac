"""How iCure narrows a search: one recipe for each entity type and searchable property.

Facts: iCure's filters find what was delegated to one data owner, by what lies in clear; names, addresses and numbers
are compared by their letters a-z and digits alone.

Rule: a recipe finds everything that FHIR's predicate can accept, or returns None: then nothing upstream helps. Only
what a parameter declares `narrower` may find less.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from bridge.homes import union
from bridge.search.values import Bound, Span, Token
from mappings import REGISTRY
from mappings.engine import DEFAULT
from mappings.observation import STATUS
from mappings.patient import GENDER
from mappings.search import EXACT, NARROWER, Parameter
from mappings.values import Entity

Recipe = Callable[[str, Any], Entity | None]
"""From a data owner and one value to a filter; None when iCure cannot narrow this value."""
_SHORTEST = 3
"""iCure's name index holds suffixes of at least three letters or digits."""
_SECONDS = 1_000_000


def _plain(text: str) -> str:
    """Returns what of a text certainly counts in iCure's indexes."""
    folded = unicodedata.normalize("NFKD", text.casefold())
    return re.sub("[^a-z0-9]", "", folded)


def _identifier(kind: str, member: str = "healthcarePartyId", *, system_alone: bool = False) -> Recipe:
    def recipe(owner: str, value: Token) -> Entity | None:
        if not value.system or not (value.code or system_alone):
            return None
        identifier = {"system": value.system, **({"value": value.code} if value.code else {})}
        return {"$type": kind, member: owner, "identifiers": [identifier]}

    return recipe


def _name(owner: str, value: str) -> Entity | None:
    """Finds each word of at least three letters."""
    words = [w for w in value.split() if len(_plain(w)) >= _SHORTEST]
    per_word: list[Entity] = [
        {"$type": "PatientByHcPartyNameContainsFuzzyFilter", "healthcarePartyId": owner, "searchString": w}
        for w in words
    ]
    if len(per_word) > 1:
        return {"$type": "IntersectionFilter", "filters": per_word}
    return per_word[0] if per_word else None


def _address(owner: str, value: str) -> Entity | None:
    if len(_plain(value)) < _SHORTEST:
        return None
    return {"$type": "PatientByHcPartyAndAddressFilter", "healthcarePartyId": owner, "searchString": value}


def _telecom(owner: str, value: Token) -> Entity | None:
    if not re.sub(r"\W", "", value.code, flags=re.ASCII):
        return None
    return {
        "$type": "PatientByHcPartyAndTelecomFilter",
        "healthcarePartyId": owner,
        "searchString": value.code,
    }


def _gender(owner: str, value: Token) -> Entity | None:
    if not value.code:
        return None
    stored = [icure for icure in GENDERS if GENDER.to_fhir(icure, DEFAULT) == value.code]
    kind = "PatientByHcPartyGenderEducationProfession"
    if not stored:
        return {"$type": "PatientByIdsFilter", "ids": []}
    return union({"$type": kind, "healthcarePartyId": owner, "gender": gender} for gender in stored)


GENDERS = ("male", "female", "indeterminate", "changed", "changedToMale", "changedToFemale", "unknown")


def _active(owner: str, value: Token) -> Entity | None:
    if value.code not in ("true", "false"):
        return None
    active = value.code == "true"
    return {"$type": "PatientByHcPartyAndActiveFilter", "healthcarePartyId": owner, "active": active}


def _birth(owner: str, value: tuple[str, Span]) -> Entity | None:
    """Finds dates of birth from the beginning of the first year, as unknown months and days are zeros."""
    low, high = _reach(*value)
    first = _calendar(low, -1, floor=True) if low > -math.inf else 0
    last = _calendar(high, 1) if high < math.inf else 99991231
    if first == 0 and last == 99991231:
        return None
    kind = "PatientByHcPartyDateOfBirthBetweenFilter"
    return {"$type": kind, "healthcarePartyId": owner, "minDateOfBirth": first, "maxDateOfBirth": last}


def _reach(prefix: str, asked: Span) -> tuple[Bound, Bound]:
    """Returns where a short span has to lie to meet what was asked."""
    match prefix:
        case "eq":
            return asked.low, asked.high
        case "gt" | "ge" | "sa":
            return asked.low, math.inf
        case "lt" | "le" | "eb":
            return -math.inf, asked.high
    return -math.inf, math.inf


def _calendar(at: Bound, days: int, *, floor: bool = False) -> int:
    """Returns a day as YYYYMMDD, some days away as zones differ; with `floor` the beginning of its year."""
    try:
        day = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(at), days=days)
    except OverflowError:
        return 0 if days < 0 else 99991231
    return day.year * 10_000 if floor else int(day.strftime("%Y%m%d")) if day.year > 999 else 10_000_000


def start_bounds(prefix: str, asked: Span) -> tuple[int | None, int | None]:
    """Returns between which of iCure's dates the beginning of what is found must lie, None for open ends.

    iCure's index has the beginning of a period only (the end where there is no beginning; of a Timing the first event),
    so that nothing bounds from below what may have begun long before.
    """
    low = asked.low if prefix == "eq" else asked.high if prefix == "sa" else -math.inf
    high = asked.high if prefix in ("eq", "le") else asked.low if prefix in ("eb", "lt") else math.inf
    start = _calendar(low, -1, floor=True) * _SECONDS if low > -math.inf else None
    end = _calendar(high, 1) * _SECONDS + 235_959 if high < math.inf else None
    return start, end


def service_date(service: Entity) -> int:
    """Returns the number by which iCure's index orders a Service: YYYYMMDDhhmmss of its date."""
    date = service.get("valueDate") or service.get("openingDate") or 0
    return date * _SECONDS if abs(date) <= 99_999_999 else int(date)


def _stub(kind: str, owner_member: str, *names: str, prefix: str = "") -> Recipe:
    """Returns the recipe that finds a tag or code (`names`), also all of a system where `prefix` names a filter."""

    def recipe(owner: str, value: Token) -> Entity | None:
        if not value.system:
            return None
        of_owner = {owner_member: owner} if owner_member else {}
        found: list[Entity] = []
        for name in names:
            if value.code:
                said = {f"{name}Type": value.system, f"{name}Code": value.code}
                found.append({"$type": kind, **of_owner, **said})
            elif prefix:
                said = {f"{name}Type": value.system, f"{name}CodePrefix": ""}
                found.append({"$type": prefix.format(name.title()), **of_owner, **said})
            else:
                return None
        return union(found)

    return recipe


def _patient_tag(owner: str, value: Token) -> Entity | None:
    if not value.system:
        return None
    code = {"tagCode": value.code} if value.code else {}
    return {"$type": "PatientByDataOwnerTagFilter", "dataOwnerId": owner, "tagType": value.system, **code}


def _status(owner: str, value: Token) -> Entity | None:
    """Finds a status by its tag; `unknown` is also what has no tag."""
    if value.code in ("", "unknown") or value.system not in (None, "", STATUS):
        return None
    return _SERVICE_TAG(owner, Token(STATUS, value.code))


_BY_CODE, _BY_PREFIX = "ServiceByHcPartyTagCodeDateFilter", "ServiceByHcParty{}PrefixFilter"
_HCP = "healthcarePartyId"
_SERVICE_TAG = _stub(_BY_CODE, _HCP, "tag", prefix=_BY_PREFIX)
_ELEMENT, _PARTY = "HealthElementByHcPartyTagCodeFilter", "HealthcarePartyByTagCodeFilter"


def _party_name(owner: str, value: str) -> Entity | None:
    """Finds by the beginning of a name."""
    if len(_plain(value)) < _SHORTEST:
        return None
    return {"$type": "HealthcarePartyByNameFilter", "name": value}


BEGINNINGS = frozenset((_party_name,))
"""Recipes that find by the beginning of a text only."""
RECIPES: dict[str, dict[str, Recipe]] = {
    "Patient": {
        "identifier": _identifier("PatientByHcPartyAndIdentifiersFilter", system_alone=True),
        "name": _name,
        "address": _address,
        "telecom": _telecom,
        "gender": _gender,
        "active": _active,
        "birth": _birth,
        "tags": _patient_tag,
    },
    "Service": {
        "identifier": _identifier("ServiceByHcPartyIdentifiersFilter"),
        "codes": _stub(_BY_CODE, _HCP, "code", prefix=_BY_PREFIX),
        "tags": _stub(_BY_CODE, _HCP, "tag", "code", prefix=_BY_PREFIX),
        "category": _SERVICE_TAG,
        "status": _status,
    },
    "HealthElement": {
        "identifier": _identifier("HealthElementByHcPartyIdentifiersFilter", "hcPartyId"),
        "codes": _stub(_ELEMENT, _HCP, "code"),
        "tags": _stub(_ELEMENT, _HCP, "tag"),
    },
    "HealthcareParty": {
        "identifier": lambda owner, value: (
            {
                "$type": "HealthcarePartyByIdentifiersFilter",
                "identifiers": [{"system": value.system, "value": value.code}],
            }
            if value.system and value.code
            else None
        ),
        "name": _party_name,
        "codes": _stub(_PARTY, "", "code"),
        "tags": _stub(_PARTY, "", "tag"),
    },
}
"""By entity type and by the property that `mappings.search.Parameter.icure` names."""


def found_by(resource_type: str, parameter: Parameter) -> str:
    """Returns in words how what iCure finds stands to what a parameter asks for."""
    recipes = RECIPES.get(REGISTRY[resource_type].entity_type, {})
    if parameter.icure == "patient":
        return "by iCure's index of the patient"
    if parameter.fit == EXACT:
        return "exactly by iCure"
    if parameter.icure not in recipes:
        return "tested on each candidate"
    return (
        "narrowed by iCure, which sees less than FHIR" if parameter.fit == NARROWER else "narrowed by iCure"
    )


def of_patients(
    entity_type: str,
    owner: str,
    secret_ids: Sequence[str],
    start: int | None = None,
    end: int | None = None,
    *,
    descending: bool | None = None,
) -> Entity | None:
    """Returns the filter that finds what belongs to patients, in the order of its dates when one is asked for."""
    bounds: Entity = {n: d for n, d in (("startDate", start), ("endDate", end)) if d is not None}
    if descending:
        bounds["descending"] = True
    ids = list(dict.fromkeys(secret_ids))
    plain = not bounds and descending is None
    if entity_type == "Service":
        if plain:
            return {"$type": "ServiceBySecretForeignKeys", _HCP: owner, "patientSecretForeignKeys": ids}
        kind = "ServiceByDataOwnerPatientDateFilter"
        return {"$type": kind, "dataOwnerId": owner, "secretForeignKeys": ids, **bounds}
    if entity_type == "HealthElement":
        kind = "HealthElementByHcPartySecretForeignKeysFilter"
        return {"$type": kind, _HCP: owner, "patientSecretForeignKeys": ids}
    return None
