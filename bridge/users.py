"""iCure's users and tokens, for administrators and for oneself: what is asked goes upstream as the caller.

Facts: one of login, e-mail and phone must be given, and nobody else may have it. iCure decides who may do what. A token
is a password that ends; making one under the name of another ends that one.

Rule: passwords and tokens pass through here and are kept nowhere; of a user only `SHOWN` is told.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bridge.errors import (
    Conflict,
    Duplicate,
    Forbidden,
    Invalid,
    Issue,
    KeyReused,
    NotFound,
    PreconditionFailed,
    Unprocessable,
)
from bridge.homes import instant
from bridge.upstream import Client
from mappings.values import Entity, Json

PATH = "user"
SHORTEST_PASSWORD = 8
LONGEST_TEXT = 255
DEFAULT_TOKEN_SECONDS = 3600
MOST_TOKEN_SECONDS = 10 * 365 * 24 * 3600
FOREVER = -1
ENDED = 1
"""For so many seconds the token works, unknown to everybody, that takes the place of an ended one."""
MOST_USERS = 1000
ONLY_ADMINISTRATORS = "iCure lets only administrators manage users."
CHANGED = "The user was changed meanwhile."
DELEGATION_TAGS = frozenset(
    {
        *("all", "administrativeData", "generalInformation", "financialInformation", "medicalInformation"),
        *("anonymousMedicalInformation", "sensitiveInformation", "confidentialInformation"),
        *("cdItemRisk", "cdItemFamilyRisk", "cdItemHealthcareelement", "cdItemHealthcareapproach"),
        *("cdItemAllergy", "cdItemDiagnosis", "cdItemLab", "cdItemResult", "cdItemParameter"),
        *("cdItemMedication", "cdItemTreatment", "cdItemVaccine"),
    }
)


def _text(value: Json) -> bool:
    return isinstance(value, str) and bool(value.strip()) and len(value) <= LONGEST_TEXT


def _matching(pattern: str) -> Callable[[Json], bool]:
    form = re.compile(pattern)
    return lambda value: _text(value) and form.fullmatch(str(value)) is not None


def _delegations(value: Json) -> bool:
    return isinstance(value, dict) and all(
        tag in DELEGATION_TAGS and isinstance(some, list) and all(map(_text, some))
        for tag, some in value.items()
    )


FORMS: Mapping[str, tuple[Callable[[Json], bool], str]] = {
    "name": (_text, "text"),
    "login": (_matching(r"[^:\x00-\x1f\x7f]+"), "text without a colon"),
    "email": (_matching(r"[^\s@<>(),;:\"\[\]\\]+@[^\s@<>(),;:\"\[\]\\]+"), "an e-mail address"),
    "mobilePhone": (_matching(r"\+?[0-9]{6,20}"), "a phone number: 6 to 20 digits, + in front or not"),
    "status": (
        lambda value: value in ("ACTIVE", "DISABLED", "REGISTERING"),
        "ACTIVE, DISABLED or REGISTERING",
    ),
    "healthcarePartyId": (_text, "the id of a healthcare party"),
    "patientId": (_text, "the id of a patient"),
    "deviceId": (_text, "the id of a device"),
    "autoDelegations": (_delegations, "lists of data owner ids by iCure's delegation tags, such as all"),
    "password": (
        _matching(rf"(?s).{{{SHORTEST_PASSWORD},}}"),
        f"text of {SHORTEST_PASSWORD} to {LONGEST_TEXT} characters",
    ),
}
"""What may be said of a user, and what it must look like; no text is longer than `LONGEST_TEXT`."""
BY_ADMINISTRATORS = ("status", "healthcarePartyId", "patientId", "deviceId")
"""What iCure lets nobody else change; it leaves these as they are without a word."""
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


def find(client: Client, asked: Iterable[tuple[str, str]]) -> tuple[list[Entity], str]:
    """Returns users and where the next page begins, empty at the end.

    `asked` holds one criterion or none (`email`, `mobilePhone`, `patientId`, `healthcarePartyId`, `search`), and
    `limit` and `start`. Raises `Invalid`, and `Forbidden` for who is no administrator.
    """
    given: dict[str, str] = {}
    for name, value in asked:
        if name in given or not value.strip():
            raise Invalid("Each parameter is given once and says something.")
        given[name] = value
    limit, start = given.get("limit", "100"), given.get("start", "")
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
        rows, following = client.users(found, start, int(limit))
    except Forbidden as e:
        raise Forbidden(ONLY_ADMINISTRATORS) from e
    if start and not rows:
        raise Invalid("The user with whom this page begins is there no more: begin again without start.")
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


def create(client: Client, sent: Entity, user_id: str) -> Entity:
    """Returns the new user, or the one that was made under this id when the same was sent before.

    Raises `Invalid`, `Duplicate` for a name that is taken, `KeyReused` for an id that is another's, `Forbidden`.
    """
    said = _checked(sent)
    user = {"id": user_id, **_as_icure(said)}
    try:
        return _written(client, said, lambda: client.create(PATH, user))
    except (Conflict, Duplicate):
        before = client.read(PATH, user_id)
        if before is None or before.get("deletionDate"):
            raise
        if any(before.get(name) != said[name] for name in NAMES if name in said):
            raise KeyReused() from None
        return before


def update(client: Client, user_id: str, sent: Entity, version: str | None) -> Entity:
    """Returns the user, which says of itself from now on what was sent; what is not told here is left as it is.

    The password stays unless one is sent. Raises `PreconditionFailed` when `version` is not the present rev, and as
    `create`.
    """
    said = _checked(sent)
    user = read(client, user_id)
    _check_version(user, version)
    _check_allowed(
        client, [name for name in BY_ADMINISTRATORS if said.get(name) not in (None, user.get(name))]
    )
    rest = {name: value for name, value in user.items() if name not in FORMS}
    with _meanwhile(version):
        return _written(
            client, {**said, "id": user_id}, lambda: client.modify(PATH, {**rest, **_as_icure(said)})
        )


def delete(client: Client, user_id: str, version: str | None) -> None:
    """Removes a user, whose names are free from then on. Raises `NotFound`, `Forbidden`, `PreconditionFailed`."""
    user = read(client, user_id)
    _check_version(user, version)
    try:
        with _meanwhile(version):
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
        if not t.get("deletionDate") and t["validity"] != ENDED
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
    client.create_token(user_id, name, ENDED)


def _checked(sent: Entity) -> Entity:
    """Returns what was sent of a user. Raises `Invalid` with everything that is wrong with it."""
    issues = [
        Issue(
            "invalid",
            "This is not known of a user here.",
            name if re.fullmatch("[A-Za-z]{1,64}", name) else None,
        )
        for name in sent
        if name not in FORMS
    ]
    said = {name: value for name, value in sent.items() if value is not None}
    issues += [
        Issue("invalid", f"This must be {form}.", name)
        for name, (fits, form) in FORMS.items()
        if name in said and not fits(said[name])
    ]
    if not issues and not any(name in said for name in NAMES):
        issues.append(Issue("required", f"One of {', '.join(NAMES)} must be given."))
    if issues:
        raise Invalid(issues=issues)
    return said


def _check_version(user: Entity, version: str | None) -> None:
    if version not in (None, user["rev"]):
        raise PreconditionFailed(CHANGED)


@contextmanager
def _meanwhile(version: str | None) -> Iterator[None]:
    """Says of who writes and is overtaken what says who comes too late: 412 when a version was asked for."""
    try:
        yield
    except Conflict as e:
        raise Conflict(CHANGED) if version is None else PreconditionFailed(CHANGED) from e


def _check_allowed(client: Client, changed: Sequence[str]) -> None:
    """Raises `Forbidden` when something changes that only administrators change, and the caller is none."""
    try:
        if changed:
            client.users_by_login("", 1)
    except Forbidden as e:
        raise Forbidden(issues=[Issue("forbidden", ONLY_ADMINISTRATORS, name) for name in changed]) from e


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
        try:
            names = taken(client, said)
        except Forbidden:
            names = []
        if not names:
            raise Unprocessable("iCure refuses this; perhaps another user has one of the names.") from e
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
