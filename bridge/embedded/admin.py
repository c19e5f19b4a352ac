"""What the command line does on the store directly, without HTTP and without a login."""

from __future__ import annotations

import uuid

from bridge.embedded import completion, users
from bridge.embedded.auth import ADMIN_METADATA
from bridge.embedded.entities import HEALTHCARE_PARTY, USER
from bridge.embedded.model import Entity, read
from bridge.embedded.store import Store


def find_user(store: Store, login: str) -> Entity | None:
    """Returns the user with this login, None when there is none."""
    with store.reading() as view:
        for document in view.get_all(USER, view.found("user.login", login)).values():
            return document.entity
    return None


def has_healthcare_party(store: Store, party_id: str) -> bool:
    """Returns whether there is a HealthcareParty with this id."""
    with store.reading() as view:
        return view.get(HEALTHCARE_PARTY, party_id) is not None


def create_healthcare_party(store: Store, party: Entity) -> Entity:
    """Returns the HealthcareParty as it is stored; the one that is there already is left as it is."""
    entity = read(HEALTHCARE_PARTY.shape, {"id": str(uuid.uuid4())} | party)
    completion.check(HEALTHCARE_PARTY, entity)
    completion.complete(HEALTHCARE_PARTY, entity)
    with store.writing() as writing:
        known = writing.get(HEALTHCARE_PARTY, entity["id"])
        return (known or writing.save(HEALTHCARE_PARTY, entity, None)).entity


def create_user(
    store: Store,
    login: str,
    password: str,
    *,
    data_owner_id: str | None = None,
    patient_id: str | None = None,
    admin: bool = False,
    name: str | None = None,
) -> Entity:
    """Returns a new user that is the HealthcareParty `data_owner_id` or the Patient `patient_id`.

    Raises `BadRequest` when the login is taken or the password is shorter than 8 characters.
    """
    user: Entity = {"id": str(uuid.uuid4()), "login": login, "name": name or login}
    if data_owner_id is not None:
        user["healthcarePartyId"] = data_owner_id
    if patient_id is not None:
        user["patientId"] = patient_id
    if admin:
        user["systemMetadata"] = ADMIN_METADATA
    users.settle(user)
    with store.writing() as writing:
        return users.write_new(writing, user, password).entity
