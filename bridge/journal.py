"""Writing several documents as one: all of them, or none.

Facts: iCure sits on CouchDB and has no transaction across documents.
Strategy: ids are chosen before anything is written, so whatever arrived can be found and taken back. Documents go
upstream in batches, each reply is checked item by item, and on the first failure what was created is purged, or
soft-deleted where purging is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from bridge.errors import BridgeError, Conflict, Issue
from bridge.plan import Document, Incoming
from bridge.scope import Scope
from mappings.values import Entity

BATCH = {"patient": 500, "contact": 50}


def apply(scope: Scope, documents: Sequence[Document]) -> list[Entity]:
    """Returns the documents as stored, in the order given.

    Raises what the upstream said after everything was taken back; what could not be taken back is named in it.
    """
    if not documents:
        return []
    if len(documents) == 1:
        return [_create_one(scope, documents[0])]
    stored: dict[str, Entity] = {}
    tried: list[Document] = []
    try:
        for batch in _batches(documents):
            tried += batch
            reply = scope.client.create_batch(batch[0].kind, [d.entity for d in batch])
            stored |= reply
            missing = [one for d in batch if d.entity["id"] not in reply for one in d.carries]
            if missing:
                raise Conflict(
                    issues=[Issue("conflict", "iCure did not store this.", m.path) for m in missing]
                )
    except BridgeError as e:
        left = _take_back(scope, tried, stored)
        e.issues += [Issue("incomplete", "This could not be taken back.", one.path) for one in left]
        raise
    return [stored[d.entity["id"]] for d in documents]


def _create_one(scope: Scope, document: Document) -> Entity:
    """Creates a single document; the outcome of a call that broke is looked up, and undone."""
    try:
        return scope.client.create(document.kind, document.entity)
    except BridgeError as e:
        if e.status >= 500:
            left = _take_back(scope, [document], {})
            e.issues += [Issue("incomplete", "This could not be taken back.", one.path) for one in left]
        raise


def _batches(documents: Sequence[Document]) -> list[list[Document]]:
    batches: list[list[Document]] = []
    for kind, group in groupby(documents, key=lambda d: d.kind):
        same = list(group)
        batches += [same[at : at + BATCH[kind]] for at in range(0, len(same), BATCH[kind])]
    return batches


def _take_back(scope: Scope, tried: Sequence[Document], stored: dict[str, Entity]) -> list[Incoming]:
    """Removes what was created and returns the resources for which that failed, last written first."""
    left: list[Incoming] = []
    for document in reversed(tried):
        try:
            entity = stored.get(document.entity["id"]) or scope.client.read(
                document.kind, document.entity["id"]
            )
            if entity is None:
                continue
            try:
                scope.client.purge(document.kind, entity["id"], entity["rev"])
            except BridgeError:
                scope.client.delete(document.kind, entity["id"], entity["rev"])
        except BridgeError:
            left += document.carries
    return left
