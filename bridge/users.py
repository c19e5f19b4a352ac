"""iCure's users and tokens, for administrators and for oneself: what is asked goes upstream as the caller.

Facts: one of login, e-mail and phone must be given, and nobody else may have it. iCure decides who may do what. A token
is a password that ends; making one under the name of another ends that one.

Rule: passwords and tokens pass through here and are kept nowhere; of a user only `SHOWN` is told.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bridge.errors import Duplicate, Forbidden, Invalid, Issue, NotFound, PreconditionFailed, Unprocessable
from bridge.homes import instant
from bridge.upstream import Client
from mappings.values import Entity, Json

PATH = "user"
SHORTEST_PASSWORD = 8
DEFAULT_TOKEN_SECONDS = 3600
MOST_TOKEN_SECONDS = 10 * 365 * 24 * 3600
FOREVER = -1
MOST_USERS = 1000
ONLY_ADMINISTRATORS = "iCure lets only administrators manage users."


def _text(value: Json) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _matching(pattern: str) -> Callable[[Json], bool]:
    form = re.compile(pattern)
    return lambda value: isinstance(value, str) and form.fullmatch(value) is not None


def _lists_of_text(value: Json) -> bool:
    return isinstance(value, dict) and all(
        isinstance(some, list) and all(map(_text, some)) for some in value.values()
    )


FORMS: Mapping[str, tuple[Callable[[Json], bool], str]] = {
    "name": (_text, "text"),
    "login": (_matching(r"[^:\x00-\x1f\x7f]*[^:\s\x00-\x1f\x7f][^:\x00-\x1f\x7f]*"), "text without a colon"),
    "email": (_matching(r"[^\s@<>(),;:\"\[\]\\]+@[^\s@<>(),;:\"\[\]\\]+"), "an e-mail address"),
    "mobilePhone": (_matching(r"\+?[0-9]{6,20}"), "a phone number: 6 to 20 digits, + in front or not"),
    "status": (
        lambda value: value in ("ACTIVE", "DISABLED", "REGISTERING"),
        "ACTIVE, DISABLED or REGISTERING",
    ),
    "healthcarePartyId": (_text, "the id of a healthcare party"),
    "patientId": (_text, "the id of a patient"),
    "deviceId": (_text, "the id of a device"),
    "autoDelegations": (_lists_of_text, "lists of data owner ids by what is shared with them"),
    "password": (
        lambda value: isinstance(value, str) and len(value) >= SHORTEST_PASSWORD,
        f"text of {SHORTEST_PASSWORD} characters at least",
    ),
}
"""What may be said of a user, and what it must look like."""
NAMES = ("login", "email", "mobilePhone")
SHOWN = ("id", "rev", "created", *(name for name in FORMS if name != "password"), "groupId", "roles")


@dataclass(frozen=True, slots=True)
class Token:
    """A token as its owner sees it: the secret only where it was made just now."""

    name: str
    created: int
    """Epoch milliseconds."""
    seconds: int
    """How long it works from then on; -1 for ever."""

    @property
    def ends(self) -> int | None:
        """When it ends (epoch milliseconds), None for never."""
        return None if self.seconds == FOREVER else self.created + self.seconds * 1000

    def told(self) -> Entity:
        """Returns the token as JSON."""
        ends = {} if self.ends is None else {"expiresAt": instant(self.ends)}
        return {"name": self.name, "createdAt": instant(self.created), **ends}


def shown(user: Entity) -> Entity:
    """Returns what is told of a user: neither hashes nor tokens."""
    return {name: user[name] for name in SHOWN if user.get(name) not in (None, [], {})}


def find(client: Client, given: Mapping[str, str]) -> tuple[list[Entity], str]:
    """Returns users and where the next page begins, empty at the end.

    `given` holds one criterion or none (`email`, `mobilePhone`, `patientId`, `healthcarePartyId`, `search`), and
    `limit` and `start`. Raises `Invalid`, and `Forbidden` for who is no administrator.
    """
    limit = given.get("limit", "100")
    if not re.fullmatch("[1-9][0-9]{0,3}", limit) or int(limit) > MOST_USERS:
        raise Invalid(f"limit is a whole number from 1 to {MOST_USERS}.")
    criteria = {name: value for name, value in given.items() if name not in ("limit", "start")}
    if len(criteria) > 1 or not criteria.keys() <= FINDING.keys():
        raise Invalid(f"Users are found by one of {', '.join(FINDING)}, in pages with limit and start.")
    try:
        found: Entity | list[Entity] = {"$type": "AllUsersFilter"}
        for name, value in criteria.items():
            found = FINDING[name](client, value)
        if isinstance(found, list):
            return [shown(user) for user in found], ""
        rows, following = client.users(found, given.get("start", ""), int(limit))
    except Forbidden as e:
        raise Forbidden(ONLY_ADMINISTRATORS) from e
    return [shown(user) for user in rows], following


def _one_by(member: str) -> Callable[[Client, str], list[Entity]]:
    def found(client: Client, value: str) -> list[Entity]:
        user = client.user_by(member, value)
        return [] if user is None else [user]

    return found


FINDING: Mapping[str, Callable[[Client, str], Entity | list[Entity]]] = {
    "email": _one_by("Email"),
    "mobilePhone": _one_by("PhoneNumber"),
    "patientId": lambda client, value: {"$type": "UsersByPatientIdFilter", "patientId": value},
    "healthcarePartyId": lambda client, value: {
        "$type": "UserByHealthcarePartyIdFilter",
        "healthcarePartyId": value,
    },
    "search": lambda client, value: {"$type": "UserByNameEmailPhoneFilter", "searchString": value},
}
"""By criterion the users themselves, or the filter that finds them."""


def read(client: Client, user_id: str) -> Entity:
    """Returns a user. Raises `NotFound`, for deleted ones too, and `Forbidden`."""
    try:
        user = client.read(PATH, user_id)
    except Forbidden as e:
        raise Forbidden(ONLY_ADMINISTRATORS) from e
    if user is None or user.get("deletionDate"):
        raise NotFound("There is no such user.")
    return user


def create(client: Client, sent: Entity) -> Entity:
    """Returns the new user. Raises `Invalid`, `Duplicate` for a name that is taken, `Forbidden`."""
    said = _checked(sent)
    if not any(name in said for name in NAMES):
        raise Invalid(f"One of {', '.join(NAMES)} must be given.")
    return _written(client, said, lambda: client.create(PATH, {"id": str(uuid.uuid4()), **_as_icure(said)}))


def update(client: Client, user_id: str, sent: Entity, version: str | None) -> Entity:
    """Returns the user, which says of itself from now on what was sent; what is not told here is left as it is.

    The password stays unless one is sent. Raises `PreconditionFailed` when `version` is not the present rev, and as
    `create`.
    """
    said = _checked(sent)
    user = read(client, user_id)
    if version not in (None, user["rev"]):
        raise PreconditionFailed("The user was changed meanwhile.")
    rest = {name: value for name, value in user.items() if name not in FORMS}
    return _written(client, {**said, "id": user_id}, lambda: client.modify(PATH, {**rest, **_as_icure(said)}))


def delete(client: Client, user_id: str, version: str | None) -> None:
    """Removes a user, whose names are free from then on. Raises `NotFound`, `Forbidden`, `PreconditionFailed`."""
    user = read(client, user_id)
    if version not in (None, user["rev"]):
        raise PreconditionFailed("The user was changed meanwhile.")
    try:
        client.delete(PATH, user_id, user["rev"])
    except Forbidden as e:
        raise Forbidden(ONLY_ADMINISTRATORS) from e


def tokens(client: Client) -> list[Token]:
    """Returns the caller's tokens that still work, those that end first before the others."""
    now = time.time() * 1000
    known = client.current_user().get("authenticationTokens") or {}
    found = [
        Token(name, t["creationTime"], t["validity"])
        for name, t in known.items()
        if not t.get("deletionDate")
    ]
    return sorted((t for t in found if t.ends is None or t.ends > now), key=lambda t: t.ends or float("inf"))


