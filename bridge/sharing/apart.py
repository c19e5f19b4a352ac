"""A Contact of its own for what is to be shared without its neighbours.

Facts: access belongs to a Contact, and so do the keys of its Services. iCure takes a Service from the Contact in which
it was modified last.

Rule: a Service that moves stays with everybody who could open it before.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Sequence

from bridge.crypto import envelope
from bridge.crypto.keyring import Opened
from bridge.crypto.keys import public_keys
from bridge.crypto.sharing import received
from bridge.errors import BusinessRule, Conflict, Forbidden
from bridge.homes import HOMES, Record, with_residue
from bridge.plan import Write
from bridge.scope import Scope
from mappings.values import Entity

STAYS = ("groupId", "openingDate", "closingDate", "secretForeignKeys")
"""What a Contact hands on to one that is split off; the same `groupId` says that they belong together."""
CONTACT, SERVICE = "Contact", HOMES["Service"]


def neighbours(contact: Entity, ids: Collection[str]) -> bool:
    """Whether there are other Services in a Contact than these."""
    return any(service["id"] not in ids for service in contact.get("services", ()))


def apart(scope: Scope, contact: Entity, resource_type: str, ids: Collection[str]) -> list[Write]:
    """Returns the writes that move these Services of a Contact into one of their own.

    Raises `Forbidden` when the caller may not write the Contact, `BusinessRule` when somebody who is not known would no
    longer see them, `Conflict` when one of them is no longer there.
    """
    writers, readers = _opened_by(scope, contact)
    opened = scope.keyring.open(contact, CONTACT, whole=True)
    owning = next(iter(opened.owning_ids), None)
    metadata = envelope.new_metadata(scope.keyring, CONTACT, owning, writers, readers)
    key = Opened((metadata.entity_key,), (metadata.secret_id,), opened.owning_ids)
    records = list(_records(scope, contact, resource_type, ids, opened))
    if len(records) < len(ids):
        raise Conflict()
    split: Entity = {
        "id": str(uuid.uuid4()),
        "created": scope.now,
        "modified": scope.now,
        **{name: contact[name] for name in STAYS if name in contact},
        "securityMetadata": metadata.security_metadata,
        "services": [_moved(scope, record, key) for record in records],
    }
    if links := _links(contact, opened, ids):
        split["subContacts"] = links
    rest = {**contact, "services": [s for s in contact["services"] if s["id"] not in ids]}
    closed = envelope.encrypt_contact(split, key.entity_key, scope.manifests)
    return [
        Write("create", "contact", closed, [resource_type], opened=key),
        Write("modify", "contact", rest, [resource_type], opened=opened, previous=contact),
    ]


def _opened_by(scope: Scope, contact: Entity) -> tuple[list[str], list[str]]:
    """Returns who else may write a Contact, and who may only read it."""
    held = scope.keyring.held(contact, CONTACT)
    known = {one.name: one.delegate for one in held}
    delegations = (contact.get("securityMetadata") or {}).get("secureDelegations") or {}
    legacy = {owner for name in ("delegations", "encryptionKeys") for owner in contact.get(name) or ()}
    mine = received(scope.keyring, held)
    if not (legacy & scope.keyring.owners or any(one.writes for one in mine)):
        raise Forbidden(
            "It stands in a Contact with others and you may only read that, so it cannot be moved out."
        )
    leave = dict.fromkeys(legacy, True)
    for name, members in delegations.items():
        delegate = members.get("delegate") or known.get(name)
        if delegate is None:
            raise BusinessRule(
                "It stands in a Contact with others, and somebody who does not give a name can open that: moved "
                "out to be shared it would be lost to them. Whoever shared it with them can share it."
            )
        leave[delegate] = leave.get(delegate, False) or members.get("permissions") == "WRITE"
    leave.pop(scope.caller.data_owner_id, None)
    owners = scope.client.data_owners(list(leave))
    usable = [owner for owner in leave if owner in owners and public_keys(owners[owner]["stub"])]
    return [o for o in usable if leave[o]], [o for o in usable if not leave[o]]


def _records(
    scope: Scope, contact: Entity, resource_type: str, ids: Collection[str], opened: Opened
) -> Iterator[Record]:
    for service in SERVICE.carried(contact):
        if service["id"] in ids and (record := SERVICE.record(scope, resource_type, service, opened)):
            yield record


def _moved(scope: Scope, record: Record, key: Opened) -> Entity:
    """Returns a Service newer than it was, in clear, its residue sealed with the key of its new Contact."""
    entity = {name: value for name, value in record.entity.items() if name != "patientId"}
    entity["modified"] = max(scope.now, (record.modified or 0) + 1)
    return with_residue(record.resource_type, entity, record.residue, key)


def _links(contact: Entity, opened: Opened, ids: Collection[str]) -> Sequence[Entity]:
    """Returns what ties these Services to forms and health elements."""
    found = []
    links: Entity = {"subContacts": contact.get("subContacts") or []}
    for one in envelope.decrypt(links, opened.entity_keys)["subContacts"]:
        if services := [link for link in one.get("services") or () if link.get("serviceId") in ids]:
            found.append({**one, "services": services})
    return found
