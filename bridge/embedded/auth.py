"""Users prove who they are: passwords, tokens, JWTs.

Facts: the login name may be the user's id, login, e-mail or phone, with or without the group in front; the
secret is the password or a token. Clients read `exp` and `tac` of a JWT and do not check its signature.

Strategy: passwords and tokens of a user are hashed with scrypt under one salt of that user, so that an
attempt costs one scrypt however many tokens there are, and one as well when there is no such user. A secret
that was verified is remembered for a minute under an HMAC with a key of the process, together with the
revision of the user, so that a change counts at once in every process.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jwt

from bridge.embedded.access import Caller
from bridge.embedded.entities import DATA_OWNERS, DEVICE, HEALTHCARE_PARTY, USER, EntityType
from bridge.embedded.errors import BadRequest, LoginFailed, SecretTooShort, TooManyAttempts, Unknown
from bridge.embedded.model import MAX_INTEGER, Entity
from bridge.embedded.store import Credential, Document, Store, View, Writing

GROUP = "embedded"
PASSWORD = ""
"""The name of the password among the credentials of a user."""
TOKEN = "token:"
"""Begins the name of a token among them."""
PASSWORD_CLASS_LEVEL = 40
JWT_SECONDS = 3600
REFRESH_JWT_SECONDS = 86_400
CLOCK_SKEW_SECONDS = 10
AUTH_AUDIENCE = "com.icure.AuthJwt"
REFRESH_AUDIENCE = "com.icure.RefreshJwt"
REMEMBERED_SECONDS = 60
REMEMBERED_SECRETS = 1024
SHORTEST_SECRET = 6
SHORTEST_PASSWORD = 8
SHORT_TOKEN_LENGTH = 10
SHORT_TOKEN_SECONDS = 600
NEVER_EXPIRES = -1
SALT_BYTES = 16
SCRYPT_COST = 2**14
KEY_FILE = "jwt.key"
KEY_BYTES = 32
OWNER_MEMBERS = (("hcp", "healthcarePartyId"), ("patient", "patientId"), ("device", "deviceId"))
ADMIN_METADATA = {"roles": ["ADMIN"], "isAdmin": True, "inheritsRoles": False}


def now_ms() -> int:
    """Returns the time in epoch milliseconds."""
    return time.time_ns() // 1_000_000


def digest(secret: str, salt: bytes) -> bytes:
    """Returns the scrypt hash of a password or token."""
    return hashlib.scrypt(secret.encode(), salt=salt, n=SCRYPT_COST, r=8, p=1, maxmem=2**26)


def data_owner_of(user: Entity) -> tuple[str | None, str | None]:
    """Returns type and id of the data owner that a user is."""
    for owner_type, member in OWNER_MEMBERS:
        if member in user:
            return owner_type, user[member]
    return None, None


def data_owner(view: View, data_owner_id: str) -> tuple[EntityType, Document] | None:
    """Returns the data owner with this id, whatever its type."""
    for entity_type in DATA_OWNERS:
        document = view.get(entity_type, data_owner_id)
        if document is not None:
            return entity_type, document
    return None


def ancestors(view: View, data_owner_id: str | None) -> tuple[str, ...]:
    """Returns the ids above a data owner in the hierarchy, topmost first."""
    above: list[str] = []
    current = data_owner_id
    while current is not None:
        document = view.get(HEALTHCARE_PARTY, current) or view.get(DEVICE, current)
        current = document.entity.get("parentId") if document is not None else None
        if current in above or current == data_owner_id:
            break
        if current is not None:
            above.insert(0, current)
    return tuple(above)


def caller_for(view: View, user: Entity) -> Caller:
    """Returns the caller that a user is."""
    owner_type, owner_id = data_owner_of(user)
    admin = bool(user.get("systemMetadata", {}).get("isAdmin"))
    return Caller(user["id"], owner_id, owner_type, ancestors(view, owner_id), admin)


def _is_active(document: Document | None) -> bool:
    return document is not None and not document.deleted and document.entity.get("status") == "ACTIVE"


def _candidates(view: View, name: str) -> Iterator[Document]:
    name = name.removeprefix(f"{GROUP}/").removeprefix(f"{GROUP}:")
    ids = [name] + [
        user_id
        for member in ("login", "email", "mobilePhone")
        for user_id in view.found(f"user.{member}", name)
    ]
    for document in view.get_all(USER, ids).values():
        if _is_active(document):
            yield document


def check_password(password: str) -> None:
    """Raises `BadRequest` when a password is too short."""
    if len(password) < SHORTEST_PASSWORD:
        raise BadRequest(f"Your password is too short: {SHORTEST_PASSWORD} characters at least")


def store_password(writing: Writing, user_id: str, password: str) -> None:
    """Stores the hash of a new password; raises `BadRequest` when it is too short."""
    check_password(password)
    salt = _salt(writing, user_id)
    writing.set_credential(user_id, Credential(PASSWORD, salt, digest(password, salt), None))


def store_token(writing: Writing, user: Entity, key: str, token: str, seconds: int) -> None:
    """Stores a token in the place of the one with the same key and notes it on the user, who loses those that expired.

    A validity of -1 seconds means forever; tokens of fewer than 10 characters live 10 minutes at most.
    """
    if len(token) < SHORTEST_SECRET:
        raise BadRequest(f"a token must have {SHORTEST_SECRET} characters at least")
    if seconds != NEVER_EXPIRES:
        seconds = max(1, seconds)
    if len(token) < SHORT_TOKEN_LENGTH:
        seconds = SHORT_TOKEN_SECONDS if seconds == NEVER_EXPIRES else min(seconds, SHORT_TOKEN_SECONDS)
    created = now_ms()
    expires = None if seconds == NEVER_EXPIRES else min(created + seconds * 1000, MAX_INTEGER)
    salt = _salt(writing, user["id"])
    for known in writing.credentials(user["id"]):
        if known.expires is not None and known.expires < created:
            writing.remove_credential(user["id"], known.name)
            user.get("authenticationTokens", {}).pop(known.name.removeprefix(TOKEN), None)
    writing.set_credential(user["id"], Credential(f"{TOKEN}{key}", salt, digest(token, salt), expires))
    user.setdefault("authenticationTokens", {})[key] = {"creationTime": created, "validity": seconds}


def _salt(view: View, user_id: str) -> bytes:
    known = view.credentials(user_id)
    return known[0].salt if known else secrets.token_bytes(SALT_BYTES)


@dataclass(frozen=True, slots=True)
class _Remembered:
    user_id: str
    rev: str
    until: float


class Guard(Protocol):
    """Counts wrong passwords, by login and by address; whoever serves the store brings one."""

    def origin(self, peer: str | None, forwarded: str) -> str:
        """Returns the address that a request came from, given its `X-Forwarded-For`."""

    def wait(self, login: str, address: str) -> int:
        """Returns in how many seconds the next try is allowed; 0 for at once."""

    def failed(self, login: str, address: str) -> None:
        """Counts a wrong password."""

    def succeeded(self, login: str, address: str) -> None:
        """Learns of a right one."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A login from outside, which its guard may hold up."""

    guard: Guard
    name: str
    address: str

    def begin(self) -> None:
        """Raises `TooManyAttempts` while the next try has to wait."""
        wait = self.guard.wait(self.name, self.address)
        if wait:
            raise TooManyAttempts(wait)

    def end(self, *, well: bool) -> None:
        """Tells the guard how it went."""
        (self.guard.succeeded if well else self.guard.failed)(self.name, self.address)