def create_token(client: Client, user_id: str, sent: Entity) -> tuple[Token, str]:
    """Returns a new token of the caller and its secret, which nobody learns again. Raises `Invalid`."""
    unknown = sent.keys() - {"name", "seconds"}
    if unknown:
        raise Invalid("A token has a name and seconds.")
    name, seconds = sent.get("name", str(uuid.uuid4())), sent.get("seconds", DEFAULT_TOKEN_SECONDS)
    if (
        not isinstance(name, str)
        or not re.fullmatch(r"[A-Za-z0-9_\-.]{1,100}", name)
        or name.strip(".") == ""
    ):
        raise Invalid("A name has 1 to 100 letters, digits, dots, dashes and underscores.", "name")
    if type(seconds) is not int or not (seconds == FOREVER or 1 <= seconds <= MOST_TOKEN_SECONDS):
        raise Invalid(f"seconds is a whole number from 1 to {MOST_TOKEN_SECONDS}, or -1 for ever.", "seconds")
    secret = client.create_token(user_id, name, seconds)
    return Token(name, time.time_ns() // 1_000_000, seconds), secret


def end_token(client: Client, user_id: str, name: str) -> None:
    """Ends a token of the caller within a second, by another that nobody knows. Raises `NotFound`."""
    if name not in {token.name for token in tokens(client)}:
        raise NotFound("You have no token with this name.")
    client.create_token(user_id, name, 1)


def _checked(sent: Entity) -> Entity:
    """Returns what was sent of a user. Raises `Invalid` with everything that is wrong with it."""
    issues = [Issue("invalid", "This is not known of a user here.") for _ in sent.keys() - FORMS.keys()][:1]
    said = {name: value for name, value in sent.items() if value is not None}
    issues += [
        Issue("invalid", f"This must be {form}.", name)
        for name, (fits, form) in FORMS.items()
        if name in said and not fits(said[name])
    ]
    if issues:
        raise Invalid(issues=issues)
    return said


def _as_icure(said: Entity) -> Entity:
    user: dict[str, Any] = {name: value for name, value in said.items() if name != "password"}
    return {**user, "passwordHash": said["password"]} if "password" in said else user


def is_email(text: str) -> bool:
    """Whether this has the form of an e-mail address."""
    return FORMS["email"][0](text)


def taken(client: Client, said: Entity) -> list[str]:
    """Returns which names of a user another one has."""
    return [name for name in NAMES if name in said and _is_taken(client, name, said)]


def _written(client: Client, said: Entity, write: Callable[[], Entity]) -> Entity:
    """Returns the user as written. Raises `Duplicate` that tells which name is taken, where that is why."""
    try:
        return write()
    except Forbidden as e:
        raise Forbidden(ONLY_ADMINISTRATORS) from e
    except Unprocessable as e:
        names = taken(client, said)
        if not names:
            raise
        raise Duplicate(
            issues=[Issue("duplicate", "Another user has this already.", n) for n in names]
        ) from e


def _is_taken(client: Client, name: str, said: Entity) -> bool:
    value = said[name]
    if name == "login":
        others = [user for user in client.users_by_login(value, 1) if user.get("login") == value]
    else:
        others = _one_by({"email": "Email", "mobilePhone": "PhoneNumber"}[name])(client, value)
    return any(other["id"] != said.get("id") for other in others)
