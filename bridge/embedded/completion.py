"""What the server adds to an entity, and what it insists on.

Facts: dates, author, responsible, group and positions are filled in when they are null, never refreshed when
they are not; a Patient gets no dates. Author and responsible are filled in on create only.
"""

from __future__ import annotations

import re
import uuid
from datetime import datetime

from bridge.embedded import entities
from bridge.embedded.access import Caller, check_security_metadata
from bridge.embedded.auth import now_ms
from bridge.embedded.entities import EntityType
from bridge.embedded.errors import BadRequest
from bridge.embedded.model import Entity

FORBIDDEN_IN_IDS = re.compile(r"[\s\x00-\x1f\x7f/\\?#%;]")
PARTY_NAMES = ("name", "lastName", "nihii", "ssin")
PATIENT_NAMES = ("firstName", "lastName", "encryptedSelf", "deletionDate")
DATED = (entities.CONTACT, entities.HEALTHCARE_PARTY, entities.ACCESS_LOG)


def fuzzy_now() -> int:
    """Returns the local time as `YYYYMMDDhhmmss`."""
    return int(datetime.now().strftime("%Y%m%d%H%M%S"))


def check(entity_type: EntityType, entity: Entity) -> None:
    """Raises `BadRequest` for an entity that the server does not take."""
    if "id" not in entity:
        raise BadRequest("id must be given")
    if not entity["id"] or FORBIDDEN_IN_IDS.search(entity["id"]):
        raise BadRequest("Invalid entity id")
    if entity_type is entities.PATIENT and not any(name in entity for name in PATIENT_NAMES):
        raise BadRequest("Name, Last name are required")
    if entity_type is entities.HEALTHCARE_PARTY and not any(name in entity for name in PARTY_NAMES):
        raise BadRequest(f"one of {', '.join(PARTY_NAMES)} must be given")
    if entity_type is entities.EXCHANGE_DATA and not ("delegator" in entity and "delegate" in entity):
        raise BadRequest("delegator and delegate must be given")
    if entity_type.delegated:
        check_security_metadata(entity)


def complete(entity_type: EntityType, entity: Entity, caller: Caller | None = None) -> None:
    """Fills in what is missing; `caller` is given on create, when author and responsible are filled in too."""
    makers = _makers(entity_type, caller)
    for name, value in makers.items():
        entity.setdefault(name, value)
    if entity_type in DATED:
        now = now_ms()
        entity.setdefault("created", now)
        entity.setdefault("modified", now)
        if entity_type is entities.CONTACT:
            _complete_contact(entity, makers, now)
        if entity_type is entities.ACCESS_LOG:
            entity.setdefault("date", now)


def _makers(entity_type: EntityType, caller: Caller | None) -> dict[str, str]:
    if caller is None or caller.anonymous or "author" not in entity_type.shape.members:
        return {}
    makers = {"author": caller.user_id}
    if caller.data_owner_id is not None:
        makers["responsible"] = caller.data_owner_id
    return makers


def _complete_contact(contact: Entity, makers: dict[str, str], now: int) -> None:
    today = fuzzy_now()
    contact.setdefault("groupId", str(uuid.uuid4()))
    contact.setdefault("openingDate", today)
    services = contact.get("services", ())
    last = max((service["index"] for service in services if "index" in service), default=0)
    for position, service in enumerate(services):
        for name, value in makers.items():
            service.setdefault(name, value)
        service.setdefault("created", now)
        service.setdefault("modified", now)
        service.setdefault("valueDate", today)
        service.setdefault("openingDate", today)
        service.setdefault("index", last + position)
