"""Services on their own: found by id, with what they take from the Contact that holds them.

Facts: the same Service may stand in several Contacts; the newest `modified` is the current version. A Service
read alone carries the security members of its Contact, without which nobody could decrypt it.
"""

from __future__ import annotations

from collections.abc import Iterable

from bridge.embedded import index
from bridge.embedded.documents import Documents
from bridge.embedded.entities import CONTACT
from bridge.embedded.errors import AccessDenied, Unknown
from bridge.embedded.model import Entity
from bridge.embedded.store import View

COPIED = ("secretForeignKeys", "cryptedForeignKeys", "delegations", "encryptionKeys", "securityMetadata")
DERIVED = {
    "subContactIds": "id",
    "plansOfActionIds": "planOfActionId",
    "healthElementsIds": "healthElementId",
    "formIds": "formId",
}


def enriched(service: Entity, contact: Entity, parts: Iterable[Entity]) -> Entity:
    """Returns a Service with what it takes from its Contact and from the sub-contacts that name it."""
    alone = service | {"contactId": contact["id"]}
    alone |= {name: contact[name] for name in COPIED if name in contact}
    for name in ("author", "responsible"):
        if name not in alone and name in contact:
            alone[name] = contact[name]
    for name, source in DERIVED.items():
        ids = list(dict.fromkeys(part[source] for part in parts if source in part))
        if ids:
            alone[name] = ids
    return alone


def read(documents: Documents, service_id: str) -> Entity:
    """Returns the current version of a Service; raises `Unknown` or `AccessDenied`."""
    with documents.store.reading() as view:
        if not view.contacts_of([service_id]):
            raise Unknown(f"Service with id {service_id} not found")
        found = read_all(view, documents, [service_id])
    if not found:
        raise AccessDenied()
    return found[0]


def read_all(view: View, documents: Documents, ids: Iterable[str]) -> list[Entity]:
    """Returns the current versions of the Services that exist and the caller may see, in the order of the ids."""
    homes = view.contacts_of(ids)
    contacts = {
        contact_id: contact.entity
        for contact_id, contact in view.get_all(CONTACT, homes.values()).items()
        if documents.may_read(CONTACT, contact)
    }
    newest = {contact_id: index.newest_services(contact) for contact_id, contact in contacts.items()}
    parts = {contact_id: index.linked_parts(contact) for contact_id, contact in contacts.items()}
    return [
        enriched(newest[home][service_id], contacts[home], parts[home].get(service_id, ()))
        for service_id, home in homes.items()
        if home in contacts
    ]
