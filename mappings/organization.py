"""FHIR Organization and iCure HealthcareParty.

Facts: https://hl7.org/fhir/R4/organization.html. Everything of a HealthcareParty is in clear, the residue too. Its
`parentId` gives rights, so `partOf` is not it.
"""

from __future__ import annotations

from mappings.codecs import each, text
from mappings.datatypes import IDENTIFIER
from mappings.engine import Context, Mapping, row
from mappings.party import ORGANIZATION as KIND
from mappings.party import PropertySlot, common
from mappings.search import refers, string, token
from mappings.tags import Grouped, about
from mappings.values import Json

NAMES = ("name", "companyName", "lastName")
"""Where iCure has the name of an organization, the first one that is there."""

_is_type = about("type")


class Name:
    """`name` as the name of the party; iCure wants one, so an organization without has an empty one."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the names, this one where iCure has it."""
        old = onto or {}
        if isinstance(value, str):
            return {**old, next((n for n in NAMES if text.said(old.get(n))), "name"): value}
        return {"name": "", **{n: v for n, v in old.items() if text.said(v) is None}}

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the name."""
        names = (text.said(value.get(n)) for n in NAMES)
        return next((n for n in names if n), None)


class Types:
    """`type` as codes about it; from a party without any, iCure's own type as text."""

    _CODES = Grouped("type")

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns codes, and iCure's type as it is: a new party is an organization."""
        codes = (onto or {}).get("codes") or ()
        mine = self._CODES.to_icure(value, [c for c in codes if _is_type(c)], context) or []
        kind = (onto or {}).get("type") or "organization"
        return {"codes": [c for c in codes if not _is_type(c)] + mine or None, "type": kind}

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the types."""
        said = self._CODES.to_fhir([c for c in value.get("codes") or () if _is_type(c)], context)
        kind = text.said(value.get("type"))
        return said or ([{"text": kind}] if kind and kind != "organization" else None)


SEARCH = (
    token("identifier", "identifier", "identifier"),
    string("name", "name alias"),
    token("type", "type", "codes"),
    token("active", "active"),
    string("address", "address"),
    string("address-city", "address.city"),
    string("address-country", "address.country"),
    string("address-postalcode", "address.postalCode"),
    string("address-state", "address.state"),
    token("address-use", "address.use", system="http://hl7.org/fhir/address-use"),
    refers("partof", "partOf", "Organization"),
    refers("endpoint", "endpoint", "Endpoint"),
)

ORGANIZATION = Mapping(
    "Organization",
    "HealthcareParty",
    (
        row("identifier", "identifier", each(IDENTIFIER)),
        row("name", " ".join(NAMES), Name()),
        *common(KIND),
        row("type", "codes type", Types()),
    ),
    PropertySlot(),
    SEARCH,
)
