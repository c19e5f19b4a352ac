"""Writing several documents as one: all of them, or none.

Facts: iCure sits on CouchDB and has no transaction across documents.
Strategy: ids are chosen before anything is written, so whatever arrived can be found and taken back. New documents go
upstream in batches, each reply is checked item by item. On the first failure everything is undone, last write first:
what was created is purged, or soft-deleted where purging is refused; what was changed or deleted gets its previous
content back, but only while nobody wrote over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from bridge.errors import BridgeError, Conflict, Forbidden, Issue, UpstreamFailed, UpstreamTimeout
from bridge.plan import Write
from bridge.scope import Scope
from mappings.values import Entity

BATCH = {"patient": 500, "helement": 200, "hcparty": 100, "contact": 50}
MOST_IN_VAIN = 3
"""How many writes in a row are tried to be undone while the upstream does not answer."""


def apply(scope: Scope, writes: Sequence[Write]) -> list[Entity]:
    """Returns the documents as stored, in the order given.

    Raises what the upstream said after everything was undone; what could not be undone is named in it.
    """
    stored: dict[int, Entity] = {}
    tried: list[Write] = []
    try:
        for batch in _batches(writes):
            tried += batch
            stored |= _written(scope, batch)
            for write in batch:
                _check_whole(write, stored[id(write)])
    except BridgeError as e:
        refused = len(tried) == 1 and e.status < 500
        for left in [] if refused else _undo(scope, tried, stored):
            e.issues += [Issue("incomplete", "This could not be undone.", path) for path in left.paths]
        raise
    return [stored[id(write)] for write in writes]


def _check_whole(write: Write, stored: Entity) -> None:
    """Raises `UpstreamFailed` when iCure kept fewer Services of a Contact than were sent."""
    kept = {service["id"] for service in stored.get("services", ())}
    if not kept >= {service["id"] for service in write.entity.get("services", ())}:
        raise UpstreamFailed(
            issues=[Issue("transient", "iCure did not keep all of this.", p) for p in write.paths]
        )


def _batches(writes: Sequence[Write]) -> list[list[Write]]:
    """Returns what goes upstream in one call each: creations together, everything else by itself."""
    batches: list[list[Write]] = []
    for (method, kind), group in groupby(writes, key=lambda w: (w.method, w.kind)):
        same = list(group)
        size = BATCH.get(kind, 1) if method == "create" else 1
        batches += [same[at : at + size] for at in range(0, len(same), size)]
    return batches


def _written(scope: Scope, batch: list[Write]) -> dict[int, Entity]:
    """Returns what was stored of one batch. Raises `Forbidden` that says who might have written it."""
    try:
        return _sent(scope, batch)
    except Forbidden as e:
        raise Forbidden(issues=[Issue(e.code, w.refusal, path) for w in batch for path in w.paths]) from e


def _sent(scope: Scope, batch: list[Write]) -> dict[int, Entity]:
    """Returns what was stored of one batch. Raises `Conflict` that names what iCure left out."""
    write = batch[0]
    if write.method == "delete":
        rev = scope.client.delete(write.kind, write.entity["id"], write.entity["rev"])
        return {id(write): {"id": write.entity["id"], "rev": rev}}
    if write.method == "modify":
        return {id(write): scope.client.modify(write.kind, write.entity)}
    if len(batch) == 1:
        return {id(write): scope.client.create(write.kind, write.entity)}
    reply = scope.client.create_batch(write.kind, [w.entity for w in batch])
    missing = [path for w in batch if w.entity["id"] not in reply for path in w.paths]
    if missing:
        raise Conflict(issues=[Issue("conflict", "iCure did not store this.", path) for path in missing])
    return {id(w): reply[w.entity["id"]] for w in batch}


def _undo(scope: Scope, tried: Sequence[Write], stored: dict[int, Entity]) -> list[Write]:
    """Takes writes back and returns those for which that failed; an upstream that is down is not asked for each."""
    left: list[Write] = []
    in_vain = 0
    for write in reversed(tried):
        if in_vain == MOST_IN_VAIN:
            left.append(write)
            continue
        try:
            now = scope.client.read(write.kind, write.entity["id"])
            if now is not None and _is_ours(write, now, stored.get(id(write))):
                _take_back(scope, write, now)
            in_vain = 0
        except BridgeError as e:
            left.append(write)
            in_vain = in_vain + 1 if isinstance(e, UpstreamFailed | UpstreamTimeout) else 0
    return left


def _is_ours(write: Write, now: Entity, stored: Entity | None) -> bool:
    """Whether what stands upstream is what this write made. Raises `Conflict` when someone wrote over it."""
    if write.method == "create":
        return not now.get("deletionDate")
    if write.previous is not None and now["rev"] == write.previous["rev"]:
        return False
    if stored is not None and now["rev"] == stored["rev"]:
        return True
    if stored is None and (write.method == "delete" or _signature(now) == _signature(write.entity)):
        return True
    raise Conflict()


def _signature(entity: Entity) -> list[Any]:
    """Returns what tells one write from another: each has its own IV or time."""
    members = ("encryptedSelf", "modified", "endOfLife")
    return [[part.get(m) for m in members] for part in (entity, *entity.get("services", ()))]


def _take_back(scope: Scope, write: Write, now: Entity) -> None:
    """Undoes one write. The upstream has the last word: a removal that seemed to fail may have been done."""
    if write.previous is not None:
        scope.client.modify(write.kind, {**write.previous, "rev": now["rev"]})
        return
    for remove in (scope.client.purge, scope.client.delete):
        try:
            remove(write.kind, now["id"], now["rev"])
        except BridgeError:
            continue
        return
    there = scope.client.read(write.kind, now["id"])
    if there is not None and not there.get("deletionDate"):
        raise Conflict()
