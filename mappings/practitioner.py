"""FHIR Practitioner and iCure HealthcareParty.

Facts: https://hl7.org/fhir/R4/practitioner.html. Everything of a HealthcareParty is in clear, the residue too.
"""

from __future__ import annotations

from mappings.codecs import Function, code, each, table
from mappings.datatypes import IDENTIFIER, FirstCoding
from mappings.engine import WITNESS, Context, Mapping, row
from mappings.party import PRACTITIONER as KIND
from mappings.party import PropertySlot, common
from mappings.patient import LANGUAGE, PHOTO, Names
from mappings.search import NARROWER, string, token
from mappings.values import Json, Resource

GENDER = table(
    {"male": "male", "female": "female", "other": "indeterminate", "unknown": "unknown"},
    also={"changed": "other", "changedToMale": "male", "changedToFemale": "female"},
    required="Practitioner.gender",
)


class PartyNames(Names):
    """The names of a party; iCure wants a last name, so a party without has an empty one."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns names, firstName and lastName."""
        said = super().to_icure(value, onto, context)
        return {**said, "lastName": said["lastName"] or ""}


class Qualification:
    """A qualification's code as a speciality; its identifier, period and issuer go to the residue."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the CodeStub of the first coding."""
        return FirstCoding().to_icure(value.get("code") or {}, onto, context)

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the qualification."""
        said = FirstCoding().to_fhir(value, context)
        return {"code": said} if said else None


def _languages_to_icure(concepts: list[Resource]) -> list[str] | None:
    codings = (c for concept in concepts for c in (concept.get("coding") or ())[:1])
    tags = (c.get("code") for c in codings if c.get("system") in (LANGUAGE, None))
    return list(dict.fromkeys(tag for tag in tags if isinstance(tag, str))) or None


def _languages_to_fhir(languages: list[str]) -> list[Resource] | None:
    tags = (code.said(language) for language in languages)
    return [{"coding": [{"system": LANGUAGE, "code": tag}]} for tag in tags if tag] or None


_FAMILY = "iCure finds by the beginning of the official (else usual, else first) name; others only narrow."

SEARCH = (
    token("identifier", "identifier", "identifier"),
    string("name", "name"),
    string("family", "name.family", "name", fit=NARROWER, documentation=_FAMILY),
    string("given", "name.given"),
    token("gender", "gender", system="http://hl7.org/fhir/administrative-gender"),
    token("active", "active"),
    string("address", "address"),
    string("address-city", "address.city"),
    string("address-country", "address.country"),
    string("address-postalcode", "address.postalCode"),
    string("address-state", "address.state"),
    token("address-use", "address.use", system="http://hl7.org/fhir/address-use"),
    token("telecom", "telecom"),
    token("phone", "telecom[system=phone]"),
    token("email", "telecom[system=email]"),
    token("communication", "communication"),
)

PRACTITIONER = Mapping(
    "Practitioner",
    "HealthcareParty",
    (
        row("identifier", "identifier", each(IDENTIFIER)),
        row("name", f"names firstName lastName {WITNESS}", PartyNames(), witness="firstName lastName"),
        *common(KIND),
        row("gender", "gender", GENDER),
        row("photo", "picture", PHOTO),
        row("qualification", "specialityCodes", each(Qualification())),
        row("communication", "languages", Function(_languages_to_icure, _languages_to_fhir)),
    ),
    PropertySlot(),
    SEARCH,
)
