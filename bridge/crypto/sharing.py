"""What iCure is asked for when an entity is shared: a secure delegation, or what one that there is lacks.

Facts: `bulkSharedMetadataUpdate` takes requests by entity. A new delegation stands below one that the sharer has; where
there is none, as on entities of older clients, the sharer makes a root for itself in the same call. One exchange data
makes one delegation of an entity, whose permission stays what it is.

Rule: all entity keys, secret ids and owning ids that the sharer opens are shared. A delegation counts as shared when it
gives leave enough and opens with every key that the recipient announces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bridge.crypto import legacy
from bridge.crypto.exchange import ExchangeKey
from bridge.crypto.keyring import Held, Keyring, Opened, Route
from bridge.errors import Forbidden
from mappings.values import Entity

ROOT, READ, WRITE = "ROOT", "MAX_READ", "MAX_WRITE"


@dataclass(frozen=True, slots=True)
class Wish:
    """With whom something is to be shared."""

    recipient: str
    """A data owner's id."""
    readers: frozenset[str]
    """The fingerprints of all keys that it announces."""
    writes: bool
    """Whether it may write too."""


def request(keyring: Keyring, entity: Entity, type_name: str, wish: Wish) -> Entity | None:
    """Returns what `bulkSharedMetadataUpdate` is to be asked for this entity, None when it is shared already.

    May create exchange data upstream. Raises `KeyMissing` when no loaded key opens the entity, `Forbidden` for leave to
    write that the caller does not have.
    """
    opened = keyring.open(entity, type_name, whole=True)
    _ = opened.entity_key
    held = keyring.held(entity, type_name)
    parents = received(keyring, held)
    if wish.writes and parents and not any(one.writes for one in parents):
        raise Forbidden("You may only read this, so you can share it for reading only.")
    for one in held:
        if _serves(one, keyring.owner_id, wish):
            changes = _missing(one, opened)
            return {"requests": {"update": {"update": changes}}} if changes else None
    taken = (entity.get("securityMetadata") or {}).get("secureDelegations") or {}

    def fits(exchange_key: ExchangeKey) -> bool:
        return wish.readers <= exchange_key.readers and exchange_key.delegation_key(type_name) not in taken

    shares = {"share": _share(keyring.route(wish.recipient, fits), type_name, opened, wish.writes)}
    if not parents and legacy.is_legacy(entity):
        root = _share(keyring.route(keyring.owner_id), type_name, opened, writes=True)
        shares["root"] = {**root, "requestedPermissions": ROOT}
    return {
        "requests": {name: {"share": share} for name, share in shares.items()},
        "potentialParentDelegations": [one.name for one in parents],
    }


def received(keyring: Keyring, held: Sequence[Held]) -> list[Held]:
    """Returns the delegations that give access to the caller, or to an ancestor whose key is loaded."""
    return [one for one in held if one.delegate in keyring.owners]


def _serves(one: Held, sharer: str, wish: Wish) -> bool:
    exchange_key = one.exchange_key
    return (
        exchange_key is not None
        and (exchange_key.delegator, exchange_key.delegate) == (sharer, wish.recipient)
        and wish.readers <= exchange_key.readers
        and (one.writes or not wish.writes)
    )


def _values(opened: Opened) -> dict[str, list[bytes]]:
    """Returns what a delegation carries, by the name of its member."""
    return {
        "secretIds": [text.encode() for text in opened.secret_ids],
        "encryptionKeys": list(opened.entity_keys),
        "owningEntityIds": [text.encode() for text in opened.owning_ids],
    }


def _missing(one: Held, opened: Opened) -> Entity:
    """Returns the update that adds to a delegation what it lacks; nothing when it lacks nothing."""
    assert one.exchange_key is not None  # noqa: S101
    there = _values(one.opened())
    lacks: dict[str, Mapping[str, str]] = {
        member: {one.exchange_key.seal(value): "CREATE" for value in values if value not in there[member]}
        for member, values in _values(opened).items()
    }
    lacks = {member: values for member, values in lacks.items() if values}
    return {"metadataAccessControlHash": one.name, **lacks} if lacks else {}


def _share(route: Route, type_name: str, opened: Opened, writes: bool) -> Entity:
    """Returns a request for a new delegation."""
    exchange_key = route.exchange_key
    sides = {_SIDES[name]: value for name, value in route.sides.items()}
    sealed = {
        member: [exchange_key.seal(value) for value in values]
        for member, values in _values(opened).items()
        if values
    }
    return {
        **sides,
        **sealed,
        **({"encryptedExchangeDataId": dict(route.box)} if route.box else {}),
        "accessControlKeys": [exchange_key.access_control_key(type_name).hex()],
        "requestedPermissions": WRITE if writes else READ,
    }


_SIDES = {
    "delegator": "explicitDelegator",
    "delegate": "explicitDelegate",
    "exchangeDataId": "exchangeDataId",
}
