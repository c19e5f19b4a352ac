"""User accounts: made by administrators, changed by themselves in what is theirs to change.

Facts: one of login, e-mail and phone must be there, and nobody else may have it; `passwordHash` is the clear
password on the way in and `*` on the way out, where `*` in means "as it is".
"""

from __future__ import annotations

import re
from contextlib import suppress
from itertools import islice
from typing import Any

from bridge.embedded import completion
from bridge.embedded.auth import (
    GROUP,
    check_password,
    find_user,
    new_token,
    now_ms,
    store_password,
    store_token,
)
from bridge.embedded.documents import Documents, array
from bridge.embedded.entities import USER, EntityType
from bridge.embedded.errors import AccessDenied, BadRequest, Refused, Stale, Unknown
from bridge.embedded.model import Entity, Shape, property_stubs, read
from bridge.embedded.store import Document, View, Writing

KEPT = "*"
PROPERTIES = Shape().has(property_stubs, "properties")
NAMES = (("email", "Email"), ("mobilePhone", "Phone"), ("login", "Login"))
FORMS = {"email": re.compile(r".+@.+", re.DOTALL), "mobilePhone": re.compile(r"\+?[0-9]{6,20}")}
BY_SERVER = ("authenticationTokens", "systemMetadata", "passwordHash", "created")
BY_ADMINS = ("status", "healthcarePartyId", "patientId", "deviceId", "type", "roles")


class Accounts(Documents):
    """The users of a store, as one caller may use them."""

    def create(self, entity_type: EntityType, sent: Any) -> Document:
        """Returns the user made; raises `BadRequest`, `AccessDenied` or `Stale`."""
        self.caller.require_admin()
        user, password = _new(sent)
        with self.store.writing() as writing:
            if writing.get(USER, user["id"]) is not None:
                raise Stale(f"there is already a user with id {user['id']}")
            return write_new(writing, user, password)

    def create_all(self, entity_type: EntityType, sent: Any) -> list[Document]:
        """Returns the users made; those whose id or names are taken are left out."""
        self.caller.require_admin()
        users = [_new(one) for one in array(sent)]
        for member in ("id", *(name for name, _ in NAMES)):
            names = [user[member] for user, _ in users if member in user]
            if len(names) != len(set(names)):
                raise BadRequest(f"two users of the batch have the same {member}")
        made = []
        with self.store.writing() as writing:
            for user, password in users:
                if writing.get(USER, user["id"]) is None and _taken(writing, user) is None:
                    made.append(write_new(writing, user, password))
        return made

    def modify(self, entity_type: EntityType, sent: Any) -> Document:
        """Returns the changed user; raises `Unknown`, `Stale`, `AccessDenied` or `BadRequest`."""
        user = _changed(sent)
        with self.store.writing() as writing:
            return self._write_changed(writing, user)

    def modify_all(self, entity_type: EntityType, sent: Any) -> list[Document]:
        """Returns the changed users; those that cannot be changed are left out."""
        users = [_changed(one) for one in array(sent)]
        saved = []
        with self.store.writing() as writing:
            for user in users:
                with suppress(Refused):
                    saved.append(self._write_changed(writing, user))
        return saved

    def _write_changed(self, writing: Writing, user: Entity) -> Document:
        previous = writing.get(USER, user["id"])
        if previous is None:
            raise Unknown(f"User {user['id']} does not exist")
        if not self.may_read(USER, previous):
            raise AccessDenied()
        if previous.rev != user["rev"]:
            raise Stale(f"Outdated revision for user {user['id']}")
        known = previous.entity
        password = user.pop("passwordHash", KEPT)
        for member in BY_SERVER if self.caller.admin else (*BY_SERVER, *BY_ADMINS):
            user.pop(member, None)
            if member in known:
                user[member] = known[member]
        settle(user, known)
        _check_free(writing, user, known)
        if password != KEPT:
            store_password(writing, user["id"], password)
            user["passwordHash"] = KEPT
        return writing.save(USER, user, previous)

    def set(self, name: str, member: str, value: str | None, expected: str | None) -> Document:
        """Returns the user with another e-mail or phone; raises `Stale` when the present one is not as expected."""
        with self.store.writing() as writing:
            user = self._own(writing, name).entity
            if user.get(member) != expected:
                raise Stale(f"{member} is not the expected one")
            return self._write_changed(writing, user | {member: value or ""})

    def set_password(self, name: str, password: str) -> Document:
        """Returns the user, who logs in with another password from now on; raises `BadRequest`."""
        check_password(password)
        with self.store.writing() as writing:
            return self._write_changed(writing, self._own(writing, name).entity | {"passwordHash": password})

    def set_properties(self, name: str, sent: Any) -> Document:
        """Returns the user with these properties in the place of those with the same identifier."""
        stubs = read(PROPERTIES, {"properties": sent}).get("properties", [])
        with self.store.writing() as writing:
            user = self._own(writing, name).entity
            known = {_identifier(stub): stub for stub in [*user.get("properties", []), *stubs]}
            return self._write_changed(writing, user | {"properties": list(known.values())})

    def set_healthcare_party(self, party_id: str) -> Document:
        """Returns the caller's user, which is this HealthcareParty; only administrators become another one."""
        with self.store.writing() as writing:
            user = self._own(writing, self.caller.user_id).entity
            if user.get("healthcarePartyId") != party_id:
                self.caller.require_admin()
            return self._write_changed(writing, user | {"healthcarePartyId": party_id})

    def page(self, start: str, limit: int, *, patients: bool) -> tuple[list[Document], Document | None]:
        """Returns users by login from `start` on, and the one with which the next page begins."""
        self.caller.require_admin()
        with self.store.reading() as view:
            ids = view.ids("e.field = 'user.login' AND e.key >= ?", (start,), "key, item")
            found = (document for at in ids if (document := view.get(USER, at)) is not None)
            wanted = (one for one in found if patients or "patientId" not in one.entity)
            rows = list(islice(wanted, limit + 1))
        return rows[:limit], rows[limit] if len(rows) > limit else None

    @staticmethod
    def _undelete(writing: Writing, entity_type: EntityType, document: Document) -> Document:
        _check_free(writing, document.entity)
        return Documents._undelete(writing, entity_type, document)

    def create_token(self, name: str, key: str, seconds: int, token: str | None) -> str:
        """Returns a new token of a user, in clear for the only time; it replaces the one with the same key."""
        token = token or new_token()
        with self.store.writing() as writing:
            document = self._own(writing, name)
            if document.deleted:
                raise Unknown("there is no such user")
            user = document.entity
            store_token(writing, user, key, token, seconds)
            writing.save(USER, user, document)
        return token

    def _own(self, view: View, name: str) -> Document:
        """Returns the user under this name; who is no administrator learns of no other than itself."""
        try:
            document = find_user(view, name)
        except Unknown:
            self.caller.require_admin()
            raise
        if document.id != self.caller.user_id:
            self.caller.require_admin()
        return document

    def found_by(self, member: str, value: str) -> list[Document]:
        """Returns the users with this value that the caller may see."""
        with self.store.reading() as view:
            ids = view.found(f"user.{member}", value)
        return self.read_all(USER, ids)


