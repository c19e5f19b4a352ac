"""From an entity to the rows by which filters find it.

Facts: the views of the real server, one per kind of question, each keyed by every data owner that holds a
delegation. Soft-deleted entities are in no view. A Service is in the views with its newest version only.

Strategy: rows are a pure function of the entity, so that a write knows which rows to take away and which to
add without searching for them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator

from bridge.embedded.access import owners
from bridge.embedded.model import Entity

SEPARATOR = "\x1f"
NOTHING = "\x1e"
"""Stands for null in a key, where null is a value of its own."""
LARGEST = "\U0010ffff"
DAYS_TO_SECONDS = 1_000_000
LARGEST_DATE = 99_999_999
FOLDED = str.maketrans({"æ": "ae", "œ": "oe", "ø": "o", "ß": "ss", "đ": "d", "ł": "l", "þ": "th", "ð": "d"})


Row = tuple[str, str, str, int, str]
"""(field, owner, key, number, item): `owner` finds `item` under `field` by `key` and `number`."""
Version = tuple[str, int, str]
"""(service, modified, contact): when the Service was modified that stands in the Contact."""
Fact = tuple[str, str, int]
"""Field, key and number of a row, before it is multiplied by the owners."""


def normalise(name: str) -> str:
    """Returns lower-case letters a-z and digits of a text, with diacritics folded."""
    folded = unicodedata.normalize("NFKD", name.lower().translate(FOLDED))
    return re.sub(r"[^a-z0-9]", "", folded)


def word_characters(value: str) -> str:
    """Returns a telecom number or national number without anything but ASCII word characters."""
    return re.sub(r"\W", "", value, flags=re.ASCII)


def key(*parts: str | None) -> str:
    """Returns one key of several parts."""
    return SEPARATOR.join(NOTHING if part is None else part for part in parts)


def scaled(date: int | None) -> int:
    """Returns a fuzzy date as 14 digits (midnight when it has 8); 0 for none."""
    if not date:
        return 0
    return date * DAYS_TO_SECONDS if abs(date) <= LARGEST_DATE else date


def _coded(field: str, stubs: Iterable[Entity], number: int) -> list[Fact]:
    return [
        (field, stub["type"] + SEPARATOR + stub["code"], number)
        for stub in stubs
        if "type" in stub and "code" in stub
    ]


def _identified(field: str, identifiers: Iterable[Entity], number: int = 0) -> list[Fact]:
    return [(field, key(one.get("system"), one.get("value")), number) for one in identifiers]


def _patient(patient: Entity) -> Iterator[Fact]:
    yield "patient", "", 0
    names = [normalise(patient.get("lastName", "") + patient.get("firstName", ""))]
    names += [normalise(patient[name]) for name in ("maidenName", "spouseName") if name in patient]
    for name in dict.fromkeys(names):
        if name:
            yield "patient.name", name, 0
    person = key(patient["gender"], patient.get("education", ""), patient.get("profession", ""))
    yield "patient.gender", person, 0
    if "dateOfBirth" in patient:
        yield "patient.birth", "", patient["dateOfBirth"]
    yield from _identified("patient.identifier", patient.get("identifier", ()))
    if "ssin" in patient:
        yield "patient.ssin", word_characters(patient["ssin"]), 0
    if "externalId" in patient:
        yield "patient.external", patient["externalId"], 0
    yield "patient.active", str(patient["active"]), 0
    yield "patient.modified", "", patient.get("modified") or patient.get("created") or 0
    yield from _coded("patient.tag", patient.get("tags", ()), 0)
    for address in patient.get("addresses", ()):
        place = normalise("".join(address.get(part, "") for part in ("street", "postalCode", "city")))
        if place:
            parts = key(place, address.get("postalCode", ""), address.get("houseNumber", ""))
            yield "patient.address", parts, 0
        for telecom in address.get("telecoms", ()):
            yield "patient.telecom", word_characters(telecom.get("telecomNumber", "")), 0


def _contact(contact: Entity) -> Iterator[Fact]:
    opened = scaled(contact.get("openingDate"))
    yield "contact", "", opened
    yield "contact.id", "", 0
    for secret_id in contact.get("secretForeignKeys", ()):
        yield "contact.patient", secret_id, opened
    yield from _coded("contact.tag", contact.get("tags", ()), opened)
    yield from _coded("contact.code", contact.get("codes", ()), opened)
    yield from _identified("contact.identifier", contact.get("identifier", ()), opened)
    if "externalId" in contact:
        yield "contact.external", contact["externalId"], opened
    for service in contact.get("services", ()):
        yield from _coded("contact.servicetag", service.get("tags", ()), 0)
        yield from _coded("contact.servicecode", service.get("codes", ()), 0)
        if "formId" in service:
            yield "contact.form", service["formId"], 0
    for part in contact.get("subContacts", ()):
        if "formId" in part:
            yield "contact.form", part["formId"], 0


def _health_element(element: Entity) -> Iterator[Fact]:
    opened = scaled(element.get("openingDate") or element.get("valueDate"))
    yield "helement", "", opened
    yield "helement.status", str(element["status"]), opened
    for secret_id in element.get("secretForeignKeys", ()):
        yield "helement.patient", secret_id, opened
    yield from _coded("helement.tag", element.get("tags", ()), opened)
    yield from _coded("helement.code", element.get("codes", ()), opened)
    yield from _identified("helement.identifier", element.get("identifiers", ()), opened)


def _access_log(log: Entity) -> Iterator[Fact]:
    date = log.get("date", 0)
    yield "accesslog", "", date
    for secret_id in log.get("secretForeignKeys", ()):
        yield "accesslog.patient", secret_id, date
    if "user" in log:
        yield "accesslog.user", key(log["user"], log.get("accessType", "")), date


def _healthcare_party(party: Entity) -> Iterator[Fact]:
    yield "hcparty", "", 0
    names = {
        normalise(party.get("lastName", "") + party.get("firstName", "")),
        normalise(party.get("name", "")),
    }
    for name in names - {""}:
        yield "hcparty.name", name, 0
    if "parentId" in party:
        yield "hcparty.parent", party["parentId"], 0
    for number in ("nihii", "ssin"):
        if number in party:
            yield "hcparty.number", word_characters(party[number]), 0
    yield from _coded("hcparty.tag", party.get("tags", ()), 0)
    yield from _coded("hcparty.code", party.get("codes", ()), 0)
    yield from _identified("hcparty.identifier", party.get("identifier", ()))


def _user(user: Entity) -> Iterator[Fact]:
    yield "user", "", 0
    for member in ("login", "email", "mobilePhone", "patientId", "healthcarePartyId"):
        if member in user:
            yield f"user.{member}", user[member], 0
    for member in ("name", "email", "mobilePhone"):
        for word in re.split(r"\W+", user.get(member, "").lower()):
            if word:
                yield "user.word", word, 0


def _exchange_data(data: Entity) -> Iterator[Fact]:
    yield "exchangedata.pair", key(data["delegator"], data["delegate"]), 0
    for participant in {data["delegator"], data["delegate"]}:
        yield "exchangedata.participant", participant, 0


def _exchange_keys(data_owner: Entity) -> set[str]:
    """Returns the delegates of the legacy exchange keys that a data owner made."""
    delegates = set(data_owner.get("hcPartyKeys", ()))
    for keys_by_delegate in data_owner.get("aesExchangeKeys", {}).values():
        delegates |= keys_by_delegate.keys()
    return delegates


FACTS: dict[str, Callable[[Entity], Iterator[Fact]]] = {
    "Patient": _patient,
    "Contact": _contact,
    "HealthElement": _health_element,
    "AccessLog": _access_log,
    "HealthcareParty": _healthcare_party,
    "User": _user,
    "ExchangeData": _exchange_data,
}
OWNED = frozenset({"Patient", "Contact", "HealthElement", "AccessLog"})
NO_OWNER = ""


def rows(entity_type: str, entity: Entity | None) -> set[Row]:
    """Returns the index rows of an entity (of a Contact: without those of its Services)."""
    if entity is None or "deletionDate" in entity or entity_type not in FACTS:
        return set()
    found_by = owners(entity) if entity_type in OWNED else {NO_OWNER}
    item = entity["id"]
    legacy = {("exchangekey", NO_OWNER, delegate, 0, item) for delegate in _exchange_keys(entity)}
    return legacy | {
        (field, owner, fact_key, number, item)
        for field, fact_key, number in FACTS[entity_type](entity)
        for owner in found_by
    }


def service_date(service: Entity) -> int:
    """Returns the date under which a Service is indexed: its value date, else its opening date."""
    return scaled(service.get("valueDate") or service.get("openingDate"))


def _service(service: Entity, contact: Entity, health_elements: Iterable[str]) -> Iterator[Fact]:
    date = service_date(service)
    yield "service", "", date
    for secret_id in contact.get("secretForeignKeys", ()):
        yield "service.patient", secret_id, date
    yield from _coded("service.tag", service.get("tags", ()), date)
    yield from _coded("service.code", service.get("codes", ()), date)
    yield from _identified("service.identifier", service.get("identifier", ()), date)
    for element_id in health_elements:
        yield "service.helement", element_id, date
    for qualification, links in service.get("qualifiedLinks", {}).items():
        for association_id, linked_id in links.items():
            yield "service.link", key(linked_id, qualification), date
            yield "service.association", association_id, date


def newest_services(contact: Entity | None) -> dict[str, Entity]:
    """Returns the Services of a Contact by id, of several versions the newest; none of a deleted Contact."""
    found: dict[str, Entity] = {}
    if contact is not None and "deletionDate" not in contact:
        for service in contact.get("services", ()):
            known = found.get(service["id"])
            if known is None or known.get("modified", 0) <= service.get("modified", 0):
                found[service["id"]] = service
    return found


def versions(contact: Entity | None) -> set[Version]:
    """Returns which versions of which Services a Contact holds."""
    return {
        (service_id, service.get("modified", 0), (contact or {})["id"])
        for service_id, service in newest_services(contact).items()
    }


def linked_parts(contact: Entity) -> dict[str, list[Entity]]:
    """Returns for each Service id the sub-contacts that name it."""
    parts: dict[str, list[Entity]] = {}
    for part in contact.get("subContacts", ()):
        for link in part.get("services", ()):
            if "serviceId" in link:
                parts.setdefault(link["serviceId"], []).append(part)
    return parts


def service_rows(contact: Entity, services: Iterable[Entity]) -> set[Row]:
    """Returns the index rows of these Services of a Contact."""
    found_by = owners(contact)
    parts = linked_parts(contact)
    return {
        (field, owner, fact_key, number, service["id"])
        for service in services
        for field, fact_key, number in _service(
            service,
            contact,
            {part["healthElementId"] for part in parts.get(service["id"], ()) if "healthElementId" in part},
        )
        for owner in found_by
    }
