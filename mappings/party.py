"""What Practitioner and Organization have in common: iCure has one HealthcareParty for both.

Facts: nothing of a HealthcareParty is encrypted, everybody who logs in reads it. It may also be a data owner, with keys
and a place in the hierarchy.

Rule: no row owns what gives rights or opens data: keys, exchange keys, `parentId`, `userId`, `public`. It is neither
shown nor written.
"""

from __future__ import annotations

from mappings.datatypes import Codings
from mappings.engine import Row, row
from mappings.patient import Addresses
from mappings.tags import TypeTag, is_type, types
from mappings.values import Entity

PRACTITIONER, ORGANIZATION = "PRACTITIONER", "ORGANIZATION"
_PERSONS, _ORGANIZATIONS = ("pers",), ("org", "dept", "medicalhouse", "hospital", "retirementhome")
"""How iCure's `type` of a party begins; the first ones are of Belgium's list of healthcare parties."""
RESIDUE = "fhir-residue"
"""Identifier of the property in which the residue stands."""


def is_tagged(party: Entity, kind: str) -> bool:
    """Whether a party is tagged as this FHIR type, or as none at all."""
    kinds = types(party) & {PRACTITIONER, ORGANIZATION}
    return not kinds or kind in kinds


def is_kind(party: Entity, kind: str) -> bool:
    """Whether a party is of this FHIR type: as tagged, else by its type, else by whether it has a person's name."""
    kinds = types(party) & {PRACTITIONER, ORGANIZATION}
    if kinds:
        return kind in kinds
    said = party.get("type") or ""
    if said.startswith(_PERSONS) or said.startswith(_ORGANIZATIONS):
        return kind == (PRACTITIONER if said.startswith(_PERSONS) else ORGANIZATION)
    person = any(party.get(name) for name in ("firstName", "lastName", "names"))
    return kind == (
        PRACTITIONER if person or not (party.get("name") or party.get("companyName")) else ORGANIZATION
    )


def common(kind: str) -> tuple[Row, ...]:
    """Returns the rows that both have."""
    return (
        row("telecom address", "addresses", Addresses()),
        row(
            "meta.tag",
            "tags",
            Codings(writes=lambda tag: not is_type(tag)),
            where=lambda tag: not is_type(tag),
        ),
        row("", "tags", TypeTag(kind), where=is_type),
    )


class PropertySlot:
    """The residue as one of `properties`."""

    def put(self, entity: Entity, sealed: str | None) -> Entity:
        """Returns the entity with this text as its only residue; without any when it is `None`."""
        bare, _ = self.take(entity)
        if sealed is None:
            return bare
        ours = {
            "id": RESIDUE,
            "type": {"identifier": RESIDUE, "type": "STRING"},
            "typedValue": {"type": "STRING", "stringValue": sealed},
        }
        return {**bare, "properties": [*(bare.get("properties") or ()), ours]}

    def take(self, entity: Entity) -> tuple[Entity, str | None]:
        """Returns the entity without its residue, and the text if it carried one."""
        held = entity.get("properties") or ()
        ours = [p for p in held if p.get("id") == RESIDUE]
        if not ours:
            return entity, None
        rest = [p for p in held if p.get("id") != RESIDUE]
        bare = {n: v for n, v in entity.items() if n != "properties"}
        text = (ours[0].get("typedValue") or {}).get("stringValue")
        return {**bare, "properties": rest} if rest else bare, text