def _identifier(stub: Entity) -> str | None:
    """Returns the identifier of a property's type, by which two of them are the same."""
    identifier: str | None = stub.get("type", {}).get("identifier")
    return identifier or stub.get("id")


def _new(sent: Any) -> tuple[Entity, str | None]:
    user = read(USER.shape, sent)
    if "rev" in user:
        raise BadRequest("An entity with a non-null revision is not valid for creation")
    completion.check(USER, user)
    password = user.pop("passwordHash", None)
    settle(user)
    return user, None if password == KEPT else password


def settle(user: Entity, previous: Entity | None = None) -> None:
    """Fills in what a user must have and checks the form of its names; raises `BadRequest`."""
    for member, form in FORMS.items():
        if not user.get(member, "").strip():
            user.pop(member, None)
        elif user[member] != (previous or {}).get(member) and not form.fullmatch(user[member]):
            raise BadRequest(f"{member} has not the form of one")
    if not user.get("login", "").strip():
        user.pop("login", None)
    name = user.get("login") or user.get("email") or user.get("mobilePhone")
    if name is None:
        raise BadRequest("login, email or mobilePhone must be given")
    user["login"] = name
    user.setdefault("status", "ACTIVE")
    user.setdefault("type", "database")
    user.setdefault("created", now_ms())
    user["groupId"] = GROUP


def _taken(view: View, user: Entity, previous: Entity | None = None) -> str | None:
    """Returns what to say of a name of this user that another one has; None when all are free."""
    for member, label in NAMES:
        if member not in user or user[member] == (previous or {}).get(member):
            continue
        if [other for other in view.found(f"user.{member}", user[member]) if other != user["id"]]:
            return f"A user with {label} {user[member]} already exists"
    return None


def _check_free(view: View, user: Entity, previous: Entity | None = None) -> None:
    taken = _taken(view, user, previous)
    if taken is not None:
        raise BadRequest(taken)


def write_new(writing: Writing, user: Entity, password: str | None) -> Document:
    """Returns the user, stored with its password; raises `BadRequest` when a name is taken."""
    _check_free(writing, user)
    if password is not None:
        store_password(writing, user["id"], password)
        user["passwordHash"] = KEPT
    return writing.save(USER, user, None)


def _changed(sent: Any) -> Entity:
    user = read(USER.shape, sent)
    completion.check(USER, user)
    if "rev" not in user:
        raise BadRequest("An entity with a null revision is not valid for modification")
    return user


def group_of(user: Entity) -> Entity:
    """Returns the one group in which the credentials of a user work, as `GET /user/matches` lists it."""
    group: Entity = {"groupId": GROUP, "groupName": GROUP, "groupsHierarchy": [], "userId": user["id"]}
    members = ("login", "name", "email", "healthcarePartyId", "patientId", "deviceId")
    group |= {member: user[member] for member in members if member in user}
    if "mobilePhone" in user:
        group["phone"] = user["mobilePhone"]
    return group
