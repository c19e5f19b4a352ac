"""Reading what iCure's older clients encrypted: exchange keys, and the three delegation maps of an entity.

Facts: exchange keys lie on the delegator's data owner entity, in `aesExchangeKeys` (by delegator key, delegate
and reader key) and, older, in `hcPartyKeys` (one text for each side). An entity's `delegations`,
`encryptionKeys` and `cryptedForeignKeys` hold `<entity id>:<value>`, encrypted with them; the entity id may be
that of a merged entity. An entity key is a UUID there: its 16 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from bridge.crypto.keys import OwnKey, fingerprint
from bridge.crypto.primitives import AES_KEY_SIZES, Undecipherable, cbc_decrypt, from_hex
from mappings.values import Entity

SECRET_IDS, ENTITY_KEYS, OWNING_IDS = "delegations", "encryptionKeys", "cryptedForeignKeys"

KeysBetween = Callable[[str, str], Sequence[bytes]]
"""Gives the exchange keys that a delegator (first) shares with a delegate, as far as they can be opened."""


def is_legacy(entity: Entity) -> bool:
    """Whether anything of the entity is shared in the old way."""
    return bool(entity.get(SECRET_IDS) or entity.get(ENTITY_KEYS) or entity.get(OWNING_IDS))


def exchange_keys(delegator: Entity, delegate: str, keys: Sequence[OwnKey]) -> list[bytes]:
    """Returns the AES keys that `delegator`, a data owner or its stub, shares with `delegate`."""
    own = {key.fingerprint: key for key in keys}
    found: dict[bytes, None] = {}
    for by_delegate in (delegator.get("aesExchangeKeys") or {}).values():
        for name, box in (by_delegate.get(delegate) or {}).items():
            readers = keys if name == "" else [own[f] for f in (fingerprint(name),) if f in own]
            found.update(dict.fromkeys(_open_box(box, readers)))
    if not found:
        for box in (delegator.get("hcPartyKeys") or {}).get(delegate) or ():
            found.update(dict.fromkeys(_open_box(box, keys)))
    return list(found)


def _open_box(box: object, readers: Iterable[OwnKey]) -> Iterator[bytes]:
    for reader in readers:
        try:
            key = reader.decrypt(from_hex(box))
        except Undecipherable:
            continue
        if len(key) in AES_KEY_SIZES:
            yield key
            return


def values(entity: Entity, member: str, owners: Iterable[str], keys_between: KeysBetween) -> list[str]:
    """Returns the values of one delegation map that are shared by or with any of `owners`."""
    own = frozenset(owners)
    found: dict[str, None] = {}
    for delegate, delegations in (entity.get(member) or {}).items():
        for delegation in delegations or ():
            pair = delegation.get("owner") or delegate, delegation.get("delegatedTo") or delegate
            if own.isdisjoint(pair):
                continue
            for key in keys_between(*pair):
                value = _value(key, delegation.get("key"))
                if value is not None:
                    found[value] = None
                    break
    return list(found)


def entity_keys(entity: Entity, owners: Iterable[str], keys_between: KeysBetween) -> list[bytes]:
    """Returns the AES keys of an entity, as far as they are shared by or with any of `owners`.

    Very old data has no `encryptionKeys` and is encrypted with its secret id. That is a key only where something
    is encrypted already: a secret id stands in clear in other entities, so nothing new may rest on it.
    """
    if entity.get(ENTITY_KEYS):
        texts = values(entity, ENTITY_KEYS, owners, keys_between)
    elif _is_encrypted(entity):
        texts = values(entity, SECRET_IDS, owners, keys_between)
    else:
        return []
    return [key for text in texts if (key := _entity_key(text)) is not None]


def _value(key: bytes, sealed: object) -> str | None:
    try:
        parts = cbc_decrypt(key, from_hex(sealed)).decode("ascii").split(":")
    except (Undecipherable, UnicodeDecodeError):
        return None
    return parts[1] if len(parts) == 2 else None


def _entity_key(text: str) -> bytes | None:
    try:
        key = from_hex(text.replace("-", ""))
    except Undecipherable:
        return None
    return key if len(key) in (16, 32) else None


def _is_encrypted(entity: Entity) -> bool:
    parts = (entity, *(entity.get("services") or ()))
    return any("encryptedSelf" in part or "encryptedContent" in part for part in parts)
