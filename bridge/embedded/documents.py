"""Creating, reading, changing and removing entities of any type.

Facts: the checks of the real server and their order; in batches each item stands for itself, and what
failed is left out of the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from bridge.embedded import completion, entities
from bridge.embedded.access import Caller
from bridge.embedded.auth import ancestors, now_ms
from bridge.embedded.entities import DELEGATED, EntityType
from bridge.embedded.errors import AccessDenied, BadRequest, Illegal, Refused, Stale, Unknown
from bridge.embedded.model import Entity, read
from bridge.embedded.store import Document, Store, View, Writing

Revisions = Iterable[tuple[str, str | None]]
"""Ids, each with the revision that the client believes to be current, if it said."""


class Documents:
    """The entities of a store, as one caller may use them."""

    def __init__(self, store: Store, caller: Caller) -> None:
        self.store = store
        self.caller = caller

    def may_read(self, entity_type: EntityType, document: Document) -> bool:
        """Returns whether the caller may see a document."""
        if entity_type in DELEGATED:
            return document.access.may_read(self.caller)
        return entity_type is not entities.USER or self.caller.admin or document.id == self.caller.user_id

    def may_write(self, entity_type: EntityType, document: Document) -> bool:
        """Returns whether the caller may change a document."""
        if entity_type in DELEGATED:
            return document.access.may_write(self.caller)
        return self.caller.admin or self._owns(entity_type, document.entity)

    def _owns(self, entity_type: EntityType, entity: Entity) -> bool:
        if entity_type is entities.EXCHANGE_DATA:
            own = {self.caller.data_owner_id, *self.caller.ancestors}
            return not own.isdisjoint((entity.get("delegator"), entity.get("delegate")))
        return entity.get("id") == self.caller.data_owner_id

    def _may_create(self, entity_type: EntityType, entity: Entity) -> bool:
        if entity_type in DELEGATED or self.caller.admin:
            return True
        return entity_type is entities.EXCHANGE_DATA and self._owns(entity_type, entity)

    def read(self, entity_type: EntityType, entity_id: str) -> Document:
        """Returns one document; raises `Unknown` or `AccessDenied`."""
        with self.store.reading() as view:
            document = view.get(entity_type, entity_id)
        if document is None:
            raise Unknown(f"{entity_type.name} with id {entity_id} not found")
        if not self.may_read(entity_type, document):
            raise AccessDenied()
        return document

    def read_all(self, entity_type: EntityType, ids: Iterable[str]) -> list[Document]:
        """Returns the documents that exist and that the caller may see, in the order of the ids."""
        with self.store.reading() as view:
            found = view.get_all(entity_type, ids)
        return [document for document in found.values() if self.may_read(entity_type, document)]

    def create(self, entity_type: EntityType, sent: Any) -> Document:
        """Returns the document made of a client's JSON; raises `BadRequest`, `AccessDenied` or `Stale`."""
        entity = self._new(entity_type, sent)
        with self.store.writing() as writing:
            if writing.get(entity_type, entity["id"]) is not None:
                raise Stale(f"there is already a {entity_type.name} with id {entity['id']}")
            self._check_hierarchy(writing, entity)
            return writing.save(entity_type, entity, None)

    def create_all(self, entity_type: EntityType, sent: Any) -> list[Document]:
        """Returns the documents made; ids that are taken are left out."""
        created = [self._new(entity_type, one) for one in _used_up(array(sent))]
        saved = []
        with self.store.writing() as writing:
            for entity in _used_up(created):
                if writing.get(entity_type, entity["id"]) is None:
                    self._check_hierarchy(writing, entity)
                    saved.append(writing.save(entity_type, entity, None))
        return saved

    def _new(self, entity_type: EntityType, sent: Any) -> Entity:
        entity = read(entity_type.shape, sent)
        if "rev" in entity:
            raise BadRequest("An entity with a non-null revision is not valid for creation")
        completion.check(entity_type, entity)
        if not self._may_create(entity_type, entity):
            raise AccessDenied()
        completion.complete(entity_type, entity, self.caller)
        return entity

    def modify(self, entity_type: EntityType, sent: Any) -> Document:
        """Returns the changed document; raises `BadRequest`, `AccessDenied` or `Stale`."""
        entity = self._changed(entity_type, sent)
        with self.store.writing() as writing:
            previous = writing.get(entity_type, entity["id"])
            if previous is None:
                raise Stale(f"there is no {entity_type.name} with id {entity['id']} to modify")
            if not self.may_write(entity_type, previous):
                raise AccessDenied()
            if previous.rev != entity["rev"]:
                raise Stale(f"Revision does not match for entity with id {entity['id']}")
            self._check_change(writing, entity_type, previous, entity)
            return writing.save(entity_type, entity, previous)

    def modify_all(self, entity_type: EntityType, sent: Any) -> list[Document]:
        """Returns the changed documents; unknown, stale and inaccessible ones are left out."""
        changed = [self._changed(entity_type, one) for one in array(sent)]
        saved = []
        with self.store.writing() as writing:
            for entity in changed:
                previous = writing.get(entity_type, entity["id"])
                if previous is None or not self.may_write(entity_type, previous):
                    continue
                if previous.rev == entity["rev"]:
                    self._check_change(writing, entity_type, previous, entity)
                    saved.append(writing.save(entity_type, entity, previous))
        return saved

    def _changed(self, entity_type: EntityType, sent: Any) -> Entity:
        entity = read(entity_type.shape, sent)
        if "rev" not in entity:
            raise BadRequest("An entity with a null revision is not valid for modification")
        completion.check(entity_type, entity)
        completion.complete(entity_type, entity)
        return entity

    def _check_change(self, view: View, entity_type: EntityType, previous: Document, entity: Entity) -> None:
        """Raises when a write would give somebody access by another way than sharing."""
        if entity_type in DELEGATED:
            known = previous.entity.get("securityMetadata")
            if known is not None and _unordered(known) != _unordered(entity.get("securityMetadata")):
                raise BadRequest(
                    "Impossible to modify directly security metadata: use `share` methods instead."
                )
        elif "parentId" in entity_type.shape.members:
            if not self.caller.admin and previous.entity.get("parentId") != entity.get("parentId"):
                raise AccessDenied("only administrators may change the parent of a data owner")
            self._check_hierarchy(view, entity)

    @staticmethod
    def _check_hierarchy(view: View, entity: Entity) -> None:
        """Raises `Illegal` when a data owner would be its own ancestor."""
        parent = entity.get("parentId")
        if parent is not None and entity["id"] in (parent, *ancestors(view, parent)):
            raise Illegal("a data owner cannot be its own ancestor")

    def delete(self, entity_type: EntityType, entity_id: str, rev: str | None) -> Document:
        """Returns the document, soft-deleted from now on."""
        return self._one(entity_type, entity_id, rev, self._delete)

    def delete_all(self, entity_type: EntityType, revisions: Revisions) -> list[Document]:
        """Returns the documents that were soft-deleted."""
        return self._several(entity_type, revisions, self._delete)

    @staticmethod
    def _delete(writing: Writing, entity_type: EntityType, document: Document) -> Document:
        return writing.save(entity_type, document.entity | {"deletionDate": now_ms()}, document)

    def undelete(self, entity_type: EntityType, entity_id: str, rev: str) -> Document:
        """Returns the document, no longer deleted."""
        return self._one(entity_type, entity_id, rev, self._undelete)

    def undelete_all(self, entity_type: EntityType, revisions: Revisions) -> list[Document]:
        """Returns the documents that are no longer deleted."""
        return self._several(entity_type, revisions, self._undelete)

    @staticmethod
    def _undelete(writing: Writing, entity_type: EntityType, document: Document) -> Document:
        entity = document.entity
        entity.pop("deletionDate", None)
        return writing.save(entity_type, entity, document)

    def purge(self, entity_type: EntityType, entity_id: str, rev: str) -> Document:
        """Returns the document as it was before it was removed for good."""
        return self._one(entity_type, entity_id, rev, self._purge)

    def purge_all(self, entity_type: EntityType, revisions: Revisions) -> list[Document]:
        """Returns the documents, as they were, that were removed for good."""
        return self._several(entity_type, revisions, self._purge)

    @staticmethod
    def _purge(writing: Writing, entity_type: EntityType, document: Document) -> Document:
        writing.purge(entity_type, document)
        return document

    def _one(
        self,
        entity_type: EntityType,
        entity_id: str,
        rev: str | None,
        change: Callable[[Writing, EntityType, Document], Document],
    ) -> Document:
        with self.store.writing() as writing:
            document = writing.get(entity_type, entity_id)
            if document is None:
                raise Unknown(f"Entity with id {entity_id} not found")
            if not self.may_write(entity_type, document):
                raise AccessDenied()
            if rev is not None and rev != document.rev:
                raise Stale(f"Revision does not match for entity with id {entity_id}")
            return change(writing, entity_type, document)

    def _several(
        self,
        entity_type: EntityType,
        revisions: Revisions,
        change: Callable[[Writing, EntityType, Document], Document],
    ) -> list[Document]:
        changed = []
        with self.store.writing() as writing:
            for entity_id, rev in revisions:
                document = writing.get(entity_type, entity_id)
                if document is None or rev not in (None, document.rev):
                    continue
                if self.may_write(entity_type, document):
                    with suppress(Refused):
                        changed.append(change(writing, entity_type, document))
        return changed


def array(sent: Any) -> list[Any]:
    """Returns the items of a batch; raises `BadRequest` when it is none."""
    if type(sent) is not list:
        raise BadRequest("the body must be an array")
    return sent


def _used_up(items: list[Any]) -> Iterator[Any]:
    """Yields the items and keeps none of them: a batch is large, and so is what is made of it."""
    items.reverse()
    while items:
        yield items.pop()


def _unordered(value: Any) -> Any:
    """Returns JSON in a form that compares lists as sets."""
    if isinstance(value, dict):
        return {name: _unordered(member) for name, member in value.items()}
    if isinstance(value, list):
        return frozenset(value)
    return value