class Authentication:
    """Logins and tokens of one store, in one process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._jwt_key = _key_file(store.data_dir / KEY_FILE)
        self._process_key = secrets.token_bytes(KEY_BYTES)
        self._no_salt = secrets.token_bytes(SALT_BYTES)
        self._remembered: dict[bytes, _Remembered] = {}
        self._named: dict[bytes, tuple[Caller, float]] = {}
        """Whom a JWT names, and until when (epoch seconds)."""
        self._lock = threading.Lock()

    def verify(self, name: str, secret: str, attempt: Attempt | None = None) -> Caller:
        """Returns the user with this name and password or token; raises `LoginFailed`, `TooManyAttempts`."""
        mark = hmac.digest(self._process_key, f"{name}\0{secret}".encode(), "sha256")
        known = self._remembered.get(mark)
        with self._store.reading() as view:
            if known is not None and known.until > time.monotonic():
                document = view.get(USER, known.user_id)
                if document is not None and document.rev == known.rev:
                    return caller_for(view, document.entity)
            if attempt is not None:
                attempt.begin()
            candidates = [(user, view.credentials(user.id)) for user in _candidates(view, name)]
        for user, credentials in candidates:
            matched = self._matching(credentials, secret)
            if matched is not None:
                self._remember(mark, user, matched)
                if attempt is not None:
                    attempt.end(well=True)
                with self._store.reading() as view:
                    return caller_for(view, user.entity)
        if not any(credentials for _, credentials in candidates):
            digest(secret, self._no_salt)
        if attempt is not None:
            attempt.end(well=False)
        raise LoginFailed()

    @staticmethod
    def _matching(credentials: list[Credential], secret: str) -> Credential | None:
        """Returns the valid credential that this secret is, after comparing it with every one."""
        matched = None
        hashed: dict[bytes, bytes] = {}
        for credential in credentials:
            if credential.salt not in hashed:
                hashed[credential.salt] = digest(secret, credential.salt)
            valid = credential.expires is None or now_ms() <= credential.expires
            if hmac.compare_digest(hashed[credential.salt], credential.digest) and valid:
                matched = credential
        return matched

    def _remember(self, mark: bytes, user: Document, credential: Credential) -> None:
        seconds = float(REMEMBERED_SECONDS)
        if credential.expires is not None:
            seconds = min(seconds, (credential.expires - now_ms()) / 1000)
        with self._lock:
            if len(self._remembered) >= REMEMBERED_SECRETS:
                self._remembered.clear()
            self._remembered[mark] = _Remembered(user.id, user.rev, time.monotonic() + seconds)

    def login(
        self,
        name: str,
        secret: str,
        seconds: int = JWT_SECONDS,
        group: str | None = None,
        attempt: Attempt | None = None,
    ) -> dict[str, Any]:
        """Returns the answer to a login: an authentication JWT and a refresh JWT; raises as `verify`."""
        if len(secret) < SHORTEST_SECRET:
            raise SecretTooShort(f"a secret has {SHORTEST_SECRET} characters at least")
        if not 0 < seconds <= JWT_SECONDS:
            raise LoginFailed(f"duration must be between 1 and {JWT_SECONDS} seconds")
        caller = self.verify(name, secret, attempt)
        _check_group(group)
        return {
            "token": self._auth_jwt(caller, seconds),
            "refreshToken": self._jwt(
                {"u": caller.user_id, "jwtD": seconds}, REFRESH_AUDIENCE, REFRESH_JWT_SECONDS
            ),
            "successful": True,
        }

    def refresh(self, refresh_jwt: str) -> dict[str, Any]:
        """Returns the answer to a refresh: a new authentication JWT; raises `LoginFailed`."""
        claims = self._claims(refresh_jwt, REFRESH_AUDIENCE)
        return {"token": self._auth_jwt(self._user_of(claims), claims["jwtD"]), "successful": True}

    def switch(self, refresh_jwt: str, group: str) -> dict[str, Any]:
        """Returns the answer to a change into the only group there is: two new JWTs; raises `LoginFailed`."""
        _check_group(group)
        claims = self._claims(refresh_jwt, REFRESH_AUDIENCE)
        caller = self._user_of(claims)
        renewed = {"u": caller.user_id, "jwtD": claims["jwtD"]}
        return {
            "token": self._auth_jwt(caller, claims["jwtD"]),
            "refreshToken": self._jwt(renewed, REFRESH_AUDIENCE, REFRESH_JWT_SECONDS),
            "successful": True,
        }

    def caller_of(self, auth_jwt: str) -> Caller:
        """Returns the caller that an authentication JWT names; raises `LoginFailed`.

        A JWT says all that is asked of it, so one that was verified is remembered until it expires.
        """
        mark = hmac.digest(self._process_key, auth_jwt.encode(), "sha256")
        known = self._named.get(mark)
        if known is not None and known[1] > time.time() - CLOCK_SKEW_SECONDS:
            return known[0]
        claims = self._claims(auth_jwt, AUTH_AUDIENCE)
        caller = Caller(
            claims["u"],
            claims.get("doId"),
            claims.get("doTp"),
            tuple(claims.get("hh", ())),
            claims.get("adm", False),
        )
        with self._lock:
            if len(self._named) >= REMEMBERED_SECRETS:
                self._named.clear()
            self._named[mark] = caller, float(claims["exp"])
        return caller

    def _user_of(self, claims: dict[str, Any]) -> Caller:
        with self._store.reading() as view:
            document = view.get(USER, claims["u"])
            if document is None or not _is_active(document):
                raise LoginFailed("the user is not active")
            return caller_for(view, document.entity)

    def _auth_jwt(self, caller: Caller, seconds: int) -> str:
        claims: dict[str, Any] = {"u": caller.user_id, "hh": list(caller.ancestors)}
        claims |= {"tac": PASSWORD_CLASS_LEVEL, "jwtD": seconds, "adm": caller.admin}
        if caller.data_owner_id is not None:
            claims |= {"doId": caller.data_owner_id, "doTp": caller.data_owner_type}
        return self._jwt(claims, AUTH_AUDIENCE, seconds)

    def _jwt(self, claims: dict[str, Any], audience: str, seconds: int) -> str:
        expiry = int(time.time()) + seconds
        return jwt.encode(claims | {"aud": audience, "exp": expiry}, self._jwt_key, algorithm="HS256")

    def _claims(self, token: str, audience: str) -> dict[str, Any]:
        try:
            return jwt.decode(
                token,
                self._jwt_key,
                algorithms=["HS256"],
                audience=audience,
                leeway=CLOCK_SKEW_SECONDS,
                options={"require": ["exp", "aud", "u"]},
            )
        except jwt.InvalidTokenError:
            raise LoginFailed("the token is not valid or has expired") from None


def _check_group(group: str | None) -> None:
    if group not in (None, "", GROUP):
        raise LoginFailed()


def find_user(view: View, name: str) -> Document:
    """Returns the user with this id, login, e-mail or phone; raises `Unknown`."""
    document = view.get(USER, name)
    if document is not None:
        return document
    for member in ("login", "email", "mobilePhone"):
        for user_id in view.found(f"user.{member}", name):
            found = view.get(USER, user_id)
            if found is not None:
                return found
    raise Unknown("there is no such user")


def new_token() -> str:
    """Returns a random token."""
    return str(uuid.uuid4())


def _key_file(path: Path) -> bytes:
    """Returns the key in this file, which is made with mode 0600 when there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(KEY_BYTES))
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_bytes()
